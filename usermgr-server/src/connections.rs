//! Connections: accepted, bounded in number and in patience, served, and let finish.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::TlsStream;
use tower::{Service, ServiceExt as _};

use crate::http::client::PeerAddr;
use crate::tls::Tls;

/// How long requests may go on after a signal to stop.
pub(crate) const GRACE: Duration = Duration::from_secs(20);
/// How long a connection may take to ask for something, TLS included, and later to send the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of a request's headers over HTTP/1; over HTTP/2 it is hyper's 16 KiB.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Connections at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 10_000;

/// Serves a listener until `stop`; then lets what was begun finish, for [`GRACE`] at most.
pub(crate) async fn serve<S>(
    listener: TcpListener,
    tls: Option<Tls>,
    service: S,
    stop: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let graceful = GracefulShutdown::new();
    let (stopping, quit) = tokio::sync::watch::channel(());
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        let (watcher, service) = (graceful.watcher(), service.clone());
        let (tls, mut quit) = (tls.clone(), quit.clone());
        tokio::spawn(async move {
            let until = Instant::now() + HEADER_TIMEOUT;
            let connection = Connection { watcher, peer, service, until };
            let begun = tokio::select! {
                biased;
                begun = timeout_at(until, begin(stream, tls)) => begun,
                // Nothing was asked yet, so nothing has to be finished.
                _ = quit.changed() => return,
            };
            match begun {
                Ok(Ok(Begun::Plain(stream))) => connection.serve_http1(stream).await,
                Ok(Ok(Begun::PlainHttp2(stream))) => Box::pin(connection.serve_http2(stream)).await,
                Ok(Ok(Begun::Tls(stream))) if is_http2(&stream) => {
                    Box::pin(connection.serve_http2(stream)).await;
                }
                Ok(Ok(Begun::Tls(stream))) => Box::pin(connection.serve_http1(stream)).await,
                Ok(Err(error)) => tracing::debug!(%error, "a connection did not begin"),
                Err(_elapsed) => tracing::debug!("a connection took too long to begin"),
            }
            drop(place);
        });
    }
    tracing::info!("stopping: finishing what was begun");
    drop(listener);
    drop(stopping);
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
}

/// A connection of which it is known what it speaks.
enum Begun {
    Plain(TcpStream),
    PlainHttp2(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Agrees upon TLS; without it, looks at the first bytes and leaves them where they are. (Had they been read, hyper would
/// read the head of the first request into twice the memory, and keep that as long as the connection lives.)
async fn begin(stream: TcpStream, tls: Option<Tls>) -> io::Result<Begun> {
    const HTTP2: &[u8; 4] = b"PRI ";
    if let Some(tls) = tls {
        return tls.accept(stream).await.map(|stream| Begun::Tls(Box::new(stream)));
    }
    let mut first = [0; HTTP2.len()];
    loop {
        let peeked = stream.peek(&mut first).await?;
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

fn is_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

/// What is needed to serve one connection.
struct Connection<S> {
    watcher: Watcher,
    peer: SocketAddr,
    service: S,
    /// When something must have been asked.
    until: Instant,
}

impl<S> Connection<S>
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    async fn serve_http1(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { watcher, peer, service, until } = self;
        let asked = Arc::new(Notify::new());
        let service = Heard { service, peer, asked: Arc::clone(&asked) };
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEADER_BYTES);
        let connection = server.serve_connection(TokioIo::new(stream), service);
        drive(watcher.watch(connection), &asked, until).await;
    }

    async fn serve_http2(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { watcher, peer, service, until } = self;
        let asked = Arc::new(Notify::new());
        let service = Heard { service, peer, asked: Arc::clone(&asked) };
        let mut server = http2::Builder::new(TokioExecutor::new());
        server.timer(TokioTimer::new()).keep_alive_interval(HEADER_TIMEOUT).max_concurrent_streams(100);
        let connection = server.serve_connection(TokioIo::new(stream), service);
        drive(watcher.watch(connection), &asked, until).await;
    }
}

/// The service of one connection.
struct Heard<S> {
    service: S,
    peer: SocketAddr,
    /// Told of each request.
    asked: Arc<Notify>,
}

impl<S> hyper::service::Service<Request<Incoming>> for Heard<S>
where
    S: Service<Request<Incoming>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = tower::util::Oneshot<S, Request<Incoming>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.asked.notify_one();
        request.extensions_mut().insert(PeerAddr(self.peer));
        self.service.clone().oneshot(request)
    }
}

/// Serves until the other side has enough. One that asks nothing is let go: nothing else bounds how long the preface of HTTP/2
/// may be waited for.
async fn drive<E: std::error::Error>(
    connection: impl Future<Output = Result<(), E>>,
    asked: &Notify,
    until: Instant,
) {
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        asked = timeout_at(until, asked.notified()) => match asked {
            Ok(()) => connection.await,
            Err(_elapsed) => return tracing::debug!("a connection asked nothing and was let go"),
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, SocketAddr, Place)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            let _best_effort = stream.set_nodelay(true);
            Some((stream, peer, place))
        }
        Err(error) => {
            // Out of file descriptors, most likely: those who are served will free some.
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}
