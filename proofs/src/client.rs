//! Calls over HTTP, each on a connection of its own, and the record of each.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::{PATIENCE, Trouble};

/// A call to make.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// What it is in the race. It holds no secret.
    pub(crate) label: String,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) token: Option<String>,
    /// An address and a password, for HTTP Basic.
    pub(crate) basic: Option<(String, String)>,
    /// What a proxy in front would say the client's address is.
    pub(crate) network: Option<std::net::Ipv4Addr>,
    pub(crate) body: Option<Value>,
    /// How long after the start of the race it is made.
    pub(crate) delay: Duration,
    /// How many times in a row it is made.
    pub(crate) times: usize,
}

impl Request {
    pub(crate) fn new(label: impl Into<String>, method: Method, path: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            method,
            path: path.into(),
            token: None,
            basic: None,
            network: None,
            body: None,
            delay: Duration::ZERO,
            times: 1,
        }
    }

    pub(crate) fn post(label: impl Into<String>, path: &str, body: Value) -> Self {
        Self::new(label, Method::POST, path).with(body)
    }

    pub(crate) fn get(label: impl Into<String>, path: &str, token: &str) -> Self {
        Self::new(label, Method::GET, path).by(token)
    }

    pub(crate) fn with(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    pub(crate) fn by(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub(crate) fn basic(mut self, email: &str, password: &str) -> Self {
        self.basic = Some((email.to_owned(), password.to_owned()));
        self
    }

    /// Comes from a network of its own for each address, so that no limit of one network answers.
    pub(crate) fn through_network_of(mut self, email: &str) -> Self {
        // FNV-1a: spreads what differs in one digit.
        let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        let [_, one, two, three] = email.as_bytes().iter().fold(0x811c_9dc5, mix).to_be_bytes();
        self.network = Some(std::net::Ipv4Addr::new(20, one, two, three));
        self
    }

    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    pub(crate) fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }
}

/// A call that was made.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) label: String,
    pub(crate) server: usize,
    /// Since the race began, as the end.
    pub(crate) start: Duration,
    pub(crate) end: Duration,
    /// 0 when no answer came.
    pub(crate) status: u16,
    /// The `code` of a problem, or why no answer came.
    pub(crate) code: String,
    /// What `Retry-After` said.
    pub(crate) retry_after: Option<String>,
    pub(crate) body: Value,
}

impl Call {
    pub(crate) fn text(&self, name: &str) -> String {
        self.body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// The call, if it was answered so.
    pub(crate) fn expect(self, status: u16) -> Result<Self, Trouble> {
        if self.status == status {
            return Ok(self);
        }
        Err(format!("{} at server {}: {} {}, not {status}", self.label, self.server, self.status, self.code)
            .into())
    }
}

/// Sends a request on a connection of its own and hangs up so long after, whatever the server does then.
pub(crate) async fn leave(server: SocketAddr, request: &Request, after: Duration) -> Result<(), Trouble> {
    let body = serde_json::to_vec(request.body.as_ref().unwrap_or(&Value::Null))?;
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let head = format!(
        "{} /v1{} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        request.method,
        request.path,
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).await?;
    tokio::time::sleep(after).await;
    Ok(())
}

/// One connection to one server. It is made anew when the server has closed it.
#[derive(Debug)]
pub(crate) struct Line {
    address: SocketAddr,
    server: usize,
    patience: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Line {
    pub(crate) const fn new(server: usize, address: SocketAddr) -> Self {
        Self { address, server, patience: PATIENCE, sender: None }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How long an answer may take.
    pub(crate) const fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Connects, if it is not.
    pub(crate) async fn ready(&mut self) -> Result<(), Trouble> {
        if let Some(sender) = &mut self.sender
            && !sender.is_closed()
            && sender.ready().await.is_ok()
        {
            return Ok(());
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move { drop(connection.await) });
        self.sender = Some(sender);
        Ok(())
    }

    /// Makes a call as often as it says, and records each.
    pub(crate) async fn call(&mut self, request: &Request, begun: Instant) -> Vec<Call> {
        if !request.delay.is_zero() {
            tokio::time::sleep(request.delay).await;
        }
        let mut calls = Vec::with_capacity(request.times);
        for _ in 0..request.times {
            let start = begun.elapsed();
            let (status, retry_after, body, fault) =
                match tokio::time::timeout(self.patience, self.send(request)).await {
                    Ok(Ok((status, retry_after, body))) => (status, retry_after, body, String::new()),
                    Ok(Err(error)) => (0, None, Value::Null, format!("no answer: {error}")),
                    Err(_) => (0, None, Value::Null, "stuck: no answer in time".to_owned()),
                };
            if status == 0 {
                self.sender = None;
            }
            let code = body.get("code").and_then(Value::as_str).map_or(fault, str::to_owned);
            let (label, server) = (request.label.clone(), self.server);
            calls.push(Call { label, server, start, end: begun.elapsed(), status, code, retry_after, body });
        }
        calls
    }

    async fn send(&mut self, request: &Request) -> Result<(u16, Option<String>, Value), Trouble> {
        self.ready().await?;
        let Some(sender) = &mut self.sender else { return Err("no connection".into()) };
        let mut head = http::Request::builder()
            .method(request.method.clone())
            .uri(format!("/v1{}", request.path))
            .header("host", "localhost");
        if let Some(token) = &request.token {
            head = head.header("authorization", format!("Bearer {token}"));
        }
        if let Some((email, password)) = &request.basic {
            let both = STANDARD.encode(format!("{email}:{password}"));
            head = head.header("authorization", format!("Basic {both}"));
        }
        if let Some(network) = request.network {
            head = head.header("x-forwarded-for", network.to_string());
        }
        let body = match &request.body {
            Some(body) => {
                head = head.header("content-type", "application/json");
                Bytes::from(serde_json::to_vec(body)?)
            }
            None => Bytes::new(),
        };
        let answer = sender.send_request(head.body(Full::new(body))?).await?;
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = retry_after.map(str::to_owned);
        let bytes = answer.into_body().collect().await?.to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
        Ok((status, retry_after, body))
    }
}
