//! Passwords: codes and links that set one, and changing it.

use http::StatusCode;
use serde::Deserialize;
use usermgr_core::flow::change_password::ChangePassword;
use usermgr_core::flow::set_password::{PasswordSet, SetWithCode};
use usermgr_core::{Code, CodePurpose, LinkToken, Password};
use utoipa::ToSchema;

use crate::http::Call;
use crate::http::answer::{Answer, CodeSentAnswer, SessionAnswer, code_sent};
use crate::http::authorization::{caller, caller_if_any};
use crate::http::body::json;
use crate::http::openapi::{Operation, Tag, fields};
use crate::http::problem::Problem;

pub(super) const TAG: Tag = ("Passwords", "Codes and links that set a password, and changing it.");

/// Reads a purpose by name; the fault names the field, not the value.
fn purpose(name: &str) -> Result<CodePurpose, Problem> {
    name.parse().map_err(|_| Problem::field("purpose", "invalid"))
}

/// Who needs a code, and what for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RequestCode, examples(json!({"email": "ana@example.org", "purpose": "reset_password"})))]
struct RequestCodeBody {
    #[schema(value_type = fields::Email)]
    email: String,
    #[schema(value_type = fields::Purpose)]
    purpose: String,
}

pub(super) fn request_code_operation() -> Operation {
    Operation::new(TAG, "request_code", "Ask for a code")
        .says(
            "`change_password` needs an access token of that user. A code for a change of address comes by \
             `POST /users/me/email`.",
        )
        .bearer()
        .or_anonymous()
        .takes::<RequestCodeBody>()
        .answers::<CodeSentAnswer>(StatusCode::ACCEPTED, "If there is something to send, it is on its way.")
        .refuses(&["forbidden", "rate_limited"])
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

/// A code and the password it is to set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SetPasswordWithCode)]
struct SetWithCodeBody {
    #[schema(value_type = fields::Email)]
    email: String,
    #[serde(alias = "code")]
    #[schema(value_type = fields::Code)]
    verification_code: Code,
    #[schema(value_type = fields::NewPassword)]
    new_password: Password,
    #[schema(value_type = fields::Password)]
    confirmation_password: Password,
    /// What the code was asked for; without it, any that sets a password.
    #[schema(value_type = Option<fields::Purpose>)]
    purpose: Option<String>,
}

pub(super) fn set_with_code_operation() -> Operation {
    Operation::new(TAG, "set_password_with_code", "Set a password by a code")
        .says("Verifies the address too. Every other session of the user ends.")
        .takes::<SetWithCodeBody>()
        .or_named::<SetWithCodeBody>("verification_code", "code")
        .answers::<SessionAnswer<'_>>(StatusCode::OK, "The password is set, and one is signed in.")
        .answers_nothing(
            "The password is set, and nobody is signed in: `passwords.sign_in_after_set` is false, or the host refuses \
             it.",
        )
        .refuses(&["invalid_code", "code_expired", "too_many_attempts", "overloaded"])
}

pub(super) async fn set_with_code(call: &Call<'_>) -> Result<Answer, Problem> {
    let SetWithCodeBody { email, verification_code, new_password, confirmation_password, purpose: name } =
        json(call.headers, &call.body)?;
    let purpose = name.as_deref().map(purpose).transpose()?;
    let request =
        SetWithCode { email, code: verification_code, new_password, confirmation_password, purpose };
    Ok(match call.manager.passwords().set_with_code(request, &call.client).await? {
        PasswordSet::SignedIn(signed_in) => Answer::json(StatusCode::OK, SessionAnswer::from(&*signed_in)),
        PasswordSet::Set(_) => Answer::empty(StatusCode::NO_CONTENT),
    })
}

/// Who forgot the password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ForgotPassword)]
struct ForgotBody {
    #[schema(value_type = fields::Email)]
    email: String,
}

pub(super) fn forgot_operation() -> Operation {
    Operation::new(TAG, "forgot_password", "Ask for a link that sets a password")
        .says("The link begins with `http.public_url` and carries its token in the fragment.")
        .takes::<ForgotBody>()
        .answers::<CodeSentAnswer>(StatusCode::ACCEPTED, "If there is something to send, it is on its way.")
        .refuses(&["rate_limited"])
}

pub(super) async fn forgot(call: &Call<'_>) -> Result<Answer, Problem> {
    let ForgotBody { email } = json(call.headers, &call.body)?;
    Ok(code_sent(call.manager.passwords().forgot(&email, &call.client).await?))
}

/// A link's token and the password it is to set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ResetPassword)]
struct ResetBody {
    #[schema(value_type = fields::LinkToken)]
    token: LinkToken,
    #[schema(value_type = fields::NewPassword)]
    new_password: Password,
    #[schema(value_type = fields::Password)]
    confirmation_password: Password,
}

pub(super) fn reset_operation() -> Operation {
    Operation::new(TAG, "reset_password", "Set a password by a link")
        .says("Once. Every session of the user ends.")
        .takes::<ResetBody>()
        .answers_nothing("The password is set.")
        .refuses(&["invalid_link", "overloaded"])
}

pub(super) async fn reset(call: &Call<'_>) -> Result<Answer, Problem> {
    let ResetBody { token, new_password, confirmation_password } = json(call.headers, &call.body)?;
    call.manager.passwords().reset(&token, &new_password, &confirmation_password, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

/// The password in force and the one that is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangePassword)]
#[expect(clippy::struct_field_names, reason = "the names of the interface")]
struct ChangeBody {
    #[schema(value_type = fields::Password)]
    current_password: Password,
    #[schema(value_type = fields::NewPassword)]
    new_password: Password,
    #[schema(value_type = fields::Password)]
    confirmation_password: Password,
}

pub(super) fn change_operation() -> Operation {
    Operation::new(TAG, "change_password", "Change one's password")
        .says("Every other session ends, and a notice is mailed.")
        .bearer()
        .takes::<ChangeBody>()
        .answers_nothing("The password is changed.")
        .refuses(&["invalid_credentials", "too_many_attempts", "rate_limited", "overloaded"])
}

pub(super) async fn change(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let ChangeBody { current_password, new_password, confirmation_password } =
        json(call.headers, &call.body)?;
    let request = ChangePassword { current_password, new_password, confirmation_password };
    call.manager.passwords().change(&caller, request, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}
