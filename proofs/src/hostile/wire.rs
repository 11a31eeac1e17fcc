//! What goes over the wire: connections from an address of one's choice, requests over them, frames of HTTP/2.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};

use crate::Trouble;

/// Connects from an address; with a small buffer, so that what is not read stays with the server.
pub(super) async fn connect(from: IpAddr, to: SocketAddr, buffer: Option<u32>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(buffer) = buffer {
        socket.set_recv_buffer_size(buffer)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = tokio::time::timeout(Duration::from_secs(5), socket.connect(to)).await;
    let stream = stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection over which requests are made, one after the other.
pub(super) struct Asker(http1::SendRequest<Full<Bytes>>);

impl Asker {
    pub(super) async fn connect(from: IpAddr, to: SocketAddr) -> Result<Self, Trouble> {
        let (sender, connection) = http1::handshake(TokioIo::new(connect(from, to, None).await?)).await?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self(sender))
    }

    /// Ends the session of a token.
    pub(super) async fn log_out(&mut self, token: &str) -> Result<(), Trouble> {
        self.0.ready().await?;
        let request = http::Request::post("/v1/sessions/logout").header("host", "localhost");
        let request = request.header("authorization", format!("Bearer {token}"));
        let answer = self.0.send_request(request.body(Full::default())?).await?;
        if answer.status().is_success() { Ok(()) } else { Err("a session could not be ended".into()) }
    }

    /// The status and the body of an answer.
    pub(super) async fn ask(&mut self, path: &str, body: Option<&Value>) -> Result<(u16, Value), Trouble> {
        self.0.ready().await?;
        let method = if body.is_some() { "POST" } else { "GET" };
        let request = http::Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("content-type", "application/json");
        let text = body.map_or_else(String::new, Value::to_string);
        let answer = self.0.send_request(request.body(Full::from(text))?).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// SETTINGS with a window for each stream.
pub(super) fn settings(window: u32) -> Vec<u8> {
    frame(4, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat())
}

/// HEADERS of a request that is whole.
pub(super) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(1, END_HEADERS | END_STREAM, stream, &headers(0x82, path))
}

/// HEADERS of a request whose body does not come: with `content-type: application/json`, so that the server waits for it.
pub(super) fn post(stream: u32, path: &str) -> Vec<u8> {
    let json = [&[0x0f, 0x10, 16][..], b"application/json"].concat();
    frame(1, END_HEADERS, stream, &[headers(0x83, path), json].concat())
}

/// `:method`, `:scheme http`, and `:path` and `:authority` as they are.
fn headers(method: u8, path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).unwrap_or_default();
    [&[method, 0x86, 0x04, length][..], path.as_bytes(), &[0x01, 1, b'x']].concat()
}

pub(super) fn window_update(stream: u32) -> Vec<u8> {
    frame(8, 0, stream, &1_u32.to_be_bytes())
}

pub(super) fn reset(stream: u32) -> Vec<u8> {
    frame(3, 0, stream, &8_u32.to_be_bytes())
}

/// Reads frames and answers pings until the other side has enough.
pub(super) async fn stay(reading: &mut OwnedReadHalf, writing: &mut OwnedWriteHalf) -> io::Result<()> {
    let mut head = [0; 9];
    loop {
        reading.read_exact(&mut head).await?;
        let [_, high, low, kind, flags, ..] = head;
        let mut payload = vec![0; usize::from(high) << 8 | usize::from(low)];
        reading.read_exact(&mut payload).await?;
        if kind == 6 && flags == 0 {
            writing.write_all(&frame(6, 1, 0, &payload)).await?;
        }
    }
}
