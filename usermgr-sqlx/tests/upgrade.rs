//! Tables of an earlier version, with what it wrote, brought to this one.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use support::Database;
use time::OffsetDateTime;
use usermgr_core::domain::event::EventKind;
use usermgr_core::domain::id::{EventId, SessionId, UserId};
use usermgr_core::domain::mail::MailKind;
use usermgr_core::domain::role::Role;
use usermgr_core::domain::secret::Digest;
use usermgr_core::port::store::account::{AccountStore as _, UserQuery};
use usermgr_core::port::store::event::{EventFeed, EventQuery, EventStore as _};
use usermgr_core::port::store::key::KeyStore as _;
use usermgr_core::port::store::outbox::{OutboxQuery, OutboxStore as _};
use usermgr_core::port::store::session::{SessionKey, SessionQuery, SessionStore as _};
use usermgr_sqlx::{PgStore, SqliteStore};
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
