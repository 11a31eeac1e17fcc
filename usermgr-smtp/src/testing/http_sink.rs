//! A small mail API that keeps what it gets.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::TooFew;

/// An HTTP server on `127.0.0.1` that keeps every request and answers as told.
///
/// It stops when the last clone of it is dropped.
#[derive(Clone)]
pub struct HttpSink {
    address: SocketAddr,
    shared: Arc<Shared>,
    _running: Arc<Running>,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedRequest {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// Every byte of the body.
    pub body: Vec<u8>,
}

impl ReceivedRequest {
    /// A header's value; the first, if there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

impl HttpSink {
    /// A sink that answers 202 with an empty body.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            answer: Mutex::new(Answer::default()),
            requests: watch::Sender::new(Vec::new()),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, _running: Arc::new(Running(task.abort_handle())) })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for a transport.
    pub fn url(&self) -> String {
        format!("http://{}/mails", self.address)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.shared.requests.borrow().clone()
    }

    /// All requests, once there are this many.
    ///
    /// # Errors
    /// [`TooFew`] when they did not come in time.
    pub async fn wait_for(&self, wanted: usize, timeout: Duration) -> Result<Vec<ReceivedRequest>, TooFew> {
        let mut requests = self.shared.requests.subscribe();
        let enough = tokio::time::timeout(timeout, requests.wait_for(|all| all.len() >= wanted)).await;
        match enough {
            Ok(Ok(requests)) => Ok(requests.clone()),
            _ => Err(TooFew { got: self.requests().len(), wanted }),
        }
    }

    /// Answers with this status (500 if it is none) and body from now on.
    pub fn answer(&self, status: u16, body: impl Into<Vec<u8>>) {
        let mut answer = self.shared.answer();
        answer.status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        answer.body = Bytes::from(body.into());
    }

    /// Waits before each answer from now on.
    pub fn delay(&self, delay: Duration) {
        self.shared.answer().delay = delay;
    }

    /// Answers 302 to this address from now on.
    pub fn redirect(&self, location: &str) {
        let mut answer = self.shared.answer();
        answer.status = StatusCode::FOUND;
        answer.location = HeaderValue::from_str(location).ok();
    }

    /// From now on sends the body, and never its end.
    pub fn stall_body(&self) {
        self.shared.answer().stalls = true;
    }

    /// Answers as at the start.
    pub fn recover(&self) {
        *self.shared.answer() = Answer::default();
    }
}

impl fmt::Debug for HttpSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSink").field("address", &self.address).finish_non_exhaustive()
    }
}

struct Shared {
    answer: Mutex<Answer>,
    requests: watch::Sender<Vec<ReceivedRequest>>,
}

impl Shared {
    fn answer(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
struct Answer {
    status: StatusCode,
    body: Bytes,
    location: Option<HeaderValue>,
    delay: Duration,
    stalls: bool,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            status: StatusCode::ACCEPTED,
            body: Bytes::new(),
            location: None,
            delay: Duration::ZERO,
            stalls: false,
        }
    }
}

/// Ends the server, and with it every connection.
struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, &shared));
            // A client that goes away ends its own connection only.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<Rest>, Infallible> {
    let (head, body) = request.into_parts();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let received = ReceivedRequest {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default(),
    };
    shared.requests.send_modify(|requests| requests.push(received));
    let Answer { status, body, location, delay, stalls } = shared.answer().clone();
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let mut response = Response::new(Rest { data: (!body.is_empty()).then_some(body), stalls });
    *response.status_mut() = status;
    if let Some(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// The body of an answer, which may never end.
struct Rest {
    data: Option<Bytes>,
    stalls: bool,
}

impl Body for Rest {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.data.take() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None if self.stalls => Poll::Pending,
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && !self.stalls
    }
}
