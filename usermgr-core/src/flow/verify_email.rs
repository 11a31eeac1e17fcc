//! Proving an address: a registration becomes a user, or a user's address counts as proven.

use super::input::Input;
use super::limits::{Standing, wait};
use super::redeem::{Guess, Judgement};
use super::register::Registration;
use crate::crypto::hasher::Verified;
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::code::CodePurpose;
use crate::domain::event::EventKind;
use crate::domain::id::{CodeId, UserId};
use crate::domain::password::PasswordHash;
use crate::domain::secret::{Code, Password, RegistrationToken};
use crate::domain::user::{User, UserStatus};
use crate::error::Error;
use crate::port::store::account::CredentialsQuery;
use crate::port::store::code::{Candidate, CodeOwner, RedeemEffect};
use crate::port::store::session::{LoginCounted, LoginFailed};

/// A code, and what settles which registration it is for.
///
/// ```
/// use usermgr_core::flow::verify_email::Verify;
///
/// # let accepted = "as register answered it";
/// let alone = Verify::new("ana@example.org", "123456");
/// let this_one = Verify::new("ana@example.org", "123456").with_registration(accepted);
/// let by_password = Verify::new("ana@example.org", "123456").with_password("correct horse battery");
/// ```
#[derive(Debug, Clone)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a caller names what it gives, and takes the rest from `new` or `Default`"
)]
pub struct Verify {
    /// The address.
    pub email: String,
    /// The code as mailed.
    pub code: Code,
    /// The registration, as [`Registration::register`] named it.
    pub registration: Option<RegistrationToken>,
    /// The registration's password.
    pub password: Option<Password>,
}

impl Verify {
    /// An address and its code, which is all that is needed while only one registration waits.
    pub fn new(email: impl Into<String>, code: impl Into<Code>) -> Self {
        Self { email: email.into(), code: code.into(), registration: None, password: None }
    }

    /// Of this registration and no other.
    #[must_use]
    pub fn with_registration(mut self, registration: impl Into<RegistrationToken>) -> Self {
        self.registration = Some(registration.into());
        self
    }

    /// Of the registration that has this password.
    #[must_use]
    pub fn with_password(mut self, password: impl Into<Password>) -> Self {
        self.password = Some(password.into());
        self
    }
}

/// A code and the registration's password (HTTP Basic activation).
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "a caller gives all of it")]
pub struct Activate {
    /// The address.
    pub email: String,
    /// The registration's password.
    pub password: Password,
    /// The code as mailed.
    pub code: Code,
}

impl Activate {
    /// An address, the password of its registration, and the code.
    pub fn new(email: impl Into<String>, password: impl Into<Password>, code: impl Into<Code>) -> Self {
        Self { email: email.into(), password: password.into(), code: code.into() }
    }
}

const PURPOSE: [CodePurpose; 1] = [CodePurpose::EmailVerification];

impl Registration<'_> {
    /// Redeems a code: its registration becomes a user.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::InvalidCode`], [`Error::CodeExpired`], [`Error::TooManyAttempts`],
    /// [`Error::RegistrationAmbiguous`] (the code is not spent), [`Error::Unavailable`].
    ///
    /// # Security
    /// A wrong password counts as a wrong code: it is judged, counted and answered the same.
    pub async fn verify(&self, request: Verify, client: &ClientContext) -> Result<User, Error> {
        let Verify { email, code, registration, password } = request;
        let mut input = Input::default();
        let email = input.email(&email);
        let code = input.code(&code);
        let password = password.map(|password| input.password("password", &password));
        input.check()?;
        let (Some(email), Some(code)) = (email, code) else { return Err(input.refusal()) };

        let now = self.inner.clock.now();
        let standing = self.inner.standing_by(registration.as_ref());
        let aim = self.inner.aim(email.key(), &PURPOSE, standing, client, now).await?;
        let guess = self.inner.guess(aim, &code, now).await?;
        let mut hit = guess.hit();
        let mut settled = registration.is_some();
        if let Some(Some(password)) = password {
            // Without a hit the same work is done on a dummy.
            let stored = hit.and_then(registered_password);
            let belongs = self.inner.verify_password(password, stored.clone(), client).await?;
            if stored.is_some() && !matches!(belongs, Verified::Match { .. }) {
                hit = None;
            }
            settled = true;
        }
        let hit = hit.map(|candidate| candidate.id);
        self.judge_verification(&guess, hit, settled, client, now).await
    }

    /// Redeems a code with the password of its registration as proof.
    ///
    /// # Errors
    /// [`Error::InvalidCredentials`] for a wrong password or an unknown address, [`Error::AlreadyVerified`] for the right
    /// password of an account whose address is proven; otherwise as [`verify`](Self::verify), but never ambiguous.
    ///
    /// ```
    /// use usermgr_core::ClientContext;
    /// use usermgr_core::flow::register::Register;
    /// use usermgr_core::flow::verify_email::Activate;
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::new();
    /// # let (users, client) = (auth.users(), ClientContext::new());
    ///
    /// users.registration().register(Register::new("ana@example.org", "correct horse battery"), &client).await?;
    /// # let code = auth.last_code("ana@example.org").await.ok_or("no code")?;
    /// let request = Activate::new("ana@example.org", "correct horse battery", code);
    /// let user = users.registration().activate(request, &client).await?;
    /// assert!(user.email_verified());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn activate(&self, request: Activate, client: &ClientContext) -> Result<User, Error> {
        let Activate { email, password, code } = request;
        let mut input = Input::default();
        let email = input.email(&email);
        let code = input.code(&code);
        let password = input.password("password", &password);
        input.check()?;
        let (Some(email), Some(code), Some(password)) = (email, code, password) else {
            return Err(input.refusal());
        };

        let now = self.inner.clock.now();
        let key = email.key();
        let guard = self.inner.login_guard(key, client, now);
        let view = self.inner.store.credentials(CredentialsQuery { now, email: key.clone(), guard }).await?;
        if let Some(retry_after) = view.throttled {
            return Err(Error::TooManyAttempts { retry_after: wait(retry_after) });
        }
        let aim = self.inner.aim(key, &PURPOSE, Standing::Unproven, client, now).await?;
        let guess = self.inner.guess(aim, &code, now).await?;
        let account = view.user.filter(|found| found.user.status == UserStatus::Active);
        let is_verified = account.as_ref().is_some_and(|found| found.user.email_verified());
        // Always exactly one hash: the account's, else the hit's, else the newest registration's, else a dummy.
        let stored = account
            .and_then(|found| found.password)
            .or_else(|| guess.hit().or_else(|| guess.newest()).and_then(registered_password));
        let proven =
            matches!(self.inner.verify_password(password, stored, client).await?, Verified::Match { .. });
        if proven {
            self.inner.still_admitted(key, guard.as_ref()).await?;
            if is_verified {
                let now = self.inner.clock.now();
                let audit = self.inner.audit_draft(AuditEvent::Verification, Some(key), None, client, now);
                let reason = Error::AlreadyVerified.reason();
                self.inner.count_on_network(audit, reason, client, now).await?;
                return Err(Error::AlreadyVerified);
            }
        }
        let hit = guess.hit().filter(|_| proven).map(|candidate| candidate.id);
        let now = self.inner.clock.now();
        let judged = self.judge_verification(&guess, hit, true, client, now).await;
        if proven {
            return judged;
        }
        let audit = self.inner.audit_draft(AuditEvent::Verification, Some(key), None, client, now);
        let failed = LoginFailed { now, user_id: None, guard, audit };
        let counted = self.inner.store.login_failed(failed).await?;
        self.inner.blur_timing().await;
        match counted {
            LoginCounted::Counted => Err(Error::InvalidCredentials),
            LoginCounted::Throttled { retry_after } => {
                Err(Error::TooManyAttempts { retry_after: wait(retry_after) })
            }
        }
    }

    async fn judge_verification(
        &self,
        guess: &Guess,
        hit: Option<CodeId>,
        settled: bool,
        client: &ClientContext,
        now: time::OffsetDateTime,
    ) -> Result<User, Error> {
        let inner = self.inner;
        let judgement = Judgement {
            hit,
            settled,
            effect: RedeemEffect::Verify {
                user_id: UserId::new(now, &*inner.random),
                welcome: inner.welcome(now),
            },
            audit: inner.audit_draft(AuditEvent::Verification, Some(guess.email()), None, client, now),
            events: inner.event_drafts(&[EventKind::UserRegistered, EventKind::EmailVerified], now),
        };
        inner.judge(guess, judgement, client, now).await
    }
}

fn registered_password(candidate: &Candidate) -> Option<PasswordHash> {
    match &candidate.owner {
        CodeOwner::Registration { password, .. } => Some(password.clone()),
        CodeOwner::User { .. } => None,
    }
}
