//! Delivery under faults: the real worker, both databases, the real transports, and servers that fail on command.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "support/blackbox.rs"]
mod blackbox;

use std::sync::Arc;
use std::time::Duration;

use blackbox::{Database, Db, Mailbox, PATIENCE, Server};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use usermgr_core::crypto::webhook::{WebhookSecret, sign_webhook};
use usermgr_core::domain::page::PageSize;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::register::Register;
use usermgr_core::flow::verify_email::Verify;
use usermgr_core::policy::HashPolicy;
use usermgr_core::port::clock::{Clock as _, SystemClock};
use usermgr_core::port::mailer::Mailer;
use usermgr_core::port::store::Store;
use usermgr_core::port::store::outbox::{OutboxEntry, OutboxQuery, OutboxStatus};
use usermgr_core::testing::TestClock;
use usermgr_core::worker::Stopper;
use usermgr_core::{ClientContext, Policies, SecretKey, UserManager};
use usermgr_smtp::testing::{HttpAnswer, HttpSink, SmtpFault, SmtpSink, SmtpStream, TlsUpgrade, When};
use usermgr_smtp::{HttpApi, PlaintextPolicy, Sender, Smtp};
use usermgr_sqlx::{PgStore, SqliteStore};

/// From a crash to the last mail that was owed.
const AFTER_A_CRASH: Duration = Duration::from_mins(1);
const PASSWORD: &str = "correct horse battery";
/// How long a silent server is waited for.
const SHORT: Duration = Duration::from_millis(300);

fn smtp(sink: &SmtpSink) -> Arc<dyn Mailer> {
    let builder = Smtp::builder(&sink.url(), sender()).unwrap();
    let builder = builder.connect_timeout(SHORT).command_timeout(SHORT).message_timeout(SHORT);
    Arc::new(builder.build().unwrap())
}

fn http_api(sink: &HttpSink) -> Arc<dyn Mailer> {
    let api = HttpApi::from_url(&sink.url(), sender(), PlaintextPolicy::LoopbackOnly).unwrap();
    Arc::new(api.with_timeout(SHORT))
}

fn sender() -> Sender {
    Sender::parse("Example <noreply@example.org>").unwrap()
}

/// One installation, and what it takes to start it anew.
struct World {
    database: Database,
    mailer: Arc<dyn Mailer>,
    clock: Arc<TestClock>,
    users: UserManager,
}

impl World {
    async fn new(db: Db, mailer: Arc<dyn Mailer>) -> Self {
        let (database, clock) = (Database::create(db).await, Arc::new(TestClock::default()));
        let users = start(&database, &mailer, &clock).await;
        Self { database, mailer, clock, users }
    }

    /// As after a death of the process.
    async fn start_anew(&mut self) {
        self.users = start(&self.database, &self.mailer, &self.clock).await;
    }

    async fn register(&self, address: &str) {
        let client = ClientContext::new();
        self.users.registration().register(Register::new(address, PASSWORD), &client).await.unwrap();
    }

    async fn verify(&self, address: &str, code: &str) {
        let client = ClientContext::new();
        let user = self.users.registration().verify(Verify::new(address, code), &client).await.unwrap();
        assert!(user.email_verified());
    }

    /// What the outbox tells of the last mail to an address that carries a code.
    async fn entry(&self, address: &str) -> OutboxEntry {
        let query = OutboxQuery { size: PageSize::new(PageSize::MAX), ..OutboxQuery::default() };
        let client = ClientContext::new();
        let page = self.users.users().outbox(Principal::Operator, query, &client).await.unwrap();
        let is_it = |entry: &OutboxEntry| entry.mail.code.is_some() && entry.mail.to.as_str() == address;
        page.items.into_iter().find(is_it).expect("the mail stands in the outbox")
    }

    /// One attempt at all that is due; then it is later than any next attempt.
    async fn round(&self) {
        while self.users.mail_worker().run_once().await.unwrap().sent > 0 {}
        self.clock.advance(time::Duration::minutes(2));
    }

    /// Delivers to this address, which fails as often as told before. Answers the outbox's entry at the end.
    async fn delivered_after(&self, address: &str, failures: u32, case: &str) {
        self.register(address).await;
        for attempt in 1..=failures {
            self.round().await;
            let entry = self.entry(address).await;
            assert_eq!((entry.status, entry.attempts), (OutboxStatus::Queued, attempt), "{case}: {entry:?}");
            let error = entry.error.expect(case);
            assert!(!error.contains('@') && !error.contains("http:"), "{case}: {error}");
        }
        self.round().await;
        let entry = self.entry(address).await;
        assert_eq!((entry.status, entry.attempts), (OutboxStatus::Sent, failures + 1), "{case}: {entry:?}");
        assert_eq!(entry.error, None, "{case}");
    }
}

async fn start(database: &Database, mailer: &Arc<dyn Mailer>, clock: &Arc<TestClock>) -> UserManager {
    let store: Arc<dyn Store> = if database.url.starts_with("sqlite:") {
        let store = SqliteStore::connect(&database.url, 4).await.unwrap();
        store.migrate().await.unwrap();
        Arc::new(store)
    } else {
        let store = PgStore::connect(&database.url, 4).await.unwrap();
        store.migrate().await.unwrap();
        Arc::new(store)
    };
    let hashing = HashPolicy { memory_kib: 64, iterations: 1, ..HashPolicy::default() };
    let mut policies = Policies { hashing, ..Policies::default() };
    policies.throttle.enabled = false;
    policies.registration.welcome_mail = false;
    UserManager::builder()
        .store(store)
        .mailer(Arc::clone(mailer))
        .clock(clock.clone())
        .secret_key(SecretKey::from_bytes([7; 32]))
        .policies(policies)
        .build()
        .unwrap()
}

/// The code: the line of six digits.
fn code_in(text: &str) -> String {
    let is_code = |line: &&str| line.len() == 6 && line.bytes().all(|b| b.is_ascii_digit());
    text.lines().map(str::trim).find(is_code).expect("a code").to_owned()
}

async fn every_fault_of_smtp_ends_in_the_mail(db: Db) {
    let sink = SmtpSink::start().await.unwrap();
    let world = World::new(db, smtp(&sink)).await;
    let mut case = 0;
    for command in ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "MESSAGE"] {
        for fault in [
            SmtpFault::Reply("451 4.3.0 later <ana@example.org>".into()),
            SmtpFault::Break,
            SmtpFault::BreakWhenDone,
            SmtpFault::Delay(PATIENCE),
        ] {
            let name = format!("{fault:?} at {command}");
            case += 1;
            let address = format!("u{case}@example.org");
            // Greeting and EHLO are said on new connections only.
            sink.refuse_connections().await;
            sink.take_connections().await;
            sink.plan(command, fault.clone(), When::always().times(2));
            world.delivered_after(&address, 2, &name).await;
            let mails: Vec<_> = sink.mails().into_iter().filter(|mail| mail.to == [&*address]).collect();
            let taken_untold =
                command == "MESSAGE" && matches!(fault, SmtpFault::BreakWhenDone | SmtpFault::Delay(_));
            assert_eq!(mails.len(), if taken_untold { 3 } else { 1 }, "{name}");
            assert!(mails.windows(2).all(|two| two[0] == two[1]), "{name}: every repeat is the same mail");
            let id = world.entry(&address).await.mail.id;
            assert_eq!(mails[0].header("Message-ID"), Some(format!("<{id}@example.org>")), "{name}");
            world.verify(&address, &mails[0].code().unwrap()).await;
        }
    }
    sink.refuse_connections().await;
    world.register("away@example.org").await;
    world.round().await;
    let error = world.entry("away@example.org").await.error.unwrap();
    assert_eq!(error, "SMTP failed at the connection: connection refused");
    sink.take_connections().await;
    sink.plan("MESSAGE", SmtpFault::BreakAfterReply, When::always());
    world.round().await;
    world.round().await;
    let away = sink.mails().into_iter().filter(|mail| mail.to == ["away@example.org"]).count();
    assert_eq!(away, 1, "who was told that it is taken does not repeat it");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_smtp_ends_in_the_mail_on_sqlite() {
    every_fault_of_smtp_ends_in_the_mail(Db::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn every_fault_of_smtp_ends_in_the_mail_on_postgres() {
    every_fault_of_smtp_ends_in_the_mail(Db::Postgres).await;
}

async fn every_fault_of_an_api_has_one_effect(db: Db) {
    let (sink, elsewhere) = (HttpSink::start().await.unwrap(), HttpSink::start().await.unwrap());
    let world = World::new(db, http_api(&sink)).await;
    let answer = HttpAnswer::new;
    let faults = [408, 409, 425, 429, 500, 502, 503, 504]
        .map(|status| answer(status).body("no").header("Retry-After", "1"))
        .into_iter()
        .chain([0, 5, 20].map(|bytes| answer(202).cut(bytes)))
        .chain([0, 5, 20].map(|bytes| answer(500).cut(bytes)))
        .chain([301, 302, 307, 308].map(|status| answer(status).header("Location", &elsewhere.url())))
        .chain([
            answer(202).delayed(PATIENCE),
            answer(202).trickling(SHORT),
            answer(200).header("X-Huge", &"x".repeat(1 << 20)),
            answer(500).endless(),
        ]);
    for (case, fault) in faults.enumerate() {
        let (name, address) =
            (format!("{fault:?}").chars().take(200).collect::<String>(), format!("u{case}@example.org"));
        sink.plan(fault, When::always().times(2));
        world.delivered_after(&address, 2, &name).await;
        let requests: Vec<_> =
            sink.requests().into_iter().filter(|request| request.json().unwrap()["to"] == *address).collect();
        assert_eq!(requests.len(), 3, "{name}");
        assert!(requests.windows(2).all(|two| two[0] == two[1]), "{name}: every attempt is the same bytes");
        let id = world.entry(&address).await.mail.id.to_string();
        assert_eq!(requests[0].header("Idempotency-Key"), Some(&*id), "{name}");
        world.verify(&address, &code_in(requests[0].json().unwrap()["text"].as_str().unwrap())).await;
        assert_eq!((sink.taken().len(), sink.mismatches()), (case + 1, 0), "{name}: one effect");
    }
    let before = sink.taken().len();
    for (case, status) in [200, 201, 202, 204].into_iter().enumerate() {
        for (n, answer) in [answer(status), answer(status).body("{\"id\":1}"), answer(status).endless()]
            .into_iter()
            .enumerate()
        {
            sink.answer_with(answer);
            world.delivered_after(&format!("ok{case}-{n}@example.org"), 0, &status.to_string()).await;
        }
    }
    assert_eq!(sink.taken().len(), before + 12);
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_an_api_has_one_effect_on_sqlite() {
    every_fault_of_an_api_has_one_effect(Db::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn every_fault_of_an_api_has_one_effect_on_postgres() {
    every_fault_of_an_api_has_one_effect(Db::Postgres).await;
}

/// The process dies when the other side has the mail and the outbox does not know; another one takes over.
async fn a_death_after_acceptance_repeats_the_same_mail(db: Db) {
    let (mails, api) = (SmtpSink::start().await.unwrap(), HttpSink::start().await.unwrap());
    let patient_smtp = Smtp::from_url(&mails.url(), sender(), PlaintextPolicy::LoopbackOnly).unwrap();
    let patient_api = HttpApi::from_url(&api.url(), sender(), PlaintextPolicy::LoopbackOnly).unwrap();
    let transports: [Arc<dyn Mailer>; 2] = [Arc::new(patient_smtp), Arc::new(patient_api)];
    for (n, mailer) in transports.into_iter().enumerate() {
        let mut world = World::new(db, mailer).await;
        world.register("ana@example.org").await;
        mails.plan("MESSAGE", SmtpFault::Delay(PATIENCE), When::always().among(1..2));
        api.plan(HttpAnswer::new(202).delayed(PATIENCE), When::always().among(1..2));
        let worker = world.users.mail_worker();
        let dying = tokio::spawn(async move { worker.run_once().await });
        match n {
            0 => drop(mails.wait_for(1, PATIENCE).await.unwrap()),
            _ => drop(api.wait_for(1, PATIENCE).await.unwrap()),
        }
        dying.abort();
        assert!(dying.await.unwrap_err().is_cancelled());
        world.start_anew().await;
        assert_eq!(world.users.mail_worker().run_once().await.unwrap().attempts(), 0, "it is leased");
        world.clock.advance(time::Duration::minutes(5));
        assert_eq!(world.users.mail_worker().run_once().await.unwrap().sent, 1);
        let entry = world.entry("ana@example.org").await;
        assert_eq!((entry.status, entry.attempts), (OutboxStatus::Sent, 2));
        let code = if n == 0 {
            let mails = mails.mails();
            assert_eq!(mails.len(), 2);
            assert_eq!(mails[0], mails[1], "the same Message-ID, the same code");
            mails[0].code().unwrap()
        } else {
            let requests = api.requests();
            assert_eq!((requests.len(), api.taken().len(), api.mismatches()), (2, 1, 0));
            assert_eq!(requests[0], requests[1]);
            code_in(requests[0].json().unwrap()["text"].as_str().unwrap())
        };
        world.verify("ana@example.org", &code).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_after_acceptance_repeats_the_same_mail_on_sqlite() {
    a_death_after_acceptance_repeats_the_same_mail(Db::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn a_death_after_acceptance_repeats_the_same_mail_on_postgres() {
    a_death_after_acceptance_repeats_the_same_mail(Db::Postgres).await;
}

/// Fifty mails to a domain that never answers, and one to an address that is refused, stand before twenty others.
async fn a_tarpit_holds_up_nobody_else(db: Db) {
    let sink = SmtpSink::start().await.unwrap();
    sink.plan("RCPT", SmtpFault::Delay(20 * PATIENCE), When::always().receiver("@tarpit.example"));
    sink.plan("RCPT", SmtpFault::Reply("550 5.1.1 no".into()), When::always().receiver("bad@example.org"));
    let mailer = Smtp::builder(&sink.url(), sender()).unwrap().command_timeout(20 * PATIENCE).build();
    let world = World::new(db, Arc::new(mailer.unwrap())).await;
    for n in 0..50 {
        world.register(&format!("u{n}@tarpit.example")).await;
    }
    world.register("bad@example.org").await;
    world.clock.advance(time::Duration::SECOND);
    for n in 0..20 {
        world.register(&format!("u{n}@example.org")).await;
    }
    let stopper = Stopper::new();
    let (worker, stop) = (world.users.mail_worker(), stopper.token());
    let running = tokio::spawn(async move { worker.run(stop).await });
    let mails = sink.wait_for(20, PATIENCE).await.unwrap();
    assert!(mails.iter().all(|mail| mail.to[0].ends_with("@example.org")));
    let stuck = sink.commands().iter().filter(|line| line.contains("@tarpit.example")).count();
    assert_eq!(stuck, 2, "a quarter of eight places");
    assert_eq!(world.entry("bad@example.org").await.status, OutboxStatus::Dead);
    running.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tarpit_holds_up_nobody_else_on_sqlite() {
    a_tarpit_holds_up_nobody_else(Db::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn a_tarpit_holds_up_nobody_else_on_postgres() {
    a_tarpit_holds_up_nobody_else(Db::Postgres).await;
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap().to_owned()
}

/// The items of the outbox of this status, once there are so many.
async fn items(server: &Server, token: &str, status: &str, count: usize) -> Vec<Value> {
    let begun = std::time::Instant::now();
    loop {
        let page = server.get_as(&format!("/outbox?status={status}"), token).await.expect(200);
        let items = page["items"].as_array().unwrap().clone();
        if items.len() >= count {
            return items;
        }
        assert!(begun.elapsed() < PATIENCE, "{status}: {items:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn an_administrator(server: &Server) -> String {
    let args = ["users", "create", "admin@example.org", "--password-stdin", "--role", "admin"];
    assert!(server.run_with_input(&args, PASSWORD).status.success());
    let body = json!({"email": "admin@example.org", "password": PASSWORD});
    text(&server.post("/users/login", body).await.expect(200), "access_token")
}

async fn a_refused_mail_is_dead_until_it_is_seen_to(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let server =
        Server::start(&database, &mailbox.url(), &[("USERMGR_REGISTRATION_WELCOME_MAIL", "false")]).await;
    let token = an_administrator(&server).await;
    mailbox.sink.plan("RCPT", SmtpFault::Reply("550 5.1.1 <ana> unknown".into()), When::always());
    for address in ["ana@example.org", "bob@example.org", "eva@example.org"] {
        server.post("/users", json!({"email": address, "password": PASSWORD})).await.expect(202);
    }
    let dead = items(&server, &token, "dead", 3).await;
    for item in &dead {
        assert_eq!(
            (&item["attempts"], text(item, "error").as_str()),
            (&json!(1), "the SMTP server refused the receiver: 550 5.1.1")
        );
    }
    let log = server.log();
    assert_eq!(log.matches("\"outcome\":\"dead\"").count(), 3, "{log}");
    let id = |address: &str| text(dead.iter().find(|item| item["to"] == address).unwrap(), "id");

    // By an administrator, and at the command line: each arrives with a code that works.
    mailbox.sink.recover();
    server.post_as(&format!("/outbox/{}/retry", id("ana@example.org")), &token, None).await.expect(202);
    let output = server.run(&["outbox", "retry", &id("bob@example.org")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for address in ["ana@example.org", "bob@example.org"] {
        let body = json!({"email": address, "code": mailbox.code(address, 1).await});
        server.post("/users/verify", body).await.expect(200);
    }

    // A code that was voided meanwhile is not sent any more, and that is seen.
    server.post("/users/resend-code", json!({"email": "eva@example.org"})).await.expect(202);
    let code = mailbox.code("eva@example.org", 1).await;
    server.post_as(&format!("/outbox/{}/retry", id("eva@example.org")), &token, None).await.expect(202);
    let void = items(&server, &token, "void", 1).await;
    assert_eq!(text(&void[0], "id"), id("eva@example.org"));
    server
        .post_as(&format!("/outbox/{}/retry", id("eva@example.org")), &token, None)
        .await
        .problem(404, "not_found");
    server.post("/users/verify", json!({"email": "eva@example.org", "code": code})).await.expect(200);
    assert_eq!(mailbox.sink.mails().len(), 3);
    assert!(items(&server, &token, "dead", 0).await.is_empty());
    let retries = server.get_as("/audit?event=mail_retry", &token).await.expect(200);
    let outcomes: Vec<_> =
        retries["items"].as_array().unwrap().iter().map(|entry| text(entry, "outcome")).collect();
    assert_eq!(outcomes, ["refused", "done", "done", "done"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_mail_is_dead_until_it_is_seen_to_on_sqlite() {
    a_refused_mail_is_dead_until_it_is_seen_to(Db::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn a_refused_mail_is_dead_until_it_is_seen_to_on_postgres() {
    a_refused_mail_is_dead_until_it_is_seen_to(Db::Postgres).await;
}

async fn an_address_the_server_cannot_take_is_dead_at_once(db: Db) {
    let (database, sink) =
        (Database::create(db).await, SmtpSink::builder().smtputf8(false).start().await.unwrap());
    let server =
        Server::start(&database, &sink.url(), &[("USERMGR_REGISTRATION_WELCOME_MAIL", "false")]).await;
    server.post("/users", json!({"email": "jos\u{e9}@example.net", "password": PASSWORD})).await.expect(202);
    let begun = std::time::Instant::now();
    let dead = loop {
        let listed = server.run(&["outbox", "list", "--status", "dead", "--json"]);
        let listed: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
        if let [mail] = &listed[..] {
            break mail.clone();
        }
        assert!(begun.elapsed() < PATIENCE, "{listed:?}");
    };
    assert_eq!(
        (&dead["attempts"], text(&dead, "to").as_str(), text(&dead, "error").as_str()),
        (&json!(1), "jos\u{e9}@example.net", "the receiver's address needs SMTPUTF8, which the server lacks")
    );
    // The server was told nothing of it.
    assert!(!sink.commands().iter().any(|line| line.starts_with("MAIL")), "{:?}", sink.commands());
    // Others' mail goes on.
    server.post("/users", json!({"email": "ana@example.net", "password": PASSWORD})).await.expect(202);
    assert_eq!(sink.wait_for(1, PATIENCE).await.unwrap()[0].to, ["ana@example.net"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_the_server_cannot_take_is_dead_at_once_on_sqlite() {
    an_address_the_server_cannot_take_is_dead_at_once(Db::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn an_address_the_server_cannot_take_is_dead_at_once_on_postgres() {
    an_address_the_server_cannot_take_is_dead_at_once(Db::Postgres).await;
}

/// A private authority in PEM, and the server's side of TLS with its certificate for `localhost`.
fn private_authority() -> (String, TlsUpgrade) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
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
    (pem, upgrade)
}

/// The port of a server that speaks TLS in front of another.
async fn tls_in_front_of(sink: &HttpSink, upgrade: &TlsUpgrade) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, target, upgrade) =
        (listener.local_addr().unwrap().port(), sink.address(), Arc::clone(upgrade));
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

#[tokio::test(flavor = "multi_thread")]
async fn mail_and_webhooks_trust_the_authorities_of_the_configuration_on_sqlite() {
    let (pem, upgrade) = private_authority();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    // Of several, each counts.
    std::fs::write(&file, format!("{}{pem}", private_authority().0)).unwrap();
    let (events, api) = (HttpSink::start().await.unwrap(), HttpSink::start().await.unwrap());
    let mails = SmtpSink::builder().implicit_tls(upgrade.clone()).start().await.unwrap();
    let events_url = format!("https://localhost:{}/", tls_in_front_of(&events, &upgrade).await);
    let smtp_url = format!("smtps://localhost:{}", mails.address().port());
    let api_url = format!("https://localhost:{}/", tls_in_front_of(&api, &upgrade).await);
    let settings = [
        ("USERMGR_TLS_EXTRA_CA", file.to_str().unwrap()),
        ("USERMGR_EVENTS_URL", &events_url),
        ("USERMGR_EVENTS_SECRET", CALLBACK_SECRET),
    ];
    let register = json!({"email": "ana@example.net", "password": PASSWORD});

    let database = Database::create(Db::Sqlite).await;
    let server = Server::start(&database, &smtp_url, &settings).await;
    server.post("/users", register.clone()).await.expect(202);
    let code = mails.wait_for(1, PATIENCE).await.unwrap()[0].code().unwrap();
    server.post("/users/verify", json!({"email": "ana@example.net", "code": code})).await.expect(200);
    assert!(!events.wait_for(1, PATIENCE).await.unwrap().is_empty());

    let database = Database::create(Db::Sqlite).await;
    let server = Server::start(&database, &api_url, &settings).await;
    server.post("/users", register.clone()).await.expect(202);
    assert!(!api.wait_for(1, PATIENCE).await.unwrap().is_empty());

    // Without the key there is no trust.
    let database = Database::create(Db::Sqlite).await;
    let server = Server::start(&database, &smtp_url, &[]).await;
    let token = an_administrator(&server).await;
    server.post("/users", register).await.expect(202);
    let begun = std::time::Instant::now();
    loop {
        let queued = items(&server, &token, "queued", 1).await;
        if let Some(error) = queued[0]["error"].as_str() {
            assert!(error.contains("certificate"), "{error}");
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{queued:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const CALLBACK_SECRET: &str = "whsec_wxTqG8rTi5EDzyffJMAqsgMd8RZDhW1p";

/// A callback as a mail service sends it, signed so many seconds ago.
async fn call_back(server: &Server, body: &Value, age: i64, secret: &str) -> blackbox::Answer {
    let at = SystemClock.now() - time::Duration::seconds(age);
    let secret: WebhookSecret = secret.parse().unwrap();
    let signature = sign_webhook(&[secret], "msg_1", at, &serde_json::to_vec(body).unwrap());
    let timestamp = at.unix_timestamp().to_string();
    let headers = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", timestamp.as_str()),
        ("webhook-signature", signature.as_str()),
    ];
    server.call(http::Method::POST, "/mail/callback", &headers, Some(body.clone())).await
}

async fn no_mail_goes_where_it_came_back_from(db: Db) {
    let (database, mailbox) = (Database::create(db).await, Mailbox::open().await);
    let settings =
        [("USERMGR_MAIL_CALLBACK_SECRET", CALLBACK_SECRET), ("USERMGR_REGISTRATION_WELCOME_MAIL", "false")];
    let server = Server::start(&database, &mailbox.url(), &settings).await;
    let token = an_administrator(&server).await;
    let bounce = json!({"events": [
        {"type": "bounce", "email": "ANA@example.org", "message_id": "<1@example.org>", "at": "2026-01-02T03:04:05Z"},
        {"type": "complaint", "email": "bob@example.org"},
        {"type": "bounce", "email": "not an address"},
    ]});
    let other = "whsec_wLqTjz7pGuN3yCkRr0iHfYpM6cXvA1dEo5sUbt2Z8hQ=";
    for (age, secret) in [(0, other), (301, CALLBACK_SECRET), (-400, CALLBACK_SECRET)] {
        call_back(&server, &bounce, age, secret).await.problem(400, "invalid_signature");
    }
    let unsigned = server.post("/mail/callback", bounce.clone()).await;
    unsigned.problem(400, "invalid_signature");
    let delivered =
        json!({"events": [bounce["events"][0], {"type": "delivered", "email": "eva@example.org"}]});
    for wrong in [delivered, json!({"events": "x"}), json!({})] {
        call_back(&server, &wrong, 0, CALLBACK_SECRET).await.problem(422, "validation_failed");
    }
    assert_eq!(database.count("usermgr_undeliverable").await, 0);
    for _ in 0..2 {
        let answer = call_back(&server, &bounce, 0, CALLBACK_SECRET).await;
        assert_eq!((answer.status, answer.body), (204, Value::Null));
    }
    assert_eq!(database.count("usermgr_undeliverable").await, 2);
    let marks = server.get_as("/audit?event=undeliverable_mark", &token).await.expect(200);
    assert_eq!(marks["items"].as_array().unwrap().len(), 2);

    // Nobody outside sees a difference, and nothing is attempted.
    let ask = |address: &'static str| server.post("/users", json!({"email": address, "password": PASSWORD}));
    let (marked, unmarked) = (ask("ana@example.org").await, ask("eva@example.org").await);
    let keys =
        |answer: &blackbox::Answer| answer.body.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!((marked.status, keys(&marked)), (202, keys(&unmarked)));
    mailbox.code("eva@example.org", 1).await;
    let dead = items(&server, &token, "dead", 1).await;
    assert_eq!(
        (text(&dead[0], "error").as_str(), &dead[0]["attempts"]),
        ("undeliverable address", &json!(0))
    );

    // The operator lets mail go there again.
    let listed = server.run(&["mail", "undeliverable", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(
        listed[0],
        json!({"email": "ana@example.org", "reason": "bounce", "since": "2026-01-02T03:04:05Z"})
    );
    assert_eq!(listed[1]["reason"], "complaint");
    assert!(server.run(&["mail", "undeliverable", "remove", "Ana@example.org"]).status.success());
    let again = server.run(&["mail", "undeliverable", "remove", "ana@example.org"]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("is not marked"));
    server.post_as(&format!("/outbox/{}/retry", text(&dead[0], "id")), &token, None).await.expect(202);
    let code = mailbox.code("ana@example.org", 1).await;
    server.post("/users/verify", json!({"email": "ana@example.org", "code": code})).await.expect(200);
    assert_eq!(mailbox.sink.mails().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mail_goes_where_it_came_back_from_on_sqlite() {
    no_mail_goes_where_it_came_back_from(Db::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn no_mail_goes_where_it_came_back_from_on_postgres() {
    no_mail_goes_where_it_came_back_from(Db::Postgres).await;
}

/// `kill -9` with mails in flight and more behind them: another worker has delivered all of them within a minute.
async fn a_dead_workers_mails_come_within_a_minute(db: Db) {
    let (database, tarpit) = (Database::create(db).await, SmtpSink::start().await.unwrap());
    tarpit.delay(Duration::from_secs(30));
    let settings = [("USERMGR_THROTTLE_ENABLED", "false"), ("USERMGR_PASSWORDS_MEMORY_KIB", "8192")];
    let server = Server::start(&database, &tarpit.url(), &settings).await;
    for n in 0..12 {
        let email = format!("u{n}@place{n}.example.org");
        server.post("/users", json!({"email": email, "password": PASSWORD})).await.expect(202);
    }
    let begun = std::time::Instant::now();
    while tarpit.connections() < 8 {
        assert!(begun.elapsed() < PATIENCE, "the mails are not in flight:\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Longer than a renewal of the leases takes to come.
    tokio::time::sleep(Duration::from_secs(6)).await;
    server.kill();
    let crashed = std::time::Instant::now();
    let good = SmtpSink::start().await.unwrap();
    let other = Server::start(&database, &good.url(), &settings).await;
    let mails = good.wait_for(12, AFTER_A_CRASH).await;
    let mails =
        mails.unwrap_or_else(|error| panic!("{error:?}, {:?} after:\n{}", crashed.elapsed(), other.log()));
    assert_eq!(mails.len(), 12, "each once");
    assert!(tarpit.mails().is_empty());
    assert!(crashed.elapsed() >= Duration::from_secs(20), "the leases were renewed: {:?}", crashed.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_workers_mails_come_within_a_minute_on_sqlite() {
    a_dead_workers_mails_come_within_a_minute(Db::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn a_dead_workers_mails_come_within_a_minute_on_postgres() {
    a_dead_workers_mails_come_within_a_minute(Db::Postgres).await;
}
