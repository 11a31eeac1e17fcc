//! The clock is set an hour forth and back again, and an hour back and forth again: codes and links fail closed, limits
//! neither unlock nor freeze, no session outlives its end, and mail goes on.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use support::{ANA, OTHER, PASSWORD, World, from};
use time::Duration;
use usermgr_core::flow::sessions::SignedIn;
use usermgr_core::flow::verify_email::Verify;
use usermgr_core::policy::TokenFormat;
use usermgr_core::{Error, LinkToken, Password};

const HOUR: Duration = Duration::HOUR;

async fn sign_in(world: &World) -> Result<SignedIn, Error> {
    world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await
}

async fn verify(world: &World) -> Result<(), Error> {
    let code = world.mailbox.last_code(ANA).unwrap();
    world.users.registration().verify(Verify::new(ANA, code), &world.client).await.map(drop)
}

async fn holds(world: &World, signed_in: &SignedIn) -> bool {
    world.users.sessions().authenticate(&signed_in.access_token).await.is_ok()
}

/// The secret of the last link to an address.
fn link(world: &World) -> LinkToken {
    LinkToken::new(world.mailbox.last_link_token(ANA).unwrap())
}

async fn reset(world: &World, link: &LinkToken) -> Result<(), Error> {
    let password = Password::new(OTHER);
    world.users.passwords().reset(link, &password, &password, &world.client).await
}

#[tokio::test]
async fn a_code_lives_as_long_as_it_may_and_no_longer() {
    let world = World::new();
    world.register(ANA, PASSWORD).await;
    world.clock.advance(HOUR);
    assert!(matches!(verify(&world).await, Err(Error::CodeExpired)), "an hour forth it has run out");
    world.clock.advance(-HOUR);
    verify(&world).await.unwrap();

    let world = World::new();
    world.clock.advance(HOUR);
    world.register(ANA, PASSWORD).await;
    world.clock.advance(-HOUR);
    assert!(
        matches!(verify(&world).await, Err(Error::CodeExpired)),
        "else it would live for seventy minutes"
    );
    world.clock.advance(HOUR * 25);
    world.register(ANA, PASSWORD).await;
    verify(&world).await.unwrap();
}

#[tokio::test]
async fn two_servers_clocks_may_be_a_little_apart() {
    let world = World::new();
    world.register(ANA, PASSWORD).await;
    world.clock.advance(-Duration::SECOND);
    verify(&world).await.unwrap();
}

#[tokio::test]
async fn a_link_lives_as_long_as_it_may_and_no_longer() {
    for (step, then) in [(HOUR, -HOUR), (-HOUR, HOUR)] {
        let world = World::new();
        world.user(ANA, PASSWORD).await;
        world.clock.advance(step);
        world.users.passwords().forgot(ANA, &world.client).await.unwrap();
        world.deliver().await;
        world.clock.advance(then);
        let link = link(&world);
        assert!(matches!(reset(&world, &link).await, Err(Error::InvalidLink)), "after {step} and {then}");
        world.clock.advance(step);
        reset(&world, &link).await.unwrap();
    }
}

#[tokio::test]
async fn limits_neither_unlock_nor_freeze() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let stranger = from("203.0.113.9");
    let guess = async || {
        let guessed = world.users.sessions().login(ANA, &Password::new("a wrong guess"), &stranger).await;
        guessed.unwrap_err()
    };
    world.clock.advance(HOUR);
    for _ in 0..10 {
        assert!(matches!(guess().await, Error::InvalidCredentials));
    }
    for step in [Duration::ZERO, -HOUR] {
        world.clock.advance(step);
        let Error::TooManyAttempts { retry_after } = guess().await else { panic!("unlocked by {step}") };
        assert!(retry_after <= std::time::Duration::from_secs(900), "frozen for {retry_after:?} by {step}");
    }
    world.clock.advance(Duration::minutes(15) - Duration::SECOND);
    assert!(matches!(guess().await, Error::TooManyAttempts { .. }));
    world.clock.advance(Duration::SECOND);
    assert!(matches!(guess().await, Error::InvalidCredentials), "a window later all is as before");
}

#[tokio::test]
async fn no_session_outlives_its_absolute_end() {
    for format in [TokenFormat::Jwt, TokenFormat::Opaque] {
        for step in [HOUR, -HOUR] {
            let world = World::with(|policies| {
                policies.tokens.format = format;
                policies.sessions.idle_ttl = Duration::hours(3);
                policies.sessions.max_ttl = Duration::hours(4);
            });
            world.user(ANA, PASSWORD).await;
            let first = sign_in(&world).await.unwrap();
            let mut session = first.clone();
            // Four hours, with a step at the end of the first and back again at the end of the second.
            for by in [HOUR, step, HOUR, -step] {
                world.clock.advance(by);
                let token = session.refresh_token;
                session = world.users.sessions().refresh(&token, &world.client).await.unwrap();
                assert!(holds(&world, &session).await);
            }
            world.clock.advance(HOUR * 2 - Duration::SECOND);
            let renewed =
                world.users.sessions().refresh(&session.refresh_token, &world.client).await.unwrap();
            assert!(holds(&world, &renewed).await);
            world.clock.advance(Duration::SECOND);
            assert!(!holds(&world, &renewed).await, "{format:?}, {step}");
            let again = world.users.sessions().refresh(&renewed.refresh_token, &world.client).await;
            assert!(matches!(again, Err(Error::SessionEnded)), "{format:?}, {step}: {again:?}");
        }
    }
}

#[tokio::test]
async fn a_used_refresh_token_is_noticed_over_a_step() {
    for step in [HOUR, -HOUR] {
        let world = World::new();
        world.user(ANA, PASSWORD).await;
        let first = sign_in(&world).await.unwrap();
        let second = world.users.sessions().refresh(&first.refresh_token, &world.client).await.unwrap();
        world.clock.advance(step);
        let reused = world.users.sessions().refresh(&first.refresh_token, &world.client).await;
        assert!(matches!(reused, Err(Error::SessionEnded)), "{step}: {reused:?}");
        assert!(!holds(&world, &second).await);
    }
}

#[tokio::test]
async fn a_signed_token_of_the_future_is_refused_and_a_renewal_helps() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    world.clock.advance(HOUR);
    let signed_in = sign_in(&world).await.unwrap();
    world.clock.advance(-HOUR);
    assert!(!holds(&world, &signed_in).await, "it does not count yet");
    let renewed = world.users.sessions().refresh(&signed_in.refresh_token, &world.client).await.unwrap();
    assert!(holds(&world, &renewed).await);
    world.clock.advance(HOUR);
    assert!(!holds(&world, &renewed).await, "and an hour forth it has run out");
    let renewed = world.users.sessions().refresh(&renewed.refresh_token, &world.client).await.unwrap();
    assert!(holds(&world, &renewed).await);
}

#[tokio::test]
async fn signing_goes_on_with_a_key_of_the_future() {
    let world = World::new();
    world.clock.advance(HOUR);
    world.user(ANA, PASSWORD).await;
    sign_in(&world).await.unwrap();
    world.clock.advance(-HOUR);
    let signed_in = sign_in(&world).await.unwrap();
    assert!(holds(&world, &signed_in).await);
    world.clock.advance(HOUR);
    let signed_in = sign_in(&world).await.unwrap();
    assert!(holds(&world, &signed_in).await);
}

#[tokio::test]
async fn what_is_owed_leaves_once_whatever_the_clock_does() {
    for step in [HOUR, -HOUR] {
        let world = World::new();
        world
            .users
            .registration()
            .register(usermgr_core::flow::register::Register::new(ANA, PASSWORD), &world.client)
            .await
            .unwrap();
        world.clock.advance(step);
        world.deliver().await;
        // What was owed before the clock was set back is due when the clock is there again, and no later.
        world.clock.advance(-step);
        world.deliver().await;
        world.deliver().await;
        assert_eq!(world.mailbox.mails().len(), 1, "{step}");
        world.clock.advance(step);
        world.register("bob@example.org", PASSWORD).await;
        assert!(
            world.mailbox.last_code("bob@example.org").is_some(),
            "what comes to be owed after it leaves at once"
        );
    }
}

#[tokio::test]
async fn a_deleted_account_is_kept_for_its_grace() {
    for step in [HOUR, -HOUR] {
        let world = World::new();
        world.user(ANA, PASSWORD).await;
        let caller =
            world.users.sessions().authenticate(&sign_in(&world).await.unwrap().access_token).await.unwrap();
        world.users.account().delete(&caller, None, &world.client).await.unwrap();
        for by in [step, -step] {
            world.clock.advance(by);
            world.users.upkeep().run_once().await.unwrap();
        }
        world.clock.advance(Duration::days(30) - Duration::SECOND);
        world.users.upkeep().run_once().await.unwrap();
        assert!(world.signs_in(ANA, PASSWORD).await, "{step}: it comes back until the last second");
    }
}
