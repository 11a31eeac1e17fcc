//! Forms: what was sent, and how a form is shown again with what was wrong with it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::{HeaderMap, header};
use serde::Serialize;
use usermgr_core::Error;
use usermgr_core::domain::json::JsonObject;

use crate::http::problem::{Language, Problem};

/// What the names of fields begin with that a host's own form asks for its hooks.
pub(super) const EXTRA: &str = "extra.";
/// What the names of fields begin with that belong to a profile.
pub(super) const PROFILE: &str = "profile.";

/// The fields of a form or of a query, each with what was typed.
#[derive(Default)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads the body of a form.
    pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Problem> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Problem::unsupported_media_type());
        }
        Self::parse(body)
    }

    /// Reads `name=value` pairs. What is not UTF-8 is refused, lest a password is something else than was typed.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Problem> {
        let pairs: Vec<_> = url::form_urlencoded::parse(text).into_owned().collect();
        if pairs.iter().any(|(name, value)| name.contains('\u{fffd}') || value.contains('\u{fffd}')) {
            return Err(Problem::malformed("a form is not UTF-8"));
        }
        Ok(Self(pairs))
    }

    /// What was typed into a field; nothing where the field is not there. Of a field that comes twice, nothing.
    pub(super) fn text<'a>(&'a self, name: &str) -> &'a str {
        let mut values = self.pairs().filter(|(known, _)| *known == name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => value,
            _ => "",
        }
    }

    /// What was typed into a field that may be left empty.
    pub(super) fn optional(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// Every field that was filled in, and with what.
    pub(super) fn filled(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs().filter(|(_, value)| !value.is_empty())
    }

    /// Every field and what was typed.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The fields whose names begin so, as an object of texts; none where none was filled in.
    pub(super) fn object(&self, prefix: &str) -> Option<JsonObject> {
        let fields = self.filled().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value)));
        let fields: BTreeMap<&str, &str> = fields.collect();
        JsonObject::of(&fields).ok().filter(|_| !fields.is_empty())
    }

    /// Every value of a field, as of boxes that were ticked.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A form as a template shows it.
#[derive(Debug, Default, Serialize)]
pub(super) struct FormState {
    /// What stands in its fields. Passwords and codes are typed anew.
    pub(super) values: BTreeMap<Cow<'static, str>, String>,
    /// What is wrong with a field.
    pub(super) faults: BTreeMap<String, String>,
    /// What is wrong with the whole.
    pub(super) problem: Option<String>,
    /// Whether the password is asked for, too.
    pub(super) reauthenticate: bool,
    /// In how many seconds to try again.
    pub(super) wait: Option<u64>,
}

impl FormState {
    /// A form with these values in it.
    pub(super) fn with<const N: usize>(values: [(&'static str, &str); N]) -> Self {
        let values = values.into_iter().map(|(name, value)| (name.into(), value.to_owned())).collect();
        Self { values, ..Self::default() }
    }

    /// Also with what stands in the fields of the host's own.
    pub(super) fn and_hosts_fields(mut self, sent: &Form) -> Self {
        let is_own = |name: &str| [EXTRA, PROFILE].iter().any(|prefix| name.starts_with(prefix));
        let own = sent.filled().filter(|(name, _)| is_own(name));
        self.values.extend(own.map(|(name, value)| (name.to_owned().into(), value.to_owned())));
        self
    }

    /// The form after it was refused, and the refusal whose status the page has. What another form cannot mend goes on.
    ///
    /// `password` is the field that is wrong where credentials are; without it, it is the form.
    pub(super) fn refused(
        mut self,
        error: Error,
        password: Option<&str>,
        language: Language,
    ) -> Result<(Self, Problem), Problem> {
        let own = |name: &str, problem: &Problem| {
            BTreeMap::from([(name.to_owned(), problem.sentence(language).to_owned())])
        };
        let reauthenticate = matches!(error, Error::ReauthenticationRequired { .. });
        let (on_code, on_email, on_password) = (
            matches!(error, Error::InvalidCode | Error::CodeExpired),
            matches!(error, Error::EmailTaken),
            matches!(error, Error::InvalidCredentials),
        );
        let beyond = matches!(
            error,
            Error::SessionEnded
                | Error::InvalidToken
                | Error::MissingToken
                | Error::Forbidden
                | Error::NotFound
                | Error::Internal(_)
        );
        let problem = Problem::from(error);
        if beyond {
            return Err(problem);
        }
        self.wait = problem.retry_after_seconds();
        self.reauthenticate = reauthenticate;
        match password {
            Some(field) if on_password => self.faults = own(field, &problem),
            _ if on_code => self.faults = own("code", &problem),
            _ if on_email => self.faults = own("email", &problem),
            _ => {
                self.faults = problem.field_sentences(language);
                if self.faults.is_empty() {
                    self.problem = Some(problem.sentence(language).to_owned());
                }
            }
        }
        Ok((self, problem))
    }
}
