//! What works in the background: delivering mails, telling of events, and removing what is over.
//!
//! Any number of processes may run both on one store: a delivery is leased to one of them at a time, and every
//! removal may be repeated.

mod backoff;
mod caught;
mod delivery;
mod event;
mod handle;
mod lane;
mod mail;
mod upkeep;

#[cfg(test)]
mod tests;

pub use backoff::backoff;
pub use event::{EventWorker, EventWorkerParts};
pub use handle::{Stop, Stopper, Workers};
pub use lane::Delivered;
pub use mail::{MailWorker, MailWorkerParts};
pub use upkeep::Upkeep;
