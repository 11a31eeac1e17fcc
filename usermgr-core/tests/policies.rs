//! Every rule has bounds, and a flow runs at each of them.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::sync::Arc;

use support::{ANA, OTHER, PASSWORD, World, from};
use time::Duration;
use usermgr_core::flow::signing_keys::Rotation;
use usermgr_core::policy::TokenPolicy;
use usermgr_core::port::clock::Clock as _;
use usermgr_core::testing::{Mailbox, MemoryStore};
use usermgr_core::{BuildError, Password, Policies, SecretKey, UserManager};

type Set<T> = fn(&mut Policies, T);

/// Every rule that is a time: its field in `policy.rs`, and how it is set.
const TIMES: &[(&str, Set<Duration>)] = &[
    ("ttl", |p, time| p.codes.ttl = time),
    ("resend_interval", |p, time| p.codes.resend_interval = time),
    ("window", |p, time| p.codes.window = time),
    ("pending_ttl", |p, time| p.registration.pending_ttl = time),
    ("window", |p, time| p.throttle.window = time),
    ("ttl", |p, time| p.links.ttl = time),
    ("undo_ttl", |p, time| p.links.undo_ttl = time),
    ("access_ttl", |p, time| p.tokens.access_ttl = time),
    ("rotate_every", |p, time| p.tokens.rotate_every = time),
    // The longest life first: the idle one may not be longer.
    ("max_ttl", |p, time| p.sessions.max_ttl = time),
    ("idle_ttl", |p, time| p.sessions.idle_ttl = time),
    ("refresh_grace", |p, time| p.sessions.refresh_grace = time),
    ("step_up_age", |p, time| p.sessions.step_up_age = time),
    ("keep_sent", |p, time| p.outbox.keep_sent = time),
    ("keep_dead", |p, time| p.outbox.keep_dead = time),
    ("audit", |p, time| p.retention.audit = time),
    ("events", |p, time| p.retention.events = time),
    ("interval", |p, time| p.maintenance.interval = time),
    ("grace", |p, time| p.deletion.grace = time),
];

/// Every rule that is a number.
const NUMBERS: &[(&str, Set<u32>)] = &[
    ("attempts", |p, n| p.codes.attempts = n),
    ("requests", |p, n| p.codes.requests = n),
    ("memory_kib", |p, n| p.hashing.memory_kib = n),
    ("iterations", |p, n| p.hashing.iterations = n),
    ("parallelism", |p, n| p.hashing.parallelism = n),
    ("login_failures", |p, n| p.throttle.login_failures = n),
    ("network_failures", |p, n| p.throttle.network_failures = n),
    ("network_requests", |p, n| p.throttle.network_requests = n),
    ("concurrency", |p, n| p.outbox.concurrency = n),
    ("max_attempts", |p, n| p.outbox.max_attempts = n),
];

/// The names of the fields of this type in `policy.rs`.
fn fields(of: &str) -> Vec<&'static str> {
    let source = include_str!("../src/policy.rs");
    let mut fields: Vec<_> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub ")?.strip_suffix(',')?.split_once(": "))
        .filter(|(_, kind)| *kind == of)
        .map(|(name, _)| name)
        .collect();
    fields.sort_unstable();
    fields
}

fn build(policies: Policies) -> Result<UserManager, BuildError> {
    UserManager::builder()
        .store(Arc::new(MemoryStore::default()))
        .mailer(Arc::new(Mailbox::default()))
        .secret_key(SecretKey::from_bytes([7; 32]))
        .policies(policies)
        .build()
}

#[test]
fn no_rule_is_missing_from_the_tables() {
    let names = |table: Vec<&'static str>| {
        let mut names = table;
        names.sort_unstable();
        names
    };
    assert_eq!(fields("Duration"), names(TIMES.iter().map(|(name, _)| *name).collect()));
    assert_eq!(fields("u32"), names(NUMBERS.iter().map(|(name, _)| *name).collect()));
    assert_eq!(fields("Option<usize>"), ["queue", "threads"]);
}

#[test]
fn what_runs_past_every_bound_is_not_built() {
    for (name, set) in TIMES {
        for time in [Duration::MAX, Duration::MIN, Policies::LONGEST + Duration::SECOND] {
            let mut policies = Policies::default();
            set(&mut policies, time);
            assert!(build(policies).is_err(), "{name} {time}");
        }
    }
    for (name, set) in NUMBERS {
        for number in [0, u32::MAX] {
            let mut policies = Policies::default();
            set(&mut policies, number);
            assert!(build(policies).is_err(), "{name} {number}");
        }
    }
    for threads in [0, usize::MAX] {
        let mut policies = Policies::default();
        policies.hashing.threads = Some(threads);
        assert!(build(policies).is_err(), "threads {threads}");
        let mut policies = Policies::default();
        policies.hashing.queue = Some(threads);
        assert!(build(policies).is_err(), "queue {threads}");
    }
    for name in [String::new(), "x".repeat(TokenPolicy::MAX_NAME + 1)] {
        let mut policies = Policies::default();
        policies.tokens.audience.clone_from(&name);
        assert!(build(policies).is_err(), "an audience of {} bytes", name.len());
        let mut policies = Policies::default();
        policies.tokens.issuer = Some(name.clone());
        assert!(build(policies).is_err(), "an issuer of {} bytes", name.len());
    }
    let mut policies = Policies::default();
    policies.mail.public_url = format!("http://{}", "x".repeat(TokenPolicy::MAX_NAME));
    assert!(build(policies).is_err(), "it is the issuer too");
    let mut policies = Policies::default();
    (policies.hashing.memory_kib, policies.hashing.iterations) = (4 * 1024 * 1024, 2);
    assert!(build(policies).is_err(), "8 GiB over both passes");
}

/// Sets each rule to the largest of these that it takes.
fn raise<T: Copy>(policies: &mut Policies, table: &[(&str, Set<T>)], largest_first: &[T]) {
    for (name, set) in table {
        let taken = largest_first.iter().find(|value| {
            let mut tried = policies.clone();
            set(&mut tried, **value);
            tried.faults().is_empty()
        });
        assert!(taken.is_some(), "{name} takes none of these");
        set(policies, *taken.unwrap());
    }
}

#[tokio::test]
async fn flows_run_at_every_upper_bound() {
    let world = World::with(|policies| {
        let cheap = policies.hashing.clone();
        let days = Duration::days;
        raise(policies, TIMES, &[Policies::LONGEST, days(30), days(7), days(1), Duration::minutes(5)]);
        raise(policies, NUMBERS, &[Policies::MOST, 1024, 1000, 100, 64, 20, 4]);
        (policies.hashing, policies.codes.resend_interval) = (cheap, Duration::ZERO);
        policies.tokens.issuer = Some("x".repeat(TokenPolicy::MAX_NAME));
        policies.tokens.audience = "x".repeat(TokenPolicy::MAX_NAME);
    });
    let user = world.user(ANA, PASSWORD).await;
    let (users, client) = (&world.users, &world.client);
    let password = Password::new(PASSWORD);
    let session = users.sessions().login(ANA, &password, client).await.unwrap();
    let session = users.sessions().refresh(&session.refresh_token, client).await.unwrap();
    let caller = users.sessions().authenticate(&session.access_token).await.unwrap();
    assert_eq!(caller.user.id, user.id);
    assert!(users.sessions().login(ANA, &Password::new(OTHER), &from("198.51.100.7")).await.is_err());
    users.signing_keys().rotate(Rotation::Announced, client, world.clock.now()).await.unwrap();
    users.signing_keys().revoke_all(client, world.clock.now()).await.unwrap();
    users.upkeep().run_once().await.unwrap();
    users.passwords().forgot(ANA, client).await.unwrap();
    world.deliver().await;
    let session = users.sessions().login(ANA, &password, client).await.unwrap();
    let caller = users.sessions().authenticate(&session.access_token).await.unwrap();
    users.account().request_email_change(&caller, "ana@example.com", Some(&password), client).await.unwrap();
    world.deliver().await;
    users.account().delete(&caller, Some(&password), client).await.unwrap();
    world.clock.advance(Policies::LONGEST);
    users.upkeep().run_once().await.unwrap();
    world.user("bob@example.org", PASSWORD).await;
}
