//! The value a host keeps, and how it is built. No rule stands here: each call leads to one file of [`crate::flow`].

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::crypto::hasher::{HashGauges, HashPool, HashPoolError};
use crate::crypto::secret_keys::SecretKeys;
use crate::crypto::webhook::WebhookSecret;
use crate::domain::job::JobName;
use crate::domain::profile::ProfileType;
use crate::domain::secret::{SecretKey, SecretWeakness};
use crate::flow::account::{Account, Exports};
use crate::flow::register::Registration;
use crate::flow::sessions::Sessions;
use crate::flow::set_password::Passwords;
use crate::flow::signing_keys::KeyRing;
use crate::flow::undeliverable::MailCallbacks;
use crate::flow::users::Users;
use crate::policy::{Policies, PolicyError, TokenFormat};
use crate::port::clock::{Clock, SystemClock};
use crate::port::events::EventPublisher;
use crate::port::hook::Hook;
use crate::port::mailer::Mailer;
use crate::port::random::{Random, SystemRandom};
use crate::port::store::upkeep::Backlog;
use crate::port::store::{Store, StoreError};
use crate::template::{BuiltInTemplates, MailTemplates};
use crate::worker::{
    EventWorker, EventWorkerParts, Job, MailWorker, MailWorkerParts, Scheduler, Upkeep, Workers,
};

/// Registration, passwords, sessions and users over a store and a mailer: what a host keeps.
///
/// Cloning is cheap and shares everything. Calls hang under namespaces: [`registration`](Self::registration),
/// [`passwords`](Self::passwords), [`sessions`](Self::sessions),
/// [`account`](Self::account), [`users`](Self::users).
///
/// ```
/// use std::sync::Arc;
/// use usermgr_core::flow::register::Register;
/// use usermgr_core::flow::verify_email::Verify;
/// # use usermgr_core::testing::{Mailbox, MemoryStore};
/// use usermgr_core::{ClientContext, Password, SecretKey, UserManager};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (store, mailer) = (MemoryStore::default(), Arc::new(Mailbox::default()));
/// # let mailbox = mailer.clone();
///
/// let users = UserManager::builder()
///     .store(Arc::new(store))
///     .mailer(mailer)
///     .secret_key(SecretKey::from_base64("q5X0mKkXn0bAq1dVQH3nYx4oF8o2m2eS0cVqz8m1T3k=")?)
///     .build()?;
/// let workers = users.start_workers(); // once in a process
/// let client = ClientContext::new(); // of a request: its address, its agent
///
/// users.registration().register(Register::new("ana@example.org", "correct horse battery"), &client).await?;
/// # workers.stop().await;
/// # users.mail_worker().run_once().await?;
/// # let code = mailbox.last_code("ana@example.org").ok_or("no code")?;
/// users.registration().verify(Verify::new("ana@example.org", code), &client).await?;
/// let password = Password::new("correct horse battery");
/// let signed_in = users.sessions().login("ana@example.org", &password, &client).await?;
/// let caller = users.sessions().authenticate(&signed_in.access_token).await?;
/// assert_eq!(caller.user.email.as_str(), "ana@example.org");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct UserManager {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Clone)]
pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) mailer: Arc<dyn Mailer>,
    pub(crate) events: Option<Arc<dyn EventPublisher>>,
    pub(crate) hooks: Vec<Arc<dyn Hook>>,
    pub(crate) profile: Option<ProfileType>,
    pub(crate) templates: Arc<dyn MailTemplates>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) secrets: SecretKeys,
    pub(crate) hasher: HashPool,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) mail_callback_secrets: Vec<WebhookSecret>,
    pub(crate) policies: Arc<Policies>,
    pub(crate) upkeep: Upkeep,
    pub(crate) scheduler: Scheduler,
    pub(crate) exports: Exports,
    /// Whether answers wait for a random time where their own time would tell something.
    pub(crate) blurs_timing: bool,
}

impl UserManager {
    /// Begins to build a manager. A store, a mailer and a secret key are needed; all else has defaults.
    pub fn builder() -> UserManagerBuilder {
        UserManagerBuilder::default()
    }

    /// The same manager over another store: one that works in a transaction of the host's, as `in_tx` of `usermgr-sqlx`
    /// gives. All else is shared, the threads that hash and the keys among it, so this is cheap enough for each request.
    ///
    /// Keys that sign access tokens are read, and made when there are none, in the store of this manager: have
    /// [`jwks`](Self::jwks) called once before the first sign-in within a transaction. Workers and jobs are this
    /// manager's too.
    ///
    /// # Security
    /// The random pause of up to 20 ms before some answers is left out, so that the transaction holds its locks no longer than
    /// it must. Where strangers can measure the time of an answer, wait for a random time after the commit.
    #[must_use]
    pub fn over(&self, store: Arc<dyn Store>) -> Self {
        Self { inner: Arc::new(Inner { store, blurs_timing: false, ..Inner::clone(&self.inner) }) }
    }

    /// Sign-up: register, send the code again, verify, activate.
    pub fn registration(&self) -> Registration<'_> {
        Registration { inner: &self.inner }
    }

    /// Passwords: codes and links that set one, and changing it.
    pub fn passwords(&self) -> Passwords<'_> {
        Passwords { inner: &self.inner }
    }

    /// Signing in and out, and who a token belongs to.
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions { inner: &self.inner }
    }

    /// One's own account: name and language, address, deletion, export.
    pub fn account(&self) -> Account<'_> {
        Account { inner: &self.inner }
    }

    /// The keys that sign access tokens, for the operator.
    pub fn signing_keys(&self) -> &KeyRing {
        &self.inner.keys
    }

    /// Users, as their administrator or the host's program sees them.
    pub fn users(&self) -> Users<'_> {
        Users { inner: &self.inner }
    }

    /// What a mail service tells us of bounces and complaints.
    pub fn mail_callbacks(&self) -> MailCallbacks<'_> {
        MailCallbacks { inner: &self.inner }
    }

    /// The rules in force.
    pub fn policies(&self) -> &Policies {
        &self.inner.policies
    }

    /// Whether users have a profile here: [`UserManagerBuilder::profile`] named its type.
    pub fn takes_profiles(&self) -> bool {
        self.inner.profile.is_some()
    }

    /// Whether there is a hook that what is sent beside a registration may be meant for.
    pub fn takes_extra(&self) -> bool {
        !self.inner.hooks.is_empty()
    }

    /// Whether the store can be reached and its tables are those of this version.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot serve.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.inner.store.ping().await
    }

    /// What waits to leave, for whoever watches.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be counted.
    pub async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.inner.store.backlog().await
    }

    /// How the threads that hash are doing.
    pub fn hash_gauges(&self) -> HashGauges {
        self.inner.hasher.gauges()
    }

    /// The public keys that verify access tokens, as a JWK Set (RFC 7517).
    ///
    /// # Errors
    /// [`crate::Error`] when the keys cannot be read.
    pub async fn jwks(&self) -> Result<serde_json::Value, crate::Error> {
        match self.inner.policies.tokens.format {
            TokenFormat::Jwt => Ok(self.inner.keys.keys(self.inner.clock.now()).await?.jwks()),
            TokenFormat::Opaque => Ok(serde_json::json!({ "keys": [] })),
        }
    }

    /// Starts what works in the background on the current tokio runtime: the delivery of mails and events, and, unless
    /// [`MaintenancePolicy::enabled`] says otherwise, the jobs. Any number of processes may do so on one store.
    ///
    /// ```
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::new();
    /// # let users = auth.users();
    /// let workers = users.start_workers();
    /// // … until the process is told to stop, and has stopped to serve …
    /// workers.stop().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`MaintenancePolicy::enabled`]: crate::policy::MaintenancePolicy::enabled
    pub fn start_workers(&self) -> Workers {
        let jobs = self.inner.policies.maintenance.enabled.then(|| self.scheduler());
        Workers::start(self.mail_worker(), self.event_worker(), jobs)
    }

    /// The jobs, those of the upkeep first: to be listed, or run by hand.
    pub fn scheduler(&self) -> Scheduler {
        self.inner.scheduler.clone()
    }

    /// The publishing of events, to be run by hand; none where nobody is to be told of them.
    pub fn event_worker(&self) -> Option<EventWorker> {
        let inner = &self.inner;
        inner.events.as_ref().map(|publisher| {
            EventWorker::new(EventWorkerParts {
                store: Arc::clone(&inner.store),
                publisher: Arc::clone(publisher),
                clock: Arc::clone(&inner.clock),
                random: Arc::clone(&inner.random),
            })
        })
    }

    /// The delivery of mails, to be run by hand.
    pub fn mail_worker(&self) -> MailWorker {
        let inner = &self.inner;
        MailWorker::new(MailWorkerParts {
            store: Arc::clone(&inner.store),
            mailer: Arc::clone(&inner.mailer),
            templates: Arc::clone(&inner.templates),
            clock: Arc::clone(&inner.clock),
            random: Arc::clone(&inner.random),
            secrets: inner.secrets.clone(),
            policies: Arc::clone(&inner.policies),
        })
    }

    /// The removal of what is over, to be run by hand.
    pub fn upkeep(&self) -> Upkeep {
        self.inner.upkeep.clone()
    }
}

impl fmt::Debug for UserManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserManager").field("policies", &self.inner.policies).finish_non_exhaustive()
    }
}

impl Inner {
    pub(crate) fn issuer(&self) -> &str {
        self.policies.tokens.issuer.as_deref().unwrap_or(&self.policies.mail.public_url)
    }
}

/// Builds a [`UserManager`].
///
/// ```
/// use usermgr_core::UserManager;
///
/// let error = UserManager::builder().build().expect_err("nothing is given");
/// assert_eq!(
///     error.to_string(),
///     "the user manager cannot be built: a store is missing; a mailer is missing; a secret key is missing"
/// );
/// ```
#[derive(Default)]
pub struct UserManagerBuilder {
    pub(crate) store: Option<Arc<dyn Store>>,
    mailer: Option<Arc<dyn Mailer>>,
    secret_key: Option<SecretKey>,
    previous_keys: Vec<SecretKey>,
    mail_callback_secrets: Vec<WebhookSecret>,
    events: Option<Arc<dyn EventPublisher>>,
    hooks: Vec<Arc<dyn Hook>>,
    profile: Option<ProfileType>,
    templates: Option<Arc<dyn MailTemplates>>,
    clock: Option<Arc<dyn Clock>>,
    random: Option<Arc<dyn Random>>,
    pub(crate) policies: Policies,
    jobs: Vec<Job>,
}

impl fmt::Debug for UserManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserManagerBuilder").field("policies", &self.policies).finish_non_exhaustive()
    }
}

/// Everything that keeps a manager from being built, at once.
#[derive(Debug, thiserror::Error)]
#[error("the user manager cannot be built: {}", .faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
#[non_exhaustive]
pub struct BuildError {
    /// What is missing or wrong.
    pub faults: Vec<BuildFault>,
}

/// One thing that keeps a manager from being built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildFault {
    /// A part is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A rule cannot be in force.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Anybody can guess the secret key. With the feature `testing` it is taken all the same, for tests and examples.
    #[error("the secret key is {0}; make one with `openssl rand -base64 32`")]
    WeakSecretKey(SecretWeakness),
    /// The threads that hash cannot be started.
    #[error("the hash pool cannot be started")]
    HashPool(#[from] HashPoolError),
    /// Two jobs have one name. The upkeep has `purge`, `signing-keys` and `retention`.
    #[error("two jobs are called {0}")]
    JobNamedTwice(JobName),
}

impl UserManagerBuilder {
    /// Where everything is kept. Needed.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Who takes the mails. Needed, also by a program that never sends any, as at the command line: what it owes is sent by
    /// whoever runs the workers.
    #[must_use]
    pub fn mailer(mut self, mailer: Arc<dyn Mailer>) -> Self {
        self.mailer = Some(mailer);
        self
    }

    /// The secret key of this installation, the same for every instance on one store. Needed. A key that anybody can guess is
    /// refused ([`SecretKey::weakness`]), the ones in this documentation too, unless the feature `testing` is on.
    #[must_use]
    pub fn secret_key(mut self, key: SecretKey) -> Self {
        self.secret_key = Some(key);
        self
    }

    /// Keys that were the secret key before: what they derived and sealed still holds.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use usermgr_core::testing::{Mailbox, MemoryStore};
    /// use usermgr_core::{SecretKey, UserManager};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///
    /// # let new = "q5X0mKkXn0bAq1dVQH3nYx4oF8o2m2eS0cVqz8m1T3k=";
    /// # let old = "7Vn1ZqjXn0bAq1dVQH3nYx4oF8o2m2eS0cVqz8m1T3k=";
    /// let users = UserManager::builder()
    /// #     .store(Arc::new(MemoryStore::default()))
    /// #     .mailer(Arc::new(Mailbox::default()))
    ///     .secret_key(SecretKey::from_base64(new)?)
    ///     .previous_keys(vec![SecretKey::from_base64(old)?])
    ///     .build()?;
    /// // Once every instance has both. The old one is needed as long as codes and links live that it made.
    /// users.signing_keys().reseal().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn previous_keys(mut self, keys: Vec<SecretKey>) -> Self {
        self.previous_keys = keys;
        self
    }

    /// With which the mail service signs its callbacks: one, or two while the second takes the first one's place. Without
    /// any, callbacks are refused.
    #[must_use]
    pub fn mail_callback_secrets(mut self, secrets: Vec<WebhookSecret>) -> Self {
        self.mail_callback_secrets = secrets;
        self
    }

    /// Who is told what happened. Without one, events wait for readers of the feed ([`Users::events`]) until they are too
    /// old to be kept.
    ///
    /// ```
    /// use async_trait::async_trait;
    /// use usermgr_core::UserManager;
    /// use usermgr_core::domain::event::Event;
    /// use usermgr_core::port::events::{EventPublisher, PublishError};
    /// # use std::sync::Arc;
    ///
    /// /// Prints what happened; `Webhook` of `usermgr-smtp` posts it.
    /// #[derive(Debug)]
    /// struct Print;
    ///
    /// #[async_trait]
    /// impl EventPublisher for Print {
    ///     async fn publish(&self, event: &Event) -> Result<(), PublishError> {
    ///         println!("{} {}", event.kind.as_str(), event.user_id);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let builder = UserManager::builder().events(Arc::new(Print));
    /// ```
    #[must_use]
    pub fn events(mut self, events: Arc<dyn EventPublisher>) -> Self {
        self.events = Some(events);
        self
    }

    /// Whom to ask before somebody registers, signs in or changes their address. May be called again: hooks are asked in
    /// their order, and the first that refuses is heard.
    ///
    /// ```
    /// use usermgr_core::UserManager;
    /// use usermgr_core::port::hook::AllowedDomains;
    /// # use std::sync::Arc;
    ///
    /// let builder = UserManager::builder().hook(Arc::new(AllowedDomains::new(["example.org", "example.com"])?));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn hook(mut self, hook: Arc<dyn Hook>) -> Self {
        self.hooks.push(hook);
        self
    }

    /// The type of users' profiles. What is sent as a profile goes through it, and what it writes is stored: an object of
    /// at most [`JsonObject::MAX_BYTES`]. Members that the type does not know are dropped, or refused if the type says so
    /// (`#[serde(deny_unknown_fields)]`). Without a type, no profile is taken.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use usermgr_core::domain::json::JsonObject;
    /// use usermgr_core::flow::permission::Principal;
    /// use usermgr_core::flow::users::CreateUser;
    /// # use usermgr_core::testing::{Mailbox, MemoryStore};
    /// use usermgr_core::{ClientContext, Error, SecretKey, UserManager};
    ///
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// #[serde(deny_unknown_fields)]
    /// struct Customer {
    ///     number: u32,
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let users = UserManager::builder()
    ///     .store(Arc::new(MemoryStore::default()))
    ///     .mailer(Arc::new(Mailbox::default()))
    ///     .secret_key(SecretKey::from_bytes([7; 32]))
    ///     .profile::<Customer>()
    ///     .build()?;
    /// let (client, operator) = (ClientContext::new(), Principal::Operator);
    ///
    /// let profile = JsonObject::of(&Customer { number: 7 })?;
    /// let ana = CreateUser::new("ana@example.org").with_profile(profile);
    /// let ana = users.users().create(operator, ana, &client).await?;
    /// assert_eq!(ana.profile::<Customer>()?.map(|customer| customer.number), Some(7));
    ///
    /// let profile = JsonObject::of(&serde_json::json!({ "number": "seven" }))?;
    /// let bob = CreateUser::new("bob@example.org").with_profile(profile);
    /// let Err(Error::Invalid(faults)) = users.users().create(operator, bob, &client).await else { panic!() };
    /// assert_eq!(faults[0].field, "profile.number");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`JsonObject::MAX_BYTES`]: crate::domain::json::JsonObject::MAX_BYTES
    #[must_use]
    pub fn profile<T: Serialize + DeserializeOwned>(mut self) -> Self {
        self.profile = Some(ProfileType::of::<T>());
        self
    }

    /// The texts of mails; the built-in ones by default.
    ///
    /// ```
    /// use usermgr_core::UserManager;
    /// use usermgr_core::template::FolderTemplates;
    /// # use std::sync::Arc;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = std::env::temp_dir().join(format!("usermgr-texts-{}", std::process::id()));
    /// # std::fs::create_dir_all(folder.join("es"))?;
    /// # std::fs::write(folder.join("es/welcome.subject.txt"), "Hola")?;
    /// let builder = UserManager::builder().templates(Arc::new(FolderTemplates::load(&folder)?));
    /// # std::fs::remove_dir_all(folder)?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn templates(mut self, templates: Arc<dyn MailTemplates>) -> Self {
        self.templates = Some(templates);
        self
    }

    /// The time; the operating system's by default.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Chance; a cryptographic generator by default.
    #[must_use]
    pub fn random(mut self, random: Arc<dyn Random>) -> Self {
        self.random = Some(random);
        self
    }

    /// The rules.
    ///
    /// ```
    /// use usermgr_core::policy::{Policies, TokenFormat};
    /// use usermgr_core::UserManager;
    ///
    /// let mut policies = Policies::default();
    /// policies.mail.public_url = "https://app.example.org".into();
    /// policies.mail.service_name = "Example".into();
    /// policies.tokens.format = TokenFormat::Opaque;
    /// policies.sessions.idle_ttl = time::Duration::days(30);
    /// let builder = UserManager::builder().policies(policies);
    /// ```
    #[must_use]
    pub fn policies(mut self, policies: Policies) -> Self {
        self.policies = policies;
        self
    }

    /// A job of the host's, which [`UserManager::start_workers`] runs beside those of the upkeep. May be called again.
    ///
    /// ```
    /// use usermgr_core::UserManager;
    /// use usermgr_core::domain::job::Schedule;
    /// use usermgr_core::worker::Job;
    ///
    /// let report = Job::new("report".parse()?, Schedule::DailyAt(time::macros::time!(06:00)), |_stop| async {
    ///     Ok("sent to three".to_owned())
    /// });
    /// let builder = UserManager::builder().job(report);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn job(mut self, job: Job) -> Self {
        self.jobs.push(job);
        self
    }

    /// Builds the manager and starts the threads that hash.
    ///
    /// # Errors
    /// [`BuildError`] with every missing part and every rule that cannot be in force, all at once.
    pub fn build(self) -> Result<UserManager, BuildError> {
        let Self {
            store,
            mailer,
            secret_key,
            previous_keys,
            mail_callback_secrets,
            events,
            hooks,
            profile,
            templates,
            clock,
            random,
            mut policies,
            jobs,
        } = self;
        while policies.mail.public_url.ends_with('/') {
            policies.mail.public_url.pop();
        }
        let mut faults: Vec<BuildFault> = policies.faults().into_iter().map(BuildFault::Policy).collect();
        let random = random.unwrap_or_else(|| Arc::new(SystemRandom));
        for (missing, part) in [
            (store.is_none(), "a store"),
            (mailer.is_none(), "a mailer"),
            (secret_key.is_none(), "a secret key"),
        ] {
            if missing {
                faults.push(BuildFault::Missing(part));
            }
        }
        if let Some(weakness) = secret_key.as_ref().and_then(SecretKey::weakness).filter(|_| !IN_TESTS) {
            faults.push(BuildFault::WeakSecretKey(weakness));
        }
        let (Some(store), Some(mailer), Some(secret_key), true) =
            (store, mailer, secret_key, faults.is_empty())
        else {
            return Err(BuildError { faults });
        };
        let hasher = HashPool::start(&policies.hashing, Arc::clone(&random))
            .map_err(|error| BuildError { faults: vec![BuildFault::HashPool(error)] })?;
        let templates = templates.unwrap_or_else(|| {
            Arc::new(BuiltInTemplates::new(&policies.mail.default_locale)) as Arc<dyn MailTemplates>
        });
        let policies = Arc::new(policies);
        let secrets = SecretKeys::new(secret_key, previous_keys);
        let keys = Arc::new(KeyRing::new(
            Arc::clone(&store),
            secrets.clone(),
            Arc::clone(&random),
            Arc::clone(&policies),
        ));
        let clock = clock.unwrap_or_else(|| Arc::new(SystemClock));
        let upkeep = Upkeep::new(Arc::clone(&store), Arc::clone(&clock), Arc::clone(&policies))
            .with_keys(Arc::clone(&keys));
        let jobs = all_jobs(&upkeep, jobs).map_err(|fault| BuildError { faults: vec![fault] })?;
        let scheduler = Scheduler::new(jobs, Arc::clone(&store), Arc::clone(&clock), Arc::clone(&random));
        Ok(UserManager {
            inner: Arc::new(Inner {
                store,
                mailer,
                events,
                hooks,
                profile,
                templates,
                clock,
                random,
                secrets,
                hasher,
                keys,
                mail_callback_secrets,
                policies,
                upkeep,
                scheduler,
                exports: Exports::default(),
                blurs_timing: true,
            }),
        })
    }
}

/// Whether this is built for tests, whose keys need not be secret.
const IN_TESTS: bool = cfg!(feature = "testing");

/// The jobs of the upkeep and those of the host, each with a name of its own.
fn all_jobs(upkeep: &Upkeep, jobs: Vec<Job>) -> Result<Vec<Job>, BuildFault> {
    let all: Vec<Job> = upkeep.jobs().into_iter().chain(jobs).collect();
    let mut names = BTreeSet::new();
    match all.iter().find(|job| !names.insert(job.name())) {
        Some(twice) => Err(BuildFault::JobNamedTwice(twice.name().clone())),
        None => Ok(all),
    }
}
