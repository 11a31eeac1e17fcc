//! A Redis of one's own, which may be stopped, killed and set back, and databases to put it over.
#![allow(dead_code, unreachable_pub, reason = "shared by several test programs")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use usermgr_core::port::store::Store;
use usermgr_redis_store::RedisStore;
use usermgr_sqlx::SqliteStore;

/// How long a server may take to begin before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A `redis-server` on a socket in a folder of its own, gone with it.
pub struct RedisServer {
    process: Child,
    folder: tempfile::TempDir,
    settings: Vec<&'static str>,
    next: AtomicU32,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::with(&["--save", "", "--appendonly", "no"])
    }

    /// One that has on the disk what it answered.
    pub fn durable() -> Self {
        Self::with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"])
    }

    pub fn with(settings: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = spawn(folder.path(), settings);
        let server = Self { process, folder, settings: settings.to_vec(), next: AtomicU32::new(0) };
        server.wait_until_it_answers();
        server
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn client(&self) -> redis::Client {
        redis::Client::open(format!("redis+unix://{}", self.socket().display())).unwrap()
    }

    /// A store over another one, under a prefix that nobody has.
    pub async fn fresh_over(&self, under: Arc<dyn Store>) -> RedisStore {
        let prefix = format!("laws-{}", self.next.fetch_add(1, Ordering::Relaxed));
        self.over(&prefix, under).await
    }

    pub async fn over(&self, prefix: &str, under: Arc<dyn Store>) -> RedisStore {
        RedisStore::connect(self.client(), prefix, under).await.unwrap()
    }

    /// Stops the process where it is: it takes connections, and answers nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends the process as a loss of power does.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.process.wait().unwrap();
    }

    /// Begins anew with what is on the disk.
    pub fn start_again(&mut self) {
        self.process = spawn(self.folder.path(), &self.settings);
        self.wait_until_it_answers();
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, signal).unwrap();
    }

    fn wait_until_it_answers(&self) {
        let begun = Instant::now();
        let answers = || redis::cmd("PING").exec(&mut self.client().get_connection()?);
        while let Err(error) = answers() {
            assert!(begun.elapsed() < PATIENCE, "redis-server does not answer: {error}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn spawn(folder: &Path, settings: &[&str]) -> Child {
    let data = folder.join("data");
    std::fs::create_dir_all(&data).unwrap();
    Command::new("redis-server")
        .args(["--port", "0", "--unixsocket"])
        .arg(folder.join("redis.sock"))
        .arg("--dir")
        .arg(data)
        .args(settings)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is there: run scripts/test")
}

/// A SQLite file, and the folder that it is in.
pub async fn sqlite() -> (SqliteStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = open_sqlite(folder.path()).await;
    store.migrate().await.unwrap();
    (store, folder)
}

pub async fn open_sqlite(folder: &Path) -> SqliteStore {
    SqliteStore::connect(&format!("sqlite://{}", folder.join("users.db").display()), 4).await.unwrap()
}

/// Waits until something is so, and gives up when that takes too long.
pub async fn until<F: Future<Output = bool>>(what: &str, so: impl Fn() -> F) {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < PATIENCE, "it never came to this: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
