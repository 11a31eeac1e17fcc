//! Counting requests and timing them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::{Method, Request, Response};
use tower::Service;

use super::metrics::{Metrics, count};
use crate::http::Answered;

/// A service whose requests are counted.
#[derive(Clone)]
pub(crate) struct Counted<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> Counted<S> {
    pub(crate) const fn new(inner: S, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let begun = Instant::now();
        let method = known(request.method());
        let in_flight = InFlight::enter(Arc::clone(&self.metrics));
        let answering = self.inner.call(request);
        Box::pin(async move {
            let response = answering.await?;
            let answered = response.extensions().get::<Answered>();
            let route = answered.and_then(|answered| answered.route.clone()).unwrap_or_else(|| "none".into());
            let class = match response.status().as_u16() {
                ..200 => "1xx",
                200..300 => "2xx",
                300..400 => "3xx",
                400..500 => "4xx",
                _ => "5xx",
            };
            let metrics = &in_flight.metrics;
            if let Some(code) = answered.and_then(|answered| answered.code) {
                count(&metrics.problems, &[("code", code.into())]);
            }
            let labels = [("method", method.into()), ("route", route.into())];
            metrics.request_durations.get_or_create(&labels).observe(begun.elapsed().as_secs_f64());
            let [method, route] = labels;
            count(&metrics.requests, &[method, route, ("status", class.into())]);
            Ok(response)
        })
    }
}

/// A request that is being answered; also one whose client goes away ends.
struct InFlight {
    metrics: Arc<Metrics>,
}

impl InFlight {
    fn enter(metrics: Arc<Metrics>) -> Self {
        metrics.requests_in_flight.inc();
        Self { metrics }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.metrics.requests_in_flight.dec();
    }
}

/// The method, if it is one that this interface knows: clients may send any word.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
