//! Registrations, users and their passwords.

use async_trait::async_trait;
use usermgr_core::domain::code::CodePurpose;
use usermgr_core::domain::email::EmailKey;
use usermgr_core::domain::id::UserId;
use usermgr_core::domain::page::Page;
use usermgr_core::domain::password::{PasswordHash, PasswordVersion};
use usermgr_core::domain::user::{Locale, User, UserStatus, Username};
use usermgr_core::port::store::account::{
    AccountStore, CreateUser, Credentials, CredentialsQuery, CredentialsView, PasswordReplaced, Register,
    Registered, ReplacePassword, UserCreated, UserQuery,
};
use usermgr_core::port::store::{Happened, StoreError};

use super::code::{CodeOwnerId, insert_code};
use super::rows::{UserRow, roles_text, user_columns};
use super::writing::{
    Limits, Receiver, audit_done, audit_refused, end_everything_of, is_known, owe_events, owe_mail,
};
use super::{Store, Tx, fault, transact, ts};

#[async_trait]
impl AccountStore for Store {
    async fn register(&self, command: Register) -> Result<Registered, StoreError> {
        transact!(self.register_once(command))
    }

    async fn create_user(&self, command: CreateUser) -> Result<UserCreated, StoreError> {
        transact!(self.create_user_once(command))
    }

    async fn credentials(&self, query: CredentialsQuery) -> Result<CredentialsView, StoreError> {
        let CredentialsQuery { now, email, guard } = query;
        let user = user_of(self.readers(), &email).await?;
        let throttled = match guard {
            None => None,
            Some(guard) => {
                let limits = Limits::read(self, [&guard.own, &guard.network, &guard.far], now).await?;
                let known =
                    is_known(self.readers(), user.as_ref().map(|found| found.user.id), &guard).await?;
                limits.refused_by(&guard, known)
            }
        };
        Ok(CredentialsView { throttled, user })
    }

    async fn replace_password(&self, command: ReplacePassword) -> Result<PasswordReplaced, StoreError> {
        transact!(self.replace_password_once(command))
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let row: Option<UserRow> = sqlx::query_as(concat!(
            "SELECT ",
            user_columns!(),
            " FROM usermgr_users u WHERE u.id = $1 AND u.deleted_at IS NULL"
        ))
        .bind(id.as_uuid())
        .fetch_optional(self.readers())
        .await
        .map_err(fault)?;
        row.map(UserRow::user).transpose()
    }

    async fn users(&self, query: UserQuery) -> Result<Page<User, UserId>, StoreError> {
        let UserQuery { after, size } = query;
        let rows: Vec<UserRow> = sqlx::query_as(concat!(
            "SELECT ",
            user_columns!(),
            " FROM usermgr_users u WHERE u.deleted_at IS NULL AND u.id < $1 ORDER BY u.id DESC LIMIT $2"
        ))
        .bind(after.map_or(uuid::Uuid::max(), |after| after.as_uuid()))
        .bind(i64::from(size.get()) + 1)
        .fetch_all(self.readers())
        .await
        .map_err(fault)?;
        let mut items = rows.into_iter().map(UserRow::user).collect::<Result<Vec<_>, _>>()?;
        let more = items.len() > usize::from(size.get());
        items.truncate(usize::from(size.get()));
        let next = items.last().filter(|_| more).map(|user| user.id);
        Ok(Page::new(items, next))
    }
}

impl Store {
    async fn register_once(&self, command: Register) -> Result<Registered, StoreError> {
        let Register {
            now,
            id,
            email,
            password,
            username,
            locale,
            expires_at,
            mut code,
            code_mail,
            taken_mail,
            throttle,
            tries,
            audit,
        } = command;
        let mut tx = self.begin().await?;
        let mut limits = Limits::lock(&mut tx, throttle.iter().chain([&tries]), now).await?;
        let before: Option<i64> =
            sqlx::query_scalar("SELECT CAST(1 AS BIGINT) FROM usermgr_registrations WHERE id = $1")
                .bind(id.as_uuid())
                .fetch_optional(&mut *tx)
                .await
                .map_err(fault)?;
        if before.is_some() {
            return Ok(Registered::Pending);
        }
        if let Some(retry_after) = limits.used_up(&throttle) {
            return Ok(Registered::Throttled { retry_after });
        }
        for rule in &throttle {
            limits.count(&mut tx, rule).await?;
        }
        limits.reset(&mut tx, &tries).await?;
        let outcome = if let Some(owner) = user_of(&mut *tx, email.key()).await? {
            owe_mail(&mut tx, taken_mail, &Receiver::user(&owner.user), None, now).await?;
            audit_refused(&mut tx, audit, now, "email_taken", Some(owner.user.id)).await?;
            Registered::Taken
        } else {
            sqlx::query(
                "INSERT INTO usermgr_registrations \
                 (id, email, email_key, password, username, locale, created_at, expires_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(id.as_uuid())
            .bind(email.as_str())
            .bind(email.key().as_str())
            .bind(password.expose())
            .bind(username.as_ref().map(Username::as_str))
            .bind(locale.as_ref().map(Locale::as_str))
            .bind(ts(now))
            .bind(ts(expires_at))
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
            code.dies_at = code.dies_at.min(expires_at);
            let owner = CodeOwnerId::Registration(id);
            insert_code(&mut tx, &code, CodePurpose::EmailVerification, owner, email.key()).await?;
            let to = Receiver { email: &email, locale: locale.as_ref(), username: username.as_ref() };
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
            roles,
            password,
            invitation,
            audit,
            events,
        } = command;
        let mut tx = self.begin().await?;
        let version = if password.is_some() { PasswordVersion::FIRST } else { PasswordVersion::NONE };
        let user = User {
            id,
            email,
            email_verified_at,
            username,
            roles,
            status: UserStatus::Active,
            locale,
            created_at: now,
            updated_at: now,
            last_login_at: None,
        };
        if !insert_user(&mut tx, &user, password.as_ref(), version).await? {
            if let Some(before) = locked_user(&mut tx, id).await? {
                return Ok(UserCreated::Created(Box::new(before.user)));
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
        let ReplacePassword { now, user_id, expect, password, keep, notice, audit, events } = command;
        let mut tx = self.begin().await?;
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
        "SELECT u.id AS user_id, u.email, u.email_verified_at, u.username, u.roles, u.status, u.locale, u.password, \
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
         password, password_version, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11) \
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
    .fetch_optional(&mut **tx)
    .await
    .map_err(fault)?;
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
