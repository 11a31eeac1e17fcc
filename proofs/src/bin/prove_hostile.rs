//! Lets hostile clients at the real server; `scripts/prove-hostile` builds what it needs.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use usermgr_proofs::hostile::{Attack, HostilePlan, Suffered, attack};
use usermgr_proofs::{SetUp, Trouble};

/// Hostile clients at the real server, and somebody else who must be answered meanwhile. It exits with 1 when a rule is broken.
#[derive(Debug, Parser)]
#[command(name = "prove-hostile")]
struct Arguments {
    /// Floods go on for four seconds, not for thirty; a thousand guesses are made, not ten thousand, and on SQLite alone.
    #[arg(long)]
    short: bool,
    /// Some attacks instead of all.
    #[arg(long, value_enum)]
    only: Vec<Attack>,
    /// One set-up instead of SQLite, and PostgreSQL for guesses.
    #[arg(long, value_enum)]
    set_up: Option<SetUp>,
    /// The most rows that one network's guesses may make the server write, however many they are.
    #[arg(long, default_value_t = 400)]
    rows: i64,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Trouble> {
    let Arguments { short, only, set_up, rows } = Arguments::parse();
    let lasts = Duration::from_secs(if short { 4 } else { 30 });
    let guesses = if short { 1000 } else { 10_000 };
    let attacks = if only.is_empty() { Attack::ALL.to_vec() } else { only };
    let mut holds = true;
    let mut table = Suffered::HEAD.to_owned();
    for each in attacks {
        let set_ups = match set_up {
            Some(set_up) => vec![set_up],
            None if each.guesses() && !short => vec![SetUp::Sqlite, SetUp::Postgres],
            None => vec![SetUp::Sqlite],
        };
        for set_up in set_ups {
            let suffered = attack(&HostilePlan { set_up, lasts, guesses, rows }, each).await?;
            holds &= suffered.faults.is_empty();
            write!(std::io::stderr(), "{}{}", suffered.rows(), suffered.told())?;
            table.push_str(&suffered.rows());
        }
    }
    let end = if holds { "every rule held" } else { "RULES WERE BROKEN" };
    writeln!(std::io::stdout(), "{table}\n{end}")?;
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
