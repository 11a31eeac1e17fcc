//! How a process that waits for owed mails learns of them, and what that costs the others.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::time::{Duration, Instant};

use support::Database;
use usermgr_core::domain::audit::{AuditDraft, AuditEvent};
use usermgr_core::domain::id::{AuditId, SessionId, UserId};
use usermgr_core::domain::password::PasswordVersion;
use usermgr_core::domain::role::{Role, Roles};
use usermgr_core::domain::secret::Digest;
use usermgr_core::domain::session::AuthMethod;
use usermgr_core::port::random::SystemRandom;
use usermgr_core::port::store::account::CreateUser;
use usermgr_core::port::store::session::{NewSession, OpenSession, SessionOpened};
use usermgr_core::port::store::upkeep::{Purge, Purged};
use usermgr_core::port::store::{
    AccountStore as _, EventStore as _, OutboxStore as _, SessionStore as _, UpkeepStore as _,
};
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
        profile: None,
        roles: Roles::from([Role::user()]),
        password: None,
        invitation: None,
        by: None,
        audit: audit(now, AuditEvent::UserCreation),
        events: Vec::new(),
    };
    let user_id = user.id;
    committing.create_user(user).await.unwrap();
    let woken = tokio::time::timeout(Duration::from_secs(20), waiter).await.unwrap().unwrap();
    assert!(woken - committed < Duration::from_secs(10), "{:?}", woken - committed);

    // Where only events can be due, those who wait for events are told.
    waiting.wait_for_events(Duration::from_secs(59)).await;
    let waiter = {
        let waiting = waiting.clone();
        tokio::spawn(async move { waiting.wait_for_events(Duration::from_secs(59)).await })
    };
    let later = now + time::Duration::days(1);
    let session = NewSession {
        id: SessionId::new(now, &SystemRandom),
        refresh: Digest::from_bytes([1; 32]),
        access: None,
        idle_expires_at: later,
        expires_at: later,
        method: AuthMethod::Password,
        ip: None,
        user_agent: None,
        network: Digest::from_bytes([2; 32]),
    };
    let command = OpenSession {
        now,
        user_id,
        expect: PasswordVersion::NONE,
        session,
        upgrade: None,
        guard: None,
        throttle: Vec::new(),
        restore: audit(now, AuditEvent::UserRestoration),
        audit: audit(now, AuditEvent::SignIn),
        events: Vec::new(),
    };
    let opened = committing.open_session(command).await.unwrap();
    assert!(matches!(opened, SessionOpened::Opened(_)), "{opened:?}");
    tokio::time::timeout(Duration::from_secs(20), waiter).await.unwrap().unwrap();
}

fn audit(now: time::OffsetDateTime, event: AuditEvent) -> AuditDraft {
    AuditDraft {
        id: AuditId::new(now, &SystemRandom),
        event,
        actor: None,
        email: None,
        ip: None,
        user_agent: None,
        request_id: None,
    }
}

/// Reads and commands take another connection when theirs was ended while it lay idle.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn connections_that_were_cut_off_are_not_felt() {
    let database = Database::create().await;
    let store = PgStore::connect(&database.url, 4).await.unwrap();
    store.migrate().await.unwrap();
    let id = UserId::new(time::OffsetDateTime::UNIX_EPOCH, &SystemRandom);
    let other = sqlx::PgPool::connect(&database.url).await.unwrap();
    for round in 0..2 {
        let opened = (0..4).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.user(id).await.unwrap() })
        });
        for opening in opened.collect::<Vec<_>>() {
            assert_eq!(opening.await.unwrap(), None);
        }
        let ended: Vec<(bool,)> = sqlx::query_as(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
        )
        .fetch_all(&other)
        .await
        .unwrap();
        assert!(!ended.is_empty());
        if round == 0 {
            assert_eq!(store.user(id).await.unwrap(), None);
        } else {
            let then = time::OffsetDateTime::UNIX_EPOCH;
            let command = Purge {
                now: then,
                ended_before: then,
                settled_before: then,
                dead_before: then,
                audited_before: then,
                events_before: then,
                deleted_before: then,
                retired_before: then,
                known_before: then,
                marked_before: then,
                batch: 1,
            };
            assert_eq!(store.purge(command).await.unwrap(), Purged::default());
        }
    }
}
