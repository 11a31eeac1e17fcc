//! Mails on standard output.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt as _;
use usermgr_core::port::mailer::{Mail, MailError, Mailer};

use crate::message::one_line;
use crate::sender::Sender;

/// Prints each mail to standard output: for a first look and for development. On a terminal the code or link stands out.
///
/// # Security
/// The mail is printed with its code or link. Where output is collected as a log, use another transport.
///
/// ```
/// use usermgr_smtp::Console;
///
/// let console = Console::new("Example <noreply@example.org>".parse()?);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Console {
    sender: Sender,
}

impl Console {
    /// Mails from this sender.
    pub const fn new(sender: Sender) -> Self {
        Self { sender }
    }

    fn readable(&self, mail: &Mail, place: Place) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "---- mail {}", mail.id);
        let _ = writeln!(out, "From: {}", self.sender);
        let _ = writeln!(out, "To: {}", mail.to);
        let _ = writeln!(out, "Subject: {}\n", one_line(&mail.subject));
        for line in mail.text.trim_end().lines() {
            // No control characters: what a user typed must not steer the terminal of whoever reads it.
            let line: String = line.chars().filter(|&c| c == '\t' || !c.is_control()).collect();
            let _ = match place {
                Place::Terminal if stands_out(&line) => writeln!(out, "    \u{1b}[1m{line}\u{1b}[0m"),
                _ => writeln!(out, "{line}"),
            };
        }
        out.push_str("----\n");
        out
    }
}

/// Where it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Terminal,
    Elsewhere,
}

/// Whether a line is what the mail is for: a code, or a link.
fn stands_out(line: &str) -> bool {
    let is_code = (4..=10).contains(&line.len()) && line.bytes().all(|b| b.is_ascii_digit());
    is_code || (line.starts_with("http") && line.contains("#token="))
}

#[async_trait]
impl Mailer for Console {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let is_terminal = std::io::stdout().is_terminal();
        let text = self.readable(mail, if is_terminal { Place::Terminal } else { Place::Elsewhere });
        let mut stdout = tokio::io::stdout();
        let written = async {
            stdout.write_all(text.as_bytes()).await?;
            stdout.flush().await
        };
        written.await.map_err(|e| MailError::transient("standard output cannot be written").with_source(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;
    use usermgr_core::domain::id::OutboxId;

    #[test]
    fn a_printed_mail_cannot_steer_the_terminal() {
        let mail = Mail {
            id: "018f0000-0000-7000-8000-000000000000".parse::<OutboxId>().unwrap(),
            to: "ana@example.org".parse().unwrap(),
            subject: "Your\u{1b}[2J code\r\nX: y".to_owned(),
            text: "Hello\u{1b}]0;title\u{7}\r\n\r\n123456\n".to_owned(),
            html: String::new(),
            date: datetime!(2026-01-02 03:04:05 UTC),
        };
        let console = Console::new(Sender::parse("Example <noreply@example.org>").unwrap());
        assert_eq!(
            console.readable(&mail, Place::Elsewhere),
            "---- mail 018f0000-0000-7000-8000-000000000000\nFrom: Example <noreply@example.org>\n\
             To: ana@example.org\nSubject: Your [2J code X: y\n\nHello]0;title\n\n123456\n----\n"
        );
        let on_a_terminal = console.readable(&mail, Place::Terminal);
        assert_eq!(on_a_terminal.matches('\u{1b}').count(), 2, "ours: {on_a_terminal:?}");
        assert!(on_a_terminal.contains("\n    \u{1b}[1m123456\u{1b}[0m\n"), "{on_a_terminal:?}");
    }

    #[test]
    fn a_code_or_a_link_stands_out_and_nothing_else() {
        for line in ["1234", "0123456789", "https://a.example/reset-password#token=x"] {
            assert!(stands_out(line), "{line}");
        }
        for line in ["", "123", "12345678901", "12 34 56", "https://a.example", "Code: 123456", "#token=x"] {
            assert!(!stands_out(line), "{line}");
        }
    }
}
