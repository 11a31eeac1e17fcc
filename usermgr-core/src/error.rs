//! What a flow answers when it does not do what was asked.

use std::time::Duration;

use crate::crypto::hasher::HashError;
use crate::domain::field::FieldError;
use crate::domain::refusal::Refusal;
use crate::port::hook::HOOK_TIMEOUT;
use crate::port::store::StoreError;

/// Why a flow did not do what was asked. [`reason`](Self::reason) is the same, as a stable word.
///
/// The kinds, told apart by variant: the request is wrong ([`Invalid`](Self::Invalid)); it was understood and
/// refused (most); there is too much to do ([`RateLimited`](Self::RateLimited),
/// [`TooManyAttempts`](Self::TooManyAttempts), [`Overloaded`](Self::Overloaded)); a part is down
/// ([`Unavailable`](Self::Unavailable), [`Undecided`](Self::Undecided)); or this program is at fault
/// ([`Internal`](Self::Internal)).
///
/// ```
/// use usermgr_core::{ClientContext, Error, Password};
/// # use usermgr_core::testing::TestAuth;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let auth = TestAuth::new();
/// # let (users, client) = (auth.users(), ClientContext::new());
///
/// let password = Password::new("guessed");
/// match users.sessions().login("ana@example.org", &password, &client).await {
///     Ok(signed_in) => println!("hello, {}", signed_in.user.email),
///     Err(Error::Invalid(faults)) => {
///         for fault in faults {
///             println!("{}: {}", fault.field, fault.fault.as_str());
///         }
///     }
///     Err(Error::Refused(refusal)) => println!("{}", refusal.text("es")),
///     Err(error) => println!("{}, again after {:?}", error.reason(), error.retry_after()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Fields of the request are wrong; nothing was done.
    #[error("the request has {} invalid field(s)", .0.len())]
    Invalid(Vec<FieldError>),
    /// The code is wrong, spent, void, or for something else. One answer for all of these.
    #[error("the code is not valid")]
    InvalidCode,
    /// The code was right and too late.
    #[error("the code has expired")]
    CodeExpired,
    /// The link is wrong, spent, void or too late. One answer for all of these.
    #[error("the link is not valid")]
    InvalidLink,
    /// The code is right, but several registrations of the address wait. It is not spent: send the registration's
    /// token or its password along.
    #[error("several registrations of this address are waiting")]
    RegistrationAmbiguous,
    /// The address is proven already: there is nothing to verify. Only for the right password of the account.
    #[error("this address is verified already")]
    AlreadyVerified,
    /// The address has an account. Only with [`RegistrationPolicy::reveal_existing`] is it ever said to a stranger.
    ///
    /// [`RegistrationPolicy::reveal_existing`]: crate::policy::RegistrationPolicy::reveal_existing
    #[error("this address has an account already")]
    EmailTaken,
    /// Registration is switched off.
    #[error("registration is closed")]
    RegistrationClosed,
    /// A hook of the host's refuses it, in words for the end user.
    #[error("refused by the host: {}", .0.reason())]
    Refused(Refusal),
    /// Wrong password, unknown address, pending or disabled account. One answer for all of these.
    #[error("the address or the password is wrong")]
    InvalidCredentials,
    /// The access token is missing where one is needed.
    #[error("an access token is needed")]
    MissingToken,
    /// The access token is not one of ours, was altered, or ran out.
    #[error("the access token is not valid")]
    InvalidToken,
    /// The token was good, but its session is over.
    #[error("the session has ended")]
    SessionEnded,
    /// The caller may not do this.
    #[error("not permitted")]
    Forbidden,
    /// What the caller asks for needs them to have proven who they are lately: they may send the current password along
    /// or sign in again (RFC 9470).
    #[error("a recent sign-in or the current password is needed")]
    ReauthenticationRequired {
        /// How long ago the last sign-in may be.
        max_age: Duration,
    },
    /// It would leave the installation without an administrator who can sign in.
    #[error("the last administrator cannot be removed, disabled or demoted")]
    LastAdmin,
    /// A callback that nobody who knows the secret signed, or not now.
    #[error("the signature is not valid")]
    InvalidSignature,
    /// There is no such thing, or the caller may not know of it.
    #[error("not found")]
    NotFound,
    /// Too many requests for codes, links or registrations.
    #[error("too many requests")]
    RateLimited {
        /// How long to wait.
        retry_after: Duration,
    },
    /// Too many failed sign-ins or wrong codes.
    #[error("too many attempts")]
    TooManyAttempts {
        /// How long to wait.
        retry_after: Duration,
    },
    /// More passwords wait to be hashed than may.
    #[error("overloaded")]
    Overloaded {
        /// How long to wait.
        retry_after: Duration,
    },
    /// The store cannot be reached or failed. Nothing was done, unless its commit was under way.
    #[error("a part of the service is unavailable")]
    Unavailable(#[source] StoreError),
    /// A hook of the host's did not decide, so what was asked for was not done.
    #[error("a hook of the host did not decide")]
    Undecided(#[source] HookFault),
    /// This program or its data is at fault.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

/// Why a hook of the host's did not decide.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookFault {
    /// It took too long.
    #[error("no answer within {HOOK_TIMEOUT:?}")]
    TimedOut,
    /// It failed.
    #[error("it failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// The reason as a stable word, the same in every release: [the guide](crate::guide::errors) has all of them.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "validation_failed",
            Self::InvalidCode => "invalid_code",
            Self::CodeExpired => "code_expired",
            Self::InvalidLink => "invalid_link",
            Self::RegistrationAmbiguous => "registration_ambiguous",
            Self::AlreadyVerified => "already_verified",
            Self::EmailTaken => "email_taken",
            Self::RegistrationClosed => "registration_closed",
            Self::Refused(_) => "refused",
            Self::InvalidCredentials => "invalid_credentials",
            Self::MissingToken => "missing_token",
            Self::InvalidToken => "invalid_token",
            Self::SessionEnded => "session_ended",
            Self::Forbidden => "forbidden",
            Self::ReauthenticationRequired { .. } => "reauthentication_required",
            Self::LastAdmin => "last_admin",
            Self::InvalidSignature => "invalid_signature",
            Self::NotFound => "not_found",
            Self::RateLimited { .. } => "rate_limited",
            Self::TooManyAttempts { .. } => "too_many_attempts",
            Self::Overloaded { .. } => "overloaded",
            Self::Unavailable(_) | Self::Undecided(_) => "unavailable",
            Self::Internal(_) => "internal",
        }
    }

    /// How long to wait before trying again, where waiting helps.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after }
            | Self::TooManyAttempts { retry_after }
            | Self::Overloaded { retry_after } => Some(*retry_after),
            Self::Unavailable(_) | Self::Undecided(_) => Some(Duration::from_secs(5)),
            _ => None,
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { .. } => {
                tracing::error!(%error, "corrupt data in the store");
                Self::Internal("corrupt data in the store")
            }
            StoreError::Unavailable(_) => Self::Unavailable(error),
            StoreError::TransactionOver => Self::Internal("the host's transaction is over"),
            StoreError::OutsideOnly => Self::Internal("this is not done in a host's transaction"),
        }
    }
}

impl From<HashError> for Error {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Overloaded { retry_after } => Self::Overloaded { retry_after },
            HashError::Stopped => Self::Internal("the hash pool has stopped"),
        }
    }
}
