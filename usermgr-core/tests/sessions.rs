//! Whom a token belongs to, for how long, and signing out.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use support::{ANA, PASSWORD, World};
use time::Duration;
use usermgr_core::policy::TokenFormat;
use usermgr_core::{Error, Password};

async fn sign_in(world: &World) -> usermgr_core::AccessToken {
    world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap().access_token
}

#[tokio::test]
async fn signing_out_acts_at_once_for_both_formats() {
    for (format, reason) in [(TokenFormat::Jwt, "session_ended"), (TokenFormat::Opaque, "invalid_token")] {
        let world = World::with(|policies| policies.tokens.format = format);
        world.user(ANA, PASSWORD).await;
        let token = sign_in(&world).await;
        let caller = world.users.sessions().authenticate(&token).await.unwrap();
        world.users.sessions().logout(&caller, &world.client).await.unwrap();
        assert_eq!(world.users.sessions().authenticate(&token).await.unwrap_err().reason(), reason);
    }
}

#[tokio::test]
async fn an_access_token_lives_fifteen_minutes() {
    for format in [TokenFormat::Jwt, TokenFormat::Opaque] {
        let world = World::with(|policies| policies.tokens.format = format);
        world.user(ANA, PASSWORD).await;
        let token = sign_in(&world).await;
        world.clock.advance(Duration::minutes(15) - Duration::SECOND);
        world.users.sessions().authenticate(&token).await.unwrap();
        world.clock.advance(Duration::SECOND);
        assert!(matches!(world.users.sessions().authenticate(&token).await, Err(Error::InvalidToken)));
    }
}

#[tokio::test]
async fn tokens_of_another_kind_or_installation_are_refused() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let answer = world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    let elsewhere = World::new();
    elsewhere.user(ANA, PASSWORD).await;
    let foreign = sign_in(&elsewhere).await;
    for token in [foreign.expose(), answer.refresh_token.expose(), "", "a.b.c", "uma_x"] {
        let answer = world.users.sessions().authenticate(&token.into()).await;
        assert!(matches!(answer, Err(Error::InvalidToken)), "{answer:?}");
    }
}

#[tokio::test]
async fn instances_agree_on_the_signing_key() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let token = sign_in(&world).await;
    let second = usermgr_core::UserManager::builder()
        .store(world.store.clone())
        .mailer(world.mailbox.clone())
        .clock(world.clock.clone())
        .secret_key(usermgr_core::SecretKey::from_bytes([9; 32]))
        .previous_keys(vec![usermgr_core::SecretKey::from_bytes(*b"0123456789abcdef0123456789abcdef")])
        .build()
        .unwrap();
    second.sessions().authenticate(&token).await.unwrap();
    assert_eq!(second.jwks().await.unwrap(), world.users.jwks().await.unwrap());
}
