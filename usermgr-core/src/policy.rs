//! The rules in force: each with its default and why. They are validated once, when the manager is built.
#![expect(
    clippy::exhaustive_structs,
    clippy::exhaustive_enums,
    reason = "a host names the rules that it changes and takes the rest from Default"
)]

use std::collections::{BTreeMap, BTreeSet};

use time::{Duration, Time};

use crate::crypto::hasher::is_affordable;
use crate::domain::code::CodeLength;
use crate::domain::role::{Permission, Role, Roles};
use crate::domain::signing::SigningAlgorithm;
use crate::domain::user::Locale;

/// Every rule. Change what you need: `Policies { codes: CodePolicy { ttl, ..Default::default() }, ..Default::default() }`.
///
/// ```
/// use usermgr_core::policy::Policies;
///
/// let mut policies = Policies::default();
/// policies.mail.public_url = "https://app.example.org".into();
/// policies.codes.ttl = time::Duration::minutes(5);
/// policies.passwords.min_length = 12;
/// assert!(policies.faults().is_empty());
///
/// policies.passwords.min_length = 6;
/// assert_eq!(policies.faults()[0].setting, "passwords.min_length");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// Mailed codes.
    pub codes: CodePolicy,
    /// Registrations.
    pub registration: RegistrationPolicy,
    /// Passwords.
    pub passwords: PasswordPolicy,
    /// The cost of hashing and its bounds.
    pub hashing: HashPolicy,
    /// Limits against guessing and mail bombing.
    pub throttle: ThrottlePolicy,
    /// Mailed links.
    pub links: LinkPolicy,
    /// Access tokens.
    pub tokens: TokenPolicy,
    /// Sessions.
    pub sessions: SessionPolicy,
    /// Delivery of mails.
    pub outbox: OutboxPolicy,
    /// What is removed when.
    pub retention: RetentionPolicy,
    /// What mails say about the service.
    pub mail: MailPolicy,
    /// Roles beside `user` and `admin`.
    pub roles: RolePolicy,
    /// Deletion of accounts.
    pub deletion: DeletionPolicy,
    /// Jobs that come back.
    pub maintenance: MaintenancePolicy,
}

/// Mailed codes.
#[derive(Debug, Clone)]
pub struct CodePolicy {
    /// Digits; 6 by default. Fewer than 6 count for `EmailVerification` only.
    pub length: CodeLength,
    /// How long a code lives from the hand-over of its mail; 10 minutes by default (NIST SP 800-63B-4 §3.1.3.2).
    pub ttl: Duration,
    /// How many wrong tries use a code up; 5 by default.
    pub attempts: u32,
    /// The shortest time between two requests of one address, purpose and network; 30 seconds by default.
    pub resend_interval: Duration,
    /// Requests for one address and purpose from one network within [`window`](Self::window); 3 by default.
    pub requests: u32,
    /// The window of [`requests`](Self::requests); 10 minutes by default.
    pub window: Duration,
}

impl Default for CodePolicy {
    fn default() -> Self {
        Self {
            length: CodeLength::SIX,
            ttl: Duration::minutes(10),
            attempts: 5,
            resend_interval: Duration::seconds(30),
            requests: 3,
            window: Duration::minutes(10),
        }
    }
}

/// Registrations.
///
/// ```
/// use usermgr_core::flow::register::Register;
/// use usermgr_core::testing::TestAuth;
/// use usermgr_core::{ClientContext, Error};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // Nobody signs up by themselves: users are invited, by `Users::create`.
/// let auth = TestAuth::with(|policies| policies.registration.enabled = false);
/// let request = Register::new("ana@example.org", "correct horse battery");
/// let closed = auth.users().registration().register(request, &ClientContext::new()).await;
/// assert!(matches!(closed, Err(Error::RegistrationClosed)));
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RegistrationPolicy {
    /// Whether anybody may register; yes by default.
    pub enabled: bool,
    /// How long a registration waits for its code; 24 hours by default.
    pub pending_ttl: Duration,
    /// Whether a registration says that the address has an account; no by default, for it tells everybody.
    pub reveal_existing: bool,
    /// Whether a new user gets a welcome mail; yes by default.
    pub welcome_mail: bool,
}

impl Default for RegistrationPolicy {
    fn default() -> Self {
        Self { enabled: true, pending_ttl: Duration::hours(24), reveal_existing: false, welcome_mail: true }
    }
}

/// Passwords.
#[derive(Debug, Clone)]
pub struct PasswordPolicy {
    /// The fewest characters; 8 by default, at least 8.
    pub min_length: usize,
    /// Whether setting a password by a code signs in; yes by default.
    pub sign_in_after_set: bool,
}

impl Default for PasswordPolicy {
    fn default() -> Self {
        Self { min_length: 8, sign_in_after_set: true }
    }
}

/// The cost of hashing (Argon2id) and its bounds. The defaults are OWASP's first recommendation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashPolicy {
    /// Memory of one hash in KiB; 19456 by default.
    pub memory_kib: u32,
    /// Passes over the memory; 2 by default.
    pub iterations: u32,
    /// Lanes; 1 by default.
    pub parallelism: u32,
    /// Threads that hash, each with memory of its own for life; `None` takes the number of cores.
    pub threads: Option<usize>,
    /// Hashes that may wait; `None` takes 64 for each thread. Past it callers are refused at once.
    pub queue: Option<usize>,
}

impl Default for HashPolicy {
    fn default() -> Self {
        Self { memory_kib: 19456, iterations: 2, parallelism: 1, threads: None, queue: None }
    }
}

/// Limits against guessing and mail bombing.
#[derive(Debug, Clone)]
pub struct ThrottlePolicy {
    /// Off only for load tests: it switches off every limit but a code's own tries.
    pub enabled: bool,
    /// Failed sign-ins of one address from one network within [`window`](Self::window); 10 by default.
    pub login_failures: u32,
    /// Failed sign-ins of one network within [`window`](Self::window); 100 by default.
    pub network_failures: u32,
    /// Requests for codes, links and registrations of one network within [`CodePolicy::window`]; 60 by default.
    pub network_requests: u32,
    /// The window of failed sign-ins; 15 minutes by default.
    pub window: Duration,
}

impl ThrottlePolicy {
    /// Requests for one address and purpose from all networks within [`CodePolicy::window`].
    pub const REQUESTS_FROM_ALL_NETWORKS: u32 = 10;
    /// Wrong tries of codes for one address in a day by strangers, over all purposes and resends. Clients with the token
    /// of a registration, with a session, or of a network that signed in have as many of their own.
    pub const WRONG_CODES_A_DAY: u32 = 10;
    /// Mails to one address in a day that strangers ask for, over all purposes and networks. A network that signed in
    /// has as many of its own.
    pub const MAILS_A_DAY: u32 = 20;
    /// Failed sign-ins of one address in a day from networks that never signed in to it.
    pub const FAR_FAILURES_A_DAY: u32 = 100;
    /// How many times as much the /48 around an IPv6 network may do as one network, which is a /64.
    pub const WIDE_NETWORK_FACTOR: u32 = 8;
    /// Refusals that are recorded of one network, or of one user on one network, within [`window`](Self::window). The
    /// next one is recorded as the last; later ones are answered alike and write nothing. A user has
    /// [`WIDE_NETWORK_FACTOR`](Self::WIDE_NETWORK_FACTOR) times as many over all networks.
    pub const RECORDED_REFUSALS: u32 = 60;
    /// Writes of a user to their own account within [`window`](Self::window).
    pub const OWN_WRITES: u32 = 60;
    /// Sessions that a user opens with the right password within [`window`](Self::window).
    pub const SIGN_INS: u32 = 300;
    /// Renewals of a user's sessions within [`window`](Self::window) or [`TokenPolicy::access_ttl`], whichever is shorter:
    /// enough for a thousand devices.
    pub const RENEWALS: u32 = 1000;
    /// Exports of a user's data in an hour.
    pub const EXPORTS_AN_HOUR: u32 = 5;
    /// How long a network that signed in counts as known.
    pub const KNOWN_NETWORK: Duration = Duration::days(30);
}

impl Default for ThrottlePolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            login_failures: 10,
            network_failures: 100,
            network_requests: 60,
            window: Duration::minutes(15),
        }
    }
}

/// Mailed links.
#[derive(Debug, Clone)]
pub struct LinkPolicy {
    /// How long a link lives from the hand-over of its mail; 30 minutes by default.
    pub ttl: Duration,
    /// How long the change of an address can be undone from the old one; 7 days by default. Longer protects an owner
    /// who reads mail seldom, shorter one whose old mailbox fell into other hands.
    pub undo_ttl: Duration,
}

impl Default for LinkPolicy {
    fn default() -> Self {
        Self { ttl: Duration::minutes(30), undo_ttl: Duration::days(7) }
    }
}

/// Access tokens.
///
/// ```
/// use usermgr_core::policy::{Policies, TokenFormat, TokenPolicy};
///
/// // Nobody but this program reads the tokens: no keys to publish, and nothing to read in a stolen one.
/// let tokens = TokenPolicy { format: TokenFormat::Opaque, ..TokenPolicy::default() };
/// let policies = Policies { tokens, ..Policies::default() };
/// ```
#[derive(Debug, Clone)]
pub struct TokenPolicy {
    /// What an access token is; a JWT by default.
    pub format: TokenFormat,
    /// The algorithm that signs JWTs; `EdDSA` by default.
    pub algorithm: SigningAlgorithm,
    /// How long an access token lives; 15 minutes by default.
    pub access_ttl: Duration,
    /// How old a signing key gets before another takes its place; 90 days by default.
    pub rotate_every: Duration,
    /// `iss` of tokens; [`MailPolicy::public_url`] by default.
    pub issuer: Option<String>,
    /// `aud` of tokens; `usermgr` by default.
    pub audience: String,
}

impl TokenPolicy {
    /// The most bytes of an issuer or audience: a token has at most 8 KiB.
    pub const MAX_NAME: usize = 1024;
}

impl Default for TokenPolicy {
    fn default() -> Self {
        Self {
            format: TokenFormat::Jwt,
            algorithm: SigningAlgorithm::EdDsa,
            access_ttl: Duration::minutes(15),
            rotate_every: Duration::days(90),
            issuer: None,
            audience: "usermgr".into(),
        }
    }
}

/// What an access token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFormat {
    /// A signed JWT that other services can verify (RFC 9068).
    Jwt,
    /// 256 random bits, looked up in the store on every request.
    Opaque,
}

/// Sessions.
#[derive(Debug, Clone)]
pub struct SessionPolicy {
    /// How long a session lives without being renewed; 14 days by default.
    pub idle_ttl: Duration,
    /// How long a session lives at most; 90 days by default.
    pub max_ttl: Duration,
    /// For how long the refresh token before still counts while its successor was not used, for clients that ask twice;
    /// 10 seconds by default.
    pub refresh_grace: Duration,
    /// How long ago the last sign-in may be for changes of address and role and for deletion, unless the current
    /// password comes along; 15 minutes by default.
    pub step_up_age: Duration,
}

impl Default for SessionPolicy {
    fn default() -> Self {
        Self {
            idle_ttl: Duration::days(14),
            max_ttl: Duration::days(90),
            refresh_grace: Duration::seconds(10),
            step_up_age: Duration::minutes(15),
        }
    }
}

/// Delivery of mails.
#[derive(Debug, Clone)]
pub struct OutboxPolicy {
    /// Deliveries at once; 8 by default.
    pub concurrency: u32,
    /// Attempts before a mail is given up; 12 by default, over some 3 hours.
    pub max_attempts: u32,
    /// How long settled mails are kept; 7 days by default.
    pub keep_sent: Duration,
    /// How long mails are kept that failed for good; 30 days by default. They can be sent again for this long.
    pub keep_dead: Duration,
}

impl Default for OutboxPolicy {
    fn default() -> Self {
        Self { concurrency: 8, max_attempts: 12, keep_sent: Duration::days(7), keep_dead: Duration::days(30) }
    }
}

/// What is removed when.
#[derive(Debug, Clone)]
pub struct RetentionPolicy {
    /// How long audit entries are kept; 365 days by default.
    pub audit: Duration,
    /// How long events are kept, delivered or not; 30 days by default. A reader of the feed, and a receiver that is down,
    /// has this long.
    pub events: Duration,
}

impl Default for RetentionPolicy {
    fn default() -> Self {
        Self { audit: Duration::days(365), events: Duration::days(30) }
    }
}

/// Roles beside the built-in ones: `user` permits nothing beyond one's own account, `admin` everything.
///
/// ```
/// use std::collections::{BTreeMap, BTreeSet};
/// use usermgr_core::domain::role::{Permission, Role};
/// use usermgr_core::policy::{Policies, RolePolicy};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (editor, publish): (Role, Permission) = ("editor".parse()?, "posts:publish".parse()?);
/// let roles = RolePolicy {
///     defined: BTreeMap::from([(editor.clone(), BTreeSet::from([publish.clone()]))]),
/// };
/// assert!(roles.permit(&[editor].into(), &publish));
/// assert!(roles.permit(&[Role::admin()].into(), &publish));
/// assert!(!roles.permit(&[Role::user()].into(), &publish));
/// let policies = Policies { roles, ..Policies::default() }; // then `UserManager::require`
/// # drop(policies);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RolePolicy {
    /// Each role and what it permits.
    pub defined: BTreeMap<Role, BTreeSet<Permission>>,
}

impl RolePolicy {
    /// Whether users can be given the role.
    pub fn is_defined(&self, role: &Role) -> bool {
        role.as_str() == Role::USER || role.as_str() == Role::ADMIN || self.defined.contains_key(role)
    }

    /// Whether somebody with these roles may do it. A role that is not defined permits nothing.
    pub fn permit(&self, roles: &Roles, permission: &Permission) -> bool {
        roles.contains(&Role::admin())
            || roles.iter().filter_map(|role| self.defined.get(role)).any(|set| set.contains(permission))
    }

    /// The roles that permit something that these roles do not.
    pub fn beyond(&self, roles: &Roles) -> Roles {
        if roles.contains(&Role::admin()) {
            return Roles::new();
        }
        let more = |set: &BTreeSet<Permission>| set.iter().any(|permission| !self.permit(roles, permission));
        let defined = self.defined.iter().filter(|(_, set)| more(set)).map(|(role, _)| role.clone());
        defined.chain([Role::admin()]).collect()
    }

    /// Every role and what it permits; `admin` permits also what a host names.
    pub fn all(&self) -> BTreeMap<Role, BTreeSet<Permission>> {
        let mut all = self.defined.clone();
        let everything = self.defined.values().flatten().cloned().chain(Permission::ALL).collect();
        all.insert(Role::admin(), everything);
        all.insert(Role::user(), BTreeSet::new());
        all
    }
}

/// Jobs that come back: those of the upkeep, and the host's own.
#[derive(Debug, Clone)]
pub struct MaintenancePolicy {
    /// Whether this process runs jobs; yes by default. Of the processes on one store, one at least has to.
    pub enabled: bool,
    /// How often the upkeep removes what is soon over, and looks at the signing keys; every hour by default.
    pub interval: Duration,
    /// The time of day, in UTC, at which the upkeep removes what was kept for days; 00:00 by default.
    pub daily_at: Time,
}

impl Default for MaintenancePolicy {
    fn default() -> Self {
        Self { enabled: true, interval: Duration::HOUR, daily_at: Time::MIDNIGHT }
    }
}

/// Deletion of accounts.
#[derive(Debug, Clone)]
pub struct DeletionPolicy {
    /// How long a deleted user is kept before it is removed for good; 30 days by default. Users who deleted their
    /// account themselves have it back by signing in within this time.
    pub grace: Duration,
}

impl Default for DeletionPolicy {
    fn default() -> Self {
        Self { grace: Duration::days(30) }
    }
}

/// What mails say about the service.
///
/// ```
/// use usermgr_core::domain::user::Locale;
/// use usermgr_core::policy::MailPolicy;
///
/// let mail = MailPolicy {
///     public_url: "https://app.example.org".into(),
///     service_name: "Example".into(),
///     default_locale: Locale::parse("es")?,
/// };
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct MailPolicy {
    /// What links begin with, a slash at the end being dropped; `http://localhost:8000` by default. Never taken from a
    /// request.
    pub public_url: String,
    /// The service's name in mails; `usermgr` by default.
    pub service_name: String,
    /// The language of mails to receivers who chose none; English by default.
    pub default_locale: Locale,
}

impl Default for MailPolicy {
    fn default() -> Self {
        Self {
            public_url: "http://localhost:8000".into(),
            service_name: "usermgr".into(),
            default_locale: Locale::english(),
        }
    }
}

/// A rule that cannot be in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {fault}")]
#[non_exhaustive]
pub struct PolicyError {
    /// The rule, as `codes.ttl`.
    pub setting: &'static str,
    /// What it takes.
    pub fault: &'static str,
}

impl Policies {
    /// The longest time that any rule takes: a hundred years, as in the configuration of the server.
    pub const LONGEST: Duration = Duration::days(36_525);
    /// The largest number that a rule which counts takes.
    pub const MOST: u32 = 1_000_000;

    /// Every rule that cannot be in force; none when all can.
    pub fn faults(&self) -> Vec<PolicyError> {
        let mut faults = Vec::new();
        let mut need = |holds: bool, setting: &'static str, fault: &'static str| {
            if !holds {
                faults.push(PolicyError { setting, fault });
            }
        };
        let second = Duration::SECOND;
        // Everything else is arithmetic on today's date, which may not run past the last year that there is.
        let from = |least: Duration, value: Duration| (least..=Self::LONGEST).contains(&value);
        let count = |value: u32| (1..=Self::MOST).contains(&value);
        let Self {
            codes,
            registration,
            passwords,
            hashing,
            throttle,
            links,
            tokens,
            sessions,
            outbox,
            retention,
            mail,
            roles,
            deletion,
            maintenance,
        } = self;
        need(codes.ttl >= second && codes.ttl <= Duration::days(1), "codes.ttl", "1s to 24h");
        need((1..=20).contains(&codes.attempts), "codes.attempts", "1 to 20");
        need(from(Duration::ZERO, codes.resend_interval), "codes.resend_interval", "0s to 36525d");
        need((1..=1000).contains(&codes.requests), "codes.requests", "1 to 1000");
        need(from(second, codes.window), "codes.window", "1s to 36525d");
        need(from(second, registration.pending_ttl), "registration.pending_ttl", "1s to 36525d");
        need(registration.pending_ttl >= codes.ttl, "registration.pending_ttl", "at least codes.ttl");
        need((8..=64).contains(&passwords.min_length), "passwords.min_length", "8 to 64 characters");
        need(
            (hashing.parallelism.max(1).saturating_mul(8)..=4 * 1024 * 1024).contains(&hashing.memory_kib),
            "passwords.memory_kib",
            "8 for each lane to 4194304 KiB",
        );
        need((1..=100).contains(&hashing.iterations), "passwords.iterations", "1 to 100");
        need(is_affordable(hashing), "passwords.iterations", "at most 4 GiB over all passes");
        need((1..=64).contains(&hashing.parallelism), "passwords.parallelism", "1 to 64");
        need(hashing.threads.is_none_or(|n| (1..=1024).contains(&n)), "passwords.hash_threads", "1 to 1024");
        need(
            hashing.queue.is_none_or(|n| (1..=Self::MOST as usize).contains(&n)),
            "passwords.hash_queue",
            "1 to 1000000",
        );
        need(count(throttle.login_failures), "throttle.login_failures", "1 to 1000000");
        need(count(throttle.network_failures), "throttle.network_failures", "1 to 1000000");
        need(count(throttle.network_requests), "throttle.network_requests", "1 to 1000000");
        need(from(second, throttle.window), "throttle.window", "1s to 36525d");
        need(links.ttl >= second && links.ttl <= Duration::days(7), "links.ttl", "1s to 7d");
        need(
            tokens.access_ttl >= second && tokens.access_ttl <= Duration::days(1),
            "tokens.access_ttl",
            "1s to 24h",
        );
        need(is_name(&tokens.audience), "tokens.audience", "a name of at most 1024 bytes");
        need(tokens.issuer.as_deref().is_none_or(is_name), "tokens.issuer", "a name of at most 1024 bytes");
        need(from(Duration::HOUR, tokens.rotate_every), "tokens.rotate_every", "1h to 36525d");
        need(links.undo_ttl >= second && links.undo_ttl <= Duration::days(30), "links.undo_ttl", "1s to 30d");
        need(
            !sessions.refresh_grace.is_negative() && sessions.refresh_grace <= Duration::minutes(5),
            "sessions.refresh_grace",
            "0s to 5m",
        );
        need(from(Duration::ZERO, sessions.step_up_age), "sessions.step_up_age", "0s to 36525d");
        need(from(second, maintenance.interval), "maintenance.interval", "1s to 36525d");
        need(from(Duration::ZERO, deletion.grace), "users.deletion_grace", "0s to 36525d");
        let builtin = [Role::user(), Role::admin()];
        need(
            !builtin.iter().any(|role| roles.defined.contains_key(role)),
            "roles",
            "names other than user and admin",
        );
        need(from(second, sessions.idle_ttl), "sessions.idle_ttl", "1s to 36525d");
        need(sessions.max_ttl <= Self::LONGEST, "sessions.max_ttl", "at most 36525d");
        need(sessions.max_ttl >= sessions.idle_ttl, "sessions.max_ttl", "at least sessions.idle_ttl");
        need((1..=1024).contains(&outbox.concurrency), "outbox.concurrency", "1 to 1024");
        need(count(outbox.max_attempts), "outbox.max_attempts", "1 to 1000000");
        need(from(Duration::ZERO, outbox.keep_sent), "outbox.keep_sent", "0s to 36525d");
        need(from(Duration::ZERO, outbox.keep_dead), "outbox.keep_dead", "0s to 36525d");
        need(from(Duration::ZERO, retention.audit), "audit.keep", "0s to 36525d");
        need(from(Duration::HOUR, retention.events), "events.keep", "1h to 36525d");
        need(
            is_public_url(&mail.public_url),
            "http.public_url",
            "a URL that begins with http:// or https://, of at most 1024 bytes",
        );
        faults
    }
}

/// Whether a text fits into tokens as their issuer or audience.
fn is_name(text: &str) -> bool {
    (1..=TokenPolicy::MAX_NAME).contains(&text.len())
}

/// Whether links can begin with a text. It is the issuer too, where none is named.
fn is_public_url(text: &str) -> bool {
    is_name(text) && (text.starts_with("http://") || text.starts_with("https://"))
}
