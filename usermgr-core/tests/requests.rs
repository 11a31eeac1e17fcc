//! Every request is made of what it needs, and of setters for the rest.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use time::Duration;
use usermgr_core::domain::id::UserId;
use usermgr_core::domain::role::Role;
use usermgr_core::domain::user::UserStatus;
use usermgr_core::flow::change_password::ChangePassword;
use usermgr_core::flow::import_users::{ImportOutcome, ImportUser};
use usermgr_core::flow::permission::Principal::Operator;
use usermgr_core::flow::register::Register;
use usermgr_core::flow::set_password::{PasswordSet, SetWithCode};
use usermgr_core::flow::update_user::UpdateUser;
use usermgr_core::flow::users::CreateUser;
use usermgr_core::flow::verify_email::{Activate, Verify};
use usermgr_core::testing::TestAuth;
use usermgr_core::{ClientContext, CodePurpose, Email, Error, Password, User};

const ANA: &str = "ana@example.org";
const BOB: &str = "bob@example.org";
const PASSWORD: &str = "correct horse battery";
const OTHER: &str = "another fine password";

fn client() -> ClientContext {
    ClientContext::new().with_ip("192.0.2.1".parse().unwrap()).with_user_agent("test").with_request_id("r-1")
}

async fn code(auth: &TestAuth, address: &str) -> String {
    auth.last_code(address).await.unwrap()
}

fn name(user: &User) -> &str {
    user.username.as_ref().unwrap().as_str()
}

#[tokio::test]
async fn a_registration_is_verified_by_its_token_or_its_password() {
    let (auth, client) = (TestAuth::new(), client());
    let registration = auth.users().registration();
    let typo = Register::new(ANA, PASSWORD).with_confirmation(OTHER);
    assert!(matches!(registration.register(typo, &client).await, Err(Error::Invalid(_))));
    let request =
        Register::new(ANA, PASSWORD).with_confirmation(PASSWORD).with_username("Ana").with_locale("es");
    let accepted = registration.register(request, &client).await.unwrap();
    let spanish = auth.mailbox();
    let ana_code = code(&auth, ANA).await;
    assert!(spanish.last(ANA).unwrap().subject.contains("digo"), "{}", spanish.last(ANA).unwrap().subject);
    let wrong = Verify::new(ANA, ana_code.as_str()).with_password(OTHER);
    assert!(matches!(registration.verify(wrong, &client).await, Err(Error::InvalidCode)));
    let right = Verify::new(ANA, ana_code).with_registration(accepted.registration).with_password(PASSWORD);
    assert_eq!(name(&registration.verify(right, &client).await.unwrap()), "Ana");

    registration.register(Register::new(BOB, PASSWORD), &client).await.unwrap();
    let bob_code = code(&auth, BOB).await;
    let user = registration.activate(Activate::new(BOB, PASSWORD, bob_code), &client).await.unwrap();
    assert!(user.email_verified());
}

#[tokio::test]
async fn passwords_are_set_and_changed() {
    let (auth, client) = (TestAuth::new(), client());
    let (users, passwords) = (auth.users(), auth.users().passwords());
    let create = CreateUser::new(ANA)
        .with_password(PASSWORD)
        .with_username("Ana")
        .with_locale("es")
        .with_roles([Role::admin()]);
    let ana = users.users().create(Operator, create, &client).await.unwrap();
    assert!(ana.email_verified() && ana.roles.contains(&Role::admin()) && name(&ana) == "Ana");

    passwords.request_code(ANA, CodePurpose::ResetPassword, None, &client).await.unwrap();
    let request =
        SetWithCode::new(ANA, code(&auth, ANA).await, OTHER).with_purpose(CodePurpose::ResetPassword);
    let typo = request.clone().with_confirmation(PASSWORD);
    assert!(matches!(passwords.set_with_code(typo, &client).await, Err(Error::Invalid(_))));
    let PasswordSet::SignedIn(signed_in) = passwords.set_with_code(request, &client).await.unwrap() else {
        unreachable!("the policy signs in")
    };
    let caller = users.sessions().authenticate(&signed_in.access_token).await.unwrap();
    assert_eq!(caller.session.ip, client.ip);

    let typo = ChangePassword::new(OTHER, PASSWORD).with_confirmation(OTHER);
    assert!(matches!(passwords.change(&caller, typo, &client).await, Err(Error::Invalid(_))));
    passwords.change(&caller, ChangePassword::new(OTHER, PASSWORD), &client).await.unwrap();
    assert!(users.sessions().login(ANA, &Password::new(PASSWORD), &client).await.is_ok());
}

#[tokio::test]
async fn what_is_not_set_stays() {
    let (auth, client) = (TestAuth::new(), client());
    let users = auth.users().users();
    let id = UserId::new(
        time::macros::datetime!(2020-01-01 0:00 UTC),
        &usermgr_core::testing::TestRandom::default(),
    );
    let born = time::macros::datetime!(2020-01-01 0:00 UTC);
    let bob = ImportUser::new(BOB)
        .with_id(id)
        .unverified()
        .with_username("Bob")
        .with_locale("es")
        .with_roles(["admin".to_owned()])
        .with_status("disabled")
        .with_created_at(born);
    assert_eq!(users.import(vec![bob], &client).await.unwrap(), [ImportOutcome::Added(id)]);
    let change = UpdateUser::new().with_status(UserStatus::Active);
    let bob = users.update(Operator, id, change, &client).await.unwrap();
    assert_eq!((name(&bob), bob.status, bob.created_at), ("Bob", UserStatus::Active, born));
    assert!(!bob.email_verified() && bob.email == Email::parse(BOB).unwrap());
    auth.clock().advance(Duration::minutes(1));
    let change = UpdateUser::new().with_username(None).with_locale(Some("en".to_owned()));
    let bob = users.update(Operator, id, change, &client).await.unwrap();
    assert!(bob.username.is_none() && bob.locale.unwrap().as_str() == "en");
}
