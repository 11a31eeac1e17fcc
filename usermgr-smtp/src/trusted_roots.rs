//! The authorities whose certificates are believed.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// The certificate authorities that outgoing TLS trusts: Mozilla's, which are built in, and those added here.
///
/// One value serves every transport: [`SmtpBuilder::trusted_roots`](crate::SmtpBuilder::trusted_roots),
/// [`HttpApi::with_trusted_roots`](crate::HttpApi::with_trusted_roots),
/// [`Webhook::with_trusted_roots`](crate::Webhook::with_trusted_roots) and
/// [`from_url_trusting`](crate::from_url_trusting).
///
/// # Security
/// An authority that is added can vouch for any host. Neither the certificates of the operating system nor
/// `SSL_CERT_FILE` are read.
///
/// ```
/// use usermgr_smtp::TrustedRoots;
///
/// # let key = rcgen::KeyPair::generate()?;
/// # let pem = rcgen::CertificateParams::new(Vec::new())?.self_signed(&key)?.pem();
/// // let pem = std::fs::read("/etc/ssl/private-ca.pem")?;
/// let roots = TrustedRoots::default().with_pem(pem.as_bytes())?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TrustedRoots {
    store: RootCertStore,
}

/// A text from which no authorities can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRoots {
    /// There is no `BEGIN CERTIFICATE` in it.
    #[error("it holds no certificate in PEM")]
    NoCertificate,
    /// A certificate is cut off, or is no base64.
    #[error("its PEM cannot be read after certificate {after}")]
    Malformed {
        /// The number of certificates before it.
        after: usize,
    },
    /// What is in a PEM block is no certificate.
    #[error("certificate {number} cannot be read")]
    NotACertificate {
        /// Its number; the first is 1.
        number: usize,
    },
}

impl TrustedRoots {
    /// Adds the certificates in a PEM text, one or more.
    ///
    /// # Errors
    /// [`InvalidRoots`] when there is none, or when any of them cannot be read.
    pub fn with_pem(mut self, pem: &[u8]) -> Result<Self, InvalidRoots> {
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| InvalidRoots::Malformed { after: count })?;
            count += 1;
            self.store.add(certificate).map_err(|_| InvalidRoots::NotACertificate { number: count })?;
        }
        if count == 0 { Err(InvalidRoots::NoCertificate) } else { Ok(self) }
    }

    /// The client's side of TLS, for a program that speaks TLS to others itself.
    ///
    /// # Errors
    /// [`rustls::Error`] when the cryptography of this build knows no version of TLS.
    pub fn client_config(&self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(versions.with_root_certificates(self.store.clone()).with_no_client_auth())
    }
}

impl Default for TrustedRoots {
    /// Mozilla's authorities alone.
    fn default() -> Self {
        Self { store: webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect() }
    }
}

impl fmt::Debug for TrustedRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let added = self.store.len().saturating_sub(webpki_roots::TLS_SERVER_ROOTS.len());
        f.debug_struct("TrustedRoots").field("added", &added).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn every_certificate_of_a_text_is_added() {
        let (one, two) = (authority(), authority());
        let roots = TrustedRoots::default().with_pem(format!("Our CA\n{one}\r\n\n{two}").as_bytes()).unwrap();
        assert_eq!(format!("{roots:?}"), "TrustedRoots { added: 2, .. }");
    }

    #[test]
    fn a_text_without_certificates_is_refused() {
        let good = authority();
        let (start, key) = (good[..good.len() / 2].to_owned(), rcgen::KeyPair::generate().unwrap());
        let empty_block = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (pem, error) in [
            (String::new(), InvalidRoots::NoCertificate),
            ("nothing".to_owned(), InvalidRoots::NoCertificate),
            (key.serialize_pem(), InvalidRoots::NoCertificate),
            (start.clone(), InvalidRoots::Malformed { after: 0 }),
            (format!("{good}{start}"), InvalidRoots::Malformed { after: 1 }),
            (empty_block.to_owned(), InvalidRoots::NotACertificate { number: 1 }),
            (format!("{good}{empty_block}"), InvalidRoots::NotACertificate { number: 2 }),
        ] {
            assert_eq!(TrustedRoots::default().with_pem(pem.as_bytes()).unwrap_err(), error, "{pem}");
        }
    }
}
