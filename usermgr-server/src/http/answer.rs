//! Answers that are no problem.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use usermgr_core::User;
use usermgr_core::flow::register::CodeSent;
use usermgr_core::flow::sessions::SignedIn;

/// An answer: a status and a JSON body or none.
pub(super) struct Answer {
    status: StatusCode,
    body: Option<Value>,
    cache: Option<&'static str>,
}

impl Answer {
    pub(super) fn json(status: StatusCode, body: impl Serialize) -> Self {
        Self { status, body: serde_json::to_value(body).ok(), cache: None }
    }

    pub(super) const fn empty(status: StatusCode) -> Self {
        Self { status, body: None, cache: None }
    }

    /// That may be kept by whoever gets it.
    pub(super) const fn cached(mut self, cache: &'static str) -> Self {
        self.cache = Some(cache);
        self
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = self.status;
        if let Some(body) = self.body {
            *response.body_mut() = Full::from(body.to_string());
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        }
        if let Some(cache) = self.cache {
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        }
        response
    }
}

/// A time as RFC 3339, UTC.
fn time(time: OffsetDateTime) -> Option<String> {
    time.format(&Rfc3339).ok()
}

/// A user as the interface shows one.
pub(crate) fn user(user: &User) -> Value {
    json!({
        "id": user.id,
        "email": user.email,
        "email_verified": user.email_verified(),
        "username": user.username,
        "roles": user.roles,
        "status": user.status.as_str(),
        "locale": user.locale,
        "created_at": time(user.created_at),
        "updated_at": time(user.updated_at),
        "last_login_at": user.last_login_at.and_then(time),
    })
}

/// The tokens of somebody who signed in.
pub(super) fn session(signed_in: &SignedIn) -> Value {
    json!({
        "access_token": signed_in.access_token.expose(),
        "token_type": "Bearer",
        "expires_in": signed_in.expires_in.as_secs(),
        "refresh_token": signed_in.refresh_token.expose(),
        "refresh_expires_in": signed_in.refresh_expires_in.as_secs(),
        "user": user(&signed_in.user),
    })
}

/// A code or link was asked for.
pub(super) fn code_sent(sent: CodeSent) -> Answer {
    let body = json!({ "status": "code_sent", "resend_after": sent.resend_after.as_secs() });
    Answer::json(StatusCode::ACCEPTED, body)
}
