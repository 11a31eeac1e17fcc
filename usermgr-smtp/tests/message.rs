//! What a message looks like, as a real server gets it.
#![cfg(feature = "smtp")]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use support::{ID, SOON, mail, mail_to, sender, smtp};
use usermgr_core::port::mailer::{Mail, Mailer as _};
use usermgr_smtp::testing::{ReceivedMail, SmtpSink};
use usermgr_smtp::{Folder, PlaintextPolicy, Sender, Smtp, build_message};

async fn delivered(mail: &Mail) -> ReceivedMail {
    let sink = SmtpSink::start().await.unwrap();
    smtp(&sink.url()).send(mail).await.unwrap();
    let mut mails = sink.wait_for(1, SOON).await.unwrap();
    assert_eq!(mails.len(), 1);
    assert_whole(&mails[0].raw);
    mails.remove(0)
}

/// No bare CR or LF, no line longer than RFC 5322 allows, every header one of ours and once.
fn assert_whole(raw: &[u8]) {
    let text = String::from_utf8_lossy(raw);
    let lines: Vec<_> = text.split("\r\n").collect();
    for line in &lines {
        assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
        assert!(line.len() <= 998, "{} bytes", line.len());
    }
    let mail = ReceivedMail { from: String::new(), to: Vec::new(), raw: raw.to_vec() };
    let mut names = mail.header_names();
    names.sort();
    assert_eq!(
        names,
        ["Auto-Submitted", "Content-Type", "Date", "From", "MIME-Version", "Message-ID", "Subject", "To"]
    );
}

#[tokio::test]
async fn a_mail_arrives_with_its_headers_and_both_texts() {
    let mail = delivered(&mail()).await;
    assert_eq!(mail.from, "noreply@example.org");
    assert_eq!(mail.to, ["ana@example.net"]);
    assert_eq!(mail.header("From").unwrap(), "Example <noreply@example.org>");
    assert_eq!(mail.header("To").unwrap(), "ana@example.net");
    assert_eq!(mail.header("Subject").unwrap(), "Your verification code");
    assert_eq!(mail.header("Message-ID").unwrap(), format!("<{ID}@example.org>"));
    assert_eq!(mail.header("Date").unwrap(), "Fri, 02 Jan 2026 03:04:05 +0000");
    assert_eq!(mail.header("Auto-Submitted").unwrap(), "auto-generated");
    assert!(mail.header("Content-Type").unwrap().starts_with("multipart/alternative;"));
    assert_eq!(mail.text().unwrap().trim_end(), support::mail().text.trim_end());
    assert_eq!(mail.html().unwrap().trim_end(), support::mail().html.trim_end());
    assert_eq!(mail.code().as_deref(), Some("123456"));
    assert_eq!(mail.link_token().as_deref(), Some("ab-C_d9"));
}

#[tokio::test]
async fn every_attempt_is_the_same_bytes() {
    let sink = SmtpSink::start().await.unwrap();
    let mut mail = mail();
    mail.text = "Grüße, 123456\n".repeat(50);
    // Two transports, as before and after a restart.
    smtp(&sink.url()).send(&mail).await.unwrap();
    smtp(&sink.url()).send(&mail).await.unwrap();
    let mails = sink.wait_for(2, SOON).await.unwrap();
    assert_eq!(mails[0], mails[1]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/when/missing");
    Folder::new(&path, sender()).send(&mail).await.unwrap();
    assert_eq!(std::fs::read(path.join(format!("{ID}.eml"))).unwrap(), mails[0].raw);
}

#[tokio::test]
async fn another_mail_has_another_message_id_and_boundary() {
    let first = delivered(&mail()).await;
    let mut other = mail();
    other.id = "018f0000-0000-7000-8000-00000000000b".parse().unwrap();
    let second = delivered(&other).await;
    assert_ne!(first.header("Message-ID"), second.header("Message-ID"));
    assert_ne!(first.header("Content-Type"), second.header("Content-Type"));
}

#[tokio::test]
async fn what_is_typed_ends_no_line_header_or_message() {
    let evil = [
        "a\r\nBcc: eve@example.com",
        "a\nBcc: eve@example.com",
        "a\rBcc: eve@example.com",
        "a\r\n\r\nbody",
        "a\r\n.\r\nMAIL FROM:<eve@example.com>\r\nRCPT TO:<eve@example.com>\r\nDATA\r\nx\r\n.\r\n",
        "a\n.\nMAIL FROM:<eve@example.com>",
        "a\r.\rMAIL FROM:<eve@example.com>",
        "a\n.\r\nMAIL FROM:<eve@example.com>",
        "a\r\n.\nMAIL FROM:<eve@example.com>",
        "a\r\r\n.\r\r\nMAIL FROM:<eve@example.com>",
        "a\0\r\n.\r\n\0",
        ".",
        "..",
        ".\r\n",
        "\r\n.\r\n",
        "a\u{85}b\u{2028}Bcc: c\u{2029}d\u{b}e\u{c}f",
        "=?utf-8?q?a=0D=0ABcc:_eve=40example.com?=",
    ];
    for text in evil {
        let sink = SmtpSink::start().await.unwrap();
        let mut mail = mail();
        mail.subject = text.to_owned();
        mail.text = format!("{text}\n123456\n{text}");
        mail.html = text.to_owned();
        smtp(&sink.url()).send(&mail).await.unwrap();
        let mails = sink.wait_for(1, SOON).await.unwrap();
        assert_eq!(mails.len(), 1, "{text:?}");
        assert_eq!(mails[0].to, ["ana@example.net"], "{text:?}");
        assert_whole(&mails[0].raw);
        assert!(mails[0].header("Bcc").is_none(), "{text:?}");
        let verbs: Vec<_> = sink.commands().iter().map(|line| line[..4].to_owned()).collect();
        assert_eq!(verbs, ["EHLO", "MAIL", "RCPT", "DATA"], "{text:?}");
        assert_eq!(mails[0].code().as_deref(), Some("123456"), "{text:?}");
        let expected = text
            .replace("\r\n", " ")
            .replace(|c: char| c.is_control() || "\u{2028}\u{2029}".contains(c), " ");
        assert_eq!(mails[0].header("Subject").unwrap().trim(), expected.trim(), "{text:?}");
        // As a name it is refused before there is a mail.
        assert!(
            Sender::parse(&format!("{text} <a@b.example>")).is_err() || !text.contains(['\r', '\n', '\0'])
        );
    }
}

#[tokio::test]
async fn lines_that_begin_with_a_dot_arrive() {
    let mut mail = mail();
    mail.text = ".\n..\n.a\nb.\n\n...\n".to_owned();
    mail.html = mail.text.clone();
    let got = delivered(&mail).await;
    assert_eq!(got.text().unwrap().trim_end(), mail.text.trim_end());
    assert_eq!(got.html().unwrap().trim_end(), mail.html.trim_end());
}

#[tokio::test]
async fn long_lines_and_words_arrive() {
    let mut mail = mail();
    mail.text = format!("{}\n{}\n", "x".repeat(5_000), "ü".repeat(5_000));
    mail.html = format!("<p>{}</p>", "word ".repeat(2_000));
    for subject in
        ["y".repeat(3_000), "word ".repeat(300), "ж".repeat(1_000), format!("{} a", "z".repeat(75))]
    {
        mail.subject = subject;
        let got = delivered(&mail).await;
        assert_eq!(got.text().unwrap().trim_end(), mail.text.trim_end());
        assert_eq!(got.html().unwrap().trim_end(), mail.html);
        assert_eq!(got.header("Subject").unwrap().trim_end(), mail.subject.trim_end());
    }
}

#[tokio::test]
async fn any_script_arrives_over_seven_bits() {
    let sink = SmtpSink::builder().smtputf8(false).start().await.unwrap();
    for text in ["Código de verificación", "Ваш код подтверждения", "確認コード 🎉", "رمز التحقق", "a ü b"]
    {
        let sender = Sender::parse(&format!("{text} <noreply@example.org>")).unwrap();
        let mut mail = mail();
        mail.subject = text.to_owned();
        mail.text = format!("{text}\n123456\n");
        mail.html = format!("<p>{text}</p>");
        let smtp = Smtp::from_url(&sink.url(), sender, PlaintextPolicy::LoopbackOnly).unwrap();
        smtp.send(&mail).await.unwrap();
        let got = sink.mails().pop().unwrap();
        assert_whole(&got.raw);
        assert!(got.raw.is_ascii());
        assert_eq!(got.header("Subject").unwrap(), text);
        assert_eq!(got.header("From").unwrap(), format!("{text} <noreply@example.org>"));
        assert_eq!(got.text().unwrap().trim_end(), mail.text.trim_end());
        assert_eq!(got.html().unwrap().trim_end(), mail.html);
    }
}

/// What may stand before `<` by RFC 5322 §3.2.5, without its obsolete forms and comments.
fn is_phrase(text: &str) -> bool {
    let atext = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    let mut rest = text.trim_matches(' ');
    let mut words = 0;
    while !rest.is_empty() {
        let end = if rest.starts_with('"') {
            let mut escaped = false;
            let mut chars = rest.char_indices().skip(1);
            let end = chars.find(|(_, c)| {
                let ends = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            });
            let Some((end, _)) = end else { return false };
            end + 1
        } else {
            rest.find(|c| !atext(c)).unwrap_or(rest.len())
        };
        if end == 0 || !rest[..end].chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
            return false;
        }
        rest = rest[end..].trim_start_matches(' ');
        words += 1;
    }
    words > 0
}

#[test]
fn every_display_name_is_a_phrase_and_is_read_back() {
    for phrase in ["Ana", "Ana Lux", "\"Acme.io\"", "\"a \\\"b\\\" \\\\\"", "A \"b.c\" D"] {
        assert!(is_phrase(phrase), "{phrase}");
    }
    for obsolete in ["", "Acme.io", "A, B", "A:", "a@b", "A (b)", "\"a", "\"a\\\"", "ü"] {
        assert!(!is_phrase(obsolete), "{obsolete}");
    }
    let long = [
        "word ".repeat(39),
        "x".repeat(200),
        "x.".repeat(100),
        "ü ".repeat(60),
        format!("{}.", "y ".repeat(35)),
    ];
    let names = [
        "Example",
        "Ana Lux",
        "Acme.io",
        "Acme Inc.",
        "Acme, Inc.",
        "Acme: the shop",
        "ana@example.org",
        "Acme (Support)",
        "Acme; Co",
        "[Acme]",
        "A  B",
        "R&D",
        "it's",
        r#"Ana "the admin" Lux"#,
        r"back\slash",
        r#"\""#,
        "<x@y.example>",
        "=?utf-8?q?no?=",
        "Müller",
        "Müller, Söhne & Co.",
        r#"Ü "ö" \ä"#,
        "好的 🎉",
        "رمز التحقق",
    ];
    for name in names.into_iter().map(str::to_owned).chain(long.map(|name| name.trim().to_owned())) {
        let quoted = name.replace('\\', r"\\").replace('"', "\\\"");
        for address in
            ["noreply@example.org".to_owned(), format!("{}@{}example.org", "a".repeat(60), "b.".repeat(80))]
        {
            let sender = Sender::parse(&format!("\"{quoted}\" <{address}>")).unwrap();
            assert_eq!(sender.to_string().parse(), Ok(sender.clone()), "{name:?}");
            let raw = build_message(&mail(), &sender).unwrap();
            assert_whole(&raw);
            let text = String::from_utf8(raw.clone()).unwrap();
            let header: Vec<_> = text
                .split("\r\n")
                .enumerate()
                .take_while(|(n, line)| *n == 0 || line.starts_with(' '))
                .map(|(_, line)| line)
                .collect();
            for line in &header {
                assert!(line.len() <= 78 || line.contains(&address), "{name:?}: {line:?}");
                assert!(line.len() <= 76 || !line.contains("=?"), "{name:?}: {line:?}");
            }
            let value = header.concat();
            let (phrase, rest) = value.strip_prefix("From: ").unwrap().rsplit_once('<').unwrap();
            assert_eq!(rest, format!("{address}>"), "{name:?}");
            assert!(is_phrase(phrase), "{name:?}: {phrase:?}");
            let read = mail_parser::MessageParser::default().parse(&raw).unwrap();
            let from = read.from().unwrap().first().unwrap();
            assert_eq!(
                (from.name(), from.address()),
                (Some(name.as_str()), Some(address.as_str())),
                "{value:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_address_beyond_ascii_is_never_mangled() {
    let mail = mail_to("josé.müller@münchen.example");
    let sink = SmtpSink::start().await.unwrap();
    smtp(&sink.url()).send(&mail).await.unwrap();
    let got = sink.mails().pop().unwrap();
    assert_eq!(got.to, ["josé.müller@xn--mnchen-3ya.example"]);
    assert_eq!(got.header("To").unwrap(), "josé.müller@xn--mnchen-3ya.example");
    assert!(sink.commands()[1].contains(" SMTPUTF8"), "{:?}", sink.commands());

    let sink = SmtpSink::builder().smtputf8(false).start().await.unwrap();
    let error = smtp(&sink.url()).send(&mail).await.unwrap_err();
    assert!(error.is_permanent(), "{error}");
    assert!(!error.to_string().contains("jos"), "{error}");
    assert!(sink.mails().is_empty());
    assert!(sink.commands().iter().all(|line| line.starts_with("EHLO")), "{:?}", sink.commands());
}

#[tokio::test]
async fn every_address_the_core_takes_can_be_a_receiver() {
    for address in [
        "a!#$%&'*+-/=?^_`{|}~b@example.net".to_owned(),
        "ana+tag@sub.example.net".to_owned(),
        format!("{}@example.net", "a".repeat(64)),
        "用户@例え.example".to_owned(),
        "jose\u{301}@example.net".to_owned(),
        "हिन्दी@example.net".to_owned(),
    ] {
        let mail = mail_to(&address);
        let got = delivered(&mail).await;
        assert_eq!(got.to, [mail.to.as_str()], "{address}");
        assert_eq!(got.header("To").as_deref(), Some(mail.to.as_str()), "{address}");
    }
}

#[tokio::test]
async fn a_date_no_header_can_hold_is_no_panic() {
    for date in
        [time::macros::datetime!(1900-01-01 0:00 UTC), time::macros::datetime!(9999-12-31 23:59:59 UTC)]
    {
        let mut mail = mail();
        mail.date = date;
        delivered(&mail).await;
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_is_private_whole_and_replaced() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let transport = Folder::new(folder.path(), sender());
    let mut mail = mail();
    transport.send(&mail).await.unwrap();
    mail.text = "654321\n".to_owned();
    transport.send(&mail).await.unwrap();
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(names, [format!("{ID}.eml").as_str()]);
    let path = folder.path().join(&names[0]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let raw = std::fs::read(path).unwrap();
    assert_eq!(ReceivedMail { from: String::new(), to: vec![], raw }.code().as_deref(), Some("654321"));

    let blocked = Folder::new(folder.path().join(&names[0]), sender());
    assert!(blocked.send(&mail).await.unwrap_err().is_transient());
}
