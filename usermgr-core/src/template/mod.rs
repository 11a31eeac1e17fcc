//! The texts of mails: the built-in ones, a folder that replaces some of them, and the trait that replaces them all.
//!
//! A mail has three parts: a subject, a plain text and the same as HTML. Values are put in as they are: what looks
//! like a template in a user's name arrives as text, and in HTML every value is escaped.

mod built_in;
mod folder;
mod sample;
mod texts;
mod words;

use std::fmt;
use std::io;

use time::Duration;

use crate::domain::mail::MailKind;

pub use built_in::BuiltInTemplates;
pub use folder::FolderTemplates;
pub use sample::SampleMail;

/// Writes mails.
///
/// ```
/// use usermgr_core::domain::mail::MailKind;
/// use usermgr_core::domain::user::Locale;
/// use usermgr_core::template::{BuiltInTemplates, MailTemplates, MailValues, RenderedMail, TemplateError};
///
/// /// Short subjects, and the rest as it is.
/// #[derive(Debug)]
/// struct Short(BuiltInTemplates);
///
/// impl MailTemplates for Short {
///     fn render(
///         &self,
///         kind: MailKind,
///         language: &str,
///         values: &MailValues<'_>,
///     ) -> Result<RenderedMail, TemplateError> {
///         let mail = self.0.render(kind, language, values)?;
///         Ok(RenderedMail { subject: values.service_name.to_owned(), ..mail })
///     }
/// }
///
/// let templates = Short(BuiltInTemplates::new(&Locale::english()));
/// ```
pub trait MailTemplates: Send + Sync + fmt::Debug {
    /// Writes the mail of this kind in this language, or in another one if this one is not known. The same values
    /// always give the same texts: a mail that is sent again is the same mail.
    ///
    /// # Errors
    /// [`TemplateError`] when there is no such text or it needs a value that is not there. The mail is then given up.
    fn render(
        &self,
        kind: MailKind,
        language: &str,
        values: &MailValues<'_>,
    ) -> Result<RenderedMail, TemplateError>;
}

/// What a mail tells.
///
/// # Security
/// It holds a live code or link: `Debug` shows neither them nor the receiver.
#[derive(Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "who tests templates makes values")]
pub struct MailValues<'a> {
    /// The service's name.
    pub service_name: &'a str,
    /// Where the service is, without a slash at the end.
    pub public_url: &'a str,
    /// The receiver's address.
    pub email: &'a str,
    /// The receiver's display name, which anybody may have typed.
    pub username: Option<&'a str>,
    /// The code, if the mail carries one.
    pub code: Option<&'a str>,
    /// The link, if the mail carries one.
    pub link: Option<&'a str>,
    /// How long the code or link lives.
    pub ttl: Duration,
}

/// A mail's texts.
///
/// # Security
/// They may carry a live code or link: `Debug` shows nothing of them.
#[derive(Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "templates of a host make it")]
pub struct RenderedMail {
    /// The subject: one line, with nothing in it that a user wrote.
    pub subject: String,
    /// The plain text; a code or a link stands alone on its line.
    pub text: String,
    /// The same as HTML.
    pub html: String,
}

/// Why a mail could not be written, or why a folder of templates cannot be used. Shown, it is one line without any
/// value of a mail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// There is no such text, in no language.
    #[error("there is no template {template}")]
    NoTemplate {
        /// The template.
        template: String,
    },
    /// The mail needs a value that was not given.
    #[error("a mail of the kind {kind} needs a {value}")]
    MissingValue {
        /// Which mail.
        kind: MailKind,
        /// The value.
        value: &'static str,
    },
    /// A text could not be rendered.
    #[error("the template {template} cannot be rendered")]
    Render {
        /// The template.
        template: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of a folder cannot be read.
    #[error("{file}: it cannot be read: {source}")]
    Unreadable {
        /// The file, relative to the folder.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A file of a folder is no template.
    #[error(
        "{file}: no template has this name; a folder holds layout.html and, for each language, such as en or es, \
         LANGUAGE/KIND.subject.txt, LANGUAGE/KIND.txt and LANGUAGE/KIND.html; the kinds are {}",
        kinds()
    )]
    UnknownFile {
        /// The file, relative to the folder.
        file: String,
    },
    /// A template of a folder does not parse, or fails with sample values.
    #[error("{file}: {source}")]
    Faulty {
        /// The file, relative to the folder.
        file: String,
        /// What is wrong, and where.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A template of a folder uses a variable that it does not get.
    #[error("{file}: the variable {variable} is not known here; it takes {takes}")]
    UnknownVariable {
        /// The file, relative to the folder.
        file: String,
        /// The variable.
        variable: String,
        /// The variables it may use.
        takes: String,
    },
    /// A template of a folder leaves out what the mail is for.
    #[error("{file}: it has to show {{{{ {value} }}}}")]
    NotShown {
        /// The file, relative to the folder.
        file: String,
        /// What it has to show.
        value: &'static str,
    },
    /// A template of a folder comes out empty.
    #[error("{file}: it is empty")]
    Empty {
        /// The file, relative to the folder.
        file: String,
    },
    /// A mail in a language that is not built in lacks one of its three parts.
    #[error("{file}: it is missing; in a language that is not built in, a mail needs subject, text and HTML")]
    Incomplete {
        /// The file, relative to the folder.
        file: String,
    },
}

fn kinds() -> String {
    MailKind::ALL.map(MailKind::as_str).join(", ")
}

impl fmt::Debug for MailValues<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailValues").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl fmt::Debug for RenderedMail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenderedMail").finish_non_exhaustive()
    }
}
