//! Upkeep of both places.

use std::sync::LazyLock;

use async_trait::async_trait;
use redis::Script;
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::upkeep::{Backlog, Purge, Purged, UpkeepStore};

use super::RedisStore;
use super::limits::script;
use super::redis_keys::micros;

static PURGE: LazyLock<Script> = script!("purge.lua");

#[async_trait]
impl UpkeepStore for RedisStore {
    async fn purge(&self, command: Purge) -> Result<Purged, StoreError> {
        self.to_its_end(async move |store| {
            let purged = store.under.purge(command).await?;
            let mut invocation = PURGE.key(store.redis.access_ends());
            invocation
                .key(store.redis.networks())
                .arg(micros(command.now))
                .arg(command.batch)
                .arg(micros(command.known_before));
            let access_tokens = store.redis.run(&invocation).await?;
            Ok(Purged { access_tokens, ..purged })
        })
        .await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.under.backlog().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.under.ping().await?;
        redis::cmd("PING")
            .exec_async(&mut self.redis.connection.clone())
            .await
            .map_err(StoreError::unavailable)
    }
}
