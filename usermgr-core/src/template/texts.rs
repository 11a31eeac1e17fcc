//! Templates, and how a mail is made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};

use super::words::{in_words, whole_seconds};
use super::{MailValues, RenderedMail, TemplateError};
use crate::domain::mail::MailKind;

/// The language of last resort.
pub(super) const ENGLISH: &str = "en";

/// One of the three texts of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Subject,
    Text,
    Html,
}

impl Part {
    pub(super) const ALL: [Self; 3] = [Self::Subject, Self::Text, Self::Html];

    /// What the name of a template ends with.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::Subject => ".subject.txt",
            Self::Text => ".txt",
            Self::Html => ".html",
        }
    }
}

/// The secret that a mail carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carries {
    Nothing,
    Code,
    Link,
}

impl Carries {
    pub(super) const fn of(kind: MailKind) -> Self {
        match kind {
            MailKind::VerifyEmail
            | MailKind::FirstTimeSetup
            | MailKind::ResetPasswordCode
            | MailKind::ChangePasswordCode
            | MailKind::ChangeEmailCode => Self::Code,
            MailKind::ResetPasswordLink | MailKind::EmailChanged => Self::Link,
            MailKind::AccountExists
            | MailKind::Welcome
            | MailKind::PasswordChanged
            | MailKind::EmailChangeRequested
            | MailKind::AccountDeleted => Self::Nothing,
        }
    }

    /// The variable that holds the secret.
    pub(super) const fn variable(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Code => Some("code"),
            Self::Link => Some("link"),
        }
    }
}

/// The name of a template.
pub(super) fn name(language: &str, kind: MailKind, part: Part) -> String {
    format!("{language}/{kind}{}", part.suffix())
}

/// `en` of `en/welcome.txt`.
fn language_of(name: &str) -> Option<&str> {
    name.split_once('/').map(|(language, _)| language)
}

/// The variables that a template gets. The subject gets none that a user wrote: it stands in lists and notifications,
/// and in a header.
pub(super) fn variables(kind: MailKind, part: Part) -> BTreeSet<&'static str> {
    let mut names = BTreeSet::from(["language", "service_name"]);
    if part == Part::Subject {
        return names;
    }
    names.extend(["email", "public_url", "username"]);
    match Carries::of(kind) {
        Carries::Nothing if kind == MailKind::AccountDeleted => {
            names.extend(["ttl", "ttl_minutes", "ttl_seconds"]);
        }
        Carries::Nothing => {}
        Carries::Code => names.extend(["code", "code_spaced", "ttl", "ttl_minutes", "ttl_seconds"]),
        Carries::Link => names.extend(["link", "ttl", "ttl_minutes", "ttl_seconds"]),
    }
    names
}

/// Templates of any number of languages.
#[derive(Clone)]
pub(super) struct Texts {
    environment: Environment<'static>,
    languages: BTreeSet<String>,
    default: String,
}

impl Texts {
    /// The templates of these names and sources. Each is compiled when it is first needed: most processes send a few kinds
    /// of mail, and all of them compiled are two megabytes.
    pub(super) fn new(sources: &'static [(&'static str, &'static str)]) -> Self {
        let mut environment = Environment::new();
        environment.set_loader(|name| {
            let found = sources.iter().find(|(known, _)| *known == name);
            Ok(found.map(|(_, source)| (*source).to_owned()))
        });
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // What escaping a template gets follows from its name: HTML for `.html`, none for `.txt`.
        environment.set_formatter(write_value);
        let languages = sources.iter().filter_map(|(name, _)| language_of(name)).map(str::to_owned).collect();
        Self { environment, languages, default: ENGLISH.into() }
    }

    pub(super) fn set_default(&mut self, language: &str) {
        self.default = language.into();
    }

    /// Adds or replaces a template.
    pub(super) fn add(&mut self, name: String, source: String) -> Result<(), minijinja::Error> {
        self.languages.extend(language_of(&name).map(str::to_owned));
        self.environment.add_template_owned(name, source)
    }

    pub(super) fn has(&self, language: &str, kind: MailKind, part: Part) -> bool {
        self.environment.get_template(&name(language, kind, part)).is_ok()
    }

    /// Every mail that there is a text of, in the order of kinds, and its languages.
    pub(super) fn mails(&self) -> Vec<(MailKind, String)> {
        let mails =
            MailKind::ALL.into_iter().flat_map(|kind| self.languages.iter().map(move |at| (kind, at)));
        mails
            .filter(|(kind, language)| self.has(language, *kind, Part::Text))
            .map(|(kind, language)| (kind, language.clone()))
            .collect()
    }

    /// The variables that a template uses and neither sets itself nor finds in `known`.
    pub(super) fn unknown_variables(&self, template: &str, known: &BTreeSet<&str>) -> Vec<String> {
        let Ok(template) = self.environment.get_template(template) else { return Vec::new() };
        let builtin: BTreeSet<&str> =
            self.environment.globals().map(|(name, _)| name).chain(["self", "super", "loop"]).collect();
        let mut unknown: Vec<String> = template
            .undeclared_variables(false)
            .into_iter()
            .filter(|name| !known.contains(name.as_str()) && !builtin.contains(name.as_str()))
            .collect();
        unknown.sort_unstable();
        unknown
    }

    /// Renders a mail in the language asked for, else the default one, else English.
    pub(super) fn render(
        &self,
        kind: MailKind,
        language: &str,
        values: &MailValues<'_>,
    ) -> Result<RenderedMail, TemplateError> {
        let wanted = language.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
        let language = [wanted.as_str(), self.default.as_str(), ENGLISH]
            .into_iter()
            .find(|language| self.has(language, kind, Part::Text))
            .unwrap_or(ENGLISH);
        Ok(RenderedMail {
            subject: one_line(&self.render_part(kind, language, Part::Subject, values)?),
            text: self.render_part(kind, language, Part::Text, values)?.trim().to_owned() + "\n",
            html: self.render_part(kind, language, Part::Html, values)?,
        })
    }

    fn render_part(
        &self,
        kind: MailKind,
        language: &str,
        part: Part,
        values: &MailValues<'_>,
    ) -> Result<String, TemplateError> {
        let template = name(language, kind, part);
        let context = context(kind, language, part, values)?;
        match self.environment.get_template(&template) {
            Ok(found) => found
                .render(context)
                .map_err(|source| TemplateError::Render { template, source: source.into() }),
            Err(error) if error.kind() == minijinja::ErrorKind::TemplateNotFound => {
                Err(TemplateError::NoTemplate { template })
            }
            Err(source) => Err(TemplateError::Render { template, source: source.into() }),
        }
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Texts").field("default", &self.default).finish_non_exhaustive()
    }
}

fn context(
    kind: MailKind,
    language: &str,
    part: Part,
    values: &MailValues<'_>,
) -> Result<BTreeMap<&'static str, Value>, TemplateError> {
    let needed = |value: Option<&'_ str>, name| {
        value.map(str::to_owned).ok_or(TemplateError::MissingValue { kind, value: name })
    };
    let secret = match Carries::of(kind) {
        Carries::Nothing => None,
        Carries::Code => Some(needed(values.code, "code")?),
        Carries::Link => Some(needed(values.link, "link")?),
    };
    let seconds = whole_seconds(values.ttl);
    let value_of = |variable: &str| match variable {
        "language" => Value::from(language),
        "service_name" => Value::from(values.service_name),
        "public_url" => Value::from(values.public_url),
        "email" => Value::from(values.email),
        "username" => Value::from(values.username.filter(|name| !looks_like_a_link(name))),
        "code" | "link" => Value::from(secret.as_deref()),
        "code_spaced" => Value::from(secret.as_deref().map(spaced)),
        "ttl" => Value::from(in_words(values.ttl, language)),
        "ttl_minutes" => Value::from(seconds / 60),
        "ttl_seconds" => Value::from(seconds),
        _ => Value::UNDEFINED,
    };
    Ok(variables(kind, part).into_iter().map(|variable| (variable, value_of(variable))).collect())
}

/// The digits in two groups, easier to read aloud: `123 456`.
fn spaced(code: &str) -> String {
    let first = code.chars().count().div_ceil(2);
    let (head, tail): (Vec<_>, Vec<_>) = code.chars().enumerate().partition(|(at, _)| *at < first);
    let text = |part: Vec<(usize, char)>| part.into_iter().map(|(_, digit)| digit).collect::<String>();
    format!("{} {}", text(head), text(tail)).trim().to_owned()
}

/// Whether mail software would make a link of the name, or of a part of it. Anybody can register anybody's address
/// under any name, and a greeting must not carry an advertisement: such a name is left out of mails.
fn looks_like_a_link(name: &str) -> bool {
    let is_domain = |word: &str| {
        word.match_indices('.').any(|(at, _)| {
            let before = word[..at].chars().next_back().is_some_and(char::is_alphanumeric);
            let after = word[at + 1..].chars().take_while(|c| c.is_alphanumeric()).count() >= 2;
            before && after
        })
    };
    name.contains("://") || name.contains('@') || name.split_whitespace().any(is_domain)
}

/// The text on one line, whatever a service's name or a template holds.
fn one_line(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Writes a value into a text; into HTML with the five characters escaped that matter in an element and in a quoted
/// attribute. The engine's own escaping takes the slash too, and a link should stand in the source as it is.
fn write_value(
    out: &mut minijinja::Output<'_>,
    state: &minijinja::State<'_, '_>,
    value: &Value,
) -> Result<(), minijinja::Error> {
    let Some(text) = value.as_str().filter(|_| state.auto_escape() == AutoEscape::Html && !value.is_safe())
    else {
        return minijinja::escape_formatter(out, state, value);
    };
    let mut rest = text;
    while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
        let (plain, special) = rest.split_at(at);
        let escaped = match special.as_bytes().first() {
            Some(b'&') => "&amp;",
            Some(b'<') => "&lt;",
            Some(b'>') => "&gt;",
            Some(b'"') => "&quot;",
            _ => "&#39;",
        };
        out.write_str(plain)?;
        out.write_str(escaped)?;
        rest = special.get(1..).unwrap_or_default();
    }
    out.write_str(rest).map_err(minijinja::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_become_a_link_is_told_from_a_name() {
        for link in [
            "https://evil.example",
            "evil.example",
            "win at evil.com now",
            "a@b.c",
            "www.evil.org/x",
            "x.co.",
        ] {
            assert!(looks_like_a_link(link), "{link}");
        }
        for name in
            ["Ana", "J.R.R. Tolkien", "Ana María", "{{7*7}}", "<b>Ana</b>", "Dr. No", "...", "José.", "3.5"]
        {
            assert!(!looks_like_a_link(name), "{name}");
        }
    }

    #[test]
    fn digits_stand_in_two_groups() {
        assert_eq!(spaced("123456"), "123 456");
        assert_eq!(spaced("12345"), "123 45");
        assert_eq!(spaced(""), "");
    }

    #[test]
    fn a_subject_cannot_break_its_line() {
        assert_eq!(one_line("a\r\nBcc: b\u{b}c  d "), "a Bcc: b c d");
    }
}
