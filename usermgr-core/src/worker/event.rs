//! Telling the host what happened, in a lane of its own: whoever is slow to listen holds up no mail.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use time::Duration;
use uuid::Uuid;

use super::Stop;
use super::backoff::{doubled, jittered};
use super::caught::{Panicked, caught};
use super::lane::{self, Attempted, Delivered, End, Lane, bounded};
use crate::domain::id::EventId;
use crate::port::clock::Clock;
use crate::port::events::EventPublisher;
use crate::port::random::Random;
use crate::port::store::event::{ClaimedEvent, EventResult, SettleEvent};
use crate::port::store::outbox::{Claim, Lease, RenewLeases, Renewed, Settled};
use crate::port::store::{EventStore, Store, StoreError};

/// How long the publisher may take over one event.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);
/// How many events may be under way at once, each of another user.
const CONCURRENCY: u32 = 8;
/// The wait after the first attempt to tell an event, and the longest between two, before jitter. The longest is how
/// long it takes at most until a receiver that is back is told.
const WAIT: (Duration, Duration) = (Duration::seconds(5), Duration::minutes(15));

/// What an [`EventWorker`] works with.
#[derive(Clone)]
#[expect(clippy::exhaustive_structs, reason = "a worker needs every part")]
pub struct EventWorkerParts {
    /// Where the events are.
    pub store: Arc<dyn Store>,
    /// Who takes them.
    pub publisher: Arc<dyn EventPublisher>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Random>,
}

/// Publishes events, each at least once, of one user in the order in which things happened.
///
/// An event that is not taken is tried again until it is, or until it is too old to be kept. Cloning is cheap and shares
/// everything.
///
/// ```
/// use std::sync::Arc;
/// use usermgr_core::testing::TestAuth;
///
/// # use usermgr_core::port::events::{EventPublisher, PublishError};
/// # use usermgr_core::domain::event::Event;
/// # #[derive(Debug)]
/// # struct Cleaner;
/// # #[async_trait::async_trait]
/// # impl EventPublisher for Cleaner {
/// #     async fn publish(&self, _event: &Event) -> Result<(), PublishError> { Ok(()) }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let auth = TestAuth::with_parts(|builder| builder.events(Arc::new(Cleaner)));
/// auth.signed_in("user").await;
/// let worker = auth.users().event_worker().ok_or("nobody is to be told")?;
/// while worker.run_once().await?.attempts() > 0 {} // of one user, one event a round
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EventWorker {
    pub(super) inner: Arc<Events>,
}

/// The parts, with no more of the store than is needed.
pub(super) struct Events {
    pub(super) store: Arc<dyn EventStore>,
    pub(super) publisher: Arc<dyn EventPublisher>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
}

#[async_trait]
impl Lane for Events {
    type Claimed = ClaimedEvent;
    type Settle = SettleEvent;

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn random(&self) -> &dyn Random {
        &*self.random
    }

    fn concurrency(&self) -> u32 {
        CONCURRENCY
    }

    fn id(claimed: &ClaimedEvent) -> Uuid {
        claimed.event.id.as_uuid()
    }

    fn domain(_: &ClaimedEvent) -> Option<String> {
        None
    }

    async fn claim(&self, command: Claim) -> Result<Vec<ClaimedEvent>, StoreError> {
        self.store.claim_events(command).await
    }

    async fn attempt(&self, claimed: ClaimedEvent, lease: Lease) -> Attempted<SettleEvent> {
        let ClaimedEvent { event, attempt } = claimed;
        let error = match tokio::time::timeout(TIMEOUT, caught(self.publisher.publish(&event))).await {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) => Some(format!("{error}: {}", error.0)),
            Ok(Err(Panicked)) => Some("the publisher panicked".to_owned()),
            Err(_) => Some("the publisher took longer than a minute".to_owned()),
        };
        let (id, kind, now) = (event.id, event.kind.as_str(), self.clock.now());
        let (end, result) = if error.is_none() {
            (End::Sent, EventResult::Delivered)
        } else {
            let wait = jittered(doubled(WAIT.0, WAIT.1, attempt), &*self.random);
            (End::Retried, EventResult::Retry { at: now.saturating_add(wait) })
        };
        let outcome = end.as_str();
        match error {
            None => tracing::info!(%id, what = "event", kind, attempt, outcome, "delivery"),
            Some(error) => {
                let error = bounded(&error);
                tracing::warn!(%id, what = "event", kind, attempt, outcome, error, "delivery");
            }
        }
        Attempted { end, settle: SettleEvent { now, id, lease, result } }
    }

    async fn settle(&self, commands: Vec<SettleEvent>) -> Result<Vec<Settled>, StoreError> {
        self.store.settle_events(commands).await
    }

    async fn renew(&self, command: RenewLeases<Uuid>) -> Result<Vec<Renewed>, StoreError> {
        let RenewLeases { lease_until, held } = command;
        let held = held.into_iter().map(|(id, lease)| (EventId::from_uuid(id), lease)).collect();
        self.store.renew_events(RenewLeases { lease_until, held }).await
    }

    async fn wait_for_due(&self, at_most: std::time::Duration) {
        self.store.wait_for_events(at_most).await;
    }
}

impl EventWorker {
    /// A worker with these parts.
    pub fn new(parts: EventWorkerParts) -> Self {
        let EventWorkerParts { store, publisher, clock, random } = parts;
        Self { inner: Arc::new(Events { store, publisher, clock, random }) }
    }

    /// Makes one attempt at the oldest event of each of eight users at most, as far as it is due, and returns when all have
    /// ended. None attempted means that none was due: call it again until then.
    ///
    /// Like [`run`](Self::run) it must be called within a tokio runtime. Dropping the future cuts deliveries off;
    /// what was cut off is due again when its lease of 30 seconds has passed.
    ///
    /// # Errors
    /// [`StoreError`] when nothing could be claimed.
    pub async fn run_once(&self) -> Result<Delivered, StoreError> {
        lane::run_once(&self.inner).await
    }

    /// Publishes what is due as it becomes due, until `stop`; then it claims nothing more, and returns when what is
    /// under way is settled. It never ends for a fault of the store or the publisher.
    pub async fn run(&self, stop: Stop) {
        lane::run(&self.inner, stop).await;
    }
}

impl fmt::Debug for EventWorkerParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventWorkerParts").finish_non_exhaustive()
    }
}

impl fmt::Debug for EventWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventWorker").finish_non_exhaustive()
    }
}
