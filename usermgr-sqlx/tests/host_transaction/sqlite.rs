//! On SQLite.

use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Sqlite, SqliteConnection as Connection, SqlitePool as Pool};
use usermgr_sqlx::{SqliteHostTransaction as HostTransaction, SqliteStore as Store, TransactionError};

use laws::Installation;

type Tx = sqlx::Transaction<'static, Sqlite>;
type Place = tempfile::TempDir;

async fn open() -> (Place, Pool, Store) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.db");
    let store = Store::connect(&format!("sqlite://{}", path.display()), 4).await.unwrap();
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(30));
    (folder, Pool::connect_with(options).await.unwrap(), store)
}

async fn begin(pool: &Pool) -> Tx {
    pool.begin_with("BEGIN IMMEDIATE").await.unwrap()
}

macro_rules! tests {
    ($($law:ident),+ $(,)?) => {
        mod on_its_own {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $law() {
                super::$law().await;
            })+
        }
    };
}

#[path = "laws.rs"]
mod laws;

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_read_before_others_wrote_is_refused() {
    let installation = Installation::new().await;
    let mut tx = installation.pool.begin().await.unwrap();
    let _: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM tenants").fetch_one(&mut *tx).await.unwrap();
    installation.register("ana@example.org").await.unwrap();
    let refused = installation.store.in_tx(tx).await;
    assert!(matches!(refused, Err(TransactionError::NotImmediate(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_has_not_read_yet_has_the_file_once_it_is_joined() {
    let installation = Installation::new().await;
    let joined = installation.store.in_tx(installation.pool.begin().await.unwrap()).await.unwrap();
    let hasty = SqliteConnectOptions::clone(&installation.pool.connect_options());
    let hasty = Pool::connect_with(hasty.busy_timeout(Duration::ZERO)).await.unwrap();
    let other = hasty.begin_with("BEGIN IMMEDIATE").await.unwrap_err();
    assert!(other.to_string().contains("locked"), "{other}");
    joined.rollback().await.unwrap();
    drop(hasty.begin_with("BEGIN IMMEDIATE").await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_checks_no_foreign_keys_is_refused() {
    let installation = Installation::new().await;
    let options = SqliteConnectOptions::clone(&installation.pool.connect_options()).foreign_keys(false);
    let pool = Pool::connect_with(options).await.unwrap();
    let refused = installation.store.in_tx(begin(&pool).await).await;
    assert!(matches!(refused, Err(TransactionError::ForeignKeysOff)), "{refused:?}");
}

/// As SQLite does after a full disk or an I/O error; the driver is not told.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_sqlite_ended_by_itself_commits_nothing() {
    let installation = Installation::new().await;
    let joined = installation.join().await;
    laws::insert_tenant(&mut joined.connection().await.unwrap(), "before").await.unwrap();
    let users = installation.users.over(joined.store());
    let mut connection = joined.connection().await.unwrap();
    sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await.unwrap();
    drop(connection);
    laws::create(&users, "ana@example.org").await.unwrap_err();
    laws::create(&users, "bob@example.org").await.unwrap_err();
    joined.commit().await.unwrap_err();
    assert_eq!(installation.tenants().await, 0);
    assert_eq!(installation.count("usermgr_users").await, 0);
}
