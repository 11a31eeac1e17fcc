//! Laws of changing and deleting users, and of who may.

use std::collections::BTreeSet;
use std::sync::Arc;

use time::OffsetDateTime;

use super::StoreHarness;
use super::build::{
    NOW, all_events, audit, audited, candidates, create, end, entries, events, holds, later, mail, open,
    owed, register, request, user, user_id,
};
use super::races::at_once;
use crate::domain::audit::AuditEvent;
use crate::domain::code::CodePurpose;
use crate::domain::id::UserId;
use crate::domain::mail::MailKind;
use crate::domain::password::PasswordVersion;
use crate::domain::role::{Role, Roles};
use crate::domain::user::{Locale, User, UserStatus, Username};
use crate::port::store::Store;
use crate::port::store::account::{
    Actor, CreateUser, DeleteUser, Registered, RolesChange, UpdateUser, UserChange, UserCreated, UserDeleted,
    UserQuery, UserUpdated,
};
use crate::port::store::session::{EndSessions, SessionOpened, SessionSelector, SessionsEnded};

const ANA: &str = "ana@example.org";
const FIRST: PasswordVersion = PasswordVersion::FIRST;

pub(super) fn role(name: &str) -> Role {
    name.parse().unwrap()
}

/// A user with roles.
pub(super) async fn user_with(store: &Arc<dyn Store>, address: &str, names: &[&str]) -> User {
    let roles = names.iter().map(|name| role(name)).chain([Role::user()]).collect();
    match store.create_user(CreateUser { roles, ..create(address, NOW) }).await.unwrap() {
        UserCreated::Created(user) => *user,
        outcome => panic!("{address}: {outcome:?}"),
    }
}

pub(super) fn actor(user: &User) -> Actor {
    Actor { id: user.id, roles: user.roles.clone(), beyond: Roles::new() }
}

pub(super) fn update(id: UserId, by: Option<Actor>, change: UserChange, now: OffsetDateTime) -> UpdateUser {
    UpdateUser { now, id, by, change, audit: audit(AuditEvent::UserUpdate), events: all_events() }
}

pub(super) fn disabled() -> UserChange {
    UserChange { status: Some(UserStatus::Disabled), ..UserChange::default() }
}

fn demoted() -> UserChange {
    UserChange { roles: Some(RolesChange::Revoke(Role::admin())), ..UserChange::default() }
}

pub(super) fn delete(id: UserId, by: Option<Actor>, now: OffsetDateTime) -> DeleteUser {
    DeleteUser {
        now,
        id,
        by,
        expect: None,
        restorable_until: None,
        notice: Some(mail(MailKind::AccountDeleted)),
        audit: audit(AuditEvent::UserDeletion),
        events: all_events(),
    }
}

/// What is asked for is changed and nothing else; events tell of what differs.
pub async fn a_user_is_changed_as_asked(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let change = UserChange {
        username: Some(Some(Username::parse("Ana Ávila").unwrap())),
        locale: Some(Some(Locale::parse("es").unwrap())),
        ..UserChange::default()
    };
    let UserUpdated::Updated(named) =
        store.update_user(update(ana.id, None, change.clone(), later(1))).await.unwrap()
    else {
        panic!("refused")
    };
    assert_eq!((named.username.as_ref().unwrap().as_str(), named.updated_at), ("Ana Ávila", later(1)));
    assert_eq!(store.user(ana.id).await.unwrap().as_ref(), Some(&*named));
    assert_eq!(events(&store).await, ["user_updated"]);
    // The same again changes nothing, and no event tells of it.
    store.update_user(update(ana.id, None, change, later(2))).await.unwrap();
    assert_eq!(store.user(ana.id).await.unwrap().unwrap().updated_at, later(1));
    assert_eq!(events(&store).await, ["user_updated"]);

    for (roles, after) in [
        (RolesChange::Grant(role("desk")), BTreeSet::from([role("desk"), Role::user()])),
        (
            RolesChange::Set(Roles::from([role("a"), role("b")])),
            BTreeSet::from([role("a"), role("b"), Role::user()]),
        ),
        (RolesChange::Revoke(role("a")), BTreeSet::from([role("b"), Role::user()])),
        (RolesChange::Revoke(Role::user()), BTreeSet::from([role("b"), Role::user()])),
        (RolesChange::Set(Roles::new()), BTreeSet::from([Role::user()])),
    ] {
        let change = UserChange { roles: Some(roles), ..UserChange::default() };
        store.update_user(update(ana.id, None, change, later(3))).await.unwrap();
        assert_eq!(store.user(ana.id).await.unwrap().unwrap().roles, after);
    }

    let session = open(&ana, FIRST, later(4));
    store.open_session(session.clone()).await.unwrap();
    store.request_code(request(ANA, CodePurpose::ResetPassword, later(4))).await.unwrap();
    store.update_user(update(ana.id, None, disabled(), later(5))).await.unwrap();
    assert!(!holds(&store, session.session.id, later(5)).await);
    assert!(candidates(&store, ANA, CodePurpose::ResetPassword, later(5)).await.is_empty());
    let enabled = UserChange { status: Some(UserStatus::Active), ..UserChange::default() };
    store.update_user(update(ana.id, None, enabled, later(6))).await.unwrap();
    assert!(!holds(&store, session.session.id, later(6)).await, "what ended stays so");
    let told = events(&store).await;
    assert_eq!(told.iter().filter(|event| *event == "roles_changed").count(), 4);
    assert_eq!(told.iter().filter(|event| *event == "status_changed").count(), 2);
    assert!(audited(&store).await.iter().all(|reason| reason == "done"));
}

/// Who may not, or not any more, or not that one, changes nothing; all that remains is the audit entry.
pub async fn who_may_not_changes_nothing(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (boss, ana) = (user_with(&store, "boss@example.org", &["admin"]).await, user(&store, ANA).await);
    let desk = user_with(&store, "desk@example.org", &["desk"]).await;
    let gone = user_with(&store, "gone@example.org", &["desk"]).await;
    store.delete_user(delete(gone.id, None, NOW)).await.unwrap();
    let off = user_with(&store, "off@example.org", &["desk"]).await;
    store.update_user(update(off.id, None, disabled(), NOW)).await.unwrap();
    let session = open(&ana, FIRST, NOW);
    store.open_session(session.clone()).await.unwrap();
    let nobody = Actor { id: user_id(), ..actor(&desk) };
    let former = Actor { roles: Roles::from([role("desk"), role("more"), Role::user()]), ..actor(&desk) };
    let below = Actor { beyond: Roles::from([Role::admin(), role("chief")]), ..actor(&desk) };
    let chief = UserChange { roles: Some(RolesChange::Grant(role("chief"))), ..UserChange::default() };
    let (before, count) = (owed(&store).await, audited(&store).await.len());
    let refused = [
        (ana.id, nobody, disabled()),
        (ana.id, actor(&gone), disabled()),
        (ana.id, actor(&off), disabled()),
        (ana.id, former.clone(), disabled()),
        (boss.id, below.clone(), disabled()),
        (ana.id, below.clone(), chief),
        (boss.id, below.clone(), demoted()),
    ];
    for (id, by, change) in refused {
        let outcome = store.update_user(update(id, Some(by.clone()), change, later(1))).await.unwrap();
        assert_eq!(outcome, UserUpdated::NotPermitted, "{by:?}");
    }
    let outcome = store.delete_user(delete(boss.id, Some(below.clone()), later(1))).await.unwrap();
    assert_eq!(outcome, UserDeleted::NotPermitted);
    let which = SessionSelector::All;
    let ended = EndSessions { by: Some(former), ..end(ana.id, which, later(1)) };
    assert_eq!(store.end_sessions(ended).await.unwrap(), SessionsEnded::NotPermitted);
    let made = CreateUser {
        by: Some(below),
        roles: Roles::from([Role::admin(), Role::user()]),
        ..create("new@example.org", later(1))
    };
    assert_eq!(store.create_user(made).await.unwrap(), UserCreated::NotPermitted);
    let unknown =
        store.update_user(update(user_id(), Some(actor(&desk)), disabled(), later(1))).await.unwrap();
    assert_eq!(unknown, UserUpdated::NotFound);
    let unknown = store.delete_user(delete(gone.id, None, later(1))).await.unwrap();
    assert_eq!(unknown, UserDeleted::NotFound, "deleted before");
    assert_eq!(owed(&store).await, before);
    assert!(holds(&store, session.session.id, later(1)).await);
    assert_eq!(store.user(boss.id).await.unwrap(), Some(boss));
    let log = audited(&store).await;
    assert_eq!(log[count..count + 10], ["forbidden"; 10]);
    assert_eq!(log[count + 10..], ["not_found", "not_found"]);
}

/// The last active administrator is not demoted, disabled or deleted.
pub async fn the_last_administrator_stays(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let one = user_with(&store, "one@example.org", &["admin"]).await;
    let other = user_with(&store, "other@example.org", &["admin"]).await;
    let set = UserChange { roles: Some(RolesChange::Set(Roles::new())), ..UserChange::default() };
    assert!(matches!(
        store.update_user(update(other.id, None, disabled(), later(1))).await.unwrap(),
        UserUpdated::Updated(_)
    ));
    for change in [demoted(), set, disabled()] {
        let outcome = store.update_user(update(one.id, None, change, later(2))).await.unwrap();
        assert_eq!(outcome, UserUpdated::LastAdmin, "a disabled one does not count");
    }
    assert_eq!(store.delete_user(delete(one.id, None, later(2))).await.unwrap(), UserDeleted::LastAdmin);
    assert_eq!(store.user(one.id).await.unwrap(), Some(one.clone()));
    let enabled = UserChange { status: Some(UserStatus::Active), ..UserChange::default() };
    store.update_user(update(other.id, None, enabled, later(3))).await.unwrap();
    assert_eq!(store.delete_user(delete(one.id, None, later(4))).await.unwrap(), UserDeleted::Deleted);
    let outcome = store.update_user(update(other.id, None, demoted(), later(5))).await.unwrap();
    assert_eq!(outcome, UserUpdated::LastAdmin, "a deleted one does not count");
    let refused = audited(&store).await.iter().filter(|reason| *reason == "last_admin").count();
    assert_eq!(refused, 5);
}

/// Of two administrators who take each other's rights at the same moment, one succeeds, and one is left.
pub async fn one_of_two_who_demote_each_other_wins(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for round in 0..12 {
        let one = user_with(&store, &format!("one{round}@example.org"), &["admin"]).await;
        let other = user_with(&store, &format!("other{round}@example.org"), &["admin"]).await;
        let pair = [(one.clone(), other.clone()), (other.clone(), one.clone())];
        let answers = at_once(&store, 2, move |store, n| {
            let (by, whom) = pair[n].clone();
            async move {
                match round % 3 {
                    0 => {
                        store
                            .update_user(update(whom.id, Some(actor(&by)), demoted(), later(1)))
                            .await
                            .unwrap()
                            != UserUpdated::NotPermitted
                    }
                    1 => {
                        store
                            .update_user(update(whom.id, Some(actor(&by)), disabled(), later(1)))
                            .await
                            .unwrap()
                            != UserUpdated::NotPermitted
                    }
                    _ => {
                        store.delete_user(delete(whom.id, Some(actor(&by)), later(1))).await.unwrap()
                            == UserDeleted::Deleted
                    }
                }
            }
        })
        .await;
        assert_eq!(answers.iter().filter(|done| **done).count(), 1, "round {round}: {answers:?}");
    }
}

/// When all administrators cease to be one at the same moment, one stays.
pub async fn one_administrator_is_left(harness: &dyn StoreHarness) {
    for round in 0..4 {
        let store = harness.fresh().await;
        let mut all = Vec::new();
        for n in 0..6 {
            all.push(user_with(&store, &format!("admin{n}@example.org"), &["admin"]).await.id);
        }
        at_once(&store, 6, move |store, n| {
            let id = all[n];
            async move {
                match (round + n) % 3 {
                    0 => drop(store.update_user(update(id, None, demoted(), later(1))).await.unwrap()),
                    1 => drop(store.update_user(update(id, None, disabled(), later(1))).await.unwrap()),
                    _ => {
                        store.delete_user(delete(id, None, later(1))).await.unwrap();
                    }
                }
            }
        })
        .await;
        let query =
            UserQuery { role: Some(Role::admin()), status: Some(UserStatus::Active), ..UserQuery::default() };
        assert_eq!(store.users(query).await.unwrap().items.len(), 1);
    }
}

/// Whoever is demoted while they act has acted before or acts no more.
pub async fn a_demotion_and_a_use_have_one_order(harness: &dyn StoreHarness) {
    for _ in 0..8 {
        let store = harness.fresh().await;
        user_with(&store, "other@example.org", &["admin"]).await;
        let (boss, ana) = (user_with(&store, "boss@example.org", &["admin"]).await, user(&store, ANA).await);
        let (by, whom) = (boss.clone(), ana.id);
        at_once(&store, 2, move |store, n| {
            let by = by.clone();
            async move {
                if n == 0 {
                    store.update_user(update(by.id, None, demoted(), later(1))).await.unwrap()
                } else {
                    store.update_user(update(whom, Some(actor(&by)), disabled(), later(1))).await.unwrap()
                }
            }
        })
        .await;
        let again =
            store.update_user(update(ana.id, Some(actor(&boss)), disabled(), later(2))).await.unwrap();
        assert_eq!(again, UserUpdated::NotPermitted);
        let disabled = store.user(ana.id).await.unwrap().unwrap().status == UserStatus::Disabled;
        let used = entries(&store).await.iter().any(|entry| {
            entry.subject == Some(ana.id) && entry.event == AuditEvent::UserUpdate && entry.reason.is_none()
        });
        assert_eq!(disabled, used);
    }
}

/// A deleted user is not found, and the address is free; who may come back does so by signing in, in time.
pub async fn a_deleted_user_is_gone_or_comes_back(harness: &dyn StoreHarness) {
    let credentials = |now| crate::port::store::account::CredentialsQuery {
        now,
        email: super::build::email(ANA).key().clone(),
        guard: None,
    };
    for (seconds, back) in [(99, true), (100, false)] {
        let store = harness.fresh().await;
        let ana = user(&store, ANA).await;
        let session = open(&ana, FIRST, NOW);
        store.open_session(session.clone()).await.unwrap();
        store.request_code(request(ANA, CodePurpose::ResetPassword, NOW)).await.unwrap();
        let command = DeleteUser { restorable_until: Some(later(100)), ..delete(ana.id, None, later(1)) };
        let stale = DeleteUser { expect: Some(FIRST.next()), ..command.clone() };
        assert_eq!(store.delete_user(stale).await.unwrap(), UserDeleted::Stale);
        let command = DeleteUser { audit: audit(AuditEvent::UserDeletion), expect: Some(FIRST), ..command };
        assert_eq!(store.delete_user(command).await.unwrap(), UserDeleted::Deleted);
        assert!(store.user(ana.id).await.unwrap().is_none());
        assert!(store.users(UserQuery::default()).await.unwrap().items.is_empty());
        assert!(!holds(&store, session.session.id, later(2)).await);
        assert!(candidates(&store, ANA, CodePurpose::ResetPassword, later(2)).await.is_empty());
        assert_eq!(owed(&store).await.iter().filter(|item| item.starts_with("account_deleted")).count(), 1);
        assert_eq!(store.credentials(credentials(later(seconds))).await.unwrap().user.is_some(), back);

        let comes = open(&ana, FIRST, later(seconds));
        let id = comes.session.id;
        let outcome = store.open_session(comes).await.unwrap();
        assert_eq!(matches!(outcome, SessionOpened::Opened(_)), back, "{outcome:?}");
        assert_eq!(holds(&store, id, later(seconds)).await, back);
        assert_eq!(store.user(ana.id).await.unwrap().is_some(), back);
        let restored = entries(&store).await.iter().any(|entry| entry.event == AuditEvent::UserRestoration);
        assert_eq!(restored, back);
    }
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let command = DeleteUser { restorable_until: Some(later(100)), ..delete(ana.id, None, later(1)) };
    store.delete_user(command).await.unwrap();
    assert_eq!(store.register(register(ANA, later(2))).await.unwrap(), Registered::Pending, "it is free");
    let other = user(&store, ANA).await;
    assert_eq!(store.credentials(credentials(later(3))).await.unwrap().user.unwrap().user.id, other.id);
    let comes = store.open_session(open(&ana, FIRST, later(3))).await.unwrap();
    assert_eq!(comes, SessionOpened::NotActive, "somebody else has the address");
    let deleted = store.delete_user(delete(other.id, None, later(4))).await.unwrap();
    assert_eq!(deleted, UserDeleted::Deleted);
    let comes = store.open_session(open(&other, FIRST, later(5))).await.unwrap();
    assert_eq!(comes, SessionOpened::NotActive, "who was deleted by somebody else stays so");
}

/// No session of a user who is deleted at the same moment holds.
pub async fn no_session_of_a_deleted_user_holds(harness: &dyn StoreHarness) {
    for _ in 0..8 {
        let store = harness.fresh().await;
        let ana = user(&store, ANA).await;
        let opened = at_once(&store, 6, move |store, n| {
            let ana = ana.clone();
            async move {
                if n == 0 {
                    store.delete_user(delete(ana.id, None, later(1))).await.unwrap();
                    return None;
                }
                let command = open(&ana, FIRST, later(1));
                let id = command.session.id;
                drop(store.open_session(command).await.unwrap());
                Some(id)
            }
        })
        .await;
        for id in opened.into_iter().flatten() {
            assert!(!holds(&store, id, later(1)).await);
        }
    }
}
