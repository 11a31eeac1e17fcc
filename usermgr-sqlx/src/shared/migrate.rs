//! Bringing the tables to this version.

use super::{MIGRATIONS, Store};
use crate::error::MigrateError;

impl Store {
    /// Makes or upgrades the tables. Instances that start together take turns; all or nothing is done.
    ///
    /// # Errors
    /// [`MigrateError`]; `SchemaTooNew` when a newer program has been here.
    pub async fn migrate(&self) -> Result<(), MigrateError> {
        let mut tx = self.begin_migration().await?;
        sqlx::query("CREATE TABLE IF NOT EXISTS usermgr_schema (version BIGINT PRIMARY KEY)")
            .execute(&mut *tx)
            .await?;
        let found: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM usermgr_schema")
            .fetch_one(&mut *tx)
            .await?;
        let known = known();
        if found > known {
            return Err(MigrateError::SchemaTooNew { found, known });
        }
        for (version, statements) in (1_i64..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
            sqlx::raw_sql(*statements).execute(&mut *tx).await?;
            sqlx::query("INSERT INTO usermgr_schema (version) VALUES ($1)")
                .bind(version)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// How many migrations have not been run yet. Changes nothing.
    ///
    /// # Errors
    /// [`MigrateError`]; `SchemaTooNew` when a newer program has been here.
    pub async fn pending_migrations(&self) -> Result<u64, MigrateError> {
        let mut tx = self.begin_migration().await?;
        // Made in a transaction that is never committed, so that an empty database answers too.
        sqlx::query("CREATE TABLE IF NOT EXISTS usermgr_schema (version BIGINT PRIMARY KEY)")
            .execute(&mut *tx)
            .await?;
        let found: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM usermgr_schema")
            .fetch_one(&mut *tx)
            .await?;
        tx.rollback().await?;
        let known = known();
        if found > known {
            return Err(MigrateError::SchemaTooNew { found, known });
        }
        Ok(u64::try_from(known - found).unwrap_or(0))
    }
}

fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}
