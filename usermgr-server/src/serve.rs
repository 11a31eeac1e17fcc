//! Putting the parts together, serving, and stopping in order.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use usermgr_core::memory::MemoryStore;
use usermgr_core::port::clock::SystemClock;
use usermgr_core::port::mailer::{Mail, MailError, Mailer};
use usermgr_core::port::random::{Random as _, SystemRandom};
use usermgr_core::port::store::Store;
use usermgr_core::template::{FolderTemplates, TemplateError};
use usermgr_core::{BuildError, SecretKey, UserManager};
use usermgr_smtp::{ConsoleEvents, MailUrlError, Webhook, WebhookUrlError};
use usermgr_sqlx::{ConnectError, MigrateError, PgStore, SchemaStatus, SqliteStore};

use crate::config::{Config, EventTarget};
use crate::http::client::PeerAddr;
use crate::http::{ServiceOptions, service};
use crate::pages::{Pages, PagesError};

/// How long requests may go on after a signal to stop.
const GRACE: Duration = Duration::from_secs(20);
/// How long a connection may take to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of a request's headers over HTTP/1; over HTTP/2 it is hyper's 16 KiB.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// What a connection of HTTP/2 begins with (RFC 9113 §3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Connections at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 10_000;

/// Why the program cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant says itself what failed")]
pub enum StartError {
    #[error("database.url: {}", root(.0))]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error("mail.url: {0}")]
    Mail(#[from] MailUrlError),
    #[error("events.url: {0}")]
    Webhook(#[from] WebhookUrlError),
    #[error("mail.templates: {0}")]
    Templates(#[from] TemplateError),
    #[error(transparent)]
    Pages(#[from] PagesError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("{path}: {source}")]
    KeyFile { path: String, source: io::Error },
    #[error("{0}: it holds no secret key; a key is 32 bytes in base64")]
    BadKeyFile(String),
    #[error("http.listen {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
}

/// What failed underneath.
fn root(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    format!("{error}: {deepest}")
}

/// A store of either kind, before it is handed to the core.
pub(crate) enum Database {
    Sqlite(SqliteStore),
    Postgres(PgStore),
    Memory(MemoryStore),
}

impl Database {
    pub(crate) async fn open(config: &Config) -> Result<Self, ConnectError> {
        let url = config.database_url.expose_secret();
        if url == "memory:" {
            Ok(Self::Memory(MemoryStore::new()))
        } else if url.starts_with("sqlite:") {
            Ok(Self::Sqlite(SqliteStore::connect(url, config.max_connections).await?))
        } else {
            Ok(Self::Postgres(PgStore::connect(url, config.max_connections).await?))
        }
    }

    pub(crate) async fn migrate(&self) -> Result<(), MigrateError> {
        match self {
            Self::Sqlite(store) => store.migrate().await,
            Self::Postgres(store) => store.migrate().await,
            Self::Memory(_) => Ok(()),
        }
    }

    /// How the tables stand to this program; `None` where there are none to migrate.
    pub(crate) async fn schema(&self) -> Result<Option<SchemaStatus>, MigrateError> {
        match self {
            Self::Sqlite(store) => store.schema().await.map(Some),
            Self::Postgres(store) => store.schema().await.map(Some),
            Self::Memory(_) => Ok(None),
        }
    }

    fn into_store(self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(store) => Arc::new(store),
            Self::Postgres(store) => Arc::new(store),
            Self::Memory(store) => Arc::new(store),
        }
    }
}

/// The transport of `memory:`: it takes every mail and forgets it, so that a load test does not fill the memory.
#[derive(Debug)]
struct Nowhere;

#[async_trait::async_trait]
impl Mailer for Nowhere {
    async fn send(&self, _: &Mail) -> Result<(), MailError> {
        Ok(())
    }
}

/// Builds the manager that a configuration describes, over a migrated database.
pub(crate) async fn manager(config: &Config) -> Result<UserManager, StartError> {
    let database = Database::open(config).await?;
    database.migrate().await?;
    let mail_url = config.mail_url.expose_secret();
    let mailer = if mail_url == "memory:" {
        Arc::new(Nowhere)
    } else {
        usermgr_smtp::from_url(mail_url, config.mail_from.clone(), config.mail_plaintext)?
    };
    let mut builder = UserManager::builder()
        .store(database.into_store())
        .mailer(mailer)
        .secret_key(secret_key(config)?)
        .previous_keys(config.previous_keys.clone())
        .mail_callback_secrets(config.mail_callback_secrets.clone())
        .policies(config.policies.clone());
    if let Some(folder) = &config.mail_templates {
        let templates = FolderTemplates::load(folder)?.with_default(&config.policies.mail.default_locale);
        builder = builder.templates(Arc::new(templates));
    }
    match &config.events {
        EventTarget::Nowhere => {}
        EventTarget::Console => builder = builder.events(Arc::new(ConsoleEvents)),
        EventTarget::Webhook { url, secrets, plaintext } => {
            let clock = Arc::new(SystemClock);
            let webhook = Webhook::new(url.expose_secret(), secrets.clone(), *plaintext, clock)?;
            builder = builder.events(Arc::new(webhook));
        }
    }
    Ok(builder.build()?)
}

/// The configured key; without one, the key beside the SQLite file, made at the first start.
fn secret_key(config: &Config) -> Result<SecretKey, StartError> {
    if let Some(key) = &config.secret_key {
        return Ok(key.clone());
    }
    let new_key = || {
        let mut bytes = [0_u8; 32];
        SystemRandom.fill(&mut bytes);
        SecretKey::from_bytes(bytes)
    };
    let Some(path) = key_path(config.database_url.expose_secret()) else { return Ok(new_key()) };
    let failed = |source| StartError::KeyFile { path: path.display().to_string(), source };
    match make_key_file(&path, new_key().to_base64().expose_secret()) {
        Ok(()) => {
            tracing::info!(path = %path.display(), "made a secret key; keep it with the database, and apart from its backups");
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    SecretKey::from_base64(&text).map_err(|_| StartError::BadKeyFile(path.display().to_string()))
}

/// `users.db` -> `users.key`. A database in memory has no file.
fn key_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite:")?;
    let path = path.strip_prefix("//").unwrap_or(path).split('?').next()?;
    (!path.is_empty() && !path.starts_with(':')).then(|| Path::new(path).with_extension("key"))
}

/// Writes the key beside its place and links it there: whoever is first wins, and nobody reads half a key.
fn make_key_file(path: &Path, key: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if path.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // A name of its own for each start: process numbers repeat between containers that share a folder.
    let mut suffix = [0_u8; 8];
    SystemRandom.fill(&mut suffix);
    let draft = path.with_extension(format!("key.{:016x}", u64::from_ne_bytes(suffix)));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(key.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft)?;
    linked
}

/// Whether this process also delivers mail and does upkeep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worker {
    Here,
    Elsewhere,
}

/// Serves until a signal says stop; then finishes what was begun.
pub(crate) async fn serve(config: &Config, worker: Worker) -> Result<(), StartError> {
    let mut stop = Stop::listen()?;
    let pages = config.pages.as_ref().map(Pages::load).transpose()?.map(Arc::new);
    let manager = manager(config).await?;
    let listen_failed = |source| StartError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(listen_failed)?;
    let address = listener.local_addr().map_err(listen_failed)?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let workers = (worker == Worker::Here).then(|| manager.start_workers());
    // On standard output whatever the log's level: who asked for port 0 reads the port here.
    let _nobody_reads = writeln!(io::stdout(), "listening on http://{address}{}", config.base_path);
    tracing::info!("listening on http://{address}{}", config.base_path);
    if let Some(pages) = &config.pages {
        tracing::info!("pages are at {}/", pages.public_url);
    }

    let service = service(
        manager,
        ServiceOptions {
            base_path: config.base_path.clone(),
            max_body: config.max_body,
            trusted_proxies: config.trusted_proxies.clone(),
            cors_origins: config.cors_origins.clone(),
            pages,
        },
    );
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES);
    server.http2().timer(TokioTimer::new()).keep_alive_interval(HEADER_TIMEOUT).max_concurrent_streams(100);
    let graceful = GracefulShutdown::new();
    let (stopping, quit) = tokio::sync::watch::channel(());
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.requested() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        let server = server.clone();
        let watcher = graceful.watcher();
        let service = tower::util::MapRequest::new(service.clone(), move |mut request: http::Request<_>| {
            request.extensions_mut().insert(PeerAddr(peer));
            request
        });
        let mut quit = quit.clone();
        tokio::spawn(async move {
            let speaks = tokio::select! {
                speaks = speaks(&stream) => speaks,
                _ = quit.changed() => false,
            };
            if speaks {
                let connection =
                    server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
                if let Err(error) = watcher.watch(connection.into_owned()).await {
                    tracing::debug!(%error, "a connection ended badly");
                }
            }
            drop(place);
        });
    }

    tracing::info!("stopping: finishing what was begun");
    drop(listener);
    drop(stopping);
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
    if let Some(workers) = workers
        && tokio::time::timeout(GRACE, workers.stop()).await.is_err()
    {
        tracing::warn!("some mails or jobs did not end in time; they come again");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Whether the other side says something that can be HTTP, within the time it has for its headers.
///
/// The server looks at the first bytes to tell HTTP/2 from HTTP/1 and does so without a limit of time; here they are
/// waited for, and left where they are.
async fn speaks(stream: &tokio::net::TcpStream) -> bool {
    let looking = async {
        let mut seen = [0_u8; HTTP2_PREFACE.len()];
        loop {
            match stream.peek(&mut seen).await {
                Ok(0) | Err(_) => return false,
                Ok(n) if n == seen.len() || seen[..n] != HTTP2_PREFACE[..n] => return true,
                // The beginning of a preface, or of `POST`: what is there stays readable, so only time tells.
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(HEADER_TIMEOUT, looking).await.unwrap_or(false)
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, SocketAddr, Place)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            let _best_effort = stream.set_nodelay(true);
            Some((stream, peer, place))
        }
        Err(error) => {
            // Out of file descriptors, most likely: those who are served will free some.
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Delivers mail and does upkeep until a signal says stop.
pub(crate) async fn work(config: &Config) -> Result<(), StartError> {
    let mut stop = Stop::listen()?;
    let manager = manager(config).await?;
    let workers = manager.start_workers();
    tracing::info!("working");
    stop.requested().await;
    tracing::info!("stopping: finishing what was begun");
    if tokio::time::timeout(GRACE, workers.stop()).await.is_err() {
        tracing::warn!("some mails or jobs did not end in time; they come again");
    }
    Ok(())
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    fn listen() -> Result<Self, StartError> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(StartError::Signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(StartError::Signals)?,
        })
    }

    async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
