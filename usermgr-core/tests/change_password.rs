//! Changing one's password.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use support::{ANA, OTHER, PASSWORD, World};
use usermgr_core::flow::change_password::ChangePassword;
use usermgr_core::{Error, Password};

fn change(current: &str, new: &str) -> ChangePassword {
    ChangePassword {
        current_password: current.into(),
        new_password: new.into(),
        confirmation_password: new.into(),
    }
}

#[tokio::test]
async fn every_other_session_ends_and_the_owner_is_told() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let sessions = world.users.sessions();
    let mine = sessions.login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    let others = sessions.login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    let caller = sessions.authenticate(&mine.access_token).await.unwrap();
    let passwords = world.users.passwords();
    let wrong = passwords.change(&caller, change(OTHER, "a third good password"), &world.client).await;
    assert!(matches!(wrong, Err(Error::InvalidCredentials)));
    passwords.change(&caller, change(PASSWORD, OTHER), &world.client).await.unwrap();
    sessions.authenticate(&mine.access_token).await.unwrap();
    assert!(matches!(sessions.authenticate(&others.access_token).await, Err(Error::SessionEnded)));
    let mails = world.mailbox.mails().len();
    world.deliver().await;
    assert_eq!(world.mailbox.mails().len(), mails + 1);
    assert!(world.signs_in(ANA, OTHER).await);
    assert!(!world.signs_in(ANA, PASSWORD).await);
}

#[tokio::test]
async fn guesses_here_and_at_the_door_are_counted_together() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let signed_in = world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    let caller = world.users.sessions().authenticate(&signed_in.access_token).await.unwrap();
    for n in 0..10 {
        if n % 2 == 0 {
            assert!(!world.signs_in(ANA, "a wrong password").await);
        } else {
            let answer =
                world.users.passwords().change(&caller, change("a wrong one", OTHER), &world.client).await;
            assert!(matches!(answer, Err(Error::InvalidCredentials)));
        }
    }
    let answer = world.users.passwords().change(&caller, change(PASSWORD, OTHER), &world.client).await;
    assert!(matches!(answer, Err(Error::TooManyAttempts { .. })));
}
