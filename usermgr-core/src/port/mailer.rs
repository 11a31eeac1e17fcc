//! Sending mail.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

use crate::domain::email::Email;
use crate::domain::id::OutboxId;

/// Hands one mail over to whoever delivers it.
///
/// ```
/// use async_trait::async_trait;
/// use usermgr_core::port::mailer::{Mail, MailError, Mailer};
///
/// # #[derive(Debug)]
/// # struct Api;
/// # #[derive(Debug, thiserror::Error)]
/// # #[error("refused")]
/// # struct Refused { busy: bool }
/// # impl Api { async fn post(&self, _: &str, _: &Mail) -> Result<(), Refused> { Ok(()) } }
/// /// Mails by the service that we have anyway.
/// #[derive(Debug)]
/// struct OurMails(Api);
///
/// #[async_trait]
/// impl Mailer for OurMails {
///     async fn send(&self, mail: &Mail) -> Result<(), MailError> {
///         // The same identifier at every attempt: the service sends a mail that it knows no second time.
///         let key = mail.id.to_string();
///         self.0.post(&key, mail).await.map_err(|refused| match refused.busy {
///             true => MailError::transient("the mail service is busy").with_source(refused),
///             false => MailError::permanent("the mail service refused the mail").with_source(refused),
///         })
///     }
/// }
/// ```
#[cfg_attr(feature = "testing", mockall::automock)]
#[async_trait]
pub trait Mailer: Send + Sync + fmt::Debug {
    /// Hands the mail over. It returns `Ok` only when the other side has taken responsibility for it.
    ///
    /// The same mail may be handed over again after a failure or a crash, always with the same
    /// [`id`](Mail::id) and the same content: transports turn the id into a `Message-ID` or an `Idempotency-Key`.
    ///
    /// # Errors
    /// [`MailError`] says whether another attempt makes sense.
    async fn send(&self, mail: &Mail) -> Result<(), MailError>;
}

/// A mail, rendered.
///
/// # Security
/// Its texts may carry a live code or link: `Debug` shows neither them nor the receiver.
#[derive(Clone)]
#[expect(clippy::exhaustive_structs, reason = "who tests a mailer makes mails")]
pub struct Mail {
    /// The same for every attempt to deliver this mail.
    pub id: OutboxId,
    /// To whom.
    pub to: Email,
    /// The subject: one line, without control characters.
    pub subject: String,
    /// The plain text.
    pub text: String,
    /// The same as HTML.
    pub html: String,
    /// When the mail was written.
    pub date: OffsetDateTime,
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a mail was not taken.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct MailError {
    kind: MailErrorKind,
    message: String,
    retry_after: Option<Duration>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MailErrorKind {
    Transient,
    Permanent,
}

impl MailError {
    /// Another attempt may succeed: a time-out, a refused connection, a 4xx reply of SMTP.
    ///
    /// The message stands in logs and in the outbox: it must hold no secret and no content of the mail.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(MailErrorKind::Transient, message.into())
    }

    /// No attempt will succeed: the receiver does not exist, the mail cannot be sent by this transport.
    ///
    /// The message stands in logs and in the outbox: it must hold no secret and no content of the mail.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(MailErrorKind::Permanent, message.into())
    }

    const fn new(kind: MailErrorKind, message: String) -> Self {
        Self { kind, message, retry_after: None, source: None }
    }

    /// With how long the other side asks to be left alone. The worker waits so long, within bounds of its own.
    #[must_use]
    pub const fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// With the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether another attempt makes sense.
    pub fn is_transient(&self) -> bool {
        self.kind == MailErrorKind::Transient
    }

    /// Whether no attempt will succeed.
    pub fn is_permanent(&self) -> bool {
        self.kind == MailErrorKind::Permanent
    }

    /// How long the other side asks to be left alone.
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}
