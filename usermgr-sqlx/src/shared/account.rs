//! Registrations, users and their passwords.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use sqlx::QueryBuilder;
use time::OffsetDateTime;
use usermgr_core::domain::code::CodePurpose;
use usermgr_core::domain::email::EmailKey;
use usermgr_core::domain::id::UserId;
use usermgr_core::domain::page::Page;
use usermgr_core::domain::password::{PasswordHash, PasswordVersion};
use usermgr_core::domain::profile::Profile;
use usermgr_core::domain::role::{Role, Roles};
use usermgr_core::domain::user::{Locale, User, UserStatus, Username};
use usermgr_core::port::store::account::{
    AccountStore, Actor, CreateUser, Credentials, CredentialsQuery, CredentialsView, DeleteUser,
    EmailChangeRequested, ImportUsers, ImportedUser, LimitsQuery, LimitsView, PasswordReplaced, Register,
    Registered, ReplacePassword, RequestEmailChange, UpdateUser, UserChange, UserCreated, UserCursor,
    UserDeleted, UserImported, UserQuery, UserUpdated, is_working_admin,
};
use usermgr_core::port::store::{Happened, StoreError};

use super::super::Db;
use super::code::{CodeOwnerId, code_exists, insert_code, insert_void_code, name_new_email, void_older};
use super::event::{owe_events, owe_events_of_many};
use super::rows::{UserRow, roles_text, user_columns};
use super::writing::{
    Limits, Receiver, audit_all, audit_done, audit_refused, end_everything_of, end_undos_of, is_known,
    owe_mail,
};
use super::{Store, Ts, Tx, fault, from_ts, reread, transact, ts};

#[async_trait]
impl AccountStore for Store {
    async fn register(&self, command: Register) -> Result<Registered, StoreError> {
        transact!(self.register_once(command))
    }

    async fn limits(&self, query: LimitsQuery) -> Result<LimitsView, StoreError> {
        reread!(self.limits_once(query))
    }

    async fn create_user(&self, command: CreateUser) -> Result<UserCreated, StoreError> {
        transact!(self.create_user_once(command))
    }

    async fn credentials(&self, query: CredentialsQuery) -> Result<CredentialsView, StoreError> {
        reread!(self.credentials_once(query))
    }

    async fn replace_password(&self, command: ReplacePassword) -> Result<PasswordReplaced, StoreError> {
        transact!(self.replace_password_once(command))
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        reread!(self.user_once(id))
    }

    async fn users(&self, query: UserQuery) -> Result<Page<User, UserCursor>, StoreError> {
        reread!(self.users_once(query))
    }

    async fn update_user(&self, command: UpdateUser) -> Result<UserUpdated, StoreError> {
        transact!(self.update_user_once(command))
    }

    async fn delete_user(&self, command: DeleteUser) -> Result<UserDeleted, StoreError> {
        transact!(self.delete_user_once(command))
    }

    async fn request_email_change(
        &self,
        command: RequestEmailChange,
    ) -> Result<EmailChangeRequested, StoreError> {
        transact!(self.request_email_change_once(command))
    }

    async fn import_users(&self, command: ImportUsers) -> Result<Vec<UserImported>, StoreError> {
        transact!(self.import_users_once(command))
    }
}

impl Store {
    async fn limits_once(&self, query: LimitsQuery) -> Result<LimitsView, StoreError> {
        let LimitsQuery { now, rules, network } = query;
        if rules.is_empty() && network.is_none() {
            return Ok(LimitsView { used_up: BTreeMap::new(), is_known: false });
        }
        let all: Vec<_> = rules.iter().collect();
        let (limits, is_known) = Limits::read(self, &all, network.as_ref(), now).await?;
        let used_up = rules.iter().filter_map(|rule| Some((rule.key, limits.used_up([rule])?))).collect();
        Ok(LimitsView { used_up, is_known })
    }

    async fn credentials_once(&self, query: CredentialsQuery) -> Result<CredentialsView, StoreError> {
        let CredentialsQuery { now, email, guard } = query;
        let user = credentials_of(&mut *self.reader().await?, &email, now).await?;
        let throttled = match guard {
            None => None,
            Some(guard) => {
                let rules: Vec<_> = guard.rules().collect();
                let (limits, _) = Limits::read(self, &rules, None, now).await?;
                let user = user.as_ref().map(|found| found.user.id);
                let known = limits.used_up([&guard.far]).is_some()
                    && is_known(&mut *self.reader().await?, user, &guard).await?;
                limits.refused_by(&guard, known)
            }
        };
        Ok(CredentialsView { throttled, user })
    }

    async fn user_once(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let row: Option<UserRow> = sqlx::query_as(concat!(
            "SELECT ",
            user_columns!(),
            " FROM usermgr_users u WHERE u.id = $1 AND u.deleted_at IS NULL"
        ))
        .bind(id.as_uuid())
        .fetch_optional(&mut *self.reader().await?)
        .await
        .map_err(fault)?;
        row.map(UserRow::user).transpose()
    }

    async fn users_once(&self, query: UserQuery) -> Result<Page<User, UserCursor>, StoreError> {
        let size = usize::from(query.size.get());
        let mut statement = match query.prefix.clone() {
            None => newest_users(&query),
            Some(prefix) => users_by_prefix(&query, &prefix),
        };
        let rows: Vec<FoundRow> =
            statement.build_query_as().fetch_all(&mut *self.reader().await?).await.map_err(fault)?;
        let more = rows.len() > size;
        let mut next = None;
        let mut items = Vec::with_capacity(size.min(rows.len()));
        for FoundRow { term, user } in rows.into_iter().take(size) {
            let user = user.user()?;
            next = Some(UserCursor { term, id: user.id });
            items.push(user);
        }
        Ok(Page::new(items, next.filter(|_| more)))
    }

    async fn register_once(&self, command: Register) -> Result<Registered, StoreError> {
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
        let mut tx = self.begin().await?;
        let mut limits = Limits::lock(&mut tx, throttle.iter().chain(&tries), now).await?;
        let before: Option<(Ts, Ts)> =
            sqlx::query_as("SELECT created_at, expires_at FROM usermgr_registrations WHERE id = $1")
                .bind(id.as_uuid())
                .fetch_optional(&mut *tx)
                .await
                .map_err(fault)?;
        if let Some((created_at, expires_at)) = before {
            return Ok(if from_ts(expires_at) < from_ts(created_at) {
                Registered::Taken
            } else {
                Registered::Pending
            });
        }
        if let Some(retry_after) = limits.used_up(&throttle) {
            limits.leave(tx).await?;
            return Ok(Registered::Throttled { retry_after });
        }
        for rule in &throttle {
            limits.count(rule);
        }
        if let Some(tries) = &tries {
            limits.reset(tries);
        }
        limits.write(&mut tx).await?;
        // Of a taken address the same rows are written, over at any time: how long it takes tells nothing.
        let taken = user_of(&mut *tx, email.key()).await?.map(|owner| owner.user);
        let expires_at = if taken.is_some() { OffsetDateTime::UNIX_EPOCH } else { expires_at };
        sqlx::query(
            "INSERT INTO usermgr_registrations \
             (id, email, email_key, password, username, locale, created_at, expires_at, profile) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(id.as_uuid())
        .bind(email.as_str())
        .bind(email.key().as_str())
        .bind(password.expose())
        .bind(username.as_ref().map(Username::as_str))
        .bind(locale.as_ref().map(Locale::as_str))
        .bind(ts(now))
        .bind(ts(expires_at))
        .bind(profile.as_ref().map(Profile::as_str))
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        let purpose = CodePurpose::EmailVerification;
        let outcome = if let Some(owner) = taken {
            insert_void_code(&mut tx, &code, purpose, Some(id), email.key(), now).await?;
            owe_mail(&mut tx, taken_mail, &Receiver::user(&owner), None, now).await?;
            audit_refused(&mut tx, audit, now, "email_taken", Some(owner.id)).await?;
            Registered::Taken
        } else {
            code.dies_at = code.dies_at.min(expires_at);
            insert_code(&mut tx, &code, purpose, CodeOwnerId::Registration(id), email.key()).await?;
            let to = Receiver { user: None, email: &email, locale: locale.as_ref(), username: None };
            owe_mail(&mut tx, code_mail, &to, Some(code.id), now).await?;
            audit_done(&mut tx, audit, now, None).await?;
            Registered::Pending
        };
        tx.commit().await.map_err(fault)?;
        self.wake();
        Ok(outcome)
    }

    async fn create_user_once(&self, command: CreateUser) -> Result<UserCreated, StoreError> {
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
        let mut tx = self.begin().await?;
        if let Some(before) = known_user(&mut tx, id).await? {
            return Ok(UserCreated::Created(Box::new(before)));
        }
        let actor = lock_actor(&mut tx, by.as_ref()).await?;
        if !permits(by.as_ref(), actor.as_ref(), &roles) {
            audit_refused(&mut tx, audit, now, "forbidden", None).await?;
            tx.commit().await.map_err(fault)?;
            return Ok(UserCreated::NotPermitted);
        }
        let version = if password.is_some() { PasswordVersion::FIRST } else { PasswordVersion::NONE };
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
        if !insert_user(&mut tx, &user, password.as_ref(), version).await? {
            if let Some(before) = known_user(&mut tx, id).await? {
                return Ok(UserCreated::Created(Box::new(before)));
            }
            let owner = user_of(&mut *tx, user.email.key()).await?.map(|owner| owner.user.id);
            audit_refused(&mut tx, audit, now, "email_taken", owner).await?;
            tx.commit().await.map_err(fault)?;
            return Ok(UserCreated::Taken);
        }
        if let Some((code, mail)) = invitation {
            let owner = CodeOwnerId::User(id);
            insert_code(&mut tx, &code, CodePurpose::FirstTimeSetup, owner, user.email.key()).await?;
            owe_mail(&mut tx, mail, &Receiver::user(&user), Some(code.id), now).await?;
        }
        let happened = Happened { user_registered: true, ..Happened::default() };
        owe_events(&mut tx, &events, happened, id, now).await?;
        audit_done(&mut tx, audit, now, Some(id)).await?;
        tx.commit().await.map_err(fault)?;
        self.wake();
        Ok(UserCreated::Created(Box::new(user)))
    }

    async fn replace_password_once(&self, command: ReplacePassword) -> Result<PasswordReplaced, StoreError> {
        let ReplacePassword { now, user_id, expect, password, keep, notice, throttle, audit, events } =
            command;
        let mut tx = self.begin().await?;
        let (limits, used_up) = Limits::count_unless_used_up(&mut tx, &throttle, now).await?;
        if let Some(retry_after) = used_up {
            limits.leave(tx).await?;
            return Ok(PasswordReplaced::Throttled { retry_after });
        }
        let found =
            locked_user(&mut tx, user_id).await?.filter(|found| found.user.status == UserStatus::Active);
        let outcome = match found {
            None => {
                audit_refused(&mut tx, audit, now, "gone", Some(user_id)).await?;
                PasswordReplaced::Gone
            }
            Some(found) if found.version != expect => {
                audit_refused(&mut tx, audit, now, "stale", Some(user_id)).await?;
                PasswordReplaced::Stale
            }
            Some(found) => {
                set_password(&mut tx, user_id, &password, expect.next(), now).await?;
                end_everything_of(&mut tx, user_id, keep, now).await?;
                sqlx::query(
                    "UPDATE usermgr_sessions SET password_version = $3 WHERE id = $1 AND user_id = $2",
                )
                .bind(keep.map(|keep| keep.as_uuid()))
                .bind(user_id.as_uuid())
                .bind(expect.next().as_i64())
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
                owe_mail(&mut tx, notice, &Receiver::user(&found.user), None, now).await?;
                let happened = Happened { password_changed: true, ..Happened::default() };
                owe_events(&mut tx, &events, happened, user_id, now).await?;
                audit_done(&mut tx, audit, now, Some(user_id)).await?;
                PasswordReplaced::Replaced
            }
        };
        tx.commit().await.map_err(fault)?;
        self.wake();
        Ok(outcome)
    }
}

impl Store {
    async fn update_user_once(&self, command: UpdateUser) -> Result<UserUpdated, StoreError> {
        let UpdateUser { now, id, by, change, throttle, audit, events } = command;
        let UserChange { username, locale, profile, status, roles } = change;
        let mut tx = self.begin().await?;
        let (limits, used_up) = Limits::count_unless_used_up(&mut tx, &throttle, now).await?;
        if let Some(retry_after) = used_up {
            limits.leave(tx).await?;
            return Ok(UserUpdated::Throttled { retry_after });
        }
        let (found, actor) = lock_user_and_actor(&mut tx, id, by.as_ref()).await?;
        let password = found.as_ref().and_then(|found| found.password.clone());
        let before = found.map(|found| found.user);
        let mut reached = before.as_ref().map(|user| user.roles.clone()).unwrap_or_default();
        let new_roles = before.as_ref().zip(roles).map(|(user, roles)| roles.applied_to(&user.roles));
        reached.extend(new_roles.iter().flatten().cloned());
        let refused = match &before {
            _ if !permits(by.as_ref(), actor.as_ref(), &reached) => {
                Some(("forbidden", UserUpdated::NotPermitted))
            }
            None => Some(("not_found", UserUpdated::NotFound)),
            Some(_) => None,
        };
        if let Some((reason, outcome)) = refused {
            audit_refused(&mut tx, audit, now, reason, before.map(|user| user.id)).await?;
            tx.commit().await.map_err(fault)?;
            return Ok(outcome);
        }
        let Some(before) = before else { return Ok(UserUpdated::NotFound) };
        let mut user = before.clone();
        if let Some(username) = username {
            user.username = username;
        }
        if let Some(locale) = locale {
            user.locale = locale;
        }
        if let Some(profile) = profile {
            user.profile = profile;
        }
        if let Some(status) = status {
            user.status = status;
        }
        if let Some(roles) = new_roles {
            user.roles = roles;
        }
        let works = |user: &User| is_working_admin(user, password.as_ref());
        if works(&before) && !works(&user) && !has_other_admin(&mut tx, id).await? {
            audit_refused(&mut tx, audit, now, "last_admin", Some(id)).await?;
            tx.commit().await.map_err(fault)?;
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
        if user == before {
            // What was counted stays.
            tx.commit().await.map_err(fault)?;
            return Ok(UserUpdated::Updated(Box::new(user)));
        }
        user.updated_at = now;
        write_user(&mut tx, &user).await?;
        if happened.roles_changed {
            sqlx::query("DELETE FROM usermgr_user_roles WHERE user_id = $1")
                .bind(id.as_uuid())
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
            insert_roles(&mut tx, &user).await?;
        }
        if happened.status_changed && user.status == UserStatus::Disabled {
            end_everything_of(&mut tx, id, None, now).await?;
        }
        owe_events(&mut tx, &events, happened, id, now).await?;
        audit_done(&mut tx, audit, now, Some(id)).await?;
        tx.commit().await.map_err(fault)?;
        self.wake();
        Ok(UserUpdated::Updated(Box::new(user)))
    }

    async fn delete_user_once(&self, command: DeleteUser) -> Result<UserDeleted, StoreError> {
        let DeleteUser { now, id, by, expect, restorable_until, notice, throttle, audit, events } = command;
        let mut tx = self.begin().await?;
        let (limits, used_up) = Limits::count_unless_used_up(&mut tx, &throttle, now).await?;
        if let Some(retry_after) = used_up {
            limits.leave(tx).await?;
            return Ok(UserDeleted::Throttled { retry_after });
        }
        let (found, actor) = lock_user_and_actor(&mut tx, id, by.as_ref()).await?;
        let none = Roles::new();
        let reached = found.as_ref().map_or(&none, |found| &found.user.roles);
        let refused = match &found {
            _ if !permits(by.as_ref(), actor.as_ref(), reached) => {
                Some(("forbidden", UserDeleted::NotPermitted))
            }
            None => Some(("not_found", UserDeleted::NotFound)),
            Some(found) if found.is_working_admin() && !has_other_admin(&mut tx, id).await? => {
                Some(("last_admin", UserDeleted::LastAdmin))
            }
            Some(found) if expect.is_some_and(|expect| expect != found.version) => {
                Some(("stale", UserDeleted::Stale))
            }
            Some(_) => None,
        };
        if let Some((reason, outcome)) = refused {
            audit_refused(&mut tx, audit, now, reason, found.map(|found| found.user.id)).await?;
            tx.commit().await.map_err(fault)?;
            return Ok(outcome);
        }
        let Some(found) = found else { return Ok(UserDeleted::NotFound) };
        sqlx::query(
            "UPDATE usermgr_users SET deleted_at = $2, restorable_until = $3, updated_at = $2 WHERE id = $1",
        )
        .bind(id.as_uuid())
        .bind(ts(now))
        .bind(restorable_until.map(ts))
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        end_everything_of(&mut tx, id, None, now).await?;
        if restorable_until.is_none() {
            end_undos_of(&mut tx, id, None, now).await?;
        }
        if let Some(notice) = notice {
            owe_mail(&mut tx, notice, &Receiver::user(&found.user), None, now).await?;
        }
        let happened = Happened { user_deleted: true, ..Happened::default() };
        owe_events(&mut tx, &events, happened, id, now).await?;
        audit_done(&mut tx, audit, now, Some(id)).await?;
        tx.commit().await.map_err(fault)?;
        self.wake();
        Ok(UserDeleted::Deleted)
    }

    async fn request_email_change_once(
        &self,
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
        let mut tx = self.begin().await?;
        let mut limits = Limits::lock(&mut tx, throttle.iter().chain(&tries), now).await?;
        if code_exists(&mut tx, code.id).await? {
            return Ok(EmailChangeRequested::Queued);
        }
        if let Some(retry_after) = limits.used_up(&throttle) {
            limits.leave(tx).await?;
            return Ok(EmailChangeRequested::Throttled { retry_after });
        }
        for rule in &throttle {
            limits.count(rule);
        }
        if let Some(tries) = &tries {
            limits.reset(tries);
        }
        limits.write(&mut tx).await?;
        let found = locked_user(&mut tx, user_id).await?;
        let refused = match &found {
            Some(found) if found.user.status != UserStatus::Active => {
                Some(("gone", EmailChangeRequested::Gone))
            }
            None => Some(("gone", EmailChangeRequested::Gone)),
            Some(found) if expect.is_some_and(|expect| expect != found.version) => {
                Some(("stale", EmailChangeRequested::Stale))
            }
            Some(_) => None,
        };
        if let Some((reason, outcome)) = refused {
            audit_refused(&mut tx, audit, now, reason, Some(user_id)).await?;
            tx.commit().await.map_err(fault)?;
            return Ok(outcome);
        }
        let Some(found) = found else { return Ok(EmailChangeRequested::Gone) };
        let owner = CodeOwnerId::User(user_id);
        void_older(&mut tx, owner, CodePurpose::ChangeEmail, code.form, now).await?;
        owe_mail(&mut tx, notice, &Receiver::user(&found.user), None, now).await?;
        let other = user_of(&mut *tx, new_email.key()).await?.filter(|other| other.user.id != user_id);
        if let Some(other) = other {
            owe_mail(&mut tx, taken_mail, &Receiver::user(&other.user), None, now).await?;
            audit_refused(&mut tx, audit, now, "email_taken", Some(user_id)).await?;
        } else {
            insert_code(&mut tx, &code, CodePurpose::ChangeEmail, owner, found.user.email.key()).await?;
            name_new_email(&mut tx, code.id, &new_email).await?;
            let to = Receiver { email: &new_email, username: None, ..Receiver::user(&found.user) };
            owe_mail(&mut tx, code_mail, &to, Some(code.id), now).await?;
            audit_done(&mut tx, audit, now, Some(user_id)).await?;
        }
        tx.commit().await.map_err(fault)?;
        self.wake();
        Ok(EmailChangeRequested::Queued)
    }

    async fn import_users_once(&self, command: ImportUsers) -> Result<Vec<UserImported>, StoreError> {
        let ImportUsers { now, users } = command;
        let mut tx = self.begin().await?;
        let mut answers = Vec::with_capacity(users.len());
        for chunk in users.chunks(ROWS) {
            let mut added = insert_users(&mut tx, chunk).await?;
            let mut entries = Vec::with_capacity(added.len());
            let mut events = Vec::with_capacity(added.len());
            let mut roles = Vec::new();
            for ImportedUser { user, password: _, audit, event } in chunk {
                // Of two with the same identifier and address, the first is the one that was added.
                if added.remove(&(user.id.as_uuid(), user.email.key().as_str().to_owned())) {
                    entries.push(audit.clone().done(now, Some(user.id)));
                    events.push((*event, user.id));
                    roles.extend(user.roles.iter().map(|role| (role, user.id)));
                    answers.push(UserImported::Added);
                } else {
                    answers.push(UserImported::Exists);
                }
            }
            roles.retain(|(role, _)| role.as_str() != Role::USER);
            for roles in roles.chunks(ROWS) {
                insert_roles_of_many(&mut tx, roles).await?;
            }
            owe_events_of_many(&mut tx, &events, now).await?;
            audit_all(&mut tx, entries).await?;
        }
        tx.commit().await.map_err(fault)?;
        self.wake();
        Ok(answers)
    }
}

/// How many rows one statement adds, of those that add many.
const ROWS: usize = 100;

/// Inserts users, but not those whose address or identifier is there. Answers the identifier and the address of each who
/// was added.
async fn insert_users(
    tx: &mut Tx,
    users: &[ImportedUser],
) -> Result<HashSet<(uuid::Uuid, String)>, StoreError> {
    let mut statement: QueryBuilder<Db> = QueryBuilder::new(
        "INSERT INTO usermgr_users (id, email, email_key, email_verified_at, username, roles, status, locale, \
         password, password_version, created_at, updated_at, last_login_at, username_key, profile) ",
    );
    statement.push_values(users, |mut row, ImportedUser { user, password, audit: _, event: _ }| {
        let version = if password.is_some() { PasswordVersion::FIRST } else { PasswordVersion::NONE };
        row.push_bind(user.id.as_uuid())
            .push_bind(user.email.as_str())
            .push_bind(user.email.key().as_str())
            .push_bind(user.email_verified_at.map(ts))
            .push_bind(user.username.as_ref().map(Username::as_str))
            .push_bind(roles_text(&user.roles))
            .push_bind(user.status.as_str())
            .push_bind(user.locale.as_ref().map(Locale::as_str))
            .push_bind(password.as_ref().map(PasswordHash::expose))
            .push_bind(version.as_i64())
            .push_bind(ts(user.created_at))
            .push_bind(ts(user.updated_at))
            .push_bind(user.last_login_at.map(ts))
            .push_bind(username_key(user))
            .push_bind(user.profile.as_ref().map(Profile::as_str));
    });
    statement.push(" ON CONFLICT DO NOTHING RETURNING id, email_key");
    // Only the one statement that comes again is worth keeping.
    let query = statement.build_query_as().persistent(users.len() == ROWS);
    Ok(query.fetch_all(&mut **tx).await.map_err(fault)?.into_iter().collect())
}

async fn insert_roles_of_many(tx: &mut Tx, roles: &[(&Role, UserId)]) -> Result<(), StoreError> {
    let mut statement: QueryBuilder<Db> =
        QueryBuilder::new("INSERT INTO usermgr_user_roles (role, user_id) ");
    statement.push_values(roles, |mut row, (role, user)| {
        row.push_bind(role.as_str()).push_bind(user.as_uuid());
    });
    statement.build().persistent(false).execute(&mut **tx).await.map_err(fault)?;
    Ok(())
}

/// A user that a list found, and by what.
#[derive(sqlx::FromRow)]
struct FoundRow {
    term: Option<String>,
    #[sqlx(flatten)]
    user: UserRow,
}

/// Begins a condition for the users of a status. The name stands in the statement, so that its index serves.
fn push_status(statement: &mut QueryBuilder<Db>, status: Option<UserStatus>) {
    match status {
        None => {}
        Some(UserStatus::Active) => drop(statement.push(" AND u.status = 'active'")),
        Some(UserStatus::Disabled) => drop(statement.push(" AND u.status = 'disabled'")),
    }
}

/// The role, unless it is the one that everybody has.
fn listed_role(query: &UserQuery) -> Option<String> {
    query.role.as_ref().map(|role| role.as_str().to_owned()).filter(|role| role != Role::USER)
}

fn newest_users(query: &UserQuery) -> QueryBuilder<Db> {
    let mut statement =
        QueryBuilder::new(concat!("SELECT CAST(NULL AS TEXT) AS term, ", user_columns!(), " FROM "));
    let after = query.after.as_ref().map_or(uuid::Uuid::max(), |after| after.id.as_uuid());
    if let Some(role) = listed_role(query) {
        statement.push("usermgr_user_roles r JOIN usermgr_users u ON u.id = r.user_id WHERE r.role = ");
        statement.push_bind(role);
        statement.push(" AND u.deleted_at IS NULL AND r.user_id < ").push_bind(after);
        push_status(&mut statement, query.status);
        statement.push(" ORDER BY r.user_id DESC");
    } else {
        statement.push("usermgr_users u WHERE u.deleted_at IS NULL AND u.id < ").push_bind(after);
        push_status(&mut statement, query.status);
        statement.push(" ORDER BY u.id DESC");
    }
    statement.push(" LIMIT ").push_bind(i64::from(query.size.get()) + 1);
    statement
}

/// Users whose address or name begins so: two ranges of two indexes, merged. Who is found by both is found by the
/// address.
fn users_by_prefix(query: &UserQuery, prefix: &str) -> QueryBuilder<Db> {
    // Whatever begins with the prefix is less than the prefix and more of the last character there is than a name has.
    let end = prefix.to_owned() + &char::MAX.to_string().repeat(Username::MAX + 1);
    let size = i64::from(query.size.get()) + 1;
    let mut statement = QueryBuilder::new(concat!(
        "SELECT * FROM (SELECT u.email_key AS term, ",
        user_columns!(),
        " FROM usermgr_users u WHERE u.deleted_at IS NULL"
    ));
    push_found(&mut statement, "u.email_key", query, prefix, &end);
    statement.push(" ORDER BY u.email_key, u.id LIMIT ").push_bind(size);
    statement.push(concat!(
        ") AS a UNION ALL SELECT * FROM (SELECT u.username_key AS term, ",
        user_columns!(),
        " FROM usermgr_users u WHERE u.deleted_at IS NULL AND NOT (u.email_key >= "
    ));
    statement.push_bind(prefix.to_owned()).push(" AND u.email_key < ").push_bind(end.clone()).push(")");
    push_found(&mut statement, "u.username_key", query, prefix, &end);
    statement.push(" ORDER BY u.username_key, u.id LIMIT ").push_bind(size);
    statement.push(") AS b ORDER BY term, user_id LIMIT ").push_bind(size);
    statement
}

fn push_found(
    statement: &mut QueryBuilder<Db>,
    column: &'static str,
    query: &UserQuery,
    prefix: &str,
    end: &str,
) {
    statement.push(format!(" AND {column} >= ")).push_bind(prefix.to_owned());
    statement.push(format!(" AND {column} < ")).push_bind(end.to_owned());
    if let Some(UserCursor { term: Some(term), id }) = &query.after {
        statement.push(format!(" AND ({column}, u.id) > (")).push_bind(term.clone());
        statement.push(", ").push_bind(id.as_uuid()).push(")");
    }
    push_status(statement, query.status);
    if let Some(role) = listed_role(query) {
        statement
            .push(" AND EXISTS (SELECT 1 FROM usermgr_user_roles r WHERE r.user_id = u.id AND r.role = ");
        statement.push_bind(role).push(")");
    }
}

/// Whether another administrator who can sign in is left, as [`is_working_admin`] says. Whoever asks waits until nobody
/// else is taking one away.
async fn has_other_admin(tx: &mut Tx, but: UserId) -> Result<bool, StoreError> {
    let _all_locked: Vec<(uuid::Uuid,)> = sqlx::query_as(locking!(
        "SELECT user_id FROM usermgr_user_roles WHERE role = 'admin' ORDER BY user_id"
    ))
    .fetch_all(&mut **tx)
    .await
    .map_err(fault)?;
    let other: Option<i64> = sqlx::query_scalar(
        "SELECT CAST(1 AS BIGINT) FROM usermgr_user_roles r JOIN usermgr_users u ON u.id = r.user_id \
         WHERE r.role = 'admin' AND u.id <> $1 AND u.status = 'active' AND u.deleted_at IS NULL \
         AND u.password IS NOT NULL LIMIT 1",
    )
    .bind(but.as_uuid())
    .fetch_optional(&mut **tx)
    .await
    .map_err(fault)?;
    Ok(other.is_some())
}

/// Locks a user and whoever acts, in the order of their identifiers, so that two who act upon each other take turns.
pub(super) async fn lock_user_and_actor(
    tx: &mut Tx,
    user: UserId,
    by: Option<&Actor>,
) -> Result<(Option<Credentials>, Option<Credentials>), StoreError> {
    match by {
        Some(by) if by.id < user => {
            let actor = locked_user(tx, by.id).await?;
            Ok((locked_user(tx, user).await?, actor))
        }
        Some(by) => {
            let found = locked_user(tx, user).await?;
            Ok((found, locked_user(tx, by.id).await?))
        }
        None => Ok((locked_user(tx, user).await?, None)),
    }
}

/// Locks whoever acts.
pub(super) async fn lock_actor(tx: &mut Tx, by: Option<&Actor>) -> Result<Option<Credentials>, StoreError> {
    match by {
        Some(by) => locked_user(tx, by.id).await,
        None => Ok(None),
    }
}

/// Whether an actor still is who was permitted, and may reach users of these roles.
pub(super) fn permits(by: Option<&Actor>, actor: Option<&Credentials>, reached: &Roles) -> bool {
    by.is_none_or(|by| {
        let as_decided = actor
            .is_some_and(|found| found.user.status == UserStatus::Active && found.user.roles == by.roles);
        as_decided && reached.is_disjoint(&by.beyond)
    })
}

async fn write_user(tx: &mut Tx, user: &User) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE usermgr_users SET username = $2, username_key = $3, locale = $4, status = $5, roles = $6, \
         updated_at = $7, profile = $8 WHERE id = $1",
    )
    .bind(user.id.as_uuid())
    .bind(user.username.as_ref().map(Username::as_str))
    .bind(username_key(user))
    .bind(user.locale.as_ref().map(Locale::as_str))
    .bind(user.status.as_str())
    .bind(roles_text(&user.roles))
    .bind(ts(user.updated_at))
    .bind(user.profile.as_ref().map(Profile::as_str))
    .execute(&mut **tx)
    .await
    .map_err(fault)?;
    Ok(())
}

fn username_key(user: &User) -> Option<String> {
    user.username.as_ref().map(|name| Username::folded(name.as_str()))
}

async fn insert_roles(tx: &mut Tx, user: &User) -> Result<(), StoreError> {
    for role in user.roles.iter().filter(|role| role.as_str() != Role::USER) {
        sqlx::query("INSERT INTO usermgr_user_roles (role, user_id) VALUES ($1, $2)")
            .bind(role.as_str())
            .bind(user.id.as_uuid())
            .execute(&mut **tx)
            .await
            .map_err(fault)?;
    }
    Ok(())
}

/// The user whom signing in with an address is for: also a deleted one who may come back, if there is no other.
async fn credentials_of(
    executor: impl sqlx::Executor<'_, Database = Db>,
    email: &EmailKey,
    now: OffsetDateTime,
) -> Result<Option<Credentials>, StoreError> {
    let rows: Vec<UserRow> = sqlx::query_as(concat!(
        "SELECT ",
        user_columns!(),
        " FROM usermgr_users u WHERE u.email_key = $1 AND u.deleted_at IS NULL UNION ALL SELECT ",
        user_columns!(),
        " FROM usermgr_users u WHERE u.email_key = $1 AND u.deleted_at IS NOT NULL AND u.restorable_until > $2 \
         AND NOT EXISTS (SELECT 1 FROM usermgr_users o WHERE o.email_key = $1 AND o.deleted_at IS NULL)"
    ))
    .bind(email.as_str())
    .bind(ts(now))
    .fetch_all(executor)
    .await
    .map_err(fault)?;
    let found = rows.into_iter().map(UserRow::credentials).collect::<Result<Vec<_>, _>>()?;
    // Of several accounts that were deleted with one address, the newest comes back.
    Ok(found.into_iter().max_by_key(|found| found.user.id))
}

/// A deleted user whom signing in brings back, locked.
pub(super) async fn locked_returning_user(
    tx: &mut Tx,
    id: UserId,
    now: OffsetDateTime,
) -> Result<Option<Credentials>, StoreError> {
    let row: Option<UserRow> = sqlx::query_as(concat!(
        "SELECT ",
        user_columns!(),
        locking!(
            " FROM usermgr_users u WHERE u.id = $1 AND u.deleted_at IS NOT NULL AND u.restorable_until > $2 \
             AND NOT EXISTS (SELECT 1 FROM usermgr_users o WHERE o.email_key = u.email_key AND o.deleted_at IS NULL)"
        )
    ))
    .bind(id.as_uuid())
    .bind(ts(now))
    .fetch_optional(&mut **tx)
    .await
    .map_err(fault)?;
    row.map(UserRow::credentials).transpose()
}

/// A deleted user who may come back, locked. Another user may have the address.
pub(super) async fn locked_deleted_user(
    tx: &mut Tx,
    id: UserId,
    now: OffsetDateTime,
) -> Result<Option<Credentials>, StoreError> {
    let row: Option<UserRow> = sqlx::query_as(concat!(
        "SELECT ",
        user_columns!(),
        locking!(
            " FROM usermgr_users u WHERE u.id = $1 AND u.deleted_at IS NOT NULL AND u.restorable_until > $2"
        )
    ))
    .bind(id.as_uuid())
    .bind(ts(now))
    .fetch_optional(&mut **tx)
    .await
    .map_err(fault)?;
    row.map(UserRow::credentials).transpose()
}

/// A user, also a deleted one: what was made once is answered again.
pub(super) async fn known_user(tx: &mut Tx, id: UserId) -> Result<Option<User>, StoreError> {
    let row: Option<UserRow> =
        sqlx::query_as(concat!("SELECT ", user_columns!(), " FROM usermgr_users u WHERE u.id = $1"))
            .bind(id.as_uuid())
            .fetch_optional(&mut **tx)
            .await
            .map_err(fault)?;
    row.map(UserRow::user).transpose()
}

/// The user of an address.
pub(super) async fn user_of(
    executor: impl sqlx::Executor<'_, Database = super::super::Db>,
    email: &EmailKey,
) -> Result<Option<Credentials>, StoreError> {
    let row: Option<UserRow> = sqlx::query_as(concat!(
        "SELECT ",
        user_columns!(),
        " FROM usermgr_users u WHERE u.email_key = $1 AND u.deleted_at IS NULL"
    ))
    .bind(email.as_str())
    .fetch_optional(executor)
    .await
    .map_err(fault)?;
    row.map(UserRow::credentials).transpose()
}

/// A user, locked until the transaction ends. A command locks its user before the user's codes and sessions.
pub(super) async fn locked_user(tx: &mut Tx, id: UserId) -> Result<Option<Credentials>, StoreError> {
    let row: Option<UserRow> = sqlx::query_as(locking!(
        "SELECT u.id AS user_id, u.email, u.email_verified_at, u.username, u.roles, u.status, u.locale, u.profile, u.password, \
         u.password_version, u.created_at AS user_created_at, u.updated_at, u.last_login_at \
         FROM usermgr_users u WHERE u.id = $1 AND u.deleted_at IS NULL"
    ))
    .bind(id.as_uuid())
    .fetch_optional(&mut **tx)
    .await
    .map_err(fault)?;
    row.map(UserRow::credentials).transpose()
}

/// Inserts a user, unless the address or the identifier has one.
pub(super) async fn insert_user(
    tx: &mut Tx,
    user: &User,
    password: Option<&PasswordHash>,
    version: PasswordVersion,
) -> Result<bool, StoreError> {
    let inserted: Option<i64> = sqlx::query_scalar(
        "INSERT INTO usermgr_users (id, email, email_key, email_verified_at, username, roles, status, locale, \
         password, password_version, created_at, updated_at, last_login_at, username_key, profile) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
         ON CONFLICT DO NOTHING RETURNING CAST(1 AS BIGINT)",
    )
    .bind(user.id.as_uuid())
    .bind(user.email.as_str())
    .bind(user.email.key().as_str())
    .bind(user.email_verified_at.map(ts))
    .bind(user.username.as_ref().map(Username::as_str))
    .bind(roles_text(&user.roles))
    .bind(user.status.as_str())
    .bind(user.locale.as_ref().map(Locale::as_str))
    .bind(password.map(PasswordHash::expose))
    .bind(version.as_i64())
    .bind(ts(user.created_at))
    .bind(ts(user.updated_at))
    .bind(user.last_login_at.map(ts))
    .bind(username_key(user))
    .bind(user.profile.as_ref().map(Profile::as_str))
    .fetch_optional(&mut **tx)
    .await
    .map_err(fault)?;
    if inserted.is_some() {
        insert_roles(tx, user).await?;
    }
    Ok(inserted.is_some())
}

/// Sets a password and its version.
pub(super) async fn set_password(
    tx: &mut Tx,
    user: UserId,
    password: &PasswordHash,
    version: PasswordVersion,
    now: time::OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE usermgr_users SET password = $2, password_version = $3, updated_at = $4 WHERE id = $1",
    )
    .bind(user.as_uuid())
    .bind(password.expose())
    .bind(version.as_i64())
    .bind(ts(now))
    .execute(&mut **tx)
    .await
    .map_err(fault)?;
    Ok(())
}
