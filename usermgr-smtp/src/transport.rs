//! From a URL to a transport.

use std::sync::Arc;

use usermgr_core::port::mailer::Mailer;

use crate::console::Console;
use crate::folder::Folder;
use crate::mail_url::{self, MailUrlError, PlaintextPolicy};
use crate::sender::Sender;

/// The transport that a URL names.
///
/// | URL | transport |
/// |---|---|
/// | `console:` | [`Console`] |
/// | `file:///folder` | [`Folder`] |
/// | `smtp://user:password@host:587?tls=required` | `Smtp`, see its `from_url` |
/// | `smtps://user:password@host:465` | `Smtp` with TLS from the first byte |
/// | `https://:token@host/path`, `http://…` | `HttpApi` |
///
/// # Errors
/// [`MailUrlError`], which never shows any part of the URL.
///
/// ```
/// use usermgr_smtp::{PlaintextPolicy, Sender, from_url};
///
/// let sender = Sender::parse("Example <noreply@example.org>")?;
/// let mailer = from_url("console:", sender, PlaintextPolicy::LoopbackOnly)?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn from_url(
    url: &str,
    sender: Sender,
    plaintext: PlaintextPolicy,
) -> Result<Arc<dyn Mailer>, MailUrlError> {
    let parsed = mail_url::parse(url)?;
    match parsed.scheme() {
        "console" => match url.split_once(':') {
            Some((_, "")) => Ok(Arc::new(Console::new(sender))),
            _ => Err(MailUrlError::Superfluous),
        },
        "file" => {
            // The URL standard reads `file:mails` as `/mails`, which nobody means.
            let absolute = url.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("file:///"));
            if parsed.query().is_some() || parsed.fragment().is_some() {
                return Err(MailUrlError::Superfluous);
            }
            let path = parsed.to_file_path().map_err(|()| MailUrlError::NotAnAbsolutePath)?;
            if !absolute || path.parent().is_none() {
                return Err(MailUrlError::NotAnAbsolutePath);
            }
            Ok(Arc::new(Folder::new(path, sender)))
        }
        "smtp" | "smtps" => smtp(url, sender, plaintext),
        "http" | "https" => http_api(url, sender, plaintext),
        _ => Err(MailUrlError::UnknownScheme),
    }
}

#[cfg(feature = "smtp")]
fn smtp(url: &str, sender: Sender, plaintext: PlaintextPolicy) -> Result<Arc<dyn Mailer>, MailUrlError> {
    Ok(Arc::new(crate::smtp::Smtp::from_url(url, sender, plaintext)?))
}

#[cfg(not(feature = "smtp"))]
fn smtp(_: &str, _: Sender, _: PlaintextPolicy) -> Result<Arc<dyn Mailer>, MailUrlError> {
    Err(MailUrlError::FeatureOff { scheme: "smtp", feature: "smtp" })
}

#[cfg(feature = "http-api")]
fn http_api(url: &str, sender: Sender, plaintext: PlaintextPolicy) -> Result<Arc<dyn Mailer>, MailUrlError> {
    Ok(Arc::new(crate::http_api::HttpApi::from_url(url, sender, plaintext)?))
}

#[cfg(not(feature = "http-api"))]
fn http_api(_: &str, _: Sender, _: PlaintextPolicy) -> Result<Arc<dyn Mailer>, MailUrlError> {
    Err(MailUrlError::FeatureOff { scheme: "http", feature: "http-api" })
}
