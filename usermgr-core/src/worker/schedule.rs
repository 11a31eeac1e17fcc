//! Running jobs when their time has come, once across all instances that share a store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};

use super::backoff::{doubled, jittered};
use super::caught::{Panicked, caught};
use super::job::{Job, JobEnd, JobResult, JobRun, JobStatus, NextRun};
use super::{Stop, Stopper};
use crate::domain::job::{JobOutcome, JobScope};
use crate::port::clock::Clock;
use crate::port::random::Random;
use crate::port::store::job::{
    BeginJob, EndJob, JobBegun, JobDemand, JobLease, JobRecord, JobStore, RenewJob,
};
use crate::port::store::outbox::Lease;
use crate::port::store::{Store, StoreError};

/// How long a run is held without being renewed: a process that died in a run is succeeded after this.
const LEASE: time::Duration = time::Duration::minutes(2);
/// How often a run that goes on is renewed: a lease survives four renewals that fail.
const BEAT: Duration = Duration::from_secs(20);
/// How long a run may go on after it was told to stop.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// How often the clock is looked at, so that one that is set is followed within this.
const LOOK: Duration = Duration::from_secs(60);
/// The waits after the first failed run and at most, before jitter; the next period comes in any case.
const RETRY: (time::Duration, time::Duration) = (time::Duration::minutes(1), time::Duration::hours(1));
/// The waits after the store could not be asked once, and at most.
const STORE_WAIT: (time::Duration, time::Duration) = (time::Duration::seconds(1), time::Duration::minutes(1));
/// How often the end of a run is told to a store that does not answer; after that its lease has to pass.
const END_TRIES: u32 = 5;

/// Runs jobs, each on a task of its own, so that none holds up another.
///
/// Any number of processes may do so on one store: of a job that runs once in each period, the run is leased to one of them.
///
/// ```
/// # use usermgr_core::testing::TestAuth;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let auth = TestAuth::new();
/// # let users = auth.users();
/// for job in users.scheduler().list().await? {
///     println!("{} {:?}", job.job, job.next);
/// }
/// # assert!(users.scheduler().list().await?.len() >= 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Scheduler {
    pub(super) jobs: Arc<[Job]>,
    pub(super) store: Arc<dyn JobStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
}

/// A run that was begun.
struct Begun {
    lease: Lease,
    attempt: u32,
}

impl Scheduler {
    /// A scheduler of these jobs, each with a name of its own.
    pub fn new(
        jobs: Vec<Job>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self { jobs: jobs.into(), store, clock, random }
    }

    /// Runs every job whenever it is due, until `stop`; then it begins nothing more, tells what is running to stop, and
    /// returns when that has ended or was cut off 10 seconds later. It never ends for a fault of a job or of the store.
    ///
    /// It must be called within a tokio runtime. Dropping the future cuts runs off; others take them over when their
    /// leases of two minutes have passed.
    pub async fn run(&self, stop: Stop) {
        let mut tasks = JoinSet::new();
        for job in self.jobs.iter() {
            let (scheduler, job, stop) = (self.clone(), job.clone(), stop.clone());
            tasks.spawn(async move { scheduler.keep(&job, &stop).await });
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "the schedule of a job did not end in order");
            }
        }
    }

    /// Runs every job now, one after the other, whether it is due or not. It counts as the run of its period. What
    /// somebody else is running is left to them.
    ///
    /// It must be called within a tokio runtime.
    pub async fn run_now(&self, stop: &Stop) -> Vec<JobRun> {
        let mut runs = Vec::with_capacity(self.jobs.len());
        for job in self.jobs.iter() {
            if !stop.is_requested() {
                runs.push(self.run_one_now(job, stop).await);
            }
        }
        runs
    }

    /// How every job stands, in the order they were given.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be asked.
    pub async fn list(&self) -> Result<Vec<JobStatus>, StoreError> {
        let records = self.store.jobs().await?;
        let status = |job: &Job| {
            let record = match job.scope {
                JobScope::OncePerPeriod => records.iter().find(|record| record.job == job.name).cloned(),
                JobScope::OnEveryInstance => job.own().clone(),
            };
            let next = match JobRecord::begun(record.clone(), &self.question(job, JobDemand::WhenDue)).1 {
                JobBegun::Begun { .. } => NextRun::Due,
                JobBegun::NotDue { until } => NextRun::At(until),
                JobBegun::Held { until } => NextRun::Running { until },
            };
            JobStatus { job: job.name.clone(), schedule: job.schedule, scope: job.scope, next, record }
        };
        Ok(self.jobs.iter().map(status).collect())
    }

    /// Runs one job whenever it is due.
    async fn keep(&self, job: &Job, stop: &Stop) {
        let mut faults = 0_u32;
        while !stop.is_requested() {
            let question = self.question(job, JobDemand::WhenDue);
            let (asked_at, lease) = (question.now, question.lease);
            match self.begin(job, question).await {
                Ok(JobBegun::Begun { attempt }) => {
                    faults = 0;
                    self.perform(job, Begun { lease, attempt }, stop).await;
                }
                Ok(JobBegun::NotDue { until } | JobBegun::Held { until }) => {
                    faults = 0;
                    self.wait_until(until, asked_at, stop).await;
                }
                Err(error) => {
                    faults = faults.saturating_add(1);
                    let wait = jittered(doubled(STORE_WAIT.0, STORE_WAIT.1, faults), &*self.random);
                    tracing::error!(job = %job.name, error, faults, %wait,
                        "the store cannot say whether a job is due; waiting");
                    until(sleep(wait.unsigned_abs()), stop).await;
                }
            }
        }
    }

    async fn run_one_now(&self, job: &Job, stop: &Stop) -> JobRun {
        let question = self.question(job, JobDemand::Now);
        let lease = question.lease;
        let end = match self.begin(job, question).await {
            Ok(JobBegun::Begun { attempt }) => {
                return self.perform(job, Begun { lease, attempt }, stop).await;
            }
            Ok(JobBegun::NotDue { until } | JobBegun::Held { until }) => JobEnd::Elsewhere { until },
            Err(error) => JobEnd::Unknown(error),
        };
        JobRun { job: job.name.clone(), took: Duration::ZERO, end }
    }

    fn question(&self, job: &Job, demand: JobDemand) -> BeginJob {
        let now = self.clock.now();
        let mut lease = Lease([0; 16]);
        self.random.fill(&mut lease.0);
        BeginJob {
            now,
            job: job.name.clone(),
            demand,
            period: job.schedule.period(now),
            lease,
            lease_until: now.saturating_add(LEASE),
        }
    }

    async fn begin(&self, job: &Job, question: BeginJob) -> Result<JobBegun, String> {
        match job.scope {
            JobScope::OncePerPeriod => asked(self.store.begin_job(question)).await,
            JobScope::OnEveryInstance => {
                let mut own = job.own();
                let (record, begun) = JobRecord::begun(own.take(), &question);
                *own = Some(record);
                Ok(begun)
            }
        }
    }

    /// Waits until the clock reads `at`, or an earlier time than when the store was asked: then it was set back, and what
    /// the store said is not to be relied on.
    async fn wait_until(&self, at: OffsetDateTime, asked_at: OffsetDateTime, stop: &Stop) {
        while !stop.is_requested() {
            let now = self.clock.now();
            if now >= at || now < asked_at {
                return;
            }
            let wait = (at - now).unsigned_abs().min(LOOK);
            until(sleep(wait), stop).await;
        }
    }

    /// Runs what was begun, holds on to it meanwhile, and notes its end.
    async fn perform(&self, job: &Job, begun: Begun, stop: &Stop) -> JobRun {
        let Begun { lease, attempt } = begun;
        let since = Instant::now();
        let end = self.attempt(job, lease, stop).await;
        let took = since.elapsed();
        let (outcome, retry_in) = match &end {
            JobEnd::Done(did) => {
                tracing::info!(job = %job.name, did, ?took, "a job was done");
                (JobOutcome::Done, None)
            }
            JobEnd::Stopped => {
                tracing::warn!(job = %job.name, ?took, "a job was stopped; it is due at once");
                (JobOutcome::Stopped, Some(time::Duration::ZERO))
            }
            JobEnd::Failed(error) => {
                let wait = jittered(doubled(RETRY.0, RETRY.1, attempt), &*self.random);
                tracing::error!(job = %job.name, error, attempt, ?took, %wait, "a job failed; it runs again");
                (JobOutcome::Failed, Some(wait))
            }
            JobEnd::Panicked => {
                let wait = jittered(doubled(RETRY.0, RETRY.1, attempt), &*self.random);
                tracing::error!(job = %job.name, attempt, ?took, %wait, "a job panicked; it runs again");
                (JobOutcome::Panicked, Some(wait))
            }
            JobEnd::LeaseLost | JobEnd::Elsewhere { .. } | JobEnd::Unknown(_) => {
                tracing::warn!(job = %job.name, ?took, "a job lost its lease; somebody else may run it too");
                return JobRun { job: job.name.clone(), took, end };
            }
        };
        self.note_end(job, lease, outcome, retry_in, stop).await;
        JobRun { job: job.name.clone(), took, end }
    }

    async fn attempt(&self, job: &Job, lease: Lease, stop: &Stop) -> JobEnd {
        let stopper = Stopper::new();
        let (run, told) = (Arc::clone(&job.run), stopper.token());
        // A task of its own: a panic ends nothing else, and renewals go on while it works. Dropping the set cuts it off.
        let mut running = JoinSet::new();
        running.spawn(async move { run(told).await });
        let mut beat = interval_at(Instant::now() + BEAT, BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut cut_off: Option<(Instant, JobEnd)> = None;
        loop {
            let deadline = cut_off.as_ref().map(|(at, _)| *at);
            let why = tokio::select! {
                biased;
                Some(ended) = running.join_next() => return match (end_of(ended), cut_off) {
                    (JobEnd::Failed(_), Some((_, why))) => why,
                    (end, _) => end,
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return cut_off.map_or(JobEnd::Stopped, |(_, end)| end);
                }
                () = stop.requested(), if deadline.is_none() => JobEnd::Stopped,
                _ = beat.tick() => match self.renew(job, lease).await {
                    JobLease::Kept => continue,
                    JobLease::Lost => JobEnd::LeaseLost,
                },
            };
            stopper.stop();
            cut_off.get_or_insert((Instant::now() + STOP_GRACE, why));
        }
    }

    async fn renew(&self, job: &Job, lease: Lease) -> JobLease {
        let lease_until = self.clock.now().saturating_add(LEASE);
        let command = RenewJob { job: job.name.clone(), lease, lease_until };
        match job.scope {
            JobScope::OncePerPeriod => asked(self.store.renew_job(command)).await.unwrap_or_else(|error| {
                tracing::warn!(job = %job.name, error, "the lease of a job could not be renewed");
                JobLease::Kept
            }),
            JobScope::OnEveryInstance => {
                job.own().as_mut().map_or(JobLease::Lost, |record| record.renewed(&command))
            }
        }
    }

    async fn note_end(
        &self,
        job: &Job,
        lease: Lease,
        outcome: JobOutcome,
        retry_in: Option<time::Duration>,
        stop: &Stop,
    ) {
        for attempt in 1..=END_TRIES {
            let now = self.clock.now();
            let retry_at = retry_in.map(|wait| now.saturating_add(wait));
            let command = EndJob { now, job: job.name.clone(), lease, outcome, retry_at };
            let noted = match job.scope {
                JobScope::OncePerPeriod => asked(self.store.end_job(command)).await,
                JobScope::OnEveryInstance => {
                    Ok(job.own().as_mut().map_or(JobLease::Lost, |record| record.ended(&command)))
                }
            };
            match noted {
                Ok(JobLease::Kept) => return,
                Ok(JobLease::Lost) => {
                    tracing::warn!(job = %job.name, "the lease of a job was lost before its end; it may run twice");
                    return;
                }
                Err(error) => {
                    tracing::error!(job = %job.name, error, attempt, "the end of a job could not be noted");
                    until(sleep(doubled(STORE_WAIT.0, STORE_WAIT.1, attempt).unsigned_abs()), stop).await;
                }
            }
        }
        tracing::error!(job = %job.name, "the end of a job was not noted; it runs again when its lease has passed");
    }
}

/// Waits, but no longer than until the signal to stop.
async fn until(wait: impl Future<Output = ()>, stop: &Stop) {
    tokio::select! {
        () = stop.requested() => {}
        () = wait => {}
    }
}

/// What the store answers, or in words why it does not.
async fn asked<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, String> {
    match caught(answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(chain(&error)),
        Err(Panicked) => Err("the store panicked".to_owned()),
    }
}

fn end_of(ended: Result<JobResult, tokio::task::JoinError>) -> JobEnd {
    match ended {
        Ok(Ok(did)) => JobEnd::Done(did),
        Ok(Err(error)) => JobEnd::Failed(chain(&*error)),
        Err(error) if error.is_panic() => JobEnd::Panicked,
        Err(_) => JobEnd::Stopped,
    }
}

/// An error and what it came from, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        // Some errors tell their cause themselves.
        if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
    })
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("jobs", &self.jobs).finish_non_exhaustive()
    }
}
