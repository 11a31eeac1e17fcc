//! Changing one's address, and undoing it from the old one.

use serde_json::{Value, json};
use usermgr_core::{Code, LinkToken, Password};

use super::cookies::{Carried, Change, Notice};
use super::form::FormState;
use super::reply::Reply;
use super::visit::Visit;
use crate::http::problem::Problem;

const TEMPLATE: &str = "email.html";
const CODE_TEMPLATE: &str = "email_code.html";
const UNDO_TEMPLATE: &str = "undo_email.html";

fn values(visit: &Visit<'_>) -> Result<Value, Problem> {
    Ok(json!({ "email": visit.caller()?.user.email.as_str() }))
}

pub(super) fn show(visit: &Visit<'_>) -> Result<Reply, Problem> {
    Ok(Reply::form(TEMPLATE, &FormState::default(), values(visit)?))
}

pub(super) async fn begin(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let new_email = visit.form.text("new_email");
    let password = Password::new(visit.form.text("password"));
    let account = visit.manager.account();
    match account.request_email_change(visit.caller()?, new_email, Some(&password), &visit.client).await {
        Ok(_) => Ok(Reply::see_other("/account/email/code")
            .carrying(Carried { email: Some(new_email.to_owned()), ..Carried::default() })),
        Err(error) => {
            let form = FormState::with([("new_email", new_email)]);
            visit.again(TEMPLATE, form, (error, Some("password")), values(visit)?)
        }
    }
}

fn code_values(visit: &Visit<'_>) -> Value {
    let digits = visit.manager.policies().codes.length.digits();
    json!({ "new_email": visit.carried.email, "code_length": digits })
}

pub(super) fn show_code(visit: &Visit<'_>) -> Result<Reply, Problem> {
    visit.caller()?;
    Ok(Reply::form(CODE_TEMPLATE, &FormState::default(), code_values(visit)))
}

pub(super) async fn finish(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let code = Code::new(visit.form.text("code"));
    match visit.manager.account().confirm_email_change(visit.caller()?, &code, &visit.client).await {
        Ok(_) => Ok(Reply::see_other("/account/email").saying(Notice::EmailChanged)),
        Err(error) => visit.again(CODE_TEMPLATE, FormState::default(), (error, None), code_values(visit)),
    }
}

pub(super) fn show_undo() -> Reply {
    Reply::form(UNDO_TEMPLATE, &FormState::default(), json!({ "token": "" }))
}

/// Every session of the account has ended by it, this browser's, too, if it was one of them.
pub(super) async fn undo(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let token = visit.form.text("token");
    match visit.manager.account().undo_email_change(&LinkToken::new(token), &visit.client).await {
        Ok(()) => Ok(Reply::see_other("/sign-in").changing(Change::SignedOut).saying(Notice::EmailUndone)),
        Err(error) => {
            let values = json!({ "token": token });
            visit.again(UNDO_TEMPLATE, FormState::default(), (error, None), values)
        }
    }
}
