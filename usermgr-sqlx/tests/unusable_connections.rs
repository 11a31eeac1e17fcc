//! Connections that are alive and cannot be used: silent ones, read-only ones, those that the server ended while they were idle.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use support::Database;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use usermgr_core::domain::id::UserId;
use usermgr_core::domain::page::PageSize;
use usermgr_core::flow::register::Register;
use usermgr_core::flow::verify_email::Verify;
use usermgr_core::port::mailer::Mailer;
use usermgr_core::port::random::SystemRandom;
use usermgr_core::port::store::event::{EventQuery, EventStore as _};
use usermgr_core::port::store::{AccountStore as _, StoreError, UpkeepStore as _};
use usermgr_core::testing::Mailbox;
use usermgr_core::{ClientContext, Error, Password, SecretKey, UserManager};
use usermgr_sqlx::PgStore;

const PASSWORD: &str = "correct horse battery";
/// The deadline of commands here.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Room for a busy machine. A connection that is waited for without a bound takes minutes.
const ROOM: Duration = Duration::from_secs(3);
/// How long a pool may take to open its connections.
const OPENING: Duration = Duration::from_secs(30);

/// A network between the store and its database. It can fall silent for the connections that it has.
struct Network {
    port: u16,
    silence: watch::Sender<()>,
}

impl Network {
    async fn to(url: &str) -> Self {
        let target: PgConnectOptions = url.parse().unwrap();
        let target = format!("{}:{}", target.get_host(), target.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (silence, _) = watch::channel(());
        let silenced = silence.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (target, mut silenced) = (target.clone(), silenced.subscribe());
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = silenced.changed() => {
                            // Open at both ends, and nothing is passed on any more.
                            std::future::pending::<()>().await;
                        }
                    }
                });
            }
        });
        Self { port, silence }
    }

    fn silence_what_is_connected(&self) {
        self.silence.send_replace(());
    }

    fn through(&self, url: &str) -> PgConnectOptions {
        let options: PgConnectOptions = url.parse().unwrap();
        options.host("127.0.0.1").port(self.port)
    }
}

/// A host's pool, with all its connections open.
async fn pool(options: PgConnectOptions, connections: u32) -> sqlx::PgPool {
    let pool = PgPoolOptions::new().min_connections(connections).max_connections(connections);
    let pool = pool.test_before_acquire(false).connect_with(options).await.unwrap();
    let begun = Instant::now();
    while pool.num_idle() < connections as usize {
        assert!(begun.elapsed() < OPENING, "{} of {connections} connections are open", pool.num_idle());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    pool
}

fn users(store: PgStore) -> UserManager {
    users_with(store, &Arc::new(Mailbox::default()))
}

fn users_with(store: PgStore, mailbox: &Arc<Mailbox>) -> UserManager {
    let hashing = usermgr_core::policy::HashPolicy { memory_kib: 64, iterations: 1, ..Default::default() };
    let mut policies = usermgr_core::Policies { hashing, ..Default::default() };
    policies.codes.resend_interval = time::Duration::ZERO;
    UserManager::builder()
        .store(Arc::new(store))
        .mailer(Arc::clone(mailbox) as Arc<dyn Mailer>)
        .secret_key(SecretKey::from_bytes(*b"0123456789abcdef0123456789abcdef"))
        .policies(policies)
        .build()
        .unwrap()
}

async fn register(users: &UserManager, n: usize) -> Result<(), Error> {
    let request = Register::new(format!("u{n}@example.org"), PASSWORD);
    users.registration().register(request, &ClientContext::new()).await.map(drop)
}

/// Makes a user and gives its address.
async fn user(users: &UserManager, mailbox: &Mailbox, n: usize) -> String {
    register(users, n).await.unwrap();
    users.mail_worker().run_once().await.unwrap();
    let address = format!("u{n}@example.org");
    let verify = Verify::new(&address, mailbox.last_code(&address).unwrap());
    users.registration().verify(verify, &ClientContext::new()).await.unwrap();
    address
}

async fn alter(database: &Database, setting: &str) {
    let (base, name) = database.url.rsplit_once('/').unwrap();
    let admin = sqlx::PgPool::connect(&format!("{base}/postgres")).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("ALTER DATABASE {name} {setting}"))).execute(&admin).await.unwrap();
    admin.close().await;
}

async fn events(store: &PgStore) -> Result<(), StoreError> {
    store.events(EventQuery { after: None, size: PageSize::default() }).await.map(drop)
}

fn nobody() -> UserId {
    UserId::new(time::OffsetDateTime::UNIX_EPOCH, &SystemRandom)
}

/// Silence in the middle of commands, whether their callers wait or leave: afterwards every connection of the pool can be had again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn silent_connections_do_not_use_the_pool_up() {
    let database = Database::create().await;
    let network = Network::to(&database.url).await;
    let pool = pool(network.through(&database.url), 4).await;
    let store = PgStore::with_pool(pool).with_timeout(TIMEOUT);
    store.migrate().await.unwrap();
    let users = Arc::new(users(store.clone()));
    for (round, callers_leave) in [false, true].into_iter().enumerate() {
        let opened = (0..4).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.user(nobody()).await.unwrap() })
        });
        for opening in opened.collect::<Vec<_>>() {
            opening.await.unwrap();
        }
        store.ping().await.unwrap(); // proven, so that the next ones read
        network.silence_what_is_connected();
        let begun = Instant::now();
        let calls = (0..8).map(|n| {
            let (users, store) = (Arc::clone(&users), store.clone());
            tokio::spawn(async move {
                let call = async {
                    match n % 4 {
                        0 => register(&users, 100 * round + n).await.map_err(|error| error.to_string()),
                        1 => store.user(nobody()).await.map(drop).map_err(|error| error.to_string()),
                        2 => store.ping().await.map_err(|error| error.to_string()),
                        _ => events(&store).await.map_err(|error| error.to_string()),
                    }
                };
                let patience = if callers_leave { TIMEOUT / 5 } else { Duration::MAX };
                tokio::time::timeout(patience, call).await
            })
        });
        for call in calls.collect::<Vec<_>>() {
            drop(call.await.unwrap());
        }
        assert!(begun.elapsed() < 3 * TIMEOUT + ROOM, "{:?}", begun.elapsed());
        // All four connections at once, over the network as it is now.
        tokio::time::sleep(TIMEOUT).await;
        let begun = Instant::now();
        let calls = (0..4).map(|n| {
            let users = Arc::clone(&users);
            tokio::spawn(async move { register(&users, 1000 + 100 * round + n).await })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap().unwrap();
        }
        assert!(begun.elapsed() < ROOM, "{:?}", begun.elapsed());
    }
}

/// The server does not learn that the clients of these transactions are gone, and each of them may have locked the user.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn transactions_that_fell_silent_keep_no_locks() {
    let database = Database::create().await;
    let network = Network::to(&database.url).await;
    let pool = pool(network.through(&database.url), 8).await;
    let store = PgStore::with_pool(pool).with_timeout(TIMEOUT);
    store.migrate().await.unwrap();
    let mailbox = Arc::new(Mailbox::default());
    let users = Arc::new(users_with(store, &mailbox));
    let address = user(&users, &mailbox, 0).await;
    let sign_in = |users: Arc<UserManager>, address: String| async move {
        users.sessions().login(&address, &Password::new(PASSWORD), &ClientContext::new()).await.map(drop)
    };
    for _ in 0..5 {
        let calls = (0..8).map(|_| tokio::spawn(sign_in(Arc::clone(&users), address.clone())));
        let calls = calls.collect::<Vec<_>>();
        tokio::time::sleep(Duration::from_millis(10)).await;
        network.silence_what_is_connected();
        for call in calls {
            drop(call.await.unwrap());
        }
        tokio::time::sleep(TIMEOUT).await;
        sign_in(Arc::clone(&users), address.clone()).await.unwrap();
    }
}

/// What a standby does to the pool of a store, and a primary that an operator made read-only.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_connection_that_takes_no_writes_is_left_for_one_that_does() {
    let database = Database::create().await;
    PgStore::connect(&database.url, 1).await.unwrap().migrate().await.unwrap();
    alter(&database, "SET default_transaction_read_only = on").await;
    // Sessions keep what the database had when they began.
    let pool = pool(database.url.parse().unwrap(), 4).await;
    let store = PgStore::with_pool(pool);
    let users = users(store.clone());
    register(&users, 0).await.unwrap_err();
    store.ping().await.unwrap_err();
    let refused = PgStore::connect(&database.url, 1).await.unwrap_err();
    assert!(format!("{refused:?}").contains("ReadOnly"), "{refused:?}");
    alter(&database, "RESET default_transaction_read_only").await;
    for n in 0..20 {
        register(&users, n).await.unwrap();
    }
    store.ping().await.unwrap();
}

/// Without a failure in between: the connections were made while the server took no writes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn the_first_command_on_a_read_only_connection_is_tried_again() {
    let database = Database::create().await;
    PgStore::connect(&database.url, 1).await.unwrap().migrate().await.unwrap();
    alter(&database, "SET default_transaction_read_only = on").await;
    let pool = pool(database.url.parse().unwrap(), 4).await;
    alter(&database, "RESET default_transaction_read_only").await;
    let users = users(PgStore::with_pool(pool));
    for n in 0..20 {
        register(&users, n).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn sessions_that_ended_while_idle_are_not_felt() {
    let database = Database::create().await;
    PgStore::connect(&database.url, 1).await.unwrap().migrate().await.unwrap();
    alter(&database, "SET idle_session_timeout = '100ms'").await;
    let store = PgStore::connect(&database.url, 4).await.unwrap();
    let users = users(store.clone());
    for n in 0..5 {
        register(&users, n).await.unwrap();
        store.user(nobody()).await.unwrap();
        store.ping().await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// A host or an operator may set another default. At repeatable read parallel commands on one row fail.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn the_isolation_of_a_database_is_not_inherited() {
    let database = Database::create().await;
    PgStore::connect(&database.url, 1).await.unwrap().migrate().await.unwrap();
    for (n, isolation) in ["repeatable read", "serializable"].into_iter().enumerate() {
        alter(&database, &format!("SET default_transaction_isolation = '{isolation}'")).await;
        let mailbox = Arc::new(Mailbox::default());
        let users = Arc::new(users_with(PgStore::connect(&database.url, 16).await.unwrap(), &mailbox));
        let address = user(&users, &mailbox, n).await;
        let calls = (0..100).map(|_| {
            let (users, address) = (Arc::clone(&users), address.clone());
            tokio::spawn(async move {
                users.sessions().login(&address, &Password::new(PASSWORD), &ClientContext::new()).await
            })
        });
        for call in calls.collect::<Vec<_>>() {
            let signed_in = call.await.unwrap();
            assert!(signed_in.is_ok(), "{isolation}: {:?}", signed_in.err());
        }
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_database_that_cannot_keep_every_text_is_refused() {
    let database = Database::create().await;
    let name = format!("{}_latin1", database.url.rsplit_once('/').unwrap().1);
    let admin = sqlx::PgPool::connect(&database.url).await.unwrap();
    let create =
        format!("CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    sqlx::query(AssertSqlSafe(create)).execute(&admin).await.unwrap();
    let url = format!("{}_latin1", database.url);
    let refused = PgStore::connect(&url, 1).await.unwrap_err();
    let said = std::error::Error::source(&refused).unwrap().to_string();
    assert!(said.contains("LATIN1") && said.contains("UTF8"), "{said}");
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    PgStore::with_pool(pool.clone()).migrate().await.unwrap_err();
    pool.close().await;
    sqlx::query(AssertSqlSafe(format!("DROP DATABASE {name}"))).execute(&admin).await.unwrap();
}
