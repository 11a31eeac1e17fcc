//! Connections: accepted, bounded in number and in patience, served, and let finish.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tower::Service;

use crate::http::client::PeerAddr;
use crate::tls::Tls;

/// How long requests may go on after a signal to stop.
pub(crate) const GRACE: Duration = Duration::from_secs(20);
/// How long a connection may take to agree upon TLS, and again to send the headers of a request.
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
    let server = server();
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
        let connection = Connection {
            server: server.clone(),
            watcher: graceful.watcher(),
            peer,
            service: service.clone(),
        };
        let (tls, mut quit) = (tls.clone(), quit.clone());
        tokio::spawn(async move {
            match tls {
                None => connection.serve(stream).await,
                Some(tls) => {
                    let agreed = tokio::select! {
                        agreed = tokio::time::timeout(HEADER_TIMEOUT, tls.accept(stream)) => agreed,
                        // Nothing was asked yet, so nothing has to be finished.
                        _ = quit.changed() => return,
                    };
                    match agreed {
                        Ok(Ok(stream)) => Box::pin(connection.serve(stream)).await,
                        Ok(Err(error)) => tracing::debug!(%error, "a connection could not agree upon TLS"),
                        Err(_elapsed) => tracing::debug!("a connection took too long to agree upon TLS"),
                    }
                }
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

fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES);
    server.http2().timer(TokioTimer::new()).keep_alive_interval(HEADER_TIMEOUT).max_concurrent_streams(100);
    server
}

/// What is needed to serve one connection.
struct Connection<S> {
    server: auto::Builder<TokioExecutor>,
    watcher: Watcher,
    peer: SocketAddr,
    service: S,
}

impl<S> Connection<S>
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    /// Serves until the other side has enough. One that asks nothing is let go: the server tells HTTP/2 from HTTP/1 by
    /// the first bytes and waits for them, and for the preface of HTTP/2, without a limit of time of its own.
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { server, watcher, peer, service } = self;
        let asked = Arc::new(Notify::new());
        let asks = Arc::clone(&asked);
        let service = tower::util::MapRequest::new(service, move |mut request: Request<Incoming>| {
            asks.notify_one();
            request.extensions_mut().insert(PeerAddr(peer));
            request
        });
        let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let mut connection = std::pin::pin!(watcher.watch(connection.into_owned()));
        let ended = tokio::select! {
            ended = &mut connection => ended,
            asked = tokio::time::timeout(HEADER_TIMEOUT, asked.notified()) => match asked {
                Ok(()) => connection.await,
                Err(_elapsed) => return tracing::debug!("a connection asked nothing and was let go"),
            },
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended badly");
        }
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
