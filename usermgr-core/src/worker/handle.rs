//! Starting and stopping what works in the background.

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{EventWorker, MailWorker, Scheduler};

/// Tells a loop that it is to end. Clones tell the same.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// Gives the signal of every [`Stop`] made from it, at [`stop`](Self::stop) or when it is dropped.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// A signal that was not given yet.
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Something to hand to a loop.
    pub fn token(&self) -> Stop {
        Stop(self.0.subscribe())
    }

    /// Gives the signal. It cannot be taken back.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Default for Stopper {
    fn default() -> Self {
        Self::new()
    }
}

impl Stop {
    /// Whether the signal was given.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Returns when the signal is given, at once when it was given before.
    pub async fn requested(&self) {
        // An error says that the stopper is gone, and that is the signal too.
        let _ = self.0.clone().wait_for(|stop| *stop).await;
    }
}

/// The workers of a process, running on tokio.
///
/// [`stop`](Self::stop) ends them in order. Dropping the handle tells them to end and does not wait.
///
/// ```
/// # use usermgr_core::testing::TestAuth;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let auth = TestAuth::new();
/// # let users = auth.users();
/// let workers = users.start_workers();
/// tokio::time::timeout(std::time::Duration::from_secs(10), workers.stop()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping the handle stops the workers"]
pub struct Workers {
    stopper: Stopper,
    tasks: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts the delivery of mails and, where they are given, the publishing of events and the schedule of jobs. Each works
    /// by itself: none waits for another.
    ///
    /// It must be called within a tokio runtime, as [`tokio::spawn`] must.
    pub fn start(mail: MailWorker, events: Option<EventWorker>, jobs: Option<Scheduler>) -> Self {
        let stopper = Stopper::new();
        let mut tasks = Vec::with_capacity(3);
        let stop = stopper.token();
        tasks.push(tokio::spawn(async move { mail.run(stop).await }));
        if let Some(events) = events {
            let stop = stopper.token();
            tasks.push(tokio::spawn(async move { events.run(stop).await }));
        }
        if let Some(jobs) = jobs {
            let stop = stopper.token();
            tasks.push(tokio::spawn(async move { jobs.run(stop).await }));
        }
        Self { stopper, tasks }
    }

    /// Tells the workers to end and waits until they did: nothing new is begun, and what is under way is settled.
    ///
    /// A delivery under way is bounded by its own time-out of two minutes, a job that is running is cut off ten seconds after
    /// it was told to stop; a host that cannot wait as long wraps this in
    /// a time-out, and what was cut off is delivered again, under the same identifier, when its lease has passed.
    pub async fn stop(mut self) {
        self.stopper.stop();
        for task in self.tasks.drain(..) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a worker did not end in order");
            }
        }
    }
}
