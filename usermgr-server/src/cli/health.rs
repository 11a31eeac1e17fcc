//! `health`: whether the server of this configuration is ready. For the health checks of containers, which have no shell.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::failure::Failure;
use super::output::print;
use crate::config::{Config, TlsFiles};
use crate::serve::StartError;
use crate::tls;

/// How long the answer may take: less than the time-out of any usual health check.
const PATIENCE: Duration = Duration::from_secs(4);

pub(super) async fn health(config: &Config) -> Result<(), Failure> {
    let failed_to_find =
        |source| StartError::Listen { key: "http.listen", address: config.listen.to_string(), source };
    let address = config.listen.resolve().await.map_err(failed_to_find)?.reachable();
    let asked = tokio::time::timeout(PATIENCE, ready(address, config.tls.as_ref())).await;
    let failed = |why: String| Failure::NotReady { address, why };
    match asked {
        Err(_) => Err(failed(format!("it did not answer within {} seconds", PATIENCE.as_secs()))),
        Ok(Err(error)) => Err(failed(format!("{error}; is it started?"))),
        Ok(Ok(http::StatusCode::OK)) => print("ready"),
        Ok(Ok(status)) => Err(failed(format!("it answers {status}; its log says why"))),
    }
}

type Answered = Result<http::StatusCode, Box<dyn std::error::Error + Send + Sync>>;

async fn ready(address: SocketAddr, tls: Option<&TlsFiles>) -> Answered {
    let stream = TcpStream::connect(address).await?;
    let Some(files) = tls else { return ask(stream, address).await };
    let connector = TlsConnector::from(Arc::new(tls::to_oneself(files)?));
    ask(connector.connect(ServerName::from(address.ip()), stream).await?, address).await
}

async fn ask<S>(stream: S, address: SocketAddr) -> Answered
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = http::Request::get("/health/ready").header(http::header::HOST, address.to_string());
    Ok(sender.send_request(request.body(Empty::<Bytes>::new())?).await?.status())
}
