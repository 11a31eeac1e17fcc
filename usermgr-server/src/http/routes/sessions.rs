//! Signing in and out.

use http::StatusCode;
use serde::Deserialize;
use usermgr_core::Password;

use crate::http::Call;
use crate::http::answer::{Answer, session};
use crate::http::authorization::{basic, caller};
use crate::http::body::json;
use crate::http::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginBody {
    email: String,
    password: Password,
}

pub(super) async fn login(call: &Call<'_>) -> Result<Answer, Problem> {
    let (email, password) = if let Some(credentials) = basic(call.headers)? {
        credentials
    } else {
        let LoginBody { email, password } = json(call.headers, &call.body)?;
        (email, password)
    };
    let signed_in = call.manager.sessions().login(&email, &password, &call.client).await?;
    Ok(Answer::json(StatusCode::OK, session(&signed_in)))
}

pub(super) async fn logout(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    call.manager.sessions().logout(&caller, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}
