//! Real mail servers on loopback, for tests: they record what they get and fail on command.

mod http_sink;
mod port;
mod received;
mod smtp_sink;
mod when;

pub use http_sink::{HttpAnswer, HttpSink, ReceivedRequest};
pub use received::ReceivedMail;
pub use smtp_sink::{SmtpFault, SmtpSink, SmtpSinkBuilder, SmtpStream, TlsUpgrade};
pub use when::When;

/// Fewer mails or requests came than were waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{got} came in time, {wanted} were waited for")]
#[non_exhaustive]
pub struct TooFew {
    /// How many there were.
    pub got: usize,
    /// How many were waited for.
    pub wanted: usize,
}
