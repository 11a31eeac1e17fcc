//! Every call of the interface, repeated at will by a stranger and by an ordinary user: in the end it writes no more rows.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use usermgr_core::domain::page::PageSize;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::users::CreateUser;
use usermgr_core::policy::HashPolicy;
use usermgr_core::port::store::audit::{AuditQuery, AuditStore as _};
use usermgr_core::port::store::event::{EventFeed, EventQuery, EventStore as _};
use usermgr_core::port::store::outbox::{OutboxQuery, OutboxStore as _};
use usermgr_core::testing::{Mailbox, MemoryStore, TestClock};
use usermgr_core::{ClientContext, Password, Policies, SecretKey, UserManager};
use usermgr_server::{AuthService, PeerAddr, ServiceOptions, service};

const ANA: &str = "ana@example.org";
const BOB: &str = "bob@example.org";
const PASSWORD: &str = "correct horse battery";
const OTHER: &str = "another fine password";
const NOBODY: &str = "0197c000-0000-7000-8000-000000000001";

/// More than any limit of a window but that of renewals, which are counted in `usermgr-core/tests/floods.rs`.
const REPEATS: usize = 360;

struct App {
    service: AuthService,
    store: Arc<MemoryStore>,
    token: String,
    over: Value,
}

/// A service with a user who has a session, and a refresh token of one that is over.
async fn app() -> App {
    let store = Arc::new(MemoryStore::default());
    let hashing = HashPolicy { memory_kib: 64, iterations: 1, ..HashPolicy::default() };
    let mut policies = Policies { hashing, ..Policies::default() };
    policies.codes.resend_interval = time::Duration::ZERO;
    let users = UserManager::builder()
        .store(Arc::clone(&store) as Arc<dyn usermgr_core::port::store::Store>)
        .mailer(Arc::new(Mailbox::default()))
        .clock(Arc::new(TestClock::default()))
        .secret_key(SecretKey::from_bytes(*b"0123456789abcdef0123456789abcdef"))
        .policies(policies)
        .build()
        .unwrap();
    let client = ClientContext::new();
    for email in [ANA, BOB] {
        let user = CreateUser::new(email).with_password(PASSWORD);
        users.users().create(Principal::Operator, user, &client).await.unwrap();
    }
    let sessions = users.sessions();
    let password = Password::new(PASSWORD);
    let sign_in = || sessions.login(ANA, &password, &client);
    let (over, signed_in) = (sign_in().await.unwrap(), sign_in().await.unwrap());
    let caller = sessions.authenticate(&over.access_token).await.unwrap();
    sessions.logout(&caller, &client).await.unwrap();
    App {
        service: service(users.clone(), ServiceOptions::default()),
        store,
        token: signed_in.access_token.expose().to_owned(),
        over: json!({ "refresh_token": over.refresh_token.expose() }),
    }
}

impl App {
    async fn call(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, String)],
        body: &Value,
    ) -> StatusCode {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let body = if body.is_null() {
            Bytes::new()
        } else {
            request = request.header("content-type", "application/json");
            body.to_string().into()
        };
        let mut request = request.body(Full::new(body)).unwrap();
        request.extensions_mut().insert(PeerAddr("192.0.2.1:40000".parse().unwrap()));
        let response = self.service.clone().oneshot(request).await.unwrap();
        let status = response.status();
        response.into_body().collect().await.unwrap();
        status
    }

    /// Entries of the audit log, mails and events.
    async fn rows(&self) -> [usize; 3] {
        let size = PageSize::new(PageSize::MAX);
        let mut rows = [0; 3];
        let mut audit = AuditQuery { size, ..AuditQuery::default() };
        loop {
            let page = self.store.audit(audit).await.unwrap();
            rows[0] += page.items.len();
            audit.after = page.next;
            if audit.after.is_none() {
                break;
            }
        }
        let mut outbox = OutboxQuery { size, ..OutboxQuery::default() };
        loop {
            let page = self.store.outbox(outbox).await.unwrap();
            rows[1] += page.items.len();
            outbox.after = page.next;
            if outbox.after.is_none() {
                break;
            }
        }
        let mut after = None;
        loop {
            let feed = self.store.events(EventQuery { after, size }).await.unwrap();
            let EventFeed::Page { events, next } = feed else { return rows };
            if events.is_empty() {
                return rows;
            }
            rows[2] += events.len();
            after = Some(next);
        }
    }
}

/// What is sent to an operation, each worth a flood of its own. `n` counts the repeats.
fn bodies(operation: &str, app: &App, n: usize) -> Vec<Value> {
    let account = |address: &str| json!({ "email": address, "password": PASSWORD });
    let guess = json!({ "email": ANA, "code": "000000" });
    let set = json!({
        "email": ANA, "verification_code": "000000", "new_password": OTHER, "confirmation_password": OTHER
    });
    match operation {
        "jwks" | "docs" | "live" | "ready" | "openapi" | "list_audit" | "list_events" | "list_outbox"
        | "retry_mail" | "list_roles" | "end_other_sessions" | "list_sessions" | "logout" | "end_session"
        | "list_users" | "me" | "export_me" | "delete_user" | "get_user" | "end_user_sessions" => {
            vec![Value::Null]
        }
        "mail_callback" => vec![json!({ "events": [] })],
        "login" | "login_alias" => vec![account(BOB), json!({ "email": BOB, "password": OTHER })],
        "refresh" => vec![app.over.clone(), json!({ "refresh_token": "umr_made-up" })],
        "register" | "register_alias" => vec![account(ANA), account(&format!("u{n}@example.org"))],
        "resend_code" | "resend_code_alias" | "forgot_password" => {
            vec![json!({ "email": ANA }), json!({ "email": format!("u{n}@example.org") })]
        }
        "request_code" => ["reset_password", "change_password", "email_verification"]
            .map(|purpose| json!({ "email": ANA, "purpose": purpose }))
            .into(),
        "verify" | "verify_alias" | "activate" => vec![guess],
        "set_password_with_code" | "set_password_with_email_code" => vec![set],
        "confirm_email" => vec![json!({ "code": "000000" })],
        "reset_password" => {
            vec![json!({ "token": "made-up", "new_password": OTHER, "confirmation_password": OTHER })]
        }
        "undo_email_change" => vec![json!({ "token": "made-up" })],
        "change_password" => {
            let change = |current: &str| {
                json!({
                    "current_password": current, "new_password": PASSWORD, "confirmation_password": PASSWORD
                })
            };
            vec![change(PASSWORD), change(OTHER)]
        }
        "invite_user" => vec![json!({ "email": format!("u{n}@example.org") })],
        "update_me" => vec![json!({ "username": format!("Ana {n}") }), json!({ "username": "Ana" })],
        "update_user" => vec![json!({ "username": format!("Ana {n}") })],
        "set_roles" => vec![json!({ "roles": ["admin"] })],
        "change_email" => {
            vec![json!({ "new_email": format!("u{n}@example.org") }), json!({ "new_email": BOB })]
        }
        "delete_me" => vec![json!({ "password": OTHER })],
        unknown => panic!(
            "{unknown} is new: say here what a flood of it sends, and in docs/limits.md what bounds it"
        ),
    }
}

async fn every_operation() -> Vec<(Method, String, String)> {
    let app = app().await;
    let request = Request::get("/openapi.json").body(Full::<Bytes>::default()).unwrap();
    let response = app.service.clone().oneshot(request).await.unwrap();
    let document = response.into_body().collect().await.unwrap().to_bytes();
    let document: Value = serde_json::from_slice(&document).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let mut all = Vec::new();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            if let Some(id) = operation["operationId"].as_str() {
                let method = method.to_uppercase().parse().unwrap();
                all.push((method, path.replace("{id}", NOBODY), id.to_owned()));
            }
        }
    }
    assert!(all.len() > 40, "{all:?}");
    all
}

/// Repeated without end from one network, no call goes on writing rows, neither for a stranger nor for a user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_writes_rows_without_end() {
    let mut unbounded = Vec::new();
    for (method, path, operation) in every_operation().await {
        let flows = bodies(&operation, &app().await, 0).len();
        for flow in 0..flows {
            for signed_in in [false, true] {
                let app = app().await;
                let mut headers = Vec::new();
                if signed_in {
                    headers.push(("authorization", format!("Bearer {}", app.token)));
                }
                let mut before = [0; 3];
                for n in 0..REPEATS {
                    if n == REPEATS - 30 {
                        before = app.rows().await;
                    }
                    let body = bodies(&operation, &app, n).swap_remove(flow);
                    let status = app.call(&method, &path, &headers, &body).await;
                    assert!(status.as_u16() < 500 || path == "/health/ready", "{method} {path}: {status}");
                }
                let after = app.rows().await;
                if after != before {
                    unbounded.push(format!(
                        "{operation}, flow {flow}, signed in: {signed_in}: {before:?}, then {after:?}"
                    ));
                }
            }
        }
    }
    assert!(unbounded.is_empty(), "entries, mails, events:\n{}", unbounded.join("\n"));
}

/// Failed sign-ins by HTTP Basic count like any other.
#[tokio::test]
async fn no_basic_sign_in_writes_rows_without_end() {
    let app = app().await;
    let mut before = [0; 3];
    for n in 0..200 {
        if n == 150 {
            before = app.rows().await;
        }
        let credentials = format!("Basic {}", STANDARD.encode(format!("{BOB}:{OTHER}")));
        app.call(&Method::POST, "/v1/users/login", &[("authorization", credentials)], &Value::Null).await;
    }
    assert_eq!(app.rows().await, before);
}
