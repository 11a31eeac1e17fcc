//! Registration and verification.

use http::StatusCode;
use serde::Deserialize;
use usermgr_core::domain::json::JsonObject;
use usermgr_core::flow::register::Register;
use usermgr_core::flow::set_password::SetWithCode;
use usermgr_core::flow::verify_email::{Activate, Verify};
use usermgr_core::{Code, Error, Password, RegistrationToken};
use utoipa::ToSchema;

use crate::http::Call;
use crate::http::answer::{AcceptedAnswer, Answer, CodeSentAnswer, SessionAnswer, VerifiedAnswer, code_sent};
use crate::http::authorization::basic;
use crate::http::body::json;
use crate::http::openapi::{Operation, Tag, fields};
use crate::http::problem::{Challenge, Language, Problem};

pub(super) const TAG: Tag = ("Registration", "A new account, by a code that is mailed.");

/// Who registers.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Register, examples(json!({"email": "ana@example.org", "password": "correct horse battery"})))]
struct RegisterBody {
    #[schema(value_type = fields::Email)]
    email: String,
    #[schema(value_type = fields::NewPassword)]
    password: Password,
    /// The password again, where somebody typed it twice.
    #[schema(value_type = Option<fields::Password>)]
    confirmation_password: Option<Password>,
    #[schema(value_type = Option<fields::Username>)]
    username: Option<String>,
    #[schema(value_type = Option<fields::Locale>)]
    locale: Option<String>,
    #[schema(value_type = Option<fields::NewProfile>)]
    profile: Option<JsonObject>,
    #[schema(value_type = Option<fields::Extra>)]
    extra: Option<JsonObject>,
}

pub(super) fn register_operation() -> Operation {
    Operation::new(TAG, "register", "Register")
        .says(
            "Mails a code. Registrations of one address stand side by side, each with its own code; keep \
             `registration_id` to finish this one. The answer is the same for an address that has an account: its \
             owner is told by mail. Without `locale` the language of `Accept-Language` is taken, if it is `en` or `es`.",
        )
        .takes::<RegisterBody>()
        .answers::<AcceptedAnswer<'_>>(StatusCode::ACCEPTED, "The registration waits for its code.")
        .refuses(&["registration_closed", "refused", "email_taken", "rate_limited", "overloaded"])
}

pub(super) async fn register(call: &Call<'_>) -> Result<Answer, Problem> {
    let RegisterBody { email, password, confirmation_password, username, locale, profile, extra } =
        json(call.headers, &call.body)?;
    let accepted = || Language::accepted(call.headers).map(|language| language.tag().to_owned());
    let locale = locale.or_else(accepted);
    let request = Register { email, password, confirmation_password, username, locale, profile, extra };
    let accepted = call.manager.registration().register(request, &call.client).await?;
    Ok(Answer::json(StatusCode::ACCEPTED, AcceptedAnswer::from(&accepted)))
}

/// Who has got a code.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Verify, examples(json!({"email": "ana@example.org", "code": "123456"})))]
struct VerifyBody {
    #[schema(value_type = fields::Email)]
    email: String,
    #[serde(alias = "verification_code")]
    #[schema(value_type = fields::Code)]
    code: Code,
    #[schema(value_type = Option<fields::RegistrationToken>)]
    registration_id: Option<RegistrationToken>,
    #[schema(value_type = Option<fields::Password>)]
    password: Option<Password>,
}

pub(super) fn verify_operation() -> Operation {
    Operation::new(TAG, "verify", "Verify an address")
        .says(
            "Makes the account of the registration that the code belongs to, or marks a user's address as verified. \
             While other registrations of the address have a live code, say which one is meant: by `registration_id` \
             or by its `password`.",
        )
        .takes::<VerifyBody>()
        .or_named::<VerifyBody>("code", "verification_code")
        .answers::<VerifiedAnswer<'_>>(StatusCode::OK, "The address is verified.")
        .refuses(&["invalid_code", "code_expired", "registration_ambiguous", "too_many_attempts", "overloaded"])
}

pub(super) async fn verify(call: &Call<'_>) -> Result<Answer, Problem> {
    let VerifyBody { email, code, registration_id, password } = json(call.headers, &call.body)?;
    let request = Verify { email, code, registration: registration_id, password };
    let verified = call.manager.registration().verify(request, &call.client).await?;
    Ok(Answer::json(StatusCode::OK, VerifiedAnswer::from(&verified)))
}

/// A code alone.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Activate)]
struct ActivateBody {
    #[serde(alias = "verification_code")]
    #[schema(value_type = fields::Code)]
    code: Code,
}

pub(super) fn activate_operation() -> Operation {
    Operation::new(TAG, "activate", "Verify an address, with Basic credentials")
        .says(
            "As `POST /users/verify`; the password must be that registration's. The right password of an account whose \
             address is verified already is answered with 409.",
        )
        .basic()
        .takes::<ActivateBody>()
        .or_named::<ActivateBody>("code", "verification_code")
        .answers::<VerifiedAnswer<'_>>(StatusCode::OK, "The address is verified.")
        .refuses(&["invalid_code", "code_expired", "already_verified", "too_many_attempts", "overloaded"])
}

pub(super) async fn activate(call: &Call<'_>) -> Result<Answer, Problem> {
    let credentials = basic(call.headers)?;
    let refused = || Problem::from(Error::InvalidCredentials).challenged(Challenge::Basic);
    let (email, password) = credentials.ok_or_else(refused)?;
    let ActivateBody { code } = json(call.headers, &call.body)?;
    let request = Activate { email, password, code };
    let activated = call
        .manager
        .registration()
        .activate(request, &call.client)
        .await
        .map_err(|error| Problem::from(error).challenged(Challenge::Basic))?;
    Ok(Answer::json(StatusCode::OK, VerifiedAnswer::from(&activated)))
}

/// Who waits for a code.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ResendCode, examples(json!({"email": "ana@example.org"})))]
struct ResendBody {
    #[schema(value_type = fields::Email)]
    email: String,
    #[schema(value_type = Option<fields::RegistrationToken>)]
    registration_id: Option<RegistrationToken>,
}

pub(super) fn resend_code_operation() -> Operation {
    Operation::new(TAG, "resend_code", "Ask for another code")
        .says("A new code voids the older one of the same registration.")
        .takes::<ResendBody>()
        .answers::<CodeSentAnswer>(StatusCode::ACCEPTED, "If there is something to send, it is on its way.")
        .refuses(&["rate_limited"])
}

pub(super) async fn resend_code(call: &Call<'_>) -> Result<Answer, Problem> {
    let ResendBody { email, registration_id } = json(call.headers, &call.body)?;
    let sent = call.manager.registration().resend(&email, registration_id.as_ref(), &call.client).await?;
    Ok(code_sent(sent))
}

/// A code of an e-mail verification, and a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SetPasswordWithEmailCode)]
struct SetPasswordBody {
    #[schema(value_type = fields::Email)]
    email: String,
    #[serde(alias = "code")]
    #[schema(value_type = fields::Code)]
    verification_code: Code,
    #[schema(value_type = fields::NewPassword)]
    new_password: Password,
    #[schema(value_type = fields::Password)]
    confirmation_password: Password,
}

pub(super) fn set_password_with_email_code_operation() -> Operation {
    Operation::new(TAG, "set_password_with_email_code", "Set a password by a code of e-mail verification")
        .says(
            "Verifies the address and signs in. Where the host refuses the sign-in (`refused`), the password is set all \
             the same.",
        )
        .takes::<SetPasswordBody>()
        .or_named::<SetPasswordBody>("verification_code", "code")
        .answers::<SessionAnswer<'_>>(StatusCode::OK, "Signed in.")
        .refuses(&["refused", "invalid_code", "code_expired", "too_many_attempts", "overloaded"])
}

pub(super) async fn set_password_with_email_code(call: &Call<'_>) -> Result<Answer, Problem> {
    let SetPasswordBody { email, verification_code, new_password, confirmation_password } =
        json(call.headers, &call.body)?;
    let request =
        SetWithCode { email, code: verification_code, new_password, confirmation_password, purpose: None };
    let signed_in = call.manager.passwords().set_with_email_code(request, &call.client).await?;
    Ok(Answer::json(StatusCode::OK, SessionAnswer::from(&signed_in)))
}
