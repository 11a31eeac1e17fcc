//! Users, as their administrator or the host's program sees them.

use super::input::Input;
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::code::CodePurpose;
use crate::domain::event::EventKind;
use crate::domain::id::UserId;
use crate::domain::mail::MailKind;
use crate::domain::page::Page;
use crate::domain::role::{Role, Roles};
use crate::domain::secret::Password;
use crate::domain::user::User;
use crate::error::Error;
use crate::manager::Inner;
use crate::port::store::account::{self, UserCreated, UserQuery};

/// Users; see [`UserManager::users`](crate::UserManager::users).
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
#[derive(Debug, Clone)]
pub struct CreateUser {
    /// The address. With a password it counts as proven: who makes the user vouches for it.
    pub email: String,
    /// The password; without one the user is invited to set it by a mailed code.
    pub password: Option<Password>,
    /// The display name.
    pub username: Option<String>,
    /// The language of mails, as a BCP 47 tag.
    pub locale: Option<String>,
    /// The roles, to which `user` is added.
    pub roles: Roles,
}

impl CreateUser {
    /// A user of this address, without a password, a name or roles of their own.
    pub fn new(email: impl Into<String>) -> Self {
        Self { email: email.into(), password: None, username: None, locale: None, roles: Roles::new() }
    }
}

impl Users<'_> {
    /// Makes a user. Whether the caller may is for the caller to decide.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::EmailTaken`], [`Error::Overloaded`], [`Error::Unavailable`].
    pub async fn create(&self, request: CreateUser, client: &ClientContext) -> Result<User, Error> {
        let inner = self.inner;
        let CreateUser { email, password, username, locale, mut roles } = request;
        roles.insert(Role::user());
        let mut input = Input::default();
        let email = input.email(&email);
        let username = input.username(username.as_deref());
        let locale = input.locale(locale.as_deref());
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

        let password = match password {
            None => None,
            Some(password) => Some(inner.hash(password).await?),
        };
        let now = inner.clock.now();
        let invitation = password.is_none().then(|| {
            let purpose = CodePurpose::FirstTimeSetup;
            (inner.new_digits(purpose, now), inner.mail(MailKind::of_code(purpose), now))
        });
        let audit = inner.audit_draft(AuditEvent::UserCreation, Some(email.key()), None, client, now);
        let command = account::CreateUser {
            now,
            id: UserId::new(now, &*inner.random),
            email,
            email_verified_at: password.is_some().then_some(now),
            username,
            locale,
            roles,
            password,
            invitation,
            audit,
            events: inner.event_drafts(&[EventKind::UserRegistered], now),
        };
        match inner.store.create_user(command).await? {
            UserCreated::Created(user) => Ok(*user),
            UserCreated::Taken => Err(Error::EmailTaken),
        }
    }

    /// A user by identifier.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unavailable`].
    pub async fn get(&self, id: UserId) -> Result<User, Error> {
        self.inner.store.user(id).await?.ok_or(Error::NotFound)
    }

    /// Users, newest first, a page at a time.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn list(&self, query: UserQuery) -> Result<Page<User, UserId>, Error> {
        Ok(self.inner.store.users(query).await?)
    }
}
