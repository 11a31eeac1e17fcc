//! Upkeep, law by law.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::port::store::UpkeepStore;
use crate::port::store::upkeep::{Backlog, Purge, Purged};
use crate::worker::{JobResult, Stop, Stopper, Upkeep};

enum Answer {
    Removed(Purged),
    After(Duration, Purged),
    Fails,
    Panics,
}

/// A store that answers as ordered, and then that nothing is left.
#[derive(Default)]
struct Tables {
    answers: Mutex<VecDeque<Answer>>,
    purges: Mutex<Vec<(Purge, Instant)>>,
}

impl Tables {
    fn answering(answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), ..Self::default() })
    }

    fn count(&self) -> usize {
        self.purges.lock().unwrap().len()
    }
}

#[async_trait]
impl UpkeepStore for Tables {
    async fn purge(&self, command: Purge) -> Result<Purged, StoreError> {
        self.purges.lock().unwrap().push((command, Instant::now()));
        let answer = self.answers.lock().unwrap().pop_front();
        match answer {
            None => Ok(Purged::default()),
            Some(Answer::Removed(purged)) => Ok(purged),
            Some(Answer::After(wait, purged)) => {
                tokio::time::sleep(wait).await;
                Ok(purged)
            }
            Some(Answer::Fails) => Err(StoreError::unavailable("planted")),
            Some(Answer::Panics) => panic!("planted"),
        }
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        Ok(Backlog::default())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn upkeep(tables: &Arc<Tables>, policies: Policies) -> Upkeep {
    Upkeep {
        store: Arc::clone(tables) as _,
        clock: TokioClock::new(),
        policies: Arc::new(policies),
        keys: None,
    }
}

#[tokio::test(start_paused = true)]
async fn batches_go_on_while_any_is_full() {
    let tables = Tables::answering([
        Answer::Removed(Purged { codes: 500, audit: 3, ..Purged::default() }),
        Answer::Removed(Purged { codes: 7, sessions: 500, ..Purged::default() }),
        Answer::Removed(Purged { sessions: 499, ..Purged::default() }),
        Answer::Panics,
    ]);
    let purged = upkeep(&tables, Policies::default()).run_once().await.unwrap();
    assert_eq!(purged, Purged { codes: 507, sessions: 999, audit: 3, ..Purged::default() });
    assert_eq!(tables.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_is_followed_by_a_rest() {
    let full = Purged { sessions: 500, ..Purged::default() };
    let tables = Tables::answering([
        Answer::After(Duration::from_millis(10), full),
        Answer::After(Duration::from_secs(10), full),
        Answer::After(Duration::from_millis(10), Purged { sessions: 499, ..full }),
    ]);
    let began = Instant::now();
    upkeep(&tables, Policies::default()).run_once().await.unwrap();
    let ended = began.elapsed();
    let starts: Vec<_> =
        tables.purges.lock().unwrap().iter().map(|(_, at)| at.duration_since(began).as_millis()).collect();
    assert_eq!(
        (starts, ended.as_millis()),
        (vec![0, 100, 11_100], 11_110),
        "no longer than a second, and none at the end"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_follows_the_policies() {
    let tables = Tables::answering([]);
    let mut policies = Policies::default();
    policies.outbox.keep_sent = time::Duration::days(7);
    policies.retention.audit = time::Duration::days(365);
    upkeep(&tables, policies).run_once().await.unwrap();
    let (purge, _) = tables.purges.lock().unwrap()[0];
    let before = |days| purge.now - time::Duration::days(days);
    assert_eq!(
        purge,
        Purge {
            now: purge.now,
            ended_before: before(1),
            settled_before: before(7),
            dead_before: before(30),
            audited_before: before(365),
            events_before: before(30),
            deleted_before: before(30),
            retired_before: before(2),
            known_before: before(30),
            marked_before: before(180),
            batch: 500,
        }
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_for_ever_removes_nothing_and_does_not_panic() {
    let tables = Tables::answering([]);
    let mut policies = Policies::default();
    policies.retention.audit = time::Duration::MAX;
    upkeep(&tables, policies).run_once().await.unwrap();
    assert_eq!(tables.purges.lock().unwrap()[0].0.audited_before, OffsetDateTime::UNIX_EPOCH);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_the_answer_of_a_single_run() {
    let tables = Tables::answering([Answer::Fails]);
    assert!(upkeep(&tables, Policies::default()).run_once().await.is_err());
}

/// Runs the job of that name, once.
async fn job(upkeep: &Upkeep, name: &str, stop: Stop) -> JobResult {
    let job = upkeep.jobs().into_iter().find(|job| job.name().as_str() == name).unwrap();
    (job.run)(stop).await
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_for_days_goes_once_a_day() {
    let tables = Tables::answering([
        Answer::Removed(Purged { codes: 12, ..Purged::default() }),
        Answer::Removed(Purged { audit: 3, users: 1, ..Purged::default() }),
    ]);
    let mut policies = Policies::default();
    policies.maintenance.interval = time::Duration::minutes(10);
    policies.maintenance.daily_at = time::macros::time!(03:30);
    let upkeep = upkeep(&tables, policies);
    let schedules = upkeep.jobs().map(|job| format!("{} {}", job.name(), job.schedule));
    assert_eq!(schedules, ["purge every 10m", "signing-keys every 10m", "retention daily at 03:30 UTC"]);
    let stopper = Stopper::new();
    assert_eq!(job(&upkeep, "purge", stopper.token()).await.unwrap(), "removed 12 codes and links");
    let daily = job(&upkeep, "retention", stopper.token()).await.unwrap();
    assert_eq!(daily, "removed 3 audit entries, 1 deleted users");
    assert_eq!(job(&upkeep, "purge", stopper.token()).await.unwrap(), "removed nothing");
    let purges: Vec<Purge> = tables.purges.lock().unwrap().iter().map(|(purge, _)| *purge).collect();
    let never = OffsetDateTime::UNIX_EPOCH;
    let Purge { audited_before, deleted_before, retired_before, known_before, .. } = purges[0];
    assert_eq!([audited_before, deleted_before, retired_before, known_before], [never; 4]);
    assert_eq!(purges[0].ended_before, purges[1].ended_before);
    assert!(purges[1].audited_before > never && purges[1].deleted_before > never);
}

#[tokio::test(start_paused = true)]
async fn stop_ends_a_long_run_after_its_batch() {
    let full = || Answer::After(Duration::from_millis(10), Purged { codes: 500, ..Purged::default() });
    let tables = Tables::answering((0..1000).map(|_| full()));
    let stopper = Stopper::new();
    let (upkeep, stop) = (upkeep(&tables, Policies::default()), stopper.token());
    let running = tokio::spawn(async move { job(&upkeep, "purge", stop).await });
    tokio::task::yield_now().await;
    stopper.stop();
    let ended = tokio::time::timeout(Duration::from_secs(5), running).await.expect("it ends").unwrap();
    assert!(ended.is_err(), "there is more to remove");
    assert!((1..10).contains(&tables.count()), "{}", tables.count());
}
