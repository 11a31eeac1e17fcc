//! Signing up, and entering the code.

use serde_json::{Value, json};
use usermgr_core::flow::register::Register;
use usermgr_core::flow::verify_email::Verify;
use usermgr_core::{Code, Password, RegistrationToken};

use super::cookies::{Carried, Notice};
use super::form::{EXTRA, FormState, PROFILE};
use super::reply::Reply;
use super::visit::Visit;
use crate::http::problem::Problem;

const TEMPLATE: &str = "sign_up.html";
const CODE_TEMPLATE: &str = "sign_up_code.html";

fn values(visit: &Visit<'_>) -> Value {
    let policies = visit.manager.policies();
    json!({ "open": policies.registration.enabled, "min_length": policies.passwords.min_length })
}

pub(super) fn show(visit: &Visit<'_>) -> Reply {
    if visit.caller.is_some() {
        return Reply::see_other("/account");
    }
    Reply::form(TEMPLATE, &FormState::default(), values(visit))
}

pub(super) async fn begin(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let (email, username) = (visit.form.text("email"), visit.form.text("username"));
    let request = Register {
        username: visit.form.optional("username"),
        locale: Some(visit.language.tag().to_owned()),
        profile: visit.form.object(PROFILE),
        extra: visit.form.object(EXTRA),
        ..Register::new(email, visit.form.text("password"))
    };
    match visit.manager.registration().register(request, &visit.client).await {
        Ok(accepted) => Ok(Reply::see_other("/sign-up/code").carrying(Carried {
            email: Some(email.to_owned()),
            registration: Some(accepted.registration.expose().to_owned()),
            resend_at: Some(visit.later(accepted.resend_after)),
            ..Carried::default()
        })),
        Err(error) => {
            let form = FormState::with([("email", email), ("username", username)]);
            let form = form.and_hosts_fields(&visit.form);
            visit.again(TEMPLATE, form, (error, None), values(visit))
        }
    }
}

fn code_values(visit: &Visit<'_>, registration: Option<&str>, resend_after: i64) -> Value {
    let digits = visit.manager.policies().codes.length.digits();
    json!({ "registration": registration, "resend_after": resend_after, "code_length": digits })
}

/// The registration is the one that this form names: what another tab began meanwhile is another's.
pub(super) fn show_code(visit: &Visit<'_>) -> Reply {
    if visit.caller.is_some() {
        return Reply::see_other("/account");
    }
    let form = FormState::with([("email", visit.carried.email.as_deref().unwrap_or_default())]);
    let registration = visit.carried.registration.as_deref();
    Reply::form(CODE_TEMPLATE, &form, code_values(visit, registration, visit.resend_after()))
}

/// # Security
/// A code never completes a registration that was begun elsewhere: the form names its registration, or the visitor
/// proves theirs by its password.
pub(super) async fn finish(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let (email, registration) = (visit.form.text("email"), visit.form.optional("registration_id"));
    let password = registration.is_none().then(|| Password::new(visit.form.text("password")));
    let request = Verify {
        email: email.to_owned(),
        code: Code::new(visit.form.text("code")),
        registration: registration.as_deref().map(RegistrationToken::new),
        password,
    };
    match visit.manager.registration().verify(request, &visit.client).await {
        Ok(_) => Ok(Reply::see_other("/sign-in")
            .carrying(Carried { email: Some(email.to_owned()), ..Carried::notice(Notice::AccountReady) })),
        Err(error) => {
            let values = code_values(visit, registration.as_deref(), visit.resend_after());
            visit.again(CODE_TEMPLATE, FormState::with([("email", email)]), (error, None), values)
        }
    }
}

pub(super) async fn resend(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let (email, registration) = (visit.form.text("email"), visit.form.optional("registration_id"));
    let token = registration.as_deref().map(RegistrationToken::new);
    match visit.manager.registration().resend(email, token.as_ref(), &visit.client).await {
        Ok(sent) => Ok(Reply::see_other("/sign-up/code").carrying(Carried {
            email: Some(email.to_owned()),
            registration,
            resend_at: Some(visit.later(sent.resend_after)),
            notice: Some(Notice::CodeSent),
        })),
        Err(error) => {
            let wait = error.retry_after().map_or(0, |wait| i64::try_from(wait.as_secs()).unwrap_or(0) + 1);
            let values = code_values(visit, registration.as_deref(), wait);
            visit.again(CODE_TEMPLATE, FormState::with([("email", email)]), (error, None), values)
        }
    }
}
