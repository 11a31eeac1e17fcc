//! Registrations, users and their passwords.

use std::collections::BTreeMap;

use async_trait::async_trait;
use usermgr_core::domain::code::CodePurpose;
use usermgr_core::domain::email::EmailKey;
use usermgr_core::domain::id::UserId;
use usermgr_core::domain::page::Page;
use usermgr_core::domain::role::Roles;
use usermgr_core::domain::user::{User, UserStatus, Username};
use usermgr_core::port::store::account::{
    AccountStore, CreateUser, Credentials, CredentialsQuery, CredentialsView, DeleteUser,
    EmailChangeRequested, ImportUsers, ImportedUser, KnownNetwork, LimitsQuery, LimitsView, PasswordReplaced,
    Register, Registered, ReplacePassword, RequestEmailChange, UpdateUser, UserChange, UserCreated,
    UserCursor, UserDeleted, UserImported, UserQuery, UserUpdated, is_working_admin,
};
use usermgr_core::port::store::{Happened, StoreError};

use crate::FileStore;
use crate::database::Transaction;
use crate::rows::{CodeRow, Deleted, Owner, Receiver, RegistrationRow, SessionRow, UserRow};

#[async_trait]
impl AccountStore for FileStore {
    async fn register(&self, command: Register) -> Result<Registered, StoreError> {
        self.run(|tx| register(tx, command)).await
    }

    async fn limits(&self, query: LimitsQuery) -> Result<LimitsView, StoreError> {
        self.run(|tx| limits(tx, query)).await
    }

    async fn create_user(&self, command: CreateUser) -> Result<UserCreated, StoreError> {
        self.run(|tx| create_user(tx, command)).await
    }

    async fn credentials(&self, query: CredentialsQuery) -> Result<CredentialsView, StoreError> {
        self.run(|tx| credentials(tx, query)).await
    }

    async fn replace_password(&self, command: ReplacePassword) -> Result<PasswordReplaced, StoreError> {
        self.run(|tx| replace_password(tx, command)).await
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.run(move |tx| Ok(tx.live_user(id)?.map(|row| row.user))).await
    }

    async fn users(&self, query: UserQuery) -> Result<Page<User, UserCursor>, StoreError> {
        self.run(|tx| users(tx, query)).await
    }

    async fn update_user(&self, command: UpdateUser) -> Result<UserUpdated, StoreError> {
        self.run(|tx| update_user(tx, command)).await
    }

    async fn delete_user(&self, command: DeleteUser) -> Result<UserDeleted, StoreError> {
        self.run(|tx| delete_user(tx, command)).await
    }

    async fn request_email_change(
        &self,
        command: RequestEmailChange,
    ) -> Result<EmailChangeRequested, StoreError> {
        self.run(|tx| request_email_change(tx, command)).await
    }

    async fn import_users(&self, command: ImportUsers) -> Result<Vec<UserImported>, StoreError> {
        self.run(|tx| import_users(tx, command)).await
    }
}

fn register(tx: &mut Transaction<'_>, command: Register) -> Result<Registered, StoreError> {
    let Register {
        now,
        id,
        email,
        password,
        username,
        locale,
        profile,
        expires_at,
        mut code,
        code_mail,
        taken_mail,
        throttle,
        tries,
        audit,
    } = command;
    if tx.get::<RegistrationRow>(id)?.is_some() {
        return Ok(Registered::Pending);
    }
    tx.clamp(throttle.iter().chain(&tries), now)?;
    if let Some(retry_after) = tx.used_up(&throttle, now)? {
        return Ok(Registered::Throttled { retry_after });
    }
    for rule in &throttle {
        tx.count(rule, now)?;
    }
    if let Some(tries) = &tries {
        tx.reset(tries, now)?;
    }
    if let Some(owner) = tx.user_of(email.key())? {
        tx.owe_mail(taken_mail, Receiver::user(&owner.user), None, now)?;
        tx.audit_refused(audit, now, "email_taken", Some(owner.user.id))?;
        return Ok(Registered::Taken);
    }
    let row = RegistrationRow { email, password, username, locale, profile, expires_at };
    tx.put(id, &row)?;
    code.dies_at = code.dies_at.min(expires_at);
    tx.put(code.id, &CodeRow::new(code, CodePurpose::EmailVerification, Owner::Registration(id)))?;
    tx.owe_mail(code_mail, Receiver::registration(&row), Some(code.id), now)?;
    tx.audit_done(audit, now, None)?;
    Ok(Registered::Pending)
}

fn create_user(tx: &mut Transaction<'_>, command: CreateUser) -> Result<UserCreated, StoreError> {
    let CreateUser {
        now,
        id,
        email,
        email_verified_at,
        username,
        locale,
        profile,
        roles,
        password,
        invitation,
        by,
        audit,
        events,
    } = command;
    // Also of one who was deleted since.
    if let Some(row) = tx.get::<UserRow>(id)? {
        return Ok(UserCreated::Created(Box::new(row.user)));
    }
    if !tx.permits(by.as_ref(), &roles)? {
        tx.audit_refused(audit, now, "forbidden", None)?;
        return Ok(UserCreated::NotPermitted);
    }
    if let Some(owner) = tx.user_of(email.key())? {
        tx.audit_refused(audit, now, "email_taken", Some(owner.user.id))?;
        return Ok(UserCreated::Taken);
    }
    let user = User {
        id,
        email,
        email_verified_at,
        username,
        roles,
        status: UserStatus::Active,
        locale,
        profile,
        created_at: now,
        updated_at: now,
        last_login_at: None,
    };
    tx.put(id, &UserRow::new(user.clone(), password))?;
    if let Some((code, mail)) = invitation {
        tx.put(code.id, &CodeRow::new(code, CodePurpose::FirstTimeSetup, Owner::User(id)))?;
        tx.owe_mail(mail, Receiver::user(&user), Some(code.id), now)?;
    }
    tx.owe_events(&events, Happened { user_registered: true, ..Happened::default() }, id, now)?;
    tx.audit_done(audit, now, Some(id))?;
    Ok(UserCreated::Created(Box::new(user)))
}

fn credentials(tx: &Transaction<'_>, query: CredentialsQuery) -> Result<CredentialsView, StoreError> {
    let CredentialsQuery { now, email, guard } = query;
    let row = match tx.user_of(&email)? {
        Some(row) => Some(row),
        None => returning_user(tx, &email, now)?,
    };
    let throttled = tx.guard_refuses(row.as_ref().map(|row| row.user.id), guard.as_ref(), now)?;
    let user =
        row.map(|UserRow { user, password, version, deleted: _ }| Credentials { user, password, version });
    Ok(CredentialsView { throttled, user })
}

fn limits(tx: &Transaction<'_>, query: LimitsQuery) -> Result<LimitsView, StoreError> {
    let LimitsQuery { now, rules, network } = query;
    let mut used_up = BTreeMap::new();
    for rule in &rules {
        if let Some(wait) = tx.seems_used_up([rule], now)? {
            used_up.insert(rule.key, wait);
        }
    }
    let is_known = match network {
        Some(KnownNetwork { email, network, since }) => match tx.user_of(&email)? {
            Some(row) => tx.knows(row.user.id, &network, since)?,
            None => false,
        },
        None => false,
    };
    Ok(LimitsView { used_up, is_known })
}

/// A deleted user whom signing in brings back: of several, the newest.
fn returning_user(
    tx: &Transaction<'_>,
    email: &EmailKey,
    now: time::OffsetDateTime,
) -> Result<Option<UserRow>, StoreError> {
    let mut rows = tx.rows::<UserRow>()?.into_iter().rev().map(|(_, row)| row);
    Ok(rows.find(|row| {
        row.user.email.key() == email && row.deleted.is_some_and(|deleted| deleted.is_restorable(now))
    }))
}

fn replace_password(
    tx: &mut Transaction<'_>,
    command: ReplacePassword,
) -> Result<PasswordReplaced, StoreError> {
    let ReplacePassword { now, user_id, expect, password, keep, notice, throttle, audit, events } = command;
    if let Some(retry_after) = tx.count_unless_used_up(&throttle, now)? {
        return Ok(PasswordReplaced::Throttled { retry_after });
    }
    let Some(mut row) = tx.active_user(user_id)? else {
        tx.audit_refused(audit, now, "gone", Some(user_id))?;
        return Ok(PasswordReplaced::Gone);
    };
    if row.version != expect {
        tx.audit_refused(audit, now, "stale", Some(user_id))?;
        return Ok(PasswordReplaced::Stale);
    }
    row.password = Some(password);
    row.version = expect.next();
    row.user.updated_at = now;
    tx.put(user_id, &row)?;
    if let Some(keep) = keep
        && let Some(mut kept) = tx.get::<SessionRow>(keep)?.filter(|kept| kept.session.user_id == user_id)
    {
        kept.version = row.version;
        tx.put(keep, &kept)?;
    }
    tx.end_everything_of(user_id, keep, now)?;
    tx.owe_mail(notice, Receiver::user(&row.user), None, now)?;
    tx.owe_events(&events, Happened { password_changed: true, ..Happened::default() }, user_id, now)?;
    tx.audit_done(audit, now, Some(user_id))?;
    Ok(PasswordReplaced::Replaced)
}

fn users(tx: &Transaction<'_>, query: UserQuery) -> Result<Page<User, UserCursor>, StoreError> {
    let UserQuery { prefix, role, status, after, size } = query;
    let rows = tx.rows::<UserRow>()?.into_iter().map(|(_, row)| row).filter(|row| {
        row.deleted.is_none()
            && role.as_ref().is_none_or(|role| row.user.roles.contains(role))
            && status.is_none_or(|status| row.user.status == status)
    });
    let mut found: Vec<(Option<String>, User)> = match &prefix {
        None => rows.rev().map(|row| (None, row.user)).collect(),
        Some(prefix) => {
            let mut found: Vec<_> =
                rows.filter_map(|row| Some((Some(matched(&row.user, prefix)?), row.user))).collect();
            found.sort_by(|(one, a), (other, b)| (one, a.id).cmp(&(other, b.id)));
            found
        }
    };
    if let Some(after) = after {
        found.retain(|(term, user)| match term {
            None => user.id < after.id,
            Some(_) => (term, user.id) > (&after.term, after.id),
        });
    }
    let size = usize::from(size.get());
    let more = found.len() > size;
    found.truncate(size);
    let last = found.last().filter(|_| more);
    let next = last.map(|(term, user)| UserCursor { term: term.clone(), id: user.id });
    Ok(Page::new(found.into_iter().map(|(_, user)| user).collect(), next))
}

/// What of a user begins so: the address, else the name.
fn matched(user: &User, prefix: &str) -> Option<String> {
    let address = Some(user.email.key().as_str().to_owned());
    let name = user.username.as_ref().map(|name| Username::folded(name.as_str()));
    [address, name].into_iter().flatten().find(|term| term.starts_with(prefix))
}

fn update_user(tx: &mut Transaction<'_>, command: UpdateUser) -> Result<UserUpdated, StoreError> {
    let UpdateUser { now, id, by, change, throttle, audit, events } = command;
    let UserChange { username, locale, profile, status, roles } = change;
    if let Some(retry_after) = tx.count_unless_used_up(&throttle, now)? {
        return Ok(UserUpdated::Throttled { retry_after });
    }
    let found = tx.live_user(id)?;
    let before = found.as_ref().map(|row| &row.user);
    let new_roles = before.zip(roles).map(|(user, roles)| roles.applied_to(&user.roles));
    let mut reached = before.map(|user| user.roles.clone()).unwrap_or_default();
    reached.extend(new_roles.iter().flatten().cloned());
    if !tx.permits(by.as_ref(), &reached)? {
        tx.audit_refused(audit, now, "forbidden", before.map(|user| user.id))?;
        return Ok(UserUpdated::NotPermitted);
    }
    let Some(mut row) = found else {
        tx.audit_refused(audit, now, "not_found", None)?;
        return Ok(UserUpdated::NotFound);
    };
    let before = row.user.clone();
    let user = &mut row.user;
    user.username = username.unwrap_or_else(|| user.username.take());
    user.locale = locale.unwrap_or_else(|| user.locale.take());
    user.profile = profile.unwrap_or_else(|| user.profile.take());
    user.status = status.unwrap_or(user.status);
    user.roles = new_roles.unwrap_or_else(|| before.roles.clone());
    let password = row.password.as_ref();
    let falls = is_working_admin(&before, password) && !is_working_admin(user, password);
    if falls && !tx.has_other_admin(id)? {
        tx.audit_refused(audit, now, "last_admin", Some(id))?;
        return Ok(UserUpdated::LastAdmin);
    }
    let happened = Happened {
        user_updated: user.username != before.username
            || user.locale != before.locale
            || user.profile != before.profile,
        roles_changed: user.roles != before.roles,
        status_changed: user.status != before.status,
        ..Happened::default()
    };
    if *user == before {
        return Ok(UserUpdated::Updated(Box::new(row.user)));
    }
    user.updated_at = now;
    tx.put(id, &row)?;
    if happened.status_changed && row.user.status == UserStatus::Disabled {
        tx.end_everything_of(id, None, now)?;
    }
    tx.owe_events(&events, happened, id, now)?;
    tx.audit_done(audit, now, Some(id))?;
    Ok(UserUpdated::Updated(Box::new(row.user)))
}

fn delete_user(tx: &mut Transaction<'_>, command: DeleteUser) -> Result<UserDeleted, StoreError> {
    let DeleteUser { now, id, by, expect, restorable_until, notice, throttle, audit, events } = command;
    if let Some(retry_after) = tx.count_unless_used_up(&throttle, now)? {
        return Ok(UserDeleted::Throttled { retry_after });
    }
    let found = tx.live_user(id)?;
    let reached = found.as_ref().map_or_else(Roles::new, |row| row.user.roles.clone());
    let subject = found.as_ref().map(|row| row.user.id);
    if !tx.permits(by.as_ref(), &reached)? {
        tx.audit_refused(audit, now, "forbidden", subject)?;
        return Ok(UserDeleted::NotPermitted);
    }
    let Some(mut row) = found else {
        tx.audit_refused(audit, now, "not_found", None)?;
        return Ok(UserDeleted::NotFound);
    };
    if row.is_working_admin() && !tx.has_other_admin(id)? {
        tx.audit_refused(audit, now, "last_admin", Some(id))?;
        return Ok(UserDeleted::LastAdmin);
    }
    if expect.is_some_and(|expect| expect != row.version) {
        tx.audit_refused(audit, now, "stale", Some(id))?;
        return Ok(UserDeleted::Stale);
    }
    row.deleted = Some(Deleted { at: now, restorable_until });
    row.user.updated_at = now;
    tx.put(id, &row)?;
    tx.end_everything_of(id, None, now)?;
    if restorable_until.is_none() {
        tx.void_codes_of(Owner::User(id), now, CodeRow::is_undo)?;
    }
    if let Some(notice) = notice {
        tx.owe_mail(notice, Receiver::user(&row.user), None, now)?;
    }
    tx.owe_events(&events, Happened { user_deleted: true, ..Happened::default() }, id, now)?;
    tx.audit_done(audit, now, Some(id))?;
    Ok(UserDeleted::Deleted)
}

fn request_email_change(
    tx: &mut Transaction<'_>,
    command: RequestEmailChange,
) -> Result<EmailChangeRequested, StoreError> {
    let RequestEmailChange {
        now,
        user_id,
        new_email,
        expect,
        code,
        code_mail,
        taken_mail,
        notice,
        throttle,
        tries,
        audit,
    } = command;
    if tx.get::<CodeRow>(code.id)?.is_some() {
        return Ok(EmailChangeRequested::Queued);
    }
    tx.clamp(throttle.iter().chain(&tries), now)?;
    if let Some(retry_after) = tx.used_up(&throttle, now)? {
        return Ok(EmailChangeRequested::Throttled { retry_after });
    }
    for rule in &throttle {
        tx.count(rule, now)?;
    }
    if let Some(tries) = &tries {
        tx.reset(tries, now)?;
    }
    let Some(row) = tx.active_user(user_id)? else {
        tx.audit_refused(audit, now, "gone", Some(user_id))?;
        return Ok(EmailChangeRequested::Gone);
    };
    if expect.is_some_and(|expect| expect != row.version) {
        tx.audit_refused(audit, now, "stale", Some(user_id))?;
        return Ok(EmailChangeRequested::Stale);
    }
    let (purpose, owner) = (CodePurpose::ChangeEmail, Owner::User(user_id));
    tx.void_codes_of(owner, now, |row| row.purpose == purpose && !row.is_link())?;
    tx.owe_mail(notice, Receiver::user(&row.user), None, now)?;
    if let Some(other) = tx.user_of(new_email.key())?.filter(|other| other.user.id != user_id) {
        tx.owe_mail(taken_mail, Receiver::user(&other.user), None, now)?;
        tx.audit_refused(audit, now, "email_taken", Some(user_id))?;
    } else {
        let to = Receiver { email: &new_email, username: None, ..Receiver::user(&row.user) };
        tx.owe_mail(code_mail, to, Some(code.id), now)?;
        tx.put(code.id, &CodeRow { new_email: Some(new_email), ..CodeRow::new(code, purpose, owner) })?;
        tx.audit_done(audit, now, Some(user_id))?;
    }
    Ok(EmailChangeRequested::Queued)
}

fn import_users(tx: &mut Transaction<'_>, command: ImportUsers) -> Result<Vec<UserImported>, StoreError> {
    let ImportUsers { now, users } = command;
    let mut answers = Vec::with_capacity(users.len());
    for ImportedUser { user, password, audit, event } in users {
        let id = user.id;
        if tx.get::<UserRow>(id)?.is_some() || tx.user_of(user.email.key())?.is_some() {
            answers.push(UserImported::Exists);
            continue;
        }
        tx.put(id, &UserRow::new(user, password))?;
        tx.owe_events(&[event], Happened { user_registered: true, ..Happened::default() }, id, now)?;
        tx.audit_done(audit, now, Some(id))?;
        answers.push(UserImported::Added);
    }
    Ok(answers)
}
