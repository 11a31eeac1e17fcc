//! Processes that serve: the real server, the parts, and a peer.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::client::{BlockingLine, request};
use usermgr_benches::database::Database;
use usermgr_benches::{Trouble, machine};

/// How long a process may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that serves.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
}

/// A port of loopback that nobody has.
pub(crate) fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

/// The product's program on a database: it is configured as delivered, but for what a run must change. `USERMGR_…`
/// variables of this process reach it too.
pub(crate) fn product(program: &Path, database: &Database, arguments: &[&str]) -> Result<Command, Trouble> {
    let log =
        std::fs::OpenOptions::new().create(true).append(true).open(database.folder.path().join("log"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(database.folder.path())
        .env_remove("DATABASE_URL")
        .env("USERMGR_DATABASE_URL", &database.url)
        .env("USERMGR_HTTP_PUBLIC_URL", ISSUER)
        .env("USERMGR_MAIL_URL", "memory:")
        .env("USERMGR_SECRET_KEY", "wZ5f0cL3mJq8yTnB4vRkXe1uHsGd7oPaQi2C6tEbUjM=")
        .env("USERMGR_THROTTLE_ENABLED", "false")
        .env("USERMGR_CODES_RESEND_INTERVAL", "0s")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true);
    Ok(command)
}

/// Who issues the server's tokens.
pub(crate) const ISSUER: &str = "https://app.example.org";

/// Runs a command of the product to its end.
pub(crate) async fn run(program: &Path, database: &Database, arguments: &[&str]) -> Result<(), Trouble> {
    let status = product(program, database, arguments)?.status().await?;
    if status.success() {
        return Ok(());
    }
    let log = std::fs::read_to_string(database.folder.path().join("log")).unwrap_or_default();
    Err(format!("{arguments:?} failed:\n{}", log.lines().rev().take(5).collect::<Vec<_>>().join("\n")).into())
}

impl Server {
    /// Starts the product's server, with further settings, and waits for its first answer.
    pub(crate) async fn start(
        program: &Path,
        database: &Database,
        arguments: &[&str],
        settings: &[(&str, &str)],
    ) -> Result<Self, Trouble> {
        let address = free_address()?;
        let mut command = product(program, database, arguments)?;
        command.env("USERMGR_HTTP_LISTEN", address.to_string()).envs(settings.iter().copied());
        Self::spawn(command, address).await.map(|(server, _)| server)
    }

    /// Starts the product's server and tells how long its first answer took.
    pub(crate) async fn start_timed(
        program: &Path,
        database: &Database,
    ) -> Result<(Self, Duration), Trouble> {
        let address = free_address()?;
        let mut command = product(program, database, &["serve"])?;
        command.env("USERMGR_HTTP_LISTEN", address.to_string());
        Self::spawn(command, address).await
    }

    /// Starts a peer and waits for its first answer.
    pub(crate) async fn start_peer(
        program: &Path,
        database: &Database,
        hash: &str,
        users: usize,
    ) -> Result<Self, Trouble> {
        let address = free_address()?;
        let mut command = Command::new(program);
        command
            .env("PEER_LISTEN", address.to_string())
            .env("PEER_DATABASE_URL", &database.url)
            .env("PEER_PASSWORD_HASH", hash)
            .env("PEER_USERS", users.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        Self::spawn(command, address).await.map(|(server, _)| server)
    }

    async fn spawn(mut command: Command, address: SocketAddr) -> Result<(Self, Duration), Trouble> {
        let begun = Instant::now();
        let child = command.spawn()?;
        let pid = child.id().ok_or("the server has ended")?;
        let first = tokio::task::spawn_blocking(move || first_answer(address, begun)).await?;
        let took = first.ok_or_else(|| format!("no answer from {command:?}"))?;
        Ok((Self { child, address, pid }, took))
    }

    /// Starts one of the parts that serve; it says where.
    pub(crate) async fn start_part(arguments: &[&str]) -> Result<Self, Trouble> {
        let mut command = part(arguments)?;
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let pid = child.id().ok_or("the part has ended")?;
        let mut said = String::new();
        let output = child.stdout.take().ok_or("the part says nothing")?;
        BufReader::new(output).read_line(&mut said).await?;
        let address = said.trim().rsplit('/').next().unwrap_or_default().parse()?;
        Ok(Self { child, address, pid })
    }

    /// Ends it; see [`stop`].
    pub(crate) async fn stop(mut self) -> Result<(), Trouble> {
        stop(&mut self.child).await
    }

    /// The most memory it ever had, in MiB.
    pub(crate) fn peak_mib(&self) -> Result<f64, Trouble> {
        machine::memory_mib(self.pid, "VmHWM")
    }
}

/// Asks a process to end as an operator does, and waits until it has.
pub(crate) async fn stop(child: &mut Child) -> Result<(), Trouble> {
    let pid = child.id().ok_or("the process has ended by itself")?;
    Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
    tokio::time::timeout(PATIENCE, child.wait()).await??;
    Ok(())
}

/// This program as one of the parts.
fn part(arguments: &[&str]) -> Result<Command, Trouble> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("part").args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

/// Runs a part that prints a rate.
pub(crate) async fn rate_of(arguments: &[&str]) -> Result<f64, Trouble> {
    let output = part(arguments)?.stderr(Stdio::inherit()).output().await?;
    Ok(String::from_utf8(output.stdout)?.trim().parse().map_err(|_| format!("{arguments:?} failed"))?)
}

/// When a server that was started at `begun` gives its first answer, whatever it says.
fn first_answer(address: SocketAddr, begun: Instant) -> Option<Duration> {
    let asked = request("GET", "/health/ready", "", "");
    while begun.elapsed() < PATIENCE {
        if BlockingLine::connect(address).and_then(|mut line| line.call(&asked)).is_ok() {
            return Some(begun.elapsed());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    None
}

/// The server's program: the one that was named, or the one beside this program.
pub(crate) fn program(named: Option<PathBuf>) -> Result<PathBuf, Trouble> {
    let path = match named {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("usermgr-server"),
    };
    path.canonicalize().map_err(|error| format!("{}: {error}", path.display()).into())
}
