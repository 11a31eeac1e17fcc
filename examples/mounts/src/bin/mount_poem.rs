//! In poem: by its bridge to tower, and as endpoints for who is signed in and who may.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::{BodyExt as _, Full};
use poem::endpoint::{TowerCompatExt as _, make};
use poem::listener::{Acceptor as _, Listener as _, TcpListener};
use poem::web::Json;
use poem::{EndpointExt as _, Error, IntoResponse as _, Request, Response, Route, Server};
use serde_json::json;
use usermgr_core::UserManager;
use usermgr_core::domain::role::Permission;
use usermgr_mounts::{SERVED_BY, StartError, arguments, in_part, reports, say, users};
use usermgr_server::{PeerAddr, Refusal, ServiceOptions, authenticate, client_context, service};

#[tokio::main]
async fn main() -> Result<(), StartError> {
    let (database, listen) = arguments();
    let users = users(&database).await?;
    let _workers = users.start_workers();

    let whole = service(users.clone(), ServiceOptions::default());
    let part = service(users.clone(), in_part(""));
    let (to_hello, to_reports, permission) = (users.clone(), users, reports()?);
    let app = Route::new()
        .at("/hello", make(move |request| hello(to_hello.clone(), request)))
        .at("/reports", make(move |request| all_reports(to_reports.clone(), permission.clone(), request)))
        .nest("/auth", whole.compat())
        .nest("/accounts", part.compat().after(served_by))
        .before(with_peer);

    let acceptor = TcpListener::bind(&listen).into_acceptor().await?;
    for address in acceptor.local_addr() {
        if let Some(address) = address.as_socket_addr() {
            say(*address);
        }
    }
    Server::new_with_acceptor(acceptor).run(app).await?;
    Ok(())
}

/// Notes the address of the client, for the limits.
async fn with_peer(mut request: Request) -> Result<Request, Error> {
    if let Some(peer) = request.remote_addr().as_socket_addr().copied() {
        request.extensions_mut().insert(PeerAddr(peer));
    }
    Ok(request)
}

async fn served_by(answer: Result<Response, Error>) -> Result<Response, Error> {
    let mut response = answer?;
    response.headers_mut().insert(SERVED_BY, HeaderValue::from_static("poem"));
    Ok(response)
}

async fn hello(users: UserManager, request: Request) -> Result<Response, Error> {
    let caller = authenticate(&users, request.headers()).await.map_err(refused)?;
    Ok(Json(json!({ "hello": caller.user.email })).into_response())
}

async fn all_reports(
    users: UserManager,
    permission: Permission,
    request: Request,
) -> Result<Response, Error> {
    let (parts, _) = http::Request::from(request).into_parts();
    let caller = authenticate(&users, &parts.headers).await.map_err(refused)?;
    let client = client_context(&parts, &[]);
    let permitted = users.require(&caller, &permission, &client).await;
    permitted.map_err(|error| refused(Refusal::new(error, &parts.headers, &client)))?;
    Ok(Json(json!({ "reports": [] })).into_response())
}

fn refused(refusal: Refusal) -> Error {
    let nothing_fails = |body: Full<Bytes>| body.map_err(|never: Infallible| -> io::Error { match never {} });
    Error::from_response(refusal.into_response().map(nothing_fails).into())
}
