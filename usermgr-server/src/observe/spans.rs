//! Spans of requests, sent to a collector by OTLP over HTTP.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;
use usermgr_smtp::TrustedRoots;

/// How long a collector may take for a batch.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of its answer that are read.
const MAX_ANSWER: usize = 64 * 1024;

/// What sends spans. They are kept in memory, a bounded number of them, until a batch of them leaves.
pub(crate) struct Spans(SdkTracerProvider);

impl Spans {
    /// Begins to send to the URL of a collector, such as `http://localhost:4318/v1/traces`.
    pub(crate) fn sent_to(
        url: &str,
        roots: &TrustedRoots,
        runtime: Handle,
    ) -> Result<Self, ExporterBuildError> {
        let tls =
            roots.client_config().map_err(|error| ExporterBuildError::InternalFailure(error.to_string()))?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(url)
            .with_timeout(TIMEOUT)
            .with_http_client(Sender::new(tls, runtime))
            .build()?;
        let resource = Resource::builder()
            .with_service_name("usermgr")
            .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build()))
    }

    pub(crate) fn layer<S>(&self) -> OpenTelemetryLayer<S, SdkTracer>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("usermgr"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
    }

    /// Sends what is left. It waits for the collector, and must be called outside of the runtime.
    pub(crate) fn end(&self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "some spans were not sent");
        }
    }
}

/// The trace that the caller's request is part of (W3C Trace Context).
pub(crate) fn parent(headers: &http::HeaderMap) -> opentelemetry::Context {
    // Of no current one: a request is a root unless its caller says otherwise.
    TraceContextPropagator::new()
        .extract_with_context(&opentelemetry::Context::new(), &HeaderExtractor(headers))
}

/// The HTTP client of mails and webhooks, for the thread of the exporter, which has no runtime of its own.
struct Sender {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
}

impl Sender {
    fn new(tls: rustls::ClientConfig, runtime: Handle) -> Self {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        Self { client: Client::builder(TokioExecutor::new()).build(connector), runtime }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sending = self.client.request(request.map(Full::new));
        // All of it there, for this thread has no timers.
        let sent = self.runtime.spawn(async move {
            let answering = async {
                let (head, body) = sending.await?.into_parts();
                let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
                Ok::<_, HttpError>(Response::from_parts(head, body))
            };
            tokio::time::timeout(TIMEOUT, answering).await?
        });
        sent.await?
    }
}
