//! One's own account: change of address, deletion and the way back, export, step-up.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use support::{ANA, OTHER, PASSWORD, World, other_than};
use time::Duration;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::sessions::Authenticated;
use usermgr_core::flow::update_user::UpdateUser;
use usermgr_core::{Code, Error, LinkToken, Password};

const NEW: &str = "ana.new@example.org";

async fn caller(world: &World) -> Authenticated {
    sign_in(world, ANA, PASSWORD).await
}

async fn sign_in(world: &World, email: &str, password: &str) -> Authenticated {
    let sessions = world.users.sessions();
    let signed_in = sessions.login(email, &Password::new(password), &world.client).await.unwrap();
    sessions.authenticate(&signed_in.access_token).await.unwrap()
}

fn mails_to(world: &World, address: &str) -> Vec<usermgr_core::port::mailer::Mail> {
    world.mailbox.mails().into_iter().filter(|mail| mail.to.as_str() == address).collect()
}

async fn ask(world: &World, caller: &Authenticated, password: Option<&str>) -> Result<(), Error> {
    let password = password.map(Password::new);
    let account = world.users.account();
    account.request_email_change(caller, NEW, password.as_ref(), &world.client).await?;
    world.deliver().await;
    Ok(())
}

#[tokio::test]
async fn an_address_is_changed_once_it_is_proven_and_the_old_one_is_told() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let caller = caller(&world).await;
    ask(&world, &caller, Some(PASSWORD)).await.unwrap();
    assert!(world.mailbox.last(ANA).unwrap().text.contains("asked to use another address"));
    assert!(world.signs_in(ANA, PASSWORD).await && !world.signs_in(NEW, PASSWORD).await, "not yet");

    let code = world.mailbox.last_code(NEW).unwrap();
    let confirm = |code: &str| {
        let code = Code::new(code);
        let (world, caller) = (&world, &caller);
        async move { world.users.account().confirm_email_change(caller, &code, &world.client).await }
    };
    assert!(matches!(confirm(&other_than(&code)).await, Err(Error::InvalidCode)));
    let changed = confirm(&code).await.unwrap();
    assert_eq!((changed.email.as_str(), changed.email_verified()), (NEW, true));
    assert!(matches!(confirm(&code).await, Err(Error::InvalidCode)), "once");
    assert!(world.signs_in(NEW, PASSWORD).await && !world.signs_in(ANA, PASSWORD).await);

    world.deliver().await;
    let notice = world.mailbox.last(ANA).unwrap().text.clone();
    assert!(notice.contains("/undo-email-change#token="), "{notice}");
    let token = LinkToken::new(world.mailbox.last_link_token(ANA).unwrap());
    // A link of one kind is none of the other.
    let password = Password::new(OTHER);
    let reset = world.users.passwords().reset(&token, &password, &password, &world.client).await;
    assert!(matches!(reset, Err(Error::InvalidLink)));
    let later = sign_in(&world, NEW, PASSWORD).await;
    world.clock.advance(Duration::days(7) - Duration::SECOND);
    world.users.account().undo_email_change(&token, &world.client).await.unwrap();
    assert!(matches!(
        world.users.account().undo_email_change(&token, &world.client).await,
        Err(Error::InvalidLink)
    ));
    assert!(!world.signs_in(ANA, PASSWORD).await, "whoever changed it knew the password");
    assert!(!world.signs_in(NEW, PASSWORD).await);
    let listed = world.users.sessions().list(&later).await.unwrap();
    assert!(listed.is_empty(), "signed out everywhere");
    world.deliver().await;
    let token = LinkToken::new(world.mailbox.last_link_token(ANA).unwrap());
    world.users.passwords().reset(&token, &password, &password, &world.client).await.unwrap();
    assert!(world.signs_in(ANA, OTHER).await);
}

#[tokio::test]
async fn a_change_can_be_undone_for_a_week() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let caller = caller(&world).await;
    ask(&world, &caller, None).await.unwrap();
    let code = Code::new(world.mailbox.last_code(NEW).unwrap());
    world.users.account().confirm_email_change(&caller, &code, &world.client).await.unwrap();
    world.deliver().await;
    let token = LinkToken::new(world.mailbox.last_link_token(ANA).unwrap());
    world.clock.advance(Duration::days(7));
    let undone = world.users.account().undo_email_change(&token, &world.client).await;
    assert!(matches!(undone, Err(Error::InvalidLink)));
    assert!(world.signs_in(NEW, PASSWORD).await);
}

/// A try that fails while another account has the address must not use the link up.
#[tokio::test]
async fn an_undo_waits_until_the_address_is_free() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let thief = caller(&world).await;
    ask(&world, &thief, Some(PASSWORD)).await.unwrap();
    let code = Code::new(world.mailbox.last_code(NEW).unwrap());
    world.users.account().confirm_email_change(&thief, &code, &world.client).await.unwrap();
    world.deliver().await;
    let token = LinkToken::new(world.mailbox.last_link_token(ANA).unwrap());
    world.user(ANA, OTHER).await;
    for _ in 0..3 {
        let refused = world.users.account().undo_email_change(&token, &world.client).await;
        assert!(matches!(refused, Err(Error::InvalidLink)));
    }
    let other = world.users.users().by_email(ANA).await.unwrap();
    world.users.users().delete(Principal::Operator, other.id, &world.client).await.unwrap();
    world.users.account().undo_email_change(&token, &world.client).await.unwrap();
    assert_eq!(world.users.users().by_email(ANA).await.unwrap().id, thief.user.id);
}

/// A thief with the session, the password and a mailbox of their own changes the address twice, sets a password, resets
/// it and deletes the account, all before the first mail is sent: the owner of the old mailbox has it back by one link.
#[tokio::test]
async fn whatever_a_thief_does_the_first_undo_brings_the_account_back() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let (account, passwords) = (world.users.account(), world.users.passwords());
    let client = &world.client;
    let id = caller(&world).await.user.id;
    let mut first = None;
    for (old, new) in [(ANA, NEW), (NEW, "third@example.org")] {
        let (caller, password) = (sign_in(&world, old, PASSWORD).await, Password::new(PASSWORD));
        account.request_email_change(&caller, new, Some(&password), client).await.unwrap();
        world.deliver().await;
        let code = Code::new(world.mailbox.last_code(new).unwrap());
        account.confirm_email_change(&caller, &code, client).await.unwrap();
        world.deliver().await;
        first = first.or_else(|| world.mailbox.last_link_token(ANA));
    }
    let thiefs = LinkToken::new(world.mailbox.last_link_token(NEW).unwrap());
    passwords.forgot("third@example.org", client).await.unwrap();
    world.deliver().await;
    let reset = LinkToken::new(world.mailbox.last_link_token("third@example.org").unwrap());
    let other = Password::new(OTHER);
    passwords.reset(&reset, &other, &other, client).await.unwrap();
    let thief = sign_in(&world, "third@example.org", OTHER).await;
    account.delete(&thief, Some(&other), client).await.unwrap();

    world.clock.advance(Duration::days(6));
    account.undo_email_change(&LinkToken::new(first.unwrap()), client).await.unwrap();
    let back = world.users.users().by_email(ANA).await.unwrap();
    assert_eq!(back.id, id);
    assert!(matches!(account.undo_email_change(&thiefs, client).await, Err(Error::InvalidLink)));
    world.deliver().await;
    let token = LinkToken::new(world.mailbox.last_link_token(ANA).unwrap());
    passwords.reset(&token, &other, &other, client).await.unwrap();
    assert!(world.signs_in(ANA, OTHER).await);
}

#[tokio::test]
async fn a_taken_address_is_not_told_to_whoever_asks_for_it() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    world.user(NEW, OTHER).await;
    let caller = caller(&world).await;
    let before = mails_to(&world, NEW).len();
    ask(&world, &caller, Some(PASSWORD)).await.unwrap();
    let mails = mails_to(&world, NEW);
    assert_eq!(mails.len(), before + 1, "its owner is told");
    assert!(!mails.last().unwrap().text.contains("code"), "and gets no code");
}

#[tokio::test]
async fn a_new_password_voids_a_pending_change() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let caller = caller(&world).await;
    ask(&world, &caller, Some(PASSWORD)).await.unwrap();
    let code = Code::new(world.mailbox.last_code(NEW).unwrap());
    world.users.passwords().forgot(ANA, &world.client).await.unwrap();
    world.deliver().await;
    let token = LinkToken::new(world.mailbox.last_link_token(ANA).unwrap());
    let password = Password::new(OTHER);
    world.users.passwords().reset(&token, &password, &password, &world.client).await.unwrap();
    let confirmed = world.users.account().confirm_email_change(&caller, &code, &world.client).await;
    assert!(matches!(confirmed, Err(Error::InvalidCode)));
}

#[tokio::test]
async fn what_cannot_be_taken_back_needs_a_recent_sign_in_or_the_password() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let caller = caller(&world).await;
    world.clock.advance(Duration::minutes(15));
    ask(&world, &caller, None).await.unwrap();
    world.clock.advance(Duration::SECOND);
    let late = ask(&world, &caller, None).await;
    assert!(
        matches!(late, Err(Error::ReauthenticationRequired { max_age }) if max_age.as_secs() == 900),
        "{late:?}"
    );
    assert!(matches!(ask(&world, &caller, Some(OTHER)).await, Err(Error::InvalidCredentials)));
    let delete = world.users.account().delete(&caller, None, &world.client).await;
    assert!(matches!(delete, Err(Error::ReauthenticationRequired { .. })));
    ask(&world, &caller, Some(PASSWORD)).await.unwrap();
    for _ in 0..9 {
        assert!(matches!(ask(&world, &caller, Some(OTHER)).await, Err(Error::InvalidCredentials)));
    }
    // Guesses here and at the door are counted together.
    assert!(matches!(ask(&world, &caller, Some(PASSWORD)).await, Err(Error::TooManyAttempts { .. })));
}

#[tokio::test]
async fn a_deleted_account_comes_back_by_signing_in_within_the_grace() {
    for (seconds, back) in [(-1, true), (0, false)] {
        let world = World::new();
        let user = world.user(ANA, PASSWORD).await;
        let caller = caller(&world).await;
        world.users.account().delete(&caller, Some(&Password::new(PASSWORD)), &world.client).await.unwrap();
        world.deliver().await;
        assert!(world.mailbox.last(ANA).unwrap().text.contains("30 days"));
        let again = world.users.sessions().list(&caller).await.unwrap();
        assert!(again.is_empty(), "signed out everywhere");
        world.clock.advance(Duration::days(30) + Duration::seconds(seconds));
        world.users.upkeep().run_once().await.unwrap();
        assert_eq!(world.signs_in(ANA, PASSWORD).await, back, "{seconds}");
        if back {
            assert_eq!(sign_in(&world, ANA, PASSWORD).await.user.id, user.id);
            world.clock.advance(Duration::days(90));
            world.users.upkeep().run_once().await.unwrap();
            assert!(world.signs_in(ANA, PASSWORD).await, "and stays");
        }
    }
}

#[tokio::test]
async fn the_address_of_a_deleted_account_is_free_and_then_it_cannot_come_back() {
    let world = World::new();
    let first = world.user(ANA, PASSWORD).await;
    let caller = caller(&world).await;
    world.users.account().delete(&caller, None, &world.client).await.unwrap();
    let second = world.user(ANA, OTHER).await;
    assert_ne!(first.id, second.id);
    assert!(!world.signs_in(ANA, PASSWORD).await);
    assert!(world.signs_in(ANA, OTHER).await);
}

#[tokio::test]
async fn profile_fields_are_set_and_removed() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let caller = caller(&world).await;
    let request = UpdateUser {
        username: Some(Some("Ana".into())),
        locale: Some(Some("es".into())),
        ..UpdateUser::default()
    };
    let user = world.users.account().update(&caller, request, &world.client).await.unwrap();
    assert_eq!(user.username.unwrap().as_str(), "Ana");
    let request = UpdateUser { username: Some(None), ..UpdateUser::default() };
    let user = world.users.account().update(&caller, request, &world.client).await.unwrap();
    assert_eq!((user.username, user.locale.unwrap().as_str()), (None, "es"));
    let request = UpdateUser { locale: Some(Some("!".into())), ..UpdateUser::default() };
    assert!(matches!(
        world.users.account().update(&caller, request, &world.client).await,
        Err(Error::Invalid(_))
    ));
}

#[tokio::test]
async fn an_export_holds_all_there_is_and_no_secret() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    world.user(NEW, OTHER).await;
    let caller = caller(&world).await;
    let export = world.users.account().export(&caller, &world.client).await.unwrap();
    assert_eq!(export.user.email.as_str(), ANA);
    assert_eq!(export.sessions.len(), 1);
    assert!(export.audit.iter().all(|entry| entry.subject == Some(caller.user.id)));
    let mut events: Vec<_> = export.audit.iter().map(|entry| entry.event.as_str()).collect();
    events.sort_unstable();
    assert_eq!(events, ["sign_in", "user_export", "verification"]);
    assert!(!export.outbox.is_empty(), "the welcome mail");
    let shown = format!("{export:?}");
    for secret in ["argon2", PASSWORD, NEW] {
        assert!(!shown.contains(secret), "{secret}");
    }
    assert!(export.sessions[0].ip.is_some(), "the client's address is data");
}
