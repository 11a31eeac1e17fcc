//! A folder whose texts replace built-in ones.

use std::path::Path;

use super::{MailTemplates, MailValues, RenderedMail, TemplateError};
use crate::domain::mail::MailKind;

/// Texts of a folder, and the built-in ones where it has none.
#[derive(Debug, Clone)]
pub struct FolderTemplates {
}

impl FolderTemplates {
    /// Reads a folder.
    ///
    /// # Errors
    /// [`TemplateError`] names the file and what is wrong with it.
    pub fn load(dir: &Path) -> Result<Self, TemplateError> {
        let _ = dir;
        Err(TemplateError::Unfinished)
    }
}

impl MailTemplates for FolderTemplates {
    fn render(&self, _: MailKind, _: &str, _: &MailValues<'_>) -> Result<RenderedMail, TemplateError> {
        Err(TemplateError::Unfinished)
    }
}
