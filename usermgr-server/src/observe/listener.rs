//! The listener of an operator, on an address of its own, for whoever reaches it: `GET /metrics`, and the two health checks,
//! which nobody at the public listener can keep from being answered.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::net::TcpListener;
use usermgr_core::worker::Stop;

use super::metrics::ConnectionMetrics;
use super::scrape::Watched;
use crate::connections::{self, Limits, Options, RequestBody};
use crate::http::client::MalformedHost;

/// Connections at once, and those of one network: a scraper, a few probes, and somebody who looks.
const MAX_CONNECTIONS: usize = 32;
const MAX_CONNECTIONS_PER_NETWORK: usize = 16;
/// How long a connection may be idle: a scraper comes every 15 to 60 seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Answers until `stop`.
pub(crate) async fn serve(listener: TcpListener, watched: Arc<Watched>, stop: Stop) {
    let service = tower::service_fn(move |request| answer(Arc::clone(&watched), request));
    let limits = Limits {
        connections: MAX_CONNECTIONS,
        per_network: MAX_CONNECTIONS_PER_NETWORK,
        spare: 0,
        proxies: Vec::new(),
    };
    let options =
        Options { tls: None, limits, keep_alive: KEEP_ALIVE, metrics: ConnectionMetrics::default() };
    connections::serve(listener, options, service, stop.requested()).await;
}

async fn answer(
    watched: Arc<Watched>,
    request: Request<RequestBody>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let path = request.uri().path();
    if request.extensions().get::<MalformedHost>().is_some() {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    } else if !matches!(path, "/metrics" | "/health/live" | "/health/ready") {
        *response.status_mut() = StatusCode::NOT_FOUND;
    } else if request.method() != Method::GET {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
    } else if path == "/health/live" {
        say(&mut response, JSON, r#"{"status":"live"}"#);
    } else if path == "/health/ready" {
        if watched.is_ready().await {
            say(&mut response, JSON, r#"{"status":"ready"}"#);
        } else {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
    } else if let Ok(text) = watched.text().await {
        say(&mut response, OPEN_METRICS, text);
    } else {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    Ok(response)
}

fn say(response: &mut Response<Full<Bytes>>, kind: HeaderValue, text: impl Into<Bytes>) {
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    *response.body_mut() = Full::from(text.into());
}
