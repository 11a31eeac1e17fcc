//! Servers that keep to the standard in ways that are seldom seen.
#![cfg(feature = "smtp")]

mod support;

use std::time::{Duration, Instant};

use support::scripted::{ScriptedServer, usual};
use support::{Authority, PASSWORD, builder, mail, mail_to, smtp};
use usermgr_core::port::mailer::Mailer as _;
use usermgr_smtp::testing::{SmtpFault, SmtpSink, When};

/// A reply with this code, in one of the forms of RFC 5321 §4.2.
type Form = fn(&str) -> Vec<u8>;

const FORMS: [(&str, Form); 10] = [
    ("code alone", |code| format!("{code}\r\n").into_bytes()),
    ("code and space", |code| format!("{code} \r\n").into_bytes()),
    ("code and text", |code| format!("{code} ok\r\n").into_bytes()),
    ("enhanced status", |code| format!("{code} {}.0.0 ok\r\n", &code[..1]).into_bytes()),
    ("several lines", |code| format!("{code}-one\r\n{code}-two\r\n{code} three\r\n").into_bytes()),
    ("several lines without text", |code| format!("{code}-\r\n{code}-\r\n{code}\r\n").into_bytes()),
    ("a long line", |code| format!("{code} {}\r\n", "x".repeat(5_000)).into_bytes()),
    ("many lines", |code| format!("{}{code} end\r\n", format!("{code}-more\r\n").repeat(500)).into_bytes()),
    ("UTF-8", |code| format!("{code} très bien, 好的\r\n").into_bytes()),
    ("Latin-1", |code| [code.as_bytes(), b"-tr\xe8s\r\n", code.as_bytes(), b" bien\xff\r\n"].concat()),
];

fn code_of(verb: &str) -> &'static str {
    match verb {
        "CONNECT" => "220",
        "DATA" => "354",
        "QUIT" => "221",
        _ => "250",
    }
}

#[tokio::test]
async fn every_form_of_a_reply_is_understood() {
    for pause in [Duration::ZERO, Duration::from_micros(1)] {
        for (name, form) in FORMS {
            if !pause.is_zero() && form("250").len() > 100 {
                continue;
            }
            let server = ScriptedServer::start_slow(pause, move |_, verb| Some(form(code_of(verb)))).await;
            let smtp = smtp(&server.url("none"));
            smtp.send(&mail()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            smtp.send(&mail()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!((server.count("MESSAGE"), server.connections()), (2, 1), "{name}");
        }
    }
}

#[tokio::test]
async fn every_form_of_a_refusal_is_understood() {
    for (name, form) in FORMS {
        for (verb, code, permanent) in [
            ("CONNECT", "554", false),
            ("MAIL", "451", false),
            ("RCPT", "550", true),
            ("RCPT", "452", false),
            ("DATA", "554", true),
            ("MESSAGE", "552", true),
        ] {
            let server =
                ScriptedServer::start(
                    move |_, command| {
                        if command == verb { Some(form(code)) } else { usual(command) }
                    },
                )
                .await;
            let error = smtp(&server.url("none")).send(&mail()).await.unwrap_err();
            assert_eq!(error.is_permanent(), permanent, "{name} at {verb}: {error}");
            assert!(error.to_string().contains(code), "{name} at {verb}: {error}");
            assert!(error.to_string().is_ascii(), "{name} at {verb}: {error}");
        }
    }
}

#[tokio::test]
async fn a_reply_outside_the_standard_fails_at_once() {
    for reply in [
        &b"ok\r\n"[..],
        b"25\r\n",
        b"2500 ok\r\n",
        b"250ok\r\n",
        b"150 ok\r\n",
        b"290 ok\r\n",
        b"650 ok\r\n",
        b"250-one\r\n251 two\r\n",
        b"250 ok\n",
        b"\r\n",
        b"<html>",
    ] {
        let server = ScriptedServer::start(
            move |_, verb| {
                if verb == "MAIL" { Some(reply.to_vec()) } else { usual(verb) }
            },
        )
        .await;
        let begun = Instant::now();
        let error = smtp(&server.url("none")).send(&mail()).await.unwrap_err();
        assert_eq!(error.to_string(), "SMTP failed at the sender: no reply that can be read", "{reply:?}");
        assert!(error.is_transient(), "{reply:?}");
        assert!(begun.elapsed() < support::SOON, "{reply:?}");
    }
}

#[tokio::test]
async fn an_endless_reply_is_cut_off() {
    for endless in [&b"250-more\r\n"[..], b"250 more"] {
        let server =
            ScriptedServer::start(
                move |_, verb| {
                    if verb == "MAIL" { Some(endless.repeat(200_000)) } else { usual(verb) }
                },
            )
            .await;
        let error = smtp(&server.url("none")).send(&mail()).await.unwrap_err();
        assert_eq!(error.to_string(), "SMTP failed at the sender: no reply that can be read");
    }
}

#[tokio::test]
async fn extensions_are_read_in_any_case_and_not_from_the_first_line() {
    let address = "josé@example.net";
    let with = |ehlo: &'static str| {
        move |_, verb: &str| {
            if verb == "EHLO" { Some(ehlo.as_bytes().to_vec()) } else { usual(verb) }
        }
    };
    let server = ScriptedServer::start(with("250-a.test\r\n250-8bitmime\r\n250 SmtpUtf8\r\n")).await;
    smtp(&server.url("none")).send(&mail_to(address)).await.unwrap();
    let server = ScriptedServer::start(with("250-SMTPUTF8\r\n250 8BITMIME\r\n")).await;
    assert!(smtp(&server.url("none")).send(&mail_to(address)).await.unwrap_err().is_permanent());
    for auth in ["auth plain", "AUTH LOGIN PLAIN", "AUTH=PLAIN", "Auth Digest-MD5 Plain"] {
        let server = ScriptedServer::start(move |_, verb| {
            if verb == "EHLO" { Some(format!("250-a.test\r\n250 {auth}\r\n").into()) } else { usual(verb) }
        })
        .await;
        let url = server.url("none").replace("//", &format!("//ana:{PASSWORD}@"));
        smtp(&url).send(&mail()).await.unwrap_or_else(|error| panic!("{auth}: {error}"));
        assert_eq!(server.count("AUTH"), 1, "{auth}");
    }
}

/// What a server does to a connection that it is tired of.
const ENDS: [(&str, Option<&[u8]>); 4] = [
    ("421", Some(b"421 4.3.2 too many mails on this connection\r\n")),
    ("421 alone", Some(b"421\r\n")),
    ("221", Some(b"221 2.0.0 bye\r\n")),
    ("closed", None),
];

#[tokio::test]
async fn a_kept_connection_that_ends_costs_no_attempt() {
    for last in ["MESSAGE", "NOOP", "MAIL", "RCPT", "DATA"] {
        for (name, end) in ENDS {
            let taken = std::sync::atomic::AtomicUsize::new(0);
            let server = ScriptedServer::start(move |connection, verb| {
                use std::sync::atomic::Ordering::SeqCst;
                let kept = connection == 1 && taken.load(SeqCst) > 0;
                if verb == "MESSAGE" {
                    taken.fetch_add(1, SeqCst);
                }
                match verb {
                    // The end follows the reply to the first mail, before anything is asked.
                    "MESSAGE" if last == verb && connection == 1 => {
                        Some([b"250 ok\r\n", end.unwrap_or_default()].concat())
                    }
                    _ if last == "MESSAGE" && kept => None,
                    _ if last == verb && kept => end.map(<[u8]>::to_vec),
                    _ => usual(verb),
                }
            })
            .await;
            let smtp = smtp(&server.url("none"));
            smtp.send(&mail()).await.unwrap();
            let begun = Instant::now();
            smtp.send(&mail()).await.unwrap_or_else(|error| panic!("{name} at {last}: {error}"));
            assert!(begun.elapsed() < Duration::from_secs(2), "{name} at {last}");
            assert_eq!((server.count("MESSAGE"), server.connections()), (2, 2), "{name} at {last}");
        }
    }
}

#[tokio::test]
async fn a_message_that_may_have_been_taken_is_not_sent_again_in_the_same_attempt() {
    for (name, end) in ENDS.into_iter().filter(|(name, _)| *name != "221") {
        let taken = std::sync::atomic::AtomicUsize::new(0);
        let server = ScriptedServer::start(move |_, verb| {
            let second = verb == "MESSAGE" && taken.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1;
            if second { end.map(<[u8]>::to_vec) } else { usual(verb) }
        })
        .await;
        let smtp = smtp(&server.url("none"));
        smtp.send(&mail()).await.unwrap();
        let error = smtp.send(&mail()).await.unwrap_err();
        assert!(error.is_transient(), "{name}: {error}");
        assert_eq!((server.count("MESSAGE"), server.connections()), (2, 1), "{name}");
    }
}

#[tokio::test]
async fn an_opinion_about_the_mail_on_a_kept_connection_is_final() {
    for (reply, permanent) in [("550 5.1.1 no", true), ("450 4.2.0 later", false)] {
        let taken = std::sync::atomic::AtomicBool::new(false);
        let server = ScriptedServer::start(move |_, verb| {
            use std::sync::atomic::Ordering::SeqCst;
            taken.fetch_or(verb == "MESSAGE", SeqCst);
            if verb == "RCPT" && taken.load(SeqCst) {
                return Some(format!("{reply}\r\n").into());
            }
            usual(verb)
        })
        .await;
        let smtp = smtp(&server.url("none"));
        smtp.send(&mail()).await.unwrap();
        let error = smtp.send(&mail()).await.unwrap_err();
        assert_eq!((error.is_permanent(), server.connections()), (permanent, 1), "{reply}: {error}");
    }
}

#[tokio::test]
async fn a_new_connection_that_ends_fails_the_attempt() {
    let server = ScriptedServer::start(|_, verb| {
        if verb == "MAIL" { Some(b"421 4.3.2 later\r\n".to_vec()) } else { usual(verb) }
    })
    .await;
    let error = smtp(&server.url("none")).send(&mail()).await.unwrap_err();
    assert_eq!(error.to_string(), "the SMTP server refused the sender: 421 4.3.2");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_server_without_ehlo_is_greeted_by_helo() {
    for code in ["500", "502", "504"] {
        let script = move |_, verb: &str| {
            if verb == "EHLO" { Some(format!("{code} unknown\r\n").into_bytes()) } else { usual(verb) }
        };
        for tls in ["none", "opportunistic"] {
            let server = ScriptedServer::start(script).await;
            smtp(&server.url(tls))
                .send(&mail())
                .await
                .unwrap_or_else(|error| panic!("{code} {tls}: {error}"));
            let verbs: Vec<_> = server.verbs().into_iter().map(|(_, verb)| verb).collect();
            assert_eq!(verbs, ["CONNECT", "EHLO", "HELO", "MAIL", "RCPT", "DATA", "MESSAGE"], "{code} {tls}");
            // What HELO cannot do is not tried.
            let error = smtp(&server.url(tls)).send(&mail_to("josé@example.net")).await.unwrap_err();
            assert!(error.is_permanent(), "{error}");
        }
        // TLS and sign-in need extensions.
        let server = ScriptedServer::start(script).await;
        let with_password = server.url("none").replace("//", &format!("//ana:{PASSWORD}@"));
        for url in [server.url("required"), with_password] {
            let error = smtp(&url).send(&mail()).await.unwrap_err();
            assert!(error.is_transient() && error.to_string().contains(code), "{error}");
        }
        assert_eq!((server.count("HELO"), server.count("AUTH"), server.count("MAIL")), (0, 0, 0), "{code}");
    }
    // A refusal of another kind is one.
    let server =
        ScriptedServer::start(
            |_, verb| {
                if verb == "EHLO" { Some(b"550 go away\r\n".to_vec()) } else { usual(verb) }
            },
        )
        .await;
    assert!(smtp(&server.url("none")).send(&mail()).await.unwrap_err().is_transient());
    assert_eq!(server.count("HELO"), 0);
}

#[tokio::test]
async fn a_wrong_tls_mode_fails_soon_and_the_error_names_the_right_one() {
    let authority = Authority::for_host("localhost");
    let few_seconds = Duration::from_secs(10);
    // TLS from the first byte, to a server that begins in clear.
    let sink = SmtpSink::start().await.unwrap();
    let begun = Instant::now();
    let url = format!("smtps://localhost:{}", sink.address().port());
    let error = smtp(&url).send(&mail()).await.unwrap_err();
    assert!(error.is_transient() && begun.elapsed() < few_seconds, "{error}");
    assert!(error.to_string().contains("smtp://") && error.to_string().contains("tls=required"), "{error}");
    // In clear, to a server that speaks TLS from the first byte: both sides wait for the other.
    let sink = SmtpSink::builder().implicit_tls(authority.upgrade.clone()).start().await.unwrap();
    let waiting = ["required", "opportunistic", "none"].map(|tls| {
        let url = format!("smtp://localhost:{}?tls={tls}", sink.address().port());
        tokio::spawn(async move { smtp(&url).send(&mail()).await.unwrap_err() })
    });
    let begun = Instant::now();
    for error in waiting {
        let error = error.await.unwrap();
        assert!(error.is_transient() && begun.elapsed() < few_seconds, "{error}");
        assert!(error.to_string().contains("smtps://"), "{error}");
    }
    // STARTTLS is required and not offered, or offered and not used.
    let sink = SmtpSink::start().await.unwrap();
    let error = smtp(&format!("smtp://{}?tls=required", sink.address())).send(&mail()).await.unwrap_err();
    assert!(error.to_string().contains("smtps://") && error.to_string().contains("tls=none"), "{error}");
    let server = ScriptedServer::start(|_, verb| match verb {
        "EHLO" => Some(b"250-a.test\r\n250 STARTTLS\r\n".to_vec()),
        "MAIL" => Some(b"530 5.7.0 Must issue a STARTTLS command first\r\n".to_vec()),
        _ => usual(verb),
    })
    .await;
    let error = smtp(&server.url("none")).send(&mail()).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("tls=required"), "{error}");
}

#[tokio::test]
async fn a_server_that_greets_late_is_waited_for() {
    let sink = SmtpSink::start().await.unwrap();
    sink.plan("CONNECT", SmtpFault::Delay(Duration::from_millis(800)), When::always());
    // A quarter of this limit passes before the server is asked for TLS.
    let smtp = builder(&sink.url()).command_timeout(Duration::from_secs(2)).build().unwrap();
    smtp.send(&mail()).await.unwrap();
    assert_eq!(sink.mails().len(), 1);
    // Once a server has greeted, it is never asked again.
    let before = sink.connections();
    sink.plan("NOOP", SmtpFault::Break, When::always());
    smtp.send(&mail()).await.unwrap();
    assert_eq!(sink.connections(), before + 1);
}
