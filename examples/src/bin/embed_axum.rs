//! An axum application with users: the whole service under `/auth`, and a route of its own for those signed in.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::net::SocketAddr;
use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use usermgr_core::{SecretKey, UserManager};
use usermgr_server::{CurrentUser, ServiceOptions, service};
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

    let auth = service(users.clone(), ServiceOptions::default());
    let app = Router::new().route("/hello", get(hello)).with_state(users).nest_service("/auth", auth);
    // With the addresses of clients, for which limits are counted.
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let listener = tokio::net::TcpListener::bind(&listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(stopped()).await?;
    workers.stop().await;
    Ok(())
}

async fn stopped() {
    drop(tokio::signal::ctrl_c().await);
}

/// For those who are signed in; everybody else is answered 401, as by the service.
async fn hello(CurrentUser(caller): CurrentUser) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "hello": caller.user.email }))
}
