//! Events over HTTP: the feed, and webhooks to a receiver that fails in every way. The real binary, both databases.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "support/blackbox.rs"]
mod blackbox;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use blackbox::{Database, Db, Mailbox, PATIENCE, Server};
use http::Method;
use serde_json::{Value, json};
use usermgr_core::crypto::webhook::{WebhookSecret, verify_webhook};
use usermgr_core::port::clock::{Clock as _, SystemClock};
use usermgr_smtp::testing::{HttpSink, ReceivedRequest};

const ADMIN: &str = "admin@example.org";
const PASSWORD: &str = "correct horse battery";
const OTHER: &str = "another fine password";
const SECRET: &str = "whsec_wxTqG8rTi5EDzyffJMAqsgMd8RZDhW1p";
const OLD_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn create(server: &Server, email: &str, roles: &[&str]) {
    let mut args = vec!["users", "create", email, "--password-stdin"];
    for role in roles {
        args.extend(["--role", role]);
    }
    let output = server.run_with_input(&args, PASSWORD);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn token(server: &Server, email: &str) -> String {
    let body = json!({"email": email, "password": PASSWORD});
    let signed_in = server.post("/users/login", body).await.expect(200);
    signed_in["access_token"].as_str().unwrap().to_owned()
}

/// A user signs up, verifies, signs in, takes a name, changes the password, signs out, and is gone. Answers the user's
/// identifier.
async fn life(server: &Server, mailbox: &Mailbox, email: &str) -> String {
    let body = json!({"email": email, "password": PASSWORD});
    server.post("/users", body).await.expect(202);
    let code = mailbox.code(email, 1).await;
    let user = server.post("/users/verify", json!({"email": email, "code": code})).await.expect(200);
    let token = token(server, email).await;
    server
        .call_as(Method::PATCH, "/users/me", &token, Some(json!({"username": "Somebody"})))
        .await
        .expect(200);
    let change = json!({"current_password": PASSWORD, "new_password": OTHER, "confirmation_password": OTHER});
    server.post_as("/passwords/change", &token, Some(change)).await.expect(204);
    let body = json!({"email": email, "password": OTHER});
    let again = server.post("/users/login", body).await.expect(200);
    server.post_as("/sessions/logout", &token, None).await.expect(204);
    let last = again["access_token"].as_str().unwrap();
    server.call_as(Method::DELETE, "/users/me", last, Some(json!({"password": OTHER}))).await.expect(204);
    user["user"]["id"].as_str().unwrap().to_owned()
}

/// What is told of a [`life`].
const LIFE: [&str; 8] = [
    "user_registered",
    "email_verified",
    "signed_in",
    "user_updated",
    "password_changed",
    "signed_in",
    "sessions_ended",
    "user_deleted",
];

/// The kinds of each user's events, in the order they came.
fn by_user<'a>(events: impl IntoIterator<Item = &'a Value>) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in events {
        let (user, kind) = (event["user_id"].as_str().unwrap(), event["kind"].as_str().unwrap());
        found.entry(user.to_owned()).or_default().push(kind.to_owned());
    }
    found
}

/// A consumer that asks with the cursor it was given last sees everything once, in order, while things go on happening.
async fn a_consumer_of_the_feed_misses_nothing(db: Db) {
    let (mailbox, database) = (Mailbox::open().await, Database::create(db).await);
    let server = Server::start(&database, &mailbox.url(), &[]).await;
    create(&server, ADMIN, &["admin"]);
    let admin = token(&server, ADMIN).await;
    let start = server.get_as("/events", &admin).await.expect(200);
    let mut cursor = start["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(start["items"].as_array().unwrap().len(), 2, "registered and signed in: {start}");

    let emails: Vec<String> = (0..4).map(|n| format!("u{n}@example.org")).collect();
    let mut users = Vec::new();
    let lives = futures_util::future::join_all(emails.iter().map(|email| life(&server, &mailbox, email)));
    let mut seen: Vec<Value> = Vec::new();
    let consuming = async {
        let begun = Instant::now();
        while seen.len() < LIFE.len() * emails.len() {
            assert!(begun.elapsed() < PATIENCE, "{} events", seen.len());
            let page = server.get_as(&format!("/events?after={cursor}&limit=3"), &admin).await.expect(200);
            page["next_cursor"].as_str().expect("always answered").clone_into(&mut cursor);
            seen.extend(page["items"].as_array().unwrap().iter().cloned());
        }
    };
    let ((), ids) = futures_util::future::join(consuming, lives).await;
    users.extend(ids);
    let positions: Vec<u64> = seen.iter().map(|event| event["position"].as_u64().unwrap()).collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    let told = by_user(&seen);
    assert_eq!(told.len(), users.len());
    for user in users {
        assert_eq!(told[&user], LIFE);
    }
    for event in &seen {
        let text = event.to_string();
        assert!(!text.contains("example.org") && !text.contains("Somebody"), "nothing personal: {text}");
        let kind = event["kind"].as_str().unwrap();
        let has_session = kind == "signed_in" || kind == "sessions_ended";
        assert_eq!(event["session_id"].is_string(), has_session, "{text}");
    }
    let end = server.get_as(&format!("/events?after={cursor}"), &admin).await.expect(200);
    assert_eq!(end, json!({"items": [], "next_cursor": cursor}));
    let unknown = server.get_as("/events?after=1000000", &admin).await.problem(410, "events_gone");
    assert_eq!(unknown["resume_after"], "0");
    for bad in ["after=-1", "after=x", "after=01", "limit=0", "limit=201", "cursor=1"] {
        server.get_as(&format!("/events?{bad}"), &admin).await.problem(422, "validation_failed");
    }
}

fn webhook_settings(sink: &HttpSink) -> Vec<(&'static str, String)> {
    vec![("USERMGR_EVENTS_URL", sink.url()), ("USERMGR_EVENTS_SECRET", format!("{SECRET},{OLD_SECRET}"))]
}

fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// The event of a webhook, whose signature is right by the new secret and by the old one.
fn verified(request: &ReceivedRequest) -> Value {
    let now = SystemClock.now();
    for secret in [SECRET, OLD_SECRET] {
        let secret: WebhookSecret = secret.parse().unwrap();
        let headers = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let id = verify_webhook(&[secret], headers, &request.body, now).unwrap();
        assert_eq!(request.json().unwrap()["id"], id);
    }
    assert_eq!((request.method.as_str(), request.header("content-type")), ("POST", Some("application/json")));
    request.json().unwrap()
}

/// Waits until the receiver was told so many different events, and answers all it was told.
async fn told(sink: &HttpSink, wanted: usize) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let told: Vec<Value> = sink.requests().iter().map(verified).collect();
        let ids: std::collections::BTreeSet<_> = told.iter().map(|event| event["id"].to_string()).collect();
        if ids.len() >= wanted {
            return told;
        }
        assert!(begun.elapsed() < 2 * PATIENCE, "{} of {wanted}", ids.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The first telling of each event.
fn once(told: &[Value]) -> Vec<Value> {
    let mut seen = std::collections::BTreeSet::new();
    told.iter().filter(|event| seen.insert(event["id"].to_string())).cloned().collect()
}

/// A receiver that fails in every way gets everything in the end, in order and under the same identifiers; mails do not
/// wait for it.
async fn a_failing_receiver_gets_everything_in_the_end(db: Db) {
    let (mailbox, database, sink) =
        (Mailbox::open().await, Database::create(db).await, HttpSink::start().await.unwrap());
    let elsewhere = HttpSink::start().await.unwrap();
    sink.answer(500, "no");
    let settings = webhook_settings(&sink);
    let server = Server::start(&database, &mailbox.url(), &borrowed(&settings)).await;
    let mut users = Vec::new();
    for (n, fault) in ["answers 500", "redirects", "is slow"].into_iter().enumerate() {
        match fault {
            "redirects" => sink.redirect(&elsewhere.url()),
            "is slow" => sink.delay(Duration::from_hours(1)),
            _ => {}
        }
        let began = sink.requests().len();
        // A life needs its mails: they come while the receiver does not take events.
        users.push(life(&server, &mailbox, &format!("u{n}@example.org")).await);
        sink.wait_for(began + 1, PATIENCE).await.unwrap();
    }
    assert!(server.log().contains("the receiver answered 500"), "{}", server.log());
    let id = sink.requests()[0].json().unwrap()["id"].as_str().unwrap().to_owned();
    assert!(server.log().lines().any(|line| line.contains(&id) && line.contains("retry")), "it is named");
    sink.recover();
    let all = told(&sink, LIFE.len() * users.len()).await;
    assert!(elsewhere.requests().is_empty(), "no redirect is followed");
    let mut same: BTreeMap<String, &Value> = BTreeMap::new();
    for event in &all {
        assert_eq!(*same.entry(event["id"].to_string()).or_insert(event), event, "the same each time");
    }
    let first = once(&all);
    assert!(all.len() > first.len(), "it was told again");
    let by_user = by_user(&first);
    for user in users {
        assert_eq!(by_user[&user], LIFE, "in order");
    }
}

/// A receiver that hangs up is told again; a server that dies between telling and noting it tells the same again.
async fn what_was_cut_off_is_told_again_under_the_same_identifier(db: Db) {
    let (mailbox, database) = (Mailbox::open().await, Database::create(db).await);
    let sink = HttpSink::start().await.unwrap();
    sink.delay(Duration::from_hours(1));
    let settings = webhook_settings(&sink);
    let server = Server::start(&database, &mailbox.url(), &borrowed(&settings)).await;
    create(&server, "ana@example.org", &[]);
    let cut_off = verified(&sink.wait_for(1, PATIENCE).await.unwrap()[0]);
    server.kill();
    sink.recover();
    // The lease of the dead outlives it: as after five minutes, nobody has it.
    database.end_leases("usermgr_events").await;
    let server = Server::start(&database, &mailbox.url(), &borrowed(&settings)).await;
    let begun = Instant::now();
    while sink.requests().len() < 2 {
        assert!(begun.elapsed() < PATIENCE, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(verified(&sink.requests()[1]), cut_off);
    drop(server);

    // A port where every connection is closed at once.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let hanging_up = tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            drop(connection);
        }
    });
    let url = format!("http://127.0.0.1:{port}/");
    let settings = [("USERMGR_EVENTS_URL", url.as_str()), ("USERMGR_EVENTS_SECRET", SECRET)];
    let server = Server::start(&database, &mailbox.url(), &settings).await;
    let user = life(&server, &mailbox, "eva@example.org").await;
    let begun = Instant::now();
    while !server.log().contains("the receiver broke off") {
        assert!(begun.elapsed() < PATIENCE, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.kill();
    hanging_up.abort();
    let settings = webhook_settings(&sink);
    database.end_leases("usermgr_events").await;
    let _server = Server::start(&database, &mailbox.url(), &borrowed(&settings)).await;
    let all = told(&sink, 1 + LIFE.len()).await;
    assert_eq!(by_user(&once(&all))[&user], LIFE);
}

macro_rules! on_both {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Db::Sqlite).await;
            })*
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs Postgres: run scripts/test"]
            async fn $name() {
                super::$name(super::Db::Postgres).await;
            })*
        }
    };
}

on_both! {
    a_consumer_of_the_feed_misses_nothing
    a_failing_receiver_gets_everything_in_the_end
    what_was_cut_off_is_told_again_under_the_same_identifier
}
