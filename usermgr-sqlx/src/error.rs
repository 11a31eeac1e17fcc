//! Why a store cannot be had.

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the database cannot be opened")]
pub struct ConnectError(#[source] pub(crate) sqlx::Error);

impl ConnectError {
    /// Whether nothing answered in time: the server is down, or somewhere else.
    pub const fn is_timeout(&self) -> bool {
        matches!(self.0, sqlx::Error::PoolTimedOut)
    }

    /// Whether there is no such file or folder.
    pub fn is_not_found(&self) -> bool {
        matches!(&self.0, sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::NotFound)
    }
}

/// Why a database's tables cannot be brought to this version.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// A newer program has been here, and this one does not work on its tables. Nothing was changed.
    #[error(
        "the database's tables are of version {found} and need a program that knows version {oldest} or later, and this \
         one knows only up to {known}: run a newer program"
    )]
    SchemaTooNew {
        /// The version of the tables.
        found: i64,
        /// The oldest version whose programs work on them.
        oldest: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// The tables are not brought to this version yet.
    #[error(
        "the database's tables are of version {found} and this program needs version {known}: run the migrations"
    )]
    SchemaTooOld {
        /// The version of the tables; 0 when there are none.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// The database failed. Nothing was changed.
    #[error("the database cannot be migrated")]
    Database(#[from] sqlx::Error),
}
