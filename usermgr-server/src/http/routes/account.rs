//! One's own account.

use http::StatusCode;
use serde::Deserialize;
use usermgr_core::domain::json::JsonObject;
use usermgr_core::flow::update_user::UpdateUser;
use usermgr_core::{Code, LinkToken, Password};
use utoipa::ToSchema;

use crate::http::Call;
use crate::http::answer::{Answer, CodeSentAnswer, ExportAnswer, UserAnswer, code_sent};
use crate::http::authorization::caller;
use crate::http::body::{json, json_if_any, nullable};
use crate::http::openapi::{Operation, Parameter, Tag, fields};
use crate::http::problem::Problem;
use crate::http::query::Query;

pub(super) const TAG: Tag = ("Account", "One's own account.");

/// What proves anew who one is, where the sign-in is long ago.
const STEP_UP: &str = "Needs a recent sign-in (`sessions.step_up_age`) or the current password along.";

pub(super) fn me_operation() -> Operation {
    Operation::new(TAG, "me", "Read one's account")
        .bearer()
        .answers::<UserAnswer<'_>>(StatusCode::OK, "One's account.")
}

pub(super) async fn me(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    Ok(Answer::json(StatusCode::OK, UserAnswer::from(&caller.user)))
}

/// What is to be changed; what is missing stays, what is null is removed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UpdateMe)]
#[expect(clippy::option_option, reason = "missing, null, or a value")]
struct UpdateBody {
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<fields::Username>)]
    username: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<fields::Locale>)]
    locale: Option<Option<String>>,
    /// Replaces the one before as a whole.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<fields::NewProfile>)]
    profile: Option<Option<JsonObject>>,
}

pub(super) fn update_operation() -> Operation {
    Operation::new(TAG, "update_me", "Change one's name, language and profile")
        .bearer()
        .takes::<UpdateBody>()
        .answers::<UserAnswer<'_>>(StatusCode::OK, "The account as it is now.")
        .refuses(&["rate_limited"])
}

pub(super) async fn update(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let UpdateBody { username, locale, profile } = json(call.headers, &call.body)?;
    let request = UpdateUser { username, locale, profile, status: None };
    let updated = call.manager.account().update(&caller, request, &call.client).await?;
    Ok(Answer::json(StatusCode::OK, UserAnswer::from(&updated)))
}

/// The current password, where it is needed.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeleteMe)]
struct DeleteBody {
    #[schema(value_type = Option<fields::Password>)]
    password: Option<Password>,
}

pub(super) fn delete_operation() -> Operation {
    Operation::new(TAG, "delete_me", "Delete one's account")
        .says(STEP_UP)
        .bearer()
        .may_take::<DeleteBody>()
        .answers_nothing("The account is deleted, and purged after a grace period.")
        .refuses(&[
            "reauthentication_required",
            "invalid_credentials",
            "too_many_attempts",
            "rate_limited",
            "last_admin",
            "overloaded",
        ])
}

pub(super) async fn delete(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let DeleteBody { password } = json_if_any(call.headers, &call.body)?;
    call.manager.account().delete(&caller, password.as_ref(), &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

/// The address that is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangeEmail)]
struct ChangeEmailBody {
    #[schema(value_type = fields::Email)]
    new_email: String,
    #[schema(value_type = Option<fields::Password>)]
    password: Option<Password>,
}

pub(super) fn request_email_change_operation() -> Operation {
    Operation::new(TAG, "change_email", "Ask for a change of one's address")
        .says("A code goes to the new address and a notice to the old one.")
        .says(STEP_UP)
        .bearer()
        .takes::<ChangeEmailBody>()
        .answers::<CodeSentAnswer>(StatusCode::ACCEPTED, "If there is something to send, it is on its way.")
        .refuses(&[
            "reauthentication_required",
            "invalid_credentials",
            "too_many_attempts",
            "refused",
            "rate_limited",
            "overloaded",
        ])
}

pub(super) async fn request_email_change(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let ChangeEmailBody { new_email, password } = json(call.headers, &call.body)?;
    let account = call.manager.account();
    Ok(code_sent(account.request_email_change(&caller, &new_email, password.as_ref(), &call.client).await?))
}

/// The code that went to the new address.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConfirmEmail)]
struct ConfirmBody {
    #[serde(alias = "verification_code")]
    #[schema(value_type = fields::Code)]
    code: Code,
}

pub(super) fn confirm_email_change_operation() -> Operation {
    Operation::new(TAG, "confirm_email", "Change one's address")
        .bearer()
        .takes::<ConfirmBody>()
        .or_named::<ConfirmBody>("code", "verification_code")
        .answers::<UserAnswer<'_>>(StatusCode::OK, "The account as it is now.")
        .refuses(&["invalid_code", "code_expired", "too_many_attempts"])
}

pub(super) async fn confirm_email_change(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let ConfirmBody { code } = json(call.headers, &call.body)?;
    let changed = call.manager.account().confirm_email_change(&caller, &code, &call.client).await?;
    Ok(Answer::json(StatusCode::OK, UserAnswer::from(&changed)))
}

/// The token of the link in the notice.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UndoEmailChange)]
struct UndoBody {
    #[schema(value_type = fields::LinkToken)]
    token: LinkToken,
}

pub(super) fn undo_email_change_operation() -> Operation {
    Operation::new(TAG, "undo_email_change", "Take back a change of address")
        .says("By the link that went to the old address. Every session of the user ends.")
        .takes::<UndoBody>()
        .answers_nothing("The old address is in force again.")
        .refuses(&["invalid_link"])
}

pub(super) async fn undo_email_change(call: &Call<'_>) -> Result<Answer, Problem> {
    let UndoBody { token } = json(call.headers, &call.body)?;
    call.manager.account().undo_email_change(&token, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

pub(super) fn take_along_operation() -> Operation {
    Operation::new(TAG, "export_me", "Export my data")
        .says(
            "Everything but secrets, in parts of at most 1,000 entries of each list, newest first: send `next_cursor` as \
             `cursor` until it is null. Sessions are in the first part. An export can be begun five times an hour, and \
             one part is read at a time.",
        )
        .bearer()
        .query(Parameter::of::<fields::ExportCursor>("cursor", "`next_cursor` of the part before."))
        .answers::<ExportAnswer<'_>>(StatusCode::OK, "A part of the export.")
        .refuses(&["rate_limited"])
}

pub(super) async fn take_along(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let mut query = Query::read(call.query)?;
    let cursor = query.export_cursor()?;
    query.finish()?;
    let account = call.manager.account();
    let held = match cursor {
        None => account.export(&caller, &call.client).await?,
        Some(after) => account.export_rest(&caller, after).await?,
    };
    Ok(Answer::json(StatusCode::OK, ExportAnswer::new(&held, caller.session.id)))
}
