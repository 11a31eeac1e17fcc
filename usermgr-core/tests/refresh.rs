//! Renewing sessions: lifetimes to the second, reuse, the grace.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use support::{ANA, PASSWORD, World};
use time::Duration;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::sessions::SignedIn;
use usermgr_core::policy::TokenFormat;
use usermgr_core::port::store::audit::AuditQuery;
use usermgr_core::{Error, Password, RefreshToken};

async fn signed_in(world: &World) -> SignedIn {
    world.user(ANA, PASSWORD).await;
    world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap()
}

async fn refresh(world: &World, token: &RefreshToken) -> Result<SignedIn, Error> {
    world.users.sessions().refresh(token, &world.client).await
}

async fn holds(world: &World, signed_in: &SignedIn) -> bool {
    world.users.sessions().authenticate(&signed_in.access_token).await.is_ok()
}

async fn audited(world: &World) -> usize {
    let users = world.users.users();
    users.audit(Principal::Operator, AuditQuery::default(), &world.client).await.unwrap().items.len()
}

#[tokio::test]
async fn a_session_lives_from_renewal_to_renewal_but_never_past_its_end() {
    let world = World::with(|policies| {
        policies.sessions.idle_ttl = Duration::days(2);
        policies.sessions.max_ttl = Duration::days(5);
    });
    let first = signed_in(&world).await;
    assert_eq!(first.refresh_expires_in, std::time::Duration::from_secs(2 * 86_400));
    let mut token = first.refresh_token;
    for _ in 0..2 {
        world.clock.advance(Duration::days(2) - Duration::SECOND);
        let renewed = refresh(&world, &token).await.unwrap();
        assert_eq!(renewed.session_id, first.session_id);
        token = renewed.refresh_token;
    }
    // A day and two seconds are left of five days.
    world.clock.advance(Duration::days(1));
    let last = refresh(&world, &token).await.unwrap();
    assert_eq!(last.refresh_expires_in, std::time::Duration::from_secs(2));
    assert_eq!(last.expires_in, std::time::Duration::from_secs(2), "no token outlives its session");
    world.clock.advance(Duration::SECOND);
    let renewed = refresh(&world, &last.refresh_token).await.unwrap();
    assert!(holds(&world, &renewed).await);
    world.clock.advance(Duration::SECOND);
    assert!(matches!(refresh(&world, &renewed.refresh_token).await, Err(Error::SessionEnded)));
    assert!(!holds(&world, &renewed).await);
}

#[tokio::test]
async fn a_session_that_is_not_renewed_in_time_is_over() {
    for (seconds, there) in [(-1, true), (0, false), (1, false)] {
        let world = World::new();
        let first = signed_in(&world).await;
        world.clock.advance(Duration::days(14) + Duration::seconds(seconds));
        assert_eq!(refresh(&world, &first.refresh_token).await.is_ok(), there, "{seconds}");
    }
}

#[tokio::test]
async fn who_asks_twice_gets_the_same_answer_for_a_while() {
    for (seconds, there) in [(0, true), (9, true), (10, false)] {
        let world = World::new();
        let first = signed_in(&world).await;
        let second = refresh(&world, &first.refresh_token).await.unwrap();
        world.clock.advance(Duration::seconds(seconds));
        match refresh(&world, &first.refresh_token).await {
            Ok(again) => {
                assert!(there, "{seconds}");
                assert_eq!(again.refresh_token.expose(), second.refresh_token.expose());
                assert!(holds(&world, &again).await && holds(&world, &second).await);
            }
            Err(error) => {
                assert!(!there && matches!(error, Error::SessionEnded), "{seconds}: {error}");
                assert!(!holds(&world, &second).await, "somebody has a copy: everything ends");
                assert!(matches!(refresh(&world, &second.refresh_token).await, Err(Error::SessionEnded)));
            }
        }
    }
}

#[tokio::test]
async fn a_token_whose_successor_was_used_ends_the_session_at_once() {
    let world = World::new();
    let first = signed_in(&world).await;
    let second = refresh(&world, &first.refresh_token).await.unwrap();
    let third = refresh(&world, &second.refresh_token).await.unwrap();
    assert!(matches!(refresh(&world, &first.refresh_token).await, Err(Error::SessionEnded)));
    assert!(matches!(refresh(&world, &third.refresh_token).await, Err(Error::SessionEnded)));
    assert!(!holds(&world, &third).await);
}

#[tokio::test]
async fn parallel_tabs_stay_signed_in() {
    for format in [TokenFormat::Jwt, TokenFormat::Opaque] {
        let world = World::with(|policies| policies.tokens.format = format);
        let first = signed_in(&world).await;
        let renewals = (0..16).map(|_| {
            let (users, token, client) =
                (world.users.clone(), first.refresh_token.clone(), world.client.clone());
            tokio::spawn(async move { users.sessions().refresh(&token, &client).await.unwrap() })
        });
        let mut renewed = Vec::new();
        for renewal in renewals.collect::<Vec<_>>() {
            renewed.push(renewal.await.unwrap());
        }
        for tab in &renewed {
            assert_eq!(tab.refresh_token.expose(), renewed[0].refresh_token.expose(), "one family");
            assert!(holds(&world, tab).await);
        }
        assert!(holds(&world, &first).await, "requests under way go on");
        assert!(refresh(&world, &renewed[15].refresh_token).await.is_ok());
    }
}

#[tokio::test]
async fn a_token_that_is_not_ours_is_refused_without_a_trace() {
    let world = World::new();
    let first = signed_in(&world).await;
    let before = audited(&world).await;
    let text = first.refresh_token.expose();
    let altered = format!("{}A{}", &text[..30], &text[31..]);
    for forged in ["", "umr_", "x", first.access_token.expose(), &altered, &text[4..]] {
        if forged != text {
            let refused = refresh(&world, &RefreshToken::new(forged)).await;
            assert!(matches!(refused, Err(Error::InvalidToken)), "{forged}");
        }
    }
    assert_eq!(audited(&world).await, before);
    assert!(refresh(&world, &first.refresh_token).await.is_ok(), "and the true one is as good as before");
}
