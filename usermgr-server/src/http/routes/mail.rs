//! What a mail service tells us.

use http::StatusCode;

use serde::Deserialize;
use utoipa::ToSchema;

use crate::http::Call;
use crate::http::answer::Answer;
use crate::http::openapi::{Operation, Tag, fields};
use crate::http::problem::Problem;

pub(super) const TAG: Tag = ("Mail", "What a mail service tells us.");

/// Addresses that bounced or complained. The core reads it; `docs/mail-callbacks.md` says more.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MailCallback)]
#[expect(dead_code, reason = "describes what the core reads")]
struct CallbackBody {
    events: Vec<CallbackEvent>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MailCallbackEvent)]
#[expect(dead_code, reason = "describes what the core reads")]
struct CallbackEvent {
    #[schema(value_type = fields::UndeliverableReason)]
    r#type: String,
    /// The address; what is none is passed over.
    email: String,
    message_id: Option<String>,
    #[schema(value_type = Option<fields::Time>)]
    at: Option<String>,
}

pub(super) fn callback_operation() -> Operation {
    Operation::new(TAG, "mail_callback", "Tell of bounces and complaints")
        .says(
            "For a mail service that knows `mail.callback_secret`; without one there is no such path. Signed as \
             Standard Webhooks are, by the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`.",
        )
        .takes_signed::<CallbackBody>()
        .answers_nothing("Taken. It does not tell whose addresses there are.")
        .refuses(&["not_found"])
}

/// The answer does not tell whose addresses there are, nor which were marked.
pub(super) async fn callback(call: &Call<'_>) -> Result<Answer, Problem> {
    // A value that is no text is none that anybody signed.
    let headers =
        call.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default()));
    call.manager.mail_callbacks().receive(headers, &call.body, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}
