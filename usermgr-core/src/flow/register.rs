//! Sign-up: a registration waits for its code, beside any other of the same address.

use std::time::Duration;

use super::hooks::Question;
use super::input::Input;
use super::limits::{AdmittedRequest, Standing, plain, wait};
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::code::CodePurpose;
use crate::domain::id::RegistrationId;
use crate::domain::json::JsonObject;
use crate::domain::mail::MailKind;
use crate::domain::secret::{Password, RegistrationToken};
use crate::error::Error;
use crate::manager::Inner;
use crate::port::hook::RegistrationAttempt;
use crate::port::store::account::{self, Registered};
use crate::port::store::code::{CodeRequested, CodeTarget, RequestCode};

/// Sign-up; see [`UserManager::registration`](crate::UserManager::registration).
///
/// ```
/// use usermgr_core::flow::register::Register;
/// use usermgr_core::flow::verify_email::Verify;
/// use usermgr_core::{ClientContext, Error};
/// # use std::sync::Arc;
/// # use usermgr_core::testing::{Mailbox, MemoryStore};
/// # use usermgr_core::{SecretKey, UserManager};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mailbox = Arc::new(Mailbox::default());
/// # let users = UserManager::builder()
/// #     .store(Arc::new(MemoryStore::default()))
/// #     .mailer(mailbox.clone())
/// #     .secret_key(SecretKey::from_bytes([7; 32]))
/// #     .build()?;
///
/// let client = ClientContext::new().with_ip([192, 0, 2, 1].into());
/// let request = Register::new("ana@example.org", "correct horse battery").with_username("Ana").with_locale("es");
/// let accepted = users.registration().register(request, &client).await?;
///
/// users.mail_worker().run_once().await?; // start_workers() does so by itself
/// let code = mailbox.last_code("ana@example.org").ok_or("no code")?;
/// let verify = Verify::new("ana@example.org", code).with_registration(accepted.registration);
/// let user = users.registration().verify(verify.clone(), &client).await?;
/// assert!(user.email_verified());
///
/// // A code is spent once.
/// let again = users.registration().verify(verify, &client).await;
/// assert!(matches!(again, Err(Error::InvalidCode)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct Registration<'a> {
    pub(crate) inner: &'a Inner,
}

impl std::fmt::Debug for Registration<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registration")
    }
}

/// What somebody who signs up gives.
///
/// ```
/// use usermgr_core::domain::json::JsonObject;
/// use usermgr_core::flow::register::Register;
///
/// let request = Register::new("ana@example.org", "correct horse battery")
///     .with_confirmation("correct horse battery") // what a form asks for twice
///     .with_username("Ana")
///     .with_locale("es")
///     .with_extra(JsonObject::of(&serde_json::json!({ "invite": "spring-2026" }))?);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a caller names what it gives, and takes the rest from `new` or `Default`"
)]
pub struct Register {
    /// The address.
    pub email: String,
    /// The password the user will have.
    pub password: Password,
    /// The password again, where a form asks for it twice.
    pub confirmation_password: Option<Password>,
    /// The display name.
    pub username: Option<String>,
    /// The language of mails, as a BCP 47 tag.
    pub locale: Option<String>,
    /// The profile, for the type of [`UserManagerBuilder::profile`](crate::UserManagerBuilder::profile).
    pub profile: Option<JsonObject>,
    /// What hooks ask for ([`Hook`](crate::port::hook::Hook)), such as the token of an invitation. It is not kept.
    pub extra: Option<JsonObject>,
}

impl Register {
    /// An address and a password, which is all that is needed.
    pub fn new(email: impl Into<String>, password: impl Into<Password>) -> Self {
        Self {
            email: email.into(),
            password: password.into(),
            confirmation_password: None,
            username: None,
            locale: None,
            profile: None,
            extra: None,
        }
    }

    /// With the password as it was typed again.
    #[must_use]
    pub fn with_confirmation(mut self, password: impl Into<Password>) -> Self {
        self.confirmation_password = Some(password.into());
        self
    }

    /// With a display name.
    #[must_use]
    pub fn with_username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// With the language of mails, as a BCP 47 tag.
    #[must_use]
    pub fn with_locale(mut self, locale: impl Into<String>) -> Self {
        self.locale = Some(locale.into());
        self
    }

    /// With a profile, for the type of [`UserManagerBuilder::profile`](crate::UserManagerBuilder::profile).
    #[must_use]
    pub fn with_profile(mut self, profile: JsonObject) -> Self {
        self.profile = Some(profile);
        self
    }

    /// With what hooks ask for.
    #[must_use]
    pub fn with_extra(mut self, extra: JsonObject) -> Self {
        self.extra = Some(extra);
        self
    }
}

/// A registration was taken. It says the same whether or not the address has an account, and holds no user: there is
/// none before the code is redeemed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Accepted {
    /// Names this registration among others of the same address.
    pub registration: RegistrationToken,
    /// How long the code will live from the hand-over of its mail.
    pub code_ttl: Duration,
    /// How long to wait before asking for another code.
    pub resend_after: Duration,
}

/// A code or link was asked for. It says the same whether or not there was anybody to send it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodeSent {
    /// How long to wait before asking again.
    pub resend_after: Duration,
}

impl Registration<'_> {
    /// Begins a registration and owes a mail with its code.
    ///
    /// An address that has an account gets a mail that says so instead, and the answer here is the same.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every wrong field, [`Error::RegistrationClosed`], [`Error::RateLimited`],
    /// [`Error::Overloaded`], [`Error::Unavailable`]; [`Error::EmailTaken`] only when the policy reveals it; where there
    /// are hooks, [`Error::Refused`] and [`Error::Undecided`].
    ///
    /// # Security
    /// Nobody can sign in before the code is redeemed, and the code of one registration never completes another: who
    /// registers somebody else's address gains nothing (OWASP: pre-hijacking).
    ///
    /// Hooks are asked alike whether or not the address has an account, before anything is hashed or written.
    pub async fn register(&self, request: Register, client: &ClientContext) -> Result<Accepted, Error> {
        let policies = &self.inner.policies;
        if !policies.registration.enabled {
            return Err(Error::RegistrationClosed);
        }
        let Register { email, password, confirmation_password, username, locale, profile, extra } = request;
        let mut input = Input::default();
        let email = input.email(&email);
        let username = input.username(username.as_deref());
        let locale = input.locale(locale.as_deref());
        let profile = input.profile(profile.as_ref(), self.inner.profile)?;
        let extra = input.extra(extra, &self.inner.hooks);
        let password = input.new_password("password", &password, confirmation_password.as_ref());
        if let Some(password) = &password {
            input.strength(
                "password",
                password,
                policies.passwords.min_length,
                email.as_ref(),
                username.as_ref(),
            );
        }
        input.check()?;
        let (Some(email), Some(password)) = (email, password) else { return Err(input.refusal()) };

        // Check the limits before the expensive hash; the command checks them again. A client that registers brings the token
        // of the registration, and with it a budget of guesses that nobody else can use up.
        let purpose = CodePurpose::EmailVerification;
        let now = self.inner.clock.now();
        let AdmittedRequest { throttle, wait: too_soon, may_redeem: _ } = self
            .inner
            .admit_request(email.key(), purpose.as_str(), Standing::Unproven, None, client, now)
            .await?;
        if let Some(retry_after) = too_soon {
            return Err(Error::RateLimited { retry_after: wait(retry_after) });
        }
        self.inner
            .ask(Question::Registration(RegistrationAttempt {
                email: email.clone(),
                username: username.clone(),
                locale: locale.clone(),
                profile: profile.clone(),
                extra,
                client: client.clone(),
            }))
            .await?;
        // Hashed whether or not the address is taken: the work is the same.
        let password = self.inner.hash(password, client).await?;
        let now = self.inner.clock.now();
        let id = RegistrationId::new(now, &*self.inner.random);
        let key = email.key().clone();
        let command = account::Register {
            now,
            id,
            email,
            password,
            username,
            locale,
            profile,
            expires_at: now + policies.registration.pending_ttl,
            code: self.inner.new_digits(purpose, now),
            code_mail: self.inner.mail(MailKind::VerifyEmail, now),
            taken_mail: self.inner.mail(MailKind::AccountExists, now),
            throttle,
            tries: Some(self.inner.tries(&key, purpose)),
            audit: self.inner.audit_draft(AuditEvent::Registration, Some(&key), None, client, now),
        };
        let registered = self.inner.store.register(command).await?;
        self.inner.blur_timing().await;
        match registered {
            Registered::Taken if policies.registration.reveal_existing => Err(Error::EmailTaken),
            Registered::Throttled { retry_after } => {
                Err(Error::RateLimited { retry_after: wait(retry_after) })
            }
            Registered::Pending | Registered::Taken => Ok(Accepted {
                registration: self.inner.secrets.registration_token(id),
                code_ttl: plain(policies.codes.ttl),
                resend_after: plain(policies.codes.resend_interval),
            }),
        }
    }

    /// Owes another code for a registration, which voids the one before. Without its token: for the only registration of
    /// the address, or for a user whose address is not proven yet.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::RateLimited`], [`Error::Unavailable`].
    ///
    /// # Security
    /// Where several registrations of an address wait, a request without a token chooses none of them: nothing is sent,
    /// and the answer is the same. Nobody can have the owner of an address confirm a registration of theirs.
    ///
    /// ```
    /// use usermgr_core::ClientContext;
    /// use usermgr_core::flow::register::Register;
    /// use usermgr_core::flow::verify_email::Verify;
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::new();
    /// # let (users, client) = (auth.users(), ClientContext::new());
    ///
    /// let request = Register::new("ana@example.org", "correct horse battery");
    /// let accepted = users.registration().register(request, &client).await?;
    /// # let first = auth.last_code("ana@example.org").await.ok_or("no code")?;
    /// # auth.clock().advance(time::Duration::seconds(30));
    /// users.registration().resend("ana@example.org", Some(&accepted.registration), &client).await?;
    ///
    /// # let code = auth.last_code("ana@example.org").await.ok_or("no code")?;
    /// let verify = |code| Verify::new("ana@example.org", code).with_registration(accepted.registration.clone());
    /// assert!(users.registration().verify(verify(first), &client).await.is_err()); // void
    /// users.registration().verify(verify(code), &client).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn resend(
        &self,
        email: &str,
        registration: Option<&RegistrationToken>,
        client: &ClientContext,
    ) -> Result<CodeSent, Error> {
        let target = match self.inner.standing_by(registration) {
            Standing::Registration(id) => CodeTarget::Registration(id),
            Standing::Unproven | Standing::User(_) => CodeTarget::Anybody,
        };
        self.inner.request_code(email, CodePurpose::EmailVerification, target, client).await
    }
}

impl Inner {
    /// Asks for a code of digits. What is answered does not depend on whether there is anybody to send it to.
    pub(super) async fn request_code(
        &self,
        email: &str,
        purpose: CodePurpose,
        target: CodeTarget,
        client: &ClientContext,
    ) -> Result<CodeSent, Error> {
        let mut input = Input::default();
        let email = input.email(email);
        let Some(email) = email else { return Err(input.refusal()) };
        let now = self.clock.now();
        let key = email.key();
        let (actor, standing, redeemer) = match target {
            // The code is redeemed without the session.
            CodeTarget::User(user) => (Some(user), Standing::User(user), Standing::Unproven),
            CodeTarget::Registration(id) => (None, Standing::Registration(id), Standing::Registration(id)),
            CodeTarget::Anybody | CodeTarget::Nobody => (None, Standing::Unproven, Standing::Unproven),
        };
        let admitted =
            self.admit_request(key, purpose.as_str(), standing, Some(redeemer), client, now).await?;
        let command = RequestCode {
            now,
            email: key.clone(),
            purpose,
            target: if admitted.may_redeem { target } else { CodeTarget::Nobody },
            code: self.new_digits(purpose, now),
            mail: self.mail(MailKind::of_code(purpose), now),
            throttle: admitted.throttle,
            tries: Some(self.tries(key, purpose)),
            audit: self.audit_draft(AuditEvent::CodeRequest, Some(key), actor, client, now),
        };
        self.answer_request(command).await
    }

    pub(super) async fn answer_request(&self, command: RequestCode) -> Result<CodeSent, Error> {
        let requested = self.store.request_code(command).await?;
        self.blur_timing().await;
        match requested {
            CodeRequested::Queued | CodeRequested::Nobody => {
                Ok(CodeSent { resend_after: plain(self.policies.codes.resend_interval) })
            }
            CodeRequested::Throttled { retry_after } => {
                Err(Error::RateLimited { retry_after: wait(retry_after) })
            }
        }
    }
}
