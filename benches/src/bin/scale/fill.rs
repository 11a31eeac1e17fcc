//! Users by the million. The first come in as users do, by an import; the others are made of them inside the database, with
//! identifiers, addresses and names of their own, and without events, which do not live for long.

use std::time::Instant;

use sqlx::sqlite::{SqliteConnection, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use time::Duration;
use usermgr_benches::database::{Database, Store as Engine, sqlite_options};
use usermgr_core::domain::id::UserId;
use usermgr_core::port::store::Store;
use usermgr_core::port::store::account::ImportUsers;

use crate::site::{BEGAN, user};

/// How many come by the import: users of one day, who come again in the order of their rows on each of the next.
const IMPORTED: u64 = 10_000;
/// How many at once.
const BATCH: u64 = 2_000;
/// How many copies of them one statement makes.
const COPIES: u64 = 50;

/// Fills an empty database with so many users.
pub(crate) async fn fill(store: &dyn Store, engine: Engine, database: &Database, users: u64, hash: &str) {
    let began = Instant::now();
    let tell = |next: u64| eprint!("\r{next} users, {:.0} s ", began.elapsed().as_secs_f64());
    let imported = users.min(IMPORTED);
    for first in (0..imported).step_by(usize::try_from(BATCH).unwrap()) {
        let users = (first..imported.min(first + BATCH)).map(|n| user(n, hash)).collect();
        store.import_users(ImportUsers { now: BEGAN, users }).await.unwrap();
    }
    tell(imported);
    assert!(users == imported || users.is_multiple_of(IMPORTED), "more users are a multiple of {IMPORTED}");
    let copies = users / IMPORTED;
    if copies > 1 {
        let mut filler = Filler::open(engine, &database.url).await;
        let indexes = filler.drop_indexes().await;
        for first in (1..copies).step_by(usize::try_from(COPIES).unwrap()) {
            let last = copies.min(first + COPIES) - 1;
            filler.copy_users(first, last).await;
            tell((last + 1) * IMPORTED);
        }
        for statement in filler.rest() {
            filler.run(statement).await;
            tell(users);
        }
        for index in indexes {
            filler.run(index).await;
            tell(users);
        }
    }
    eprintln!();
}

/// A connection that may lose everything.
enum Filler {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Filler {
    async fn open(engine: Engine, url: &str) -> Self {
        match engine {
            Engine::Sqlite => {
                let options = sqlite_options(url).unwrap().synchronous(SqliteSynchronous::Off);
                let options = options.pragma("cache_size", "-1000000").pragma("temp_store", "memory");
                Self::Sqlite(SqliteConnection::connect_with(&options).await.unwrap())
            }
            Engine::Postgres => {
                let mut filler = Self::Postgres(PgConnection::connect(url).await.unwrap());
                filler.run("SET synchronous_commit = off").await;
                filler.run("SET maintenance_work_mem = '1GB'").await;
                filler
            }
        }
    }

    async fn run(&mut self, statement: impl Into<String>) {
        let statement = AssertSqlSafe(statement.into());
        match self {
            Self::Sqlite(connection) => drop(sqlx::raw_sql(statement).execute(connection).await.unwrap()),
            Self::Postgres(connection) => drop(sqlx::raw_sql(statement).execute(connection).await.unwrap()),
        }
    }

    /// Drops what is quicker to make at once than to keep: all indexes but those that hold a primary key. Answers what makes
    /// them again.
    async fn drop_indexes(&mut self) -> Vec<String> {
        let sql = match self {
            Self::Sqlite(_) => {
                "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL \
                 AND tbl_name IN ('usermgr_users', 'usermgr_audit', 'usermgr_user_roles')"
            }
            Self::Postgres(_) => {
                "SELECT indexname::text, indexdef FROM pg_indexes WHERE indexname NOT LIKE '%_pkey' \
                 AND tablename IN ('usermgr_users', 'usermgr_audit', 'usermgr_user_roles')"
            }
        };
        let indexes: Vec<(String, String)> = match self {
            Self::Sqlite(connection) => sqlx::query_as(sql).fetch_all(connection).await.unwrap(),
            Self::Postgres(connection) => sqlx::query_as(sql).fetch_all(connection).await.unwrap(),
        };
        for (name, _) in &indexes {
            self.run(format!("DROP INDEX {name}")).await;
        }
        indexes.into_iter().map(|(_, makes)| makes).collect()
    }

    /// Makes these copies of the users of the import; their numbers go on, and addresses and names are those that
    /// [`user`] gives to their numbers.
    async fn copy_users(&mut self, first: u64, last: u64) {
        let began = BEGAN.unix_timestamp();
        let imported = Duration::milliseconds(i64::try_from(IMPORTED).unwrap() * 7);
        let end = UserId::first_of(BEGAN + imported).as_uuid().simple();
        let columns = "id, email, email_key, email_verified_at, username, username_key, roles, status, password, \
            password_version, created_at, updated_at";
        let own = "roles, status, password, password_version";
        self.run(match self {
            Self::Sqlite(_) => format!(
                "WITH RECURSIVE copies (c) AS (SELECT {first} UNION ALL SELECT c + 1 FROM copies WHERE c < {last}), \
                 numbered AS (SELECT u.*, (u.created_at / 1000 - {began}000) / 7 + c * {IMPORTED} AS n \
                 FROM copies CROSS JOIN usermgr_users u WHERE u.id < unhex('{end}')), \
                 named AS (SELECT *, {began}000 + n * 7 AS ms, \
                 printf('%08x.%d@example.org', n * 2654435761 % 4294967296, n) AS address, \
                 printf('%08x', n * 2246822519 % 4294967296) AS name FROM numbered) \
                 INSERT INTO usermgr_users ({columns}) SELECT unhex(printf('%012x7', ms) || \
                 substr(hex(randomblob(2)), 2) || '8' || substr(hex(randomblob(8)), 2)), address, address, ms * 1000, \
                 'Person ' || name, 'person ' || name, {own}, ms * 1000, ms * 1000 FROM named"
            ),
            Self::Postgres(_) => format!(
                "WITH numbered AS (SELECT u.*, ((extract(epoch FROM u.created_at) - {began}) * 1000 / 7)::bigint \
                 + c * {IMPORTED}::bigint AS n FROM generate_series({first}, {last}) AS c CROSS JOIN usermgr_users u \
                 WHERE u.id < '{end}'::uuid), \
                 named AS (SELECT *, {began}000 + n * 7 AS ms, md5(n::text) AS chance, \
                 lpad(to_hex(n * 2654435761 % 4294967296), 8, '0') || '.' || n || '@example.org' AS address, \
                 lpad(to_hex(n * 2246822519 % 4294967296), 8, '0') AS name FROM numbered), \
                 timed AS (SELECT *, to_timestamp(ms / 1000.0) AS at FROM named) \
                 INSERT INTO usermgr_users ({columns}) SELECT (lpad(to_hex(ms), 12, '0') || '7' || \
                 substr(chance, 1, 3) || '8' || substr(chance, 4, 15))::uuid, address, address, at, \
                 'Person ' || name, 'person ' || name, {own}, at, at FROM timed ORDER BY n"
            ),
        })
        .await;
    }

    /// What makes the roles and the audit entries of the copies.
    fn rest(&self) -> [String; 2] {
        let began = BEGAN.unix_timestamp();
        let (copies, number, id) = match self {
            Self::Sqlite(_) => (
                format!("created_at >= {began}000000 + {IMPORTED} * 7000"),
                format!("(created_at / 1000 - {began}000) / 7"),
                "unhex(printf('%012x7', created_at / 1000) || substr(hex(randomblob(2)), 2) || '8' || \
                 substr(hex(randomblob(8)), 2))",
            ),
            Self::Postgres(_) => (
                format!("created_at >= to_timestamp({began} + {IMPORTED} * 0.007)"),
                format!("((extract(epoch FROM created_at) - {began}) * 1000 / 7)::bigint"),
                "(lpad(to_hex((extract(epoch FROM created_at) * 1000)::bigint), 12, '0') || '7' || \
                 substr(md5(email || 'audit'), 1, 3) || '8' || substr(md5(email || 'audit'), 4, 15))::uuid",
            ),
        };
        [
            format!(
                "INSERT INTO usermgr_user_roles (role, user_id) SELECT 'support', id FROM usermgr_users \
                 WHERE roles LIKE '%support%' AND {copies} ORDER BY id"
            ),
            format!(
                "INSERT INTO usermgr_audit (id, at, event, outcome, subject, email) SELECT {id}, created_at, \
                 CASE WHEN {number} % 100 = 25 THEN 'role_change' ELSE 'user_import' END, 'done', id, email_key \
                 FROM usermgr_users WHERE {copies} ORDER BY id"
            ),
        ]
    }
}
