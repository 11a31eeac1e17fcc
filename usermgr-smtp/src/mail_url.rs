//! What the URLs of all transports have in common.

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret as _, SecretString};
use url::{Host, Url};

/// Whether mail may travel unencrypted to another host.
///
/// # Security
/// Mails carry live codes and links. Loopback is always allowed, it leaves no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum PlaintextPolicy {
    /// Only to loopback: `localhost`, `127.0.0.0/8`, `::1`.
    #[default]
    LoopbackOnly,
    /// Anywhere: the operator answers for the network in between.
    Allow,
}

/// Why a mail URL is not usable. No message shows any part of the URL: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MailUrlError {
    /// The text is no URL.
    #[error(
        "the mail URL cannot be read (special characters in its user name or password must be percent-encoded)"
    )]
    Unreadable,
    /// The scheme is none of ours.
    #[error("the mail URL must begin with console:, file:///, smtp://, smtps://, http:// or https://")]
    UnknownScheme,
    /// There is no host.
    #[error("the mail URL names no host")]
    NoHost,
    /// `file:` without an absolute path.
    #[error("the mail URL of a folder must be file:/// and an absolute path")]
    NotAnAbsolutePath,
    /// `?tls=` with an unknown value, or one that contradicts `smtps:`.
    #[error("tls in the mail URL must be required, opportunistic or none (smtps: is always encrypted)")]
    UnknownTls,
    /// A path, a parameter or a fragment that this transport has no use for.
    #[error("the mail URL has a part that means nothing to this transport")]
    Superfluous,
    /// The user name or password is not percent-encoded UTF-8 without control characters, or fits no header.
    #[error("the user name or password in the mail URL cannot be used")]
    InvalidCredentials,
    /// Unencrypted to a host that is not loopback.
    #[error("the mail URL sends mail unencrypted to a host that is not loopback, which is not allowed")]
    Plaintext,
    /// A root certificate that is no PEM certificate.
    #[error("the root certificate for mail is not a PEM certificate")]
    InvalidCertificate,
    /// TLS could not be set up.
    #[error("TLS for mail could not be set up")]
    Tls,
    /// The transport is not in this build.
    #[error("this build has no mail transport for {scheme}: URLs (the feature {feature} is off)")]
    FeatureOff {
        /// The scheme.
        scheme: &'static str,
        /// The feature of this crate that has it.
        feature: &'static str,
    },
}

/// Reads the text, without a word about it in the error.
pub(crate) fn parse(text: &str) -> Result<Url, MailUrlError> {
    Url::parse(text).map_err(|_| MailUrlError::Unreadable)
}

/// The host, in the one spelling that is compared and connected to.
#[cfg_attr(
    not(any(feature = "smtp", feature = "http-api")),
    expect(dead_code, reason = "only the transports over the network name a host")
)]
pub(crate) fn host(url: &Url) -> Result<Host, MailUrlError> {
    match url.host() {
        // Schemes the URL standard does not know leave IPv4 addresses and international names as text.
        Some(Host::Domain(name)) => {
            let name = decoded(name).map_err(|_| MailUrlError::Unreadable)?;
            let host = Host::parse(name.expose_secret()).map_err(|_| MailUrlError::Unreadable)?;
            Ok(host)
        }
        Some(host) => Ok(host.to_owned()),
        None => Err(MailUrlError::NoHost),
    }
}

#[cfg_attr(
    not(any(feature = "smtp", feature = "http-api")),
    expect(dead_code, reason = "only the transports over the network ask")
)]
pub(crate) fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Domain(name) => name.eq_ignore_ascii_case("localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

/// The user name and the password, if the URL has any of them.
#[cfg_attr(
    not(any(feature = "smtp", feature = "http-api")),
    expect(dead_code, reason = "only the transports over the network have credentials")
)]
pub(crate) fn credentials(url: &Url) -> Result<Option<(String, Option<SecretString>)>, MailUrlError> {
    let user = decoded(url.username())?.expose_secret().to_owned();
    let password = url.password().map(decoded).transpose()?;
    Ok((!user.is_empty() || password.is_some()).then_some((user, password)))
}

fn decoded(text: &str) -> Result<SecretString, MailUrlError> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| MailUrlError::InvalidCredentials)?;
    if text.chars().any(char::is_control) {
        return Err(MailUrlError::InvalidCredentials);
    }
    Ok(SecretString::from(text.into_owned()))
}
