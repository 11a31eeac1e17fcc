//! Delivering what the outbox owes, as it becomes due.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use time::Duration;

use super::Stop;
use super::backoff::{doubled, jittered};
use super::caught::{Panicked, caught};
use super::delivery::{self, End};
use super::flights::{Flights, Room};
use crate::crypto::secret_keys::SecretKeys;
use crate::policy::Policies;
use crate::port::clock::Clock;
use crate::port::events::EventPublisher;
use crate::port::mailer::Mailer;
use crate::port::random::Random;
use crate::port::store::outbox::{Claim, Claimed, Lease};
use crate::port::store::{OutboxStore, Store, StoreError};
use crate::template::MailTemplates;

/// How long a claimed item is kept from other claims: longer than the claim, an attempt and its settlement may take.
pub(super) const LEASE: Duration = Duration::minutes(5);
/// How long a claim may take. Its lease runs meanwhile.
pub(super) const CLAIM_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
/// How long to wait for something to become due before asking anyway.
const WAIT_AT_MOST: std::time::Duration = std::time::Duration::from_secs(1);
/// The shortest time between two claims while there is less to do than can be done at once. Nobody notices it in a
/// mail, and a store that signals too often is not asked more often than this.
const WAIT_AT_LEAST: std::time::Duration = std::time::Duration::from_millis(10);
/// The first and the longest wait after the store failed.
const STORE_WAIT: (Duration, Duration) = (Duration::milliseconds(250), Duration::seconds(5));

/// What a [`MailWorker`] works with.
#[derive(Clone)]
pub struct MailWorkerParts {
    /// Where the outbox is.
    pub store: Arc<dyn Store>,
    /// Who takes the mails.
    pub mailer: Arc<dyn Mailer>,
    /// Who takes the events. Without one they count as delivered.
    pub events: Option<Arc<dyn EventPublisher>>,
    /// The texts of mails.
    pub templates: Arc<dyn MailTemplates>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Random>,
    /// What codes and links are derived from.
    pub secrets: SecretKeys,
    /// The rules.
    pub policies: Arc<Policies>,
}

/// Delivers mails and events from the outbox, each at least once.
///
/// Codes and links are derived when their mail is written, anew for each attempt and the same each time, so a mail
/// that is sent again is the same mail under the same identifier. Cloning is cheap and shares everything.
#[derive(Clone)]
pub struct MailWorker {
    pub(super) inner: Arc<Inner>,
}

/// The parts, with no more of the store than is needed.
pub(super) struct Inner {
    pub(super) outbox: Arc<dyn OutboxStore>,
    pub(super) mailer: Arc<dyn Mailer>,
    pub(super) events: Option<Arc<dyn EventPublisher>>,
    pub(super) templates: Arc<dyn MailTemplates>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) secrets: SecretKeys,
    pub(super) policies: Arc<Policies>,
}

/// How the attempts of one [`MailWorker::run_once`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

impl MailWorker {
    /// A worker with these parts.
    pub fn new(parts: MailWorkerParts) -> Self {
        let MailWorkerParts { store, mailer, events, templates, clock, random, secrets, policies } = parts;
        let inner = Inner { outbox: store, mailer, events, templates, clock, random, secrets, policies };
        Self { inner: Arc::new(inner) }
    }

    /// Makes one attempt at each item that is due, as many as may be under way at once
    /// ([`OutboxPolicy::concurrency`]), and returns when all have ended. None attempted means that none was due. Whom a
    /// mail is for makes no difference here: a round lasts as long as its slowest delivery.
    ///
    /// Like [`run`](Self::run) it must be called within a tokio runtime. Dropping the future cuts deliveries off;
    /// what was cut off is due again when its lease of five minutes has passed.
    ///
    /// # Errors
    /// [`StoreError`] when nothing could be claimed.
    ///
    /// [`OutboxPolicy::concurrency`]: crate::policy::OutboxPolicy::concurrency
    pub async fn run_once(&self) -> Result<Delivered, StoreError> {
        let places = self.concurrency();
        let (lease, claimed) = self.claim(Room { limit: places, passing_over: Vec::new() }).await?;
        let mut flights = Flights::new(places);
        self.launch(&mut flights, claimed, lease);
        let mut delivered = Delivered::default();
        while let Some(landed) = flights.land().await {
            delivered.count(landed.end);
        }
        Ok(delivered)
    }

    /// Delivers what is due as it becomes due, until `stop`; then it claims nothing more, and returns when what is
    /// under way is settled. It never ends for a fault of the store, the mailer or a template.
    ///
    /// A slow receiver holds up nobody else: the place of each delivery that ends is given to the next one due, and one
    /// domain has at most a quarter of the places at once.
    pub async fn run(&self, stop: Stop) {
        let mut flights = Flights::new(self.concurrency());
        let mut more_is_due = true;
        let mut failures = 0_u32;
        while !stop.is_requested() {
            while let Some(landed) = flights.try_land() {
                more_is_due |= landed.frees_a_domain;
            }
            let room = flights.room();
            let limit = room.limit;
            if !more_is_due {
                until(self.something_is_due(), &mut flights, &stop).await;
                more_is_due = true;
            } else if limit == 0 {
                until_one_lands(&mut flights, &stop).await;
            } else {
                match self.claim(room).await {
                    Ok((lease, claimed)) => {
                        failures = 0;
                        more_is_due = claimed.len() >= limit;
                        self.launch(&mut flights, claimed, lease);
                    }
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        let wait =
                            jittered(doubled(STORE_WAIT.0, STORE_WAIT.1, failures), &*self.inner.random);
                        tracing::error!(error = &error as &dyn std::error::Error, failures, %wait,
                            "the outbox cannot be read; waiting");
                        until(tokio::time::sleep(wait.unsigned_abs()), &mut flights, &stop).await;
                    }
                }
            }
        }
        while flights.land().await.is_some() {}
    }

    fn concurrency(&self) -> usize {
        usize::try_from(self.inner.policies.outbox.concurrency).unwrap_or(usize::MAX).max(1)
    }

    async fn claim(&self, room: Room) -> Result<(Lease, Vec<Claimed>), StoreError> {
        let Room { limit, passing_over } = room;
        let mut lease = Lease([0; 16]);
        self.inner.random.fill(&mut lease.0);
        let now = self.inner.clock.now();
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let claim = Claim { now, lease, lease_until: now.saturating_add(LEASE), limit, passing_over };
        match tokio::time::timeout(CLAIM_TIMEOUT, caught(self.inner.outbox.claim(claim))).await {
            Ok(Ok(claimed)) => claimed.map(|claimed| (lease, claimed)),
            Ok(Err(Panicked)) => Err(StoreError::unavailable("the store panicked")),
            Err(_) => Err(StoreError::unavailable("the store did not answer in time")),
        }
    }

    fn launch(&self, flights: &mut Flights, claimed: Vec<Claimed>, lease: Lease) {
        for claimed in claimed {
            let inner = Arc::clone(&self.inner);
            let domain = claimed.item.domain().map(str::to_owned);
            flights.launch(domain, async move { delivery::deliver(&inner, claimed, lease).await });
        }
    }

    /// Returns when something may be due.
    async fn something_is_due(&self) {
        let not_before = tokio::time::Instant::now() + WAIT_AT_LEAST;
        if caught(self.inner.outbox.wait_for_due(WAIT_AT_MOST)).await.is_err() {
            tokio::time::sleep(WAIT_AT_MOST).await;
        }
        tokio::time::sleep_until(not_before).await;
    }
}

/// Waits for `wake` or `stop`, or until a domain that had all its places has one again; deliveries go on and end
/// meanwhile.
async fn until(wake: impl Future<Output = ()>, flights: &mut Flights, stop: &Stop) {
    // One future over all turns: a signal that comes while a delivery ends is not lost.
    let mut wake = pin!(wake);
    loop {
        tokio::select! {
            biased;
            () = stop.requested() => return,
            () = &mut wake => return,
            Some(landed) = flights.land() => if landed.frees_a_domain { return },
        }
    }
}

async fn until_one_lands(flights: &mut Flights, stop: &Stop) {
    tokio::select! {
        () = stop.requested() => {}
        _ = flights.land() => {}
    }
}

impl fmt::Debug for MailWorkerParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailWorkerParts").finish_non_exhaustive()
    }
}

impl fmt::Debug for MailWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailWorker").finish_non_exhaustive()
    }
}
