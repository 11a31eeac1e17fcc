//! Registrations, users and their passwords.

use async_trait::async_trait;

use super::{CodeRow, Deleted, MemoryStore, Owner, Receiver, RegistrationRow, UserRow};
use crate::domain::code::{CodeForm, CodePurpose};
use crate::domain::id::UserId;
use crate::domain::page::Page;
use crate::domain::password::PasswordVersion;
use crate::domain::role::Roles;
use crate::domain::user::{User, UserStatus, Username};
use crate::port::store::account::{
    AccountStore, CreateUser, Credentials, CredentialsQuery, CredentialsView, DeleteUser,
    EmailChangeRequested, ImportUsers, ImportedUser, KnownNetwork, LimitsQuery, LimitsView, PasswordReplaced,
    Register, Registered, ReplacePassword, RequestEmailChange, UpdateUser, UserChange, UserCreated,
    UserCursor, UserDeleted, UserImported, UserQuery, UserUpdated, is_working_admin,
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
            profile,
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
        state.clamp(throttle.iter().chain(&tries), now);
        if let Some(retry_after) = state.used_up(&throttle, now) {
            return Ok(Registered::Throttled { retry_after });
        }
        for rule in &throttle {
            state.count(rule, now);
        }
        if let Some(tries) = &tries {
            state.reset(tries, now);
        }
        if let Some(owner) = state.user_of(email.key()).map(|row| row.user.clone()) {
            state.owe_mail(taken_mail, &Receiver::user(&owner), None, now);
            state.audit_refused(audit, now, "email_taken", Some(owner.id));
            drop(state);
            self.wake();
            return Ok(Registered::Taken);
        }
        code.dies_at = code.dies_at.min(expires_at);
        let row = RegistrationRow { email, password, username, locale, profile, expires_at };
        state.owe_mail(code_mail, &Receiver::registration(&row), Some(code.id), now);
        state.registrations.insert(id, row);
        let owner = Owner::Registration(id);
        state.codes.insert(code.id, CodeRow::new(code, CodePurpose::EmailVerification, owner));
        state.audit_done(audit, now, None);
        drop(state);
        self.wake();
        Ok(Registered::Pending)
    }

    async fn limits(&self, query: LimitsQuery) -> Result<LimitsView, StoreError> {
        let LimitsQuery { now, rules, network } = query;
        let state = self.state()?;
        let used_up =
            rules.iter().filter_map(|rule| Some((rule.key, state.seen_used_up([rule], now)?))).collect();
        let is_known = network.is_some_and(|KnownNetwork { email, network, since }| {
            let user = state.user_of(&email).map(|row| row.user.id);
            user.and_then(|user| state.networks.get(&(user, network))).is_some_and(|seen| *seen >= since)
        });
        Ok(LimitsView { used_up, is_known })
    }

    async fn create_user(&self, command: CreateUser) -> Result<UserCreated, StoreError> {
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
        let mut state = self.state()?;
        if let Some(row) = state.users.get(&id) {
            return Ok(UserCreated::Created(Box::new(row.user.clone())));
        }
        if !state.permits(by.as_ref(), &roles) {
            state.audit_refused(audit, now, "forbidden", None);
            return Ok(UserCreated::NotPermitted);
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
            profile,
            created_at: now,
            updated_at: now,
            last_login_at: None,
        };
        if let Some((code, mail)) = invitation {
            state.owe_mail(mail, &Receiver::user(&user), Some(code.id), now);
            state.codes.insert(code.id, CodeRow::new(code, CodePurpose::FirstTimeSetup, Owner::User(id)));
        }
        let version = if password.is_some() { PasswordVersion::FIRST } else { PasswordVersion::NONE };
        state.users.insert(id, UserRow::new(user.clone(), password, version));
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
        let row = state.credentials_of(&email, now);
        let throttled = state.guard_refuses(row.map(|row| row.user.id), guard.as_ref(), now);
        let user = row.map(|row| Credentials {
            user: row.user.clone(),
            password: row.password.clone(),
            version: row.version,
        });
        Ok(CredentialsView { throttled, user })
    }

    async fn replace_password(&self, command: ReplacePassword) -> Result<PasswordReplaced, StoreError> {
        let ReplacePassword { now, user_id, expect, password, keep, notice, throttle, audit, events } =
            command;
        let mut state = self.state()?;
        if let Some(retry_after) = state.count_unless_used_up(&throttle, now) {
            return Ok(PasswordReplaced::Throttled { retry_after });
        }
        let Some(row) = state.users.get_mut(&user_id).filter(|row| row.is_active()) else {
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
        state.end_codes_of(user_id, now);
        state.owe_mail(notice, &Receiver::user(&user), None, now);
        let happened = Happened { password_changed: true, ..Happened::default() };
        state.owe_events(&events, happened, user_id, now);
        state.audit_done(audit, now, Some(user_id));
        drop(state);
        self.wake();
        Ok(PasswordReplaced::Replaced)
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        Ok(self.state()?.live_user(id).map(|row| row.user.clone()))
    }

    async fn users(&self, query: UserQuery) -> Result<Page<User, UserCursor>, StoreError> {
        let UserQuery { prefix, role, status, after, size } = query;
        let state = self.state()?;
        let matches = |row: &&UserRow| {
            row.deleted.is_none()
                && role.as_ref().is_none_or(|role| row.user.roles.contains(role))
                && status.is_none_or(|status| row.user.status == status)
        };
        let mut found: Vec<(Option<String>, &User)> = match &prefix {
            None => state.users.values().rev().filter(matches).map(|row| (None, &row.user)).collect(),
            Some(prefix) => {
                let term = |user: &User| {
                    let key = Some(user.email.key().as_str().to_owned());
                    let name = user.username.as_ref().map(|name| Username::folded(name.as_str()));
                    [key, name].into_iter().flatten().find(|term| term.starts_with(prefix))
                };
                let rows = state.users.values().filter(matches);
                let mut found: Vec<_> =
                    rows.filter_map(|row| Some((Some(term(&row.user)?), &row.user))).collect();
                found.sort_by(|(a, one), (b, other)| (a, one.id).cmp(&(b, other.id)));
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
        let next = (found.len() > size).then(|| found.get(size - 1)).flatten();
        let next = next.map(|(term, user)| UserCursor { term: term.clone(), id: user.id });
        Ok(Page::new(found.into_iter().take(size).map(|(_, user)| user.clone()).collect(), next))
    }

    async fn update_user(&self, command: UpdateUser) -> Result<UserUpdated, StoreError> {
        let UpdateUser { now, id, by, change, throttle, audit, events } = command;
        let UserChange { username, locale, profile, status, roles } = change;
        let mut state = self.state()?;
        if let Some(retry_after) = state.count_unless_used_up(&throttle, now) {
            return Ok(UserUpdated::Throttled { retry_after });
        }
        let before = state.live_user(id).map(|row| row.user.clone());
        let new_roles =
            before.as_ref().zip(roles.as_ref()).map(|(user, roles)| roles.applied_to(&user.roles));
        let reached: Roles = before
            .iter()
            .flat_map(|user| user.roles.iter())
            .chain(new_roles.iter().flatten())
            .cloned()
            .collect();
        if !state.permits(by.as_ref(), &reached) {
            state.audit_refused(audit, now, "forbidden", before.map(|user| user.id));
            return Ok(UserUpdated::NotPermitted);
        }
        let Some(before) = before else {
            state.audit_refused(audit, now, "not_found", None);
            return Ok(UserUpdated::NotFound);
        };
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
        let password = state.live_user(id).and_then(|row| row.password.as_ref());
        let falls = is_working_admin(&before, password) && !is_working_admin(&user, password);
        if falls && !state.has_other_admin(id) {
            state.audit_refused(audit, now, "last_admin", Some(id));
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
            return Ok(UserUpdated::Updated(Box::new(user)));
        }
        user.updated_at = now;
        if let Some(row) = state.users.get_mut(&id) {
            row.user = user.clone();
        }
        if happened.status_changed && user.status == UserStatus::Disabled {
            state.end_sessions_of(id, None, now);
            state.end_codes_of(id, now);
        }
        state.owe_events(&events, happened, id, now);
        state.audit_done(audit, now, Some(id));
        drop(state);
        self.wake();
        Ok(UserUpdated::Updated(Box::new(user)))
    }

    async fn delete_user(&self, command: DeleteUser) -> Result<UserDeleted, StoreError> {
        let DeleteUser { now, id, by, expect, restorable_until, notice, throttle, audit, events } = command;
        let mut state = self.state()?;
        if let Some(retry_after) = state.count_unless_used_up(&throttle, now) {
            return Ok(UserDeleted::Throttled { retry_after });
        }
        let found = state.live_user(id).cloned();
        let none = Roles::new();
        let reached = found.as_ref().map_or(&none, |row| &row.user.roles);
        if !state.permits(by.as_ref(), reached) {
            state.audit_refused(audit, now, "forbidden", found.map(|row| row.user.id));
            return Ok(UserDeleted::NotPermitted);
        }
        let Some(found) = found else {
            state.audit_refused(audit, now, "not_found", None);
            return Ok(UserDeleted::NotFound);
        };
        if found.is_working_admin() && !state.has_other_admin(id) {
            state.audit_refused(audit, now, "last_admin", Some(id));
            return Ok(UserDeleted::LastAdmin);
        }
        if expect.is_some_and(|expect| expect != found.version) {
            state.audit_refused(audit, now, "stale", Some(id));
            return Ok(UserDeleted::Stale);
        }
        if let Some(row) = state.users.get_mut(&id) {
            row.deleted = Some(Deleted { at: now, restorable_until });
            row.user.updated_at = now;
        }
        state.end_sessions_of(id, None, now);
        state.end_codes_of(id, now);
        if restorable_until.is_none() {
            state.void_codes_of(Owner::User(id), now, CodeRow::is_undo);
        }
        if let Some(notice) = notice {
            state.owe_mail(notice, &Receiver::user(&found.user), None, now);
        }
        state.owe_events(&events, Happened { user_deleted: true, ..Happened::default() }, id, now);
        state.audit_done(audit, now, Some(id));
        drop(state);
        self.wake();
        Ok(UserDeleted::Deleted)
    }

    async fn request_email_change(
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
        let mut state = self.state()?;
        if state.codes.contains_key(&code.id) {
            return Ok(EmailChangeRequested::Queued);
        }
        state.clamp(throttle.iter().chain(&tries), now);
        if let Some(retry_after) = state.used_up(&throttle, now) {
            return Ok(EmailChangeRequested::Throttled { retry_after });
        }
        for rule in &throttle {
            state.count(rule, now);
        }
        if let Some(tries) = &tries {
            state.reset(tries, now);
        }
        let Some(row) = state.users.get(&user_id).filter(|row| row.is_active()).cloned() else {
            state.audit_refused(audit, now, "gone", Some(user_id));
            return Ok(EmailChangeRequested::Gone);
        };
        if expect.is_some_and(|expect| expect != row.version) {
            state.audit_refused(audit, now, "stale", Some(user_id));
            return Ok(EmailChangeRequested::Stale);
        }
        let purpose = CodePurpose::ChangeEmail;
        state.void_codes_of(Owner::User(user_id), now, |row| {
            row.purpose == purpose && row.code.form != CodeForm::Link
        });
        state.owe_mail(notice, &Receiver::user(&row.user), None, now);
        let other = state.user_of(new_email.key()).map(|row| row.user.clone());
        if let Some(other) = other.filter(|other| other.id != user_id) {
            state.owe_mail(taken_mail, &Receiver::user(&other), None, now);
            state.audit_refused(audit, now, "email_taken", Some(user_id));
        } else {
            let to = Receiver { email: &new_email, username: None, ..Receiver::user(&row.user) };
            state.owe_mail(code_mail, &to, Some(code.id), now);
            let mut issued = CodeRow::new(code, purpose, Owner::User(user_id));
            issued.new_email = Some(new_email);
            state.codes.insert(code.id, issued);
            state.audit_done(audit, now, Some(user_id));
        }
        drop(state);
        self.wake();
        Ok(EmailChangeRequested::Queued)
    }

    async fn import_users(&self, command: ImportUsers) -> Result<Vec<UserImported>, StoreError> {
        let ImportUsers { now, users } = command;
        let mut state = self.state()?;
        let mut answers = Vec::with_capacity(users.len());
        for ImportedUser { user, password, audit, event } in users {
            let id = user.id;
            if state.users.contains_key(&id) || state.user_of(user.email.key()).is_some() {
                answers.push(UserImported::Exists);
                continue;
            }
            let version = if password.is_some() { PasswordVersion::FIRST } else { PasswordVersion::NONE };
            state.users.insert(id, UserRow::new(user, password, version));
            let happened = Happened { user_registered: true, ..Happened::default() };
            state.owe_events(&[event], happened, id, now);
            state.audit_done(audit, now, Some(id));
            answers.push(UserImported::Added);
        }
        drop(state);
        self.wake();
        Ok(answers)
    }
}

impl CodeRow {
    pub(super) const fn new(
        code: crate::port::store::code::NewCode,
        purpose: CodePurpose,
        owner: Owner,
    ) -> Self {
        Self { code, purpose, owner, new_email: None, closed_at: None, expires_at: None, wrong_tries: 0 }
    }
}
