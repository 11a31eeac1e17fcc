//! Faults of the store under load: whoever is refused is told so honestly, what was acknowledged is there afterwards, and
//! the server recovers by itself.

mod inject;
mod life;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::mail::Mailbox;
use crate::server::{Database, Manner, Servers};
use crate::{SetUp, Trouble};
pub use inject::Fault;
use inject::Injection;
use life::{Life, Seen, Visitor};

/// How many go through their flows at once.
const VISITORS: usize = 6;
/// How many hang up in the middle of a request, over and over, until the fault.
const LEAVERS: usize = 4;
/// How long all must go well before a fault.
const CALM: Duration = Duration::from_millis(1500);
/// How soon after a fault nobody may be refused any more.
const RECOVERY: Duration = Duration::from_secs(5);
/// How long the flows go on after a fault.
const AFTERWARDS: Duration = Duration::from_secs(7);
/// How long an answer may take: the server's own bound and a little.
const ANSWER: Duration = Duration::from_secs(32);
/// Log lines for each refusal, and for each second, that are no flood.
const LINES: (usize, usize) = (3, 10);
/// The connections of the pool: each that is cut off may be told of, also when nobody is refused for it.
const CONNECTIONS: usize = 10;

/// What the faults need of the outside.
#[derive(Debug, Clone)]
pub struct FaultPlan {
    /// What restarts the cluster: a program that takes `fast` or `immediate`.
    pub restart_postgres: PathBuf,
    /// libfaketime, which sets a program's clock.
    pub faketime: Option<PathBuf>,
    /// Whether some faults last longer than every time-out of the server.
    pub long: bool,
}

/// What one fault showed.
#[derive(Debug)]
pub struct Felt {
    fault: Fault,
    lasted: Duration,
    calls: usize,
    acknowledged: usize,
    refused: usize,
    slowest: Duration,
    recovered: Duration,
    lines: usize,
    /// The line of the log that names the fault.
    line: String,
    /// What broke a rule.
    pub faults: Vec<String>,
}

impl Felt {
    /// The head of the table.
    pub const HEAD: &str = "| store      | fault                                    | lasted | calls | acknowledged effects | lost | 503 | slowest answer | recovered after | log lines |\n\
         |------------|------------------------------------------|-------:|------:|---------------------:|-----:|----:|---------------:|----------------:|----------:|\n";

    /// A line of the table.
    pub fn row(&self) -> String {
        let lost = self.faults.iter().filter(|fault| fault.starts_with("lost")).count();
        format!(
            "| {:<10} | {:<40} | {:>4.1} s | {:>5} | {:>20} | {lost:>4} | {:>3} | {:>12.1} s | {:>13.1} s | {:>9} |\n",
            if self.fault.is_postgres() { "PostgreSQL" } else { "SQLite" },
            self.fault.name(),
            self.lasted.as_secs_f64(),
            self.calls,
            self.acknowledged,
            self.refused,
            self.slowest.as_secs_f64(),
            self.recovered.as_secs_f64(),
            self.lines,
        )
    }

    /// What the log said of it, and what broke a rule.
    pub fn told(&self) -> String {
        let mut text = format!("{}: {}\n", self.fault.name(), self.line);
        for fault in self.faults.iter().take(20) {
            let _ = writeln!(text, "  BROKEN: {fault}");
        }
        text
    }
}

/// Has one fault happen under load, and judges what was answered and what is there afterwards.
///
/// # Errors
/// When the server or the database cannot be started at all, or the fault cannot be had here.
pub async fn prove_fault(plan: &FaultPlan, fault: Fault) -> Result<Felt, Trouble> {
    let set_up = if fault.is_postgres() { SetUp::Postgres } else { SetUp::Sqlite };
    let mut injection = Injection::prepare(plan, fault).await?;
    let database = match injection.folder() {
        Some(folder) => Database::sqlite(&folder.join("usermgr.db"))?,
        None => Database::create(set_up).await?,
    };
    if fault.is_postgres() {
        database.commit_durably().await?;
    }
    let settings = injection.settings(&database).await?;
    let mailbox = Mailbox::open().await?;
    let servers = Servers::start_with(&database, &mailbox.url(), Manner::Opaque, 1, settings).await?;
    let address = *servers.addresses.first().ok_or("no server")?;
    let process = servers.process().ok_or("the server is gone")?;

    let (stop, begun) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let mut visitors = tokio::task::JoinSet::new();
    for n in 0..VISITORS {
        let visitor = Visitor::new(n, address, mailbox.clone(), begun);
        let stop = Arc::clone(&stop);
        visitors.spawn(visitor.go(stop));
    }
    let mut leavers = tokio::task::JoinSet::new();
    for n in 0..LEAVERS {
        leavers.spawn(life::leave_again_and_again(n, address));
    }
    tokio::time::sleep(CALM).await;
    // Dropping them ends them. What is refused during the fault is counted, and theirs would not be.
    drop(leavers);
    let begins = begun.elapsed();
    let injected = injection.happen(&database, process).await;
    let ends = begun.elapsed();
    tokio::time::sleep(AFTERWARDS).await;
    stop.store(true, Ordering::SeqCst);
    let (mut seen, mut lives) = (Vec::new(), Vec::new());
    while let Some(visited) = visitors.join_next().await {
        let (calls, more): (Vec<Seen>, Vec<Life>) = visited?;
        seen.extend(calls);
        lives.extend(more);
    }
    injected?;
    let mut felt = judge(fault, begins, ends, &seen);
    felt.acknowledged = lives.iter().map(Life::acknowledged).sum();
    let log = servers.said();
    felt.judge_log(&log);
    felt.faults.extend(life::check_all(lives, address, &mailbox).await);
    if let Some(trouble) = injection.wrong_afterwards(&database).await? {
        felt.faults.push(trouble);
    }
    servers.clear_log()?;
    felt.faults.extend(servers.stop().await?);
    database.remove().await?;
    injection.remove().await?;
    Ok(felt)
}

/// Judges the answers.
fn judge(fault: Fault, begins: Duration, ends: Duration, seen: &[Seen]) -> Felt {
    let mut faults = Vec::new();
    let mut refused = 0;
    let mut recovered = Duration::ZERO;
    let mut well = (0, 0);
    for call in seen {
        let is_fine = call.is_expected() || fault.permits(call.status, &call.code);
        if call.end < begins {
            well.0 += 1;
        }
        if is_fine && call.start > ends {
            well.1 += 1;
        }
        if is_fine {
            continue;
        }
        refused += 1;
        let is_told =
            call.retry_after.as_ref().is_some_and(|seconds| seconds.parse::<u32>().is_ok_and(|n| n > 0));
        if call.status != 503 || !is_told {
            let Seen { label, status, code, retry_after, start, .. } = call;
            faults.push(format!("{label} at {start:.1?}: {status} {code}, Retry-After {retry_after:?}"));
        }
        if call.end < begins {
            faults.push(format!("{} is refused before the fault: {} {}", call.label, call.status, call.code));
        }
        recovered = recovered.max(call.start.saturating_sub(ends));
    }
    if well.0 == 0 || well.1 == 0 {
        faults.push(format!("{} calls went well before the fault and {} after it", well.0, well.1));
    }
    if recovered > RECOVERY {
        faults.push(format!("calls were still refused {recovered:.1?} after the fault"));
    }
    let slowest = seen.iter().map(|call| call.end.saturating_sub(call.start)).max().unwrap_or_default();
    Felt {
        fault,
        lasted: ends.saturating_sub(begins),
        calls: seen.len(),
        acknowledged: 0,
        refused,
        slowest,
        recovered,
        lines: 0,
        line: String::new(),
        faults,
    }
}

impl Felt {
    /// One line names the fault, and there is no flood of them.
    fn judge_log(&mut self, log: &str) {
        self.lines = log.lines().count();
        let lowered = log.to_lowercase();
        let names = |line: &&str| self.fault.words().iter().any(|word| line.contains(word));
        self.line = lowered.lines().find(names).unwrap_or_default().to_owned();
        if self.line.is_empty() {
            if self.refused > 0 {
                self.faults
                    .push(format!("no line of the log names the fault; the last are: {}", last_lines(log)));
            } else if !self.fault.may_go_unnoticed() {
                // Requests may all be served from memory while a worker runs into the fault.
                self.faults.push("the fault was not felt".to_owned());
            }
        }
        let seconds = usize::try_from(self.lasted.as_secs()).unwrap_or(0) + 1;
        if self.lines > LINES.0 * self.refused + LINES.1 * seconds + LINES.0 * CONNECTIONS {
            self.faults.push(format!(
                "{} log lines for {} refusals; the last are: {}",
                self.lines,
                self.refused,
                last_lines(log)
            ));
        }
        if let Some(line) = lowered.lines().find(|line| line.contains("panicked")) {
            self.faults.push(format!("logged: {line}"));
        }
    }
}

fn last_lines(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join("\n    ")
}
