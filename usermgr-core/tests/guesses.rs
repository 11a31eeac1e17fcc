//! Guesses at codes: what an attacker may try, and what the owner may do meanwhile.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::{ANA, OTHER, PASSWORD, World, from, other_than};
use time::Duration;
use usermgr_core::domain::page::PageSize;
use usermgr_core::flow::change_password::ChangePassword;
use usermgr_core::flow::register::Register;
use usermgr_core::flow::set_password::{PasswordSet, SetWithCode};
use usermgr_core::flow::verify_email::{Activate, Verify};
use usermgr_core::port::random::{Random, SystemRandom};
use usermgr_core::port::store::audit::{AuditQuery, AuditStore as _};
use usermgr_core::{ClientContext, Code, CodePurpose, Error, LinkToken, Password};

const RESET: CodePurpose = CodePurpose::ResetPassword;
const STRANGER: &str = "203.0.113.9";

/// Asks for a code of this purpose from a network. Answers the code if one was mailed.
async fn ask(world: &World, purpose: CodePurpose, client: &ClientContext) -> Option<String> {
    let before = mails(world).await;
    world.users.passwords().request_code(ANA, purpose, None, client).await.unwrap();
    world.deliver().await;
    (world.mailbox.mails().len() > before).then(|| world.mailbox.last_code(ANA).unwrap())
}

/// Delivers all mails, and answers how many there are.
async fn mails(world: &World) -> usize {
    loop {
        let before = world.mailbox.mails().len();
        world.deliver().await;
        if world.mailbox.mails().len() == before {
            return before;
        }
    }
}

async fn guess(world: &World, code: &str, client: &ClientContext) -> Result<PasswordSet, Error> {
    let request = SetWithCode::new(ANA, code, OTHER).with_purpose(RESET);
    world.users.passwords().set_with_code(request, client).await
}

/// Uses up the budget that strangers share, from as many networks as it takes. A request for another code frees guesses.
async fn use_up_the_strangers_budget(world: &World) {
    for n in 0..10 {
        if n == 5 {
            let stranger = from("198.51.100.99");
            world.users.passwords().request_code(ANA, RESET, None, &stranger).await.unwrap();
        }
        let refused = guess(world, "000001", &from(&format!("198.51.100.{n}"))).await.unwrap_err();
        assert!(
            matches!(refused, Error::InvalidCode | Error::TooManyAttempts { .. }),
            "guess {n}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn no_code_is_issued_that_the_asker_could_not_redeem() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    use_up_the_strangers_budget(&world).await;
    world.clock.advance(Duration::DAY - Duration::MINUTE);
    assert_eq!(ask(&world, RESET, &from(STRANGER)).await, None, "a minute before the budget opens");
    for _ in 0..30 {
        let refused = guess(&world, "000001", &from(STRANGER)).await.unwrap_err();
        assert!(matches!(refused, Error::TooManyAttempts { .. }), "{refused:?}");
    }
    world.clock.advance(Duration::MINUTE);
    assert!(ask(&world, RESET, &from(STRANGER)).await.is_some(), "the budget is open again");
}

#[tokio::test]
async fn a_guess_past_the_budget_is_compared_with_nothing_and_writes_nothing() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    assert!(world.signs_in(ANA, PASSWORD).await, "so that this network is known");
    use_up_the_strangers_budget(&world).await;
    let code = ask(&world, RESET, &world.client).await.unwrap();
    guess(&world, "000001", &from(STRANGER)).await.unwrap_err();
    let audited = || async { world.store.audit(AuditQuery::default()).await.unwrap().items.len() };
    let before = audited().await;
    for guessed in ["000001", code.as_str()] {
        for _ in 0..20 {
            let refused = guess(&world, guessed, &from(STRANGER)).await.unwrap_err();
            assert!(matches!(refused, Error::TooManyAttempts { .. }), "{refused:?}");
        }
    }
    assert_eq!(audited().await, before);
    guess(&world, &code, &world.client).await.unwrap();
}

/// Counts how often randomness is asked for: by each hash for its salt, and by each identifier. The four bytes of the pause
/// that blurs the time of an answer are left out.
#[derive(Debug, Default)]
struct Drawn(AtomicUsize);

impl Random for Drawn {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.fetch_add(usize::from(bytes.len() != 4), Ordering::SeqCst);
        SystemRandom.fill(bytes);
    }
}

#[tokio::test]
async fn right_and_wrong_guesses_are_the_same_work() {
    let drawn = Arc::new(Drawn::default());
    let random = Arc::clone(&drawn) as Arc<dyn Random>;
    let world = World::built(|_| {}, |builder| builder.random(random));
    world.user(ANA, PASSWORD).await;
    assert!(world.signs_in(ANA, PASSWORD).await, "so that the signing key is there");
    let code = ask(&world, RESET, &world.client).await.unwrap();
    let work = async |code: &str| {
        let before = drawn.0.load(Ordering::SeqCst);
        let outcome = guess(&world, code, &world.client).await;
        (outcome, drawn.0.load(Ordering::SeqCst) - before)
    };
    let (wrong, of_wrong) = work(&other_than(&code)).await;
    let (right, of_right) = work(&code).await;
    assert!(wrong.is_err());
    assert!(matches!(right.unwrap(), PasswordSet::SignedIn(_)));
    assert_eq!(of_right, of_wrong + 1, "the access token, which is made after the store has judged");
}

#[tokio::test]
async fn a_stranger_closes_no_door_to_an_owner_of_a_known_network() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    assert!(world.signs_in(ANA, PASSWORD).await);
    use_up_the_strangers_budget(&world).await;
    let code = ask(&world, RESET, &world.client).await.unwrap();
    guess(&world, &code, &world.client).await.unwrap();
    assert!(world.signs_in(ANA, OTHER).await);
}

#[tokio::test]
async fn a_stranger_closes_no_door_to_a_registration_with_its_token() {
    let world = World::new();
    let accepted = world.register(ANA, PASSWORD).await;
    let code = world.mailbox.last_code(ANA).unwrap();
    for n in 0..12 {
        let stranger = from(&format!("198.51.100.{n}"));
        if n == 5 {
            // Frees guesses, for a registration of nobody's.
            let forged = "forged".into();
            world.users.registration().resend(ANA, Some(&forged), &stranger).await.unwrap();
        }
        let guess = Verify::new(ANA, "000001").with_registration("forged");
        world.users.registration().verify(guess, &stranger).await.unwrap_err();
    }
    let verify = Verify::new(ANA, code).with_registration(accepted.registration);
    world.users.registration().verify(verify, &world.client).await.unwrap();
}

#[tokio::test]
async fn the_token_of_a_registration_has_a_budget_of_its_own() {
    let world = World::new();
    let accepted = world.register(ANA, PASSWORD).await;
    for _ in 0..2 {
        use_up_the_strangers_budget(&world).await;
    }
    let by_token = |code: &str| Verify::new(ANA, code).with_registration(accepted.registration.clone());
    let without = Verify::new(ANA, "000001");
    let refused = world.users.registration().verify(without, &world.client).await.unwrap_err();
    assert!(matches!(refused, Error::TooManyAttempts { .. }), "{refused:?}");
    world.users.registration().resend(ANA, Some(&accepted.registration), &world.client).await.unwrap();
    world.deliver().await;
    let code = world.mailbox.last_code(ANA).unwrap();
    let wrong = world.users.registration().verify(by_token(&other_than(&code)), &world.client).await;
    assert!(matches!(wrong, Err(Error::InvalidCode)));
    world.users.registration().verify(by_token(&code), &world.client).await.unwrap();
}

#[tokio::test]
async fn a_stranger_closes_no_door_to_a_change_of_address() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let signed_in =
        world.users.sessions().login(ANA, &Password::new(PASSWORD), &from("192.0.2.77")).await.unwrap();
    let caller = world.users.sessions().authenticate(&signed_in.access_token).await.unwrap();
    use_up_the_strangers_budget(&world).await;
    let account = world.users.account();
    account.request_email_change(&caller, "new@example.org", None, &world.client).await.unwrap();
    world.deliver().await;
    let code = world.mailbox.last_code("new@example.org").unwrap();
    let user = account.confirm_email_change(&caller, &Code::new(code), &world.client).await.unwrap();
    assert_eq!(user.email.as_str(), "new@example.org");
}

#[tokio::test]
async fn one_network_guesses_a_hundred_times_over_all_addresses() {
    let world = World::new();
    let stranger = from(STRANGER);
    for n in 0..100 {
        let verify = Verify::new(format!("u{n}@example.org"), "000001");
        let refused = world.users.registration().verify(verify, &stranger).await.unwrap_err();
        assert!(matches!(refused, Error::InvalidCode), "guess {n}: {refused:?}");
    }
    let verify = || Verify::new("another@example.org", "000001");
    let refused = world.users.registration().verify(verify(), &stranger).await.unwrap_err();
    assert!(matches!(refused, Error::TooManyAttempts { .. }), "{refused:?}");
    let elsewhere = world.users.registration().verify(verify(), &world.client).await.unwrap_err();
    assert!(matches!(elsewhere, Error::InvalidCode), "{elsewhere:?}");
    world.clock.advance(Duration::minutes(15));
    let later = world.users.registration().verify(verify(), &stranger).await.unwrap_err();
    assert!(matches!(later, Error::InvalidCode), "{later:?}");
}

/// The way in that was found: two registrations, five wrong guesses that end both codes, a resend by the stranger.
#[tokio::test]
async fn an_owner_never_confirms_a_strangers_password() {
    let world = World::new();
    world.register(ANA, PASSWORD).await;
    let strangers = world.register(ANA, OTHER).await;
    let owner = from("192.0.2.77");
    for _ in 0..5 {
        world.users.registration().verify(Verify::new(ANA, "000001"), &from(STRANGER)).await.unwrap_err();
    }
    world.users.registration().resend(ANA, Some(&strangers.registration), &from(STRANGER)).await.unwrap();
    world.deliver().await;
    let newest = world.mailbox.last_code(ANA).unwrap();
    let refused = world.users.registration().verify(Verify::new(ANA, newest), &owner).await.unwrap_err();
    assert!(matches!(refused, Error::RegistrationAmbiguous), "{refused:?}");

    // Nor is one sent without a token that would choose between them.
    let before = world.mailbox.mails().len();
    world.users.registration().resend(ANA, None, &owner).await.unwrap();
    world.deliver().await;
    assert_eq!(world.mailbox.mails().len(), before);
}

#[tokio::test]
async fn strangers_have_twenty_mails_a_day_sent_to_an_address() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    assert!(world.signs_in(ANA, PASSWORD).await);
    world.clock.advance(Duration::DAY);
    let before = mails(&world).await;
    for n in 0..60 {
        world.clock.advance(Duration::minutes(11));
        let stranger = from(&format!("198.51.100.{n}"));
        let (registration, passwords) = (world.users.registration(), world.users.passwords());
        let _ = registration.register(Register::new(ANA, OTHER), &stranger).await;
        let _ = registration.resend(ANA, None, &stranger).await;
        let _ = passwords.request_code(ANA, RESET, None, &stranger).await;
        let _ = passwords.forgot(ANA, &stranger).await;
        mails(&world).await;
    }
    let sent = mails(&world).await - before;
    assert!((10..=20).contains(&sent), "{sent} mails in eleven hours");
    world.users.passwords().forgot(ANA, &world.client).await.unwrap();
    assert_eq!(mails(&world).await - before, sent + 1, "the owner's own mail is apart");
}

#[tokio::test]
async fn a_signed_in_stranger_floods_neither_their_own_nor_other_addresses() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let signed_in = world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    let caller = world.users.sessions().authenticate(&signed_in.access_token).await.unwrap();
    let before = mails(&world).await;
    for n in 0..40 {
        let client = from(&format!("198.51.100.{n}"));
        let new = format!("n{n}@example.org");
        let _ = world.users.account().request_email_change(&caller, &new, None, &client).await;
        mails(&world).await;
    }
    let sent = mails(&world).await - before;
    assert_eq!(sent, 6, "three codes and three notices");
}

#[tokio::test]
async fn the_right_password_of_an_active_account_is_told_that_it_is_verified() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let activate = |password: &str| Activate::new(ANA, password, "000001");
    for _ in 0..20 {
        let answer = world.users.registration().activate(activate(PASSWORD), &world.client).await;
        assert!(matches!(answer, Err(Error::AlreadyVerified)), "counted as no failure: {answer:?}");
    }
    let answer = world.users.registration().activate(activate(OTHER), &world.client).await;
    assert!(matches!(answer, Err(Error::InvalidCredentials)), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_guesses_at_once_none_past_the_limit_learns_that_it_was_right() {
    // One thread and a hash of some milliseconds: the right guess is admitted, and waits behind the wrong ones.
    let world = World::with(|policies| {
        policies.hashing.threads = Some(1);
        (policies.hashing.memory_kib, policies.hashing.iterations) = (8192, 2);
    });
    world.user(ANA, PASSWORD).await;
    let signed_in = world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    let caller = world.users.sessions().authenticate(&signed_in.access_token).await.unwrap();
    let change = |current: &'static str| {
        let (users, caller, client) = (world.users.clone(), caller.clone(), from(STRANGER));
        tokio::spawn(async move {
            let request = ChangePassword::new(current, "yet another password");
            users.passwords().change(&caller, request, &client).await
        })
    };
    let wrong: Vec<_> = (0..40).map(|_| change(OTHER)).collect();
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    let right = change(PASSWORD).await.unwrap();
    assert!(matches!(right, Err(Error::TooManyAttempts { .. })), "{right:?}");
    for guess in wrong {
        guess.await.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn what_is_right_and_comes_to_nothing_is_bounded_for_a_network() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let code = ask(&world, RESET, &world.client).await.unwrap();
    world.clock.advance(Duration::minutes(11));
    for client in ["203.0.113.1", "203.0.113.2"].map(from) {
        for n in 0..120 {
            let refused = if client.ip == from("203.0.113.1").ip {
                world
                    .users
                    .registration()
                    .activate(Activate::new(ANA, PASSWORD, "000001"), &client)
                    .await
                    .err()
            } else {
                guess(&world, &code, &client).await.err()
            };
            match refused {
                Some(Error::AlreadyVerified | Error::CodeExpired) => assert!(n <= 100, "{n}"),
                Some(Error::TooManyAttempts { .. }) => assert!(n >= 100, "{n}"),
                other => panic!("{other:?}"),
            }
        }
    }
    let audited = world.store.audit(AuditQuery::default()).await.unwrap().items.len();
    assert!(audited <= 220, "{audited}");
}

#[tokio::test]
async fn a_token_does_not_multiply_requests() {
    let world = World::new();
    let accepted = world.register(ANA, PASSWORD).await;
    let forged = "forged".into();
    for token in [&accepted.registration, &forged] {
        let mut sent = 0;
        for n in 0..30 {
            let client = from(&format!("198.51.100.{n}"));
            sent += usize::from(world.users.registration().resend(ANA, Some(token), &client).await.is_ok());
        }
        assert_eq!(sent, 3);
    }
}

#[tokio::test]
async fn a_session_does_not_multiply_requests() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let signed_in = world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    let caller = world.users.sessions().authenticate(&signed_in.access_token).await.unwrap();
    let mut sent = 0;
    for n in 0..30 {
        let client = from(&format!("198.51.100.{n}"));
        let (passwords, purpose) = (world.users.passwords(), CodePurpose::ChangePassword);
        sent += usize::from(passwords.request_code(ANA, purpose, Some(&caller), &client).await.is_ok());
    }
    assert_eq!(sent, 3);
}

#[tokio::test]
async fn a_link_that_is_refused_writes_a_bounded_number_of_entries() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let signed_in = world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    let caller = world.users.sessions().authenticate(&signed_in.access_token).await.unwrap();
    let account = world.users.account();
    account.request_email_change(&caller, "new@example.org", None, &world.client).await.unwrap();
    mails(&world).await;
    let code = Code::new(world.mailbox.last_code("new@example.org").unwrap());
    account.confirm_email_change(&caller, &code, &world.client).await.unwrap();
    mails(&world).await;
    let undo = LinkToken::new(world.mailbox.last_link_token(ANA).unwrap());
    world.user(ANA, OTHER).await;
    let before = world.store.audit(AuditQuery::default()).await.unwrap().items.len();
    for _ in 0..200 {
        let refused = account.undo_email_change(&undo, &world.client).await;
        assert!(matches!(refused, Err(Error::InvalidLink)), "{refused:?}");
    }
    let query = AuditQuery { size: PageSize::new(200), ..AuditQuery::default() };
    let after = world.store.audit(query).await.unwrap().items.len();
    assert!(after - before <= 61, "{} entries", after - before);
}
