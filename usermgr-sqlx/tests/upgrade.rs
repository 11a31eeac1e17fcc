//! Tables of an earlier version, with what it wrote, brought to this one; and this program on tables of a later one.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::sync::{Arc, Mutex};

use support::Database;
use time::OffsetDateTime;
use usermgr_core::conformance::{self, StoreHarness};
use usermgr_core::domain::email::Email;
use usermgr_core::domain::event::EventKind;
use usermgr_core::domain::id::{EventId, SessionId, UserId};
use usermgr_core::domain::mail::MailKind;
use usermgr_core::domain::role::Role;
use usermgr_core::domain::secret::Digest;
use usermgr_core::domain::user::Username;
use usermgr_core::port::store::account::{AccountStore as _, CredentialsQuery, UserQuery};
use usermgr_core::port::store::event::{EventFeed, EventQuery, EventStore as _};
use usermgr_core::port::store::key::KeyStore as _;
use usermgr_core::port::store::outbox::{OutboxQuery, OutboxStore as _};
use usermgr_core::port::store::session::{SessionKey, SessionQuery, SessionStore as _};
use usermgr_core::port::store::{Store, UpkeepStore as _};
use usermgr_sqlx::{MigrateError, PgStore, SqliteStore};
use uuid::Uuid;

const NOW: i64 = 1_800_000_000;

/// What version 1 wrote: an administrator who is signed in with an opaque token, a user, and a signing key. `$bytes` and
/// `$time` are how the database writes bytes and a time.
macro_rules! rows_of_version_1 {
    ($id:ident, $bytes:ident, $time:ident) => {
        [
            format!(
                "INSERT INTO usermgr_users (id, email, email_key, username, roles, status, password_version, \
                 created_at, updated_at) VALUES ({}, 'Ana@example.org', 'ana@example.org', 'Ana', 'admin user', \
                 'active', 1, {t}, {t}), ({}, 'bob@example.org', 'bob@example.org', NULL, 'user', 'active', 1, {t}, {t})",
                $id(1),
                $id(2),
                t = $time(NOW)
            ),
            format!(
                "INSERT INTO usermgr_sessions (id, user_id, refresh, access, access_expires_at, password_version, \
                 method, created_at, authenticated_at, last_seen_at, idle_expires_at, expires_at) VALUES \
                 ({}, {}, {}, {}, {e}, 1, 'pwd', {t}, {t}, {t}, {e}, {e})",
                $id(3),
                $id(1),
                $bytes(7),
                $bytes(8),
                t = $time(NOW),
                e = $time(NOW + 900)
            ),
            format!(
                "INSERT INTO usermgr_outbox (id, kind, name, email, user_id, created_at, due_at, attempts, status) VALUES \
                 ({}, 'event', 'signed_in', NULL, {}, {t}, {t}, 3, 'queued'), \
                 ({}, 'event', 'user_registered', NULL, {}, {t}, {t}, 1, 'sent'), \
                 ({}, 'mail', 'welcome', 'bob@example.org', {}, {t}, {t}, 0, 'queued')",
                $id(5),
                $id(1),
                $id(6),
                $id(2),
                $id(7),
                $id(2),
                t = $time(NOW)
            ),
            format!(
                "INSERT INTO usermgr_signing_keys (id, algorithm, created_at, sealed) VALUES ({}, 'EdDSA', {}, {})",
                $id(4),
                $time(NOW),
                $bytes(9)
            ),
        ]
    };
}

macro_rules! finds_what_version_1_wrote {
    ($store:ident) => {{
        let now = OffsetDateTime::from_unix_timestamp(NOW).unwrap();
        let ana = UserId::from_uuid(Uuid::from_u128(1));
        let admins = UserQuery { role: Some(Role::admin()), ..UserQuery::default() };
        let admins = $store.users(admins).await.unwrap().items;
        assert_eq!(admins.iter().map(|user| user.id).collect::<Vec<_>>(), [ana]);
        let named = UserQuery { prefix: Some("ana".into()), ..UserQuery::default() };
        assert_eq!($store.users(named).await.unwrap().items.len(), 1);
        assert_eq!($store.users(UserQuery::default()).await.unwrap().items.len(), 2);
        for key in [
            SessionKey::Access(Digest::from_bytes([8; 32])),
            SessionKey::Id(SessionId::from_uuid(Uuid::from_u128(3))),
        ] {
            let view = $store.session(SessionQuery { now, key }).await.unwrap().unwrap();
            assert_eq!(view.user.id, ana, "who was signed in still is");
        }
        let keys = $store.signing_keys().await.unwrap();
        assert_eq!((keys.len(), keys[0].signs_from), (1, keys[0].created_at), "the key goes on signing");
        let EventFeed::Page { events, .. } = $store.events(EventQuery::default()).await.unwrap() else {
            panic!("nothing was purged");
        };
        let told: Vec<_> =
            events.iter().map(|event| (event.id, event.kind, event.user_id, event.at)).collect();
        let queued = EventId::from_uuid(Uuid::from_u128(5));
        assert_eq!(told, [(queued, EventKind::SignedIn, ana, now)], "what was not told yet still is to be");
        let mails = $store.outbox(OutboxQuery::default()).await.unwrap().items;
        assert_eq!(mails.iter().map(|entry| entry.mail.kind).collect::<Vec<_>>(), [MailKind::Welcome]);
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_is_brought_from_version_1() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("users.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let (id, bytes) =
        (|n: u128| format!("x'{n:032x}'"), |n: u8| format!("x'{}'", format!("{n:02x}").repeat(32)));
    let time = |seconds: i64| format!("{}", seconds * 1_000_000);
    let version = "CREATE TABLE usermgr_schema (version BIGINT PRIMARY KEY)".to_owned();
    let tables = include_str!("../migrations/sqlite/0001_initial.sql").to_owned();
    let rows = rows_of_version_1!(id, bytes, time);
    for statement in [version, "INSERT INTO usermgr_schema VALUES (1)".into(), tables].into_iter().chain(rows)
    {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
    }
    let store = SqliteStore::with_pool(pool);
    store.migrate().await.unwrap();
    finds_what_version_1_wrote!(store);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn postgres_is_brought_from_version_1() {
    let database = Database::create().await;
    let pool = sqlx::PgPool::connect(&database.url).await.unwrap();
    let id = |n: u128| format!("'{}'", Uuid::from_u128(n));
    let bytes = |n: u8| format!("decode('{}', 'hex')", format!("{n:02x}").repeat(32));
    let time = |seconds: i64| format!("to_timestamp({seconds})");
    let version = "CREATE TABLE usermgr_schema (version BIGINT PRIMARY KEY)".to_owned();
    let tables = include_str!("../migrations/postgres/0001_initial.sql").to_owned();
    let rows = rows_of_version_1!(id, bytes, time);
    for statement in [version, "INSERT INTO usermgr_schema VALUES (1)".into(), tables].into_iter().chain(rows)
    {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
    }
    let store = PgStore::with_pool(pool);
    store.migrate().await.unwrap();
    finds_what_version_1_wrote!(store);
}

/// What a next version does that keeps to the rule of docs/operations.md: it adds, and asks for nothing.
const NEXT: &[&str] = &[
    "ALTER TABLE usermgr_users ADD COLUMN nickname TEXT",
    "ALTER TABLE usermgr_codes ADD COLUMN channel TEXT NOT NULL DEFAULT 'mail'",
    "ALTER TABLE usermgr_outbox ADD COLUMN batch INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE usermgr_sessions ADD COLUMN device TEXT",
    "ALTER TABLE usermgr_jobs ADD COLUMN note TEXT",
    "CREATE TABLE usermgr_next (id BIGINT PRIMARY KEY)",
    "CREATE INDEX usermgr_audit_request ON usermgr_audit (request_id)",
];

/// Does what a program of the next version does to the tables. Programs of the version before go on.
macro_rules! upgraded_by_the_next_version {
    ($store:ident, $pool:ident) => {{
        let known = $store.schema().await.unwrap().known;
        for statement in NEXT {
            sqlx::query(*statement).execute(&$pool).await.unwrap();
        }
        sqlx::query("INSERT INTO usermgr_schema (version, oldest) VALUES ($1, $2)")
            .bind(known + 1)
            .bind(known)
            .execute(&$pool)
            .await
            .unwrap();
        known
    }};
}

/// A server that runs while the tables are upgraded, and one that is started afterwards.
macro_rules! goes_on_or_not {
    ($store:ident, $pool:ident) => {{
        let running = $store::with_pool($pool.clone());
        running.migrate().await.unwrap();
        let known = upgraded_by_the_next_version!(running, $pool);
        let started = $store::with_pool($pool.clone());
        started.migrate().await.unwrap();
        for store in [&running, &started] {
            store.ping().await.unwrap();
            let schema = store.schema().await.unwrap();
            assert_eq!((schema.found, schema.oldest, schema.pending.len()), (known + 1, known, 0));
        }
        let version: i64 =
            sqlx::query_scalar("SELECT MAX(version) FROM usermgr_schema").fetch_one(&$pool).await.unwrap();
        assert_eq!(version, known + 1, "an older program leaves the tables as they are");

        // The version after it takes away what this one needs.
        sqlx::query("INSERT INTO usermgr_schema (version, oldest) VALUES ($1, $2)")
            .bind(known + 2)
            .bind(known + 1)
            .execute(&$pool)
            .await
            .unwrap();
        let too_new = |error: &MigrateError| match error {
            MigrateError::SchemaTooNew { found, oldest, .. } => (*found, *oldest) == (known + 2, known + 1),
            _ => false,
        };
        let refused = $store::with_pool($pool.clone()).migrate().await;
        assert!(refused.as_ref().is_err_and(too_new), "{refused:?}");
        assert!(running.schema().await.as_ref().is_err_and(too_new));
        let unready = running.ping().await.unwrap_err();
        let said = format!("{unready}");
        assert!(said.contains("run a newer program"), "no more requests are sent here: {said}");
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_of_the_next_version_is_worked_on_as_far_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("users.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    goes_on_or_not!(SqliteStore, pool);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn postgres_of_the_next_version_is_worked_on_as_far_as_it_says() {
    let database = Database::create().await;
    let pool = sqlx::PgPool::connect(&database.url).await.unwrap();
    goes_on_or_not!(PgStore, pool);
}

/// Stores of this program on tables that the next version upgraded while they were open.
enum Upgraded {
    Sqlite(Mutex<Vec<tempfile::TempDir>>),
    Postgres(Mutex<Vec<Database>>),
}

#[async_trait::async_trait]
impl StoreHarness for Upgraded {
    async fn fresh(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(folders) => {
                let folder = tempfile::tempdir().unwrap();
                let url = format!("sqlite://{}", folder.path().join("users.db").display());
                folders.lock().unwrap().push(folder);
                let store = SqliteStore::connect(&url, 4).await.unwrap();
                store.migrate().await.unwrap();
                let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
                upgraded_by_the_next_version!(store, pool);
                Arc::new(store)
            }
            Self::Postgres(databases) => {
                let database = Database::create().await;
                let store = PgStore::connect(&database.url, 10).await.unwrap();
                store.migrate().await.unwrap();
                let pool = sqlx::PgPool::connect(&database.url).await.unwrap();
                databases.lock().unwrap().push(database);
                upgraded_by_the_next_version!(store, pool);
                pool.close().await;
                Arc::new(store)
            }
        }
    }
}

/// Laws that write and read every table.
async fn laws_hold(harness: Upgraded) {
    use conformance::{administration, codes, deletion, jobs, outbox, records, refresh, upkeep};
    codes::a_registration_is_begun_once(&harness).await;
    codes::a_code_is_spent_once(&harness).await;
    codes::setting_a_password_ends_and_voids_everything(&harness).await;
    refresh::a_refresh_token_is_renewed_once(&harness).await;
    administration::what_differs_is_changed(&harness).await;
    deletion::a_restorable_user_comes_back_in_time(&harness).await;
    outbox::a_lease_is_fenced(&harness).await;
    outbox::events_tell_of_passwords_and_sign_ins(&harness).await;
    records::an_audit_entry_comes_back_as_it_went_in(&harness).await;
    records::an_imported_user_comes_back_as_it_went_in(&harness).await;
    upkeep::a_deleted_user_is_purged_with_all_that_is_theirs(&harness).await;
    jobs::one_of_many_gets_the_run(&harness).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn laws_hold_on_sqlite_of_the_next_version() {
    laws_hold(Upgraded::Sqlite(Mutex::default())).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn laws_hold_on_postgres_of_the_next_version() {
    laws_hold(Upgraded::Postgres(Mutex::default())).await;
}

/// Makes the tables as version 6 had them, with what it wrote of addresses that it folded by the neighbours of a letter.
macro_rules! written_by_version_9 {
    ($pool:ident, $database:literal, $id:expr, $time:expr) => {{
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/", $database);
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let mut statements = vec!["CREATE TABLE usermgr_schema (version BIGINT PRIMARY KEY)".to_owned()];
        for file in files {
            let version = file.file_name().unwrap().to_str().unwrap()[..4].parse::<i64>().unwrap();
            if version < 7 {
                statements.push(std::fs::read_to_string(&file).unwrap());
                statements.push(format!("INSERT INTO usermgr_schema (version) VALUES ({version})"));
            }
        }
        let (id, time) = ($id, $time);
        for (n, address, key, verified, made, deleted) in [
            (1, "Νίκος@example.org", "νίκος@example.org", true, 10, false),
            // Folds like the first now, is older and not proven.
            (2, "ΝΊΚΟΣ@example.org", "νίκοσ@example.org", false, 5, false),
            (3, "maße@example.org", "maße@example.org", true, 20, false),
            // Has the key that the third gets, and is older.
            (4, "masse@example.org", "masse@example.org", true, 15, false),
            (5, "josé@example.org", "josé@example.org", true, 1, false),
            (6, "ρήγας@example.org", "ρήγας@example.org", true, 1, false),
            (7, "ῥῆγας@example.org", "ῥῆγας@example.org", true, 1, true),
        ] {
            let optional = |is: bool| if is { time(NOW) } else { "NULL".to_owned() };
            statements.push(format!(
                "INSERT INTO usermgr_users (id, email, email_key, username, username_key, roles, status, password_version, \
                 created_at, updated_at, email_verified_at, deleted_at) VALUES ({}, '{address}', '{key}', 'Γιώργος ẞ', \
                 'γιώργος ß', 'user', 'active', 1, {}, {}, {}, {})",
                id(n),
                time(NOW + made),
                time(NOW),
                optional(verified),
                optional(deleted),
            ));
        }
        for (key, reason) in [("ρήγας@example.org", "bounce"), ("ρήγασ@example.org", "complaint"), ("ß@a.org", "bounce")] {
            statements.push(format!("INSERT INTO usermgr_undeliverable VALUES ('{key}', '{reason}', {})", time(NOW)));
        }
        statements.push(format!(
            "INSERT INTO usermgr_audit (id, at, event, outcome, email) VALUES ({}, {}, 'login', 'success', 'ρήγας@example.org')",
            id(9),
            time(NOW),
        ));
        for statement in statements {
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&$pool).await.unwrap();
        }
    }};
}

macro_rules! keys_are_folded_anew {
    ($store:ident, $pool:ident) => {{
        $store.migrate().await.unwrap();
        let find = async |address: &str| {
            let email = Email::parse(address).unwrap().key().clone();
            let now = OffsetDateTime::from_unix_timestamp(NOW).unwrap();
            let query = CredentialsQuery { now, email, guard: None };
            let found = $store.credentials(query).await.unwrap();
            found.user.map(|credentials| credentials.user.id.as_uuid().as_u128())
        };
        for spelling in ["Νίκος@example.org", "ΝΊΚΟΣ@example.org", "νίκοσ@example.org"] {
            assert_eq!(find(spelling).await, Some(1), "{spelling}: who proved the address keeps it");
        }
        for spelling in ["masse@example.org", "MASSE@example.org", "maße@example.org", "MAẞE@example.org"]
        {
            assert_eq!(find(spelling).await, Some(4), "{spelling}: of two who proved it the older one");
        }
        assert_eq!(find("JOSÉ@example.org").await, Some(5));
        assert_eq!(find("ΡΉΓΑΣ@example.org").await, Some(6));
        for id in [2, 3] {
            let user = $store.user(UserId::from_uuid(Uuid::from_u128(id))).await.unwrap();
            assert!(user.is_some(), "{id} is not lost");
        }
        let named = UserQuery { prefix: Some(Username::folded("ΓΙΏΡΓΟΣ SS")), ..UserQuery::default() };
        assert_eq!($store.users(named).await.unwrap().items.len(), 6, "found by the name as it folds now");
        let dump = async || {
            let users: Vec<(String,)> = sqlx::query_as("SELECT email_key FROM usermgr_users ORDER BY id")
                .fetch_all(&$pool)
                .await
                .unwrap();
            let marks: Vec<(String,)> =
                sqlx::query_as("SELECT email_key FROM usermgr_undeliverable ORDER BY email_key")
                    .fetch_all(&$pool)
                    .await
                    .unwrap();
            let audit: Vec<(String,)> =
                sqlx::query_as("SELECT email FROM usermgr_audit").fetch_all(&$pool).await.unwrap();
            [users, marks, audit].map(|rows| rows.into_iter().map(|(key,)| key).collect::<Vec<_>>())
        };
        let after = dump().await;
        assert_eq!(after[1], ["ss@a.org", "ρήγασ@example.org"]);
        assert_eq!(after[2], ["ρήγασ@example.org"]);
        assert_eq!(after[0][6], "ῥῆγασ@example.org");
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keys_of_earlier_versions_are_folded_anew() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("users.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let id = |n: u128| format!("x'{n:032x}'");
    written_by_version_9!(pool, "sqlite", id, |seconds: i64| format!("{}", seconds * 1_000_000));
    let store = SqliteStore::with_pool(pool.clone());
    keys_are_folded_anew!(store, pool);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn postgres_keys_of_earlier_versions_are_folded_anew() {
    let database = Database::create().await;
    let pool = sqlx::PgPool::connect(&database.url).await.unwrap();
    let id = |n: u128| format!("'{}'", Uuid::from_u128(n));
    written_by_version_9!(pool, "postgres", id, |seconds: i64| format!("to_timestamp({seconds})"));
    let store = PgStore::with_pool(pool.clone());
    keys_are_folded_anew!(store, pool);
}
