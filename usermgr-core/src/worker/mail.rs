//! Delivering the mails that are owed, as they become due.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::Stop;
use super::delivery;
use super::lane::{self, Attempted, Delivered, Lane};
use crate::crypto::secret_keys::SecretKeys;
use crate::domain::id::OutboxId;
use crate::policy::Policies;
use crate::port::clock::Clock;
use crate::port::mailer::Mailer;
use crate::port::random::Random;
use crate::port::store::outbox::{Claim, Claimed, Lease, RenewLeases, Renewed, Settle, Settled};
use crate::port::store::{OutboxStore, Store, StoreError};
use crate::template::MailTemplates;

/// What a [`MailWorker`] works with.
#[derive(Clone)]
#[expect(clippy::exhaustive_structs, reason = "a worker needs every part")]
pub struct MailWorkerParts {
    /// Where the outbox is.
    pub store: Arc<dyn Store>,
    /// Who takes the mails.
    pub mailer: Arc<dyn Mailer>,
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

/// Delivers mails from the outbox, each at least once.
///
/// Codes and links are derived when their mail is written, anew for each attempt and the same each time, so a mail
/// that is sent again is the same mail under the same identifier. Cloning is cheap and shares everything.
///
/// ```
/// use usermgr_core::ClientContext;
/// use usermgr_core::flow::register::Register;
/// # use usermgr_core::testing::TestAuth;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let auth = TestAuth::new();
/// # let (users, client) = (auth.users(), ClientContext::new());
///
/// users.registration().register(Register::new("ana@example.org", "correct horse battery"), &client).await?;
/// let delivered = users.mail_worker().run_once().await?;
/// assert_eq!((delivered.sent, delivered.retried), (1, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MailWorker {
    pub(super) inner: Arc<Inner>,
}

/// The parts, with no more of the store than is needed.
pub(super) struct Inner {
    pub(super) outbox: Arc<dyn OutboxStore>,
    pub(super) mailer: Arc<dyn Mailer>,
    pub(super) templates: Arc<dyn MailTemplates>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) secrets: SecretKeys,
    pub(super) policies: Arc<Policies>,
}

#[async_trait]
impl Lane for Inner {
    type Claimed = Claimed;
    type Settle = Settle;

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn random(&self) -> &dyn Random {
        &*self.random
    }

    fn concurrency(&self) -> u32 {
        self.policies.outbox.concurrency
    }

    fn id(claimed: &Claimed) -> Uuid {
        claimed.mail.id.as_uuid()
    }

    fn domain(claimed: &Claimed) -> Option<String> {
        Some(claimed.mail.to.domain().to_owned())
    }

    async fn claim(&self, command: Claim) -> Result<Vec<Claimed>, StoreError> {
        self.outbox.claim(command).await
    }

    async fn attempt(&self, claimed: Claimed, lease: Lease) -> Attempted<Settle> {
        delivery::attempt(self, claimed, lease).await
    }

    async fn settle(&self, commands: Vec<Settle>) -> Result<Vec<Settled>, StoreError> {
        self.outbox.settle_all(commands).await
    }

    async fn renew(&self, command: RenewLeases<Uuid>) -> Result<Vec<Renewed>, StoreError> {
        let RenewLeases { lease_until, held } = command;
        let held = held.into_iter().map(|(id, lease)| (OutboxId::from_uuid(id), lease)).collect();
        self.outbox.renew_mails(RenewLeases { lease_until, held }).await
    }

    async fn wait_for_due(&self, at_most: std::time::Duration) {
        self.outbox.wait_for_due(at_most).await;
    }
}

impl MailWorker {
    /// A worker with these parts.
    pub fn new(parts: MailWorkerParts) -> Self {
        let MailWorkerParts { store, mailer, templates, clock, random, secrets, policies } = parts;
        let inner = Inner { outbox: store, mailer, templates, clock, random, secrets, policies };
        Self { inner: Arc::new(inner) }
    }

    /// Makes one attempt at each mail that is due, as many as may be under way at once
    /// ([`OutboxPolicy::concurrency`]), and returns when all have ended. None attempted means that none was due. Whom a
    /// mail is for makes no difference here: a round lasts as long as its slowest delivery.
    ///
    /// Like [`run`](Self::run) it must be called within a tokio runtime. Dropping the future cuts deliveries off;
    /// what was cut off is due again when its lease of 30 seconds has passed.
    ///
    /// # Errors
    /// [`StoreError`] when nothing could be claimed.
    ///
    /// [`OutboxPolicy::concurrency`]: crate::policy::OutboxPolicy::concurrency
    pub async fn run_once(&self) -> Result<Delivered, StoreError> {
        lane::run_once(&self.inner).await
    }

    /// Delivers what is due as it becomes due, until `stop`; then it claims nothing more, and returns when what is
    /// under way is settled. It never ends for a fault of the store, the mailer or a template.
    ///
    /// A slow receiver holds up nobody else: the place of each delivery that ends is given to the next one due, and one
    /// domain has at most a quarter of the places at once; all but a quarter, as long as it takes its mails within a
    /// second.
    pub async fn run(&self, stop: Stop) {
        lane::run(&self.inner, stop).await;
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
