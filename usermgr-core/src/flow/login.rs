//! Signing in with a password.
//!
//! [`Sessions::login`](super::sessions::Sessions::login).

use super::hooks::Question;
use super::input::Input;
use super::limits::wait;
use super::sessions::{Sessions, SignedIn};
use crate::crypto::hasher::Verified;
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::event::EventKind;
use crate::domain::secret::Password;
use crate::domain::session::AuthMethod;
use crate::domain::user::UserStatus;
use crate::error::Error;
use crate::port::hook::SignInAttempt;
use crate::port::store::account::CredentialsQuery;
use crate::port::store::session::{LoginCounted, LoginFailed, OpenSession, SessionOpened};

impl Sessions<'_> {
    /// Signs in. A hash made by older parameters is replaced on the way. Who deleted their account has it back by this,
    /// within the grace ([`DeletionPolicy`](crate::policy::DeletionPolicy)).
    ///
    /// # Errors
    /// [`Error::InvalidCredentials`], one answer after the same work for an unknown address, a wrong password, a
    /// registration that waits and a disabled account; [`Error::TooManyAttempts`], [`Error::Invalid`],
    /// [`Error::Overloaded`], [`Error::Unavailable`]; where there are hooks, [`Error::Refused`] and [`Error::Undecided`] for
    /// the right password of an active account.
    ///
    /// # Security
    /// The limits are looked at before the hash and again in the transaction that opens the session: of any number of
    /// parallel guesses, none past the limit learns whether it was right.
    pub async fn login(
        &self,
        email: &str,
        password: &Password,
        client: &ClientContext,
    ) -> Result<SignedIn, Error> {
        let inner = self.inner;
        let mut input = Input::default();
        let email = input.email(email);
        let typed = input.password("password", password);
        input.check()?;
        let (Some(email), Some(typed)) = (email, typed) else { return Err(input.refusal()) };
        inner.admit_sign_in(client)?;

        let now = inner.clock.now();
        let key = email.key();
        let guard = inner.login_guard(key, client, now);
        let view = inner.store.credentials(CredentialsQuery { now, email: key.clone(), guard }).await?;
        if let Some(retry_after) = view.throttled {
            return Err(Error::TooManyAttempts { retry_after: wait(retry_after) });
        }
        let user_id = view.user.as_ref().map(|found| found.user.id);
        let stored = view.user.as_ref().and_then(|found| found.password.clone());
        let verified = inner.verify_password(typed.clone(), stored, client).await?;
        let audit = inner.audit_draft(AuditEvent::SignIn, Some(key), None, client, now);
        let restore = inner.audit_draft(AuditEvent::UserRestoration, Some(key), user_id, client, now);
        let (Some(found), Verified::Match { upgrade }) =
            (view.user.filter(|found| found.user.status == UserStatus::Active), verified)
        else {
            let failed = LoginFailed { now: inner.clock.now(), user_id, guard, audit };
            let counted = inner.store.login_failed(failed).await?;
            inner.blur_timing().await;
            return Err(match counted {
                LoginCounted::Counted => Error::InvalidCredentials,
                LoginCounted::Throttled { retry_after } => {
                    Error::TooManyAttempts { retry_after: wait(retry_after) }
                }
            });
        };

        let attempt = SignInAttempt {
            email: email.clone(),
            user: Some(found.user.clone()),
            method: AuthMethod::Password,
            client: client.clone(),
        };
        // A guess in parallel that is past the limit by now does no work that only a right password does.
        let is_costly = upgrade || !inner.hooks.is_empty();
        if is_costly {
            inner.still_admitted(key, guard.as_ref()).await?;
        }
        if let Err(error) = inner.ask(Question::SignIn(attempt)).await {
            inner.still_admitted(key, guard.as_ref()).await?;
            inner.audit_refused_sign_in(&error, &email, found.user.id, client).await?;
            return Err(error);
        }
        // Without a place in the queue it is made at the next sign-in.
        let upgrade = if upgrade { inner.hash(typed, client).await.ok() } else { None };
        let now = inner.clock.now();
        let issued = inner.new_session(AuthMethod::Password, client, now).await?;
        let command = OpenSession {
            now,
            user_id: found.user.id,
            expect: found.version,
            session: issued.session.clone(),
            upgrade,
            guard,
            throttle: inner.sign_ins(found.user.id),
            restore,
            audit,
            events: inner.event_drafts(&[EventKind::SignedIn, EventKind::UserRestored], now),
        };
        match inner.store.open_session(command).await? {
            SessionOpened::Opened(user) => inner.signed_in(issued, *user, now).await,
            SessionOpened::Stale | SessionOpened::NotActive => Err(Error::InvalidCredentials),
            SessionOpened::Throttled { retry_after } => {
                Err(Error::TooManyAttempts { retry_after: wait(retry_after) })
            }
        }
    }
}
