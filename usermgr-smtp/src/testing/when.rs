//! When a planned fault shows.

use std::ops::Range;

/// When a planned fault shows: always, unless it is narrowed. What narrows it must all be so.
///
/// ```
/// use usermgr_smtp::testing::When;
///
/// let twice_to_one_domain = When::always().receiver("@slow.example").times(2);
/// let the_first_three = When::always().among(1..4);
/// # let _ = (twice_to_one_domain, the_first_three);
/// ```
#[derive(Debug, Clone)]
pub struct When {
    receiver: Option<String>,
    among: Option<Range<usize>>,
    times: Option<usize>,
}

impl When {
    /// Always.
    pub const fn always() -> Self {
        Self { receiver: None, among: None, times: None }
    }

    /// Only for mail to this address, or to anybody at `@domain`.
    #[must_use]
    pub fn receiver(mut self, address_or_domain: &str) -> Self {
        self.receiver = Some(address_or_domain.to_owned());
        self
    }

    /// Only on connections (of SMTP) or requests (of HTTP) of these numbers; the first is 1.
    #[must_use]
    pub const fn among(mut self, numbers: Range<usize>) -> Self {
        self.among = Some(numbers);
        self
    }

    /// Only so often.
    #[must_use]
    pub const fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    /// Whether the fault shows now; it is counted then.
    pub(super) fn shows(&mut self, receivers: &[String], number: usize) -> bool {
        let to = self.receiver.as_deref();
        let meant = |receiver: &String| {
            to.is_none_or(|to| receiver == to || (to.starts_with('@') && receiver.ends_with(to)))
        };
        let shows = (to.is_none() || receivers.iter().any(meant))
            && self.among.as_ref().is_none_or(|among| among.contains(&number))
            && self.times != Some(0);
        if shows {
            self.times = self.times.map(|times| times - 1);
        }
        shows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_shows_when_it_is_told_to() {
        let to = |receiver: &str| vec![receiver.to_owned()];
        assert!(When::always().shows(&[], 1));
        let mut domain = When::always().receiver("@slow.example").times(2);
        assert!(!domain.shows(&[], 1) && !domain.shows(&to("ana@not.slow.example"), 1));
        assert!(domain.shows(&to("ana@slow.example"), 1) && domain.shows(&to("bob@slow.example"), 9));
        assert!(!domain.shows(&to("ana@slow.example"), 1), "twice is twice");
        let mut one = When::always().receiver("ana@slow.example").among(2..4);
        assert!(!one.shows(&to("ana@slow.example"), 1) && !one.shows(&to("ana@slow.example"), 4));
        assert!(one.shows(&to("ana@slow.example"), 3) && !one.shows(&to("bob@slow.example"), 3));
    }
}
