//! What an operator sees of a running process: a log line for each thing that happened, and metrics.
//!
//! The core counts nothing. What happened is told by the store's answers ([`store`]), because a command that was
//! answered is committed; how things stand is asked when somebody looks ([`scrape`]). No label names a person, an
//! address or anything else that a client chooses.

mod listener;
mod metrics;
mod requests;
mod scrape;
#[cfg(feature = "otlp")]
mod spans;
mod store;

pub(crate) use listener::serve;
pub(crate) use metrics::{ConnectionMetrics, Metrics};
pub(crate) use requests::Counted;
pub(crate) use scrape::{Pools, Watched};
#[cfg(feature = "otlp")]
pub(crate) use spans::{Spans, parent};
pub(crate) use store::ObservedStore;
