//! Three workers deliver from one PostgreSQL while they are killed: nothing is lost, nothing is done twice, and whoever
//! has a mail has it alone.

mod arrivals;
mod crew;
mod hand_over;
mod judge;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::chance::Chance;
use crate::client::{Line, Request};
use crate::lane::PASSWORD;
use crate::server::{Database, Manner, Servers};
use crate::{PATIENCE, SetUp, Trouble};
use arrivals::Arrivals;
use crew::Crew;
pub use hand_over::HandOver;
use judge::Judgement;

/// How many workers there are at once.
const WORKERS: usize = 3;
/// How many calls go on at once while mails come to be owed.
const CALLERS: usize = 12;
/// How long nothing may arrive before a run counts as stuck: longer than a lease.
const STILL: Duration = Duration::from_secs(330);

/// How mails leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Over {
    /// By SMTP, which does not know a mail that it had before.
    Smtp,
    /// By a mail API, which knows it by its `Idempotency-Key`.
    Http,
}

impl Over {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Smtp, Self::Http];

    /// As in the arguments.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Smtp => "SMTP",
            Self::Http => "HTTP mail API",
        }
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub struct DeliveryPlan {
    /// How many mails over each way.
    pub mails: usize,
    /// How often a worker is killed meanwhile.
    pub kills: usize,
    /// What chance follows from.
    pub seed: u64,
    /// Whether all leases of those who are killed are left to pass by themselves. Those of the last one always are.
    pub whole_lease: bool,
}

/// What was found over one way.
#[derive(Debug)]
pub struct Delivered {
    /// Which way.
    pub over: Over,
    /// How long it took.
    pub took: Duration,
    kills: usize,
    /// Leases that killed workers left behind.
    orphans: u64,
    owed: usize,
    judgement: Judgement,
    /// What broke a rule.
    pub faults: Vec<String>,
}

impl Delivered {
    /// The head of the table.
    pub const HEAD: &str = "| over          |  owed  | arrived | lost | kills | leases left behind | came again | double effects | bodies that differ | held by another | longest after a kill | took |\n\
         |---------------|-------:|--------:|-----:|------:|-------------------:|-----------:|---------------:|-------------------:|----------------:|---------------------:|-----:|\n";

    /// A line of the table.
    pub fn row(&self) -> String {
        let Judgement { arrived, again, effects_doubled, differing, not_alone, longest, .. } =
            &self.judgement;
        format!(
            "| {:<13} | {:>6} | {arrived:>7} | {:>4} | {:>5} | {:>18} | {again:>10} | {effects_doubled:>14} | {differing:>18} | {not_alone:>15} | {:>18.1} s | {:>3.0} s |\n",
            self.over.name(),
            self.owed,
            self.owed.saturating_sub(*arrived),
            self.kills,
            self.orphans,
            Duration::from_micros(u64::try_from(*longest).unwrap_or(0)).as_secs_f64(),
            self.took.as_secs_f64(),
        )
    }
}

/// Has as many mails delivered over one way, while workers are killed.
///
/// # Errors
/// When the servers or the database cannot be started at all.
pub async fn prove_delivery(plan: &DeliveryPlan, over: Over) -> Result<Delivered, Trouble> {
    let begun = Instant::now();
    let database = Arc::new(Database::create(SetUp::Postgres2).await?);
    let servers = Servers::start(&database, "memory:", Manner::Apart, 2).await?;
    crew::watch_claims(database.postgres()?).await?;
    let arrivals = Arc::new(Arrivals::default());
    let owing = owe(servers.addresses.clone(), plan.mails);
    let mut crew = Crew::new(over, Arc::clone(&database), Arc::clone(&arrivals));
    let killing = async {
        crew.start(&servers).await?;
        let mut chance = Chance::new(plan.seed, &[over as u64]);
        for n in 1..=plan.kills {
            // Spread over the run, whatever its speed.
            if !arrivals.wait_for(n * plan.mails / (plan.kills + 1), STILL).await {
                return Err::<(), Trouble>("stuck: nothing arrives any more".into());
            }
            tokio::time::sleep(Duration::from_micros(chance.within(0, 50_000) as u64)).await;
            let waits = plan.whole_lease || n == plan.kills;
            crew.kill(&servers, chance.within(0, WORKERS - 1), !waits).await?;
        }
        Ok(())
    };
    let (refused, killed) = tokio::join!(owing, killing);
    let mut faults: Vec<_> =
        refused?.into_iter().chain(killed.err().map(|trouble| trouble.to_string())).collect();
    if !crew.finish(STILL).await? {
        faults.push("stuck: mails are still in the outbox".to_owned());
    }
    let took = begun.elapsed();
    let (kills, orphans) = (crew.deaths.len(), crew.orphans);
    let judgement = judge::judge(over, crew.record().await?);
    faults.extend(judgement.faults.iter().cloned());
    faults.extend(crew.stop().await?);
    faults.extend(servers.stop().await?);
    if let Some(database) = Arc::into_inner(database) {
        database.remove().await?;
    }
    Ok(Delivered { over, took, kills, orphans, owed: plan.mails, judgement, faults })
}

/// How long it takes from a commit to the mail server: woken by NOTIFY, and with NOTIFY cut off.
///
/// # Errors
/// When the servers or the database cannot be started at all.
pub async fn prove_hand_over(rounds: usize, seed: u64) -> Result<Vec<HandOver>, Trouble> {
    hand_over::measure(rounds, seed).await
}

/// Has mails owed by registrations at both servers, each by its own address, and answers what was refused.
async fn owe(servers: Vec<std::net::SocketAddr>, mails: usize) -> Result<Vec<String>, Trouble> {
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let (next, server) = (Arc::clone(&next), caller % servers.len());
        let mut line = Line::new(server, *servers.get(server).ok_or("no server")?);
        callers.spawn(async move {
            let mut refused = Vec::new();
            loop {
                let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if n >= mails {
                    return refused;
                }
                // One domain has a part of the places only; so there are many.
                let to = format!("m{n}@d{}.example.org", n % 50);
                if let Err(trouble) = register(&mut line, &to).await {
                    refused.push(trouble.to_string());
                }
            }
        });
    }
    Ok(callers.join_all().await.into_iter().flatten().collect())
}

/// Registers an address; its mail is owed then.
async fn register(line: &mut Line, email: &str) -> Result<(), Trouble> {
    let request = Request::post("register", "/users", json!({"email": email, "password": PASSWORD}));
    let call = line.call(&request, Instant::now()).await.pop().ok_or("no call")?;
    call.expect(202).map(drop)
}

/// Waits until something holds, for as long as anything may take.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool, Trouble>) -> Result<(), Trouble> {
    let begun = Instant::now();
    while !holds().await? {
        if begun.elapsed() > PATIENCE {
            return Err(format!("stuck: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
