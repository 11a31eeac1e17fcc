//! Keys that rotate: published before they sign, known to every instance, sealed under any secret key.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::sync::Arc;

use support::{ANA, PASSWORD, World, from};
use time::Duration;
use usermgr_core::domain::signing::{KeyState, SigningAlgorithm};
use usermgr_core::flow::signing_keys::Rotation;
use usermgr_core::policy::HashPolicy;
use usermgr_core::port::clock::Clock as _;
use usermgr_core::port::store::Store;
use usermgr_core::testing::Mailbox;
use usermgr_core::{AccessToken, Password, Policies, SecretKey, UserManager};

const OLD: [u8; 32] = *b"0123456789abcdef0123456789abcdef";
const NEW: [u8; 32] = *b"fedcba9876543210fedcba9876543210";

/// Another instance on the world's store, with its clock.
fn instance(
    world: &World,
    secret: [u8; 32],
    previous: &[[u8; 32]],
    algorithm: SigningAlgorithm,
) -> UserManager {
    let hashing = HashPolicy { memory_kib: 64, iterations: 1, ..HashPolicy::default() };
    let mut policies = Policies { hashing, ..Policies::default() };
    policies.tokens.algorithm = algorithm;
    UserManager::builder()
        .store(Arc::clone(&world.store) as Arc<dyn Store>)
        .mailer(Arc::new(Mailbox::default()))
        .clock(world.clock.clone())
        .secret_key(SecretKey::from_bytes(secret))
        .previous_keys(previous.iter().map(|key| SecretKey::from_bytes(*key)).collect())
        .policies(policies)
        .build()
        .unwrap()
}

async fn token(users: &UserManager) -> AccessToken {
    let password = Password::new(PASSWORD);
    users.sessions().login(ANA, &password, &from("192.0.2.1")).await.unwrap().access_token
}

fn kid(token: &AccessToken) -> String {
    use base64::Engine as _;
    let header = token.expose().split('.').next().unwrap();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

async fn good(users: &UserManager, token: &AccessToken) -> bool {
    users.sessions().authenticate(token).await.is_ok()
}

async fn published(users: &UserManager) -> usize {
    users.jwks().await.unwrap()["keys"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_rotation_reaches_every_instance_without_a_restart() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let (one, other) = (&world.users, instance(&world, OLD, &[], SigningAlgorithm::EdDsa));
    let (before, elsewhere) = (token(one).await, token(&other).await);
    assert_eq!(kid(&before), kid(&elsewhere), "instances agree");

    one.signing_keys().rotate(Rotation::Announced, &world.client, world.clock.now()).await.unwrap();
    world.clock.advance(Duration::minutes(1));
    for users in [one, &other] {
        assert_eq!(published(users).await, 2, "published a minute later");
        assert_eq!(kid(&token(users).await), kid(&before), "and does not sign yet");
    }
    world.clock.advance(Duration::minutes(9) - Duration::SECOND);
    assert_eq!(kid(&token(one).await), kid(&before), "a second before");
    let states = |now| async move {
        let keys = one.signing_keys().list(now).await.unwrap();
        keys.iter().map(|key| key.state).collect::<Vec<_>>()
    };
    assert_eq!(states(world.clock.now()).await, [KeyState::Next, KeyState::Current]);
    world.clock.advance(Duration::SECOND);
    let after = token(&other).await;
    assert_ne!(kid(&after), kid(&before), "it signs");
    assert_eq!(kid(&after), kid(&token(one).await));
    assert_eq!(states(world.clock.now()).await, [KeyState::Current, KeyState::Retired]);
    for users in [one, &other] {
        assert!(good(users, &before).await && good(users, &after).await, "the old one verifies");
    }
    world.clock.advance(Duration::days(2) + Duration::SECOND);
    one.upkeep().run_once().await.unwrap();
    world.clock.advance(Duration::minutes(1));
    assert_eq!(published(&other).await, 1, "and goes when nothing it signed can be alive");
}

#[tokio::test]
async fn a_key_that_signs_at_once_is_looked_for_by_the_others() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let (one, other) = (&world.users, instance(&world, OLD, &[], SigningAlgorithm::EdDsa));
    let before = token(&other).await;
    world.clock.advance(Duration::seconds(6));
    one.signing_keys().rotate(Rotation::AtOnce, &world.client, world.clock.now()).await.unwrap();
    let after = token(one).await;
    assert_ne!(kid(&after), kid(&before));
    assert!(good(&other, &after).await, "though it read the keys before");
}

#[tokio::test]
async fn a_revoked_key_is_refused_by_every_instance_within_a_minute() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let (one, other) = (&world.users, instance(&world, OLD, &[], SigningAlgorithm::EdDsa));
    let leaked = token(&other).await;
    let id = one.signing_keys().list(world.clock.now()).await.unwrap()[0].id;
    let made = one.signing_keys().revoke(id, &world.client, world.clock.now()).await.unwrap();
    assert!(!good(one, &leaked).await, "at once where it was revoked");
    let fresh = token(one).await;
    assert_eq!(Some(kid(&fresh)), made.map(|made| made.to_string()), "another signs at once");
    world.clock.advance(Duration::minutes(1));
    assert!(!good(&other, &leaked).await, "a minute later everywhere");
    for users in [one, &other] {
        assert!(good(users, &fresh).await);
        let keys = users.jwks().await.unwrap().to_string();
        assert!(!keys.contains(&kid(&leaked)) && keys.contains(&kid(&fresh)), "{keys}");
    }
    let states = one.signing_keys().list(world.clock.now()).await.unwrap();
    let states: Vec<_> = states.iter().map(|key| (key.state, key.revoked_at.is_some())).collect();
    assert_eq!(states, [(KeyState::Current, false), (KeyState::Revoked, true)]);
    let again = one.signing_keys().revoke(id, &world.client, world.clock.now()).await.unwrap();
    assert_eq!((again, published(one).await), (None, 1), "done again it changes nothing");
}

#[tokio::test]
async fn revoking_all_needs_no_secret_key_that_is_gone() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let leaked = token(&world.users).await;
    let anew = instance(&world, NEW, &[], SigningAlgorithm::EdDsa);
    assert!(anew.jwks().await.is_err(), "the old key does not open");
    let made = anew.signing_keys().revoke_all(&world.client, world.clock.now()).await.unwrap();
    assert_eq!(kid(&token(&anew).await), made.to_string());
    assert!(!good(&anew, &leaked).await);
    assert_eq!(anew.signing_keys().reseal().await.unwrap(), 1, "the revoked one is left alone");
    let unknown = "019b7953-c7c0-7000-8000-000000000001".parse().unwrap();
    let told = anew.signing_keys().revoke(unknown, &world.client, world.clock.now()).await;
    assert!(matches!(told, Err(usermgr_core::Error::NotFound)), "{told:?}");
}

#[tokio::test]
async fn the_key_is_rotated_when_it_has_signed_for_long_enough() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let before = token(&world.users).await;
    let other = instance(&world, OLD, &[], SigningAlgorithm::EdDsa);
    world.clock.advance(Duration::days(90) - Duration::minutes(5) - Duration::SECOND);
    world.users.upkeep().run_once().await.unwrap();
    assert_eq!(published(&world.users).await, 1, "a second before");
    world.clock.advance(Duration::SECOND);
    let (one, two) = (world.users.upkeep(), other.upkeep());
    let (one, two) = tokio::join!(one.run_once(), two.run_once());
    one.and(two).unwrap();
    world.users.upkeep().run_once().await.unwrap();
    world.clock.advance(Duration::minutes(1));
    assert_eq!(published(&world.users).await, 2, "one more, however many instances look");
    world.clock.advance(Duration::minutes(9));
    assert_ne!(kid(&token(&other).await), kid(&before));
}

#[tokio::test]
async fn every_algorithm_signs_what_every_instance_verifies() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    for algorithm in SigningAlgorithm::ALL {
        let (one, other) = (instance(&world, OLD, &[], algorithm), instance(&world, OLD, &[], algorithm));
        let issued = token(&one).await;
        assert!(good(&other, &issued).await, "{algorithm}");
        let keys = one.jwks().await.unwrap().to_string();
        assert_eq!(
            keys.contains(&format!("\"{algorithm}\"")),
            algorithm != SigningAlgorithm::Hs256,
            "{algorithm}"
        );
        for private in ["\"d\"", "\"k\"", "\"p\"", "\"q\"", "\"dp\"", "\"oct\""] {
            assert!(!keys.contains(private), "{private} in {keys}");
        }
    }
}

#[tokio::test]
async fn keys_are_sealed_anew_under_a_new_secret_key() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let issued = token(&world.users).await;
    let alone = instance(&world, NEW, &[], SigningAlgorithm::EdDsa);
    assert!(alone.jwks().await.is_err(), "the old secret key is needed");
    let both = instance(&world, NEW, &[OLD], SigningAlgorithm::EdDsa);
    assert!(good(&both, &issued).await, "and opens what it sealed");
    assert_eq!(both.signing_keys().reseal().await.unwrap(), 1);
    assert!(good(&alone, &issued).await, "not any more");
    assert!(world.users.jwks().await.is_ok(), "who read them before goes on");
}
