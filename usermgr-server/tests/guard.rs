//! Routes of the host's own: who may pass, and how the others are refused.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tower::{Layer as _, ServiceExt as _};
use usermgr_core::domain::audit::{AuditEvent, AuditOutcome};
use usermgr_core::domain::role::Permission;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::sessions::{Authenticated, SignedIn};
use usermgr_core::port::store::audit::AuditQuery;
use usermgr_core::testing::{StoreFault, TestAuth};
use usermgr_core::{ClientContext, Policies};
use usermgr_server::{PeerAddr, RequirePermission, authenticate};

/// Answers with the name of whoever the guard let pass.
async fn greet(request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let caller = request.extensions().get::<Authenticated>().unwrap();
    Ok(Response::new(Full::from(caller.user.email.to_string())))
}

fn request(who: Option<&SignedIn>) -> Request<Full<Bytes>> {
    let mut request = Request::get("/reports").header("x-request-id", "r-1").header("accept-language", "es");
    if let Some(who) = who {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", who.access_token.expose()));
    }
    request.body(Full::default()).unwrap()
}

async fn pass(guard: &RequirePermission, request: Request<Full<Bytes>>) -> (StatusCode, HeaderMap, Bytes) {
    let response = guard.layer(tower::service_fn(greet)).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, body.collect().await.unwrap().to_bytes())
}

/// An installation with a role that may read reports.
fn installation() -> (TestAuth, RequirePermission) {
    let reports: Permission = "reports:read".parse().unwrap();
    let auth = TestAuth::with(|policies: &mut Policies| {
        policies.roles.defined.insert("clerk".parse().unwrap(), [reports.clone()].into());
    });
    let guard = RequirePermission::new(auth.users().clone(), reports);
    (auth, guard)
}

#[tokio::test]
async fn who_may_passes_and_is_known_behind_the_guard() {
    let (auth, guard) = installation();
    let clerk = auth.signed_in("clerk").await;
    let (status, _, body) = pass(&guard, request(Some(&clerk))).await;
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"clerk-1@example.org"[..]));
}

#[tokio::test]
async fn refusals_are_those_of_the_service() {
    let (auth, guard) = installation();
    let user = auth.signed_in("user").await;
    let refused = async |who: Option<&SignedIn>| {
        let (status, headers, body) = pass(&guard, request(who)).await;
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["content-language"], "es");
        assert_eq!(headers["x-request-id"], "r-1");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(problem["request_id"], "r-1");
        let asked = headers.get("www-authenticate").map(|asked| asked.to_str().unwrap().to_owned());
        (status.as_u16(), problem["code"].as_str().unwrap().to_owned(), asked)
    };
    let bearer = "Bearer realm=\"usermgr\"".to_owned();
    assert_eq!(refused(None).await, (401, "missing_token".into(), Some(bearer.clone())));
    assert_eq!(refused(Some(&user)).await, (403, "forbidden".into(), None));
    auth.store_fails(Some(StoreFault::Down));
    assert_eq!(refused(Some(&user)).await, (503, "unavailable".into(), None));
    auth.store_fails(None);
    auth.clock().advance(time::Duration::hours(1));
    let asked = format!("{bearer}, error=\"invalid_token\"");
    assert_eq!(refused(Some(&user)).await, (401, "invalid_token".into(), Some(asked)));
}

#[tokio::test]
async fn who_may_not_is_audited_with_the_address_of_the_client() {
    let (auth, guard) = installation();
    let guard = guard.with_trusted_proxies(&["10.0.0.0/8".parse().unwrap()]);
    let user = auth.signed_in("user").await;
    let mut request = request(Some(&user));
    request.extensions_mut().insert(PeerAddr(SocketAddr::new("10.0.0.1".parse().unwrap(), 1)));
    request.headers_mut().insert("x-forwarded-for", "203.0.113.5".parse().unwrap());
    // A new one is made, and it is the same in the answer and in the log.
    request.headers_mut().remove("x-request-id");
    let (status, headers, _) = pass(&guard, request).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let query = AuditQuery { event: Some(AuditEvent::AccessDenied), ..AuditQuery::default() };
    let (users, client) = (auth.users().users(), ClientContext::new());
    let audited = users.audit(Principal::Operator, query, &client).await.unwrap();
    let [entry] = audited.items.as_slice() else { unreachable!("one refusal: {audited:?}") };
    assert_eq!((entry.outcome, entry.actor), (AuditOutcome::Refused, Some(user.user.id)));
    assert_eq!(entry.ip, Some("203.0.113.5".parse().unwrap()));
    assert_eq!(entry.request_id.as_deref(), headers["x-request-id"].to_str().ok());
}

#[tokio::test]
async fn who_was_signed_out_is_nobody() {
    let (auth, _) = installation();
    let user = auth.signed_in("user").await;
    let request = request(Some(&user));
    let caller = authenticate(auth.users(), request.headers()).await.unwrap();
    assert_eq!(caller.user.id, user.user.id);
    auth.users().sessions().logout(&caller, &ClientContext::new()).await.unwrap();
    let refusal = authenticate(auth.users(), request.headers()).await.unwrap_err();
    assert_eq!(refusal.status(), StatusCode::UNAUTHORIZED);
    assert!(!format!("{refusal:?}").contains(user.access_token.expose()));
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn behind_a_guard_the_store_is_not_asked_again() {
    use axum::extract::FromRequestParts as _;
    use usermgr_server::CurrentUser;

    let (auth, _) = installation();
    let user = auth.signed_in("user").await;
    let (mut parts, _) = request(Some(&user)).into_parts();
    let CurrentUser(caller) = CurrentUser::from_request_parts(&mut parts, auth.users()).await.unwrap();
    auth.store_fails(Some(StoreFault::Down));
    let refusal = CurrentUser::from_request_parts(&mut parts, auth.users()).await.unwrap_err();
    assert_eq!(refusal.status(), StatusCode::SERVICE_UNAVAILABLE);
    parts.extensions.insert(caller);
    assert!(CurrentUser::from_request_parts(&mut parts, auth.users()).await.is_ok());
}
