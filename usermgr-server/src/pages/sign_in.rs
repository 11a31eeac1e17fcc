//! Signing in and out.

use http::Method;
use serde_json::{Value, json};
use usermgr_core::Password;

use super::cookies::{Change, Notice};
use super::form::FormState;
use super::reply::Reply;
use super::routes::{page_of_form, safe_next};
use super::visit::Visit;
use crate::http::problem::Problem;

const TEMPLATE: &str = "sign_in.html";

pub(super) fn home(visit: &Visit<'_>) -> Reply {
    Reply::see_other(if visit.caller.is_some() { "/account" } else { "/sign-in" })
}

fn values(visit: &Visit<'_>, next: &str) -> Value {
    json!({ "next": safe_next(next), "open": visit.manager.policies().registration.enabled })
}

pub(super) fn show(visit: &Visit<'_>) -> Reply {
    let next = visit.query.text("next");
    if visit.caller.is_some() {
        return Reply::see_other(safe_next(next).unwrap_or_else(|| "/account".to_owned()));
    }
    let form = FormState::with([("email", visit.carried.email.as_deref().unwrap_or_default())]);
    Reply::form(TEMPLATE, &form, values(visit, next))
}

/// Asks whoever is not signed in to do so, and leads back to where they wanted to go: a form is not sent again.
pub(super) fn ask(visit: &Visit<'_>, method: &Method) -> Reply {
    let wanted = if matches!(*method, Method::GET | Method::HEAD) {
        let query =
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(visit.query.pairs()).finish();
        if query.is_empty() { visit.path.to_owned() } else { format!("{}?{query}", visit.path) }
    } else {
        page_of_form(visit.path)
    };
    match safe_next(&wanted).filter(|next| next != "/account") {
        Some(next) => {
            let query =
                url::form_urlencoded::Serializer::new(String::new()).append_pair("next", &next).finish();
            Reply::see_other(format!("/sign-in?{query}"))
        }
        None => Reply::see_other("/sign-in"),
    }
}

/// # Security
/// ASVS 7.2.4: the session that the browser had before ends.
pub(super) async fn enter(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let (email, next) = (visit.form.text("email"), visit.form.text("next"));
    let password = Password::new(visit.form.text("password"));
    let sessions = visit.manager.sessions();
    match sessions.login(email, &password, &visit.client).await {
        Ok(signed_in) => {
            if let Some(before) = &visit.caller {
                sessions.logout(before, &visit.client).await?;
            }
            let to = safe_next(next).unwrap_or_else(|| "/account".to_owned());
            let forget = Change::Carried(super::cookies::Carried::default());
            Ok(Reply::see_other(to).changing(Change::SignedIn(Box::new(signed_in))).changing(forget))
        }
        Err(error) => {
            let form = FormState::with([("email", email)]);
            visit.again(TEMPLATE, form, (error, None), values(visit, next))
        }
    }
}

pub(super) async fn leave(visit: &Visit<'_>) -> Result<Reply, Problem> {
    if let Some(caller) = &visit.caller {
        visit.manager.sessions().logout(caller, &visit.client).await?;
    }
    Ok(Reply::see_other("/sign-in").changing(Change::SignedOut).saying(Notice::SignedOut))
}
