//! Whether an answer is one that the OpenAPI document tells of.

#![allow(unreachable_pub, dead_code, reason = "shared by several test programs")]

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use http::{HeaderMap, Method};
use jsonschema::Validator;
use serde_json::{Value, json};
use usermgr_core::Policies;
use usermgr_server::{ServiceOptions, openapi};

/// The document, with every answer closed: a member that it does not name is a fault here.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document = openapi(&ServiceOptions::default(), &Policies::default());
    for (name, schema) in document["components"]["schemas"].as_object_mut().unwrap() {
        // A problem is narrowed by each response; keys have the members of their family.
        if schema.get("properties").is_some() && name != "Problem" {
            schema["additionalProperties"] = json!(false);
        }
    }
    document
});

static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// What was asked and answered.
#[derive(Debug)]
pub struct Exchange<'a> {
    pub method: &'a Method,
    /// Without the query.
    pub path: &'a str,
    /// What the service's paths begin with.
    pub base_path: &'a str,
    pub status: u16,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// Asserts that the document tells of this answer: its status, type, headers and body.
#[track_caller]
pub fn check(exchange: &Exchange<'_>) {
    let judged = judge(exchange);
    let Exchange { method, path, status, headers, body, .. } = exchange;
    let body = String::from_utf8_lossy(body);
    assert!(judged.is_ok(), "{method} {path} -> {status}: {judged:?}\n{headers:?}\n{body}");
}

fn judge(exchange: &Exchange<'_>) -> Result<(), String> {
    let header = |name: &str| exchange.headers.get(name).and_then(|value| value.to_str().ok());
    let needs = |name: &str, value: &str| {
        if header(name) == Some(value) { Ok(()) } else { Err(format!("{name} is {:?}", header(name))) }
    };
    needs("x-content-type-options", "nosniff")?;
    needs("referrer-policy", "no-referrer")?;
    needs("cross-origin-opener-policy", "same-origin")?;
    needs("cross-origin-resource-policy", "same-origin")?;
    let policy = header("content-security-policy").unwrap_or_default();
    if !policy.contains("default-src 'none'") || policy.contains("unsafe") || header("server").is_some() {
        return Err("headers of security".into());
    }
    let asked = if exchange.method == Method::HEAD { &Method::GET } else { exchange.method };
    let item = path_item(exchange);
    let operation = item.and_then(|item| item.get(asked.as_str().to_ascii_lowercase()));
    let response = match (operation, item) {
        (Some(operation), _) => operation["responses"]
            .get(exchange.status.to_string())
            .ok_or("the document does not tell of this status")?,
        (None, Some(_)) if exchange.method == Method::OPTIONS && exchange.status == 204 => {
            return if header("allow").is_some() { Ok(()) } else { Err("no Allow".into()) };
        }
        (None, Some(_)) if exchange.status == 405 && header("allow").is_some() => {
            return problem(exchange, "method_not_allowed");
        }
        (None, None) if exchange.status == 404 => return problem(exchange, "not_found"),
        _ => return Err("the document does not tell of this route".into()),
    };
    let response = resolved(response);
    for (name, declared) in response["headers"].as_object().into_iter().flatten() {
        let schema = &resolved(declared)["schema"];
        let value = header(name).ok_or(format!("no {name}"))?;
        let value = value.parse::<u64>().map_or_else(|_| json!(value), |number| json!(number));
        valid(&format!("header {name}"), schema, &value)?;
    }
    let types = response.get("content").and_then(Value::as_object);
    match (types, header("content-type")) {
        (None, None) if exchange.body.is_empty() => Ok(()),
        (Some(types), Some(content_type)) => {
            let media_type = content_type.split(';').next().unwrap_or_default();
            let schema = &types.get(media_type).ok_or("another type than declared")?["schema"];
            if exchange.method == Method::HEAD || !media_type.ends_with("json") {
                return Ok(());
            }
            let body: Value = serde_json::from_slice(exchange.body).map_err(|error| error.to_string())?;
            let place = format!("{asked} {} {}", exchange.path, exchange.status);
            valid(&place, schema, &body)
        }
        _ => Err("a body where none is declared, or none where one is".into()),
    }
}

fn problem(exchange: &Exchange<'_>, code: &str) -> Result<(), String> {
    if exchange.method == Method::HEAD {
        return Ok(());
    }
    let body: Value = serde_json::from_slice(exchange.body).map_err(|error| error.to_string())?;
    let schema = json!({
        "$ref": "#/components/schemas/Problem",
        "properties": { "code": { "const": code }, "status": { "const": exchange.status } },
    });
    valid(code, &schema, &body)
}

/// What stands in the document at a path. One that is written out comes before one with an identifier in it.
fn path_item(exchange: &Exchange<'_>) -> Option<&'static Value> {
    // A slash at the end is the same route.
    let whole = exchange.path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(exchange.path);
    let under_base = whole.strip_prefix(exchange.base_path).map(|rest| format!("/v1{rest}"));
    let places = [under_base, Some(whole.to_owned())];
    let paths = DOCUMENT["paths"].as_object()?;
    let fits = |pattern: &str, path: &str| {
        let (pattern, path) = (pattern.split('/'), path.split('/'));
        pattern.clone().count() == path.clone().count()
            && pattern.zip(path).all(|(one, other)| one == other || (one == "{id}" && !other.is_empty()))
    };
    let written_out = places.iter().flatten().find_map(|place| paths.get(place));
    written_out.or_else(|| {
        let mut places = places.iter().flatten();
        places.find_map(|place| paths.iter().find(|(pattern, _)| fits(pattern, place)).map(|(_, item)| item))
    })
}

/// What a reference refers to.
fn resolved(value: &'static Value) -> &'static Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => DOCUMENT.pointer(reference.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

fn valid(place: &str, schema: &Value, value: &Value) -> Result<(), String> {
    let validator = {
        let mut validators = VALIDATORS.lock().unwrap();
        let known = validators.entry(schema.to_string()).or_insert_with(|| {
            let root = json!({ "allOf": [schema], "components": DOCUMENT["components"] });
            let options = jsonschema::draft202012::options().should_validate_formats(true);
            Arc::new(options.build(&root).unwrap())
        });
        Arc::clone(known)
    };
    let faults: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{place}: {} at {}", error, error.instance_path()))
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// That this can fail: each of these is refused, and the first is not.
#[test]
fn an_answer_that_the_document_does_not_tell_of_is_found() {
    let header = |name: &'static str, value: &'static str| {
        (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
    };
    let good = HeaderMap::from_iter([
        header("x-content-type-options", "nosniff"),
        header("referrer-policy", "no-referrer"),
        header("cross-origin-opener-policy", "same-origin"),
        header("cross-origin-resource-policy", "same-origin"),
        header("content-security-policy", "default-src 'none'"),
        header("x-request-id", "one"),
        header("content-type", "application/json; charset=utf-8"),
    ]);
    let judged = |path: &str, status: u16, headers: &HeaderMap, body: &str| {
        let exchange =
            Exchange { method: &Method::GET, path, base_path: "/v1", status, headers, body: body.as_bytes() };
        judge(&exchange)
    };
    let live = r#"{"status":"live"}"#;
    assert_eq!(judged("/health/live", 200, &good, live), Ok(()));
    for (path, status, body) in [
        ("/health/live", 200, r#"{"status":"dead"}"#),
        ("/health/live", 200, r#"{"status":"live","more":1}"#),
        ("/health/live", 200, "{}"),
        ("/health/live", 200, ""),
        ("/health/live", 201, live),
        ("/health/dead", 200, live),
    ] {
        assert!(judged(path, status, &good, body).is_err(), "{path} {status} {body}");
    }
    for name in good.keys() {
        let mut headers = good.clone();
        headers.remove(name);
        assert!(judged("/health/live", 200, &headers, live).is_err(), "without {name}");
    }
}
