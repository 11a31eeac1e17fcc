//! SMTP submission.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::commands::{Auth, Data, Ehlo, Mail as MailFrom, Noop, Quit, Rcpt, Starttls};
use lettre::transport::smtp::extension::{ClientId, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::{Response, Severity};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, InvalidMessage};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Host;
use usermgr_core::port::mailer::{Mail, MailError, Mailer};

use crate::conversation::{Conversation, Extensions, Interruption, Stream};
use crate::mail_url::{self, MailUrlError, PlaintextPolicy};
use crate::message;
use crate::sender::Sender;
use crate::trusted_roots::TrustedRoots;

/// Sends mail through an SMTP server, in the words of lettre.
///
/// # Which failures are permanent
/// Only a 5xx reply to the receiver or to the message itself, and a receiver the server cannot be told about (below).
/// Everything else is transient, 5xx replies included: a refused greeting, password or sender, a failed TLS handshake
/// and a missing STARTTLS are faults of the configuration or of the server, and the mail is still good once they are
/// mended. So is a 5xx to the receiver whose code blames the sender or the sign-in (530, 535, 538, 5.1.7, 5.1.8, 5.7.8).
///
/// An address with a local part beyond ASCII needs SMTPUTF8 (RFC 6531). When the server does not offer it nothing is
/// sent and the error is permanent; the address is never rewritten.
///
/// A TLS mode that does not fit the port fails within seconds, and the error names the mode to try.
///
/// # Security
/// Certificates are always checked against Mozilla's roots and those of
/// [`trusted_roots`](SmtpBuilder::trusted_roots): there is no way to switch that off.
/// Errors hold the reply code and the enhanced status code only (RFC 3463), since the text of a reply often repeats
/// the address.
///
/// Connections are kept for the next mail. One that failed, timed out or whose mail was cancelled is never used
/// again: its replies could no longer be matched to commands. When the server ends a kept connection, the mail goes over
/// a new one in the same attempt, unless the server may have taken it already.
///
/// ```
/// use std::sync::Arc;
/// use usermgr_core::UserManager;
/// use usermgr_smtp::{PlaintextPolicy, Sender, Smtp};
/// # use usermgr_core::{ClientContext, SecretKey, testing::MemoryStore};
/// # use usermgr_core::flow::{permission::Principal, users::CreateUser};
/// # use usermgr_smtp::testing::SmtpSink;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// # let sink = SmtpSink::start().await?;
/// # let url = sink.url();
/// let sender = Sender::parse("Example <noreply@example.org>")?;
/// // smtp://user:password@mail.example.org:587
/// let smtp = Smtp::from_url(&url, sender, PlaintextPolicy::LoopbackOnly)?;
/// let builder = UserManager::builder().mailer(Arc::new(smtp));
/// # let users = builder.store(Arc::new(MemoryStore::default())).secret_key(SecretKey::from_bytes([7; 32])).build()?;
/// # users.users().create(Principal::Operator, CreateUser::new("ana@example.org"), &ClientContext::new()).await?;
/// # users.mail_worker().run_once().await?;
/// # assert!(sink.mails()[0].code().is_some());
/// # Ok(())
/// # }
/// ```
pub struct Smtp {
    server: Server,
    sender: Sender,
    idle: Mutex<Vec<Session>>,
}

/// An [`Smtp`] in the making.
///
/// ```
/// use std::time::Duration;
/// use usermgr_smtp::{Sender, Smtp};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let smtp = Smtp::builder("smtps://app:secret@mail.example.org", Sender::parse("noreply@example.org")?)?
///     .connect_timeout(Duration::from_secs(5))
///     .build()?;
/// # Ok(())
/// # }
/// ```
pub struct SmtpBuilder {
    url: SmtpUrl,
    sender: Sender,
    plaintext: PlaintextPolicy,
    roots: TrustedRoots,
    connect_timeout: Duration,
    command_timeout: Duration,
    message_timeout: Duration,
}

impl Smtp {
    /// Until a TCP connection stands.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
    /// Until the reply to one command, or a TLS handshake.
    pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
    /// From the first byte of a message to the reply that it is taken. Servers look at a message before they reply, and
    /// one that took it after the client gave up gets it again (RFC 5321 §4.5.3.2.6): this is as long as the worker's
    /// bound for an attempt lets it be.
    pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(90);
    /// Until the reply of a connection that was kept; then a new one takes its place.
    const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
    /// How long a server may say nothing before it is asked whether it waits for TLS. Spam filters pause before they greet,
    /// and dislike clients that speak first: Postfix's postscreen waits 6 s.
    const GREETING_PATIENCE: Duration = Duration::from_secs(7);
    /// How many connections wait for a next mail.
    pub const MAX_IDLE: usize = 4;
    /// How long a connection waits for a next mail.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
    /// How many mails one connection carries.
    pub const MAX_MAILS_PER_CONNECTION: u32 = 100;

    /// The transport that a URL names: `smtp://user:password@host:587?tls=required` or `smtps://user:password@host:465`.
    ///
    /// User name and password are percent-encoded, and may be missing together; so may the port. For `smtp:`, `tls` is
    /// - `required` (without it, too): STARTTLS must succeed before anything else is said;
    /// - `opportunistic`: STARTTLS if the server offers it. Somebody on the way can take the offer away, so the
    ///   password is sent only over TLS even then, unless [`PlaintextPolicy::Allow`];
    /// - `none`: no TLS, only to loopback unless [`PlaintextPolicy::Allow`].
    ///
    /// # Errors
    /// [`MailUrlError`], which never shows any part of the URL.
    pub fn from_url(url: &str, sender: Sender, plaintext: PlaintextPolicy) -> Result<Self, MailUrlError> {
        Self::builder(url, sender)?.plaintext(plaintext).build()
    }

    /// As [`from_url`](Self::from_url), with more to choose.
    ///
    /// # Errors
    /// [`MailUrlError`], which never shows any part of the URL.
    pub fn builder(url: &str, sender: Sender) -> Result<SmtpBuilder, MailUrlError> {
        Ok(SmtpBuilder {
            url: SmtpUrl::parse(url)?,
            sender,
            plaintext: PlaintextPolicy::LoopbackOnly,
            roots: TrustedRoots::default(),
            connect_timeout: Self::CONNECT_TIMEOUT,
            command_timeout: Self::COMMAND_TIMEOUT,
            message_timeout: Self::MESSAGE_TIMEOUT,
        })
    }

    /// A connection that was kept and still answers.
    async fn kept_session(&self) -> Option<Session> {
        while let Some(mut session) = self.take_idle() {
            let limit = Self::PROBE_TIMEOUT.min(self.server.command_timeout);
            let alive = session.last_used.elapsed() < Self::IDLE_TIMEOUT
                && timeout(limit, session.answers()).await.unwrap_or(false);
            if alive {
                return Some(session);
            }
        }
        None
    }

    async fn deliver(&self, mut session: Session, mail: &Mail, message: &[u8]) -> Result<(), Failure> {
        let delivered = session.deliver(mail, &self.sender, message, &self.server).await;
        match &delivered {
            Ok(()) | Err(Failure::Inexpressible) => self.keep(session),
            Err(failure) => session.close(failure).await,
        }
        delivered
    }

    fn take_idle(&self) -> Option<Session> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep(&self, mut session: Session) {
        session.last_used = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if session.mails < Self::MAX_MAILS_PER_CONNECTION && idle.len() < Self::MAX_IDLE {
            idle.push(session);
        }
    }
}

#[async_trait]
impl Mailer for Smtp {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let message = message::build_message(mail, &self.sender)?;
        if let Some(session) = self.kept_session().await {
            match self.deliver(session, mail, &message).await {
                Err(failure) if failure.is_of_the_connection_alone() => {}
                outcome => return Ok(outcome?),
            }
        }
        let session = self.server.connect().await?;
        Ok(self.deliver(session, mail, &message).await?)
    }
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smtp")
            .field("server", &self.server)
            .field("sender", &self.sender)
            .finish_non_exhaustive()
    }
}

impl SmtpBuilder {
    /// Whether mail may travel unencrypted to another host.
    #[must_use]
    pub const fn plaintext(mut self, policy: PlaintextPolicy) -> Self {
        self.plaintext = policy;
        self
    }

    /// Trusts these authorities, instead of Mozilla's alone: for a server with a private CA.
    #[must_use]
    pub fn trusted_roots(mut self, roots: TrustedRoots) -> Self {
        self.roots = roots;
        self
    }

    /// Trusts the authorities in this PEM text too. As [`trusted_roots`](Self::trusted_roots), for one transport.
    ///
    /// # Errors
    /// [`MailUrlError::InvalidCertificate`] when there is no certificate in it, or one that cannot be read.
    pub fn with_root_certificate_pem(mut self, pem: &[u8]) -> Result<Self, MailUrlError> {
        self.roots = self.roots.with_pem(pem).map_err(|_| MailUrlError::InvalidCertificate)?;
        Ok(self)
    }

    /// Instead of [`Smtp::CONNECT_TIMEOUT`].
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Instead of [`Smtp::COMMAND_TIMEOUT`].
    #[must_use]
    pub const fn command_timeout(mut self, timeout: Duration) -> Self {
        self.command_timeout = timeout;
        self
    }

    /// Instead of [`Smtp::MESSAGE_TIMEOUT`].
    #[must_use]
    pub const fn message_timeout(mut self, timeout: Duration) -> Self {
        self.message_timeout = timeout;
        self
    }

    /// The transport.
    ///
    /// # Errors
    /// [`MailUrlError::Plaintext`] when mail would travel unencrypted to another host and may not,
    /// [`MailUrlError::Tls`] when TLS cannot be set up.
    pub fn build(self) -> Result<Smtp, MailUrlError> {
        let Self { url, sender, plaintext, roots, connect_timeout, command_timeout, message_timeout } = self;
        if url.security == Security::None
            && plaintext == PlaintextPolicy::LoopbackOnly
            && !mail_url::is_loopback(&url.host)
        {
            return Err(MailUrlError::Plaintext);
        }
        // An IPv6 address stands in brackets in a URL and nowhere else.
        let host = match &url.host {
            Host::Ipv6(address) => address.to_string(),
            host => host.to_string(),
        };
        let tls = Arc::new(roots.client_config().map_err(|_| MailUrlError::Tls)?);
        let hello = if sender.domain().contains('.') {
            ClientId::Domain(sender.domain().to_owned())
        } else {
            ClientId::default()
        };
        let server = Server {
            host,
            port: url.port,
            security: url.security,
            tls,
            credentials: url.credentials,
            clear_credentials: url.security == Security::None || plaintext == PlaintextPolicy::Allow,
            hello,
            connect_timeout,
            command_timeout,
            message_timeout,
            has_greeted: AtomicBool::new(false),
        };
        Ok(Smtp { server, sender, idle: Mutex::new(Vec::new()) })
    }
}

impl fmt::Debug for SmtpBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpBuilder")
            .field("host", &self.url.host)
            .field("port", &self.url.port)
            .field("security", &self.url.security)
            .field("sender", &self.sender)
            .field("plaintext", &self.plaintext)
            .field("connect_timeout", &self.connect_timeout)
            .field("command_timeout", &self.command_timeout)
            .field("message_timeout", &self.message_timeout)
            .finish_non_exhaustive()
    }
}

/// When a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Security {
    /// From the first byte (RFC 8314).
    Implicit,
    /// By STARTTLS, or there is no mail.
    Required,
    /// By STARTTLS, if the server offers it.
    Opportunistic,
    /// Never.
    None,
}

type UserAndPassword = (String, SecretString);

struct SmtpUrl {
    host: Host,
    port: u16,
    security: Security,
    credentials: Option<UserAndPassword>,
}

impl SmtpUrl {
    fn parse(text: &str) -> Result<Self, MailUrlError> {
        let url = mail_url::parse(text)?;
        let implicit = match url.scheme() {
            "smtp" => false,
            "smtps" => true,
            _ => return Err(MailUrlError::UnknownScheme),
        };
        let host = mail_url::host(&url)?;
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err(MailUrlError::Superfluous);
        }
        let mut security = if implicit { Security::Implicit } else { Security::Required };
        for (n, (name, value)) in url.query_pairs().enumerate() {
            security = match (n, name.as_ref(), value.as_ref()) {
                (0, "tls", "required") => security,
                (0, "tls", "opportunistic") if !implicit => Security::Opportunistic,
                (0, "tls", "none") if !implicit => Security::None,
                (0, "tls", _) => return Err(MailUrlError::UnknownTls),
                _ => return Err(MailUrlError::Superfluous),
            };
        }
        let credentials = match mail_url::credentials(&url)? {
            Some((user, Some(password))) => Some((user, password)),
            Some((_, None)) => return Err(MailUrlError::InvalidCredentials),
            None => None,
        };
        let port = url.port().unwrap_or(if implicit { 465 } else { 587 });
        Ok(Self { host, port, security, credentials })
    }
}

/// How to reach the server.
struct Server {
    host: String,
    port: u16,
    security: Security,
    tls: Arc<ClientConfig>,
    credentials: Option<UserAndPassword>,
    /// Whether the password may travel unencrypted.
    clear_credentials: bool,
    hello: ClientId,
    connect_timeout: Duration,
    command_timeout: Duration,
    message_timeout: Duration,
    /// Whether a connection in clear ever began as it should: then the TLS mode is right.
    has_greeted: AtomicBool,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("security", &self.security)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A connection that is encrypted and signed in as configured, or none.
    async fn connect(&self) -> Result<Session, Failure> {
        let stream = self.connect_tcp().await?;
        let mut session = match self.security {
            Security::Implicit => self.open_in_tls(stream).await?,
            Security::Required | Security::Opportunistic | Security::None => {
                self.open_in_clear(stream).await?
            }
        };
        self.sign_in(&mut session).await?;
        Ok(session)
    }

    async fn connect_tcp(&self) -> Result<TcpStream, Failure> {
        let connecting = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            // A mail ends in a small piece of its own, which must not wait until what came before was acknowledged.
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let connected = timeout(self.connect_timeout, connecting).await;
        connected
            .map_err(|_| Failure::Silence(Stage::Connect))?
            .map_err(|error| Failure::of_io(Stage::Connect, &error))
    }

    /// Up to the reply to EHLO, with TLS from the first byte.
    async fn open_in_tls(&self, stream: TcpStream) -> Result<Session, Failure> {
        let stage = Stage::Connect;
        within(self.command_timeout, stage, async {
            let stream = self.handshake(stream).await.map_err(|error| {
                if is_not_tls(&error) {
                    Failure::TlsMode("the SMTP server does not begin with TLS: try smtp:// with tls=required")
                } else {
                    Failure::of_io(stage, &error)
                }
            })?;
            let mut conversation = Conversation::new(Box::new(stream) as Box<dyn Stream>);
            expect(conversation.reply().await, stage, Severity::PositiveCompletion)?;
            let extensions = self.hello(&mut conversation).await?;
            Ok(Session::new(conversation, extensions, true))
        })
        .await
    }

    /// Up to the reply to the last EHLO, encrypted by STARTTLS if it is to be.
    async fn open_in_clear(&self, stream: TcpStream) -> Result<Session, Failure> {
        let mut conversation = Conversation::new(stream);
        let extensions = within(self.command_timeout, Stage::Connect, async {
            self.greeting(&mut conversation).await?;
            self.hello(&mut conversation).await
        })
        .await?;
        match self.security {
            Security::Required if !extensions.starttls => Err(Failure::TlsMode(
                "the SMTP server offers no STARTTLS, which is required: try smtps://, or tls=none if mail may travel unencrypted",
            )),
            Security::Required | Security::Opportunistic if extensions.starttls => {
                within(self.command_timeout, Stage::StartTls, self.start_tls(conversation)).await
            }
            _ => {
                let stream = conversation.into_stream().ok_or(Failure::Confusion(Stage::Connect))?;
                Ok(Session::new(Conversation::new(Box::new(stream)), extensions, false))
            }
        }
    }

    /// Reads the greeting. A server that stays silent may wait for TLS, and both sides would wait until the time-out.
    async fn greeting(&self, conversation: &mut Conversation<TcpStream>) -> Result<(), Failure> {
        let mut greeting = pin!(conversation.reply());
        let patience = Smtp::GREETING_PATIENCE.min(self.command_timeout / 4);
        let reply = match timeout(patience, &mut greeting).await {
            Ok(reply) => reply,
            Err(_) if !self.has_greeted.load(Ordering::Relaxed) && self.begins_with_tls(patience).await => {
                return Err(Failure::TlsMode("the SMTP server begins with TLS: try smtps:// without tls="));
            }
            Err(_) => greeting.await,
        };
        expect(reply, Stage::Connect, Severity::PositiveCompletion)?;
        self.has_greeted.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the server answers the first message of TLS in TLS. Asked on a connection of its own, since the other one
    /// cannot be used after it.
    async fn begins_with_tls(&self, limit: Duration) -> bool {
        let asking = async {
            let mut hello = Vec::new();
            let mut client = ClientConnection::new(Arc::clone(&self.tls), self.server_name()?)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            client.write_tls(&mut hello)?;
            let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.write_all(&hello).await?;
            stream.read_u8().await
        };
        // An alert or a handshake record (RFC 8446 §5.1); no reply of SMTP begins so.
        matches!(timeout(limit, asking).await, Ok(Ok(0x15 | 0x16)))
    }

    /// Says EHLO, or HELO to a server that knows no EHLO, if neither TLS nor a sign-in is to follow.
    async fn hello<S: Stream>(&self, conversation: &mut Conversation<S>) -> Result<Extensions, Failure> {
        let mut reply = conversation.command(Ehlo::new(self.hello.clone())).await;
        let is_unknown = reply.as_ref().is_ok_and(|reply| matches!(reply.code().into(), 500 | 502 | 504));
        let needs_none = matches!(self.security, Security::Opportunistic | Security::None);
        if is_unknown && needs_none && self.credentials.is_none() {
            reply = conversation.command(format!("HELO {}\r\n", self.hello)).await;
            expect(reply, Stage::Connect, Severity::PositiveCompletion)?;
            return Ok(Extensions::default());
        }
        let reply = expect(reply, Stage::Connect, Severity::PositiveCompletion)?;
        Ok(Extensions::parse(&reply))
    }

    /// Begins TLS inside the connection, up to the reply to the second EHLO.
    ///
    /// # Security
    /// Somebody on the way can append replies of their own to the reply to STARTTLS. Taken for the server's replies inside
    /// TLS, they would make a mail that nobody took count as sent (the "response injection" of
    /// <https://nostarttls.secvuln.info>). So a reply that is followed by anything ends the connection.
    async fn start_tls(&self, mut conversation: Conversation<TcpStream>) -> Result<Session, Failure> {
        let stage = Stage::StartTls;
        expect(conversation.command(Starttls).await, stage, Severity::PositiveCompletion)?;
        let stream = conversation.into_stream().ok_or(Failure::Confusion(stage))?;
        let stream = self.handshake(stream).await.map_err(|error| Failure::of_io(stage, &error))?;
        let mut conversation = Conversation::new(Box::new(stream) as Box<dyn Stream>);
        // What was said in clear is forgotten, the extensions too (RFC 3207 §4.2).
        let extensions = self.hello(&mut conversation).await?;
        Ok(Session::new(conversation, extensions, true))
    }

    async fn handshake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(Arc::clone(&self.tls)).connect(self.server_name()?, stream).await
    }

    fn server_name(&self) -> io::Result<ServerName<'static>> {
        ServerName::try_from(self.host.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    async fn sign_in(&self, session: &mut Session) -> Result<(), Failure> {
        const MAX_CHALLENGES: usize = 10;
        let stage = Stage::SignIn;
        let Some((user, password)) = &self.credentials else { return Ok(()) };
        if !session.is_encrypted && !self.clear_credentials {
            return Err(Failure::Unsafe);
        }
        let mechanism = session.extensions.mechanism().ok_or(Failure::NoMechanism)?;
        let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
        within(self.command_timeout, stage, async {
            let unusable = |_| Failure::Confusion(stage);
            let auth = Auth::new(mechanism, credentials.clone(), None).map_err(unusable)?;
            let mut reply = session.conversation.command(auth).await;
            for _ in 0..MAX_CHALLENGES {
                let Some(challenge) = reply.as_ref().ok().filter(|reply| reply.has_code(334)) else { break };
                let answer = Auth::new_from_response(mechanism, credentials.clone(), challenge);
                reply = session.conversation.command(answer.map_err(unusable)?).await;
            }
            expect(reply, stage, Severity::PositiveCompletion)?;
            Ok(())
        })
        .await
    }
}

/// A connection and how much it was used.
struct Session {
    conversation: Conversation<Box<dyn Stream>>,
    extensions: Extensions,
    is_encrypted: bool,
    mails: u32,
    last_used: Instant,
}

impl Session {
    fn new(conversation: Conversation<Box<dyn Stream>>, extensions: Extensions, is_encrypted: bool) -> Self {
        Self { conversation, extensions, is_encrypted, mails: 0, last_used: Instant::now() }
    }

    /// Whether the server still takes commands.
    async fn answers(&mut self) -> bool {
        let reply = self.conversation.command(Noop).await;
        expect(reply, Stage::Sender, Severity::PositiveCompletion).is_ok()
    }

    /// What to tell the server about the mail, or `None` when it could not understand that.
    fn mail_parameters(&self, mail: &Mail, message: &[u8]) -> Option<Vec<MailParameter>> {
        let mut parameters = Vec::new();
        if !mail.to.as_str().is_ascii() {
            if !self.extensions.smtp_utf8 {
                return None;
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        // Only the receiver's address is ever beyond ASCII, in the header `To`.
        if !message.is_ascii() {
            if !self.extensions.eight_bit_mime {
                return None;
            }
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        Some(parameters)
    }

    async fn deliver(
        &mut self,
        mail: &Mail,
        sender: &Sender,
        message: &[u8],
        server: &Server,
    ) -> Result<(), Failure> {
        let parameters = self.mail_parameters(mail, message).ok_or(Failure::Inexpressible)?;
        self.mails += 1;
        let from = MailFrom::new(Some(sender.mail_address().clone()), parameters);
        let to = Rcpt::new(message::receiver(mail), Vec::new());
        self.command(server, Stage::Sender, from).await.map_err(|failure| self.or_wrong_mode(failure))?;
        self.command(server, Stage::Receiver, to).await?;
        self.command(server, Stage::Data, Data).await?;
        within(server.message_timeout, Stage::Message, async {
            let reply = self.conversation.message(message).await;
            expect(reply, Stage::Message, Severity::PositiveCompletion)
        })
        .await?;
        Ok(())
    }

    async fn command(
        &mut self,
        server: &Server,
        stage: Stage,
        command: impl fmt::Display + Send,
    ) -> Result<(), Failure> {
        let severity =
            if stage == Stage::Data { Severity::PositiveIntermediate } else { Severity::PositiveCompletion };
        within(server.command_timeout, stage, async {
            expect(self.conversation.command(command).await, stage, severity)
        })
        .await?;
        Ok(())
    }

    /// The refusal of a server that takes mail over TLS alone, with what to do about it.
    fn or_wrong_mode(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Reply { code: 530, .. } if !self.is_encrypted && self.extensions.starttls => {
                Failure::TlsMode("the SMTP server refused the sender without TLS (530): try tls=required")
            }
            other => other,
        }
    }

    /// Ends the conversation, politely if the server still answers.
    async fn close(mut self, failure: &Failure) {
        const PATIENCE: Duration = Duration::from_secs(1);
        if matches!(failure, Failure::Reply { .. }) && !failure.is_of_the_connection_alone() {
            let _ = timeout(PATIENCE, self.conversation.command(Quit)).await;
        }
    }
}

/// How far a conversation came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connect,
    StartTls,
    SignIn,
    Sender,
    Receiver,
    /// The command, before any of the message.
    Data,
    /// The message itself: from here on the server may have taken it, whatever it replies.
    Message,
}

impl Stage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "the connection",
            Self::StartTls => "STARTTLS",
            Self::SignIn => "the sign-in",
            Self::Sender => "the sender",
            Self::Receiver => "the receiver",
            Self::Data | Self::Message => "the message",
        }
    }
}

/// Why a conversation ended early.
enum Failure {
    /// The server said no, or goodbye.
    Reply { stage: Stage, code: u16, status: Option<String> },
    /// The server said nothing in time.
    Silence(Stage),
    /// The replies do not belong to the commands.
    Confusion(Stage),
    /// There was no conversation.
    Broken { stage: Stage, cause: String },
    /// The TLS mode does not fit the server; the text says which does.
    TlsMode(&'static str),
    /// The password would travel unencrypted.
    Unsafe,
    /// The server offers no way to sign in that is known here.
    NoMechanism,
    /// The receiver's address needs SMTPUTF8, and the server lacks it.
    Inexpressible,
}

impl Failure {
    fn of_io(stage: Stage, error: &io::Error) -> Self {
        // The TLS library reports a certificate it does not trust so.
        let is_tls = error.kind() == io::ErrorKind::InvalidData;
        let cause = if is_tls { tls_cause(error) } else { error.kind().to_string() };
        Self::Broken { stage, cause }
    }

    fn of_interruption(stage: Stage, interruption: &Interruption) -> Self {
        let cause = match interruption {
            Interruption::Io(error) => return Self::of_io(stage, error),
            Interruption::Closed => "the server closed the connection",
            Interruption::Unreadable => "no reply that can be read",
        };
        Self::Broken { stage, cause: cause.to_owned() }
    }

    fn of_reply(stage: Stage, reply: &Response) -> Self {
        let status = reply.first_word().and_then(enhanced_status);
        Self::Reply { stage, code: reply.code().into(), status }
    }

    /// Whether only the connection is at fault, and the server cannot have taken the message.
    fn is_of_the_connection_alone(&self) -> bool {
        let before_the_message = |stage: &Stage| *stage != Stage::Message;
        match self {
            Self::Reply { stage, code: GOODBYE | UNAVAILABLE, .. }
            | Self::Confusion(stage)
            | Self::Broken { stage, .. } => before_the_message(stage),
            _ => false,
        }
    }
}

/// The server closes the connection, as it was asked to.
const GOODBYE: u16 = 221;
/// The server closes the connection, for reasons of its own (RFC 5321 §3.8).
const UNAVAILABLE: u16 = 421;

impl From<Failure> for MailError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Reply { stage, code, status } => {
                let status = status.unwrap_or_default();
                let message = format!("the SMTP server refused {}: {code} {status}", stage.as_str());
                let message = message.trim_end();
                if blames_the_mail(stage, code, &status) {
                    Self::permanent(message)
                } else {
                    Self::transient(message)
                }
            }
            Failure::Silence(stage) => Self::transient(format!("SMTP timed out at {}", stage.as_str())),
            Failure::Confusion(stage) => {
                Self::transient(format!("the SMTP server gave a reply out of turn at {}", stage.as_str()))
            }
            Failure::Broken { stage, cause } => {
                Self::transient(format!("SMTP failed at {}: {cause}", stage.as_str()))
            }
            Failure::TlsMode(advice) => Self::transient(advice),
            Failure::Unsafe => {
                Self::transient("the SMTP password is not sent over an unencrypted connection")
            }
            Failure::NoMechanism => {
                Self::transient("the SMTP server offers no way to sign in that is known here")
            }
            Failure::Inexpressible => {
                Self::permanent("the receiver's address needs SMTPUTF8, which the server lacks")
            }
        }
    }
}

/// Whether no later attempt can succeed while this mail is what it is.
fn blames_the_mail(stage: Stage, code: u16, status: &str) -> bool {
    let about_the_mail = matches!(stage, Stage::Receiver | Stage::Data | Stage::Message);
    // Servers often wait for the receiver before they refuse the sender or ask for a sign-in.
    let about_us = matches!(code, 530 | 534 | 535 | 538)
        || matches!(status, "5.1.7" | "5.1.8" | "5.7.8" | "5.7.9" | "5.7.11");
    about_the_mail && (500..600).contains(&code) && !about_us
}

/// RFC 3463, and nothing of the text that follows: it tends to repeat the address.
fn enhanced_status(text: &str) -> Option<String> {
    let word = text.split_whitespace().next()?;
    let numbers: Vec<&str> = word.split('.').collect();
    let is_number = |part: &&str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    (numbers.len() == 3 && numbers.iter().all(is_number)).then(|| word.to_owned())
}

/// Whether the other side does not speak TLS.
fn is_not_tls(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)))
}

/// What broke, in words of this side: never a text the server sent.
fn tls_cause(error: &io::Error) -> String {
    const MAX: usize = 200;
    let text = error.to_string();
    let text: String = text.chars().filter(|c| !c.is_control()).take(MAX).collect();
    format!("TLS: {text}")
}

/// The reply, if it is the one that lets the conversation go on.
fn expect(
    reply: Result<Response, Interruption>,
    stage: Stage,
    severity: Severity,
) -> Result<Response, Failure> {
    let reply = reply.map_err(|interruption| Failure::of_interruption(stage, &interruption))?;
    let code = reply.code();
    // A message is taken by any 2yz (RFC 5321 §4.2.1); anywhere else a goodbye is the end.
    let is_goodbye = u16::from(code) == GOODBYE && stage != Stage::Message;
    if is_goodbye || !reply.is_positive() {
        Err(Failure::of_reply(stage, &reply))
    } else if code.severity == severity {
        Ok(reply)
    } else {
        Err(Failure::Confusion(stage))
    }
}

async fn within<T>(
    limit: Duration,
    stage: Stage,
    step: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(limit, step).await.unwrap_or(Err(Failure::Silence(stage)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(url: &str) -> MailUrlError {
        Smtp::from_url(url, Sender::parse("a@localhost").unwrap(), PlaintextPolicy::LoopbackOnly).unwrap_err()
    }

    #[test]
    fn a_url_says_all_there_is_to_say() {
        let url =
            SmtpUrl::parse("smtp://us%40er:p%2Fa%3As%C3%BC@Mail.Example:2525?tls=opportunistic").unwrap();
        assert_eq!((url.host.to_string().as_str(), url.port), ("mail.example", 2525));
        assert_eq!(url.security, Security::Opportunistic);
        let (user, password) = url.credentials.unwrap();
        assert_eq!((user.as_str(), password.expose_secret()), ("us@er", "p/a:sü"));

        let url = SmtpUrl::parse("smtp://mail.example").unwrap();
        assert_eq!((url.port, url.security), (587, Security::Required));
        assert!(url.credentials.is_none());
        let url = SmtpUrl::parse("smtps://[::1]/").unwrap();
        assert_eq!((url.port, url.security), (465, Security::Implicit));
        assert!(mail_url::is_loopback(&url.host));
    }

    #[test]
    fn a_url_that_means_something_else_is_refused() {
        for (url, error) in [
            ("smtp://", MailUrlError::NoHost),
            ("smtp:mail.example", MailUrlError::NoHost),
            ("smtp://mail.example:x", MailUrlError::Unreadable),
            ("smtp://mail.example?tls=maybe", MailUrlError::UnknownTls),
            ("smtps://mail.example?tls=none", MailUrlError::UnknownTls),
            ("smtp://mail.example?tls=required&tls=none", MailUrlError::Superfluous),
            ("smtp://mail.example?verify=no", MailUrlError::Superfluous),
            ("smtp://mail.example/path", MailUrlError::Superfluous),
            ("smtp://mail.example#x", MailUrlError::Superfluous),
            ("smtp://user@mail.example", MailUrlError::InvalidCredentials),
            ("smtp://user:a%00b@mail.example", MailUrlError::InvalidCredentials),
            ("smtp://user:%ff@mail.example", MailUrlError::InvalidCredentials),
            ("smtp://mail.example?tls=none", MailUrlError::Plaintext),
            ("smtp://127.0.0.1.example?tls=none", MailUrlError::Plaintext),
            ("http://mail.example", MailUrlError::UnknownScheme),
        ] {
            assert_eq!(refuse(url), error, "{url}");
        }
    }

    #[test]
    fn plaintext_stays_on_this_host_unless_it_is_allowed() {
        let sender = Sender::parse("a@localhost").unwrap();
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "[::1]"] {
            let url = format!("smtp://{host}:25?tls=none");
            assert!(Smtp::from_url(&url, sender.clone(), PlaintextPolicy::LoopbackOnly).is_ok(), "{host}");
        }
        let url = "smtp://mail.example?tls=none";
        assert!(Smtp::from_url(url, sender, PlaintextPolicy::Allow).is_ok());
    }

    #[test]
    fn only_what_is_said_about_the_mail_is_permanent() {
        assert!(blames_the_mail(Stage::Receiver, 550, "5.1.1"));
        assert!(blames_the_mail(Stage::Message, 554, ""));
        assert!(!blames_the_mail(Stage::Receiver, 450, "4.2.0"));
        assert!(!blames_the_mail(Stage::Receiver, 530, "5.7.0"));
        assert!(!blames_the_mail(Stage::Receiver, 553, "5.1.8"));
        for stage in [Stage::Connect, Stage::StartTls, Stage::SignIn, Stage::Sender] {
            assert!(!blames_the_mail(stage, 554, ""), "{stage:?}");
        }
    }

    #[test]
    fn of_a_reply_only_the_numbers_are_kept() {
        assert_eq!(enhanced_status("5.1.1 <ana@example.org> unknown").as_deref(), Some("5.1.1"));
        for text in ["", "<ana@example.org>", "5.1", "5.1.1.1 x", "5.1.x", "1234.1.1"] {
            assert_eq!(enhanced_status(text), None, "{text:?}");
        }
    }
}
