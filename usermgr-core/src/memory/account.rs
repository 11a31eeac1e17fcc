//! Registrations, users and their passwords.

use async_trait::async_trait;

use super::{CodeRow, MemoryStore, Owner, Receiver, RegistrationRow, UserRow};
use crate::domain::code::CodePurpose;
use crate::domain::id::UserId;
use crate::domain::page::Page;
use crate::domain::password::PasswordVersion;
use crate::domain::user::{User, UserStatus};
use crate::port::store::account::{
    AccountStore, CreateUser, Credentials, CredentialsQuery, CredentialsView, PasswordReplaced, Register,
    Registered, ReplacePassword, UserCreated, UserQuery,
};
use crate::port::store::{Happened, StoreError};

#[async_trait]
impl AccountStore for MemoryStore {
    async fn register(&self, command: Register) -> Result<Registered, StoreError> {
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
        let mut state = self.state()?;
        if state.registrations.contains_key(&id) {
            return Ok(Registered::Pending);
        }
        if let Some(retry_after) = state.used_up(&throttle, now) {
            return Ok(Registered::Throttled { retry_after });
        }
        for rule in &throttle {
            state.count(rule, now);
        }
        state.reset(&tries, now);
        if let Some(owner) = state.user_of(email.key()).map(|row| row.user.clone()) {
            state.owe_mail(taken_mail, &Receiver::user(&owner), None, now);
            state.audit_refused(audit, now, "email_taken", Some(owner.id));
            drop(state);
            self.wake();
            return Ok(Registered::Taken);
        }
        code.dies_at = code.dies_at.min(expires_at);
        let row = RegistrationRow { email, password, username, locale, expires_at };
        state.owe_mail(code_mail, &Receiver::registration(&row), Some(code.id), now);
        state.registrations.insert(id, row);
        let owner = Owner::Registration(id);
        state.codes.insert(code.id, CodeRow::new(code, CodePurpose::EmailVerification, owner));
        state.audit_done(audit, now, None);
        drop(state);
        self.wake();
        Ok(Registered::Pending)
    }

    async fn create_user(&self, command: CreateUser) -> Result<UserCreated, StoreError> {
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
        let mut state = self.state()?;
        if let Some(row) = state.users.get(&id) {
            return Ok(UserCreated::Created(Box::new(row.user.clone())));
        }
        if let Some(owner) = state.user_of(email.key()).map(|row| row.user.id) {
            state.audit_refused(audit, now, "email_taken", Some(owner));
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
            created_at: now,
            updated_at: now,
            last_login_at: None,
        };
        if let Some((code, mail)) = invitation {
            state.owe_mail(mail, &Receiver::user(&user), Some(code.id), now);
            state.codes.insert(code.id, CodeRow::new(code, CodePurpose::FirstTimeSetup, Owner::User(id)));
        }
        let version = if password.is_some() { PasswordVersion::FIRST } else { PasswordVersion::NONE };
        state.users.insert(id, UserRow { user: user.clone(), password, version });
        let happened = Happened { user_registered: true, ..Happened::default() };
        state.owe_events(&events, happened, id, now);
        state.audit_done(audit, now, Some(id));
        drop(state);
        self.wake();
        Ok(UserCreated::Created(Box::new(user)))
    }

    async fn credentials(&self, query: CredentialsQuery) -> Result<CredentialsView, StoreError> {
        let CredentialsQuery { now, email, guard } = query;
        let state = self.state()?;
        let row = state.user_of(&email);
        let throttled = state.guard_refuses(row.map(|row| row.user.id), guard.as_ref(), now);
        let user = row.map(|row| Credentials {
            user: row.user.clone(),
            password: row.password.clone(),
            version: row.version,
        });
        Ok(CredentialsView { throttled, user })
    }

    async fn replace_password(&self, command: ReplacePassword) -> Result<PasswordReplaced, StoreError> {
        let ReplacePassword { now, user_id, expect, password, keep, notice, audit, events } = command;
        let mut state = self.state()?;
        let Some(row) = state.users.get_mut(&user_id).filter(|row| row.user.status == UserStatus::Active)
        else {
            state.audit_refused(audit, now, "gone", Some(user_id));
            return Ok(PasswordReplaced::Gone);
        };
        if row.version != expect {
            state.audit_refused(audit, now, "stale", Some(user_id));
            return Ok(PasswordReplaced::Stale);
        }
        let version = expect.next();
        row.password = Some(password);
        row.version = version;
        row.user.updated_at = now;
        let user = row.user.clone();
        if let Some(kept) =
            keep.and_then(|id| state.sessions.get_mut(&id)).filter(|row| row.session.user_id == user_id)
        {
            kept.version = version;
        }
        state.end_sessions_of(user_id, keep, now);
        state.void_codes_of(Owner::User(user_id), now, |_| true);
        state.owe_mail(notice, &Receiver::user(&user), None, now);
        let happened = Happened { password_changed: true, ..Happened::default() };
        state.owe_events(&events, happened, user_id, now);
        state.audit_done(audit, now, Some(user_id));
        drop(state);
        self.wake();
        Ok(PasswordReplaced::Replaced)
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        Ok(self.state()?.users.get(&id).map(|row| row.user.clone()))
    }

    async fn users(&self, query: UserQuery) -> Result<Page<User, UserId>, StoreError> {
        let UserQuery { after, size } = query;
        let state = self.state()?;
        let newest_first = state.users.values().rev().map(|row| &row.user);
        let size = usize::from(size.get());
        let mut items: Vec<User> = newest_first
            .filter(|user| after.is_none_or(|after| user.id < after))
            .take(size + 1)
            .cloned()
            .collect();
        let more = items.len() > size;
        items.truncate(size);
        let next = items.last().filter(|_| more).map(|user| user.id);
        Ok(Page::new(items, next))
    }
}

impl CodeRow {
    pub(super) const fn new(
        code: crate::port::store::code::NewCode,
        purpose: CodePurpose,
        owner: Owner,
    ) -> Self {
        Self { code, purpose, owner, closed_at: None, expires_at: None, wrong_tries: 0 }
    }
}
