//! A small SMTP server that keeps what it gets.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::port::Port;
use super::{ReceivedMail, TooFew, When};

/// An SMTP server on `127.0.0.1` that takes every mail, keeps it and delivers nothing.
///
/// It stops when the last clone of it is dropped.
///
/// ```
/// # use std::sync::Arc;
/// use std::time::Duration;
/// use usermgr_smtp::{PlaintextPolicy, Sender, from_url};
/// use usermgr_smtp::testing::SmtpSink;
/// # use usermgr_core::flow::{permission::Principal, users::CreateUser};
/// # use usermgr_core::testing::MemoryStore;
/// # use usermgr_core::{ClientContext, SecretKey, UserManager};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sink = SmtpSink::start().await?;
/// let sender = Sender::parse("Example <noreply@example.org>")?;
/// let users = UserManager::builder()
///     .mailer(from_url(&sink.url(), sender, PlaintextPolicy::LoopbackOnly)?)
/// #     .store(Arc::new(MemoryStore::default()))
/// #     .secret_key(SecretKey::from_bytes([7; 32]))
///     .build()?;
/// let workers = users.start_workers();
/// let ana = CreateUser::new("ana@example.org");
/// users.users().create(Principal::Operator, ana, &ClientContext::new()).await?;
///
/// let mails = sink.wait_for(1, Duration::from_secs(10)).await?;
/// assert_eq!(mails[0].to, ["ana@example.org"]);
/// assert!(mails[0].code().is_some());
/// # workers.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SmtpSink {
    shared: Arc<Shared>,
    port: Arc<Port>,
}

/// What goes wrong in a conversation, instead of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SmtpFault {
    /// Another reply, with its code: `451 4.3.0 busy`. With a code of 4xx or 5xx what was asked for is not done.
    Reply(String),
    /// The reply comes later by this.
    Delay(Duration),
    /// The reply comes byte by byte, with this pause before each.
    Trickle(Duration),
    /// The connection breaks, and what was asked for is not done: a message is not taken.
    Break,
    /// The connection breaks, and what was asked for is done: a message is taken, and nobody is told.
    BreakWhenDone,
    /// The reply is sent and the connection breaks behind it.
    BreakAfterReply,
}

/// An [`SmtpSink`] in the making.
#[derive(Clone, Default)]
pub struct SmtpSinkBuilder {
    features: Features,
}

/// Both directions of a connection.
pub trait SmtpStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> SmtpStream for T {}

/// Makes a connection an encrypted one, as a server. The sink knows no TLS library: a test brings its own.
pub type TlsUpgrade = Arc<
    dyn Fn(TcpStream) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn SmtpStream>>> + Send>> + Send + Sync,
>;

impl SmtpSink {
    /// A sink without TLS, without sign-in and with SMTPUTF8.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> io::Result<Self> {
        SmtpSinkBuilder::default().start().await
    }

    /// A sink with more to choose.
    pub fn builder() -> SmtpSinkBuilder {
        SmtpSinkBuilder::default()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The URL for a transport without TLS.
    pub fn url(&self) -> String {
        format!("smtp://{}?tls=none", self.address())
    }

    /// All mails so far.
    pub fn mails(&self) -> Vec<ReceivedMail> {
        self.shared.mails.borrow().clone()
    }

    /// All mails, once there are this many.
    ///
    /// # Errors
    /// [`TooFew`] when they did not come in time.
    pub async fn wait_for(&self, wanted: usize, timeout: Duration) -> Result<Vec<ReceivedMail>, TooFew> {
        let mut mails = self.shared.mails.subscribe();
        let enough = tokio::time::timeout(timeout, mails.wait_for(|mails| mails.len() >= wanted)).await;
        match enough {
            Ok(Ok(mails)) => Ok(mails.clone()),
            _ => Err(TooFew { got: self.mails().len(), wanted }),
        }
    }

    /// Every line that clients said so far, but the mails themselves.
    pub fn commands(&self) -> Vec<String> {
        self.state().commands.clone()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.state().connections
    }

    /// Answers `RCPT` with this code from now on.
    pub fn refuse_rcpt(&self, code: u16) {
        self.refuse("RCPT", &format!("{code} {}.1.1 refused by request", code / 100));
    }

    /// Answers a whole message with this code from now on.
    pub fn fail_data(&self, code: u16) {
        self.refuse("MESSAGE", &format!("{code} {}.6.0 refused by request", code / 100));
    }

    /// Answers a command with this reply from now on; see [`plan`](Self::plan).
    pub fn refuse(&self, command: &str, reply: &str) {
        self.plan(command, SmtpFault::Reply(reply.to_owned()), When::always());
    }

    /// Has something go wrong when a command comes. Besides SMTP's verbs there are `CONNECT` (the greeting) and
    /// `MESSAGE` (the end of a message). Of several that fit, the one planned last shows.
    pub fn plan(&self, command: &str, fault: SmtpFault, when: When) {
        self.state().plans.push(Plan { command: command.to_ascii_uppercase(), fault, when });
    }

    /// Waits before each reply from now on.
    pub fn delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// From now on keeps each mail, but breaks the connection instead of saying so.
    pub fn drop_after_data(&self) {
        self.plan("MESSAGE", SmtpFault::BreakWhenDone, When::always());
    }

    /// Ends every fault.
    pub fn recover(&self) {
        let mut state = self.state();
        state.plans.clear();
        state.delay = Duration::ZERO;
    }

    /// Breaks all connections and refuses new ones from now on.
    pub async fn refuse_connections(&self) {
        self.port.set_open(false).await;
    }

    /// Takes connections again, on the same port.
    pub async fn take_connections(&self) {
        self.port.set_open(true).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl fmt::Debug for SmtpSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpSink").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl SmtpSinkBuilder {
    /// Whether it offers SMTPUTF8 (and 8BITMIME); it does unless told not to.
    #[must_use]
    pub const fn smtputf8(mut self, offered: bool) -> Self {
        self.features.ascii_only = !offered;
        self
    }

    /// Offers STARTTLS.
    #[must_use]
    pub fn starttls(mut self, upgrade: TlsUpgrade) -> Self {
        self.features.starttls = Some(upgrade);
        self
    }

    /// Speaks TLS from the first byte.
    #[must_use]
    pub fn implicit_tls(mut self, upgrade: TlsUpgrade) -> Self {
        self.features.implicit_tls = Some(upgrade);
        self
    }

    /// Takes mail only after `AUTH PLAIN` with these.
    #[must_use]
    pub fn auth_plain(mut self, user: &str, password: &str) -> Self {
        self.features.credentials = Some(format!("\0{user}\0{password}"));
        self
    }

    /// The running sink.
    ///
    /// # Errors
    /// When no port can be bound.
    #[expect(clippy::unused_async, reason = "it must be called within a runtime, and this says so")]
    pub async fn start(self) -> io::Result<SmtpSink> {
        let shared = Arc::new(Shared {
            features: self.features,
            state: Mutex::new(State::default()),
            mails: watch::Sender::new(Vec::new()),
        });
        let serving = Arc::clone(&shared);
        let port = Port::open(move |stream, number| {
            serving.state().connections += 1;
            let shared = Arc::clone(&serving);
            async move {
                // A client that goes away ends its own connection only.
                let _ = serve(stream, &shared, number).await;
            }
        })?;
        Ok(SmtpSink { shared, port: Arc::new(port) })
    }
}

impl fmt::Debug for SmtpSinkBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpSinkBuilder").finish_non_exhaustive()
    }
}

#[derive(Clone, Default)]
struct Features {
    ascii_only: bool,
    starttls: Option<TlsUpgrade>,
    implicit_tls: Option<TlsUpgrade>,
    /// As `AUTH PLAIN` has them (RFC 4616).
    credentials: Option<String>,
}

struct Shared {
    features: Features,
    state: Mutex<State>,
    mails: watch::Sender<Vec<ReceivedMail>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct State {
    commands: Vec<String>,
    connections: usize,
    plans: Vec<Plan>,
    delay: Duration,
}

struct Plan {
    command: String,
    fault: SmtpFault,
    when: When,
}

impl State {
    /// What goes wrong at this command.
    fn fault(&mut self, command: &str, receivers: &[String], number: usize) -> Option<SmtpFault> {
        let mut latest = self.plans.iter_mut().rev().filter(|plan| plan.command == command);
        latest.find_map(|plan| plan.when.shows(receivers, number).then(|| plan.fault.clone()))
    }
}

async fn serve(stream: TcpStream, shared: &Shared, number: usize) -> io::Result<()> {
    if let Some(upgrade) = &shared.features.implicit_tls {
        let stream = upgrade(stream).await?;
        Conversation::new(stream, shared, number, true).run(true).await?;
        return Ok(());
    }
    let Some(stream) = Conversation::new(stream, shared, number, false).run(true).await? else {
        return Ok(());
    };
    let Some(upgrade) = &shared.features.starttls else { return Ok(()) };
    let stream = upgrade(stream).await?;
    // No greeting after STARTTLS, and everything that was said before it is forgotten (RFC 3207 §4.2).
    Conversation::new(stream, shared, number, true).run(false).await?;
    Ok(())
}

struct Conversation<'a, S> {
    stream: BufReader<S>,
    shared: &'a Shared,
    number: usize,
    encrypted: bool,
    signed_in: bool,
    from: Option<String>,
    to: Vec<String>,
}

impl<'a, S: SmtpStream> Conversation<'a, S> {
    /// The most bytes of a line or a message.
    const MAX: usize = 16 << 20;

    fn new(stream: S, shared: &'a Shared, number: usize, encrypted: bool) -> Self {
        let signed_in = shared.features.credentials.is_none();
        let stream = BufReader::new(stream);
        Self { stream, shared, number, encrypted, signed_in, from: None, to: Vec::new() }
    }

    /// Until the client leaves, or asks for TLS: then the connection comes back.
    async fn run(mut self, greet: bool) -> io::Result<Option<S>> {
        if greet {
            self.reply("CONNECT", "220 sink.test ESMTP").await?;
        }
        loop {
            let line = self.line().await?;
            let line = String::from_utf8_lossy(&line).trim_end_matches("\r\n").to_owned();
            self.shared.state().commands.push(line.clone());
            let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
            let verb = verb.to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" | "HELO" => self.hello(&verb).await?,
                "STARTTLS" if !self.encrypted && self.shared.features.starttls.is_some() => {
                    if self.reply(&verb, "220 2.0.0 go ahead").await? {
                        return Ok(Some(self.stream.into_inner()));
                    }
                }
                "AUTH" if self.shared.features.credentials.is_some() => self.sign_in(argument).await?,
                "MAIL" if !self.signed_in => drop(self.reply("", "530 5.7.0 sign in first").await?),
                "MAIL" => {
                    if self.reply(&verb, "250 2.1.0 ok").await? {
                        (self.from, self.to) = (Some(path(argument)), Vec::new());
                    }
                }
                "RCPT" if self.from.is_some() => {
                    self.to.push(path(argument));
                    if !self.reply(&verb, "250 2.1.5 ok").await? {
                        self.to.pop();
                    }
                }
                "DATA" if !self.to.is_empty() => {
                    if self.reply(&verb, "354 go ahead").await? {
                        self.message().await?;
                    }
                }
                "RSET" => {
                    (self.from, self.to) = (None, Vec::new());
                    self.reply(&verb, "250 2.0.0 ok").await?;
                }
                "NOOP" => drop(self.reply(&verb, "250 2.0.0 ok").await?),
                "QUIT" => {
                    self.reply(&verb, "221 2.0.0 bye").await?;
                    return Ok(None);
                }
                "RCPT" | "DATA" => drop(self.reply("", "503 5.5.1 out of turn").await?),
                _ => drop(self.reply("", "502 5.5.2 not known here").await?),
            }
        }
    }

    async fn hello(&mut self, verb: &str) -> io::Result<()> {
        let features = &self.shared.features;
        let mut lines = vec!["sink.test"];
        if !features.ascii_only {
            lines.extend(["8BITMIME", "SMTPUTF8"]);
        }
        if features.starttls.is_some() && !self.encrypted {
            lines.push("STARTTLS");
        }
        if features.credentials.is_some() {
            lines.push("AUTH PLAIN");
        }
        lines.push("ENHANCEDSTATUSCODES");
        let last = lines.len() - 1;
        let text: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(n, line)| format!("250{}{line}", if n == last { ' ' } else { '-' }))
            .collect();
        self.reply(verb, &text.join("\r\n")).await?;
        Ok(())
    }

    async fn sign_in(&mut self, argument: &str) -> io::Result<()> {
        let response = if let Some((_, response)) = argument.split_once(' ') {
            response.to_owned()
        } else {
            self.reply("", "334 ").await?;
            String::from_utf8_lossy(&self.line().await?).trim_end().to_owned()
        };
        let given = base64::engine::general_purpose::STANDARD.decode(response).unwrap_or_default();
        let right = self.shared.features.credentials.as_ref().is_some_and(|right| right.as_bytes() == given);
        let reply = if right { "235 2.7.0 welcome" } else { "535 5.7.8 wrong user name or password" };
        self.signed_in = self.reply("AUTH", reply).await? && right;
        Ok(())
    }

    /// Reads a message, and takes it unless a fault keeps it from that.
    async fn message(&mut self) -> io::Result<()> {
        let mut raw = Vec::new();
        loop {
            let line = self.line().await?;
            if line == b".\r\n" {
                break;
            }
            raw.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            if raw.len() > Self::MAX {
                return Err(io::Error::other("message too long"));
            }
        }
        let fault = self.fault("MESSAGE");
        let refused = match &fault {
            Some(SmtpFault::Reply(reply)) => is_refusal(reply),
            Some(SmtpFault::Break) => true,
            _ => false,
        };
        let (from, to) = (self.from.take().unwrap_or_default(), std::mem::take(&mut self.to));
        if !refused {
            self.shared.mails.send_modify(|mails| mails.push(ReceivedMail { from, to, raw }));
        }
        self.reply_with(fault, "250 2.0.0 taken").await?;
        Ok(())
    }

    /// One line with its CRLF. A bare LF ends no line.
    async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if self.stream.read_until(b'\n', &mut line).await? == 0 || line.len() > Self::MAX {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(line)
    }

    fn fault(&self, command: &str) -> Option<SmtpFault> {
        self.shared.state().fault(command, &self.to, self.number)
    }

    /// Replies, unless a fault is planned. False when that refuses.
    async fn reply(&mut self, command: &str, reply: &str) -> io::Result<bool> {
        let fault = self.fault(command);
        self.reply_with(fault, reply).await
    }

    async fn reply_with(&mut self, fault: Option<SmtpFault>, reply: &str) -> io::Result<bool> {
        let broken = || io::Error::from(io::ErrorKind::ConnectionAborted);
        let mut delay = self.shared.state().delay;
        let (mut pause, mut last) = (Duration::ZERO, false);
        let mut text = format!("{reply}\r\n");
        match fault {
            None => {}
            Some(SmtpFault::Reply(other)) => text = format!("{other}\r\n"),
            Some(SmtpFault::Delay(longer)) => delay += longer,
            Some(SmtpFault::Trickle(each)) => pause = each,
            Some(SmtpFault::Break | SmtpFault::BreakWhenDone) => return Err(broken()),
            Some(SmtpFault::BreakAfterReply) => last = true,
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let piece = if pause.is_zero() { text.len() } else { 1 };
        for bytes in text.as_bytes().chunks(piece) {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            self.stream.write_all(bytes).await?;
            self.stream.flush().await?;
        }
        if last { Err(broken()) } else { Ok(!is_refusal(&text)) }
    }
}

fn is_refusal(reply: &str) -> bool {
    reply.starts_with(['4', '5'])
}

/// What stands in the angle brackets of `FROM:<…>`.
fn path(argument: &str) -> String {
    argument
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map_or("", |(path, _)| path)
        .to_owned()
}
