//! Kills workers while they deliver; `scripts/prove-delivery` builds what it needs.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use usermgr_proofs::Trouble;
use usermgr_proofs::delivery::{Delivered, DeliveryPlan, Over, prove_delivery, prove_hand_over};

/// Delivers mails by three workers that are killed. It exits with 1 when a rule is broken.
#[derive(Debug, Parser)]
#[command(name = "prove-delivery")]
struct Arguments {
    /// How many mails, half of them over each way.
    #[arg(long, default_value_t = 100_000)]
    mails: usize,
    /// How often a worker is killed, half of it over each way.
    #[arg(long, default_value_t = 240)]
    kills: usize,
    /// One way instead of both.
    #[arg(long, value_enum)]
    over: Option<Over>,
    /// What chance follows from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave the leases of the last worker that is killed to pass by themselves.
    #[arg(long)]
    whole_lease: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Trouble> {
    let Arguments { mails, kills, over, seed, whole_lease } = Arguments::parse();
    let ways = over.map_or_else(|| Over::ALL.to_vec(), |over| vec![over]);
    let plan = DeliveryPlan { mails: mails / ways.len(), kills: kills / ways.len(), seed, whole_lease };
    let mut holds = true;
    let mut table = Delivered::HEAD.to_owned();
    for over in ways {
        let delivered = prove_delivery(&plan, over).await?;
        for fault in &delivered.faults {
            holds = false;
            writeln!(std::io::stderr(), "{}: {fault}", delivered.over.name())?;
        }
        table.push_str(&delivered.row());
    }
    table.push('\n');
    for measured in prove_hand_over(if mails < 10_000 { 25 } else { 200 }, seed).await? {
        holds &= measured.holds();
        table.push_str(&measured.line());
    }
    let end = if holds { "every rule held" } else { "RULES WERE BROKEN" };
    writeln!(std::io::stdout(), "{table}\nseed {seed}: {end}")?;
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
