//! The texts of mails: the built-in ones, a folder that replaces some of them, and the trait that replaces them all.

mod built_in;
mod folder;

use std::fmt;

use time::Duration;

use crate::domain::mail::MailKind;

pub use built_in::BuiltInTemplates;
pub use folder::FolderTemplates;

/// Writes mails.
pub trait MailTemplates: Send + Sync + fmt::Debug {
    /// Writes the mail of this kind in this language, or in another one if this one is not known.
    ///
    /// # Errors
    /// [`TemplateError`] when there is no such text or it needs a value that is not there.
    fn render(&self, kind: MailKind, language: &str, values: &MailValues<'_>) -> Result<RenderedMail, TemplateError>;
}

/// What a mail tells.
#[derive(Clone, Copy)]
pub struct MailValues<'a> {
    /// The service's name.
    pub service_name: &'a str,
    /// Where the service is, without a slash at the end.
    pub public_url: &'a str,
    /// The receiver's address.
    pub email: &'a str,
    /// The receiver's display name.
    pub username: Option<&'a str>,
    /// The code, if the mail carries one.
    pub code: Option<&'a str>,
    /// The link, if the mail carries one.
    pub link: Option<&'a str>,
    /// How long the code or link lives.
    pub ttl: Duration,
}

/// A mail's texts.
#[derive(Clone, PartialEq, Eq)]
pub struct RenderedMail {
    /// The subject: one line.
    pub subject: String,
    /// The plain text.
    pub text: String,
    /// The same as HTML.
    pub html: String,
}

/// Why a mail could not be written, or a template not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// TODO
    #[error("unfinished")]
    Unfinished,
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
