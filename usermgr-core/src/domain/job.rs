//! Jobs that come back: what they are called, when they run, and how a run ended.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use time::{Duration, OffsetDateTime, Time, UtcOffset};

/// Names a job, in logs and in the store: 1 to 64 of `a-z`, `0-9`, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobName(Cow<'static, str>);

/// A text that is no name of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a name of a job: it takes 1 to 64 of a-z, 0-9, '-' and '_'")]
pub struct InvalidJobName;

impl JobName {
    /// The most characters of a name.
    pub const MAX: usize = 64;

    /// A name of our own, which is known to be one.
    pub(crate) const fn built_in(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobName {
    type Err = InvalidJobName;

    fn from_str(text: &str) -> Result<Self, InvalidJobName> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        let fits = (1..=Self::MAX).contains(&text.len()) && text.bytes().all(plain);
        if fits { Ok(Self(Cow::Owned(text.to_owned()))) } else { Err(InvalidJobName) }
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// When a job runs: once in each period. Times are UTC, which has no daylight saving: every day has 24 hours and each
/// time of day once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a store keeps each by its name")]
pub enum Schedule {
    /// Periods of this length, in whole seconds and at least one, counted from 1970-01-01 00:00: every hour begins on
    /// the hour, on all instances together.
    Every(Duration),
    /// From this time of day, in UTC, to the same time of the next day.
    DailyAt(Time),
}

/// A stretch of time in which a job runs once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// When it begins.
    pub start: OffsetDateTime,
    /// When the next one begins.
    pub next: OffsetDateTime,
}

impl Schedule {
    /// The period that a time is in.
    pub fn period(&self, now: OffsetDateTime) -> Period {
        let now = now.checked_to_offset(UtcOffset::UTC).unwrap_or(now);
        let (start, length) = match self {
            Self::Every(interval) => {
                let seconds = interval.whole_seconds().max(1);
                let start = now.unix_timestamp().div_euclid(seconds).saturating_mul(seconds);
                (OffsetDateTime::from_unix_timestamp(start).unwrap_or(now), Duration::seconds(seconds))
            }
            Self::DailyAt(time) => {
                // Whole seconds: a store keeps no more than microseconds, and a period must be what it was.
                let today = now.replace_time(time.replace_nanosecond(0).unwrap_or(*time));
                let start = if today > now { today.saturating_sub(Duration::DAY) } else { today };
                (start, Duration::DAY)
            }
        };
        Period { start, next: start.saturating_add(length) }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(interval) => {
                let seconds = interval.whole_seconds().max(1);
                let units = [(86_400, "d"), (3600, "h"), (60, "m")];
                let (length, unit) =
                    units.into_iter().find(|(length, _)| seconds % length == 0).unwrap_or((1, "s"));
                write!(f, "every {}{unit}", seconds / length)
            }
            Self::DailyAt(time) => write!(f, "daily at {:02}:{:02} UTC", time.hour(), time.minute()),
        }
    }
}

/// On how many of the instances that share a store a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a store keeps each by its name")]
pub enum JobScope {
    /// On one of them in each period.
    OncePerPeriod,
    /// On each of them: for what is local to an instance.
    OnEveryInstance,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a store keeps each by its name")]
pub enum JobOutcome {
    /// It did what it should.
    Done,
    /// It ended with an error.
    Failed,
    /// It panicked.
    Panicked,
    /// It did not get to its end because its process stopped.
    Stopped,
    /// Its lease passed without a word: its process died or lost the store.
    Lost,
}

impl JobOutcome {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Done, Self::Failed, Self::Panicked, Self::Stopped, Self::Lost];

    /// The outcome's stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::Stopped => "stopped",
            Self::Lost => "lost",
        }
    }

    /// The outcome of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::{datetime, time};

    use super::*;

    #[test]
    fn a_day_begins_at_its_time_of_day_in_utc() {
        let daily = Schedule::DailyAt(time!(03:30));
        let second = daily.period(datetime!(2026-01-02 03:30 UTC));
        assert_eq!(second.start, datetime!(2026-01-02 03:30 UTC));
        assert_eq!(second.next, datetime!(2026-01-03 03:30 UTC));
        assert_eq!(daily.period(datetime!(2026-01-03 03:29:59.999999 UTC)), second);
        assert_eq!(daily.period(second.next).start, second.next);
        assert_eq!(daily.period(datetime!(2026-01-02 01:00 -5)).start, second.start, "it is 06:00 in UTC");
    }

    #[test]
    fn no_day_is_longer_where_clocks_on_the_wall_change() {
        let daily = Schedule::DailyAt(time!(02:30));
        let mut period = daily.period(datetime!(2026-03-01 00:00 UTC));
        for _ in 0..300 {
            let next = daily.period(period.next);
            assert_eq!(next.start - period.start, Duration::DAY);
            period = next;
        }
    }

    #[test]
    fn an_interval_is_counted_from_1970_whoever_counts() {
        let hourly = Schedule::Every(Duration::HOUR);
        let period = hourly.period(datetime!(2026-01-02 03:59:59.999 UTC));
        assert_eq!(period.start, datetime!(2026-01-02 03:00 UTC));
        assert_eq!(hourly.period(datetime!(2026-01-02 03:00 UTC)), period);
        assert_eq!(hourly.period(datetime!(2026-01-02 04:00 UTC)).start, period.next);
        assert_eq!(hourly.period(datetime!(1969-12-31 23:30 UTC)).next, OffsetDateTime::UNIX_EPOCH);
        for interval in [Duration::ZERO, Duration::seconds(-5), Duration::milliseconds(1)] {
            let period = Schedule::Every(interval).period(datetime!(2026-01-02 03:00:00.5 UTC));
            assert_eq!(period.next - period.start, Duration::SECOND);
        }
    }

    #[test]
    fn the_ends_of_time_are_no_panic() {
        for now in [datetime!(-9999-01-01 00:00 UTC), datetime!(9999-12-31 23:59:59 UTC)] {
            for schedule in [
                Schedule::Every(Duration::MAX),
                Schedule::Every(Duration::HOUR),
                Schedule::DailyAt(time!(12:00)),
            ] {
                let period = schedule.period(now);
                assert!(period.start <= period.next);
            }
        }
    }

    #[test]
    fn names_are_plain_and_schedules_readable() {
        assert_eq!("old-pictures_2".parse::<JobName>().unwrap().as_str(), "old-pictures_2");
        for wrong in ["", "Old", "old pictures", "ö", &"x".repeat(65)] {
            assert_eq!(wrong.parse::<JobName>(), Err(InvalidJobName), "{wrong:?}");
        }
        let texts = [
            Schedule::Every(Duration::hours(36)),
            Schedule::Every(Duration::days(2)),
            Schedule::Every(Duration::seconds(90)),
            Schedule::DailyAt(time!(00:05)),
        ]
        .map(|schedule| schedule.to_string());
        assert_eq!(texts, ["every 36h", "every 2d", "every 90s", "daily at 00:05 UTC"]);
    }
}
