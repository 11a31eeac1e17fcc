//! Users, as an administrator sees them.

use serde_json::{Value, json};
use usermgr_core::domain::id::UserId;
use usermgr_core::domain::page::PageSize;
use usermgr_core::domain::role::{Permission, Role, Roles};
use usermgr_core::domain::user::UserStatus;
use usermgr_core::flow::update_user::UpdateUser;
use usermgr_core::flow::users::CreateUser;
use usermgr_core::port::store::account::{RolesChange, UserQuery};
use usermgr_core::port::store::audit::AuditQuery;
use usermgr_core::{Error, User};

use super::audit::entry;
use super::cookies::Notice;
use super::form::FormState;
use super::moment::{device, moment};
use super::reply::{Reply, with_form};
use super::visit::Visit;
use crate::http::problem::{Language, Problem};
use crate::http::query::{Query, user_cursor};

/// How many entries of the audit log stand on a user's page.
const LATEST_ENTRIES: u16 = 10;

const INVITE_TEMPLATE: &str = "invite.html";
const USER_TEMPLATE: &str = "user.html";
const DELETE_TEMPLATE: &str = "delete_user.html";

/// Leads to the first section that the visitor may read.
pub(super) async fn home(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let sections = [
        (Permission::USERS_READ, "/admin/users"),
        (Permission::OUTBOX_MANAGE, "/admin/mails"),
        (Permission::AUDIT_READ, "/admin/audit"),
    ];
    if let Some((_, path)) = sections.into_iter().find(|(permission, _)| visit.may(permission)) {
        return Ok(Reply::see_other(path));
    }
    visit.manager.require(visit.caller()?, &Permission::USERS_READ, &visit.client).await?;
    Err(Problem::from(Error::Forbidden))
}

fn shown(user: &User, language: Language) -> Value {
    json!({
        "id": user.id,
        "email": user.email.as_str(),
        "username": user.username.as_ref().map_or("", |name| name.as_str()),
        "roles": user.roles,
        "active": user.status == UserStatus::Active,
        "verified": user.email_verified(),
        "created": moment(user.created_at, language),
        "last_login": user.last_login_at.map(|at| moment(at, language)),
    })
}

/// The address of the next page of a list.
pub(super) fn next_page(path: &str, filters: &[(&str, &str)], cursor: Option<String>) -> Option<String> {
    let cursor = cursor?;
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(filters.iter().filter(|(_, value)| !value.is_empty()));
    Some(format!("{path}?{}", query.append_pair("cursor", &cursor).finish()))
}

pub(super) async fn list(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let mut query = Query::of(visit.query.filled())?;
    let wanted = UserQuery {
        prefix: query.text("q"),
        role: query.parsed("role")?,
        status: query.parsed("status")?,
        after: query.user_cursor()?,
        size: PageSize::default(),
    };
    let (by, users) = (visit.principal()?, visit.manager.users());
    let found = users.list(by, wanted, &visit.client).await?;
    let roles: Vec<Role> = users.roles(by, &visit.client).await?.into_keys().collect();
    let (q, role, status) = (visit.query.text("q"), visit.query.text("role"), visit.query.text("status"));
    let filters = [("q", q), ("role", role), ("status", status)];
    Ok(Reply::page(
        "users.html",
        json!({
            "users": found.items.iter().map(|user| shown(user, visit.language)).collect::<Vec<_>>(),
            "next": next_page("/admin/users", &filters, found.next.as_ref().map(user_cursor)),
            "q": q, "role": role, "status": status, "roles": roles,
            "may_invite": visit.may(&Permission::USERS_WRITE),
        }),
    ))
}

/// The roles that can be given, with those that are.
fn roles(visit: &Visit<'_>, given: &Roles) -> Vec<Value> {
    let all = visit.manager.policies().roles.all();
    let choices = all.iter().filter(|(role, _)| role.as_str() != Role::USER);
    choices
        .map(|(role, permissions)| {
            let permits: Vec<&str> = permissions.iter().map(Permission::as_str).collect();
            json!({ "name": role, "given": given.contains(role), "permits": permits.join(", ") })
        })
        .collect()
}

/// The roles that were ticked. Every user has `user`.
fn ticked(visit: &Visit<'_>) -> Result<Roles, Problem> {
    let named = visit.form.all("roles").map(str::parse).collect::<Result<Roles, _>>();
    let mut roles = named.map_err(|_| Problem::field("roles", "invalid"))?;
    roles.insert(Role::user());
    Ok(roles)
}

fn invite_values(visit: &Visit<'_>, given: &Roles) -> Value {
    let may_assign = visit.may(&Permission::ROLES_ASSIGN);
    json!({ "roles": if may_assign { roles(visit, given) } else { Vec::new() } })
}

pub(super) async fn show_invite(visit: &Visit<'_>) -> Result<Reply, Problem> {
    visit.manager.require(visit.caller()?, &Permission::USERS_WRITE, &visit.client).await?;
    Ok(Reply::form(INVITE_TEMPLATE, &FormState::default(), invite_values(visit, &Roles::new())))
}

pub(super) async fn invite(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let (email, username, locale) =
        (visit.form.text("email"), visit.form.text("username"), visit.form.text("locale"));
    let roles = ticked(visit)?;
    let password = visit.password();
    let request = CreateUser {
        username: visit.form.optional("username"),
        locale: visit.form.optional("locale"),
        roles: roles.clone(),
        ..CreateUser::new(email)
    };
    let by = visit.principal()?.with_password(password.as_ref());
    match visit.manager.users().create(by, request, &visit.client).await {
        Ok(user) => Ok(Reply::see_other(format!("/admin/users/{}", user.id)).saying(Notice::Invited)),
        Err(error) => {
            let form = FormState::with([("email", email), ("username", username), ("locale", locale)]);
            visit.again(INVITE_TEMPLATE, form, (error, Some("password")), invite_values(visit, &roles))
        }
    }
}

/// What a user's page shows. What the visitor may not read is left out.
async fn values(visit: &Visit<'_>, id: UserId) -> Result<Value, Problem> {
    let (by, users) = (visit.principal()?, visit.manager.users());
    let user = users.get(by, id, &visit.client).await?;
    let beyond = visit.manager.policies().roles.beyond(&visit.caller()?.user.roles);
    let sessions = if visit.may(&Permission::USERS_WRITE) && user.roles.is_disjoint(&beyond) {
        let sessions = users.sessions(by, id, &visit.client).await?;
        let shown = sessions.iter().map(|session| device(session, None, visit.pages, visit.language));
        Some(shown.collect::<Vec<_>>())
    } else {
        None
    };
    let entries = if visit.may(&Permission::AUDIT_READ) {
        let size = PageSize::new(LATEST_ENTRIES);
        let query = AuditQuery { subject: Some(id), size, ..AuditQuery::default() };
        let page = users.audit(by, query, &visit.client).await?;
        Some(page.items.iter().map(|item| entry(item, visit.language)).collect::<Vec<_>>())
    } else {
        None
    };
    Ok(json!({
        "user": shown(&user, visit.language),
        "roles": roles(visit, &user.roles),
        "sessions": sessions,
        "entries": entries,
        "proves": Value::Null,
        "may": {
            "write": visit.may(&Permission::USERS_WRITE),
            "assign": visit.may(&Permission::ROLES_ASSIGN),
            "delete": visit.may(&Permission::USERS_DELETE),
        },
    }))
}

pub(super) async fn show(visit: &Visit<'_>) -> Result<Reply, Problem> {
    Ok(Reply::form(USER_TEMPLATE, &FormState::default(), values(visit, visit.id()?).await?))
}

/// A form on a user's page that may ask for the password.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Roles,
    Status,
    Sessions,
}

impl Asked {
    /// Its name in the template.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Roles => "roles",
            Self::Status => "status",
            Self::Sessions => "sessions",
        }
    }
}

/// A user's page again, after a form on it was refused.
async fn again(visit: &Visit<'_>, id: UserId, asked: Asked, error: Error) -> Result<Reply, Problem> {
    let (mut form, problem) = FormState::default().refused(error, Some("password"), visit.language)?;
    let mut values = values(visit, id).await?;
    if (form.reauthenticate || form.faults.contains_key("password"))
        && let Value::Object(values) = &mut values
    {
        form.reauthenticate = true;
        values.insert("proves".into(), json!(asked.as_str()));
        // Where the roles are asked for again with the password, they stay as they were ticked.
        if asked == Asked::Roles {
            values.insert("roles".into(), json!(roles(visit, &ticked(visit)?)));
        }
    }
    Ok(Reply::refused(USER_TEMPLATE, with_form(&form, values), &problem))
}

fn done(id: UserId, notice: Notice) -> Reply {
    Reply::see_other(format!("/admin/users/{id}")).saying(notice)
}

pub(super) async fn set_roles(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let id = visit.id()?;
    let change = RolesChange::Set(ticked(visit)?);
    let password = visit.password();
    let users = visit.manager.users();
    match users.change_roles(visit.principal()?, id, change, password.as_ref(), &visit.client).await {
        Ok(_) => Ok(done(id, Notice::RolesSet)),
        Err(error) => again(visit, id, Asked::Roles, error).await,
    }
}

pub(super) async fn set_status(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let id = visit.id()?;
    let status = visit.form.text("status").parse().map_err(|_| Problem::field("status", "invalid"))?;
    let request = UpdateUser { status: Some(status), ..UpdateUser::default() };
    let password = visit.password();
    let by = visit.principal()?.with_password(password.as_ref());
    match visit.manager.users().update(by, id, request, &visit.client).await {
        Ok(_) => Ok(done(id, Notice::StatusSet)),
        Err(error) => again(visit, id, Asked::Status, error).await,
    }
}

pub(super) async fn end_sessions(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let id = visit.id()?;
    let password = visit.password();
    let by = visit.principal()?.with_password(password.as_ref());
    match visit.manager.users().end_sessions(by, id, &visit.client).await {
        Ok(_) => Ok(done(id, Notice::SessionsEnded)),
        Err(error) => again(visit, id, Asked::Sessions, error).await,
    }
}

async fn delete_values(visit: &Visit<'_>, id: UserId) -> Result<Value, Problem> {
    let user = visit.manager.users().get(visit.principal()?, id, &visit.client).await?;
    Ok(json!({ "user": shown(&user, visit.language) }))
}

pub(super) async fn confirm_delete(visit: &Visit<'_>) -> Result<Reply, Problem> {
    Ok(Reply::form(DELETE_TEMPLATE, &FormState::default(), delete_values(visit, visit.id()?).await?))
}

pub(super) async fn delete(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let id = visit.id()?;
    let password = visit.password();
    let by = visit.principal()?.with_password(password.as_ref());
    match visit.manager.users().delete(by, id, &visit.client).await {
        Ok(()) => Ok(Reply::see_other("/admin/users").saying(Notice::UserDeleted)),
        Err(error) => {
            let values = delete_values(visit, id).await?;
            visit.again(DELETE_TEMPLATE, FormState::default(), (error, Some("password")), values)
        }
    }
}
