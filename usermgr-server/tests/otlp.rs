//! Spans as a collector gets them: a small one, on loopback, that reads what OTLP sends.
#![cfg(feature = "otlp")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "support/blackbox.rs"]
mod blackbox;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use blackbox::{Database, Db, PATIENCE, Server};
use bytes::Bytes;
use http::{Method, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use serde_json::json;
use tokio::net::TcpListener;

/// A collector that keeps what it gets.
struct Collector {
    url: String,
    got: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let got: Arc<Mutex<Vec<_>>> = Arc::default();
        let kept = Arc::clone(&got);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
                    let kept = Arc::clone(&kept);
                    async move {
                        assert_eq!(request.uri().path(), "/v1/traces");
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        kept.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
                        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { url, got }
    }

    fn spans(&self) -> Vec<Span> {
        let got = self.got.lock().unwrap();
        let scopes = got.iter().flat_map(|one| &one.resource_spans).flat_map(|one| &one.scope_spans);
        scopes.flat_map(|one| one.spans.clone()).collect()
    }
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    format!("{:?}", found.unwrap_or_else(|| panic!("no {key} in {span:?}")).value)
}

async fn spans_of_requests_reach_a_collector_within_the_callers_trace(db: Db) {
    let (database, collector) = (Database::create(db).await, Collector::start().await);
    let settings = [("USERMGR_TRACES_OTLP_URL", collector.url.as_str()), ("USERMGR_LOG_LEVEL", "error")];
    let server = Server::start(&database, "memory:", &settings).await;
    let traced = [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")];
    let body = json!({ "email": "ana@example.org", "password": "correct horse battery" });
    server.call(Method::POST, "/users", &traced, Some(body.clone())).await.expect(202);
    server.post("/users/login", body).await.problem(401, "invalid_credentials");
    assert!(server.terminate().success(), "what is left is sent at the end");

    let begun = Instant::now();
    while collector.spans().len() < 2 && begun.elapsed() < PATIENCE {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let spans = collector.spans();
    let named = |name: &str| {
        let found = spans.iter().find(|span| span.name == name);
        found.unwrap_or_else(|| panic!("no {name} in {spans:?}"))
    };
    let (registered, refused) = (named("POST /v1/users"), named("POST /v1/users/login"));
    assert_eq!(registered.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
    assert_eq!(registered.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert!(refused.parent_span_id.is_empty() && refused.trace_id != registered.trace_id);
    assert_eq!(registered.kind(), SpanKind::Server);
    assert!(attribute(registered, "http.response.status_code").contains("202"));
    assert!(attribute(refused, "http.response.status_code").contains("401"));
    assert!(attribute(registered, "route").contains("/v1/users"));
    let all = format!("{:?}", collector.got.lock().unwrap());
    assert!(all.contains("service.name"));
    for personal in ["ana@", "correct horse", "127.0.0.1"] {
        assert!(!all.contains(personal), "{personal} in {all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_spans_of_requests_reach_a_collector_within_the_callers_trace() {
    spans_of_requests_reach_a_collector_within_the_callers_trace(Db::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn postgres_spans_of_requests_reach_a_collector_within_the_callers_trace() {
    spans_of_requests_reach_a_collector_within_the_callers_trace(Db::Postgres).await;
}
