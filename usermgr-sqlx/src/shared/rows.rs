//! Rows, and the values of the domain that they hold. A row that no version of this program wrote is named.

use std::fmt::Display;
use std::str::FromStr;

use usermgr_core::domain::email::Email;
use usermgr_core::domain::id::UserId;
use usermgr_core::domain::password::{PasswordHash, PasswordVersion};
use usermgr_core::domain::profile::Profile;
use usermgr_core::domain::role::{Role, Roles};
use usermgr_core::domain::user::{Locale, User, UserStatus, Username};
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::account::Credentials;
use uuid::Uuid;

use super::{Ts, from_ts};

/// Names the value that could not be read.
pub(super) fn corrupt(table: &'static str, column: &'static str, row: impl Display) -> StoreError {
    StoreError::Corrupt { table, column, row: row.to_string() }
}

/// The columns of a user, in the order of [`UserRow`].
macro_rules! user_columns {
    () => {
        "u.id AS user_id, u.email, u.email_verified_at, u.username, u.roles, u.status, u.locale, u.profile, u.password, \
         u.password_version, u.created_at AS user_created_at, u.updated_at, u.last_login_at"
    };
}
pub(super) use user_columns;

#[derive(sqlx::FromRow)]
pub(super) struct UserRow {
    user_id: Uuid,
    email: String,
    email_verified_at: Option<Ts>,
    username: Option<String>,
    roles: String,
    status: String,
    locale: Option<String>,
    profile: Option<String>,
    password: Option<String>,
    password_version: i64,
    user_created_at: Ts,
    updated_at: Ts,
    last_login_at: Option<Ts>,
}

impl UserRow {
    pub(super) fn credentials(self) -> Result<Credentials, StoreError> {
        let wrong = |column| corrupt("usermgr_users", column, self.user_id);
        let roles: Result<Roles, _> = self.roles.split_whitespace().map(Role::from_str).collect();
        let user = User {
            id: UserId::from_uuid(self.user_id),
            email: Email::parse(&self.email).map_err(|_| wrong("email"))?,
            email_verified_at: self.email_verified_at.map(from_ts),
            username: username(self.username.as_deref()).map_err(|()| wrong("username"))?,
            roles: roles.map_err(|_| wrong("roles"))?,
            status: UserStatus::from_str(&self.status).map_err(|_| wrong("status"))?,
            locale: locale(self.locale.as_deref()).map_err(|()| wrong("locale"))?,
            profile: profile(self.profile).map_err(|()| wrong("profile"))?,
            created_at: from_ts(self.user_created_at),
            updated_at: from_ts(self.updated_at),
            last_login_at: self.last_login_at.map(from_ts),
        };
        let version = PasswordVersion::from_i64(self.password_version);
        Ok(Credentials { user, password: self.password.map(PasswordHash::new), version })
    }

    pub(super) fn user(self) -> Result<User, StoreError> {
        Ok(self.credentials()?.user)
    }
}

pub(super) fn username(text: Option<&str>) -> Result<Option<Username>, ()> {
    text.map(|text| Username::from_stored(text).ok_or(())).transpose()
}

pub(super) fn locale(text: Option<&str>) -> Result<Option<Locale>, ()> {
    text.map(Locale::parse).transpose().map_err(|_| ())
}

pub(super) fn profile(text: Option<String>) -> Result<Option<Profile>, ()> {
    text.map(Profile::from_stored).transpose().map_err(|_| ())
}

/// How roles stand in a row: sorted names with spaces between them.
pub(super) fn roles_text(roles: &Roles) -> String {
    roles.iter().map(Role::as_str).collect::<Vec<_>>().join(" ")
}
