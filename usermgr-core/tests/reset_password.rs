//! Passwords set by a link.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use support::{ANA, OTHER, PASSWORD, World};
use time::Duration;
use usermgr_core::{Error, LinkToken, Password};

async fn forgot(world: &World) -> LinkToken {
    world.users.passwords().forgot(ANA, &world.client).await.unwrap();
    world.deliver().await;
    LinkToken::new(world.mailbox.last_link_token(ANA).unwrap())
}

async fn reset(world: &World, token: &LinkToken, password: &str) -> Result<(), Error> {
    let password = Password::new(password);
    world.users.passwords().reset(token, &password, &password, &world.client).await
}

#[tokio::test]
async fn a_link_is_spent_once_and_a_weak_password_spends_none() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let token = forgot(&world).await;
    assert!(matches!(reset(&world, &token, "short").await, Err(Error::Invalid(_))));
    reset(&world, &token, OTHER).await.unwrap();
    assert!(matches!(reset(&world, &token, PASSWORD).await, Err(Error::InvalidLink)));
    assert!(world.signs_in(ANA, OTHER).await);
}

#[tokio::test]
async fn only_the_newest_link_works() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let older = forgot(&world).await;
    let newer = forgot(&world).await;
    assert!(matches!(reset(&world, &older, OTHER).await, Err(Error::InvalidLink)));
    reset(&world, &newer, OTHER).await.unwrap();
}

#[tokio::test]
async fn a_link_lives_half_an_hour_from_the_hand_over() {
    for (seconds, works) in [(-1, true), (0, false)] {
        let world = World::new();
        world.user(ANA, PASSWORD).await;
        let token = forgot(&world).await;
        world.clock.advance(Duration::minutes(30) + Duration::seconds(seconds));
        assert_eq!(reset(&world, &token, OTHER).await.is_ok(), works, "{seconds}");
    }
}

#[tokio::test]
async fn a_forged_link_is_refused() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let token = forgot(&world).await;
    let text = token.expose().to_owned();
    let mut flipped = text.clone();
    flipped.replace_range(10..11, if flipped[10..].starts_with('A') { "B" } else { "A" });
    for forged in
        [flipped, String::new(), " ".into(), "0".into(), "null".into(), format!("{text}A"), text[1..].into()]
    {
        assert!(matches!(reset(&world, &forged.into(), OTHER).await, Err(Error::InvalidLink)));
    }
    reset(&world, &token, OTHER).await.unwrap();
}

#[tokio::test]
async fn an_unknown_address_is_answered_alike_and_gets_nothing() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let mails = world.mailbox.mails().len();
    for n in 0..4 {
        let known = world.users.passwords().forgot(ANA, &world.client).await;
        let unknown = world.users.passwords().forgot("nobody@example.org", &world.client).await;
        assert_eq!(known.is_ok(), n < 3);
        assert_eq!(known.is_ok(), unknown.is_ok());
        world.deliver().await;
    }
    assert_eq!(world.mailbox.mails().len(), mails + 3);
}
