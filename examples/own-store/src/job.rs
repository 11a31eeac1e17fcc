//! Who has the run of a job. What becomes of a row, the port says.

use async_trait::async_trait;
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::job::{BeginJob, EndJob, JobBegun, JobLease, JobRecord, JobStore, RenewJob};

use crate::FileStore;
use crate::rows::JobRow;

#[async_trait]
impl JobStore for FileStore {
    async fn begin_job(&self, command: BeginJob) -> Result<JobBegun, StoreError> {
        self.run(move |tx| {
            let before = tx.get::<JobRow>(&command.job)?.map(JobRecord::from);
            let (record, begun) = JobRecord::begun(before, &command);
            tx.put(&command.job, &JobRow::from(record))?;
            Ok(begun)
        })
        .await
    }

    async fn renew_job(&self, command: RenewJob) -> Result<JobLease, StoreError> {
        self.run(move |tx| {
            let Some(row) = tx.get::<JobRow>(&command.job)? else { return Ok(JobLease::Lost) };
            let mut record = JobRecord::from(row);
            let lease = record.renewed(&command);
            tx.put(&command.job, &JobRow::from(record))?;
            Ok(lease)
        })
        .await
    }

    async fn end_job(&self, command: EndJob) -> Result<JobLease, StoreError> {
        self.run(move |tx| {
            let Some(row) = tx.get::<JobRow>(&command.job)? else { return Ok(JobLease::Lost) };
            let mut record = JobRecord::from(row);
            let lease = record.ended(&command);
            tx.put(&command.job, &JobRow::from(record))?;
            Ok(lease)
        })
        .await
    }

    async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError> {
        self.run(|tx| Ok(tx.rows::<JobRow>()?.into_iter().map(|(_, row)| row.into()).collect())).await
    }
}
