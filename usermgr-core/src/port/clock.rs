//! Time.

use time::OffsetDateTime;

/// Tells the time. The core asks nobody else.
///
/// ```
/// use time::{Duration, OffsetDateTime};
/// use usermgr_core::port::clock::{Clock, SystemClock};
///
/// /// The time as the database has it.
/// #[derive(Debug)]
/// struct DatabaseTime {
///     ahead: Duration,
/// }
///
/// impl Clock for DatabaseTime {
///     fn now(&self) -> OffsetDateTime {
///         SystemClock.now() + self.ahead
///     }
/// }
/// ```
#[cfg_attr(feature = "testing", mockall::automock)]
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The time now, in UTC.
    fn now(&self) -> OffsetDateTime;
}

/// The time of the operating system, to the microsecond: as exact as every store keeps it.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "it holds nothing")]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the port's one real clock")]
    fn now(&self) -> OffsetDateTime {
        let now = OffsetDateTime::now_utc();
        now.replace_microsecond(now.microsecond()).unwrap_or(now)
    }
}
