//! Connections: accepted, bounded in number and in patience, served, and let finish.

mod host;
mod left;
mod places;
mod progress;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, timeout_at};
use tokio_rustls::server::TlsStream;
use tower::{Service, ServiceExt as _};

use crate::config::{Bind, ListenAddress};
use crate::http::client::{MalformedHost, OverLimit, PeerAddr};
use crate::observe::ConnectionMetrics;
use crate::tls::Tls;

use left::Left;
pub(crate) use left::RequestBody;
pub(crate) use places::Limits;
use places::{Kind, Place, Places, Refused};
use progress::{Activity, Due, HEAD_TIMEOUT, Watched};

/// How long requests may go on after a signal to stop.
pub(crate) const GRACE: Duration = Duration::from_secs(20);
/// The most bytes of a request's headers over HTTP/1.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// The most bytes of a request's headers over HTTP/2, which also bounds CONTINUATION frames: h2 counts them by it.
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// Requests under way at once on one connection over HTTP/2.
const MAX_STREAMS: u32 = 100;
/// Requests that a client gave up before they were looked at (rapid reset, CVE-2023-44487): more end the connection.
const MAX_PENDING_RESETS: usize = 20;
/// Streams that were ended for faults of the client: more end the connection.
const MAX_ERROR_RESETS: usize = 200;
/// What a client may send of one body before it is read: the default bound of a body. hyper's default is 1 MiB.
const STREAM_WINDOW: u32 = 64 * 1024;
/// What a client may send of all bodies of a connection before they are read.
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// How often a client of HTTP/2 that says nothing is asked whether it is there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// The age at which a connection is asked to end: new ones spread over all servers behind a balancer, and a client that
/// stays within every other bound keeps its place no longer.
const MAX_AGE: Duration = Duration::from_hours(1);
/// How long requests may go on when a connection over HTTP/2 was asked to end: longer than any request takes.
const DRAIN: Duration = Duration::from_mins(1);
/// How long an idle connection may take to end, once it was asked to.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection over a limit lives: it asks for health once.
const SPARE_AGE: Duration = Duration::from_secs(10);
/// How long such a connection may stay when it was answered.
const SPARE_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// What the kernel keeps of answers that a client did not take yet. Without a bound it is up to 4 MiB for each; and a client
/// that reads slowly is seen to read only whenever a third of it is free.
const SEND_BUFFER: u32 = 128 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// How often a line tells that connections were refused.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// Listens where it is said. Every interface is one socket for IPv6 and IPv4; where there is no IPv6, one for IPv4.
pub(crate) async fn listen(address: &ListenAddress) -> io::Result<TcpListener> {
    match address.resolve().await? {
        Bind::One(address) => bind(address, false),
        Bind::Everywhere(port) => match bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), true) {
            Err(error) if lacks_ipv6(&error) => {
                bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), false)
            }
            bound => bound,
        },
    }
}

/// Whether a socket cannot be had because the system has no IPv6, or has it switched off.
fn lacks_ipv6(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

fn bind(address: SocketAddr, with_ipv4: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if with_ipv4 {
        socket2::SockRef::from(&socket).set_only_v6(false)?;
    }
    socket.set_reuseaddr(true)?;
    // Each connection that is accepted has it from here.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// How the connections of a listener are served.
pub(crate) struct Options {
    pub(crate) tls: Option<Tls>,
    pub(crate) limits: Limits,
    /// How long a connection may be idle between two requests.
    pub(crate) keep_alive: Duration,
    pub(crate) metrics: ConnectionMetrics,
}

/// Serves a listener until `stop`; then lets what was begun finish, for [`GRACE`] at most.
pub(crate) async fn serve<S, B>(
    listener: TcpListener,
    options: Options,
    service: S,
    stop: impl Future<Output = ()>,
) where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let Options { tls, limits, keep_alive, metrics } = options;
    let (stopping, quit) = watch::channel(());
    let door = Door { places: Places::new(limits), metrics, told: Mutex::default() };
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener) => accepted,
        };
        let Some((stream, peer)) = accepted else { continue };
        let Some(place) = door.let_in(peer) else { continue };
        let keep_alive = if place.kind == Kind::Spare { SPARE_KEEP_ALIVE } else { keep_alive };
        let (activity, service) = (Activity::new(keep_alive), service.clone());
        let metrics = door.metrics.clone();
        let connection = Connection { activity, place, peer, service, metrics, quit: quit.clone() };
        tokio::spawn(connection.run(stream, tls.clone()));
    }
    tracing::info!("stopping: finishing what was begun");
    drop((listener, quit));
    stopping.send_replace(());
    if tokio::time::timeout(GRACE, stopping.closed()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
}

async fn accept(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept().await {
        Ok((stream, peer)) => {
            let _best_effort = stream.set_nodelay(true);
            Some((stream, peer))
        }
        Err(error) => {
            // Out of file descriptors, most likely: those who are served will free some.
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Gives places, and tells of those it gives none.
struct Door {
    places: Arc<Places>,
    metrics: ConnectionMetrics,
    /// When it was last told that connections are refused.
    told: Mutex<Option<Instant>>,
}

impl Door {
    fn let_in(&self, peer: SocketAddr) -> Option<Place> {
        let (place, refused) = self.places.take(peer.ip());
        if let Some(refused) = refused {
            self.metrics.refused(refused.reason());
            self.tell(refused, peer);
        }
        place
    }

    fn tell(&self, refused: Refused, peer: SocketAddr) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            return;
        }
        *told = Some(Instant::now());
        let ip = peer.ip();
        match refused {
            Refused::Full => tracing::warn!("http.max_connections are open: further ones are refused"),
            Refused::NetworkShare => tracing::warn!(
                %ip,
                "http.max_connections_per_network are open from one network: further ones are refused; a proxy belongs \
                 into http.trusted_proxies"
            ),
        }
    }
}

/// A connection of which it is known what it speaks.
enum Begun {
    Plain(Watched<TcpStream>),
    PlainHttp2(Watched<TcpStream>),
    Tls(Box<TlsStream<Watched<TcpStream>>>),
}

/// Agrees upon TLS; without it, looks at the first bytes and leaves them where they are. (Had they been read, hyper would
/// read the head of the first request into twice the memory, and keep that as long as the connection lives.)
async fn begin(stream: Watched<TcpStream>, tls: Option<Tls>) -> io::Result<Begun> {
    const HTTP2: &[u8; 4] = b"PRI ";
    if let Some(tls) = tls {
        return tls.accept(stream).await.map(|stream| Begun::Tls(Box::new(stream)));
    }
    let mut first = [0; HTTP2.len()];
    loop {
        let peeked = stream.get_ref().peek(&mut first).await?;
        let peeked = first.get(..peeked).unwrap_or_default();
        if peeked == HTTP2 {
            return Ok(Begun::PlainHttp2(stream));
        }
        if peeked.is_empty() || !HTTP2.starts_with(peeked) {
            return Ok(Begun::Plain(stream));
        }
        // The first letters of `PRI` or `POST`: what was looked at does not wake whoever waits for more.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is_http2<T>(stream: &TlsStream<T>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

/// What is needed to serve one connection.
struct Connection<S> {
    activity: Arc<Activity>,
    place: Place,
    peer: SocketAddr,
    service: S,
    metrics: ConnectionMetrics,
    quit: watch::Receiver<()>,
}

impl<S, B> Connection<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    async fn run(mut self, stream: TcpStream, tls: Option<Tls>) {
        let _open = self.metrics.open();
        // What a client does not take is not kept for it.
        let discard = |stream: &TcpStream| drop(stream.set_zero_linger());
        let stream = Watched::new(stream, Arc::clone(&self.activity), discard);
        let begun = tokio::select! {
            biased;
            begun = timeout_at(Instant::now() + HEAD_TIMEOUT, begin(stream, tls)) => begun,
            // Nothing was asked yet, so nothing has to be finished.
            _ = self.quit.changed() => return,
        };
        match begun {
            Ok(Ok(Begun::Plain(stream))) => self.serve_http1(stream).await,
            Ok(Ok(Begun::PlainHttp2(stream))) => Box::pin(self.serve_http2(stream)).await,
            Ok(Ok(Begun::Tls(stream))) if is_http2(&stream) => Box::pin(self.serve_http2(stream)).await,
            Ok(Ok(Begun::Tls(stream))) => Box::pin(self.serve_http1(stream)).await,
            Ok(Err(error)) => tracing::debug!(%error, "a connection did not begin"),
            Err(_elapsed) => {
                self.metrics.cut(Due::Head.reason());
                tracing::debug!("a connection took too long to begin");
            }
        }
    }

    async fn serve_http1(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let (activity, peer, is_spare) = (Arc::clone(&self.activity), self.peer, self.is_spare());
        activity.speaks_http1();
        let service = self.service.clone();
        if is_spare {
            activity.end_with_next();
        }
        let answering = service_fn(move |mut request: Request<Incoming>| {
            let activity = Arc::clone(&activity);
            let is_for_us = host::is_well_formed(request.version(), request.headers());
            if !is_for_us {
                request.extensions_mut().insert(MalformedHost);
            }
            let waits_to_send = request.headers().contains_key(header::EXPECT);
            let left = Left::default();
            let request = request.map(|body| RequestBody::new(body, Some(left.clone())));
            let answering = answer(&activity, service.clone(), peer, is_spare, request);
            async move {
                let mut response = answering.await?;
                // A connection that does not stand at the next request is of no use, and the client has to know.
                if !left.drain(waits_to_send).await || !is_for_us || activity.is_ending() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut server = http1::Builder::new();
        // Deadlines for heads are those of `Activity`: this one would count the time between requests too.
        server.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(MAX_HEADER_BYTES);
        let connection = server.serve_connection(TokioIo::new(stream), answering);
        self.drive(connection, Protocol::Http1).await;
    }

    async fn serve_http2(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let (activity, peer, is_spare) = (Arc::clone(&self.activity), self.peer, self.is_spare());
        let service = self.service.clone();
        let answering = service_fn(move |request: Request<Incoming>| {
            let request = request.map(|body| RequestBody::new(body, None));
            answer(&activity, service.clone(), peer, is_spare, request)
        });
        let mut server = http2::Builder::new(TokioExecutor::new());
        server
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(MAX_STREAMS)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_ERROR_RESETS)
            .max_header_list_size(MAX_HEADER_LIST)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let connection = server.serve_connection(TokioIo::new(stream), answering);
        self.drive(connection, Protocol::Http2).await;
    }

    fn is_spare(&self) -> bool {
        self.place.kind == Kind::Spare
    }

    /// Serves until the other side has enough, is too slow, is idle for too long, or too old.
    async fn drive<C>(self, connection: C, protocol: Protocol)
    where
        C: GracefulConnection,
        C::Error: std::error::Error,
    {
        let Self { activity, metrics, mut quit, place, .. } = self;
        let mut connection = std::pin::pin!(connection);
        let mut alarm = std::pin::pin!(tokio::time::sleep(HEAD_TIMEOUT));
        let mut life = if place.kind == Kind::Spare { Life::spare(SPARE_AGE) } else { Life::begin(MAX_AGE) };
        let mut is_stopping = false;
        loop {
            let due = tokio::select! {
                biased;
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended badly");
                    }
                    return;
                }
                _ = quit.changed(), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                    continue;
                }
                due = poll_fn(|context| life.poll_due(&activity, alarm.as_mut(), context)) => due,
            };
            match due {
                Ending::Due(Due::Request) => {
                    metrics.cut(Due::Request.reason());
                    connection.as_mut().graceful_shutdown();
                    life.end_at(Instant::now() + CLOSE_TIMEOUT);
                }
                Ending::Due(due) => {
                    tracing::debug!(?due, "a connection was given up");
                    metrics.cut(due.reason());
                    return activity.cut();
                }
                Ending::Old if protocol == Protocol::Http2 => {
                    connection.as_mut().graceful_shutdown();
                    life.end_at(Instant::now() + DRAIN);
                }
                // An idle one ends by itself soon; closed now, it would cross a request that is on its way.
                Ending::Old => activity.end_with_next(),
                Ending::Over => {
                    return activity.cut();
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// Has a request answered, and watches it until the answer was taken.
fn answer<S, B>(
    activity: &Arc<Activity>,
    service: S,
    peer: SocketAddr,
    is_spare: bool,
    mut request: Request<RequestBody>,
) -> impl Future<Output = Result<Response<progress::Answer<B>>, Infallible>> + use<S, B>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>,
    B: Body,
{
    let watched = activity.request();
    request.extensions_mut().insert(PeerAddr(peer));
    if is_spare {
        request.extensions_mut().insert(OverLimit);
    }
    let answering = service.oneshot(request);
    async move { Ok(answering.await?.map(|body| watched.answered(body))) }
}

/// What is to be done about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Due(Due),
    /// It was asked to end, and did not.
    Over,
    /// It is as old as one may become.
    Old,
}

/// How long a connection lives, whatever it does.
#[derive(Debug)]
struct Life {
    /// When it is to be asked to end; none once it was.
    old: Option<Instant>,
    /// When it ends, asked or not.
    over: Option<Instant>,
    /// Whether it was asked to end: then it is not asked again.
    is_asked: bool,
}

impl Life {
    fn begin(age: Duration) -> Self {
        Self { old: Some(Instant::now() + age), over: None, is_asked: false }
    }

    /// One that ends after this time, whatever is under way.
    fn spare(age: Duration) -> Self {
        Self { old: None, over: Some(Instant::now() + age), is_asked: false }
    }

    fn end_at(&mut self, over: Instant) {
        (self.old, self.is_asked) = (None, true);
        self.over = Some(self.over.map_or(over, |before| before.min(over)));
    }

    /// What is due. Each time that the connection was polled the next deadline is looked up; the timer is set anew only
    /// where that comes to be earlier.
    fn poll_due(
        &mut self,
        activity: &Activity,
        mut alarm: Pin<&mut Sleep>,
        context: &mut Context<'_>,
    ) -> Poll<Ending> {
        loop {
            let (mut at, due) = activity.due(context.waker());
            let mut next = Ending::Due(due);
            if let Some(over) = self.over.filter(|_| self.is_asked && due == Due::Request) {
                (at, next) = (over, Ending::Over);
            }
            for (when, ending) in [(self.over, Ending::Over), (self.old, Ending::Old)] {
                if let Some(when) = when.filter(|when| *when < at) {
                    (at, next) = (when, ending);
                }
            }
            if at <= Instant::now() {
                if next == Ending::Old {
                    self.old = None;
                }
                return Poll::Ready(next);
            }
            if at < alarm.deadline() || alarm.is_elapsed() {
                alarm.as_mut().reset(at);
            }
            std::task::ready!(alarm.as_mut().poll(context));
        }
    }
}
