//! The mail API: what is sent, and what each answer means.
#![cfg(feature = "http-api")]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::time::{Duration, Instant};

use support::{Authority, ID, PASSWORD, SOON, mail, sender};
use usermgr_core::port::mailer::Mailer as _;
use usermgr_smtp::testing::{HttpSink, SmtpSink};
use usermgr_smtp::{HttpApi, PlaintextPolicy};

fn api(url: &str) -> HttpApi {
    HttpApi::from_url(url, sender(), PlaintextPolicy::LoopbackOnly).unwrap()
}

#[tokio::test]
async fn a_mail_is_one_post_with_a_key() {
    let sink = HttpSink::start().await.unwrap();
    let url = format!("http://:{PASSWORD}%2B%3D@{}/v1/mails?region=eu", sink.address());
    api(&url).send(&mail()).await.unwrap();
    let requests = sink.requests();
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/mails?region=eu"));
    assert_eq!(request.header("Idempotency-Key"), Some(ID));
    assert_eq!(request.header("Content-Type"), Some("application/json"));
    assert_eq!(request.header("Authorization"), Some(format!("Bearer {PASSWORD}+=").as_str()));
    let mail = mail();
    let expected = serde_json::json!({
        "id": ID,
        "to": "ana@example.net",
        "from": "Example <noreply@example.org>",
        "subject": mail.subject,
        "text": mail.text,
        "html": mail.html,
    });
    assert_eq!(request.json(), Some(expected));
}

#[tokio::test]
async fn without_credentials_there_is_no_authorization_and_a_user_name_is_a_token_too() {
    let sink = HttpSink::start().await.unwrap();
    api(&sink.url()).send(&mail()).await.unwrap();
    assert_eq!(sink.requests()[0].header("Authorization"), None);
    api(&format!("http://tok-1@{}/", sink.address())).send(&mail()).await.unwrap();
    assert_eq!(sink.requests()[1].header("Authorization"), Some("Bearer tok-1"));
}

#[tokio::test]
async fn every_attempt_is_the_same_bytes() {
    let sink = HttpSink::start().await.unwrap();
    sink.answer(500, "broken");
    assert!(api(&sink.url()).send(&mail()).await.unwrap_err().is_transient());
    sink.recover();
    api(&sink.url()).send(&mail()).await.unwrap();
    let requests = sink.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1]);
}

#[tokio::test]
async fn any_2xx_with_any_body_is_sent() {
    let sink = HttpSink::start().await.unwrap();
    let api = api(&sink.url());
    for (status, body) in [
        (200, b"{\"id\":\"x\"}".to_vec()),
        (200, Vec::new()),
        (201, b"not json \xff\0".to_vec()),
        (202, Vec::new()),
        (202, vec![b'x'; 4 << 20]),
        (204, Vec::new()),
    ] {
        sink.answer(status, body);
        api.send(&mail()).await.unwrap();
    }
    sink.answer(202, "{");
    sink.stall_body();
    let begun = Instant::now();
    api.send(&mail()).await.unwrap();
    assert!(begun.elapsed() < SOON);
    assert_eq!(sink.requests().len(), 7);
}

#[tokio::test]
async fn other_answers_are_transient_or_permanent() {
    let sink = HttpSink::start().await.unwrap();
    let api = api(&sink.url());
    for (status, permanent) in [
        (400, true),
        (422, true),
        (401, false),
        (403, false),
        (404, false),
        (408, false),
        (425, false),
        (429, false),
        (500, false),
        (503, false),
    ] {
        sink.answer(status, "ana@example.net 123456");
        let error = api.send(&mail()).await.unwrap_err();
        assert_eq!(error.is_permanent(), permanent, "{error}");
        assert_eq!(error.to_string(), format!("the mail API answered {status}"));
        assert!(!format!("{error:?}").contains("ana@"), "{error:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (sink, other) = (HttpSink::start().await.unwrap(), HttpSink::start().await.unwrap());
    sink.redirect(&other.url());
    let error = api(&sink.url()).send(&mail()).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(sink.requests().len(), 1);
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn a_service_that_is_silent_or_away_is_transient() {
    let sink = HttpSink::start().await.unwrap();
    sink.delay(Duration::from_mins(1));
    let begun = Instant::now();
    let error = api(&sink.url()).with_timeout(Duration::from_millis(100)).send(&mail()).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(error.to_string(), "the mail API timed out");
    assert!(begun.elapsed() < SOON);

    let url = sink.url();
    drop(sink);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = api(&url).send(&mail()).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(error.to_string(), "the mail API cannot be reached");
}

#[tokio::test]
async fn a_certificate_of_nobody_is_refused() {
    let authority = Authority::for_host("localhost");
    // Any TLS server does: the handshake fails before a protocol is spoken.
    let sink = SmtpSink::builder().implicit_tls(authority.upgrade).start().await.unwrap();
    let url = format!("https://:{PASSWORD}@localhost:{}/mails", sink.address().port());
    let error = api(&url).send(&mail()).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let all = format!("{error:?}");
    assert!(all.contains("certificate") || all.contains("UnknownIssuer"), "{all}");
    assert!(sink.commands().is_empty(), "{:?}", sink.commands());
    assert!(!all.contains(PASSWORD), "{all}");
}

#[tokio::test]
async fn nothing_shows_the_token_or_the_path() {
    let api = api(&format!("https://ana:{PASSWORD}@api.example/hook/{PASSWORD}?key={PASSWORD}"));
    let shown = format!("{api:?}");
    assert!(!shown.contains(PASSWORD), "{shown}");
    assert!(shown.contains("https://api.example"), "{shown}");
}
