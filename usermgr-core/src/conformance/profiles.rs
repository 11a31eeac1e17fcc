//! Laws of profiles: whose a profile is, and what becomes of it.

use std::sync::Arc;

use super::StoreHarness;
use super::build::{
    NOW, acting, admin, all_events, create, email, entries, events, guess, later, open, profile, read,
    register, right, set_password, update, user, user_with,
};
use super::records::{TEXTS, long};
use crate::domain::code::CodePurpose;
use crate::domain::id::UserId;
use crate::domain::json::JsonObject;
use crate::domain::password::PasswordVersion;
use crate::domain::profile::Profile;
use crate::domain::user::{User, UserStatus, Username};
use crate::port::store::Store;
use crate::port::store::account::{
    CredentialsQuery, RolesChange, UserChange, UserCreated, UserQuery, UserUpdated,
};
use crate::port::store::code::Redeemed;
use crate::port::store::session::{SessionKey, SessionOpened, SessionQuery};

const ANA: &str = "ana@example.org";
const BOB: &str = "bob@example.org";

fn changed(profile: Option<Profile>) -> UserChange {
    UserChange { profile: Some(profile), ..UserChange::default() }
}

async fn kept(store: &Arc<dyn Store>, id: UserId) -> Option<String> {
    read(store, id).await.unwrap().profile.map(|profile| profile.as_str().to_owned())
}

/// Of registrations side by side, the one that is verified brings its own profile, whichever came last, and also when its
/// code sets another password.
pub async fn a_registration_becomes_a_user_with_its_own_profile(harness: &dyn StoreHarness) {
    let texts = [Some(r#"{"plan":"first"}"#), None, Some(r#"{"plan":"last"}"#)];
    for verified in 0..texts.len() {
        for password in [None, Some("set")] {
            let store = harness.fresh().await;
            let mut codes = Vec::new();
            for text in texts {
                let mut command = register(ANA, NOW);
                command.profile = text.map(profile);
                codes.push(command.code.id);
                store.register(command).await.unwrap();
            }
            let mut command = match password {
                None => right(ANA, codes[verified], NOW),
                Some(hash) => {
                    let effect = set_password(hash, None);
                    let hit = Some(codes[verified]);
                    guess(ANA, CodePurpose::EmailVerification, &codes, hit, effect, NOW)
                }
            };
            command.settled = true;
            let redeemed = store.redeem(command).await.unwrap();
            let Redeemed::Redeemed(user) = redeemed else { panic!("{redeemed:?}") };
            assert_eq!(user.profile, texts[verified].map(profile));
            assert_eq!(kept(&store, user.id).await.as_deref(), texts[verified]);
        }
    }
}

/// A profile is set, replaced as a whole and removed; other changes leave it. An event tells that the user was changed, and
/// neither it nor the audit log tells to what.
pub async fn a_profile_is_replaced_whole(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, bob) = (user(&store, ANA).await.id, user(&store, BOB).await);
    assert_eq!(kept(&store, ana).await, None);
    let (first, second) = (r#"{"plan":"canary","since":1}"#, r#"{"seats":2}"#);
    let other = UserChange {
        username: Some(Some(Username::parse("Ana").unwrap())),
        status: Some(UserStatus::Disabled),
        roles: Some(RolesChange::Grant("support".parse().unwrap())),
        ..UserChange::default()
    };
    let steps: [(UserChange, Option<&str>, bool); 6] = [
        (changed(Some(profile(first))), Some(first), true),
        (changed(Some(profile(first))), Some(first), false),
        (changed(Some(profile(second))), Some(second), true),
        (other, Some(second), true),
        (changed(None), None, true),
        (changed(None), None, false),
    ];
    let mut changed_at = NOW;
    for (n, (change, expected, told)) in (1..).zip(steps) {
        let before = events(&store).await.len();
        let mut command = update(ana, change, later(n));
        command.events = all_events();
        let outcome = store.update_user(command).await.unwrap();
        let UserUpdated::Updated(user) = outcome else { panic!("{outcome:?}") };
        assert_eq!(user.profile.as_ref().map(Profile::as_str), expected, "step {n}");
        assert_eq!(kept(&store, ana).await.as_deref(), expected, "step {n}");
        changed_at = if told { later(n) } else { changed_at };
        assert_eq!(user.updated_at, changed_at, "step {n}");
        let told_of = events(&store).await.split_off(before).contains(&"user_updated".to_owned());
        assert_eq!(told_of, told, "step {n}");
    }
    let audited = entries(&store).await;
    assert_eq!(audited.len(), 2 + 4, "each that changes something is audited");
    assert!(!format!("{audited:?}").contains("canary"), "{audited:?}");
    assert_eq!(read(&store, bob.id).await, Some(bob), "nobody else was changed");
}

/// Who may not change a user, or would bring the last administrator down on the way, changes no profile.
pub async fn a_refused_change_of_a_profile_changes_nothing(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let last = admin(&store, ANA).await;
    let support = user_with(&store, BOB, &["support"]).await;
    let before = r#"{"plan":"free"}"#;
    store.update_user(update(last.id, changed(Some(profile(before))), later(1))).await.unwrap();
    let change = changed(Some(profile(r#"{"plan":"paid"}"#)));

    let mut beyond = update(last.id, change.clone(), later(2));
    beyond.by = Some(acting(&support, &["admin"]));
    assert_eq!(store.update_user(beyond).await.unwrap(), UserUpdated::NotPermitted);
    let disabled = UserChange { status: Some(UserStatus::Disabled), ..change };
    assert_eq!(store.update_user(update(last.id, disabled, later(3))).await.unwrap(), UserUpdated::LastAdmin);
    assert_eq!(kept(&store, last.id).await.as_deref(), Some(before));
}

/// A profile comes back letter by letter, by every way that a user is read, and however long it is.
pub async fn a_profile_comes_back_as_it_went_in(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let mut texts: Vec<String> =
        TEXTS.iter().map(|text| serde_json::json!({ *text: [text, null, {}] }).to_string()).collect();
    texts.extend([
        "{}".into(),
        r#"{"nul":"\u0000","big":18446744073709551615,"exact":1.50,"tiny":5e-324,"b":1,"a":2}"#.into(),
        serde_json::json!({ "long": long("ñandú", JsonObject::MAX_BYTES - 11) }).to_string(),
    ]);
    for (n, text) in texts.iter().enumerate() {
        let address = format!("u{n}@example.org");
        let mut command = create(&address, NOW);
        command.profile = Some(profile(text));
        let created = store.create_user(command).await.unwrap();
        let UserCreated::Created(user) = created else { panic!("{created:?}") };
        let opening = open(&user, PasswordVersion::FIRST, NOW);
        let (key, query) = (
            SessionKey::Id(opening.session.id),
            UserQuery { prefix: Some(address.clone()), ..UserQuery::default() },
        );
        let opened = store.open_session(opening).await.unwrap();
        let SessionOpened::Opened(signed_in) = opened else { panic!("{opened:?}") };
        let credentials = CredentialsQuery { now: NOW, email: email(&address).key().clone(), guard: None };
        let found: [User; 6] = [
            *user.clone(),
            *signed_in,
            read(&store, user.id).await.unwrap(),
            store.users(query).await.unwrap().items.remove(0),
            store.credentials(credentials).await.unwrap().user.unwrap().user,
            store.session(SessionQuery { now: NOW, key }).await.unwrap().unwrap().user,
        ];
        for found in found {
            assert_eq!(found.profile.as_ref().map(Profile::as_str), Some(text.as_str()));
        }
    }
}
