//! Every operation of the administration, asked for long after the sign-in: which ones want a proof again.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use usermgr_core::domain::role::Permission;
use usermgr_core::testing::TestAuth;
use usermgr_core::{ClientContext, Password};
use usermgr_server::{AuthService, ServiceOptions, openapi, service};

/// An identifier that nothing has.
const NOBODY: &str = "01980000-0000-7000-8000-000000000000";

/// What an old session may do, and what it may not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Old {
    Passes,
    Refused,
}

/// An operation, and whether an old session may do it. One path may stand here with several bodies.
type Row = (&'static str, &'static str, Option<Value>, Old);

fn table() -> Vec<Row> {
    vec![
        ("GET", "/v1/users", None, Old::Passes),
        ("GET", "/v1/users/{id}", None, Old::Passes),
        ("GET", "/v1/roles", None, Old::Passes),
        ("GET", "/v1/audit", None, Old::Passes),
        ("GET", "/v1/outbox", None, Old::Passes),
        ("GET", "/v1/events", None, Old::Passes),
        ("POST", "/v1/outbox/{id}/retry", None, Old::Passes),
        ("POST", "/v1/users/invite", Some(json!({"email": "plain@example.org"})), Old::Passes),
        (
            "POST",
            "/v1/users/invite",
            Some(json!({"email": "own@example.org", "roles": ["user"]})),
            Old::Passes,
        ),
        (
            "POST",
            "/v1/users/invite",
            Some(json!({"email": "boss@example.org", "roles": ["admin"]})),
            Old::Refused,
        ),
        (
            "POST",
            "/v1/users/invite",
            Some(json!({"email": "desk@example.org", "roles": ["desk"]})),
            Old::Refused,
        ),
        ("PATCH", "/v1/users/{id}", Some(json!({"username": "Ana"})), Old::Passes),
        ("PATCH", "/v1/users/{id}", Some(json!({"status": "disabled"})), Old::Refused),
        ("PATCH", "/v1/users/{id}", Some(json!({"status": "active", "username": "Ana"})), Old::Refused),
        ("PUT", "/v1/users/{id}/roles", Some(json!({"roles": ["admin"]})), Old::Refused),
        ("DELETE", "/v1/users/{id}/sessions", None, Old::Refused),
        ("DELETE", "/v1/users/{id}", None, Old::Refused),
    ]
}

async fn call(service: &AuthService, token: &str, row: &Row, id: &str) -> (u16, Value) {
    let (method, path, body, _) = row;
    let request = Request::builder()
        .method(*method)
        .uri(path.replace("{id}", id))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json");
    let body = body.as_ref().map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
    let answer = service.clone().oneshot(request.body(Full::new(body)).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

#[tokio::test]
async fn an_old_session_gives_and_takes_no_power() {
    let auth = TestAuth::with(|policies| {
        policies.roles.defined.insert("desk".parse().unwrap(), [Permission::USERS_READ].into());
    });
    let service = service(auth.users().clone(), ServiceOptions::default());
    let admin = auth.signed_in("admin").await;
    auth.clock().advance(auth.users().policies().sessions.step_up_age + time::Duration::SECOND);
    // To renew a session proves nothing.
    let renewed = auth.users().sessions().refresh(&admin.refresh_token, &ClientContext::new()).await.unwrap();
    let old = renewed.access_token.expose();
    for row in table() {
        let ana = auth.signed_in("user").await.user.id.to_string();
        // Whoever is meant, the answer is one, and it comes before what a fresh session would be told.
        for id in [ana.as_str(), NOBODY] {
            let (status, body) = call(&service, old, &row, id).await;
            let refused = status == 401 && body["code"] == "reauthentication_required";
            assert_eq!(refused, row.3 == Old::Refused, "{row:?}: {status} {body}");
            assert!(refused || [200, 201, 404, 409].contains(&status), "{row:?}: {status} {body}");
        }
    }
    let (password, client) = (Password::new(TestAuth::PASSWORD), ClientContext::new());
    let email = admin.user.email.as_str();
    let again = auth.users().sessions().login(email, &password, &client).await.unwrap();
    for row in table() {
        let ana = auth.signed_in("user").await.user.id.to_string();
        let (status, body) = call(&service, again.access_token.expose(), &row, &ana).await;
        assert!([200, 201, 202, 204, 404, 409].contains(&status), "{row:?}: {status} {body}");
    }
}

/// A new route of the administration needs a row, and the document says which ones want a proof.
#[test]
fn every_operation_of_the_administration_has_a_row() {
    let document = openapi(&ServiceOptions::default(), &usermgr_core::Policies::default());
    let table = table();
    let mut seen = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation["tags"] != json!(["Administration"]) {
                continue;
            }
            seen += 1;
            let method = method.to_ascii_uppercase();
            let mut rows = table.iter().filter(|row| row.0 == method && row.1 == path).peekable();
            assert!(rows.peek().is_some(), "{method} {path} has no row");
            let refuses = operation["responses"]["401"].to_string().contains("reauthentication_required");
            assert_eq!(refuses, rows.any(|row| row.3 == Old::Refused), "{method} {path}");
        }
    }
    assert!(seen >= 12, "{seen}");
}
