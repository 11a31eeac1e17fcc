//! How long to wait before something is tried again.

use time::Duration;

use crate::port::random::{Random, fraction};

/// The wait after the first attempt to deliver something.
const FIRST: Duration = Duration::seconds(5);
/// The longest wait between two attempts, before jitter.
const LONGEST: Duration = Duration::hours(4);
/// How far jitter takes a wait from its length, as a part of it.
const JITTER: f64 = 0.2;

/// How long a mail waits after its attempt number `attempt` failed: 5 seconds after the first, then twice
/// as long each time up to 4 hours, and each wait up to a fifth shorter or longer by chance, so that what failed
/// together does not come back together.
pub fn backoff(attempt: u32, random: &dyn Random) -> Duration {
    jittered(doubled(FIRST, LONGEST, attempt), random)
}

/// `first` doubled for each attempt after the first, up to `longest`.
pub(super) fn doubled(first: Duration, longest: Duration, attempt: u32) -> Duration {
    // Past 2^20 every wait here is at its longest.
    let factor = 1_i32 << attempt.saturating_sub(1).min(20);
    first.checked_mul(factor).map_or(longest, |wait| wait.min(longest))
}

/// The duration, up to a fifth shorter or longer by chance.
pub(super) fn jittered(duration: Duration, random: &dyn Random) -> Duration {
    duration * JITTER.mul_add(fraction(random).mul_add(2.0, -1.0), 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::random::SystemRandom;

    #[derive(Debug)]
    struct Constant(u8);

    impl Random for Constant {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn a_wait_doubles_up_to_four_hours() {
        let bare = |attempt| doubled(FIRST, LONGEST, attempt).whole_seconds();
        assert_eq!([1, 2, 3, 4, 11].map(bare), [5, 10, 20, 40, 5120]);
        assert_eq!([13, 14, 32, 33, 1000, u32::MAX].map(bare), [14_400; 6]);
        assert_eq!(bare(0), 5);
    }

    #[test]
    fn jitter_is_a_fifth_at_most_and_reaches_both_ends() {
        assert_eq!(backoff(1, &Constant(0x00)), Duration::seconds(4));
        assert_eq!(backoff(1, &Constant(0xff)), Duration::seconds(6));
        assert_eq!(backoff(u32::MAX, &Constant(0xff)), Duration::minutes(288));
        let waits: Vec<Duration> = (0..200).map(|_| backoff(3, &SystemRandom)).collect();
        assert!(waits.iter().all(|wait| (Duration::seconds(16)..=Duration::seconds(24)).contains(wait)));
        assert!(waits.iter().min() < waits.iter().max());
    }
}
