//! Who has the run of a job, and how the last one ended.

use async_trait::async_trait;
use time::OffsetDateTime;

use super::StoreError;
use super::outbox::Lease;
use crate::domain::job::{JobName, JobOutcome, Period};

/// Jobs that run once across all instances: a row for each.
///
/// What becomes of a row is said by [`JobRecord::begun`], [`JobRecord::renewed`] and [`JobRecord::ended`], so that every
/// store reckons alike; a store reads the row, asks them, and writes what they say, in one transaction that nobody else
/// gets between.
#[cfg_attr(feature = "testing", mockall::automock)]
#[async_trait]
pub trait JobStore: Send + Sync {
    /// Takes the run of a job, if it is due and nobody has it. Of any number who ask at once, one gets it; the others are
    /// told when to ask again. The same command again, while its run is under way, is answered as the first time.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn begin_job(&self, command: BeginJob) -> Result<JobBegun, StoreError>;

    /// Holds on to a run for longer. `Lost` when it is not under this lease any more.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn renew_job(&self, command: RenewJob) -> Result<JobLease, StoreError>;

    /// Ends a run and notes how. `Lost`, and nothing is noted, when it is not under this lease any more.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn end_job(&self, command: EndJob) -> Result<JobLease, StoreError>;

    /// What is known of every job that ever began, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError>;
}

/// See [`JobStore::begin_job`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeginJob {
    /// The time.
    pub now: OffsetDateTime,
    /// Which job.
    pub job: JobName,
    /// Whether it must be due.
    pub demand: JobDemand,
    /// The period that `now` is in.
    pub period: Period,
    /// The run's name, fresh for each.
    pub lease: Lease,
    /// Until when nobody else gets it.
    pub lease_until: OffsetDateTime,
}

/// Whether a run waits for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobDemand {
    /// It does.
    WhenDue,
    /// Somebody wants it now. It counts as the run of its period, and still nobody runs a job that is running.
    Now,
}

/// The answer to [`BeginJob`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobBegun {
    /// The run is the asker's.
    Begun {
        /// Which attempt this is since a run was done, from 1.
        attempt: u32,
    },
    /// It is not due.
    NotDue {
        /// When it is, as far as can be told now.
        until: OffsetDateTime,
    },
    /// Somebody else has it.
    Held {
        /// When their lease passes, unless they renew it.
        until: OffsetDateTime,
    },
}

/// See [`JobStore::renew_job`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewJob {
    /// Which job.
    pub job: JobName,
    /// Under which lease.
    pub lease: Lease,
    /// Until when nobody else gets it.
    pub lease_until: OffsetDateTime,
}

/// See [`JobStore::end_job`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndJob {
    /// The time.
    pub now: OffsetDateTime,
    /// Which job.
    pub job: JobName,
    /// Under which lease.
    pub lease: Lease,
    /// How it ended.
    pub outcome: JobOutcome,
    /// When it is due again although its period was taken; for runs that were not done.
    pub retry_at: Option<OffsetDateTime>,
}

/// Whether a run still is under its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobLease {
    /// It is.
    Kept,
    /// The lease had passed and somebody else took the run, or it has ended.
    Lost,
}

/// What is known of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// Which job.
    pub job: JobName,
    /// The start of the period that was taken last.
    pub period: OffsetDateTime,
    /// Who has the run that is under way, and until when.
    pub lease: Option<(Lease, OffsetDateTime)>,
    /// When the last run is made up for, when it was not done.
    pub retry_at: Option<OffsetDateTime>,
    /// When the last run began.
    pub started_at: OffsetDateTime,
    /// When a run last ended.
    pub ended_at: Option<OffsetDateTime>,
    /// How the last run that is over ended.
    pub outcome: Option<JobOutcome>,
    /// How many runs began since one was done.
    pub attempts: u32,
    /// How many runs ever began.
    pub runs: u64,
    /// How many of them were not done.
    pub failures: u64,
}

impl JobRecord {
    /// What becomes of a row when somebody asks for the run, and the answer.
    ///
    /// A job that never ran is due. A run that was not ended is due when its lease has passed; one that was not done, at
    /// its [`retry_at`](Self::retry_at); and every job when a period begins that is later than the one that was taken.
    ///
    /// A clock that is set back makes nothing due: a period that was taken stays taken. Only when it was taken more than
    /// a period ahead, the clock was wrong then, and the current period counts as taken instead, so that the next run
    /// comes within two periods. A lease is never believed for longer than new ones are given, and a retry that was put
    /// off by a clock that was ahead is due at once.
    pub fn begun(before: Option<Self>, command: &BeginJob) -> (Self, JobBegun) {
        let &BeginJob { now, ref job, demand, period, lease, lease_until } = command;
        let mut record = before.unwrap_or_else(|| Self::new(job.clone(), now));
        if record.period > period.next {
            record.period = period.start;
        }
        match record.lease {
            Some((held, _)) if held == lease => {
                let attempt = record.attempts;
                return (record, JobBegun::Begun { attempt });
            }
            Some((held, until)) if until > now => {
                let until = until.min(lease_until);
                record.lease = Some((held, until));
                return (record, JobBegun::Held { until });
            }
            Some(_) => {
                record.outcome = Some(JobOutcome::Lost);
                record.failures = record.failures.saturating_add(1);
            }
            None => {
                let retry = record
                    .retry_at
                    .filter(|at| *at > now && record.ended_at.is_none_or(|ended_at| ended_at <= now));
                let is_over = record.retry_at.is_some() && retry.is_none();
                if demand == JobDemand::WhenDue && record.period >= period.start && !is_over {
                    let until = retry.map_or(period.next, |at| at.min(period.next));
                    return (record, JobBegun::NotDue { until });
                }
            }
        }
        record.period = record.period.max(period.start);
        record.lease = Some((lease, lease_until));
        record.retry_at = None;
        record.started_at = now;
        record.attempts = record.attempts.saturating_add(1);
        record.runs = record.runs.saturating_add(1);
        let attempt = record.attempts;
        (record, JobBegun::Begun { attempt })
    }

    /// What becomes of a row when somebody holds on to the run.
    pub fn renewed(&mut self, command: &RenewJob) -> JobLease {
        let RenewJob { job: _, lease, lease_until } = command;
        match &mut self.lease {
            Some((held, until)) if held == lease => {
                *until = *lease_until;
                JobLease::Kept
            }
            _ => JobLease::Lost,
        }
    }

    /// What becomes of a row when a run ends.
    pub fn ended(&mut self, command: &EndJob) -> JobLease {
        let &EndJob { now, job: _, lease, outcome, retry_at } = command;
        if self.lease.is_none_or(|(held, _)| held != lease) {
            return JobLease::Lost;
        }
        self.lease = None;
        self.ended_at = Some(now);
        self.outcome = Some(outcome);
        self.retry_at = retry_at;
        if outcome == JobOutcome::Done {
            self.attempts = 0;
        } else {
            self.failures = self.failures.saturating_add(1);
        }
        JobLease::Kept
    }

    /// Of a job that never ran.
    const fn new(job: JobName, now: OffsetDateTime) -> Self {
        Self {
            job,
            period: OffsetDateTime::UNIX_EPOCH,
            lease: None,
            retry_at: None,
            started_at: now,
            ended_at: None,
            outcome: None,
            attempts: 0,
            runs: 0,
            failures: 0,
        }
    }
}
