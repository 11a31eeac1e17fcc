//! Users, roles, the audit log, owed mails and the feed of events, for those whose roles permit it.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use usermgr_core::Password;
use usermgr_core::domain::role::Roles;
use usermgr_core::domain::user::UserStatus;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::update_user::UpdateUser;
use usermgr_core::flow::users::CreateUser;
use usermgr_core::port::store::account::{RolesChange, UserQuery};
use usermgr_core::port::store::audit::AuditQuery;
use usermgr_core::port::store::event::{EventFeed, EventQuery};
use usermgr_core::port::store::outbox::OutboxQuery;

use crate::http::Call;
use crate::http::answer::{Answer, audit_entry, outbox_entry, page, role, user};
use crate::http::authorization::caller;
use crate::http::body::{json, nullable};
use crate::http::problem::Problem;
use crate::http::query::{Query, id_cursor, user_cursor};

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
    Ok(page(found.items.iter().map(user), found.next.as_ref().map(user_cursor).as_deref()))
}

pub(super) async fn get(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let found = call.manager.users().get(Principal::User(&caller), call.id()?, &call.client).await?;
    Ok(Answer::json(StatusCode::OK, user(&found)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InviteBody {
    email: String,
    username: Option<String>,
    locale: Option<String>,
    roles: Option<Vec<String>>,
}

pub(super) async fn invite(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let InviteBody { email, username, locale, roles: names } = json(call.headers, &call.body)?;
    let roles = roles(&names.unwrap_or_default())?;
    let request = CreateUser { username, locale, roles, ..CreateUser::new(email) };
    let invited = call.manager.users().create(Principal::User(&caller), request, &call.client).await?;
    Ok(Answer::json(StatusCode::CREATED, user(&invited)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::option_option, reason = "missing, null, or a text")]
struct UpdateBody {
    #[serde(default, deserialize_with = "nullable")]
    username: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    locale: Option<Option<String>>,
    status: Option<String>,
}

pub(super) async fn update(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let UpdateBody { username, locale, status } = json(call.headers, &call.body)?;
    let status: Option<UserStatus> =
        status.map(|status| status.parse()).transpose().map_err(|_| Problem::field("status", "invalid"))?;
    let request = UpdateUser { username, locale, status };
    let by = Principal::User(&caller);
    let updated = call.manager.users().update(by, call.id()?, request, &call.client).await?;
    Ok(Answer::json(StatusCode::OK, user(&updated)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RolesBody {
    roles: Vec<String>,
    password: Option<Password>,
}

pub(super) async fn set_roles(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let RolesBody { roles: names, password } = json(call.headers, &call.body)?;
    let change = RolesChange::Set(roles(&names)?);
    let by = Principal::User(&caller);
    let users = call.manager.users();
    let changed = users.change_roles(by, call.id()?, change, password.as_ref(), &call.client).await?;
    Ok(Answer::json(StatusCode::OK, user(&changed)))
}

fn roles(names: &[String]) -> Result<Roles, Problem> {
    let read = names.iter().map(|name| name.parse()).collect::<Result<_, _>>();
    read.map_err(|_| Problem::field("roles", "invalid"))
}

pub(super) async fn delete(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    call.manager.users().delete(Principal::User(&caller), call.id()?, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn end_sessions(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    call.manager.users().end_sessions(Principal::User(&caller), call.id()?, &call.client).await?;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn list_roles(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let all = call.manager.users().roles(Principal::User(&caller), &call.client).await?;
    let items: Vec<Value> = all.iter().map(|(name, permissions)| role(name, permissions)).collect();
    Ok(Answer::json(StatusCode::OK, json!({ "items": items })))
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
    Ok(page(found.items.iter().map(audit_entry), next.as_deref()))
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
    Ok(page(found.items.iter().map(outbox_entry), next.as_deref()))
}

pub(super) async fn events(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    let mut query = Query::read(call.query)?;
    let wanted = EventQuery { after: query.parsed("after")?, size: query.limit()? };
    query.finish()?;
    match call.manager.users().events(Principal::User(&caller), wanted, &call.client).await? {
        EventFeed::Page { events, next } => {
            let items = events.iter().map(|event| json!(event));
            Ok(page(items, Some(next.to_string().as_str())))
        }
        EventFeed::Gap { resume_after } => Err(Problem::events_gone(resume_after)),
    }
}

pub(super) async fn retry_mail(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    call.manager.users().retry_mail(Principal::User(&caller), call.id()?, &call.client).await?;
    Ok(Answer::json(StatusCode::ACCEPTED, json!({ "status": "queued" })))
}
