//! The real server on a database of its own.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::client::{Line, Request};
use crate::{PATIENCE, SetUp, Trouble};

enum Pool {
    Sqlite(sqlx::SqlitePool),
    Postgres { pool: sqlx::PgPool, admin: sqlx::PgPool, name: String },
}

/// A new database, for one set-up.
pub(crate) struct Database {
    pub(crate) url: String,
    pool: Pool,
    pub(crate) dir: tempfile::TempDir,
}

#[expect(clippy::disallowed_methods, reason = "how the script names its throw-away cluster")]
fn postgres_url() -> Result<String, Trouble> {
    std::env::var("USERMGR_TEST_POSTGRES_URL")
        .map_err(|_| "USERMGR_TEST_POSTGRES_URL names a cluster: run the script of this program".into())
}

impl Database {
    pub(crate) async fn create(set_up: SetUp) -> Result<Self, Trouble> {
        let dir = tempfile::tempdir()?;
        if set_up == SetUp::Sqlite {
            let path = dir.path().join("usermgr.db");
            return Ok(Self { dir, ..Self::sqlite(&path)? });
        }
        let url = postgres_url()?;
        let (base, _) = url.rsplit_once('/').ok_or("USERMGR_TEST_POSTGRES_URL ends in a database")?;
        let name = format!("proof_{}_{}", std::process::id(), free_port()?);
        let admin = sqlx::PgPool::connect(&url).await?;
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await?;
        let url = format!("{base}/{name}");
        let pool = sqlx::PgPool::connect_lazy(&url)?;
        Ok(Self { url, pool: Pool::Postgres { pool, admin, name }, dir })
    }

    /// A file in a place of one's own.
    pub(crate) fn sqlite(path: &Path) -> Result<Self, Trouble> {
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(PATIENCE)
            .create_if_missing(true);
        let pool = Pool::Sqlite(sqlx::SqlitePool::connect_lazy_with(options));
        Ok(Self { url: format!("sqlite://{}", path.display()), pool, dir: tempfile::tempdir()? })
    }

    /// Has commits last from when they are answered, also where the cluster is told otherwise.
    pub(crate) async fn commit_durably(&self) -> Result<(), Trouble> {
        let Pool::Postgres { admin, name, .. } = &self.pool else { return Ok(()) };
        let sql = format!("ALTER DATABASE {name} SET synchronous_commit = on");
        sqlx::query(AssertSqlSafe(sql)).execute(admin).await?;
        Ok(())
    }

    /// A number, as of `SELECT count(*)`.
    pub(crate) async fn number(&self, sql: &'static str, text: &str) -> Result<i64, Trouble> {
        Ok(match &self.pool {
            Pool::Sqlite(pool) => sqlx::query_scalar(sql).bind(text).fetch_one(pool).await?,
            Pool::Postgres { pool, .. } => sqlx::query_scalar(sql).bind(text).fetch_one(pool).await?,
        })
    }

    /// A text.
    pub(crate) async fn text(&self, sql: &'static str, text: &str) -> Result<String, Trouble> {
        Ok(match &self.pool {
            Pool::Sqlite(pool) => sqlx::query_scalar(sql).bind(text).fetch_one(pool).await?,
            Pool::Postgres { pool, .. } => sqlx::query_scalar(sql).bind(text).fetch_one(pool).await?,
        })
    }

    /// The database past the server, where it is PostgreSQL.
    pub(crate) fn postgres(&self) -> Result<&sqlx::PgPool, Trouble> {
        match &self.pool {
            Pool::Postgres { pool, .. } => Ok(pool),
            Pool::Sqlite(_) => Err("this needs PostgreSQL".into()),
        }
    }

    /// The newest identifier in the outbox.
    pub(crate) async fn newest_mail(&self) -> Result<Uuid, Trouble> {
        const SQL: &str = "SELECT id FROM usermgr_outbox ORDER BY id DESC LIMIT 1";
        let newest: Option<Uuid> = match &self.pool {
            Pool::Sqlite(pool) => sqlx::query_scalar(SQL).fetch_optional(pool).await?,
            Pool::Postgres { pool, .. } => sqlx::query_scalar(SQL).fetch_optional(pool).await?,
        };
        // Two servers need not make them in order: some seconds of leeway.
        let milliseconds = newest.map_or(0, |id| id.as_u128() >> 80);
        Ok(Uuid::from_u128(milliseconds.saturating_sub(5000) << 80))
    }

    /// The mails that carry a live code of digits, to one of two addresses or to prove it, made after another mail.
    pub(crate) async fn live(&self, addresses: [&str; 2], after: Uuid) -> Result<Vec<Uuid>, Trouble> {
        const SQL: &str = "SELECT o.id FROM usermgr_outbox o JOIN usermgr_codes c ON c.id = o.code_id \
             WHERE o.id > $1 AND COALESCE(c.new_email, c.email_key) IN ($2, $3) \
             AND c.closed_at IS NULL AND c.digits > 0";
        let [one, other] = addresses;
        Ok(match &self.pool {
            Pool::Sqlite(pool) => {
                sqlx::query_scalar(SQL).bind(after).bind(one).bind(other).fetch_all(pool).await?
            }
            Pool::Postgres { pool, .. } => {
                sqlx::query_scalar(SQL).bind(after).bind(one).bind(other).fetch_all(pool).await?
            }
        })
    }

    /// Removes it.
    pub(crate) async fn remove(self) -> Result<(), Trouble> {
        match self.pool {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres { pool, admin, name } => {
                pool.close().await;
                let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                sqlx::query(AssertSqlSafe(sql)).execute(&admin).await?;
                admin.close().await;
            }
        }
        Ok(())
    }
}

/// How the servers are configured in one part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Without limits but a code's own tries.
    Free,
    /// With the limits of an address, as wide as by default.
    Limited,
    /// As free, and registrations live for two seconds.
    Brief,
    /// As free, and mail is left to others.
    Apart,
    /// As free, and no access token counts without a look into the database.
    Opaque,
    /// With every limit as it is by default.
    Usual,
}

/// How long registrations live in the brief manner.
pub(crate) const BRIEF: Duration = Duration::from_secs(2);

impl Manner {
    const fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Usual => &[],
            Self::Free | Self::Apart => &[("USERMGR_THROTTLE_ENABLED", "false")],
            Self::Opaque => &[("USERMGR_THROTTLE_ENABLED", "false"), ("USERMGR_TOKENS_FORMAT", "opaque")],
            Self::Limited => &[
                ("USERMGR_THROTTLE_NETWORK_REQUESTS", "1000000"),
                ("USERMGR_THROTTLE_NETWORK_FAILURES", "1000000"),
            ],
            Self::Brief => &[
                ("USERMGR_THROTTLE_ENABLED", "false"),
                ("USERMGR_REGISTRATION_PENDING_TTL", "2s"),
                ("USERMGR_CODES_TTL", "2s"),
            ],
        }
    }

    const fn arguments(self) -> &'static [&'static str] {
        if matches!(self, Self::Apart) { &["serve", "--no-worker"] } else { &["serve"] }
    }
}

/// One or two servers that run.
pub(crate) struct Servers {
    children: Vec<Child>,
    pub(crate) addresses: Vec<SocketAddr>,
    manner: Manner,
    /// Settings over those of the manner.
    settings: Vec<(&'static str, String)>,
    log: PathBuf,
}

impl Servers {
    /// Starts them and waits until each is ready.
    pub(crate) async fn start(
        database: &Database,
        mail: &str,
        manner: Manner,
        count: usize,
    ) -> Result<Self, Trouble> {
        Self::start_with(database, mail, manner, count, Vec::new()).await
    }

    /// As [`start`](Self::start), with settings of one's own.
    pub(crate) async fn start_with(
        database: &Database,
        mail: &str,
        manner: Manner,
        count: usize,
        settings: Vec<(&'static str, String)>,
    ) -> Result<Self, Trouble> {
        let log = database.dir.path().join("log");
        let mut servers = Self { children: Vec::new(), addresses: Vec::new(), manner, settings, log };
        for _ in 0..count {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
            let mut command = servers.command(database, mail, manner.arguments())?;
            command.env("USERMGR_HTTP_LISTEN", address.to_string());
            servers.children.push(command.spawn()?);
            servers.addresses.push(address);
            servers.wait_ready(address).await?;
        }
        Ok(servers)
    }

    /// A process that delivers mails beside the servers.
    pub(crate) fn add_worker(&mut self, database: &Database, mail: &str) -> Result<(), Trouble> {
        let child = self.command(database, mail, &["worker"])?.spawn()?;
        self.children.push(child);
        Ok(())
    }

    /// Another command of the program, with the same configuration; it has a process of its own.
    pub(crate) fn command(&self, database: &Database, mail: &str, args: &[&str]) -> Result<Command, Trouble> {
        let program = std::env::current_exe()?.with_file_name("usermgr-server");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(database.dir.path())
            .env_remove("DATABASE_URL")
            .env("USERMGR_DATABASE_URL", &database.url)
            .env("USERMGR_HTTP_PUBLIC_URL", "https://app.example.org")
            .env("USERMGR_MAIL_URL", mail)
            .env("USERMGR_MAIL_FROM", "Example <noreply@example.org>")
            .env("USERMGR_SECRET_KEY", "wZ5f0cL3mJq8yTnB4vRkXe1uHsGd7oPaQi2C6tEbUjM=")
            .env("USERMGR_CODES_RESEND_INTERVAL", "0s")
            .env("USERMGR_PASSWORDS_MEMORY_KIB", "64")
            .env("USERMGR_PASSWORDS_ITERATIONS", "1")
            .env("USERMGR_TOKENS_ACCESS_TTL", "24h")
            .env("USERMGR_ROLES_SUPPORT", "users:read")
            .env("USERMGR_LOG_LEVEL", "warn")
            .env("USERMGR_LOG_FORMAT", "json")
            .envs(self.manner.settings().iter().copied())
            .envs(self.settings.iter().map(|(name, value)| (*name, value.as_str())))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        Ok(command)
    }

    async fn wait_ready(&self, address: SocketAddr) -> Result<(), Trouble> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            // Without a token it refuses whoever asks: it answers, and its store is there.
            let request = Request::new("ready", http::Method::GET, "/users/me");
            let calls = Line::new(0, address).call(&request, begun).await;
            if calls.iter().any(|call| call.status == 401) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("a server was not ready in time:\n{}", self.said()).into())
    }

    /// The first server's process.
    pub(crate) fn process(&self) -> Option<u32> {
        self.children.first().and_then(Child::id)
    }

    /// Forgets what they have logged.
    pub(crate) fn clear_log(&self) -> std::io::Result<()> {
        std::fs::write(&self.log, "")
    }

    /// What they have logged: warnings and errors only.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Makes a user at the command line.
    pub(crate) async fn create_user(
        &self,
        database: &Database,
        mail: &str,
        email: &str,
        password: &str,
        role: &str,
    ) -> Result<(), Trouble> {
        let args = ["users", "create", email, "--password-stdin", "--role", role];
        let mut child = self.command(database, mail, &args)?.stdin(Stdio::piped()).spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(password.as_bytes()).await?;
        }
        if child.wait().await?.success() { Ok(()) } else { Err("users create failed".into()) }
    }

    /// Asks them to stop as an operator does. What they did wrong at it is a fault.
    pub(crate) async fn stop(mut self) -> Result<Vec<String>, Trouble> {
        let mut faults = Vec::new();
        for child in &mut self.children {
            if let Some(id) = child.id() {
                Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
            }
            match tokio::time::timeout(PATIENCE, child.wait()).await {
                Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => {}
                Ok(status) => faults.push(format!("a server ended with {status:?}")),
                Err(_) => faults.push("stuck: a server did not stop in time".to_owned()),
            }
        }
        let said = self.said();
        let errors = said.lines().filter(|line| line.contains("\"ERROR\"") || line.contains("panicked"));
        faults.extend(errors.map(|line| format!("logged: {line}")));
        self.clear_log()?;
        Ok(faults)
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
