//! The laws, over a real Redis beside SQLite and beside PostgreSQL.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::sync::{Arc, Mutex};

use support::{RedisServer, sqlite};
use usermgr_core::conformance::StoreHarness;
use usermgr_core::port::store::Store;

/// A Redis for each law, and a database for each store.
struct Over<D> {
    redis: RedisServer,
    databases: Mutex<Vec<D>>,
}

impl<D> Over<D> {
    fn new() -> Self {
        Self { redis: RedisServer::start(), databases: Mutex::default() }
    }
}

mod redis_over_sqlite {
    use super::*;

    #[async_trait::async_trait]
    impl StoreHarness for Over<tempfile::TempDir> {
        async fn fresh(&self) -> Arc<dyn Store> {
            let (under, folder) = sqlite().await;
            self.databases.lock().unwrap().push(folder);
            Arc::new(self.redis.fresh_over(Arc::new(under)).await)
        }
    }

    usermgr_core::conformance_suite!(
        Over::<tempfile::TempDir>::new(),
        #[ignore = "needs Redis: run scripts/test"]
    );
}
