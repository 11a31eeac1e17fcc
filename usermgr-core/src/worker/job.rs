//! A job: what a host, or the upkeep, wants to be done again and again.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;

use super::Stop;
use crate::domain::job::{JobName, JobScope, Schedule};
use crate::port::store::job::JobRecord;

/// What a run answers: in a few words what it did, or why it could not. Both are logged, neither is stored.
pub type JobResult = Result<String, Box<dyn std::error::Error + Send + Sync>>;

type Run = dyn Fn(Stop) -> Pin<Box<dyn Future<Output = JobResult> + Send>> + Send + Sync;

/// Something that is done again and again. Cloning is cheap and shares everything.
///
/// ```
/// use usermgr_core::domain::job::Schedule;
/// use usermgr_core::worker::Job;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let job = Job::new("greet".parse()?, Schedule::DailyAt(time::macros::time!(03:00)), |_stop| async {
///     Ok("said hello".to_owned())
/// });
/// # drop(job);
/// # Ok(())
/// # }
/// ```
///
/// # Security
/// A run may happen twice: when its process is cut off from the store for longer than its lease, or dies after its work
/// and before that is noted. Whatever a job does, doing it again must do no harm.
#[derive(Clone)]
pub struct Job {
    pub(super) name: JobName,
    pub(super) schedule: Schedule,
    pub(super) scope: JobScope,
    pub(super) run: Arc<Run>,
    /// What this instance knows of a job that runs on every one.
    own: Arc<Mutex<Option<JobRecord>>>,
}

impl Job {
    /// A job that runs once in each period across all instances that share the store.
    ///
    /// `run` is called for each run, on a task of its own. It gets a signal that is given when its process stops or its
    /// lease was lost; a run that goes on for 10 seconds afterwards is cut off. One that was cut off, or then answers an
    /// error, is due again at once. Blocking calls belong into `tokio::task::spawn_blocking`.
    pub fn new<F, R>(name: JobName, schedule: Schedule, run: R) -> Self
    where
        R: Fn(Stop) -> F + Send + Sync + 'static,
        F: Future<Output = JobResult> + Send + 'static,
    {
        let run = move |stop| Box::pin(run(stop)) as Pin<Box<dyn Future<Output = JobResult> + Send>>;
        Self { name, schedule, scope: JobScope::OncePerPeriod, run: Arc::new(run), own: Arc::default() }
    }

    /// The same on each instance, for what is local to one. It leaves no row in the store.
    #[must_use]
    pub fn on_every_instance(mut self) -> Self {
        self.scope = JobScope::OnEveryInstance;
        self
    }

    /// The job's name.
    pub const fn name(&self) -> &JobName {
        &self.name
    }

    pub(super) fn own(&self) -> MutexGuard<'_, Option<JobRecord>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("name", &self.name)
            .field("schedule", &self.schedule)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// A run of a job in this process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobRun {
    /// Which job.
    pub job: JobName,
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub end: JobEnd,
}

/// What came of asking for a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each is told to an operator in words of its own")]
pub enum JobEnd {
    /// It was done; this is what it did.
    Done(String),
    /// It failed, and this is why. It runs again after a while.
    Failed(String),
    /// It panicked. It runs again after a while.
    Panicked,
    /// It did not get to its end because the process stops. It is due at once, here or elsewhere.
    Stopped,
    /// Its lease was lost while it ran; somebody else may run it.
    LeaseLost,
    /// Somebody else runs it, under a lease until then.
    Elsewhere {
        /// When the lease passes, unless it is renewed.
        until: OffsetDateTime,
    },
    /// The store could not say who is to run it, and this is why.
    Unknown(String),
}

impl JobEnd {
    /// Whether the job was done, or somebody else is doing it.
    pub const fn is_well(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Elsewhere { .. })
    }

    /// The end's stable name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Failed(_) => "failed",
            Self::Panicked => "panicked",
            Self::Stopped => "stopped",
            Self::LeaseLost => "lost",
            Self::Elsewhere { .. } => "elsewhere",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// How a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobStatus {
    /// Which job.
    pub job: JobName,
    /// When it runs.
    pub schedule: Schedule,
    /// On how many instances.
    pub scope: JobScope,
    /// When it runs next.
    pub next: NextRun,
    /// What is known of its runs; `None` before the first one. Of a job that runs on every instance, it is this
    /// instance's.
    pub record: Option<JobRecord>,
}

/// When a job runs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each is told to an operator in words of its own")]
pub enum NextRun {
    /// It is due, and whoever runs jobs takes it within a minute.
    Due,
    /// Then.
    At(OffsetDateTime),
    /// It is running, under a lease until then.
    Running {
        /// When the lease passes, unless it is renewed.
        until: OffsetDateTime,
    },
}
