//! The real binary, over a real database, with a real SMTP server on loopback.

#![allow(unreachable_pub, dead_code, reason = "shared by several test programs")]

#[path = "contract.rs"]
pub mod contract;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use usermgr_smtp::testing::{ReceivedMail, SmtpSink};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Which database a test runs on.
#[derive(Clone, Copy, Debug)]
pub enum Db {
    Sqlite,
    Postgres,
}

/// The two roles of an installation, under names of their own: roles belong to the whole cluster.
const ROLES: &str = include_str!("../../../deploy/postgres-roles.sql");
const OWNER: &str = "usermgr_test_owner";
const APP: &str = "usermgr_test_app";

/// A database of its own for one test, removed at the end. On PostgreSQL one role migrates it, and servers run as another
/// that may do least.
pub struct Database {
    /// As servers connect.
    pub url: String,
    /// As somebody who may do everything.
    pub all_powerful: String,
    admin: Option<String>,
    name: String,
    dir: tempfile::TempDir,
}

impl Database {
    pub async fn create(db: Db) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let name = format!("usermgr_{}_{}", std::process::id(), free_port());
        match db {
            Db::Sqlite => {
                let url = format!("sqlite://{}", dir.path().join("usermgr.db").display());
                Self { all_powerful: url.clone(), url, admin: None, name, dir }
            }
            Db::Postgres => {
                let database = Self::without_tables().await;
                let migrated = database.migrate();
                assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
                database
            }
        }
    }

    /// A PostgreSQL database with the two roles, before anybody migrates.
    pub async fn without_tables() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let name = format!("usermgr_{}_{}", std::process::id(), free_port());
        let admin = postgres_url();
        let pool = sqlx::PgPool::connect(&admin).await.unwrap();
        let sql = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(sql).execute(&pool).await.unwrap();
        pool.close().await;
        let (base, _) = admin.rsplit_once('/').unwrap();
        let all_powerful = format!("{base}/{name}");
        let database = Self { url: as_role(&all_powerful, APP), all_powerful, admin: Some(admin), name, dir };
        database.say_roles().await;
        database
    }

    /// Runs deploy/postgres-roles.sql.
    pub async fn say_roles(&self) {
        let pool = sqlx::PgPool::connect(&self.all_powerful).await.unwrap();
        let roles = ROLES.replace("usermgr_owner", OWNER).replace("usermgr_app", APP);
        // One role is for all databases, and what two tests do to it at once one of them has to do again.
        let begun = Instant::now();
        while let Err(error) = sqlx::raw_sql(sqlx::AssertSqlSafe(roles.clone())).execute(&pool).await {
            assert!(begun.elapsed() < PATIENCE, "{error}");
        }
        pool.close().await;
    }

    /// Makes the tables, as the role that owns them.
    pub fn migrate(&self) -> std::process::Output {
        let env = [
            ("USERMGR_DATABASE_URL", as_role(&self.all_powerful, OWNER)),
            ("USERMGR_SECRET_KEY", KEY.into()),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value));
        let mut command = command(&self.dir, &env);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).arg("migrate").output().unwrap()
    }

    /// Makes due what a dead server has leased, as time would.
    pub async fn end_leases(&self, table: &str) {
        if self.admin.is_some() {
            let sql = format!("UPDATE {table} SET due_at = now() WHERE lease IS NOT NULL");
            let pool = sqlx::PgPool::connect(&self.all_powerful).await.unwrap();
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
        } else {
            let sql = format!("UPDATE {table} SET due_at = 0 WHERE lease IS NOT NULL");
            let pool = sqlx::SqlitePool::connect(&self.url).await.unwrap();
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
        }
    }

    /// How many rows a table has.
    pub async fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        if self.admin.is_some() {
            let pool = sqlx::PgPool::connect(&self.all_powerful).await.unwrap();
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&pool).await.unwrap()
        } else {
            let pool = sqlx::SqlitePool::connect(&self.url).await.unwrap();
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&pool).await.unwrap()
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some(admin) = self.admin.clone() else { return };
        let name = self.name.clone();
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let pool = sqlx::PgPool::connect(&admin).await.unwrap();
                let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
            });
        });
        drop(dropped.join());
    }
}

const KEY: &str = "wZ5f0cL3mJq8yTnB4vRkXe1uHsGd7oPaQi2C6tEbUjM=";

/// The URL for another role. Clusters of tests trust whoever comes from here.
fn as_role(url: &str, role: &str) -> String {
    let rest = url.split_once("://").map(|(_, rest)| rest).unwrap();
    let at = rest.rsplit_once('@').map_or(rest, |(_, at)| at);
    format!("postgres://{role}@{at}")
}

#[expect(clippy::disallowed_methods, reason = "how the test command names its throw-away cluster")]
fn postgres_url() -> String {
    std::env::var("USERMGR_TEST_POSTGRES_URL")
        .expect("USERMGR_TEST_POSTGRES_URL names a cluster: run scripts/test")
}

/// The program under test, while it runs. Dropping it kills it as `kill -9` does.
pub struct Server {
    child: Child,
    pub base: String,
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Server {
    /// Starts the program and waits until it is ready.
    pub async fn start(database: &Database, mail_url: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_with(database, mail_url, settings, &["serve"]).await
    }

    /// Starts the program with these arguments and waits until it is ready.
    pub async fn start_with(
        database: &Database,
        mail_url: &str,
        settings: &[(&str, &str)],
        args: &[&str],
    ) -> Self {
        let server = Self::spawn(database, mail_url, settings, args);
        let host = server.base.trim_end_matches(base_path(settings));
        server.wait_ready(&format!("{host}/health/ready")).await;
        server
    }

    /// Starts the program without waiting for it: it may be about to refuse, or choose its port.
    pub fn start_unready(database: &Database, mail_url: &str, settings: &[(&str, &str)]) -> Self {
        Self::spawn(database, mail_url, settings, &["serve"])
    }

    fn spawn(database: &Database, mail_url: &str, settings: &[(&str, &str)], args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let own = settings.iter().find(|(name, _)| *name == "USERMGR_HTTP_LISTEN");
        let listen =
            own.map_or_else(|| format!("127.0.0.1:{}", free_port()), |(_, value)| (*value).to_owned());
        let mut env: Vec<(String, String)> = [
            ("USERMGR_DATABASE_URL", database.url.as_str()),
            ("USERMGR_HTTP_LISTEN", &listen),
            ("USERMGR_HTTP_PUBLIC_URL", "https://app.example.org"),
            ("USERMGR_MAIL_URL", mail_url),
            ("USERMGR_MAIL_FROM", "Example <noreply@example.org>"),
            ("USERMGR_SECRET_KEY", KEY),
            ("USERMGR_CODES_RESEND_INTERVAL", "0s"),
            ("USERMGR_LOG_LEVEL", "debug"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .into();
        env.extend(settings.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        let child = command(&dir, &env).args(args).spawn().unwrap();
        let base = format!("http://{listen}{}", base_path(settings));
        Self { child, base, dir, env }
    }

    async fn wait_ready(&self, url: &str) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Ok(answer) = try_call(http::Method::GET, url, "", &[], None).await
                && answer.status == 200
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the server was not ready in time; it said:\n{}", self.log());
    }

    /// Runs another command of the program with the same configuration.
    pub fn run(&self, args: &[&str]) -> std::process::Output {
        let mut command = command(&self.dir, &self.env);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).args(args).output().unwrap()
    }

    /// As [`run`](Self::run), with settings of its own over the server's.
    pub fn run_beside(&self, settings: &[(&str, &str)], args: &[&str]) -> std::process::Output {
        let mut command = command(&self.dir, &self.env);
        command.envs(settings.iter().copied());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).args(args).output().unwrap()
    }

    /// As [`run`](Self::run), with something to read on standard input.
    pub fn run_with_input(&self, args: &[&str], input: &str) -> std::process::Output {
        use std::io::Write as _;
        let mut command = command(&self.dir, &self.env);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.args(args).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Everything the program has printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(http::Method::POST, path, &[], Some(body)).await
    }

    pub async fn get_as(&self, path: &str, token: &str) -> Answer {
        self.call(http::Method::GET, path, &[("authorization", &format!("Bearer {token}"))], None).await
    }

    pub async fn post_as(&self, path: &str, token: &str, body: Option<Value>) -> Answer {
        self.call(http::Method::POST, path, &[("authorization", &format!("Bearer {token}"))], body).await
    }

    pub async fn call_as(
        &self,
        method: http::Method,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> Answer {
        self.call(method, path, &[("authorization", &format!("Bearer {token}"))], body).await
    }

    pub async fn post_basic(&self, path: &str, user: &str, password: &str, body: Option<Value>) -> Answer {
        use base64::Engine as _;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.call(http::Method::POST, path, &[("authorization", &format!("Basic {basic}"))], body).await
    }

    pub async fn call(
        &self,
        method: http::Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let url = format!("{}{path}", self.base);
        try_call(method, &url, self.base_path(), headers, body)
            .await
            .unwrap_or_else(|error| panic!("{url}: {error}\n{}", self.log()))
    }

    /// What the program's paths begin with.
    pub fn base_path(&self) -> &str {
        let address = self.base.trim_start_matches("http://");
        address.find('/').map_or("", |at| &address[at..])
    }

    /// Asks the program to stop as an operator does, and answers its exit status.
    pub fn terminate(self) -> std::process::ExitStatus {
        self.terminate_with_log().0
    }

    /// As [`terminate`](Self::terminate), with everything the program has printed.
    pub fn terminate_with_log(self) -> (std::process::ExitStatus, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.wait_with_log()
    }

    /// Waits until the program ends by itself.
    pub fn wait_with_log(mut self) -> (std::process::ExitStatus, String) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.log());
            }
            assert!(begun.elapsed() < PATIENCE, "it did not stop in time:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn base_path<'a>(settings: &[(&str, &'a str)]) -> &'a str {
    settings.iter().find(|(name, _)| *name == "USERMGR_HTTP_BASE_PATH").map_or("/v1", |(_, value)| *value)
}

fn command(dir: &tempfile::TempDir, env: &[(String, String)]) -> Command {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.path().join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_usermgr-server"));
    command
        .current_dir(dir.path())
        .env_remove("DATABASE_URL")
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    command
}

/// What the server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// Asserts the status and hands the body on.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{:?}", self.body);
        self.body
    }

    /// Asserts a problem of this status and code (RFC 9457).
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{:?}", self.body);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert!(self.header("x-request-id").is_some());
        self.body
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

async fn try_call(
    method: http::Method,
    url: &str,
    base_path: &str,
    headers: &[(&str, &str)],
    body: Option<Value>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut request = http::Request::builder().method(&method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
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
    contract::check(&contract::Exchange {
        method: &method,
        path: url.parse::<http::Uri>()?.path(),
        base_path,
        status: parts.status.as_u16(),
        headers: &parts.headers,
        body: &bytes,
    });
    let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A mailbox: what the SMTP server on loopback got.
pub struct Mailbox {
    pub sink: SmtpSink,
}

impl Mailbox {
    pub async fn open() -> Self {
        Self { sink: SmtpSink::start().await.unwrap() }
    }

    pub fn url(&self) -> String {
        format!("smtp://{}?tls=none", self.sink.address())
    }

    /// The n-th code mailed to an address, from 1, once it is there. Mails go out side by side, so none is found by its
    /// place among mails of other kinds.
    pub async fn code(&self, address: &str, n: usize) -> String {
        self.nth(address, n, "a code", |mail| mail.code().is_some()).await.code().unwrap()
    }

    /// The n-th mail to an address that has a link.
    pub async fn link(&self, address: &str, n: usize) -> ReceivedMail {
        self.nth(address, n, "a link", |mail| mail.link_token().is_some()).await
    }

    /// The n-th mail to an address that has neither code nor link.
    pub async fn notice(&self, address: &str, n: usize) -> ReceivedMail {
        self.nth(address, n, "a notice", |mail| mail.code().is_none() && mail.link_token().is_none()).await
    }

    /// Waits until an address has so many mails.
    pub async fn count(&self, address: &str, n: usize) {
        self.nth(address, n, "any mail", |_| true).await;
    }

    async fn nth(
        &self,
        address: &str,
        n: usize,
        what: &str,
        is_meant: impl Fn(&ReceivedMail) -> bool,
    ) -> ReceivedMail {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let mut mails = self.sink.mails().into_iter();
            let is_here = |mail: &ReceivedMail| mail.to.iter().any(|to| to == address) && is_meant(mail);
            if let Some(mail) = mails.by_ref().filter(is_here).nth(n - 1) {
                return mail;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("number {n} of the mails with {what} to {address} did not come");
    }
}
