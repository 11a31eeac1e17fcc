//! One's own account.

use http::StatusCode;
use serde::Deserialize;
use usermgr_core::flow::update_user::UpdateUser;
use usermgr_core::{Code, LinkToken, Password};

use crate::http::Call;
use crate::http::answer::{Answer, code_sent, export, user};
use crate::http::authorization::caller;
use crate::http::body::{json, json_if_any, nullable};
use crate::http::problem::Problem;

pub(super) async fn me(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    Ok(Answer::json(StatusCode::OK, user(&caller.user)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::option_option, reason = "missing, null, or a text")]
struct UpdateBody {
    #[serde(default, deserialize_with = "nullable")]
    username: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    locale: Option<Option<String>>,
}

pub(super) async fn update(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let UpdateBody { username, locale } = json(call.headers, &call.body)?;
    let request = UpdateUser { username, locale, status: None };
    let updated = call.manager.account().update(&caller, request, &call.client).await?;
    Ok(Answer::json(StatusCode::OK, user(&updated)))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct DeleteBody {
    password: Option<Password>,
}

pub(super) async fn delete(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let DeleteBody { password } = json_if_any(call.headers, &call.body)?;
    call.manager.account().delete(&caller, password.as_ref(), &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeEmailBody {
    new_email: String,
    password: Option<Password>,
}

pub(super) async fn request_email_change(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let ChangeEmailBody { new_email, password } = json(call.headers, &call.body)?;
    let account = call.manager.account();
    Ok(code_sent(account.request_email_change(&caller, &new_email, password.as_ref(), &call.client).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfirmBody {
    #[serde(alias = "verification_code")]
    code: Code,
}

pub(super) async fn confirm_email_change(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let ConfirmBody { code } = json(call.headers, &call.body)?;
    let changed = call.manager.account().confirm_email_change(&caller, &code, &call.client).await?;
    Ok(Answer::json(StatusCode::OK, user(&changed)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UndoBody {
    token: LinkToken,
}

pub(super) async fn undo_email_change(call: &Call<'_>) -> Result<Answer, Problem> {
    let UndoBody { token } = json(call.headers, &call.body)?;
    call.manager.account().undo_email_change(&token, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn take_along(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let held = call.manager.account().export(&caller, &call.client).await?;
    Ok(Answer::json(StatusCode::OK, export(&held, caller.session.id)))
}
