//! Laws of what happens when many do it at once.

use std::future::Future;
use std::sync::Arc;

use time::Duration;
use tokio::sync::Barrier;

use super::StoreHarness;
use super::build::{
    ATTEMPTS, NOW, SettleOne as _, add_key, audited, candidates, claim, create, failed, guard, holds, later,
    open, owed, password_of, register, registered, replace, request, right, rule, sent, signing_key, user,
    wrong,
};
use crate::domain::code::CodePurpose;
use crate::domain::password::{PasswordHash, PasswordVersion};
use crate::port::store::Store;
use crate::port::store::account::{PasswordReplaced, Registered, UserCreated};
use crate::port::store::code::{CodeRequested, Redeemed};
use crate::port::store::outbox::Settled;
use crate::port::store::session::{LoginCounted, SessionOpened};

const ANA: &str = "ana@example.org";
const VERIFY: CodePurpose = CodePurpose::EmailVerification;

/// Runs all of them, let go by a barrier, and answers what each answered.
pub(super) async fn at_once<T, F>(
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
        claimed.iter().map(|claimed| claimed.mail.id).collect::<Vec<_>>()
    })
    .await;
    let mut ids: Vec<_> = claims.into_iter().flatten().collect();
    ids.extend(claim(&store, later(2)).await.1.iter().map(|claimed| claimed.mail.id));
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((all, ids.len()), (20, 20));
}

/// Instances that start together agree on one signing key.
pub async fn one_signing_key_is_made(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let answers = at_once(&store, 8, |store, n| async move {
        let key = signing_key(u8::try_from(n).unwrap(), "EdDSA");
        store.add_signing_key(add_key(key)).await.unwrap()
    })
    .await;
    assert!(answers.iter().all(|keys| keys.len() == 1 && *keys == answers[0]), "{answers:?}");
    assert_eq!(store.signing_keys().await.unwrap(), answers[0]);
    let another = signing_key(99, "ES256");
    let both = store.add_signing_key(add_key(another.clone())).await.unwrap();
    assert_eq!(both, [another, answers[0][0].clone()], "one of each algorithm, the newest first");
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
        let mut command = replace(ana, PasswordVersion::FIRST, later(1));
        command.password = PasswordHash::new(format!("password {n}"));
        store.replace_password(command).await.unwrap()
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| **answer == PasswordReplaced::Replaced).count(), 1);
    assert_eq!(password_of(&store, ANA).await.unwrap().1, PasswordVersion::FIRST.next());
}

/// Registrations of one address that are begun at once all wait, each with its own code.
pub async fn registrations_of_one_address_wait_side_by_side(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let answers =
        at_once(&store, 16, |store, _| async move { store.register(register(ANA, NOW)).await.unwrap() })
            .await;
    assert!(answers.iter().all(|answer| *answer == Registered::Pending), "{answers:?}");
    assert_eq!(candidates(&store, ANA, VERIFY, NOW).await.len(), 16);
    assert_eq!(owed(&store).await.len(), 16);
}

/// One command that arrives many times at once is done once.
pub async fn the_same_command_at_once_is_done_once(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let command = register(ANA, NOW);
    let answers = at_once(&store, 8, move |store, _| {
        let command = command.clone();
        async move { store.register(command).await.unwrap() }
    })
    .await;
    assert!(answers.iter().all(|answer| *answer == Registered::Pending), "{answers:?}");
    assert_eq!((owed(&store).await.len(), audited(&store).await.len()), (1, 1));
    let command = request(ANA, VERIFY, NOW);
    let answers = at_once(&store, 8, move |store, _| {
        let command = command.clone();
        async move { store.request_code(command).await.unwrap() }
    })
    .await;
    assert!(answers.iter().all(|answer| *answer == CodeRequested::Queued), "{answers:?}");
    assert_eq!((owed(&store).await.len(), audited(&store).await.len()), (2, 2));
}

/// Of users that are made at once with one address, one is.
pub async fn one_user_is_made_of_one_address(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let answers = at_once(&store, 16, |store, _| async move {
        store.create_user(create(ANA, NOW)).await.unwrap() != UserCreated::Taken
    })
    .await;
    assert_eq!(answers.iter().filter(|made| **made).count(), 1);
    assert_eq!(audited(&store).await.iter().filter(|reason| *reason == "done").count(), 1);
}

/// A code that is redeemed while a new one is asked for: it is spent, or it is void and the new one is live alone.
pub async fn a_redemption_and_a_request_have_one_outcome(harness: &dyn StoreHarness) {
    for _ in 0..8 {
        let store = harness.fresh().await;
        let code = registered(&store, ANA).await;
        let redeemed = at_once(&store, 4, move |store, n| async move {
            if n % 2 == 0 {
                let outcome = store.redeem(right(ANA, code, later(1))).await.unwrap();
                matches!(outcome, Redeemed::Redeemed(_))
            } else {
                store.request_code(request(ANA, VERIFY, later(1))).await.unwrap();
                false
            }
        })
        .await;
        let won = redeemed.iter().filter(|won| **won).count();
        assert_eq!(password_of(&store, ANA).await.is_some(), won == 1, "{won} won");
        assert_eq!(candidates(&store, ANA, VERIFY, later(1)).await.len(), 1 - won);
    }
}

/// A sign-in with the old password that meets its change leaves no session that holds.
pub async fn no_sign_in_outlives_a_password_change(harness: &dyn StoreHarness) {
    for _ in 0..4 {
        let store = harness.fresh().await;
        let ana = user(&store, ANA).await;
        let id = ana.id;
        let sessions = at_once(&store, 8, move |store, n| {
            let ana = ana.clone();
            async move {
                if n == 4 {
                    store.replace_password(replace(ana.id, PasswordVersion::FIRST, later(1))).await.unwrap();
                    return None;
                }
                let command = open(&ana, PasswordVersion::FIRST, later(1));
                let session = command.session.id;
                store.open_session(command).await.unwrap();
                Some(session)
            }
        })
        .await;
        for session in sessions.into_iter().flatten() {
            assert!(!holds(&store, session, later(2)).await);
        }
        let version = password_of(&store, ANA).await.unwrap().1;
        let user = store.user(id).await.unwrap().unwrap();
        let opened = store.open_session(open(&user, version, later(3))).await.unwrap();
        assert!(matches!(opened, SessionOpened::Opened(_)), "{opened:?}");
    }
}

/// Of failed sign-ins that arrive at once, no more are looked at than the guard allows.
pub async fn guards_hold_in_a_race(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await.id;
    let answers = at_once(&store, 32, move |store, _| async move {
        store.login_failed(failed(Some(ana), guard(ANA, "away", NOW), NOW)).await.unwrap()
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| **answer == LoginCounted::Counted).count(), 3);
    assert_eq!(audited(&store).await.len(), 4, "what was refused is not audited");
}

/// An attempt that is settled many times at once is settled once.
pub async fn an_attempt_is_settled_once(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    registered(&store, ANA).await;
    let (lease, claimed) = claim(&store, NOW).await;
    let command = sent(&claimed[0], lease, NOW);
    let answers = at_once(&store, 8, move |store, _| {
        let command = command.clone();
        async move { store.settle(command).await.unwrap() }
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| **answer == Settled::Settled).count(), 1);
}
