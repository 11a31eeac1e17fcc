//! Password hashing in a pool of its own: the one expensive thing here, kept away from everything else.
//!
//! A fixed number of threads hash, each with one block of memory for life; a bounded queue stands in front, and past it
//! callers are refused at once, before any memory is taken. So memory does not grow with the number of callers, and
//! a storm of sign-ins never takes a thread that serves requests.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use password_hash::phc::{Output, PasswordHash as Phc, Salt};
use subtle::ConstantTimeEq as _;
use tokio::sync::oneshot;
use zeroize::Zeroize as _;

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
/// The most memory that a stored hash may ask for, in KiB, if the policy itself does not ask for more.
const MAX_STORED_MEMORY_KIB: u32 = 256 * 1024;
/// The most passes that a stored hash may ask for.
const MAX_STORED_ITERATIONS: u32 = 100;
/// The most lanes that a stored hash may ask for.
const MAX_STORED_PARALLELISM: u32 = 64;
/// The fewest and the most bytes of a stored salt.
const STORED_SALT_BYTES: std::ops::RangeInclusive<usize> = 8..=64;
/// The fewest and the most bytes of a stored output.
const STORED_OUTPUT_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

/// Threads that hash passwords. Cloning shares them; they end when the last clone is dropped.
#[derive(Clone)]
pub struct HashPool(Arc<Handle>);

/// Ends the threads when the last clone of the pool goes.
struct Handle(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    limit: usize,
    params: Params,
    random: Arc<dyn Random>,
    /// A hash that no password has, to compare with where there is none.
    dummy: PasswordHash,
    /// How long a job took lately, in microseconds: what a refused caller is told to wait.
    job_micros: AtomicU64,
    refused: AtomicU64,
    threads: usize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    running: usize,
    stopped: bool,
}

enum Job {
    Hash(NormalizedPassword, oneshot::Sender<Result<PasswordHash, HashError>>),
    Verify(NormalizedPassword, PasswordHash, oneshot::Sender<Result<Verified, HashError>>),
}

/// How a comparison ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// The password is right.
    Match {
        /// Whether it was hashed by other parameters than today's.
        upgrade: bool,
    },
    /// The password is wrong, or there was none to compare with.
    Mismatch,
}

/// Why a password was not hashed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
pub enum HashPoolError {
    /// The parameters are out of Argon2's bounds.
    #[error("the hashing parameters are out of bounds: {0}")]
    Parameters(argon2::Error),
    /// A thread could not be started.
    #[error("a hashing thread could not be started")]
    Thread(#[source] std::io::Error),
}

/// How busy a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashGauges {
    /// Jobs that wait.
    pub queued: usize,
    /// Jobs that are computed.
    pub running: usize,
    /// Callers refused since the start.
    pub refused: u64,
}

impl HashPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// [`HashPoolError`].
    pub fn start(policy: &HashPolicy, random: Arc<dyn Random>) -> Result<Self, HashPoolError> {
        let params =
            Params::new(policy.memory_kib, policy.iterations, policy.parallelism, Some(OUTPUT_BYTES))
                .map_err(HashPoolError::Parameters)?;
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = policy.threads.unwrap_or_else(cores).max(1);
        let mut noise = [0_u8; SALT_BYTES + OUTPUT_BYTES];
        random.fill(&mut noise);
        let dummy = encode(&params, &noise[..SALT_BYTES], &noise[SALT_BYTES..])
            .ok_or(HashPoolError::Parameters(argon2::Error::OutputTooShort))?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            limit: policy.queue.unwrap_or(QUEUE_PER_THREAD * threads),
            params,
            random,
            dummy,
            job_micros: AtomicU64::new(20_000),
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

    /// Hashes a password by today's parameters with a new salt.
    ///
    /// # Errors
    /// [`HashError`].
    pub async fn hash(&self, password: NormalizedPassword) -> Result<PasswordHash, HashError> {
        let (answer, wait) = oneshot::channel();
        self.0.0.enqueue(Job::Hash(password, answer))?;
        wait.await.unwrap_or(Err(HashError::Stopped))
    }

    /// Compares a password with a stored hash. Without one, and with one that cannot be computed, the same work is done
    /// on a dummy and the answer is `Mismatch`.
    ///
    /// # Errors
    /// [`HashError`].
    pub async fn verify(
        &self,
        password: NormalizedPassword,
        stored: Option<PasswordHash>,
    ) -> Result<Verified, HashError> {
        let (answer, wait) = oneshot::channel();
        let stored = stored.unwrap_or_else(|| self.0.0.dummy.clone());
        self.0.0.enqueue(Job::Verify(password, stored, answer))?;
        wait.await.unwrap_or(Err(HashError::Stopped))
    }

    /// How busy the pool is.
    pub fn gauges(&self) -> HashGauges {
        let shared = &self.0.0;
        let queue = shared.queue();
        HashGauges {
            queued: queue.jobs.len(),
            running: queue.running,
            refused: shared.refused.load(Ordering::Relaxed),
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
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, job: Job) -> Result<(), HashError> {
        let mut queue = self.queue();
        if queue.jobs.len() >= self.limit {
            // Those who went away while they waited make room.
            queue.jobs.retain(|job| !job.is_abandoned());
        }
        if queue.jobs.len() >= self.limit {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let micros = self.job_micros.load(Ordering::Relaxed);
            let waiting = u64::try_from(queue.jobs.len() / self.threads + 1).unwrap_or(u64::MAX);
            let retry_after =
                Duration::from_micros(micros.saturating_mul(waiting)).max(Duration::from_secs(1));
            return Err(HashError::Overloaded { retry_after });
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            while let Some(job) = queue.jobs.pop_front() {
                if !job.is_abandoned() {
                    queue.running += 1;
                    return Some(job);
                }
            }
            if queue.stopped {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self) {
        let mut memory = vec![Block::default(); self.params.block_count()];
        while let Some(job) = self.next() {
            let begun = std::time::Instant::now();
            // A fault in one job must not take the thread with it: its caller is told, the next one is served.
            let computed = catch_unwind(AssertUnwindSafe(|| self.compute(job, &mut memory)));
            if computed.is_err() {
                tracing::error!("a password hash panicked");
            }
            for block in &mut memory {
                block.zeroize();
            }
            if memory.len() != self.params.block_count() {
                memory = vec![Block::default(); self.params.block_count()];
            }
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
                drop(answer.send(Ok(self.verify(&password, &stored, memory))));
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
        stored: &PasswordHash,
        memory: &mut Vec<Block>,
    ) -> Verified {
        let limit = MAX_STORED_MEMORY_KIB.max(self.params.m_cost());
        let stored = Stored::parse(stored.expose(), limit).or_else(|| {
            tracing::error!("a stored password hash is malformed or out of bounds");
            Stored::parse(self.dummy.expose(), limit).map(|dummy| Stored { never: true, ..dummy })
        });
        let Some(stored) = stored else { return Verified::Mismatch };
        let mut output = vec![0_u8; stored.output.len()];
        if argon2id(&stored.params, password, &stored.salt, &mut output, memory).is_none() {
            return Verified::Mismatch;
        }
        let same = bool::from(output.ct_eq(&stored.output)) && !stored.never;
        output.zeroize();
        let upgrade = (stored.params.m_cost(), stored.params.t_cost(), stored.params.p_cost())
            != (self.params.m_cost(), self.params.t_cost(), self.params.p_cost());
        if same { Verified::Match { upgrade } } else { Verified::Mismatch }
    }
}

/// A stored hash, parsed and within bounds.
struct Stored {
    params: Params,
    salt: Vec<u8>,
    output: Vec<u8>,
    never: bool,
}

impl Stored {
    fn parse(text: &str, memory_limit: u32) -> Option<Self> {
        let phc = Phc::new(text).ok()?;
        if phc.algorithm != argon2::ARGON2ID_IDENT || phc.version.is_some_and(|version| version != 0x13) {
            return None;
        }
        let (salt, output) = (phc.salt?, phc.hash?);
        let params = Params::try_from(&phc).ok()?;
        let within = params.m_cost() <= memory_limit
            && params.t_cost() <= MAX_STORED_ITERATIONS
            && params.p_cost() <= MAX_STORED_PARALLELISM
            && STORED_SALT_BYTES.contains(&salt.as_ref().len())
            && STORED_OUTPUT_BYTES.contains(&output.as_ref().len());
        within.then(|| Self {
            params,
            salt: salt.as_ref().to_vec(),
            output: output.as_ref().to_vec(),
            never: false,
        })
    }
}

fn argon2id(
    params: &Params,
    password: &NormalizedPassword,
    salt: &[u8],
    output: &mut [u8],
    memory: &mut Vec<Block>,
) -> Option<()> {
    if memory.len() < params.block_count() {
        memory.resize(params.block_count(), Block::default());
    }
    let params = Params::new(params.m_cost(), params.t_cost(), params.p_cost(), Some(output.len())).ok()?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(password.expose().as_bytes(), salt, output, memory.as_mut_slice())
        .ok()
}

fn encode(params: &Params, salt: &[u8], output: &[u8]) -> Option<PasswordHash> {
    let phc = Phc {
        algorithm: argon2::ARGON2ID_IDENT,
        version: Some(0x13),
        params: params.try_into().ok()?,
        salt: Some(Salt::new(salt).ok()?),
        hash: Some(Output::new(output).ok()?),
    };
    Some(PasswordHash::new(phc.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret::Password;
    use crate::port::random::SystemRandom;

    fn pool(change: impl FnOnce(&mut HashPolicy)) -> HashPool {
        let mut policy =
            HashPolicy { memory_kib: 64, iterations: 1, threads: Some(1), ..HashPolicy::default() };
        change(&mut policy);
        HashPool::start(&policy, Arc::new(SystemRandom)).unwrap()
    }

    fn password(text: &str) -> NormalizedPassword {
        NormalizedPassword::parse(&Password::new(text)).unwrap()
    }

    #[tokio::test]
    async fn a_password_matches_itself_only() {
        let pool = pool(|_| {});
        let hash = pool.hash(password("correct horse")).await.unwrap();
        assert!(hash.expose().starts_with("$argon2id$v=19$m=64,t=1,p=1$"));
        let verify = |text: &str, stored| pool.verify(password(text), stored);
        assert_eq!(verify("correct horse", Some(hash.clone())).await, Ok(Verified::Match { upgrade: false }));
        assert_eq!(verify("correct horsf", Some(hash)).await, Ok(Verified::Mismatch));
        assert_eq!(verify("correct horse", None).await, Ok(Verified::Mismatch));
    }

    #[tokio::test]
    async fn the_hash_is_that_of_the_argon2_crate() {
        let pool = pool(|_| {});
        let hash = pool.hash(password("correct horse")).await.unwrap();
        let phc = Phc::new(hash.expose()).unwrap();
        let mut expected = [0_u8; OUTPUT_BYTES];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, Some(OUTPUT_BYTES)).unwrap())
            .hash_password_into(b"correct horse", phc.salt.unwrap().as_ref(), &mut expected)
            .unwrap();
        assert_eq!(phc.hash.unwrap().as_ref(), expected);
    }

    #[tokio::test]
    async fn older_parameters_match_and_want_an_upgrade() {
        let hash = pool(|_| {}).hash(password("correct horse")).await.unwrap();
        for stronger in [pool(|p| p.memory_kib = 128), pool(|p| p.iterations = 2)] {
            let verified = stronger.verify(password("correct horse"), Some(hash.clone())).await;
            assert_eq!(verified, Ok(Verified::Match { upgrade: true }));
        }
    }

    #[tokio::test]
    async fn a_hostile_stored_hash_is_a_mismatch() {
        let pool = pool(|_| {});
        let good = pool.hash(password("correct horse")).await.unwrap().expose().to_owned();
        for hostile in [
            String::new(),
            "plain".into(),
            good.replace("m=64", "m=4294967295"),
            good.replace("t=1", "t=4294967295"),
            good.replace("p=1", "p=16777215"),
            good.replace("argon2id", "argon2i"),
            good.replace("v=19", "v=16"),
            good[..good.len() - 5].into(),
            format!("{good}\u{e9}"),
        ] {
            let verified =
                pool.verify(password("correct horse"), Some(PasswordHash::new(hostile.clone()))).await;
            assert_eq!(verified, Ok(Verified::Mismatch), "{hostile}");
        }
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
            tokio::spawn(async move { pool.hash(password("correct horse")).await })
        };
        let first = job();
        while pool.gauges().running == 0 {
            tokio::task::yield_now().await;
        }
        let waiting = [job(), job()];
        while pool.gauges().queued < 2 {
            tokio::task::yield_now().await;
        }
        let refused = pool.hash(password("correct horse")).await;
        assert!(matches!(refused, Err(HashError::Overloaded { .. })), "{refused:?}");
        assert_eq!(pool.gauges().refused, 1);
        for job in waiting {
            job.abort();
            assert!(job.await.unwrap_err().is_cancelled());
        }
        pool.hash(password("correct horse")).await.unwrap();
        first.await.unwrap().unwrap();
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
