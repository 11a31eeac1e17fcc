//! Events, to a URL of the host's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::uri::Scheme;
use http::{Request, Uri};
use http_body_util::Full;
use url::Url;
use usermgr_core::crypto::webhook::{WebhookSecret, sign_webhook};
use usermgr_core::domain::event::Event;
use usermgr_core::port::clock::Clock;
use usermgr_core::port::events::{EventPublisher, PublishError};

use crate::http_api::{HttpClient, client, discard};
use crate::mail_url::{PlaintextPolicy, host, is_loopback};
use crate::trusted_roots::TrustedRoots;

/// Posts each event to a URL, signed as Standard Webhooks describes it.
///
/// One `POST` an event with its JSON, and `webhook-id` (the event's identifier, the same each time), `webhook-timestamp`
/// (when it was sent, in seconds since 1970) and `webhook-signature`. A 2xx means that it was taken, whatever the body
/// says and however slowly it comes. Everything else is tried again; redirects are not followed, since they could carry
/// events anywhere.
///
/// # Security
/// Certificates are always checked against Mozilla's roots and those of
/// [`with_trusted_roots`](Webhook::with_trusted_roots). Errors hold the status code only. `Debug` shows the origin and no
/// path, since it may be a secret.
///
/// The receiver checks it by [`verify_webhook`](usermgr_core::crypto::webhook::verify_webhook), or any library of Standard
/// Webhooks.
///
/// ```
/// use std::sync::Arc;
/// use usermgr_core::UserManager;
/// use usermgr_core::port::clock::SystemClock;
/// use usermgr_smtp::{PlaintextPolicy, Webhook};
/// # use usermgr_core::{ClientContext, SecretKey, testing::{Mailbox, MemoryStore}};
/// # use usermgr_core::flow::{permission::Principal, users::CreateUser};
/// # use usermgr_smtp::testing::HttpSink;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// # let sink = HttpSink::start().await?;
/// # let url = format!("http://{}/events", sink.address());
/// let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?; // echo "whsec_$(openssl rand -base64 32)"
/// // https://app.example.org/user-events
/// let webhook = Webhook::new(&url, vec![secret], PlaintextPolicy::LoopbackOnly, Arc::new(SystemClock))?;
/// let builder = UserManager::builder().events(Arc::new(webhook));
/// # let users = builder
/// #     .store(Arc::new(MemoryStore::default()))
/// #     .mailer(Arc::new(Mailbox::default()))
/// #     .secret_key(SecretKey::from_bytes([7; 32]))
/// #     .build()?;
/// # users.users().create(Principal::Operator, CreateUser::new("ana@example.org"), &ClientContext::new()).await?;
/// # users.event_worker().ok_or("nobody is to be told")?.run_once().await?;
/// # assert_eq!(sink.requests()[0].json().ok_or("no JSON")?["kind"], "user_registered");
/// # Ok(())
/// # }
/// ```
pub struct Webhook {
    client: HttpClient,
    endpoint: Uri,
    secrets: Vec<WebhookSecret>,
    clock: Arc<dyn Clock>,
    timeout: Duration,
}

/// Why a webhook cannot be sent to a URL. No message shows any part of the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookUrlError {
    /// The text is no URL of this kind.
    #[error("it takes a URL that begins with https:// or http://, without user name, password and fragment")]
    Unusable,
    /// Unencrypted to a host that is not loopback.
    #[error("it sends events unencrypted to a host that is not loopback, which is not allowed")]
    Plaintext,
    /// There is no secret to sign with.
    #[error("webhooks need a secret to be signed with")]
    NoSecret,
    /// TLS could not be set up.
    #[error("TLS could not be set up")]
    Tls,
}

/// Why an event was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("the receiver answered {0}")]
    Status(u16),
    #[error("the receiver did not answer in time")]
    TimedOut,
    #[error("the receiver cannot be reached")]
    Unreachable,
    #[error("the receiver broke off")]
    BrokenOff,
    #[error("no request can be built from this event")]
    Unbuildable,
}

impl Webhook {
    /// From the request to the status of its answer.
    pub const TIMEOUT: Duration = Duration::from_secs(15);

    /// Webhooks to this URL. Each is signed by every secret, the one in force first: while one is being replaced there
    /// are two. `http:` is for loopback, unless [`PlaintextPolicy::Allow`].
    ///
    /// # Errors
    /// [`WebhookUrlError`].
    pub fn new(
        url: &str,
        secrets: Vec<WebhookSecret>,
        plaintext: PlaintextPolicy,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, WebhookUrlError> {
        let unusable = |_| WebhookUrlError::Unusable;
        let url = Url::parse(url).map_err(|_| WebhookUrlError::Unusable)?;
        let encrypted = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(WebhookUrlError::Unusable),
        };
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        if has_credentials || url.fragment().is_some() {
            return Err(WebhookUrlError::Unusable);
        }
        let loopback = is_loopback(&host(&url).map_err(unusable)?);
        if !encrypted && !loopback && plaintext == PlaintextPolicy::LoopbackOnly {
            return Err(WebhookUrlError::Plaintext);
        }
        if secrets.is_empty() {
            return Err(WebhookUrlError::NoSecret);
        }
        let client = client(encrypted, &TrustedRoots::default()).map_err(|_| WebhookUrlError::Tls)?;
        let endpoint = url.as_str().parse().map_err(|_| WebhookUrlError::Unusable)?;
        Ok(Self { client, endpoint, secrets, clock, timeout: Self::TIMEOUT })
    }

    /// Trusts these authorities, instead of Mozilla's alone: for a receiver with a private CA.
    ///
    /// # Errors
    /// [`WebhookUrlError::Tls`] when TLS cannot be set up.
    pub fn with_trusted_roots(mut self, roots: &TrustedRoots) -> Result<Self, WebhookUrlError> {
        let encrypted = self.endpoint.scheme() == Some(&Scheme::HTTPS);
        self.client = client(encrypted, roots).map_err(|_| WebhookUrlError::Tls)?;
        Ok(self)
    }

    /// Instead of [`Webhook::TIMEOUT`].
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn request(&self, event: &Event) -> Result<Request<Full<Bytes>>, Refusal> {
        let (id, now) = (event.id.to_string(), self.clock.now());
        let body = serde_json::to_vec(event).map_err(|_| Refusal::Unbuildable)?;
        Request::post(self.endpoint.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("usermgr/", env!("CARGO_PKG_VERSION")))
            .header("webhook-timestamp", now.unix_timestamp())
            .header("webhook-signature", sign_webhook(&self.secrets, &id, now, &body))
            .header("webhook-id", id)
            .body(Full::from(body))
            .map_err(|_| Refusal::Unbuildable)
    }

    async fn send(&self, event: &Event) -> Result<(), Refusal> {
        let answer = tokio::time::timeout(self.timeout, self.client.request(self.request(event)?))
            .await
            .map_err(|_| Refusal::TimedOut)?
            .map_err(|error| if error.is_connect() { Refusal::Unreachable } else { Refusal::BrokenOff })?;
        let status = answer.status();
        discard(answer.into_body()).await;
        if status.is_success() { Ok(()) } else { Err(Refusal::Status(status.as_u16())) }
    }
}

#[async_trait]
impl EventPublisher for Webhook {
    async fn publish(&self, event: &Event) -> Result<(), PublishError> {
        self.send(event).await.map_err(PublishError::new)
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.endpoint.authority().map_or("", |authority| authority.as_str());
        let origin = format!("{}://{authority}", self.endpoint.scheme_str().unwrap_or(""));
        f.debug_struct("Webhook").field("origin", &origin).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use usermgr_core::port::clock::SystemClock;

    #[test]
    fn a_url_that_events_cannot_be_sent_to_is_refused() {
        use WebhookUrlError::{NoSecret, Plaintext, Unusable};

        let secret: WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let new = |url, secrets, plaintext| Webhook::new(url, secrets, plaintext, Arc::new(SystemClock));
        for (url, error) in [
            ("events", Unusable),
            ("ftp://host.example/", Unusable),
            ("https://", Unusable),
            ("https://me@host.example/", Unusable),
            ("https://:secret@host.example/", Unusable),
            ("https://host.example/#x", Unusable),
            ("http://host.example/", Plaintext),
            ("http://localhost.example/", Plaintext),
        ] {
            let refused = new(url, vec![secret.clone()], PlaintextPolicy::LoopbackOnly).unwrap_err();
            assert_eq!(refused, error, "{url}");
        }
        for url in ["https://host.example/hooks?a=b", "http://127.0.0.1:8080/", "http://[::1]/"] {
            new(url, vec![secret.clone()], PlaintextPolicy::LoopbackOnly).unwrap();
        }
        new("http://host.example/", vec![secret], PlaintextPolicy::Allow).unwrap();
        let unsigned = new("https://host.example/", Vec::new(), PlaintextPolicy::LoopbackOnly).unwrap_err();
        assert_eq!(unsigned, NoSecret);
    }

    #[test]
    fn nothing_of_the_path_or_the_secret_is_shown() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let policy = PlaintextPolicy::LoopbackOnly;
        let webhook =
            Webhook::new("https://host.example/path?x=y", vec![secret], policy, Arc::new(SystemClock))
                .unwrap();
        assert_eq!(format!("{webhook:?}"), r#"Webhook { origin: "https://host.example", .. }"#);
    }
}
