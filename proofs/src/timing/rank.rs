//! Plain arithmetic over two sets of times: how well one measurement tells which set it comes from.

use std::time::Duration;

/// The area under the curve of Mann and Whitney: how often a time of `other` is longer than one of `base`, where equal
/// times count half. 0.5 tells nothing; 0 and 1 tell everything. Without times on either side it is 0.5.
pub(super) fn auc(base: &[Duration], other: &[Duration]) -> f64 {
    if base.is_empty() || other.is_empty() {
        return 0.5;
    }
    let mut sorted = base.to_vec();
    sorted.sort_unstable();
    // Twice the count of pairs, so that half a pair is a whole number.
    let twice: usize = other
        .iter()
        .map(|time| sorted.partition_point(|one| one < time) + sorted.partition_point(|one| one <= time))
        .sum();
    number(twice) / (2.0 * number(base.len()) * number(other.len()))
}

/// The time in the middle; zero when there is none.
pub(super) fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "counts of pairs are far below 2^52")]
const fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    /// Two sets of times for each round. Few different values, so that many are equal.
    fn for_all(law: impl Fn(&[Duration], &[Duration])) {
        for round in 0..500 {
            let mut chance = Chance::new(7, &[round]);
            let mut times = || -> Vec<_> {
                let count = chance.within(1, 60);
                (0..count).map(|_| Duration::from_micros(chance.within(0, 39) as u64)).collect()
            };
            let (base, other) = (times(), times());
            law(&base, &other);
        }
    }

    fn close(one: f64, other: f64) {
        assert!((one - other).abs() < 1e-9, "{one} and {other}");
    }

    #[test]
    fn auc_is_the_share_of_pairs_that_are_longer() {
        for_all(|base, other| {
            let mut halves = 0;
            for one in base {
                for two in other {
                    halves += usize::from(two > one) + usize::from(two >= one);
                }
            }
            close(auc(base, other), number(halves) / (2.0 * number(base.len()) * number(other.len())));
        });
    }

    #[test]
    fn auc_of_the_sides_exchanged_is_the_rest() {
        for_all(|base, other| close(auc(base, other) + auc(other, base), 1.0));
    }

    #[test]
    fn auc_of_a_set_with_itself_is_one_half() {
        for_all(|base, _| close(auc(base, base), 0.5));
    }

    #[test]
    fn auc_depends_on_the_order_of_times_only() {
        let stretch = |times: &[Duration]| -> Vec<_> {
            times.iter().map(|time| *time * 7 + Duration::from_millis(3)).collect()
        };
        for_all(|base, other| close(auc(base, other), auc(&stretch(base), &stretch(other))));
    }

    #[test]
    fn auc_of_sets_that_do_not_meet_is_one_or_zero() {
        for_all(|base, other| {
            let later: Vec<_> = other.iter().map(|time| *time + Duration::from_micros(40)).collect();
            close(auc(base, &later), 1.0);
            close(auc(&later, base), 0.0);
        });
    }

    #[test]
    fn median_is_the_time_in_the_middle() {
        let times = [5, 1, 9].map(Duration::from_micros);
        assert_eq!(median(&times), Duration::from_micros(5));
        assert_eq!(median(&[]), Duration::ZERO);
    }
}
