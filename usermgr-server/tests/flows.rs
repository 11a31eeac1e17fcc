//! The five flows that the server unites, each as its users run it: the real binary, both databases, real SMTP.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "support/blackbox.rs"]
mod blackbox;

use std::time::Duration;

use blackbox::{Database, Db, Mailbox, Server};
use serde_json::json;

const ANA: &str = "ana@example.org";
const PASSWORD: &str = "correct horse battery";
const OTHER: &str = "another fine password";

/// (a) A registration waits with its code, gets another one, and is verified; what is never verified is purged.
async fn pending_registration_resend_verify_and_purge(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let settings = [("USERMGR_REGISTRATION_PENDING_TTL", "4s"), ("USERMGR_CODES_TTL", "4s")];
    let server = Server::start(&database, &mailbox.url(), &settings).await;

    let body =
        json!({"email": ANA, "password": PASSWORD, "confirmation_password": PASSWORD, "username": "Ana"});
    let accepted = server.post("/users/register-pending", body).await.expect(202);
    assert_eq!(accepted["status"], "verification_required");
    assert_eq!(accepted["code_ttl"], 4);
    let first = mailbox.code(ANA, 1).await;

    let resent = json!({"email": ANA, "registration_id": accepted["registration_id"]});
    assert_eq!(server.post("/users/resend-code", resent).await.expect(202)["status"], "code_sent");
    let second = mailbox.code(ANA, 2).await;
    server
        .post("/users/login", json!({"email": ANA, "password": PASSWORD}))
        .await
        .problem(401, "invalid_credentials");
    server.post("/users/verify", json!({"email": ANA, "code": first})).await.problem(400, "invalid_code");
    let user = server.post("/users/verify", json!({"email": ANA, "code": second})).await.expect(200);
    assert_eq!(user["user"]["email"], ANA);
    assert_eq!(user["user"]["email_verified"], true);
    assert_eq!(user["user"]["roles"], json!(["user"]));
    server.post("/users/verify", json!({"email": ANA, "code": second})).await.problem(400, "invalid_code");

    server.post("/users", json!({"email": "late@example.org", "password": PASSWORD})).await.expect(202);
    mailbox.code("late@example.org", 1).await;
    assert_eq!(database.count("usermgr_registrations").await, 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(server.run(&["maintenance", "run"]).status.success());
    assert_eq!(database.count("usermgr_registrations").await, 0);
    assert_eq!(database.count("usermgr_users").await, 1);
    assert_eq!(server.terminate().code(), Some(0));
}

/// (b) Register, be welcomed, sign in, and reset the password by a link.
async fn welcome_sign_in_and_reset_by_link(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let server = Server::start(&database, &mailbox.url(), &[]).await;
    server.post("/users", json!({"email": ANA, "password": PASSWORD, "locale": "es"})).await.expect(202);
    let code = mailbox.code(ANA, 1).await;
    server.post("/users/verify", json!({"email": ANA, "code": code})).await.expect(200);
    mailbox.notice(ANA, 1).await; // the welcome
    let session = server.post("/users/login", json!({"email": ANA, "password": PASSWORD})).await.expect(200);
    let token = session["access_token"].as_str().unwrap().to_owned();
    assert_eq!(session["token_type"], "Bearer");
    assert_eq!(token.split('.').count(), 3, "a JWT");
    assert_eq!(server.get_as("/users/me", &token).await.expect(200)["email"], ANA);

    server.post("/passwords/forgot", json!({"email": ANA})).await.expect(202);
    let mail = mailbox.link(ANA, 1).await;
    assert!(mail.text().unwrap().contains("https://app.example.org/reset-password#token="));
    let link = mail.link_token().expect("the mail has a link");
    let reset =
        |password: &str| json!({"token": link, "new_password": password, "confirmation_password": password});
    server.post("/passwords/reset", reset("password")).await.problem(422, "validation_failed");
    server.post("/passwords/reset", reset(OTHER)).await.expect(204);
    server.post("/passwords/reset", reset(PASSWORD)).await.problem(400, "invalid_link");
    server.get_as("/users/me", &token).await.problem(401, "session_ended");
    server
        .post("/users/login", json!({"email": ANA, "password": PASSWORD}))
        .await
        .problem(401, "invalid_credentials");
    server.post("/users/login", json!({"email": ANA, "password": OTHER})).await.expect(200);
    mailbox.notice(ANA, 2).await; // of the new password

    let change =
        json!({"current_password": OTHER, "new_password": PASSWORD, "confirmation_password": PASSWORD});
    let session = server.post_basic("/sessions", ANA, OTHER, None).await.expect(200);
    let token = session["access_token"].as_str().unwrap();
    server.post_as("/passwords/change", token, Some(change.clone())).await.expect(204);
    server.get_as("/users/me", token).await.expect(200);
    server.post_as("/passwords/change", token, Some(change)).await.problem(401, "invalid_credentials");
    no_secret_in_the_log(&server, &[PASSWORD, OTHER, &code, &link, token]);
}

/// (c) The code table with purposes, under another base path, and the fourth request in a row refused.
async fn codes_with_purposes_under_another_base_path(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let server = Server::start(&database, &mailbox.url(), &[("USERMGR_HTTP_BASE_PATH", "/api/v4")]).await;
    server.post("/users", json!({"email": ANA, "password": PASSWORD})).await.expect(202);
    mailbox.code(ANA, 1).await; // sent; else asking again would void it and only one mail would come
    server.post("/users/send-verification", json!({"email": ANA})).await.expect(202);
    let code = mailbox.code(ANA, 2).await;
    server.post("/users/verify-account", json!({"email": ANA, "verification_code": code})).await.expect(200);

    let bob = "bob@example.org";
    server.post("/users", json!({"email": bob, "password": PASSWORD})).await.expect(202);
    let code = mailbox.code(bob, 1).await;
    let set = |email: &str, code: &str, password: &str| json!({"email": email, "verification_code": code, "new_password": password, "confirmation_password": password});
    let session =
        server.post("/users/set-password-with-email-code", set(bob, &code, OTHER)).await.expect(200);
    assert_eq!(session["user"]["email_verified"], true);
    server
        .post("/users/login", json!({"email": bob, "password": PASSWORD}))
        .await
        .problem(401, "invalid_credentials");
    server.post("/users/login", json!({"email": bob, "password": OTHER})).await.expect(200);

    let ask = json!({"email": ANA, "purpose": "reset_password"});
    server.post("/passwords/request-code", ask.clone()).await.expect(202);
    let code = mailbox.code(ANA, 3).await;
    let answer = server.post("/passwords/set-with-code", set(ANA, &code, OTHER)).await.expect(200);
    let token = answer["access_token"].as_str().unwrap();
    server.get_as("/users/me", token).await.expect(200);
    server.post("/passwords/set-with-code", set(ANA, &code, PASSWORD)).await.problem(400, "invalid_code");

    let mine = json!({"email": ANA, "purpose": "change_password"});
    server.post("/passwords/request-code", mine.clone()).await.problem(401, "missing_token");
    let others = json!({"email": bob, "purpose": "change_password"});
    server.post_as("/passwords/request-code", token, Some(others)).await.problem(403, "forbidden");
    server.post_as("/passwords/request-code", token, Some(mine)).await.expect(202);
    let code = mailbox.code(ANA, 4).await;
    let mut body = set(ANA, &code, "a third good password");
    body["purpose"] = json!("change_password");
    server.post("/passwords/set-with-code", body).await.expect(200);

    server.post("/passwords/request-code", ask.clone()).await.expect(202);
    server.post("/passwords/request-code", ask.clone()).await.expect(202);
    let refused = server.post("/passwords/request-code", ask).await;
    assert!(refused.header("retry-after").is_some());
    refused.problem(429, "rate_limited");
    for n in 1..=4 {
        let ask = json!({"email": "nobody@example.org", "purpose": "reset_password"});
        let status = server.post("/passwords/request-code", ask).await.status;
        assert_eq!(status, if n < 4 { 202 } else { 429 }, "an unknown address is answered alike");
    }
}

/// (c, continued) An invited user sets the first password by a code.
async fn first_time_setup_of_an_invited_user(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let server = Server::start(&database, &mailbox.url(), &[]).await;
    let made = server.run(&["users", "invite", ANA, "--role", "admin"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let code = mailbox.code(ANA, 1).await;
    let body = json!({
        "email": ANA, "verification_code": code, "purpose": "first_time_setup",
        "new_password": PASSWORD, "confirmation_password": PASSWORD,
    });
    let session = server.post("/passwords/set-with-code", body).await.expect(200);
    assert_eq!(session["user"]["roles"], json!(["admin", "user"]));
    assert_eq!(session["user"]["email_verified"], true);
    let listed = server.run(&["users", "list", "--json"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains(ANA));
}

/// (d) Four digits that live sixty seconds, and activation with HTTP Basic.
async fn four_digits_and_basic_activation(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let settings = [("USERMGR_CODES_LENGTH", "4"), ("USERMGR_CODES_TTL", "60s")];
    let server = Server::start(&database, &mailbox.url(), &settings).await;
    let accepted = server.post("/users", json!({"email": ANA, "password": PASSWORD})).await.expect(202);
    assert_eq!(accepted["code_ttl"], 60);
    let code = mailbox.code(ANA, 1).await;
    assert_eq!(code.len(), 4);
    let body = Some(json!({"code": code}));
    let refused = server.post_basic("/users/activate", ANA, "wrong password", body.clone()).await;
    assert!(refused.header("www-authenticate").unwrap().starts_with("Basic "));
    refused.problem(401, "invalid_credentials");
    server
        .post_basic("/users/activate", "nobody@example.org", PASSWORD, body.clone())
        .await
        .problem(401, "invalid_credentials");
    server.post_basic("/users/activate", ANA, PASSWORD, body).await.expect(200);
    server
        .post("/passwords/request-code", json!({"email": ANA, "purpose": "reset_password"}))
        .await
        .expect(202);
    assert_eq!(mailbox.code(ANA, 2).await.len(), 6, "four digits never set a password");
}

/// (e) A 202 whose mail is in the outbox, opaque sessions, `/me`.
async fn outbox_and_opaque_sessions(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let server = Server::start(&database, &mailbox.url(), &[("USERMGR_TOKENS_FORMAT", "opaque")]).await;
    server.post("/users", json!({"email": ANA, "password": PASSWORD})).await.expect(202);
    assert_eq!(database.count("usermgr_outbox").await, 1);
    let code = mailbox.code(ANA, 1).await;
    server.post("/users/verify", json!({"email": ANA, "code": code})).await.expect(200);
    let session = server.post("/sessions", json!({"email": ANA, "password": PASSWORD})).await.expect(200);
    let token = session["access_token"].as_str().unwrap();
    assert!(!token.contains('.'), "no JWT");
    assert_eq!(server.get_as("/users/me", token).await.expect(200)["id"], session["user"]["id"]);
    server.post_as("/sessions/logout", token, None).await.expect(204);
    assert_eq!(server.get_as("/users/me", token).await.status, 401);
}

/// Registrations of one address side by side: a code completes only its own.
async fn nobody_confirms_a_password_of_somebody_elses_choice(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let server = Server::start(&database, &mailbox.url(), &[]).await;
    server.post("/users", json!({"email": ANA, "password": "the password of a thief"})).await.expect(202);
    let thiefs = mailbox.code(ANA, 1).await;
    let mine = server.post("/users", json!({"email": ANA, "password": PASSWORD})).await.expect(202);
    let code = mailbox.code(ANA, 2).await;
    let verify = |code: &str| json!({"email": ANA, "code": code});
    server.post("/users/verify", verify(&code)).await.problem(409, "registration_ambiguous");
    let mut wrong_pair = verify(&thiefs);
    wrong_pair["registration_id"] = mine["registration_id"].clone();
    server.post("/users/verify", wrong_pair).await.problem(400, "invalid_code");
    let mut right_pair = verify(&code);
    right_pair["registration_id"] = mine["registration_id"].clone();
    server.post("/users/verify", right_pair).await.expect(200);
    server
        .post("/users/login", json!({"email": ANA, "password": "the password of a thief"}))
        .await
        .problem(401, "invalid_credentials");
    server.post("/users/login", json!({"email": ANA, "password": PASSWORD})).await.expect(200);
    server.post("/users/verify", verify(&thiefs)).await.problem(400, "invalid_code");
}

/// What is answered does not tell whether an address has an account; its owner is told by mail.
async fn answers_do_not_tell_who_has_an_account(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let server = Server::start(&database, &mailbox.url(), &[]).await;
    server.post("/users", json!({"email": ANA, "password": PASSWORD})).await.expect(202);
    let code = mailbox.code(ANA, 1).await;
    server.post("/users/verify", json!({"email": ANA, "code": code})).await.expect(200);
    let shape = |answer: blackbox::Answer| {
        let mut body = answer.body;
        for varying in ["registration_id", "request_id"] {
            if let Some(value) = body.get_mut(varying) {
                *value = json!(value.as_str().unwrap().len());
            }
        }
        (answer.status, body)
    };
    let nobody = "nobody@example.org";
    for (path, extra) in [
        ("/users", json!({"password": OTHER})),
        ("/users/resend-code", json!({})),
        ("/passwords/forgot", json!({})),
        ("/passwords/request-code", json!({"purpose": "reset_password"})),
        ("/users/login", json!({"password": OTHER})),
        ("/users/verify", json!({"code": "000000"})),
    ] {
        let body = |email: &str| {
            let mut body = extra.clone();
            body["email"] = json!(email);
            body
        };
        let known = shape(server.post(path, body(ANA)).await);
        let unknown = shape(server.post(path, body(nobody)).await);
        assert_eq!(known, unknown, "{path}");
    }
    mailbox.notice(ANA, 2).await; // after the welcome: the owner is told, without a code
}

/// Of 64 that verify with one code at once, one succeeds.
async fn one_of_64_verifications_succeeds(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let first = Server::start(&database, &mailbox.url(), &[]).await;
    // Two servers share a Postgres; an SQLite file has one.
    let second = match db {
        Db::Postgres => Some(Server::start(&database, &mailbox.url(), &[]).await),
        Db::Sqlite => None,
    };
    first.post("/users", json!({"email": ANA, "password": PASSWORD})).await.expect(202);
    let code = mailbox.code(ANA, 1).await;
    let body = json!({"email": ANA, "code": code});
    let servers = [&first, second.as_ref().unwrap_or(&first)];
    let calls = (0..64).map(|n| servers[n % 2].post("/users/verify", body.clone()));
    let answers = futures_util::future::join_all(calls).await;
    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!(count(200), 1, "{answers:?}");
    assert_eq!(count(400) + count(429), 63, "{answers:?}");
    assert_eq!(database.count("usermgr_users").await, 1);
}

/// Of 64 wrong guesses at once, no more than five are judged, and then the right code is refused too.
async fn five_of_64_wrong_guesses_are_judged(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let server = Server::start(&database, &mailbox.url(), &[]).await;
    server.post("/users", json!({"email": ANA, "password": PASSWORD})).await.expect(202);
    let code = mailbox.code(ANA, 1).await;
    let wrong = |n: u32| format!("{:06}", (code.parse::<u32>().unwrap() + n + 1) % 1_000_000);
    let calls = (0..64).map(|n| server.post("/users/verify", json!({"email": ANA, "code": wrong(n)})));
    let answers = futures_util::future::join_all(calls).await;
    let judged = answers.iter().filter(|answer| answer.body["code"] == "invalid_code").count();
    let refused = answers.iter().filter(|answer| answer.body["code"] == "too_many_attempts").count();
    assert_eq!((judged, refused), (5, 59), "{answers:?}");
    server.post("/users/verify", json!({"email": ANA, "code": code})).await.problem(429, "too_many_attempts");
    assert_eq!(database.count("usermgr_users").await, 0);
}

/// `kill -9` between the 202 and the mail: after the restart the mail comes, and its code works.
async fn a_mail_survives_kill_9(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let server = Server::start_with(&database, &mailbox.url(), &[], &["serve", "--no-worker"]).await;
    server.post("/users", json!({"email": ANA, "password": PASSWORD})).await.expect(202);
    server.kill();
    assert!(mailbox.sink.mails().is_empty());
    let server = Server::start(&database, &mailbox.url(), &[]).await;
    let code = mailbox.code(ANA, 1).await;
    server.post("/users/verify", json!({"email": ANA, "code": code})).await.expect(200);
}

fn no_secret_in_the_log(server: &Server, secrets: &[&str]) {
    let log = server.log();
    assert!(log.contains("request"), "there is a log: {log}");
    for secret in secrets {
        assert!(!log.contains(secret), "a secret stands in the log:\n{log}");
    }
}

macro_rules! on_both_databases {
    ($($flow:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $flow() {
                super::$flow(super::Db::Sqlite).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs Postgres: run scripts/test"]
            async fn $flow() {
                super::$flow(super::Db::Postgres).await;
            })*
        }
    };
}

on_both_databases! {
    pending_registration_resend_verify_and_purge
    welcome_sign_in_and_reset_by_link
    codes_with_purposes_under_another_base_path
    first_time_setup_of_an_invited_user
    four_digits_and_basic_activation
    outbox_and_opaque_sessions
    nobody_confirms_a_password_of_somebody_elses_choice
    answers_do_not_tell_who_has_an_account
    one_of_64_verifications_succeeds
    five_of_64_wrong_guesses_are_judged
    a_mail_survives_kill_9
}
