//! Sessions, roles and administration over HTTP: the real binary, both databases, real SMTP.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "support/blackbox.rs"]
mod blackbox;

use blackbox::{Answer, Database, Db, Mailbox, Server};
use http::Method;
use serde_json::{Value, json};

const ADMIN: &str = "admin@example.org";
const SUPPORT: &str = "support@example.org";
const ANA: &str = "ana@example.org";
const BOB: &str = "bob@example.org";
const PASSWORD: &str = "correct horse battery";
const OTHER: &str = "another fine password";
/// An identifier that nothing has.
const NOBODY: &str = "01980000-0000-7000-8000-000000000000";

/// A user made at the command line, as the first administrator is. Answers the identifier.
fn create(server: &Server, email: &str, roles: &[&str]) -> String {
    let mut args = vec!["users", "create", email, "--password-stdin"];
    for role in roles {
        args.extend(["--role", role]);
    }
    let output = server.run_with_input(&args, PASSWORD);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

async fn sign_in(server: &Server, email: &str, password: &str) -> Value {
    server.post("/users/login", json!({"email": email, "password": password})).await.expect(200)
}

async fn token(server: &Server, email: &str) -> String {
    text(&sign_in(server, email, PASSWORD).await, "access_token")
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap().to_owned()
}

const SUPPORT_ROLE: (&str, &str) = ("USERMGR_ROLES_SUPPORT", "users:read,audit:read");

/// What each kind of caller is answered: with the identifier of nobody in the path, and, where it differs, of somebody.
struct Row {
    method: &'static str,
    path: &'static str,
    body: Option<Value>,
    anonymous: u16,
    user: u16,
    support: u16,
    admin: u16,
}

fn row(method: &'static str, path: &'static str, body: Option<Value>, answers: [u16; 4]) -> Row {
    let [anonymous, user, support, admin] = answers;
    Row { method, path, body, anonymous, user, support, admin }
}

/// Every endpoint, for each kind of caller. A test beside the routes sees to it that none is missing.
fn matrix() -> Vec<Row> {
    let password = || json!({"new_password": OTHER, "confirmation_password": OTHER});
    let code = |mut body: Value| {
        body["email"] = json!(BOB);
        body["verification_code"] = json!("000000");
        body
    };
    vec![
        // For everybody.
        row("POST", "/users", Some(json!({"email": "x@example.org", "password": PASSWORD})), [202; 4]),
        row(
            "POST",
            "/users/register-pending",
            Some(json!({"email": "y@example.org", "password": PASSWORD})),
            [202; 4],
        ),
        row("POST", "/users/verify", Some(json!({"email": "z@example.org", "code": "000000"})), [400; 4]),
        row(
            "POST",
            "/users/verify-account",
            Some(json!({"email": "v@example.org", "code": "000000"})),
            [400; 4],
        ),
        row("POST", "/users/activate", Some(json!({"code": "000000"})), [401; 4]),
        row("POST", "/users/resend-code", Some(json!({"email": "w@example.org"})), [202; 4]),
        row("POST", "/users/send-verification", Some(json!({"email": "u@example.org"})), [202; 4]),
        row("POST", "/users/set-password-with-email-code", Some(code(password())), [400; 4]),
        row(
            "POST",
            "/passwords/request-code",
            Some(json!({"email": BOB, "purpose": "reset_password"})),
            [202; 4],
        ),
        row("POST", "/passwords/set-with-code", Some(code(password())), [400; 4]),
        row("POST", "/passwords/forgot", Some(json!({"email": "q@example.org"})), [202; 4]),
        row(
            "POST",
            "/passwords/reset",
            Some({
                let mut body = password();
                body["token"] = json!("x");
                body
            }),
            [400; 4],
        ),
        row("POST", "/users/login", Some(json!({"email": "n@example.org", "password": PASSWORD})), [401; 4]),
        row("POST", "/sessions", Some(json!({"email": "m@example.org", "password": PASSWORD})), [401; 4]),
        row("POST", "/sessions/refresh", Some(json!({"refresh_token": "x"})), [401; 4]),
        row("POST", "/users/undo-email-change", Some(json!({"token": "x"})), [400; 4]),
        // For whoever is signed in, about themselves.
        row("GET", "/users/me", None, [401, 200, 200, 200]),
        row("PATCH", "/users/me", Some(json!({"username": "Me"})), [401, 200, 200, 200]),
        row("PATCH", "/users/me", Some(json!({"roles": ["admin"]})), [401, 422, 422, 422]),
        row("PATCH", "/users/me", Some(json!({"status": "active"})), [401, 422, 422, 422]),
        row("GET", "/users/me/export", None, [401, 200, 200, 200]),
        row("GET", "/sessions", None, [401, 200, 200, 200]),
        row("DELETE", "/sessions/{id}", None, [401, 404, 404, 404]),
        row("DELETE", "/sessions", None, [401, 204, 204, 204]),
        row("POST", "/users/me/email", Some(json!({"new_email": "me"})), [401, 422, 422, 422]),
        row("POST", "/users/me/email/confirm", Some(json!({"code": "000000"})), [401, 400, 400, 400]),
        row("DELETE", "/users/me", Some(json!({"password": "wrong password"})), [401, 401, 401, 401]),
        row(
            "POST",
            "/passwords/change",
            Some({
                let mut body = password();
                body["current_password"] = json!("wrong password");
                body
            }),
            [401; 4],
        ),
        // For those whose roles permit it.
        row("GET", "/users", None, [401, 403, 200, 200]),
        row("GET", "/users/{id}", None, [401, 403, 404, 404]),
        row("POST", "/users/invite", Some(json!({"email": "not an address"})), [401, 403, 403, 422]),
        row("PATCH", "/users/{id}", Some(json!({"username": "Else"})), [401, 403, 403, 404]),
        row("PATCH", "/users/{id}", Some(json!({"status": "disabled"})), [401, 403, 403, 404]),
        row("PUT", "/users/{id}/roles", Some(json!({"roles": ["admin"]})), [401, 403, 403, 404]),
        row("DELETE", "/users/{id}", None, [401, 403, 403, 404]),
        row("DELETE", "/users/{id}/sessions", None, [401, 403, 403, 404]),
        row("GET", "/roles", None, [401, 403, 200, 200]),
        row("GET", "/audit", None, [401, 403, 200, 200]),
        row("GET", "/outbox", None, [401, 403, 403, 200]),
        row("POST", "/outbox/{id}/retry", None, [401, 403, 403, 404]),
        row("GET", "/events", None, [401, 403, 403, 200]),
        // For the mail service, by signature; there is no secret for it here.
        row("POST", "/mail/callback", Some(json!({"events": []})), [404; 4]),
        row("POST", "/sessions/logout", None, [401, 204, 204, 204]),
    ]
}

async fn every_role_on_every_endpoint(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let settings = [SUPPORT_ROLE, ("USERMGR_THROTTLE_ENABLED", "false")];
    let server = Server::start(&database, &mailbox.url(), &settings).await;
    let bob = create(&server, BOB, &[]);
    let theirs = text(&sign_in(&server, BOB, PASSWORD).await, "access_token");
    let session = server.get_as("/sessions", &theirs).await.expect(200);
    let session = text(&session["items"][0], "id");
    for (email, roles) in [(ADMIN, vec!["admin"]), (SUPPORT, vec!["support"]), (ANA, vec![])] {
        create(&server, email, &roles);
    }
    let tokens = [
        String::new(),
        token(&server, ANA).await,
        token(&server, SUPPORT).await,
        token(&server, ADMIN).await,
    ];
    for Row { method, path, body, anonymous, user, support, admin } in matrix() {
        for (token, (who, status)) in
            tokens.iter().zip([("nobody", anonymous), ("user", user), ("support", support), ("admin", admin)])
        {
            let call = async |path: &str| -> Answer {
                let method: Method = method.parse().unwrap();
                let bearer = format!("Bearer {token}");
                let headers = [("authorization", bearer.as_str())];
                let headers =
                    if token.is_empty() || path.contains("/activate") { &[][..] } else { &headers[..] };
                // Basic and Bearer do not go together.
                server.call(method, path, headers, body.clone()).await
            };
            let unknown = call(&path.replace("{id}", NOBODY)).await;
            assert_eq!(unknown.status, status, "{who}: {method} {path}: {:?}", unknown.body);
            if !path.contains("{id}") || who == "admin" || (who == "support" && status == 404) {
                continue;
            }
            let id = if path.starts_with("/sessions") { &session } else { &bob };
            let known = call(&path.replace("{id}", id)).await;
            assert_eq!(
                (known.status, &known.body["code"]),
                (unknown.status, &unknown.body["code"]),
                "{who}: {method} {path}: somebody else's is told from nobody's"
            );
        }
    }
    assert_eq!(
        server.get_as("/users/me", &theirs).await.expect(200)["email"],
        BOB,
        "nothing happened to Bob"
    );
}

/// Whatever takes a user's rights away acts on the next request, also at another server, for both kinds of token.
async fn rights_end_at_once(db: Db, format: &str) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let settings = [("USERMGR_TOKENS_FORMAT", format), ("USERMGR_THROTTLE_ENABLED", "false")];
    let one = Server::start(&database, &mailbox.url(), &settings).await;
    let other = Server::start(&database, &mailbox.url(), &settings).await;
    create(&one, ADMIN, &["admin"]);
    let admin = token(&one, ADMIN).await;
    let id = create(&one, ANA, &["admin"]);
    let user = format!("/users/{id}");

    // Demoted.
    let ana = token(&one, ANA).await;
    other.get_as("/users", &ana).await.expect(200);
    let roles = json!({"roles": ["user"]});
    one.call_as(Method::PUT, &format!("{user}/roles"), &admin, Some(roles)).await.expect(200);
    for server in [&one, &other] {
        server.get_as("/users", &ana).await.problem(403, "forbidden");
        server.get_as("/users/me", &ana).await.expect(200);
    }
    // Signed out, by oneself and by an administrator.
    other.post_as("/sessions/logout", &ana, None).await.expect(204);
    let over = if format == "jwt" { "session_ended" } else { "invalid_token" };
    one.get_as("/users/me", &ana).await.problem(401, over);
    let ana = token(&one, ANA).await;
    other.call_as(Method::DELETE, &format!("{user}/sessions"), &admin, None).await.expect(204);
    one.get_as("/users/me", &ana).await.problem(401, over);
    // Disabled.
    let session = sign_in(&one, ANA, PASSWORD).await;
    let status = |status: &str| Some(json!({"status": status}));
    one.call_as(Method::PATCH, &user, &admin, status("disabled")).await.expect(200);
    for server in [&one, &other] {
        server.get_as("/users/me", session["access_token"].as_str().unwrap()).await.problem(401, over);
    }
    let refresh = json!({"refresh_token": session["refresh_token"]});
    other.post("/sessions/refresh", refresh).await.problem(401, "session_ended");
    other
        .post("/users/login", json!({"email": ANA, "password": PASSWORD}))
        .await
        .problem(401, "invalid_credentials");
    one.call_as(Method::PATCH, &user, &admin, status("active")).await.expect(200);
    // Deleted.
    let ana = token(&other, ANA).await;
    one.call_as(Method::DELETE, &user, &admin, None).await.expect(204);
    other.get_as("/users/me", &ana).await.problem(401, over);
    other.get_as(&user, &admin).await.problem(404, "not_found");
    other
        .post("/users/login", json!({"email": ANA, "password": PASSWORD}))
        .await
        .problem(401, "invalid_credentials");
}

/// A session is renewed; a token that was used up ends it; devices are listed and ended.
async fn sessions_are_renewed_listed_and_ended(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let server = Server::start(&database, &mailbox.url(), &[]).await;
    create(&server, ANA, &[]);
    let agent = "<script>alert(1)</script>\u{e9}";
    let body = json!({"email": ANA, "password": PASSWORD});
    let first =
        server.call(Method::POST, "/sessions", &[("user-agent", agent)], Some(body)).await.expect(200);
    let refresh = |token: &Value| server.post("/sessions/refresh", json!({"refresh_token": token}));
    let second = refresh(&first["refresh_token"]).await.expect(200);
    assert_eq!(second["user"]["email"], ANA);
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    let again = refresh(&first["refresh_token"]).await.expect(200);
    assert_eq!(again["refresh_token"], second["refresh_token"], "an answer may get lost");

    let here = sign_in(&server, ANA, PASSWORD).await;
    let here = here["access_token"].as_str().unwrap();
    let sessions = server.get_as("/sessions", here).await.expect(200);
    let items = sessions["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!(items.iter().filter(|item| item["current"] == true).count(), 1);
    let other = items.iter().find(|item| item["current"] == false).unwrap();
    assert!(other["user_agent"].as_str().unwrap().starts_with("<script>"), "kept as data: {other}");
    assert_eq!(other["ip"], "127.0.0.1");
    for field in ["id", "created_at", "last_seen_at"] {
        assert!(other[field].is_string(), "{other}");
    }
    let path = format!("/sessions/{}", other["id"].as_str().unwrap());
    server.call_as(Method::DELETE, &path, here, None).await.expect(204);
    server.call_as(Method::DELETE, &path, here, None).await.problem(404, "not_found");
    server.call_as(Method::DELETE, "/sessions/nonsense", here, None).await.problem(404, "not_found");
    refresh(&second["refresh_token"]).await.problem(401, "session_ended");

    let there = token(&server, ANA).await;
    server.call_as(Method::DELETE, "/sessions", here, None).await.expect(204);
    server.get_as("/users/me", &there).await.problem(401, "session_ended");
    server.get_as("/users/me", here).await.expect(200);

    // Used twice over: somebody has a copy.
    let first = sign_in(&server, ANA, PASSWORD).await;
    let second = refresh(&first["refresh_token"]).await.expect(200);
    let third = refresh(&second["refresh_token"]).await.expect(200);
    refresh(&first["refresh_token"]).await.problem(401, "session_ended");
    refresh(&third["refresh_token"]).await.problem(401, "session_ended");
    server.get_as("/users/me", third["access_token"].as_str().unwrap()).await.problem(401, "session_ended");
    for forged in ["", "x", first["access_token"].as_str().unwrap()] {
        refresh(&json!(forged)).await.problem(401, "invalid_token");
    }
}

/// Users are invited, listed, searched, changed and deleted, and the audit log tells by whom.
async fn administrators_manage_users(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let server = Server::start(&database, &mailbox.url(), &[SUPPORT_ROLE]).await;
    let admin_id = create(&server, ADMIN, &["admin"]);
    let admin = token(&server, ADMIN).await;

    let invitation = json!({"email": ANA, "username": "Ana \u{c1}vila", "roles": ["support"]});
    let ana = server.post_as("/users/invite", &admin, Some(invitation.clone())).await.expect(201);
    assert_eq!((&ana["email_verified"], &ana["roles"]), (&json!(false), &json!(["support", "user"])));
    server.post_as("/users/invite", &admin, Some(invitation)).await.problem(409, "email_taken");
    let unknown = json!({"email": BOB, "roles": ["emperor"]});
    let refused =
        server.post_as("/users/invite", &admin, Some(unknown)).await.problem(422, "validation_failed");
    assert_eq!(refused["errors"][0]["field"], "roles");
    let code = mailbox.code(ANA, 1).await;
    let setup = json!({"email": ANA, "verification_code": code, "new_password": OTHER,
                     "confirmation_password": OTHER, "purpose": "first_time_setup"});
    let signed_in = server.post("/passwords/set-with-code", setup).await.expect(200);
    assert_eq!(signed_in["user"]["email_verified"], true);
    let support = text(&signed_in, "access_token");

    // Nobody reaches above themselves.
    server.get_as(&format!("/users/{admin_id}"), &support).await.expect(200);
    let audit = server.get_as("/audit?event=user_creation&limit=200", &support).await.expect(200);
    let entries = audit["items"].as_array().unwrap();
    assert_eq!(entries[0]["reason"], "email_taken", "refusals too");
    let entry =
        entries.iter().find(|entry| entry["user_id"] == ana["id"] && entry["outcome"] == "done").unwrap();
    assert_eq!((&entry["actor_id"], &entry["outcome"]), (&json!(admin_id), &json!("done")), "{entry}");
    assert!(entry["request_id"].is_string() && entry["ip"] == "127.0.0.1", "{entry}");

    users_are_paged_and_found(&server, &admin).await;
    let guest = server.get_as("/users?q=guest0", &admin).await.expect(200);
    let guest = format!("/users/{}", text(&guest["items"][0], "id"));
    let changed = json!({"username": "Guest", "locale": "es", "status": "disabled"});
    let changed = server.call_as(Method::PATCH, &guest, &admin, Some(changed)).await.expect(200);
    assert_eq!(
        (&changed["username"], &changed["locale"], &changed["status"]),
        (&json!("Guest"), &json!("es"), &json!("disabled"))
    );
    let cleared = json!({"username": null});
    let cleared = server.call_as(Method::PATCH, &guest, &admin, Some(cleared)).await.expect(200);
    assert_eq!((&cleared["username"], &cleared["locale"]), (&Value::Null, &json!("es")));
    let disabled = server.get_as("/users?status=disabled", &admin).await.expect(200);
    assert_eq!(disabled["items"][0]["email"], "guest0@example.net");
    server.call_as(Method::DELETE, &guest, &admin, None).await.expect(204);
    server.call_as(Method::DELETE, &guest, &admin, None).await.problem(404, "not_found");
    let roles = server.get_as("/roles", &support).await.expect(200);
    let names: Vec<_> = roles["items"].as_array().unwrap().iter().map(|role| text(role, "name")).collect();
    assert_eq!(names, ["admin", "support", "user"]);
    let outbox = server.get_as("/outbox?status=sent&limit=1", &admin).await.expect(200);
    let mail = &outbox["items"][0];
    assert_eq!((&mail["name"], &mail["status"]), (&json!("first_time_setup"), &json!("sent")), "{mail}");
    assert!(outbox["next_cursor"].is_string());
    let retry = format!("/outbox/{}/retry", text(mail, "id"));
    server.post_as(&retry, &admin, None).await.problem(404, "not_found");
}

/// Beside an administrator and Ana, five guests and one who comes while the pages are turned.
async fn users_are_paged_and_found(server: &Server, admin: &str) {
    for n in 0..5 {
        server
            .post_as("/users/invite", admin, Some(json!({"email": format!("guest{n}@example.net")})))
            .await
            .expect(201);
    }
    let mut seen = Vec::new();
    let mut path = "/users?limit=2".to_owned();
    loop {
        let page = server.get_as(&path, admin).await.expect(200);
        seen.extend(page["items"].as_array().unwrap().iter().map(|user| text(user, "email")));
        // Whoever comes while the pages are turned shows on none of them twice.
        if seen.len() == 2 {
            let late = json!({"email": "late@example.net"});
            server.post_as("/users/invite", admin, Some(late)).await.expect(201);
        }
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/users?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 7, "{seen:?}");
    assert_eq!((seen[0].as_str(), seen[6].as_str()), ("guest4@example.net", ADMIN));
    let found = async |query: &str| -> Vec<String> {
        let page = server.get_as(&format!("/users?{query}"), admin).await.expect(200);
        page["items"].as_array().unwrap().iter().map(|user| text(user, "email")).collect()
    };
    assert_eq!(found("q=GUEST1").await, ["guest1@example.net"]);
    assert_eq!(found("q=ana%20%C3%A1").await, [ANA], "by name, whatever the case");
    assert_eq!(found("q=guest&limit=200").await.len(), 5);
    assert_eq!(found("q=%25").await.len(), 0);
    assert_eq!(found("role=support").await, [ANA]);
    assert_eq!(found("role=admin&status=active").await, [ADMIN]);
    assert_eq!(found("status=disabled").await.len(), 0);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("cursor=x", "cursor"),
        ("status=gone", "status"),
        ("role=A", "role"),
        ("sort=email", "sort"),
        ("limit=1&limit=2", "limit"),
    ] {
        let refused =
            server.get_as(&format!("/users?{query}"), admin).await.problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["field"], field, "{query}");
    }
}

/// The last administrator stays one.
async fn the_last_administrator_stays(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let server = Server::start(&database, &mailbox.url(), &[]).await;
    let id = create(&server, ADMIN, &["admin"]);
    let admin = token(&server, ADMIN).await;
    let user = format!("/users/{id}");
    let demote = |id: &str| (format!("/users/{id}/roles"), Some(json!({"roles": []})));
    let (path, body) = demote(&id);
    server.call_as(Method::PUT, &path, &admin, body.clone()).await.problem(409, "last_admin");
    let disable = Some(json!({"status": "disabled"}));
    server.call_as(Method::PATCH, &user, &admin, disable).await.problem(409, "last_admin");
    server.call_as(Method::DELETE, &user, &admin, None).await.problem(409, "last_admin");
    let own = Some(json!({"password": PASSWORD}));
    server.call_as(Method::DELETE, "/users/me", &admin, own).await.problem(409, "last_admin");

    // Two who demote each other at the same moment: one remains.
    for n in 0..5 {
        let email = format!("second{n}@example.org");
        let second_id = create(&server, &email, &["admin"]);
        let second = token(&server, &email).await;
        let (theirs, _) = demote(&second_id);
        let (one, other) = tokio::join!(
            server.call_as(Method::PUT, &path, &second, body.clone()),
            server.call_as(Method::PUT, &theirs, &admin, body.clone()),
        );
        let mut statuses = [one.status, other.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 403], "{one:?} {other:?}");
        if one.status == 200 {
            // The second one rules now: back to how it was.
            let back = Some(json!({"roles": ["admin"]}));
            server.call_as(Method::PUT, &path, &second, back).await.expect(200);
            server.call_as(Method::PUT, &theirs, &admin, body.clone()).await.expect(200);
        }
    }
}

/// An address is changed and the change undone; an account is deleted and comes back.
async fn addresses_change_and_accounts_come_back(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let server = Server::start(&database, &mailbox.url(), &[]).await;
    create(&server, ANA, &[]);
    let ana = token(&server, ANA).await;
    let new = "ana.new@example.org";
    let ask = |password: &str| json!({"new_email": new, "password": password});
    server
        .post_as("/users/me/email", &ana, Some(ask("wrong password")))
        .await
        .problem(401, "invalid_credentials");
    let asked = server.post_as("/users/me/email", &ana, Some(ask(PASSWORD))).await.expect(202);
    assert_eq!(asked["status"], "code_sent");
    let code = mailbox.code(new, 1).await;
    mailbox.notice(ANA, 1).await; // at the old address
    let confirmed = json!({"code": code});
    let changed = server.post_as("/users/me/email/confirm", &ana, Some(confirmed)).await.expect(200);
    assert_eq!(changed["email"], new);
    server
        .post("/users/login", json!({"email": ANA, "password": PASSWORD}))
        .await
        .problem(401, "invalid_credentials");
    let undo = mailbox.link(ANA, 1).await;
    assert!(undo.text().unwrap().contains("https://app.example.org/undo-email-change#token="));
    let undo = json!({"token": undo.link_token().unwrap()});
    server.post("/users/undo-email-change", undo.clone()).await.expect(204);
    server.post("/users/undo-email-change", undo).await.problem(400, "invalid_link");
    server.get_as("/users/me", &ana).await.problem(401, "session_ended");
    let reset = mailbox.link(ANA, 2).await.link_token().unwrap();
    let set = json!({"token": reset, "new_password": OTHER, "confirmation_password": OTHER});
    server.post("/passwords/reset", set).await.expect(204);

    let ana = text(&sign_in(&server, ANA, OTHER).await, "access_token");
    let export = server.get_as("/users/me/export", &ana).await;
    assert_eq!(export.header("cache-control"), Some("no-store"));
    let export = export.expect(200);
    assert_eq!((&export["format"], &export["user"]["email"]), (&json!("usermgr-export-1"), &json!(ANA)));
    assert!(!export.to_string().contains("argon2"));
    server.call_as(Method::DELETE, "/users/me", &ana, Some(json!({"password": OTHER}))).await.expect(204);
    server.get_as("/users/me", &ana).await.problem(401, "session_ended");
    mailbox.count(ANA, 5).await; // also the notices of the reset and of the deletion
    let back = sign_in(&server, ANA, OTHER).await;
    assert_eq!(back["user"]["email"], ANA);
}

macro_rules! on_both {
    ($($name:ident: $test:ident($($argument:expr),*);)*) => {
        mod sqlite {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                $test(Db::Sqlite $(, $argument)*).await;
            })*
        }
        mod postgres {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs Postgres: run scripts/test"]
            async fn $name() {
                $test(Db::Postgres $(, $argument)*).await;
            })*
        }
    };
}

on_both! {
    every_role_is_answered_as_it_may_be_on_every_endpoint: every_role_on_every_endpoint();
    rights_end_at_once_with_jwt: rights_end_at_once("jwt");
    rights_end_at_once_with_opaque_tokens: rights_end_at_once("opaque");
    sessions_are_renewed_listed_and_ended_one_by_one: sessions_are_renewed_listed_and_ended();
    administrators_manage_users_and_the_log_tells: administrators_manage_users();
    the_last_administrator_stays_one: the_last_administrator_stays();
    addresses_change_and_accounts_come_back_in_time: addresses_change_and_accounts_come_back();
}
