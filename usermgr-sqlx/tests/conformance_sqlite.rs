//! The SQLite store obeys the laws, each on a file of its own.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::{Arc, Mutex};

use usermgr_core::conformance::StoreHarness;
use usermgr_core::port::store::Store;
use usermgr_sqlx::SqliteStore;

#[derive(Default)]
struct Sqlite(Mutex<Vec<tempfile::TempDir>>);

#[async_trait::async_trait]
impl StoreHarness for Sqlite {
    async fn fresh(&self) -> Arc<dyn Store> {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("users.db").display());
        let store = SqliteStore::connect(&url, 4).await.unwrap();
        store.migrate().await.unwrap();
        self.0.lock().unwrap().push(folder);
        Arc::new(store)
    }
}

usermgr_core::conformance_suite!(Sqlite::default());
