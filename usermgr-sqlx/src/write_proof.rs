//! When a store last proved that it can write.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a proof is good for. A health check that comes more often costs a read.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// When a store last proved that it can write.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriteProof(Arc<Mutex<Option<Instant>>>);

impl WriteProof {
    pub(crate) fn is_fresh(&self) -> bool {
        let proven = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        proven.is_some_and(|at| at.elapsed() < GOOD_FOR)
    }

    pub(crate) fn renew(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// The next health check has to prove it again.
    #[cfg(feature = "postgres")]
    pub(crate) fn revoke(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
