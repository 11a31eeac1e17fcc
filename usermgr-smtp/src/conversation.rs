//! Commands to an SMTP server and its replies.
//!
//! lettre writes the commands and reads the replies. Its own connection refuses replies that RFC 5321 §4.2 allows, hides
//! the stream and knows no HELO, so the bytes are moved here.

use std::fmt;
use std::io;

use lettre::transport::smtp::authentication::Mechanism;
use lettre::transport::smtp::response::Response;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};

/// The most bytes of one reply. RFC 5321 §4.5.3.1.5 allows 512 for a line; servers that write more exist.
const MAX_REPLY: usize = 100_000;

/// A connection, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection on which each command waits for its reply.
pub(crate) struct Conversation<S> {
    stream: BufReader<S>,
}

/// Why there is no reply.
#[derive(Debug)]
pub(crate) enum Interruption {
    /// The server closed the connection.
    Closed,
    /// The server sent something that is no reply.
    Unreadable,
    /// The connection failed.
    Io(io::Error),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// The connection without the conversation, or `None` when the server has sent more than was asked for.
    pub(crate) fn into_stream(self) -> Option<S> {
        self.stream.buffer().is_empty().then(|| self.stream.into_inner())
    }

    /// Sends a command, which brings its own CRLF, and reads the reply.
    pub(crate) async fn command(
        &mut self,
        command: impl fmt::Display + Send,
    ) -> Result<Response, Interruption> {
        let command = command.to_string();
        self.write(command.as_bytes()).await?;
        self.reply().await
    }

    /// Sends a message and reads the reply to it. The message consists of lines that end in CRLF.
    pub(crate) async fn message(&mut self, message: &[u8]) -> Result<Response, Interruption> {
        self.write(&with_transparency(message)).await?;
        self.reply().await
    }

    /// Reads one reply, in any form of RFC 5321 §4.2.
    pub(crate) async fn reply(&mut self) -> Result<Response, Interruption> {
        let mut reply = String::new();
        let mut left = MAX_REPLY;
        loop {
            let line = self.line(left).await?;
            left -= line.len();
            let line = ReplyLine::parse(&line).ok_or(Interruption::Unreadable)?;
            line.append_to(&mut reply);
            if line.is_last {
                return reply.parse().map_err(|_| Interruption::Unreadable);
            }
        }
    }

    /// One line without its CRLF.
    async fn line(&mut self, max: usize) -> Result<Vec<u8>, Interruption> {
        let mut line = Vec::new();
        loop {
            let read = self.stream.fill_buf().await.map_err(Interruption::Io)?;
            let Some(first) = read.first() else { return Err(Interruption::Closed) };
            // Fail now: whoever speaks another protocol may never end this line.
            if line.is_empty() && !first.is_ascii_digit() {
                return Err(Interruption::Unreadable);
            }
            let end = read.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(read.len(), |end| end + 1);
            line.extend_from_slice(read.get(..taken).unwrap_or_default());
            self.stream.consume(taken);
            if line.len() > max {
                return Err(Interruption::Unreadable);
            }
            if end.is_some() {
                return line.strip_suffix(b"\r\n").map(<[u8]>::to_vec).ok_or(Interruption::Unreadable);
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Interruption> {
        self.stream.write_all(bytes).await.map_err(Interruption::Io)?;
        self.stream.flush().await.map_err(Interruption::Io)
    }
}

/// One line of a reply.
#[derive(Debug, PartialEq, Eq)]
struct ReplyLine {
    code: String,
    is_last: bool,
    text: String,
}

impl ReplyLine {
    /// Reads a line without its CRLF. The text may be missing, together with the space before it, and may hold any byte:
    /// nothing depends on it.
    fn parse(line: &[u8]) -> Option<Self> {
        let (code, rest) = line.split_at_checked(3)?;
        if !code.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let (is_last, text) = match rest {
            [] => (true, rest),
            [b' ', text @ ..] => (true, text),
            [b'-', text @ ..] => (false, text),
            _ => return None,
        };
        let text = String::from_utf8_lossy(text).replace(char::is_control, " ");
        Some(Self { code: String::from_utf8_lossy(code).into_owned(), is_last, text })
    }

    /// Writes the line in the one form that lettre reads.
    fn append_to(&self, reply: &mut String) {
        reply.push_str(&self.code);
        reply.push(if self.is_last { ' ' } else { '-' });
        reply.push_str(&self.text);
        reply.push_str("\r\n");
    }
}

/// What a server can do beyond RFC 821, as its reply to EHLO lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    pub(crate) starttls: bool,
    pub(crate) smtp_utf8: bool,
    pub(crate) eight_bit_mime: bool,
    mechanisms: Vec<Mechanism>,
}

impl Extensions {
    /// Reads a reply to EHLO. Its first line names the server; keywords have no case (RFC 5321 §2.4).
    pub(crate) fn parse(reply: &Response) -> Self {
        let mut extensions = Self::default();
        for line in reply.message().skip(1) {
            // Some servers write `AUTH=PLAIN`, for clients older than RFC 2554.
            let mut words = line.split(|c: char| c.is_ascii_whitespace() || c == '=');
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "STARTTLS" => extensions.starttls = true,
                "SMTPUTF8" => extensions.smtp_utf8 = true,
                "8BITMIME" => extensions.eight_bit_mime = true,
                "AUTH" => extensions.mechanisms.extend(words.filter_map(mechanism)),
                _ => {}
            }
        }
        extensions
    }

    /// The safest way to sign in that both sides know.
    pub(crate) fn mechanism(&self) -> Option<Mechanism> {
        [Mechanism::Plain, Mechanism::Login].into_iter().find(|known| self.mechanisms.contains(known))
    }
}

fn mechanism(word: &str) -> Option<Mechanism> {
    match word.to_ascii_uppercase().as_str() {
        "PLAIN" => Some(Mechanism::Plain),
        "LOGIN" => Some(Mechanism::Login),
        _ => None,
    }
}

/// The message with its end, every dot at the start of a line doubled (RFC 5321 §4.5.2).
fn with_transparency(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + message.len() / 64 + 5);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes: &[u8]) -> Option<(String, bool, String)> {
        ReplyLine::parse(bytes).map(|line| (line.code, line.is_last, line.text))
    }

    #[test]
    fn a_reply_line_is_a_code_and_perhaps_a_text() {
        for (bytes, code, is_last, text) in [
            (&b"250"[..], "250", true, ""),
            (b"250 ", "250", true, ""),
            (b"250-", "250", false, ""),
            (b"250 ok", "250", true, "ok"),
            (b"250-ok", "250", false, "ok"),
            (b"250  two  spaces ", "250", true, " two  spaces "),
            (b"250 - ", "250", true, "- "),
            (b"354 a\rb\0c\td", "354", true, "a b c d"),
            (b"250 \xff\xfe", "250", true, "\u{fffd}\u{fffd}"),
            ("250 é".as_bytes(), "250", true, "é"),
        ] {
            assert_eq!(line(bytes), Some((code.to_owned(), is_last, text.to_owned())), "{bytes:?}");
        }
        for bytes in [&b""[..], b"2", b"25", b"25 ", b"2500", b"250ok", b"2 0", b" 250", b"ok", b"250\xa0"] {
            assert_eq!(line(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn every_code_of_the_standard_is_read_in_every_form() {
        for code in (200..600).filter(|code| code / 10 % 10 <= 5) {
            for form in ["", " ", " text", " é\u{fffd}"] {
                for before in ["", "-\r\n", "-one\r\n", "-\r\n{}-two\r\n"] {
                    let before = if before.is_empty() { String::new() } else { format!("{code}{before}") };
                    let raw = format!("{}{code}{form}", before.replace("{}", &code.to_string()));
                    let mut reply = String::new();
                    for line in raw.split("\r\n") {
                        ReplyLine::parse(line.as_bytes()).unwrap().append_to(&mut reply);
                    }
                    let read: Response = reply.parse().unwrap_or_else(|_| panic!("{raw:?}"));
                    assert_eq!(u16::from(read.code()), code, "{raw:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_reply_is_the_same_however_it_is_cut() {
        let raw = b"250-one\r\n250-\r\n250\r\n";
        for piece in 1..raw.len() {
            let (client, mut server) = tokio::io::duplex(piece);
            let sending = async move {
                for bytes in raw.chunks(piece) {
                    server.write_all(bytes).await.unwrap();
                }
                server
            };
            let mut conversation = Conversation::new(client);
            let (_server, reply) = tokio::join!(sending, conversation.reply());
            let reply = reply.unwrap();
            assert_eq!(reply.message().collect::<Vec<_>>(), ["one", "", ""], "{piece}");
            assert!(conversation.into_stream().is_some());
        }
    }

    #[tokio::test]
    async fn more_than_the_reply_leaves_no_stream() {
        let (client, mut server) = tokio::io::duplex(100);
        server.write_all(b"220 go\r\n250 fake\r\n").await.unwrap();
        let mut conversation = Conversation::new(client);
        conversation.reply().await.unwrap();
        assert!(conversation.into_stream().is_none());
    }

    #[test]
    fn a_dot_at_the_start_of_a_line_is_doubled() {
        for (message, sent) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"a\r\n.\r\n..b\r\n", b"a\r\n..\r\n...b\r\n.\r\n"),
            (b"a.\r\n b.c\r\n", b"a.\r\n b.c\r\n.\r\n"),
        ] {
            assert_eq!(with_transparency(message), sent, "{message:?}");
        }
    }

    #[test]
    fn extensions_have_no_case() {
        let parse = |text: &str| Extensions::parse(&text.parse().unwrap());
        let all = parse("250-mx\r\n250-starttls\r\n250-SmtpUtf8\r\n250-8bitmime\r\n250 auth login Plain\r\n");
        assert!(all.starttls && all.smtp_utf8 && all.eight_bit_mime);
        assert_eq!(all.mechanism(), Some(Mechanism::Plain));
        assert_eq!(parse("250-mx\r\n250 AUTH=LOGIN\r\n").mechanism(), Some(Mechanism::Login));
        assert_eq!(parse("250-STARTTLS\r\n250 XSTARTTLS\r\n"), Extensions::default());
        assert_eq!(parse("250 \r\n"), Extensions::default());
    }
}
