//! The HTTP interface as a `tower::Service`: it reads requests, calls the core and writes answers. No rule of the domain
//! stands here.

mod answer;
pub(crate) mod authorization;
mod body;
pub mod client;
mod hsts;
mod openapi;
pub(crate) mod problem;
pub(crate) mod query;
mod routes;
mod trace;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use ipnet::IpNet;
use tracing::Instrument as _;
use usermgr_core::domain::id::OutboxId;
use usermgr_core::port::clock::{Clock as _, SystemClock};
use usermgr_core::port::random::SystemRandom;
use usermgr_core::{ClientContext, UserManager};

pub(crate) use answer::export_json;
#[cfg(feature = "program")]
pub(crate) use answer::{audit_json, outbox_json, role_json, user_json};
pub use client::ForwardedHeader;
pub use hsts::Hsts;
pub use openapi::openapi;
pub use routes::Namespace;
pub(crate) use routes::without_slash;

use crate::pages::{PageRequest, Pages};
use answer::Answer;
use client::{MalformedHost, OverLimit};
use problem::{Language, Problem};
use routes::{Endpoint, Found, Routes};

/// How long a request may take, its body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request's body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// How the service is exposed.
///
/// ```
/// use usermgr_server::{Namespace, ServiceOptions, service};
/// # use usermgr_core::testing::TestAuth;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let auth = TestAuth::new();
/// # let users = auth.users().clone();
///
/// let options = ServiceOptions {
///     base_path: "/accounts".into(),
///     namespaces: [Namespace::Registration, Namespace::Sessions].into(),
///     trusted_proxies: vec!["10.0.0.0/8".parse()?],
///     docs: false,
///     ..ServiceOptions::default()
/// };
/// let part = service(users, options);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "a host names what it changes and takes the rest from Default")]
pub struct ServiceOptions {
    /// What every path of the interface begins with, without a slash at the end; `/v1` by default, may be empty.
    pub base_path: String,
    /// The most bytes of a request's body; 64 KiB by default.
    pub max_body: usize,
    /// Proxies whose [`forwarded_header`](Self::forwarded_header) is believed; none by default.
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which those proxies write whom they speak for; `X-Forwarded-For` by default. The other one is ignored:
    /// a proxy passes on what clients write in it.
    pub forwarded_header: ForwardedHeader,
    /// Whether browsers are told to come by TLS alone (HSTS). By default they are, for this host, where
    /// [`public_url`](usermgr_core::policy::MailPolicy::public_url) begins with `https://`.
    pub hsts: Hsts,
    /// Origins whose scripts may call the interface (CORS); none by default.
    pub cors_origins: Vec<String>,
    /// Which groups of routes there are; all by default. The others are not found, nor told of in the document.
    pub namespaces: BTreeSet<Namespace>,
    /// Whether there are `/openapi.json` and `/docs`; they are by default.
    pub docs: bool,
    /// Pages for people, at the root of the service; none by default.
    pub pages: Option<Arc<Pages>>,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            base_path: "/v1".into(),
            max_body: 64 * 1024,
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            hsts: Hsts::default(),
            cors_origins: Vec::new(),
            namespaces: Namespace::ALL.into(),
            docs: true,
            pages: None,
        }
    }
}

/// What was answered, among the extensions of each response: for whoever counts or logs around the service.
///
/// ```
/// use http::Request;
/// use http_body_util::Empty;
/// use tower::ServiceExt as _;
/// use usermgr_server::{Answered, ServiceOptions, service};
/// # use bytes::Bytes;
/// # use usermgr_core::testing::TestAuth;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let auth = TestAuth::new();
/// # let users = auth.users().clone();
///
/// let service = service(users, ServiceOptions::default());
/// let response = service.oneshot(Request::get("/v1/users/me").body(Empty::<Bytes>::new())?).await?;
/// let answered = response.extensions().get::<Answered>().ok_or("each response has it")?;
/// assert_eq!((answered.route.as_deref(), answered.code), (Some("/v1/users/me"), Some("missing_token")));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answered {
    /// The route, with `{id}` where an identifier stands; none when there is no such path.
    pub route: Option<String>,
    /// The problem's code, if the answer tells of one.
    pub code: Option<&'static str>,
}

/// Makes the service. It mounts in any program that speaks `http` types: axum's `nest_service`, hyper, tonic.
///
/// The client's address comes from a [`PeerAddr`](client::PeerAddr) among the request's extensions, or with the feature
/// `axum` from the `ConnectInfo<SocketAddr>` of `into_make_service_with_connect_info`. Without either, all clients share
/// one budget of each limit.
///
/// The paths, under [`base_path`](ServiceOptions::base_path); the document (`/openapi.json`, [`openapi`]) has their fields,
/// answers and refusals:
///
/// | to | method and path |
/// |---|---|
/// | sign up | `POST /users`, `POST /users/resend-code`, `POST /users/verify`, `POST /users/activate` |
/// | sign in and out | `POST /users/login`, `POST /sessions/refresh`, `POST /sessions/logout` |
/// | see and end one's sessions | `GET /sessions`, `DELETE /sessions/{id}`, `DELETE /sessions` (all but this one) |
/// | set a password | `POST /passwords/forgot`, `reset`, `request-code`, `set-with-code`, `change` |
/// | one's own account | `GET`, `PATCH`, `DELETE /users/me`, `POST /users/me/email`, `GET /users/me/export` |
/// | administer | `GET /users`, `POST /users/invite`, `PATCH`, `DELETE /users/{id}`, `PUT /users/{id}/roles`, `GET /audit` |
///
/// A refusal is `application/problem+json`, whose `code` is the [reason](usermgr_core::Error::reason); what a hook refuses has
/// the code `refused`, and the hook's own reason as `reason`.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, StatusCode};
/// use http_body_util::Full;
/// use tower::ServiceExt as _;
/// use usermgr_server::{PeerAddr, ServiceOptions, service};
/// # use usermgr_core::testing::TestAuth;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let auth = TestAuth::new();
/// # let users = auth.users().clone();
///
/// let whole = service(users, ServiceOptions::default());
///
/// // In axum: `Router::new().nest_service("/auth", whole)`. By hand:
/// let body = r#"{"email": "ana@example.org", "password": "correct horse battery"}"#;
/// let mut request = Request::post("/v1/users")
///     .header("content-type", "application/json")
///     .body(Full::<Bytes>::from(body))?;
/// request.extensions_mut().insert(PeerAddr("192.0.2.1:40000".parse()?));
/// let response = whole.oneshot(request).await?;
/// assert_eq!(response.status(), StatusCode::ACCEPTED);
/// # Ok(())
/// # }
/// ```
pub fn service(manager: UserManager, options: ServiceOptions) -> AuthService {
    let routes = Routes::new(&options);
    let hsts = options.hsts.value(&manager.policies().mail.public_url);
    AuthService { app: Arc::new(App { manager, options, routes, document: OnceLock::new(), hsts }) }
}

/// The HTTP interface. Cloning is cheap.
#[derive(Clone)]
pub struct AuthService {
    app: Arc<App>,
}

impl fmt::Debug for AuthService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthService").field("options", &self.app.options).finish_non_exhaustive()
    }
}

struct App {
    manager: UserManager,
    options: ServiceOptions,
    routes: Routes,
    /// The OpenAPI document, once it was asked for: most servers never are, and start without it.
    document: OnceLock<Bytes>,
    /// What `Strict-Transport-Security` says, if anything.
    hsts: Option<HeaderValue>,
}

/// A request as a route sees it.
struct Call<'a> {
    manager: &'a UserManager,
    headers: &'a http::HeaderMap,
    query: Option<&'a str>,
    app: &'a App,
    /// What stands in the path where an identifier does.
    id: Option<&'a str>,
    body: Bytes,
    client: ClientContext,
}

impl Call<'_> {
    /// The identifier in the path. What is none names nothing.
    fn id<T: std::str::FromStr>(&self) -> Result<T, Problem> {
        self.id.and_then(|id| id.parse().ok()).ok_or_else(Problem::not_found)
    }
}

impl<B> tower::Service<Request<B>> for AuthService
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Box::pin(Arc::clone(&self.app).answer(request))
    }
}

impl App {
    async fn answer<B>(self: Arc<Self>, request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let begun = Instant::now();
        let (mut parts, body) = request.into_parts();
        detach(&mut parts);
        let request_id = request_id(&parts.headers);
        let language = Language::of(&parts.headers);
        let route = self.routes.find(parts.uri.path());
        let is_plain = parts.extensions.get::<OverLimit>().is_none()
            && parts.extensions.get::<MalformedHost>().is_none();
        let pages = self.options.pages.as_ref().filter(|_| route.is_none() && is_plain);
        let page = pages.and_then(|pages| {
            Pages::find(&parts.method, parts.uri.path(), &parts.headers).map(|found| (pages, found))
        });
        let pattern = route.map(|found| found.pattern).or(page.map(|(_, found)| found.pattern));
        let span = trace::span(&parts, &request_id, pattern);
        let (mut response, code) = if let Some((pages, found)) = page {
            let request = PageRequest {
                found,
                method: &parts.method,
                path: parts.uri.path(),
                query: parts.uri.query(),
                headers: &parts.headers,
                client: self.client(&parts, &request_id),
                request_id: &request_id,
            };
            let body = body::read(&parts.headers, body, self.options.max_body, BODY_TIMEOUT);
            let answering = Box::pin(pages.answer(&self.manager, request, body)).instrument(span.clone());
            let answered = guarded(&request_id, answering).await;
            answered.unwrap_or_else(|problem| pages.error(&problem, language, &request_id))
        } else {
            let handling = self.handle(&parts, body, &request_id).instrument(span.clone());
            match guarded(&request_id, handling).await.and_then(|outcome| outcome) {
                Ok(answer) => (answer.into_response(), None),
                Err(problem) => {
                    let code = problem.code();
                    (problem.into_response(language, &request_id), Some(code))
                }
            }
        };
        if parts.method == Method::HEAD {
            let length = std::mem::take(response.body_mut()).size_hint().exact().unwrap_or_default();
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        self.finish(&parts, &mut response, &request_id);
        let status = response.status().as_u16();
        let (method, path) = (parts.method.as_str(), pattern.unwrap_or("-"));
        let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let trace_id = trace::trace_id(&parts.headers);
        trace::answered(&span, response.status());
        tracing::info!(request_id, trace_id, method, path, status, code, milliseconds, "request");
        let route = pattern.map(str::to_owned);
        response.extensions_mut().insert(Answered { route, code });
        Ok(response)
    }

    async fn handle<B>(
        &self,
        parts: &http::request::Parts,
        body: B,
        request_id: &str,
    ) -> Result<Answer, Problem>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if parts.extensions.get::<MalformedHost>().is_some() {
            return Err(Problem::malformed("it does not say which host it is for"));
        }
        let found = self.routes.find(parts.uri.path());
        if parts.extensions.get::<OverLimit>().is_some() && !found.as_ref().is_some_and(Found::is_health) {
            return Err(Problem::no_connection_left());
        }
        let Found { methods, id, .. } = found.ok_or_else(Problem::not_found)?;
        if parts.method == Method::OPTIONS {
            return Ok(Answer::empty(StatusCode::NO_CONTENT).allowing(routes::allowed(methods)));
        }
        let asked = if parts.method == Method::HEAD { &Method::GET } else { &parts.method };
        let Some(endpoint) =
            methods.iter().find(|(method, _)| method == asked).map(|(_, endpoint)| *endpoint)
        else {
            return Err(Problem::method_not_allowed(methods));
        };
        let body = match endpoint {
            Endpoint::Live => Bytes::new(),
            _ => body::read(&parts.headers, body, self.options.max_body, BODY_TIMEOUT).await?,
        };
        let client = self.client(parts, request_id);
        let (manager, headers, query) = (&self.manager, &parts.headers, parts.uri.query());
        let call = Call { app: self, manager, headers, query, id, body, client };
        endpoint.run(&call).await
    }

    fn client(&self, parts: &http::request::Parts, request_id: &str) -> ClientContext {
        let ServiceOptions { trusted_proxies, forwarded_header, .. } = &self.options;
        client::context(parts, trusted_proxies, *forwarded_header, request_id)
    }

    fn document(&self) -> Bytes {
        let make = || openapi::document_of(&self.options, &self.manager).to_string().into();
        self.document.get_or_init(make).clone()
    }

    /// What every answer bears.
    fn finish(&self, parts: &http::request::Parts, response: &mut Response<Full<Bytes>>, request_id: &str) {
        let headers = response.headers_mut();
        let fixed = HeaderValue::from_static;
        seal(headers, request_id);
        if let Some(id) =
            sane_id(&parts.headers, &CORRELATION_ID).and_then(|id| HeaderValue::from_str(id).ok())
        {
            headers.insert(CORRELATION_ID, id);
        }
        if let Some(hsts) = &self.hsts {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        if self.options.cors_origins.is_empty() {
            return;
        }
        headers.append(header::VARY, fixed("Origin"));
        let origin = parts.headers.get(header::ORIGIN);
        let listed = |origin: &&HeaderValue| {
            self.options.cors_origins.iter().any(|listed| listed.as_bytes() == origin.as_bytes())
        };
        if let Some(origin) = origin.filter(listed) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                fixed("Retry-After, WWW-Authenticate, X-Request-Id, X-Correlation-Id"),
            );
            if parts.method == Method::OPTIONS {
                headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, fixed("GET, POST, PUT, PATCH, DELETE"));
                headers.insert(
                    header::ACCESS_CONTROL_ALLOW_HEADERS,
                    fixed(
                        "Authorization, Content-Type, Accept-Language, X-Request-Id, X-Correlation-Id, Traceparent",
                    ),
                );
                headers.insert(header::ACCESS_CONTROL_MAX_AGE, fixed("600"));
            }
        }
    }
}

/// Copies the head of a request out of the buffer that it was read into, which the connection then uses again. A request that
/// waits for its hash would hold that buffer, and the connection make another: 8 KiB for each who waits.
fn detach(parts: &mut http::request::Parts) {
    for value in parts.headers.values_mut() {
        if let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) {
            copy.set_sensitive(value.is_sensitive());
            *value = copy;
        }
    }
    if let Ok(copy) = parts.uri.to_string().parse() {
        parts.uri = copy;
    }
}

/// What every answer bears, whoever configured the service how. A page may bring its own policies.
pub(crate) fn seal(headers: &mut http::HeaderMap, request_id: &str) {
    let fixed = HeaderValue::from_static;
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff"));
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(fixed(value));
    }
    headers.insert(CROSS_ORIGIN_OPENER_POLICY, fixed("same-origin"));
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, fixed("same-origin"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
}

/// Runs what answers a request: not for ever, and a panic ends nothing but the request.
async fn guarded<T>(request_id: &str, answering: impl Future<Output = T>) -> Result<T, Problem> {
    let answering = AssertUnwindSafe(answering).catch_unwind();
    match tokio::time::timeout(REQUEST_TIMEOUT, answering).await {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(_panic)) => {
            tracing::error!(request_id, "a request panicked");
            Err(Problem::internal())
        }
        Err(_elapsed) => {
            tracing::error!(request_id, "a request took longer than {REQUEST_TIMEOUT:?} and was given up");
            Err(Problem::unavailable())
        }
    }
}

/// The caller's request id if it sent a sane one, else its correlation id, else a new one.
pub(crate) fn request_id(headers: &http::HeaderMap) -> String {
    let sent = sane_id(headers, &REQUEST_ID).or_else(|| sane_id(headers, &CORRELATION_ID));
    sent.map_or_else(|| OutboxId::new(SystemClock.now(), &SystemRandom).to_string(), str::to_owned)
}

/// What a header names a request, if it is fit for a log.
fn sane_id<'a>(headers: &'a http::HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let sane = |id: &&str| {
        (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    headers.get(name).and_then(|id| id.to_str().ok()).filter(sane)
}
