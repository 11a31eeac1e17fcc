//! What is asked when somebody looks: how the store, the hash pool and the connections are doing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use usermgr_core::UserManager;
use usermgr_core::domain::job::JobOutcome;
use usermgr_core::port::clock::{Clock as _, SystemClock};
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::upkeep::Backlog;
use usermgr_core::worker::JobStatus;
use usermgr_sqlx::PoolGauges;

use super::metrics::{Labels, Metrics, set};

/// For how long the store is not asked again, however many look.
const FRESH: Duration = Duration::from_secs(5);
/// How long the store may take. A scrape never waits longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tells how the connections are doing.
pub(crate) type Pools = Box<dyn Fn() -> Vec<PoolGauges> + Send + Sync>;

/// A process that is watched.
pub(crate) struct Watched {
    metrics: Arc<Metrics>,
    manager: UserManager,
    pools: Pools,
    asked: Mutex<Option<Instant>>,
}

impl Watched {
    pub(crate) fn new(metrics: Arc<Metrics>, manager: UserManager, pools: Pools) -> Self {
        Self { metrics, manager, pools, asked: Mutex::new(None) }
    }

    /// Every metric as text. Where the store does not answer, what only it knows is left out, and `usermgr_store_up` is 0.
    pub(super) async fn text(&self) -> Result<String, std::fmt::Error> {
        self.ask_the_store().await;
        self.look_around();
        self.metrics.text()
    }

    /// Whether requests can be served.
    pub(super) async fn is_ready(&self) -> bool {
        let pinged = tokio::time::timeout(PATIENCE, self.manager.ping()).await;
        pinged.is_ok_and(|pinged| pinged.is_ok())
    }

    async fn ask_the_store(&self) {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        match tokio::time::timeout(PATIENCE, self.answers()).await {
            Ok(Ok((backlog, jobs))) => self.note(backlog, &jobs),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the store cannot say how it is doing");
                self.forget();
            }
            Err(_elapsed) => {
                tracing::warn!("the store takes too long to say how it is doing");
                self.forget();
            }
        }
        *asked = Some(Instant::now());
    }

    async fn answers(&self) -> Result<(Backlog, Vec<JobStatus>), StoreError> {
        Ok((self.manager.backlog().await?, self.manager.scheduler().list().await?))
    }

    fn note(&self, backlog: Backlog, jobs: &[JobStatus]) {
        let Backlog { queued_mails, oldest_mail, dead_mails, undelivered_events, oldest_event } = backlog;
        let (metrics, now) = (&self.metrics, SystemClock.now());
        let age = |since: Option<time::OffsetDateTime>| {
            since.map_or(0, |since| (now - since).whole_seconds().max(0))
        };
        metrics.store_up.set(1);
        set(&metrics.outbox_mails, &[("status", "queued".into())], queued_mails);
        set(&metrics.outbox_mails, &[("status", "dead".into())], dead_mails);
        set(&metrics.outbox_oldest, &[], age(oldest_mail));
        if self.manager.event_worker().is_some() {
            set(&metrics.events_waiting, &[], undelivered_events);
            set(&metrics.events_oldest, &[], age(oldest_event));
        }
        for job in jobs {
            let Some(record) = &job.record else { continue };
            let name: Labels<1> = [("task", job.job.to_string().into())];
            set(&metrics.job_started, &name, record.started_at.unix_timestamp());
            if let Some(ended_at) = record.ended_at {
                set(&metrics.job_ended, &name, ended_at.unix_timestamp());
            }
            if let Some(outcome) = record.outcome {
                set(&metrics.job_ok, &name, i64::from(outcome == JobOutcome::Done));
            }
            let (runs, failures) = (&metrics.job_runs, &metrics.job_failures);
            store(&runs.get_or_create(&name), record.runs);
            store(&failures.get_or_create(&name), record.failures);
        }
    }

    /// What only the store knows is not known now.
    fn forget(&self) {
        let metrics = &self.metrics;
        metrics.store_up.set(0);
        metrics.outbox_mails.clear();
        metrics.outbox_oldest.clear();
        metrics.events_waiting.clear();
        metrics.events_oldest.clear();
        for gauges in [&metrics.job_started, &metrics.job_ended, &metrics.job_ok] {
            gauges.clear();
        }
        metrics.job_runs.clear();
        metrics.job_failures.clear();
    }

    fn look_around(&self) {
        let (metrics, hashing) = (&self.metrics, self.manager.hash_gauges());
        metrics.hash_queued.set(hashing.queued.try_into().unwrap_or(i64::MAX));
        metrics.hash_running.set(hashing.running.try_into().unwrap_or(i64::MAX));
        metrics.hash_threads.set(hashing.threads.try_into().unwrap_or(i64::MAX));
        metrics.hash_memory.set(hashing.memory_kib.saturating_mul(1024).try_into().unwrap_or(i64::MAX));
        metrics.hash_wait.set(hashing.wait.as_secs_f64());
        store(&metrics.hash_refused, hashing.refused);
        for PoolGauges { name, connections, idle, max } in (self.pools)() {
            let pool = ("pool", name.into());
            set(&metrics.pool_connections, &[pool.clone(), ("state", "idle".into())], idle);
            set(&metrics.pool_connections, &[pool.clone(), ("state", "used".into())], connections - idle);
            set(&metrics.pool_max, &[pool], max);
        }
    }
}

/// Sets a counter to what somebody else has counted.
fn store(counter: &prometheus_client::metrics::counter::Counter, number: u64) {
    counter.inner().store(number, std::sync::atomic::Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use usermgr_core::SecretKey;
    use usermgr_core::testing::{Mailbox, MemoryStore};
    use usermgr_sqlx::SqliteStore;

    use super::*;

    fn watched(store: Arc<dyn usermgr_core::port::store::Store>) -> Watched {
        let manager = UserManager::builder()
            .store(store)
            .mailer(Arc::new(Mailbox::default()))
            .secret_key(SecretKey::from_bytes([7; 32]))
            .build()
            .unwrap();
        Watched::new(Arc::new(Metrics::new()), manager, Box::new(Vec::new))
    }

    #[tokio::test]
    async fn a_store_that_does_not_answer_is_told_of_and_the_rest_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("usermgr.db").display());
        // Without tables, every question fails.
        let store = SqliteStore::connect(&url, 1).await.unwrap();
        let watched = watched(Arc::new(store.clone()));
        let text = watched.text().await.unwrap();
        assert!(
            text.contains("\nusermgr_store_up 0\n") && text.contains("\nusermgr_hash_threads "),
            "{text}"
        );
        assert!(!text.contains("\nusermgr_outbox_mails{"), "what is not known is not told");

        store.migrate().await.unwrap();
        assert!(
            watched.text().await.unwrap().contains("\nusermgr_store_up 0\n"),
            "it was asked a moment ago"
        );
        *watched.asked.lock().await = None;
        let text = watched.text().await.unwrap();
        assert!(
            text.contains("\nusermgr_store_up 1\n") && text.contains("\nusermgr_outbox_mails{"),
            "{text}"
        );

        sqlx::query("DROP TABLE usermgr_outbox")
            .execute(&sqlx::SqlitePool::connect(&url).await.unwrap())
            .await
            .unwrap();
        *watched.asked.lock().await = None;
        let text = watched.text().await.unwrap();
        assert!(text.contains("\nusermgr_store_up 0\n"), "{text}");
        assert!(!text.contains("\nusermgr_outbox_mails{"), "an old number is no number");
    }

    #[tokio::test]
    async fn events_that_nobody_is_told_of_do_not_wait() {
        let watched = watched(Arc::new(MemoryStore::new()));
        let text = watched.text().await.unwrap();
        assert!(
            text.contains("\nusermgr_store_up 1\n") && !text.contains("\nusermgr_events_waiting{"),
            "{text}"
        );
    }
}
