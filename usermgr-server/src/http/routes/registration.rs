//! Registration and verification.

use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use usermgr_core::flow::register::Register;
use usermgr_core::flow::set_password::SetWithCode;
use usermgr_core::flow::verify_email::{Activate, Verify};
use usermgr_core::{Code, Error, Password, RegistrationToken};

use crate::http::Call;
use crate::http::answer::{Answer, code_sent, session, user};
use crate::http::authorization::basic;
use crate::http::body::json;
use crate::http::problem::{Challenge, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegisterBody {
    email: String,
    password: Password,
    confirmation_password: Option<Password>,
    username: Option<String>,
    locale: Option<String>,
}

pub(super) async fn register(call: &Call<'_>) -> Result<Answer, Problem> {
    let RegisterBody { email, password, confirmation_password, username, locale } =
        json(call.headers, &call.body)?;
    let request = Register { email, password, confirmation_password, username, locale };
    let accepted = call.manager.registration().register(request, &call.client).await?;
    let body = json!({
        "status": "verification_required",
        "registration_id": accepted.registration.expose(),
        "code_ttl": accepted.code_ttl.as_secs(),
        "resend_after": accepted.resend_after.as_secs(),
    });
    Ok(Answer::json(StatusCode::ACCEPTED, body))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyBody {
    email: String,
    #[serde(alias = "verification_code")]
    code: Code,
    registration_id: Option<RegistrationToken>,
    password: Option<Password>,
}

pub(super) async fn verify(call: &Call<'_>) -> Result<Answer, Problem> {
    let VerifyBody { email, code, registration_id, password } = json(call.headers, &call.body)?;
    let request = Verify { email, code, registration: registration_id, password };
    let verified = call.manager.registration().verify(request, &call.client).await?;
    Ok(Answer::json(StatusCode::OK, json!({ "user": user(&verified) })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActivateBody {
    #[serde(alias = "verification_code")]
    code: Code,
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
    Ok(Answer::json(StatusCode::OK, json!({ "user": user(&activated) })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResendBody {
    email: String,
    registration_id: Option<RegistrationToken>,
}

pub(super) async fn resend_code(call: &Call<'_>) -> Result<Answer, Problem> {
    let ResendBody { email, registration_id } = json(call.headers, &call.body)?;
    let sent = call.manager.registration().resend(&email, registration_id.as_ref(), &call.client).await?;
    Ok(code_sent(sent))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetPasswordBody {
    email: String,
    #[serde(alias = "code")]
    verification_code: Code,
    new_password: Password,
    confirmation_password: Password,
}

pub(super) async fn set_password_with_email_code(call: &Call<'_>) -> Result<Answer, Problem> {
    let SetPasswordBody { email, verification_code, new_password, confirmation_password } =
        json(call.headers, &call.body)?;
    let request =
        SetWithCode { email, code: verification_code, new_password, confirmation_password, purpose: None };
    let signed_in = call.manager.passwords().set_with_email_code(request, &call.client).await?;
    Ok(Answer::json(StatusCode::OK, session(&signed_in)))
}
