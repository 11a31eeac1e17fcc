//! The scheduler, law by law, over the store in memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use time::macros::{datetime, time};
use tokio::time::{sleep, timeout};

use super::*;
use crate::domain::job::{JobName, JobOutcome, Schedule};
use crate::memory::MemoryStore;
use crate::port::store::job::{BeginJob, EndJob, JobBegun, JobLease, JobRecord, JobStore, RenewJob};
use crate::worker::{Job, JobEnd, JobResult, NextRun, Scheduler, Stop, Stopper};

const HOUR: Duration = Duration::from_secs(3600);

/// A clock that runs with tokio's time and can be set.
#[derive(Debug)]
struct Wall(Mutex<(OffsetDateTime, Instant)>);

impl Wall {
    fn set(&self, now: OffsetDateTime) {
        *self.0.lock().unwrap() = (now, Instant::now());
    }
}

impl Clock for Wall {
    fn now(&self) -> OffsetDateTime {
        let (set_to, at) = *self.0.lock().unwrap();
        set_to + at.elapsed()
    }
}

/// A store with faults to order.
#[derive(Default)]
struct Faulty {
    inner: MemoryStore,
    failing_begins: AtomicU32,
    failing_renewals: AtomicU32,
    failing_ends: AtomicU32,
}

#[async_trait]
impl JobStore for Faulty {
    async fn begin_job(&self, command: BeginJob) -> Result<JobBegun, StoreError> {
        if take_one(&self.failing_begins) {
            return Err(StoreError::unavailable("planted"));
        }
        self.inner.begin_job(command).await
    }

    async fn renew_job(&self, command: RenewJob) -> Result<JobLease, StoreError> {
        if take_one(&self.failing_renewals) {
            return Err(StoreError::unavailable("planted"));
        }
        self.inner.renew_job(command).await
    }

    async fn end_job(&self, command: EndJob) -> Result<JobLease, StoreError> {
        if take_one(&self.failing_ends) {
            return Err(StoreError::unavailable("planted"));
        }
        self.inner.end_job(command).await
    }

    async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError> {
        self.inner.jobs().await
    }
}

/// Instances that share a store and a clock, which stands at 10:30 of some day.
pub(super) struct Instances {
    store: Arc<Faulty>,
    clock: Arc<Wall>,
}

impl Instances {
    pub(super) fn new() -> Self {
        let clock = Wall(Mutex::new((datetime!(2026-01-02 10:30 UTC), Instant::now())));
        Self { store: Arc::default(), clock: Arc::new(clock) }
    }

    /// One more instance, with these jobs. It ends when what is answered is dropped.
    fn start<const N: usize>(&self, jobs: [Job; N]) -> Running {
        let scheduler = self::jobs(self, jobs);
        let stopper = Stopper::new();
        let (stop, jobs) = (stopper.token(), scheduler.clone());
        let task = tokio::spawn(async move { jobs.run(stop).await });
        Running { stopper, scheduler, task }
    }
}

struct Running {
    stopper: Stopper,
    scheduler: Scheduler,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn stop(self) -> Duration {
        let began = Instant::now();
        self.stopper.stop();
        timeout(Duration::from_secs(60), self.task).await.expect("it ends").unwrap();
        began.elapsed()
    }

    /// As a process that is killed: nothing is noted any more.
    fn kill(self) {
        self.task.abort();
    }
}

/// A scheduler of an instance.
pub(super) fn jobs<const N: usize>(instances: &Instances, jobs: [Job; N]) -> Scheduler {
    Scheduler {
        jobs: Arc::new(jobs),
        store: Arc::clone(&instances.store) as _,
        clock: Arc::clone(&instances.clock) as _,
        random: Arc::new(SystemRandom),
    }
}

/// When runs began.
type Notes = Arc<Mutex<Vec<Instant>>>;

/// An hourly job that notes its runs.
pub(super) fn noted(name: &str, notes: &Notes) -> Job {
    doing(name, Schedule::Every(time::Duration::HOUR), notes, |_| async { Ok("noted".to_owned()) })
}

fn doing<F>(
    name: &str,
    schedule: Schedule,
    notes: &Notes,
    run: impl Fn(Stop) -> F + Send + Sync + 'static,
) -> Job
where
    F: Future<Output = JobResult> + Send + 'static,
{
    let notes = Arc::clone(notes);
    Job::new(name.parse().unwrap(), schedule, move |stop| {
        notes.lock().unwrap().push(Instant::now());
        run(stop)
    })
}

fn hourly<F>(name: &str, notes: &Notes, run: impl Fn(Stop) -> F + Send + Sync + 'static) -> Job
where
    F: Future<Output = JobResult> + Send + 'static,
{
    doing(name, Schedule::Every(time::Duration::HOUR), notes, run)
}

/// When runs began, in minutes from the beginning.
fn minutes(notes: &Notes, began: Instant) -> Vec<u64> {
    notes.lock().unwrap().iter().map(|at| (*at - began).as_secs() / 60).collect()
}

async fn record(instances: &Instances) -> JobRecord {
    instances.store.jobs().await.unwrap().remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_daily_job_runs_at_its_time_on_one_of_many_instances() {
    let (instances, notes, began) = (Instances::new(), Notes::default(), Instant::now());
    let daily = || doing("tidy", Schedule::DailyAt(time!(12:00)), &notes, |_| async { Ok(String::new()) });
    let running: Vec<Running> = (0..16).map(|_| instances.start([daily()])).collect();
    sleep(HOUR * 73).await;
    assert_eq!(minutes(&notes, began), [0, 90, 90 + 1440, 90 + 2 * 1440], "first made up for, then at noon");
    assert_eq!(record(&instances).await.runs, 4);
    for running in running {
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_missed_is_made_up_for_at_the_start() {
    let (instances, notes) = (Instances::new(), Notes::default());
    let daily = || doing("tidy", Schedule::DailyAt(time!(00:00)), &notes, |_| async { Ok(String::new()) });
    let first = instances.start([daily()]);
    sleep(HOUR).await;
    first.stop().await;
    let again = instances.start([daily()]);
    sleep(HOUR).await;
    again.stop().await;
    assert_eq!(notes.lock().unwrap().len(), 1, "another start on the same day");
    sleep(HOUR * 40).await;
    let began = Instant::now();
    let late = instances.start([daily()]);
    sleep(HOUR).await;
    late.stop().await;
    assert_eq!(minutes(&notes, began)[1..], [0]);
}

#[tokio::test(start_paused = true)]
async fn a_job_on_every_instance_runs_on_each_and_leaves_no_row() {
    let (instances, notes, began) = (Instances::new(), Notes::default(), Instant::now());
    let every = || noted("cache", &notes).on_every_instance();
    let running = [instances.start([every()]), instances.start([every()])];
    sleep(HOUR).await;
    assert_eq!(minutes(&notes, began), [0, 0, 30, 30]);
    assert_eq!(instances.store.jobs().await.unwrap(), []);
    let status = running[0].scheduler.list().await.unwrap().remove(0);
    assert_eq!(status.record.unwrap().runs, 2);
    assert_eq!(status.next, NextRun::At(datetime!(2026-01-02 12:00 UTC)));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_or_panics_runs_again_and_holds_no_other_up() {
    let (instances, began) = (Instances::new(), Instant::now());
    let (failing, panicking, well, stuck) =
        (Notes::default(), Notes::default(), Notes::default(), Notes::default());
    let running = instances.start([
        hourly("failing", &failing, |_| async { Err("planted".into()) }),
        hourly("panicking", &panicking, |_| async { panic!("planted") }),
        hourly("stuck", &stuck, |_| std::future::pending()),
        noted("well", &well),
    ]);
    sleep(HOUR * 2).await;
    assert_eq!(minutes(&well, began), [0, 30, 90]);
    assert_eq!(minutes(&stuck, began), [0]);
    for notes in [&failing, &panicking] {
        let times = minutes(notes, began);
        assert_eq!(times[0], 0);
        // Waits of 1, 2, 4, … 60 minutes, a fifth shorter or longer: 5 or 6 before 30, none or one of the hour before 90.
        assert!((7..=9).contains(&times.len()), "{times:?}");
        assert!(times.contains(&30) && times.contains(&90), "{times:?}");
    }
    let by_name: std::collections::BTreeMap<_, _> = instances
        .store
        .jobs()
        .await
        .unwrap()
        .into_iter()
        .map(|record| (record.job.to_string(), record))
        .collect();
    assert_eq!(by_name["failing"].outcome, Some(JobOutcome::Failed));
    assert_eq!(by_name["panicking"].outcome, Some(JobOutcome::Panicked));
    assert_eq!(by_name["failing"].failures, by_name["failing"].runs);
    assert_eq!(by_name["well"].failures, 0);
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_failed_once_is_done_a_minute_later() {
    let (instances, notes, began) = (Instances::new(), Notes::default(), Instant::now());
    let answers = Arc::new(Mutex::new(VecDeque::from([Err("planted"), Ok("done")])));
    let job = hourly("tidy", &notes, move |_| {
        let answer = answers.lock().unwrap().pop_front().unwrap();
        async move { Ok(answer?.to_owned()) }
    });
    let running = instances.start([job]);
    sleep(Duration::from_secs(80)).await;
    let seconds: Vec<u64> = notes.lock().unwrap().iter().map(|at| (*at - began).as_secs()).collect();
    assert!(seconds.len() == 2 && (48..=72).contains(&seconds[1]), "{seconds:?}");
    let seen = record(&instances).await;
    assert_eq!((seen.outcome, seen.attempts, seen.failures), (Some(JobOutcome::Done), 0, 1));
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_long_run_is_not_run_twice_while_its_process_lives() {
    let (instances, notes, began) = (Instances::new(), Notes::default(), Instant::now());
    let long = || {
        hourly("tidy", &notes, |_| async {
            sleep(HOUR * 3).await;
            Ok(String::new())
        })
    };
    let running = [instances.start([long()]), instances.start([long()])];
    instances.store.failing_renewals.store(4, Ordering::SeqCst);
    sleep(Duration::from_secs(3 * 3600 - 1)).await;
    assert_eq!(minutes(&notes, began), [0], "four renewals that fail are borne");
    sleep(Duration::from_secs(200)).await;
    assert_eq!(notes.lock().unwrap().len(), 2, "the periods that began meanwhile are made up for, once");
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_run_of_a_process_that_was_killed_is_taken_over_after_its_lease() {
    let (instances, notes, began) = (Instances::new(), Notes::default(), Instant::now());
    let job = || hourly("tidy", &notes, |_| std::future::pending());
    let dead = instances.start([job()]);
    sleep(Duration::from_secs(10)).await;
    dead.kill();
    let heir = instances.start([noted("tidy", &notes)]);
    sleep(Duration::from_secs(109)).await;
    assert_eq!(minutes(&notes, began), [0]);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(minutes(&notes, began), [0, 2]);
    let seen = record(&instances).await;
    assert_eq!((seen.outcome, seen.runs, seen.failures), (Some(JobOutcome::Done), 2, 1));
    drop(heir);
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_lease_was_lost_is_told_to_stop_and_notes_nothing() {
    let (instances, notes) = (Instances::new(), Notes::default());
    let told = Notes::default();
    let heard = Arc::clone(&told);
    let job = hourly("tidy", &notes, move |stop| {
        let heard = Arc::clone(&heard);
        async move {
            stop.requested().await;
            heard.lock().unwrap().push(Instant::now());
            Err("stopped".into())
        }
    });
    let cut_off = instances.start([job]);
    sleep(Duration::from_secs(1)).await;
    // For longer than the lease no renewal arrives, and somebody else takes the run.
    instances.store.failing_renewals.store(6, Ordering::SeqCst);
    sleep(Duration::from_secs(120)).await;
    let heir = instances.start([hourly("tidy", &notes, |_| std::future::pending())]);
    sleep(Duration::from_secs(40)).await;
    assert_eq!((notes.lock().unwrap().len(), told.lock().unwrap().len()), (2, 1));
    let seen = record(&instances).await;
    assert!(seen.lease.is_some(), "the heir's run goes on: {seen:?}");
    assert_eq!(seen.outcome, Some(JobOutcome::Lost));
    drop((cut_off, heir));
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_a_run_end_and_cuts_one_off_that_does_not() {
    let instances = Instances::new();
    let notes = Notes::default();
    let kind = hourly("kind", &notes, |stop| async move {
        stop.requested().await;
        sleep(Duration::from_secs(3)).await;
        Ok("the rest of it".to_owned())
    });
    let stopped = instances.start([kind.clone()]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(stopped.stop().await.as_secs(), 3);
    assert_eq!(record(&instances).await.outcome, Some(JobOutcome::Done));

    let instances = Instances::new();
    let deaf = hourly("deaf", &notes, |_| std::future::pending());
    let stopped = instances.start([deaf]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(stopped.stop().await.as_secs(), 10);
    let seen = record(&instances).await;
    assert_eq!((seen.outcome, seen.lease), (Some(JobOutcome::Stopped), None));
    let again = Notes::default();
    let next = instances.start([noted("deaf", &again)]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(again.lock().unwrap().len(), 1, "it is due at once");
    drop(next);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_asked_again() {
    let (instances, notes, began) = (Instances::new(), Notes::default(), Instant::now());
    instances.store.failing_begins.store(5, Ordering::SeqCst);
    instances.store.failing_ends.store(4, Ordering::SeqCst);
    let running = instances.start([noted("tidy", &notes)]);
    sleep(HOUR).await;
    assert_eq!(minutes(&notes, began), [0, 30], "its end was noted at the fifth time, so it ran once");
    let seen = record(&instances).await;
    assert_eq!((seen.runs, seen.failures), (2, 0));

    instances.store.failing_ends.store(5, Ordering::SeqCst);
    sleep(HOUR).await;
    let seen = record(&instances).await;
    assert_eq!((seen.runs, seen.failures), (4, 1), "an end that is never noted looks like a death");
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_neither_repeats_nor_stops_a_job() {
    let (instances, notes) = (Instances::new(), Notes::default());
    let daily = doing("tidy", Schedule::DailyAt(time!(12:00)), &notes, |_| async { Ok(String::new()) });
    let running = instances.start([daily]);
    let runs = || notes.lock().unwrap().len();
    sleep(HOUR * 2).await;
    assert_eq!(runs(), 2, "at the start and at noon");
    instances.clock.set(datetime!(2026-01-02 11:59 UTC));
    sleep(HOUR).await;
    assert_eq!(runs(), 2, "noon comes twice and counts once");
    instances.clock.set(datetime!(2026-02-02 11:59 UTC));
    sleep(Duration::from_secs(120)).await;
    assert_eq!(runs(), 4, "a month was missed, and it is noon");
    instances.clock.set(datetime!(2026-01-02 13:00 UTC));
    sleep(HOUR * 22).await;
    assert_eq!(runs(), 4);
    sleep(HOUR * 2).await;
    assert_eq!(runs(), 5, "the next noon, not the one a month from now");
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn runs_by_hand_tell_what_they_did_and_leave_what_runs_elsewhere() {
    let (instances, notes) = (Instances::new(), Notes::default());
    let all = || {
        let nested = std::io::Error::other(StoreError::unavailable("the disk is full"));
        let nested = Arc::new(Mutex::new(Some(nested)));
        [
            noted("well", &notes),
            hourly("failing", &notes, move |_| {
                let error = nested.lock().unwrap().take().unwrap();
                async move { Err(error.into()) }
            }),
            hourly("panicking", &notes, |_| async { panic!("planted") }),
        ]
    };
    let stopper = Stopper::new();
    let by_hand = jobs(&instances, all());
    let ends: Vec<(JobName, JobEnd)> =
        by_hand.run_now(&stopper.token()).await.into_iter().map(|run| (run.job, run.end)).collect();
    let why = "the store is unavailable: the disk is full".to_owned();
    let expected = [JobEnd::Done("noted".into()), JobEnd::Failed(why), JobEnd::Panicked];
    assert_eq!(ends.iter().map(|(_, end)| end.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(ends.iter().map(|(_, end)| end.is_well()).collect::<Vec<_>>(), [true, false, false]);
    let listed = by_hand.list().await.unwrap();
    assert_eq!(listed[0].next, NextRun::At(datetime!(2026-01-02 11:00 UTC)));
    assert!(matches!(listed[1].next, NextRun::At(at) if at < datetime!(2026-01-02 10:32 UTC)));

    let running = instances.start([hourly("well", &notes, |_| std::future::pending())]);
    sleep(HOUR).await;
    let by_hand = jobs(&instances, [noted("well", &notes)]).run_now(&stopper.token()).await.remove(0);
    assert!(matches!(by_hand.end, JobEnd::Elsewhere { .. }) && by_hand.end.is_well(), "{by_hand:?}");
    assert!(matches!(running.scheduler.list().await.unwrap()[0].next, NextRun::Running { .. }));
    instances.store.failing_begins.store(1, Ordering::SeqCst);
    let unknown = jobs(&instances, [noted("well", &notes)]).run_now(&stopper.token()).await.remove(0);
    assert_eq!(unknown.end, JobEnd::Unknown("the store is unavailable: planted".into()));
    stopper.stop();
    assert_eq!(jobs(&instances, all()).run_now(&stopper.token()).await, []);
}
