//! Password hashing in a pool of its own: the one expensive thing here, kept away from everything else.
//!
//! A fixed number of threads hash, each with one block of memory for life; a bounded queue stands in front, and past it
//! callers are refused at once, before any memory is taken. So memory does not grow with the number of callers, and
//! a storm of sign-ins never takes a thread that serves requests. The queue is [fair](super::hash_queue) to purposes and
//! networks, and on Linux the threads give way to all others.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use password_hash::phc::{Ident, Output, PasswordHash as Phc, Salt};
use subtle::ConstantTimeEq as _;
use tokio::sync::oneshot;
use zeroize::{Zeroize as _, Zeroizing};

use super::foreign_hash::{ForeignHash, UnsupportedHash};
use super::hash_queue::{HashOrigin, HashQueue, Pushed};
use super::password_text::NormalizedPassword;
use crate::domain::password::PasswordHash;
use crate::policy::HashPolicy;
use crate::port::random::Random;

/// Bytes of a new salt (RFC 9106 §3.1 recommends 16).
const SALT_BYTES: usize = 16;
/// Bytes of a new hash.
const OUTPUT_BYTES: usize = 32;
/// Places in the queue for each thread, unless the policy says otherwise.
const QUEUE_PER_THREAD: usize = 64;
/// The most memory that a stored hash may ask for, in KiB, or [`STORED_MEMORY_FACTOR`] times the policy's if that is
/// more.
pub(super) const MAX_STORED_MEMORY_KIB: u32 = 256 * 1024;
/// How many times the policy's memory a stored hash may ask for: so a policy can be lowered again.
const STORED_MEMORY_FACTOR: u32 = 4;
/// The most passes that a stored hash may ask for.
pub(super) const MAX_STORED_ITERATIONS: u32 = 100;
/// The most KiB times passes of a hash, stored or new, which is what its time goes by: some ten seconds of one core.
pub(super) const MAX_WORK: u64 = 4 * 1024 * 1024;
/// The most lanes that a stored hash may ask for.
pub(super) const MAX_STORED_PARALLELISM: u32 = 64;
/// The fewest and the most bytes of a stored salt (48 are the most that the PHC string form takes).
const STORED_SALT_BYTES: std::ops::RangeInclusive<usize> = 8..=48;
/// The version of Argon2 that is computed, in PHC strings `v=19` (RFC 9106). A string without a version is of an
/// older one.
const VERSION: Version = Version::V0x13;
/// The fewest and the most bytes of a stored output.
const STORED_OUTPUT_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

/// The nice value of the threads, of -20 to 19: about a tenth of the weight of others while those are busy.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;
/// What a job is taken to last until one was measured, in microseconds.
const FIRST_JOB_MICROS: u64 = 20_000;
/// The shortest wait that a refused caller is told.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Threads that hash passwords. Cloning shares them; they end when the last clone is dropped.
#[derive(Clone)]
pub struct HashPool(Arc<Handle>);

/// Ends the threads when the last clone of the pool goes.
struct Handle(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    params: Params,
    random: Arc<dyn Random>,
    /// Salt and output to compare with where there is no stored hash, or none that can be computed.
    dummy: [u8; SALT_BYTES + OUTPUT_BYTES],
    /// How long a job took lately, in microseconds: what a refused caller is told to wait.
    job_micros: AtomicU64,
    refused: AtomicU64,
    threads: usize,
}

struct Queue {
    jobs: HashQueue<Waiting>,
    running: usize,
    /// How long the job that was begun last had waited.
    last_wait: Duration,
    stopped: bool,
}

/// A job in the queue.
struct Waiting {
    since: Instant,
    job: Job,
}

enum Job {
    Hash(NormalizedPassword, oneshot::Sender<Result<PasswordHash, HashError>>),
    Verify(NormalizedPassword, Option<PasswordHash>, oneshot::Sender<Result<Verified, HashError>>),
}

/// How a comparison ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum Verified {
    /// The password is right.
    Match {
        /// Whether it was hashed by other parameters than today's, or by another system, and should be hashed anew.
        upgrade: bool,
    },
    /// The password is wrong, or there was none to compare with.
    Mismatch,
}

/// Why a password was not hashed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HashError {
    /// Too many wait already.
    #[error("too many passwords wait to be hashed")]
    Overloaded {
        /// When there may be room again.
        retry_after: Duration,
    },
    /// The pool was stopped, or could not compute.
    #[error("the hash pool has stopped")]
    Stopped,
}

/// Why a pool could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HashPoolError {
    /// The parameters are out of Argon2's bounds.
    #[error("the hashing parameters are out of bounds: {0}")]
    Parameters(Box<dyn std::error::Error + Send + Sync>),
    /// A thread could not be started.
    #[error("a hashing thread could not be started")]
    Thread(#[source] std::io::Error),
}

/// How busy a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HashGauges {
    /// Jobs that wait.
    pub queued: usize,
    /// Jobs that are computed.
    pub running: usize,
    /// Callers refused since the start.
    pub refused: u64,
    /// How long the job that was begun last had waited.
    pub wait: Duration,
    /// How many threads there are.
    pub threads: usize,
    /// The memory that the threads hold for life, in KiB. Only a stored hash of other parameters takes more, for as
    /// long as it is computed.
    pub memory_kib: u64,
}

impl HashPool {
    /// Starts the threads and takes their memory: `memory_kib` for each, for life.
    ///
    /// # Errors
    /// [`HashPoolError::Parameters`] when Argon2 cannot have such parameters, [`HashPoolError::Thread`] when the system
    /// starts no thread.
    pub fn start(policy: &HashPolicy, random: Arc<dyn Random>) -> Result<Self, HashPoolError> {
        let params =
            Params::new(policy.memory_kib, policy.iterations, policy.parallelism, Some(OUTPUT_BYTES))
                .map_err(|error| HashPoolError::Parameters(Box::new(error)))?;
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = policy.threads.unwrap_or_else(cores).max(1);
        let mut dummy = [0_u8; SALT_BYTES + OUTPUT_BYTES];
        random.fill(&mut dummy);
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                jobs: HashQueue::new(policy.queue.unwrap_or(QUEUE_PER_THREAD * threads)),
                running: 0,
                last_wait: Duration::ZERO,
                stopped: false,
            }),
            wake: Condvar::new(),
            params,
            random,
            dummy,
            job_micros: AtomicU64::new(FIRST_JOB_MICROS),
            refused: AtomicU64::new(0),
            threads,
        });
        let pool = Self(Arc::new(Handle(Arc::clone(&shared))));
        for number in 0..threads {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name(format!("usermgr-hash-{number}"))
                .spawn(move || shared.work())
                .map_err(HashPoolError::Thread)?;
        }
        Ok(pool)
    }

    /// Hashes a password by today's parameters with a new salt. Dropped while it waits, it is never computed.
    ///
    /// # Errors
    /// [`HashError::Overloaded`] at once when the queue is full, and when one who waits gives way to another network;
    /// [`HashError::Stopped`] when it could not be computed.
    pub async fn hash(
        &self,
        password: NormalizedPassword,
        origin: HashOrigin,
    ) -> Result<PasswordHash, HashError> {
        let (answer, wait) = oneshot::channel();
        self.0.0.enqueue(origin, Job::Hash(password, answer))?;
        wait.await.unwrap_or(Err(HashError::Stopped))
    }

    /// Compares a password with a stored hash, ours or one of [another system](super::foreign_hash), which always wants
    /// an upgrade. Without one, and with one that cannot be read, the same work is done on a dummy and the answer is
    /// `Mismatch`. Dropped while it waits, it is never computed.
    ///
    /// # Errors
    /// [`HashError::Overloaded`] at once when the queue is full, and when one who waits gives way to another network;
    /// [`HashError::Stopped`] when it could not be computed.
    ///
    /// # Security
    /// Whether there was a hash cannot be told from the time this takes, as long as the stored hashes have today's
    /// parameters: one of another system takes its own time, until its user's next sign-in replaces it. The parameters
    /// of a stored hash are bounded before anything is computed by them.
    pub async fn verify(
        &self,
        password: NormalizedPassword,
        stored: Option<PasswordHash>,
        origin: HashOrigin,
    ) -> Result<Verified, HashError> {
        let (answer, wait) = oneshot::channel();
        self.0.0.enqueue(origin, Job::Verify(password, stored, answer))?;
        wait.await.unwrap_or(Err(HashError::Stopped))
    }

    /// Refuses at once whom there is no place for now, before anything else is done for them.
    ///
    /// # Errors
    /// [`HashError::Overloaded`].
    pub(crate) fn admit(&self, origin: &HashOrigin) -> Result<(), HashError> {
        let queue = self.0.0.queue_with_room();
        if queue.jobs.has_place(origin) {
            return Ok(());
        }
        let waiting = queue.jobs.len();
        drop(queue);
        Err(self.0.0.overloaded(waiting))
    }

    /// How busy the pool is.
    pub fn gauges(&self) -> HashGauges {
        let shared = &self.0.0;
        let queue = shared.queue();
        HashGauges {
            queued: queue.jobs.len(),
            running: queue.running,
            refused: shared.refused.load(Ordering::Relaxed),
            wait: queue.last_wait,
            threads: shared.threads,
            memory_kib: u64::from(shared.params.m_cost()) * u64::try_from(shared.threads).unwrap_or(u64::MAX),
        }
    }
}

impl fmt::Debug for HashPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashPool").field("gauges", &self.gauges()).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.queue().stopped = true;
        self.0.wake.notify_all();
    }
}

impl Job {
    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Hash(_, answer) => answer.is_closed(),
            Self::Verify(_, _, answer) => answer.is_closed(),
        }
    }

    /// Tells who waits that there is no place any more.
    fn refuse(self, error: HashError) {
        match self {
            Self::Hash(_, answer) => drop(answer.send(Err(error))),
            Self::Verify(_, _, answer) => drop(answer.send(Err(error))),
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue; if it was full, without those who went away while they waited.
    fn queue_with_room(&self) -> MutexGuard<'_, Queue> {
        let mut queue = self.queue();
        if queue.jobs.is_full() {
            queue.jobs.retain(|waiting| !waiting.job.is_abandoned());
        }
        queue
    }

    fn enqueue(&self, origin: HashOrigin, job: Job) -> Result<(), HashError> {
        let mut queue = self.queue_with_room();
        let pushed = queue.jobs.push(origin, Waiting { since: Instant::now(), job });
        let waiting = queue.jobs.len();
        drop(queue);
        match pushed {
            Pushed::Queued => self.wake.notify_one(),
            Pushed::Displaced(other) => other.job.refuse(self.overloaded(waiting)),
            Pushed::Refused(_) => return Err(self.overloaded(waiting)),
        }
        Ok(())
    }

    fn overloaded(&self, waiting: usize) -> HashError {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let micros = self.job_micros.load(Ordering::Relaxed);
        let turns = u64::try_from(waiting / self.threads + 1).unwrap_or(u64::MAX);
        let retry_after = Duration::from_micros(micros.saturating_mul(turns)).max(MIN_RETRY_AFTER);
        HashError::Overloaded { retry_after }
    }

    /// The next job; before it waits for one, the thread wipes its memory.
    fn next(&self, memory: &mut ThreadMemory) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            while let Some(Waiting { since, job }) = queue.jobs.pop() {
                if !job.is_abandoned() {
                    queue.running += 1;
                    queue.last_wait = since.elapsed();
                    return Some(job);
                }
            }
            if memory.is_used {
                drop(queue);
                memory.wipe();
                queue = self.queue();
            } else if queue.stopped {
                return None;
            } else {
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn work(&self) {
        give_way();
        let mut memory = ThreadMemory::new(self.params.block_count());
        while let Some(job) = self.next(&mut memory) {
            let begun = Instant::now();
            memory.is_used = true;
            // A fault in one job must not take the thread with it: its caller is told, the next one is served.
            let computed = catch_unwind(AssertUnwindSafe(|| self.compute(job, &mut memory.blocks)));
            if computed.is_err() {
                tracing::error!("a password hash panicked");
            }
            memory.give_back();
            let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.job_micros.store(micros, Ordering::Relaxed);
            self.queue().running -= 1;
        }
    }

    fn compute(&self, job: Job, memory: &mut Vec<Block>) {
        match job {
            Job::Hash(password, answer) => {
                drop(answer.send(self.hash(&password, memory).ok_or(HashError::Stopped)));
            }
            Job::Verify(password, stored, answer) => {
                drop(answer.send(Ok(self.verify(&password, stored.as_ref(), memory))));
            }
        }
    }

    fn hash(&self, password: &NormalizedPassword, memory: &mut Vec<Block>) -> Option<PasswordHash> {
        let (mut salt, mut output) = ([0_u8; SALT_BYTES], [0_u8; OUTPUT_BYTES]);
        self.random.fill(&mut salt);
        argon2id(&self.params, password, &salt, &mut output, memory)?;
        encode(&self.params, &salt, &output)
    }

    fn verify(
        &self,
        password: &NormalizedPassword,
        stored: Option<&PasswordHash>,
        memory: &mut Vec<Block>,
    ) -> Verified {
        let bound = stored_memory_bound(&self.params);
        let ours = stored.and_then(|stored| Stored::parse(stored.expose(), bound));
        let foreign = stored.filter(|_| ours.is_none()).and_then(|stored| {
            let parsed = ForeignHash::parse(stored.expose());
            if let Err(reason) = parsed {
                tracing::error!(%reason, "a stored password hash is malformed or out of bounds");
            }
            parsed.ok()
        });
        if let Some(foreign) = foreign {
            return if foreign.verify_with_memory(password.expose().as_bytes(), memory) {
                Verified::Match { upgrade: true }
            } else {
                Verified::Mismatch
            };
        }
        let Some(stored) = ours else {
            // Computed for its time alone: whatever comes out, there is nothing that it could match.
            let (salt, mut output) = (&self.dummy[..SALT_BYTES], [0_u8; OUTPUT_BYTES]);
            argon2id(&self.params, password, salt, &mut output, memory);
            let _equal = std::hint::black_box(output.ct_eq(&self.dummy[SALT_BYTES..]));
            output.zeroize();
            return Verified::Mismatch;
        };
        let mut output = Zeroizing::new(vec![0_u8; stored.output.as_ref().len()]);
        if argon2id(&stored.params, password, stored.salt.as_ref(), &mut output, memory).is_none() {
            tracing::error!("a stored password hash could not be computed");
            return Verified::Mismatch;
        }
        if bool::from(output.ct_eq(stored.output.as_ref())) {
            Verified::Match { upgrade: stored.differs_from(&self.params) }
        } else {
            Verified::Mismatch
        }
    }
}

/// The memory that a thread computes in, for as long as it lives.
///
/// Wiping it costs a fifteenth of a hash, so it is wiped when nobody waits: while somebody does, the next hash writes over
/// all that the last one left.
struct ThreadMemory {
    blocks: Vec<Block>,
    /// How much of it there is when nothing is computed.
    own: usize,
    /// Whether something was computed in it since it was wiped.
    is_used: bool,
}

impl ThreadMemory {
    fn new(own: usize) -> Self {
        Self { blocks: vec![Block::default(); own], own, is_used: false }
    }

    /// Wipes and gives back what a stored hash needed beyond today's parameters.
    fn give_back(&mut self) {
        for block in self.blocks.iter_mut().skip(self.own) {
            block.zeroize();
        }
        self.blocks.truncate(self.own);
        self.blocks.shrink_to_fit();
    }

    fn wipe(&mut self) {
        for block in &mut self.blocks {
            block.zeroize();
        }
        self.is_used = false;
    }
}

/// Lets every other thread of the machine go before this one: whoever waits for a hash waits for milliseconds anyway,
/// whoever waits for anything else should not wait for hashes.
#[cfg(target_os = "linux")]
fn give_way() {
    // Without an identifier it is the calling thread, not the process.
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "the hashing threads keep their priority");
    }
}

#[cfg(not(target_os = "linux"))]
const fn give_way() {}

/// A stored hash, parsed and within bounds.
struct Stored {
    params: Params,
    salt: Salt,
    output: Output,
}

impl Stored {
    /// Reads `$argon2id$v=19$m=…,t=…,p=…$salt$output` and nothing else; `memory_bound` is in KiB.
    fn parse(text: &str, memory_bound: u32) -> Option<Self> {
        let phc = Phc::new(text).ok()?;
        // What is left out would be taken as some default, and what is added is none of ours.
        let is_complete = phc.params.iter().map(|(name, _)| name).eq([
            Ident::new("m").ok()?,
            Ident::new("t").ok()?,
            Ident::new("p").ok()?,
        ]);
        if phc.algorithm != argon2::ARGON2ID_IDENT || phc.version != Some(VERSION.into()) || !is_complete {
            return None;
        }
        let (salt, output) = (phc.salt?, phc.hash?);
        let params = Params::try_from(&phc).ok()?;
        let within = params.m_cost() <= memory_bound
            && params.t_cost() <= MAX_STORED_ITERATIONS
            && params.p_cost() <= MAX_STORED_PARALLELISM
            && work(params.m_cost(), params.t_cost()) <= MAX_WORK
            && STORED_SALT_BYTES.contains(&salt.as_ref().len())
            && STORED_OUTPUT_BYTES.contains(&output.as_ref().len());
        within.then_some(Self { params, salt, output })
    }

    /// Whether today's hashes are made in another way.
    fn differs_from(&self, today: &Params) -> bool {
        let cost = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost());
        cost(&self.params) != cost(today)
            || self.salt.as_ref().len() < SALT_BYTES
            || self.output.as_ref().len() < OUTPUT_BYTES
    }
}

/// What the time of an Argon2 hash goes by: KiB times passes.
pub(super) fn work(memory_kib: u32, iterations: u32) -> u64 {
    u64::from(memory_kib) * u64::from(iterations)
}

/// Whether new hashes may cost this much. What a policy makes must be within the bound of stored hashes.
pub(crate) fn is_affordable(policy: &HashPolicy) -> bool {
    work(policy.memory_kib, policy.iterations) <= MAX_WORK
}

/// The most memory that a stored hash may ask for, in KiB.
fn stored_memory_bound(today: &Params) -> u32 {
    MAX_STORED_MEMORY_KIB.max(today.m_cost().saturating_mul(STORED_MEMORY_FACTOR))
}

/// Whether a stored hash can be compared with at sign-in, whoever made it.
pub(crate) fn check_stored(stored: &PasswordHash, policy: &HashPolicy) -> Result<(), UnsupportedHash> {
    let bound = MAX_STORED_MEMORY_KIB.max(policy.memory_kib.saturating_mul(STORED_MEMORY_FACTOR));
    match Stored::parse(stored.expose(), bound) {
        Some(_) => Ok(()),
        None => ForeignHash::parse(stored.expose()).map(drop),
    }
}

/// Computes in the thread's own memory, which grows if the parameters need more. `None` when the system has no more.
fn argon2id(
    params: &Params,
    password: &NormalizedPassword,
    salt: &[u8],
    output: &mut [u8],
    memory: &mut Vec<Block>,
) -> Option<()> {
    let password = password.expose().as_bytes();
    argon2_with_memory((Algorithm::Argon2id, VERSION), params, password, salt, output, memory)
}

/// The same for any kind of Argon2.
pub(super) fn argon2_with_memory(
    (algorithm, version): (Algorithm, Version),
    params: &Params,
    password: &[u8],
    salt: &[u8],
    output: &mut [u8],
    memory: &mut Vec<Block>,
) -> Option<()> {
    let missing = params.block_count().saturating_sub(memory.len());
    memory.try_reserve_exact(missing).ok()?;
    memory.resize(memory.len() + missing, Block::default());
    let params = Params::new(params.m_cost(), params.t_cost(), params.p_cost(), Some(output.len())).ok()?;
    Argon2::new(algorithm, version, params)
        .hash_password_into_with_memory(password, salt, output, memory.as_mut_slice())
        .ok()
}

fn encode(params: &Params, salt: &[u8], output: &[u8]) -> Option<PasswordHash> {
    let phc = Phc {
        algorithm: argon2::ARGON2ID_IDENT,
        version: Some(VERSION.into()),
        params: params.try_into().ok()?,
        salt: Some(Salt::new(salt).ok()?),
        hash: Some(Output::new(output).ok()?),
    };
    Some(PasswordHash::new(phc.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::hash_queue::HashPurpose;
    use super::*;
    use crate::domain::secret::Password;
    use crate::port::random::SystemRandom;

    fn pool(change: impl FnOnce(&mut HashPolicy)) -> HashPool {
        let mut policy =
            HashPolicy { memory_kib: 64, iterations: 1, threads: Some(1), ..HashPolicy::default() };
        change(&mut policy);
        HashPool::start(&policy, Arc::new(SystemRandom)).unwrap()
    }

    fn client() -> HashOrigin {
        HashOrigin { purpose: HashPurpose::SignIn, network: "192.0.2.1".into() }
    }

    fn password(text: &str) -> NormalizedPassword {
        NormalizedPassword::parse(&Password::new(text)).unwrap()
    }

    #[tokio::test]
    async fn a_password_matches_itself_only() {
        let pool = pool(|_| {});
        let hash = pool.hash(password("correct horse"), client()).await.unwrap();
        assert!(hash.expose().starts_with("$argon2id$v=19$m=64,t=1,p=1$"));
        let verify = |text: &str, stored| pool.verify(password(text), stored, client());
        assert_eq!(verify("correct horse", Some(hash.clone())).await, Ok(Verified::Match { upgrade: false }));
        assert_eq!(verify("correct horsf", Some(hash)).await, Ok(Verified::Mismatch));
        assert_eq!(verify("correct horse", None).await, Ok(Verified::Mismatch));
    }

    #[tokio::test]
    async fn the_hash_is_that_of_the_argon2_crate() {
        let pool = pool(|_| {});
        let hash = pool.hash(password("correct horse"), client()).await.unwrap();
        let phc = Phc::new(hash.expose()).unwrap();
        let mut expected = [0_u8; OUTPUT_BYTES];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, Some(OUTPUT_BYTES)).unwrap())
            .hash_password_into(b"correct horse", phc.salt.unwrap().as_ref(), &mut expected)
            .unwrap();
        assert_eq!(phc.hash.unwrap().as_ref(), expected);
    }

    /// Made by the reference implementation in C.
    const FOREIGN: &str =
        "$argon2id$v=19$m=64,t=1,p=1$AAECAwQFBgcICQoLDA0ODw$Jc5SM8weTTfpvKMb/vQXEOQERs0ctXWTJ5HF/TeAvTw";
    /// The same with three passes over twice the memory in two lanes.
    const FOREIGN_WIDER: &str =
        "$argon2id$v=19$m=128,t=3,p=2$AAECAwQFBgcICQoLDA0ODw$Q8VptUXE638jpxoqxMlzN1inVKBUuBM2r9p4PzUOc94";
    /// The same as the first with the shortest salt.
    const FOREIGN_SHORT_SALT: &str =
        "$argon2id$v=19$m=64,t=1,p=1$AAECAwQFBgc$JlQiq/Aui2Xyz4gASIHQJI5gyR1MRk455b7XkXq/bwk";
    /// The same as the first with the shortest output.
    const FOREIGN_SHORT_OUTPUT: &str =
        "$argon2id$v=19$m=64,t=1,p=1$AAECAwQFBgcICQoLDA0ODw$AEcnUB1pKGligb74n1xxKQ";

    #[tokio::test]
    async fn hashes_of_another_implementation_match() {
        let pool = pool(|_| {});
        for (stored, upgrade) in [
            (FOREIGN, false),
            (FOREIGN_WIDER, true),
            (FOREIGN_SHORT_SALT, true),
            (FOREIGN_SHORT_OUTPUT, true),
            (FOREIGN, false),
        ] {
            let verify = |text: &str| pool.verify(password(text), Some(PasswordHash::new(stored)), client());
            assert_eq!(verify("correct horse").await, Ok(Verified::Match { upgrade }), "{stored}");
            assert_eq!(verify("Correct horse").await, Ok(Verified::Mismatch), "{stored}");
        }
    }

    /// Made by PHP 8.2, Django 5.2 (twice), Werkzeug 3.1 and the reference implementation of Argon2 in C.
    const OTHER_SYSTEMS: [&str; 5] = [
        "$2y$04$AdAOSo3v5R9cl/xJehzivOfMdI86jUKa.HSSuAlAL0wceAYcSuVqS",
        "pbkdf2_sha256$1500$3KRQFQJGqJFddQyAZsngJI$Vjxw1K4jrr+unt7H9FgPRmks9XS6qQ7Aw8/U/5h77gM=",
        "argon2$argon2id$v=19$m=64,t=2,p=2$aTFDZWtKRTNDVUNiU005RXdQQjk3UQ$bK1d+WJgiPirlRcQbfq7jea6jGL/MleLeAM7w9L520g",
        "scrypt:1024:8:1$kRUvyzVoMRP5vGkB$6fa4039a863413dcdbc83d44f697cb7ef37e17c1f8aa4a439b1fc3febbd628f2504188528fd405e9cc2cc5bdff7bb99faec5d48b488368e17230dfa5c1995e52",
        "$argon2i$v=16$m=64,t=2,p=1$BB6HsjY4XkIDYPAEvcX+UQ$qq54KST2pQZe0pi6ZSyYxcaeHm2K0vkhC8bEhaVWNKo",
    ];

    #[tokio::test]
    async fn hashes_of_other_systems_match_and_want_an_upgrade() {
        let pool = pool(|_| {});
        for stored in OTHER_SYSTEMS {
            let verify = |text: &str| pool.verify(password(text), Some(PasswordHash::new(stored)), client());
            let upgrade = Ok(Verified::Match { upgrade: true });
            assert_eq!(verify("p\u{e4}ssw\u{f6}rd-\u{f1}").await, upgrade, "{stored}");
            assert_eq!(verify("pa\u{308}sswo\u{308}rd-n\u{303}").await, upgrade, "decomposed: {stored}");
            assert_eq!(verify("passw\u{f6}rd-\u{f1}").await, Ok(Verified::Mismatch), "{stored}");
        }
    }

    #[test]
    fn the_memory_grows_for_a_stored_hash_only_within_bounds() {
        let bound = |kib: u32| stored_memory_bound(&Params::new(kib, 1, 1, None).unwrap());
        assert_eq!(bound(19_456), 262_144, "256 MiB at least");
        assert_eq!(bound(131_072), 524_288, "four times the policy's");
        assert_eq!(bound(u32::MAX), u32::MAX);
        let with_memory = |kib: u32| FOREIGN.replace("m=64", &format!("m={kib}"));
        assert!(Stored::parse(&with_memory(1024), 1024).is_some());
        assert!(Stored::parse(&with_memory(1025), 1024).is_none());
        let with = |from: &str, to: &str| Stored::parse(&FOREIGN.replace(from, to), u32::MAX).is_some();
        assert!(with("t=1", "t=100") && !with("t=1", "t=101"));
        assert!(with("m=64,t=1,p=1", "m=8192,t=1,p=64") && !with("m=64,t=1,p=1", "m=8192,t=1,p=65"));
    }

    #[tokio::test]
    async fn older_parameters_match_and_want_an_upgrade() {
        let hash = pool(|_| {}).hash(password("correct horse"), client()).await.unwrap();
        for stronger in [pool(|p| p.memory_kib = 128), pool(|p| p.iterations = 2)] {
            let verified = stronger.verify(password("correct horse"), Some(hash.clone()), client()).await;
            assert_eq!(verified, Ok(Verified::Match { upgrade: true }));
        }
    }

    #[test]
    fn every_stored_hash_is_bounded_in_work_whatever_its_form() {
        let tail = "c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let (ours, policy) = ("$argon2id$v=19", HashPolicy::default());
        let django = "argon2$argon2id$v=19";
        for (memory, passes, fits) in [
            (19_456, 2, true),
            (262_144, 16, true),
            (262_144, 17, false),
            (262_144, 100, false),
            (41_943, 100, true),
            (41_944, 100, false),
        ] {
            for form in [ours, "$argon2i$v=19", "$argon2d$v=16", django] {
                let hash = PasswordHash::new(format!("{form}$m={memory},t={passes},p=1${tail}"));
                assert_eq!(check_stored(&hash, &policy).is_ok(), fits, "{form} {memory} {passes}");
                let computed = Stored::parse(hash.expose(), u32::MAX).is_some()
                    || ForeignHash::parse(hash.expose()).is_ok();
                assert_eq!(computed, fits, "{form} {memory} {passes}: whatever memory the policy has");
            }
        }
        assert!(is_affordable(&HashPolicy { memory_kib: 1024 * 1024, iterations: 4, ..policy.clone() }));
        assert!(!is_affordable(&HashPolicy { memory_kib: 1024 * 1024, iterations: 5, ..policy }));
    }

    #[tokio::test]
    async fn a_hostile_stored_hash_is_a_mismatch() {
        let pool = pool(|_| {});
        let good = pool.hash(password("correct horse"), client()).await.unwrap().expose().to_owned();
        for hostile in [
            String::new(),
            "plain".into(),
            good.replace("m=64", "m=4294967295"),
            good.replace("t=1", "t=4294967295"),
            good.replace("p=1", "p=16777215"),
            good.replace("argon2id", "argon2i"),
            good.replace("v=19", "v=16"),
            good.replace("$v=19", ""),
            good.replace("m=64,t=1,p=1$", ""),
            good.replace("m=64,", ""),
            good.replace(",p=1", ""),
            good.replace("p=1", "p=1,p=1"),
            good.replace("p=1", "p=1,data=AAAA"),
            good.replace("m=64,t=1", "t=1,m=64"),
            good.replace("m=64", "m=-64"),
            good.replace("m=64", "m=064"),
            good.replace("m=64", "m=7"),
            good.replace("t=1", "t=0"),
            good.to_uppercase(),
            format!(" {good}"),
            format!("{good}\n"),
            format!("{good}$"),
            good.split_inclusive('$').take(5).collect(),
            "$".repeat(100_000),
            "$2b$12$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into(),
            good[..good.len() - 5].into(),
            format!("{good}\u{e9}"),
        ] {
            let verified = pool
                .verify(password("correct horse"), Some(PasswordHash::new(hostile.clone())), client())
                .await;
            assert_eq!(verified, Ok(Verified::Mismatch), "{hostile}");
        }
        let verified = pool.verify(password("correct horse"), Some(PasswordHash::new(good)), client()).await;
        assert_eq!(verified, Ok(Verified::Match { upgrade: false }), "the pool goes on");
    }

    #[tokio::test]
    async fn no_byte_of_a_stored_hash_may_differ() {
        let pool = pool(|_| {});
        for position in 0..FOREIGN.len() {
            for byte in *b"0129AZaz/+=$,m" {
                let mut bytes = FOREIGN.as_bytes().to_vec();
                if std::mem::replace(&mut bytes[position], byte) == byte {
                    continue;
                }
                let altered = String::from_utf8(bytes).unwrap();
                let verified = pool
                    .verify(password("correct horse"), Some(PasswordHash::new(altered.clone())), client())
                    .await;
                assert_eq!(verified, Ok(Verified::Mismatch), "{altered}");
            }
        }
    }

    /// Counts how often it is asked, and panics when it is told to.
    #[derive(Debug, Default)]
    struct Watched {
        asked: AtomicU64,
        panics: std::sync::atomic::AtomicBool,
    }

    impl Random for Watched {
        fn fill(&self, bytes: &mut [u8]) {
            self.asked.fetch_add(1, Ordering::SeqCst);
            assert!(!self.panics.load(Ordering::SeqCst), "as told");
            bytes.fill(7);
        }
    }

    #[tokio::test]
    async fn a_panic_takes_one_job_and_not_the_thread() {
        let random = Arc::new(Watched::default());
        let policy = HashPolicy { memory_kib: 64, iterations: 1, threads: Some(1), ..HashPolicy::default() };
        let pool = HashPool::start(&policy, Arc::clone(&random) as Arc<dyn Random>).unwrap();
        random.panics.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            assert_eq!(pool.hash(password("correct horse"), client()).await.unwrap_err(), HashError::Stopped);
        }
        random.panics.store(false, Ordering::SeqCst);
        let hash = pool.hash(password("correct horse"), client()).await.unwrap();
        let verified = pool.verify(password("correct horse"), Some(hash), client()).await;
        assert_eq!(verified, Ok(Verified::Match { upgrade: false }));
    }

    #[tokio::test]
    async fn an_abandoned_job_is_never_computed() {
        let random = Arc::new(Watched::default());
        let policy =
            HashPolicy { memory_kib: 65_536, iterations: 4, threads: Some(1), ..HashPolicy::default() };
        let pool = HashPool::start(&policy, Arc::clone(&random) as Arc<dyn Random>).unwrap();
        let job = || {
            let pool = pool.clone();
            tokio::spawn(async move { pool.hash(password("correct horse"), client()).await })
        };
        let first = job();
        while pool.gauges().running == 0 {
            tokio::task::yield_now().await;
        }
        let abandoned = [job(), job(), job()];
        while pool.gauges().queued < abandoned.len() {
            tokio::task::yield_now().await;
        }
        for job in &abandoned {
            job.abort();
        }
        let last = job();
        first.await.unwrap().unwrap();
        last.await.unwrap().unwrap();
        // Once at the start for the dummy, once for each salt.
        assert_eq!(random.asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_thread_keeps_no_more_memory_than_its_own_and_wipes_it_before_it_waits() {
        let pool = pool(|_| {});
        let shared = Arc::clone(&pool.0.0);
        let mut memory = ThreadMemory::new(64);
        for stored in [FOREIGN_WIDER, FOREIGN] {
            let stored = PasswordHash::new(stored);
            let verified = shared.verify(&password("correct horse"), Some(&stored), &mut memory.blocks);
            assert!(matches!(verified, Verified::Match { .. }));
            assert_eq!(memory.blocks.len(), 128, "grown once, then large enough");
        }
        memory.is_used = true;
        memory.give_back();
        assert_eq!(memory.blocks.len(), 64);
        assert!(memory.blocks.iter().any(|block| block.as_ref().iter().any(|word| *word != 0)));
        drop(pool); // nobody will ask for anything any more
        assert!(shared.next(&mut memory).is_none());
        assert!(memory.blocks.iter().all(|block| block.as_ref().iter().all(|word| *word == 0)));
    }

    #[tokio::test]
    async fn past_the_queue_callers_are_refused_at_once_and_abandoned_jobs_make_room() {
        let pool = pool(|p| {
            p.memory_kib = 65_536;
            p.iterations = 8;
            p.queue = Some(2);
        });
        let job = || {
            let pool = pool.clone();
            tokio::spawn(async move { pool.hash(password("correct horse"), client()).await })
        };
        let first = job();
        while pool.gauges().running == 0 {
            tokio::task::yield_now().await;
        }
        let waiting = [job(), job()];
        while pool.gauges().queued < 2 {
            tokio::task::yield_now().await;
        }
        let refused = pool.hash(password("correct horse"), client()).await;
        assert!(matches!(refused, Err(HashError::Overloaded { .. })), "{refused:?}");
        assert_eq!(pool.gauges().refused, 1);
        for job in waiting {
            job.abort();
            assert!(job.await.unwrap_err().is_cancelled());
        }
        pool.hash(password("correct horse"), client()).await.unwrap();
        first.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_flood_from_one_network_gives_way_to_others() {
        let pool = pool(|p| {
            p.memory_kib = 65_536;
            p.iterations = 8;
            p.queue = Some(2);
        });
        let job = |network: &str| {
            let (pool, origin) = (pool.clone(), HashOrigin { network: network.into(), ..client() });
            tokio::spawn(async move { pool.hash(password("correct horse"), origin).await })
        };
        let first = job("192.0.2.1");
        while pool.gauges().running == 0 {
            tokio::task::yield_now().await;
        }
        let flood = [job("192.0.2.1"), job("192.0.2.1")];
        while pool.gauges().queued < 2 {
            tokio::task::yield_now().await;
        }
        let other = job("192.0.2.2");
        let [kept, displaced] = flood;
        assert!(matches!(displaced.await.unwrap(), Err(HashError::Overloaded { .. })));
        for job in [first, kept, other] {
            job.await.unwrap().unwrap();
        }
        assert_eq!(pool.gauges().refused, 1);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_threads_give_way_and_no_others_do() {
        // The name may hold blanks; of what follows it, the seventeenth is the nice value.
        let nice_of = |stat: &str| {
            stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().parse::<i32>().unwrap()
        };
        let own = || nice_of(&std::fs::read_to_string("/proc/thread-self/stat").unwrap());
        let before = own();
        let pool = pool(|_| {});
        pool.hash(password("correct horse"), client()).await.unwrap();
        // Those of other tests' pools may just be starting.
        let gave_way = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.contains("(usermgr-hash-0)") && nice_of(&stat) == NICENESS
        };
        assert!(std::fs::read_dir("/proc/self/task").unwrap().any(|task| gave_way(task.unwrap())));
        assert_eq!(own(), before);
    }

    #[tokio::test]
    async fn the_threads_end_with_the_last_handle() {
        let pool = pool(|_| {});
        let shared = Arc::downgrade(&pool.0.0);
        drop(pool);
        let begun = std::time::Instant::now();
        while shared.strong_count() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(5), "a thread goes on");
            std::thread::yield_now();
        }
    }
}
