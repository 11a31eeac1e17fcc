//! Users: accounts, and what belongs to them.

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use super::email::Email;
use super::fold::fold;
use super::id::UserId;
use super::profile::{Profile, ProfileError};
use super::role::{Role, Roles};
use super::visible::{is_visible, without_invisible};

/// An account. It exists only for an address that was proven, or that an administrator entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's identifier, never reused.
    pub id: UserId,
    /// The address, as mail is sent to it.
    pub email: Email,
    /// When the address was proven; `None` for an invited user before the first setup.
    pub email_verified_at: Option<OffsetDateTime>,
    /// The display name, not unique.
    pub username: Option<Username>,
    /// The user's roles.
    pub roles: Roles,
    /// Whether the account may be used.
    pub status: UserStatus,
    /// The language of mails, if the user chose one.
    pub locale: Option<Locale>,
    /// What the host keeps of the user; see [`profile`](Self::profile()).
    pub profile: Option<Profile>,
    /// When the account was made.
    pub created_at: OffsetDateTime,
    /// When the account was last changed.
    pub updated_at: OffsetDateTime,
    /// When the user last signed in.
    pub last_login_at: Option<OffsetDateTime>,
}

impl User {
    /// Whether the address was proven.
    pub const fn email_verified(&self) -> bool {
        self.email_verified_at.is_some()
    }

    /// The profile as a value of the host's type, if the user has one.
    ///
    /// # Errors
    /// [`ProfileError`] when the type does not read it, as a type that was changed since may not.
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use usermgr_core::domain::json::JsonObject;
    /// use usermgr_core::flow::permission::Principal;
    /// use usermgr_core::flow::users::CreateUser;
    /// use usermgr_core::ClientContext;
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::with_parts(|builder| builder.profile::<Person>());
    /// # let (users, client) = (auth.users(), ClientContext::new());
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Person {
    ///     city: String,
    /// }
    ///
    /// let profile = JsonObject::of(&Person { city: "Madrid".into() })?;
    /// let request = CreateUser::new("ana@example.org").with_profile(profile);
    /// let user = users.users().create(Principal::Operator, request, &client).await?;
    /// let person: Option<Person> = user.profile()?;
    /// assert_eq!(person.map(|person| person.city).as_deref(), Some("Madrid"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn profile<T: DeserializeOwned>(&self) -> Result<Option<T>, ProfileError> {
        self.profile.as_ref().map(Profile::read).transpose()
    }

    /// Whether the user has the role.
    pub fn has_role(&self, role: &Role) -> bool {
        self.roles.contains(role)
    }
}

/// Whether an account may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "who asks whether somebody may sign in has to know every answer")]
pub enum UserStatus {
    /// It may sign in.
    Active,
    /// It may not sign in, and none of its sessions holds.
    Disabled,
}

impl UserStatus {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
        }
    }
}

/// A text that names no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a user status; it takes active or disabled")]
pub struct UnknownStatus;

impl FromStr for UserStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        match text {
            "active" => Ok(Self::Active),
            "disabled" => Ok(Self::Disabled),
            _ => Err(UnknownStatus),
        }
    }
}

/// A display name: 1 to 64 characters, none of them a control character, invisible or a control of the direction of text, not
/// blank. Not unique, never an identifier.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Username(String);

/// A text that cannot be a display name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUsername {
    /// It is empty or blank.
    #[error("a username has at least one visible character")]
    Blank,
    /// It has more than 64 characters.
    #[error("a username has at most {} characters", Username::MAX)]
    TooLong,
    /// It holds a control character, one that is not seen, or one that turns the direction of text.
    #[error("a username has no control characters and no invisible ones")]
    ControlCharacter,
}

impl Username {
    /// The most characters of a username.
    pub const MAX: usize = 64;

    /// Reads a display name; it is kept as typed.
    ///
    /// # Errors
    /// [`InvalidUsername`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidUsername> {
        if text.len() > 4 * Self::MAX || text.chars().count() > Self::MAX {
            return Err(InvalidUsername::TooLong);
        }
        if !is_visible(text) {
            return Err(InvalidUsername::ControlCharacter);
        }
        if text.trim().is_empty() {
            return Err(InvalidUsername::Blank);
        }
        Ok(Self(text.into()))
    }

    /// A name that a store kept, perhaps of a version that took characters which are refused now: it is shown without them.
    /// `None` when it is no name at all.
    pub fn from_stored(text: &str) -> Option<Self> {
        match Self::parse(text) {
            Ok(name) => Some(name),
            Err(InvalidUsername::ControlCharacter) => {
                let shown = without_invisible(text);
                let shown = if shown.trim().is_empty() { "\u{FFFD}".to_owned() } else { shown };
                Some(Self(shown))
            }
            Err(_) => None,
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form that names and addresses are compared and searched in: without regard to case or to compatibility forms
    /// (NFKC). Each letter folds by itself, whatever stands beside it, so the upper and the lower case of a text fold alike.
    pub fn folded(text: &str) -> String {
        fold(text)
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A language tag (BCP 47), for example `es` or `en-GB`: at most 35 characters.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Locale(String);

/// A text that is no language tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a locale is a language tag such as en, es or es-MX")]
pub struct InvalidLocale;

impl Locale {
    /// The most characters a language tag may have.
    pub const MAX: usize = 35;

    /// English, the language of last resort.
    pub fn english() -> Self {
        Self("en".into())
    }

    /// Reads a language tag.
    ///
    /// # Errors
    /// [`InvalidLocale`] when the text is no language tag.
    pub fn parse(text: &str) -> Result<Self, InvalidLocale> {
        let mut parts = text.split('-');
        let language = parts.next().unwrap_or_default();
        let fits = text.len() <= Self::MAX
            && (2..=3).contains(&language.len())
            && language.bytes().all(|b| b.is_ascii_alphabetic())
            && parts
                .all(|part| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric()));
        if fits { Ok(Self(text.into())) } else { Err(InvalidLocale) }
    }

    /// The tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The language alone, in lower case: `es` of `es-MX`.
    pub fn language(&self) -> String {
        self.0.split('-').next().unwrap_or_default().to_ascii_lowercase()
    }
}

impl fmt::Display for Locale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_an_earlier_version_is_shown_without_what_deceives() {
        for (stored, shown) in [
            ("Ana", Some("Ana")),
            ("ad\u{200B}min\u{202E}", Some("admin")),
            ("\u{200B}\u{200B}", Some("\u{FFFD}")),
            ("", None),
        ] {
            assert_eq!(Username::from_stored(stored).as_ref().map(Username::as_str), shown, "{stored:?}");
            assert!(shown == Some("Ana") || Username::parse(stored).is_err());
        }
    }
}
