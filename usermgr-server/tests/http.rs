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
use usermgr_server::{AuthService, Hsts, PeerAddr, ServiceOptions, service};

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
    app_with(public_url, Hsts::default())
}

fn app_with(public_url: &str, hsts: Hsts) -> App {
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
        hsts,
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
        (404, app.get("/v1/users//", &[]).await),
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

#[tokio::test]
async fn hsts_is_told_as_it_is_set() {
    for (set, url, told) in [
        ("", "https://id.example.org", "max-age=63072000"),
        ("", "http://localhost:8000", ""),
        ("off", "https://id.example.org", ""),
        ("host", "https://id.example.org", "max-age=63072000"),
        ("host 365d", "https://id.example.org", "max-age=31536000"),
        ("host 0s", "https://id.example.org", "max-age=0"),
        ("subdomains", "https://id.example.org", "max-age=63072000; includeSubDomains"),
        ("subdomains 400d", "https://id.example.org", "max-age=34560000; includeSubDomains"),
    ] {
        let hsts = if set.is_empty() { Hsts::default() } else { set.parse().unwrap() };
        let answer = app_with(url, hsts).get("/health/live", &[]).await;
        assert_eq!(answer.header("strict-transport-security"), told, "{set} at {url}");
    }
}

#[tokio::test]
async fn a_slash_at_the_end_is_the_same_route() {
    let app = app();
    let body = json!({"email": ANA, "password": PASSWORD}).to_string();
    assert_eq!(app.post("/v1/users/", &[], &body).await.status, 202);
    assert_eq!(app.post("/v1/users/login/", &[], &body).await.status, 401);
    assert_eq!(app.get("/health/ready/", &[]).await.status, 200);
    assert_eq!(app.get("/v1/users/me/", &[]).await.json()["code"], "missing_token");
    let allowed = app.call(Method::DELETE, "/v1/users/login/", &[], b"").await;
    assert_eq!((allowed.status, allowed.header("allow")), (405, "POST, OPTIONS"));
    for nowhere in ["/v1/users//", "/v1//users", "/v1/", "/v1/nothing/", "//"] {
        assert_eq!(app.get(nowhere, &[]).await.status, 404, "{nowhere}");
    }
}

#[tokio::test]
async fn a_correlation_id_is_taken_and_echoed_under_its_own_name() {
    let app = app();
    let both = |answer: &Answer| {
        (answer.header("x-request-id").to_owned(), answer.header("x-correlation-id").to_owned())
    };
    let taken = app.get("/v1/users/me", &[("x-correlation-id", "trace.1")]).await;
    assert_eq!(both(&taken), ("trace.1".into(), "trace.1".into()));
    assert_eq!(taken.json()["request_id"], "trace.1");
    let own = app.get("/v1/users/me", &[("x-correlation-id", "trace.1"), ("x-request-id", "mine-1")]).await;
    assert_eq!(both(&own), ("mine-1".into(), "trace.1".into()));
    let long = "x".repeat(129);
    for bad in ["", "a b", "a\tb", "<x>", long.as_str()] {
        let (request, correlation) = both(&app.get("/v1/users/me", &[("x-correlation-id", bad)]).await);
        assert!(!request.is_empty() && request != bad && correlation.is_empty(), "{bad:?}");
    }
    let (request, correlation) =
        both(&app.get("/v1/users/me", &[("x-request-id", "a b"), ("x-correlation-id", "t")]).await);
    assert_eq!((request.as_str(), correlation.as_str()), ("t", "t"));
}

#[tokio::test]
async fn a_compressed_body_is_refused_as_what_it_is() {
    let app = app();
    let body = json!({"email": ANA, "password": PASSWORD}).to_string();
    for coding in ["gzip", "br", "identity, gzip"] {
        let answer = app.post("/v1/users", &[("content-encoding", coding)], &body).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (415, &json!("unsupported_media_type")),
            "{coding}"
        );
    }
    assert_eq!(app.post("/v1/users", &[("content-encoding", "identity")], &body).await.status, 202);
}

#[tokio::test]
async fn what_people_paste_is_taken_in_every_json_field() {
    let app = app();
    let typed = format!(" {ANA}\u{a0}\n");
    let register = json!({"email": typed, "password": PASSWORD}).to_string();
    assert_eq!(app.post("/v1/users", &[], &register).await.status, 202);
    assert_eq!(
        app.post("/v1/users/resend-code", &[], &json!({"email": typed}).to_string()).await.status,
        202
    );
    app.users.mail_worker().run_once().await.unwrap();
    let code = app.mailbox.last_code(ANA).unwrap();
    let full_width = |digit: char| char::from_u32(u32::from(digit) - 0x30 + 0xff10).unwrap();
    let (first, second) = code.split_at(3);
    let second: String = second.chars().map(full_width).collect();
    let verify = json!({"email": typed, "code": format!("{first}\u{a0}-\u{2011}{second}")}).to_string();
    assert_eq!(app.post("/v1/users/verify", &[], &verify).await.status, 200);
    assert_eq!(app.post("/v1/users/login", &[], &register).await.status, 200);
    for path in ["/v1/passwords/forgot", "/v1/users/resend-code"] {
        assert_eq!(app.post(path, &[], &json!({"email": typed}).to_string()).await.status, 202, "{path}");
    }
    let request = json!({"email": typed, "purpose": "reset_password"}).to_string();
    assert_eq!(app.post("/v1/passwords/request-code", &[], &request).await.status, 202);
    app.users.mail_worker().run_once().await.unwrap();
    let code = app.mailbox.last_code(ANA).unwrap();
    let set = json!({"email": typed, "verification_code": format!("{code}x"), "new_password": "another fine password",
        "confirmation_password": "another fine password"});
    let refused = app.post("/v1/passwords/set-with-code", &[], &set.to_string()).await;
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (400, &json!("invalid_code")),
        "letters are no digits"
    );
}

#[tokio::test]
async fn a_registration_without_a_locale_is_in_the_language_that_is_accepted() {
    for (accepted, sent, locale) in [
        (Some("es-MX,en;q=0.5"), None, json!("es")),
        (Some("en-GB, es;q=0.9"), None, json!("en")),
        (Some("fr, de;q=0.9"), None, json!(null)),
        (Some("*"), None, json!(null)),
        (Some("es;q=0"), None, json!(null)),
        (None, None, json!(null)),
        (Some("es"), Some("de"), json!("de")),
    ] {
        let app = app();
        let mut body = json!({"email": ANA, "password": PASSWORD});
        if let Some(sent) = sent {
            body["locale"] = json!(sent);
        }
        let headers: Vec<(&str, &str)> =
            accepted.map(|accepted| ("accept-language", accepted)).into_iter().collect();
        assert_eq!(app.post("/v1/users", &headers, &body.to_string()).await.status, 202);
        app.users.mail_worker().run_once().await.unwrap();
        let code = app.mailbox.last_code(ANA).unwrap();
        let verified =
            app.post("/v1/users/verify", &[], &json!({"email": ANA, "code": code}).to_string()).await;
        assert_eq!(verified.json()["user"]["locale"], locale, "{accepted:?} {sent:?}");
    }
}
