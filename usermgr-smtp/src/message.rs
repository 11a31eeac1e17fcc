//! The one message every transport but the HTTP API hands over (RFC 5322).

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, MultiPartKind, SinglePart};
use lettre::{Address, Message};
use time::OffsetDateTime;
use usermgr_core::port::mailer::{Mail, MailError};

use crate::phrase;
use crate::sender::Sender;

/// The last second a four-digit year can name: 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;
/// The longest run without a space that is left as it is: header lines break at spaces only.
const MAX_WORD: usize = 70;
/// The longest line that is not broken though it could be (RFC 5322 §2.1.1, RFC 2047 §2).
const MAX_LINE: usize = 76;
/// The most bytes of one encoded word: in base64 it fits behind `Subject: ` in the 76 characters that RFC 2047 §2 allows a
/// line.
const MAX_ENCODED_WORD: usize = 39;

/// The message as SMTP and `.eml` files carry it (RFC 5322), ending in CRLF: `multipart/alternative` of text and HTML, with
/// the header `Auto-Submitted`.
///
/// It depends on nothing but its arguments: the same mail is the same bytes on every attempt.
///
/// # Errors
/// [`MailError`] when no message can be built of it.
///
/// ```
/// use usermgr_core::Email;
/// use usermgr_core::domain::id::OutboxId;
/// use usermgr_core::port::clock::{Clock as _, SystemClock};
/// use usermgr_core::port::mailer::Mail;
/// use usermgr_core::port::random::SystemRandom;
/// use usermgr_smtp::{Sender, build_message};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let now = SystemClock.now();
/// let mail = Mail {
///     id: OutboxId::new(now, &SystemRandom),
///     to: Email::parse("ana@example.org")?,
///     subject: "Hello".into(),
///     text: "Hello, Ana".into(),
///     html: "<p>Hello, Ana</p>".into(),
///     date: now,
/// };
/// let message = build_message(&mail, &Sender::parse("Example <noreply@example.org>")?)?;
/// assert!(message.starts_with(b"From: Example <noreply@example.org>"));
/// # Ok(())
/// # }
/// ```
pub fn build_message(mail: &Mail, sender: &Sender) -> Result<Vec<u8>, MailError> {
    let to = receiver(mail);
    let envelope =
        Envelope::new(Some(sender.mail_address().clone()), vec![to.clone()]).map_err(|_| unbuildable())?;
    let body = MultiPart::builder()
        .kind(MultiPartKind::Alternative)
        // "=_" stands in no quoted-printable or base64 text (RFC 2045 §6.7), and the identifier is unforeseeable.
        .boundary(format!("=_{}", mail.id.as_uuid().simple()))
        .singlepart(part(ContentType::TEXT_PLAIN, &mail.text))
        .singlepart(part(ContentType::TEXT_HTML, &mail.html));
    let message = Message::builder()
        .raw_header(from(sender))
        .to(Mailbox::new(None, to))
        .raw_header(subject(&mail.subject))
        .date(date(mail.date))
        .message_id(Some(format!("<{}@{}>", mail.id, sender.domain())))
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ))
        .envelope(envelope)
        .multipart(body)
        .map_err(|_| unbuildable())?;
    Ok(message.formatted())
}

/// The receiver, as the core's parser read it: one parser decides everywhere, and it lets nothing pass that means
/// something to SMTP or to a header. lettre's own would refuse vowel signs.
pub(crate) fn receiver(mail: &Mail) -> Address {
    Address::new_dangerous(mail.to.local(), mail.to.domain())
}

/// The subject as one line: whatever could end a header becomes a space.
pub(crate) fn one_line(text: &str) -> String {
    text.replace("\r\n", " ").replace(|c: char| c.is_control() || c == '\u{2028}' || c == '\u{2029}', " ")
}

fn unbuildable() -> MailError {
    MailError::permanent("no message can be built from this mail")
}

/// lettre leaves a name such as `Acme.io` without quotes, which RFC 5322 §4.1 calls obsolete.
fn from(sender: &Sender) -> HeaderValue {
    let address = sender.address();
    let value = match sender.name() {
        None => address.to_owned(),
        Some(name) => {
            let phrase = name_phrase(name);
            let last = phrase.rsplit("\r\n").next().map_or(0, str::len);
            let fits = "From: ".len() + last + address.len() + " <>".len() <= MAX_LINE;
            format!("{phrase}{} <{address}>", if fits { "" } else { "\r\n" })
        }
    };
    // lettre reads the address of the plain value once more, and writes the other.
    HeaderValue::dangerous_new_pre_encoded(HeaderName::new_from_ascii_str("From"), address.to_owned(), value)
}

/// A name as a phrase (RFC 5322 §3.2.5), in ASCII.
fn name_phrase(name: &str) -> String {
    let is_plain = name.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    // As in the subject: a look-alike of an encoded word would be decoded, and a quoted name is one line.
    if is_plain && !name.contains("=?") && name.len() <= MAX_WORD {
        phrase::quote(name).into_owned()
    } else {
        encoded_words(name)
    }
}

fn subject(text: &str) -> HeaderValue {
    let name = HeaderName::new_from_ascii_str("Subject");
    let text = one_line(text);
    // lettre leaves both as they are: a look-alike of an encoded word would be decoded by the reader, and a word
    // that is longer than a line may be would make a line no server has to take (RFC 5322 §2.1.1).
    if text.contains("=?") || text.split(' ').any(|word| word.len() > MAX_WORD) {
        let encoded = encoded_words(&text);
        HeaderValue::dangerous_new_pre_encoded(name, text, encoded)
    } else {
        HeaderValue::new(name, text)
    }
}

/// RFC 2047 encoded words, one a line.
fn encoded_words(text: &str) -> String {
    let mut words: Vec<String> = vec![String::new()];
    for c in text.chars() {
        match words.last_mut() {
            Some(word) if word.len() + c.len_utf8() <= MAX_ENCODED_WORD => word.push(c),
            _ => words.push(c.to_string()),
        }
    }
    let encode =
        |word: &String| format!("=?utf-8?b?{}?=", base64::engine::general_purpose::STANDARD.encode(word));
    words.iter().map(encode).collect::<Vec<_>>().join("\r\n ")
}

fn part(kind: ContentType, text: &str) -> SinglePart {
    SinglePart::builder().header(kind).body(canonical(text))
}

/// Lines end in CRLF and in nothing else (RFC 5321 §2.3.8: a bare CR or LF is how one mail smuggles a second), and
/// no control character stands in them but the tab.
fn canonical(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' | '\n' => {
                if c == '\r' {
                    chars.next_if_eq(&'\n');
                }
                out.push_str("\r\n");
            }
            '\t' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The date as lettre takes it. What four-digit years cannot say is moved to the nearest they can.
fn date(date: OffsetDateTime) -> SystemTime {
    let seconds = u64::try_from(date.unix_timestamp()).unwrap_or(0).min(LAST_SECOND);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}
