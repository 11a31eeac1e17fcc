//! Servers whose certificates a private authority signed.
#![cfg(all(feature = "smtp", feature = "http-api"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use support::{Authority, mail, sender};
use tokio::net::{TcpListener, TcpStream};
use usermgr_core::domain::event::{Event, EventKind, EventPosition};
use usermgr_core::port::clock::SystemClock;
use usermgr_core::port::events::EventPublisher as _;
use usermgr_core::port::mailer::Mailer as _;
use usermgr_smtp::testing::{HttpSink, SmtpSink, TlsUpgrade};
use usermgr_smtp::{HttpApi, PlaintextPolicy, Smtp, TrustedRoots, Webhook, from_url, from_url_trusting};

const POLICY: PlaintextPolicy = PlaintextPolicy::LoopbackOnly;

/// The port of a server that speaks TLS in front of another.
async fn tls_in_front_of(target: SocketAddr, upgrade: TlsUpgrade) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let upgrade = Arc::clone(&upgrade);
            tokio::spawn(async move {
                let mut outside = upgrade(stream).await?;
                let mut inside = TcpStream::connect(target).await?;
                tokio::io::copy_bidirectional(&mut outside, &mut inside).await
            });
        }
    });
    port
}

fn trusting(authorities: &[&Authority]) -> TrustedRoots {
    let pem: String = authorities.iter().map(|authority| authority.pem.as_str()).collect();
    TrustedRoots::default().with_pem(pem.as_bytes()).unwrap()
}

fn event() -> Event {
    Event {
        id: support::ID.parse().unwrap(),
        position: EventPosition::START,
        at: mail().date,
        kind: EventKind::UserRegistered,
        user_id: support::ID.parse().unwrap(),
        session_id: None,
    }
}

#[tokio::test]
async fn smtp_trusts_an_added_authority_and_no_other() {
    let (ours, other) = (Authority::for_host("localhost"), Authority::for_host("localhost"));
    for scheme in ["smtps", "smtp"] {
        let sink = SmtpSink::builder();
        let sink = match scheme {
            "smtps" => sink.implicit_tls(ours.upgrade.clone()),
            _ => sink.starttls(ours.upgrade.clone()),
        };
        let sink = sink.start().await.unwrap();
        let url = format!("{scheme}://localhost:{}", sink.address().port());
        let plain = from_url(&url, sender(), POLICY).unwrap();
        let strange = from_url_trusting(&url, sender(), POLICY, &trusting(&[&other])).unwrap();
        for mailer in [plain, strange] {
            let error = mailer.send(&mail()).await.unwrap_err();
            assert!(error.is_transient() && error.to_string().contains("certificate"), "{error}");
        }
        assert!(sink.mails().is_empty());
        let roots = trusting(&[&other, &ours]);
        from_url_trusting(&url, sender(), POLICY, &roots).unwrap().send(&mail()).await.unwrap();
        let smtp = Smtp::builder(&url, sender()).unwrap().trusted_roots(roots).build().unwrap();
        smtp.send(&mail()).await.unwrap();
        assert_eq!(sink.mails().len(), 2);
    }
}

#[tokio::test]
async fn a_mail_api_trusts_an_added_authority_and_no_other() {
    let (ours, other) = (Authority::for_host("localhost"), Authority::for_host("localhost"));
    let sink = HttpSink::start().await.unwrap();
    let url = format!("https://localhost:{}/", tls_in_front_of(sink.address(), ours.upgrade.clone()).await);
    let plain = from_url(&url, sender(), POLICY).unwrap();
    let strange = from_url_trusting(&url, sender(), POLICY, &trusting(&[&other])).unwrap();
    for mailer in [plain, strange] {
        assert!(mailer.send(&mail()).await.unwrap_err().is_transient());
    }
    assert!(sink.requests().is_empty());
    let roots = trusting(&[&other, &ours]);
    from_url_trusting(&url, sender(), POLICY, &roots).unwrap().send(&mail()).await.unwrap();
    let api = HttpApi::from_url(&url, sender(), POLICY).unwrap().with_trusted_roots(&roots).unwrap();
    api.send(&mail()).await.unwrap();
    assert_eq!(sink.requests().len(), 2);
}

#[tokio::test]
async fn a_webhook_trusts_an_added_authority_and_no_other() {
    let (ours, other) = (Authority::for_host("localhost"), Authority::for_host("localhost"));
    let sink = HttpSink::start().await.unwrap();
    let url = format!("https://localhost:{}/", tls_in_front_of(sink.address(), ours.upgrade.clone()).await);
    let webhook = || {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        Webhook::new(&url, vec![secret], POLICY, Arc::new(SystemClock)).unwrap()
    };
    let event = event();
    assert!(webhook().publish(&event).await.is_err());
    assert!(webhook().with_trusted_roots(&trusting(&[&other])).unwrap().publish(&event).await.is_err());
    assert!(sink.requests().is_empty());
    let trusted = webhook().with_trusted_roots(&trusting(&[&other, &ours])).unwrap();
    trusted.publish(&event).await.unwrap();
    assert_eq!(sink.requests().len(), 1);
}
