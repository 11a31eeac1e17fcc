//! Changing a user's name, language, profile, status and roles: one's own, or as an administrator.

use super::account::Account;
use super::input::Input;
use super::limits::wait;
use super::permission::{Operation, Principal};
use super::sessions::Authenticated;
use super::users::Users;
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::event::EventKind;
use crate::domain::id::UserId;
use crate::domain::json::JsonObject;
use crate::domain::role::Role;
use crate::domain::secret::Password;
use crate::domain::session::Session;
use crate::domain::user::{User, UserStatus};
use crate::error::Error;
use crate::manager::Inner;
use crate::port::store::account::{self, RolesChange, UserChange, UserUpdated};
use crate::port::store::session::{EndSessions, SessionSelector, SessionsEnded, SessionsQuery};

/// What to change of a user; what is `None` stays.
///
/// ```
/// use usermgr_core::domain::user::UserStatus;
/// use usermgr_core::flow::update_user::UpdateUser;
///
/// let renamed = UpdateUser::new().with_username(Some("Ana".into()));
/// let nameless = UpdateUser::new().with_username(None);
/// let disabled = UpdateUser::new().with_status(UserStatus::Disabled); // as an administrator
/// ```
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a caller names what it gives, and takes the rest from `new` or `Default`"
)]
pub struct UpdateUser {
    /// The display name; `Some(None)` removes it.
    pub username: Option<Option<String>>,
    /// The language of mails, as a BCP 47 tag; `Some(None)` removes it.
    pub locale: Option<Option<String>>,
    /// The profile, which replaces the one before as a whole; `Some(None)` removes it.
    pub profile: Option<Option<JsonObject>>,
    /// Whether the account may be used. A user who is disabled is signed out everywhere at once.
    pub status: Option<UserStatus>,
}

impl UpdateUser {
    /// Nothing is changed.
    pub fn new() -> Self {
        Self::default()
    }

    /// With another display name; `None` removes it.
    #[must_use]
    pub fn with_username(mut self, username: Option<String>) -> Self {
        self.username = Some(username);
        self
    }

    /// With another language of mails, as a BCP 47 tag; `None` removes it.
    #[must_use]
    pub fn with_locale(mut self, locale: Option<String>) -> Self {
        self.locale = Some(locale);
        self
    }

    /// With another profile, which replaces the one before as a whole; `None` removes it.
    #[must_use]
    pub fn with_profile(mut self, profile: Option<JsonObject>) -> Self {
        self.profile = Some(profile);
        self
    }

    /// With another status.
    #[must_use]
    pub fn with_status(mut self, status: UserStatus) -> Self {
        self.status = Some(status);
        self
    }
}

impl Account<'_> {
    /// Changes the caller's name, language and profile. The status of [`UpdateUser`] is not the caller's to change.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::SessionEnded`] when the caller was deleted meanwhile, [`Error::RateLimited`],
    /// [`Error::Unavailable`].
    pub async fn update(
        &self,
        caller: &Authenticated,
        request: UpdateUser,
        client: &ClientContext,
    ) -> Result<User, Error> {
        let inner = self.inner;
        let change = inner.user_change(UpdateUser { status: None, ..request })?;
        let id = caller.user.id;
        let actor = Some(id);
        let throttle = inner.own_writes(id);
        let command = inner.update_command(id, actor, None, change, AuditEvent::UserUpdate, client);
        match inner.store.update_user(account::UpdateUser { throttle, ..command }).await? {
            UserUpdated::Updated(user) => Ok(*user),
            UserUpdated::Throttled { retry_after } => {
                Err(Error::RateLimited { retry_after: wait(retry_after) })
            }
            _ => Err(Error::SessionEnded),
        }
    }
}

impl Users<'_> {
    /// Changes a user's name, language, profile and status.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotFound`], [`Error::LastAdmin`], [`Error::Unavailable`]; of a user who acts,
    /// [`Error::Forbidden`] without `users:write`, and for a user whose roles permit more; with a status, without a recent
    /// sign-in or the password along ([`Principal::UserWithPassword`]) [`Error::ReauthenticationRequired`],
    /// [`Error::InvalidCredentials`], [`Error::TooManyAttempts`].
    pub async fn update(
        &self,
        by: Principal<'_>,
        id: UserId,
        request: UpdateUser,
        client: &ClientContext,
    ) -> Result<User, Error> {
        let inner = self.inner;
        let (operation, event) = match request.status {
            Some(_) => (Operation::ChangeStatus, AuditEvent::StatusChange),
            None => (Operation::UpdateUser, AuditEvent::UserUpdate),
        };
        let actor = inner.permit(by, operation, client).await?;
        let change = inner.user_change(request)?;
        let command = inner.update_command(id, by.actor(), actor, change, event, client);
        answer(inner.store.update_user(command).await?)
    }

    /// Gives roles to a user or takes them. Whoever acts has signed in lately or sends the current password along: here, or
    /// with [`Principal::UserWithPassword`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a role that is not defined, [`Error::NotFound`], [`Error::LastAdmin`],
    /// [`Error::Unavailable`]; of a user who acts, [`Error::Forbidden`] without `roles:assign` and for roles that permit
    /// more than the user may, [`Error::ReauthenticationRequired`], [`Error::InvalidCredentials`],
    /// [`Error::TooManyAttempts`].
    ///
    /// ```
    /// use usermgr_core::ClientContext;
    /// use usermgr_core::domain::user::UserStatus;
    /// use usermgr_core::flow::permission::Principal;
    /// use usermgr_core::flow::update_user::UpdateUser;
    /// use usermgr_core::port::store::account::RolesChange;
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::new();
    /// # let (users, client) = (auth.users(), ClientContext::new());
    ///
    /// # let (root, user) = (auth.signed_in("admin").await, auth.signed_in("user").await.user);
    /// // The program itself, as from its command line:
    /// let grant = RolesChange::Grant("admin".parse()?);
    /// users.users().change_roles(Principal::Operator, user.id, grant, None, &client).await?;
    ///
    /// // Somebody who signed in, by their own rights:
    /// let caller = users.sessions().authenticate(&root.access_token).await?;
    /// let disable = UpdateUser::new().with_status(UserStatus::Disabled);
    /// users.users().update(Principal::User(&caller), user.id, disable, &client).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn change_roles(
        &self,
        by: Principal<'_>,
        id: UserId,
        roles: RolesChange,
        password: Option<&Password>,
        client: &ClientContext,
    ) -> Result<User, Error> {
        let inner = self.inner;
        let by = by.with_password(password);
        let actor = inner.permit(by, Operation::ChangeRoles, client).await?;
        let mut input = Input::default();
        match &roles {
            RolesChange::Set(roles) => input.roles(roles, &inner.policies.roles),
            RolesChange::Grant(role) => input.roles([role], &inner.policies.roles),
            // A role that is no longer defined can be taken all the same.
            RolesChange::Revoke(role) if role.as_str() == Role::USER => {
                input.fault("roles", crate::domain::field::FieldFault::Unsupported);
            }
            RolesChange::Revoke(_) => {}
        }
        input.check()?;
        let change = UserChange { roles: Some(roles), ..UserChange::default() };
        let event = AuditEvent::RoleChange;
        let command = inner.update_command(id, by.actor(), actor, change, event, client);
        answer(inner.store.update_user(command).await?)
    }

    /// A user's sessions that hold, the one that was renewed last first; at most 200. Whoever may end them may see them.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unavailable`]; of a user who acts, [`Error::Forbidden`] without `users:write`, and
    /// for a user whose roles permit more.
    pub async fn sessions(
        &self,
        by: Principal<'_>,
        id: UserId,
        client: &ClientContext,
    ) -> Result<Vec<Session>, Error> {
        let inner = self.inner;
        let actor = inner.permit(by, Operation::ReadSessions, client).await?;
        let user = inner.store.user(id).await?.ok_or(Error::NotFound)?;
        if let Some(actor) = actor.filter(|actor| !user.roles.is_disjoint(&actor.beyond)) {
            return Err(inner.denied(actor.id, Some(user.id), client).await?);
        }
        let query = SessionsQuery { now: inner.clock.now(), user_id: user.id };
        Ok(inner.store.sessions(query).await?)
    }

    /// Ends every session of a user. Answers how many there were.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unavailable`]; of a user who acts, [`Error::Forbidden`] without `users:write`, and
    /// for a user whose roles permit more, and without a recent sign-in or the password along
    /// ([`Principal::UserWithPassword`]) [`Error::ReauthenticationRequired`], [`Error::InvalidCredentials`],
    /// [`Error::TooManyAttempts`].
    pub async fn end_sessions(
        &self,
        by: Principal<'_>,
        id: UserId,
        client: &ClientContext,
    ) -> Result<u64, Error> {
        let inner = self.inner;
        let actor = inner.permit(by, Operation::EndSessions, client).await?;
        let user = inner.store.user(id).await?.ok_or(Error::NotFound)?;
        let now = inner.clock.now();
        let audit = inner.audit_draft(AuditEvent::SignOut, Some(user.email.key()), by.actor(), client, now);
        let events = inner.event_drafts(&[EventKind::SessionsEnded], now);
        let which = SessionSelector::All;
        let command = EndSessions { now, user_id: id, which, by: actor, audit, events };
        match inner.store.end_sessions(command).await? {
            SessionsEnded::Ended(ended) => Ok(ended),
            SessionsEnded::NotPermitted => Err(Error::Forbidden),
        }
    }
}

fn answer(outcome: UserUpdated) -> Result<User, Error> {
    match outcome {
        UserUpdated::Updated(user) => Ok(*user),
        UserUpdated::NotFound => Err(Error::NotFound),
        UserUpdated::NotPermitted => Err(Error::Forbidden),
        UserUpdated::LastAdmin => Err(Error::LastAdmin),
        UserUpdated::Throttled { retry_after } => Err(Error::RateLimited { retry_after: wait(retry_after) }),
    }
}

impl Inner {
    fn user_change(&self, request: UpdateUser) -> Result<UserChange, Error> {
        let UpdateUser { username, locale, profile, status } = request;
        let mut input = Input::default();
        let username = username.map(|name| input.username(name.as_deref()));
        let locale = locale.map(|tag| input.locale(tag.as_deref()));
        let profile = profile.map(|profile| input.profile(profile.as_ref(), self.profile)).transpose()?;
        input.check()?;
        Ok(UserChange { username, locale, profile, status, roles: None })
    }

    fn update_command(
        &self,
        id: UserId,
        actor: Option<UserId>,
        by: Option<account::Actor>,
        change: UserChange,
        event: AuditEvent,
        client: &ClientContext,
    ) -> account::UpdateUser {
        let now = self.clock.now();
        let kinds = [EventKind::UserUpdated, EventKind::RolesChanged, EventKind::StatusChanged];
        account::UpdateUser {
            now,
            id,
            by,
            change,
            throttle: Vec::new(),
            audit: self.audit_draft(event, None, actor, client, now),
            events: self.event_drafts(&kinds, now),
        }
    }
}
