//! What works in the background: delivering mails, telling of events, and running jobs when their time has come, the removal
//! of what is over among them.
//!
//! Any number of processes may do so on one store: a delivery, and the run of a job, is leased to one of them at a time.

mod backoff;
mod caught;
mod delivery;
mod event;
mod flights;
mod handle;
mod job;
mod keeper;
mod lane;
mod mail;
mod schedule;
mod settler;
mod upkeep;

#[cfg(test)]
mod tests;

pub use backoff::backoff;
pub use event::{EventWorker, EventWorkerParts};
pub use handle::{Stop, Stopper, Workers};
pub use job::{Job, JobEnd, JobResult, JobRun, JobStatus, NextRun};
pub use lane::Delivered;
pub use mail::{MailWorker, MailWorkerParts};
pub use schedule::Scheduler;
pub use upkeep::Upkeep;
