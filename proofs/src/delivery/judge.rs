//! The rules of delivery, over the record of who claimed, who brought and who died.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::Over;
use super::arrivals::Arrival;
use crate::moment::Moment;

/// How long after a kill, in microseconds, the mails of the dead worker may take.
const TAKEN_OVER_WITHIN: Moment = 60_000_000;
/// How many broken rules are told at length.
const AT_LENGTH: usize = 20;

/// A mail as it stands in the outbox at the end.
#[derive(Debug, Clone)]
pub(super) struct Owed {
    pub(super) to: String,
    pub(super) status: String,
    pub(super) is_held: bool,
}

/// That somebody had a mail.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) by: usize,
    pub(super) claimed_at: Moment,
    pub(super) lease_until: Moment,
    /// Whether the lease of a dead worker was put back.
    pub(super) passed: bool,
    /// When its end was noted.
    pub(super) settled_at: Option<Moment>,
}

/// All that is known of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    pub(super) owed: HashMap<Uuid, Owed>,
    /// In the order they were made.
    pub(super) claims: HashMap<Uuid, Vec<Claim>>,
    /// In the order they came.
    pub(super) arrivals: HashMap<Uuid, Vec<Arrival>>,
    pub(super) deaths: HashMap<usize, Moment>,
}

/// What was counted, and what broke a rule.
#[derive(Debug, Clone, Default)]
pub(super) struct Judgement {
    /// Mails that arrived, each counted once.
    pub(super) arrived: usize,
    /// Arrivals beyond the first of a mail.
    pub(super) again: usize,
    /// Of these, what the other side cannot tell from another mail.
    pub(super) effects_doubled: usize,
    /// Arrivals with other bytes than the first of their mail.
    pub(super) differing: usize,
    /// Arrivals of, and claims on, what somebody else had.
    pub(super) not_alone: usize,
    /// The longest time, in microseconds, from the death of a worker to the arrival of a mail that it had, where its lease
    /// passed by itself.
    pub(super) longest: Moment,
    pub(super) faults: Vec<String>,
}

impl Judgement {
    fn fault(&mut self, fault: impl FnOnce() -> String) {
        if self.faults.len() < AT_LENGTH {
            self.faults.push(fault().chars().take(400).collect());
        }
    }
}

/// Judges a run.
pub(super) fn judge(over: Over, record: Record) -> Judgement {
    let Record { owed, claims, arrivals, deaths } = record;
    let mut judgement = Judgement::default();
    let nothing = Vec::new();
    for (id, mail) in &owed {
        let (came, claims) =
            (arrivals.get(id).unwrap_or(&nothing), claims.get(id).map_or(&[][..], Vec::as_slice));
        if mail.status != "sent" {
            judgement.fault(|| format!("lost: {} is {}", mail.to, mail.status));
        }
        if mail.is_held {
            judgement.fault(|| format!("the mail to {} is still claimed", mail.to));
        }
        if came.is_empty() {
            judgement.fault(|| format!("lost: the mail to {} never came", mail.to));
            continue;
        }
        judgement.arrived += 1;
        judge_arrivals(&mut judgement, over, mail, came, claims, &deaths);
        judge_claims(&mut judgement, mail, claims, &deaths);
        judge_takeover(&mut judgement, mail, came, claims, &deaths);
    }
    for (id, came) in &arrivals {
        if !owed.contains_key(id) {
            judgement.fault(|| format!("nobody owes the mail {id}: {came:?}"));
        }
    }
    judgement
}

fn judge_arrivals(
    judgement: &mut Judgement,
    over: Over,
    mail: &Owed,
    came: &[Arrival],
    claims: &[Claim],
    deaths: &HashMap<usize, Moment>,
) {
    judgement.again += came.len() - 1;
    let keys: HashSet<_> = came.iter().map(|arrival| &arrival.key).collect();
    if keys.len() > 1 {
        judgement.effects_doubled += keys.len() - 1;
        judgement.fault(|| format!("the mail to {} came as {} mails: {came:?}", mail.to, keys.len()));
    }
    for arrival in came {
        if arrival.key != arrival.mail.to_string() || arrival.to != mail.to {
            judgement.fault(|| format!("the mail to {} came as another: {arrival:?}", mail.to));
        }
        if came.first().is_some_and(|first| first.fingerprint != arrival.fingerprint) {
            judgement.differing += 1;
            judgement.fault(|| format!("the mail to {} came again with other bytes", mail.to));
        }
        let is_holder = |claim: &&Claim| {
            claim.by == arrival.by
                && claim.claimed_at <= arrival.at
                && claim.settled_at.is_none_or(|settled| arrival.at <= settled)
        };
        let Some(held) = claims.iter().position(|claim| is_holder(&claim)) else {
            judgement.not_alone += 1;
            judgement.fault(|| format!("worker {} brought the mail to {} unclaimed", arrival.by, mail.to));
            continue;
        };
        if claims.get(held + 1).is_some_and(|next| next.claimed_at < arrival.at) {
            judgement.not_alone += 1;
            judgement.fault(|| {
                format!("worker {} brought the mail to {} after another had it", arrival.by, mail.to)
            });
        }
    }
    // Whoever brought it before the last one died before that could be noted.
    for arrival in came.iter().take(came.len() - 1) {
        let died = deaths.get(&arrival.by).is_some_and(|death| arrival.at <= *death);
        let noted = claims.iter().any(|claim| claim.by == arrival.by && claim.settled_at.is_some());
        if !died || noted {
            if over == Over::Smtp {
                judgement.effects_doubled += 1;
            }
            judgement.fault(|| {
                format!("the mail to {} came again, and no kill explains it: {came:?} {claims:?}", mail.to)
            });
        }
    }
}

/// What a dead worker had comes from another one soon.
fn judge_takeover(
    judgement: &mut Judgement,
    mail: &Owed,
    came: &[Arrival],
    claims: &[Claim],
    deaths: &HashMap<usize, Moment>,
) {
    for claim in claims.iter().filter(|claim| claim.settled_at.is_none() && !claim.passed) {
        let Some(died) = deaths.get(&claim.by) else { continue };
        let Some(back) = came.iter().map(|arrival| arrival.at).filter(|at| at > died).min() else { continue };
        judgement.longest = judgement.longest.max(back - died);
        if back - died > TAKEN_OVER_WITHIN {
            judgement.fault(|| {
                format!("the mail to {} came {} s after the kill", mail.to, (back - died) / 1_000_000)
            });
        }
    }
}

fn judge_claims(judgement: &mut Judgement, mail: &Owed, claims: &[Claim], deaths: &HashMap<usize, Moment>) {
    for pair in claims.windows(2) {
        let [before, after] = pair else { continue };
        let died = deaths.get(&before.by).is_some_and(|death| *death <= after.claimed_at);
        let settled = before.settled_at.is_some_and(|settled| settled <= after.claimed_at);
        let over = before.passed || before.lease_until <= after.claimed_at;
        if !(settled || died && over) {
            judgement.not_alone += 1;
            judgement
                .fault(|| format!("the mail to {} was claimed while another had it: {claims:?}", mail.to));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One mail that worker 0 claims at 10 and brings at 20, and whose end is noted at 30.
    fn record() -> Record {
        let id = Uuid::from_u128(1);
        let owed = Owed { to: "a@example.org".into(), status: "sent".into(), is_held: false };
        let claim = Claim { by: 0, claimed_at: 10, lease_until: 310, passed: false, settled_at: Some(30) };
        Record {
            owed: HashMap::from([(id, owed)]),
            claims: HashMap::from([(id, vec![claim])]),
            arrivals: HashMap::from([(id, vec![arrival(0, 20)])]),
            deaths: HashMap::new(),
        }
    }

    fn arrival(by: usize, at: Moment) -> Arrival {
        let mail = Uuid::from_u128(1);
        Arrival { key: mail.to_string(), mail, to: "a@example.org".into(), by, at, fingerprint: 7 }
    }

    /// As [`record`], but worker 0 dies at 25, and worker 1 claims at 50 and brings it again.
    fn taken_over() -> Record {
        let mut record = record();
        for claims in record.claims.values_mut() {
            claims[0] = Claim { settled_at: None, passed: true, ..claims[0].clone() };
            claims.push(Claim {
                by: 1,
                claimed_at: 50,
                lease_until: 350,
                passed: false,
                settled_at: Some(70),
            });
        }
        record.arrivals.values_mut().for_each(|all| all.push(arrival(1, 60)));
        record.deaths.insert(0, 25);
        record
    }

    fn change(record: Record, change: impl Fn(&mut Owed, &mut Vec<Claim>, &mut Vec<Arrival>)) -> Record {
        let mut record = record;
        for (id, owed) in &mut record.owed {
            let (claims, came) =
                (record.claims.entry(*id).or_default(), record.arrivals.entry(*id).or_default());
            change(owed, claims, came);
        }
        record
    }

    #[test]
    fn what_keeps_the_rules_is_clean() {
        for record in [record(), taken_over()] {
            for over in Over::ALL {
                assert_eq!(judge(over, record.clone()).faults, Vec::<String>::new());
            }
        }
        assert_eq!(judge(Over::Smtp, taken_over()).again, 1);
    }

    #[test]
    fn what_is_lost_or_stuck_is_seen() {
        let lost = change(record(), |_, _, came| came.clear());
        assert_eq!((judge(Over::Http, lost.clone()).arrived, judge(Over::Http, lost).faults.len()), (0, 1));
        let queued = change(record(), |owed, _, _| owed.status = "queued".into());
        assert_eq!(judge(Over::Http, queued).faults.len(), 1);
        let held = change(record(), |owed, _, _| owed.is_held = true);
        assert_eq!(judge(Over::Http, held).faults.len(), 1);
    }

    #[test]
    fn a_double_that_no_kill_explains_is_seen() {
        let mut lives = taken_over();
        lives.deaths.clear();
        assert!(judge(Over::Smtp, lives).effects_doubled > 0);
        let noted = change(taken_over(), |_, claims, _| claims[0].settled_at = Some(24));
        assert!(judge(Over::Smtp, noted).effects_doubled > 0);
        let another_key = change(taken_over(), |_, _, came| came[1].key = "fresh".into());
        assert!(judge(Over::Http, another_key).effects_doubled > 0);
        let other_bytes = change(taken_over(), |_, _, came| came[1].fingerprint = 8);
        assert_eq!(judge(Over::Http, other_bytes).differing, 1);
    }

    #[test]
    fn who_brings_or_claims_what_another_has_is_seen() {
        let unclaimed = change(record(), |_, _, came| came[0].by = 2);
        assert_eq!(judge(Over::Http, unclaimed).not_alone, 1);
        let late = change(taken_over(), |_, _, came| came[0].at = 55);
        assert!(judge(Over::Http, late).not_alone > 0);
        let early = change(taken_over(), |_, claims, _| claims[0].passed = false);
        assert_eq!(judge(Over::Http, early).not_alone, 1);
        let mut lives = taken_over();
        lives.deaths.insert(0, 51);
        assert!(judge(Over::Http, lives).not_alone > 0);
    }
}
