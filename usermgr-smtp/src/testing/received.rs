//! A mail as it came, and what a reader finds in it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A mail as an SMTP server got it.
#[derive(Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "who tests reading of mails makes them")]
pub struct ReceivedMail {
    /// The envelope's sender, without angle brackets.
    pub from: String,
    /// The envelope's receivers, without angle brackets.
    pub to: Vec<String>,
    /// The message: every byte of it, with the dots of SMTP undone.
    pub raw: Vec<u8>,
}

impl ReceivedMail {
    /// A header's value, in one line and with its encoded words decoded; the first, if there are several.
    pub fn header(&self, name: &str) -> Option<String> {
        Entity::parse(&self.raw).header(name).map(|value| decode_words(&value))
    }

    /// The names of all headers, as often as they stand there.
    pub fn header_names(&self) -> Vec<String> {
        Entity::parse(&self.raw).headers.into_iter().map(|(name, _)| name).collect()
    }

    /// The plain text, decoded, with its lines ended by LF.
    pub fn text(&self) -> Option<String> {
        Entity::parse(&self.raw).part("text/plain")
    }

    /// The HTML, decoded, with its lines ended by LF.
    pub fn html(&self) -> Option<String> {
        Entity::parse(&self.raw).part("text/html")
    }

    /// The code: the first line of the plain text that is 4 to 10 digits and nothing else.
    pub fn code(&self) -> Option<String> {
        let is_code =
            |line: &&str| (4..=10).contains(&line.len()) && line.bytes().all(|b| b.is_ascii_digit());
        self.text()?.lines().map(str::trim).find(is_code).map(str::to_owned)
    }

    /// The token of the link: what follows `#token=` in the plain text.
    pub fn link_token(&self) -> Option<String> {
        let text = self.text()?;
        let (_, rest) = text.split_once("#token=")?;
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.~%".contains(c))).unwrap_or(rest.len());
        let token = rest.get(..end)?.trim_end_matches('.');
        (!token.is_empty()).then(|| token.to_owned())
    }
}

impl fmt::Debug for ReceivedMail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedMail")
            .field("from", &self.from)
            .field("to", &self.to)
            .field("raw", &String::from_utf8_lossy(&self.raw))
            .finish()
    }
}

/// Headers and a body: a message, or a part of one.
struct Entity<'a> {
    headers: Vec<(String, String)>,
    body: &'a [u8],
}

impl<'a> Entity<'a> {
    fn parse(bytes: &'a [u8]) -> Self {
        let (head, body) = match find(bytes, b"\r\n\r\n") {
            Some(at) => (bytes.get(..at).unwrap_or_default(), bytes.get(at + 4..).unwrap_or_default()),
            None => (bytes, [].as_slice()),
        };
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in String::from_utf8_lossy(head).split("\r\n") {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = headers.last_mut() {
                    value.push_str(line);
                }
            } else if let Some((name, value)) = line.split_once(':') {
                headers.push((name.to_owned(), value.trim().to_owned()));
            }
        }
        Self { headers, body }
    }

    fn header(&self, name: &str) -> Option<String> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
    }

    /// The first part of this type, decoded.
    fn part(&self, kind: &str) -> Option<String> {
        let content_type = self.header("Content-Type").unwrap_or_else(|| "text/plain".to_owned());
        let is = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if is.starts_with("multipart/") {
            let boundary = content_type.split_once("boundary=")?.1;
            let boundary = boundary.trim_start_matches('"').split(['"', ';']).next()?;
            return parts(self.body, boundary).into_iter().find_map(|part| Entity::parse(part).part(kind));
        }
        (is == kind).then(|| String::from_utf8_lossy(&self.decoded()).replace("\r\n", "\n"))
    }

    fn decoded(&self) -> Vec<u8> {
        let encoding = self.header("Content-Transfer-Encoding").unwrap_or_default();
        match encoding.to_ascii_lowercase().as_str() {
            "quoted-printable" => decode_quoted_printable(self.body),
            "base64" => {
                let text: Vec<u8> = self.body.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
                STANDARD.decode(text).unwrap_or_default()
            }
            _ => self.body.to_vec(),
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// What stands between the boundary lines.
fn parts<'a>(body: &'a [u8], boundary: &str) -> Vec<&'a [u8]> {
    let delimiter = format!("--{boundary}");
    let mut parts = Vec::new();
    let mut begun = None;
    let mut at = 0;
    for line in body.split_inclusive(|&b| b == b'\n') {
        if line.starts_with(delimiter.as_bytes()) {
            if let Some(begin) = begun {
                // The CRLF before a boundary belongs to the boundary.
                parts.push(body.get(begin..at - 2).unwrap_or_default());
            }
            begun = Some(at + line.len());
        }
        at += line.len();
    }
    parts
}

fn decode_quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'=', [b'\r', b'\n', tail @ ..]) => tail,
            (b'=', [high, low, tail @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(16 * hex(*high) + hex(*low));
                tail
            }
            _ => {
                out.push(first);
                tail
            }
        };
    }
    out
}

fn hex(digit: u8) -> u8 {
    char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok()).unwrap_or(0)
}

/// RFC 2047 encoded words in UTF-8. White space between two of them is not part of the text.
fn decode_words(value: &str) -> String {
    let mut out = String::new();
    let mut rest = value;
    let mut after_word = false;
    while let Some((before, tail)) = rest.split_once("=?") {
        let Some((decoded, tail)) = decode_word(tail) else {
            out.push_str(before);
            out.push_str("=?");
            (rest, after_word) = (tail, false);
            continue;
        };
        if !(after_word && before.trim().is_empty()) {
            out.push_str(before);
        }
        out.push_str(&decoded);
        (rest, after_word) = (tail, true);
    }
    out + rest
}

fn decode_word(text: &str) -> Option<(String, &str)> {
    let mut fields = text.splitn(3, '?');
    let (charset, encoding) = (fields.next()?, fields.next()?);
    let (word, rest) = fields.next()?.split_once("?=")?;
    let bytes = match encoding {
        "b" | "B" => STANDARD.decode(word).ok()?,
        "q" | "Q" => decode_quoted_printable(word.replace('_', " ").as_bytes()),
        _ => return None,
    };
    charset.eq_ignore_ascii_case("utf-8").then(|| (String::from_utf8_lossy(&bytes).into_owned(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(raw: &str) -> ReceivedMail {
        ReceivedMail { from: String::new(), to: Vec::new(), raw: raw.replace('\n', "\r\n").into_bytes() }
    }

    #[test]
    fn parts_are_found_and_decoded() {
        let mail = mail(
            "Subject: =?utf-8?b?w7w=?=\n =?utf-8?q?_b?= c\nContent-Type: multipart/alternative;\n boundary=\"x\"\n\n\
             --x\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n\
             caf=C3=A9 12345 =\nmore\n 0042 \nhttps://h.example/r#token=a-b_=\nC.\n\
             --x\nContent-Type: text/html\nContent-Transfer-Encoding: base64\n\nPGI+\n--x--\n",
        );
        assert_eq!(mail.header("subject").as_deref(), Some("ü b c"));
        assert_eq!(mail.text().as_deref(), Some("café 12345 more\n 0042 \nhttps://h.example/r#token=a-b_C."));
        assert_eq!(mail.html().as_deref(), Some("<b>"));
        assert_eq!(mail.code().as_deref(), Some("0042"));
        assert_eq!(mail.link_token().as_deref(), Some("a-b_C"));
    }

    #[test]
    fn a_mail_without_parts_is_text() {
        let mail = mail("Subject: a\n\nhello\n123\n12345678901\n");
        assert_eq!(mail.text().as_deref(), Some("hello\n123\n12345678901\n"));
        assert_eq!((mail.html(), mail.code(), mail.link_token()), (None, None, None));
    }
}
