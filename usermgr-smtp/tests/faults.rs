//! Everything that can go wrong with the other side, at every point, and what the worker is told of it.
#![cfg(all(feature = "smtp", feature = "http-api"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use support::{PASSWORD, SOON, builder, mail, mail_to, sender, smtp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use usermgr_core::port::mailer::Mailer as _;
use usermgr_smtp::testing::{HttpAnswer, HttpSink, SmtpFault, SmtpSink, SmtpStream, TlsUpgrade, When};
use usermgr_smtp::{HttpApi, PlaintextPolicy, Smtp};

const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_secs(60);

fn api(url: &str) -> HttpApi {
    HttpApi::from_url(url, sender(), PlaintextPolicy::LoopbackOnly).unwrap()
}

/// Gives up on a silent server soon.
fn hasty(url: &str) -> Smtp {
    builder(url).connect_timeout(SHORT).command_timeout(SHORT).message_timeout(SHORT).build().unwrap()
}

#[tokio::test]
async fn a_conversation_that_breaks_anywhere_is_tried_again() {
    for command in ["CONNECT", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "MESSAGE"] {
        let faults =
            [SmtpFault::Break, SmtpFault::BreakWhenDone, SmtpFault::Delay(LONG), SmtpFault::Trickle(SHORT)];
        for fault in faults {
            let sink = SmtpSink::builder().auth_plain("ana", PASSWORD).start().await.unwrap();
            let url = format!("smtp://ana:{PASSWORD}@{}?tls=none", sink.address());
            let smtp = hasty(&url);
            sink.plan(command, fault.clone(), When::always().times(1));
            let begun = Instant::now();
            let error = smtp.send(&mail()).await.unwrap_err();
            assert!(error.is_transient(), "{fault:?} at {command}: {error}");
            assert!(begun.elapsed() < SOON, "{fault:?} at {command}");
            let taken = command == "MESSAGE" && fault != SmtpFault::Break;
            assert_eq!(sink.mails().len(), usize::from(taken), "{fault:?} at {command}");
            smtp.send(&mail()).await.unwrap();
            let mails = sink.mails();
            assert_eq!(mails.len(), 1 + usize::from(taken), "{fault:?} at {command}");
            assert!(mails.windows(2).all(|two| two[0] == two[1]), "{fault:?} at {command}");
        }
    }
}

#[tokio::test]
async fn a_4xx_anywhere_is_tried_again_and_a_5xx_only_where_it_is_not_about_the_mail() {
    for command in ["CONNECT", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "MESSAGE"] {
        for (reply, final_where) in [
            ("421 4.3.2 later", &[][..]),
            ("450 4.2.0 greylisted", &[]),
            ("554 5.3.0 no", &["RCPT", "DATA", "MESSAGE"]),
        ] {
            let sink = SmtpSink::builder().auth_plain("ana", PASSWORD).start().await.unwrap();
            let smtp = smtp(&format!("smtp://ana:{PASSWORD}@{}?tls=none", sink.address()));
            sink.plan(command, SmtpFault::Reply(reply.into()), When::always().among(1..2));
            let error = smtp.send(&mail()).await.unwrap_err();
            assert_eq!(error.is_permanent(), final_where.contains(&command), "{command}: {error}");
            assert!(sink.mails().is_empty());
            smtp.send(&mail()).await.unwrap();
            assert_eq!((sink.mails().len(), sink.connections()), (1, 2), "{command} {reply}");
        }
    }
}

#[tokio::test]
async fn who_was_told_that_a_mail_is_taken_does_not_mind_the_connection() {
    let sink = SmtpSink::start().await.unwrap();
    let smtp = smtp(&sink.url());
    sink.plan("MESSAGE", SmtpFault::BreakAfterReply, When::always().times(1));
    smtp.send(&mail()).await.unwrap();
    smtp.send(&mail_to("bob@example.net")).await.unwrap();
    assert_eq!((sink.mails().len(), sink.connections()), (2, 2));
}

#[tokio::test]
async fn a_fault_for_one_receiver_is_nobody_elses() {
    let sink = SmtpSink::start().await.unwrap();
    let smtp = hasty(&sink.url());
    sink.plan("RCPT", SmtpFault::Reply("550 5.1.1 no".into()), When::always().receiver("no@example.net"));
    sink.plan("MESSAGE", SmtpFault::Delay(LONG), When::always().receiver("@tarpit.example"));
    assert!(smtp.send(&mail_to("no@example.net")).await.unwrap_err().is_permanent());
    assert!(smtp.send(&mail_to("ana@tarpit.example")).await.unwrap_err().is_transient());
    smtp.send(&mail()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_looks_at_a_message_for_long_is_waited_for() {
    let sink = SmtpSink::start().await.unwrap();
    let smtp = builder(&sink.url()).command_timeout(SHORT).build().unwrap();
    sink.plan("MESSAGE", SmtpFault::Delay(4 * SHORT), When::always());
    smtp.send(&mail()).await.unwrap();
    assert_eq!(sink.mails().len(), 1, "whoever gives up early sends the mail twice");
}

#[tokio::test]
async fn refused_connections_are_over_when_the_server_is_back() {
    let (mails, api_sink) = (SmtpSink::start().await.unwrap(), HttpSink::start().await.unwrap());
    let (smtp, api) = (smtp(&mails.url()), api(&api_sink.url()));
    smtp.send(&mail()).await.unwrap();
    api.send(&mail()).await.unwrap();
    mails.refuse_connections().await;
    api_sink.refuse_connections().await;
    for _ in 0..2 {
        let error = smtp.send(&mail()).await.unwrap_err();
        assert_eq!(error.to_string(), "SMTP failed at the connection: connection refused");
        let error = api.send(&mail()).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
    }
    mails.take_connections().await;
    api_sink.take_connections().await;
    smtp.send(&mail()).await.unwrap();
    api.send(&mail()).await.unwrap();
    assert_eq!((mails.mails().len(), api_sink.taken().len()), (2, 1));
}

/// TLS that fails in the handshake: `say` is all that the server says before it breaks or falls silent.
fn broken_tls(say: &'static [u8], falls_silent: bool) -> TlsUpgrade {
    Arc::new(move |mut stream| {
        Box::pin(async move {
            let _ = stream.read(&mut [0; 1024]).await?;
            stream.write_all(say).await?;
            if falls_silent {
                tokio::time::sleep(LONG).await;
            }
            let stream: Box<dyn SmtpStream> = Box::new(stream);
            drop(stream);
            Err(std::io::ErrorKind::ConnectionAborted.into())
        })
    })
}

#[tokio::test]
async fn a_handshake_that_fails_sends_nothing_and_is_tried_again() {
    let alert = b"\x15\x03\x03\x00\x02\x02\x28";
    for (say, falls_silent) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], false),
        (b"220 sink.test ESMTP\r\n", false),
        (b"\x16\x03\x03\x00\xff", false),
        (alert, false),
        (b"", false),
        (b"", true),
        (b"\x16\x03\x03", true),
    ] {
        for implicit in [true, false] {
            let sink = SmtpSink::builder().auth_plain("ana", PASSWORD);
            let (scheme, sink) = if implicit {
                ("smtps", sink.implicit_tls(broken_tls(say, falls_silent)))
            } else {
                ("smtp", sink.starttls(broken_tls(say, falls_silent)))
            };
            let sink = sink.start().await.unwrap();
            let begun = Instant::now();
            let url = format!("{scheme}://ana:{PASSWORD}@localhost:{}", sink.address().port());
            let error = hasty(&url).send(&mail()).await.unwrap_err();
            assert!(error.is_transient(), "{say:?}: {error}");
            assert!(begun.elapsed() < SOON, "{say:?}");
            assert!(!sink.commands().iter().any(|line| line.starts_with("AUTH")), "{:?}", sink.commands());
            assert!(sink.mails().is_empty());
        }
    }
}

#[tokio::test]
async fn an_api_that_breaks_anywhere_gets_the_same_mail_again_and_takes_it_once() {
    let answers: Vec<HttpAnswer> = [0, 1, 12, 30]
        .into_iter()
        .flat_map(|bytes| [HttpAnswer::new(202).cut(bytes), HttpAnswer::new(503).cut(bytes)])
        .chain([
            HttpAnswer::new(202).delayed(LONG),
            HttpAnswer::new(202).trickling(SHORT),
            HttpAnswer::new(500).body("broken"),
            HttpAnswer::new(503).header("Retry-After", "7"),
            HttpAnswer::new(429).header("Retry-After", "7").endless(),
            HttpAnswer::new(409),
            HttpAnswer::new(500).stalling(),
            HttpAnswer::new(202).header("X-Huge", &"x".repeat(1 << 20)),
        ])
        .collect();
    for answer in answers {
        let sink = HttpSink::start().await.unwrap();
        let api = api(&sink.url()).with_timeout(4 * SHORT);
        sink.plan(answer.clone(), When::always().times(2));
        for _ in 0..2 {
            let begun = Instant::now();
            let error = api.send(&mail()).await.unwrap_err();
            assert!(error.is_transient(), "{answer:?}: {error}");
            assert!(begun.elapsed() < SOON, "{answer:?}");
            let asked = format!("{answer:?}").contains("retry-after");
            assert_eq!(error.retry_after(), asked.then_some(Duration::from_secs(7)), "{answer:?}");
        }
        api.send(&mail()).await.unwrap();
        let requests = sink.requests();
        assert_eq!(requests.len(), 3, "{answer:?}");
        assert!(requests.windows(2).all(|two| two[0] == two[1]), "{answer:?}");
        assert_eq!((sink.taken().len(), sink.mismatches()), (1, 0), "{answer:?}");
    }
}

#[tokio::test]
async fn a_2xx_is_enough_however_its_body_comes() {
    let sink = HttpSink::start().await.unwrap();
    let api = api(&sink.url());
    let json = b"{\"id\":\"1\"}";
    let mut sent = 0;
    for status in [200, 201, 202, 204] {
        let answer = HttpAnswer::new(status);
        for answer in [
            answer.clone(),
            answer.clone().body(*json),
            answer.clone().body(*json).header("Content-Length", "10").cut(100),
            answer.clone().body(*json).stalling(),
            answer.clone().endless(),
            answer.clone().body(*json).trickling(Duration::from_millis(5)),
            answer.header("Location", "https://elsewhere.example/").header("Retry-After", "9"),
        ] {
            sink.answer_with(answer.clone());
            let begun = Instant::now();
            api.send(&mail()).await.unwrap();
            assert!(begun.elapsed() < SOON, "{answer:?}");
            sent += 1;
        }
    }
    assert_eq!((sink.requests().len(), sink.taken().len()), (sent, 1));
}

#[tokio::test]
async fn no_redirect_takes_mail_or_token_elsewhere() {
    let (sink, other) = (HttpSink::start().await.unwrap(), HttpSink::start().await.unwrap());
    let api = api(&format!("http://:{PASSWORD}@{}/mails", sink.address()));
    for status in [301, 302, 303, 307, 308] {
        for location in [other.url(), "/mails".to_owned()] {
            let before = sink.requests().len();
            sink.answer_with(HttpAnswer::new(status).header("Location", &location));
            let error = api.send(&mail()).await.unwrap_err();
            assert!(error.is_transient(), "{error}");
            assert_eq!(error.to_string(), format!("the mail API answered {status}"));
            assert_eq!(sink.requests().len(), before + 1);
        }
    }
    assert!(other.requests().is_empty());
}
