//! On PostgreSQL.

use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection as Connection, PgPool as Pool, Postgres};
use usermgr_core::port::store::StoreError;
use usermgr_sqlx::{PgHostTransaction as HostTransaction, PgStore as Store, TransactionError};

use laws::Installation;

use super::support::Database;

type Tx = sqlx::Transaction<'static, Postgres>;
type Place = Database;

async fn open() -> (Place, Pool, Store) {
    let database = Database::create().await;
    let pool = Pool::connect(&database.url).await.unwrap();
    (database, pool.clone(), Store::with_pool(pool))
}

async fn begin(pool: &Pool) -> Tx {
    pool.begin().await.unwrap()
}

macro_rules! tests {
    ($($law:ident),+ $(,)?) => {
        mod on_its_own {
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs Postgres: run scripts/test"]
            async fn $law() {
                super::$law().await;
            })+
        }
    };
}

#[path = "laws.rs"]
#[expect(clippy::duplicate_mod, reason = "the laws stand once and are compiled for each database's types")]
mod laws;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn a_transaction_that_does_not_see_what_others_commit_is_refused() {
    let installation = Installation::new().await;
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let sql = format!("BEGIN ISOLATION LEVEL {level}");
        let tx = installation.pool.begin_with(sqlx::AssertSqlSafe(sql)).await.unwrap();
        let refused = installation.store.in_tx(tx).await;
        let isolation = |error: &TransactionError| matches!(error, TransactionError::Isolation(_));
        assert!(refused.as_ref().is_err_and(isolation), "{refused:?}");
    }
}

/// PostgreSQL itself answers such a commit as if it were one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn a_commit_after_a_failed_statement_is_none() {
    let installation = Installation::new().await;
    let joined = installation.join().await;
    laws::create(&installation.users.over(joined.store()), "ana@example.org").await.unwrap();
    let mut connection = joined.connection().await.unwrap();
    laws::insert_tenant(&mut connection, "acme").await.unwrap();
    laws::insert_tenant(&mut connection, "acme").await.unwrap_err();
    drop(connection);
    joined.commit().await.unwrap_err();
    assert_eq!((installation.tenants().await, installation.count("usermgr_users").await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn a_connection_that_was_cut_off_is_told_and_leaves_nothing() {
    let installation = Installation::new().await;
    let joined = installation.join().await;
    laws::insert_tenant(&mut joined.connection().await.unwrap(), "acme").await.unwrap();
    let own: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut *joined.connection().await.unwrap())
        .await
        .unwrap();
    let _: bool = sqlx::query_scalar("SELECT pg_terminate_backend($1)")
        .bind(own)
        .fetch_one(&installation.pool)
        .await
        .unwrap();
    let store = joined.store();
    let read = store.user(laws::nobody()).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "it is not read beside: {read:?}");
    laws::create(&installation.users.over(store), "ana@example.org").await.unwrap_err();
    joined.commit().await.unwrap_err();
    assert_eq!((installation.tenants().await, installation.count("usermgr_users").await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn another_process_is_woken_by_the_commit() {
    let installation = Installation::new().await;
    let options = PgConnectOptions::clone(&installation.pool.connect_options());
    let other = Store::with_pool(Pool::connect_with(options).await.unwrap());
    laws::is_woken_by_the_commit(&installation, other).await;
}
