//! What was found, as a table, as JSON, and at length where a rule was broken.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::judge::Round;
use crate::{Plan, SetUp};

/// How many broken rounds of one race are told at length.
const AT_LENGTH: usize = 3;

/// One race on one set-up.
#[derive(Debug)]
pub struct Row {
    race: &'static str,
    set_up: SetUp,
    rounds: usize,
    winners: usize,
    doubles: usize,
    refused: usize,
    unexpected: usize,
    server_errors: usize,
    /// Broken rounds, the first few at length.
    told: Vec<String>,
    pub(crate) took: Duration,
}

impl Row {
    pub(crate) const fn new(race: &'static str, set_up: SetUp) -> Self {
        Self {
            race,
            set_up,
            rounds: 0,
            winners: 0,
            doubles: 0,
            refused: 0,
            unexpected: 0,
            server_errors: 0,
            told: Vec::new(),
            took: Duration::ZERO,
        }
    }

    pub(crate) fn add(&mut self, n: usize, seed: u64, round: &Round) {
        if !round.is_clean() && self.told.len() < AT_LENGTH {
            self.told.push(at_length(self.race, self.set_up, n, seed, round));
        }
        self.rounds += 1;
        self.winners += round.winners;
        self.doubles += round.doubles;
        self.refused += round.refused;
        self.unexpected += round.faults.len();
        self.server_errors += round.server_errors;
    }

    /// A fault that belongs to no round.
    pub(crate) fn fault(&mut self, fault: &str) {
        self.unexpected += 1;
        if self.told.len() < 2 * AT_LENGTH {
            self.told.push(format!("{} on {}: {fault}\n", self.race, self.set_up.name()));
        }
    }

    const fn is_clean(&self) -> bool {
        self.doubles == 0 && self.unexpected == 0 && self.server_errors == 0
    }
}

/// What a run on one set-up showed.
#[derive(Debug)]
pub struct Proof {
    set_up: SetUp,
    seed: u64,
    pub(crate) rows: Vec<Row>,
    /// What belongs to no race: what servers logged, how they ended.
    pub(crate) faults: Vec<String>,
    pub(crate) took: Duration,
}

impl Proof {
    pub(crate) const fn new(plan: &Plan) -> Self {
        let (set_up, seed) = (plan.set_up, plan.seed);
        Self { set_up, seed, rows: Vec::new(), faults: Vec::new(), took: Duration::ZERO }
    }

    /// Whether every rule held.
    pub fn holds(&self) -> bool {
        self.faults.is_empty() && self.rows.iter().all(Row::is_clean)
    }

    /// Every broken rule, with the history of its round. Without secrets.
    pub fn violations(&self) -> String {
        let mut text = String::new();
        for told in self.rows.iter().flat_map(|row| &row.told) {
            let _ = writeln!(text, "{told}");
        }
        for fault in &self.faults {
            let _ = writeln!(text, "{}: {fault}", self.set_up.name());
        }
        text
    }

    /// The rows of the table.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let _ = writeln!(
                text,
                "| {:<31} | {:<10} | {:>6} | {:>7} | {:>7} | {:>7} | {:>10} | {:>3} |",
                row.race,
                row.set_up.name(),
                row.rounds,
                row.winners,
                row.doubles,
                row.refused,
                row.unexpected,
                row.server_errors,
            );
        }
        text
    }

    /// The head of the table.
    pub const HEAD: &str = "| race                            | set-up     | rounds | winners | doubles | refused | unexpected | 5xx |\n\
         |---------------------------------|------------|-------:|--------:|--------:|--------:|-----------:|----:|\n";

    /// In one line.
    pub fn summary(&self) -> String {
        let rounds: usize = self.rows.iter().map(|row| row.rounds).sum();
        format!(
            "{}: {rounds} races in {:.0} s, seed {}: {}",
            self.set_up.name(),
            self.took.as_secs_f64(),
            self.seed,
            if self.holds() { "every rule held" } else { "RULES WERE BROKEN" }
        )
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "race": row.race, "rounds": row.rounds, "winners": row.winners, "doubles": row.doubles,
                    "refused": row.refused, "unexpected": row.unexpected, "server_errors": row.server_errors,
                    "violations": row.told, "seconds": row.took.as_secs_f64(),
                })
            })
            .collect();
        json!({
            "set_up": self.set_up.name(), "seed": self.seed, "seconds": self.took.as_secs_f64(),
            "holds": self.holds(), "races": rows, "faults": self.faults,
        })
    }
}

/// A broken round: what is wrong with it, and every call of it.
fn at_length(race: &str, set_up: SetUp, n: usize, seed: u64, round: &Round) -> String {
    let mut text = format!("{race} on {}, round {n}, seed {seed}:\n", set_up.name());
    for fault in &round.faults {
        let _ = writeln!(text, "  {fault}");
    }
    if round.doubles > 0 {
        let _ = writeln!(text, "  {} won beside the one who may", round.doubles);
    }
    for call in &round.history {
        let _ = writeln!(
            text,
            "  {:>9.3} to {:>9.3} ms  server {}  {:<20} {} {}",
            call.start.as_secs_f64() * 1e3,
            call.end.as_secs_f64() * 1e3,
            call.server,
            call.label,
            call.status,
            call.code,
        );
    }
    text
}
