//! Removing what is over, so that the tables stay small.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

use super::Stop;
use super::job::{Job, JobResult};
use crate::domain::job::{JobName, Schedule};
use crate::error::Error;
use crate::flow::signing_keys::KeyRing;
use crate::policy::{MaintenancePolicy, Policies, ThrottlePolicy};
use crate::port::clock::Clock;
use crate::port::store::upkeep::{Purge, Purged};
use crate::port::store::{Store, StoreError, UpkeepStore};

/// The most rows of each kind in one transaction: few enough that nothing waits long for it.
const BATCH: u32 = 500;
/// How many times longer than a full batch took upkeep then rests, so that whoever asks meanwhile hardly notices: a million
/// rows at once are rare, and nobody waits for them to be gone.
const REST: u32 = 9;
/// The longest rest, where the store is slow.
const LONGEST_REST: Duration = Duration::from_secs(1);
/// How long codes, links and sessions are kept after they ended: long enough to say that a code came too late.
const ENDED_FOR: time::Duration = time::Duration::days(1);
/// How long a signing key is kept after its successor began to sign: longer than any token lives.
const RETIRED_FOR: time::Duration = time::Duration::days(2);

/// How long an address stays marked as undeliverable: mailboxes come back, and a mark that nobody looks at must not keep
/// its owner out for ever.
const UNDELIVERABLE_FOR: time::Duration = time::Duration::days(180);

/// Removes what nothing needs any more: registrations that are over, spent codes, ended sessions, delivered mails, old events
/// and audit entries, and counters. Any number of processes may do so on one store.
///
/// ```
/// use usermgr_core::ClientContext;
/// # use usermgr_core::testing::TestAuth;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let auth = TestAuth::new();
/// # let (users, client) = (auth.users(), ClientContext::new());
///
/// # let signed_in = auth.signed_in("user").await;
/// # let caller = users.sessions().authenticate(&signed_in.access_token).await?;
/// users.account().delete(&caller, None, &client).await?;
/// auth.clock().advance(time::Duration::days(31)); // past the grace
/// let purged = users.upkeep().run_once().await?;
/// assert_eq!(purged.users, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Upkeep {
    pub(super) store: Arc<dyn UpkeepStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) policies: Arc<Policies>,
    pub(super) keys: Option<Arc<KeyRing>>,
}

impl Upkeep {
    /// Upkeep of this store by these rules.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, policies: Arc<Policies>) -> Self {
        Self { store, clock, policies, keys: None }
    }

    /// And of these signing keys: the next one is made when the current one has signed for long enough.
    #[must_use]
    pub fn with_keys(mut self, keys: Arc<KeyRing>) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Removes all that is over now, in batches with a rest after each, and tells how much it was. A million rows take some
    /// minutes.
    ///
    /// # Errors
    /// [`StoreError`] when a batch failed; what the batches before it removed stays removed.
    pub async fn run_once(&self) -> Result<Purged, StoreError> {
        let (purged, _) = self.purge(Share::All, None).await?;
        if let Err(error) = self.rotate().await {
            tracing::error!(%error, "the signing key could not be rotated");
        }
        Ok(purged)
    }

    /// The upkeep as jobs: `purge` and `signing-keys` at the interval of the policies, `retention` once a day.
    pub(crate) fn jobs(&self) -> [Job; 3] {
        let MaintenancePolicy { enabled: _, interval, daily_at } = self.policies.maintenance;
        let purge = |share| {
            let upkeep = self.clone();
            move |stop: Stop| {
                let upkeep = upkeep.clone();
                async move { upkeep.run_share(share, &stop).await }
            }
        };
        let upkeep = self.clone();
        let rotate = move |_| {
            let upkeep = upkeep.clone();
            async move { Ok(upkeep.rotate().await?.to_owned()) }
        };
        [
            Job::new(JobName::built_in("purge"), Schedule::Every(interval), purge(Share::Short)),
            Job::new(JobName::built_in("signing-keys"), Schedule::Every(interval), rotate),
            Job::new(JobName::built_in("retention"), Schedule::DailyAt(daily_at), purge(Share::All)),
        ]
    }

    async fn run_share(&self, share: Share, stop: &Stop) -> JobResult {
        match self.purge(share, Some(stop)).await? {
            (purged, Rest::Nothing) => Ok(format!("removed {purged}")),
            (purged, Rest::More) => Err(format!("stopped after it removed {purged}").into()),
        }
    }

    async fn purge(&self, share: Share, stop: Option<&Stop>) -> Result<(Purged, Rest), StoreError> {
        let command = self.command(share);
        let mut sum = Purged::default();
        loop {
            let began = Instant::now();
            let purged = self.store.purge(command).await?;
            sum = sum.plus(purged);
            if purged.most() < u64::from(BATCH) {
                return Ok((sum, Rest::Nothing));
            }
            let rest = tokio::time::sleep((began.elapsed() * REST).min(LONGEST_REST));
            match stop {
                None => rest.await,
                Some(stop) => tokio::select! {
                    biased;
                    () = stop.requested() => return Ok((sum, Rest::More)),
                    () = rest => {}
                },
            }
        }
    }

    async fn rotate(&self) -> Result<&'static str, Error> {
        let Some(keys) = &self.keys else { return Ok("there are no signing keys") };
        let rotated = keys.rotate_if_due(self.clock.now()).await?;
        Ok(if rotated {
            "a new signing key is published and signs in ten minutes"
        } else {
            "the signing key goes on"
        })
    }

    fn command(&self, share: Share) -> Purge {
        let now = self.clock.now();
        // What reaches back before all time removes nothing.
        let before = |age| now.checked_sub(age).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let daily = |age| match share {
            Share::All => before(age),
            Share::Short => OffsetDateTime::UNIX_EPOCH,
        };
        Purge {
            now,
            ended_before: before(ENDED_FOR),
            settled_before: before(self.policies.outbox.keep_sent),
            dead_before: daily(self.policies.outbox.keep_dead),
            audited_before: daily(self.policies.retention.audit),
            events_before: daily(self.policies.retention.events),
            deleted_before: daily(self.policies.deletion.grace),
            retired_before: daily(RETIRED_FOR),
            known_before: daily(ThrottlePolicy::KNOWN_NETWORK),
            marked_before: daily(UNDELIVERABLE_FOR),
            batch: BATCH,
        }
    }
}

/// How much of what is over is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    /// What comes and goes within hours: registrations, codes, sessions, mails, counters.
    Short,
    /// And what was kept for days: mails that failed for good, events, audit entries, deleted users, networks, marks of addresses, signing keys.
    All,
}

/// Whether there is more to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    More,
}

impl fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upkeep").finish_non_exhaustive()
    }
}
