//! Mail servers on loopback, over SMTP and as a mail API, that hand each mail on before they say that they have it.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use usermgr_smtp::testing::ReceivedMail;

/// A mail that came over the mail API.
pub(crate) struct Posted {
    /// The `Idempotency-Key`.
    pub(crate) key: String,
    pub(crate) body: Bytes,
}

type Conversation = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A running server. It listens until it is dropped.
pub(crate) struct MailServer {
    /// For a transport.
    pub(crate) url: String,
    open: Arc<AtomicUsize>,
    listening: AbortHandle,
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl MailServer {
    /// Speaks SMTP.
    pub(crate) async fn smtp(take: impl Fn(ReceivedMail) + Send + Sync + 'static) -> io::Result<Self> {
        let take: Arc<dyn Fn(ReceivedMail) + Send + Sync> = Arc::new(take);
        let converse = move |stream| -> Conversation {
            let take = Arc::clone(&take);
            Box::pin(async move { drop(serve_smtp(stream, &*take).await) })
        };
        Self::listen(|address| format!("smtp://{address}?tls=none"), converse).await
    }

    /// Is a mail API.
    pub(crate) async fn http(take: impl Fn(Posted) + Send + Sync + 'static) -> io::Result<Self> {
        let take: Arc<dyn Fn(Posted) + Send + Sync> = Arc::new(take);
        let converse = move |stream: TcpStream| -> Conversation {
            let take = Arc::clone(&take);
            Box::pin(async move {
                let service = service_fn(|request| answer(request, &*take));
                let connection = hyper::server::conn::http1::Builder::new();
                drop(connection.serve_connection(TokioIo::new(stream), service).await);
            })
        };
        Self::listen(|address| format!("http://{address}/mails"), converse).await
    }

    async fn listen(
        url: impl FnOnce(std::net::SocketAddr) -> String,
        converse: impl Fn(TcpStream) -> Conversation + Send + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (url, open) = (url(listener.local_addr()?), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&open);
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (conversation, count) = (converse(stream), Arc::clone(&count));
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    conversation.await;
                    count.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self { url, open, listening: listening.abort_handle() })
    }

    /// How many connections are open: none, once all is read that a dead client has sent.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

async fn answer(
    request: Request<Incoming>,
    take: &(dyn Fn(Posted) + Send + Sync),
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
    let key = key.unwrap_or_default().to_owned();
    // What was cut off in the middle is no request.
    if let Ok(body) = request.into_body().collect().await {
        take(Posted { key, body: body.to_bytes() });
    }
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

async fn serve_smtp(stream: TcpStream, take: &(dyn Fn(ReceivedMail) + Send + Sync)) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 sink.test ESMTP\r\n").await?;
    let mut to = Vec::new();
    loop {
        let line = line(&mut stream).await?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let reply: &[u8] = match verb.as_str() {
            "EHLO" => b"250-sink.test\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
            "DATA" => {
                stream.write_all(b"354 go ahead\r\n").await?;
                let raw = message(&mut stream).await?;
                take(ReceivedMail { from: String::new(), to: std::mem::take(&mut to), raw });
                b"250 2.0.0 taken\r\n"
            }
            "QUIT" => return stream.write_all(b"221 2.0.0 bye\r\n").await,
            "RCPT" => {
                to.extend(
                    line.split_once('<')
                        .and_then(|(_, rest)| rest.split_once('>'))
                        .map(|(to, _)| to.to_owned()),
                );
                b"250 2.1.5 ok\r\n"
            }
            _ => b"250 2.0.0 ok\r\n",
        };
        stream.write_all(reply).await?;
    }
}

async fn line(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).await?;
    if line.last() == Some(&b'\n') { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn message(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut raw = Vec::new();
    loop {
        let line = line(stream).await?;
        if line == b".\r\n" {
            return Ok(raw);
        }
        raw.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}
