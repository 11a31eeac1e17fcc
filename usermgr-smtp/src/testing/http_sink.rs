//! A small mail API that keeps what it gets.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, LOCATION};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};

use super::port::Port;
use super::{TooFew, When};

/// A mail API on `127.0.0.1` that keeps every request and answers as told.
///
/// It honours `Idempotency-Key` as such services do: a mail counts as taken when it is first answered 2xx, whether or
/// not the answer arrives; the same key again changes nothing, and with another body it is answered 422.
///
/// It stops when the last clone of it is dropped.
///
/// ```
/// use usermgr_smtp::testing::{HttpAnswer, HttpSink, When};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let sink = HttpSink::start().await?;
/// let mail_url = sink.url();
/// sink.plan(HttpAnswer::new(503).header("retry-after", "30"), When::always().times(1)); // then as ever
/// assert!(sink.requests().is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HttpSink {
    shared: Arc<Shared>,
    port: Arc<Port>,
}

/// An answer of the service, or what is left of it.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    delay: Duration,
    pause: Duration,
    end: End,
    cut: Option<usize>,
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Ends,
    Stalls,
    GoesOn,
}

impl HttpAnswer {
    /// An answer of this status (500 if it is none), without a body.
    pub fn new(status: u16) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            headers: Vec::new(),
            body: Bytes::new(),
            delay: Duration::ZERO,
            pause: Duration::ZERO,
            end: End::Ends,
            cut: None,
        }
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Bytes::from(body.into());
        self
    }

    /// With this header besides; what is none is left out.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (name.parse(), HeaderValue::from_str(value)) {
            self.headers.push((name, value));
        }
        self
    }

    /// Later by this.
    #[must_use]
    pub const fn delayed(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Byte by byte, with this pause before each.
    #[must_use]
    pub const fn trickling(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// With a body that is sent, and then neither goes on nor ends.
    #[must_use]
    pub const fn stalling(mut self) -> Self {
        self.end = End::Stalls;
        self
    }

    /// With a body that goes on for ever.
    #[must_use]
    pub const fn endless(mut self) -> Self {
        self.end = End::GoesOn;
        self
    }

    /// Of which only so many bytes are sent, head and body together, before the connection breaks.
    #[must_use]
    pub const fn cut(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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
    #[expect(clippy::unused_async, reason = "it must be called within a runtime, and this says so")]
    pub async fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            requests: watch::Sender::new(Vec::new()),
        });
        let serving = Arc::clone(&shared);
        let port = Port::open(move |stream, _| serve(stream, Arc::clone(&serving)))?;
        Ok(Self { shared, port: Arc::new(port) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The URL for a transport.
    pub fn url(&self) -> String {
        format!("http://{}/mails", self.address())
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

    /// The mails that were taken: the first request of each `Idempotency-Key` that was answered 2xx.
    pub fn taken(&self) -> Vec<ReceivedRequest> {
        self.shared.state().taken.values().cloned().collect()
    }

    /// How many requests came under the key of a mail that was taken with another body.
    pub fn mismatches(&self) -> usize {
        self.shared.state().mismatches
    }

    /// Answers so from now on, when no plan says otherwise.
    pub fn answer_with(&self, answer: HttpAnswer) {
        self.shared.state().answer = answer;
    }

    /// Answers with this status (500 if it is none) and body from now on.
    pub fn answer(&self, status: u16, body: impl Into<Vec<u8>>) {
        self.answer_with(HttpAnswer::new(status).body(body));
    }

    /// Has an answer given when it is told to. Of several that fit, the one planned last shows.
    pub fn plan(&self, answer: HttpAnswer, when: When) {
        self.shared.state().plans.push((answer, when));
    }

    /// Waits before each answer from now on.
    pub fn delay(&self, delay: Duration) {
        self.shared.state().answer.delay = delay;
    }

    /// Answers 302 to this address from now on.
    pub fn redirect(&self, location: &str) {
        self.answer_with(HttpAnswer::new(302).header(LOCATION.as_str(), location));
    }

    /// From now on sends the body, and never its end.
    pub fn stall_body(&self) {
        self.shared.state().answer.end = End::Stalls;
    }

    /// Answers as at the start.
    pub fn recover(&self) {
        let mut state = self.shared.state();
        state.plans.clear();
        state.answer = State::default().answer;
    }

    /// Breaks all connections and refuses new ones from now on.
    pub async fn refuse_connections(&self) {
        self.port.set_open(false).await;
    }

    /// Takes connections again, on the same port.
    pub async fn take_connections(&self) {
        self.port.set_open(true).await;
    }
}

impl fmt::Debug for HttpSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSink").field("address", &self.address()).finish_non_exhaustive()
    }
}

struct Shared {
    state: Mutex<State>,
    requests: watch::Sender<Vec<ReceivedRequest>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct State {
    answer: HttpAnswer,
    plans: Vec<(HttpAnswer, When)>,
    requests: usize,
    /// By their keys.
    taken: BTreeMap<String, ReceivedRequest>,
    mismatches: usize,
}

impl Default for State {
    fn default() -> Self {
        Self {
            answer: HttpAnswer::new(202),
            plans: Vec::new(),
            requests: 0,
            taken: BTreeMap::new(),
            mismatches: 0,
        }
    }
}

impl State {
    /// How a request is answered, and whether its mail is taken by that.
    fn take(&mut self, request: &ReceivedRequest) -> HttpAnswer {
        self.requests += 1;
        let number = self.requests;
        let receivers: Vec<String> =
            request.json().and_then(|json| Some(vec![json["to"].as_str()?.to_owned()])).unwrap_or_default();
        let mut latest = self.plans.iter_mut().rev();
        let planned =
            latest.find_map(|(answer, when)| when.shows(&receivers, number).then(|| answer.clone()));
        let answer = planned.unwrap_or_else(|| self.answer.clone());
        let Some(key) = request.header("Idempotency-Key").map(str::to_owned) else { return answer };
        match self.taken.get(&key) {
            Some(before) if before.body != request.body => {
                self.mismatches += 1;
                return HttpAnswer::new(422);
            }
            None if answer.status.is_success() => drop(self.taken.insert(key, request.clone())),
            _ => {}
        }
        answer
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let flow = Arc::new(Mutex::new(Flow { left: None, pause: Duration::ZERO }));
    let stream = FaultyStream { stream, flow: Arc::clone(&flow), sleep: None };
    let service = service_fn(|request| answer(request, &shared, &flow));
    // A client that goes away ends its own connection only.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    shared: &Shared,
    flow: &Mutex<Flow>,
) -> Result<Response<Rest>, Infallible> {
    let (head, body) = request.into_parts();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let received = ReceivedRequest {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default(),
    };
    let HttpAnswer { status, headers, body, delay, pause, end, cut } = shared.state().take(&received);
    shared.requests.send_modify(|requests| requests.push(received));
    if !delay.is_zero() {
        sleep(delay).await;
    }
    *flow.lock().unwrap_or_else(PoisonError::into_inner) = Flow { left: cut, pause };
    let mut response = Response::new(Rest { data: (!body.is_empty()).then_some(body), end });
    *response.status_mut() = status;
    response.headers_mut().extend(headers);
    Ok(response)
}

/// How what is sent flows.
#[derive(Clone, Copy)]
struct Flow {
    /// How many bytes are still sent before the connection breaks.
    left: Option<usize>,
    /// Before each byte.
    pause: Duration,
}

/// A connection that trickles or breaks when it is told to.
struct FaultyStream {
    stream: TcpStream,
    flow: Arc<Mutex<Flow>>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for FaultyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for FaultyStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Flow { left, pause } = *self.flow.lock().unwrap_or_else(PoisonError::into_inner);
        if left == Some(0) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let mut most = left.unwrap_or(buf.len());
        if !pause.is_zero() {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(pause)));
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
            most = 1;
        }
        let piece = buf.get(..most).unwrap_or(buf);
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, piece))?;
        let mut flow = self.flow.lock().unwrap_or_else(PoisonError::into_inner);
        flow.left = flow.left.map(|left| left.saturating_sub(written));
        drop(flow);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The body of an answer, which may never end.
struct Rest {
    data: Option<Bytes>,
    end: End,
}

impl Body for Rest {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match (self.data.take(), self.end) {
            (Some(data), _) => Poll::Ready(Some(Ok(Frame::data(data)))),
            (None, End::Ends) => Poll::Ready(None),
            (None, End::Stalls) => Poll::Pending,
            (None, End::GoesOn) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 4096]))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.end == End::Ends
    }
}
