//! Mails on standard output.

use std::fmt::Write as _;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt as _;
use usermgr_core::port::mailer::{Mail, MailError, Mailer};

use crate::message::one_line;
use crate::sender::Sender;

/// Prints each mail to standard output: for a first look and for development.
///
/// # Security
/// The mail is printed with its code or link. Where output is collected as a log, use another transport.
#[derive(Debug, Clone)]
pub struct Console {
    sender: Sender,
}

impl Console {
    /// Mails from this sender.
    pub const fn new(sender: Sender) -> Self {
        Self { sender }
    }

    fn readable(&self, mail: &Mail) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "---- mail {}", mail.id);
        let _ = writeln!(out, "From: {}", self.sender);
        let _ = writeln!(out, "To: {}", mail.to);
        let _ = writeln!(out, "Subject: {}\n", one_line(&mail.subject));
        // No control characters: what a user typed must not steer the terminal of whoever reads it.
        out.extend(mail.text.trim_end().chars().filter(|&c| c == '\n' || c == '\t' || !c.is_control()));
        out.push_str("\n----\n");
        out
    }
}

#[async_trait]
impl Mailer for Console {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let text = self.readable(mail);
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
            console.readable(&mail),
            "---- mail 018f0000-0000-7000-8000-000000000000\nFrom: Example <noreply@example.org>\n\
             To: ana@example.org\nSubject: Your [2J code X: y\n\nHello]0;title\n\n123456\n----\n"
        );
    }
}
