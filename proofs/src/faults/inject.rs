//! The faults themselves, each as it happens to a running server.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use sqlx::Connection as _;
use tokio::process::{Child, Command};

use super::FaultPlan;
use crate::proxy::Proxy;
use crate::server::Database;
use crate::{PATIENCE, Trouble};

/// How many commits are cut.
const COMMITS: usize = 200;
/// How much the file system holds that becomes full.
const DISK: &str = "size=64m";

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// PostgreSQL is restarted and ends every session first.
    RestartFast,
    /// PostgreSQL is restarted as after a crash.
    RestartImmediate,
    /// Connections are cut in the middle of a commit, before or after it reached the database.
    CutCommits,
    /// PostgreSQL says nothing any more.
    Silence,
    /// The pool has one connection, and somebody else's lock holds it up.
    PoolExhausted,
    /// The disk of the SQLite file is full.
    DiskFull,
    /// Writing to the disk fails.
    WriteError,
    /// Syncing to the disk fails.
    SyncError,
    /// Reading from the disk fails.
    ReadError,
    /// Another process has the SQLite file to itself.
    Locked,
    /// The file system turns read-only.
    ReadOnly,
    /// The clock is set an hour forth, back again, an hour back and forth again.
    ClockSteps,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::RestartFast,
        Self::RestartImmediate,
        Self::CutCommits,
        Self::Silence,
        Self::PoolExhausted,
        Self::DiskFull,
        Self::WriteError,
        Self::SyncError,
        Self::ReadError,
        Self::Locked,
        Self::ReadOnly,
        Self::ClockSteps,
    ];

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RestartFast => "restarted (fast)",
            Self::RestartImmediate => "restarted (immediate)",
            Self::CutCommits => "connections cut in the middle of COMMIT",
            Self::Silence => "says nothing any more",
            Self::PoolExhausted => "pool exhausted, by a lock of others",
            Self::DiskFull => "disk full",
            Self::WriteError => "I/O errors on writing",
            Self::SyncError => "I/O errors on syncing",
            Self::ReadError => "I/O errors on reading",
            Self::Locked => "locked by another process",
            Self::ReadOnly => "file system turned read-only",
            Self::ClockSteps => "clock set by +1 h, 0, -1 h, 0, +1 h",
        }
    }

    pub(super) const fn is_postgres(self) -> bool {
        matches!(
            self,
            Self::RestartFast
                | Self::RestartImmediate
                | Self::CutCommits
                | Self::Silence
                | Self::PoolExhausted
        )
    }

    /// Whether all may be answered well, only later: whoever needs a connection waits ten seconds for one.
    pub(super) const fn may_go_unnoticed(self) -> bool {
        matches!(self, Self::RestartFast | Self::RestartImmediate | Self::Silence | Self::ClockSteps)
    }

    /// Whether an answer is one that the fault permits and that is not about the store.
    pub(super) fn permits(self, status: u16, code: &str) -> bool {
        // A code that was handed over before the clock was set.
        self == Self::ClockSteps && status == 400 && code == "code_expired"
    }

    /// What a line of the log says, in lower case, that names the fault.
    pub(super) const fn words(self) -> &'static [&'static str] {
        match self {
            Self::RestartFast | Self::RestartImmediate => &[
                "terminating connection",
                "shutting down",
                "connection refused",
                "starting up",
                "expected to read",
                "broken pipe",
                "reset by peer",
                "unexpected eof",
            ],
            Self::CutCommits => &["expected to read", "broken pipe", "reset by peer", "unexpected eof"],
            Self::Silence | Self::PoolExhausted => &["pool timed out", "took longer than"],
            Self::DiskFull => &["database or disk is full"],
            Self::WriteError | Self::SyncError => &["disk i/o error"],
            Self::ReadError => &["disk i/o error", "disk image is malformed"],
            Self::Locked => &["database is locked"],
            Self::ReadOnly => &["readonly database", "disk i/o error", "read-only"],
            Self::ClockSteps => &[],
        }
    }

    /// The system calls that fail, and how.
    const fn calls(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::WriteError => Some(("pwrite64", "EIO")),
            Self::SyncError => Some(("fsync,fdatasync", "EIO")),
            Self::ReadError => Some(("pread64", "EIO")),
            Self::ReadOnly => Some(("pwrite64", "EROFS")),
            _ => None,
        }
    }
}

/// A fault that is about to happen.
pub(super) struct Injection {
    fault: Fault,
    long: bool,
    restart_postgres: PathBuf,
    faketime: Option<PathBuf>,
    proxy: Option<Proxy>,
    disk: Option<Disk>,
    /// Says how far the server's clock is off.
    clock: tempfile::NamedTempFile,
}

/// A small file system of its own, while this lives.
struct Disk {
    folder: tempfile::TempDir,
    is_mounted: bool,
}

impl Injection {
    pub(super) async fn prepare(plan: &FaultPlan, fault: Fault) -> Result<Self, Trouble> {
        let restart_postgres = plan.restart_postgres.clone();
        let disk = if fault == Fault::DiskFull { Some(Disk::mount().await?) } else { None };
        let clock = tempfile::NamedTempFile::new()?;
        std::fs::write(clock.path(), "+0")?;
        let faketime = plan.faketime.clone();
        Ok(Self { fault, long: plan.long, restart_postgres, faketime, proxy: None, disk, clock })
    }

    /// Where the SQLite file is to be, if that matters.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.disk.as_ref().map(|disk| disk.folder.path())
    }

    /// How the server is configured for it.
    pub(super) async fn settings(
        &mut self,
        database: &Database,
    ) -> Result<Vec<(&'static str, String)>, Trouble> {
        if matches!(self.fault, Fault::CutCommits | Fault::Silence) {
            let proxy = Proxy::open(&database.url).await?;
            let url = proxy.url(&database.url)?;
            self.proxy = Some(proxy);
            return Ok(vec![("USERMGR_DATABASE_URL", url)]);
        }
        if self.fault == Fault::ClockSteps {
            let library = self.faketime.as_ref().ok_or("libfaketime is not here")?;
            return Ok(vec![
                ("LD_PRELOAD", library.display().to_string()),
                ("FAKETIME_TIMESTAMP_FILE", self.clock.path().display().to_string()),
                ("FAKETIME_NO_CACHE", "1".into()),
                // Only the time of day is set: waits go on as they were.
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ]);
        }
        let one = self.fault == Fault::PoolExhausted;
        Ok(if one { vec![("USERMGR_DATABASE_MAX_CONNECTIONS", "1".into())] } else { Vec::new() })
    }

    /// Happens, to the server of this process, and is over when this returns.
    pub(super) async fn happen(&mut self, database: &Database, process: u32) -> Result<(), Trouble> {
        // Longer than a time-out of ten seconds, or than the thirty of a request.
        let held = Duration::from_secs(if self.long { 35 } else { 16 });
        match self.fault {
            Fault::RestartFast => self.restart("fast").await,
            Fault::RestartImmediate => self.restart("immediate").await,
            Fault::CutCommits => self.cut_commits().await,
            Fault::Silence => {
                let proxy = self.proxy.as_ref().ok_or("no proxy")?;
                proxy.stand_still(true);
                tokio::time::sleep(held).await;
                proxy.stand_still(false);
                Ok(())
            }
            Fault::PoolExhausted => {
                let mut lock = database.postgres()?.begin().await?;
                sqlx::query("LOCK TABLE usermgr_users, usermgr_registrations IN ACCESS EXCLUSIVE MODE")
                    .execute(&mut *lock)
                    .await?;
                tokio::time::sleep(held).await;
                Ok(lock.rollback().await?)
            }
            Fault::DiskFull => {
                let Some(disk) = self.disk.as_ref().filter(|disk| disk.is_mounted) else {
                    return fail_calls(process, "pwrite64,ftruncate", "ENOSPC").await;
                };
                let filler = disk.folder.path().join("filler");
                disk.fill(&filler).await?;
                tokio::fs::remove_file(filler).await?;
                Ok(())
            }
            Fault::Locked => {
                let mut other = sqlx::SqliteConnection::connect(&database.url).await?;
                sqlx::query("PRAGMA busy_timeout = 10000").execute(&mut other).await?;
                sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await?;
                tokio::time::sleep(held).await;
                sqlx::query("ROLLBACK").execute(&mut other).await?;
                Ok(other.close().await?)
            }
            Fault::WriteError | Fault::SyncError | Fault::ReadError | Fault::ReadOnly => {
                let (calls, error) = self.fault.calls().ok_or("no such call")?;
                fail_calls(process, calls, error).await
            }
            Fault::ClockSteps => self.step_clock(database).await,
        }
    }

    async fn step_clock(&self, database: &Database) -> Result<(), Trouble> {
        const LATEST: &str = "SELECT max(created_at) FROM usermgr_registrations WHERE email <> $1";
        const EARLIEST: &str = "SELECT min(created_at) FROM usermgr_registrations WHERE email <> $1";
        let steps = [("+1h", LATEST, 1), ("+0", LATEST, 0), ("-1h", EARLIEST, -1), ("+0", EARLIEST, 0)];
        for (clock, felt, sign) in steps {
            std::fs::write(self.clock.path(), clock)?;
            tokio::time::sleep(Duration::from_secs(5)).await;
            let apart = (database.number(felt, "").await? - crate::moment::now()) / 60_000_000;
            if sign != 0 && apart * sign < 50 {
                return Err(format!("the clock cannot be set here: {clock} is {apart} minutes").into());
            }
        }
        // What came to be owed in the hour ahead, and had not left, leaves when the clock is there again.
        std::fs::write(self.clock.path(), "+1h")?;
        Ok(())
    }

    async fn restart(&self, mode: &str) -> Result<(), Trouble> {
        let restarted = Command::new(&self.restart_postgres).arg(mode).stdout(Stdio::null()).status().await?;
        if restarted.success() { Ok(()) } else { Err("PostgreSQL could not be restarted".into()) }
    }

    async fn cut_commits(&self) -> Result<(), Trouble> {
        let proxy = self.proxy.as_ref().ok_or("no proxy")?;
        proxy.cut_commits(COMMITS);
        let begun = Instant::now();
        while proxy.commits_to_cut() > 0 {
            if begun.elapsed() > PATIENCE {
                return Err("there are no commits to cut".into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// What is wrong with the database itself.
    pub(super) async fn wrong_afterwards(&self, database: &Database) -> Result<Option<String>, Trouble> {
        if self.fault.is_postgres() {
            return Ok(None);
        }
        let mut other = sqlx::SqliteConnection::connect(&database.url).await?;
        let found: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut other).await?;
        other.close().await?;
        Ok((found != "ok").then(|| format!("lost: the file is damaged: {found}")))
    }

    pub(super) async fn remove(self) -> Result<(), Trouble> {
        match self.disk {
            Some(disk) => disk.unmount().await,
            None => Ok(()),
        }
    }
}

impl Disk {
    /// Where mounting is not permitted, it is a folder, and system calls are made to fail instead.
    async fn mount() -> Result<Self, Trouble> {
        let folder = tempfile::tempdir()?;
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", DISK, "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status()
            .await;
        Ok(Self { folder, is_mounted: mount.is_ok_and(|status| status.success()) })
    }

    /// Takes what is left, and what becomes free, for three seconds.
    async fn fill(&self, filler: &Path) -> Result<(), Trouble> {
        use std::io::Write as _;
        let mut file = std::fs::File::create(filler)?;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            while file.write(&[0; 4096]).is_ok() {}
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn unmount(mut self) -> Result<(), Trouble> {
        if self.is_mounted {
            Command::new("umount").arg(self.folder.path()).status().await?;
            self.is_mounted = false;
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            drop(std::process::Command::new("umount").arg("-l").arg(self.folder.path()).status());
        }
    }
}

/// Has system calls of a process fail for three seconds.
async fn fail_calls(process: u32, calls: &str, error: &str) -> Result<(), Trouble> {
    let mut strace = attach(process, calls, error)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    if let Some(ended) = strace.try_wait()? {
        return Err(format!("processes cannot be traced here (strace, ptrace): {ended}").into());
    }
    let id = strace.id().ok_or("strace is gone")?;
    // Asked to stop it lets the process go; killed it might not.
    Command::new("kill").args(["-INT", &id.to_string()]).status().await?;
    tokio::time::timeout(PATIENCE, strace.wait()).await??;
    Ok(())
}

fn attach(process: u32, calls: &str, error: &str) -> Result<Child, Trouble> {
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:error={error}"));
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", &trace, "-e", &inject, "-o", "/dev/null", "-p", &process.to_string()]);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()?)
}
