//! Laws of what is owed, and how it leaves.

use std::time::Instant;

use time::Duration;

use super::StoreHarness;
use super::build::{
    NOW, SettleOne as _, acting, admin, all_events, audited, claim, create, entries, events, guess, invite,
    later, lease, open, outbox, register, registered, replace, request, requeue, right, roles, sent,
    set_password, user, user_id,
};
use crate::domain::code::CodePurpose;
use crate::domain::id::OutboxId;
use crate::domain::page::PageSize;
use crate::domain::password::PasswordVersion;
use crate::port::store::code::Redeemed;
use crate::port::store::outbox::{
    Claim, Claimed, DeliveryResult, DomainRoom, Lease, OutboxQuery, OutboxStatus, RenewLeases, Renewed,
    Requeue, Requeued, Settle, Settled,
};

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
    assert_eq!(again[0].mail, first[0].mail);
}

/// A claim whose answer was lost is made again under the same lease, and gets what it has: nothing more, no attempt more,
/// and what was settled or is somebody else's by now not at all.
pub async fn a_claim_made_again_gets_what_it_has(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for address in [ANA, "bob@example.org", "eva@example.org"] {
        registered(&store, address).await;
    }
    let ids = |claimed: &[Claimed]| claimed.iter().map(|one| (one.mail.id, one.attempt)).collect::<Vec<_>>();
    let held = lease();
    let made =
        |now, lease_until, limit| Claim { now, lease: held, lease_until, limit, room: DomainRoom::UNBOUNDED };
    let first = store.claim(made(NOW, later(300), 2)).await.unwrap();
    assert_eq!(first.len(), 2);
    assert_eq!(ids(&store.claim(made(later(200), later(500), 100)).await.unwrap()), ids(&first));
    let (_, others) = claim(&store, later(300)).await;
    assert_eq!(others.len(), 1, "the lease was made longer");
    store.settle(sent(&first[0], held, later(300))).await.unwrap();
    let again = store.claim(made(later(301), later(500), 100)).await.unwrap();
    assert_eq!(ids(&again), ids(&first[1..]));
    assert_eq!(claim(&store, later(500)).await.1.len(), 1);
    let late = store.claim(made(later(501), later(700), 100)).await.unwrap();
    assert!(late.is_empty(), "somebody else has it");
}

/// Whoever lost the lease cannot settle.
pub async fn a_lease_is_fenced(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    registered(&store, ANA).await;
    let (old, claimed) = claim(&store, NOW).await;
    let (new, _) = claim(&store, later(300)).await;
    let settle = |lease| Settle {
        now: later(301),
        id: claimed[0].mail.id,
        lease,
        result: DeliveryResult::Sent { code_ttl: None },
    };
    assert_eq!(store.settle(settle(old)).await.unwrap(), Settled::LostLease);
    assert_eq!(store.settle(settle(new)).await.unwrap(), Settled::Settled);
    assert!(claim(&store, later(9999)).await.1.is_empty());
}

/// A lease that is renewed is kept, of several mails at once; one that ran out is renewed only until another claim has the
/// mail, and none is renewed of a mail that is settled.
pub async fn a_lease_that_is_renewed_is_kept(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for address in [ANA, "bob@example.org", "eva@example.org"] {
        registered(&store, address).await;
    }
    let (held, claimed) = claim(&store, NOW).await;
    let id = |n: usize| claimed[n].mail.id;
    let renew = |ids: &[OutboxId], lease, lease_until| {
        let (store, held) = (std::sync::Arc::clone(&store), ids.iter().map(|id| (*id, lease)).collect());
        async move { store.renew_mails(RenewLeases { lease_until, held }).await.unwrap() }
    };
    let (kept, lost) = (Renewed::Kept, Renewed::Lost);
    assert_eq!(renew(&[], held, later(400)).await, []);
    assert_eq!(renew(&[id(0), id(1)], held, later(400)).await, [kept, kept]);
    let (other, taken) = claim(&store, later(399)).await;
    assert_eq!(taken.iter().map(|one| one.mail.id).collect::<Vec<_>>(), [id(2)], "the one not renewed");
    assert_eq!(renew(&[id(2), id(0)], held, later(900)).await, [lost, kept], "each by itself");
    assert_eq!(renew(&[id(0), id(2)], other, later(900)).await, [lost, kept]);
    // It ran out at 400, and nobody has taken it.
    assert_eq!(renew(&[id(1)], held, later(900)).await, [kept]);
    assert!(claim(&store, later(899)).await.1.is_empty(), "they are kept until the new end");
    assert_eq!(store.settle(sent(&claimed[0], held, later(899))).await.unwrap(), Settled::Settled);
    assert_eq!(renew(&[id(0)], held, later(2000)).await, [lost], "it is settled");
    let unknown = OutboxId::from_uuid(uuid::Uuid::from_u128(1));
    assert_eq!(renew(&[unknown], held, later(2000)).await, [lost]);
    let again = claim(&store, later(900)).await.1;
    assert_eq!(
        again.iter().map(|one| (one.mail.id, one.attempt)).collect::<Vec<_>>(),
        [(id(1), 2), (id(2), 3)]
    );
    assert_eq!(renew(&[id(1)], held, later(2000)).await, [lost], "another claim has it");
}

/// The mail of a code that was voided, spent or ran out before it left is not sent.
pub async fn a_mail_of_a_dead_code_is_void(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    registered(&store, ANA).await;
    let newer = request(ANA, CodePurpose::EmailVerification, NOW);
    store.request_code(newer.clone()).await.unwrap();
    let (_, claimed) = claim(&store, later(1)).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].mail.id, newer.mail.id);
    let query = OutboxQuery { status: Some(OutboxStatus::Void), ..OutboxQuery::default() };
    assert_eq!(store.outbox(query).await.unwrap().items.len(), 1);
    assert!(claim(&store, later(90_000)).await.1.is_empty(), "the registration is over");
}

/// A failed mail waits until it is due; one that failed for good stays, with why.
pub async fn a_failed_mail_waits_its_turn(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    registered(&store, ANA).await;
    let (lease, claimed) = claim(&store, NOW).await;
    let id = claimed[0].mail.id;
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

/// The oldest due comes first, and no more than were asked for; a retry waits behind what is due before it.
pub async fn the_oldest_due_is_claimed_first(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (old, middle, young) = (register(ANA, NOW), register(ANA, later(10)), register(ANA, later(20)));
    let ids = [old.code_mail.id, middle.code_mail.id, young.code_mail.id];
    for command in [young, old, middle] {
        store.register(command).await.unwrap();
    }
    let taken = |seconds, limit| {
        let store = std::sync::Arc::clone(&store);
        async move {
            let now = later(seconds);
            let lease = lease();
            let claim =
                Claim { now, lease, lease_until: now + Duration::MINUTE, limit, room: DomainRoom::UNBOUNDED };
            let claimed = store.claim(claim).await.unwrap();
            (lease, claimed.iter().map(|claimed| claimed.mail.id).collect::<Vec<_>>())
        }
    };
    assert_eq!(taken(19, 0).await.1, []);
    let (lease, first) = taken(19, 1).await;
    assert_eq!(first, ids[..1]);
    let result = DeliveryResult::Retry { at: later(25), error: "busy".into() };
    store.settle(Settle { now: later(19), id: ids[0], lease, result }).await.unwrap();
    assert_eq!(taken(19, 9).await.1, ids[1..2], "the third is not due yet");
    assert_eq!(taken(30, 9).await.1, [ids[2], ids[0]]);
    assert_eq!(taken(89, 9).await.1, ids[1..2], "its lease has passed, the others' not");
}

/// A claim brings no more mails to a domain than it has room for; the others take no place from those of other domains.
pub async fn a_claim_keeps_to_the_room_of_each_domain(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for n in 0..3 {
        registered(&store, &format!("u{n}@slow.example.org")).await;
    }
    for address in ["ana@example.org", "eva@not-slow.example.org", "ida@other.example"] {
        registered(&store, address).await;
    }
    let claimed = |limit, room: DomainRoom| {
        let store = std::sync::Arc::clone(&store);
        let claim = Claim { now: NOW, lease: lease(), lease_until: later(60), limit, room };
        async move {
            let claimed = store.claim(claim).await.unwrap();
            let receiver = |claimed: &Claimed| claimed.mail.to.to_string();
            claimed.iter().map(receiver).collect::<Vec<_>>()
        }
    };
    let passing_over =
        |domains: &[&str]| domains.iter().fold(DomainRoom::UNBOUNDED, |room, domain| room.with(*domain, 0));
    let others = claimed(2, passing_over(&["slow.example.org"])).await;
    assert_eq!(others, ["ana@example.org", "eva@not-slow.example.org"], "a name that ends so is another");
    assert_eq!(claimed(9, passing_over(&["slow.example.org", "other.example"])).await, [""; 0]);
    assert_eq!(claimed(9, DomainRoom::new(0).with("slow.example.org", 1)).await, ["u0@slow.example.org"]);
    assert_eq!(claimed(9, DomainRoom::new(1)).await, ["u1@slow.example.org", "ida@other.example"]);
    assert_eq!(claimed(9, DomainRoom::new(1)).await, ["u2@slow.example.org"]);
}

/// However many wait to a domain that may have few at once, those behind them are found, claim by claim.
pub async fn one_domain_hides_no_other(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for n in 0..200 {
        registered(&store, &format!("u{n}@slow.example.org")).await;
    }
    registered(&store, ANA).await;
    let claimed = |room: DomainRoom| {
        let store = std::sync::Arc::clone(&store);
        let claim = Claim { now: NOW, lease: lease(), lease_until: later(60), limit: 8, room };
        async move { store.claim(claim).await.unwrap() }
    };
    let mut slow = claimed(DomainRoom::new(2)).await.len();
    assert!((1..=2).contains(&slow), "{slow}");
    let mut others = 0;
    for _ in 0..2 {
        let room = DomainRoom::new(2).with("slow.example.org", 2 - u32::try_from(slow).unwrap());
        let brought = claimed(room).await;
        let to_slow = brought.iter().filter(|claimed| claimed.mail.to.as_str() != ANA).count();
        (slow, others) = (slow + to_slow, others + brought.len() - to_slow);
    }
    assert_eq!((slow, others), (2, 1));
}

/// Attempts that end together are noted together, each as if by itself and one after the other: one whose lease was lost
/// takes nothing from the others, of the same mail either, and one that is noted twice is noted once.
pub async fn attempts_are_settled_together(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let mut codes = Vec::new();
    for n in 0..4 {
        codes.push(registered(&store, &format!("u{n}@example.org")).await);
    }
    let (lease, claimed) = claim(&store, NOW).await;
    let settle = |n: usize, result| Settle { now: later(1), id: claimed[n].mail.id, lease, result };
    let stale = Lease([7; 16]);
    let commands = vec![
        settle(0, DeliveryResult::Retry { at: later(20), error: "busy".into() }),
        Settle { lease: stale, ..settle(1, DeliveryResult::Dead { error: "too late".into() }) },
        sent(&claimed[1], lease, later(1)),
        sent(&claimed[2], stale, later(1)),
        settle(3, DeliveryResult::Dead { error: "no such user".into() }),
        settle(3, DeliveryResult::Retry { at: later(20), error: "busy".into() }),
    ];
    let settled = store.settle_all(commands).await.unwrap();
    let (yes, lost) = (Settled::Settled, Settled::LostLease);
    assert_eq!(settled, [yes, lost, yes, lost, yes, lost]);
    assert_eq!(store.settle_all(Vec::new()).await.unwrap(), []);
    let mut seen: Vec<_> = outbox(&store).await;
    seen.sort_by_key(|entry| claimed.iter().position(|claimed| claimed.mail.id == entry.mail.id));
    let seen: Vec<_> =
        seen.iter().map(|entry| (entry.status, entry.settled_at, entry.error.as_deref())).collect();
    let expected = [
        (OutboxStatus::Queued, None, Some("busy")),
        (OutboxStatus::Sent, Some(later(1)), None),
        (OutboxStatus::Queued, None, None),
        (OutboxStatus::Dead, Some(later(1)), Some("no such user")),
    ];
    assert_eq!(seen, expected);
    // The life of the code in the mail that was sent has begun, and of no other.
    assert_eq!(claim(&store, later(20)).await.1.len(), 1, "the one to be tried again");
    for (n, code) in codes.into_iter().enumerate() {
        let outcome = store.redeem(right(&format!("u{n}@example.org"), code, later(3600))).await.unwrap();
        assert_eq!(matches!(outcome, Redeemed::Expired), n == 1, "{n}: {outcome:?}");
    }
}

/// A code that is spent, or whose user has a new password, takes its mail with it; one that left stays as it left.
pub async fn a_spent_code_is_not_mailed(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let code = registered(&store, ANA).await;
    store.redeem(right(ANA, code, later(1))).await.unwrap();
    let bob = user(&store, "bob@example.org").await;
    store.request_code(request("bob@example.org", CodePurpose::ResetPassword, NOW)).await.unwrap();
    store.replace_password(replace(bob.id, PasswordVersion::FIRST, later(1))).await.unwrap();
    let eva = registered(&store, "eva@example.org").await;
    let mut early = claim(&store, later(2)).await;
    early.1.retain(|claimed| claimed.mail.code.is_some());
    assert_eq!(early.1.len(), 1, "one code is live: {:?}", early.1);
    store.redeem(right("eva@example.org", eva, later(3))).await.unwrap();
    assert_eq!(store.settle(sent(&early.1[0], early.0, later(4))).await.unwrap(), Settled::Settled);
    let status: Vec<_> = outbox(&store).await.iter().map(|entry| (entry.status, entry.settled_at)).collect();
    assert_eq!(status.iter().filter(|status| status.0 == OutboxStatus::Void).count(), 2);
    assert!(status.contains(&(OutboxStatus::Void, Some(later(2)))), "{status:?}");
    assert!(status.contains(&(OutboxStatus::Sent, Some(later(4)))), "{status:?}");
}

/// The outbox is read the newest first, a page at a time, also of one status.
pub async fn the_outbox_is_paged(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for n in 0..5 {
        registered(&store, &format!("u{n}@example.org")).await;
    }
    let (lease, claimed) = claim(&store, NOW).await;
    for claimed in &claimed[..3] {
        store.settle(sent(claimed, lease, later(1))).await.unwrap();
    }
    for (status, expected) in
        [(None, 5_usize), (Some(OutboxStatus::Sent), 3), (Some(OutboxStatus::Queued), 2)]
    {
        let (mut seen, mut pages, mut after) = (Vec::new(), 0, None);
        loop {
            let page = store
                .outbox(OutboxQuery { user: None, status, after, size: PageSize::new(2) })
                .await
                .unwrap();
            assert!(page.items.iter().all(|entry| status.is_none_or(|status| entry.status == status)));
            seen.extend(page.items.iter().map(|entry| entry.mail.id));
            (pages, after) = (pages + 1, page.next);
            if after.is_none() {
                break;
            }
        }
        assert_eq!((seen.len(), pages), (expected, expected.div_ceil(2)), "{status:?}");
        assert!(seen.is_sorted_by(|newer, older| newer > older), "{status:?}");
    }
}

/// Of what passwords and sign-ins might owe, what came true is owed.
pub async fn events_tell_of_passwords_and_sign_ins(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let mut sign_in = open(&ana, PasswordVersion::FIRST, NOW);
    sign_in.events = all_events();
    store.open_session(sign_in).await.unwrap();
    assert_eq!(events(&store).await, ["signed_in"]);
    let mut change = replace(ana.id, PasswordVersion::FIRST, NOW);
    change.events = all_events();
    store.replace_password(change).await.unwrap();
    assert_eq!(events(&store).await[1..], ["password_changed"]);
    for session in [None, Some(super::build::session(NOW))] {
        let asked = request(ANA, CodePurpose::ResetPassword, NOW);
        let code = asked.code.id;
        store.request_code(asked).await.unwrap();
        let effect = set_password("x", session);
        let mut redeem = guess(ANA, CodePurpose::ResetPassword, &[code], Some(code), effect, NOW);
        redeem.events = all_events();
        store.redeem(redeem).await.unwrap();
    }
    assert_eq!(events(&store).await[2..], ["password_changed", "password_changed", "signed_in"]);
    let invited = invite("eva@example.org", NOW);
    let (code, _) = invited.invitation.unwrap();
    store.create_user(invited).await.unwrap();
    let effect = set_password("x", None);
    let mut redeem =
        guess("eva@example.org", CodePurpose::FirstTimeSetup, &[code.id], Some(code.id), effect, NOW);
    redeem.events = all_events();
    store.redeem(redeem).await.unwrap();
    assert_eq!(events(&store).await[5..], ["email_verified", "password_changed"]);
}

/// Of the events that a command might owe, those that came true are.
pub async fn only_true_events_are_owed(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let code = registered(&store, ANA).await;
    let mut verify = right(ANA, code, NOW);
    verify.events = all_events();
    store.redeem(verify).await.unwrap();
    assert_eq!(events(&store).await, ["user_registered", "email_verified"]);
    let mut refused = right(ANA, code, NOW);
    refused.events = all_events();
    store.redeem(refused).await.unwrap();
    let mut made = create("bob@example.org", NOW);
    made.events = all_events();
    store.create_user(made).await.unwrap();
    assert_eq!(events(&store).await[2..], ["user_registered"]);
}

/// A dead mail is due again, with its attempts counted anew; whatever is not dead is not found, and both are audited.
pub async fn a_dead_mail_is_requeued(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    for address in [ANA, "new@example.org", "sent@example.org", "waits@example.org"] {
        store.register(register(address, NOW)).await.unwrap();
    }
    drop(claim(&store, NOW).await);
    let (lease, claimed) = claim(&store, later(300)).await;
    let ids: Vec<_> = claimed.iter().map(|claimed| claimed.mail.id).collect();
    for id in [ids[0], ids[1]] {
        let result = DeliveryResult::Dead { error: "no such mailbox".into() };
        store.settle(Settle { now: later(301), id, lease, result }).await.unwrap();
    }
    store.settle(sent(&claimed[2], lease, later(301))).await.unwrap();
    let before = audited(&store).await.len();
    let unknown = OutboxId::from_uuid(uuid::Uuid::from_u128(1));
    for id in [ids[2], ids[3], unknown] {
        assert_eq!(store.requeue(requeue(id, later(400))).await.unwrap(), Requeued::NotFound);
    }
    assert_eq!(audited(&store).await[before..], ["not_found"; 3]);
    for (id, subject) in [(ids[0], Some(ana.id)), (ids[1], None)] {
        assert_eq!(store.requeue(requeue(id, later(400))).await.unwrap(), Requeued::Requeued);
        let written = entries(&store).await.pop().unwrap();
        assert_eq!((written.reason, written.subject), (None, subject));
        assert_eq!(store.requeue(requeue(id, later(400))).await.unwrap(), Requeued::NotFound, "not again");
        let entry = outbox(&store).await.into_iter().find(|entry| entry.mail.id == id).unwrap();
        assert_eq!((entry.status, entry.attempts), (OutboxStatus::Queued, 0));
        assert_eq!((entry.due_at, entry.settled_at), (later(400), None));
    }
    assert!(claim(&store, later(399)).await.1.is_empty());
    let (_, again) = claim(&store, later(400)).await;
    let mut attempts: Vec<_> = again.iter().map(|claimed| (claimed.mail.id, claimed.attempt)).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [(ids[0], 1), (ids[1], 1)]);
}

/// An actor who no longer may has nothing sent again.
pub async fn a_dead_mail_is_requeued_only_as_decided(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let boss = admin(&store, ANA).await;
    registered(&store, "new@example.org").await;
    let (lease, claimed) = claim(&store, NOW).await;
    let id = claimed[0].mail.id;
    let result = DeliveryResult::Dead { error: "no such mailbox".into() };
    store.settle(Settle { now: NOW, id, lease, result }).await.unwrap();
    let before = outbox(&store).await;
    let (mut demoted, mut unknown) = (acting(&boss, &[]), acting(&boss, &[]));
    demoted.roles = roles(&["user"]);
    unknown.id = user_id();
    for by in [demoted, unknown] {
        let command = Requeue { by: Some(by), ..requeue(id, later(1)) };
        assert_eq!(store.requeue(command).await.unwrap(), Requeued::NotPermitted);
        assert_eq!(audited(&store).await.pop().as_deref(), Some("forbidden"));
    }
    assert_eq!(outbox(&store).await, before);
    let command = Requeue { by: Some(acting(&boss, &["admin"])), ..requeue(id, later(1)) };
    assert_eq!(store.requeue(command).await.unwrap(), Requeued::Requeued);
}
