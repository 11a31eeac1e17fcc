//! Sign-up.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use support::{ANA, OTHER, PASSWORD, World, from, other_than};
use usermgr_core::domain::field::FieldFault;
use usermgr_core::flow::register::Register;
use usermgr_core::flow::verify_email::Verify;
use usermgr_core::{Error, Password};

fn faults(error: Error) -> Vec<(String, &'static str)> {
    let Error::Invalid(faults) = error else { panic!("{error:?}") };
    faults.into_iter().map(|fault| (fault.field.into_owned(), fault.fault.as_str())).collect()
}

#[tokio::test]
async fn every_wrong_field_is_told_at_once() {
    let world = World::new();
    let mut request = Register::new("not an address", "short");
    request.confirmation_password = Some(Password::new("other"));
    request.username = Some("a\u{7}b".into());
    request.locale = Some("not a tag".into());
    let error = world.users.registration().register(request, &world.client).await.unwrap_err();
    assert_eq!(
        faults(error),
        [
            ("email", "invalid"),
            ("username", "control_character"),
            ("locale", "invalid"),
            ("confirmation_password", "mismatch"),
            ("password", "too_short"),
        ]
        .map(|(field, fault)| (field.to_owned(), fault))
    );
    world.deliver().await;
    assert!(world.mailbox.mails().is_empty());
}

#[tokio::test]
async fn passwords_that_anybody_would_guess_are_refused() {
    let world = World::new();
    for (password, fault) in [
        ("password1", FieldFault::TooCommon.as_str()),
        ("PASSWORD1", "too_common"),
        ("ana@example.org", "same_as_identity"),
        ("Ana Exampleson", "same_as_identity"),
        ("abc\u{0}defgh", "control_character"),
        (&"x".repeat(257), "too_long"),
        ("", "required"),
        ("1234567", "too_short"),
    ] {
        let mut request = Register::new(ANA, password);
        request.username = Some("ana exampleson".into());
        let error = world.users.registration().register(request, &world.client).await.unwrap_err();
        assert_eq!(faults(error), [("password".to_owned(), fault)], "{password:?}");
    }
    for fine in ["ñandú ñandú", "😀😀😀😀😀😀😀😀", "        eight spaces", &"y".repeat(256)]
    {
        let world = World::new();
        let email = "somebody@example.org";
        world.user(email, fine).await;
        assert!(world.signs_in(email, fine).await, "{fine:?}");
    }
}

#[tokio::test]
async fn a_pending_registration_cannot_sign_in() {
    let world = World::new();
    world.register(ANA, PASSWORD).await;
    assert!(!world.signs_in(ANA, PASSWORD).await);
}

#[tokio::test]
async fn an_address_with_an_account_is_answered_alike_and_its_owner_is_told() {
    let world = World::new();
    world.user("Ana@example.org", PASSWORD).await;
    let mails = world.mailbox.mails().len();
    let accepted = world.register("ANA@example.ORG", OTHER).await;
    assert!(world.mailbox.last("ANA@example.org").is_none(), "never to a look-alike");
    let notice = world.mailbox.last("Ana@example.org").unwrap();
    assert_eq!(world.mailbox.mails().len(), mails + 1);
    assert!(!notice.text.lines().any(|line| line.trim().len() == 6 && line.trim().parse::<u32>().is_ok()));
    assert_eq!(
        accepted.registration.expose().len(),
        world.register("new@example.org", OTHER).await.registration.expose().len()
    );
    assert!(world.signs_in("ana@example.org", PASSWORD).await);
}

#[tokio::test]
async fn closed_registration_is_closed() {
    let world = World::with(|policies| policies.registration.enabled = false);
    let error =
        world.users.registration().register(Register::new(ANA, PASSWORD), &world.client).await.unwrap_err();
    assert!(matches!(error, Error::RegistrationClosed));
}

#[tokio::test]
async fn the_fourth_request_in_a_row_is_refused_and_the_owner_is_not_locked_out_from_afar() {
    let world = World::new();
    let stranger = from("198.51.100.7");
    let register = |client| {
        let users = world.users.clone();
        async move { users.registration().register(Register::new(ANA, PASSWORD), &client).await }
    };
    for _ in 0..3 {
        register(stranger.clone()).await.unwrap();
    }
    let error = register(stranger).await.unwrap_err();
    let Error::RateLimited { retry_after } = error else { panic!("{error:?}") };
    assert_eq!(retry_after.as_secs(), 600);
    register(from("192.0.2.1")).await.unwrap();
}

#[tokio::test]
async fn thirty_seconds_lie_between_two_requests() {
    let world = World::with(|policies| policies.codes.resend_interval = time::Duration::seconds(30));
    world.register(ANA, PASSWORD).await;
    let resend = || async { world.users.registration().resend(ANA, None, &world.client).await };
    let error = resend().await.unwrap_err();
    assert!(matches!(error, Error::RateLimited { retry_after } if retry_after.as_secs() == 30), "{error:?}");
    world.clock.advance(time::Duration::seconds(29));
    assert!(resend().await.is_err());
    world.clock.advance(time::Duration::seconds(1));
    resend().await.unwrap();
}

#[tokio::test]
async fn a_new_code_voids_the_one_before_even_unsent() {
    let world = World::new();
    let accepted =
        world.users.registration().register(Register::new(ANA, PASSWORD), &world.client).await.unwrap();
    world.users.registration().resend(ANA, Some(&accepted.registration), &world.client).await.unwrap();
    world.deliver().await;
    assert_eq!(world.mailbox.mails().len(), 1, "a code that was voided meanwhile is not mailed");
    let code = world.mailbox.last_code(ANA).unwrap();
    world.users.registration().verify(Verify::new(ANA, code), &world.client).await.unwrap();
}

#[tokio::test]
async fn a_forged_registration_token_gets_nothing() {
    let world = World::new();
    let accepted = world.register(ANA, PASSWORD).await;
    let mut forged = accepted.registration.expose().to_owned();
    forged.replace_range(0..1, if forged.starts_with('A') { "B" } else { "A" });
    let forged = usermgr_core::RegistrationToken::new(forged);
    world.users.registration().resend(ANA, Some(&forged), &world.client).await.unwrap();
    world.deliver().await;
    assert_eq!(world.mailbox.mails().len(), 1);
    let code = world.mailbox.last_code(ANA).unwrap();
    let verify = Verify { registration: Some(forged), ..Verify::new(ANA, code.clone()) };
    assert!(matches!(
        world.users.registration().verify(verify, &world.client).await,
        Err(Error::InvalidCode)
    ));
    assert_ne!(code, other_than(&code));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_over_a_limit_costs_no_hash() {
    let world = World::with(|policies| {
        policies.codes.requests = 1;
        let hashing = &mut policies.hashing;
        (hashing.memory_kib, hashing.iterations) = (65_536, 4);
        (hashing.threads, hashing.queue) = (Some(1), Some(1));
    });
    let register = |email: String, ip: &str| {
        let (users, client) = (world.users.clone(), from(ip));
        tokio::spawn(async move {
            users.registration().register(Register::new(email, PASSWORD), &client).await.map(drop)
        })
    };
    register(ANA.into(), "192.0.2.1").await.unwrap().unwrap();
    // One is hashed, one waits, and the rest are told to come back: the pool is full.
    let others: Vec<_> =
        (0..8).map(|n| register(format!("u{n}@example.org"), &format!("198.51.100.{n}"))).collect();
    let mut overloaded = 0;
    while overloaded == 0 {
        tokio::task::yield_now().await;
        overloaded = others.iter().filter(|other| other.is_finished()).count();
    }
    let refused = register(ANA.into(), "192.0.2.1").await.unwrap();
    assert!(matches!(refused, Err(Error::RateLimited { .. })), "{refused:?}");
}
