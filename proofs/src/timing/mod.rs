//! Times requests whose answers must not tell whether an address has an account, or whether a guess is right: pairs of them,
//! interleaved, over HTTP against the real server. A judge that computes from the times alone says whether they tell.

mod cases;
mod ground;
mod rank;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chance::Chance;
use crate::client::Request;
use crate::{SetUp, Trouble};
use cases::{Case, Setting};
use ground::{Ground, Kind};
use rank::{auc, median};

/// Two blocks within the bounds suffice. Otherwise the one in the middle of this many counts: noise of the machine rarely
/// spoils three in the same way.
const BLOCKS: usize = 5;
/// Pairs at the beginning of a block that do not count.
const WARM_UP: usize = 5;
/// Accounts for the cases whose pairs share a few.
const SHARED_ACCOUNTS: usize = 10 * 5 * BLOCKS;
/// The pause before each call: whatever the call before it has set off, such as a mail, is over then. Milliseconds.
const PAUSE: (usize, usize) = (4, 6);

/// What to time.
#[derive(Debug, Clone)]
pub struct TimingPlan {
    /// On what.
    pub set_up: SetUp,
    /// Pairs of each block.
    pub pairs: usize,
    /// What the order follows from.
    pub seed: u64,
    /// Only cases whose path and sides hold this.
    pub only: Option<String>,
    /// Whether the server delivers its mails, as it does by default.
    pub worker: bool,
    /// How far from one half the area under the curve may be.
    pub tolerance: f64,
    /// After how long no further case is begun.
    pub most: Option<Duration>,
}

/// What one case showed.
#[derive(Debug)]
pub struct Timed {
    path: &'static str,
    sides: [&'static str; 2],
    set_up: SetUp,
    worker: bool,
    tolerance: f64,
    times: [Vec<Duration>; 2],
    blocks: Vec<f64>,
    /// Answers that differ, or that no server should give.
    pub faults: Vec<String>,
}

/// Times every case on one set-up, and answers what was timed and how many cases there was no time for.
///
/// The cases come in an order that follows from the seed, so that those left out are not always the same.
///
/// # Errors
/// When the server or the database cannot be started, or when what a case needs cannot be made.
pub async fn prove_timing(plan: &TimingPlan, told: impl Fn(&Timed)) -> Result<(Vec<Timed>, usize), Trouble> {
    let begun = Instant::now();
    let (mut all, mut left_out) = (Vec::new(), 0);
    let mut chance = Chance::new(plan.seed, &[]);
    let mut settings = [Setting::Free, Setting::Limited];
    settings.rotate_left(chance.within(0, 1));
    for setting in settings {
        let wanted = |case: &Case| {
            let name = format!("{} {}", case.path, case.sides.join(" "));
            case.setting == setting
                && (plan.worker || !case.needs_mail)
                && plan.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
        };
        let mut cases: Vec<_> = Case::ALL.into_iter().filter(wanted).collect();
        if cases.is_empty() {
            continue;
        }
        if plan.most.is_some() {
            for n in (1..cases.len()).rev() {
                cases.swap(n, chance.within(0, n));
            }
        }
        let users = |kind| {
            let each = cases.iter().filter(|case| case.takes() == Some(kind)).count();
            each * BLOCKS * (plan.pairs + WARM_UP) + SHARED_ACCOUNTS
        };
        let users = [Kind::Account, Kind::Disabled, Kind::Invited].map(|kind| (kind, users(kind)));
        let mut ground = Ground::open(plan.set_up, setting, plan.worker, users).await?;
        for case in cases {
            if plan.most.is_some_and(|most| begun.elapsed() > most) {
                left_out += 1;
                continue;
            }
            let result = run_case(plan, case, &mut ground, &mut chance).await;
            let one =
                result.map_err(|error| format!("{} ({}): {error}", case.path, case.sides.join(", ")))?;
            told(&one);
            all.push(one);
        }
        let faults = ground.close().await?;
        if !faults.is_empty() {
            return Err(faults.join("\n").into());
        }
    }
    Ok((all, left_out))
}

/// Blocks of one case, until the one in the middle is known.
async fn run_case(
    plan: &TimingPlan,
    case: Case,
    ground: &mut Ground,
    chance: &mut Chance,
) -> Result<Timed, Trouble> {
    let mut timed = Timed {
        path: case.path,
        sides: case.sides,
        set_up: plan.set_up,
        worker: plan.worker,
        tolerance: plan.tolerance,
        times: Default::default(),
        blocks: Vec::new(),
        faults: Vec::new(),
    };
    while timed.judged().is_none() {
        let pairs = case.prepare(ground, plan.pairs + WARM_UP).await?;
        ground.quiet().await?;
        let begun: [usize; 2] = [timed.times[0].len(), timed.times[1].len()];
        for (n, pair) in pairs.iter().enumerate() {
            let pair = time_pair(ground, pair, chance, &mut timed.faults).await?;
            if n >= WARM_UP {
                for (all, time) in timed.times.iter_mut().zip(pair) {
                    all.push(time);
                }
            }
        }
        timed.blocks.push(auc(&timed.times[0][begun[0]..], &timed.times[1][begun[1]..]));
    }
    Ok(timed)
}

/// Makes both requests, one after the other in either order.
async fn time_pair(
    ground: &mut Ground,
    pair: &[Request; 2],
    chance: &mut Chance,
    faults: &mut Vec<String>,
) -> Result<[Duration; 2], Trouble> {
    let first = chance.within(0, 1);
    let (mut times, mut answers) = ([Duration::ZERO; 2], [const { String::new() }; 2]);
    for side in [first, 1 - first] {
        let pause = Duration::from_millis(chance.within(PAUSE.0, PAUSE.1) as u64);
        tokio::time::sleep(pause).await;
        let (call, took) = ground.measure(&pair[side]).await?;
        times[side] = took;
        answers[side] = format!("{} {}", call.status, call.code);
        if call.status == 0 || call.status >= 500 {
            faults.push(format!("no good answer: {} {}", call.status, call.code));
        }
    }
    let [one, other] = answers;
    if one != other {
        faults.push(format!("the answers differ: {one} against {other}"));
    }
    Ok(times)
}

impl Timed {
    /// Whether times do not tell, once that is known.
    fn judged(&self) -> Option<bool> {
        let most = BLOCKS / 2 + 1;
        let above = self.blocks.iter().filter(|auc| **auc > 0.5 + self.tolerance).count();
        let below = self.blocks.iter().filter(|auc| **auc < 0.5 - self.tolerance).count();
        let within = self.blocks.len() - above - below;
        if above == most || below == most {
            Some(false)
        } else {
            let two_at_once = self.blocks.len() == 2 && within == 2;
            (two_at_once || within == most || self.blocks.len() == BLOCKS).then_some(true)
        }
    }

    /// Whether nothing tells the sides apart.
    pub fn holds(&self) -> bool {
        self.faults.is_empty() && self.judged() == Some(true)
    }

    /// The head of the table.
    pub const HEAD: &str = "| path                                         | compared                                 | store    | worker | pairs | median | median |  AUC  | blocks                   | judgement |\n\
         |----------------------------------------------|------------------------------------------|----------|--------|------:|-------:|-------:|------:|--------------------------|-----------|\n";

    /// A line of the table. The medians are in milliseconds.
    pub fn row(&self) -> String {
        let [one, other] = &self.times;
        let medians = [one, other].map(|times| median(times).as_secs_f64() * 1e3);
        let blocks: Vec<_> = self.blocks.iter().map(|auc| format!("{auc:.2}")).collect();
        let mut row = format!(
            "| {:<44} | {:<40} | {:<8} | {:<6} | {:>5} | {:>6.2} | {:>6.2} | {:>5.3} | {:<24} | {:<9} |\n",
            self.path,
            self.sides.join(" / "),
            self.set_up.name(),
            if self.worker { "on" } else { "off" },
            one.len(),
            medians[0],
            medians[1],
            auc(one, other),
            blocks.join(" "),
            if self.holds() { "tells not" } else { "TELLS" },
        );
        for fault in self.faults.iter().take(3) {
            let _ = writeln!(row, "  {fault}");
        }
        row
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let [one, other] = &self.times;
        let medians = [one, other].map(|times| median(times).as_secs_f64() * 1e3);
        json!({
            "path": self.path, "sides": self.sides, "set_up": self.set_up.name(), "worker": self.worker,
            "pairs": one.len(), "auc": auc(one, other), "blocks": self.blocks,
            "medians_ms": medians,
            "holds": self.holds(), "faults": self.faults,
        })
    }
}

/// How long a run took, in words.
pub fn took(begun: Instant) -> String {
    format!("{:.0} s", begun.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(blocks: &[f64]) -> Option<bool> {
        let timed = Timed {
            path: "",
            sides: ["", ""],
            set_up: SetUp::Sqlite,
            worker: true,
            tolerance: 0.05,
            times: Default::default(),
            blocks: blocks.to_vec(),
            faults: Vec::new(),
        };
        timed.judged()
    }

    #[test]
    fn the_block_in_the_middle_judges() {
        assert_eq!(judged(&[]), None);
        assert_eq!(judged(&[0.5]), None);
        assert_eq!(judged(&[0.5, 0.54]), Some(true));
        assert_eq!(judged(&[0.5, 0.7]), None);
        assert_eq!(judged(&[0.5, 0.7, 0.49]), None);
        assert_eq!(judged(&[0.5, 0.7, 0.49, 0.51]), Some(true));
        assert_eq!(judged(&[0.5, 0.7, 0.56, 0.58]), Some(false));
        assert_eq!(judged(&[0.7, 0.6, 0.65]), Some(false));
        assert_eq!(judged(&[0.4, 0.44, 0.43]), Some(false));
        // What is too short twice and too long twice is noise, or lies in the middle.
        assert_eq!(judged(&[0.4, 0.6, 0.42, 0.58]), None);
        assert_eq!(judged(&[0.4, 0.6, 0.42, 0.58, 0.5]), Some(true));
    }
}
