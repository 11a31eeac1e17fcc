//! Answers one kind of request so many times, so that `scripts/check-cost` can count the instructions.
//!
//! One thread answers, with SQLite, the service as it is mounted, and a hash that costs next to nothing: what is counted is our
//! own work, and it is the same on each machine.
#![expect(clippy::unwrap_used, reason = "a measurement that fails is none")]

use std::sync::Arc;

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use usermgr_benches::database::{Database, PASSWORD, Store, user_email};
use usermgr_core::policy::{HashPolicy, TokenFormat};
use usermgr_core::testing::Mailbox;
use usermgr_core::{Policies, SecretKey, UserManager};
use usermgr_server::{AuthService, ServiceOptions, service};
use usermgr_sqlx::SqliteStore;

/// Answers one kind of request so many times
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(value_enum)]
    kind: Kind,
    times: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A registration.
    Register,
    /// The delivery of a registration's mail into a mailbox; its registration is counted too.
    Deliver,
    /// A verification with the mailed code; its registration and delivery are counted too.
    Verify,
    /// A sign-in.
    SignIn,
    /// Who an opaque token belongs to.
    Me,
    /// A new pair of tokens for a refresh token.
    Refresh,
    /// A code for a forgotten password.
    Forgot,
}

struct World {
    manager: UserManager,
    service: AuthService,
    mailbox: Arc<Mailbox>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Arguments { kind, times } = Arguments::parse();
    let database = Database::create(Store::Sqlite, "cost").await.unwrap();
    let store = SqliteStore::connect(&database.url, 2).await.unwrap();
    store.migrate().await.unwrap();
    let mut policies = Policies {
        hashing: HashPolicy { memory_kib: 8, iterations: 1, parallelism: 1, threads: Some(1), queue: None },
        ..Policies::default()
    };
    policies.throttle.enabled = false;
    policies.tokens.format = TokenFormat::Opaque;
    let mailbox = Arc::new(Mailbox::default());
    let manager = UserManager::builder()
        .store(Arc::new(store))
        .mailer(Arc::clone(&mailbox) as Arc<_>)
        .secret_key(SecretKey::from_bytes([7; 32]))
        .policies(policies)
        .build()
        .unwrap();
    let service = service(manager.clone(), ServiceOptions::default());
    World { manager, service, mailbox }.answer(kind, times).await;
    database.remove().await.unwrap();
}

impl World {
    async fn answer(&self, kind: Kind, times: usize) {
        let ana = "ana@example.org";
        self.register(ana).await;
        self.deliver().await;
        self.verify(ana).await;
        let mut tokens = self.sign_in(ana).await;
        for n in 0..times {
            let email = user_email(n);
            match kind {
                Kind::Register => self.register(&email).await,
                Kind::Deliver => {
                    self.register(&email).await;
                    self.deliver().await;
                }
                Kind::Verify => {
                    self.register(&email).await;
                    self.deliver().await;
                    self.verify(&email).await;
                }
                Kind::SignIn => drop(self.sign_in(ana).await),
                Kind::Me => {
                    let token = text(&tokens, "access_token");
                    self.call(Method::GET, "/v1/users/me", Some(token), &Value::Null, StatusCode::OK).await;
                }
                Kind::Refresh => {
                    let body = json!({ "refresh_token": text(&tokens, "refresh_token") });
                    tokens =
                        self.call(Method::POST, "/v1/sessions/refresh", None, &body, StatusCode::OK).await;
                }
                Kind::Forgot => {
                    let body = json!({ "email": ana });
                    self.call(Method::POST, "/v1/passwords/forgot", None, &body, StatusCode::ACCEPTED).await;
                }
            }
        }
    }

    async fn register(&self, email: &str) {
        let body = json!({ "email": email, "password": PASSWORD });
        self.call(Method::POST, "/v1/users", None, &body, StatusCode::ACCEPTED).await;
    }

    async fn deliver(&self) {
        // The mail of an earlier verification may leave with it.
        assert_ne!(self.manager.mail_worker().run_once().await.unwrap().sent, 0);
    }

    async fn verify(&self, email: &str) {
        let body = json!({ "email": email, "code": self.mailbox.last_code(email).unwrap() });
        self.call(Method::POST, "/v1/users/verify", None, &body, StatusCode::OK).await;
    }

    async fn sign_in(&self, email: &str) -> Value {
        let body = json!({ "email": email, "password": PASSWORD });
        self.call(Method::POST, "/v1/sessions", None, &body, StatusCode::OK).await
    }

    /// The answer's body, which comes with this status.
    async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: &Value,
        status: StatusCode,
    ) -> Value {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = if body.is_null() {
            Bytes::new()
        } else {
            request = request.header("content-type", "application/json");
            Bytes::from(body.to_string())
        };
        let request = request.body(Full::new(body)).unwrap();
        let response = self.service.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(parts.status, status, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap_or_default()
    }
}

fn text<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer.get(name).and_then(Value::as_str).unwrap()
}
