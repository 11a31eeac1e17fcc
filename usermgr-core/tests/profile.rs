//! Profiles: what is kept of a user goes through the host's type.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::{ANA, PASSWORD, World};
use usermgr_core::domain::json::JsonObject;
use usermgr_core::flow::import_users::{ImportOutcome, ImportUser};
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::register::Register;
use usermgr_core::flow::sessions::Authenticated;
use usermgr_core::flow::update_user::UpdateUser;
use usermgr_core::flow::users::CreateUser;
use usermgr_core::flow::verify_email::Verify;
use usermgr_core::port::store::account::AccountStore as _;
use usermgr_core::port::store::audit::{AuditQuery, AuditStore as _};
use usermgr_core::port::store::event::{EventFeed, EventQuery, EventStore as _};
use usermgr_core::{Error, Password, User};

#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Shop {
    plan: Plan,
    #[serde(default)]
    seats: u8,
}

#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Plan {
    Free,
    Paid,
}

/// A type that does not read what the other wrote.
#[derive(Debug, Deserialize)]
struct Other {
    #[expect(dead_code, reason = "read and not looked at")]
    plan: u8,
}

fn world() -> World {
    World::built(|_| {}, usermgr_core::UserManagerBuilder::profile::<Shop>)
}

fn object(value: &Value) -> JsonObject {
    JsonObject::of(value).unwrap()
}

fn register(profile: &Value) -> Register {
    Register { profile: Some(object(profile)), ..Register::new(ANA, PASSWORD) }
}

async fn user(world: &World, profile: &Value) -> User {
    world.users.registration().register(register(profile), &world.client).await.unwrap();
    world.deliver().await;
    let code = world.mailbox.last_code(ANA).unwrap();
    world.users.registration().verify(Verify::new(ANA, code), &world.client).await.unwrap()
}

async fn caller(world: &World) -> Authenticated {
    let signed_in = world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    world.users.sessions().authenticate(&signed_in.access_token).await.unwrap()
}

fn fields(error: Error) -> Vec<String> {
    let Error::Invalid(faults) = error else { panic!("{error:?}") };
    faults.into_iter().map(|fault| format!("{}/{}", fault.field, fault.fault.as_str())).collect()
}

fn change(profile: Option<&Value>) -> UpdateUser {
    UpdateUser { profile: Some(profile.map(object)), ..UpdateUser::default() }
}

#[tokio::test]
async fn what_is_kept_is_what_the_type_wrote_and_it_reads_it_again() {
    let world = world();
    let user = user(&world, &json!({ "plan": "free" })).await;
    assert_eq!(user.profile.as_ref().unwrap().as_str(), r#"{"plan":"free","seats":0}"#);
    assert_eq!(user.profile::<Shop>().unwrap(), Some(Shop { plan: Plan::Free, seats: 0 }));
    let signed_in = caller(&world).await.user;
    assert_eq!(signed_in.profile, user.profile);
    assert_eq!(user.profile::<Other>().unwrap_err().at, "plan");
}

#[tokio::test]
async fn a_wrong_profile_names_its_field_and_changes_nothing() {
    let world = world();
    let id = user(&world, &json!({ "plan": "free" })).await.id;
    let caller = caller(&world).await;
    let before = world.store.user(id).await.unwrap();
    for (profile, expected) in [
        (json!({}), "profile.plan/required"),
        (json!({ "plan": "gold" }), "profile.plan/invalid"),
        (json!({ "plan": "paid", "seats": 300 }), "profile.seats/invalid"),
        (json!({ "plan": "paid", "seats": "2" }), "profile.seats/invalid_type"),
        (json!({ "plan": "paid", "roles": ["admin"] }), "profile.roles/unknown"),
        (json!({ "plan": "x".repeat(JsonObject::MAX_BYTES) }), "profile/too_large"),
    ] {
        let (users, client) = (&world.users, &world.client);
        let request = Register { email: "eva@example.org".into(), ..register(&profile) };
        let errors = [
            users.registration().register(request, client).await.map(drop),
            users.account().update(&caller, change(Some(&profile)), client).await.map(drop),
            users.users().update(Principal::Operator, id, change(Some(&profile)), client).await.map(drop),
            users
                .users()
                .create(
                    Principal::Operator,
                    CreateUser { profile: Some(object(&profile)), ..CreateUser::new("eva@example.org") },
                    client,
                )
                .await
                .map(drop),
        ];
        for error in errors {
            assert_eq!(fields(error.unwrap_err()), [expected], "{profile}");
        }
    }
    assert_eq!(world.store.user(id).await.unwrap(), before);
    world.deliver().await;
    assert!(world.mailbox.last("eva@example.org").is_none());
}

#[tokio::test]
async fn without_a_type_there_is_no_such_field() {
    let world = World::new();
    let error = world.users.registration().register(register(&json!({})), &world.client).await.unwrap_err();
    assert_eq!(fields(error), ["profile/unknown"]);
    let user = world.user(ANA, PASSWORD).await;
    assert_eq!(user.profile::<Shop>().unwrap(), None);
    let caller = caller(&world).await;
    let error =
        world.users.account().update(&caller, change(Some(&json!({}))), &world.client).await.unwrap_err();
    assert_eq!(fields(error), ["profile/unknown"]);
    let mut import = ImportUser::new("eva@example.org");
    import.profile = Some(object(&json!({})));
    let outcomes = world.users.users().import(vec![import], &world.client).await.unwrap();
    let ImportOutcome::Refused(refusal) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!(refusal.as_str(), "invalid_profile");
}

#[tokio::test]
async fn an_update_replaces_the_whole_and_tells_nobody_what_is_in_it() {
    let world = world();
    user(&world, &json!({ "plan": "paid", "seats": 77 })).await;
    let caller = caller(&world).await;
    let account = world.users.account();
    let updated = account.update(&caller, change(Some(&json!({ "plan": "free" }))), &world.client).await;
    assert_eq!(updated.unwrap().profile::<Shop>().unwrap(), Some(Shop { plan: Plan::Free, seats: 0 }));
    let named = UpdateUser { username: Some(Some("Ana".into())), ..UpdateUser::default() };
    let updated = account.update(&caller, named, &world.client).await.unwrap();
    assert!(updated.profile.is_some(), "what is not sent stays");
    let held = account.export(&caller, &world.client).await.unwrap();
    assert_eq!(held.user.profile, caller.user.profile);

    let EventFeed::Page { events, .. } = world.store.events(EventQuery::default()).await.unwrap() else {
        panic!("a gap")
    };
    let audit = world.store.audit(AuditQuery::default()).await.unwrap().items;
    let told = format!("{} {audit:?} {updated:?} {caller:?}", serde_json::to_string(&events).unwrap());
    assert!(told.contains("user_updated") && !told.contains("plan") && !told.contains("paid"), "{told}");

    let updated = account.update(&caller, change(None), &world.client).await.unwrap();
    assert_eq!(updated.profile, None);
}

#[tokio::test]
async fn tokens_and_values_do_not_show_a_profile() {
    use base64::Engine as _;

    let world = world();
    user(&world, &json!({ "plan": "paid" })).await;
    let signed_in = world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    let claims = signed_in.access_token.expose().split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
    let shown = format!(
        "{} {signed_in:?} {:?} {:?}",
        String::from_utf8(claims).unwrap(),
        register(&json!({ "plan": "paid" })),
        change(Some(&json!({ "plan": "paid" })))
    );
    assert!(!shown.contains("paid"), "{shown}");
}
