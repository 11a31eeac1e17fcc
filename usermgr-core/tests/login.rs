//! Signing in.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use support::{ANA, OTHER, PASSWORD, World, from};
use time::Duration;
use usermgr_core::crypto::hasher::HashGauges;
use usermgr_core::policy::HashPolicy;
use usermgr_core::testing::{StoreFault, TestAuth};
use usermgr_core::{Error, Password, UserManager};

async fn login(world: &World, email: &str, password: &str, ip: &str) -> &'static str {
    match world.users.sessions().login(email, &Password::new(password), &from(ip)).await {
        Ok(_) => "ok",
        Err(error) => error.reason(),
    }
}

#[tokio::test]
async fn wrong_unknown_and_pending_are_one_answer() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    world.register("pending@example.org", PASSWORD).await;
    for email in [ANA, "nobody@example.org"] {
        assert_eq!(login(&world, email, OTHER, "192.0.2.1").await, "invalid_credentials");
    }
    assert_eq!(login(&world, "pending@example.org", PASSWORD, "192.0.2.1").await, "invalid_credentials");
    assert_eq!(login(&world, "ANA@example.org", PASSWORD, "192.0.2.1").await, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_the_queue_full_costs_no_statement() {
    let auth = TestAuth::with(|policies| {
        let slow = HashPolicy { memory_kib: 65_536, iterations: 60, queue: Some(1), ..policies.hashing };
        policies.hashing = slow;
    });
    let login = |users: UserManager| async move {
        users.sessions().login(ANA, &Password::new(PASSWORD), &from("192.0.2.1")).await.map(drop)
    };
    let mut waiting = Vec::new();
    for busy in [(0, 1), (1, 1)] {
        waiting.push(tokio::spawn(login(auth.users().clone())));
        while {
            let HashGauges { queued, running, .. } = auth.users().hash_gauges();
            (queued, running) != busy
        } {
            assert!(waiting.iter().all(|waits| !waits.is_finished()), "the hash is too quick for this test");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
    auth.store_fails(Some(StoreFault::Down));
    assert!(matches!(login(auth.users().clone()).await, Err(Error::Overloaded { .. })));
    auth.store_fails(None);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn one_password_has_one_normal_form_and_is_compared_whole() {
    let world = World::new();
    let password = format!("jose\u{301} {}", "x".repeat(200));
    world.user(ANA, &password).await;
    assert_eq!(login(&world, ANA, &password.replace("e\u{301}", "é"), "192.0.2.1").await, "ok");
    assert_eq!(login(&world, ANA, &password[..password.len() - 1], "192.0.2.1").await, "invalid_credentials");
    assert_eq!(login(&world, ANA, &"x".repeat(257), "192.0.2.1").await, "validation_failed");
}

#[tokio::test]
async fn ten_failures_stop_a_network_and_success_begins_anew() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    for _ in 0..9 {
        assert_eq!(login(&world, ANA, OTHER, "192.0.2.1").await, "invalid_credentials");
    }
    assert_eq!(login(&world, ANA, PASSWORD, "192.0.2.1").await, "ok");
    for _ in 0..10 {
        assert_eq!(login(&world, ANA, OTHER, "192.0.2.1").await, "invalid_credentials");
    }
    assert_eq!(login(&world, ANA, PASSWORD, "192.0.2.1").await, "too_many_attempts");
    world.clock.advance(Duration::minutes(15) - Duration::SECOND);
    assert_eq!(login(&world, ANA, PASSWORD, "192.0.2.1").await, "too_many_attempts");
    world.clock.advance(Duration::SECOND);
    assert_eq!(login(&world, ANA, PASSWORD, "192.0.2.1").await, "ok");
}

#[tokio::test]
async fn a_stranger_cannot_lock_the_owner_out() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    assert_eq!(login(&world, ANA, PASSWORD, "192.0.2.1").await, "ok");
    for n in 0..100 {
        assert_eq!(login(&world, ANA, OTHER, &format!("198.51.{n}.7")).await, "invalid_credentials");
    }
    assert_eq!(login(&world, ANA, OTHER, "203.0.113.9").await, "too_many_attempts");
    assert_eq!(
        login(&world, ANA, PASSWORD, "203.0.113.9").await,
        "too_many_attempts",
        "not even with the password"
    );
    assert_eq!(login(&world, ANA, PASSWORD, "192.0.2.1").await, "ok", "a network that signed in before");
}

#[tokio::test]
async fn a_network_has_a_hundred_failures_over_all_addresses() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    for n in 0..100 {
        assert_eq!(
            login(&world, &format!("u{n}@example.org"), OTHER, "192.0.2.1").await,
            "invalid_credentials"
        );
    }
    assert_eq!(login(&world, ANA, PASSWORD, "192.0.2.1").await, "too_many_attempts");
    assert_eq!(login(&world, ANA, PASSWORD, "192.0.2.2").await, "ok");
}

#[tokio::test]
async fn throttling_can_be_switched_off_for_load_tests() {
    let world = World::with(|policies| policies.throttle.enabled = false);
    world.user(ANA, PASSWORD).await;
    for _ in 0..15 {
        assert_eq!(login(&world, ANA, OTHER, "192.0.2.1").await, "invalid_credentials");
    }
    assert_eq!(login(&world, ANA, PASSWORD, "192.0.2.1").await, "ok");
}

#[tokio::test]
async fn an_older_hash_is_replaced_at_the_next_sign_in() {
    use usermgr_core::port::store::AccountStore as _;
    use usermgr_core::port::store::account::CredentialsQuery;
    let world = World::new();
    let user = world.user(ANA, PASSWORD).await;
    let hash = || async {
        let query = CredentialsQuery {
            now: time::macros::datetime!(2026-01-01 12:00 UTC),
            email: user.email.key().clone(),
            guard: None,
        };
        world.store.credentials(query).await.unwrap().user.unwrap().password.unwrap().expose().to_owned()
    };
    assert!(hash().await.contains("m=64,t=1"));
    let mut policies = world.users.policies().clone();
    policies.hashing.iterations = 2;
    let stronger = usermgr_core::UserManager::builder()
        .store(world.store.clone())
        .mailer(world.mailbox.clone())
        .clock(world.clock.clone())
        .secret_key(usermgr_core::SecretKey::from_bytes(*b"0123456789abcdef0123456789abcdef"))
        .policies(policies)
        .build()
        .unwrap();
    let old = world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    stronger.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    assert!(hash().await.contains("m=64,t=2"));
    world.users.sessions().authenticate(&old.access_token).await.unwrap();
}

#[tokio::test]
async fn the_reasons_are_the_stable_words() {
    assert_eq!(Error::InvalidCredentials.reason(), "invalid_credentials");
}
