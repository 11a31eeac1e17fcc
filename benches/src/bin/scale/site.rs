//! One database with its users, and a manager over it.

use std::sync::Arc;

use time::{Duration, OffsetDateTime};
use usermgr_benches::database::{Database, Store as Engine};
use usermgr_core::crypto::hash_queue::{HashOrigin, HashPurpose};
use usermgr_core::crypto::hasher::HashPool;
use usermgr_core::crypto::password_text::NormalizedPassword;
use usermgr_core::domain::audit::{AuditDraft, AuditEvent};
use usermgr_core::domain::event::EventKind;
use usermgr_core::domain::id::{AuditId, EventId, UserId};
use usermgr_core::domain::password::PasswordHash;
use usermgr_core::domain::role::{Role, Roles};
use usermgr_core::domain::user::{UserStatus, Username};
use usermgr_core::flow::register::Register;
use usermgr_core::policy::{HashPolicy, TokenFormat};
use usermgr_core::port::random::SystemRandom;
use usermgr_core::port::store::account::{CredentialsQuery, ImportedUser};
use usermgr_core::port::store::{EventDraft, Store};
use usermgr_core::testing::Mailbox;
use usermgr_core::{AccessToken, ClientContext, Email, Password, Policies, SecretKey, User, UserManager};
use usermgr_sqlx::{PgStore, SqliteStore};

use crate::fill::fill;

pub(crate) const PASSWORD: &str = "correct horse battery";
pub(crate) const BEGAN: OffsetDateTime = time::macros::datetime!(2026-01-01 0:00 UTC);
/// A hash that costs nothing: what is measured is the store.
const HASHING: HashPolicy =
    HashPolicy { memory_kib: 8, iterations: 1, parallelism: 1, threads: Some(1), queue: None };

/// A database with so many users.
pub(crate) struct Site {
    pub(crate) users: u64,
    pub(crate) database: Database,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) manager: UserManager,
    mailbox: Arc<Mailbox>,
    /// Users from all over the table.
    pub(crate) sample: Vec<User>,
    /// An access token of each of them.
    pub(crate) tokens: Vec<AccessToken>,
    /// Registrations that wait, with their codes.
    pub(crate) registrations: Vec<(String, String)>,
}

impl Site {
    /// Fills a database.
    pub(crate) async fn open(engine: Engine, users: u64) -> Self {
        let database = Database::create(engine, &format!("scale_{users}")).await.unwrap();
        let store: Arc<dyn Store> = match engine {
            Engine::Sqlite => {
                let store = SqliteStore::connect(&database.url, 4).await.unwrap();
                store.migrate().await.unwrap();
                Arc::new(store)
            }
            Engine::Postgres => {
                let store = PgStore::connect(&database.url, 4).await.unwrap();
                store.migrate().await.unwrap();
                Arc::new(store)
            }
        };
        let hash = hash().await;
        fill(&*store, engine, &database, users, &hash).await;
        let mailbox = Arc::new(Mailbox::default());
        let mut policies = Policies { hashing: HASHING, ..Policies::default() };
        policies.throttle.enabled = false;
        policies.tokens.format = TokenFormat::Jwt;
        let manager = UserManager::builder()
            .store(Arc::clone(&store))
            .mailer(Arc::clone(&mailbox) as Arc<_>)
            .secret_key(SecretKey::from_bytes([7; 32]))
            .policies(policies)
            .build()
            .unwrap();
        let (sample, tokens, registrations) = (Vec::new(), Vec::new(), Vec::new());
        Self { users, database, store, manager, mailbox, sample, tokens, registrations }
    }

    /// Prepares what so many calls of each question take: tokens and codes, which do not live for long.
    pub(crate) async fn prepare(&mut self, calls: usize) {
        let client = ClientContext::new();
        for n in (1..self.users).step_by(usize::try_from(self.users / 200).unwrap().max(1)) {
            let email = user(n, "").user.email;
            let query = CredentialsQuery { now: BEGAN, email: email.key().clone(), guard: None };
            self.sample.push(self.store.credentials(query).await.unwrap().user.unwrap().user);
            let password = Password::new(PASSWORD);
            let signed_in = self.manager.sessions().login(email.as_str(), &password, &client).await.unwrap();
            self.tokens.push(signed_in.access_token);
        }
        let emails: Vec<_> = (0..calls).map(|n| format!("new{n}@example.net")).collect();
        for email in &emails {
            let register = Register::new(email.clone(), PASSWORD);
            self.manager.registration().register(register, &client).await.unwrap();
        }
        while self.manager.mail_worker().run_once().await.unwrap().attempts() > 0 {}
        let code = |email: String| self.mailbox.last_code(&email).map(|code| (email, code)).unwrap();
        self.registrations = emails.into_iter().map(code).collect();
        self.database.settle().await.unwrap();
    }

    pub(crate) fn user(&self, n: usize) -> &User {
        self.sample.get(n % self.sample.len()).unwrap()
    }

    pub(crate) fn token(&self, n: usize) -> &AccessToken {
        self.tokens.get(n % self.tokens.len()).unwrap()
    }

    pub(crate) async fn remove(self) {
        drop((self.store, self.manager));
        self.database.remove().await.unwrap();
    }
}

async fn hash() -> String {
    let pool = HashPool::start(&HASHING, Arc::new(SystemRandom)).unwrap();
    let origin = HashOrigin { purpose: HashPurpose::NewPassword, network: String::new() };
    let password = NormalizedPassword::parse(&Password::new(PASSWORD)).unwrap();
    pool.hash(password, origin).await.unwrap().expose().to_owned()
}

/// The n-th user. `fill` says the same in SQL.
pub(crate) fn user(n: u64, hash: &str) -> ImportedUser {
    let at = BEGAN + Duration::milliseconds(i64::try_from(n).unwrap() * 7);
    // Addresses and names come in no order, as they do in life.
    let scattered = |factor: u64| n.wrapping_mul(factor) % (1 << 32);
    let mut roles = Roles::from([Role::user()]);
    if n.is_multiple_of(100) {
        roles.insert("support".parse().unwrap());
    }
    let status = if n % 100 == 50 { UserStatus::Disabled } else { UserStatus::Active };
    let user = User {
        id: UserId::new(at, &SystemRandom),
        email: Email::parse(&format!("{:08x}.{n}@example.org", scattered(2_654_435_761))).unwrap(),
        email_verified_at: Some(at),
        username: Some(Username::parse(&format!("Person {:08x}", scattered(2_246_822_519))).unwrap()),
        roles,
        status,
        locale: None,
        created_at: at,
        updated_at: at,
        last_login_at: None,
        profile: None,
    };
    let audit = AuditDraft {
        id: AuditId::new(at, &SystemRandom),
        event: if n % 100 == 25 { AuditEvent::RoleChange } else { AuditEvent::UserImport },
        actor: None,
        email: Some(user.email.key().clone()),
        ip: None,
        user_agent: None,
        request_id: None,
    };
    let event = EventDraft { id: EventId::new(at, &SystemRandom), kind: EventKind::UserRegistered };
    ImportedUser { user, password: Some(PasswordHash::new(hash)), audit, event }
}

/// The value below which so large a share of them lies.
pub(crate) fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (values.len() as f64 * share) as usize;
    values.get(index.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
