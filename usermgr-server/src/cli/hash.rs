//! `hash`: what hashing costs on this machine.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::json;
use usermgr_core::Error;
use usermgr_core::crypto::hash_queue::{HashOrigin, HashPurpose};
use usermgr_core::crypto::hasher::HashPool;
use usermgr_core::crypto::password_text::NormalizedPassword;
use usermgr_core::domain::secret::Password;
use usermgr_core::policy::HashPolicy;
use usermgr_core::port::random::SystemRandom;

use super::failure::Failure;
use super::output::{Listing, print};
use crate::config::Config;

#[derive(Subcommand)]
pub(super) enum HashCommand {
    /// Measure what a hash takes by each setting, and name the strongest within a time
    #[command(after_help = "Example:\n  usermgr-server hash calibrate --target 50ms")]
    Calibrate {
        /// The most that one hash may take while all threads hash
        #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = milliseconds)]
        target: Duration,
        /// As JSON, one array
        #[arg(long)]
        json: bool,
    },
}

/// Memory in KiB and passes, the weakest first. The first five are those that OWASP takes for equally strong.
const SETTINGS: [(u32, u32); 10] = [
    (7_168, 5),
    (9_216, 4),
    (12_288, 3),
    (19_456, 2),
    (47_104, 1),
    (32_768, 2),
    (47_104, 2),
    (65_536, 2),
    (65_536, 3),
    (131_072, 3),
];
/// Hashes of each thread that count; one before them warms up.
const ROUNDS: usize = 5;

fn milliseconds(text: &str) -> Result<Duration, &'static str> {
    let number = text.strip_suffix("ms").and_then(|number| number.parse().ok());
    number.map(Duration::from_millis).ok_or("a number of milliseconds, such as 50ms")
}

struct Measured {
    memory_kib: u32,
    iterations: u32,
    /// The median while all threads hash.
    time: Duration,
    threads: usize,
}

pub(super) async fn run(config: &Config, command: HashCommand) -> Result<(), Failure> {
    let HashCommand::Calibrate { target, json } = command;
    let mut listing =
        Listing::new(json, &["memory_kib", "iterations", "ms a hash", "hashes a second", "MiB held"]);
    let mut chosen = None;
    for (memory_kib, iterations) in SETTINGS {
        let measured = measure(&config.policies.hashing, memory_kib, iterations).await?;
        listing.page(&[&measured], |one| one.value(), |one| one.texts())?;
        if measured.time <= target {
            chosen = Some(measured);
        }
    }
    listing.end()?;
    if json {
        return Ok(());
    }
    match chosen {
        None => print(
            "\nNone of these is within the target on this machine. Keep the default, which is the least that is advised.",
        ),
        Some(Measured { memory_kib, iterations, .. }) => print(&format!(
            "\nThe strongest within {} ms:\n\n[passwords]\nmemory_kib = {memory_kib}\niterations = {iterations}\n\n\
             Hashes of other settings are replaced as their users sign in.",
            target.as_millis()
        )),
    }
}

/// Hashes on all threads at once, as a storm of sign-ins does.
async fn measure(policy: &HashPolicy, memory_kib: u32, iterations: u32) -> Result<Measured, Failure> {
    let policy = HashPolicy { memory_kib, iterations, queue: None, ..policy.clone() };
    let pool = HashPool::start(&policy, Arc::new(SystemRandom))?;
    let threads = pool.gauges().threads;
    let tasks = (0..threads).map(|_| tokio::spawn(times(pool.clone())));
    let mut all = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        all.extend(task.await.map_err(io::Error::from)??);
    }
    all.sort_unstable();
    let time = all.get(all.len() / 2).copied().unwrap_or_default();
    Ok(Measured { memory_kib, iterations, time, threads })
}

async fn times(pool: HashPool) -> Result<Vec<Duration>, Failure> {
    let Ok(password) = NormalizedPassword::parse(&Password::new("correct horse battery staple")) else {
        return Ok(Vec::new());
    };
    let origin = HashOrigin { purpose: HashPurpose::NewPassword, network: String::new() };
    let mut times = Vec::new();
    for round in 0..=ROUNDS {
        let begun = Instant::now();
        pool.hash(password.clone(), origin.clone()).await.map_err(Error::from)?;
        if round > 0 {
            times.push(begun.elapsed());
        }
    }
    Ok(times)
}

impl Measured {
    fn rate(&self) -> f64 {
        f64::from(u32::try_from(self.threads).unwrap_or(u32::MAX)) / self.time.as_secs_f64()
    }

    fn memory_mib(&self) -> usize {
        usize::try_from(self.memory_kib).unwrap_or(usize::MAX).saturating_mul(self.threads) / 1024
    }

    fn value(&self) -> serde_json::Value {
        json!({
            "memory_kib": self.memory_kib,
            "iterations": self.iterations,
            "milliseconds": self.time.as_secs_f64() * 1e3,
            "hashes_per_second": self.rate(),
            "memory_mib": self.memory_mib(),
        })
    }

    fn texts(&self) -> Vec<String> {
        vec![
            self.memory_kib.to_string(),
            self.iterations.to_string(),
            format!("{:.1}", self.time.as_secs_f64() * 1e3),
            format!("{:.0}", self.rate()),
            self.memory_mib().to_string(),
        ]
    }
}
