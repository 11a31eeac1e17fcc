//! Signing in and out, and the devices one is signed in on.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use usermgr_core::{Password, RefreshToken};

use crate::http::Call;
use crate::http::answer::{Answer, session, session_item};
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefreshBody {
    refresh_token: RefreshToken,
}

pub(super) async fn refresh(call: &Call<'_>) -> Result<Answer, Problem> {
    let RefreshBody { refresh_token } = json(call.headers, &call.body)?;
    let renewed = call.manager.sessions().refresh(&refresh_token, &call.client).await?;
    Ok(Answer::json(StatusCode::OK, session(&renewed)))
}

pub(super) async fn logout(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    call.manager.sessions().logout(&caller, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn list(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let sessions = call.manager.sessions().list(&caller).await?;
    let items: Vec<Value> = sessions.iter().map(|item| session_item(item, caller.session.id)).collect();
    Ok(Answer::json(StatusCode::OK, json!({ "items": items })))
}

pub(super) async fn end(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    call.manager.sessions().end(&caller, call.id()?, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn end_others(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    call.manager.sessions().end_others(&caller, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}
