//! Moments that are compared with what a database noted.

use std::time::SystemTime;

/// A moment, in microseconds since 1970, by the clock that the database reads too.
pub(crate) type Moment = i64;

#[expect(clippy::disallowed_methods, reason = "compared with the database's clock, on the same machine")]
pub(crate) fn now() -> Moment {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
