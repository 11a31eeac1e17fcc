//! Laws of jobs: who gets a run, and when.

use std::sync::Arc;

use time::{Duration, OffsetDateTime};

use super::StoreHarness;
use super::build::{NOW, later, lease};
use super::races::at_once;
use crate::domain::job::{JobOutcome, Schedule};
use crate::port::store::Store;
use crate::port::store::job::{BeginJob, EndJob, JobBegun, JobDemand, JobLease, JobRecord, RenewJob};
use crate::port::store::outbox::Lease;

/// [`NOW`] is on the hour.
const HOURLY: Schedule = Schedule::Every(Duration::HOUR);
/// How long a lease is given in these laws, in seconds.
const LEASE: i64 = 120;

/// Asks for the run of an hourly job.
pub(super) fn begin(now: OffsetDateTime) -> BeginJob {
    BeginJob {
        now,
        job: "tidy".parse().unwrap(),
        demand: JobDemand::WhenDue,
        period: HOURLY.period(now),
        lease: lease(),
        lease_until: now + Duration::seconds(LEASE),
    }
}

/// Ends a run as done.
pub(super) fn done(run: &BeginJob, now: OffsetDateTime) -> EndJob {
    EndJob { now, job: run.job.clone(), lease: run.lease, outcome: JobOutcome::Done, retry_at: None }
}

const fn begun(attempt: u32) -> JobBegun {
    JobBegun::Begun { attempt }
}

fn not_due(until: i64) -> JobBegun {
    JobBegun::NotDue { until: later(until) }
}

fn held(until: i64) -> JobBegun {
    JobBegun::Held { until: later(until) }
}

/// Asks so many seconds after [`NOW`], and ends what it gets.
async fn runs(store: &Arc<dyn Store>, seconds: i64) -> JobBegun {
    let command = begin(later(seconds));
    let answer = store.begin_job(command.clone()).await.unwrap();
    if matches!(answer, JobBegun::Begun { .. }) {
        assert_eq!(store.end_job(done(&command, later(seconds))).await.unwrap(), JobLease::Kept);
    }
    answer
}

async fn record(store: &Arc<dyn Store>) -> JobRecord {
    let records = store.jobs().await.unwrap();
    assert_eq!(records.len(), 1, "{records:?}");
    records.into_iter().next().unwrap()
}

/// Of 16 instances that ask at once one gets the run, the first time and in every later period; the others are told until
/// when it is held.
pub async fn one_of_many_gets_the_run(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for seconds in [0, 3600, 7200] {
        let answers = at_once(&store, 16, move |store, _| async move {
            let command = begin(later(seconds));
            (store.begin_job(command.clone()).await.unwrap(), command)
        })
        .await;
        let (won, lost): (Vec<_>, Vec<_>) =
            answers.iter().partition(|(answer, _)| matches!(answer, JobBegun::Begun { .. }));
        assert_eq!(won.len(), 1, "{answers:?}");
        assert_eq!(won[0].0, begun(1));
        assert!(lost.iter().all(|(answer, _)| *answer == held(seconds + LEASE)), "{answers:?}");
        assert_eq!(store.end_job(done(&won[0].1, later(seconds + 1))).await.unwrap(), JobLease::Kept);
    }
    assert_eq!(record(&store).await.runs, 3);
}

/// A job runs once a period, to the second; periods that were missed are made up for by one run.
pub async fn a_job_runs_once_a_period(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    assert_eq!(runs(&store, 1800).await, begun(1), "it never ran, so it is due");
    assert_eq!(runs(&store, 1800).await, not_due(3600));
    assert_eq!(runs(&store, 3599).await, not_due(3600));
    assert_eq!(runs(&store, 3600).await, begun(1));
    assert_eq!(runs(&store, 3601).await, not_due(7200));
    assert_eq!(runs(&store, 7199).await, not_due(7200));
    assert_eq!(runs(&store, 5 * 3600 + 7).await, begun(1), "nobody was there for three hours");
    assert_eq!(runs(&store, 5 * 3600 + 8).await, not_due(6 * 3600));
    assert_eq!(runs(&store, 6 * 3600).await, begun(1));
    assert_eq!(record(&store).await.period, later(6 * 3600));
}

/// The same command again is answered as the first time, and is one run; another job is another row.
pub async fn a_run_is_begun_once(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let command = begin(NOW);
    for _ in 0..3 {
        assert_eq!(store.begin_job(command.clone()).await.unwrap(), begun(1));
    }
    assert_eq!(record(&store).await.runs, 1);
    let other = BeginJob { job: "another".parse().unwrap(), ..begin(NOW) };
    assert_eq!(store.begin_job(other.clone()).await.unwrap(), begun(1), "jobs do not wait for each other");
    assert_eq!(store.end_job(done(&other, NOW)).await.unwrap(), JobLease::Kept);
    let names: Vec<_> =
        store.jobs().await.unwrap().into_iter().map(|record| record.job.to_string()).collect();
    assert_eq!(names, ["another", "tidy"], "by name");
    assert_eq!(store.begin_job(begin(later(1))).await.unwrap(), held(LEASE), "the first one still runs");
}

/// A run that nobody ends is due again when its lease has passed and not before; who had it has it no more.
pub async fn a_run_whose_process_died_is_taken_over(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let dead = begin(later(10));
    assert_eq!(store.begin_job(dead.clone()).await.unwrap(), begun(1));
    assert_eq!(runs(&store, 10 + LEASE - 1).await, held(10 + LEASE));
    let heir = begin(later(10 + LEASE));
    assert_eq!(store.begin_job(heir.clone()).await.unwrap(), begun(2), "in the same period");
    let seen = record(&store).await;
    assert_eq!((seen.outcome, seen.runs, seen.failures), (Some(JobOutcome::Lost), 2, 1));
    assert_eq!(store.end_job(done(&dead, later(200))).await.unwrap(), JobLease::Lost);
    assert_eq!(runs(&store, 200).await, held(10 + 2 * LEASE), "its end was not noted");
    assert_eq!(store.end_job(done(&heir, later(201))).await.unwrap(), JobLease::Kept);
    assert_eq!(runs(&store, 202).await, not_due(3600));
    let died_long_ago = begin(later(3600));
    assert_eq!(store.begin_job(died_long_ago).await.unwrap(), begun(1));
    let answers =
        at_once(&store, 16, |store, _| async move { store.begin_job(begin(later(3 * 3600))).await.unwrap() })
            .await;
    let won = answers.iter().filter(|answer| matches!(answer, JobBegun::Begun { .. })).count();
    assert_eq!(won, 1, "one heir: {answers:?}");
}

/// A run that takes long is not taken over while it is renewed, also not in the next period, which comes afterwards.
pub async fn a_run_that_is_renewed_is_not_taken_over(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let long = begin(NOW);
    assert_eq!(store.begin_job(long.clone()).await.unwrap(), begun(1));
    for seconds in (60..4000).step_by(60) {
        let renew =
            RenewJob { job: long.job.clone(), lease: long.lease, lease_until: later(seconds + LEASE) };
        assert_eq!(store.renew_job(renew).await.unwrap(), JobLease::Kept);
        assert_eq!(runs(&store, seconds + 59).await, held(seconds + LEASE));
    }
    assert_eq!(store.end_job(done(&long, later(4000))).await.unwrap(), JobLease::Kept);
    assert_eq!(runs(&store, 4001).await, begun(1), "the period that began meanwhile");
    assert_eq!(runs(&store, 4002).await, not_due(7200));
}

/// Only who has a run renews and ends it, once.
pub async fn the_lease_of_a_run_is_fenced(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let run = begin(NOW);
    let renew = |lease: Lease| RenewJob { job: run.job.clone(), lease, lease_until: later(9000) };
    assert_eq!(store.renew_job(renew(run.lease)).await.unwrap(), JobLease::Lost, "there is no such job");
    assert_eq!(store.end_job(done(&run, NOW)).await.unwrap(), JobLease::Lost);
    assert_eq!(store.begin_job(run.clone()).await.unwrap(), begun(1));
    let before = record(&store).await;
    let stranger = EndJob { lease: lease(), ..done(&run, later(1)) };
    assert_eq!(store.end_job(stranger).await.unwrap(), JobLease::Lost);
    assert_eq!(store.renew_job(renew(lease())).await.unwrap(), JobLease::Lost);
    assert_eq!(record(&store).await, before, "nothing was noted");
    let ends = at_once(&store, 8, {
        let end = done(&run, later(2));
        move |store, _| {
            let end = end.clone();
            async move { store.end_job(end).await.unwrap() }
        }
    })
    .await;
    assert_eq!(ends.iter().filter(|end| **end == JobLease::Kept).count(), 1, "{ends:?}");
    assert_eq!(store.renew_job(renew(run.lease)).await.unwrap(), JobLease::Lost, "it has ended");
    let seen = record(&store).await;
    assert_eq!((seen.lease, seen.outcome), (None, Some(JobOutcome::Done)));
}

/// A run that was not done is due again when it was told to be, to the second, or when the next period begins; attempts
/// are counted until one is done.
pub async fn a_run_that_failed_comes_again(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let fail = |at: i64, retry: i64, outcome| {
        let store = Arc::clone(&store);
        async move {
            let run = begin(later(at));
            let answer = store.begin_job(run.clone()).await.unwrap();
            let end = EndJob { outcome, retry_at: Some(later(retry)), ..done(&run, later(at)) };
            assert_eq!(store.end_job(end).await.unwrap(), JobLease::Kept);
            answer
        }
    };
    assert_eq!(fail(0, 60, JobOutcome::Failed).await, begun(1));
    assert_eq!(runs(&store, 59).await, not_due(60));
    assert_eq!(fail(60, 9000, JobOutcome::Panicked).await, begun(2));
    assert_eq!(runs(&store, 3599).await, not_due(3600), "the next period comes before the retry");
    assert_eq!(fail(3600, 3600, JobOutcome::Stopped).await, begun(3));
    assert_eq!(runs(&store, 3600).await, begun(4), "at once");
    assert_eq!(runs(&store, 3601).await, not_due(7200), "what was done is not made up for");
    assert_eq!(runs(&store, 7200).await, begun(1));
    let seen = record(&store).await;
    assert_eq!((seen.runs, seen.failures, seen.attempts), (5, 3, 0));
}

/// A clock that is set back makes no job run at once, and stops none for longer than two periods; a lease is not believed
/// for longer than it was given, and a retry is not put off.
pub async fn a_clock_set_back_neither_repeats_nor_stops_a_job(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    assert_eq!(runs(&store, 3600).await, begun(1));
    assert_eq!(runs(&store, 3599).await, not_due(3600), "a second back, into the period before");
    assert_eq!(runs(&store, 3600).await, not_due(7200), "once for one period");
    assert_eq!(runs(&store, 7200).await, begun(1));
    assert_eq!(runs(&store, 3600).await, not_due(7200), "an hour back");
    assert_eq!(runs(&store, 7200).await, not_due(10_800));

    // Far back: the period that is current then counts as taken, the next one does not.
    assert_eq!(runs(&store, 100 * 3600).await, begun(1));
    assert_eq!(runs(&store, 3 * 3600 + 5).await, not_due(4 * 3600));
    assert_eq!(runs(&store, 4 * 3600 - 1).await, not_due(4 * 3600));
    assert_eq!(runs(&store, 4 * 3600).await, begun(1));

    let dead = begin(later(50 * 3600));
    assert_eq!(store.begin_job(dead).await.unwrap(), begun(1));
    assert_eq!(runs(&store, 5 * 3600).await, held(5 * 3600 + LEASE), "as if it had been given now");
    assert_eq!(runs(&store, 5 * 3600 + LEASE - 1).await, held(5 * 3600 + LEASE));
    assert_eq!(runs(&store, 5 * 3600 + LEASE).await, begun(2));

    let failing = begin(later(20 * 3600));
    assert_eq!(store.begin_job(failing.clone()).await.unwrap(), begun(1));
    let outcome = JobOutcome::Failed;
    let retry_at = Some(later(20 * 3600 + 600));
    let end = EndJob { outcome, retry_at, ..done(&failing, later(20 * 3600)) };
    assert_eq!(store.end_job(end).await.unwrap(), JobLease::Kept);
    assert_eq!(runs(&store, 19 * 3600).await, begun(2), "it failed by a clock that was ahead");
    assert_eq!(runs(&store, 19 * 3600 + 1).await, not_due(20 * 3600));
}

/// A clock that is set forth runs a job once, and once it is set right the job goes on.
pub async fn a_clock_set_forth_runs_a_job_once(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let year = 365 * 86_400;
    assert_eq!(runs(&store, 0).await, begun(1));
    assert_eq!(runs(&store, year).await, begun(1), "one run for all that was missed");
    assert_eq!(runs(&store, year + 1).await, not_due(year + 3600));
    assert_eq!(runs(&store, 60).await, not_due(3600));
    assert_eq!(runs(&store, 3600).await, begun(1));
}

/// A run that is demanded does not wait for its time, counts as the run of its period, and waits for the one who has it.
pub async fn a_run_may_be_demanded(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let demanded = |seconds| BeginJob { demand: JobDemand::Now, ..begin(later(seconds)) };
    assert_eq!(runs(&store, 0).await, begun(1));
    let run = demanded(10);
    assert_eq!(store.begin_job(run.clone()).await.unwrap(), begun(1));
    assert_eq!(store.begin_job(demanded(11)).await.unwrap(), held(10 + LEASE));
    assert_eq!(store.end_job(done(&run, later(12))).await.unwrap(), JobLease::Kept);
    let run = demanded(3700);
    assert_eq!(store.begin_job(run.clone()).await.unwrap(), begun(1));
    assert_eq!(store.end_job(done(&run, later(3701))).await.unwrap(), JobLease::Kept);
    assert_eq!(runs(&store, 3702).await, not_due(7200), "it was the run of its period");
    assert_eq!(runs(&store, 7200).await, begun(1));
}

/// All that is known of a job comes back, to the microsecond.
pub async fn what_is_known_of_a_job_comes_back(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    assert_eq!(store.jobs().await.unwrap(), []);
    let micros = |n| NOW + Duration::microseconds(n);
    let run = BeginJob { lease_until: micros(999_999), ..begin(micros(7)) };
    store.begin_job(run.clone()).await.unwrap();
    let mut expected = JobRecord {
        job: run.job.clone(),
        period: NOW,
        lease: Some((run.lease, micros(999_999))),
        retry_at: None,
        started_at: micros(7),
        ended_at: None,
        outcome: None,
        attempts: 1,
        runs: 1,
        failures: 0,
    };
    assert_eq!(record(&store).await, expected);
    for outcome in JobOutcome::ALL {
        let run = BeginJob { demand: JobDemand::Now, ..begin(micros(1_000_000)) };
        store.begin_job(run.clone()).await.unwrap();
        let retry_at = (outcome != JobOutcome::Done).then(|| micros(5_000_001));
        let end = EndJob { outcome, retry_at, ..done(&run, micros(1_000_003)) };
        store.end_job(end.clone()).await.unwrap();
        (expected, _) = JobRecord::begun(Some(expected), &run);
        expected.ended(&end);
        assert_eq!(record(&store).await, expected);
    }
    assert_eq!((expected.runs, expected.failures, expected.attempts), (6, 5, 4));
}
