//! Starting and stopping.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::schedule::{Instances, jobs, noted};
use super::*;
use crate::worker::{Stopper, Workers};

#[tokio::test(start_paused = true)]
async fn stop_waits_for_what_is_under_way() {
    let bench = Bench::new();
    let id = bench.owe_code("slow");
    let jobs = jobs(&Instances::new(), [noted("tidy", &Arc::default())]);
    let workers = Workers::start(bench.worker(), None, Some(jobs.clone()));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(jobs.list().await.unwrap()[0].record.as_ref().unwrap().runs, 1);
    workers.stop().await;
    assert!(matches!(bench.outbox.row(id).settled[..], [DeliveryResult::Sent { .. }]));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_handle_stops_without_waiting() {
    let bench = Bench::new();
    let id = bench.owe_code("slow");
    let workers = Workers::start(bench.worker(), None, None);
    sleep(Duration::from_secs(1)).await;
    let dropped = Instant::now();
    drop(workers);
    assert_eq!(dropped.elapsed(), Duration::ZERO);
    let late = bench.owe_code("ana");
    sleep(Duration::from_secs(60)).await;
    assert!(matches!(bench.outbox.row(id).settled[..], [DeliveryResult::Sent { .. }]));
    assert_eq!(bench.outbox.row(late).attempts, 0);
}

#[tokio::test(start_paused = true)]
async fn every_clone_of_a_signal_hears_it_also_late() {
    let stopper = Stopper::new();
    let stop = stopper.token();
    assert!(!stop.is_requested());
    let waiting = timeout(Duration::from_secs(1), stop.requested()).await;
    assert!(waiting.is_err());
    let early = stop.clone();
    stopper.stop();
    for stop in [&stop, &early, &stopper.token()] {
        assert!(stop.is_requested());
        stop.requested().await;
    }
    let other = Stopper::new();
    let orphan = other.token();
    drop(other);
    assert!(orphan.is_requested());
    orphan.requested().await;
}
