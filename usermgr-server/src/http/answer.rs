//! Answers that are no problem.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use usermgr_core::domain::audit::AuditEntry;
use usermgr_core::domain::id::SessionId;
use usermgr_core::domain::role::{Permission, Role};
use usermgr_core::domain::session::Session;
use usermgr_core::flow::account::AccountExport;
use usermgr_core::flow::register::CodeSent;
use usermgr_core::flow::sessions::SignedIn;
use usermgr_core::port::store::outbox::OutboxEntry;
use usermgr_core::{EmailKey, User};

/// An answer: a status and a JSON body or none.
pub(super) struct Answer {
    status: StatusCode,
    body: Option<Value>,
    cache: Option<&'static str>,
    allow: Option<String>,
}

impl Answer {
    pub(super) fn json(status: StatusCode, body: impl Serialize) -> Self {
        Self { status, body: serde_json::to_value(body).ok(), cache: None, allow: None }
    }

    pub(super) const fn empty(status: StatusCode) -> Self {
        Self { status, body: None, cache: None, allow: None }
    }

    /// That may be kept by whoever gets it.
    pub(super) const fn cached(mut self, cache: &'static str) -> Self {
        self.cache = Some(cache);
        self
    }

    /// That says which methods there are.
    pub(super) fn allowing(mut self, methods: String) -> Self {
        self.allow = Some(methods);
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
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::from_str(&allow).ok()) {
            response.headers_mut().insert(header::ALLOW, allow);
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

/// A page of a list, and what to ask for to read on.
pub(super) fn page(items: impl Iterator<Item = Value>, next: Option<&str>) -> Answer {
    let items: Vec<Value> = items.collect();
    Answer::json(StatusCode::OK, json!({ "items": items, "next_cursor": next }))
}

/// A session as its owner sees it.
pub(super) fn session_item(session: &Session, current: SessionId) -> Value {
    json!({
        "id": session.id,
        "created_at": time(session.created_at),
        "last_seen_at": time(session.last_seen_at),
        "authenticated_at": time(session.authenticated_at),
        "expires_at": time(session.idle_expires_at.min(session.expires_at)),
        "ip": session.ip,
        "user_agent": session.user_agent,
        "current": session.id == current,
    })
}

/// A role and what it permits.
pub(crate) fn role(name: &Role, permissions: &BTreeSet<Permission>) -> Value {
    let built_in = name.as_str() == Role::USER || name.as_str() == Role::ADMIN;
    json!({ "name": name, "permissions": permissions, "built_in": built_in })
}

/// An entry of the audit log.
pub(crate) fn audit_entry(entry: &AuditEntry) -> Value {
    json!({
        "id": entry.id,
        "at": time(entry.at),
        "event": entry.event.as_str(),
        "outcome": entry.outcome.as_str(),
        "reason": entry.reason,
        "actor_id": entry.actor,
        "user_id": entry.subject,
        "email": entry.email.as_ref().map(EmailKey::as_str),
        "ip": entry.ip,
        "user_agent": entry.user_agent,
        "request_id": entry.request_id,
    })
}

/// A mail that is or was owed. No code and no link is in it.
pub(crate) fn outbox_entry(entry: &OutboxEntry) -> Value {
    json!({
        "id": entry.mail.id,
        "name": entry.mail.kind.as_str(),
        "to": entry.mail.to.as_str(),
        "status": entry.status.as_str(),
        "attempts": entry.attempts,
        "created_at": time(entry.mail.created_at),
        "due_at": time(entry.due_at),
        "settled_at": entry.settled_at.and_then(time),
        "error": entry.error,
    })
}

/// Everything held about a user, for the user. `docs/export.md` says what each part is.
pub(crate) fn export(held: &AccountExport, current: SessionId) -> Value {
    let sessions: Vec<Value> = held.sessions.iter().map(|item| session_item(item, current)).collect();
    json!({
        "format": "usermgr-export-1",
        "user": user(&held.user),
        "email_verified_at": held.user.email_verified_at.and_then(time),
        "sessions": sessions,
        "audit": held.audit.iter().map(audit_entry).collect::<Vec<_>>(),
        "outbox": held.outbox.iter().map(outbox_entry).collect::<Vec<_>>(),
    })
}

/// A code or link was asked for.
pub(super) fn code_sent(sent: CodeSent) -> Answer {
    let body = json!({ "status": "code_sent", "resend_after": sent.resend_after.as_secs() });
    Answer::json(StatusCode::ACCEPTED, body)
}
