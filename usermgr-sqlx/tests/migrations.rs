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

/// A table whose rows nobody removes grows for ever: `docs/operations.md` says of each what removes its rows, and when.
#[tokio::test]
async fn every_table_says_how_long_its_rows_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("usermgr.db").display());
    SqliteStore::connect(&url, 1).await.unwrap().migrate().await.unwrap();
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'usermgr%'")
            .fetch_all(&pool)
            .await
            .unwrap();
    let handbook = include_str!("../../docs/operations.md");
    let table = handbook.split("### What is kept how long").nth(1).expect("the table of retention");
    let table = table.split("\n#").next().unwrap();
    assert!(tables.len() > 10, "{tables:?}");
    for name in &tables {
        let row = table.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let kept = row.and_then(|row| row.split('|').nth(2)).map(str::trim).unwrap_or_default();
        assert!(!kept.is_empty(), "docs/operations.md does not say how long rows of {name} are kept");
    }
    for line in table.lines().filter(|line| line.starts_with("| `usermgr_")) {
        let name = line.split('`').nth(1).unwrap_or_default();
        assert!(tables.iter().any(|table| table == name), "there is no table {name}");
    }
}
