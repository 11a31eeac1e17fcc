//! Bringing the tables to this version, and telling whether this program works on those of another.

use super::super::Db;
use super::{Store, refold};
use crate::error::MigrateError;
use crate::schema::SchemaStatus;

type Connection = <Db as sqlx::Database>::Connection;

/// A step of the tables. It is never edited after a release.
struct Migration {
    version: i64,
    file: &'static str,
    /// The oldest version whose programs go on working on the tables as this step leaves them.
    oldest: i64,
    statements: &'static str,
}

macro_rules! migrations {
    ($($version:literal from $oldest:literal: $file:literal,)+) => {
        &[$(Migration {
            version: $version,
            file: $file,
            oldest: $oldest,
            statements: migration!($file),
        }),+]
    };
}

/// Each with its version, and the oldest version whose programs may run beside it and after it.
const MIGRATIONS: &[Migration] = migrations![
    1 from 1: "0001_initial.sql",
    2 from 2: "0002_administration.sql",
    3 from 3: "0003_events.sql",
    4 from 3: "0004_jobs.sql",
    5 from 3: "0005_undeliverable.sql",
    6 from 3: "0006_profiles.sql",
    7 from 3: "0007_revoked_keys.sql",
    8 from 3: "0008_audit_is_kept.sql",
];

impl Store {
    /// Makes or upgrades the tables. Instances that start together take turns; all or nothing is done. Tables of a newer
    /// program are left as they are, if this one works on them.
    ///
    /// # Errors
    /// [`MigrateError`]; `SchemaTooNew` when a newer program has been here on whose tables this one does not work.
    pub async fn migrate(&self) -> Result<(), MigrateError> {
        self.check_server().await?;
        // Without taking turns first: mostly there is nothing to do.
        let there = Found::read(&mut *self.readers().acquire().await?).await;
        if let Ok(found) = there
            && found.version >= known()
        {
            if found.version > known() {
                tracing::info!(
                    found = found.version,
                    known = known(),
                    "a newer program has upgraded the tables; this one works on them"
                );
            }
            return Ok(());
        }
        self.upgrade().await.map_err(MigrateError::or_not_permitted)
    }

    async fn upgrade(&self) -> Result<(), MigrateError> {
        let mut tx = self.begin_migration().await?;
        make_schema_table(&mut tx).await?;
        let found = Found::read(&mut tx).await?;
        let pending = || MIGRATIONS.iter().filter(|migration| migration.version > found.version);
        for Migration { version, statements, .. } in pending() {
            sqlx::raw_sql(*statements).execute(&mut *tx).await?;
            sqlx::query("INSERT INTO usermgr_schema (version) VALUES ($1)")
                .bind(version)
                .execute(&mut *tx)
                .await?;
            if *version == refold::VERSION {
                refold::refold(&mut tx).await?;
            }
        }
        // Afterwards, for one of the steps makes the column.
        for Migration { version, oldest, .. } in pending() {
            sqlx::query("UPDATE usermgr_schema SET oldest = $2 WHERE version = $1")
                .bind(version)
                .bind(oldest)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// How the tables stand to this program. Changes nothing.
    ///
    /// # Errors
    /// [`MigrateError`]; `SchemaTooNew` when a newer program has been here on whose tables this one does not work.
    pub async fn schema(&self) -> Result<SchemaStatus, MigrateError> {
        // Read first: whoever runs on the tables without the right to make any asks too.
        let there = Found::read(&mut *self.readers().acquire().await?).await;
        let Found { version, oldest } = match there {
            Err(MigrateError::Database(_)) => {
                let mut tx = self.begin_migration().await?;
                // Never committed, so that an empty database answers too.
                make_schema_table(&mut tx).await?;
                Found::read(&mut tx).await?
            }
            there => there?,
        };
        let pending = MIGRATIONS.iter().filter(|migration| migration.version > version);
        Ok(SchemaStatus {
            found: version,
            known: known(),
            oldest,
            pending: pending.map(|migration| migration.file.trim_end_matches(".sql")).collect(),
        })
    }

    /// Whether this program works on the tables as they are.
    pub(super) async fn fits(connection: &mut Connection) -> Result<(), MigrateError> {
        let version = match Found::read(connection).await {
            Err(MigrateError::Database(error)) if is_without_tables(&error) => 0,
            found => found?.version,
        };
        if version < known() {
            return Err(MigrateError::SchemaTooOld { found: version, known: known() });
        }
        Ok(())
    }
}

/// Whether nothing was ever made: PostgreSQL's `undefined_table`, or what SQLite says in words alone.
fn is_without_tables(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.code().as_deref() == Some("42P01") || error.message().starts_with("no such table")
    })
}

async fn make_schema_table(connection: &mut Connection) -> Result<(), sqlx::Error> {
    let sql = "CREATE TABLE IF NOT EXISTS usermgr_schema (version BIGINT PRIMARY KEY)";
    sqlx::query(sql).execute(connection).await.map(drop)
}

/// The tables as they are.
struct Found {
    version: i64,
    /// The oldest version whose programs work on them, once this program's steps are done.
    oldest: i64,
}

impl Found {
    async fn read(connection: &mut Connection) -> Result<Self, MigrateError> {
        let version: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM usermgr_schema")
            .fetch_one(&mut *connection)
            .await?;
        if version <= known() {
            let oldest = MIGRATIONS.iter().map(|migration| migration.oldest).max().unwrap_or(0);
            return Ok(Self { version, oldest });
        }
        // A step that does not say for which programs it is, is for those alone that know it.
        let oldest: i64 = sqlx::query_scalar("SELECT MAX(COALESCE(oldest, version)) FROM usermgr_schema")
            .fetch_one(connection)
            .await?;
        if oldest > known() {
            return Err(MigrateError::SchemaTooNew { found: version, oldest, known: known() });
        }
        Ok(Self { version, oldest })
    }
}

/// The newest version that this program knows.
fn known() -> i64 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_rise_and_none_is_for_programs_of_the_future() {
        assert!(MIGRATIONS.is_sorted_by_key(|migration| migration.version));
        for Migration { version, file, oldest, .. } in MIGRATIONS {
            assert!((1..=*version).contains(oldest), "{file}");
            assert!(file.starts_with(&format!("{version:04}_")), "{file}");
        }
    }

    /// What takes something away, or asks for what older programs do not give.
    fn breaks_older_programs(statement: &str) -> bool {
        let words = statement.split_whitespace().map(str::to_uppercase).collect::<Vec<_>>().join(" ");
        if !words.contains("ALTER TABLE ") {
            return words.contains("DROP TABLE ");
        }
        let asks = words.contains(" NOT NULL") && !words.contains(" DEFAULT ");
        [" DROP ", " RENAME ", " TYPE ", " CONSTRAINT ", " UNIQUE", " CHECK "]
            .iter()
            .any(|word| words.contains(word))
            || asks
    }

    #[test]
    fn a_step_that_older_programs_survive_only_adds() {
        for statement in
            ["ALTER TABLE a DROP COLUMN b", "alter table a\n add b TEXT NOT NULL", "DROP TABLE a"]
        {
            assert!(breaks_older_programs(statement), "{statement}");
        }
        for Migration { version, file, oldest, statements } in MIGRATIONS {
            let lines = statements.lines().map(|line| line.split("--").next().unwrap_or_default());
            let text = lines.collect::<Vec<_>>().join("\n");
            let breaking: Vec<_> =
                text.split(';').filter(|statement| breaks_older_programs(statement)).collect();
            assert!(oldest == version || breaking.is_empty(), "{file}: {breaking:?}");
        }
    }
}
