//! A port on loopback that can refuse connections for a while.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// A server's port. Dropping it ends the server, and with it every connection.
pub(super) struct Port {
    address: SocketAddr,
    wanted: watch::Sender<bool>,
    open: watch::Receiver<bool>,
    server: AbortHandle,
}

impl Port {
    /// A free port, with this done to each connection and its number, from 1.
    pub(super) fn open<F>(serve: impl Fn(TcpStream, usize) -> F + Send + 'static) -> io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = reserve(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        let (wanted, is_wanted) = watch::channel(true);
        let (is_open, open) = watch::channel(true);
        let server = tokio::spawn(run(listener, is_wanted, is_open, serve)).abort_handle();
        Ok(Self { address, wanted, open, server })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether connections are taken or refused from now on. Those that stand break when it closes.
    pub(super) async fn set_open(&self, open: bool) {
        self.wanted.send_replace(open);
        let mut is_open = self.open.clone();
        // An error says that the server is gone, which is as closed as can be.
        let _ = is_open.wait_for(|is| *is == open).await;
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.server.abort();
    }
}

const BACKLOG: u32 = 1024;

/// A port that nobody else gets and that refuses connections, until somebody listens on it.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn run<F>(
    mut listener: TcpListener,
    mut wanted: watch::Receiver<bool>,
    is_open: watch::Sender<bool>,
    serve: impl Fn(TcpStream, usize) -> F,
) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let address = listener.local_addr()?;
    let mut number = 0;
    loop {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    number += 1;
                    connections.spawn(serve(accepted?.0, number));
                }
                Some(_) = connections.join_next() => {}
                closing = wanted.wait_for(|open| !*open) => match closing {
                    Ok(_) => break,
                    Err(_) => return Ok(()),
                },
            }
        }
        drop(listener);
        connections.shutdown().await;
        let reserved = loop {
            match reserve(address) {
                Ok(reserved) => break reserved,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        is_open.send_replace(false);
        if wanted.wait_for(|open| *open).await.is_err() {
            return Ok(());
        }
        listener = reserved.listen(BACKLOG)?;
        is_open.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_refuses_and_an_open_one_takes() {
        let port = Port::open(|stream, _| async move {
            let _ = stream.readable().await;
        })
        .unwrap();
        for _ in 0..3 {
            let mut before = TcpStream::connect(port.address()).await.unwrap();
            port.set_open(false).await;
            let refused = TcpStream::connect(port.address()).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            let broken = tokio::io::AsyncReadExt::read(&mut before, &mut [0]).await;
            assert!(matches!(broken, Ok(0) | Err(_)), "{broken:?}");
            port.set_open(true).await;
        }
        TcpStream::connect(port.address()).await.unwrap();
    }
}
