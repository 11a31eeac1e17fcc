//! Times what must not tell; `scripts/prove-timing` builds what it needs.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use usermgr_proofs::timing::{Timed, TimingPlan, prove_timing, took};
use usermgr_proofs::{SetUp, Trouble};

/// Whether times tell which addresses have accounts, or which guesses are right. It exits with 1 when they do.
#[derive(Debug, Parser)]
#[command(name = "prove-timing")]
struct Arguments {
    /// How many pairs of requests a block has; five blocks at most are timed of each path.
    #[arg(long, default_value_t = 400)]
    pairs: usize,
    /// How far from one half the area under the curve may be.
    #[arg(long, default_value_t = 0.05)]
    tolerance: f64,
    /// One set-up instead of SQLite and PostgreSQL.
    #[arg(long, value_enum)]
    set_up: Option<SetUp>,
    /// What the order of the requests follows from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only paths whose name, or whose sides' names, hold this.
    #[arg(long)]
    only: Option<String>,
    /// The server leaves its mails to others, which tells the work of the request from that of the delivery.
    #[arg(long)]
    no_worker: bool,
    /// Both set-ups at the same time, which is quicker and less exact.
    #[arg(long)]
    at_once: bool,
    /// After so many seconds no further path is begun; how many were left out is said.
    #[arg(long)]
    seconds: Option<u64>,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Trouble> {
    let Arguments { pairs, tolerance, set_up, seed, only, no_worker, at_once, seconds, json } =
        Arguments::parse();
    let set_ups = set_up.map_or_else(|| vec![SetUp::Sqlite, SetUp::Postgres], |set_up| vec![set_up]);
    let (begun, most) = (Instant::now(), seconds.map(Duration::from_secs));
    if !json {
        write!(std::io::stdout(), "{}", Timed::HEAD)?;
    }
    let mut runs = Vec::new();
    let mut results = Vec::new();
    for set_up in set_ups {
        let plan =
            TimingPlan { set_up, pairs, seed, only: only.clone(), worker: !no_worker, tolerance, most };
        let run = tokio::spawn(async move {
            let row = |timed: &Timed| {
                if !json {
                    drop(write!(std::io::stdout(), "{}", timed.row()));
                }
            };
            prove_timing(&plan, row).await
        });
        if at_once {
            runs.push(run);
        } else {
            results.push(run.await??);
        }
    }
    for run in runs {
        results.push(run.await??);
    }
    let left_out: usize = results.iter().map(|(_, left_out)| left_out).sum();
    let all: Vec<_> = results.into_iter().flat_map(|(timed, _)| timed).collect();
    if json {
        let all: Vec<_> = all.iter().map(Timed::json).collect();
        writeln!(std::io::stdout(), "{}", serde_json::Value::Array(all))?;
    }
    let holds = all.iter().all(Timed::holds);
    let end = if holds { "no time tells" } else { "TIMES TELL" };
    let err = &mut std::io::stderr();
    writeln!(err, "{} paths in {}, seed {seed}: {end}", all.len(), took(begun))?;
    if left_out > 0 {
        writeln!(err, "{left_out} paths were left out for want of time")?;
    }
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
