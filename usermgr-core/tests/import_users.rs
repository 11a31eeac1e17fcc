//! Users of another system, and passwords that the operator sets.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use support::{ANA, OTHER, PASSWORD, World};
use time::Duration;
use usermgr_core::domain::audit::{AuditEvent, AuditOutcome};
use usermgr_core::domain::id::UserId;
use usermgr_core::domain::password::PasswordHash;
use usermgr_core::flow::import_users::{ImportOutcome, ImportUser};
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::update_user::UpdateUser;
use usermgr_core::flow::users::CreateUser;
use usermgr_core::port::clock::Clock as _;
use usermgr_core::port::store::audit::AuditQuery;
use usermgr_core::{Error, Password, User};

/// Of `correct horse battery staple`.
const BCRYPT: &str = "$2y$04$YOnCeXQ9b7Ns58omDVBxcu3sltJlTkQQXAxMnqi/jchrpDW7peCDK";
const STAPLE: &str = "correct horse battery staple";

fn with(email: &str, change: impl FnOnce(&mut ImportUser)) -> ImportUser {
    let mut user = ImportUser::new(email);
    change(&mut user);
    user
}

async fn import(world: &World, users: Vec<ImportUser>) -> Vec<ImportOutcome> {
    world.users.users().import(users, &world.client).await.unwrap()
}

async fn of(world: &World, email: &str) -> User {
    world.users.users().by_email(email).await.unwrap()
}

#[tokio::test]
async fn an_imported_user_signs_in_with_the_old_password() {
    let world = World::new();
    let created_at = world.clock.now() - Duration::days(900);
    let user = with(ANA, |user| {
        user.username = Some("Ana".into());
        user.locale = Some("es".into());
        user.roles = vec!["admin".into()];
        user.password = Some(PasswordHash::new(BCRYPT));
        user.created_at = Some(created_at);
    });
    let outcomes = import(&world, vec![user.clone()]).await;
    let [ImportOutcome::Added(id)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    let found = of(&world, ANA).await;
    assert_eq!((found.id, found.created_at), (*id, created_at));
    assert!(found.email_verified());
    assert_eq!(found.roles.iter().map(ToString::to_string).collect::<Vec<_>>(), ["admin", "user"]);
    assert!(id < &UserId::first_of(created_at + Duration::seconds(1)), "lists are in order of creation");
    assert!(!world.signs_in(ANA, PASSWORD).await);
    assert!(world.signs_in(ANA, STAPLE).await);
    assert!(world.signs_in(ANA, STAPLE).await, "also with the hash that took its place");

    assert_eq!(import(&world, vec![user]).await, [ImportOutcome::Exists]);
    let query = AuditQuery { event: Some(AuditEvent::UserImport), ..AuditQuery::default() };
    let audit = world.users.users().audit(Principal::Operator, query, &world.client).await.unwrap();
    assert_eq!(audit.items.len(), 1);
    assert_eq!((audit.items[0].subject, audit.items[0].outcome), (Some(*id), AuditOutcome::Done));
}

#[tokio::test]
async fn a_bad_row_is_refused_and_keeps_no_other_out() {
    let world = World::new();
    let future = world.clock.now() + Duration::seconds(1);
    let nil = "00000000-0000-0000-0000-000000000000".parse().unwrap();
    let rows = [
        (with("no address", |_| {}), "invalid_email"),
        (with("a@example.org", |u| u.password = Some(PasswordHash::new("md5"))), "unsupported_password_hash"),
        (with("b@example.org", |u| u.roles = vec!["nosuch".into()]), "unknown_role"),
        (with("c@example.org", |u| u.roles = vec!["No such".into()]), "invalid_role"),
        (with("d@example.org", |u| u.username = Some("\u{7}".into())), "invalid_username"),
        (with("e@example.org", |u| u.locale = Some("in Spanish".into())), "invalid_locale"),
        (with("f@example.org", |u| u.status = Some("locked".into())), "invalid_status"),
        (with("g@example.org", |u| u.id = Some(nil)), "invalid_id"),
        (with("h@example.org", |u| u.created_at = Some(future)), "invalid_created_at"),
        (with(ANA, |u| u.status = Some("disabled".into())), "added"),
        (with("ANA@example.org", |_| {}), "exists"),
    ];
    let (users, expected): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    for (user, expected) in users.iter().zip(&expected) {
        let checked = world.users.users().check(user);
        assert_eq!(checked.map_or_else(|refusal| refusal.as_str(), |()| "fine") == "fine", {
            ["added", "exists"].contains(expected)
        });
    }
    let outcomes = import(&world, users).await;
    let told: Vec<&str> = outcomes
        .iter()
        .map(|outcome| match outcome {
            ImportOutcome::Added(_) => "added",
            ImportOutcome::Exists => "exists",
            ImportOutcome::Refused(refusal) => refusal.as_str(),
        })
        .collect();
    assert_eq!(told, expected);
    assert_eq!(of(&world, ANA).await.status.as_str(), "disabled");
}

#[tokio::test]
async fn our_own_hashes_are_taken_and_hashes_are_never_shown() {
    let ours =
        "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$5l9gH0yPBeYlWkqzSvZbPXOJPZAXl2bQxPKPBpLtGbE";
    let world = World::new();
    let user = with(ANA, |user| user.password = Some(PasswordHash::new(ours)));
    assert!(!format!("{user:?}").contains("argon2id"));
    assert!(matches!(import(&world, vec![user]).await.as_slice(), [ImportOutcome::Added(_)]));
    let refused = with("b@example.org", |user| user.password = Some(PasswordHash::new("$2x$04$secret")));
    let refusal = world.users.users().check(&refused).unwrap_err();
    assert_eq!(refusal.to_string(), "unsupported password hash: unknown format");
}

#[tokio::test]
async fn the_operator_sets_a_password_also_the_first_one() {
    let world = World::new();
    let users = world.users.users();
    let ana = world.user(ANA, PASSWORD).await;
    let signed_in = world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    let weak = users.set_password(ana.id, &Password::new("password"), &world.client).await;
    assert!(matches!(weak, Err(Error::Invalid(_))));
    users.set_password(ana.id, &Password::new(OTHER), &world.client).await.unwrap();
    let session = world.users.sessions().authenticate(&signed_in.access_token).await;
    assert!(matches!(session, Err(Error::SessionEnded)));
    let mails = world.mailbox.mails().len();
    world.deliver().await;
    assert_eq!(world.mailbox.mails().len(), mails + 1, "a notice");
    assert!(world.signs_in(ANA, OTHER).await);

    let bob = CreateUser::new("bob@example.org");
    let bob = users.create(Principal::Operator, bob, &world.client).await.unwrap();
    users.set_password(bob.id, &Password::new(PASSWORD), &world.client).await.unwrap();
    assert!(world.signs_in("bob@example.org", PASSWORD).await);
    world.deliver().await;
    assert!(world.mailbox.last_code("bob@example.org").is_none(), "the invitation is void");

    let disable = UpdateUser { status: Some("disabled".parse().unwrap()), ..UpdateUser::default() };
    users.update(Principal::Operator, bob.id, disable, &world.client).await.unwrap();
    let refused = users.set_password(bob.id, &Password::new(OTHER), &world.client).await;
    assert!(matches!(refused, Err(Error::NotFound)));
    users.delete(Principal::Operator, bob.id, &world.client).await.unwrap();
    let refused = users.set_password(bob.id, &Password::new(OTHER), &world.client).await;
    assert!(matches!(refused, Err(Error::NotFound)));
}
