//! What works in the background: delivering what the outbox owes, and running jobs when their time has come, the removal
//! of what is over among them.
//!
//! Any number of processes may do both on one store: a delivery, and the run of a job, is leased to one of them at a time.

mod backoff;
mod caught;
mod delivery;
mod handle;
mod job;
mod mail;
mod schedule;
mod upkeep;

#[cfg(test)]
mod tests;

pub use backoff::backoff;
pub use handle::{Stop, Stopper, Workers};
pub use job::{Job, JobEnd, JobResult, JobRun, JobStatus, NextRun};
pub use mail::{Delivered, MailWorker, MailWorkerParts};
pub use schedule::Scheduler;
pub use upkeep::Upkeep;
