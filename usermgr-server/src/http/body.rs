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
    let mut json = serde_json::Deserializer::from_str(text);
    let read: T = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        use serde_json::error::Category;
        match error.inner().classify() {
            Category::Data => field_fault(&error),
            Category::Syntax | Category::Eof | Category::Io => Problem::malformed("the body is not JSON"),
        }
    })?;
    json.end().map_err(|_| Problem::malformed("something stands behind the body"))?;
    Ok(read)
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

/// The field of the body that is wrong, and how. The value is never repeated.
fn field_fault(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    use serde_path_to_error::Segment;
    let message = error.inner().to_string();
    let at = error.path().iter().find_map(|segment| match segment {
        Segment::Map { key } => Some(key.as_str()),
        Segment::Seq { .. } | Segment::Enum { .. } | Segment::Unknown => None,
    });
    let (code, field) = if message.starts_with("unknown field") {
        ("unknown", at)
    } else if message.starts_with("missing field") {
        // Serde stands at the whole; only its message tells which.
        ("required", message.split('`').nth(1))
    } else if message.starts_with("duplicate field") {
        ("duplicate", message.split('`').nth(1))
    } else {
        ("invalid_type", at)
    };
    Problem::field(field.filter(|name| name.len() <= 64).unwrap_or("body"), code)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde::Deserialize;
    use usermgr_core::Password;

    use super::super::problem::Language;
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "read and not looked at")]
    struct Body {
        email: String,
        password: Option<Password>,
        #[serde(alias = "verification_code")]
        code: Option<String>,
        roles: Option<Vec<String>>,
    }

    /// The code, and the field and what is wrong with it.
    fn refused(body: &str) -> String {
        let headers =
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let problem = json::<Body>(&headers, body.as_bytes()).unwrap_err().body(Language::English, "-");
        match problem.get("errors") {
            Some(errors) => {
                format!("{}/{}", errors[0]["field"].as_str().unwrap(), errors[0]["code"].as_str().unwrap())
            }
            None => problem["code"].as_str().unwrap().to_owned(),
        }
    }

    #[test]
    fn a_fault_has_the_name_of_its_field() {
        for (body, fault) in [
            (r#"{"email":1}"#, "email/invalid_type"),
            (r#"{"email":null}"#, "email/invalid_type"),
            (r#"{"email":["a"]}"#, "email/invalid_type"),
            (r#"{"email":"a","password":true}"#, "password/invalid_type"),
            (r#"{"email":"a","verification_code":123456}"#, "verification_code/invalid_type"),
            (r#"{"email":"a","roles":"user"}"#, "roles/invalid_type"),
            (r#"{"email":"a","roles":["user",1]}"#, "roles/invalid_type"),
            (r#"{"roles":[]}"#, "email/required"),
            (r#"{"email":"a","role":"admin"}"#, "role/unknown"),
            (r#"{"email":"a","a`b`c":1}"#, "a`b`c/unknown"),
            (r#"{"email":"a","email":"b"}"#, "email/duplicate"),
            (r#"{"email":"a","code":"1","verification_code":"2"}"#, "code/duplicate"),
            (r#"["a"]"#, "body/invalid_type"),
            (r#"{"email":"a"} {}"#, "malformed_request"),
            (r#"{"email":"a""#, "malformed_request"),
            (r#"{"email":01}"#, "malformed_request"),
        ] {
            assert_eq!(refused(body), fault, "{body}");
        }
        let long = format!(r#"{{"email":"a","{}":1}}"#, "x".repeat(65));
        assert_eq!(refused(&long), "body/unknown");
    }
}
