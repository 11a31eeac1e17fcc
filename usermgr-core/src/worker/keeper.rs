//! Keeps the leases of deliveries that are under way, so that leases can be short: the work of a process that died is
//! taken over as soon as its last lease ends.
//!
//! A delivery whose lease could not be renewed in time is cut off before the lease ends, because another worker may begin
//! it then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::caught::{Panicked, caught};
use super::lane::{LEASE, Lane};
use crate::port::store::StoreError;
use crate::port::store::outbox::{Lease, RenewLeases, Renewed};

/// How often leases are renewed. A lease survives four renewals that fail, and clocks of two servers may differ by the
/// rest of it.
pub(super) const BEAT: Duration = Duration::from_secs(5);
/// How long one renewal may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long before the end of its lease a delivery is cut off.
pub(super) const MARGIN: Duration = Duration::from_secs(5);

/// The leases of one worker. Renewals end when the last clone is dropped.
pub(super) struct Keeper<L: Lane> {
    lane: Arc<L>,
    held: Arc<Held>,
}

impl<L: Lane> Clone for Keeper<L> {
    fn clone(&self) -> Self {
        Self { lane: Arc::clone(&self.lane), held: Arc::clone(&self.held) }
    }
}

#[derive(Default)]
struct Held(Mutex<HashMap<Uuid, Entry>>);

struct Entry {
    lease: Lease,
    /// Until when a delivery may go on.
    safe_until: watch::Sender<Instant>,
}

/// A lease that is renewed until this is dropped.
pub(super) struct Kept {
    held: Arc<Held>,
    id: Uuid,
    lease: Lease,
    safe_until: watch::Receiver<Instant>,
}

/// Until when a delivery may go on whose lease was taken or renewed at this time.
fn safe_until(leased_at: Instant) -> Instant {
    leased_at + LEASE.unsigned_abs() - MARGIN
}

impl<L: Lane> Keeper<L> {
    /// Begins to renew what is kept. Must be called within a tokio runtime.
    pub(super) fn start(lane: &Arc<L>) -> Self {
        let held = Arc::<Held>::default();
        tokio::spawn(renew_regularly(Arc::clone(lane), Arc::downgrade(&held)));
        Self { lane: Arc::clone(lane), held }
    }

    /// Keeps what was claimed under this lease. `leased_at` is a moment before the claim.
    pub(super) fn keep(&self, id: Uuid, lease: Lease, leased_at: Instant) -> Kept {
        let (sender, safe_until) = watch::channel(safe_until(leased_at));
        self.held.entries().insert(id, Entry { lease, safe_until: sender });
        Kept { held: Arc::clone(&self.held), id, lease, safe_until }
    }

    /// Renews leases that ran out while the store did not answer: the next claim would get the items of deliveries that
    /// are still being settled.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        let now = Instant::now();
        let is_behind = self.held.entries().values().any(|entry| *entry.safe_until.borrow() <= now);
        if is_behind { renew(&*self.lane, &self.held).await } else { Ok(()) }
    }
}

impl Held {
    fn entries(&self) -> MutexGuard<'_, HashMap<Uuid, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Returns when the delivery must not go on.
    pub(super) async fn ended(&mut self) {
        loop {
            let until = *self.safe_until.borrow_and_update();
            tokio::select! {
                biased;
                changed = self.safe_until.changed() => if changed.is_err() { return },
                () = sleep_until(until) => return,
            }
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut entries = self.held.entries();
        // A later claim of the same item has an entry of its own.
        if entries.get(&self.id).is_some_and(|entry| entry.lease == self.lease) {
            entries.remove(&self.id);
        }
    }
}

async fn renew_regularly<L: Lane>(lane: Arc<L>, held: Weak<Held>) {
    loop {
        tokio::time::sleep(BEAT).await;
        let Some(held) = held.upgrade() else { return };
        if let Err(error) = renew(&*lane, &held).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "leases of deliveries could not be renewed"
            );
        }
    }
}

async fn renew<L: Lane>(lane: &L, held: &Held) -> Result<(), StoreError> {
    let going_on: Vec<_> = held.entries().iter().map(|(id, entry)| (*id, entry.lease)).collect();
    if going_on.is_empty() {
        return Ok(());
    }
    let asked_at = Instant::now();
    let lease_until = lane.clock().now().saturating_add(LEASE);
    let command = RenewLeases { lease_until, held: going_on.clone() };
    let renewed = match tokio::time::timeout(TIMEOUT, caught(lane.renew(command))).await {
        Ok(Ok(renewed)) => renewed?,
        Ok(Err(Panicked)) => return Err(StoreError::unavailable("the store panicked")),
        Err(_) => return Err(StoreError::unavailable("the store did not answer in time")),
    };
    let entries = held.entries();
    for ((id, lease), renewed) in going_on.into_iter().zip(renewed) {
        let Some(entry) = entries.get(&id).filter(|entry| entry.lease == lease) else { continue };
        entry.safe_until.send_replace(match renewed {
            Renewed::Kept => safe_until(asked_at),
            Renewed::Lost => asked_at,
        });
    }
    Ok(())
}
