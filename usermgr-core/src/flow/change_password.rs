//! Changing one's password by knowing it.

use super::input::Input;
use super::limits::wait;
use super::sessions::Authenticated;
use super::set_password::Passwords;
use crate::crypto::hasher::Verified;
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::event::EventKind;
use crate::domain::mail::MailKind;
use crate::domain::secret::Password;
use crate::error::Error;
use crate::port::store::account::{CredentialsQuery, PasswordReplaced, ReplacePassword};
use crate::port::store::session::{LoginCounted, LoginFailed};

/// The password as it is and as it shall be.
#[derive(Debug, Clone)]
pub struct ChangePassword {
    /// The password as it is.
    pub current_password: Password,
    /// The new password.
    pub new_password: Password,
    /// The new password again.
    pub confirmation_password: Password,
}

impl Passwords<'_> {
    /// Changes the caller's password. Every other session of the user ends, every code and link is void, and a notice
    /// is owed.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::InvalidCredentials`] for a wrong current password, [`Error::TooManyAttempts`],
    /// [`Error::SessionEnded`], [`Error::Overloaded`], [`Error::Unavailable`].
    ///
    /// # Security
    /// A wrong current password counts as a failed sign-in: there is no second path to guess on.
    pub async fn change(
        &self,
        caller: &Authenticated,
        request: ChangePassword,
        client: &ClientContext,
    ) -> Result<(), Error> {
        let inner = self.inner;
        let ChangePassword { current_password, new_password, confirmation_password } = request;
        let user = &caller.user;
        let mut input = Input::default();
        let current = input.password("current_password", &current_password);
        let new = input.new_password("new_password", &new_password, Some(&confirmation_password));
        if let Some(new) = &new {
            let min = inner.policies.passwords.min_length;
            input.strength("new_password", new, min, Some(&user.email), user.username.as_ref());
        }
        input.check()?;
        let (Some(current), Some(new)) = (current, new) else { return Err(input.refusal()) };

        let now = inner.clock.now();
        let key = user.email.key();
        let guard = inner.login_guard(key, client, now);
        let view = inner.store.credentials(CredentialsQuery { now, email: key.clone(), guard }).await?;
        if let Some(retry_after) = view.throttled {
            return Err(Error::TooManyAttempts { retry_after: wait(retry_after) });
        }
        let credentials = view.user.filter(|found| found.user.id == user.id).ok_or(Error::SessionEnded)?;
        let audit = inner.audit_draft(AuditEvent::PasswordChange, Some(key), Some(user.id), client, now);
        let proven = inner.verify_password(current, credentials.password).await?;
        if !matches!(proven, Verified::Match { .. }) {
            let failed = LoginFailed { now: inner.clock.now(), user_id: Some(user.id), guard, audit };
            return Err(match inner.store.login_failed(failed).await? {
                LoginCounted::Counted => Error::InvalidCredentials,
                LoginCounted::Throttled { retry_after } => {
                    Error::TooManyAttempts { retry_after: wait(retry_after) }
                }
            });
        }
        let password = inner.hash(new).await?;
        let now = inner.clock.now();
        let command = ReplacePassword {
            now,
            user_id: user.id,
            expect: credentials.version,
            password,
            keep: Some(caller.session.id),
            notice: inner.mail(MailKind::PasswordChanged, now),
            audit,
            events: inner.event_drafts(&[EventKind::PasswordChanged], now),
        };
        match inner.store.replace_password(command).await? {
            PasswordReplaced::Replaced => Ok(()),
            PasswordReplaced::Stale => Err(Error::InvalidCredentials),
            PasswordReplaced::Gone => Err(Error::SessionEnded),
        }
    }
}
