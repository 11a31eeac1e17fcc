//! Somebody to ask before something is done.
#![cfg_attr(
    feature = "testing",
    expect(clippy::struct_field_names, reason = "the fields that mockall gives the mock")
)]

mod allowed_domains;

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::client::ClientContext;
use crate::domain::email::Email;
use crate::domain::json::JsonObject;
use crate::domain::profile::Profile;
use crate::domain::refusal::{InvalidRefusal, Refusal};
use crate::domain::session::AuthMethod;
use crate::domain::user::{Locale, User, Username};

pub use allowed_domains::{AllowedDomains, InvalidDomain};

/// Is asked before something is done, and may refuse it with a reason that the end user sees. What it does not care about
/// it allows.
///
/// It is asked when what was sent is right in form, and before anything is written for it. All hooks together have
/// [`HOOK_TIMEOUT`]; one that does not answer, or fails, is no yes: the request ends with
/// [`Error::Undecided`](crate::Error::Undecided). A future that took too long is dropped.
///
/// A yes is no promise: what was asked for may still be refused, and a registration may never be verified. So a hook
/// changes nothing that cannot be changed twice; what is to happen afterwards belongs to whoever follows the events
/// ([`EventPublisher`](crate::port::events::EventPublisher)).
///
/// # Security
/// Whoever asks does not have to be anybody. A hook must answer an address that has an account as it answers one that has
/// none, or its answers tell who has one. Requests that are refused count towards no limit: what is asked for here, such
/// as the token of an invitation, must be too long to be guessed.
///
/// ```
/// use async_trait::async_trait;
/// use usermgr_core::domain::refusal::Refusal;
/// use usermgr_core::port::hook::{Hook, HookError, RegistrationAttempt};
///
/// /// Takes whoever has a profile.
/// #[derive(Debug)]
/// struct ProfileNeeded;
///
/// #[async_trait]
/// impl Hook for ProfileNeeded {
///     async fn before_registration(&self, attempt: &RegistrationAttempt) -> Result<(), HookError> {
///         if attempt.profile.is_some() {
///             return Ok(());
///         }
///         let refusal = Refusal::new("profile_needed", "Tell us who you are.")?.also("es", "Dinos quién eres.")?;
///         Err(refusal.into())
///     }
/// }
/// ```
#[cfg_attr(feature = "testing", mockall::automock)]
#[async_trait]
pub trait Hook: Send + Sync + std::fmt::Debug {
    /// Somebody wants an account, and keeps to the limits. Asked before the password is hashed; not of users whom an
    /// administrator or the operator makes.
    ///
    /// # Errors
    /// [`HookError`] when it is not to be.
    async fn before_registration(&self, attempt: &RegistrationAttempt) -> Result<(), HookError> {
        let _ = attempt;
        Ok(())
    }

    /// Somebody is about to be signed in: the password, or the code that set one, was right. So only the owner of an
    /// account sees the refusal. A session that is renewed is not asked about.
    ///
    /// # Errors
    /// [`HookError`] when it is not to be.
    async fn before_sign_in(&self, attempt: &SignInAttempt) -> Result<(), HookError> {
        let _ = attempt;
        Ok(())
    }

    /// A user wants another address.
    ///
    /// # Errors
    /// [`HookError`] when it is not to be.
    async fn before_email_change(&self, attempt: &EmailChangeAttempt) -> Result<(), HookError> {
        let _ = attempt;
        Ok(())
    }
}

/// How long all hooks together may take.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// What somebody who signs up gives, but the password.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RegistrationAttempt {
    /// The address, not proven.
    pub email: Email,
    /// The display name.
    pub username: Option<Username>,
    /// The language.
    pub locale: Option<Locale>,
    /// The profile, as the host's type has it.
    pub profile: Option<Profile>,
    /// What was sent for hooks: the token of an invitation, the answer to a CAPTCHA.
    pub extra: JsonObject,
    /// The other end of the request.
    pub client: ClientContext,
}

impl RegistrationAttempt {
    /// An attempt with nothing but an address.
    pub fn new(email: Email) -> Self {
        let (extra, client) = (JsonObject::default(), ClientContext::new());
        Self { email, username: None, locale: None, profile: None, extra, client }
    }
}

/// Who is about to be signed in.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SignInAttempt {
    /// The address, as typed.
    pub email: Email,
    /// The user; none where the code that is redeemed makes the user.
    pub user: Option<User>,
    /// By what the user proved who they are.
    pub method: AuthMethod,
    /// The other end of the request.
    pub client: ClientContext,
}

impl SignInAttempt {
    /// A sign-in of a user by password.
    pub fn new(user: User) -> Self {
        let (email, method) = (user.email.clone(), AuthMethod::Password);
        Self { email, user: Some(user), method, client: ClientContext::new() }
    }
}

/// Who wants another address, and which.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EmailChangeAttempt {
    /// The user, with the address as it is.
    pub user: User,
    /// The address that it shall be, not proven.
    pub new_email: Email,
    /// The other end of the request.
    pub client: ClientContext,
}

impl EmailChangeAttempt {
    /// A change of a user's address to this one.
    pub fn new(user: User, new_email: Email) -> Self {
        Self { user, new_email, client: ClientContext::new() }
    }
}

/// Why something is not to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// The host refuses it.
    #[error("refused: {}", .0.reason())]
    Refused(Refusal),
    /// The hook cannot tell: what it asks does not answer.
    #[error("the hook cannot decide")]
    Undecided(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl HookError {
    /// The hook cannot tell, with why.
    pub fn undecided(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Undecided(source.into())
    }
}

impl From<Refusal> for HookError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A hook whose words cannot be told allows nothing.
impl From<InvalidRefusal> for HookError {
    fn from(invalid: InvalidRefusal) -> Self {
        Self::undecided(invalid)
    }
}
