//! axum-login with tower-sessions and sqlx on PostgreSQL, put together the way its own example does: the password is
//! compared by password-auth in `spawn_blocking`, sessions stand in the database under a signed cookie.
//!
//! `PEER_LISTEN`, `PEER_DATABASE_URL`, and users `user0`, `user1`, … as many as `PEER_USERS`, who all have the password
//! of `PEER_PASSWORD_HASH`. `POST /login` takes a form of `username` and `password`, `GET /me` needs the cookie.

use axum::extract::Form;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use axum_login::{AuthManagerLayerBuilder, AuthUser, AuthnBackend, UserId, login_required};
use serde::Deserialize;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task;
use tower_sessions::cookie::Key;
use tower_sessions::{Expiry, SessionManagerLayer};
use tower_sessions_sqlx_store::PostgresStore;

#[derive(Debug, Clone, sqlx::FromRow)]
struct User {
    id: i64,
    username: String,
    password: String,
}

impl AuthUser for User {
    type Id = i64;

    fn id(&self) -> i64 {
        self.id
    }

    fn session_auth_hash(&self) -> &[u8] {
        self.password.as_bytes()
    }
}

#[derive(Clone, Deserialize)]
struct Credentials {
    username: String,
    password: String,
}

#[derive(Debug, Clone)]
struct Backend {
    pool: PgPool,
}

#[derive(Debug, thiserror::Error)]
enum BackendError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Task(#[from] task::JoinError),
}

impl AuthnBackend for Backend {
    type User = User;
    type Credentials = Credentials;
    type Error = BackendError;

    async fn authenticate(&self, credentials: Credentials) -> Result<Option<User>, BackendError> {
        let Credentials { username, password } = credentials;
        let found: Option<User> = sqlx::query_as("SELECT id, username, password FROM users WHERE username = $1")
            .bind(username)
            .fetch_optional(&self.pool)
            .await?;
        let matches = move |user: &User| password_auth::verify_password(password, &user.password).is_ok();
        Ok(task::spawn_blocking(move || found.filter(matches)).await?)
    }

    async fn get_user(&self, id: &UserId<Self>) -> Result<Option<User>, BackendError> {
        let found = sqlx::query_as("SELECT id, username, password FROM users WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        Ok(found)
    }
}

type AuthSession = axum_login::AuthSession<Backend>;

async fn login(mut session: AuthSession, Form(credentials): Form<Credentials>) -> Response {
    match session.authenticate(credentials).await {
        Ok(Some(user)) => match session.login(&user).await {
            Ok(()) => Redirect::to("/me").into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        },
        Ok(None) => StatusCode::UNAUTHORIZED.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn me(session: AuthSession) -> Response {
    match session.user {
        Some(user) => Json(user.username).into_response(),
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

async fn seed(pool: &PgPool) -> Result<(), Box<dyn std::error::Error>> {
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS users \
         (id BIGINT PRIMARY KEY, username TEXT NOT NULL UNIQUE, password TEXT NOT NULL)",
    )
    .execute(pool)
    .await?;
    let users: i64 = std::env::var("PEER_USERS")?.parse()?;
    sqlx::query(
        "INSERT INTO users SELECT n, 'user' || n, $2 FROM generate_series(0, $1 - 1) AS n ON CONFLICT DO NOTHING",
    )
    .bind(users)
    .bind(std::env::var("PEER_PASSWORD_HASH")?)
    .execute(pool)
    .await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = PgPool::connect(&std::env::var("PEER_DATABASE_URL")?).await?;
    seed(&pool).await?;
    let sessions = PostgresStore::new(pool.clone());
    sessions.migrate().await?;
    let sessions = SessionManagerLayer::new(sessions)
        .with_secure(false)
        .with_expiry(Expiry::OnInactivity(time::Duration::days(1)))
        .with_signed(Key::generate());
    let routes = Router::new()
        .route("/me", get(me))
        .route_layer(login_required!(Backend, login_url = "/login"))
        .route("/login", post(login))
        .layer(AuthManagerLayerBuilder::new(Backend { pool }, sessions).build());
    let listener = TcpListener::bind(std::env::var("PEER_LISTEN")?).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        served = axum::serve(listener, routes) => served?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
