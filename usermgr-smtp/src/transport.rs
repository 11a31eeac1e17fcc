//! From a URL to a transport.

use std::sync::Arc;

use usermgr_core::port::mailer::Mailer;

use crate::console::Console;
use crate::folder::Folder;
use crate::mail_url::{self, MailUrlError, PlaintextPolicy};
use crate::sender::Sender;
#[cfg(any(feature = "smtp", feature = "http-api"))]
use crate::trusted_roots::TrustedRoots;

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
    transport(url, sender, plaintext, &Roots::default())
}

/// As [`from_url`], for servers whose certificates a private CA signed.
///
/// # Errors
/// [`MailUrlError`], which never shows any part of the URL.
///
/// ```
/// use usermgr_smtp::{PlaintextPolicy, Sender, TrustedRoots, from_url_trusting};
///
/// let sender = Sender::parse("Example <noreply@example.org>")?;
/// let roots = TrustedRoots::default(); // .with_pem(&std::fs::read("/etc/ssl/private-ca.pem")?)?
/// let url = "smtps://app:secret@mail.internal.example";
/// let mailer = from_url_trusting(url, sender, PlaintextPolicy::LoopbackOnly, &roots)?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[cfg(any(feature = "smtp", feature = "http-api"))]
pub fn from_url_trusting(
    url: &str,
    sender: Sender,
    plaintext: PlaintextPolicy,
    roots: &TrustedRoots,
) -> Result<Arc<dyn Mailer>, MailUrlError> {
    transport(url, sender, plaintext, roots)
}

#[cfg(any(feature = "smtp", feature = "http-api"))]
type Roots = TrustedRoots;

/// A build without TLS trusts nobody.
#[cfg(not(any(feature = "smtp", feature = "http-api")))]
type Roots = ();

fn transport(
    url: &str,
    sender: Sender,
    plaintext: PlaintextPolicy,
    roots: &Roots,
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
        "smtp" | "smtps" => smtp(url, sender, plaintext, roots),
        "http" | "https" => http_api(url, sender, plaintext, roots),
        _ => Err(MailUrlError::UnknownScheme),
    }
}

#[cfg(feature = "smtp")]
fn smtp(
    url: &str,
    sender: Sender,
    plaintext: PlaintextPolicy,
    roots: &Roots,
) -> Result<Arc<dyn Mailer>, MailUrlError> {
    let builder = crate::smtp::Smtp::builder(url, sender)?.plaintext(plaintext);
    Ok(Arc::new(builder.trusted_roots(roots.clone()).build()?))
}

#[cfg(not(feature = "smtp"))]
fn smtp(_: &str, _: Sender, _: PlaintextPolicy, _: &Roots) -> Result<Arc<dyn Mailer>, MailUrlError> {
    Err(MailUrlError::FeatureOff { scheme: "smtp", feature: "smtp" })
}

#[cfg(feature = "http-api")]
fn http_api(
    url: &str,
    sender: Sender,
    plaintext: PlaintextPolicy,
    roots: &Roots,
) -> Result<Arc<dyn Mailer>, MailUrlError> {
    let api = crate::http_api::HttpApi::from_url(url, sender, plaintext)?;
    Ok(Arc::new(api.with_trusted_roots(roots)?))
}

#[cfg(not(feature = "http-api"))]
fn http_api(_: &str, _: Sender, _: PlaintextPolicy, _: &Roots) -> Result<Arc<dyn Mailer>, MailUrlError> {
    Err(MailUrlError::FeatureOff { scheme: "http", feature: "http-api" })
}
