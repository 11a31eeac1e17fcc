//! Who has the run of a job.

use async_trait::async_trait;

use super::MemoryStore;
use crate::port::store::StoreError;
use crate::port::store::job::{BeginJob, EndJob, JobBegun, JobLease, JobRecord, JobStore, RenewJob};

#[async_trait]
impl JobStore for MemoryStore {
    async fn begin_job(&self, command: BeginJob) -> Result<JobBegun, StoreError> {
        let mut state = self.state()?;
        let (record, begun) = JobRecord::begun(state.jobs.remove(&command.job), &command);
        state.jobs.insert(command.job, record);
        Ok(begun)
    }

    async fn renew_job(&self, command: RenewJob) -> Result<JobLease, StoreError> {
        let mut state = self.state()?;
        Ok(state.jobs.get_mut(&command.job).map_or(JobLease::Lost, |record| record.renewed(&command)))
    }

    async fn end_job(&self, command: EndJob) -> Result<JobLease, StoreError> {
        let mut state = self.state()?;
        Ok(state.jobs.get_mut(&command.job).map_or(JobLease::Lost, |record| record.ended(&command)))
    }

    async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError> {
        Ok(self.state()?.jobs.values().cloned().collect())
    }
}
