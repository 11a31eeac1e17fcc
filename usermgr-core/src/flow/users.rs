//! Users, as their administrator or the host's program sees them.

use std::collections::{BTreeMap, BTreeSet};

use super::input::Input;
use super::limits::wait;
use super::permission::{Operation, Principal};
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::code::CodePurpose;
use crate::domain::event::EventKind;
use crate::domain::id::UserId;
use crate::domain::json::JsonObject;
use crate::domain::mail::MailKind;
use crate::domain::page::Page;
use crate::domain::role::{Permission, Role, Roles};
use crate::domain::secret::Password;
use crate::domain::user::{User, Username};
use crate::error::Error;
use crate::manager::Inner;
use crate::port::store::account::{
    self, CredentialsQuery, PasswordReplaced, UserCreated, UserCursor, UserQuery,
};

/// Users; see [`UserManager::users`](crate::UserManager::users).
///
/// ```
/// use usermgr_core::ClientContext;
/// use usermgr_core::flow::permission::Principal;
/// use usermgr_core::flow::users::CreateUser;
/// # use std::sync::Arc;
/// # use usermgr_core::testing::{Mailbox, MemoryStore};
/// # use usermgr_core::{SecretKey, UserManager};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let users = UserManager::builder()
/// #     .store(Arc::new(MemoryStore::default()))
/// #     .mailer(Arc::new(Mailbox::default()))
/// #     .secret_key(SecretKey::from_bytes([7; 32]))
/// #     .build()?;
///
/// // An invitation: the user sets the first password by the code in the mail.
/// let client = ClientContext::new();
/// let ana = users.users().create(Principal::Operator, CreateUser::new("ana@example.org"), &client).await?;
/// assert!(!ana.email_verified());
///
/// // Somebody who signed in acts by their own rights: `Principal::User(&caller)`.
/// users.users().delete(Principal::Operator, ana.id, &client).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct Users<'a> {
    pub(crate) inner: &'a Inner,
}

impl std::fmt::Debug for Users<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Users")
    }
}

/// A user to make without a registration.
///
/// ```
/// use usermgr_core::flow::users::CreateUser;
///
/// let invited = CreateUser::new("ana@example.org").with_locale("es");
/// let editor = CreateUser::new("eva@example.org")
///     .with_password("correct horse battery")
///     .with_username("Eva")
///     .with_roles(["editor".parse()?]);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a caller names what it gives, and takes the rest from `new` or `Default`"
)]
pub struct CreateUser {
    /// The address. With a password it counts as proven: who makes the user vouches for it.
    pub email: String,
    /// The password; without one the user is invited to set it by a mailed code.
    pub password: Option<Password>,
    /// The display name.
    pub username: Option<String>,
    /// The language of mails, as a BCP 47 tag.
    pub locale: Option<String>,
    /// The profile, for the type of [`UserManagerBuilder::profile`](crate::UserManagerBuilder::profile).
    pub profile: Option<JsonObject>,
    /// The roles, to which `user` is added.
    pub roles: Roles,
}

impl CreateUser {
    /// A user of this address, without a password, a name or roles of their own.
    pub fn new(email: impl Into<String>) -> Self {
        Self {
            email: email.into(),
            password: None,
            username: None,
            locale: None,
            profile: None,
            roles: Roles::new(),
        }
    }

    /// With a password; the address counts as proven then.
    #[must_use]
    pub fn with_password(mut self, password: impl Into<Password>) -> Self {
        self.password = Some(password.into());
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

    /// With roles beside `user`.
    #[must_use]
    pub fn with_roles(mut self, roles: impl IntoIterator<Item = Role>) -> Self {
        self.roles = roles.into_iter().collect();
        self
    }
}

impl Users<'_> {
    /// Makes a user. Without a password the user is invited: a code by which to set the first one is owed.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::EmailTaken`], [`Error::Overloaded`], [`Error::Unavailable`]; of a user who acts,
    /// [`Error::Forbidden`] without `users:write`, and for roles that permit more than the user may; with roles other than
    /// `user`, without a recent sign-in or the password along ([`Principal::UserWithPassword`])
    /// [`Error::ReauthenticationRequired`], [`Error::InvalidCredentials`], [`Error::TooManyAttempts`].
    pub async fn create(
        &self,
        by: Principal<'_>,
        request: CreateUser,
        client: &ClientContext,
    ) -> Result<User, Error> {
        let inner = self.inner;
        let CreateUser { email, password, username, locale, profile, mut roles } = request;
        let actor = inner.permit(by, Operation::CreateUser, client).await?;
        roles.insert(Role::user());
        let mut input = Input::default();
        let email = input.email(&email);
        let username = input.username(username.as_deref());
        let locale = input.locale(locale.as_deref());
        let profile = input.profile(profile.as_ref(), inner.profile)?;
        input.roles(&roles, &inner.policies.roles);
        let password = match password {
            None => None,
            Some(password) => {
                let password = input.new_password("password", &password, None);
                if let Some(password) = &password {
                    let min = inner.policies.passwords.min_length;
                    input.strength("password", password, min, email.as_ref(), username.as_ref());
                }
                password
            }
        };
        input.check()?;
        let Some(email) = email else { return Err(input.refusal()) };
        if roles.len() > 1 {
            inner.permit(by, Operation::CreateUserWithRoles, client).await?;
        }

        let password = match password {
            None => None,
            Some(password) => Some(inner.hash(password, client).await?),
        };
        let now = inner.clock.now();
        let invitation = password.is_none().then(|| {
            let purpose = CodePurpose::FirstTimeSetup;
            (inner.new_digits(purpose, now), inner.mail(MailKind::of_code(purpose), now))
        });
        let audit = inner.audit_draft(AuditEvent::UserCreation, Some(email.key()), by.actor(), client, now);
        let command = account::CreateUser {
            now,
            id: UserId::new(now, &*inner.random),
            email,
            email_verified_at: password.is_some().then_some(now),
            username,
            locale,
            profile,
            roles,
            password,
            invitation,
            by: actor,
            audit,
            events: inner.event_drafts(&[EventKind::UserRegistered], now),
        };
        match inner.store.create_user(command).await? {
            UserCreated::Created(user) => Ok(*user),
            UserCreated::Taken => Err(Error::EmailTaken),
            UserCreated::NotPermitted => Err(Error::Forbidden),
        }
    }

    /// A user by identifier.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unavailable`]; of a user who acts, [`Error::Forbidden`] without `users:read`.
    pub async fn get(&self, by: Principal<'_>, id: UserId, client: &ClientContext) -> Result<User, Error> {
        self.inner.permit(by, Operation::ReadUser, client).await?;
        self.inner.store.user(id).await?.ok_or(Error::NotFound)
    }

    /// A user by address, for the operator.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotFound`], [`Error::Unavailable`].
    pub async fn by_email(&self, email: &str) -> Result<User, Error> {
        let mut input = Input::default();
        let Some(email) = input.email(email) else { return Err(input.refusal()) };
        let query = CredentialsQuery { now: self.inner.clock.now(), email: email.key().clone(), guard: None };
        let found = self.inner.store.credentials(query).await?.user.ok_or(Error::NotFound)?;
        // Who may come back by signing in is deleted until then.
        self.inner.store.user(found.user.id).await?.ok_or(Error::NotFound)
    }

    /// Sets a user's password, for the operator. The user is signed out everywhere, every code and link is void, and a
    /// notice is owed. It works for a user who was invited and has no password yet, too.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a password that may not be set, [`Error::NotFound`] also for a user who is disabled,
    /// [`Error::Overloaded`], [`Error::Unavailable`], and [`Error::Forbidden`] when the user keeps changing the password
    /// at the same time.
    pub async fn set_password(
        &self,
        id: UserId,
        password: &Password,
        client: &ClientContext,
    ) -> Result<(), Error> {
        let inner = self.inner;
        let user = inner.store.user(id).await?.ok_or(Error::NotFound)?;
        let mut input = Input::default();
        let new = input.new_password("password", password, None);
        if let Some(new) = &new {
            let min = inner.policies.passwords.min_length;
            input.strength("password", new, min, Some(&user.email), user.username.as_ref());
        }
        input.check()?;
        let Some(new) = new else { return Err(input.refusal()) };
        let hash = inner.hash(new, client).await?;
        for _ in 0..2 {
            let now = inner.clock.now();
            let query = CredentialsQuery { now, email: user.email.key().clone(), guard: None };
            let found = inner.store.credentials(query).await?.user.filter(|found| found.user.id == id);
            let expect = found.ok_or(Error::NotFound)?.version;
            let command = account::ReplacePassword {
                now,
                user_id: id,
                expect,
                password: hash.clone(),
                keep: None,
                notice: inner.mail(MailKind::PasswordChanged, now),
                throttle: Vec::new(),
                audit: inner.audit_draft(
                    AuditEvent::PasswordReset,
                    Some(user.email.key()),
                    None,
                    client,
                    now,
                ),
                events: inner.event_drafts(&[EventKind::PasswordChanged], now),
            };
            match inner.store.replace_password(command).await? {
                PasswordReplaced::Replaced => return Ok(()),
                PasswordReplaced::Gone => return Err(Error::NotFound),
                PasswordReplaced::Stale => {}
                PasswordReplaced::Throttled { retry_after } => {
                    return Err(Error::RateLimited { retry_after: wait(retry_after) });
                }
            }
        }
        Err(Error::Forbidden)
    }

    /// Users, a page at a time: newest first, or, with a prefix to look for, in its order.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; of a user who acts, [`Error::Forbidden`] without `users:read`.
    ///
    /// ```
    /// use usermgr_core::ClientContext;
    /// use usermgr_core::flow::permission::Principal;
    /// use usermgr_core::port::store::account::UserQuery;
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::new();
    /// # let (users, client) = (auth.users(), ClientContext::new());
    ///
    /// # auth.signed_in("user").await;
    /// let mut query = UserQuery::default();
    /// loop {
    ///     let page = users.users().list(Principal::Operator, query.clone(), &client).await?;
    ///     for user in &page.items {
    ///         println!("{} {}", user.id, user.email);
    ///     }
    ///     match page.next {
    ///         Some(next) => query.after = Some(next),
    ///         None => break,
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list(
        &self,
        by: Principal<'_>,
        query: UserQuery,
        client: &ClientContext,
    ) -> Result<Page<User, UserCursor>, Error> {
        self.inner.permit(by, Operation::ListUsers, client).await?;
        let prefix = query.prefix.as_deref().map(Username::folded).filter(|prefix| !prefix.is_empty());
        Ok(self.inner.store.users(UserQuery { prefix, ..query }).await?)
    }

    /// Every role and what it permits.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; of a user who acts, [`Error::Forbidden`] without `users:read`.
    pub async fn roles(
        &self,
        by: Principal<'_>,
        client: &ClientContext,
    ) -> Result<BTreeMap<Role, BTreeSet<Permission>>, Error> {
        self.inner.permit(by, Operation::ListRoles, client).await?;
        Ok(self.inner.policies.roles.all())
    }
}
