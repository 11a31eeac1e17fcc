//! What each template gets, with sample values, and what it has to show: the built-in ones and those of a team are tried
//! with it at the start.

use serde_json::{Value, json};

/// The templates that other templates are made of.
pub(super) const PARTS: [(&str, &str); 2] = [
    ("layout.html", include_str!("templates/layout.html")),
    ("fields.html", include_str!("templates/fields.html")),
];

/// What every page gets.
pub(super) const COMMON: [&str; 14] = [
    "language",
    "t",
    "name",
    "logo",
    "style",
    "script",
    "fragment_script",
    "signed_in",
    "administers",
    "in_administration",
    "sections",
    "notice",
    "back",
    "form",
];

/// A page's template.
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) source: &'static str,
    /// What it gets beside what every page gets.
    pub(super) values: Value,
    /// What its HTML has to have, or the page does not work.
    pub(super) needs: &'static [&'static str],
}

macro_rules! sample {
    ($name:literal, [$($need:literal),*], $values:tt) => {
        Sample {
            name: $name,
            source: include_str!(concat!("templates/", $name)),
            values: json!($values),
            needs: &[$($need),*],
        }
    };
}

fn moment() -> Value {
    json!({ "iso": "2026-02-01T12:00:00Z", "text": "1 February 2026, 12:00 UTC" })
}

fn user() -> Value {
    json!({
        "id": "01980000-0000-7000-8000-000000000000", "email": "ana@example.org", "username": "Ana", "roles": ["user"],
        "active": true, "verified": false, "created": moment(), "last_login": null,
    })
}

fn device() -> Value {
    json!({
        "id": "01980000-0000-7000-8000-000000000000", "name": "Firefox on Linux", "agent": "Mozilla/5.0", "ip": "192.0.2.7",
        "created": moment(), "seen": moment(), "current": false,
    })
}

fn entry() -> Value {
    json!({
        "at": moment(), "event": "sign_in", "done": false, "reason": "invalid_credentials", "ip": "192.0.2.7",
        "agent": "Mozilla/5.0", "subject": "01980000-0000-7000-8000-000000000000", "email": "ana@example.org",
        "actor": "01980000-0000-7000-8000-000000000000",
    })
}

/// Every page's template.
pub(super) fn all() -> Vec<Sample> {
    let role = json!({ "name": "support", "given": true, "permits": "users:read" });
    let mail = json!({
        "id": "01980000-0000-7000-8000-000000000000", "created": moment(), "name": "verify_email", "to": "ana@example.org",
        "status": "dead", "error": "550 no such mailbox", "attempts": 3,
    });
    vec![
        sample!("sign_up.html", ["name=\"email\"", "name=\"password\""], { "open": true, "min_length": 8 }),
        sample!("sign_up_code.html", ["name=\"registration_id\"", "name=\"email\"", "name=\"code\""], {
            "registration": "token", "resend_after": 30, "code_length": 6
        }),
        sample!("sign_in.html", ["name=\"email\"", "name=\"password\"", "name=\"next\""], {
            "next": "/account", "open": true
        }),
        sample!("forgot.html", ["name=\"email\""], {}),
        sample!("forgot_sent.html", [], { "email": "ana@example.org", "resend_after": 30 }),
        sample!(
            "reset.html",
            ["name=\"token\"", "name=\"new_password\"", "name=\"confirmation_password\"", "id=\"with-token\"", "id=\"no-token\""],
            { "token": "", "min_length": 8 }
        ),
        sample!("undo_email.html", ["name=\"token\"", "id=\"with-token\"", "id=\"no-token\""], { "token": "" }),
        sample!(
            "first_time_setup.html",
            ["name=\"email\"", "name=\"code\"", "name=\"new_password\"", "name=\"confirmation_password\""],
            { "min_length": 8, "code_length": 6, "resend_after": 30 }
        ),
        sample!("account.html", ["name=\"username\"", "name=\"locale\""], { "email": "ana@example.org" }),
        sample!("email.html", ["name=\"new_email\"", "name=\"password\""], { "email": "ana@example.org" }),
        sample!("email_code.html", ["name=\"code\""], { "new_email": "ana@example.net", "code_length": 6 }),
        sample!(
            "password.html",
            ["name=\"current_password\"", "name=\"new_password\"", "name=\"confirmation_password\""],
            { "email": "ana@example.org", "min_length": 8 }
        ),
        sample!("devices.html", ["/end\"", "/account/devices/end-others"], {
            "devices": [device()], "others": true
        }),
        sample!("data.html", ["/account/export", "name=\"cursor\"", "/account/delete", "name=\"password\""], {
            "email": "ana@example.org", "grace_days": 30
        }),
        sample!("users.html", ["name=\"q\"", "/admin/users/"], {
            "users": [user()], "next": "/admin/users?cursor=x", "q": "ana", "role": "user", "status": "active",
            "roles": ["admin", "user"], "may_invite": true
        }),
        sample!("invite.html", ["name=\"email\"", "name=\"roles\""], { "roles": [role.clone()] }),
        sample!("user.html", ["name=\"roles\"", "name=\"status\"", "/sessions\""], {
            "user": user(), "roles": [role], "sessions": [device()], "entries": [entry()], "proves": "roles",
            "may": { "write": true, "assign": true, "delete": true }
        }),
        sample!("delete_user.html", ["/delete\""], { "user": user() }),
        sample!("mails.html", ["/retry\""], {
            "mails": [mail], "status": "dead", "statuses": ["queued", "sent", "dead", "void"],
            "next": "/admin/mails?cursor=x"
        }),
        sample!("audit.html", ["name=\"event\""], {
            "entries": [entry()], "event": "sign_in", "events": ["sign_in"], "user_id": "",
            "next": "/admin/audit?cursor=x"
        }),
        sample!("error.html", [], {
            "title": "Not found", "detail": "There is nothing here.", "request_id": "x", "wait": 5
        }),
    ]
}
