//! Who has the run of a job.

use async_trait::async_trait;
use usermgr_core::domain::job::{JobName, JobOutcome};
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::job::{BeginJob, EndJob, JobBegun, JobLease, JobRecord, JobStore, RenewJob};
use usermgr_core::port::store::outbox::Lease;

use super::rows::corrupt;
use super::{Store, Ts, Tx, fault, from_ts, reread, transact, ts};

/// The columns of a job, in no particular order: [`JobRow`] takes them by name.
macro_rules! job_columns {
    () => {
        "SELECT name, period, lease, lease_until, retry_at, started_at, ended_at, outcome, attempts, runs, failures \
         FROM usermgr_jobs"
    };
}

#[async_trait]
impl JobStore for Store {
    async fn begin_job(&self, command: BeginJob) -> Result<JobBegun, StoreError> {
        self.outside_only()?;
        transact!(self.begin_job_once(command))
    }

    async fn renew_job(&self, command: RenewJob) -> Result<JobLease, StoreError> {
        self.outside_only()?;
        transact!(self.renew_job_once(command))
    }

    async fn end_job(&self, command: EndJob) -> Result<JobLease, StoreError> {
        self.outside_only()?;
        transact!(self.end_job_once(command))
    }

    async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError> {
        reread!(self.jobs_once())
    }
}

impl Store {
    async fn jobs_once(&self) -> Result<Vec<JobRecord>, StoreError> {
        let rows: Vec<JobRow> =
            sqlx::query_as(job_columns!()).fetch_all(&mut *self.reader().await?).await.map_err(fault)?;
        let mut records = rows.into_iter().map(JobRow::record).collect::<Result<Vec<_>, _>>()?;
        // Here and not in the statement, whose order is the database's.
        records.sort_by(|a, b| a.job.cmp(&b.job));
        Ok(records)
    }

    async fn begin_job_once(&self, command: BeginJob) -> Result<JobBegun, StoreError> {
        let mut tx = self.begin().await?;
        let before = lock_job(&mut tx, &command.job).await?;
        // Of two who find no row, the second insertion is in the way of the first, and the command is run again.
        let statement = if before.is_some() { UPDATE } else { INSERT };
        let (record, begun) = JobRecord::begun(before.clone(), &command);
        if before.as_ref() != Some(&record) {
            write(&mut tx, statement, record).await?;
        }
        tx.commit().await.map_err(fault)?;
        Ok(begun)
    }

    async fn renew_job_once(&self, command: RenewJob) -> Result<JobLease, StoreError> {
        let mut tx = self.begin().await?;
        let Some(mut record) = lock_job(&mut tx, &command.job).await? else { return Ok(JobLease::Lost) };
        let lease = record.renewed(&command);
        write(&mut tx, UPDATE, record).await?;
        tx.commit().await.map_err(fault)?;
        Ok(lease)
    }

    async fn end_job_once(&self, command: EndJob) -> Result<JobLease, StoreError> {
        let mut tx = self.begin().await?;
        let Some(mut record) = lock_job(&mut tx, &command.job).await? else { return Ok(JobLease::Lost) };
        let lease = record.ended(&command);
        write(&mut tx, UPDATE, record).await?;
        tx.commit().await.map_err(fault)?;
        Ok(lease)
    }
}

/// Reads a job's row, if there is one, and keeps others from it until the transaction ends.
async fn lock_job(tx: &mut Tx, job: &JobName) -> Result<Option<JobRecord>, StoreError> {
    let row: Option<JobRow> = sqlx::query_as(concat!(job_columns!(), locking!(" WHERE name = $1")))
        .bind(job.as_str())
        .fetch_optional(&mut **tx)
        .await
        .map_err(fault)?;
    row.map(JobRow::record).transpose()
}

const INSERT: &str = "INSERT INTO usermgr_jobs (name, period, lease, lease_until, retry_at, started_at, ended_at, \
     outcome, attempts, runs, failures) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
const UPDATE: &str = "UPDATE usermgr_jobs SET period = $2, lease = $3, lease_until = $4, retry_at = $5, \
     started_at = $6, ended_at = $7, outcome = $8, attempts = $9, runs = $10, failures = $11 WHERE name = $1";

async fn write(tx: &mut Tx, statement: &'static str, record: JobRecord) -> Result<(), StoreError> {
    let JobRecord { job, period, lease, retry_at, started_at, ended_at, outcome, attempts, runs, failures } =
        record;
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    sqlx::query(statement)
        .bind(job.as_str())
        .bind(ts(period))
        .bind(lease.map(|(lease, _)| lease.0.to_vec()))
        .bind(lease.map(|(_, until)| ts(until)))
        .bind(retry_at.map(ts))
        .bind(ts(started_at))
        .bind(ended_at.map(ts))
        .bind(outcome.map(JobOutcome::as_str))
        .bind(i64::from(attempts))
        .bind(count(runs))
        .bind(count(failures))
        .execute(&mut **tx)
        .await
        .map_err(fault)?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct JobRow {
    name: String,
    period: Ts,
    lease: Option<Vec<u8>>,
    lease_until: Option<Ts>,
    retry_at: Option<Ts>,
    started_at: Ts,
    ended_at: Option<Ts>,
    outcome: Option<String>,
    attempts: i64,
    runs: i64,
    failures: i64,
}

impl JobRow {
    fn record(self) -> Result<JobRecord, StoreError> {
        let wrong = |column| corrupt("usermgr_jobs", column, &self.name);
        let lease = match (self.lease.as_deref(), self.lease_until) {
            (None, None) => None,
            (Some(lease), Some(until)) => {
                Some((Lease(lease.try_into().map_err(|_| wrong("lease"))?), from_ts(until)))
            }
            _ => return Err(wrong("lease_until")),
        };
        let outcome = self.outcome.as_deref();
        let outcome = outcome.map(|name| JobOutcome::from_name(name).ok_or_else(|| wrong("outcome")));
        Ok(JobRecord {
            job: self.name.parse().map_err(|_| wrong("name"))?,
            period: from_ts(self.period),
            lease,
            retry_at: self.retry_at.map(from_ts),
            started_at: from_ts(self.started_at),
            ended_at: self.ended_at.map(from_ts),
            outcome: outcome.transpose()?,
            attempts: u32::try_from(self.attempts).map_err(|_| wrong("attempts"))?,
            runs: u64::try_from(self.runs).map_err(|_| wrong("runs"))?,
            failures: u64::try_from(self.failures).map_err(|_| wrong("failures"))?,
        })
    }
}
