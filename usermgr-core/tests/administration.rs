//! Who may do what to whom: roles, their reach, and what is refused.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeSet;

use support::{ANA, PASSWORD, World};
use usermgr_core::domain::role::{Permission, Role, Roles};
use usermgr_core::domain::user::UserStatus;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::sessions::Authenticated;
use usermgr_core::flow::update_user::UpdateUser;
use usermgr_core::flow::users::CreateUser;
use usermgr_core::port::store::account::{RolesChange, UserQuery};
use usermgr_core::port::store::audit::AuditQuery;
use usermgr_core::{Error, Password, User};

const DESK: &str = "desk";
const BOSS: &str = "boss";

fn role(name: &str) -> Role {
    name.parse().unwrap()
}

/// With a desk that looks after users, and a boss who may give roles too.
fn world() -> World {
    World::with(|policies| {
        let desk = BTreeSet::from([Permission::USERS_READ, Permission::USERS_WRITE]);
        let more = [Permission::ROLES_ASSIGN, Permission::USERS_DELETE];
        policies.roles.defined.insert(role(BOSS), desk.iter().cloned().chain(more).collect());
        policies.roles.defined.insert(role(DESK), desk);
    })
}

async fn user(world: &World, email: &str, roles: &[&str]) -> User {
    let roles = roles.iter().map(|name| role(name)).collect();
    let request = CreateUser { roles, password: Some(Password::new(PASSWORD)), ..CreateUser::new(email) };
    world.users.users().create(Principal::Operator, request, &world.client).await.unwrap()
}

async fn caller(world: &World, email: &str) -> Authenticated {
    let sessions = world.users.sessions();
    let signed_in = sessions.login(email, &Password::new(PASSWORD), &world.client).await.unwrap();
    sessions.authenticate(&signed_in.access_token).await.unwrap()
}

fn disable() -> UpdateUser {
    UpdateUser { status: Some(UserStatus::Disabled), ..UpdateUser::default() }
}

#[tokio::test]
async fn nobody_reaches_above_themselves() {
    let world = world();
    let (admin, ana) = (user(&world, "admin@example.org", &["admin"]).await, user(&world, ANA, &[]).await);
    let other_boss = user(&world, "other@example.org", &[BOSS]).await;
    user(&world, "desk@example.org", &[DESK]).await;
    user(&world, "boss@example.org", &[BOSS]).await;
    let (desk, boss) = (caller(&world, "desk@example.org").await, caller(&world, "boss@example.org").await);
    let users = world.users.users();
    let (client, by_desk, by_boss) = (&world.client, Principal::from(&desk), Principal::from(&boss));

    for (by, id) in [(by_desk, admin.id), (by_desk, other_boss.id), (by_boss, admin.id)] {
        let refused = users.update(by, id, disable(), client).await;
        assert!(matches!(refused, Err(Error::Forbidden)), "{refused:?}");
        let refused = users.end_sessions(by, id, client).await;
        assert!(matches!(refused, Err(Error::Forbidden)), "{refused:?}");
    }
    assert!(matches!(users.delete(by_boss, admin.id, client).await, Err(Error::Forbidden)));
    assert!(matches!(users.delete(by_desk, ana.id, client).await, Err(Error::Forbidden)));
    let give = |by, id, name| users.change_roles(by, id, RolesChange::Grant(role(name)), None, client);
    assert!(matches!(give(by_desk, ana.id, DESK).await, Err(Error::Forbidden)));
    assert!(matches!(give(by_boss, ana.id, "admin").await, Err(Error::Forbidden)));
    assert!(matches!(give(by_boss, boss.user.id, "admin").await, Err(Error::Forbidden)), "nor to oneself");
    assert!(matches!(give(by_boss, ana.id, "emperor").await, Err(Error::Invalid(_))));
    assert_eq!(give(by_boss, ana.id, DESK).await.unwrap().roles, Roles::from([role(DESK), Role::user()]));
    let take = users.change_roles(by_boss, ana.id, RolesChange::Revoke(role(DESK)), None, client);
    assert_eq!(take.await.unwrap().roles, Roles::from([Role::user()]));
    let invite = |by, name: &str| {
        let email = format!("{name}.new@example.org");
        let roles = Roles::from([role(name)]);
        users.create(by, CreateUser { roles, ..CreateUser::new(email) }, client)
    };
    assert!(matches!(invite(by_desk, DESK).await, Err(Error::Forbidden)), "an invitation gives roles too");
    assert!(matches!(invite(by_boss, "admin").await, Err(Error::Forbidden)));
    assert!(invite(by_boss, DESK).await.is_ok());
    assert_eq!(users.update(by_desk, ana.id, disable(), client).await.unwrap().status, UserStatus::Disabled);
    users.delete(by_boss, ana.id, client).await.unwrap();

    let page = users.audit(Principal::Operator, AuditQuery::default(), client).await.unwrap();
    let refused = page.items.iter().filter(|entry| entry.reason.as_deref() == Some("forbidden"));
    assert!(refused.clone().count() >= 12 && refused.clone().all(|entry| entry.actor.is_some()));
}

#[tokio::test]
async fn a_host_asks_for_permissions_of_its_own() {
    let publish: Permission = "articles:publish".parse().unwrap();
    let world = World::with(|policies| {
        policies.roles.defined.insert(role("editor"), BTreeSet::from([publish.clone()]));
    });
    user(&world, "admin@example.org", &["admin"]).await;
    let editor = user(&world, "editor@example.org", &["editor"]).await;
    user(&world, ANA, &[]).await;
    for (email, may) in [("admin@example.org", true), ("editor@example.org", true), (ANA, false)] {
        let caller = caller(&world, email).await;
        let asked = world.users.require(&caller, &publish, &world.client).await;
        assert_eq!(asked.is_ok(), may, "{email}");
        assert!(may || matches!(asked, Err(Error::Forbidden)));
    }
    // The store decides, not what a token says.
    let sessions = world.users.sessions();
    let token = sessions.login("editor@example.org", &Password::new(PASSWORD), &world.client).await.unwrap();
    let revoke = RolesChange::Revoke(role("editor"));
    let users = world.users.users();
    users.change_roles(Principal::Operator, editor.id, revoke, None, &world.client).await.unwrap();
    let caller = sessions.authenticate(&token.access_token).await.unwrap();
    assert!(matches!(world.users.require(&caller, &publish, &world.client).await, Err(Error::Forbidden)));
}

#[tokio::test]
async fn a_caller_who_was_demoted_meanwhile_is_refused_by_the_store() {
    let world = world();
    user(&world, "admin@example.org", &["admin"]).await;
    let ana = user(&world, ANA, &[]).await;
    let second = user(&world, "second@example.org", &["admin"]).await;
    let stale = caller(&world, "second@example.org").await;
    let users = world.users.users();
    let demote = RolesChange::Set(Roles::new());
    users.change_roles(Principal::Operator, second.id, demote, None, &world.client).await.unwrap();
    let refused = users.update(Principal::User(&stale), ana.id, disable(), &world.client).await;
    assert!(matches!(refused, Err(Error::Forbidden)), "{refused:?}");
    let list = users.list(Principal::User(&stale), UserQuery::default(), &world.client).await;
    assert!(list.is_ok(), "a read goes by what the caller was a moment ago");
}

#[tokio::test]
async fn giving_roles_needs_a_recent_sign_in() {
    let world = world();
    user(&world, "admin@example.org", &["admin"]).await;
    let ana = user(&world, ANA, &[]).await;
    let admin = caller(&world, "admin@example.org").await;
    let give = |password: Option<&str>| {
        let password = password.map(Password::new);
        let (users, world, admin) = (world.users.users(), &world, &admin);
        async move {
            let grant = RolesChange::Grant(role(DESK));
            users.change_roles(Principal::User(admin), ana.id, grant, password.as_ref(), &world.client).await
        }
    };
    world.clock.advance(time::Duration::minutes(15));
    assert!(give(None).await.is_ok());
    world.clock.advance(time::Duration::SECOND);
    assert!(matches!(give(None).await, Err(Error::ReauthenticationRequired { .. })));
    assert!(matches!(give(Some("wrong password")).await, Err(Error::InvalidCredentials)));
    assert!(give(Some(PASSWORD)).await.is_ok());
}
