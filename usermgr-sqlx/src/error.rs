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
    /// The tables are to be made or upgraded, and this role may not. Nothing was changed.
    #[error(
        "this role may not make or change the tables of the database: run usermgr-server migrate as the one that owns them"
    )]
    NotPermitted(#[source] sqlx::Error),
    /// The database failed. Nothing was changed.
    #[error("the database cannot be migrated")]
    Database(#[from] sqlx::Error),
}

/// Why a host's transaction does not do what was asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// It is over: a wrong guess ended it, or a command was given up while it began. Nothing of it remains.
    #[error("the transaction is over")]
    Over,
    /// It does not see what others commit. PostgreSQL only.
    #[error("the transaction is {0}, and commands need read committed")]
    Isolation(String),
    /// It waits for nobody who writes before it. SQLite only.
    #[error("the transaction cannot write now: begin it with BEGIN IMMEDIATE")]
    NotImmediate(#[source] sqlx::Error),
    /// Its connection does not check foreign keys. SQLite only.
    #[error("the transaction's connection has foreign keys switched off")]
    ForeignKeysOff,
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// PostgreSQL's `insufficient_privilege`.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

impl MigrateError {
    /// Tells a role that may not from a database that failed.
    pub(crate) fn or_not_permitted(self) -> Self {
        match self {
            Self::Database(error) if is_not_permitted(&error) => Self::NotPermitted(error),
            other => other,
        }
    }
}

fn is_not_permitted(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == INSUFFICIENT_PRIVILEGE)
}
