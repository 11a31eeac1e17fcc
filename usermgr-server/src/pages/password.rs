//! Changing one's password.

use serde_json::{Value, json};
use usermgr_core::Password;
use usermgr_core::flow::change_password::ChangePassword;

use super::cookies::Notice;
use super::form::FormState;
use super::reply::Reply;
use super::visit::Visit;
use crate::http::problem::Problem;

const TEMPLATE: &str = "password.html";

fn values(visit: &Visit<'_>) -> Result<Value, Problem> {
    let min_length = visit.manager.policies().passwords.min_length;
    Ok(json!({ "email": visit.caller()?.user.email.as_str(), "min_length": min_length }))
}

pub(super) fn show(visit: &Visit<'_>) -> Result<Reply, Problem> {
    Ok(Reply::form(TEMPLATE, &FormState::default(), values(visit)?))
}

pub(super) async fn change(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let request = ChangePassword {
        current_password: Password::new(visit.form.text("current_password")),
        new_password: Password::new(visit.form.text("new_password")),
        confirmation_password: Password::new(visit.form.text("confirmation_password")),
    };
    match visit.manager.passwords().change(visit.caller()?, request, &visit.client).await {
        Ok(()) => Ok(Reply::see_other("/account/password").saying(Notice::PasswordChanged)),
        Err(error) => {
            visit.again(TEMPLATE, FormState::default(), (error, Some("current_password")), values(visit)?)
        }
    }
}
