//! The laws, over a real Redis beside SQLite and beside PostgreSQL.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[path = "../../../usermgr-sqlx/tests/support/mod.rs"]
mod databases;
mod support;

use std::sync::{Arc, Mutex};

use databases::{APP, Database, OWNER};
use support::{RedisServer, sqlite};
use usermgr_core::conformance::StoreHarness;
use usermgr_core::port::store::Store;
use usermgr_sqlx::PgStore;

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

mod redis_over_postgres {
    use super::*;

    #[async_trait::async_trait]
    impl StoreHarness for Over<Database> {
        async fn fresh(&self) -> Arc<dyn Store> {
            let database = Database::with_roles().await;
            PgStore::connect(&database.url_as(OWNER), 1).await.unwrap().migrate().await.unwrap();
            let under = PgStore::connect(&database.url_as(APP), 8).await.unwrap();
            self.databases.lock().unwrap().push(database);
            Arc::new(self.redis.fresh_over(Arc::new(under)).await)
        }
    }

    usermgr_core::conformance_suite!(
        Over::<Database>::new(),
        #[ignore = "needs Redis and Postgres: run scripts/test"]
    );
}
