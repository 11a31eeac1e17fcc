//! The OpenAPI document as it is printed, kept and served, and the page that shows it.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "support/contract.rs"]
mod contract;

use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tower::ServiceExt as _;
use usermgr_core::testing::{Mailbox, MemoryStore};
use usermgr_core::{Policies, SecretKey, UserManager};
use usermgr_server::{ServiceOptions, openapi, service};

const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
const RENEW: &str = "USERMGR_TEST_RENEW=1 cargo test -p usermgr-server --test openapi";

/// What the program prints with this configuration.
fn printed(environment: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_usermgr-server"));
    command.current_dir(&dir).env_clear().envs(environment.iter().copied());
    let output = command.arg("openapi").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how the kept document is renewed")]
fn the_document_is_the_one_that_is_kept() {
    let printed = printed(&[]);
    if std::env::var_os("USERMGR_TEST_RENEW").is_some() {
        std::fs::write(KEPT, &printed).unwrap();
    }
    let kept = std::fs::read_to_string(KEPT).unwrap_or_default();
    if printed != kept {
        let line = printed.lines().zip(kept.lines()).position(|(one, other)| one != other).unwrap_or(0) + 1;
        panic!("docs/openapi.json is not what the program prints, from line {line} on; renew it: {RENEW}");
    }
}

#[test]
fn the_printed_document_is_that_of_the_configuration() {
    let document: Value = serde_json::from_str(&printed(&[
        ("USERMGR_HTTP_BASE_PATH", "/api/v4"),
        ("USERMGR_HTTP_PUBLIC_URL", "https://auth.example.org"),
    ]))
    .unwrap();
    assert_eq!(document["servers"][0]["url"], "https://auth.example.org");
    assert!(document["paths"]["/api/v4/users/verify"]["post"].is_object());
    assert!(document["paths"]["/health/live"]["get"].is_object());
}

/// Asks a service with these options.
async fn get(options: ServiceOptions, path: &str) -> (u16, HeaderMap, Bytes) {
    let users = UserManager::builder()
        .store(Arc::new(MemoryStore::default()))
        .mailer(Arc::new(Mailbox::default()))
        .secret_key(SecretKey::from_bytes(*b"0123456789abcdef0123456789abcdef"))
        .build()
        .unwrap();
    let request = Request::get(path).body(Full::<Bytes>::default()).unwrap();
    let (parts, body) = service(users, options).oneshot(request).await.unwrap().into_parts();
    let (status, body) = (parts.status.as_u16(), body.collect().await.unwrap().to_bytes());
    (status, parts.headers, body)
}

#[tokio::test]
async fn the_document_is_served_as_it_is_printed() {
    let (status, headers, body) = get(ServiceOptions::default(), "/openapi.json").await;
    let exchange = contract::Exchange {
        method: &Method::GET,
        path: "/openapi.json",
        base_path: "/v1",
        status,
        headers: &headers,
        body: &body,
    };
    contract::check(&exchange);
    let served: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(served, openapi(&ServiceOptions::default(), &Policies::default()));
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let (status, headers, page) = get(ServiceOptions::default(), "/docs").await;
    assert_eq!((status, headers["content-type"].as_bytes()), (200, &b"text/html; charset=utf-8"[..]));
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe") && !policy.contains("http")
    );
    let page = String::from_utf8(page.to_vec()).unwrap();
    assert!(!page.contains("//"), "{page}");
    let parts: Vec<&str> =
        page.split("=\"docs/").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(parts.len(), 3);
    for part in parts {
        let (status, headers, body) = get(ServiceOptions::default(), &format!("/docs/{part}")).await;
        assert_eq!((status, body.is_empty()), (200, false), "{part}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
    }
    assert_eq!(get(ServiceOptions::default(), "/docs/other.js").await.0, 404);
}

#[tokio::test]
async fn switched_off_there_is_neither_document_nor_page() {
    for path in ["/openapi.json", "/docs", "/docs/docs.js"] {
        let options = ServiceOptions { docs: false, ..ServiceOptions::default() };
        assert_eq!(get(options, path).await.0, 404, "{path}");
    }
}
