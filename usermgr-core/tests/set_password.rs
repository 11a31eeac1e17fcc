//! Passwords set by a code.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use support::{ANA, OTHER, PASSWORD, World};
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::set_password::{PasswordSet, SetWithCode};
use usermgr_core::flow::users::CreateUser;
use usermgr_core::{CodePurpose, Error, Password};

fn set(code: &str, password: &str, purpose: Option<CodePurpose>) -> SetWithCode {
    SetWithCode {
        email: ANA.into(),
        code: code.into(),
        new_password: password.into(),
        confirmation_password: password.into(),
        purpose,
    }
}

async fn request(world: &World, purpose: CodePurpose) -> Option<String> {
    let before = world.mailbox.mails().len();
    world.users.passwords().request_code(ANA, purpose, None, &world.client).await.unwrap();
    world.deliver().await;
    (world.mailbox.mails().len() > before).then(|| world.mailbox.last_code(ANA).unwrap())
}

#[tokio::test]
async fn a_registration_may_begin_with_another_password() {
    let world = World::new();
    world.register(ANA, PASSWORD).await;
    let code = world.mailbox.last_code(ANA).unwrap();
    let signed_in =
        world.users.passwords().set_with_email_code(set(&code, OTHER, None), &world.client).await.unwrap();
    assert!(signed_in.user.email_verified());
    assert_eq!(
        world.users.sessions().authenticate(&signed_in.access_token).await.unwrap().user.email.as_str(),
        ANA
    );
    assert!(world.signs_in(ANA, OTHER).await);
    assert!(!world.signs_in(ANA, PASSWORD).await);
}

#[tokio::test]
async fn a_code_of_one_purpose_is_worthless_for_another() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let code = request(&world, CodePurpose::ResetPassword).await.unwrap();
    for purpose in [CodePurpose::FirstTimeSetup, CodePurpose::ChangePassword, CodePurpose::EmailVerification]
    {
        let answer =
            world.users.passwords().set_with_code(set(&code, OTHER, Some(purpose)), &world.client).await;
        assert!(matches!(answer, Err(Error::InvalidCode)), "{purpose}");
    }
    let answer = world.users.passwords().set_with_code(set(&code, OTHER, None), &world.client).await.unwrap();
    assert!(matches!(answer, PasswordSet::SignedIn(_)));
}

#[tokio::test]
async fn setting_a_password_ends_every_session_and_voids_every_code_and_link() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let before = world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    world.users.passwords().forgot(ANA, &world.client).await.unwrap();
    world.deliver().await;
    let link = world.mailbox.last_link(ANA).unwrap();
    let code = request(&world, CodePurpose::ResetPassword).await.unwrap();
    world.users.passwords().set_with_code(set(&code, OTHER, None), &world.client).await.unwrap();
    let answer = world.users.sessions().authenticate(&before.access_token).await;
    assert!(matches!(answer, Err(Error::SessionEnded)));
    let token = link.split_once("#token=").unwrap().1.into();
    let password = Password::new("a third good password");
    let answer = world.users.passwords().reset(&token, &password, &password, &world.client).await;
    assert!(matches!(answer, Err(Error::InvalidLink)));
    world.deliver().await;
    assert!(world.mailbox.last(ANA).unwrap().text.len() > 20, "a notice came");
}

#[tokio::test]
async fn a_weak_password_spends_no_code() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let code = request(&world, CodePurpose::ResetPassword).await.unwrap();
    for weak in ["short", "password1", ANA] {
        let answer = world.users.passwords().set_with_code(set(&code, weak, None), &world.client).await;
        assert!(matches!(answer, Err(Error::Invalid(_))), "{weak}");
    }
    world.users.passwords().set_with_code(set(&code, OTHER, None), &world.client).await.unwrap();
}

#[tokio::test]
async fn whom_a_code_may_be_sent_to_depends_on_its_purpose() {
    let world = World::new();
    assert!(request(&world, CodePurpose::ResetPassword).await.is_none(), "nobody");
    world.users.users().create(Principal::Operator, CreateUser::new(ANA), &world.client).await.unwrap();
    world.deliver().await;
    let invited = world.mailbox.last_code(ANA).unwrap();
    let set = set(&invited, PASSWORD, Some(CodePurpose::FirstTimeSetup));
    world.users.passwords().set_with_code(set, &world.client).await.unwrap();
    world.deliver().await;
    assert!(request(&world, CodePurpose::FirstTimeSetup).await.is_none(), "the password is set");
    assert!(request(&world, CodePurpose::EmailVerification).await.is_none(), "the address is proven");
}

#[tokio::test]
async fn change_password_codes_are_for_their_signed_in_owner() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let signed_in = world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    let caller = world.users.sessions().authenticate(&signed_in.access_token).await.unwrap();
    let passwords = world.users.passwords();
    let purpose = CodePurpose::ChangePassword;
    assert!(matches!(
        passwords.request_code(ANA, purpose, None, &world.client).await,
        Err(Error::MissingToken)
    ));
    let answer = passwords.request_code("bob@example.org", purpose, Some(&caller), &world.client).await;
    assert!(matches!(answer, Err(Error::Forbidden)));
    passwords.request_code(ANA, purpose, Some(&caller), &world.client).await.unwrap();
    let answer = passwords.request_code(ANA, CodePurpose::ChangeEmail, Some(&caller), &world.client).await;
    assert!(matches!(answer, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn signing_in_after_setting_a_password_can_be_switched_off() {
    let world = World::with(|policies| policies.passwords.sign_in_after_set = false);
    world.user(ANA, PASSWORD).await;
    let code = request(&world, CodePurpose::ResetPassword).await.unwrap();
    let answer = world.users.passwords().set_with_code(set(&code, OTHER, None), &world.client).await.unwrap();
    assert!(matches!(answer, PasswordSet::Set(_)));
}
