//! One lane of deliveries: claim what is due, hand over as many as may be under way at once, wait, until told to stop.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use super::Stop;
use super::backoff::{doubled, jittered};
use super::caught::{Panicked, caught};
use super::flights::Flights;
use super::keeper::{Keeper, Kept};
use super::settler::Settler;
use crate::port::clock::Clock;
use crate::port::random::{Random, duration_up_to};
use crate::port::store::StoreError;
use crate::port::store::outbox::{Claim, DomainRoom, Lease, RenewLeases, Renewed, Settled};
use async_trait::async_trait;
use time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// How long an attempt may take.
pub(super) const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);
/// How long a claimed item is kept from other claims without a renewal: another worker takes it over this long after its
/// process died. The [`Keeper`] renews it until the attempt is settled.
pub(super) const LEASE: Duration = Duration::seconds(30);
/// How long a claim may take. Its lease runs meanwhile.
pub(super) const CLAIM_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// How long to wait for something to become due before asking anyway.
const WAIT_AT_MOST: std::time::Duration = std::time::Duration::from_secs(1);
/// The shortest time between a signal and the claim. A store that signals too often is not asked more often than this.
pub(super) const WAIT_AFTER_SIGNAL: std::time::Duration = std::time::Duration::from_millis(5);
/// The longest random time that is added to [`WAIT_AFTER_SIGNAL`]. A claim at a fixed time after a commit would delay the
/// caller's next request only if there was a mail to send. That would tell who has an account.
pub(super) const SIGNAL_JITTER: std::time::Duration = std::time::Duration::from_millis(25);
/// The first and the longest wait after the store failed.
const STORE_WAIT: (Duration, Duration) = (Duration::milliseconds(250), Duration::seconds(5));
/// The most bytes of an error that are kept and logged.
const MAX_ERROR: usize = crate::port::store::outbox::OutboxEntry::MAX_ERROR;

/// What is delivered, and how.
#[async_trait]
pub(super) trait Lane: Send + Sync + 'static {
    /// Something that was claimed.
    type Claimed: Send + 'static;

    /// What notes how an attempt ended.
    type Settle: Clone + Send + Sync + 'static;

    fn clock(&self) -> &dyn Clock;

    fn random(&self) -> &dyn Random;

    /// How many deliveries may be under way at once.
    fn concurrency(&self) -> u32;

    fn id(claimed: &Self::Claimed) -> Uuid;

    /// Whom it goes to, where one receiver may have no more than a part of all deliveries under way.
    fn domain(claimed: &Self::Claimed) -> Option<String>;

    async fn claim(&self, command: Claim) -> Result<Vec<Self::Claimed>, StoreError>;

    /// Makes one attempt.
    async fn attempt(&self, claimed: Self::Claimed, lease: Lease) -> Attempted<Self::Settle>;

    /// Has it noted how attempts ended.
    async fn settle(&self, commands: Vec<Self::Settle>) -> Result<Vec<Settled>, StoreError>;

    /// Keeps what is under way from other claims.
    async fn renew(&self, command: RenewLeases<Uuid>) -> Result<Vec<Renewed>, StoreError>;

    /// Returns when something may have become due.
    async fn wait_for_due(&self, at_most: std::time::Duration);
}

/// An attempt that was made.
pub(super) struct Attempted<C> {
    pub(super) end: End,
    pub(super) settle: C,
}

/// How an attempt ended, as the store knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Taken by the other side.
    Sent,
    /// Failed, and to be tried again.
    Retried,
    /// Failed for good.
    Dead,
    /// The store does not know: the item is due again when its lease has passed, or somebody else has it.
    Lost,
}

impl End {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Retried => "retry",
            Self::Dead => "dead",
            Self::Lost => "lost",
        }
    }
}

/// How the attempts of one `run_once` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Delivered {
    /// Taken by the other side.
    pub sent: u32,
    /// Failed, and to be tried again.
    pub retried: u32,
    /// Failed for good.
    pub dead: u32,
    /// Attempted, but the end could not be noted: the item is due again when its lease has passed.
    pub lost: u32,
}

impl Delivered {
    /// How many attempts there were.
    pub const fn attempts(&self) -> u32 {
        self.sent + self.retried + self.dead + self.lost
    }

    const fn count(&mut self, end: End) {
        match end {
            End::Sent => self.sent += 1,
            End::Retried => self.retried += 1,
            End::Dead => self.dead += 1,
            End::Lost => self.lost += 1,
        }
    }
}

/// Makes one attempt at each item that is due, as many as may be under way at once, and returns when all have ended.
pub(super) async fn run_once<L: Lane>(lane: &Arc<L>) -> Result<Delivered, StoreError> {
    let (lease, places) = (new_lease(lane), concurrency(lane));
    let ends = Ends { settler: Settler::start(lane), keeper: Keeper::start(lane) };
    let claimed = claim(lane, lease, places, DomainRoom::UNBOUNDED).await?;
    let mut flights = Flights::new(places);
    launch(lane, &ends, &mut flights, claimed);
    let mut delivered = Delivered::default();
    while let Some(landed) = flights.land().await {
        delivered.count(landed.end);
    }
    Ok(delivered)
}

/// Delivers what is due as it becomes due, until `stop`; then it claims nothing more, and returns when what is under way
/// is settled. The place of each delivery that ends is given to the next one due.
pub(super) async fn run<L: Lane>(lane: &Arc<L>, stop: Stop) {
    let mut flights = Flights::new(concurrency(lane));
    let mut more_is_due = true;
    // Since the last signal, nothing was due but to these domains, which had no room.
    let mut only_to: Option<DomainRoom> = None;
    let mut failures = 0_u32;
    let mut lease = new_lease(lane);
    let ends = Ends { settler: Settler::start(lane), keeper: Keeper::start(lane) };
    let mut signal = pin!(something_is_due(lane));
    while !stop.is_requested() {
        while let Some(landed) = flights.try_land() {
            more_is_due |= landed.frees_a_domain;
        }
        let (limit, room) = (flights.free(), flights.room());
        if !more_is_due {
            if until(signal.as_mut(), &mut flights, &stop).await {
                only_to = None;
                signal.set(something_is_due(lane));
            }
            more_is_due = true;
        } else if limit == 0 {
            until_one_lands(&mut flights, &stop).await;
        } else if only_to.as_ref().is_some_and(|only_to| only_to.full().all(|domain| room.is_full(domain))) {
            // The store would look through all that is due to them, to find nothing again.
            more_is_due = false;
        } else {
            // After a failure under the same lease: what was committed and not answered is not left to itself.
            let claimed = match ends.keeper.catch_up().await {
                Ok(()) => claim(lane, lease, limit, room.clone()).await,
                Err(error) => Err(error),
            };
            match claimed {
                Ok(claimed) => {
                    failures = 0;
                    more_is_due = !claimed.items.is_empty();
                    if claimed.items.is_empty() {
                        only_to = Some(room);
                    }
                    launch(lane, &ends, &mut flights, claimed);
                    lease = new_lease(lane);
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    let wait = jittered(doubled(STORE_WAIT.0, STORE_WAIT.1, failures), lane.random());
                    tracing::error!(error = &error as &dyn std::error::Error, failures, %wait,
                        "the outbox cannot be read; waiting");
                    until(pin!(tokio::time::sleep(wait.unsigned_abs())), &mut flights, &stop).await;
                }
            }
        }
    }
    while flights.land().await.is_some() {}
}

/// The text on one line, cut to what is kept.
pub(super) fn bounded(error: &str) -> String {
    let mut bounded = String::new();
    for c in error.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if bounded.len() + c.len_utf8() > MAX_ERROR {
            break;
        }
        bounded.push(c);
    }
    bounded
}

fn concurrency<L: Lane>(lane: &Arc<L>) -> usize {
    usize::try_from(lane.concurrency()).unwrap_or(usize::MAX).max(1)
}

fn new_lease<L: Lane>(lane: &Arc<L>) -> Lease {
    let mut lease = Lease([0; 16]);
    lane.random().fill(&mut lease.0);
    lease
}

/// What a claim brought.
struct Batch<C> {
    items: Vec<C>,
    lease: Lease,
    /// A moment before the claim.
    leased_at: Instant,
}

async fn claim<L: Lane>(
    lane: &Arc<L>,
    lease: Lease,
    limit: usize,
    room: DomainRoom,
) -> Result<Batch<L::Claimed>, StoreError> {
    let (now, leased_at) = (lane.clock().now(), Instant::now());
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let claim = Claim { now, lease, lease_until: now.saturating_add(LEASE), limit, room };
    match tokio::time::timeout(CLAIM_TIMEOUT, caught(lane.claim(claim))).await {
        Ok(Ok(claimed)) => Ok(Batch { items: claimed?, lease, leased_at }),
        Ok(Err(Panicked)) => Err(StoreError::unavailable("the store panicked")),
        Err(_) => Err(StoreError::unavailable("the store did not answer in time")),
    }
}

/// Where deliveries are kept and noted.
struct Ends<L: Lane> {
    settler: Settler<L>,
    keeper: Keeper<L>,
}

fn launch<L: Lane>(lane: &Arc<L>, ends: &Ends<L>, flights: &mut Flights, claimed: Batch<L::Claimed>) {
    let Batch { items, lease, leased_at } = claimed;
    for item in items {
        let (lane, settler, domain) = (Arc::clone(lane), ends.settler.clone(), L::domain(&item));
        let kept = ends.keeper.keep(L::id(&item), lease, leased_at);
        flights.launch(domain, async move { deliver(&*lane, &settler, item, lease, kept).await });
    }
}

/// Makes one attempt and has its end noted. The lease is kept until then.
async fn deliver<L: Lane>(
    lane: &L,
    settler: &Settler<L>,
    claimed: L::Claimed,
    lease: Lease,
    mut kept: Kept,
) -> End {
    let id = L::id(&claimed);
    let Attempted { end, settle } = tokio::select! {
        biased;
        attempted = lane.attempt(claimed, lease) => attempted,
        () = kept.ended() => {
            tracing::warn!(%id, "a delivery was cut off: its lease could not be renewed or was lost");
            return End::Lost;
        }
    };
    match settler.settle(settle).await {
        Some(Settled::Settled) => end,
        Some(Settled::LostLease) => {
            tracing::warn!(%id, "the lease of a delivery was lost; it may be delivered twice");
            End::Lost
        }
        None => {
            tracing::error!(%id, "a delivery is made again when its lease has passed: its end was not noted");
            End::Lost
        }
    }
}

/// Returns when something may be due.
async fn something_is_due<L: Lane>(lane: &Arc<L>) {
    if caught(lane.wait_for_due(WAIT_AT_MOST)).await.is_err() {
        tokio::time::sleep(WAIT_AT_MOST).await;
    }
    tokio::time::sleep(WAIT_AFTER_SIGNAL + duration_up_to(SIGNAL_JITTER, lane.random())).await;
}

/// Waits for `wake` or `stop`, or until a domain that had all its places has one again; deliveries go on and end
/// meanwhile. Whether it was `wake`; else that is not over, and what it waits for is not lost.
async fn until(mut wake: Pin<&mut impl Future>, flights: &mut Flights, stop: &Stop) -> bool {
    loop {
        tokio::select! {
            biased;
            () = stop.requested() => return false,
            _ = &mut wake => return true,
            Some(landed) = flights.land() => if landed.frees_a_domain { return false },
        }
    }
}

async fn until_one_lands(flights: &mut Flights, stop: &Stop) {
    tokio::select! {
        () = stop.requested() => {}
        _ = flights.land() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_of_bounded_length_cut_between_characters() {
        assert_eq!(bounded("550 no\r\nsuch\tuser"), "550 no  such user");
        let long = "ñ".repeat(300);
        assert_eq!(bounded(&long), "ñ".repeat(250));
        let odd = format!("x{long}");
        assert_eq!(bounded(&odd).len(), 499);
        assert!(bounded(&"a".repeat(10_000)).len() == MAX_ERROR);
    }
}
