//! Passwords: codes and links that set one, and changing it.

use http::StatusCode;
use serde::Deserialize;
use usermgr_core::flow::change_password::ChangePassword;
use usermgr_core::flow::set_password::{PasswordSet, SetWithCode};
use usermgr_core::{Code, CodePurpose, LinkToken, Password};

use crate::http::Call;
use crate::http::answer::{Answer, code_sent, session};
use crate::http::authorization::{caller, caller_if_any};
use crate::http::body::json;
use crate::http::problem::Problem;

/// Reads a purpose by name; the fault names the field, not the value.
fn purpose(name: &str) -> Result<CodePurpose, Problem> {
    name.parse().map_err(|_| Problem::field("purpose", "invalid"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestCodeBody {
    email: String,
    purpose: String,
}

pub(super) async fn request_code(call: &Call<'_>) -> Result<Answer, Problem> {
    let body: RequestCodeBody = json(call.headers, &call.body)?;
    let purpose = purpose(&body.purpose)?;
    // Only the one purpose that needs a caller looks at the token.
    let caller = if purpose == CodePurpose::ChangePassword { caller_if_any(call).await? } else { None };
    let passwords = call.manager.passwords();
    let sent = passwords.request_code(&body.email, purpose, caller.as_ref(), &call.client).await?;
    Ok(code_sent(sent))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetWithCodeBody {
    email: String,
    #[serde(alias = "code")]
    verification_code: Code,
    new_password: Password,
    confirmation_password: Password,
    purpose: Option<String>,
}

pub(super) async fn set_with_code(call: &Call<'_>) -> Result<Answer, Problem> {
    let SetWithCodeBody { email, verification_code, new_password, confirmation_password, purpose: name } =
        json(call.headers, &call.body)?;
    let purpose = name.as_deref().map(purpose).transpose()?;
    let request =
        SetWithCode { email, code: verification_code, new_password, confirmation_password, purpose };
    Ok(match call.manager.passwords().set_with_code(request, &call.client).await? {
        PasswordSet::SignedIn(signed_in) => Answer::json(StatusCode::OK, session(&signed_in)),
        PasswordSet::Set(_) => Answer::empty(StatusCode::NO_CONTENT),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForgotBody {
    email: String,
}

pub(super) async fn forgot(call: &Call<'_>) -> Result<Answer, Problem> {
    let ForgotBody { email } = json(call.headers, &call.body)?;
    Ok(code_sent(call.manager.passwords().forgot(&email, &call.client).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetBody {
    token: LinkToken,
    new_password: Password,
    confirmation_password: Password,
}

pub(super) async fn reset(call: &Call<'_>) -> Result<Answer, Problem> {
    let ResetBody { token, new_password, confirmation_password } = json(call.headers, &call.body)?;
    call.manager.passwords().reset(&token, &new_password, &confirmation_password, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the names of the interface")]
struct ChangeBody {
    current_password: Password,
    new_password: Password,
    confirmation_password: Password,
}

pub(super) async fn change(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let ChangeBody { current_password, new_password, confirmation_password } =
        json(call.headers, &call.body)?;
    let request = ChangePassword { current_password, new_password, confirmation_password };
    call.manager.passwords().change(&caller, request, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}
