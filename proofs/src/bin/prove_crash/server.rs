//! The program under test, and calls to it.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::Fallible;

/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(20);
/// What SQLite does to its files.
pub(crate) const SYSTEM_CALLS: [&str; 5] = ["pwrite64", "fsync", "fdatasync", "ftruncate", "unlink"];

/// What is started, over what.
#[derive(Clone)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) database: String,
    pub(crate) mail: String,
    /// `opaque`, with every limit, or `jwt`, without, for loads.
    pub(crate) tokens: &'static str,
    /// Where it runs.
    pub(crate) folder: PathBuf,
}

/// How a process is watched.
#[derive(Clone)]
pub(crate) enum Watch {
    /// It is not.
    No,
    /// What it does to its files is written here.
    Record(PathBuf),
    /// It is killed before its n-th call of this name.
    KillAt(&'static str, u32),
}

/// A running program. Dropping it kills it as `kill -9` does.
pub(crate) struct Server {
    child: Mutex<Child>,
    watched: bool,
    base: String,
    root: String,
    log: tempfile::NamedTempFile,
    /// How long it took to be ready.
    pub(crate) ready_after: Duration,
}

impl Server {
    /// Starts the program, and waits until it is ready or gone.
    pub(crate) async fn start(launch: &Launch, watch: &Watch) -> Fallible<Self> {
        let root = format!("http://127.0.0.1:{}", free_port()?);
        let log = tempfile::NamedTempFile::new()?;
        let mut command = command(launch, watch);
        command
            .env("USERMGR_HTTP_LISTEN", root.trim_start_matches("http://"))
            .stdin(Stdio::null())
            .stdout(log.reopen()?)
            .stderr(log.reopen()?);
        let begun = Instant::now();
        let child = command.arg("serve").spawn()?;
        let mut server = Self {
            child: Mutex::new(child),
            watched: !matches!(watch, Watch::No),
            base: format!("{root}/v1"),
            root,
            log,
            ready_after: Duration::ZERO,
        };
        server.ready_after = server.wait_ready(begun).await?;
        Ok(server)
    }

    /// Waits until it is ready or gone; answers how long that took.
    pub(crate) async fn wait_ready(&self, begun: Instant) -> Fallible<Duration> {
        let url = format!("{}/health/ready", self.root);
        while begun.elapsed() < PATIENCE {
            if self.is_gone() {
                return Ok(begun.elapsed());
            }
            if let Ok(answer) = call("GET", &url, None, None).await
                && answer.status == 200
            {
                return Ok(begun.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(format!("the server was not ready in time; it said:\n{}", self.log()).into())
    }

    pub(crate) fn is_gone(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        !matches!(child.try_wait(), Ok(None))
    }

    /// Everything the program has printed.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Fallible<Answer> {
        call(method, &format!("{}{path}", self.base), token, body).await
    }

    /// `kill -9`.
    pub(crate) fn kill(&self) {
        self.signal("-KILL");
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        drop(child.wait());
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(&self) -> Fallible<()> {
        self.signal("-TERM");
        let begun = Instant::now();
        while !self.is_gone() {
            if begun.elapsed() > PATIENCE {
                return Err("the server did not stop in time".into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn signal(&self, signal: &str) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        if signal == "-KILL" && !self.watched {
            drop(child.kill());
            return;
        }
        // Whoever watches it is the leader of its group.
        let target = if self.watched { format!("-{}", child.id()) } else { child.id().to_string() };
        drop(Command::new("kill").args([signal, "--", &target]).stderr(Stdio::null()).status());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs another command of the program to its end.
pub(crate) fn run(launch: &Launch, watch: &Watch, args: &[&str], input: &str) -> Fallible<bool> {
    use std::io::Write as _;
    let mut command = command(launch, watch);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        drop(stdin.write_all(input.as_bytes()));
    }
    Ok(child.wait()?.success())
}

fn command(launch: &Launch, watch: &Watch) -> Command {
    let mut command = match watch {
        Watch::No => Command::new(&launch.program),
        Watch::Record(to) => {
            let mut command = Command::new("strace");
            let trace = format!("trace={}", SYSTEM_CALLS.join(","));
            command.args(["-f", "-qq", "-e", &trace, "-o"]).arg(to).arg(&launch.program).process_group(0);
            command
        }
        Watch::KillAt(call, n) => {
            let mut command = Command::new("strace");
            let (trace, kill) = (format!("trace={call}"), format!("inject={call}:signal=KILL:when={n}"));
            command.args(["-f", "-qq", "-e", &trace, "-e", &kill, "-o", "/dev/null"]);
            command.arg(&launch.program).process_group(0);
            command
        }
    };
    let settings = [
        ("USERMGR_DATABASE_URL", launch.database.as_str()),
        ("USERMGR_HTTP_PUBLIC_URL", "https://app.example.org"),
        ("USERMGR_MAIL_URL", &launch.mail),
        ("USERMGR_MAIL_FROM", "Example <noreply@example.org>"),
        ("USERMGR_SECRET_KEY", "wZ5f0cL3mJq8yTnB4vRkXe1uHsGd7oPaQi2C6tEbUjM="),
        ("USERMGR_CODES_RESEND_INTERVAL", "0s"),
        // Hashing is not what is shown here.
        ("USERMGR_PASSWORDS_MEMORY_KIB", "8"),
        ("USERMGR_PASSWORDS_ITERATIONS", "1"),
        ("USERMGR_TOKENS_FORMAT", launch.tokens),
        ("USERMGR_TOKENS_ACCESS_TTL", "24h"),
        ("USERMGR_THROTTLE_ENABLED", if launch.tokens == "jwt" { "false" } else { "true" }),
        ("USERMGR_LOG_LEVEL", "warn"),
    ];
    command.current_dir(&launch.folder).env_remove("DATABASE_URL").envs(settings);
    command
}

/// What the server answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

async fn call(method: &str, url: &str, token: Option<&str>, body: Option<Value>) -> Fallible<Answer> {
    // A client of its own for each call: none is sent twice over a connection that broke.
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut request = http::Request::builder().method(method).uri(url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = match body {
        Some(body) => {
            request = request.header("content-type", "application/json");
            Bytes::from(serde_json::to_vec(&body)?)
        }
        None => Bytes::new(),
    };
    let response = tokio::time::timeout(PATIENCE, client.request(request.body(Full::new(body))?)).await??;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await?.to_bytes();
    let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
    Ok(Answer { status: parts.status.as_u16(), body })
}

/// A port that nobody listens on, and that was not given away here before.
fn free_port() -> Fallible<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 20_000)?;
    for _ in 0..10_000 {
        let port = 20_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no port is free".into())
}
