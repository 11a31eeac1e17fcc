//! `maintenance`: the jobs that come back.

use clap::Subcommand;
use serde_json::json;
use usermgr_core::domain::job::JobOutcome;
use usermgr_core::worker::{JobEnd, JobRun, JobStatus, NextRun, Stopper};

use super::failure::Failure;
use super::output::{Listing, or_dash, time_text, time_value};
use crate::config::Config;
use crate::serve;

#[derive(Subcommand)]
pub(super) enum MaintenanceCommand {
    /// Run every job now, due or not, and tell what each did; what a server is running is left to it
    #[command(after_help = "Example:\n  usermgr-server maintenance run")]
    Run {
        /// As JSON, one array
        #[arg(long)]
        json: bool,
    },
    /// List the jobs: when each runs, when it last did and how that ended
    #[command(after_help = "Example:\n  usermgr-server maintenance list --json")]
    List {
        /// As JSON, one array
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(config: &Config, command: MaintenanceCommand) -> Result<(), Failure> {
    let scheduler = serve::manager(config).await?.scheduler();
    match command {
        MaintenanceCommand::Run { json } => {
            let stopper = Stopper::new();
            let stop = stopper.token();
            // Ctrl-C lets the job that runs end after its batch, and leaves it to the next process.
            tokio::spawn(async move {
                drop(tokio::signal::ctrl_c().await);
                stopper.stop();
            });
            let runs = scheduler.run_now(&stop).await;
            let mut listing = Listing::new(json, &["job", "outcome", "took", "what"]);
            listing.page(&runs, run_value, run_texts)?;
            listing.end()?;
            match runs.iter().filter(|run| !run.end.is_well()).count() {
                0 => Ok(()),
                not_done => Err(Failure::JobsNotDone(not_done)),
            }
        }
        MaintenanceCommand::List { json } => {
            let columns = &["job", "schedule", "last began", "outcome", "next", "runs", "failures"];
            let mut listing = Listing::new(json, columns);
            listing.page(&scheduler.list().await?, status_value, status_texts)?;
            listing.end()
        }
    }
}

/// What a run did, or why not.
fn what(end: &JobEnd) -> Option<String> {
    match end {
        JobEnd::Done(text) | JobEnd::Failed(text) | JobEnd::Unknown(text) => Some(text.clone()),
        JobEnd::Elsewhere { until } => {
            Some(format!("another process runs it, under a lease until {}", time_text(*until)))
        }
        JobEnd::Panicked | JobEnd::Stopped | JobEnd::LeaseLost => None,
    }
}

fn run_value(run: &JobRun) -> serde_json::Value {
    json!({
        "job": run.job.as_str(),
        "outcome": run.end.as_str(),
        "took_ms": u64::try_from(run.took.as_millis()).unwrap_or(u64::MAX),
        "what": what(&run.end),
    })
}

fn run_texts(run: &JobRun) -> Vec<String> {
    vec![
        run.job.to_string(),
        run.end.as_str().to_owned(),
        format!("{} ms", run.took.as_millis()),
        or_dash(what(&run.end)),
    ]
}

fn status_value(status: &JobStatus) -> serde_json::Value {
    let record = status.record.as_ref();
    let (state, next_at) = match status.next {
        NextRun::Due => ("due", None),
        NextRun::At(at) => ("waiting", time_value(at)),
        NextRun::Running { .. } => ("running", None),
    };
    json!({
        "job": status.job.as_str(),
        "schedule": status.schedule.to_string(),
        "state": state,
        "next_at": next_at,
        "last_started_at": record.and_then(|record| time_value(record.started_at)),
        "last_ended_at": record.and_then(|record| record.ended_at).and_then(time_value),
        "last_outcome": record.and_then(|record| record.outcome).map(JobOutcome::as_str),
        "runs": record.map_or(0, |record| record.runs),
        "failures": record.map_or(0, |record| record.failures),
    })
}

fn status_texts(status: &JobStatus) -> Vec<String> {
    let record = status.record.as_ref();
    let next = match status.next {
        NextRun::Due => "due".to_owned(),
        NextRun::At(at) => time_text(at),
        NextRun::Running { .. } => "running".to_owned(),
    };
    vec![
        status.job.to_string(),
        status.schedule.to_string(),
        or_dash(record.map(|record| time_text(record.started_at))),
        or_dash(record.and_then(|record| record.outcome).map(JobOutcome::as_str)),
        next,
        record.map_or(0, |record| record.runs).to_string(),
        record.map_or(0, |record| record.failures).to_string(),
    ]
}
