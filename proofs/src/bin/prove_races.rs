//! Runs the races; `scripts/prove-races` builds what it needs.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use usermgr_proofs::{Plan, Proof, SetUp, Trouble, prove};

/// Races over HTTP against the real server. It exits with 1 when a rule is broken.
#[derive(Debug, Parser)]
#[command(name = "prove-races")]
struct Arguments {
    /// How many races on each set-up.
    #[arg(long, default_value_t = 3000)]
    races: usize,
    /// One set-up instead of all.
    #[arg(long, value_enum)]
    set_up: Option<SetUp>,
    /// What chance follows from: the same seed makes the same calls.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only races whose name holds this.
    #[arg(long)]
    only: Option<String>,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Trouble> {
    let Arguments { races, set_up, seed, only, json } = Arguments::parse();
    let set_ups = set_up.map_or_else(|| SetUp::ALL.to_vec(), |set_up| vec![set_up]);
    let mut proofs = Vec::new();
    for set_up in set_ups {
        let plan = Plan { set_up, rounds: races, seed, only: only.clone() };
        let proof = prove(&plan).await?;
        // The broken rounds at once: a long run may be ended before its last set-up.
        write!(std::io::stderr(), "{}", proof.violations())?;
        writeln!(std::io::stderr(), "{}", proof.summary())?;
        proofs.push(proof);
    }
    let mut out = std::io::stdout().lock();
    if json {
        let proofs: Vec<_> = proofs.iter().map(Proof::json).collect();
        writeln!(out, "{}", serde_json::Value::Array(proofs))?;
    } else {
        write!(out, "{}", Proof::HEAD)?;
        for proof in &proofs {
            write!(out, "{}", proof.table())?;
        }
    }
    Ok(if proofs.iter().all(Proof::holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
