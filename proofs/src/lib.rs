//! Races over HTTP against the real server: whoever wins is one, limits hold, nothing is answered 5xx, nothing is stuck.
//! `scripts/prove-races` runs them on SQLite, on PostgreSQL, and on PostgreSQL with two servers.
//!
//! [`delivery`] kills workers while they deliver; [`faults`] has the store fail; [`timing`] times what must not tell;
//! [`hostile`] holds connections and guesses.
#![expect(
    clippy::exhaustive_structs,
    clippy::exhaustive_enums,
    reason = "the programs of this package use it, nobody else"
)]

mod chance;
mod client;
pub mod delivery;
pub mod faults;
pub mod hostile;
mod judge;
mod lane;
mod mail;
mod mail_server;
mod moment;
mod proxy;
mod races;
mod report;
mod server;
pub mod timing;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chance::Chance;
use judge::Round;
use lane::{ADMIN, Ground, Lane, PASSWORD};
use mail::Mailbox;
use races::{Heat, Race};
pub use report::{Proof, Row};
use server::{BRIEF, Database, Manner, Servers};

/// What keeps a round or a run from being had at all.
pub type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// How long anything may take before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// A database, and how many servers share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SetUp {
    /// SQLite and one server.
    Sqlite,
    /// PostgreSQL and one server.
    Postgres,
    /// PostgreSQL and two servers.
    #[value(name = "postgres-2")]
    Postgres2,
}

impl SetUp {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sqlite, Self::Postgres, Self::Postgres2];

    /// As in the arguments.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Postgres2 => "postgres-2",
        }
    }

    const fn servers(self) -> usize {
        if matches!(self, Self::Postgres2) { 2 } else { 1 }
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// On what.
    pub set_up: SetUp,
    /// How many rounds of all races together, at least one of each.
    pub rounds: usize,
    /// What the rounds' chance follows from.
    pub seed: u64,
    /// Only races whose name holds this.
    pub only: Option<String>,
}

/// Runs all races on one set-up.
///
/// # Errors
/// When the server or the database cannot be started at all.
pub async fn prove(plan: &Plan) -> Result<Proof, Trouble> {
    let begun = Instant::now();
    let ground = Arc::new(Ground {
        database: Database::create(plan.set_up).await?,
        mailbox: Mailbox::open().await?,
        owed: Mutex::default(),
    });
    let mut proof = Proof::new(plan);
    for manner in [Manner::Free, Manner::Limited, Manner::Brief] {
        let wanted = |heat: &Heat| {
            heat.manner == manner && plan.only.as_ref().is_none_or(|only| heat.name.contains(only.as_str()))
        };
        let heats: Vec<_> = Race::ALL.into_iter().filter(wanted).collect();
        if !heats.is_empty() {
            run_manner(plan, &ground, manner, &heats, &mut proof).await?;
        }
    }
    proof.took = begun.elapsed();
    let ground = Arc::into_inner(ground).ok_or("a round still runs")?;
    ground.database.remove().await?;
    Ok(proof)
}

/// All races under one configuration, one after the other.
async fn run_manner(
    plan: &Plan,
    ground: &Arc<Ground>,
    manner: Manner,
    heats: &[Heat],
    proof: &mut Proof,
) -> Result<(), Trouble> {
    let mail = ground.mailbox.url();
    let mut servers = Servers::start(&ground.database, &mail, manner, plan.set_up.servers()).await?;
    if manner == Manner::Free {
        servers.create_user(&ground.database, &mail, ADMIN, PASSWORD, "admin").await?;
    }
    for heat in heats {
        // With one server a second process delivers beside it.
        if heat.race == Race::WorkerWorker && plan.set_up.servers() == 1 {
            servers.add_worker(&ground.database, &mail)?;
        }
        let rounds = (plan.rounds * heat.share / 100).max(1);
        let mut row = Row::new(heat.name, plan.set_up);
        let begun = Instant::now();
        let upkeep = (manner == Manner::Brief).then(|| keep_purging(&servers, ground)).transpose()?;
        let field = Field { plan, ground, heat: *heat, rounds };
        for (n, round) in field.run(&servers).await {
            row.add(n, plan.seed, &round);
        }
        if let Some((ended, upkeep)) = upkeep {
            ended.store(true, Ordering::SeqCst);
            upkeep.await?;
        }
        row.took = begun.elapsed();
        for fault in settle(ground).await? {
            row.fault(&fault);
        }
        proof.rows.push(row);
    }
    if manner == Manner::Brief {
        let left = purge_all(&servers, ground).await?;
        if left > 0 {
            proof.faults.push(format!("stuck: upkeep left {left} registrations that are over"));
        }
    }
    let faults = servers.stop().await?;
    proof.faults.extend(faults.into_iter().map(|fault| format!("{manner:?}: {fault}")));
    Ok(())
}

/// All rounds of one race.
struct Field<'a> {
    plan: &'a Plan,
    ground: &'a Arc<Ground>,
    heat: Heat,
    rounds: usize,
}

impl Field<'_> {
    /// Runs them on several lanes at once; the answer is in no particular order.
    async fn run(&self, servers: &Servers) -> Vec<(usize, Round)> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..self.heat.lanes.min(self.rounds) {
            let chance = Chance::new(self.plan.seed, &[self.heat.race as u64, n as u64]);
            let prefix = format!("{:?}-{}-{n}", self.heat.manner, self.heat.race as u8).to_lowercase();
            let mut lane = Lane::new(Arc::clone(self.ground), &servers.addresses, chance, prefix);
            let (next, rounds, race) = (Arc::clone(&next), self.rounds, self.heat.race);
            tasks.spawn(async move {
                let mut done = Vec::new();
                loop {
                    let round = next.fetch_add(1, Ordering::Relaxed);
                    if round >= rounds {
                        return done;
                    }
                    lane.calls.clear();
                    let judged = match tokio::time::timeout(PATIENCE * 3, race.round(&mut lane)).await {
                        Ok(Ok(round)) => round,
                        Ok(Err(trouble)) => troubled(&lane, trouble.to_string()),
                        Err(_) => troubled(&lane, "stuck: a round took too long".to_owned()),
                    };
                    if !judged.is_clean() {
                        // Whoever was in an odd state is left alone.
                        lane.accounts.clear();
                    }
                    // What is clean needs no history.
                    let history = if judged.is_clean() { Vec::new() } else { judged.history };
                    done.push((round, Round { history, ..judged }));
                }
            });
        }
        let mut rounds: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
        rounds.sort_by_key(|(n, _)| *n);
        rounds
    }
}

/// A round that came to no judgement, with whatever was called in it.
fn troubled(lane: &Lane, trouble: String) -> Round {
    let round = Round { history: lane.calls.clone(), ..Round::default() };
    round.must(false, || trouble)
}

/// Runs upkeep in processes beside the servers, one after the other, until it is told to end. None of them is killed: its
/// lease would keep the next one from the run.
fn keep_purging(
    servers: &Servers,
    ground: &Arc<Ground>,
) -> Result<(Arc<AtomicBool>, tokio::task::JoinHandle<()>), Trouble> {
    let mut command = servers.command(&ground.database, &ground.mailbox.url(), &["maintenance", "run"])?;
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    let upkeep = tokio::spawn(async move {
        while !told.load(Ordering::SeqCst) && command.status().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    Ok((ended, upkeep))
}

/// Removes what is over, and answers how many registrations are left.
async fn purge_all(servers: &Servers, ground: &Ground) -> Result<i64, Trouble> {
    const SQL: &str = "SELECT count(*) FROM usermgr_registrations WHERE email_key LIKE $1";
    tokio::time::sleep(BRIEF + Duration::from_millis(200)).await;
    let url = ground.mailbox.url();
    let status = servers.command(&ground.database, &url, &["maintenance", "run"])?.status().await?;
    if !status.success() {
        return Err("maintenance run failed".into());
    }
    ground.database.number(SQL, "brief%").await
}

/// Waits until every mail has left, and says which came twice, or too often, or too seldom.
async fn settle(ground: &Ground) -> Result<Vec<String>, Trouble> {
    const SQL: &str = "SELECT count(*) FROM usermgr_outbox WHERE status = $1";
    let owed: HashMap<String, usize> =
        std::mem::take(&mut *ground.owed.lock().unwrap_or_else(PoisonError::into_inner));
    let mut faults = Vec::new();
    let begun = Instant::now();
    while ground.database.number(SQL, "queued").await? > 0 {
        if begun.elapsed() > PATIENCE {
            let left = ground.database.number(SQL, "queued").await?;
            faults.push(format!("stuck: {left} mails are still in the outbox"));
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let dead = ground.database.number(SQL, "dead").await?;
    if dead > 0 {
        faults.push(format!("{dead} mails are given up"));
    }
    faults
        .extend(ground.mailbox.doubles().iter().map(|letter| format!("a mail to {} came twice", letter.to)));
    for (address, wanted) in owed {
        let came = ground.mailbox.count(&address);
        if came != wanted {
            faults.push(format!("{came} mails to {address}, not {wanted}"));
        }
    }
    Ok(faults)
}
