//! Deleting an account: one's own, with a way back, or as an administrator.
//!
//! [`Account::delete`], [`Users::delete`].

use super::account::Account;
use super::limits::wait;
use super::permission::{Operation, Principal};
use super::sessions::Authenticated;
use super::users::Users;
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::event::EventKind;
use crate::domain::id::UserId;
use crate::domain::mail::MailKind;
use crate::domain::secret::Password;
use crate::error::Error;
use crate::port::store::account::{DeleteUser, UserDeleted};

impl Account<'_> {
    /// Deletes the caller's account. It is signed out everywhere and not found any more; signing in within the grace
    /// ([`DeletionPolicy`](crate::policy::DeletionPolicy)) brings it back, unless somebody registered the address
    /// meanwhile. A notice says so by mail. After the grace it is removed for good; the audit log keeps its identifier.
    ///
    /// # Errors
    /// [`Error::ReauthenticationRequired`] without a password long after the sign-in, [`Error::InvalidCredentials`],
    /// [`Error::TooManyAttempts`], [`Error::RateLimited`], [`Error::LastAdmin`], [`Error::SessionEnded`],
    /// [`Error::Unavailable`].
    pub async fn delete(
        &self,
        caller: &Authenticated,
        password: Option<&Password>,
        client: &ClientContext,
    ) -> Result<(), Error> {
        let inner = self.inner;
        let user = &caller.user;
        let now = inner.clock.now();
        let key = user.email.key();
        let audit = inner.audit_draft(AuditEvent::UserDeletion, Some(key), Some(user.id), client, now);
        let expect = inner.step_up(caller, password, client, &audit).await?;
        let now = inner.clock.now();
        let command = DeleteUser {
            now,
            id: user.id,
            by: None,
            expect,
            restorable_until: Some(now + inner.policies.deletion.grace),
            notice: Some(inner.mail(MailKind::AccountDeleted, now)),
            throttle: inner.own_writes(user.id),
            audit,
            events: inner.event_drafts(&[EventKind::UserDeleted], now),
        };
        match inner.store.delete_user(command).await? {
            UserDeleted::Deleted => Ok(()),
            UserDeleted::LastAdmin => Err(Error::LastAdmin),
            UserDeleted::Stale => Err(Error::InvalidCredentials),
            UserDeleted::NotFound | UserDeleted::NotPermitted => Err(Error::SessionEnded),
            UserDeleted::Throttled { retry_after } => {
                Err(Error::RateLimited { retry_after: wait(retry_after) })
            }
        }
    }
}

impl Users<'_> {
    /// Deletes a user. The account is signed out everywhere, is not found any more and cannot come back; its address is
    /// free. After the grace it is removed for good; the audit log keeps its identifier.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::LastAdmin`], [`Error::Unavailable`]; of a user who acts, [`Error::Forbidden`]
    /// without `users:delete`, and for a user whose roles permit more, and without a recent sign-in or the password along
    /// ([`Principal::UserWithPassword`]) [`Error::ReauthenticationRequired`], [`Error::InvalidCredentials`],
    /// [`Error::TooManyAttempts`].
    pub async fn delete(&self, by: Principal<'_>, id: UserId, client: &ClientContext) -> Result<(), Error> {
        let inner = self.inner;
        let actor = inner.permit(by, Operation::DeleteUser, client).await?;
        let now = inner.clock.now();
        let command = DeleteUser {
            now,
            id,
            by: actor,
            expect: None,
            restorable_until: None,
            notice: None,
            throttle: Vec::new(),
            audit: inner.audit_draft(AuditEvent::UserDeletion, None, by.actor(), client, now),
            events: inner.event_drafts(&[EventKind::UserDeleted], now),
        };
        match inner.store.delete_user(command).await? {
            UserDeleted::Deleted => Ok(()),
            UserDeleted::NotFound => Err(Error::NotFound),
            UserDeleted::LastAdmin => Err(Error::LastAdmin),
            UserDeleted::NotPermitted | UserDeleted::Stale => Err(Error::Forbidden),
            UserDeleted::Throttled { retry_after } => {
                Err(Error::RateLimited { retry_after: wait(retry_after) })
            }
        }
    }
}
