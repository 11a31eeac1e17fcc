//! Making and upgrading tables, in a database that may be a host's own.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use support::Database;
use usermgr_core::port::store::UpkeepStore as _;
use usermgr_sqlx::{MigrateError, PgStore, SqliteStore};

/// Several instances that start together, an unmigrated store that is not ready, and a schema from the future.
macro_rules! migrations {
    ($store:ident, $url:expr) => {{
        let url: &str = $url;
        let first = $store::connect(url, 4).await.unwrap();
        let unready = first.ping().await.unwrap_err().to_string();
        assert!(unready.ends_with("run the migrations"), "not ready before its tables are there: {unready}");
        let empty = first.schema().await.unwrap();
        assert_eq!((empty.found, empty.pending.first().copied()), (0, Some("0001_initial")));
        assert!(!empty.is_rolling());
        let starts = (0..6).map(|_| {
            let url = url.to_owned();
            tokio::spawn(async move { $store::connect(&url, 2).await.unwrap().migrate().await.unwrap() })
        });
        for start in starts.collect::<Vec<_>>() {
            start.await.unwrap();
        }
        let schema = first.schema().await.unwrap();
        assert_eq!((schema.found, schema.pending.len()), (empty.known, 0));
        assert!(schema.is_rolling());
        first.ping().await.unwrap();
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_is_migrated_once_and_only_forward() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.db");
    let url = format!("sqlite://{}", path.display());
    migrations!(SqliteStore, &url);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::query("INSERT INTO usermgr_schema (version) VALUES (99)").execute(&pool).await.unwrap();
    let refused = SqliteStore::with_pool(pool).migrate().await;
    let too_new =
        |error: &MigrateError| matches!(error, MigrateError::SchemaTooNew { found: 99, oldest: 99, .. });
    assert!(refused.as_ref().is_err_and(too_new), "it does not say whom it is for: {refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn postgres_is_migrated_once_and_only_forward() {
    let database = Database::create().await;
    migrations!(PgStore, &database.url);
    let pool = sqlx::PgPool::connect(&database.url).await.unwrap();
    // The host's own table and migrations stay as they are.
    sqlx::query("CREATE TABLE users (id BIGINT)").execute(&pool).await.unwrap();
    sqlx::query("INSERT INTO usermgr_schema (version) VALUES (99)").execute(&pool).await.unwrap();
    let refused = PgStore::with_pool(pool).migrate().await;
    let too_new =
        |error: &MigrateError| matches!(error, MigrateError::SchemaTooNew { found: 99, oldest: 99, .. });
    assert!(refused.as_ref().is_err_and(too_new), "it does not say whom it is for: {refused:?}");
}
