//! Has the store fail under load; `scripts/prove-faults` builds what it needs.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use usermgr_proofs::Trouble;
use usermgr_proofs::faults::{Fault, FaultPlan, Felt, prove_fault};

/// Faults of the store under load. It exits with 1 when a rule is broken.
#[derive(Debug, Parser)]
#[command(name = "prove-faults")]
struct Arguments {
    /// A program that restarts the cluster, as it is told `fast` or `immediate`.
    #[arg(long)]
    restart_postgres: PathBuf,
    /// libfaketime; without it the clock is not set.
    #[arg(long)]
    faketime: Option<PathBuf>,
    /// Faults last sixteen seconds at most, not thirty-five.
    #[arg(long)]
    short: bool,
    /// One fault instead of all.
    #[arg(long, value_enum)]
    only: Option<Fault>,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Trouble> {
    let Arguments { restart_postgres, faketime, short, only } = Arguments::parse();
    let plan = FaultPlan { restart_postgres, faketime, long: !short };
    let mut holds = true;
    let mut table = Felt::HEAD.to_owned();
    for fault in only.map_or_else(|| Fault::ALL.to_vec(), |only| vec![only]) {
        if fault == Fault::ClockSteps && plan.faketime.is_none() {
            writeln!(std::io::stderr(), "{}: left out, for libfaketime is not here", fault.name())?;
            continue;
        }
        let felt = prove_fault(&plan, fault).await?;
        holds &= felt.faults.is_empty();
        write!(std::io::stderr(), "{}", felt.told())?;
        table.push_str(&felt.row());
    }
    let end = if holds { "every rule held" } else { "RULES WERE BROKEN" };
    writeln!(std::io::stdout(), "{table}\n{end}")?;
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
