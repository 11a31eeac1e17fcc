//! A database of the run's own, with users in it.

use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr as _;

use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use crate::Trouble;
use crate::machine::parent;

/// Which database a server keeps its users in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Store {
    /// A file, with durable commits.
    Sqlite,
    /// The cluster that the script started.
    Postgres,
}

impl Store {
    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// The password of every user.
pub const PASSWORD: &str = "correct horse battery";

/// The address of the n-th user.
pub fn user_email(n: usize) -> String {
    format!("user{n}@example.org")
}

/// As the product opens its file.
///
/// # Errors
/// When the URL is none.
pub fn sqlite_options(url: &str) -> Result<SqliteConnectOptions, Trouble> {
    Ok(SqliteConnectOptions::from_str(url)?
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(std::time::Duration::from_secs(10)))
}

#[derive(Debug)]
enum Pool {
    Sqlite(sqlx::SqlitePool),
    Postgres { pool: sqlx::PgPool, admin: sqlx::PgPool, name: String },
}

/// A database that is removed at the end.
#[derive(Debug)]
pub struct Database {
    /// Where it is.
    pub url: String,
    pool: Pool,
    /// For files that go with it.
    pub folder: tempfile::TempDir,
    /// The process whose children are PostgreSQL's connections, if it runs here.
    pub postmaster: Option<u32>,
}

/// The throw-away cluster.
///
/// # Errors
/// When no script started one.
#[expect(clippy::disallowed_methods, reason = "how the script names its throw-away cluster")]
pub fn postgres_url() -> Result<String, Trouble> {
    std::env::var("USERMGR_TEST_POSTGRES_URL")
        .map_err(|_| "USERMGR_TEST_POSTGRES_URL names a cluster: run scripts/load".into())
}

/// The version of PostgreSQL and what makes its commits durable.
///
/// # Errors
/// When it cannot be asked.
pub async fn postgres_description() -> Result<String, Trouble> {
    let pool = sqlx::PgPool::connect(&postgres_url()?).await?;
    let mut text = String::new();
    for name in ["server_version", "fsync", "synchronous_commit", "full_page_writes"] {
        let value: String =
            sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&pool).await?;
        let name = if name == "server_version" { "PostgreSQL" } else { name };
        text = format!("{text}{}{name} {value}", if text.is_empty() { "" } else { ", " });
    }
    pool.close().await;
    Ok(text)
}

impl Database {
    /// A new and empty one.
    ///
    /// # Errors
    /// When that fails.
    pub async fn create(store: Store, name: &str) -> Result<Self, Trouble> {
        let folder = tempfile::tempdir()?;
        if store == Store::Sqlite {
            let url = format!("sqlite://{}", folder.path().join("usermgr.db").display());
            let pool = sqlx::SqlitePool::connect_lazy_with(sqlite_options(&url)?);
            return Ok(Self { url, pool: Pool::Sqlite(pool), folder, postmaster: None });
        }
        let url = postgres_url()?;
        let (base, _) = url.rsplit_once('/').ok_or("USERMGR_TEST_POSTGRES_URL ends in a database")?;
        let name = format!("load_{name}_{}", std::process::id());
        let admin = sqlx::PgPool::connect(&url).await?;
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await?;
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&admin).await?;
        let url = format!("{base}/{name}");
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect_lazy(&url)?;
        let postmaster = u32::try_from(backend).ok().and_then(parent);
        Ok(Self { url, pool: Pool::Postgres { pool, admin, name }, folder, postmaster })
    }

    /// A number, as of `SELECT count(*)`.
    ///
    /// # Errors
    /// When that fails.
    pub async fn number(&self, sql: &'static str) -> Result<i64, Trouble> {
        Ok(match &self.pool {
            Pool::Sqlite(pool) => sqlx::query_scalar(sql).fetch_one(pool).await?,
            Pool::Postgres { pool, .. } => sqlx::query_scalar(sql).fetch_one(pool).await?,
        })
    }

    /// Does something in the words of its database, and says to how many rows.
    ///
    /// # Errors
    /// When that fails.
    pub async fn execute(&self, sqlite: &'static str, postgres: &'static str) -> Result<u64, Trouble> {
        Ok(match &self.pool {
            Pool::Sqlite(pool) => sqlx::query(sqlite).execute(pool).await?.rows_affected(),
            Pool::Postgres { pool, .. } => sqlx::query(postgres).execute(pool).await?.rows_affected(),
        })
    }

    /// How many bytes it has.
    ///
    /// # Errors
    /// When that fails.
    pub async fn size(&self) -> Result<i64, Trouble> {
        const SQLITE: &str = "SELECT (SELECT page_count FROM pragma_page_count()) * (SELECT page_size FROM pragma_page_size())";
        match &self.pool {
            Pool::Sqlite(_) => self.number(SQLITE).await,
            Pool::Postgres { .. } => self.number("SELECT pg_database_size(current_database())").await,
        }
    }

    /// Statistics as an hour of life gathers them, so that no plan depends on when the run began.
    ///
    /// # Errors
    /// When that fails.
    pub async fn settle(&self) -> Result<(), Trouble> {
        match &self.pool {
            Pool::Sqlite(pool) => {
                sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(pool).await?;
            }
            Pool::Postgres { pool, .. } => {
                sqlx::query("VACUUM ANALYZE").execute(pool).await?;
                sqlx::query("CHECKPOINT").execute(pool).await?;
            }
        }
        Ok(())
    }

    /// A file of users for `users import`, all with one password.
    ///
    /// # Errors
    /// When that fails.
    pub fn users_file(&self, users: usize, hash: &str) -> Result<PathBuf, Trouble> {
        let path = self.folder.path().join("users.jsonl");
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
        for n in 0..users {
            let user = serde_json::json!({"email": user_email(n), "username": format!("User {n}"), "password_hash": hash});
            writeln!(file, "{user}")?;
        }
        file.flush()?;
        Ok(path)
    }

    /// Removes it.
    ///
    /// # Errors
    /// When that fails.
    pub async fn remove(self) -> Result<(), Trouble> {
        match self.pool {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres { pool, admin, name } => {
                pool.close().await;
                sqlx::query(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")))
                    .execute(&admin)
                    .await?;
                admin.close().await;
            }
        }
        Ok(())
    }
}
