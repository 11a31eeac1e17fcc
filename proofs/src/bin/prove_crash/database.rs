//! Databases: made once, copied for each point, and read past the server.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sqlx::{AssertSqlSafe, PgPool, SqlitePool};
use tokio::sync::Mutex;

use crate::Fallible;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// A database of its own, removed at the end by [`remove`](Self::remove).
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) folder: tempfile::TempDir,
    name: String,
    admin: Option<String>,
}

/// Postgres copies a database only while nobody else does.
static COPYING: Mutex<()> = Mutex::const_new(());

impl Database {
    pub(crate) async fn create(kind: Kind, admin: &str) -> Fallible<Self> {
        Self::make(kind, admin, None).await
    }

    async fn make(kind: Kind, admin: &str, from: Option<&Self>) -> Fallible<Self> {
        let folder = tempfile::Builder::new().prefix("crash").tempdir()?;
        let name = folder.path().file_name().map(|name| name.to_string_lossy().to_lowercase());
        let name = name.unwrap_or_default().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        if kind == Kind::Sqlite {
            let url = format!("sqlite://{}", folder.path().join("usermgr.db").display());
            for name in ["usermgr.db", "usermgr.db-wal"] {
                let source = from.map(|from| from.folder.path().join(name)).filter(|path| path.exists());
                if let Some(source) = source {
                    std::fs::copy(source, folder.path().join(name))?;
                }
            }
            return Ok(Self { url, folder, name, admin: None });
        }
        let guard = COPYING.lock().await;
        let pool = PgPool::connect(admin).await?;
        let template = from.map(|from| format!(" TEMPLATE {}", from.name)).unwrap_or_default();
        // A name may differ from another in case only.
        let name =
            format!("{name}_{}", folder.path().display().to_string().bytes().map(u64::from).sum::<u64>());
        let sql = format!("CREATE DATABASE {name}{template}");
        let made = sqlx::query(AssertSqlSafe(sql)).execute(&pool).await;
        pool.close().await;
        drop(guard);
        made?;
        let (base, _) = admin.rsplit_once('/').ok_or("the URL of Postgres names no database")?;
        Ok(Self { url: format!("{base}/{name}"), folder, name, admin: Some(admin.to_owned()) })
    }

    pub(crate) async fn copy(&self) -> Fallible<Self> {
        match &self.admin {
            None => Self::make(Kind::Sqlite, "", Some(self)).await,
            Some(admin) => Self::make(Kind::Postgres, admin, Some(self)).await,
        }
    }

    pub(crate) async fn remove(self) -> Fallible<()> {
        if let Some(admin) = &self.admin {
            let pool = PgPool::connect(admin).await?;
            let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
            sqlx::query(AssertSqlSafe(sql)).execute(&pool).await?;
            pool.close().await;
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) async fn open(&self) -> Fallible<Reader> {
        Ok(match self.admin {
            None => Reader::Sqlite(SqlitePool::connect(&self.url).await?),
            Some(_) => Reader::Postgres(PgPool::connect(&self.url).await?),
        })
    }

    /// Cuts every connection of the server to Postgres.
    pub(crate) async fn cut(&self) -> Fallible<()> {
        let Some(admin) = &self.admin else { return Ok(()) };
        let pool = PgPool::connect(admin).await?;
        sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1")
            .bind(&self.name)
            .execute(&pool)
            .await?;
        pool.close().await;
        Ok(())
    }
}

/// A look past the server.
pub(crate) enum Reader {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// What stands in the tables for each person, without identifiers, times and what a worker does meanwhile.
pub(crate) type Snapshot = BTreeMap<String, Vec<String>>;

/// Who limits belong to.
pub(crate) const EVERYBODY: &str = "limits";

/// A mail in the outbox.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct MailRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) attempts: i64,
    /// Whether its code is open.
    pub(crate) live: i64,
    /// Whether its code has begun to live.
    pub(crate) begun: i64,
}

/// Each table as owner and text. `hex(…)` and `NOW` are put in for each database.
const TABLES: &[&str] = &[
    "SELECT hex(id), 'user ' || email || ' ' || roles || ' ' || status || ' ' || sign(email_verified_at) \
     || sign(locale) || sign(password) || sign(last_login_at) || sign(deleted_at) || sign(restorable_until) \
     || ' v' || CAST(password_version AS TEXT) FROM usermgr_users",
    "SELECT email, 'registration ' || email FROM usermgr_registrations",
    "SELECT email_key, 'code ' || purpose || ' ' || CAST(digits AS TEXT) || ' ' || sign(registration_id) \
     || sign(user_id) || sign(closed_at) || ' ' || CAST(wrong_tries AS TEXT) || ' ' || COALESCE(new_email, '') \
     FROM usermgr_codes",
    "SELECT hex(user_id), 'session ' || method || ' v' || CAST(password_version AS TEXT) || ' ' \
     || sign(previous_refresh) || sign(ended_at) FROM usermgr_sessions",
    "SELECT hex(s.user_id), 'access token' FROM usermgr_access_tokens a \
     JOIN usermgr_sessions s ON s.id = a.session_id",
    "SELECT COALESCE(email, hex(user_id)), 'owes ' || name || ' ' || COALESCE(email, '') || ' ' \
     || sign(code_id) FROM usermgr_outbox",
    "SELECT hex(user_id), 'event ' || kind || ' ' || sign(session_id) FROM usermgr_events",
    "SELECT COALESCE(email, hex(subject), hex(actor)), 'audit ' || event || ' ' || outcome || ' ' \
     || COALESCE(reason, '') || ' ' || COALESCE(email, '') || ' ' || sign(actor) || sign(subject) \
     FROM usermgr_audit",
    "SELECT hex(user_id), 'network' FROM usermgr_networks",
    "SELECT hex(user_id), 'role ' || role FROM usermgr_user_roles",
    "SELECT 'limits', 'limit ' || CAST(count AS TEXT) FROM usermgr_throttles WHERE ends_at > NOW",
];

impl Reader {
    /// A statement in the words of its database.
    fn words(&self, sql: &str) -> String {
        let mut sql = match self {
            Self::Sqlite(_) => sql.replace("NOW", "(CAST(unixepoch('subsec') * 1000000 AS INTEGER))"),
            Self::Postgres(_) => sql.replace("NOW", "now()"),
        };
        for (word, sqlite, postgres) in [
            ("hex(", ("lower(hex(", "))"), ("replace(CAST(", " AS TEXT), '-', '')")),
            (
                "sign(",
                ("(CASE WHEN ", " IS NULL THEN '-' ELSE '+' END)"),
                ("(CASE WHEN ", " IS NULL THEN '-' ELSE '+' END)"),
            ),
        ] {
            let (before, after) = if matches!(self, Self::Sqlite(_)) { sqlite } else { postgres };
            let mut put = String::new();
            let mut rest = sql.as_str();
            while let Some((head, tail)) = rest.split_once(word) {
                let (inner, tail) = tail.split_once(')').unwrap_or((tail, ""));
                put.push_str(head);
                put.push_str(before);
                put.push_str(inner);
                put.push_str(after);
                rest = tail;
            }
            put.push_str(rest);
            sql = put;
        }
        sql
    }

    async fn pairs(&self, sql: &str) -> Fallible<Vec<(Option<String>, String)>> {
        let sql = AssertSqlSafe(self.words(sql));
        Ok(match self {
            Self::Sqlite(pool) => sqlx::query_as(sql).fetch_all(pool).await?,
            Self::Postgres(pool) => sqlx::query_as(sql).fetch_all(pool).await?,
        })
    }

    /// Changes rows; answers how many.
    pub(crate) async fn run(&self, sql: &str) -> Fallible<u64> {
        let sql = AssertSqlSafe(self.words(sql));
        Ok(match self {
            Self::Sqlite(pool) => sqlx::query(sql).execute(pool).await?.rows_affected(),
            Self::Postgres(pool) => sqlx::query(sql).execute(pool).await?.rows_affected(),
        })
    }

    pub(crate) async fn snapshot(&self) -> Fallible<Snapshot> {
        let mut snapshot = Snapshot::new();
        let mut users = BTreeMap::new();
        for sql in TABLES {
            for (owner, line) in self.pairs(sql).await? {
                let owner = owner.unwrap_or_default();
                if let Some(address) = line.strip_prefix("user ") {
                    users.insert(owner.clone(), prefix(address));
                }
                let owner = match users.get(&owner) {
                    Some(prefix) => prefix.clone(),
                    None if owner == EVERYBODY => owner,
                    None => prefix(&owner),
                };
                let line = line.replace(&owner, "p.");
                snapshot.entry(owner).or_default().push(line);
            }
        }
        for lines in snapshot.values_mut() {
            lines.sort_unstable();
        }
        Ok(snapshot)
    }

    pub(crate) async fn mails(&self) -> Fallible<Vec<MailRow>> {
        let sql = AssertSqlSafe(self.words(
            "SELECT hex(o.id) AS id, o.name, o.status, CAST(o.attempts AS BIGINT) AS attempts, \
             CAST(CASE WHEN c.id IS NOT NULL AND c.closed_at IS NULL THEN 1 ELSE 0 END AS BIGINT) AS live, \
             CAST(CASE WHEN c.expires_at IS NOT NULL THEN 1 ELSE 0 END AS BIGINT) AS begun \
             FROM usermgr_outbox o LEFT JOIN usermgr_codes c ON c.id = o.code_id",
        ));
        Ok(match self {
            Self::Sqlite(pool) => sqlx::query_as(sql).fetch_all(pool).await?,
            Self::Postgres(pool) => sqlx::query_as(sql).fetch_all(pool).await?,
        })
    }

    /// How many leases end later than five minutes from now.
    pub(crate) async fn endless_leases(&self) -> Fallible<usize> {
        let limit = match self {
            Self::Sqlite(_) => "NOW + 300000000",
            Self::Postgres(_) => "NOW + interval '5 minutes'",
        };
        let sql = format!("SELECT hex(id), 'lease' FROM usermgr_outbox WHERE lease_until > {limit}");
        Ok(self.pairs(&sql).await?.len())
    }

    /// Has the leases pass that were given longer than so many seconds ago, as if five minutes had gone by.
    pub(crate) async fn pass_leases(&self, seconds: f64) -> Fallible<u64> {
        let (then, limit) = match self {
            Self::Sqlite(_) => ("0".to_owned(), format!("NOW + 300000000 - {}", (seconds * 1e6).round())),
            Self::Postgres(_) => {
                ("TIMESTAMPTZ 'epoch'".to_owned(), format!("NOW + interval '{} seconds'", 300.0 - seconds))
            }
        };
        let sql = format!("UPDATE usermgr_outbox SET lease_until = {then} WHERE lease_until <= {limit}");
        self.run(&sql).await
    }

    pub(crate) async fn is_sound(&self) -> Fallible<bool> {
        let Self::Sqlite(pool) = self else { return Ok(true) };
        let found: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(pool).await?;
        let broken = sqlx::query("PRAGMA foreign_key_check").fetch_all(pool).await?;
        Ok(found == "ok" && broken.is_empty())
    }

    pub(crate) async fn close(self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// `p3.` of `p3.ana@example.org`.
fn prefix(address: &str) -> String {
    match address.split_once('.') {
        Some((prefix, _)) if !prefix.contains('@') => format!("{prefix}."),
        _ => "others".to_owned(),
    }
}
