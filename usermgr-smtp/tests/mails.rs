//! Every built-in mail as a mail program reads it: parsed by a parser that is not ours.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use mail_parser::{Encoding, Message, MessageParser, MimeHeaders as _, PartType};
use support::{mail, sender};
use usermgr_core::Policies;
use usermgr_core::domain::mail::MailKind;
use usermgr_core::port::mailer::Mail;
use usermgr_core::template::{BuiltInTemplates, MailTemplates as _, SampleMail};
use usermgr_smtp::build_message;

/// Every mail in every language, and what it is made of.
fn every() -> Vec<(MailKind, String, SampleMail, Mail)> {
    let templates = BuiltInTemplates::default();
    let policies = Policies::default();
    let mails: Vec<_> = templates
        .mails()
        .into_iter()
        .map(|(kind, language)| {
            let sample = SampleMail::new(kind, &policies);
            let rendered = templates.render(kind, &language, &sample.values()).unwrap();
            let (subject, text, html) = (rendered.subject, rendered.text, rendered.html);
            (kind, language, sample, Mail { subject, text, html, ..mail() })
        })
        .collect();
    assert_eq!(mails.len(), 2 * MailKind::ALL.len());
    mails
}

fn text_of(message: &Message<'_>) -> String {
    message.body_text(0).unwrap().replace("\r\n", "\n")
}

fn html_of(message: &Message<'_>) -> String {
    message.body_html(0).unwrap().replace("\r\n", "\n")
}

/// The words that a reader sees, in one line.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_mail_is_read_as_it_was_written() {
    for (kind, language, _, mail) in every() {
        let at = format!("{kind} {language}");
        let raw = build_message(&mail, &sender()).unwrap();
        assert!(raw.is_ascii(), "{at}");
        for line in raw.split(|byte| *byte == b'\n') {
            assert!(line.len() <= 79, "{at}: a line of {} bytes", line.len());
        }
        let message = MessageParser::default().parse(&raw).unwrap();
        assert_eq!(message.subject().unwrap(), mail.subject, "{at}");
        assert_eq!(
            message.from().unwrap().first().unwrap().address().unwrap(),
            "noreply@example.org",
            "{at}"
        );
        assert_eq!(message.to().unwrap().first().unwrap().address().unwrap(), "ana@example.net", "{at}");
        assert_eq!(message.header_raw("Auto-Submitted").unwrap().trim(), "auto-generated", "{at}");
        assert_eq!(message.message_id().unwrap(), format!("{}@example.org", support::ID), "{at}");
        assert_eq!(message.date().unwrap().to_timestamp(), mail.date.unix_timestamp(), "{at}");

        let root = message.content_type().unwrap();
        assert_eq!((root.ctype(), root.subtype()), ("multipart", Some("alternative")), "{at}");
        assert_eq!(message.parts.len(), 3, "{at}: the whole, its text and its HTML, and nothing attached");
        for (part, subtype) in message.parts.iter().skip(1).zip(["plain", "html"]) {
            let kind = part.content_type().unwrap();
            assert_eq!(
                (kind.ctype(), kind.subtype()),
                ("text", Some(subtype)),
                "{at}: text first, the best last"
            );
            assert_eq!(kind.attribute("charset"), Some("utf-8"), "{at}");
            assert!(!part.is_encoding_problem, "{at}");
            assert!(
                matches!(part.encoding, Encoding::None | Encoding::QuotedPrintable | Encoding::Base64),
                "{at}"
            );
            assert!(matches!(part.body, PartType::Text(_) | PartType::Html(_)), "{at}");
        }
        assert_eq!(text_of(&message).trim_end(), mail.text.trim_end(), "{at}");
        assert_eq!(html_of(&message).trim_end(), mail.html.trim_end(), "{at}");
    }
}

#[test]
fn text_and_html_say_the_same() {
    for (kind, language, sample, mail) in every() {
        let at = format!("{kind} {language}");
        let raw = build_message(&mail, &sender()).unwrap();
        let message = MessageParser::default().parse(&raw).unwrap();
        let (text, html) = (text_of(&message), html_of(&message));
        let seen = words(&mail_parser::decoders::html::html_to_text(&html));
        for line in text.lines().filter(|line| !line.is_empty()) {
            assert!(seen.contains(&words(line)), "{at}: {line:?} is not in the HTML: {seen}");
        }
        let values = sample.values();
        let (code, link) = (values.code.unwrap(), values.link.unwrap());
        let carries_code = text.lines().any(|line| line == code);
        let carries_link = text.lines().any(|line| line == link);
        let owes_code = kind.as_str().ends_with("_code")
            || matches!(kind, MailKind::VerifyEmail | MailKind::FirstTimeSetup);
        let owes_link = matches!(kind, MailKind::ResetPasswordLink | MailKind::EmailChanged);
        assert_eq!((carries_code, carries_link), (owes_code, owes_link), "{at}");
        // Whole, between two tags: what is marked and copied is the code and nothing else.
        assert_eq!(html.contains(&format!(">{code}</td>")), owes_code, "{at}");
        // To be pressed, and to be read.
        assert_eq!(html.matches(&format!("href=\"{link}\"")).count(), if owes_link { 2 } else { 0 }, "{at}");
        assert_eq!(html.contains(&format!(">{link}</a>")), owes_link, "{at}");
    }
}

#[test]
fn every_mail_says_why_it_came_and_what_to_do() {
    for (kind, language, _, mail) in every() {
        let at = format!("{kind} {language}");
        let (why, not_you) = match language.as_str() {
            "es" => ("Recibes este correo", ["Si no fuiste tú", "Si no lo esperabas", "no fuiste tú"]),
            _ => ("You receive this mail", ["that was not you", "did not expect that", "it was not you"]),
        };
        for text in [&mail.text, &mail.html] {
            assert!(text.contains(why), "{at}");
            assert!(not_you.iter().any(|words| text.contains(words)), "{at}");
        }
    }
}

#[test]
fn nothing_tells_the_sender_that_a_mail_was_read() {
    for (kind, language, sample, mail) in every() {
        let at = format!("{kind} {language}");
        let values = sample.values();
        for (from, _) in mail.html.match_indices("http") {
            assert!(mail.html[from..].starts_with(values.public_url), "{at}");
        }
        for remote in ["<img", "src=", "background=", "url(", "@import", "<link", "<script", "cid:"] {
            assert!(!mail.html.contains(remote), "{at}: {remote}");
        }
        let raw = build_message(&mail, &sender()).unwrap();
        let message = MessageParser::default().parse(&raw).unwrap();
        for header in ["Disposition-Notification-To", "Return-Receipt-To", "X-Confirm-Reading-To"] {
            assert!(message.header_raw(header).is_none(), "{at}: {header}");
        }
    }
}
