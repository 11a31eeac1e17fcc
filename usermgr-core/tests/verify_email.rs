//! Proving an address.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use support::{ANA, OTHER, PASSWORD, World, other_than};
use time::Duration;
use usermgr_core::flow::verify_email::{Activate, Verify};
use usermgr_core::{Error, Password, User};

async fn verify(world: &World, code: &str) -> Result<User, Error> {
    world.users.registration().verify(Verify::new(ANA, code), &world.client).await
}

#[tokio::test]
async fn a_code_is_spent_once() {
    let world = World::new();
    world.register(ANA, PASSWORD).await;
    let code = world.mailbox.last_code(ANA).unwrap();
    let user = verify(&world, &format!("{} {}", &code[..3], &code[3..])).await.unwrap();
    assert!(user.email_verified());
    assert!(matches!(verify(&world, &code).await, Err(Error::InvalidCode)));
}

#[tokio::test]
async fn a_code_lives_from_the_hand_over_of_its_mail() {
    let world = World::new();
    world
        .users
        .registration()
        .register(usermgr_core::flow::register::Register::new(ANA, PASSWORD), &world.client)
        .await
        .unwrap();
    world.clock.advance(Duration::hours(1));
    world.deliver().await;
    let code = world.mailbox.last_code(ANA).unwrap();
    world.clock.advance(Duration::minutes(10) - Duration::SECOND);
    verify(&world, &code).await.unwrap();
}

#[tokio::test]
async fn a_right_code_too_late_is_told_and_a_wrong_one_is_not() {
    let world = World::new();
    world.register(ANA, PASSWORD).await;
    let code = world.mailbox.last_code(ANA).unwrap();
    world.clock.advance(Duration::minutes(10));
    assert!(matches!(verify(&world, &code).await, Err(Error::CodeExpired)));
    assert!(matches!(verify(&world, &other_than(&code)).await, Err(Error::InvalidCode)));
}

#[tokio::test]
async fn five_wrong_tries_use_a_code_up() {
    let world = World::new();
    world.register(ANA, PASSWORD).await;
    let code = world.mailbox.last_code(ANA).unwrap();
    for _ in 0..5 {
        assert!(matches!(verify(&world, &other_than(&code)).await, Err(Error::InvalidCode)));
    }
    assert!(matches!(verify(&world, &code).await, Err(Error::TooManyAttempts { .. })));
}

#[tokio::test]
async fn ten_wrong_tries_a_day_are_all_across_resends() {
    let world = World::new();
    world.register(ANA, PASSWORD).await;
    for _ in 0..2 {
        let code = world.mailbox.last_code(ANA).unwrap();
        for _ in 0..5 {
            assert!(matches!(verify(&world, &other_than(&code)).await, Err(Error::InvalidCode)));
        }
        world.users.registration().resend(ANA, None, &world.client).await.unwrap();
        world.deliver().await;
    }
    let code = world.mailbox.last_code(ANA).unwrap();
    assert!(matches!(verify(&world, &code).await, Err(Error::TooManyAttempts { .. })));
}

#[tokio::test]
async fn wrong_tries_do_not_tell_whether_there_is_a_code() {
    let world = World::new();
    world.register(ANA, PASSWORD).await;
    let code = world.mailbox.last_code(ANA).unwrap();
    for n in 0..12 {
        let known = verify(&world, &other_than(&code)).await.unwrap_err();
        let unknown = world
            .users
            .registration()
            .verify(Verify::new("nobody@example.org", "123456"), &world.client)
            .await
            .unwrap_err();
        assert_eq!(known.reason(), unknown.reason(), "guess {n}");
    }
}

#[tokio::test]
async fn a_code_completes_only_its_own_registration() {
    let world = World::new();
    world.register(ANA, OTHER).await;
    let thiefs = world.mailbox.last_code(ANA).unwrap();
    let mine = world.register(ANA, PASSWORD).await;
    let code = world.mailbox.last_code(ANA).unwrap();
    assert!(matches!(verify(&world, &code).await, Err(Error::RegistrationAmbiguous)));

    let with_wrong_password =
        Verify { password: Some(Password::new(OTHER)), ..Verify::new(ANA, code.clone()) };
    let answer = world.users.registration().verify(with_wrong_password, &world.client).await;
    assert!(matches!(answer, Err(Error::InvalidCode)));
    let crossed = Verify { registration: Some(mine.registration.clone()), ..Verify::new(ANA, thiefs) };
    assert!(matches!(
        world.users.registration().verify(crossed, &world.client).await,
        Err(Error::InvalidCode)
    ));

    let settled = Verify { registration: Some(mine.registration), ..Verify::new(ANA, code) };
    world.users.registration().verify(settled, &world.client).await.unwrap();
    assert!(world.signs_in(ANA, PASSWORD).await);
    assert!(!world.signs_in(ANA, OTHER).await);
}

#[tokio::test]
async fn the_password_settles_which_registration_is_meant() {
    let world = World::new();
    world.register(ANA, OTHER).await;
    world.register(ANA, PASSWORD).await;
    let code = world.mailbox.last_code(ANA).unwrap();
    let request = Verify { password: Some(Password::new(PASSWORD)), ..Verify::new(ANA, code) };
    world.users.registration().verify(request, &world.client).await.unwrap();
    assert!(world.signs_in(ANA, PASSWORD).await);
}

#[tokio::test]
async fn activation_takes_the_registrations_password() {
    let world = World::new();
    world.register(ANA, PASSWORD).await;
    let code = world.mailbox.last_code(ANA).unwrap();
    let activate = |password: &str, code: &str| Activate {
        email: ANA.into(),
        password: password.into(),
        code: code.into(),
    };
    let registration = world.users.registration();
    let answer = registration.activate(activate(OTHER, &code), &world.client).await;
    assert!(matches!(answer, Err(Error::InvalidCredentials)));
    let answer = registration.activate(activate(PASSWORD, &other_than(&code)), &world.client).await;
    assert!(matches!(answer, Err(Error::InvalidCode)));
    registration.activate(activate(PASSWORD, &code), &world.client).await.unwrap();
    assert!(world.signs_in(ANA, PASSWORD).await);
}

#[tokio::test]
async fn activation_is_no_second_path_to_guess_a_password_on() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let activate = Activate { email: ANA.into(), password: OTHER.into(), code: "123456".into() };
    let mut reasons = Vec::new();
    for _ in 0..11 {
        reasons.push(
            world.users.registration().activate(activate.clone(), &world.client).await.unwrap_err().reason(),
        );
    }
    assert_eq!(reasons[9..], ["invalid_credentials", "too_many_attempts"]);
    assert!(!world.signs_in(ANA, PASSWORD).await, "the failures count for signing in from that network too");
}

#[tokio::test]
async fn four_digits_are_for_verification_only() {
    let world = World::with(|policies| {
        policies.codes.length = usermgr_core::domain::code::CodeLength::new(4).unwrap();
    });
    world.user(ANA, PASSWORD).await;
    let purpose = usermgr_core::CodePurpose::ResetPassword;
    world.users.passwords().request_code(ANA, purpose, None, &world.client).await.unwrap();
    world.deliver().await;
    assert_eq!(world.mailbox.last_code(ANA).unwrap().len(), 6);
}
