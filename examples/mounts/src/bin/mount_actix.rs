//! In actix-web, whose requests are of the older `http` 0.2 and whose bodies stay on their thread: by a bridge of thirty
//! lines.

use std::io;

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::web::{self, Payload};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::request::Parts;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use tower::Service as _;
use usermgr_core::UserManager;
use usermgr_core::domain::role::Permission;
use usermgr_mounts::{SERVED_BY, StartError, arguments, in_part, reports, say, users};
use usermgr_server::{AuthService, PeerAddr, Refusal, ServiceOptions, authenticate, client_context, service};

#[actix_web::main]
async fn main() -> Result<(), StartError> {
    let (database, listen) = arguments();
    let users = users(&database).await?;
    let _workers = users.start_workers();

    // Actix leaves the prefix of a scope in the path.
    let options = ServiceOptions { base_path: "/auth/v1".into(), ..ServiceOptions::default() };
    let whole = service(users.clone(), options);
    let part = service(users.clone(), in_part("/accounts"));
    let permission = reports()?;
    let server = HttpServer::new(move || {
        let (whole, part) = (whole.clone(), part.clone());
        App::new()
            .app_data(web::Data::new(users.clone()))
            .app_data(web::Data::new(permission.clone()))
            .route("/hello", web::get().to(hello))
            .route("/reports", web::get().to(all_reports))
            .service(web::scope("/accounts").default_service(web::to(move |request, body| {
                let part = part.clone();
                async move {
                    let mut response = call(part, request, body).await?;
                    let name = HeaderName::from_static(SERVED_BY);
                    response.headers_mut().insert(name, HeaderValue::from_static("actix"));
                    Ok::<_, actix_web::Error>(response)
                }
            })))
            .default_service(web::to(move |request, body| call(whole.clone(), request, body)))
    });
    let server = server.workers(2).bind(&listen)?;
    for address in server.addrs() {
        say(address);
    }
    Ok(server.run().await?)
}

async fn hello(
    users: web::Data<UserManager>,
    request: HttpRequest,
) -> Result<HttpResponse, actix_web::Error> {
    let (parts, ()) = head(&request)?;
    Ok(match authenticate(&users, &parts.headers).await {
        Ok(caller) => HttpResponse::Ok().json(json!({ "hello": caller.user.email })),
        Err(refusal) => back(refusal.into_response()).await?,
    })
}

async fn all_reports(
    users: web::Data<UserManager>,
    permission: web::Data<Permission>,
    request: HttpRequest,
) -> Result<HttpResponse, actix_web::Error> {
    let (parts, ()) = head(&request)?;
    Ok(match may_read(&users, &permission, &parts).await {
        Ok(()) => HttpResponse::Ok().json(json!({ "reports": [] })),
        Err(refusal) => back(refusal.into_response()).await?,
    })
}

async fn may_read(users: &UserManager, permission: &Permission, parts: &Parts) -> Result<(), Refusal> {
    let caller = authenticate(users, &parts.headers).await?;
    let client = client_context(parts, &[]);
    let permitted = users.require(&caller, permission, &client).await;
    permitted.map_err(|error| Refusal::new(error, &parts.headers, &client))
}

/// Hands a request of actix to the service, chunk by chunk, and its answer back.
async fn call(
    mut service: AuthService,
    request: HttpRequest,
    mut body: Payload,
) -> Result<HttpResponse, actix_web::Error> {
    let (parts, ()) = head(&request)?;
    let (mut chunks, taken) = Channel::<Bytes, io::Error>::new(1);
    actix_web::rt::spawn(async move {
        while let Some(chunk) = body.next().await {
            match chunk {
                Ok(chunk) => {
                    if chunks.send_data(chunk).await.is_err() {
                        return;
                    }
                }
                Err(error) => return chunks.abort(io::Error::other(error.to_string())),
            }
        }
    });
    let Ok(answer) = service.call(http::Request::from_parts(parts, taken)).await;
    back(answer).await
}

/// The head of a request in the types of `http` 1, with the address of the client, for the limits.
fn head(request: &HttpRequest) -> Result<(Parts, ()), actix_web::Error> {
    let mut builder =
        http::Request::builder().method(request.method().as_str()).uri(request.uri().to_string());
    for (name, value) in request.headers() {
        builder = builder.header(name.as_str(), value.as_bytes());
    }
    if let Some(peer) = request.peer_addr() {
        builder = builder.extension(PeerAddr(peer));
    }
    Ok(builder.body(()).map_err(actix_web::error::ErrorBadRequest)?.into_parts())
}

/// An answer in the types of actix.
async fn back(answer: http::Response<Full<Bytes>>) -> Result<HttpResponse, actix_web::Error> {
    let (parts, body) = answer.into_parts();
    let status = actix_web::http::StatusCode::from_u16(parts.status.as_u16());
    let mut response = HttpResponse::build(status.map_err(actix_web::error::ErrorInternalServerError)?);
    for (name, value) in &parts.headers {
        response.append_header((name.as_str(), value.as_bytes()));
    }
    let Ok(body) = body.collect().await;
    Ok(response.body(body.to_bytes()))
}
