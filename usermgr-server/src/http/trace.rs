//! The span of a request, and the trace that it is part of (W3C Trace Context).

use tracing::Span;

/// The span of a request: what is logged meanwhile bears the request's id.
pub(super) fn span(parts: &http::request::Parts, request_id: &str, route: Option<&str>) -> Span {
    let (method, route) = (parts.method.as_str(), route.unwrap_or("-"));
    #[cfg(not(feature = "otlp"))]
    {
        tracing::info_span!("request", request_id, method, route)
    }
    #[cfg(feature = "otlp")]
    {
        use tracing::field::Empty;
        use tracing_opentelemetry::OpenTelemetrySpanExt as _;
        let span = tracing::info_span!(
            "request",
            request_id,
            method,
            route,
            otel.name = format!("{method} {route}"),
            otel.kind = "server",
            otel.status_code = Empty,
            http.response.status_code = Empty
        );
        // Without a collector there is nobody to tell.
        let _told = span.set_parent(crate::observe::parent(&parts.headers));
        span
    }
}

/// Notes how a request was answered.
pub(super) fn answered(span: &Span, status: http::StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// The trace that the caller's request is part of.
pub(super) fn trace_id(headers: &http::HeaderMap) -> Option<&str> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let (version, trace, span, _flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let known = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16);
    (known && trace.bytes().any(|b| b != b'0')).then_some(trace)
}
