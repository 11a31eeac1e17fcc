//! Users, roles, the audit log, owed mails and the feed of events, for those whose roles permit it.

use http::StatusCode;
use serde::Deserialize;
use usermgr_core::Password;
use usermgr_core::domain::json::JsonObject;
use usermgr_core::domain::role::{Permission, Roles};
use usermgr_core::domain::user::UserStatus;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::update_user::UpdateUser;
use usermgr_core::flow::users::CreateUser;
use usermgr_core::port::store::account::{RolesChange, UserQuery};
use usermgr_core::port::store::audit::AuditQuery;
use usermgr_core::port::store::event::{EventFeed, EventQuery};
use usermgr_core::port::store::outbox::OutboxQuery;
use utoipa::ToSchema;

use crate::http::Call;
use crate::http::answer::{
    Answer, AuditAnswer, EventItem, List, OutboxAnswer, Page, QueuedAnswer, RoleAnswer, UserAnswer, page,
};
use crate::http::authorization::caller;
use crate::http::body::{json, nullable};
use crate::http::openapi::{Operation, Parameter, Tag, fields};
use crate::http::problem::Problem;
use crate::http::query::{Query, id_cursor, user_cursor};

pub(super) const TAG: Tag =
    ("Administration", "Users, roles, the audit log, owed mails and the feed of events, for those who may.");

pub(super) fn list_operation() -> Operation {
    Operation::new(TAG, "list_users", "List users")
        .permitted(&Permission::USERS_READ)
        .query(Parameter::of::<fields::Search>(
            "q",
            "What the address or the name begins with, whatever the case.",
        ))
        .query(Parameter::of::<fields::RoleName>("role", "Who have this role."))
        .query(Parameter::of::<fields::UserStatus>("status", "Who are in this status."))
        .paged::<fields::UserCursor>()
        .answers::<Page<UserAnswer<'_>>>(StatusCode::OK, "A page of users.")
}

pub(super) async fn list(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let mut query = Query::read(call.query)?;
    let wanted = UserQuery {
        prefix: query.text("q"),
        role: query.parsed("role")?,
        status: query.parsed("status")?,
        after: query.user_cursor()?,
        size: query.limit()?,
    };
    query.finish()?;
    let found = call.manager.users().list(Principal::User(&caller), wanted, &call.client).await?;
    Ok(page(found.items.iter().map(UserAnswer::from), found.next.as_ref().map(user_cursor)))
}

pub(super) fn get_operation() -> Operation {
    Operation::new(TAG, "get_user", "Read a user")
        .permitted(&Permission::USERS_READ)
        .answers::<UserAnswer<'_>>(StatusCode::OK, "The user.")
}

pub(super) async fn get(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let found = call.manager.users().get(Principal::User(&caller), call.id()?, &call.client).await?;
    Ok(Answer::json(StatusCode::OK, UserAnswer::from(&found)))
}

/// Who is invited.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Invite, examples(json!({"email": "ana@example.org", "roles": ["user"]})))]
struct InviteBody {
    #[schema(value_type = fields::Email)]
    email: String,
    #[schema(value_type = Option<fields::Username>)]
    username: Option<String>,
    #[schema(value_type = Option<fields::Locale>)]
    locale: Option<String>,
    #[schema(value_type = Option<fields::NewProfile>)]
    profile: Option<JsonObject>,
    /// The role `user` comes by itself.
    #[schema(value_type = Option<Vec<fields::DefinedRole>>)]
    roles: Option<Vec<String>>,
}

pub(super) fn invite_operation() -> Operation {
    Operation::new(TAG, "invite_user", "Invite a user")
        .says("Makes a user without a password and mails a code to set the first one (`first_time_setup`).")
        .says("With roles other than `user`, needs a recent sign-in (`sessions.step_up_age`).")
        .permitted(&Permission::USERS_WRITE)
        .takes::<InviteBody>()
        .answers::<UserAnswer<'_>>(StatusCode::CREATED, "The user, who has no password yet.")
        .refuses(&["email_taken", "reauthentication_required", "overloaded"])
}

pub(super) async fn invite(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let InviteBody { email, username, locale, profile, roles: names } = json(call.headers, &call.body)?;
    let roles = roles(&names.unwrap_or_default())?;
    let request = CreateUser { username, locale, profile, roles, ..CreateUser::new(email) };
    let invited = call.manager.users().create(Principal::User(&caller), request, &call.client).await?;
    Ok(Answer::json(StatusCode::CREATED, UserAnswer::from(&invited)))
}

/// What is to be changed; what is missing stays, what is null is removed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UpdateUser)]
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
    /// Null changes nothing.
    #[schema(value_type = Option<fields::UserStatus>)]
    status: Option<String>,
}

pub(super) fn update_operation() -> Operation {
    Operation::new(TAG, "update_user", "Change a user")
        .says("Who is disabled is signed out everywhere. The last administrator who can sign in stays.")
        .says("With `status`, needs a recent sign-in (`sessions.step_up_age`).")
        .permitted(&Permission::USERS_WRITE)
        .takes::<UpdateBody>()
        .answers::<UserAnswer<'_>>(StatusCode::OK, "The user as it is now.")
        .refuses(&["last_admin", "reauthentication_required"])
}

pub(super) async fn update(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let UpdateBody { username, locale, profile, status } = json(call.headers, &call.body)?;
    let status: Option<UserStatus> =
        status.map(|status| status.parse()).transpose().map_err(|_| Problem::field("status", "invalid"))?;
    let request = UpdateUser { username, locale, profile, status };
    let by = Principal::User(&caller);
    let updated = call.manager.users().update(by, call.id()?, request, &call.client).await?;
    Ok(Answer::json(StatusCode::OK, UserAnswer::from(&updated)))
}

/// The roles that are to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SetRoles, examples(json!({"roles": ["user", "admin"]})))]
struct RolesBody {
    #[schema(value_type = Vec<fields::DefinedRole>)]
    roles: Vec<String>,
    /// The password of who asks.
    #[schema(value_type = Option<fields::Password>)]
    password: Option<Password>,
}

pub(super) fn set_roles_operation() -> Operation {
    Operation::new(TAG, "set_roles", "Set a user's roles")
        .says("Needs a recent sign-in (`sessions.step_up_age`) or the current password of who asks along.")
        .permitted(&Permission::ROLES_ASSIGN)
        .takes::<RolesBody>()
        .answers::<UserAnswer<'_>>(StatusCode::OK, "The user as it is now.")
        .refuses(&[
            "reauthentication_required",
            "invalid_credentials",
            "too_many_attempts",
            "last_admin",
            "overloaded",
        ])
}

pub(super) async fn set_roles(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let RolesBody { roles: names, password } = json(call.headers, &call.body)?;
    let change = RolesChange::Set(roles(&names)?);
    let by = Principal::User(&caller);
    let users = call.manager.users();
    let changed = users.change_roles(by, call.id()?, change, password.as_ref(), &call.client).await?;
    Ok(Answer::json(StatusCode::OK, UserAnswer::from(&changed)))
}

fn roles(names: &[String]) -> Result<Roles, Problem> {
    let read = names.iter().map(|name| name.parse()).collect::<Result<_, _>>();
    read.map_err(|_| Problem::field("roles", "invalid"))
}

pub(super) fn delete_operation() -> Operation {
    Operation::new(TAG, "delete_user", "Delete a user")
        .says("The user is purged after a grace period. The last administrator who can sign in stays.")
        .after_recent_sign_in()
        .permitted(&Permission::USERS_DELETE)
        .answers_nothing("The user is deleted.")
        .refuses(&["last_admin"])
}

pub(super) async fn delete(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    call.manager.users().delete(Principal::User(&caller), call.id()?, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

pub(super) fn end_sessions_operation() -> Operation {
    Operation::new(TAG, "end_user_sessions", "Sign a user out everywhere")
        .after_recent_sign_in()
        .permitted(&Permission::USERS_WRITE)
        .answers_nothing("The sessions are over.")
}

pub(super) async fn end_sessions(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    call.manager.users().end_sessions(Principal::User(&caller), call.id()?, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

pub(super) fn list_roles_operation() -> Operation {
    Operation::new(TAG, "list_roles", "List roles")
        .permitted(&Permission::USERS_READ)
        .answers::<List<RoleAnswer<'_>>>(StatusCode::OK, "The roles that there are.")
}

pub(super) async fn list_roles(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let all = call.manager.users().roles(Principal::User(&caller), &call.client).await?;
    let items = all.iter().map(|(name, permissions)| RoleAnswer::new(name, permissions)).collect();
    Ok(Answer::json(StatusCode::OK, List { items }))
}

pub(super) fn audit_operation() -> Operation {
    Operation::new(TAG, "list_audit", "Read the audit log")
        .says("Newest first.")
        .permitted(&Permission::AUDIT_READ)
        .query(Parameter::of::<fields::Id>("user_id", "What was done to this user."))
        .query(Parameter::of::<fields::AuditEventName>("event", "What was done."))
        .query(Parameter::of::<fields::Time>("since", "From this time on."))
        .paged::<fields::Cursor>()
        .answers::<Page<AuditAnswer<'_>>>(StatusCode::OK, "A page of the log.")
}

pub(super) async fn audit(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let mut query = Query::read(call.query)?;
    let wanted = AuditQuery {
        subject: query.parsed("user_id")?,
        event: query.event()?,
        since: query.time("since")?,
        after: query.id_cursor()?,
        size: query.limit()?,
    };
    query.finish()?;
    let found = call.manager.users().audit(Principal::User(&caller), wanted, &call.client).await?;
    let next = found.next.map(|next| id_cursor(next.as_uuid()));
    Ok(page(found.items.iter().map(AuditAnswer::from), next))
}

pub(super) fn outbox_operation() -> Operation {
    Operation::new(TAG, "list_outbox", "List mails that are or were owed")
        .says("Newest first.")
        .permitted(&Permission::OUTBOX_MANAGE)
        .query(Parameter::of::<fields::OutboxStatus>("status", "Those in this status."))
        .paged::<fields::Cursor>()
        .answers::<Page<OutboxAnswer<'_>>>(StatusCode::OK, "A page of mails.")
}

pub(super) async fn outbox(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let mut query = Query::read(call.query)?;
    let wanted = OutboxQuery {
        user: None,
        status: query.outbox_status()?,
        after: query.id_cursor()?,
        size: query.limit()?,
    };
    query.finish()?;
    let found = call.manager.users().outbox(Principal::User(&caller), wanted, &call.client).await?;
    let next = found.next.map(|next| id_cursor(next.as_uuid()));
    Ok(page(found.items.iter().map(OutboxAnswer::from), next))
}

pub(super) fn events_operation() -> Operation {
    Operation::new(TAG, "list_events", "Read the feed of events")
        .says(
            "In order. Remember `next_cursor` and send it as `after`: nothing is skipped. It is never null; when there \
             is nothing new, the page is empty.",
        )
        .permitted(&Permission::EVENTS_READ)
        .query(Parameter::of::<fields::EventPosition>("after", "The position after which to begin."))
        .query(Parameter::limit())
        .answers::<Page<EventItem>>(StatusCode::OK, "A page of events.")
        .refuses(&["events_gone"])
}

pub(super) async fn events(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let mut query = Query::read(call.query)?;
    let wanted = EventQuery { after: query.parsed("after")?, size: query.limit()? };
    query.finish()?;
    match call.manager.users().events(Principal::User(&caller), wanted, &call.client).await? {
        EventFeed::Page { events, next } => {
            Ok(page(events.into_iter().map(EventItem), Some(next.to_string())))
        }
        EventFeed::Gap { resume_after } => Err(Problem::events_gone(resume_after)),
    }
}

pub(super) fn retry_mail_operation() -> Operation {
    Operation::new(TAG, "retry_mail", "Send a dead mail again")
        .permitted(&Permission::OUTBOX_MANAGE)
        .answers::<QueuedAnswer>(StatusCode::ACCEPTED, "It is due.")
}

pub(super) async fn retry_mail(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    call.manager.users().retry_mail(Principal::User(&caller), call.id()?, &call.client).await?;
    Ok(Answer::json(StatusCode::ACCEPTED, QueuedAnswer { status: "queued" }))
}
