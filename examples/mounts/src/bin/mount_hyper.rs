//! In plain hyper: a program that finds its routes by itself, and asks for the caller by two functions.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tower::Service as _;
use usermgr_core::UserManager;
use usermgr_core::domain::role::Permission;
use usermgr_mounts::{SERVED_BY, StartError, arguments, in_part, reports, say, users};
use usermgr_server::{AuthService, PeerAddr, Refusal, ServiceOptions, authenticate, client_context, service};

#[derive(Clone)]
struct App {
    users: UserManager,
    whole: AuthService,
    part: AuthService,
    reports: Permission,
}

#[tokio::main]
async fn main() -> Result<(), StartError> {
    let (database, listen) = arguments();
    let users = users(&database).await?;
    let _workers = users.start_workers();
    let options = ServiceOptions { base_path: "/auth/v1".into(), ..ServiceOptions::default() };
    let app = App {
        whole: service(users.clone(), options),
        part: service(users.clone(), in_part("/accounts")),
        reports: reports()?,
        users,
    };

    let listener = tokio::net::TcpListener::bind(&listen).await?;
    say(listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept().await?;
        let app = app.clone();
        let answering = hyper::service::service_fn(move |request| app.clone().answer(peer, request));
        // A program that faces the world also bounds its connections.
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new());
        tokio::spawn(http.serve_connection(TokioIo::new(stream), answering));
    }
}

impl App {
    async fn answer(
        mut self,
        peer: SocketAddr,
        mut request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        // The address of the client, for the limits.
        request.extensions_mut().insert(PeerAddr(peer));
        match request.uri().path() {
            "/hello" => Ok(self.hello(request.headers()).await.unwrap_or_else(Refusal::into_response)),
            "/reports" => Ok(self.reports(request).await.unwrap_or_else(Refusal::into_response)),
            path if path.starts_with("/accounts/") => {
                let mut response = self.part.call(request).await?;
                response.headers_mut().insert(SERVED_BY, HeaderValue::from_static("hyper"));
                Ok(response)
            }
            _ => self.whole.call(request).await,
        }
    }

    async fn hello(&self, headers: &HeaderMap) -> Result<Response<Full<Bytes>>, Refusal> {
        let caller = authenticate(&self.users, headers).await?;
        Ok(json(&json!({ "hello": caller.user.email })))
    }

    async fn reports(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Refusal> {
        let (parts, _) = request.into_parts();
        let caller = authenticate(&self.users, &parts.headers).await?;
        let client = client_context(&parts, &[]);
        let permitted = self.users.require(&caller, &self.reports, &client).await;
        permitted.map_err(|error| Refusal::new(error, &parts.headers, &client))?;
        Ok(json(&json!({ "reports": [] })))
    }
}

fn json(body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}
