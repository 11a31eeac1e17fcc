//! Health, and the keys that verify tokens.

use http::StatusCode;
use serde_json::json;

use crate::http::Call;
use crate::http::answer::Answer;
use crate::http::problem::Problem;

pub(super) fn live() -> Answer {
    Answer::json(StatusCode::OK, json!({ "status": "live" }))
}

pub(super) async fn ready(call: &Call<'_>) -> Result<Answer, Problem> {
    match call.manager.ping().await {
        Ok(()) => Ok(Answer::json(StatusCode::OK, json!({ "status": "ready" }))),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            Err(Problem::unavailable())
        }
    }
}

pub(super) async fn jwks(call: &Call<'_>) -> Result<Answer, Problem> {
    Ok(Answer::json(StatusCode::OK, call.manager.jwks().await?).cached("public, max-age=300"))
}
