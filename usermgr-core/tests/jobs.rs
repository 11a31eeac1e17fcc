//! Jobs of a host, started and stopped with its application.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use time::Duration;
use usermgr_core::domain::job::{JobOutcome, Schedule};
use usermgr_core::policy::MaintenancePolicy;
use usermgr_core::testing::{Mailbox, MemoryStore, TestClock};
use usermgr_core::worker::{Job, NextRun};
use usermgr_core::{BuildError, BuildFault, Policies, SecretKey, UserManager};

/// A host with a daily job that counts its runs.
fn host(
    store: &MemoryStore,
    clock: &Arc<TestClock>,
    name: &str,
    runs: &Arc<AtomicU32>,
    enabled: bool,
) -> Result<UserManager, BuildError> {
    let runs = Arc::clone(runs);
    let maintenance = MaintenancePolicy { enabled, ..MaintenancePolicy::default() };
    UserManager::builder()
        .store(Arc::new(store.clone()))
        .mailer(Arc::new(Mailbox::default()))
        .clock(Arc::clone(clock) as _)
        .secret_key(SecretKey::from_bytes([7; 32]))
        .policies(Policies { maintenance, ..Policies::default() })
        .job(Job::new(name.parse().unwrap(), Schedule::DailyAt(time::macros::time!(03:00)), move |_| {
            let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
            async move { Ok(format!("run {run}")) }
        }))
        .build()
}

#[tokio::test(start_paused = true)]
async fn a_job_of_a_host_runs_with_its_application_once_across_two() {
    let (store, clock, runs) = (MemoryStore::new(), Arc::new(TestClock::default()), Arc::default());
    let hosts = [1, 2].map(|_| host(&store, &clock, "old-pictures", &runs, true).unwrap());
    let idle = host(&store, &clock, "old-pictures", &runs, false).unwrap();
    let workers = [hosts[0].start_workers(), hosts[1].start_workers(), idle.start_workers()];
    tokio::time::sleep(std::time::Duration::from_secs(90)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    clock.advance(Duration::hours(15));
    tokio::time::sleep(std::time::Duration::from_secs(90)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 2, "it is 03:00");
    let listed = hosts[1].scheduler().list().await.unwrap();
    let names: Vec<_> = listed.iter().map(|status| status.job.as_str()).collect();
    assert_eq!(names, ["purge", "signing-keys", "retention", "old-pictures"]);
    let seen = listed[3].record.as_ref().unwrap();
    assert_eq!((seen.outcome, seen.runs), (Some(JobOutcome::Done), 2));
    assert_eq!(listed[3].next, NextRun::At(time::macros::datetime!(2026-01-03 03:00 UTC)));
    for workers in workers {
        workers.stop().await;
    }
    clock.advance(Duration::days(1));
    tokio::time::sleep(std::time::Duration::from_secs(90)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 2, "it stops with the application");
}

#[tokio::test(start_paused = true)]
async fn where_jobs_are_switched_off_none_runs() {
    let (store, clock, runs) = (MemoryStore::new(), Arc::new(TestClock::default()), Arc::default());
    let idle = host(&store, &clock, "old-pictures", &runs, false).unwrap();
    let workers = idle.start_workers();
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    workers.stop().await;
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert!(idle.scheduler().list().await.unwrap().iter().all(|status| status.record.is_none()));
}

#[test]
fn every_job_has_a_name_of_its_own() {
    let (store, clock, runs) = (MemoryStore::new(), Arc::new(TestClock::default()), Arc::default());
    let built = host(&store, &clock, "retention", &runs, true);
    let error = built.unwrap_err();
    assert!(matches!(&error.faults[..], [BuildFault::JobNamedTwice(name)] if name.as_str() == "retention"));
    assert!(error.to_string().contains("two jobs are called retention"));
}
