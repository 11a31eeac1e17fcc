//! Users who come from another system, with the password hashes that it made.

use time::OffsetDateTime;

use super::users::Users;
use crate::crypto::foreign_hash::UnsupportedHash;
use crate::crypto::hasher::check_stored;
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::email::Email;
use crate::domain::event::EventKind;
use crate::domain::field::{FieldError, FieldFault};
use crate::domain::id::{EventId, UserId};
use crate::domain::json::JsonObject;
use crate::domain::password::PasswordHash;
use crate::domain::profile::{Profile, ProfileFault};
use crate::domain::role::{InvalidRole, Role, Roles};
use crate::domain::user::{InvalidUsername, Locale, User, UserStatus, Username};
use crate::error::Error;
use crate::manager::Inner;
use crate::port::store::EventDraft;
use crate::port::store::account::{ImportUsers, ImportedUser, UserImported};

/// A user as another system tells of one.
///
/// ```
/// use usermgr_core::domain::password::PasswordHash;
/// use usermgr_core::flow::import_users::{ImportOutcome, ImportUser};
/// use usermgr_core::ClientContext;
/// # use usermgr_core::testing::TestAuth;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let auth = TestAuth::new();
/// # let (users, client) = (auth.users(), ClientContext::new());
///
/// let ana = ImportUser::new("ana@example.org")
///     .with_username("Ana")
///     .with_roles(["admin".to_owned()])
///     .with_password(PasswordHash::new("pbkdf2_sha256$1000$saltsalt$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="));
/// let outcomes = users.users().import(vec![ana], &client).await?;
/// assert!(matches!(outcomes[..], [ImportOutcome::Added(_)]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ImportUser {
    /// The identifier; without one the user gets a new one.
    pub id: Option<UserId>,
    /// The address.
    pub email: String,
    /// Whether the other system had the address proven.
    pub email_verified: bool,
    /// The display name.
    pub username: Option<String>,
    /// The language of mails, as a BCP 47 tag.
    pub locale: Option<String>,
    /// The profile, for the type of [`UserManagerBuilder::profile`](crate::UserManagerBuilder::profile).
    pub profile: Option<JsonObject>,
    /// The names of the roles, to which `user` is added.
    pub roles: Vec<String>,
    /// The name of the status; without one the user is active.
    pub status: Option<String>,
    /// The hash of the password, in one of the forms of [`foreign_hash`](crate::crypto::foreign_hash) or as this
    /// library writes it. Without one the user sets a password by a code or a link.
    pub password: Option<PasswordHash>,
    /// When the user came to be; without it, now.
    pub created_at: Option<OffsetDateTime>,
}

impl ImportUser {
    /// An active user whose address is proven, with nothing else told of.
    pub fn new(email: impl Into<String>) -> Self {
        Self {
            id: None,
            email: email.into(),
            email_verified: true,
            username: None,
            locale: None,
            profile: None,
            roles: Vec::new(),
            status: None,
            password: None,
            created_at: None,
        }
    }

    /// With the identifier that it has.
    #[must_use]
    pub fn with_id(mut self, id: UserId) -> Self {
        self.id = Some(id);
        self
    }

    /// With an address that nobody has proven.
    #[must_use]
    pub const fn unverified(mut self) -> Self {
        self.email_verified = false;
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

    /// With the names of roles beside `user`.
    #[must_use]
    pub fn with_roles(mut self, roles: impl IntoIterator<Item = String>) -> Self {
        self.roles = roles.into_iter().collect();
        self
    }

    /// With the name of a status.
    #[must_use]
    pub fn with_status(mut self, status: impl Into<String>) -> Self {
        self.status = Some(status.into());
        self
    }

    /// With the hash of the password.
    #[must_use]
    pub fn with_password(mut self, password: PasswordHash) -> Self {
        self.password = Some(password);
        self
    }

    /// With when the user came to be.
    #[must_use]
    pub fn with_created_at(mut self, at: OffsetDateTime) -> Self {
        self.created_at = Some(at);
        self
    }
}

/// What became of one user of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each asks for something else of the caller")]
pub enum ImportOutcome {
    /// The user was added under this identifier.
    Added(UserId),
    /// The address or the identifier has a user already, who was left as is.
    Exists,
    /// The user cannot be taken.
    Refused(ImportRefusal),
}

/// Why a user cannot be taken. No hash is in it. [`as_str`](Self::as_str) is the same, as a stable word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportRefusal {
    /// The address is none that mail is sent to.
    #[error("invalid email")]
    InvalidEmail,
    /// The hash cannot be compared with.
    #[error("unsupported password hash: {0}")]
    UnsupportedHash(#[from] UnsupportedHash),
    /// A role is not defined here.
    #[error("unknown role {0}")]
    UnknownRole(Role),
    /// A role has a name that no role can have.
    #[error("invalid role: {0}")]
    InvalidRole(#[from] InvalidRole),
    /// The display name is not one.
    #[error("invalid username: {0}")]
    InvalidUsername(#[from] InvalidUsername),
    /// The language is not one.
    #[error("invalid locale: it takes a language tag such as en, es or es-MX")]
    InvalidLocale,
    /// The profile does not fit its type, or there is none here.
    #[error("invalid profile: {}", .0.field)]
    InvalidProfile(FieldError),
    /// The status is not one.
    #[error("invalid status: it takes active or disabled")]
    InvalidStatus,
    /// The identifier is one that names nobody.
    #[error("invalid id: all its bits are the same")]
    InvalidId,
    /// The user would have come to be in the future.
    #[error("invalid created_at: it is in the future")]
    InvalidCreatedAt,
}

impl ImportRefusal {
    /// The reason as a stable word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::InvalidEmail => "invalid_email",
            Self::UnsupportedHash(_) => "unsupported_password_hash",
            Self::UnknownRole(_) => "unknown_role",
            Self::InvalidRole(_) => "invalid_role",
            Self::InvalidUsername(_) => "invalid_username",
            Self::InvalidLocale => "invalid_locale",
            Self::InvalidProfile(_) => "invalid_profile",
            Self::InvalidStatus => "invalid_status",
            Self::InvalidId => "invalid_id",
            Self::InvalidCreatedAt => "invalid_created_at",
        }
    }
}

impl Users<'_> {
    /// Adds users who come from another system, in one transaction: a few hundred at a time are a good number. What
    /// became of each is answered in their order. A user who cannot be taken, or is there already, keeps no other from
    /// being added, so the same users can be imported again after a fault. For the operator.
    ///
    /// # Errors
    /// [`Error::Unavailable`], and none was added.
    ///
    /// # Security
    /// The hashes are read and bounded here, and compared only at sign-in, where each is replaced by Argon2id.
    pub async fn import(
        &self,
        users: Vec<ImportUser>,
        client: &ClientContext,
    ) -> Result<Vec<ImportOutcome>, Error> {
        let inner = self.inner;
        let now = inner.clock.now();
        let mut outcomes = Vec::with_capacity(users.len());
        let (mut sent, mut places) = (Vec::new(), Vec::new());
        for (place, user) in users.into_iter().enumerate() {
            match inner.read_imported(user, client, now) {
                Err(refusal) => outcomes.push(ImportOutcome::Refused(refusal)),
                Ok(user) => {
                    outcomes.push(ImportOutcome::Exists);
                    places.push((place, user.user.id));
                    sent.push(user);
                }
            }
        }
        if sent.is_empty() {
            return Ok(outcomes);
        }
        let answers = inner.store.import_users(ImportUsers { now, users: sent }).await?;
        if answers.len() != places.len() {
            return Err(Error::Internal("the store did not answer for every imported user"));
        }
        for ((place, id), answer) in places.into_iter().zip(answers) {
            if let (UserImported::Added, Some(outcome)) = (answer, outcomes.get_mut(place)) {
                *outcome = ImportOutcome::Added(id);
            }
        }
        Ok(outcomes)
    }

    /// Whether a user could be taken, as far as that can be said without asking the store.
    ///
    /// # Errors
    /// [`ImportRefusal`] says why not.
    pub fn check(&self, user: &ImportUser) -> Result<(), ImportRefusal> {
        let now = self.inner.clock.now();
        self.inner.read_imported(user.clone(), &ClientContext::new(), now).map(drop)
    }
}

impl Inner {
    fn read_imported(
        &self,
        user: ImportUser,
        client: &ClientContext,
        now: OffsetDateTime,
    ) -> Result<ImportedUser, ImportRefusal> {
        let ImportUser {
            id,
            email,
            email_verified,
            username,
            locale,
            profile,
            roles,
            status,
            password,
            created_at,
        } = user;
        let email = Email::parse(&email).map_err(|_| ImportRefusal::InvalidEmail)?;
        if let Some(password) = &password {
            check_stored(password, &self.policies.hashing)?;
        }
        let mut taken = Roles::from([Role::user()]);
        for role in roles {
            let role: Role = role.parse()?;
            if !self.policies.roles.is_defined(&role) {
                return Err(ImportRefusal::UnknownRole(role));
            }
            taken.insert(role);
        }
        let username = username.as_deref().map(Username::parse).transpose()?;
        let locale = locale.as_deref().map(Locale::parse).transpose();
        let locale = locale.map_err(|_| ImportRefusal::InvalidLocale)?;
        let profile = profile.map(|sent| self.imported_profile(&sent)).transpose()?;
        let status = status.as_deref().map_or(Ok(UserStatus::Active), str::parse);
        let status = status.map_err(|_| ImportRefusal::InvalidStatus)?;
        // Lists are read from one end of all identifiers to the other.
        if id.is_some_and(|id| id.as_uuid().is_nil() || id.as_uuid().is_max()) {
            return Err(ImportRefusal::InvalidId);
        }
        let created_at = created_at.unwrap_or(now);
        if created_at > now {
            return Err(ImportRefusal::InvalidCreatedAt);
        }
        // An identifier of the time when the user came to be keeps lists in that order.
        let id = id.unwrap_or_else(|| UserId::new(created_at, &*self.random));
        let audit = self.audit_draft(AuditEvent::UserImport, Some(email.key()), None, client, now);
        let user = User {
            id,
            email,
            email_verified_at: email_verified.then_some(now),
            username,
            roles: taken,
            status,
            locale,
            profile,
            created_at,
            updated_at: now,
            last_login_at: None,
        };
        let event = EventDraft { id: EventId::new(now, &*self.random), kind: EventKind::UserRegistered };
        Ok(ImportedUser { user, password, audit, event })
    }

    fn imported_profile(&self, sent: &JsonObject) -> Result<Profile, ImportRefusal> {
        let refused = |fault| ImportRefusal::InvalidProfile(FieldError::new("profile", fault));
        let kind = self.profile.ok_or_else(|| refused(FieldFault::Unknown))?;
        kind.check(sent).map_err(|fault| match fault {
            ProfileFault::Field(error) => ImportRefusal::InvalidProfile(error),
            ProfileFault::Type(_) => refused(FieldFault::Unsupported),
        })
    }
}
