//! SMTP: what fails, how it fails, and what is never said in clear.
#![cfg(feature = "smtp")]

mod support;

use std::time::{Duration, Instant};

use support::{Authority, PASSWORD, SOON, builder, mail, mail_to, sender, smtp};
use usermgr_core::port::mailer::Mailer as _;
use usermgr_smtp::testing::SmtpSink;
use usermgr_smtp::{MailUrlError, PlaintextPolicy, Smtp};

#[tokio::test]
async fn a_reply_to_the_receiver_or_the_message_decides() {
    let sink = SmtpSink::start().await.unwrap();
    let smtp = smtp(&sink.url());
    for (code, permanent) in
        [(421, false), (450, false), (452, false), (550, true), (553, true), (554, true), (530, false)]
    {
        sink.refuse_rcpt(code);
        let error = smtp.send(&mail()).await.unwrap_err();
        assert_eq!(error.is_permanent(), permanent, "{error}");
        assert!(error.to_string().contains(&code.to_string()), "{error}");
        sink.recover();
        sink.fail_data(code);
        let error = smtp.send(&mail()).await.unwrap_err();
        assert_eq!(error.is_permanent(), permanent, "{error}");
        sink.recover();
    }
    assert!(sink.mails().is_empty());
    smtp.send(&mail()).await.unwrap();
    assert_eq!(sink.mails().len(), 1);
}

#[tokio::test]
async fn a_reply_to_anything_else_is_not_the_mails_fault() {
    for command in ["CONNECT", "EHLO", "AUTH", "MAIL", "DATA"] {
        let sink = SmtpSink::builder().auth_plain("ana", PASSWORD).start().await.unwrap();
        let url = format!("smtp://ana:{PASSWORD}@{}?tls=none", sink.address());
        sink.refuse(command, "554 5.3.0 go away <ana@example.net>");
        let error = smtp(&url).send(&mail()).await.unwrap_err();
        assert_eq!(error.is_permanent(), command == "DATA", "{command}: {error}");
        assert!(error.to_string().contains("554"), "{command}: {error}");
        assert!(sink.mails().is_empty());
    }
}

#[tokio::test]
async fn an_error_repeats_nothing_of_the_mail_or_the_server() {
    let sink = SmtpSink::builder().auth_plain("user-x", "other").start().await.unwrap();
    let url = format!("smtp://user-x:{PASSWORD}@{}?tls=none", sink.address());
    let mut errors = vec![smtp(&url).send(&mail()).await.unwrap_err()];
    let sink = SmtpSink::start().await.unwrap();
    sink.refuse("RCPT", "550-5.1.1 <ana@example.net> unknown\r\n550 5.1.1 123456 said the \u{1b}[2J server");
    errors.push(smtp(&sink.url()).send(&mail()).await.unwrap_err());
    assert_eq!(errors[1].to_string(), "the SMTP server refused the receiver: 550 5.1.1");
    for error in errors {
        let all = format!("{error} {error:?}");
        for secret in [PASSWORD, "user-x", "ana@", "unknown", "123456", "Hello", "\u{1b}"] {
            assert!(!all.contains(secret), "{all}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_transient() {
    let sink = SmtpSink::start().await.unwrap();
    let url = sink.url();
    drop(sink);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = smtp(&url).send(&mail()).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(error.to_string(), "SMTP failed at the connection: connection refused");
    let error = smtp("smtp://nowhere.invalid:587").send(&mail()).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_server_that_is_silent_is_transient_and_soon() {
    let sink = SmtpSink::start().await.unwrap();
    let short = Duration::from_millis(100);
    let smtp = builder(&sink.url()).connect_timeout(short).command_timeout(short).build().unwrap();
    smtp.send(&mail()).await.unwrap();
    sink.delay(Duration::from_mins(1));
    let begun = Instant::now();
    let error = smtp.send(&mail()).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("timed out"), "{error}");
    assert!(begun.elapsed() < SOON);
}

#[tokio::test]
async fn a_cancelled_or_late_mail_never_lends_its_connection() {
    let sink = SmtpSink::start().await.unwrap();
    let smtp = smtp(&sink.url());
    smtp.send(&mail()).await.unwrap();
    assert_eq!(sink.connections(), 1);
    sink.delay(Duration::from_millis(200));
    // Cancelled between two replies: on that connection the next reply would answer the wrong command.
    for wait in [100, 300, 500, 700, 900] {
        let cancelled = tokio::time::timeout(Duration::from_millis(wait), smtp.send(&mail())).await;
        assert!(cancelled.is_err(), "{wait}");
    }
    sink.recover();
    let before = sink.connections();
    let other = mail_to("bob@example.net");
    smtp.send(&other).await.unwrap();
    assert_eq!(sink.connections(), before + 1);
    let got = sink.mails().into_iter().filter(|mail| mail.to == ["bob@example.net"]).count();
    assert_eq!(got, 1);
}

#[tokio::test]
async fn a_connection_is_used_again_and_a_broken_one_replaced() {
    let sink = SmtpSink::start().await.unwrap();
    let smtp = smtp(&sink.url());
    for _ in 0..3 {
        smtp.send(&mail()).await.unwrap();
    }
    assert_eq!(sink.connections(), 1);
    sink.drop_after_data();
    assert!(smtp.send(&mail()).await.unwrap_err().is_transient());
    sink.recover();
    smtp.send(&mail()).await.unwrap();
    assert_eq!(sink.connections(), 2);
    // Taken although the reply was lost: the Message-ID tells that the next one is the same mail.
    let ids: Vec<_> = sink.mails().iter().map(|mail| mail.header("Message-ID")).collect();
    assert_eq!(ids.len(), 5);
    assert!(ids.windows(2).all(|two| two[0] == two[1]));
}

#[tokio::test]
async fn without_starttls_nothing_is_sent() {
    let sink = SmtpSink::builder().auth_plain("ana", PASSWORD).start().await.unwrap();
    for query in ["", "?tls=required"] {
        let url = format!("smtp://ana:{PASSWORD}@{}{query}", sink.address());
        let error = smtp(&url).send(&mail()).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(error.to_string().contains("STARTTLS"), "{error}");
    }
    assert!(sink.commands().iter().all(|line| line.starts_with("EHLO")), "{:?}", sink.commands());
}

#[tokio::test]
async fn opportunistic_means_mail_but_no_password_in_clear() {
    let sink = SmtpSink::builder().auth_plain("ana", PASSWORD).start().await.unwrap();
    let url = format!("smtp://ana:{PASSWORD}@{}?tls=opportunistic", sink.address());
    assert!(smtp(&url).send(&mail()).await.unwrap_err().is_transient());
    assert!(!sink.commands().iter().any(|line| line.starts_with("AUTH")), "{:?}", sink.commands());
    let allowed = builder(&url).plaintext(PlaintextPolicy::Allow).build().unwrap();
    allowed.send(&mail()).await.unwrap();

    let sink = SmtpSink::start().await.unwrap();
    smtp(&format!("smtp://{}?tls=opportunistic", sink.address())).send(&mail()).await.unwrap();
    assert_eq!(sink.mails().len(), 1);
}

#[tokio::test]
async fn starttls_and_implicit_tls_carry_mail_and_password() {
    let authority = Authority::for_host("localhost");
    let sink = SmtpSink::builder()
        .starttls(authority.upgrade.clone())
        .auth_plain("ana", "p@ss/w:ö")
        .start()
        .await
        .unwrap();
    let password = "p%40ss%2Fw%3A%C3%B6";
    for tls in ["required", "opportunistic"] {
        let url = format!("smtp://ana:{password}@localhost:{}?tls={tls}", sink.address().port());
        let smtp =
            builder(&url).with_root_certificate_pem(authority.pem.as_bytes()).unwrap().build().unwrap();
        smtp.send(&mail()).await.unwrap();
    }
    assert_eq!(sink.mails().len(), 2);
    let verbs: Vec<_> = sink.commands().iter().take(4).map(|line| line[..4].to_owned()).collect();
    assert_eq!(verbs, ["EHLO", "STAR", "EHLO", "AUTH"]);

    let sink = SmtpSink::builder().implicit_tls(authority.upgrade.clone()).start().await.unwrap();
    let url = format!("smtps://localhost:{}", sink.address().port());
    let smtp = builder(&url).with_root_certificate_pem(authority.pem.as_bytes()).unwrap().build().unwrap();
    smtp.send(&mail()).await.unwrap();
    assert_eq!(sink.mails().len(), 1);
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_is_refused() {
    let unknown = Authority::for_host("localhost");
    let wrong_host = Authority::for_host("other.example");
    let expired = Authority::with("localhost", |leaf| {
        leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    for (authority, trusted) in [(&unknown, false), (&wrong_host, true), (&expired, true)] {
        for scheme in ["smtps", "smtp"] {
            let sink = SmtpSink::builder().auth_plain("ana", PASSWORD);
            let sink = if scheme == "smtps" {
                sink.implicit_tls(authority.upgrade.clone())
            } else {
                sink.starttls(authority.upgrade.clone())
            };
            let sink = sink.start().await.unwrap();
            for query in if scheme == "smtp" { ["", "?tls=opportunistic"] } else { ["", ""] } {
                let url = format!("{scheme}://ana:{PASSWORD}@localhost:{}{query}", sink.address().port());
                let mut builder = builder(&url);
                if trusted {
                    builder = builder.with_root_certificate_pem(authority.pem.as_bytes()).unwrap();
                }
                let error = builder.build().unwrap().send(&mail()).await.unwrap_err();
                assert!(error.is_transient(), "{error}");
                assert!(error.to_string().contains("certificate"), "{error}");
            }
            let said = sink.commands();
            assert!(
                !said.iter().any(|line| line.starts_with("AUTH") || line.starts_with("MAIL")),
                "{said:?}"
            );
            assert!(sink.mails().is_empty());
        }
    }
}

#[tokio::test]
async fn replies_slipped_in_before_tls_count_for_nothing() {
    let authority = Authority::for_host("localhost");
    let sink = SmtpSink::builder().starttls(authority.upgrade.clone()).start().await.unwrap();
    // Somebody on the way appends replies to the last one in clear: they would be taken for the next ones.
    sink.refuse("STARTTLS", "220 go\r\n250 fake\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken");
    let url = format!("smtp://localhost:{}", sink.address().port());
    let smtp = builder(&url).with_root_certificate_pem(authority.pem.as_bytes()).unwrap().build().unwrap();
    let error = smtp.send(&mail()).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(sink.mails().is_empty());
    assert_eq!(sink.commands().len(), 2, "{:?}", sink.commands());
}

#[tokio::test]
async fn nothing_shows_the_password() {
    let url = format!("smtp://ana-user:{PASSWORD}@localhost:2525");
    let shown = format!("{:?} {:?}", builder(&url), smtp(&url));
    assert!(!shown.contains(PASSWORD) && !shown.contains("ana-user"), "{shown}");
    for url in [
        format!("smtp://ana:{PASSWORD}@mail.example?tls=none"),
        format!("smtp://ana:{PASSWORD}/x@mail.example"),
        format!("smtp://ana:{PASSWORD}?x@mail.example"),
        format!("smtp://ana:{PASSWORD}#x@mail.example"),
        format!("smtp://ana:{PASSWORD}@mail example"),
        format!("ana:{PASSWORD}@mail.example"),
    ] {
        let error = Smtp::from_url(&url, sender(), PlaintextPolicy::LoopbackOnly).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(PASSWORD), "{shown}");
    }
    let error = builder("smtps://localhost").with_root_certificate_pem(b"nothing").unwrap_err();
    assert_eq!(error, MailUrlError::InvalidCertificate);
}

#[test]
fn a_transport_needs_no_runtime_to_be_built_or_dropped() {
    drop(smtp("smtp://localhost"));
}
