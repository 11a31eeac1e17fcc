//! Laws of what is owed, and of upkeep.

use std::time::Instant;

use time::Duration;

use super::StoreHarness;
use super::build::{
    NOW, all_events, audited, candidates, claim, create, later, open, owed, password_of, register,
    registered, request, right, user,
};
use crate::domain::code::CodePurpose;
use crate::domain::password::PasswordVersion;
use crate::port::store::outbox::{DeliveryResult, OutboxQuery, OutboxStatus, Settle, Settled};
use crate::port::store::upkeep::{Purge, Purged};

const ANA: &str = "ana@example.org";

/// What is claimed is nobody else's until its lease has passed; then it is due again, with its attempts counted.
pub async fn a_claim_is_leased(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    registered(&store, ANA).await;
    let (_, first) = claim(&store, NOW).await;
    assert_eq!((first.len(), first[0].attempt), (1, 1));
    assert!(claim(&store, later(299)).await.1.is_empty());
    let (_, again) = claim(&store, later(300)).await;
    assert_eq!((again.len(), again[0].attempt), (1, 2));
    assert_eq!(again[0].item, first[0].item);
}

/// Whoever lost the lease cannot settle.
pub async fn a_lease_is_fenced(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    registered(&store, ANA).await;
    let (old, claimed) = claim(&store, NOW).await;
    let (new, _) = claim(&store, later(300)).await;
    let settle = |lease| Settle {
        now: later(301),
        id: claimed[0].item.id(),
        lease,
        result: DeliveryResult::Sent { code_ttl: None },
    };
    assert_eq!(store.settle(settle(old)).await.unwrap(), Settled::LostLease);
    assert_eq!(store.settle(settle(new)).await.unwrap(), Settled::Settled);
    assert!(claim(&store, later(9999)).await.1.is_empty());
}

/// The mail of a code that was voided, spent or ran out before it left is not sent.
pub async fn a_mail_of_a_dead_code_is_void(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    registered(&store, ANA).await;
    let newer = request(ANA, CodePurpose::EmailVerification, NOW);
    store.request_code(newer.clone()).await.unwrap();
    let (_, claimed) = claim(&store, later(1)).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].item.id(), newer.mail.id);
    let query = OutboxQuery { status: Some(OutboxStatus::Void), ..OutboxQuery::default() };
    assert_eq!(store.outbox(query).await.unwrap().items.len(), 1);
    assert!(claim(&store, later(90_000)).await.1.is_empty(), "the registration is over");
}

/// A failed mail waits until it is due; one that failed for good stays, with why.
pub async fn a_failed_mail_waits_its_turn(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    registered(&store, ANA).await;
    let (lease, claimed) = claim(&store, NOW).await;
    let id = claimed[0].item.id();
    let result = DeliveryResult::Retry { at: later(60), error: "busy".into() };
    store.settle(Settle { now: NOW, id, lease, result }).await.unwrap();
    assert!(claim(&store, later(59)).await.1.is_empty());
    let (lease, claimed) = claim(&store, later(60)).await;
    assert_eq!(claimed[0].attempt, 2);
    let result = DeliveryResult::Dead { error: "no such mailbox".into() };
    store.settle(Settle { now: later(61), id, lease, result }).await.unwrap();
    let dead = store
        .outbox(OutboxQuery { status: Some(OutboxStatus::Dead), ..OutboxQuery::default() })
        .await
        .unwrap();
    assert_eq!(dead.items[0].error.as_deref(), Some("no such mailbox"));
    assert!(claim(&store, later(9999)).await.1.is_empty());
}

/// Whoever waits for work is woken by the commit that owes some.
pub async fn a_commit_wakes_the_worker(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    store.wait_for_due(std::time::Duration::from_millis(1)).await;
    let begun = Instant::now();
    let waiting = {
        let store = std::sync::Arc::clone(&store);
        tokio::spawn(async move { store.wait_for_due(std::time::Duration::from_secs(30)).await })
    };
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    registered(&store, ANA).await;
    waiting.await.unwrap();
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "it slept through the commit");
}

/// Of the events that a command might owe, those that came true are.
pub async fn only_true_events_are_owed(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let code = registered(&store, ANA).await;
    let mut verify = right(ANA, code, NOW);
    verify.events = all_events();
    store.redeem(verify).await.unwrap();
    let events = |owed: Vec<String>| -> Vec<String> {
        owed.into_iter().filter(|item| !item.contains(" to ")).collect()
    };
    assert_eq!(events(owed(&store).await), ["user_registered", "email_verified"]);
    let mut refused = right(ANA, code, NOW);
    refused.events = all_events();
    store.redeem(refused).await.unwrap();
    let mut made = create("bob@example.org", NOW);
    made.events = all_events();
    store.create_user(made).await.unwrap();
    assert_eq!(events(owed(&store).await).len(), 3);
}

/// What is over is removed, in batches; what is still of use never is.
pub async fn a_purge_removes_only_what_is_over(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for n in 0..5 {
        registered(&store, &format!("late{n}@example.org")).await;
    }
    let ana = user(&store, ANA).await;
    store.open_session(open(&ana, PasswordVersion::FIRST, NOW)).await.unwrap();
    store.register(register("live@example.org", later(3600))).await.unwrap();
    let purge = |seconds: i64| {
        let now = later(seconds);
        let purge = Purge {
            now,
            ended_before: now - Duration::DAY,
            settled_before: now - Duration::WEEK,
            audited_before: now - Duration::days(365),
            known_before: now - Duration::days(30),
            batch: 2,
        };
        let store = std::sync::Arc::clone(&store);
        async move { store.purge(purge).await.unwrap() }
    };
    assert_eq!(Purged { throttles: 0, ..purge(86_399).await }, Purged::default());
    let counts = [purge(86_400).await, purge(86_400).await, purge(86_400).await, purge(86_400).await];
    assert_eq!(counts.map(|purged| purged.registrations), [2, 2, 1, 0]);
    assert_eq!(
        candidates(&store, "live@example.org", CodePurpose::EmailVerification, later(86_400)).await.len(),
        1
    );
    assert!(candidates(&store, "late0@example.org", CodePurpose::EmailVerification, NOW).await.is_empty());
    assert!(password_of(&store, ANA).await.is_some());
    assert_eq!(audited(&store).await.len(), 8);
    let year = 366 * 86_400;
    let mut sum = Purged::default();
    for _ in 0..10 {
        sum = sum.plus(purge(year).await);
    }
    assert_eq!((sum.sessions, sum.audit, sum.networks), (1, 8, 1));
    assert!(password_of(&store, ANA).await.is_some(), "a user is never purged for age");
}
