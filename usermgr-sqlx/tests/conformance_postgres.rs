//! The PostgreSQL store obeys the laws, each on a database of its own, as the role that may do least.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::sync::{Arc, Mutex};

use support::{APP, Database, OWNER};
use usermgr_core::conformance::StoreHarness;
use usermgr_core::port::store::Store;
use usermgr_sqlx::PgStore;

#[derive(Default)]
struct Postgres(Mutex<Vec<Database>>);

#[async_trait::async_trait]
impl StoreHarness for Postgres {
    async fn fresh(&self) -> Arc<dyn Store> {
        let database = Database::with_roles().await;
        PgStore::connect(&database.url_as(OWNER), 1).await.unwrap().migrate().await.unwrap();
        let store = PgStore::connect(&database.url_as(APP), 8).await.unwrap();
        store.migrate().await.unwrap();
        self.0.lock().unwrap().push(database);
        Arc::new(store)
    }
}

usermgr_core::conformance_suite!(Postgres::default(), #[ignore = "needs Postgres: run scripts/test"]);
