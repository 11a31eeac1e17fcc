//! Laws of addresses that no mail goes to any more.

use time::Duration;

use super::StoreHarness;
use super::build::{
    NOW, audited, claim, email, entries, later, lease, mark, outbox, purge, registered, requeue, unmark, user,
};
use crate::domain::email::EmailKey;
use crate::domain::page::PageSize;
use crate::domain::undeliverable::UndeliverableReason;
use crate::port::store::outbox::{Claim, DomainRoom, OutboxEntry, OutboxStatus, Requeued};
use crate::port::store::undeliverable::{MarkRemoved, UndeliverableQuery};
use crate::port::store::upkeep::Purge;

const ANA: &str = "ana@example.org";
const EVA: &str = "eva@example.org";

/// A mail to a marked address is not handed out: it is dead, with why, and takes no place from the others. The address
/// is compared as accounts are.
pub async fn no_mail_goes_to_a_marked_address(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for address in ["Ana@Example.org", "JOSÉ@example.org", EVA] {
        registered(&store, address).await;
    }
    let command = mark(&[ANA, "josé@example.org"], UndeliverableReason::Bounce, NOW);
    assert_eq!(store.mark_undeliverable(command).await.unwrap(), 2);
    let lease = lease();
    let one = Claim { now: later(1), lease, lease_until: later(60), limit: 1, room: DomainRoom::UNBOUNDED };
    let claimed = store.claim(one).await.unwrap();
    assert!(matches!(&claimed[..], [one] if one.mail.to == email(EVA)));
    let told = |entries: &[OutboxEntry]| {
        let mut told: Vec<_> = entries
            .iter()
            .map(|entry| (entry.status, entry.attempts, entry.settled_at, entry.error.clone()))
            .collect();
        told.pop();
        told
    };
    let dead = (OutboxStatus::Dead, 0, Some(later(1)), Some(OutboxEntry::UNDELIVERABLE.to_owned()));
    assert_eq!(told(&outbox(&store).await), [dead.clone(), dead]);
    registered(&store, ANA).await;
    assert!(claim(&store, later(2)).await.1.is_empty(), "nor one that is owed later");
}

/// An address is marked and audited once, with the user who has it; the first mark stays.
pub async fn an_address_is_marked_once(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let before = entries(&store).await.len();
    let first = mark(&[ANA, EVA], UndeliverableReason::Complaint, NOW);
    assert_eq!(store.mark_undeliverable(first.clone()).await.unwrap(), 2);
    assert_eq!(store.mark_undeliverable(first).await.unwrap(), 0);
    let both = mark(&[EVA, EVA, "new@example.org"], UndeliverableReason::Bounce, later(5));
    assert_eq!(store.mark_undeliverable(both).await.unwrap(), 1);
    let page = store.undeliverable(UndeliverableQuery::default()).await.unwrap();
    let marks: Vec<_> =
        page.items.iter().map(|mark| (mark.email.as_str(), mark.reason, mark.since)).collect();
    assert_eq!(
        marks,
        [
            (ANA, UndeliverableReason::Complaint, NOW),
            (EVA, UndeliverableReason::Complaint, NOW),
            ("new@example.org", UndeliverableReason::Bounce, later(5)),
        ]
    );
    let mut written: Vec<_> = entries(&store).await[before..]
        .iter()
        .map(|entry| (entry.email.as_ref().map(EmailKey::as_str).unwrap().to_owned(), entry.subject))
        .collect();
    written.sort();
    let expected = [(ANA, Some(ana.id)), (EVA, None), ("new@example.org", None)];
    assert_eq!(written, expected.map(|(address, subject)| (address.to_owned(), subject)));
}

/// Mail goes again to an address whose mark was removed; what is dead is sent again when it is requeued.
pub async fn a_mark_is_removed(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    registered(&store, ANA).await;
    store.mark_undeliverable(mark(&[ANA, EVA], UndeliverableReason::Bounce, NOW)).await.unwrap();
    assert!(claim(&store, later(1)).await.1.is_empty());
    let id = outbox(&store).await[0].mail.id;
    assert_eq!(store.requeue(requeue(id, later(2))).await.unwrap(), Requeued::Requeued);
    assert!(claim(&store, later(2)).await.1.is_empty(), "the mark is still there");
    assert_eq!(store.mark_deliverable(unmark(ANA, later(3))).await.unwrap(), MarkRemoved::Removed);
    let before = audited(&store).await.len();
    assert_eq!(store.mark_deliverable(unmark(ANA, later(3))).await.unwrap(), MarkRemoved::NotFound);
    assert_eq!(audited(&store).await[before..], ["not_found"]);
    assert!(claim(&store, later(3)).await.1.is_empty(), "dead is dead until somebody sees to it");
    store.requeue(requeue(id, later(4))).await.unwrap();
    let (_, claimed) = claim(&store, later(4)).await;
    assert_eq!(claimed.iter().map(|claimed| claimed.attempt).collect::<Vec<_>>(), [1]);
    let page = store.undeliverable(UndeliverableQuery::default()).await.unwrap();
    assert_eq!(page.items.iter().map(|mark| mark.email.as_str()).collect::<Vec<_>>(), [EVA]);
}

/// Marks are over after their time, in batches, and listed a page at a time.
pub async fn marks_are_paged_and_purged(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for n in 0..5 {
        let address = format!("u{n}@example.org");
        store.mark_undeliverable(mark(&[&address], UndeliverableReason::Bounce, later(n))).await.unwrap();
    }
    let (mut seen, mut query) = (Vec::new(), UndeliverableQuery { after: None, size: PageSize::new(2) });
    loop {
        let page = store.undeliverable(query.clone()).await.unwrap();
        assert!(page.items.len() <= 2);
        seen.extend(page.items.into_iter().map(|mark| mark.email.to_string()));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..5).map(|n| format!("u{n}@example.org")).collect::<Vec<_>>());
    let purged = |before| {
        let command = Purge { marked_before: before, batch: 2, ..purge(NOW + Duration::DAY) };
        let store = std::sync::Arc::clone(&store);
        async move { store.purge(command).await.unwrap().undeliverable }
    };
    assert_eq!(purged(NOW).await, 0);
    assert_eq!((purged(later(3)).await, purged(later(3)).await, purged(later(3)).await), (2, 1, 0));
    let left = store.undeliverable(UndeliverableQuery::default()).await.unwrap();
    assert_eq!(left.items.len(), 2);
}
