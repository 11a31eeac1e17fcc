//! From a URL to a transport.
#![cfg(all(feature = "smtp", feature = "http-api"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use support::{PASSWORD, mail, sender};
use usermgr_smtp::testing::{HttpSink, SmtpSink};
use usermgr_smtp::{MailUrlError, PlaintextPolicy, from_url};

fn refused(url: &str) -> MailUrlError {
    from_url(url, sender(), PlaintextPolicy::LoopbackOnly).unwrap_err()
}

#[tokio::test]
async fn each_scheme_is_a_transport() {
    let (smtp, http) = (SmtpSink::start().await.unwrap(), HttpSink::start().await.unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = format!("file://{}/with%20space", folder.path().display());
    let urls = ["console:", &file, &smtp.url(), &http.url()];
    for url in urls {
        let mailer = from_url(url, sender(), PlaintextPolicy::LoopbackOnly).unwrap();
        mailer.send(&mail()).await.unwrap();
    }
    assert_eq!((smtp.mails().len(), http.requests().len()), (1, 1));
    assert_eq!(std::fs::read_dir(folder.path().join("with space")).unwrap().count(), 1);
}

#[test]
fn a_url_that_names_no_transport_is_refused() {
    for (url, error) in [
        ("", MailUrlError::Unreadable),
        ("mail.example", MailUrlError::Unreadable),
        ("memory:", MailUrlError::UnknownScheme),
        ("ftp://mail.example", MailUrlError::UnknownScheme),
        ("console://x", MailUrlError::Superfluous),
        ("file:mails", MailUrlError::NotAnAbsolutePath),
        ("file://host/mails", MailUrlError::NotAnAbsolutePath),
        ("file:///", MailUrlError::NotAnAbsolutePath),
        ("file:///mails?x", MailUrlError::Superfluous),
        ("smtp://mail.example?tls=none", MailUrlError::Plaintext),
        ("http://api.example/", MailUrlError::Plaintext),
    ] {
        assert_eq!(refused(url), error, "{url}");
    }
}

#[test]
fn no_transport_and_no_error_shows_a_password() {
    for url in [
        format!("smtp://ana:{PASSWORD}@mail.example"),
        format!("smtps://ana:{PASSWORD}@mail.example"),
        format!("https://ana:{PASSWORD}@api.example/"),
    ] {
        let mailer = from_url(&url, sender(), PlaintextPolicy::LoopbackOnly).unwrap();
        assert!(!format!("{mailer:?}").contains(PASSWORD));
    }
    for url in [
        format!("http://ana:{PASSWORD}@api.example/"),
        format!("xmtp://ana:{PASSWORD}@mail.example"),
        format!("https://ana:{PASSWORD}/@api.example/"),
        format!("smtp://ana:{PASSWORD}%00@mail.example"),
    ] {
        let error = refused(&url);
        assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error}");
    }
}
