//! Health, and the keys that verify tokens.

use http::StatusCode;

use crate::http::Call;
use crate::http::answer::{Answer, HealthAnswer, JsonWebKeySet};
use crate::http::openapi::{Operation, Tag};
use crate::http::problem::Problem;

pub(super) const TAG: Tag = ("Operations", "Health, keys and this document. Not under the base path.");

pub(super) fn live_operation() -> Operation {
    Operation::new(TAG, "live", "Ask whether the program answers")
        .answers::<HealthAnswer>(StatusCode::OK, "It does.")
        .reads_nothing()
}

pub(super) fn live() -> Answer {
    Answer::json(StatusCode::OK, HealthAnswer { status: "live" })
}

pub(super) fn ready_operation() -> Operation {
    Operation::new(TAG, "ready", "Ask whether requests can be served")
        .answers::<HealthAnswer>(StatusCode::OK, "The store is reachable and migrated.")
}

pub(super) async fn ready(call: &Call<'_>) -> Result<Answer, Problem> {
    match call.manager.ping().await {
        Ok(()) => Ok(Answer::json(StatusCode::OK, HealthAnswer { status: "ready" })),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            Err(Problem::unavailable())
        }
    }
}

pub(super) fn jwks_operation() -> Operation {
    Operation::new(TAG, "jwks", "Read the keys that verify access tokens")
        .says("May be kept for five minutes. Empty with opaque tokens and with HS256.")
        .answers::<JsonWebKeySet>(StatusCode::OK, "The public keys.")
}

pub(super) async fn jwks(call: &Call<'_>) -> Result<Answer, Problem> {
    Ok(Answer::json(StatusCode::OK, call.manager.jwks().await?).cached("public, max-age=300"))
}
