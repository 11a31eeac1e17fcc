//! Who asks, on routes of the host's own: checked and refused as the service does it.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use ipnet::IpNet;
use usermgr_core::domain::role::Permission;
use usermgr_core::flow::sessions::Authenticated;
use usermgr_core::{ClientContext, Error, UserManager};

use crate::http::authorization::authenticated;
use crate::http::client::{ForwardedHeader, client_context_by};
use crate::http::problem::{Language, Problem};
use crate::http::{request_id, seal};

/// Whoever the request's access token belongs to, as the store has them now.
///
/// # Errors
/// [`Refusal`]: 401 without a token or with one that does not hold, 503 when the store cannot be asked.
///
/// ```
/// use http::HeaderMap;
/// use usermgr_server::authenticate;
/// # use usermgr_core::testing::TestAuth;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let auth = TestAuth::new();
/// # let users = auth.users().clone();
///
/// # let signed_in = auth.signed_in("user").await;
/// let mut headers = HeaderMap::new(); // of a request
/// headers.insert("authorization", format!("Bearer {}", signed_in.access_token.expose()).parse()?);
/// let caller = authenticate(&users, &headers).await.map_err(|refusal| refusal.status().to_string())?;
/// assert_eq!(caller.user.id, signed_in.user.id);
///
/// let refused = authenticate(&users, &HeaderMap::new()).await.expect_err("no token");
/// assert_eq!(refused.status(), 401);
/// # Ok(())
/// # }
/// ```
pub async fn authenticate(users: &UserManager, headers: &HeaderMap) -> Result<Authenticated, Refusal> {
    authenticated(users, headers).await.map_err(|error| Refusal::under(request_id(headers), error, headers))
}

/// A refusal, to be answered as the service answers: problem+json (RFC 9457), in the language of the request, with
/// `WWW-Authenticate` where it is a 401.
///
/// ```
/// use http::Request;
/// use usermgr_core::Password;
/// use usermgr_server::{Refusal, client_context};
/// # use usermgr_core::testing::TestAuth;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let auth = TestAuth::new();
/// # let users = auth.users().clone();
///
/// # let (parts, ()) = Request::post("/login").header("accept-language", "es").body(())?.into_parts();
/// // Of a request: its parts, which axum gives a handler as an argument.
/// let client = client_context(&parts, &[]);
/// let signed_in = users.sessions().login("ana@example.org", &Password::new("wrong"), &client).await;
/// let refused = signed_in.map_err(|error| Refusal::new(error, &parts.headers, &client));
/// # let refused = refused.expect_err("there is no such user");
/// assert_eq!(refused.into_response().status(), 401);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Refusal {
    problem: Problem,
    language: Language,
    request_id: String,
}

impl Refusal {
    /// The refusal that an error is, of a request with these headers. It bears the request id of `client`, under which the
    /// audit log has it too.
    pub fn new(error: Error, headers: &HeaderMap, client: &ClientContext) -> Self {
        let request_id = client.request_id.clone().unwrap_or_else(|| request_id(headers));
        Self::under(request_id, error, headers)
    }

    fn under(request_id: String, error: Error, headers: &HeaderMap) -> Self {
        let problem = Problem::from(error);
        tracing::info!(request_id, code = problem.code(), "refused");
        Self { problem, language: Language::of(headers), request_id }
    }

    /// The status it is answered with.
    pub const fn status(&self) -> StatusCode {
        self.problem.status()
    }

    /// The answer.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = self.problem.into_response(self.language, &self.request_id);
        seal(response.headers_mut(), &self.request_id);
        response
    }
}

/// A `tower::Layer` that lets nobody pass whose roles do not permit something: 401 for who is not signed in, 403 for who
/// may not, which is audited. Whoever passes is among the request's extensions, as [`Authenticated`].
///
/// It is no framework's own; with axum: `Router::route_layer`.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::{Layer as _, ServiceExt as _, service_fn};
/// use usermgr_server::RequirePermission;
/// # use std::convert::Infallible;
/// # use usermgr_core::testing::TestAuth;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let auth = TestAuth::new();
/// # let users = auth.users().clone();
///
/// let guard = RequirePermission::new(users, "reports:read".parse()?);
/// let reports = service_fn(async |_: Request<Full<Bytes>>| {
///     Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("all is well")))
/// });
///
/// let request = Request::get("/reports").body(Full::default())?; // without a token
/// assert_eq!(guard.layer(reports).oneshot(request).await?.status(), 401);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RequirePermission {
    users: UserManager,
    permission: Permission,
    trusted_proxies: Arc<[IpNet]>,
    forwarded_header: ForwardedHeader,
}

impl RequirePermission {
    /// A guard that asks for one permission.
    pub fn new(users: UserManager, permission: Permission) -> Self {
        let forwarded_header = ForwardedHeader::default();
        Self { users, permission, trusted_proxies: Arc::new([]), forwarded_header }
    }

    /// Proxies whose `X-Forwarded-For` is believed, for the audit log; none by default.
    #[must_use]
    pub fn with_trusted_proxies(mut self, proxies: &[IpNet]) -> Self {
        self.trusted_proxies = proxies.into();
        self
    }

    /// The header in which those proxies write whom they speak for, where it is not `X-Forwarded-For`.
    #[must_use]
    pub const fn with_forwarded_header(mut self, header: ForwardedHeader) -> Self {
        self.forwarded_header = header;
        self
    }

    async fn check<B>(&self, request: Request<B>) -> Result<Request<B>, Refusal> {
        let (mut parts, body) = request.into_parts();
        let caller = authenticate(&self.users, &parts.headers).await?;
        let client = client_context_by(&parts, &self.trusted_proxies, self.forwarded_header);
        let permitted = self.users.require(&caller, &self.permission, &client).await;
        permitted.map_err(|error| Refusal::new(error, &parts.headers, &client))?;
        parts.extensions.insert(caller);
        Ok(Request::from_parts(parts, body))
    }
}

impl<S> tower::Layer<S> for RequirePermission {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { guard: self.clone(), inner }
    }
}

/// A service behind a [`RequirePermission`].
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    guard: RequirePermission,
    inner: S,
}

impl<S, B, R> tower::Service<Request<B>> for Guarded<S>
where
    S: tower::Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<Either<R, Full<Bytes>>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let guard = self.guard.clone();
        // The one that was polled, not a copy of it, is ready.
        let copy = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, copy);
        Box::pin(async move {
            match guard.check(request).await {
                Ok(request) => Ok(inner.call(request).await?.map(Either::Left)),
                Err(refusal) => Ok(refusal.into_response().map(Either::Right)),
            }
        })
    }
}

/// Whoever is signed in, as an argument of an axum handler; 401 for everybody else. The router's state has a
/// [`UserManager`] (`FromRef`).
///
/// Behind a [`RequirePermission`] it is whoever that let pass, and the store is not asked again.
///
/// ```
/// use axum::Router;
/// use axum::routing::get;
/// use usermgr_core::UserManager;
/// use usermgr_server::CurrentUser;
///
/// async fn who(CurrentUser(caller): CurrentUser) -> String {
///     format!("{}, signed in since {}", caller.user.email, caller.session.authenticated_at)
/// }
///
/// # fn app(users: UserManager) -> Router {
/// let app: Router = Router::new().route("/who", get(who)).with_state(users);
/// # app
/// # }
/// ```
#[cfg(feature = "axum")]
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "handlers take it apart")]
pub struct CurrentUser(pub Authenticated);

#[cfg(feature = "axum")]
impl<S> axum::extract::FromRequestParts<S> for CurrentUser
where
    UserManager: axum::extract::FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut http::request::Parts, state: &S) -> Result<Self, Refusal> {
        use axum::extract::FromRef as _;
        if let Some(caller) = parts.extensions.get::<Authenticated>() {
            return Ok(Self(caller.clone()));
        }
        authenticate(&UserManager::from_ref(state), &parts.headers).await.map(Self)
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for Refusal {
    fn into_response(self) -> axum::response::Response {
        Self::into_response(self).map(axum::body::Body::new)
    }
}
