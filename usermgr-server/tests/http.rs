//! The service itself, without a socket: over the store in memory, with a clock that can be made to panic.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "support/contract.rs"]
mod contract;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tower::ServiceExt as _;
use usermgr_core::port::clock::{Clock, SystemClock};
use usermgr_core::testing::{Mailbox, MemoryStore};
use usermgr_core::{Policies, SecretKey, UserManager};
use usermgr_server::{AuthService, PeerAddr, ServiceOptions, service};

const ANA: &str = "ana@example.org";
const PASSWORD: &str = "correct horse battery";
const PROXY: &str = "10.0.0.1";

/// The real time, until it is told to panic.
#[derive(Debug, Default)]
struct Fuse(AtomicBool);

impl Clock for Fuse {
    fn now(&self) -> OffsetDateTime {
        assert!(!self.0.load(Ordering::SeqCst), "a secret in a panic: {PASSWORD}");
        SystemClock.now()
    }
}

struct App {
    service: AuthService,
    users: UserManager,
    mailbox: Arc<Mailbox>,
    fuse: Arc<Fuse>,
}

fn app() -> App {
    app_at("https://app.example.org")
}

/// The service of this public URL.
fn app_at(public_url: &str) -> App {
    let (mailbox, fuse) = (Arc::new(Mailbox::default()), Arc::new(Fuse::default()));
    let mut policies = Policies::default();
    policies.mail.public_url = public_url.into();
    policies.codes.resend_interval = time::Duration::ZERO;
    let users = UserManager::builder()
        .store(Arc::new(MemoryStore::default()))
        .mailer(mailbox.clone())
        .clock(fuse.clone())
        .secret_key(SecretKey::from_bytes(*b"0123456789abcdef0123456789abcdef"))
        .policies(policies)
        .build()
        .unwrap();
    let options = ServiceOptions {
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        cors_origins: vec!["https://app.example.org".into()],
        ..ServiceOptions::default()
    };
    App { service: service(users.clone(), options), users, mailbox, fuse }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl App {
    async fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = Request::builder().method(&method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let peer = PeerAddr(SocketAddr::new(PROXY.parse().unwrap(), 4711));
        let request = request.extension(peer).body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let (parts, body) = self.service.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        contract::check(&contract::Exchange {
            method: &method,
            path: path.split('?').next().unwrap(),
            base_path: "/v1",
            status: parts.status.as_u16(),
            headers: &parts.headers,
            body: &bytes,
        });
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.call(Method::POST, path, &headers, body.as_bytes()).await
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.call(Method::GET, path, headers, b"").await
    }

    /// A user's access token.
    async fn signed_in(&self) -> String {
        let body = json!({"email": ANA, "password": PASSWORD}).to_string();
        assert_eq!(self.post("/v1/users", &[], &body).await.status, 202);
        self.users.mail_worker().run_once().await.unwrap();
        let code = self.mailbox.last_code(ANA).unwrap();
        let verify = json!({"email": ANA, "code": code}).to_string();
        assert_eq!(self.post("/v1/users/verify", &[], &verify).await.status, 200);
        let session = self.post("/v1/users/login", &[], &body).await.json();
        session["access_token"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_body_is_an_object_and_nothing_else() {
    let app = app();
    let deep = "[".repeat(60_000);
    for body in [
        // Field by field in order, which the parser would take for the object.
        r#"["ana@example.org","correct horse battery",null,null,null]"#,
        "[]",
        "null",
        "1",
        r#""text""#,
        " \n[ ]",
    ] {
        let answer = app.post("/v1/users", &[], body).await;
        assert_eq!((answer.status, &answer.json()["code"]), (422, &json!("validation_failed")), "{body}");
    }
    for body in ["", " ", "{", "}", "nonsense", "\u{feff}{}", deep.as_str()] {
        let answer = app.post("/v1/users", &[], body).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("malformed_request")));
    }
    app.users.mail_worker().run_once().await.unwrap();
    assert!(app.mailbox.mails().is_empty());
}

#[tokio::test]
async fn a_header_of_the_clients_own_does_not_move_it_to_another_network() {
    let app = app();
    let body = json!({"email": ANA, "password": PASSWORD}).to_string();
    let mut last = 0;
    for n in 1..=11 {
        // The proxy adds to the one header and passes the other on as it came.
        let forwarded = format!("for=198.51.100.{n}");
        let headers = [("x-forwarded-for", "203.0.113.9"), ("forwarded", forwarded.as_str())];
        last = app.post("/v1/users/login", &headers, &body).await.status;
    }
    assert_eq!(last, 429);
}

#[tokio::test]
async fn bytes_of_a_client_do_not_make_it_the_proxy() {
    let app = app();
    let body = json!({"email": ANA, "password": PASSWORD}).to_string();
    // Each client has its own budget, whatever it sends left of what the proxy appends.
    for client in ["203.0.113.9", "203.0.113.10"] {
        let mut statuses = Vec::new();
        for n in 1..=11 {
            let sent = format!("\u{e9}{n}, {client}");
            let answer = app.post("/v1/users/login", &[("x-forwarded-for", &sent)], &body).await;
            statuses.push(answer.status);
        }
        assert_eq!((statuses[0], statuses[10]), (401, 429), "{client}");
    }
}

#[tokio::test]
async fn a_challenge_fits_how_one_asked() {
    let app = app();
    let token = app.signed_in().await;
    let wrong = json!({"email": ANA, "password": "a wrong password"}).to_string();
    // A browser would cover the page's own form with its prompt.
    let by_json = app.post("/v1/users/login", &[], &wrong).await;
    assert_eq!((by_json.status, by_json.header("www-authenticate")), (401, "Bearer realm=\"usermgr\""));
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{ANA}:a wrong password"));
    let basic = format!("basic {basic}");
    let by_basic = app.call(Method::POST, "/v1/sessions", &[("authorization", &basic)], b"").await;
    assert_eq!(by_basic.status, 401);
    assert_eq!(by_basic.header("www-authenticate"), "Basic realm=\"usermgr\", charset=\"UTF-8\"");
    let code = r#"{"code":"000000"}"#;
    let activate = app.post("/v1/users/activate", &[("authorization", &basic)], code).await;
    assert_eq!(activate.status, 401);
    assert!(activate.header("www-authenticate").starts_with("Basic "));
    let bearer = format!("bearer {token}");
    let change = json!({"current_password": "a wrong password", "new_password": "a new password",
        "confirmation_password": "a new password"});
    let change = app.post("/v1/passwords/change", &[("authorization", &bearer)], &change.to_string()).await;
    assert_eq!((change.status, change.header("www-authenticate")), (401, "Bearer realm=\"usermgr\""));
    let bad = app.get("/v1/users/me", &[("authorization", "Bearer nonsense")]).await;
    assert_eq!(bad.header("www-authenticate"), "Bearer realm=\"usermgr\", error=\"invalid_token\"");
    assert_eq!(app.get("/v1/users/me", &[("authorization", &bearer)]).await.status, 200);
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let app = app();
    for path in ["/health/live", "/.well-known/jwks.json", "/v1/users/me"] {
        let get = app.get(path, &[]).await;
        let head = app.call(Method::HEAD, path, &[], b"").await;
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.text, "");
        assert_eq!(head.header("content-type"), get.header("content-type"));
        assert_eq!(head.header("www-authenticate"), get.header("www-authenticate"));
        // The bodies differ in the request id alone, which is of one length.
        assert_eq!(head.header("content-length"), get.text.len().to_string(), "{path}");
    }
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_service_lives() {
    let app = app();
    let body = json!({"email": ANA, "password": PASSWORD}).to_string();
    app.fuse.0.store(true, Ordering::SeqCst);
    let answer = app.post("/v1/users", &[("x-request-id", "mine-1")], &body).await;
    assert_eq!((answer.status, &answer.json()["code"]), (500, &json!("internal")));
    assert_eq!(answer.json()["request_id"], "mine-1");
    assert!(!answer.text.contains("panic") && !answer.text.contains(PASSWORD));
    app.fuse.0.store(false, Ordering::SeqCst);
    assert_eq!(app.post("/v1/users", &[], &body).await.status, 202);
}

#[tokio::test]
async fn every_answer_bears_its_headers() {
    let app = app();
    let large = "x".repeat(70_000);
    let fine = json!({"email": ANA, "password": PASSWORD}).to_string();
    let answers = [
        (200, app.get("/health/live", &[]).await),
        (200, app.get("/health/ready", &[]).await),
        (202, app.post("/v1/users", &[], &fine).await),
        (400, app.post("/v1/users", &[], "{").await),
        (401, app.get("/v1/users/me", &[("x-request-id", "not sane\t")]).await),
        (404, app.get("/v1/users/", &[]).await),
        (404, app.get("/health/live/../ready", &[]).await),
        (405, app.call(Method::TRACE, "/v1/users", &[], b"").await),
        (413, app.post("/v1/users", &[], &large).await),
        (415, app.call(Method::POST, "/v1/users", &[], fine.as_bytes()).await),
        (422, app.post("/v1/users", &[], "{}").await),
    ];
    for (status, answer) in answers {
        assert_eq!(answer.status, status, "{}", answer.text);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
        assert_eq!(answer.header("server"), "");
        assert_eq!(answer.header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert!(answer.header("strict-transport-security").starts_with("max-age="));
        assert_eq!(answer.header("cache-control"), "no-store");
        let id = answer.header("x-request-id");
        assert!(!id.is_empty() && id != "not sane\t");
        if status >= 400 {
            assert_eq!(answer.header("content-type"), "application/problem+json");
            let problem = answer.json();
            assert_eq!((&problem["status"], &problem["request_id"]), (&json!(status), &json!(id)));
            for member in ["type", "title", "detail", "code"] {
                assert!(problem[member].is_string(), "{member} of {problem}");
            }
        }
        assert_eq!(status == 405, answer.headers.contains_key("allow"));
    }
    let jwks = app.get("/.well-known/jwks.json", &[]).await;
    assert_eq!((jwks.status, jwks.header("cache-control")), (200, "public, max-age=300"));
}

#[tokio::test]
async fn browsers_are_held_to_https_where_it_is_spoken() {
    let live = app_at("http://localhost:8000").get("/health/live", &[]).await;
    assert!(!live.headers.contains_key("strict-transport-security"));
    for path in ["/health/live", "/v1/users/me", "/docs", "/openapi.json", "/nothing"] {
        let answer = app_at("https://app.example.org").get(path, &[]).await;
        assert!(answer.header("strict-transport-security").starts_with("max-age=63072000"), "{path}");
    }
}

#[tokio::test]
async fn basic_credentials_that_nobody_can_have_are_wrong_ones() {
    let app = app();
    let long = format!("{ANA}:{}", "p".repeat(257));
    for credentials in
        [":", "ana@example.org:", ":password", "ana:password", long.as_str(), "ana@example.org:a\u{7}b"]
    {
        let basic = base64::engine::general_purpose::STANDARD.encode(credentials);
        let headers = [("authorization", format!("Basic {basic}"))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let activate = app.post("/v1/users/activate", &headers, r#"{"code":"123456"}"#).await;
        let login = app.call(Method::POST, "/v1/users/login", &headers, b"").await;
        for answer in [activate, login] {
            assert_eq!((answer.status, &answer.json()["code"]), (401, &json!("invalid_credentials")));
            assert!(answer.header("www-authenticate").starts_with("Basic "), "{credentials}");
        }
    }
    let none = app.call(Method::POST, "/v1/users/login", &[], b"").await;
    assert_eq!(
        (none.status, none.header("www-authenticate")),
        (401, "Basic realm=\"usermgr\", charset=\"UTF-8\"")
    );
}

#[tokio::test]
async fn only_listed_origins_may_call() {
    let app = app();
    let ours = "https://app.example.org";
    assert_eq!(
        app.get("/health/live", &[("origin", ours)]).await.header("access-control-allow-origin"),
        ours
    );
    for other in
        ["null", "https://app.example.org.evil.example", "http://app.example.org", "https://evil.example"]
    {
        let answer = app.get("/health/live", &[("origin", other)]).await;
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{other}");
        assert_eq!(answer.header("vary"), "Origin");
    }
    let ask = |origin| [("origin", origin), ("access-control-request-method", "POST")];
    let allowed = app.call(Method::OPTIONS, "/v1/users/login", &ask(ours), b"").await;
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (204, ours));
    assert!(allowed.header("access-control-allow-headers").contains("Authorization"));
    assert!(!allowed.headers.contains_key("access-control-allow-credentials"));
    let refused = app.call(Method::OPTIONS, "/v1/users/login", &ask("https://evil.example"), b"").await;
    assert!(!refused.headers.contains_key("access-control-allow-origin"));
}
