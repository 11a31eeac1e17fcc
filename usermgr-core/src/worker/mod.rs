//! What works in the background: delivering what the outbox owes, and removing what is over.
//!
//! Any number of processes may run both on one store: a delivery is leased to one of them at a time, and every
//! removal may be repeated.

mod backoff;
mod caught;
mod delivery;
mod flights;
mod handle;
mod mail;
mod upkeep;

#[cfg(test)]
mod tests;

pub use backoff::backoff;
pub use handle::{Stop, Stopper, Workers};
pub use mail::{Delivered, MailWorker, MailWorkerParts};
pub use upkeep::Upkeep;
