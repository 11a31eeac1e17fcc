#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod finish;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
mod schema;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod write_proof;

pub use error::{ConnectError, MigrateError, TransactionError};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use pool::PoolGauges;
#[cfg(feature = "postgres")]
pub use postgres::{HostTransaction as PgHostTransaction, PgStore};
pub use schema::SchemaStatus;
#[cfg(feature = "sqlite")]
pub use sqlite::{HostTransaction as SqliteHostTransaction, SqliteStore};
