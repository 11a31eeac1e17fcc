//! First-time setup: who was invited enters the code from the mail and chooses a password.

use serde_json::{Value, json};
use usermgr_core::flow::set_password::{PasswordSet, SetWithCode};
use usermgr_core::{Code, CodePurpose, Password};

use super::cookies::{Carried, Change, Notice};
use super::form::FormState;
use super::reply::Reply;
use super::visit::Visit;
use crate::http::problem::Problem;

const TEMPLATE: &str = "first_time_setup.html";

fn values(visit: &Visit<'_>, resend_after: i64) -> Value {
    let policies = visit.manager.policies();
    json!({
        "min_length": policies.passwords.min_length, "code_length": policies.codes.length.digits(),
        "resend_after": resend_after,
    })
}

pub(super) fn show(visit: &Visit<'_>) -> Reply {
    let form = FormState::with([("email", visit.carried.email.as_deref().unwrap_or_default())]);
    Reply::form(TEMPLATE, &form, values(visit, visit.resend_after()))
}

pub(super) async fn finish(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let email = visit.form.text("email");
    let request = SetWithCode {
        email: email.to_owned(),
        code: Code::new(visit.form.text("code")),
        new_password: Password::new(visit.form.text("new_password")),
        confirmation_password: Password::new(visit.form.text("confirmation_password")),
        purpose: Some(CodePurpose::FirstTimeSetup),
    };
    match visit.manager.passwords().set_with_code(request, &visit.client).await {
        Ok(PasswordSet::SignedIn(signed_in)) => {
            let forget = Change::Carried(Carried::default());
            Ok(Reply::see_other("/account").changing(Change::SignedIn(signed_in)).changing(forget))
        }
        Ok(PasswordSet::Set(_)) => Ok(Reply::see_other("/sign-in")
            .carrying(Carried { email: Some(email.to_owned()), ..Carried::notice(Notice::PasswordSet) })),
        Err(error) => {
            let form = FormState::with([("email", email)]);
            visit.again(TEMPLATE, form, (error, None), values(visit, visit.resend_after()))
        }
    }
}

pub(super) async fn resend(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let email = visit.form.text("email");
    let passwords = visit.manager.passwords();
    match passwords.request_code(email, CodePurpose::FirstTimeSetup, None, &visit.client).await {
        Ok(sent) => Ok(Reply::see_other("/first-time-setup").carrying(Carried {
            email: Some(email.to_owned()),
            resend_at: Some(visit.later(sent.resend_after)),
            ..Carried::notice(Notice::CodeSent)
        })),
        Err(error) => {
            let form = FormState::with([("email", email)]);
            visit.again(TEMPLATE, form, (error, None), values(visit, 0))
        }
    }
}
