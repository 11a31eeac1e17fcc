//! A connection that begins unencrypted: STARTTLS will encrypt it, or nothing will.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What a TLS client says first is a handshake record (RFC 8446 §5.1); no SMTP command begins so.
const HANDSHAKE: u8 = 0x16;

/// A connection that never reads ahead until this side begins TLS, if it is to.
///
/// # Security
/// Somebody on the way can append replies of their own to the reply to STARTTLS. lettre buffers what it reads, so
/// they would be taken for the server's replies inside TLS, and a mail that nobody took would count as sent (the
/// "response injection" of <https://nostarttls.secvuln.info>). Read byte by byte they are left for the TLS
/// handshake instead, which fails on them.
#[derive(Debug)]
pub(crate) struct BeforeTls {
    stream: TcpStream,
    reads_ahead: bool,
}

impl BeforeTls {
    /// `reads_ahead` when TLS is not to come.
    pub(crate) async fn connect(host: &str, port: u16, reads_ahead: bool) -> io::Result<Self> {
        let stream = TcpStream::connect((host, port)).await?;
        // A mail ends in a small piece of its own, which must not wait until what came before was acknowledged.
        stream.set_nodelay(true)?;
        Ok(Self { stream, reads_ahead })
    }
}

impl AsyncTokioStream for BeforeTls {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

impl AsyncRead for BeforeTls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reads_ahead || buf.remaining() == 0 {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut one))?;
        buf.put_slice(one.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BeforeTls {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.reads_ahead |= buf.first() == Some(&HANDSHAKE);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
