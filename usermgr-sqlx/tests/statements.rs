//! How many statements each flow asks of a database: a round trip each. More than stand here is a change to think about.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::fmt::Write as _;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::Duration;
use tracing::field::{Field, Visit};
use tracing::span;
use usermgr_core::domain::user::UserStatus;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::register::Register;
use usermgr_core::flow::set_password::SetWithCode;
use usermgr_core::flow::update_user::UpdateUser;
use usermgr_core::flow::users::CreateUser;
use usermgr_core::flow::verify_email::Verify;
use usermgr_core::policy::{HashPolicy, TokenFormat};
use usermgr_core::port::store::Store;
use usermgr_core::port::store::account::UserQuery;
use usermgr_core::testing::{Mailbox, TestClock};
use usermgr_core::{
    AccessToken, ClientContext, CodePurpose, LinkToken, Password, Policies, SecretKey, UserManager,
};

const ANA: &str = "ana@example.org";
const PASSWORD: &str = "correct horse battery";
const OTHER: &str = "another fine password";

/// The statements of each flow, without BEGIN and COMMIT. NOTIFY comes beside and after the commit.
const EXPECTED: &[(&str, usize)] = &[
    ("register", 9),
    ("deliver a mail", 5),
    ("verify", 15),
    ("sign in", 10),
    ("sign in, wrong", 6),
    ("me", 1),
    ("me, forged token", 0),
    ("me, opaque token", 1),
    ("me, malformed opaque token", 0),
    ("refresh", 7),
    ("list sessions", 1),
    ("sign out", 4),
    ("forgot", 10),
    ("reset by link", 13),
    ("list users", 1),
    ("deliver, nothing due", 1),
];

/// What the driver said it ran.
static RUN: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// One database at a time: the driver speaks to all alike.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn run() -> MutexGuard<'static, Vec<String>> {
    RUN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens to the driver.
struct Listener;

impl tracing::Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Statement);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Statement;

impl Visit for Statement {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "summary"
            && !value.contains("pg_notify")
            && !["BEGIN", "COMMIT", "ROLLBACK", "RELEASE", "PRAGMA"]
                .iter()
                .any(|word| value.starts_with(word))
        {
            run().push(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// Runs each flow once, in an order in which each has what it needs, and compares.
async fn count(store: Arc<dyn Store>) {
    drop(tracing::subscriber::set_global_default(Listener));
    let hashing = HashPolicy { memory_kib: 64, iterations: 1, ..HashPolicy::default() };
    let mut policies = Policies { hashing, ..Policies::default() };
    policies.codes.resend_interval = Duration::ZERO;
    let (clock, mailbox) = (Arc::new(TestClock::default()), Arc::new(Mailbox::default()));
    let build = |format: TokenFormat| {
        let mut policies = policies.clone();
        policies.tokens.format = format;
        UserManager::builder()
            .store(Arc::clone(&store))
            .mailer(mailbox.clone())
            .clock(clock.clone())
            .secret_key(SecretKey::from_bytes(*b"0123456789abcdef0123456789abcdef"))
            .policies(policies)
            .build()
            .unwrap()
    };
    let (users, opaque) = (build(TokenFormat::Jwt), build(TokenFormat::Opaque));
    let client = ClientContext::new().with_ip("192.0.2.1".parse().unwrap());
    let (worker, sessions, passwords) = (users.mail_worker(), users.sessions(), users.passwords());
    let administration = users.users();
    let mut counted = Vec::new();
    // What a process reads once, such as its signing keys, is read before.
    users.registration().register(Register::new("bob@example.org", PASSWORD), &client).await.unwrap();
    worker.run_once().await.unwrap();
    let code = mailbox.last_code("bob@example.org").unwrap();
    users.registration().verify(Verify::new("bob@example.org", code), &client).await.unwrap();
    sessions.login("bob@example.org", &Password::new(PASSWORD), &client).await.unwrap();
    worker.run_once().await.unwrap();

    let registration = Register::new(ANA, PASSWORD);
    flow(&mut counted, "register", users.registration().register(registration, &client)).await.unwrap();
    flow(&mut counted, "deliver a mail", worker.run_once()).await.unwrap();
    let code = mailbox.last_code(ANA).unwrap();
    flow(&mut counted, "verify", users.registration().verify(Verify::new(ANA, code), &client)).await.unwrap();
    worker.run_once().await.unwrap();
    let password = Password::new(PASSWORD);
    let login = flow(&mut counted, "sign in", sessions.login(ANA, &password, &client)).await.unwrap();
    flow(&mut counted, "sign in, wrong", sessions.login(ANA, &Password::new(OTHER), &client))
        .await
        .unwrap_err();
    flow(&mut counted, "me", sessions.authenticate(&login.access_token)).await.unwrap();
    let forged: AccessToken = format!("{}x", login.access_token.expose()).into();
    flow(&mut counted, "me, forged token", sessions.authenticate(&forged)).await.unwrap_err();
    let short = opaque.sessions().login(ANA, &password, &client).await.unwrap();
    flow(&mut counted, "me, opaque token", opaque.sessions().authenticate(&short.access_token))
        .await
        .unwrap();
    let malformed: AccessToken = "no-token-at-all".to_owned().into();
    flow(&mut counted, "me, malformed opaque token", opaque.sessions().authenticate(&malformed))
        .await
        .unwrap_err();
    let renewed = sessions.refresh(&login.refresh_token, &client);
    let renewed = flow(&mut counted, "refresh", renewed).await.unwrap();
    let caller = sessions.authenticate(&renewed.access_token).await.unwrap();
    flow(&mut counted, "list sessions", sessions.list(&caller)).await.unwrap();
    flow(&mut counted, "sign out", sessions.logout(&caller, &client)).await.unwrap();
    flow(&mut counted, "forgot", passwords.forgot(ANA, &client)).await.unwrap();
    worker.run_once().await.unwrap();
    let link = mailbox.last_link(ANA).unwrap();
    let token: LinkToken = link.split_once("#token=").unwrap().1.into();
    let other = Password::new(OTHER);
    let reset = passwords.reset(&token, &other, &other, &client);
    flow(&mut counted, "reset by link", reset).await.unwrap();
    worker.run_once().await.unwrap();
    let page = administration.list(Principal::Operator, UserQuery::default(), &client);
    flow(&mut counted, "list users", page).await.unwrap();
    flow(&mut counted, "deliver, nothing due", worker.run_once()).await.unwrap();

    let mut report = String::new();
    for (name, statements) in &counted {
        writeln!(report, "    (\"{name}\", {}),", statements.len()).unwrap();
    }
    let as_expected = counted.iter().map(|(name, run)| (*name, run.len())).eq(EXPECTED.iter().copied());
    assert!(as_expected, "{report}\n{counted:#?}");
}

/// What is asked about an address makes as many statements of the same kinds for nobody as for an account, a disabled one
/// and a registration: the time of an answer tells nothing.
async fn compare(store: Arc<dyn Store>) {
    drop(tracing::subscriber::set_global_default(Listener));
    let hashing = HashPolicy { memory_kib: 64, iterations: 1, ..HashPolicy::default() };
    let mut policies = Policies { hashing, ..Policies::default() };
    policies.codes.resend_interval = Duration::ZERO;
    let mailbox = Arc::new(Mailbox::default());
    let users = UserManager::builder()
        .store(Arc::clone(&store))
        .mailer(mailbox.clone())
        .secret_key(SecretKey::from_bytes(*b"0123456789abcdef0123456789abcdef"))
        .policies(policies)
        .build()
        .unwrap();
    let client = |n: usize| ClientContext::new().with_ip([192, 0, 2, u8::try_from(n).unwrap()].into());
    let [nobody, account, disabled, pending] =
        ["nobody@example.org", "account@example.org", "disabled@example.org", "pending@example.org"];
    let mut ids = Vec::new();
    for address in [account, disabled] {
        let new = CreateUser::new(address).with_password(PASSWORD);
        ids.push(users.users().create(Principal::Operator, new, &client(1)).await.unwrap().id);
    }
    let change = UpdateUser::default().with_status(UserStatus::Disabled);
    users.users().update(Principal::Operator, ids[1], change, &client(1)).await.unwrap();
    users.registration().register(Register::new(pending, PASSWORD), &client(1)).await.unwrap();

    // What a process reads once is read before.
    users.sessions().login(account, &Password::new(PASSWORD), &client(1)).await.unwrap();

    for (n, request) in
        ["register", "resend", "request_code", "forgot", "verify", "set", "login"].into_iter().enumerate()
    {
        let mut of_nobody = None;
        for address in [nobody, account, disabled, pending] {
            let client = client(10 + n);
            run().clear();
            match request {
                "register" => {
                    drop(users.registration().register(Register::new(address, OTHER), &client).await);
                }
                "resend" => drop(users.registration().resend(address, None, &client).await),
                "request_code" => {
                    let purpose = CodePurpose::ResetPassword;
                    drop(users.passwords().request_code(address, purpose, None, &client).await);
                }
                "login" => {
                    let wrong = Password::new(OTHER);
                    drop(users.sessions().login(address, &wrong, &client).await);
                }
                "forgot" => drop(users.passwords().forgot(address, &client).await),
                "verify" => drop(users.registration().verify(Verify::new(address, "000001"), &client).await),
                _ => {
                    let guess = SetWithCode::new(address, "000001", OTHER);
                    drop(users.passwords().set_with_code(guess, &client).await);
                }
            }
            let verbs: Vec<_> =
                run().drain(..).map(|sql| sql.split(' ').next().unwrap_or_default().to_owned()).collect();
            assert!(!verbs.is_empty());
            let expected = of_nobody.get_or_insert_with(|| verbs.clone());
            assert_eq!(&verbs, expected, "{request} for {address}, and for nobody");
        }
    }
}

/// Runs one flow and notes its statements.
async fn flow<T>(
    counted: &mut Vec<(&'static str, Vec<String>)>,
    name: &'static str,
    future: impl Future<Output = T>,
) -> T {
    run().clear();
    let output = future.await;
    counted.push((name, std::mem::take(&mut *run())));
    output
}

#[tokio::test]
async fn on_sqlite() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("users.db").display());
    let store = usermgr_sqlx::SqliteStore::connect(&url, 2).await.unwrap();
    store.migrate().await.unwrap();
    count(Arc::new(store)).await;
}

#[tokio::test]
async fn nobody_and_somebody_are_the_same_statements_on_sqlite() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("users.db").display());
    let store = usermgr_sqlx::SqliteStore::connect(&url, 2).await.unwrap();
    store.migrate().await.unwrap();
    compare(Arc::new(store)).await;
}

#[tokio::test]
#[ignore = "needs Postgres: run scripts/test"]
async fn nobody_and_somebody_are_the_same_statements_on_postgres() {
    let _alone = ALONE.lock().await;
    let database = support::Database::create().await;
    let store = usermgr_sqlx::PgStore::connect(&database.url, 2).await.unwrap();
    store.migrate().await.unwrap();
    compare(Arc::new(store)).await;
}

#[tokio::test]
#[ignore = "needs Postgres: run scripts/test"]
async fn on_postgres() {
    let _alone = ALONE.lock().await;
    let database = support::Database::create().await;
    let store = usermgr_sqlx::PgStore::connect(&database.url, 2).await.unwrap();
    store.migrate().await.unwrap();
    count(Arc::new(store)).await;
}
