//! A mail to send, and TLS for the sink.
#![allow(dead_code, reason = "each test file uses its own part of this")]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

pub(crate) mod scripted;

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::macros::datetime;
use tokio_rustls::TlsAcceptor;
use usermgr_core::domain::id::OutboxId;
use usermgr_core::port::mailer::Mail;
use usermgr_smtp::testing::{SmtpStream, TlsUpgrade};
use usermgr_smtp::{PlaintextPolicy, Sender, Smtp, SmtpBuilder};

pub(crate) const ID: &str = "018f0000-0000-7000-8000-00000000000a";
pub(crate) const SOON: Duration = Duration::from_secs(5);
pub(crate) const PASSWORD: &str = "s3cret-Pa55";

pub(crate) fn sender() -> Sender {
    Sender::parse("Example <noreply@example.org>").unwrap()
}

pub(crate) fn mail_to(address: &str) -> Mail {
    Mail {
        id: ID.parse::<OutboxId>().unwrap(),
        to: address.parse().unwrap(),
        subject: "Your verification code".to_owned(),
        text: "Hello Ana,\n\n123456\n\nhttps://example.org/reset-password#token=ab-C_d9\n".to_owned(),
        html: "<p>Hello <b>Ana</b></p>\n<p>123456</p>\n".to_owned(),
        date: datetime!(2026-01-02 03:04:05.678 UTC),
    }
}

pub(crate) fn mail() -> Mail {
    mail_to("ana@example.net")
}

pub(crate) fn smtp(url: &str) -> Smtp {
    Smtp::from_url(url, sender(), PlaintextPolicy::LoopbackOnly).unwrap()
}

pub(crate) fn builder(url: &str) -> SmtpBuilder {
    Smtp::builder(url, sender()).unwrap()
}

/// An authority of its own with one certificate: the authority's PEM, and the server's side.
pub(crate) struct Authority {
    pub(crate) pem: String,
    pub(crate) upgrade: TlsUpgrade,
}

impl Authority {
    pub(crate) fn for_host(host: &str) -> Self {
        Self::with(host, |_| {})
    }

    pub(crate) fn with(host: &str, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut leaf = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        change(&mut leaf);
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let upgrade: TlsUpgrade = Arc::new(move |stream| {
            let acceptor = acceptor.clone();
            Box::pin(async move { Ok(Box::new(acceptor.accept(stream).await?) as Box<dyn SmtpStream>) })
        });
        Self { pem, upgrade }
    }
}
