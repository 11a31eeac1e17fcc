//! Upkeep, law by law.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::*;
use crate::port::store::UpkeepStore;
use crate::port::store::upkeep::{Purge, Purged};
use crate::worker::{Stopper, Upkeep};

pub(super) enum Answer {
    Removed(Purged),
    Fails,
    Panics,
}

/// A store that answers as ordered, and then that nothing is left.
#[derive(Default)]
pub(super) struct Tables {
    answers: Mutex<VecDeque<Answer>>,
    purges: Mutex<Vec<(Purge, Instant)>>,
}

impl Tables {
    fn answering(answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), ..Self::default() })
    }

    pub(super) fn count(&self) -> usize {
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
            Some(Answer::Fails) => Err(StoreError::unavailable("planted")),
            Some(Answer::Panics) => panic!("planted"),
        }
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

pub(super) fn upkeep(tables: &Arc<Tables>, policies: Policies) -> Upkeep {
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
        Answer::Removed(Purged { codes: 1000, audit: 3, ..Purged::default() }),
        Answer::Removed(Purged { codes: 7, sessions: 1000, ..Purged::default() }),
        Answer::Removed(Purged { sessions: 999, ..Purged::default() }),
        Answer::Panics,
    ]);
    let purged = upkeep(&tables, Policies::default()).run_once().await.unwrap();
    assert_eq!(purged, Purged { codes: 1007, sessions: 1999, audit: 3, ..Purged::default() });
    assert_eq!(tables.count(), 3);
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
            audited_before: before(365),
            deleted_before: before(30),
            retired_before: before(2),
            known_before: before(30),
            marked_before: before(180),
            batch: 1000,
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
async fn a_run_that_fails_or_panics_is_followed_by_the_next() {
    let tables = Tables::answering([Answer::Fails, Answer::Panics]);
    let stopper = Stopper::new();
    let (upkeep, stop) = (upkeep(&tables, Policies::default()), stopper.token());
    let began = Instant::now();
    let running = tokio::spawn(async move { upkeep.run(Duration::from_secs(3600), stop).await });
    sleep(Duration::from_secs(3 * 3600 + 1)).await;
    stopper.stop();
    running.await.unwrap();
    let hours: Vec<u64> =
        tables.purges.lock().unwrap().iter().map(|(_, at)| (*at - began).as_secs() / 3600).collect();
    assert_eq!(hours, [0, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_the_answer_of_a_single_run() {
    let tables = Tables::answering([Answer::Fails]);
    assert!(upkeep(&tables, Policies::default()).run_once().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn stop_ends_a_long_run_after_its_batch() {
    let full = || Answer::Removed(Purged { codes: 1000, ..Purged::default() });
    let tables = Tables::answering((0..1000).map(|_| full()));
    let stopper = Stopper::new();
    let (upkeep, stop) = (upkeep(&tables, Policies::default()), stopper.token());
    let running = tokio::spawn(async move { upkeep.run(Duration::ZERO, stop).await });
    tokio::task::yield_now().await;
    stopper.stop();
    tokio::time::timeout(Duration::from_secs(5), running).await.expect("it ends").unwrap();
    assert!((1..10).contains(&tables.count()), "{}", tables.count());
}
