//! An axum application and its tests: signed in or not, permitted or not, with mail or the store failing.
//!
//! The application knows a `UserManager` and nothing of tests. They give it that of a [`TestAuth`], which is whole and in
//! memory, and ask it by its router, without a socket: `cargo test --bin tested_axum`.
//!
//! [`TestAuth`]: usermgr_core::testing::TestAuth
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::net::SocketAddr;
use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use usermgr_core::domain::role::{InvalidPermission, Permission};
use usermgr_core::{SecretKey, UserManager};
use usermgr_server::{CurrentUser, RequirePermission, ServiceOptions, service};
use usermgr_smtp::{Console, Sender};
use usermgr_sqlx::SqliteStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = SqliteStore::connect("sqlite://notes-example.db", 4).await?;
    store.migrate().await?;
    let users = UserManager::builder()
        .store(Arc::new(store))
        .mailer(Arc::new(Console::new(Sender::parse("Notes <noreply@example.org>")?)))
        // Keep a real one in a file that only the program can read.
        .secret_key(SecretKey::from_base64("q5X0mKkXn0bAq1dVQH3nYx4oF8o2m2eS0cVqz8m1T3k=")?)
        .build()?;
    let _workers = users.start_workers();
    let app = app(users)?.into_make_service_with_connect_info::<SocketAddr>();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

/// The application: notes for who is signed in, statistics for who may see them.
fn app(users: UserManager) -> Result<Router, InvalidPermission> {
    let may_see: Permission = "statistics:read".parse()?;
    Ok(Router::new()
        .route("/statistics", get(async || Json(json!({ "notes": 0 }))))
        .route_layer(RequirePermission::new(users.clone(), may_see))
        .route("/notes", get(notes))
        .with_state(users.clone())
        .nest_service("/auth", service(users, ServiceOptions::default())))
}

async fn notes(CurrentUser(caller): CurrentUser) -> Json<Value> {
    Json(json!({ "of": caller.user.email, "notes": [] }))
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode, header};
    use tower::ServiceExt as _;
    use usermgr_core::flow::sessions::SignedIn;
    use usermgr_core::testing::{Failure, StoreFault, TestAuth};

    use super::*;

    /// The application over a whole installation in memory.
    struct World {
        auth: TestAuth,
        app: Router,
    }

    impl World {
        fn new() -> Self {
            let auth = TestAuth::new();
            let app = app(auth.users().clone()).unwrap();
            Self { auth, app }
        }

        async fn get(&self, path: &str, who: Option<&SignedIn>) -> (StatusCode, Value) {
            let mut request = Request::get(path);
            if let Some(signed_in) = who {
                let bearer = format!("Bearer {}", signed_in.access_token.expose());
                request = request.header(header::AUTHORIZATION, bearer);
            }
            self.answer(request.body(Body::empty()).unwrap()).await
        }

        async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
            let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
            self.answer(request.body(Body::from(body.to_string())).unwrap()).await
        }

        async fn answer(&self, request: Request<Body>) -> (StatusCode, Value) {
            let response = self.app.clone().oneshot(request).await.unwrap();
            let status = response.status();
            let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
            (status, serde_json::from_slice(&body).unwrap())
        }
    }

    #[tokio::test]
    async fn notes_are_for_who_is_signed_in() {
        let world = World::new();
        let (status, problem) = world.get("/notes", None).await;
        assert_eq!((status, &problem["code"]), (StatusCode::UNAUTHORIZED, &json!("missing_token")));
        let ana = world.auth.signed_in("user").await;
        let (status, notes) = world.get("/notes", Some(&ana)).await;
        assert_eq!((status, &notes["of"]), (StatusCode::OK, &json!("user-1@example.org")));
    }

    #[tokio::test]
    async fn a_session_ends_when_its_time_is_over() {
        let world = World::new();
        let ana = world.auth.signed_in("user").await;
        world.auth.clock().advance(time::Duration::minutes(16));
        let (status, problem) = world.get("/notes", Some(&ana)).await;
        assert_eq!((status, &problem["code"]), (StatusCode::UNAUTHORIZED, &json!("invalid_token")));
    }

    #[tokio::test]
    async fn statistics_are_for_who_may_see_them() {
        let world = World::new();
        assert_eq!(world.get("/statistics", None).await.0, StatusCode::UNAUTHORIZED);
        let ana = world.auth.signed_in("user").await;
        let (status, problem) = world.get("/statistics", Some(&ana)).await;
        assert_eq!((status, &problem["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")));
        let admin = world.auth.signed_in("admin").await;
        assert_eq!(world.get("/statistics", Some(&admin)).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn sign_up_waits_for_the_mail() {
        let world = World::new();
        world.auth.mail_fails(Some(Failure::Transient));
        let credentials = json!({ "email": "ana@example.org", "password": TestAuth::PASSWORD });
        assert_eq!(world.post("/auth/v1/users", credentials.clone()).await.0, StatusCode::ACCEPTED);
        assert_eq!(world.auth.last_code("ana@example.org").await, None);
        world.auth.mail_fails(None);
        world.auth.clock().advance(time::Duration::minutes(5));
        let code = world.auth.last_code("ana@example.org").await.unwrap();
        let verify = json!({ "email": "ana@example.org", "code": code });
        assert_eq!(world.post("/auth/v1/users/verify", verify).await.0, StatusCode::OK);
        assert_eq!(world.post("/auth/v1/users/login", credentials).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn while_the_store_is_down_nobody_is_told_to_sign_in() {
        let world = World::new();
        let ana = world.auth.signed_in("user").await;
        world.auth.store_fails(Some(StoreFault::Down));
        let (status, problem) = world.get("/notes", Some(&ana)).await;
        assert_eq!((status, &problem["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable")));
        world.auth.store_fails(None);
        assert_eq!(world.get("/notes", Some(&ana)).await.0, StatusCode::OK);
    }
}
