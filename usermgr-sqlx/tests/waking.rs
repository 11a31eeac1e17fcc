//! How a process that waits for owed mails learns of them, and what that costs the others.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::time::{Duration, Instant};

use support::Database;
use usermgr_core::domain::audit::{AuditDraft, AuditEvent};
use usermgr_core::domain::id::{AuditId, UserId};
use usermgr_core::domain::role::{Role, Roles};
use usermgr_core::port::random::SystemRandom;
use usermgr_core::port::store::account::CreateUser;
use usermgr_core::port::store::{AccountStore as _, OutboxStore as _, UpkeepStore as _};
use usermgr_sqlx::PgStore;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn another_process_is_woken_and_one_connection_is_enough() {
    let database = Database::create().await;
    let waiting = PgStore::connect(&database.url, 1).await.unwrap();
    waiting.migrate().await.unwrap();
    let committing = PgStore::connect(&database.url, 1).await.unwrap();
    let waiter = {
        let waiting = waiting.clone();
        tokio::spawn(async move {
            waiting.wait_for_due(Duration::from_secs(59)).await;
            Instant::now()
        })
    };
    // The pool's only connection is for commands, also while somebody listens.
    for _ in 0..10 {
        tokio::time::timeout(Duration::from_secs(5), waiting.ping()).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!waiter.is_finished());
    let committed = Instant::now();
    let now = time::OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let user = CreateUser {
        now,
        id: UserId::new(now, &SystemRandom),
        email: "ana@example.org".parse().unwrap(),
        email_verified_at: None,
        username: None,
        locale: None,
        roles: Roles::from([Role::user()]),
        password: None,
        invitation: None,
        by: None,
        audit: AuditDraft {
            id: AuditId::new(now, &SystemRandom),
            event: AuditEvent::UserCreation,
            actor: None,
            email: None,
            ip: None,
            user_agent: None,
            request_id: None,
        },
        events: Vec::new(),
    };
    committing.create_user(user).await.unwrap();
    let woken = tokio::time::timeout(Duration::from_secs(20), waiter).await.unwrap().unwrap();
    assert!(woken - committed < Duration::from_secs(10), "{:?}", woken - committed);
}
