//! Proving anew who one is, before what cannot be taken back.

use super::input::Input;
use super::limits::{plain, wait};
use super::sessions::Authenticated;
use crate::crypto::hasher::Verified;
use crate::crypto::password_text::NormalizedPassword;
use crate::domain::audit::AuditDraft;
use crate::domain::client::ClientContext;
use crate::domain::email::EmailKey;
use crate::domain::password::PasswordVersion;
use crate::domain::secret::Password;
use crate::error::Error;
use crate::manager::Inner;
use crate::port::store::account::CredentialsQuery;
use crate::port::store::session::{LoginCounted, LoginFailed};
use crate::port::store::throttle::LoginGuard;

impl Inner {
    /// Sees to it that the caller proved who they are: now, by the current password, or lately, by signing in. Answers
    /// the version of the password that was proven, for the store to check again.
    ///
    /// # Security
    /// ASVS 7.5.1. A wrong password counts as a failed sign-in: there is no second path to guess on.
    pub(super) async fn step_up(
        &self,
        caller: &Authenticated,
        password: Option<&Password>,
        client: &ClientContext,
        audit: &AuditDraft,
    ) -> Result<Option<PasswordVersion>, Error> {
        let Some(password) = password else {
            let max_age = self.policies.sessions.step_up_age;
            let age = self.clock.now() - caller.session.authenticated_at;
            return if age <= max_age {
                Ok(None)
            } else {
                Err(Error::ReauthenticationRequired { max_age: plain(max_age) })
            };
        };
        let mut input = Input::default();
        let Some(typed) = input.password("password", password) else { return Err(input.refusal()) };
        self.prove_password(caller, typed, client, audit).await.map(Some)
    }

    /// Checks again, after a password was found right, that it was not guessed past the limit beside others: of any
    /// number of guesses at once, none past the limit learns that it was right.
    pub(super) async fn still_admitted(
        &self,
        email: &EmailKey,
        guard: Option<&LoginGuard>,
    ) -> Result<(), Error> {
        if guard.is_none() {
            return Ok(());
        }
        let query = CredentialsQuery { now: self.clock.now(), email: email.clone(), guard: guard.copied() };
        match self.store.credentials(query).await?.throttled {
            Some(retry_after) => Err(Error::TooManyAttempts { retry_after: wait(retry_after) }),
            None => Ok(()),
        }
    }

    /// Sees to it that a password is the caller's. Answers its version.
    pub(super) async fn prove_password(
        &self,
        caller: &Authenticated,
        typed: NormalizedPassword,
        client: &ClientContext,
        audit: &AuditDraft,
    ) -> Result<PasswordVersion, Error> {
        let user = &caller.user;
        let now = self.clock.now();
        let key = user.email.key();
        let guard = self.login_guard(key, client, now);
        let view = self.store.credentials(CredentialsQuery { now, email: key.clone(), guard }).await?;
        if let Some(retry_after) = view.throttled {
            return Err(Error::TooManyAttempts { retry_after: wait(retry_after) });
        }
        let credentials = view.user.filter(|found| found.user.id == user.id).ok_or(Error::SessionEnded)?;
        if let Verified::Match { .. } = self.verify_password(typed, credentials.password, client).await? {
            self.still_admitted(key, guard.as_ref()).await?;
            return Ok(credentials.version);
        }
        let failed =
            LoginFailed { now: self.clock.now(), user_id: Some(user.id), guard, audit: audit.clone() };
        Err(match self.store.login_failed(failed).await? {
            LoginCounted::Counted => Error::InvalidCredentials,
            LoginCounted::Throttled { retry_after } => {
                Error::TooManyAttempts { retry_after: wait(retry_after) }
            }
        })
    }
}
