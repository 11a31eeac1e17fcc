//! The whole under load: every goal of performance, measured over loopback against the real server on both stores.
//!
//! `scripts/load` builds what it needs, starts a throw-away PostgreSQL with durable commits, and runs it. What is measured
//! and how is said in `docs/performance.md`.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "figures for people")]

mod client;
mod measure;
mod parts;
mod report;
mod server;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use measure::Run;
use parts::Part;
use usermgr_benches::database::{self, Store};
use usermgr_benches::{Trouble, machine};

/// Measures every goal of performance against the real server
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Arguments {
    /// One short round instead of three
    #[arg(long)]
    short: bool,
    /// How many rounds; with none, of the outbox only
    #[arg(long)]
    rounds: Option<usize>,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    /// One store instead of both
    #[arg(long, value_enum)]
    store: Option<Store>,
    /// The server's program, instead of the one beside this
    #[arg(long)]
    server: Option<PathBuf>,
    /// The program of a peer, to be driven in the same run
    #[arg(long)]
    peer: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// One of the parts that the whole is compared with
    #[command(subcommand, hide = true)]
    Part(Part),
}

/// How long everything is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lengths {
    rounds: usize,
    limit: Duration,
    warm_up: Duration,
    storm: Duration,
    calm: Duration,
    me: Duration,
    select: Duration,
    registrations: Duration,
    owe: Duration,
    owed_mails: usize,
    /// The longest that the worker is watched.
    deliver: Duration,
    hand_overs: usize,
}

impl Lengths {
    const FULL: Self = Self {
        rounds: 3,
        limit: Duration::from_secs(2),
        warm_up: Duration::from_secs(1),
        storm: Duration::from_secs(5),
        calm: Duration::from_secs(8),
        me: Duration::from_secs(3),
        select: Duration::from_secs(2),
        registrations: Duration::from_secs(4),
        owe: Duration::from_secs(20),
        owed_mails: 20_000,
        deliver: Duration::from_secs(20),
        hand_overs: 40,
    };
    const SHORT: Self = Self {
        rounds: 1,
        limit: Duration::from_secs(1),
        warm_up: Duration::from_millis(500),
        storm: Duration::from_secs(2),
        calm: Duration::from_secs(3),
        me: Duration::from_secs(1),
        select: Duration::from_secs(1),
        registrations: Duration::from_secs(2),
        owe: Duration::from_secs(4),
        owed_mails: 20_000,
        deliver: Duration::from_secs(5),
        hand_overs: 20,
    };
}

// One thread drives: the other cores are the server's.
fn main() -> Result<(), Trouble> {
    let arguments = Arguments::parse();
    if let Some(Command::Part(part)) = arguments.part {
        return tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(parts::run(part));
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> Result<(), Trouble> {
    let mut lengths = if arguments.short { Lengths::SHORT } else { Lengths::FULL };
    lengths.rounds = arguments.rounds.unwrap_or(lengths.rounds);
    let mut machine = machine::description();
    machine["postgres"] = match database::postgres_description().await {
        Ok(text) => text.into(),
        Err(error) if arguments.store == Some(Store::Sqlite) => error.to_string().into(),
        Err(error) => return Err(error),
    };
    let mut run = Run::begin(server::program(arguments.server)?, lengths).await?;
    run.binary()?;
    let stores = arguments.store.map_or_else(|| vec![Store::Sqlite, Store::Postgres], |store| vec![store]);
    let mut grounds = Vec::new();
    for store in stores {
        grounds.push(run.seed(store).await?);
    }
    // Round by round, so that a slow minute of the machine meets all rows alike.
    for round in 1..=lengths.rounds {
        eprintln!("round {round} of {}", lengths.rounds);
        run.bound().await?;
        for ground in &mut grounds {
            run.round(ground).await?;
        }
        if let Some(ground) = grounds.first() {
            run.verifier(ground).await?;
        }
    }
    for ground in grounds {
        run.outbox(&ground).await?;
        ground.remove().await?;
    }
    if let Some(peer) = arguments.peer {
        run.peer(&peer).await?;
    }
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", run.report.json(&machine))?;
    } else {
        for (name, value) in machine.as_object().into_iter().flatten() {
            writeln!(out, "- {name}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))?;
        }
        writeln!(out, "\n{}", run.report.table())?;
    }
    Ok(())
}
