//! A caller that goes away in the middle of a command leaves no connection in a transaction.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::future::Future;
use std::task::Poll;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use usermgr_core::UserManager;
use usermgr_core::flow::register::Register;
use usermgr_core::{ClientContext, SecretKey};
use usermgr_sqlx::PgStore;

/// More polls than a registration has up to its commit.
const POLLS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_dropped_begin_leaves_no_open_transaction() {
    let database = support::Database::create().await;
    let options: PgConnectOptions = database.url.parse().unwrap();
    let pool = PgPoolOptions::new().max_connections(1).test_before_acquire(false);
    let pool = pool.connect_with(options.application_name("hang_ups")).await.unwrap();
    let store = PgStore::with_pool(pool);
    store.migrate().await.unwrap();
    let users = UserManager::builder()
        .store(std::sync::Arc::new(store))
        .mailer(std::sync::Arc::new(usermgr_core::testing::Mailbox::default()))
        .secret_key(SecretKey::from_bytes([7; 32]))
        .build()
        .unwrap();
    let watcher = sqlx::PgPool::connect(&database.url).await.unwrap();
    for polls in 0..POLLS {
        let (registration, client) = (users.registration(), ClientContext::new());
        let address = format!("u{polls}@example.org");
        let command = registration.register(Register::new(&address, "correct horse battery"), &client);
        left_after(command, polls).await;
        // What was on its way arrives.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut open = i64::MAX;
        for _ in 0..100 {
            open = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                 AND application_name = 'hang_ups' AND state LIKE 'idle in transaction%'",
            )
            .fetch_one(&watcher)
            .await
            .unwrap();
            if open == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(open, 0, "after {polls} polls the connection is left in a transaction");
    }
}

/// Polls a future so often as it wakes its task, then drops it at once.
async fn left_after(future: impl Future, polls: usize) {
    let (mut future, mut left) = (Box::pin(future), polls);
    std::future::poll_fn(move |context| {
        if left == 0 || future.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        left -= 1;
        if left == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
