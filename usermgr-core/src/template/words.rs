//! Durations in words.

use time::Duration;

/// A unit: its seconds, and its names for one and for many.
struct Unit {
    seconds: u64,
    english: (&'static str, &'static str),
    spanish: (&'static str, &'static str),
}

const UNITS: [Unit; 4] = [
    Unit { seconds: 86_400, english: ("day", "days"), spanish: ("día", "días") },
    Unit { seconds: 3_600, english: ("hour", "hours"), spanish: ("hora", "horas") },
    Unit { seconds: 60, english: ("minute", "minutes"), spanish: ("minuto", "minutos") },
    Unit { seconds: 1, english: ("second", "seconds"), spanish: ("segundo", "segundos") },
];

/// The duration in the largest unit of which it is two or more: "60 seconds", "10 minutes", "24 hours". What the unit
/// cannot say exactly is rounded down, so that nobody is promised more time than there is; below ten of a unit the
/// next smaller one says it. A language other than Spanish gets English.
pub(super) fn in_words(duration: Duration, language: &str) -> String {
    let seconds = whole_seconds(duration);
    let fits = |unit: &&Unit| {
        let count = seconds / unit.seconds;
        count >= 10 || (count >= 2 && seconds.is_multiple_of(unit.seconds))
    };
    let [.., second] = &UNITS;
    let unit = UNITS.iter().find(fits).unwrap_or(second);
    let count = seconds / unit.seconds;
    let (one, many) = if language == "es" { unit.spanish } else { unit.english };
    format!("{count} {}", if count == 1 { one } else { many })
}

/// The duration in whole seconds, at least one.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    u64::try_from(duration.whole_seconds()).unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_as_people_say_them() {
        for (seconds, english, spanish) in [
            (-5, "1 second", "1 segundo"),
            (0, "1 second", "1 segundo"),
            (1, "1 second", "1 segundo"),
            (2, "2 seconds", "2 segundos"),
            (60, "60 seconds", "60 segundos"),
            (90, "90 seconds", "90 segundos"),
            (120, "2 minutes", "2 minutos"),
            (150, "150 seconds", "150 segundos"),
            (600, "10 minutes", "10 minutos"),
            (659, "10 minutes", "10 minutos"),
            (1800, "30 minutes", "30 minutos"),
            (3600, "60 minutes", "60 minutos"),
            (5400, "90 minutes", "90 minutos"),
            (7200, "2 hours", "2 horas"),
            (86_400, "24 hours", "24 horas"),
            (172_800, "2 days", "2 días"),
            (604_800, "7 days", "7 días"),
        ] {
            assert_eq!(in_words(Duration::seconds(seconds), "en"), english);
            assert_eq!(in_words(Duration::seconds(seconds), "es"), spanish);
        }
    }
}
