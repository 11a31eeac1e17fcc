//! TLS of the server itself, for those without a proxy: certificates and key from files, read again when they change.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use secrecy::{ExposeSecret as _, SecretSlice};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use usermgr_core::worker::Stop;

use crate::config::TlsFiles;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Why a certificate and a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    #[error("http.tls_cert {path}: {source}")]
    Certificates { path: String, source: io::Error },
    #[error("http.tls_cert {0}: it takes certificates in PEM, the server's own first")]
    NoCertificates(String),
    #[error("http.tls_key {path}: {source}")]
    Key { path: String, source: io::Error },
    #[error("http.tls_key {0}: it takes one private key in PEM, without a passphrase")]
    NoKey(String),
    #[error("http.tls_cert and http.tls_key do not go together: {0}")]
    Unfit(#[from] rustls::Error),
}

/// What each new connection agrees upon TLS with. Those that stand keep what they agreed upon.
#[derive(Clone)]
pub(crate) struct Tls(watch::Receiver<Arc<ServerConfig>>);

/// The files as they were read.
struct Read {
    certificates: Vec<u8>,
    key: SecretSlice<u8>,
}

impl Tls {
    /// Reads the files, and goes on looking at them until `stop`. What they hold later and cannot be used is logged, and
    /// what was in force stays.
    pub(crate) fn start(files: &TlsFiles, stop: Stop) -> Result<Self, TlsError> {
        let read = Read::files(files)?;
        let (force, in_force) = watch::channel(Arc::new(read.config(files)?));
        warn_of_others(&files.key);
        tokio::spawn(keep_fresh(files.clone(), read, force, stop));
        Ok(Self(in_force))
    }

    pub(crate) async fn accept<T>(&self, stream: T) -> io::Result<TlsStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let config = Arc::clone(&self.0.borrow());
        TlsAcceptor::from(config).accept(stream).await
    }
}

/// Whether the files can be used.
pub(crate) fn check(files: &TlsFiles) -> Result<(), TlsError> {
    Read::files(files)?.config(files).map(drop)
}

/// How the program asks the server that has these files: it trusts the certificate in the file and no other, whatever name
/// stands in it.
pub(crate) fn to_oneself(files: &TlsFiles) -> Result<ClientConfig, TlsError> {
    let no_certificates = || TlsError::NoCertificates(files.certificates.display().to_string());
    let read = Read::files(files)?;
    let own = CertificateDer::pem_slice_iter(&read.certificates).next();
    let own = own.ok_or_else(no_certificates)?.map_err(|_| no_certificates())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Oneself { own, algorithms }))
        .with_no_client_auth())
}

/// Takes one certificate, byte by byte, and the proof that the other side has its key.
#[derive(Debug)]
struct Oneself {
    own: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Oneself {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.own {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::CertificateError::UnknownIssuer.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

async fn keep_fresh(files: TlsFiles, mut last: Read, force: watch::Sender<Arc<ServerConfig>>, stop: Stop) {
    let mut told = String::new();
    loop {
        tokio::select! {
            () = stop.requested() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let (read_from, before) = (files.clone(), last);
        let looked = tokio::task::spawn_blocking(move || look(&read_from, before)).await;
        let Ok((read, new)) = looked else { return };
        last = read;
        match new {
            None => {}
            Some(Ok(config)) => {
                force.send_replace(Arc::new(config));
                told.clear();
                tracing::info!("new certificates are in force for new connections");
            }
            // Said once: a key that comes a moment after its certificate is no fault, one that never comes is.
            Some(Err(error)) => {
                let error = error.to_string();
                if told != error {
                    tracing::error!(
                        error,
                        "the new certificates cannot be used; the ones before stay in force"
                    );
                    told = error;
                }
            }
        }
    }
}

/// What the files hold now, and what is to be in force if they changed.
fn look(files: &TlsFiles, last: Read) -> (Read, Option<Result<ServerConfig, TlsError>>) {
    match Read::files(files) {
        Ok(read) if read.is_as(&last) => (last, None),
        Ok(read) => match read.config(files) {
            Ok(config) => (read, Some(Ok(config))),
            Err(error) => (last, Some(Err(error))),
        },
        Err(error) => (last, Some(Err(error))),
    }
}

impl Read {
    fn files(files: &TlsFiles) -> Result<Self, TlsError> {
        let TlsFiles { certificates, key } = files;
        let told = |path: &Path| path.display().to_string();
        Ok(Self {
            certificates: std::fs::read(certificates)
                .map_err(|source| TlsError::Certificates { path: told(certificates), source })?,
            key: std::fs::read(key).map_err(|source| TlsError::Key { path: told(key), source })?.into(),
        })
    }

    fn is_as(&self, other: &Self) -> bool {
        self.certificates == other.certificates && self.key.expose_secret() == other.key.expose_secret()
    }

    fn config(&self, files: &TlsFiles) -> Result<ServerConfig, TlsError> {
        let no_certificates = || TlsError::NoCertificates(files.certificates.display().to_string());
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&self.certificates)
            .collect::<Result<_, _>>()
            .map_err(|_| no_certificates())?;
        if certificates.is_empty() {
            return Err(no_certificates());
        }
        let key = PrivateKeyDer::from_pem_slice(self.key.expose_secret())
            .map_err(|_| TlsError::NoKey(files.key.display().to_string()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Warns of a key that everybody on this machine may read.
fn warn_of_others(key: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    if std::fs::metadata(key).is_ok_and(|found| found.permissions().mode() & 0o007 != 0) {
        let path = key.display();
        tracing::warn!(%path, "http.tls_key can be read by every user of this machine: chmod 600");
    }
}
