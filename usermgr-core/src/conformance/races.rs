//! Laws of what happens when many do it at once.

use std::future::Future;
use std::sync::Arc;

use time::Duration;
use tokio::sync::Barrier;

use super::StoreHarness;
use super::build::{
    ATTEMPTS, NOW, audit, candidates, claim, digest, later, mail, password_of, register, registered, request,
    right, rule, user, wrong,
};
use crate::domain::audit::AuditEvent;
use crate::domain::code::CodePurpose;
use crate::domain::id::SigningKeyId;
use crate::domain::mail::MailKind;
use crate::domain::password::{PasswordHash, PasswordVersion};
use crate::port::store::Store;
use crate::port::store::account::{PasswordReplaced, Registered, ReplacePassword};
use crate::port::store::code::Redeemed;
use crate::port::store::key::SealedSigningKey;

const ANA: &str = "ana@example.org";
const VERIFY: CodePurpose = CodePurpose::EmailVerification;

/// Runs all of them, let go by a barrier, and answers what each answered.
async fn at_once<T, F>(
    store: &Arc<dyn Store>,
    calls: usize,
    call: impl Fn(Arc<dyn Store>, usize) -> F,
) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let barrier = Arc::new(Barrier::new(calls));
    let tasks: Vec<_> = (0..calls)
        .map(|n| {
            let (barrier, work) = (Arc::clone(&barrier), call(Arc::clone(store), n));
            tokio::spawn(async move {
                barrier.wait().await;
                work.await
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

/// Of 64 that redeem one code, one wins.
pub async fn one_of_many_redeems_a_code(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let code = registered(&store, ANA).await;
    let answers =
        at_once(
            &store,
            64,
            |store, _| async move { store.redeem(right(ANA, code, later(1))).await.unwrap() },
        )
        .await;
    assert_eq!(
        answers.iter().filter(|answer| matches!(answer, Redeemed::Redeemed(_))).count(),
        1,
        "{answers:?}"
    );
}

/// Of 64 wrong guesses, no more than allowed are judged, and afterwards the right one is refused.
pub async fn no_more_than_the_allowed_guesses_are_judged(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let code = registered(&store, ANA).await;
    let answers =
        at_once(
            &store,
            64,
            |store, _| async move { store.redeem(wrong(ANA, &[code], later(1))).await.unwrap() },
        )
        .await;
    assert_eq!(answers.iter().filter(|answer| **answer == Redeemed::Wrong).count(), ATTEMPTS as usize);
    let refused = store.redeem(right(ANA, code, later(2))).await.unwrap();
    assert!(matches!(refused, Redeemed::Exhausted { .. }), "{refused:?}");
}

/// Two registrations of one address that are completed at once become one user.
pub async fn two_registrations_become_one_user(harness: &dyn StoreHarness) {
    for _ in 0..4 {
        let store = harness.fresh().await;
        let codes = [registered(&store, ANA).await, registered(&store, ANA).await];
        let answers = at_once(&store, 8, move |store, n| async move {
            let mut redeem = right(ANA, codes[n % 2], later(1));
            redeem.settled = true;
            store.redeem(redeem).await.unwrap()
        })
        .await;
        assert_eq!(answers.iter().filter(|answer| matches!(answer, Redeemed::Redeemed(_))).count(), 1);
    }
}

/// Codes that are asked for at once: the last one stands, alone.
pub async fn a_resend_race_leaves_one_live_code(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let first = registered(&store, ANA).await;
    at_once(&store, 16, move |store, n| async move {
        if n % 4 == 0 {
            drop(store.redeem(wrong(ANA, &[first], later(1))).await.unwrap());
        } else {
            store.request_code(request(ANA, VERIFY, later(1))).await.unwrap();
        }
    })
    .await;
    let left = candidates(&store, ANA, VERIFY, later(1)).await;
    assert_eq!(left.len(), 1);
    let redeemed = store.redeem(right(ANA, left[0].id, later(2))).await.unwrap();
    assert!(matches!(redeemed, Redeemed::Redeemed(_)), "{redeemed:?}");
}

/// Workers that claim at once never get the same mail.
pub async fn claims_are_disjoint(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for n in 0..20 {
        registered(&store, &format!("u{n}@example.org")).await;
    }
    let claims = at_once(&store, 8, |store, _| async move {
        let (_, claimed) = claim(&store, later(1)).await;
        claimed.iter().map(|claimed| claimed.item.id()).collect::<Vec<_>>()
    })
    .await;
    let mut ids: Vec<_> = claims.into_iter().flatten().collect();
    ids.extend(claim(&store, later(2)).await.1.iter().map(|claimed| claimed.item.id()));
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((all, ids.len()), (20, 20));
}

/// Instances that start together agree on one signing key.
pub async fn one_signing_key_is_made(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let answers = at_once(&store, 8, |store, n| async move {
        let key = SealedSigningKey {
            id: SigningKeyId::from_uuid(uuid::Uuid::from_u128(n as u128 + 1)),
            algorithm: "EdDSA".into(),
            created_at: NOW,
            sealed: vec![u8::try_from(n).unwrap()],
        };
        store.ensure_signing_key(key).await.unwrap()
    })
    .await;
    assert!(answers.iter().all(|keys| keys.len() == 1 && *keys == answers[0]), "{answers:?}");
    assert_eq!(store.signing_keys().await.unwrap(), answers[0]);
}

/// A limit of three lets three pass, however many ask at once.
pub async fn limits_hold_in_a_race(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let answers = at_once(&store, 32, |store, n| async move {
        let mut command = register(&format!("u{n}@example.org"), NOW);
        command.throttle =
            vec![rule("three", 3, Duration::minutes(10)), rule("many", 99, Duration::minutes(10))];
        store.register(command).await.unwrap()
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| **answer == Registered::Pending).count(), 3, "{answers:?}");
}

/// Of password changes that were prepared under one version, one wins.
pub async fn one_password_change_wins(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await.id;
    let answers = at_once(&store, 16, move |store, n| async move {
        let command = ReplacePassword {
            now: later(1),
            user_id: ana,
            expect: PasswordVersion::FIRST,
            password: PasswordHash::new(format!("{n} {:?}", digest("x"))),
            keep: None,
            notice: mail(MailKind::PasswordChanged),
            audit: audit(AuditEvent::PasswordChange),
            events: Vec::new(),
        };
        store.replace_password(command).await.unwrap()
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| **answer == PasswordReplaced::Replaced).count(), 1);
    assert_eq!(password_of(&store, ANA).await.unwrap().1, PasswordVersion::FIRST.next());
}
