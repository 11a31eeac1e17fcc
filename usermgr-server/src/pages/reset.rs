//! A forgotten password: asking for a link, and setting another by it.

use serde_json::{Value, json};
use usermgr_core::{LinkToken, Password};

use super::cookies::{Carried, Notice};
use super::form::FormState;
use super::reply::Reply;
use super::visit::Visit;
use crate::http::problem::Problem;

const FORGOT_TEMPLATE: &str = "forgot.html";
const SENT_TEMPLATE: &str = "forgot_sent.html";
const TEMPLATE: &str = "reset.html";

pub(super) fn show_forgot() -> Reply {
    Reply::form(FORGOT_TEMPLATE, &FormState::default(), json!({}))
}

pub(super) async fn send(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let email = visit.form.text("email");
    match visit.manager.passwords().forgot(email, &visit.client).await {
        Ok(sent) => Ok(Reply::see_other("/forgot-password/sent").carrying(Carried {
            email: Some(email.to_owned()),
            resend_at: Some(visit.later(sent.resend_after)),
            ..Carried::default()
        })),
        Err(error) => {
            visit.again(FORGOT_TEMPLATE, FormState::with([("email", email)]), (error, None), json!({}))
        }
    }
}

pub(super) fn sent(visit: &Visit<'_>) -> Reply {
    Reply::page(SENT_TEMPLATE, json!({ "email": visit.carried.email, "resend_after": visit.resend_after() }))
}

fn values(visit: &Visit<'_>, token: &str) -> Value {
    json!({ "token": token, "min_length": visit.manager.policies().passwords.min_length })
}

pub(super) fn show(visit: &Visit<'_>) -> Reply {
    Reply::form(TEMPLATE, &FormState::default(), values(visit, ""))
}

pub(super) async fn set(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let token = visit.form.text("token");
    let new = Password::new(visit.form.text("new_password"));
    let again = Password::new(visit.form.text("confirmation_password"));
    let link = LinkToken::new(token);
    match visit.manager.passwords().reset(&link, &new, &again, &visit.client).await {
        Ok(()) => Ok(Reply::see_other("/sign-in").saying(Notice::PasswordSet)),
        Err(error) => visit.again(TEMPLATE, FormState::default(), (error, None), values(visit, token)),
    }
}
