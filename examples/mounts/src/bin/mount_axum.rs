//! In axum: nested whole and in part, an extractor for who is signed in, and a layer for who may.

use std::net::SocketAddr;

use axum::http::HeaderValue;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use usermgr_mounts::{SERVED_BY, StartError, arguments, in_part, reports, say, users};
use usermgr_server::{CurrentUser, RequirePermission, ServiceOptions, service};

#[tokio::main]
async fn main() -> Result<(), StartError> {
    let (database, listen) = arguments();
    let users = users(&database).await?;
    let _workers = users.start_workers();

    let whole = service(users.clone(), ServiceOptions::default());
    let part = service(users.clone(), in_part(""));
    let accounts = Router::new().fallback_service(part).layer(axum::middleware::map_response(served_by));
    let guarded = RequirePermission::new(users.clone(), reports()?);
    let app = Router::new()
        .route("/reports", get(async || Json(json!({ "reports": [] }))))
        .route_layer(guarded)
        .route("/hello", get(hello))
        .with_state(users)
        .nest_service("/auth", whole)
        .nest("/accounts", accounts);

    let listener = tokio::net::TcpListener::bind(&listen).await?;
    say(listener.local_addr()?);
    // With the address of the client, for the limits.
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

async fn hello(CurrentUser(caller): CurrentUser) -> Json<Value> {
    Json(json!({ "hello": caller.user.email }))
}

async fn served_by(mut response: Response) -> Response {
    response.headers_mut().insert(SERVED_BY, HeaderValue::from_static("axum"));
    response
}
