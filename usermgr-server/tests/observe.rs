//! What an operator sees: metrics and log lines of the real program.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "support/blackbox.rs"]
mod blackbox;

use std::collections::BTreeSet;

use blackbox::{Database, Db, Mailbox, PATIENCE, Server};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PASSWORD: &str = "correct horse battery";
const ANA: &str = "ana@example.org";

/// Where the program says that its metrics are.
fn metrics_address(log: &str) -> String {
    let at = log.lines().find_map(|line| line.strip_prefix("metrics on http://")).expect("it says where");
    at.trim_end_matches("/metrics").to_owned()
}

/// What is answered, head and body.
async fn get(address: &str, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

/// The value of one series.
#[track_caller]
fn value<'a>(metrics: &'a str, series: &str) -> &'a str {
    let found = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {series} in\n{metrics}"))
}

#[track_caller]
fn check_counts(text: &str) {
    for (series, count) in [
        (r#"http_requests_total{method="POST",route="/v1/users",status="2xx"}"#, "2"),
        (r#"http_requests_total{method="POST",route="/v1/users/verify",status="4xx"}"#, "1"),
        (r#"http_requests_total{method="GET",route="/v1/users/{id}",status="4xx"}"#, "1"),
        (r#"http_requests_total{method="other",route="none",status="4xx"}"#, "1"),
        (r#"http_request_duration_seconds_count{method="POST",route="/v1/users/verify"}"#, "2"),
        (r#"http_problems_total{code="invalid_code"}"#, "1"),
        ("http_requests_in_flight", "0"),
        (r#"codes_issued_total{purpose="email_verification"}"#, "1"),
        (r#"codes_refused_total{purpose="email_verification",reason="email_taken"}"#, "1"),
        (r#"codes_refused_total{purpose="email_verification",reason="nobody"}"#, "1"),
        (r#"code_guesses_total{outcome="invalid_code"}"#, "1"),
        (r#"code_guesses_total{outcome="redeemed"}"#, "1"),
        (r#"sign_ins_total{outcome="invalid_credentials"}"#, "1"),
        (r#"sign_ins_total{outcome="ok"}"#, "1"),
        ("sessions_opened_total", "1"),
        (r#"sessions_renewed_total{outcome="ok"}"#, "1"),
        ("sessions_ended_total", "1"),
        (r#"audited_total{event="access_denied",outcome="refused",reason="forbidden"}"#, "1"),
        (r#"audited_total{event="verification",outcome="done",reason=""}"#, "1"),
        (r#"outbox_mails{status="dead"}"#, "0"),
        ("store_up", "1"),
        (concat!(r#"build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""}"#), "1"),
    ] {
        assert_eq!(value(text, &format!("usermgr_{series}")), count, "{series}");
    }
}

async fn what_happens_is_counted_and_told(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let settings = [("USERMGR_HTTP_METRICS_LISTEN", "127.0.0.1:0"), ("USERMGR_LOG_FORMAT", "json")];
    let server = Server::start(&database, &mailbox.url(), &settings).await;
    server.post("/users", json!({ "email": ANA, "password": PASSWORD })).await.expect(202);
    let code = mailbox.code(ANA, 1).await;
    let wrong = if code == "000000" { "111111" } else { "000000" };
    server.post("/users/verify", json!({ "email": ANA, "code": wrong })).await.problem(400, "invalid_code");
    server.post("/users/verify", json!({ "email": ANA, "code": code })).await.expect(200);
    server.post("/users", json!({ "email": ANA, "password": PASSWORD })).await.expect(202);
    server.post("/users/resend-code", json!({ "email": "nobody@example.org" })).await.expect(202);
    let wrong = json!({ "email": ANA, "password": "another password" });
    server.post("/users/login", wrong).await.problem(401, "invalid_credentials");
    let session =
        server.post("/users/login", json!({ "email": ANA, "password": PASSWORD })).await.expect(200);
    let token = session["access_token"].as_str().unwrap();
    let refresh = session["refresh_token"].as_str().unwrap();
    server.post("/sessions/refresh", json!({ "refresh_token": refresh })).await.expect(200);
    server.get_as("/users/me", token).await.expect(200);
    server.get_as("/users/01890a5d-ac96-774b-bcce-b302099a8057", token).await.expect(403);
    server.post_as("/sessions/logout", token, None).await.expect(204);
    server.call("BREW".parse().unwrap(), "/users/ana@example.org/secret", &[], None).await.expect(404);
    mailbox.count(ANA, 3).await;

    let address = metrics_address(&server.log());
    let text = get(&address, "GET", "/metrics").await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("# EOF\n"), "{text}");
    check_counts(&text);
    assert_ne!(value(&text, "usermgr_hash_threads"), "0");
    let pool = if matches!(db, Db::Sqlite) { "readers" } else { "all" };
    assert_eq!(value(&text, &format!("usermgr_pool_max_connections{{pool=\"{pool}\"}}")), "10");
    for personal in [ANA, "nobody@", "secret", "BREW", "127.0.0.1"] {
        assert!(!text.contains(personal), "{personal} in {text}");
    }
    assert!(get(&address, "POST", "/metrics").await.starts_with("HTTP/1.1 405 "));
    assert!(get(&address, "GET", "/").await.starts_with("HTTP/1.1 404 "));
    server.call(http::Method::GET, "/metrics", &[], None).await.expect(404);

    let log = server.log();
    let told: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["message"] == "domain event")
        .collect();
    let events: Vec<_> = told
        .iter()
        .map(|line| {
            [&line["event"], &line["outcome"], &line["reason"]].map(|word| word.as_str().unwrap_or("-"))
        })
        .filter(|[event, ..]| *event != "key_rotation")
        .map(|words| words.join(" "))
        .collect();
    let expected = [
        "registration done -",
        "verification refused invalid_code",
        "verification done -",
        "registration refused email_taken",
        "code_request refused nobody",
        "sign_in refused invalid_credentials",
        "sign_in done -",
        "session_refresh done -",
        "access_denied refused forbidden",
        "sign_out done -",
    ];
    assert_eq!(events, expected);
    let signed_in = told.iter().find(|line| line["event"] == "sign_in" && line["outcome"] == "done").unwrap();
    assert_eq!(signed_in["user_id"], session["user"]["id"]);
    assert!(signed_in["request_id"].is_string());
    for secret in [PASSWORD, code.as_str(), token, refresh] {
        assert!(!log.contains(secret), "a secret in the log");
    }
    assert!(server.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_what_happens_is_counted_and_told() {
    what_happens_is_counted_and_told(Db::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn postgres_what_happens_is_counted_and_told() {
    what_happens_is_counted_and_told(Db::Postgres).await;
}

/// Every metric that the dashboard and the alerts name, without what Prometheus puts behind a name.
fn named(text: &str) -> BTreeSet<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_word(c)).filter(|word| word.starts_with("usermgr_"));
    words
        .map(|word| {
            ["_total", "_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| word.strip_suffix(end))
                .unwrap_or(word)
        })
        .collect()
}

#[test]
fn the_dashboard_and_the_alerts_name_what_there_is() {
    let (dashboard, alerts) = (
        include_str!("../../docs/operations/grafana.json"),
        include_str!("../../docs/operations/alerts.yml"),
    );
    serde_json::from_str::<Value>(dashboard).unwrap();
    let names = include_str!("../src/observe/metrics.rs");
    let shown = named(dashboard);
    for name in shown.iter().chain(&named(alerts)) {
        let registered = format!("\"{}\", \"", name.trim_start_matches("usermgr_"));
        assert!(names.contains(&registered), "{name} is no metric");
    }
    let words = include_str!("../../docs/operations.md");
    for line in names.lines().filter(|line| line.contains(": \"") && line.trim_end().ends_with("\";")) {
        let name = format!("usermgr_{}", line.split('"').nth(1).unwrap());
        assert!(words.contains(&name), "{name} is not in docs/operations.md");
        assert!(shown.contains(name.as_str()), "{name} is not on the dashboard");
    }
}
