//! What bad input gets: a problem answer, never a 5xx; nothing stored, no mail.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "support/blackbox.rs"]
mod blackbox;

use std::io::{Read as _, Write as _};
use std::time::Duration;

use blackbox::{Database, Db, Mailbox, Server};
use serde_json::json;

/// One raw exchange over a socket; the status and the whole answer.
fn raw(server: &Server, request: &[u8]) -> (u16, String) {
    let address = server.base.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    let _ended_early = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let headers = head.lines().skip(1).map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.parse().unwrap(), value.parse().unwrap())
    });
    let first_line = String::from_utf8_lossy(request);
    let mut words = first_line.split(' ');
    blackbox::contract::check(&blackbox::contract::Exchange {
        method: &words.next().unwrap().parse().unwrap(),
        path: words.next().unwrap(),
        base_path: "/v1",
        status,
        headers: &headers.collect::<Vec<(http::HeaderName, http::HeaderValue)>>().into_iter().collect(),
        body: body.as_bytes(),
    });
    (status, text)
}

fn post(path: &str, content_type: &str, body: &[u8], more: &str) -> Vec<u8> {
    let head = format!(
        "POST /v1{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {content_type}\r\n{more}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_body_is_a_problem_and_leaves_nothing() {
    let (database, mailbox) = (Database::create(Db::Sqlite).await, Mailbox::open().await);
    let server = Server::start(&database, &mailbox.url(), &[]).await;
    let nested = format!("{{\"email\":{}", "[".repeat(60_000));
    let large = format!("{{\"email\":\"{}\"}}", "a".repeat(70_000));
    let long = format!("{{\"email\":\"a@example.org\",\"password\":\"{}\"}}", "p".repeat(5_000));
    let bodies: &[(&[u8], u16, &str)] = &[
        (b"", 400, "malformed_request"),
        (b"{", 400, "malformed_request"),
        (b"nonsense", 400, "malformed_request"),
        (b"\xff\xfe", 400, "malformed_request"),
        (nested.as_bytes(), 400, "malformed_request"),
        (large.as_bytes(), 413, "payload_too_large"),
        (long.as_bytes(), 422, "validation_failed"),
        (b"[]", 422, "validation_failed"),
        (b"null", 422, "validation_failed"),
        (b"{}", 422, "validation_failed"),
        (br#"{"email":"a@example.org"}"#, 422, "validation_failed"),
        (br#"{"email":["a@example.org"],"password":"correct horse battery"}"#, 422, "validation_failed"),
        (
            br#"{"email":"a@example.org,b@example.org","password":"correct horse battery"}"#,
            422,
            "validation_failed",
        ),
        (br#"{"email":1,"password":"correct horse battery"}"#, 422, "validation_failed"),
        (br#"{"email":null,"password":"correct horse battery"}"#, 422, "validation_failed"),
        (
            br#"{"email":"a@example.org","password":"correct horse battery","role":"admin"}"#,
            422,
            "validation_failed",
        ),
        (
            br#"{"email":"a@example.org","email":"b@example.org","password":"correct horse battery"}"#,
            422,
            "validation_failed",
        ),
        (br#"{"email":"a\u0000@example.org","password":"correct horse battery"}"#, 422, "validation_failed"),
        (br#"{"email":"a@example.org","password":"correct\u0000horse battery"}"#, 422, "validation_failed"),
        (
            br#"{"email":"a@example.org","password":"correct horse battery","username":"a\u0007b"}"#,
            422,
            "validation_failed",
        ),
    ];
    for (body, status, code) in bodies {
        let (got, text) = raw(&server, &post("/users", "application/json", body, ""));
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        assert_eq!(got, *status, "{shown}: {text}");
        assert!(text.contains(code) && text.contains("application/problem+json"), "{shown}: {text}");
        for header in ["x-request-id:", "x-content-type-options: nosniff", "cache-control: no-store"] {
            assert!(text.contains(header), "{header} in {text}");
        }
    }
    let fine = br#"{"email":"a@example.org","password":"correct horse battery"}"#;
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1"]
    {
        assert_eq!(raw(&server, &post("/users", content_type, fine, "")).0, 415, "{content_type}");
    }
    assert_eq!(database.count("usermgr_registrations").await, 0);
    assert_eq!(database.count("usermgr_outbox").await, 0);
    let jwks = b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(raw(&server, jwks).0, 200);
    assert_eq!(database.count("usermgr_audit").await, 1, "the signing key, made for whoever asked first");
    assert!(mailbox.sink.mails().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_methods_and_paths_are_refused_in_form() {
    let (database, mailbox) = (Database::create(Db::Sqlite).await, Mailbox::open().await);
    let server = Server::start(&database, &mailbox.url(), &[]).await;
    for header in
        ["Basic", "Basic !!!", "Basic YQ==", "Basic /////w==", "Basic YQA6Yg==", "Bearer x", "Digest y"]
    {
        let more = format!("Authorization: {header}\r\n");
        let (status, text) =
            raw(&server, &post("/users/activate", "application/json", br#"{"code":"123456"}"#, &more));
        assert_eq!(status, 401, "{header}: {text}");
        assert!(text.contains("www-authenticate: Basic"), "{header}: {text}");
    }
    for token in ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", &"a".repeat(9000)] {
        let answer = server.get_as("/users/me", token).await;
        assert_eq!(answer.status, 401, "{token}");
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer "));
    }
    let in_query = server.call(http::Method::GET, "/users/me?access_token=x", &[], None).await;
    in_query.problem(401, "missing_token");
    let wrong_method = server.call(http::Method::DELETE, "/users/login", &[], None).await;
    assert_eq!(wrong_method.header("allow"), Some("POST, OPTIONS"));
    wrong_method.problem(405, "method_not_allowed");
    server.call(http::Method::GET, "/nothing", &[], None).await.problem(404, "not_found");
    for bad in ["", " ", "0", "null", "12345678901234567890123456789012345678901234567890123456789012345"] {
        let body = json!({"email": "a@example.org", "code": bad});
        let answer = server.post("/users/verify", body).await;
        assert!([400, 422, 429].contains(&answer.status), "{bad:?}: {answer:?}");
    }
    let spanish =
        server.call(http::Method::GET, "/users/me", &[("accept-language", "es-MX,en;q=0.5")], None).await;
    assert_eq!(spanish.body["detail"], "Inicia sesión para continuar.");
    let named = server.call(http::Method::GET, "/users/me", &[("x-request-id", "my-id.1")], None).await;
    assert_eq!(named.header("x-request-id"), Some("my-id.1"));
}

/// Clients that send slowly, or not at all, hold nobody up.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_do_not_hold_others_up() {
    let (database, mailbox) = (Database::create(Db::Sqlite).await, Mailbox::open().await);
    let server = Server::start(&database, &mailbox.url(), &[]).await;
    let address = server.base.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let slow: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(&address).unwrap();
            stream.write_all(b"POST /v1/users HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n").unwrap();
            stream
        })
        .collect();
    let begun = std::time::Instant::now();
    let body = json!({"email": "ana@example.org", "password": "correct horse battery"});
    server.post("/users", body).await.expect(202);
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(slow);
}
