//! Laws of events: how they are kept, read and told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use time::{Duration, OffsetDateTime};

use super::StoreHarness;
use super::build::{
    NOW, SettleOne as _, all_events, create, delete, digest, end, events, feed, imported, later, lease, open,
    purge, rotate, update, user, user_id,
};
use crate::domain::event::{Event, EventKind, EventPosition};
use crate::domain::id::{EventId, UserId};
use crate::domain::page::PageSize;
use crate::domain::password::PasswordVersion;
use crate::domain::user::Username;
use crate::port::store::Store;
use crate::port::store::account::{ImportUsers, UpdateUser, UserChange};
use crate::port::store::event::{ClaimedEvent, EventFeed, EventQuery, EventResult, SettleEvent};
use crate::port::store::outbox::{Claim, DomainRoom, Lease, RenewLeases, Renewed, Settled};
use crate::port::store::session::{Rotated, SessionSelector};
use crate::port::store::upkeep::Purge;

const ANA: &str = "ana@example.org";
const FIRST: PasswordVersion = PasswordVersion::FIRST;

/// Gives a user another name: one event.
fn rename(id: UserId, name: &str, now: OffsetDateTime) -> UpdateUser {
    let username = Some(Some(Username::parse(name).unwrap()));
    let mut command = update(id, UserChange { username, ..UserChange::default() }, now);
    command.events = all_events();
    command
}

/// Renames a user so often. Answers the identifiers of the events, in order.
async fn renamed(store: &Arc<dyn Store>, id: UserId, times: usize) -> Vec<EventId> {
    let mut ids = Vec::new();
    for n in 0..times {
        let command = rename(id, &format!("name {n}"), NOW);
        ids.push(command.events.iter().find(|draft| draft.kind == EventKind::UserUpdated).unwrap().id);
        store.update_user(command).await.unwrap();
    }
    ids
}

async fn page(store: &Arc<dyn Store>, after: Option<EventPosition>, size: u16) -> EventFeed {
    store.events(EventQuery { after, size: PageSize::new(size) }).await.unwrap()
}

/// The events after a position, and where the reader is then.
async fn read_on(store: &Arc<dyn Store>, after: EventPosition, size: u16) -> (Vec<Event>, EventPosition) {
    match page(store, Some(after), size).await {
        EventFeed::Page { events, next } => (events, next),
        gap @ EventFeed::Gap { .. } => panic!("{gap:?} after {after}"),
    }
}

async fn claim(store: &Arc<dyn Store>, now: OffsetDateTime, limit: u32) -> (Lease, Vec<ClaimedEvent>) {
    let lease = lease();
    let lease_until = now + Duration::minutes(5);
    let claim = Claim { now, lease, lease_until, limit, room: DomainRoom::UNBOUNDED };
    (lease, store.claim_events(claim).await.unwrap())
}

async fn settle(
    store: &Arc<dyn Store>,
    id: EventId,
    lease: Lease,
    result: EventResult,
    now: OffsetDateTime,
) -> Settled {
    store.settle_event(SettleEvent { now, id, lease, result }).await.unwrap()
}

fn ids(claimed: &[ClaimedEvent]) -> Vec<EventId> {
    claimed.iter().map(|claimed| claimed.event.id).collect()
}

/// An event comes back as it was written, with the session where there is one.
pub async fn an_event_comes_back_as_it_was_written(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let mut sign_in = open(&ana, FIRST, later(7));
    sign_in.events = all_events();
    let session = sign_in.session.id;
    let id = sign_in.events.iter().find(|draft| draft.kind == EventKind::SignedIn).unwrap().id;
    store.open_session(sign_in).await.unwrap();
    store.update_user(rename(ana.id, "Ana", later(8))).await.unwrap();
    let all = feed(&store).await;
    let expected = Event {
        id,
        position: EventPosition::from_u64(1),
        at: later(7),
        kind: EventKind::SignedIn,
        user_id: ana.id,
        session_id: Some(session),
    };
    assert_eq!(all[0], expected);
    assert_eq!((all[1].kind, all[1].session_id), (EventKind::UserUpdated, None));
    assert_eq!(claim(&store, later(9), 9).await.1[0].event, expected, "the same is told");
}

/// Sessions that are ended are told of: the one, or that there were several; none ended, nothing is told.
pub async fn ended_sessions_are_told_of(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let sessions: Vec<_> = (0..4).map(|_| open(&ana, FIRST, NOW)).collect();
    for session in &sessions {
        store.open_session(session.clone()).await.unwrap();
    }
    let [one, two, three, _] = [0, 1, 2, 3].map(|n| sessions[n].session.id);
    for which in [SessionSelector::One(one), SessionSelector::One(one), SessionSelector::AllBut(two)] {
        let mut command = end(ana.id, which, NOW);
        command.events = all_events();
        store.end_sessions(command).await.unwrap();
    }
    let over = Rotated::Ended { owner: Some(ana.id) };
    for (session, answer) in [(two, Rotated::Reused), (two, over.clone()), (three, over)] {
        let mut reused = rotate(session, digest("a token that was used up"), "next", NOW);
        reused.events = all_events();
        assert_eq!(store.rotate(reused).await.unwrap(), answer);
    }
    let told: Vec<_> = feed(&store).await.iter().map(|event| (event.kind, event.session_id)).collect();
    let ended = EventKind::SessionsEnded;
    assert_eq!(told, [(ended, Some(one)), (ended, None), (ended, Some(two))]);
}

/// A deletion is told of at once, and once more when the user is gone for good; what came before stays to be read.
pub async fn a_purged_user_is_told_of(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let mut command = delete(ana.id, NOW);
    command.events = all_events();
    store.delete_user(command).await.unwrap();
    for _ in 0..2 {
        store.purge(purge(later(1))).await.unwrap();
    }
    let told: Vec<_> = feed(&store).await.iter().map(|event| (event.kind, event.user_id)).collect();
    assert_eq!(told, [(EventKind::UserDeleted, ana.id), (EventKind::UserPurged, ana.id)]);
}

/// Imported users are told of as all others are; who was left out is not.
pub async fn imported_users_are_told_of(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    user(&store, ANA).await;
    let users: Vec<_> =
        [ANA, "bob@example.org", "eva@example.org"].map(|address| imported(address, NOW)).into();
    let expected: Vec<_> = users[1..].iter().map(|user| (user.event.id, user.user.id)).collect();
    store.import_users(ImportUsers { now: NOW, users: users.clone() }).await.unwrap();
    store.import_users(ImportUsers { now: NOW, users }).await.unwrap();
    let told: Vec<_> = feed(&store).await.iter().map(|event| (event.id, event.user_id)).collect();
    assert_eq!(told, expected);
}

/// The feed is read a page at a time; at its end it is empty, and the same position later answers what came since.
pub async fn the_feed_is_read_on_from_a_position(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    assert_eq!(read_on(&store, EventPosition::START, 5).await, (Vec::new(), EventPosition::START));
    let ana = user(&store, ANA).await;
    let written = renamed(&store, ana.id, 5).await;
    let (mut seen, mut at) = (Vec::new(), EventPosition::START);
    for expected in [2, 2, 1, 0, 0] {
        let (events, next) = read_on(&store, at, 2).await;
        assert_eq!(events.len(), expected);
        assert!(events.iter().all(|event| event.position > at && event.position <= next));
        seen.extend(events.iter().map(|event| event.id));
        at = next;
    }
    assert_eq!(seen, written);
    let more = renamed(&store, ana.id, 1).await;
    let (events, next) = read_on(&store, at, 2).await;
    assert_eq!(events.iter().map(|event| event.id).collect::<Vec<_>>(), more);
    assert!(next > at);
    assert_eq!(read_on(&store, at, 2).await.0, events, "everybody reads the same at the same position");
}

/// What was purged is said, not passed over; whoever read it before reads on.
pub async fn a_reader_learns_that_events_are_gone(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    store.update_user(rename(ana.id, "one", NOW)).await.unwrap();
    let (_, first) = read_on(&store, EventPosition::START, 9).await;
    // Nobody has read these when they go.
    for (seconds, name) in [(10, "two"), (20, "three"), (30, "four")] {
        store.update_user(rename(ana.id, name, later(seconds))).await.unwrap();
    }
    let purge_before = |seconds| {
        let store = Arc::clone(&store);
        async move {
            let events_before = later(seconds);
            store.purge(Purge { events_before, ..purge(later(60)) }).await.unwrap().events
        }
    };
    assert_eq!(purge_before(0).await, 0);
    assert_eq!(purge_before(1).await, 1);
    let (events, _) = read_on(&store, first, 9).await;
    assert_eq!(events.len(), 3, "the one that is gone was read");
    let resume_after = first;
    assert_eq!(page(&store, Some(EventPosition::START), 9).await, EventFeed::Gap { resume_after });
    assert_eq!(purge_before(25).await, 2);
    let EventFeed::Gap { resume_after } = page(&store, Some(first), 9).await else { panic!("passed over") };
    let (events, end) = read_on(&store, resume_after, 9).await;
    assert_eq!(events.iter().map(|event| event.at).collect::<Vec<_>>(), [later(30)]);
    let from_the_oldest = page(&store, None, 9).await;
    assert_eq!(from_the_oldest, EventFeed::Page { events, next: end });
    assert_eq!(purge_before(31).await, 1, "also the last one");
    assert_eq!(read_on(&store, end, 9).await, (Vec::new(), end), "who read it all lacks nothing");
    assert_eq!(page(&store, None, 9).await, EventFeed::Page { events: Vec::new(), next: end });
    store.update_user(rename(ana.id, "five", later(40))).await.unwrap();
    assert!(read_on(&store, end, 9).await.0[0].position > end, "a position is given once");
}

/// A position that was never given, as after the store was set back to an older copy, is said to be none.
pub async fn a_position_that_was_never_given_is_a_gap(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    renamed(&store, ana.id, 2).await;
    let resume_after = EventPosition::START;
    for unknown in [3, 1_000_000, u64::MAX] {
        let answer = page(&store, Some(EventPosition::from_u64(unknown)), 9).await;
        assert_eq!(answer, EventFeed::Gap { resume_after }, "{unknown}");
    }
    assert!(read_on(&store, EventPosition::from_u64(2), 9).await.0.is_empty());
}

/// Events go in their order: none before one that stays, in batches, and those of a clock that ran far ahead do not stay
/// for ever.
pub async fn a_purge_of_events_keeps_their_order(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    for (n, seconds) in [0, 1000, 0, 90_000_000, 2000, 3000].into_iter().enumerate() {
        store.update_user(rename(ana.id, &format!("name {n}"), later(seconds))).await.unwrap();
    }
    let purge_at = |now: i64, keep: i64, batch| {
        let store = Arc::clone(&store);
        async move {
            let now = later(now);
            let events_before = now - Duration::seconds(keep);
            store.purge(Purge { events_before, batch, ..purge(now) }).await.unwrap().events
        }
    };
    assert_eq!(purge_at(1100, 500, 100).await, 1, "the third is old and behind one that is not");
    assert_eq!(purge_at(2100, 500, 1).await, 1);
    assert_eq!(purge_at(2100, 500, 1).await, 1);
    assert_eq!(purge_at(2100, 500, 100).await, 1, "it is from farther ahead than events are kept");
    let left: Vec<_> = feed(&store).await.iter().map(|event| event.at).collect();
    assert_eq!(left, [later(2000), later(3000)]);
}

/// Of a user the oldest event is told first, and the next one when it was taken; other users do not wait for it.
pub async fn events_of_a_user_are_told_one_after_the_other(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, bob) = (user(&store, ANA).await, user(&store, "bob@example.org").await);
    let (of_ana, of_bob) = (renamed(&store, ana.id, 3).await, renamed(&store, bob.id, 2).await);
    let (lease, claimed) = claim(&store, later(1), 9).await;
    assert_eq!(ids(&claimed), [of_ana[0], of_bob[0]]);
    assert!(claim(&store, later(2), 9).await.1.is_empty(), "both are under way");
    assert_eq!(settle(&store, of_bob[0], lease, EventResult::Delivered, later(2)).await, Settled::Settled);
    let retry = EventResult::Retry { at: later(60) };
    assert_eq!(settle(&store, of_ana[0], lease, retry, later(2)).await, Settled::Settled);
    let (_, second) = claim(&store, later(3), 9).await;
    assert_eq!(ids(&second), [of_bob[1]]);
    assert!(claim(&store, later(59), 9).await.1.is_empty(), "what follows a failed one waits too");
    let (lease, again) = claim(&store, later(60), 9).await;
    assert_eq!((ids(&again), again[0].attempt), (vec![of_ana[0]], 2));
    assert_eq!(again[0].event, claimed[0].event);
    let mut now = later(61);
    settle(&store, of_ana[0], lease, EventResult::Delivered, now).await;
    for expected in &of_ana[1..] {
        now += Duration::SECOND;
        let (lease, claimed) = claim(&store, now, 1).await;
        assert_eq!(ids(&claimed), [*expected]);
        settle(&store, *expected, lease, EventResult::Delivered, now).await;
    }
    let newer = renamed(&store, ana.id, 1).await;
    assert_eq!(ids(&claim(&store, now, 9).await.1), newer, "all before it was taken");
    assert_eq!(feed(&store).await.len(), 6, "what was told stays to be read");
}

/// Events leave in the order of the feed, no more at once than were asked for; those that failed come after.
pub async fn the_oldest_event_is_claimed_first(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let mut expected = Vec::new();
    for n in 0..4 {
        let made = user(&store, &format!("u{n}@example.org")).await;
        expected.extend(renamed(&store, made.id, 1).await);
    }
    assert!(claim(&store, NOW, 0).await.1.is_empty());
    let (lease, first) = claim(&store, NOW, 1).await;
    assert_eq!(ids(&first), expected[..1]);
    settle(&store, expected[0], lease, EventResult::Retry { at: later(1) }, NOW).await;
    assert_eq!(ids(&claim(&store, later(1), 2).await.1), expected[1..3]);
    assert_eq!(ids(&claim(&store, later(1), 9).await.1), [expected[3], expected[0]]);
}

/// A claimed event is nobody else's until its lease has passed, and whoever lost the lease cannot settle.
pub async fn a_lease_of_an_event_is_fenced(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let written = renamed(&store, ana.id, 2).await;
    let (old, _) = claim(&store, NOW, 9).await;
    assert!(claim(&store, later(299), 9).await.1.is_empty());
    let (new, again) = claim(&store, later(300), 9).await;
    assert_eq!((ids(&again), again[0].attempt), (written[..1].to_vec(), 2));
    let delivered = EventResult::Delivered;
    assert_eq!(settle(&store, written[0], old, delivered, later(301)).await, Settled::LostLease);
    assert!(claim(&store, later(301), 9).await.1.is_empty(), "the next one's turn has not come");
    assert_eq!(settle(&store, written[0], new, delivered, later(301)).await, Settled::Settled);
    assert_eq!(settle(&store, written[0], new, delivered, later(301)).await, Settled::LostLease);
    assert_eq!(ids(&claim(&store, later(301), 9).await.1), written[1..]);
    let unknown = EventId::from_uuid(uuid::Uuid::from_u128(1));
    assert_eq!(settle(&store, unknown, new, delivered, later(301)).await, Settled::LostLease);
}

/// A lease of an event that is renewed is kept; one that another claim has is not renewed.
pub async fn a_lease_of_an_event_that_is_renewed_is_kept(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let written = renamed(&store, ana.id, 2).await;
    let renew = |lease, lease_until| {
        let (store, held) = (Arc::clone(&store), vec![(written[0], lease)]);
        async move { store.renew_events(RenewLeases { lease_until, held }).await.unwrap() }
    };
    let (old, _) = claim(&store, NOW, 9).await;
    assert_eq!(renew(old, later(400)).await, [Renewed::Kept]);
    assert!(claim(&store, later(399), 9).await.1.is_empty());
    let (new, again) = claim(&store, later(400), 9).await;
    assert_eq!((ids(&again), again[0].attempt), (written[..1].to_vec(), 2));
    assert_eq!(renew(old, later(900)).await, [Renewed::Lost]);
    assert_eq!(settle(&store, written[0], new, EventResult::Delivered, later(401)).await, Settled::Settled);
    assert_eq!(renew(new, later(900)).await, [Renewed::Lost], "it is settled");
    assert_eq!(ids(&claim(&store, later(401), 9).await.1), written[1..], "the next one's turn has come");
}

/// An event that is too old goes, also one that was never taken; then the next one's turn has come.
pub async fn a_purge_passes_the_turn_on(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let mut written = Vec::new();
    for (seconds, name) in [(0, "one"), (100, "two"), (200, "three")] {
        let command = rename(ana.id, name, later(seconds));
        written.push(command.events.iter().find(|draft| draft.kind == EventKind::UserUpdated).unwrap().id);
        store.update_user(command).await.unwrap();
    }
    let (lease, claimed) = claim(&store, later(200), 9).await;
    assert_eq!(ids(&claimed), written[..1]);
    let purged = store.purge(Purge { events_before: later(150), ..purge(later(300)) }).await.unwrap().events;
    assert_eq!(purged, 2);
    let late = settle(&store, written[0], lease, EventResult::Delivered, later(300)).await;
    assert_eq!(late, Settled::LostLease);
    assert_eq!(ids(&claim(&store, later(300), 9).await.1), written[2..]);
}

/// Whoever waits for events is woken by the commit that tells of something.
pub async fn a_commit_wakes_whoever_waits_for_events(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    store.wait_for_events(std::time::Duration::from_millis(1)).await;
    let begun = Instant::now();
    let waiting: Vec<_> = [true, false]
        .into_iter()
        .map(|events| {
            let store = Arc::clone(&store);
            let most = std::time::Duration::from_secs(30);
            tokio::spawn(async move {
                if events { store.wait_for_events(most).await } else { store.wait_for_due(most).await }
            })
        })
        .collect();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    renamed(&store, ana.id, 1).await;
    for waiting in waiting {
        waiting.await.unwrap();
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "somebody slept through the commit");
}

/// While many commit at once, in whatever order their commits come, readers who read on from where they are see every
/// event once, of each user in order, and all the same.
pub async fn no_reader_misses_an_event(harness: &dyn StoreHarness) {
    const USERS: usize = 6;
    const EACH: usize = 25;
    const IMPORTED: usize = 250;
    let store = harness.fresh().await;
    let mut users = Vec::new();
    for n in 0..USERS {
        users.push(user(&store, &format!("u{n}@example.org")).await.id);
    }
    let writing = Arc::new(AtomicBool::new(true));
    let readers: Vec<_> = [1, 20, 200_u16]
        .into_iter()
        .map(|size| {
            let (store, writing) = (Arc::clone(&store), Arc::clone(&writing));
            tokio::spawn(async move {
                let (mut seen, mut at) = (Vec::new(), EventPosition::START);
                loop {
                    let was_writing = writing.load(Ordering::SeqCst);
                    let (events, next) = read_on(&store, at, size).await;
                    if events.is_empty() && !was_writing {
                        return seen;
                    }
                    seen.extend(events);
                    at = next;
                }
            })
        })
        .collect();
    let writers: Vec<_> = users
        .iter()
        .flat_map(|id| [(*id, "a"), (*id, "b")])
        .map(|(id, whose)| {
            let store = Arc::clone(&store);
            // Two write of each user; each knows its own order.
            tokio::spawn(async move {
                let mut written = Vec::new();
                for n in 0..EACH {
                    let command = rename(id, &format!("{whose} {n}"), NOW);
                    written.extend(
                        command.events.iter().filter(|e| e.kind == EventKind::UserUpdated).map(|e| e.id),
                    );
                    store.update_user(command).await.unwrap();
                }
                (id, written)
            })
        })
        .collect();
    // One that commits long after it wrote its first event, in the midst of the others.
    for n in 0..2 {
        let users = (0..IMPORTED).map(|i| imported(&format!("i{i}.{n}@example.org"), NOW)).collect();
        store.import_users(ImportUsers { now: NOW, users }).await.unwrap();
    }
    let mut expected = Vec::new();
    for writer in writers {
        expected.push(writer.await.unwrap());
    }
    writing.store(false, Ordering::SeqCst);
    let mut all = Vec::new();
    for reader in readers {
        all.push(reader.await.unwrap());
    }
    for seen in &all {
        assert_eq!(seen.len(), (USERS * EACH + IMPORTED) * 2, "each once");
        assert!(seen.windows(2).all(|pair| pair[0].position < pair[1].position));
        assert_eq!(seen, &all[0], "all read the same");
        for (user, written) in &expected {
            let mine: BTreeSet<_> = written.iter().collect();
            let order: Vec<_> = seen.iter().map(|event| event.id).filter(|id| mine.contains(id)).collect();
            assert_eq!(&order, written, "of {user} not in order");
        }
    }
}

/// Workers that claim at once while things go on happening are never given two events of one user, and each user's come
/// in order.
pub async fn workers_at_once_keep_the_order_of_each_user(harness: &dyn StoreHarness) {
    const EACH: usize = 12;
    let store = harness.fresh().await;
    let mut users = Vec::new();
    for n in 0..4 {
        users.push(user(&store, &format!("u{n}@example.org")).await.id);
    }
    let told: Arc<tokio::sync::Mutex<BTreeMap<UserId, Vec<EventPosition>>>> = Arc::default();
    let total = EACH * users.len();
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (store, told) = (Arc::clone(&store), Arc::clone(&told));
            tokio::spawn(async move {
                let begun = Instant::now();
                while told.lock().await.values().map(Vec::len).sum::<usize>() < total {
                    assert!(
                        begun.elapsed() < std::time::Duration::from_secs(60),
                        "an event's turn never came"
                    );
                    let (lease, claimed) = claim(&store, NOW, 3).await;
                    let of: BTreeSet<_> = claimed.iter().map(|claimed| claimed.event.user_id).collect();
                    assert_eq!(of.len(), claimed.len(), "two of one user");
                    for ClaimedEvent { event, attempt } in claimed {
                        assert_eq!(attempt, 1);
                        told.lock().await.entry(event.user_id).or_default().push(event.position);
                        settle(&store, event.id, lease, EventResult::Delivered, NOW).await;
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let writers: Vec<_> = users
        .into_iter()
        .map(|id| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { renamed(&store, id, EACH).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for worker in workers {
        worker.await.unwrap();
    }
    for order in told.lock().await.values() {
        assert_eq!(order.len(), EACH);
        assert!(order.is_sorted(), "{order:?}");
    }
}

/// Whatever a user's event tells of is there when the event is read, and nothing is told that did not happen.
pub async fn an_event_and_its_change_are_one(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    store.update_user(rename(ana.id, "Ana", NOW)).await.unwrap();
    store.update_user(rename(ana.id, "Ana", NOW)).await.unwrap();
    store.update_user(rename(user_id(), "Nobody", NOW)).await.unwrap();
    let mut taken = create(ANA, NOW);
    taken.events = all_events();
    store.create_user(taken).await.unwrap();
    assert_eq!(events(&store).await, ["user_updated"]);
}
