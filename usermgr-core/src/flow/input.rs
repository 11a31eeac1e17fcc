//! Reading what people typed: all faults of a request at once.

use std::sync::Arc;

use crate::crypto::password_text::{NormalizedPassword, check_strength};
use crate::domain::email::Email;
use crate::domain::field::{FieldError, FieldFault};
use crate::domain::json::JsonObject;
use crate::domain::profile::{Profile, ProfileFault, ProfileType};
use crate::domain::role::Role;
use crate::domain::secret::{Code, Password};
use crate::domain::user::{InvalidUsername, Locale, Username};
use crate::error::Error;
use crate::policy::RolePolicy;
use crate::port::hook::Hook;

/// Collects the faults of a request's fields.
#[derive(Default)]
pub(super) struct Input {
    faults: Vec<FieldError>,
}

impl Input {
    pub(super) fn fault(&mut self, field: &'static str, fault: FieldFault) {
        self.faults.push(FieldError::new(field, fault));
    }

    fn note<T>(&mut self, field: &'static str, read: Result<T, FieldFault>) -> Option<T> {
        read.map_err(|fault| self.fault(field, fault)).ok()
    }

    pub(super) fn email(&mut self, text: &str) -> Option<Email> {
        self.email_field("email", text)
    }

    /// An address as typed: blanks around it come with a paste and do not count.
    pub(super) fn email_field(&mut self, field: &'static str, text: &str) -> Option<Email> {
        let text = text.trim();
        let read = if text.is_empty() {
            Err(FieldFault::Required)
        } else {
            Email::parse(text).map_err(|_| FieldFault::Invalid)
        };
        self.note(field, read)
    }

    pub(super) fn username(&mut self, text: Option<&str>) -> Option<Username> {
        let read = Username::parse(text?).map_err(|error| match error {
            InvalidUsername::Blank => FieldFault::Required,
            InvalidUsername::TooLong => FieldFault::TooLong { max: Username::MAX },
            InvalidUsername::ControlCharacter => FieldFault::ControlCharacter,
        });
        self.note("username", read)
    }

    pub(super) fn locale(&mut self, text: Option<&str>) -> Option<Locale> {
        self.note("locale", Locale::parse(text?).map_err(|_| FieldFault::Invalid))
    }

    /// A profile, as the host's type has it.
    pub(super) fn profile(
        &mut self,
        sent: Option<&JsonObject>,
        kind: Option<ProfileType>,
    ) -> Result<Option<Profile>, Error> {
        let Some(sent) = sent else { return Ok(None) };
        let Some(kind) = kind else {
            self.fault("profile", FieldFault::Unknown);
            return Ok(None);
        };
        match kind.check(sent) {
            Ok(profile) => Ok(Some(profile)),
            Err(ProfileFault::Field(error)) => {
                self.faults.push(error);
                Ok(None)
            }
            Err(ProfileFault::Type(name)) => {
                tracing::error!(name, "the type of profiles does not write an object that it reads");
                Err(Error::Internal("the type of profiles does not write an object that it reads"))
            }
        }
    }

    /// What is sent for hooks, if there are any.
    pub(super) fn extra(&mut self, sent: Option<JsonObject>, hooks: &[Arc<dyn Hook>]) -> JsonObject {
        let Some(sent) = sent else { return JsonObject::default() };
        let read = if hooks.is_empty() { Err(FieldFault::Unknown) } else { sent.bounded() };
        self.note("extra", read);
        sent
    }

    /// Roles that users are to have: each must be defined.
    pub(super) fn roles<'a>(&mut self, roles: impl IntoIterator<Item = &'a Role>, policy: &RolePolicy) {
        if !roles.into_iter().all(|role| policy.is_defined(role)) {
            self.fault("roles", FieldFault::Unsupported);
        }
    }

    /// A code as typed: only its digits count. One that is no code at all is simply wrong, so it is not a fault, unless
    /// it is missing or could not have been typed.
    pub(super) fn code(&mut self, code: &Code) -> Option<Code> {
        let digits: String =
            code.expose().chars().filter(|c| !is_between_digits(*c)).map(to_ascii_digit).collect();
        let read = if digits.is_empty() {
            Err(FieldFault::Required)
        } else if digits.len() > 64 || digits.chars().any(char::is_control) {
            Err(FieldFault::Invalid)
        } else {
            Ok(Code::new(digits))
        };
        self.note("code", read)
    }

    /// A password that is to be compared: no rule but its bounds.
    pub(super) fn password(
        &mut self,
        field: &'static str,
        password: &Password,
    ) -> Option<NormalizedPassword> {
        self.note(field, NormalizedPassword::parse(password))
    }

    /// A password that is to be set, and its repetition.
    pub(super) fn new_password(
        &mut self,
        field: &'static str,
        password: &Password,
        confirmation: Option<&Password>,
    ) -> Option<NormalizedPassword> {
        use subtle::ConstantTimeEq as _;
        if let Some(confirmation) = confirmation
            && !bool::from(confirmation.expose().as_bytes().ct_eq(password.expose().as_bytes()))
        {
            self.fault("confirmation_password", FieldFault::Mismatch);
        }
        self.password(field, password)
    }

    /// Whether a password may be set for this address and name.
    pub(super) fn strength(
        &mut self,
        field: &'static str,
        password: &NormalizedPassword,
        min: usize,
        email: Option<&Email>,
        username: Option<&Username>,
    ) {
        if let Err(fault) = check_strength(password, min, email, username) {
            self.fault(field, fault);
        }
    }

    /// The faults so far, if there are any.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.faults.is_empty() { Ok(()) } else { Err(Error::Invalid(self.faults.clone())) }
    }

    /// What to answer when a part could not be read.
    pub(super) fn refusal(self) -> Error {
        Error::Invalid(self.faults)
    }
}

/// What people and programs put between the digits of a code: blanks of any width, hyphens and dashes, and marks that are
/// not seen.
const fn is_between_digits(c: char) -> bool {
    c.is_whitespace()
        || matches!(c,
            '-' | '\u{ad}' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A digit of full width, as keyboards of East Asia type it, as the digit that it is.
fn to_ascii_digit(c: char) -> char {
    match c {
        '\u{ff10}'..='\u{ff19}' => char::from_digit(u32::from(c) - 0xff10, 10).unwrap_or(c),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(typed: &str) -> Result<String, FieldFault> {
        let mut input = Input::default();
        let read = input.code(&Code::new(typed));
        read.map(|code| code.expose().to_owned()).ok_or_else(|| input.faults[0].fault)
    }

    #[test]
    fn only_the_digits_of_a_code_count() {
        for typed in [
            "123456",
            " 123 456\t",
            "123-456",
            "123\u{2011}456",
            "12\u{2013}34\u{2014}56",
            "123\u{a0}456",
            "123\u{202f}456\u{3000}",
            "\u{feff}123\u{200b}456\r\n",
            "\u{202a}123456\u{202c}",
            "１２３４５６",
            "１２３－４５６",
        ] {
            assert_eq!(code(typed).as_deref(), Ok("123456"), "{typed:?}");
        }
        // What is no digit stays, and makes it a wrong code.
        for wrong in ["12345O", "123456x", "１２３４５６七", "123.456", "+123456", "\u{661}23456", "12_34_56"]
        {
            let read = code(wrong).unwrap();
            assert!(read != "123456" && !read.bytes().all(|b| b.is_ascii_digit()), "{wrong:?}");
        }
        for none in ["", " ", "-", "\u{a0}\u{2011}"] {
            assert_eq!(code(none), Err(FieldFault::Required), "{none:?}");
        }
        for never in ["123\u{0}456", "\u{1b}123456", &"1".repeat(65)] {
            assert_eq!(code(never), Err(FieldFault::Invalid), "{never:?}");
        }
    }

    #[test]
    fn blanks_around_an_address_do_not_count() {
        for typed in
            ["ana@example.org", " ana@example.org", "ana@example.org\n", "\u{a0}ana@example.org\u{3000}"]
        {
            let mut input = Input::default();
            let email = input.email_field("new_email", typed);
            assert_eq!(email.as_ref().map(Email::as_str), Some("ana@example.org"), "{typed:?}");
        }
        for (typed, fault) in [(" ", FieldFault::Required), ("ana @example.org", FieldFault::Invalid)] {
            let mut input = Input::default();
            assert!(input.email(typed).is_none());
            assert_eq!(input.faults[0].fault, fault, "{typed:?}");
        }
    }
}
