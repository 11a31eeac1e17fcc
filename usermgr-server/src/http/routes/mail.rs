//! What a mail service tells us.

use http::StatusCode;
use usermgr_core::crypto::webhook::SignedWebhook;

use crate::http::Call;
use crate::http::answer::Answer;
use crate::http::problem::Problem;

/// The answer does not tell whose addresses there are, nor which were marked.
pub(super) async fn callback(call: &Call<'_>) -> Result<Answer, Problem> {
    let header =
        |name: &str| call.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let webhook = SignedWebhook {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signatures: header("webhook-signature"),
        body: &call.body,
    };
    call.manager.mail_callbacks().receive(webhook, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}
