//! Reading a request's body: bounded in bytes and time, strict in form.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};

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
    if !body.is_end_stream() && is_encoded(headers) {
        return Err(Problem::unsupported_media_type());
    }
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

/// Whether a body is compressed, or encoded in another way: none is taken apart here.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().any(|value| {
        let is_identity = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case("identity");
        !value.to_str().is_ok_and(|codings| codings.split(',').map(str::trim).all(is_identity))
    })
}

/// A whole JSON text, of whatever shape. Strings are read as those of fields are: `IgnoredAny` passes over half a surrogate
/// pair and over any depth.
struct AnyJson;

impl<'de> Deserialize<'de> for AnyJson {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for AnyJson {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        while members.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

fn is_json_text(text: &str) -> bool {
    serde_json::from_str::<AnyJson>(text).is_ok()
}

/// Reads a JSON object into a request. Unknown, missing, repeated and wrongly typed fields are refused.
pub(super) fn json<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Problem> {
    if !is_json(headers) {
        return Err(Problem::unsupported_media_type());
    }
    let text = std::str::from_utf8(body).map_err(|_| Problem::malformed("the body is not UTF-8"))?;
    // An array would be read as the fields in their order, unnamed: whoever checks names in front of us would see none.
    if !text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{') {
        return Err(if is_json_text(text) {
            Problem::field("body", "invalid_type")
        } else {
            Problem::malformed("the body is not JSON")
        });
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let read: T = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        use serde_json::error::Category;
        match error.inner().classify() {
            // The first field that is wrong ends the reading: what stands behind it may be no JSON.
            Category::Data if is_json_text(text) => field_fault(&error),
            Category::Data | Category::Syntax | Category::Eof | Category::Io => {
                Problem::malformed("the body is not JSON")
            }
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

    /// Texts that are no JSON, as the `n_…` and `i_…` of `nst/JSONTestSuite` are.
    const MALFORMED: &[&str] = &[
        // Numbers.
        "-",
        "--1",
        "+1",
        "++1234",
        "-01",
        "-1.0.",
        "-2.",
        "-NaN",
        "-Infinity",
        "Infinity",
        "NaN",
        "nan",
        "Inf",
        "-foo",
        ".-1",
        ".2e-3",
        "0.1.2",
        "0.3e+",
        "0.3e",
        "0.e1",
        "0E",
        "0E+",
        "0e",
        "0e+",
        "1.",
        "1.0e+",
        "1.0e-",
        "1.0e",
        "1 000",
        "1eE2",
        "2.e+3",
        "2.e-3",
        "2.e3",
        "9.e+",
        "1+2",
        "0x1",
        "0x42",
        "-012",
        "012",
        "1ea",
        "1.8011670033376514H-308",
        "-123.123foo",
        "123\u{0}",
        "１",
        "1e9999",
        "-1e+9999",
        "- 1",
        ".123",
        // Strings.
        r#""\uD800""#,
        r#""\uDC00""#,
        r#""\uD800\uD800""#,
        r#""\uD800\u""#,
        r#""\uD800\u1""#,
        r#""\uD800\u1x""#,
        r#""\uD834\n""#,
        r#""\uDd1ea""#,
        r#""\uDFAA""#,
        r#""\u""#,
        r#""\u00A""#,
        r#""\u{41}""#,
        r#""\a""#,
        r#""\x00""#,
        r#""\🌀""#,
        r#""\""#,
        r#""\\\""#,
        r#""\ "x""#,
        r#""\u00""#,
        "\"a\tb\"",
        "\"a\nb\"",
        "\"a\u{0}b\"",
        "\"\u{1f}\"",
        "'a'",
        "\"",
        "\"a",
        "abc",
        "\\n",
        "\\u0020",
        "“a”",
        // Structure.
        "[1,]",
        "[,1]",
        "[1,,2]",
        "[1",
        "[1 2]",
        "[1]]",
        "[1}",
        "[\"\"",
        "[",
        "]",
        "[a",
        "[1:2]",
        "[*]",
        "[ , ]",
        "[1,\n1\n,1",
        "[\"a\",\n4\n,1,",
        "[\u{b}]",
        "[\u{c}]",
        "[\u{a0}1]",
        "[\u{2060}]",
        "[\u{feff}]",
        "{",
        "}",
        "{]",
        "{\"a\":1,}",
        "{\"a\" 1}",
        "{\"a\",1}",
        "{\"a\"::1}",
        "{:1}",
        "{1:1}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":1 true}",
        "{\"a\":\"b\"}/**/",
        "{\"a\":\"b\"}#",
        "{\"a\":/*c*/1}",
        "{\"a\":1,,}",
        "{null:null}",
        "{\"a\":}",
        "{\"a\"}",
        "{\"\\uD800\":1}",
        "{\"a\":1}}",
        "{,\"a\":1}",
        // Words, trash and nothing.
        "nul",
        "f",
        "t",
        "True",
        "TRUE",
        "None",
        "undefined",
        "nan ",
        "<null>",
        "<.>",
        "1]",
        "2@",
        "{}}",
        "{} {}",
        "{}#",
        "[]a",
        "\u{feff}",
        "\u{feff}\u{feff}{}",
        "å",
        "é",
        "\u{a0}{}",
        "//c\n{}",
        "",
    ];

    #[test]
    fn what_is_no_json_is_malformed_wherever_it_stands() {
        for text in MALFORMED {
            // As the whole; for a field of a wrong type, of the right one, of a list; for one that is not known; and behind.
            let mut bodies = vec![
                (*text).to_owned(),
                format!(r#"{{"email":{text}}}"#),
                format!(r#"{{"email":1,"roles":{text}}}"#),
                format!(r#"{{"email":"a","roles":[{text}]}}"#),
                format!(r#"{{"nobody":true,"email":{text}}}"#),
                format!(r#"{{"nobody":[{{"x":{text}}}]}}"#),
            ];
            if !text.is_empty() {
                bodies.push(format!(r#"{{"email":"a"}}{text}"#));
                bodies.push(format!(r#"{{"email":1}}{text}"#));
            }
            for body in bodies {
                // Nothing between the brackets of a list is a list.
                if body.ends_with("[]}") {
                    continue;
                }
                assert_eq!(refused(&body), "malformed_request", "{body}");
            }
        }
    }

    #[test]
    fn depth_has_an_end_and_bytes_are_utf_8() {
        for deep in
            ["[".repeat(100_000), format!("{{\"email\":{}", "[".repeat(60_000)), "{\"a\":".repeat(50_000)]
        {
            assert_eq!(refused(&deep), "malformed_request");
        }
        let closed = format!("{{\"nobody\":{}{}}}", "[".repeat(200), "]".repeat(200));
        assert_eq!(refused(&closed), "malformed_request");
        let headers =
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        for bytes in [
            &b"\xff\xfe{\0}\0"[..],
            b"{\"email\":\"\xff\"}",
            b"{\"email\":\"\xed\xa0\x80\"}",
            b"{\"email\":\"\xc0\xaf\"}",
            b"\xff",
        ] {
            let problem = json::<Body>(&headers, bytes).unwrap_err();
            assert_eq!(problem.code(), "malformed_request", "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_compressed_is_not_taken() {
        let read = async |codings: &[&str], body: &'static str| {
            let codings = codings.iter().map(|coding| (header::CONTENT_ENCODING, coding.parse().unwrap()));
            let body = http_body_util::Full::new(Bytes::from_static(body.as_bytes()));
            super::read(&codings.collect(), body, 64, Duration::from_secs(1))
                .await
                .map_err(|problem| problem.code())
        };
        for codings in [
            &["gzip"][..],
            &["GZIP"],
            &["br"],
            &["deflate"],
            &["x"],
            &["identity", "gzip"],
            &["identity, gzip"],
        ] {
            assert_eq!(read(codings, "{}").await, Err("unsupported_media_type"), "{codings:?}");
            assert!(read(codings, "").await.is_ok(), "there is nothing that is compressed");
        }
        for codings in [&["identity"][..], &["Identity"], &[""], &["identity, identity"], &[]] {
            assert!(read(codings, "{}").await.is_ok(), "{codings:?}");
        }
    }
}
