//! Sessions and limits in Redis, over any other store for the rest: a store of two places.
//!
//! It passes the whole conformance suite beside SQLite and beside PostgreSQL. What stands where, and what every outage leaves
//! behind, is told in `docs/adr/0025-a-store-of-two-places-decides-in-one.md`, and how Redis is to be run in the README.
//!
//! ```no_run
//! # async fn open() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use usermgr_redis_store::RedisStore;
//! use usermgr_sqlx::PgStore;
//!
//! let under = PgStore::connect("postgres://app@localhost/app", 10).await?;
//! under.migrate().await?;
//! let redis = redis::Client::open("redis://:password@redis.internal/")?;
//! let store = RedisStore::connect(redis, "usermgr", Arc::new(under)).await?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod account;
mod audit;
mod code;
mod limits;
mod redis_keys;
mod session;
mod to_its_end;
mod under;
mod upkeep;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use usermgr_core::port::store::{Store, StoreError};

use to_its_end::Left;

/// How long a connection to Redis may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How long Redis may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How often a connection is tried again before whoever waits for it is told.
const RETRIES: usize = 1;

/// Why a Redis is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It cannot be reached, or refuses us.
    #[error("Redis cannot be reached: {0}")]
    Unreachable(#[from] redis::RedisError),
    /// It removes keys when its memory is full, and a limit that was removed limits nobody.
    #[error("Redis evicts keys: its maxmemory-policy must be noeviction, and is {0}")]
    Evicts(String),
}

/// A store that keeps limits, and of sessions what lets one in, in Redis, and everything else in the store under it.
///
/// Clones share both.
#[derive(Clone)]
pub struct RedisStore {
    under: Arc<dyn Store>,
    redis: Redis,
    left: Arc<Left>,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisStore")
    }
}

impl RedisStore {
    /// A store over another one. All that it keeps in Redis stands under `prefix`: those who are to share it use one prefix,
    /// and under a new one nobody has a session.
    ///
    /// # Errors
    /// [`OpenError`], also when Redis may evict keys.
    ///
    /// # Security
    /// Whoever writes to this Redis can sign in as anybody: keep it as the database. How to reach it, with which password and
    /// over which TLS, is the client's.
    pub async fn connect(
        client: redis::Client,
        prefix: &str,
        under: Arc<dyn Store>,
    ) -> Result<Self, OpenError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(Some(ANSWER_WITHIN))
            .set_number_of_retries(RETRIES);
        let mut connection = ConnectionManager::new_with_config(client, config).await?;
        let memory: redis::InfoDict = redis::cmd("INFO").arg("memory").query_async(&mut connection).await?;
        match memory.get::<String>("maxmemory_policy") {
            Some(policy) if policy != "noeviction" => return Err(OpenError::Evicts(policy)),
            _ => {}
        }
        // One hash tag for all: the scripts take several keys.
        let redis = Redis { connection, prefix: format!("{{{prefix}}}").into() };
        Ok(Self { under, redis, left: Arc::default() })
    }
}

/// What is kept in Redis: see `limits` and `session`.
#[derive(Clone)]
struct Redis {
    connection: ConnectionManager,
    prefix: Arc<str>,
}

impl Redis {
    async fn run<T: redis::FromRedisValue>(
        &self,
        script: &redis::ScriptInvocation<'_>,
    ) -> Result<T, StoreError> {
        script.invoke_async(&mut self.connection.clone()).await.map_err(StoreError::unavailable)
    }
}

/// Tells that something was left in Redis that does no harm there.
fn left_behind(outcome: Result<(), StoreError>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "Redis was not told how a command ended");
    }
}
