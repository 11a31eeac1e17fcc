//! Signing in and out, and the devices one is signed in on.

use http::{StatusCode, header};
use serde::Deserialize;
use usermgr_core::{Error, Password, RefreshToken};
use utoipa::ToSchema;

use crate::http::Call;
use crate::http::answer::{Answer, List, SessionAnswer, SessionItem};
use crate::http::authorization::{basic, caller};
use crate::http::body::json;
use crate::http::openapi::{Operation, Tag, fields};
use crate::http::problem::{Challenge, Problem};

pub(super) const TAG: Tag = ("Sessions", "Signing in and out, and the devices one is signed in on.");

/// Who signs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Login)]
struct LoginBody {
    #[schema(value_type = fields::Email)]
    email: String,
    #[schema(value_type = fields::Password)]
    password: Password,
}

pub(super) fn login_operation() -> Operation {
    Operation::new(TAG, "login", "Sign in")
        .says(
            "By a body, or by Basic credentials and no body. One answer, after the same work, for an unknown address, \
             a wrong password, a registration that waits and a disabled account.",
        )
        .or_anonymous()
        .basic()
        .may_take::<LoginBody>()
        .answers::<SessionAnswer<'_>>(StatusCode::OK, "Signed in.")
        .refuses(&["refused", "too_many_attempts", "overloaded"])
}

pub(super) async fn login(call: &Call<'_>) -> Result<Answer, Problem> {
    // Who asked by JSON is not asked for Basic: a browser would cover the page's own form with its prompt.
    let (email, password, challenge) = if let Some((email, password)) = basic(call.headers)? {
        (email, password, Challenge::Basic)
    } else if call.body.is_empty() && !call.headers.contains_key(header::CONTENT_TYPE) {
        return Err(Problem::from(Error::InvalidCredentials).challenged(Challenge::Basic));
    } else {
        let LoginBody { email, password } = json(call.headers, &call.body)?;
        (email, password, Challenge::Bearer)
    };
    let sessions = call.manager.sessions();
    // Boxed, or its state would be held twice while hundreds wait for their hash.
    let signed_in = Box::pin(sessions.login(&email, &password, &call.client))
        .await
        .map_err(|error| Problem::from(error).challenged(challenge))?;
    Ok(Answer::json(StatusCode::OK, SessionAnswer::from(&signed_in)))
}

/// What renews a session.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Refresh)]
struct RefreshBody {
    #[schema(value_type = fields::RefreshToken)]
    refresh_token: RefreshToken,
}

pub(super) fn refresh_operation() -> Operation {
    Operation::new(TAG, "refresh", "Renew a session")
        .says("The answer has a new refresh token. One that was used up ends the whole session.")
        .takes::<RefreshBody>()
        .answers::<SessionAnswer<'_>>(StatusCode::OK, "Renewed.")
        .refuses(&["invalid_token", "session_ended", "rate_limited"])
}

pub(super) async fn refresh(call: &Call<'_>) -> Result<Answer, Problem> {
    let RefreshBody { refresh_token } = json(call.headers, &call.body)?;
    let renewed = call.manager.sessions().refresh(&refresh_token, &call.client).await?;
    Ok(Answer::json(StatusCode::OK, SessionAnswer::from(&renewed)))
}

pub(super) fn logout_operation() -> Operation {
    Operation::new(TAG, "logout", "Sign out").bearer().answers_nothing("The session is over.")
}

pub(super) async fn logout(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    call.manager.sessions().logout(&caller, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

pub(super) fn list_operation() -> Operation {
    Operation::new(TAG, "list_sessions", "List one's sessions")
        .says("The one that was renewed last first; at most 200.")
        .bearer()
        .answers::<List<SessionItem<'_>>>(StatusCode::OK, "The sessions that hold.")
}

pub(super) async fn list(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let sessions = call.manager.sessions().list(&caller).await?;
    let items = sessions.iter().map(|item| SessionItem::new(item, caller.session.id)).collect();
    Ok(Answer::json(StatusCode::OK, List { items }))
}

pub(super) fn end_operation() -> Operation {
    Operation::new(TAG, "end_session", "End one of one's sessions").bearer().answers_nothing("It is over.")
}

pub(super) async fn end(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    call.manager.sessions().end(&caller, call.id()?, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

pub(super) fn end_others_operation() -> Operation {
    Operation::new(TAG, "end_other_sessions", "End all of one's sessions but this one")
        .bearer()
        .answers_nothing("They are over.")
}

pub(super) async fn end_others(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    call.manager.sessions().end_others(&caller, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}
