//! Two servers on one PostgreSQL are one: limits, sessions and rights hold on both.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "support/blackbox.rs"]
mod blackbox;

use blackbox::{Database, Db, Mailbox, Server};
use serde_json::json;

const ANA: &str = "ana@example.org";
const PASSWORD: &str = "correct horse battery";

async fn two() -> (Database, Mailbox, [Server; 2]) {
    let (database, mailbox) = (Database::create(Db::Postgres).await, Mailbox::open().await);
    let first = Server::start(&database, &mailbox.url(), &[]).await;
    let second = Server::start(&database, &mailbox.url(), &[]).await;
    (database, mailbox, [first, second])
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn a_limit_counted_on_one_server_holds_on_the_other() {
    let (_database, _mailbox, [first, second]) = two().await;
    let ask = json!({"email": ANA, "purpose": "reset_password"});
    for server in [&first, &second, &first] {
        server.post("/passwords/request-code", ask.clone()).await.expect(202);
    }
    second.post("/passwords/request-code", ask).await.problem(429, "rate_limited");

    let guess = json!({"email": ANA, "password": "a wrong guess"});
    for _ in 0..10 {
        first.post("/users/login", guess.clone()).await.problem(401, "invalid_credentials");
    }
    second.post("/users/login", guess).await.problem(429, "too_many_attempts");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn a_session_of_one_server_holds_and_ends_on_the_other() {
    let (_database, mailbox, [first, second]) = two().await;
    first.post("/users", json!({"email": ANA, "password": PASSWORD})).await.expect(202);
    let code = mailbox.code(ANA, 1).await;
    second.post("/users/verify", json!({"email": ANA, "code": code})).await.expect(200);
    let session = first.post("/users/login", json!({"email": ANA, "password": PASSWORD})).await.expect(200);
    let token = session["access_token"].as_str().unwrap();
    assert_eq!(second.get_as("/users/me", token).await.expect(200)["email"], ANA);
    second.post_as("/sessions/logout", token, None).await.expect(204);
    first.get_as("/users/me", token).await.problem(401, "session_ended");
}
