//! What works in the background: delivering what the outbox owes, and removing what is over.
//!
//! Any number of processes may run both on one store: a delivery is leased to one of them at a time, and every
//! removal may be repeated.

mod caught;
mod handle;
mod mail;
mod upkeep;

pub use handle::{Stop, Stopper, Workers};
pub use mail::{Delivered, MailWorker, MailWorkerParts, backoff};
pub use upkeep::Upkeep;
