//! Why a store cannot be had.

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the database cannot be opened")]
pub struct ConnectError(#[source] pub(crate) sqlx::Error);

/// Why a database's tables cannot be brought to this version.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The database was migrated by a newer program. Nothing was changed.
    #[error(
        "the database's schema is version {found}, and this program knows only up to {known}: run a newer program"
    )]
    SchemaTooNew {
        /// The version of the tables.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// The database failed. Nothing was changed.
    #[error("the database cannot be migrated")]
    Database(#[from] sqlx::Error),
}
