//! SMTP submission.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters, TlsParametersBuilder,
};
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::{Response, Severity};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;
use url::Host;
use usermgr_core::port::mailer::{Mail, MailError, Mailer};

use crate::before_tls::BeforeTls;
use crate::mail_url::{self, MailUrlError, PlaintextPolicy};
use crate::message;
use crate::sender::Sender;

/// Sends mail through an SMTP server, by lettre.
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
/// # Security
/// Certificates are always checked against Mozilla's roots and those of
/// [`with_root_certificate_pem`](SmtpBuilder::with_root_certificate_pem): there is no way to switch that off.
/// Errors hold the reply code and the enhanced status code only (RFC 3463), since the text of a reply often repeats
/// the address.
///
/// Connections are kept for the next mail. One that failed, timed out or whose mail was cancelled is never used
/// again: its replies could no longer be matched to commands.
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
    roots: Vec<Certificate>,
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
            roots: Vec::new(),
            connect_timeout: Self::CONNECT_TIMEOUT,
            command_timeout: Self::COMMAND_TIMEOUT,
            message_timeout: Self::MESSAGE_TIMEOUT,
        })
    }

    async fn session(&self) -> Result<Session, MailError> {
        while let Some(mut session) = self.take_idle() {
            let fresh = session.last_used.elapsed() < Self::IDLE_TIMEOUT;
            let alive = async { fresh && session.connection.test_connected().await };
            if let Ok(true) = tokio::time::timeout(self.server.command_timeout, alive).await {
                return Ok(session);
            }
        }
        self.server.connect().await
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
        let mut session = self.session().await?;
        let Some(parameters) = session.mail_parameters(mail, &message) else {
            self.keep(session);
            return Err(MailError::permanent(
                "the receiver's address needs SMTPUTF8, which the server lacks",
            ));
        };
        match session.deliver(mail, &self.sender, parameters, &message, &self.server).await {
            Ok(()) => {
                self.keep(session);
                Ok(())
            }
            Err(failure) => {
                session.close(&failure).await;
                Err(failure.into())
            }
        }
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

    /// Trusts the authorities in this PEM text, besides Mozilla's: for a server with a private CA.
    ///
    /// # Errors
    /// [`MailUrlError::InvalidCertificate`] when there is no certificate in it.
    pub fn with_root_certificate_pem(mut self, pem: &[u8]) -> Result<Self, MailUrlError> {
        let begin = b"-----BEGIN CERTIFICATE-----";
        if !pem.windows(begin.len()).any(|window| window == begin) {
            return Err(MailUrlError::InvalidCertificate);
        }
        self.roots.push(Certificate::from_pem(pem).map_err(|_| MailUrlError::InvalidCertificate)?);
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
    /// [`MailUrlError::Tls`] when a root certificate is unusable.
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
        let tls = roots
            .into_iter()
            .fold(TlsParametersBuilder::new(host.clone()), TlsParametersBuilder::add_root_certificate)
            .certificate_store(CertificateStore::WebpkiRoots)
            .build()
            .map_err(|_| MailUrlError::Tls)?;
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
    tls: TlsParameters,
    credentials: Option<UserAndPassword>,
    /// Whether the password may travel unencrypted.
    clear_credentials: bool,
    hello: ClientId,
    connect_timeout: Duration,
    command_timeout: Duration,
    message_timeout: Duration,
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
    async fn connect(&self) -> Result<Session, MailError> {
        let mut connection = match self.security {
            Security::Implicit => self.connect_in_tls().await?,
            Security::Required | Security::Opportunistic | Security::None => self.connect_in_clear().await?,
        };
        self.encrypt(&mut connection).await?;
        self.sign_in(&mut connection).await?;
        Ok(Session { connection, mails: 0, last_used: Instant::now() })
    }

    /// Up to the reply to EHLO, with TLS from the first byte.
    async fn connect_in_tls(&self) -> Result<AsyncSmtpConnection, Failure> {
        let tls = Some(self.tls.clone());
        let address = (self.host.as_str(), self.port);
        let any_local_address = None;
        let limit = Some(self.connect_timeout);
        let connecting =
            AsyncSmtpConnection::connect_tokio1(address, limit, &self.hello, tls, any_local_address);
        // Name look-up, handshake, greeting and EHLO come on top of the TCP connection.
        within(self.connect_timeout.saturating_add(self.command_timeout), Stage::Connect, connecting).await
    }

    /// Up to the reply to EHLO, on a connection that can be encrypted safely, if it is to be.
    async fn connect_in_clear(&self) -> Result<AsyncSmtpConnection, Failure> {
        let stage = Stage::Connect;
        let connecting = BeforeTls::connect(&self.host, self.port, self.security == Security::None);
        let stream = tokio::time::timeout(self.connect_timeout, connecting)
            .await
            .map_err(|_| Failure::Silence(stage))?
            .map_err(|e| Failure::Broken { stage, cause: e.kind().to_string() })?;
        let greeting = AsyncSmtpConnection::connect_with_transport(Box::new(stream), &self.hello);
        within(self.command_timeout, stage, greeting).await
    }

    async fn encrypt(&self, connection: &mut AsyncSmtpConnection) -> Result<(), MailError> {
        let offered = connection.can_starttls();
        match self.security {
            Security::Required if !offered => {
                Err(MailError::transient("the SMTP server offers no STARTTLS, which is required"))
            }
            Security::Required | Security::Opportunistic if offered => {
                let upgrade = connection.starttls(self.tls.clone(), &self.hello);
                Ok(within(self.command_timeout, Stage::StartTls, upgrade).await?)
            }
            _ => Ok(()),
        }
    }

    async fn sign_in(&self, connection: &mut AsyncSmtpConnection) -> Result<(), MailError> {
        const MECHANISMS: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];
        let Some((user, password)) = &self.credentials else { return Ok(()) };
        if !connection.is_encrypted() && !self.clear_credentials {
            return Err(MailError::transient("the SMTP password is not sent over an unencrypted connection"));
        }
        if connection.server_info().get_auth_mechanism(&MECHANISMS).is_none() {
            return Err(MailError::transient("the SMTP server offers no way to sign in that is known here"));
        }
        let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
        within(self.command_timeout, Stage::SignIn, connection.auth(&MECHANISMS, &credentials)).await?;
        Ok(())
    }
}

/// A connection and how much it was used.
struct Session {
    connection: AsyncSmtpConnection,
    mails: u32,
    last_used: Instant,
}

impl Session {
    /// What to tell the server about the mail, or `None` when it could not understand that.
    fn mail_parameters(&self, mail: &Mail, message: &[u8]) -> Option<Vec<MailParameter>> {
        let mut parameters = Vec::new();
        let server = self.connection.server_info();
        if !mail.to.as_str().is_ascii() {
            if !server.supports_feature(Extension::SmtpUtfEight) {
                return None;
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        // Only the receiver's address is ever beyond ASCII, in the header `To`.
        if !message.is_ascii() {
            if !server.supports_feature(Extension::EightBitMime) {
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
        parameters: Vec<MailParameter>,
        message: &[u8],
        server: &Server,
    ) -> Result<(), Failure> {
        let limit = server.command_timeout;
        self.mails += 1;
        let from = MailFrom::new(Some(sender.mailbox().email.clone()), parameters);
        let to = Rcpt::new(message::receiver(mail), Vec::new());
        let connection = &mut self.connection;
        let reply = within(limit, Stage::Sender, connection.command(from)).await?;
        expect(&reply, Stage::Sender, Severity::PositiveCompletion)?;
        let reply = within(limit, Stage::Receiver, connection.command(to)).await?;
        expect(&reply, Stage::Receiver, Severity::PositiveCompletion)?;
        let reply = within(limit, Stage::Message, connection.command(Data)).await?;
        expect(&reply, Stage::Message, Severity::PositiveIntermediate)?;
        // lettre ends the last line itself.
        let message = message.strip_suffix(b"\r\n").unwrap_or(message);
        let reply = within(server.message_timeout, Stage::Message, connection.message(message)).await?;
        expect(&reply, Stage::Message, Severity::PositiveCompletion)
    }

    /// Ends the conversation, politely if the server still answers.
    async fn close(mut self, failure: &Failure) {
        const PATIENCE: Duration = Duration::from_secs(1);
        if matches!(failure, Failure::Reply { .. }) {
            let _ = tokio::time::timeout(PATIENCE, self.connection.quit()).await;
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
            Self::Message => "the message",
        }
    }
}

/// Why a conversation ended early.
enum Failure {
    /// The server said no.
    Reply { stage: Stage, code: u16, status: Option<String> },
    /// The server said nothing in time.
    Silence(Stage),
    /// The replies do not belong to the commands.
    Confusion(Stage),
    /// There was no conversation.
    Broken { stage: Stage, cause: String },
}

impl Failure {
    fn of(stage: Stage, error: &SmtpError) -> Self {
        match error.status() {
            Some(code) => {
                let text = error.source().map(ToString::to_string).unwrap_or_default();
                Self::Reply { stage, code: code.into(), status: enhanced_status(&text) }
            }
            None => Self::Broken { stage, cause: cause(error) },
        }
    }
}

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
        }
    }
}

/// Whether no later attempt can succeed while this mail is what it is.
fn blames_the_mail(stage: Stage, code: u16, status: &str) -> bool {
    let about_the_mail = matches!(stage, Stage::Receiver | Stage::Message);
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

/// What broke, in words of this side: never a text the server sent.
fn cause(error: &SmtpError) -> String {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return match io.kind() {
                // How the TLS library reports a certificate it does not trust.
                io::ErrorKind::InvalidData => tls_cause(io),
                kind => kind.to_string(),
            };
        }
        source = inner.source();
    }
    if error.is_response() { "no reply that can be read" } else { "no connection" }.to_owned()
}

fn tls_cause(error: &io::Error) -> String {
    const MAX: usize = 200;
    let text = error.to_string();
    let text: String = text.chars().filter(|c| !c.is_control()).take(MAX).collect();
    format!("TLS: {text}")
}

fn expect(reply: &Response, stage: Stage, severity: Severity) -> Result<(), Failure> {
    if reply.code().severity == severity { Ok(()) } else { Err(Failure::Confusion(stage)) }
}

async fn within<T>(
    limit: Duration,
    stage: Stage,
    step: impl Future<Output = Result<T, SmtpError>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Failure::of(stage, &error)),
        Err(_) => Err(Failure::Silence(stage)),
    }
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
