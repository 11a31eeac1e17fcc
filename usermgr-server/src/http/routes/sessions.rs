//! Signing in and out.

use http::StatusCode;
use serde::Deserialize;
use usermgr_core::Password;

use crate::http::Call;
use crate::http::answer::{Answer, session};
use crate::http::authorization::{basic, caller};
use crate::http::body::json;
use crate::http::problem::{Challenge, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginBody {
    email: String,
    password: Password,
}

pub(super) async fn login(call: &Call<'_>) -> Result<Answer, Problem> {
    // Who asked by JSON is not asked for Basic: a browser would cover the page's own form with its prompt.
    let (email, password, challenge) = if let Some((email, password)) = basic(call.headers)? {
        (email, password, Challenge::Basic)
    } else {
        let LoginBody { email, password } = json(call.headers, &call.body)?;
        (email, password, Challenge::Bearer)
    };
    let signed_in = call
        .manager
        .sessions()
        .login(&email, &password, &call.client)
        .await
        .map_err(|error| Problem::from(error).challenged(challenge))?;
    Ok(Answer::json(StatusCode::OK, session(&signed_in)))
}

pub(super) async fn logout(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    call.manager.sessions().logout(&caller, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}
