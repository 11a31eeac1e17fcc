//! An axum application with users: the whole service under `/auth`, and a route of its own for those signed in.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use usermgr_core::{AccessToken, Error, SecretKey, User, UserManager};
use usermgr_smtp::{Console, Sender};
use usermgr_sqlx::SqliteStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = std::env::args().nth(1).unwrap_or_else(|| "sqlite://axum-example.db".into());
    let listen = std::env::args().nth(2).unwrap_or_else(|| "127.0.0.1:3000".into());
    let store = SqliteStore::connect(&database, 4).await?;
    store.migrate().await?;
    let users = UserManager::builder()
        .store(Arc::new(store))
        .mailer(Arc::new(Console::new(Sender::parse("Example <noreply@example.org>")?)))
        // Keep a real one in a file that only the program can read.
        .secret_key(SecretKey::from_base64("q5X0mKkXn0bAq1dVQH3nYx4oF8o2m2eS0cVqz8m1T3k=")?)
        .build()?;
    let workers = users.start_workers();

    let auth = usermgr_server::service(users.clone(), usermgr_server::ServiceOptions::default());
    let app = Router::new().route("/hello", get(hello)).with_state(App { users }).nest_service("/auth", auth);
    let listener = tokio::net::TcpListener::bind(&listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(stopped()).await?;
    workers.stop().await;
    Ok(())
}

async fn stopped() {
    drop(tokio::signal::ctrl_c().await);
}

#[derive(Clone, FromRef)]
struct App {
    users: UserManager,
}

/// For those who are signed in.
async fn hello(State(_): State<App>, CurrentUser(user): CurrentUser) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "hello": user.email }))
}

/// Whoever the request's token belongs to. A route that takes one answers 401 to everybody else.
struct CurrentUser(User);

impl<S> FromRequestParts<S> for CurrentUser
where
    UserManager: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = (StatusCode, [(header::HeaderName, &'static str); 1]);

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let refusal = (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]);
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(("Bearer", token)) = header.and_then(|value| value.split_once(' ')) else {
            return Err(refusal);
        };
        match UserManager::from_ref(state).sessions().authenticate(&AccessToken::new(token)).await {
            Ok(caller) => Ok(Self(caller.user)),
            Err(Error::Unavailable(_)) => {
                Err((StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")]))
            }
            Err(_) => Err(refusal),
        }
    }
}
