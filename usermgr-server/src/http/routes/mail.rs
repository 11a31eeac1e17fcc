//! What a mail service tells us.

use http::StatusCode;

use crate::http::Call;
use crate::http::answer::Answer;
use crate::http::problem::Problem;

/// The answer does not tell whose addresses there are, nor which were marked.
pub(super) async fn callback(call: &Call<'_>) -> Result<Answer, Problem> {
    // A value that is no text is none that anybody signed.
    let headers =
        call.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default()));
    call.manager.mail_callbacks().receive(headers, &call.body, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}
