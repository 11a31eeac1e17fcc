//! Telling the host what happened, on the reference store.

use super::*;
use crate::domain::event::{Event, EventKind};
use crate::domain::id::{EventId, UserId};
use crate::memory::MemoryStore;
use crate::port::events::{EventPublisher, PublishError};
use crate::port::store::{EventDraft, Happened};
use crate::worker::{EventWorker, EventWorkerParts, Stopper, Workers};

/// A host that is told things, with faults to order.
#[derive(Debug, Default)]
struct Host {
    /// Each event as it was told, and when.
    told: Mutex<Vec<(Event, Instant)>>,
    /// Of whom nothing is taken.
    deaf_to: Mutex<Option<UserId>>,
    /// How many of the next are not taken.
    failing: AtomicU32,
    /// How many of the next panic.
    panicking: AtomicU32,
    /// How many of the next never end.
    hanging: AtomicU32,
}

impl Host {
    fn of(&self, user: UserId) -> Vec<Event> {
        let told = self.told.lock().unwrap();
        told.iter().map(|(event, _)| event.clone()).filter(|event| event.user_id == user).collect()
    }

    fn waits(&self) -> Vec<std::time::Duration> {
        let told = self.told.lock().unwrap();
        told.windows(2).map(|pair| pair[1].1 - pair[0].1).collect()
    }
}

#[async_trait]
impl EventPublisher for Host {
    async fn publish(&self, event: &Event) -> Result<(), PublishError> {
        self.told.lock().unwrap().push((event.clone(), Instant::now()));
        assert!(!take_one(&self.panicking), "planted");
        if take_one(&self.hanging) {
            std::future::pending::<()>().await;
        }
        let deaf = *self.deaf_to.lock().unwrap() == Some(event.user_id);
        if deaf || take_one(&self.failing) { Err(PublishError::new("the queue is full")) } else { Ok(()) }
    }
}

struct Scene {
    store: MemoryStore,
    host: Arc<Host>,
    clock: Arc<TokioClock>,
}

impl Scene {
    fn new() -> Self {
        Self { store: MemoryStore::new(), host: Arc::default(), clock: TokioClock::new() }
    }

    fn worker(&self) -> EventWorker {
        EventWorker::new(EventWorkerParts {
            store: Arc::new(self.store.clone()),
            publisher: Arc::clone(&self.host) as _,
            clock: Arc::clone(&self.clock) as _,
            random: Arc::new(SystemRandom),
        })
    }

    fn user(&self) -> UserId {
        UserId::new(self.clock.now(), &SystemRandom)
    }

    /// Something happens to a user.
    fn happens(&self, user: UserId) -> EventId {
        let draft =
            EventDraft { id: EventId::new(self.clock.now(), &SystemRandom), kind: EventKind::UserUpdated };
        let happened = Happened { user_updated: true, ..Happened::default() };
        self.store.state().unwrap().owe_events(&[draft], happened, user, self.clock.now());
        self.store.wake();
        draft.id
    }

    async fn run_for(&self, time: std::time::Duration) {
        let (stopper, worker) = (Stopper::new(), self.worker());
        let stop = stopper.token();
        let running = tokio::spawn(async move { worker.run(stop).await });
        tokio::time::sleep(time).await;
        stopper.stop();
        running.await.unwrap();
    }
}

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn an_event_is_told_until_it_is_taken_and_is_the_same_each_time() {
    let scene = Scene::new();
    scene.host.failing.store(2, Ordering::SeqCst);
    scene.host.panicking.store(1, Ordering::SeqCst);
    let user = scene.user();
    let id = scene.happens(user);
    scene.run_for(HOUR).await;
    let told = scene.host.of(user);
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|event| *event == told[0] && event.id == id));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_given_up_and_the_longest_wait_is_a_quarter_of_an_hour() {
    let scene = Scene::new();
    let user = scene.user();
    *scene.host.deaf_to.lock().unwrap() = Some(user);
    let first = scene.happens(user);
    scene.happens(user);
    scene.run_for(24 * HOUR).await;
    let told = scene.host.of(user);
    assert!(told.iter().all(|event| event.id == first), "what follows waits");
    assert!((95..=125).contains(&told.len()), "{} attempts in a day", told.len());
    let longest = scene.host.waits().into_iter().max().unwrap();
    assert!(longest <= std::time::Duration::from_secs(15 * 60 * 12 / 10 + 2), "{longest:?}");
    *scene.host.deaf_to.lock().unwrap() = None;
    scene.run_for(HOUR).await;
    let told = scene.host.of(user);
    assert_eq!(told.last().unwrap().position.as_u64(), 2, "then it all comes, in order");
}

#[tokio::test(start_paused = true)]
async fn a_user_whose_events_are_not_taken_holds_up_nobody_else() {
    let scene = Scene::new();
    let deaf = scene.user();
    *scene.host.deaf_to.lock().unwrap() = Some(deaf);
    scene.happens(deaf);
    let others: Vec<UserId> = (0..20).map(|_| scene.user()).collect();
    for _ in 0..3 {
        for user in &others {
            scene.happens(*user);
        }
    }
    scene.run_for(std::time::Duration::from_secs(2)).await;
    for user in others {
        let told: Vec<_> = scene.host.of(user).iter().map(|event| event.position).collect();
        assert_eq!(told.len(), 3);
        assert!(told.is_sorted());
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_never_answers_is_told_again_after_a_minute() {
    let scene = Scene::new();
    scene.host.hanging.store(1, Ordering::SeqCst);
    let user = scene.user();
    scene.happens(user);
    scene.run_for(HOUR).await;
    assert_eq!(scene.host.of(user).len(), 2);
    let wait = scene.host.waits()[0];
    assert!((60..70).contains(&wait.as_secs()), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn mails_leave_while_a_host_hangs() {
    let (scene, bench) = (Scene::new(), Bench::new());
    scene.host.hanging.store(u32::MAX, Ordering::SeqCst);
    for _ in 0..20 {
        scene.happens(scene.user());
    }
    let workers = Workers::start(bench.worker(), Some(scene.worker()), None);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(scene.host.told.lock().unwrap().len(), 8, "its lane is full");
    let mails: Vec<_> = (0..20).map(|_| bench.owe_code("ana")).collect();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(mails.iter().all(|id| bench.outbox.row(*id).done));
    workers.stop().await;
}
