//! Passwords set by a mailed code, for every purpose that may set one.

use super::input::Input;
use super::limits::Standing;
use super::redeem::Judgement;
use super::register::CodeSent;
use super::sessions::{Authenticated, SignedIn};
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::code::CodePurpose;
use crate::domain::email::Email;
use crate::domain::event::EventKind;
use crate::domain::field::FieldFault;
use crate::domain::id::UserId;
use crate::domain::mail::MailKind;
use crate::domain::password::PasswordHash;
use crate::domain::secret::{Code, Password};
use crate::domain::session::AuthMethod;
use crate::domain::user::User;
use crate::error::Error;
use crate::manager::Inner;
use crate::port::store::account::{CredentialsQuery, NewPassword};
use crate::port::store::code::{CodeTarget, RedeemEffect};
use crate::port::store::session::{NewSession, OpenSession, SessionOpened};

/// Passwords; see [`UserManager::passwords`](crate::UserManager::passwords).
///
/// ```
/// use usermgr_core::flow::set_password::{PasswordSet, SetWithCode};
/// use usermgr_core::{ClientContext, CodePurpose};
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
/// # use usermgr_core::flow::permission::Principal;
/// # use usermgr_core::flow::users::CreateUser;
/// # let ana = CreateUser::new("ana@example.org").with_password("correct horse battery");
/// # users.users().create(Principal::Operator, ana, &ClientContext::new()).await?;
///
/// let client = ClientContext::new();
/// users.passwords().request_code("ana@example.org", CodePurpose::ResetPassword, None, &client).await?;
/// users.mail_worker().run_once().await?; // start_workers() does so by itself
/// let code = mailbox.last_code("ana@example.org").ok_or("no code")?;
///
/// let request = SetWithCode::new("ana@example.org", code, "an even better password")
///     .with_purpose(CodePurpose::ResetPassword);
/// let set = users.passwords().set_with_code(request, &client).await?;
/// assert!(matches!(set, PasswordSet::SignedIn(_)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct Passwords<'a> {
    pub(crate) inner: &'a Inner,
}

impl std::fmt::Debug for Passwords<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords")
    }
}

/// A code and the password to set with it.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "a caller gives all of it")]
pub struct SetWithCode {
    /// The address.
    pub email: String,
    /// The code as mailed.
    pub code: Code,
    /// The new password.
    pub new_password: Password,
    /// The new password again.
    pub confirmation_password: Password,
    /// What the code was asked for; without it, any purpose that may set a password.
    pub purpose: Option<CodePurpose>,
}

impl SetWithCode {
    /// An address, its code and the new password, which nobody typed twice.
    pub fn new(email: impl Into<String>, code: impl Into<Code>, new_password: impl Into<Password>) -> Self {
        let new_password = new_password.into();
        Self {
            email: email.into(),
            code: code.into(),
            confirmation_password: new_password.clone(),
            new_password,
            purpose: None,
        }
    }

    /// With the new password as it was typed again.
    #[must_use]
    pub fn with_confirmation(mut self, password: impl Into<Password>) -> Self {
        self.confirmation_password = password.into();
        self
    }

    /// With a code that was asked for to do this.
    #[must_use]
    pub fn with_purpose(mut self, purpose: CodePurpose) -> Self {
        self.purpose = Some(purpose);
        self
    }
}

/// A password was set.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_enums, reason = "each asks for something else of the caller")]
pub enum PasswordSet {
    /// And its user is signed in.
    SignedIn(Box<SignedIn>),
    /// And nobody was signed in, as the policy or a hook says.
    Set(Box<User>),
}

enum SignIn {
    Yes,
    No,
}

impl Passwords<'_> {
    /// Owes a code that may set a password.
    ///
    /// `ChangePassword` is for users who are signed in, and only for their own address.
    ///
    /// # Errors
    /// [`Error::Invalid`] (also for `ChangeEmail`, which sets no password), [`Error::RateLimited`],
    /// [`Error::Unavailable`]; for `ChangePassword` [`Error::MissingToken`] and [`Error::Forbidden`].
    pub async fn request_code(
        &self,
        email: &str,
        purpose: CodePurpose,
        caller: Option<&Authenticated>,
        client: &ClientContext,
    ) -> Result<CodeSent, Error> {
        let target = match purpose {
            CodePurpose::ChangeEmail => {
                let mut input = Input::default();
                input.fault("purpose", FieldFault::Unsupported);
                return Err(input.refusal());
            }
            CodePurpose::ChangePassword => {
                let caller = caller.ok_or(Error::MissingToken)?;
                let mut input = Input::default();
                match input.email(email) {
                    None => return Err(input.refusal()),
                    Some(email) if email.key() != caller.user.email.key() => return Err(Error::Forbidden),
                    Some(_) => CodeTarget::User(caller.user.id),
                }
            }
            _ => CodeTarget::Anybody,
        };
        self.inner.request_code(email, purpose, target, client).await
    }

    /// Redeems a code of e-mail verification, sets the password and signs in. Of a registration, this password
    /// replaces the one that was registered.
    ///
    /// # Errors
    /// As [`set_with_code`](Self::set_with_code); where there are hooks, [`Error::Refused`] and [`Error::Undecided`] when the
    /// sign-in is refused. The password is set then all the same.
    ///
    /// ```
    /// use usermgr_core::ClientContext;
    /// use usermgr_core::flow::register::Register;
    /// use usermgr_core::flow::set_password::SetWithCode;
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::new();
    /// # let (users, client) = (auth.users(), ClientContext::new());
    ///
    /// users.registration().register(Register::new("ana@example.org", "typed in a hurry"), &client).await?;
    /// # let code = auth.last_code("ana@example.org").await.ok_or("no code")?;
    /// let request = SetWithCode::new("ana@example.org", code, "correct horse battery");
    /// let signed_in = users.passwords().set_with_email_code(request, &client).await?;
    /// assert!(signed_in.user.email_verified());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_with_email_code(
        &self,
        request: SetWithCode,
        client: &ClientContext,
    ) -> Result<SignedIn, Error> {
        let request = SetWithCode { purpose: Some(CodePurpose::EmailVerification), ..request };
        match self.set(request, SignIn::Yes, client).await? {
            (PasswordSet::SignedIn(signed_in), _) => Ok(*signed_in),
            (PasswordSet::Set(_), Some(refused)) => Err(refused),
            (PasswordSet::Set(_), None) => Err(Error::Internal("a sign-in without a session")),
        }
    }

    /// Redeems a code, sets the password, proves the address, ends every other session of the user, and signs in if
    /// the policy and the hooks say so.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::InvalidCode`], [`Error::CodeExpired`], [`Error::TooManyAttempts`],
    /// [`Error::Overloaded`], [`Error::Unavailable`].
    ///
    /// # Security
    /// A weak password is refused before the code is looked at, and spends nothing.
    ///
    /// ```
    /// use usermgr_core::flow::permission::Principal;
    /// use usermgr_core::flow::set_password::{PasswordSet, SetWithCode};
    /// use usermgr_core::flow::users::CreateUser;
    /// use usermgr_core::ClientContext;
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::new();
    /// # let (users, client) = (auth.users(), ClientContext::new());
    ///
    /// // Whoever is invited sets the first password by the code in the invitation.
    /// users.users().create(Principal::Operator, CreateUser::new("ana@example.org"), &client).await?;
    /// # let code = auth.last_code("ana@example.org").await.ok_or("no code")?;
    /// let request = SetWithCode::new("ana@example.org", code, "correct horse battery");
    /// match users.passwords().set_with_code(request, &client).await? {
    ///     PasswordSet::SignedIn(signed_in) => println!("{}", signed_in.user.email),
    ///     PasswordSet::Set(user) => println!("{}, please sign in", user.email),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_with_code(
        &self,
        request: SetWithCode,
        client: &ClientContext,
    ) -> Result<PasswordSet, Error> {
        let sign_in = if self.inner.policies.passwords.sign_in_after_set { SignIn::Yes } else { SignIn::No };
        Ok(self.set(request, sign_in, client).await?.0)
    }

    /// Answers also why nobody was signed in, if a hook is why.
    async fn set(
        &self,
        request: SetWithCode,
        sign_in: SignIn,
        client: &ClientContext,
    ) -> Result<(PasswordSet, Option<Error>), Error> {
        let inner = self.inner;
        let SetWithCode { email, code, new_password, confirmation_password, purpose } = request;
        let mut input = Input::default();
        let email = input.email(&email);
        let code = input.code(&code);
        let password = input.new_password("new_password", &new_password, Some(&confirmation_password));
        if let Some(password) = &password {
            let min = inner.policies.passwords.min_length;
            input.strength("new_password", password, min, email.as_ref(), None);
        }
        if purpose == Some(CodePurpose::ChangeEmail) {
            input.fault("purpose", FieldFault::Unsupported);
        }
        input.check()?;
        let (Some(email), Some(code), Some(password)) = (email, code, password) else {
            return Err(input.refusal());
        };

        let purposes = purpose.map_or_else(
            || {
                vec![
                    CodePurpose::ResetPassword,
                    CodePurpose::FirstTimeSetup,
                    CodePurpose::ChangePassword,
                    CodePurpose::EmailVerification,
                ]
            },
            |purpose| vec![purpose],
        );
        // All work is done before the guess is compared with anything, and hooks are asked after it was judged: nothing
        // that takes time depends on whether the guess is right.
        let now = inner.clock.now();
        let aim = inner.aim(email.key(), &purposes, Standing::Unproven, client, now).await?;
        let hash = inner.hash(password, client).await?;
        let now = inner.clock.now();
        let mut issued = match sign_in {
            SignIn::Yes => Some(inner.new_session(AuthMethod::EmailCode, client, now).await?),
            SignIn::No => None,
        };
        let opens_later = issued.take_if(|_| !inner.hooks.is_empty());
        let guess = inner.guess(aim, &code, now).await?;
        let judgement = Judgement {
            hit: guess.hit().map(|candidate| candidate.id),
            settled: true,
            effect: RedeemEffect::SetPassword {
                user_id: UserId::new(now, &*inner.random),
                welcome: inner.welcome(now),
                password: NewPassword {
                    hash: hash.clone(),
                    session: issued.as_ref().map(|issued| issued.session.clone()),
                    notice: inner.mail(MailKind::PasswordChanged, now),
                },
            },
            audit: inner.audit_draft(AuditEvent::PasswordReset, Some(email.key()), None, client, now),
            events: inner.event_drafts(&EventKind::ALL, now),
        };
        let user = inner.judge(&guess, judgement, client, now).await?;
        if let Some(issued) = issued {
            let signed_in = inner.signed_in(issued, user, now).await?;
            return Ok((PasswordSet::SignedIn(Box::new(signed_in)), None));
        }
        let Some(issued) = opens_later else { return Ok((PasswordSet::Set(Box::new(user)), None)) };
        if let Err(refused) = inner.ask_sign_in_by_code(&guess, &email, &user, client).await {
            inner.audit_refused_sign_in(&refused, &email, user.id, client).await?;
            return Ok((PasswordSet::Set(Box::new(user)), Some(refused)));
        }
        match self.open_after_hooks(&email, &user, &hash, &issued.session, client).await? {
            Some(user) => {
                let signed_in = inner.signed_in(issued, user, now).await?;
                Ok((PasswordSet::SignedIn(Box::new(signed_in)), None))
            }
            // Another password was set meanwhile.
            None => Ok((PasswordSet::Set(Box::new(user)), Some(Error::InvalidCredentials))),
        }
    }

    /// Opens the session of a user whose password was just set, while that password is the one in force.
    async fn open_after_hooks(
        &self,
        email: &Email,
        user: &User,
        hash: &PasswordHash,
        session: &NewSession,
        client: &ClientContext,
    ) -> Result<Option<User>, Error> {
        let inner = self.inner;
        let now = inner.clock.now();
        let key = email.key();
        let query = CredentialsQuery { now, email: key.clone(), guard: None };
        let in_force = inner.store.credentials(query).await?.user.filter(|found| {
            found.user.id == user.id
                && found.password.as_ref().is_some_and(|found| found.expose() == hash.expose())
        });
        let Some(found) = in_force else { return Ok(None) };
        let command = OpenSession {
            now,
            user_id: user.id,
            expect: found.version,
            session: session.clone(),
            upgrade: None,
            guard: None,
            throttle: inner.sign_ins(user.id),
            restore: inner.audit_draft(AuditEvent::UserRestoration, Some(key), Some(user.id), client, now),
            audit: inner.audit_draft(AuditEvent::SignIn, Some(key), None, client, now),
            events: inner.event_drafts(&[EventKind::SignedIn], now),
        };
        match inner.store.open_session(command).await? {
            SessionOpened::Opened(user) => Ok(Some(*user)),
            SessionOpened::Stale | SessionOpened::NotActive | SessionOpened::Throttled { .. } => Ok(None),
        }
    }
}
