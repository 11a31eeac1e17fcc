//! Laws of upkeep.

use time::Duration;

use super::StoreHarness;
use super::build::{
    NOW, SettleOne as _, add_key, all_events, audited, candidates, claim, create, delete, entries, failed,
    guard, holds, invite, later, lease, open, outbox, owed, password_of, purge, register, registered,
    request, right, rotate, rule, sent, signed_in, signing_key, user,
};
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::code::CodePurpose;
use crate::domain::password::PasswordVersion;
use crate::port::store::account::{CredentialsQuery, Registered};
use crate::port::store::audit::Record;
use crate::port::store::code::Redeemed;
use crate::port::store::event::{EventResult, SettleEvent};
use crate::port::store::key::AddSigningKey;
use crate::port::store::outbox::{Claim, DeliveryResult, DomainRoom, OutboxStatus, Settle};
use crate::port::store::session::{Rotated, SessionKey, SessionOpened, SessionQuery, SessionSelector};
use crate::port::store::upkeep::{Backlog, Purge, Purged};

const ANA: &str = "ana@example.org";

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
            dead_before: now - Duration::WEEK,
            audited_before: now - Duration::days(365),
            events_before: now - Duration::days(30),
            deleted_before: now - Duration::days(30),
            retired_before: now - Duration::days(2),
            known_before: now - Duration::days(30),
            marked_before: now - Duration::days(180),
            batch: 2,
        };
        let store = std::sync::Arc::clone(&store);
        async move { store.purge(purge).await.unwrap() }
    };
    assert_eq!(Purged { throttles: 0, access_tokens: 0, ..purge(86_399).await }, Purged::default());
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

/// A code that was spent, voided or ran out goes when its time has come, and not before.
pub async fn codes_are_purged_when_they_ended_long_ago(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    user(&store, ANA).await;
    let purpose = CodePurpose::ResetPassword;
    store.request_code(request(ANA, purpose, NOW)).await.unwrap();
    store.request_code(request(ANA, purpose, later(10))).await.unwrap();
    let (lease, claimed) = claim(&store, later(10)).await;
    for claimed in &claimed {
        store.settle(sent(claimed, lease, later(10))).await.unwrap();
    }
    let mut live = invite("eva@example.org", NOW);
    live.invitation = live.invitation.map(|(mut code, mail)| {
        code.dies_at = later(5000);
        (code, mail)
    });
    store.create_user(live).await.unwrap();
    let purged = |seconds| {
        let command = Purge { ended_before: later(seconds), ..purge(later(9000)) };
        let store = std::sync::Arc::clone(&store);
        async move { store.purge(command).await.unwrap().codes }
    };
    assert_eq!(purged(10).await, 0, "one was voided ten seconds in, not before");
    assert_eq!(purged(11).await, 1);
    assert_eq!(purged(610).await, 0, "the other ran out ten minutes after its mail had left");
    assert_eq!(candidates(&store, ANA, purpose, later(610)).await.len(), 1);
    assert_eq!(purged(611).await, 1);
    assert_eq!(purged(5000).await, 0);
    assert_eq!(purged(5001).await, 1, "it was never mailed and died all the same");
}

/// Mails that were sent or void go when their time has come; those that are owed or dead stay.
pub async fn the_outbox_keeps_what_is_owed_or_dead(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for n in 0..2 {
        registered(&store, &format!("u{n}@example.org")).await;
    }
    let voided = registered(&store, "void@example.org").await;
    store.redeem(right("void@example.org", voided, NOW)).await.unwrap();
    let (lease, claimed) = claim(&store, NOW).await;
    store.settle(sent(&claimed[0], lease, later(10))).await.unwrap();
    let result = DeliveryResult::Dead { error: "no such mailbox".into() };
    store.settle(Settle { now: later(10), id: claimed[1].mail.id, lease, result }).await.unwrap();
    let purged = |seconds| {
        let command = Purge { settled_before: later(seconds), dead_before: NOW, ..purge(later(80_000)) };
        let store = std::sync::Arc::clone(&store);
        async move { store.purge(command).await.unwrap().outbox }
    };
    assert_eq!(purged(0).await, 0);
    assert_eq!(purged(10).await, 1, "the void one");
    assert_eq!(purged(11).await, 1, "the sent one");
    assert_eq!(purged(79_000).await, 0);
    let left: Vec<_> = outbox(&store).await.iter().map(|entry| entry.status).collect();
    assert_eq!(left, [OutboxStatus::Dead, OutboxStatus::Queued], "{:?}", owed(&store).await);
}

/// A mail that failed for good is kept for its own time, and goes then; one that was sent again is not dead.
pub async fn a_dead_mail_is_purged_in_its_own_time(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for n in 0..3 {
        registered(&store, &format!("u{n}@example.org")).await;
    }
    let (lease, claimed) = claim(&store, NOW).await;
    for (mail, died) in claimed[..2].iter().zip([10, 20]) {
        let result = DeliveryResult::Dead { error: "no such mailbox".into() };
        store.settle(Settle { now: later(died), id: mail.mail.id, lease, result }).await.unwrap();
    }
    store.settle(sent(&claimed[2], lease, later(10))).await.unwrap();
    let purged = |seconds| {
        let now = later(80_000);
        let command = Purge { settled_before: NOW, dead_before: later(seconds), ..purge(now) };
        let store = std::sync::Arc::clone(&store);
        async move { store.purge(command).await.unwrap().outbox }
    };
    assert_eq!(purged(10).await, 0, "it died at that second");
    assert_eq!(purged(11).await, 1);
    store.requeue(super::build::requeue(claimed[1].mail.id, later(30))).await.unwrap();
    assert_eq!(purged(79_000).await, 0, "it waits again");
    let left: Vec<_> = outbox(&store).await.iter().map(|entry| entry.status).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

/// What waits is counted, and nothing else: neither what left, nor what was voided.
pub async fn what_waits_is_counted(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    assert_eq!(store.backlog().await.unwrap(), Backlog::default());
    for n in 0..3 {
        registered(&store, &format!("u{n}@example.org")).await;
    }
    let (held, claimed) = claim(&store, NOW).await;
    store.settle(sent(&claimed[0], held, later(10))).await.unwrap();
    let ends = [
        DeliveryResult::Dead { error: "no such mailbox".into() },
        DeliveryResult::Retry { at: later(3600), error: "come back".into() },
    ];
    for (mail, result) in claimed.iter().skip(1).zip(ends) {
        store.settle(Settle { now: later(10), id: mail.mail.id, lease: held, result }).await.unwrap();
    }
    store.register(register("later@example.org", later(60))).await.unwrap();
    let mails = |backlog: Backlog| (backlog.queued_mails, backlog.oldest_mail, backlog.dead_mails);
    let counted = store.backlog().await.unwrap();
    assert_eq!(mails(counted), (2, Some(NOW), 1), "also one that waits for another attempt");
    let (held, claimed) = claim(&store, later(3600)).await;
    let again = claimed.iter().find(|mail| mail.attempt == 2).unwrap();
    store.settle(sent(again, held, later(3600))).await.unwrap();
    assert_eq!(mails(store.backlog().await.unwrap()), (1, Some(later(60)), 1));

    let mut command = create("eva@example.org", later(100));
    command.events = all_events();
    store.create_user(command).await.unwrap();
    let before = store.backlog().await.unwrap();
    assert!(before.undelivered_events > 0);
    assert_eq!(before.oldest_event, Some(later(100)), "before it has a position");
    let all = before.undelivered_events;
    for left in (0..all).rev() {
        let held = lease();
        let command = Claim {
            now: later(200),
            lease: held,
            lease_until: later(300),
            limit: 1,
            room: DomainRoom::UNBOUNDED,
        };
        let claimed = store.claim_events(command).await.unwrap();
        let id = claimed[0].event.id;
        let result = EventResult::Delivered;
        store.settle_event(SettleEvent { now: later(200), id, lease: held, result }).await.unwrap();
        let counted = store.backlog().await.unwrap();
        assert_eq!((counted.undelivered_events, counted.oldest_event.is_some()), (left, left > 0));
    }
}

/// A limit that is in force, a session that holds and a network that is known outlive every purge.
pub async fn a_purge_frees_nobody(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let session = open(&ana, PasswordVersion::FIRST, NOW);
    let session_id = session.session.id;
    store.open_session(session).await.unwrap();
    let ask = |seconds| {
        let mut command = register("new@example.org", later(seconds));
        command.throttle = vec![rule("one", 1, Duration::minutes(10))];
        command
    };
    store.register(ask(0)).await.unwrap();
    for _ in 0..3 {
        let guard = guard(ANA, "away", NOW);
        store.login_failed(failed(Some(ana.id), guard, NOW)).await.unwrap();
    }
    store.purge(purge(later(599))).await.unwrap();
    let refused = store.register(ask(599)).await.unwrap();
    assert_eq!(refused, Registered::Throttled { retry_after: Duration::SECOND });
    let email = super::build::email(ANA).key().clone();
    let mut limits = guard(ANA, "home", later(599));
    limits.far.limit = 0;
    for (limits, refused) in [(guard(ANA, "away", later(599)), true), (limits, false)] {
        let query = CredentialsQuery { now: later(599), email: email.clone(), guard: Some(limits) };
        assert_eq!(store.credentials(query).await.unwrap().throttled.is_some(), refused, "{limits:?}");
    }
    assert!(holds(&store, session_id, later(599)).await);
    store.end_sessions(super::build::end(ana.id, SessionSelector::All, later(600))).await.unwrap();
    assert_eq!(
        store.purge(purge(later(600))).await.unwrap().sessions,
        0,
        "it ended at that moment, not before"
    );
    assert_eq!(store.purge(purge(later(601))).await.unwrap().sessions, 1);
    assert_eq!(store.register(ask(600)).await.unwrap(), Registered::Pending);
}

/// A purge in the middle of everything takes nothing from those who are still at it.
pub async fn a_purge_takes_no_code_from_under_a_redemption(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let mut codes = Vec::new();
    for n in 0..24 {
        codes.push(registered(&store, &format!("u{n}@example.org")).await);
        let mut over = register(&format!("over{n}@example.org"), NOW);
        over.expires_at = later(1);
        store.register(over).await.unwrap();
    }
    let answers = super::races::at_once(&store, 32, move |store, n| {
        let code = codes.get(n).copied();
        async move {
            match code {
                Some(code) => {
                    let outcome = store.redeem(right(&format!("u{n}@example.org"), code, later(1))).await;
                    Ok(outcome.unwrap())
                }
                None => Err(store.purge(Purge { batch: 5, ..purge(later(1)) }).await.unwrap()),
            }
        }
    })
    .await;
    let mut purged = Purged::default();
    for answer in answers {
        match answer {
            Ok(redeemed) => assert!(matches!(redeemed, Redeemed::Redeemed(_)), "{redeemed:?}"),
            Err(some) => purged = purged.plus(some),
        }
    }
    while purged.registrations < 24 {
        let more = store.purge(purge(later(1))).await.unwrap();
        assert!(more.registrations > 0, "a registration that is over was not counted: {purged:?}");
        purged = purged.plus(more);
    }
    assert_eq!((purged.registrations, purged.codes, purged.sessions), (24, 0, 0));
}

/// Who was deleted long ago goes with all that was theirs; the audit log tells of them by identifier alone.
pub async fn a_deleted_user_is_purged_with_all_that_is_theirs(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, bob) = (user(&store, ANA).await, user(&store, "bob@example.org").await);
    let session = signed_in(&store, &ana, NOW).await;
    let others = signed_in(&store, &bob, NOW).await;
    let reset = CodePurpose::ResetPassword;
    for address in [ANA, "bob@example.org"] {
        store.request_code(request(address, reset, NOW)).await.unwrap();
    }
    let (lease, claimed) = claim(&store, later(1)).await;
    for claimed in &claimed {
        store.settle(sent(claimed, lease, later(1))).await.unwrap();
    }
    let told = |n: usize| {
        let mut draft = super::build::audit(AuditEvent::SignOut);
        draft.actor = [None, Some(ana.id), Some(bob.id), Some(ana.id)][n];
        draft.email = Some(super::build::email(ANA).key().clone());
        (draft.ip, draft.user_agent) = (Some([192, 0, 2, 9].into()), Some("agent".into()));
        draft.request_id = Some("request".into());
        draft.done(later(2), [Some(ana.id), Some(bob.id), Some(bob.id), None][n])
    };
    let written: Vec<_> = (0..4).map(told).collect();
    for entry in &written {
        store.record(Record::unlimited(entry.clone())).await.unwrap();
    }
    let mut deletion = delete(ana.id, later(10));
    deletion.notice = None;
    store.delete_user(deletion).await.unwrap();
    let purged = |seconds| {
        let epoch = time::OffsetDateTime::UNIX_EPOCH;
        let command = Purge {
            ended_before: epoch,
            settled_before: epoch,
            dead_before: epoch,
            audited_before: epoch,
            known_before: epoch,
            marked_before: epoch,
            deleted_before: later(seconds),
            ..purge(later(500))
        };
        let store = std::sync::Arc::clone(&store);
        async move { store.purge(command).await.unwrap() }
    };
    let before = entries(&store).await;
    assert_eq!(purged(10).await.users, 0, "deleted at that moment, not before");
    assert_eq!((entries(&store).await, outbox(&store).await.len()), (before.clone(), 2));
    assert_eq!(purged(11).await.users, 1);
    assert_eq!(purged(11).await, Purged::default());
    let left = entries(&store).await;
    assert_eq!(left.len(), before.len(), "no entry goes");
    for (entry, before) in left.iter().zip(&before) {
        if [entry.subject, entry.actor].contains(&Some(ana.id)) {
            let bare = AuditEntry { email: None, ip: None, user_agent: None, ..before.clone() };
            assert_eq!(*entry, bare);
        } else {
            assert_eq!(entry, before);
        }
    }
    assert_eq!(owed(&store).await, ["reset_password_code to bob@example.org", "user_purged"]);
    assert!(!holds(&store, session.id, later(20)).await && holds(&store, others.id, later(20)).await);
    assert_eq!(candidates(&store, "bob@example.org", reset, later(20)).await.len(), 1);
    let last = store.purge(Purge { known_before: later(500), ..purge(later(86_400 * 100)) }).await.unwrap();
    assert_eq!((last.sessions, last.codes, last.networks), (1, 1, 1), "nothing of hers is left");
    assert_eq!(user(&store, ANA).await.email, ana.email);
}

/// Whoever may still come back is of use; once that is over, they go like any other.
pub async fn who_may_come_back_is_purged_when_that_is_over(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let mut deletion = delete(ana.id, later(10));
    deletion.restorable_until = Some(later(1000));
    store.delete_user(deletion).await.unwrap();
    for (seconds, gone) in [(999, 0), (1000, 1)] {
        let command = Purge { deleted_before: later(500), ..purge(later(seconds)) };
        assert_eq!(store.purge(command).await.unwrap().users, gone, "after {seconds} s");
    }
    let again = open(&ana, PasswordVersion::FIRST, later(999));
    assert_eq!(store.open_session(again).await.unwrap(), SessionOpened::NotActive);
}

/// Users go in batches, those who are not deleted never.
pub async fn deleted_users_are_purged_in_batches(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let stays = user(&store, ANA).await;
    for n in 0..5 {
        let user = user(&store, &format!("u{n}@example.org")).await.id;
        store.delete_user(delete(user, later(n))).await.unwrap();
    }
    let mut counts = Vec::new();
    for _ in 0..4 {
        let command =
            Purge { batch: 2, deleted_before: later(100), audited_before: NOW, ..purge(later(100)) };
        counts.push(store.purge(command).await.unwrap().users);
    }
    assert_eq!(counts, [2, 2, 1, 0]);
    assert_eq!(super::build::read(&store, stays.id).await, Some(stays));
}

/// Access tokens go when they ran out; the others of their session stay good.
pub async fn access_tokens_are_purged_when_they_ran_out(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let new = signed_in(&store, &ana, NOW).await;
    let command = rotate(new.id, new.refresh, "second", later(600));
    let (later_one, _) = command.access.unwrap();
    assert!(matches!(store.rotate(command).await.unwrap(), Rotated::Rotated(_)));
    let mut counts = Vec::new();
    for seconds in [899, 900, 1499, 1500] {
        counts.push(store.purge(purge(later(seconds))).await.unwrap().access_tokens);
        let key = SessionKey::Access(later_one);
        let found = store.session(SessionQuery { now: later(seconds), key }).await.unwrap();
        assert_eq!(found.is_some(), seconds < 1500, "after {seconds} s");
    }
    assert_eq!(counts, [0, 1, 0, 1]);
    assert!(holds(&store, new.id, later(1500)).await);
}

/// A key goes when another one has signed for long enough; the newest one never does.
pub async fn superseded_keys_are_purged(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let keys = [signing_key(10, "EdDSA"), signing_key(20, "EdDSA"), signing_key(30, "EdDSA")];
    for key in &keys {
        store.add_signing_key(AddSigningKey { unless_since: None, ..add_key(key.clone()) }).await.unwrap();
    }
    for (seconds, gone, left) in [(10, 0, 3), (20, 0, 3), (21, 1, 2), (30, 0, 2), (31, 1, 1), (9999, 0, 1)] {
        let command = Purge { retired_before: later(seconds), ..purge(later(10_000)) };
        assert_eq!(store.purge(command).await.unwrap().signing_keys, gone, "before {seconds} s");
        let stored = store.signing_keys().await.unwrap();
        assert_eq!(stored, keys.iter().rev().take(left).cloned().collect::<Vec<_>>(), "before {seconds} s");
    }
}
