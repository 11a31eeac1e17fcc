//! Putting the parts together, serving, and stopping in order.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::signal::unix::{SignalKind, signal};
use usermgr_core::domain::page::PageSize;
use usermgr_core::domain::secret::SecretWeakness;
use usermgr_core::memory::MemoryStore;
use usermgr_core::port::clock::SystemClock;
use usermgr_core::port::events::EventPublisher;
use usermgr_core::port::mailer::{Mail, MailError, Mailer};
use usermgr_core::port::random::{Random as _, SystemRandom};
use usermgr_core::port::store::UpkeepStore as _;
use usermgr_core::port::store::account::UserQuery;
use usermgr_core::port::store::outbox::OutboxQuery;
use usermgr_core::port::store::{Store, StoreError};
use usermgr_core::template::{FolderTemplates, TemplateError};
use usermgr_core::worker::Stopper;
use usermgr_core::{BuildError, SecretKey, UserManager};
use usermgr_smtp::{ConsoleEvents, InvalidRoots, MailUrlError, TrustedRoots, Webhook, WebhookUrlError};
use usermgr_sqlx::{ConnectError, MigrateError, PgStore, SchemaStatus, SqliteStore};

use crate::config::{Config, DatabaseUrl, EventTarget};
use crate::connections::{self, GRACE};
use crate::http::{ServiceOptions, service};
use crate::observe::{self, Counted, Metrics, ObservedStore, Pools, Watched};
use crate::pages::{Pages, PagesError};
use crate::tls::{self, Tls, TlsError};

/// The workers begin when the first requests may have been answered: their connections to PostgreSQL take as long as the
/// rest of the start.
const BEFORE_WORKERS: Duration = Duration::from_millis(100);

/// Why the program cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant says itself what failed")]
#[non_exhaustive]
pub enum StartError {
    #[error("database.url: {}", unconnected(.0))]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error("database.url: the database takes no writes: {}", root(.0))]
    NotWritable(#[source] StoreError),
    #[error("mail.url: {0}")]
    Mail(#[from] MailUrlError),
    #[error("tls.extra_ca {path}: {source}")]
    ExtraCa { path: String, source: io::Error },
    #[error("tls.extra_ca {path}: {source}")]
    InvalidExtraCa { path: String, source: InvalidRoots },
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
    #[error(
        "{0}: the secret key is {1}, so anybody can guess it; make one with openssl rand -base64 32, and put this one into \
         secret.previous_keys"
    )]
    WeakKeyFile(String, SecretWeakness),
    #[error("{0}: it holds no secret key; a key is 32 bytes in base64")]
    BadKeyFile(String),
    #[error(
        "{0}: the secret key of this database is missing, and a new one would open no code, link or signing key of it; put the \
         file back or set secret.key; to go on without what the old key made: (umask 077; openssl rand -base64 32 > {0}), then \
         keys rotate --now --revoke"
    )]
    KeyFileMissing(String),
    #[error("database.url: {0}")]
    Store(#[from] StoreError),
    #[error("{key} {address}: {source}{}", advice(.source))]
    Listen { key: &'static str, address: String, source: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
}

/// What to do about an address that cannot be listened on.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; is the server running already? Else name another port",
        io::ErrorKind::PermissionDenied => {
            "; ports under 1024 are for programs with a right to them: name another"
        }
        io::ErrorKind::AddrNotAvailable => "; it is no address of this machine",
        _ => "",
    }
}

/// Why there is no connection, and what to do about it.
fn unconnected(error: &ConnectError) -> String {
    if error.is_timeout() {
        return format!(
            "{error}: it gave no connection in time; does it run, is it there, and has it connections left (PostgreSQL's \
             max_connections)?"
        );
    }
    let advice = if error.is_not_found() { "; its folder has to exist" } else { "" };
    format!("{}{advice}", root(error))
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
        let connections = config.max_connections;
        Ok(match &config.database_url {
            DatabaseUrl::Memory => Self::Memory(MemoryStore::new()),
            DatabaseUrl::Sqlite(sqlite) => {
                Self::Sqlite(SqliteStore::connect(sqlite.url(), connections).await?)
            }
            DatabaseUrl::Postgres(url) => {
                let store = PgStore::connect(url.expose_secret(), connections).await?;
                Self::Postgres(store.with_timeout(config.database_timeout))
            }
        })
    }

    pub(crate) async fn migrate(&self) -> Result<(), MigrateError> {
        match self {
            Self::Sqlite(store) => store.migrate().await,
            Self::Postgres(store) => store.migrate().await,
            Self::Memory(_) => Ok(()),
        }
    }

    /// Writes something that changes nothing: a server whose database can be read only would answer every request with 503.
    async fn prove_write(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.ping().await,
            Self::Postgres(store) => store.ping().await,
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

    /// Tells how the connections are doing; a store in memory has none.
    fn pools(&self) -> Pools {
        match self {
            Self::Sqlite(store) => {
                let store = store.clone();
                Box::new(move || store.pools())
            }
            Self::Postgres(store) => {
                let store = store.clone();
                Box::new(move || store.pools())
            }
            Self::Memory(_) => Box::new(Vec::new),
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

/// The authorities that outgoing TLS trusts.
pub(crate) fn trusted_roots(config: &Config) -> Result<TrustedRoots, StartError> {
    let roots = TrustedRoots::default();
    let Some(file) = &config.extra_ca else { return Ok(roots) };
    let path = || file.display().to_string();
    let pem = std::fs::read(file).map_err(|source| StartError::ExtraCa { path: path(), source })?;
    roots.with_pem(&pem).map_err(|source| StartError::InvalidExtraCa { path: path(), source })
}

/// Where mails go.
fn mailer(config: &Config) -> Result<Arc<dyn Mailer>, StartError> {
    match config.mail_url.expose_secret() {
        "memory:" => Ok(Arc::new(Nowhere)),
        url => {
            let (sender, plaintext) = (config.mail_from.clone(), config.mail_plaintext);
            Ok(usermgr_smtp::from_url_trusting(url, sender, plaintext, &trusted_roots(config)?)?)
        }
    }
}

/// The texts that replace the built-in ones.
fn templates(config: &Config) -> Result<Option<FolderTemplates>, StartError> {
    let Some(folder) = &config.mail_templates else { return Ok(None) };
    Ok(Some(FolderTemplates::load(folder)?.with_default(&config.policies.mail.default_locale)))
}

/// Who is told of events.
fn publisher(config: &Config) -> Result<Option<Arc<dyn EventPublisher>>, StartError> {
    Ok(match &config.events {
        EventTarget::Nowhere => None,
        EventTarget::Console => Some(Arc::new(ConsoleEvents)),
        EventTarget::Webhook { url, secrets, plaintext } => {
            let clock = Arc::new(SystemClock);
            let webhook = Webhook::new(url.expose_secret(), secrets.clone(), *plaintext, clock)?;
            Some(Arc::new(webhook.with_trusted_roots(&trusted_roots(config)?)?))
        }
    })
}

/// Whether everything that a configuration names can be had, but for the database.
pub(crate) fn check(config: &Config) -> Result<(), StartError> {
    trusted_roots(config)?;
    if let DatabaseUrl::Postgres(url) = &config.database_url {
        PgStore::check_url(url.expose_secret())?;
    }
    mailer(config)?;
    templates(config)?;
    publisher(config)?;
    config.tls.as_ref().map_or(Ok(()), tls::check)?;
    config.pages.as_ref().map(Pages::load).transpose()?;
    if let (None, DatabaseUrl::Sqlite(sqlite)) = (&config.secret_key, &config.database_url)
        && sqlite.key_file().exists()
    {
        read_key_file(&sqlite.key_file())?;
    }
    Ok(())
}

/// Builds the manager that a configuration describes, over a migrated database.
pub(crate) async fn manager(config: &Config) -> Result<UserManager, StartError> {
    let database = Database::open(config).await?;
    database.migrate().await?;
    manager_over(config, database.into_store()).await
}

async fn manager_over(config: &Config, store: Arc<dyn Store>) -> Result<UserManager, StartError> {
    // A previous key may be weak: taking it out of use is what it is there for.
    for weakness in config.previous_keys.iter().filter_map(SecretKey::weakness) {
        tracing::warn!(
            "secret.previous_keys: a key is {weakness}, so anybody can guess it; run keys rotate --now --revoke and take it out"
        );
    }
    // Before anything is written, and where nothing speaks TLS too: whoever names a file means it.
    trusted_roots(config)?;
    let secret_key = secret_key(config, &*store).await?;
    let mut builder = UserManager::builder()
        .store(store)
        .mailer(mailer(config)?)
        .secret_key(secret_key)
        .previous_keys(config.previous_keys.clone())
        .mail_callback_secrets(config.mail_callback_secrets.clone())
        .policies(config.policies.clone());
    if let Some(templates) = templates(config)? {
        builder = builder.templates(Arc::new(templates));
    }
    if let Some(publisher) = publisher(config)? {
        builder = builder.events(publisher);
    }
    Ok(builder.build()?)
}

/// How the configuration exposes the service, without pages.
pub(crate) fn options(config: &Config) -> ServiceOptions {
    ServiceOptions {
        base_path: config.base_path.clone(),
        max_body: config.max_body,
        trusted_proxies: config.trusted_proxies.clone(),
        forwarded_header: config.forwarded_header,
        hsts: config.hsts,
        cors_origins: config.cors_origins.clone(),
        docs: config.docs,
        ..ServiceOptions::default()
    }
}

/// The configured key; without one, the key beside the SQLite file, made at the first start.
async fn secret_key(config: &Config, store: &dyn Store) -> Result<SecretKey, StartError> {
    if let Some(key) = &config.secret_key {
        return Ok(key.clone());
    }
    let new_key = || {
        let mut bytes = [0_u8; 32];
        SystemRandom.fill(&mut bytes);
        SecretKey::from_bytes(bytes)
    };
    let DatabaseUrl::Sqlite(sqlite) = &config.database_url else { return Ok(new_key()) };
    let path = sqlite.key_file();
    let failed = |source| StartError::KeyFile { path: path.display().to_string(), source };
    // Another process may make both at this moment: the key comes first, so it is looked for once more.
    if !path.exists() && is_in_use(store).await? && !path.exists() {
        return Err(StartError::KeyFileMissing(path.display().to_string()));
    }
    match make_key_file(&path, new_key().to_base64().expose_secret()) {
        Ok(()) => {
            tracing::info!(path = %path.display(), "made a secret key; keep it with the database, and apart from its backups");
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let key = read_key_file(&path)?;
    warn_of_readers(&path);
    Ok(key)
}

fn read_key_file(path: &Path) -> Result<SecretKey, StartError> {
    let shown = || path.display().to_string();
    let failed = |source| StartError::KeyFile { path: shown(), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let key = SecretKey::from_base64(&text).map_err(|_| StartError::BadKeyFile(shown()))?;
    match key.weakness() {
        Some(weakness) => Err(StartError::WeakKeyFile(shown(), weakness)),
        None => Ok(key),
    }
}

/// Whether something stands in the database that belongs to a secret key: who it is in use for, or waits for a mail.
async fn is_in_use(store: &dyn Store) -> Result<bool, StoreError> {
    let one = PageSize::new(1);
    Ok(!store.signing_keys().await?.is_empty()
        || !store.users(UserQuery { size: one, ..UserQuery::default() }).await?.items.is_empty()
        || !store.outbox(OutboxQuery { size: one, ..OutboxQuery::default() }).await?.items.is_empty())
}

/// Tells the operator that others of this machine can read the key file.
fn warn_of_readers(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.display();
        tracing::warn!("{path}: others can read or replace the secret key (mode {mode:o}): chmod 600 {path}");
    }
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
    let side = Stopper::new();
    let metrics = Arc::new(Metrics::new());
    let manager = watched_manager(config, &metrics, &side).await?;
    let listen_failed =
        |source| StartError::Listen { key: "http.listen", address: config.listen.to_string(), source };
    let listener = connections::listen(&config.listen).await.map_err(listen_failed)?;
    let address = listener.local_addr().map_err(listen_failed)?;
    let tls = config.tls.as_ref().map(|files| Tls::start(files, side.token())).transpose()?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let workers = (worker == Worker::Here).then(|| {
        let manager = manager.clone();
        tokio::spawn(async move {
            tokio::time::sleep(BEFORE_WORKERS).await;
            manager.start_workers()
        })
    });
    let scheme = if tls.is_some() { "https" } else { "http" };
    // On standard output whatever the log's level: who asked for port 0 reads the port here.
    let _nobody_reads = writeln!(io::stdout(), "listening on {scheme}://{address}{}", config.base_path);
    tracing::info!("listening on {scheme}://{address}{}", config.base_path);
    if let Some(pages) = &config.pages {
        tracing::info!("pages are at {}/", pages.public_url);
    }

    let service = service(manager, ServiceOptions { pages, ..options(config) });
    let limits = connections::Limits::configured(
        config.http_connections,
        config.http_connections_per_network,
        config.trusted_proxies.clone(),
    );
    let (keep_alive, of_connections) = (config.keep_alive, metrics.connections.clone());
    let options = connections::Options { tls, limits, keep_alive, metrics: of_connections };
    connections::serve(listener, options, Counted::new(service, metrics), stop.requested()).await;
    if let Some(workers) = workers
        && let Ok(workers) = workers.await
        && tokio::time::timeout(GRACE, workers.stop()).await.is_err()
    {
        tracing::warn!("some mails or jobs did not end in time; they come again");
    }
    side.stop();
    tracing::info!("stopped");
    Ok(())
}

/// Delivers mail and does upkeep until a signal says stop.
pub(crate) async fn work(config: &Config) -> Result<(), StartError> {
    let mut stop = Stop::listen()?;
    let side = Stopper::new();
    let manager = watched_manager(config, &Arc::new(Metrics::new()), &side).await?;
    let workers = manager.start_workers();
    tracing::info!("working");
    stop.requested().await;
    tracing::info!("stopping: finishing what was begun");
    if tokio::time::timeout(GRACE, workers.stop()).await.is_err() {
        tracing::warn!("some mails or jobs did not end in time; they come again");
    }
    side.stop();
    Ok(())
}

/// The manager of a process that goes on: it tells what happens, and answers whoever asks for metrics.
async fn watched_manager(
    config: &Config,
    metrics: &Arc<Metrics>,
    side: &Stopper,
) -> Result<UserManager, StartError> {
    let database = Database::open(config).await?;
    database.migrate().await?;
    database.prove_write().await.map_err(StartError::NotWritable)?;
    let pools = database.pools();
    let store = Arc::new(ObservedStore::new(database.into_store(), Arc::clone(metrics)));
    let manager = manager_over(config, store).await?;
    if let Some(address) = &config.metrics_listen {
        let failed =
            |source| StartError::Listen { key: "http.metrics_listen", address: address.to_string(), source };
        let listener = connections::listen(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let _nobody_reads = writeln!(io::stdout(), "metrics on http://{address}/metrics");
        tracing::info!("metrics on http://{address}/metrics");
        let watched = Arc::new(Watched::new(Arc::clone(metrics), manager.clone(), pools));
        tokio::spawn(observe::serve(listener, watched, side.token()));
    }
    Ok(manager)
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
