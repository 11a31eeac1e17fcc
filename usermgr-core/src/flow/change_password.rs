//! Changing one's password by knowing it.

use super::input::Input;
use super::limits::wait;
use super::sessions::Authenticated;
use super::set_password::Passwords;
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::event::EventKind;
use crate::domain::mail::MailKind;
use crate::domain::secret::Password;
use crate::error::Error;
use crate::port::store::account::{PasswordReplaced, ReplacePassword};

/// The password as it is and as it shall be.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "a caller gives all of it")]
pub struct ChangePassword {
    /// The password as it is.
    pub current_password: Password,
    /// The new password.
    pub new_password: Password,
    /// The new password again.
    pub confirmation_password: Password,
}

impl ChangePassword {
    /// The password as it is, and the new one, which nobody typed twice.
    pub fn new(current_password: impl Into<Password>, new_password: impl Into<Password>) -> Self {
        let new_password = new_password.into();
        Self {
            current_password: current_password.into(),
            confirmation_password: new_password.clone(),
            new_password,
        }
    }

    /// With the new password as it was typed again.
    #[must_use]
    pub fn with_confirmation(mut self, password: impl Into<Password>) -> Self {
        self.confirmation_password = password.into();
        self
    }
}

impl Passwords<'_> {
    /// Changes the caller's password. Every other session of the user ends, every code and link is void, and a notice
    /// is owed.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::InvalidCredentials`] for a wrong current password, [`Error::TooManyAttempts`],
    /// [`Error::SessionEnded`], [`Error::RateLimited`], [`Error::Overloaded`], [`Error::Unavailable`].
    ///
    /// # Security
    /// A wrong current password counts as a failed sign-in: there is no second path to guess on.
    ///
    /// ```
    /// use usermgr_core::ClientContext;
    /// use usermgr_core::flow::change_password::ChangePassword;
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::new();
    /// # let (users, client) = (auth.users(), ClientContext::new());
    ///
    /// # let signed_in = auth.signed_in("user").await;
    /// let caller = users.sessions().authenticate(&signed_in.access_token).await?;
    /// let request = ChangePassword::new("correct horse battery", "an even better password");
    /// users.passwords().change(&caller, request, &client).await?;
    /// assert!(users.sessions().authenticate(&signed_in.access_token).await.is_ok()); // this session stays
    /// # Ok(())
    /// # }
    /// ```
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

        let key = user.email.key();
        let now = inner.clock.now();
        let audit = inner.audit_draft(AuditEvent::PasswordChange, Some(key), Some(user.id), client, now);
        let expect = inner.prove_password(caller, current, client, &audit).await?;
        let password = inner.hash(new, client).await?;
        let now = inner.clock.now();
        let command = ReplacePassword {
            now,
            user_id: user.id,
            expect,
            password,
            keep: Some(caller.session.id),
            notice: inner.mail(MailKind::PasswordChanged, now),
            throttle: inner.password_changes(user.id),
            audit,
            events: inner.event_drafts(&[EventKind::PasswordChanged], now),
        };
        match inner.store.replace_password(command).await? {
            PasswordReplaced::Replaced => Ok(()),
            PasswordReplaced::Stale => Err(Error::InvalidCredentials),
            PasswordReplaced::Gone => Err(Error::SessionEnded),
            PasswordReplaced::Throttled { retry_after } => {
                Err(Error::RateLimited { retry_after: wait(retry_after) })
            }
        }
    }
}
