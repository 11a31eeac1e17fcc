//! Third-party mail APIs.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use usermgr_core::port::mailer::{Mail, MailError, Mailer};

use crate::mail_url::{self, MailUrlError, PlaintextPolicy};
use crate::message::one_line;
use crate::sender::Sender;
use crate::trusted_roots::TrustedRoots;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Sends mail by a third-party HTTP API.
///
/// One `POST` a mail with the JSON `{id, to, from, subject, text, html}` and the header `Idempotency-Key: {id}`, byte
/// for byte the same on every attempt: a service that knows the header sends the mail once.
///
/// # Which answers mean what
/// - 2xx: sent, whatever the body says and however slowly it comes.
/// - 3xx: transient, and not followed: a redirect could carry the mail anywhere.
/// - 408, 409, 425, 429 and 5xx: transient. 409 says that an earlier attempt under the same key is still under way.
/// - 401 to 405, 407 and 421: transient. The account or the configuration is at fault, not the mail.
/// - any other 4xx: permanent.
///
/// `Retry-After`, in seconds or as a date beside the answer's own `Date`, is passed on to the worker.
///
/// # Security
/// Certificates are always checked against Mozilla's roots and those of
/// [`with_trusted_roots`](HttpApi::with_trusted_roots). Errors hold the status code only. `Debug` shows the
/// origin and neither path nor credentials, since either may be a secret.
///
/// ```
/// use usermgr_smtp::{HttpApi, PlaintextPolicy, Sender};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sender = Sender::parse("Example <noreply@example.org>")?;
/// let api = HttpApi::from_url("https://:token@api.mail.example/v1/send", sender, PlaintextPolicy::LoopbackOnly)?;
/// assert!(!format!("{api:?}").contains("token"));
/// # Ok(())
/// # }
/// ```
pub struct HttpApi {
    client: HttpClient,
    endpoint: Uri,
    authorization: Option<HeaderValue>,
    sender: Sender,
    timeout: Duration,
}

/// What the service is sent. The order of the fields is part of the bytes.
#[derive(Serialize)]
struct Body<'a> {
    id: String,
    to: &'a str,
    from: String,
    subject: String,
    text: &'a str,
    html: &'a str,
}

impl HttpApi {
    /// From the request to the status of its answer.
    pub const TIMEOUT: Duration = Duration::from_secs(30);
    /// Until a TCP connection stands.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
    /// The most bytes of an answer's body that are read, only to use the connection again.
    pub const MAX_RESPONSE_BODY: usize = 64 * 1024;

    /// The transport that a URL names: `https://:token@host/path`.
    ///
    /// The password of the URL, or its user name if it has no password, is sent as `Authorization: Bearer …`. It is
    /// percent-encoded. `http:` is for loopback, unless [`PlaintextPolicy::Allow`].
    ///
    /// # Errors
    /// [`MailUrlError`], which never shows any part of the URL.
    pub fn from_url(url: &str, sender: Sender, plaintext: PlaintextPolicy) -> Result<Self, MailUrlError> {
        let mut url = mail_url::parse(url)?;
        let encrypted = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(MailUrlError::UnknownScheme),
        };
        let loopback = mail_url::is_loopback(&mail_url::host(&url)?);
        if !encrypted && !loopback && plaintext == PlaintextPolicy::LoopbackOnly {
            return Err(MailUrlError::Plaintext);
        }
        if url.fragment().is_some() {
            return Err(MailUrlError::Superfluous);
        }
        let authorization = authorization(&url)?;
        url.set_username("").map_err(|()| MailUrlError::NoHost)?;
        url.set_password(None).map_err(|()| MailUrlError::NoHost)?;
        Ok(Self {
            client: client(encrypted, &TrustedRoots::default())?,
            endpoint: url.as_str().parse().map_err(|_| MailUrlError::Unreadable)?,
            authorization,
            sender,
            timeout: Self::TIMEOUT,
        })
    }

    /// Trusts these authorities, instead of Mozilla's alone: for a service with a private CA.
    ///
    /// # Errors
    /// [`MailUrlError::Tls`] when TLS cannot be set up.
    pub fn with_trusted_roots(mut self, roots: &TrustedRoots) -> Result<Self, MailUrlError> {
        let encrypted = self.endpoint.scheme() == Some(&Scheme::HTTPS);
        self.client = client(encrypted, roots)?;
        Ok(self)
    }

    /// Instead of [`HttpApi::TIMEOUT`].
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn request(&self, mail: &Mail) -> Result<Request<Full<Bytes>>, MailError> {
        let unbuildable = || MailError::permanent("no request can be built from this mail");
        let body = Body {
            id: mail.id.to_string(),
            to: mail.to.as_str(),
            from: self.sender.to_string(),
            subject: one_line(&mail.subject),
            text: &mail.text,
            html: &mail.html,
        };
        let json = serde_json::to_vec(&body).map_err(|_| unbuildable())?;
        let mut request = Request::post(self.endpoint.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("usermgr-smtp/", env!("CARGO_PKG_VERSION")))
            .header(IDEMPOTENCY_KEY, body.id);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.body(Full::from(json)).map_err(|_| unbuildable())
    }
}

fn authorization(url: &url::Url) -> Result<Option<HeaderValue>, MailUrlError> {
    let Some((user, password)) = mail_url::credentials(url)? else { return Ok(None) };
    let token = password.map_or(user, |password| password.expose_secret().to_owned());
    // RFC 6750 §2.1: what else would stand in the header is no token.
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(MailUrlError::InvalidCredentials);
    }
    let mut value =
        HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| MailUrlError::InvalidCredentials)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// The client of mail APIs and webhooks.
pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

pub(crate) fn client(encrypted: bool, roots: &TrustedRoots) -> Result<HttpClient, MailUrlError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(HttpApi::CONNECT_TIMEOUT));
    let config = roots.client_config().map_err(|_| MailUrlError::Tls)?;
    let tls = HttpsConnectorBuilder::new().with_tls_config(config);
    let schemes = if encrypted { tls.https_only() } else { tls.https_or_http() };
    let connector = schemes.enable_http1().wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector))
}

#[async_trait]
impl Mailer for HttpApi {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let request = self.request(mail)?;
        let answer = tokio::time::timeout(self.timeout, self.client.request(request))
            .await
            .map_err(|_| MailError::transient("the mail API timed out"))?
            .map_err(|e| {
                let what =
                    if e.is_connect() { "the mail API cannot be reached" } else { "the mail API broke off" };
                MailError::transient(what).with_source(e)
            })?;
        let judged = judge(answer.status());
        let wait = retry_after(answer.headers());
        discard(answer.into_body()).await;
        judged.map_err(|error| match wait {
            Some(wait) if error.is_transient() => error.with_retry_after(wait),
            _ => error,
        })
    }
}

/// Reads what is left of a short answer, so that its connection can be used again. Nothing depends on it.
pub(crate) async fn discard(body: Incoming) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let _ = tokio::time::timeout(PATIENCE, Limited::new(body, HttpApi::MAX_RESPONSE_BODY).collect()).await;
}

fn judge(status: StatusCode) -> Result<(), MailError> {
    let message = format!("the mail API answered {}", status.as_u16());
    match status.as_u16() {
        200..=299 => Ok(()),
        401..=405 | 407..=409 | 421 | 425 | 429 => Err(MailError::transient(message)),
        400..=499 => Err(MailError::permanent(message)),
        _ => Err(MailError::transient(message)),
    }
}

/// How long the answer asks to wait (RFC 9110 §10.2.3). A date is taken from the answer's own, so that the clocks of both
/// sides need not agree.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| OffsetDateTime::parse(text, &Rfc2822).ok();
    let said_at = date(headers.get(DATE)?.to_str().ok()?)?;
    Duration::try_from(date(text)? - said_at).ok()
}

impl fmt::Debug for HttpApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = format!(
            "{}://{}",
            self.endpoint.scheme_str().unwrap_or(""),
            self.endpoint.authority().map_or("", |a| a.as_str())
        );
        f.debug_struct("HttpApi")
            .field("origin", &origin)
            .field("sender", &self.sender)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_sent_or_permanent_or_transient() {
        for status in [200, 201, 202, 204, 299] {
            assert!(judge(StatusCode::from_u16(status).unwrap()).is_ok(), "{status}");
        }
        let ours = [401, 402, 403, 404, 405, 407, 421];
        let theirs = [301, 302, 303, 307, 308, 408, 409, 425, 429, 500, 502, 503, 504, 599];
        for status in ours.into_iter().chain(theirs) {
            assert!(judge(StatusCode::from_u16(status).unwrap()).unwrap_err().is_transient(), "{status}");
        }
        for status in [400, 406, 410, 411, 413, 414, 415, 422, 451] {
            assert!(judge(StatusCode::from_u16(status).unwrap()).unwrap_err().is_permanent(), "{status}");
        }
    }

    #[test]
    fn a_wait_is_asked_for_in_seconds_or_until_a_date() {
        let wait = |retry_after: &'static str, date: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(retry_after));
            headers.extend(date.map(|date| (DATE, HeaderValue::from_static(date))));
            super::retry_after(&headers).map(|wait| wait.as_secs())
        };
        let (noon, later) = ("Sun, 06 Nov 1994 12:00:00 GMT", "Sun, 06 Nov 1994 12:02:00 GMT");
        assert_eq!(wait("120", None), Some(120));
        assert_eq!(wait(" 0 ", Some(noon)), Some(0));
        assert_eq!(wait(later, Some(noon)), Some(120));
        assert_eq!(wait(noon, Some(later)), None, "it is over");
        assert_eq!(wait(later, None), None, "nobody says what time it is there");
        for nonsense in ["", "-1", "1.5", "soon", "99999999999999999999999"] {
            assert_eq!(wait(nonsense, Some(noon)), None, "{nonsense}");
        }
        assert_eq!(super::retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn a_url_that_cannot_be_kept_is_refused() {
        for (url, error) in [
            ("http://api.example/mails", MailUrlError::Plaintext),
            ("http://localhost.example/mails", MailUrlError::Plaintext),
            ("https://api.example/#x", MailUrlError::Superfluous),
            ("https://:a%0d%0aX%3a%20y@api.example/", MailUrlError::InvalidCredentials),
            ("https://:a%20b@api.example/", MailUrlError::InvalidCredentials),
            ("https://", MailUrlError::Unreadable),
            ("smtp://api.example", MailUrlError::UnknownScheme),
        ] {
            let sender = Sender::parse("a@localhost").unwrap();
            let refused = HttpApi::from_url(url, sender, PlaintextPolicy::LoopbackOnly).unwrap_err();
            assert_eq!(refused, error, "{url}");
        }
    }
}
