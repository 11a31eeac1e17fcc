//! How long users and administrators wait when there are many users, against few; and whether upkeep disturbs them.
//!
//! `scripts/scale` builds what it needs, starts a throw-away PostgreSQL with durable commits, and runs it. What is measured
//! and how is said in `docs/performance.md`.
#![expect(clippy::unwrap_used, reason = "a measurement that fails is none")]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "figures for people")]

mod fill;
mod purge;
mod questions;
mod rates;
mod site;

use std::fmt::Write as _;
use std::io::Write as _;

use clap::Parser;
use usermgr_benches::database::Store;

use questions::{QUESTIONS, Question};
use site::Site;

/// Compares what users and administrators wait for with few users and with many, and purges a million sessions meanwhile
#[derive(Debug, Parser)]
#[command(name = "scale")]
struct Arguments {
    /// Users of each database that is compared; the first is what the others are compared with
    #[arg(default_values_t = [10_000, 1_000_000])]
    users: Vec<u64>,
    /// Only this store
    #[arg(long, value_enum)]
    store: Option<Store>,
    /// How often each question is asked
    #[arg(long, default_value_t = 400)]
    calls: usize,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let mut out = String::new();
    let stores = arguments.store.map_or_else(|| vec![Store::Sqlite, Store::Postgres], |store| vec![store]);
    for store in stores {
        let mut sites = Vec::new();
        for users in &arguments.users {
            sites.push(Site::open(store, *users).await);
        }
        for site in &mut sites {
            site.prepare(arguments.calls + warm_up(arguments.calls)).await;
        }
        write_table(&mut out, store, &sites, arguments.calls).await;
        rates::write(&mut out, &sites).await;
        let last = sites.last().unwrap();
        writeln!(out, "\n{}\n", purge::measure(last).await).unwrap();
        for site in sites {
            site.remove().await;
        }
    }
    std::io::stdout().write_all(out.as_bytes()).unwrap();
}

async fn write_table(out: &mut String, store: Store, sites: &[Site], calls: usize) {
    write!(out, "| {}, median in µs of {calls} calls |", store.name()).unwrap();
    for site in sites {
        write!(out, " {} users |", site.users).unwrap();
    }
    writeln!(out, " ratio |\n|---|{}---:|", "---:|".repeat(sites.len())).unwrap();
    for (name, question) in QUESTIONS {
        let medians = medians(*question, sites, calls).await;
        write!(out, "| {name} |").unwrap();
        for median in &medians {
            write!(out, " {median:.0} |").unwrap();
        }
        writeln!(out, " {:.2} |", medians.last().unwrap() / medians.first().unwrap()).unwrap();
    }
}

/// How many calls go before those that are timed.
const fn warm_up(calls: usize) -> usize {
    calls / 10
}

/// Asks all databases in turn, so that a slow minute of the machine meets all alike.
async fn medians(question: Question, sites: &[Site], calls: usize) -> Vec<f64> {
    let mut times = vec![Vec::with_capacity(calls); sites.len()];
    for n in 0..calls + warm_up(calls) {
        for (site, times) in sites.iter().zip(&mut times) {
            let took = question(site, n).await;
            if n >= warm_up(calls) {
                times.push(took.as_secs_f64() * 1e6);
            }
        }
    }
    times.into_iter().map(|times| site::quantile(times, 0.5)).collect()
}
