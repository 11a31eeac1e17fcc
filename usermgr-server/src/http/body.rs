//! Reading a request's body: bounded in bytes and time, strict in form.

use std::pin::pin;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// Reads a body of at most `limit` bytes.
pub(super) async fn read<B>(
    headers: &HeaderMap,
    body: B,
    limit: usize,
    within: Duration,
) -> Result<Bytes, Problem>
where
    B: Body,
{
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(Problem::payload_too_large());
    }
    let reading = async {
        let mut body = pin!(body);
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return Err(Problem::malformed("the body broke off")) };
            if let Ok(mut data) = frame.into_data() {
                if read.len() + data.remaining() > limit {
                    return Err(Problem::payload_too_large());
                }
                read.extend_from_slice(&data.copy_to_bytes(data.remaining()));
            }
        }
        Ok(read.freeze())
    };
    tokio::time::timeout(within, reading).await.unwrap_or_else(|_| Err(Problem::timeout()))
}

/// Reads a JSON object into a request. Unknown, missing, repeated and wrongly typed fields are refused.
pub(super) fn json<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Problem> {
    if !is_json(headers) {
        return Err(Problem::unsupported_media_type());
    }
    let text = std::str::from_utf8(body).map_err(|_| Problem::malformed("the body is not UTF-8"))?;
    // An array would be read as the fields in their order, unnamed: whoever checks names in front of us would see none.
    if !text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{') {
        return Err(match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => Problem::field("body", "invalid_type"),
            Err(_) => Problem::malformed("the body is not JSON"),
        });
    }
    serde_json::from_str(text).map_err(|error| {
        use serde_json::error::Category;
        match error.classify() {
            Category::Data => field_fault(&error),
            Category::Syntax | Category::Eof | Category::Io => Problem::malformed("the body is not JSON"),
        }
    })
}

/// As [`json`], where a body may be missing.
pub(super) fn json_if_any<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<T, Problem> {
    if body.is_empty() { Ok(T::default()) } else { json(headers, body) }
}

/// Tells a field that is `null` from one that is missing.
#[expect(clippy::option_option, reason = "missing, null, or a value")]
pub(super) fn nullable<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: serde::Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    serde::Deserialize::deserialize(deserializer).map(Some)
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else { return false };
    let Ok(text) = only.to_str() else { return false };
    let mut parts = text.split(';').map(str::trim);
    parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
        && parts.all(|parameter| {
            parameter.is_empty()
                || parameter.split_once('=').is_some_and(|(name, value)| {
                    name.trim().eq_ignore_ascii_case("charset")
                        && value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
                })
        })
}

/// The field that serde's message names, and what is wrong with it. The value is never repeated.
fn field_fault(error: &serde_json::Error) -> Problem {
    let message = error.to_string();
    let named = message.split('`').nth(1).filter(|name| name.len() <= 64);
    let (code, field) = if message.starts_with("unknown field") {
        ("unknown", named)
    } else if message.starts_with("missing field") {
        ("required", named)
    } else if message.starts_with("duplicate field") {
        ("duplicate", named)
    } else {
        ("invalid_type", None)
    };
    Problem::field(field.unwrap_or("body"), code)
}
