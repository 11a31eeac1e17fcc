//! The rules: each round's recorded calls are judged by what its race allows.

use crate::client::Call;

/// What a rule says of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// One of those that only so many may have.
    Win,
    /// Refused, as the race allows.
    Refused,
    /// Granted, and no win.
    Fine,
    /// What the race never allows.
    Wrong,
}

/// A round and what is to be said of it.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) history: Vec<Call>,
    pub(crate) winners: usize,
    /// Wins beyond those allowed.
    pub(crate) doubles: usize,
    pub(crate) refused: usize,
    pub(crate) server_errors: usize,
    /// Whatever else broke the rule, in words.
    pub(crate) faults: Vec<String>,
}

impl Round {
    /// Judges each call alone.
    pub(crate) fn of(history: Vec<Call>, rule: impl Fn(&Call) -> Verdict) -> Self {
        let mut round = Self::default();
        for call in &history {
            if call.status >= 500 {
                round.server_errors += 1;
                continue;
            }
            match rule(call) {
                Verdict::Win => round.winners += 1,
                Verdict::Refused => round.refused += 1,
                Verdict::Fine => {}
                Verdict::Wrong => {
                    round.faults.push(format!("{}: unexpected {} {}", call.label, call.status, call.code));
                }
            }
        }
        round.history = history;
        round
    }

    /// One of the calls wins, no more and no fewer.
    pub(crate) fn one_wins(self) -> Self {
        self.wins(1)
    }

    /// As many win, no more and no fewer.
    pub(crate) fn wins(self, wanted: usize) -> Self {
        let round = self.at_most(wanted);
        let fewer = round.winners < wanted;
        let won = round.winners;
        round.must(!fewer, || format!("{won} won, not {wanted}"))
    }

    /// No more win than these.
    pub(crate) fn at_most(mut self, most: usize) -> Self {
        self.doubles += self.winners.saturating_sub(most);
        self.winners = self.winners.min(most);
        self
    }

    /// Something more that must hold.
    pub(crate) fn must(mut self, holds: bool, fault: impl FnOnce() -> String) -> Self {
        if !holds {
            self.faults.push(fault());
        }
        self
    }

    /// How many calls were answered so.
    pub(crate) fn count(&self, status: u16) -> usize {
        self.history.iter().filter(|call| call.status == status).count()
    }

    /// What was granted after it was taken away, and what was refused before. `taken` is the label of what takes it.
    pub(crate) fn ends_with(mut self, taken: &str, granted: u16) -> Self {
        let successes = || self.history.iter().filter(|call| call.label == taken && call.status / 100 == 2);
        let begins = successes().map(|call| call.start).min();
        let ends = successes().map(|call| call.end).min();
        let uses = || self.history.iter().filter(|call| call.label != taken);
        let late =
            uses().filter(|call| call.status == granted && ends.is_some_and(|at| call.start > at)).count();
        let early = uses()
            .filter(|call| call.status / 100 == 4 && begins.is_none_or(|at| call.end < at))
            .map(|call| format!("{}: refused before {taken}: {} {}", call.label, call.status, call.code))
            .collect::<Vec<_>>();
        self.doubles += late;
        self.faults.extend(early);
        self
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.doubles == 0 && self.server_errors == 0 && self.faults.is_empty()
    }
}

/// A rule of most races: this status wins, these refusals are allowed.
pub(crate) fn wins_by(status: u16, refusals: &[(u16, &str)]) -> impl Fn(&Call) -> Verdict {
    move |call| {
        if call.status == status {
            Verdict::Win
        } else if refusals.contains(&(call.status, call.code.as_str())) {
            Verdict::Refused
        } else {
            Verdict::Wrong
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn call(label: &str, start: u64, end: u64, status: u16, code: &str) -> Call {
        Call {
            label: label.into(),
            server: 0,
            start: Duration::from_millis(start),
            end: Duration::from_millis(end),
            status,
            code: code.into(),
            retry_after: None,
            body: serde_json::Value::Null,
        }
    }

    #[test]
    fn a_second_winner_none_and_a_strange_answer_are_seen() {
        let rule = || wins_by(200, &[(400, "invalid_code")]);
        let (won, lost) = (call("a", 0, 2, 200, ""), call("b", 0, 2, 400, "invalid_code"));
        assert!(Round::of(vec![won.clone(), lost.clone()], rule()).one_wins().is_clean());
        let double = Round::of(vec![won.clone(), won.clone()], rule()).one_wins();
        assert_eq!((double.winners, double.doubles), (1, 1));
        assert!(!Round::of(vec![lost.clone()], rule()).one_wins().is_clean());
        assert!(Round::of(vec![lost], rule()).at_most(1).is_clean());
        let odd = call("c", 0, 1, 500, "internal");
        assert_eq!(Round::of(vec![won.clone(), odd], rule()).one_wins().server_errors, 1);
        let odd = call("c", 0, 1, 0, "stuck: no answer in time");
        assert_eq!(Round::of(vec![won, odd], rule()).one_wins().faults.len(), 1);
    }

    #[test]
    fn what_is_granted_too_late_or_refused_too_early_is_seen() {
        let taken = call("demote", 10, 20, 200, "");
        let judged = |uses: &[Call]| {
            let history = [std::slice::from_ref(&taken), uses].concat();
            Round::of(history, |_| Verdict::Fine).ends_with("demote", 200)
        };
        assert!(judged(&[call("use", 15, 30, 200, ""), call("use", 5, 12, 403, "forbidden")]).is_clean());
        assert_eq!(judged(&[call("use", 21, 30, 200, "")]).doubles, 1);
        assert_eq!(judged(&[call("use", 1, 9, 403, "forbidden")]).faults.len(), 1);
    }
}
