//! Laws of administration: what may be changed of a user, by whom, and who is always left.

use std::sync::Arc;

use super::StoreHarness;
use super::build::{
    NOW, acting, admin, all_events, audited, candidates, change_email, confirm, confirming, create, delete,
    disable, end, entries, events, follow, guess, holds, invite, later, read, request, role, roles, seen,
    set_password, signed_in, undoing, update, user, user_id, user_with,
};
use super::races::at_once;
use crate::domain::audit::AuditOutcome;
use crate::domain::code::CodePurpose;
use crate::domain::id::UserId;
use crate::domain::role::Role;
use crate::domain::user::{Locale, User, UserStatus, Username};
use crate::port::store::Store;
use crate::port::store::account::{
    Actor, CreateUser, RolesChange, UpdateUser, UserChange, UserCreated, UserDeleted, UserUpdated,
};
use crate::port::store::code::Redeemed;
use crate::port::store::session::{SessionSelector, SessionsEnded};

const ANA: &str = "ana@example.org";
const BOB: &str = "bob@example.org";
const EVA: &str = "eva@example.org";

fn name(name: &str) -> UserChange {
    UserChange { username: Some(Some(Username::parse(name).unwrap())), ..UserChange::default() }
}

fn language(tag: &str) -> UserChange {
    UserChange { locale: Some(Some(Locale::parse(tag).unwrap())), ..UserChange::default() }
}

fn status(status: UserStatus) -> UserChange {
    UserChange { status: Some(status), ..UserChange::default() }
}

fn change_roles(change: RolesChange) -> UserChange {
    UserChange { roles: Some(change), ..UserChange::default() }
}

fn demoted() -> UserChange {
    change_roles(RolesChange::Revoke(Role::admin()))
}

async fn updated(store: &Arc<dyn Store>, command: UpdateUser) -> User {
    match store.update_user(command).await.unwrap() {
        UserUpdated::Updated(user) => *user,
        outcome => panic!("not updated: {outcome:?}"),
    }
}

/// The last entry of the audit log: whether it was refused and why, and its subject.
async fn last_entry(store: &Arc<dyn Store>) -> (Option<String>, Option<UserId>) {
    let entry = entries(store).await.pop().unwrap();
    assert_eq!(entry.outcome == AuditOutcome::Refused, entry.reason.is_some(), "{entry:?}");
    (entry.reason.map(std::borrow::Cow::into_owned), entry.subject)
}

/// What is changed, what that does to the user, and the events that tell of it.
type Step = (UserChange, fn(&mut User, Option<Username>), &'static [&'static str]);

/// Each field is changed alone and with others, events tell only of what changed, and what is the same stays as it is.
pub async fn what_differs_is_changed(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let mut expected = user(&store, ANA).await;
    let (bob, id) = (user(&store, BOB).await, expected.id);
    let parsed = |text| Some(Username::parse(text).unwrap());
    let both = UserChange {
        username: Some(None),
        locale: Some(None),
        profile: Some(None),
        status: Some(UserStatus::Active),
        roles: Some(RolesChange::Set(roles(&["support", "user"]))),
    };
    let steps: [Step; 9] = [
        (name("Ana"), |user, name| user.username = name, &["user_updated"]),
        (language("es-MX"), |user, _| user.locale = Some(Locale::parse("es-MX").unwrap()), &["user_updated"]),
        (name("Ana"), |_, _| {}, &[]),
        (status(UserStatus::Disabled), |user, _| user.status = UserStatus::Disabled, &["status_changed"]),
        (
            both,
            |user, _| {
                (user.username, user.locale, user.status) = (None, None, UserStatus::Active);
                user.roles.insert(role("support"));
            },
            &["user_updated", "roles_changed", "status_changed"],
        ),
        (UserChange::default(), |_, _| {}, &[]),
        (status(UserStatus::Active), |_, _| {}, &[]),
        (change_roles(RolesChange::Grant(role("support"))), |_, _| {}, &[]),
        (change_roles(RolesChange::Revoke(role("none"))), |_, _| {}, &[]),
    ];
    for (n, (change, apply, told)) in (1..).zip(steps) {
        let before = events(&store).await.len();
        let mut command = update(id, change, later(n));
        command.events = all_events();
        apply(&mut expected, parsed("Ana"));
        if !told.is_empty() {
            expected.updated_at = later(n);
        }
        assert_eq!(updated(&store, command).await, expected, "step {n}");
        assert_eq!(read(&store, id).await.as_ref(), Some(&expected), "step {n}");
        let mut events = events(&store).await.split_off(before);
        events.sort_by_key(|event| told.iter().position(|told| told == event));
        assert_eq!(events, told, "step {n}");
        assert_eq!(last_entry(&store).await, (None, Some(id)), "step {n}");
    }
    assert_eq!(read(&store, bob.id).await, Some(bob), "nobody else was changed");
}

/// Roles are set, given and taken; everybody keeps the role of everybody.
pub async fn everybody_keeps_the_role_of_everybody(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await.id;
    for (n, (change, expected)) in (1..).zip([
        (RolesChange::Set(roles(&["support", "editor"])), ["editor", "support", "user"].as_slice()),
        (RolesChange::Revoke(Role::user()), &["editor", "support", "user"]),
        (RolesChange::Grant(role("auditor")), &["auditor", "editor", "support", "user"]),
        (RolesChange::Revoke(role("support")), &["auditor", "editor", "user"]),
        (RolesChange::Set(roles(&[])), &["user"]),
    ]) {
        let user = updated(&store, update(ana, change_roles(change), later(n))).await;
        assert_eq!(user.roles, roles(expected));
        assert_eq!(read(&store, ana).await, Some(user));
    }
}

/// Who is disabled loses every session and every code, and does not get them back.
pub async fn a_disabled_user_loses_sessions_and_codes(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, bob) = (user(&store, ANA).await, user(&store, BOB).await);
    let (mine, others) = (signed_in(&store, &ana, NOW).await, signed_in(&store, &bob, NOW).await);
    let reset = CodePurpose::ResetPassword;
    for address in [ANA, BOB] {
        store.request_code(request(address, reset, NOW)).await.unwrap();
    }
    updated(&store, update(ana.id, name("Ana"), later(1))).await;
    assert!(holds(&store, mine.id, later(1)).await, "another change ends nothing");
    updated(&store, disable(ana.id, later(2))).await;
    updated(&store, update(ana.id, status(UserStatus::Active), later(3))).await;
    for (session, address, left) in [(mine.id, ANA, false), (others.id, BOB, true)] {
        assert_eq!(holds(&store, session, later(4)).await, left, "{address}");
        assert_eq!(candidates(&store, address, reset, later(4)).await.len(), usize::from(left), "{address}");
    }
}

/// Whatever an actor may do to another's account, with the answer when it is refused.
async fn refused_to(store: &Arc<dyn Store>, by: &Actor, target: UserId) {
    let by = Some(by.clone());
    let before = audited(store).await.len();
    let mut change = update(target, name("Changed"), later(9));
    (change.by, change.events) = (by.clone(), all_events());
    assert_eq!(store.update_user(change).await.unwrap(), UserUpdated::NotPermitted);
    let mut deletion = delete(target, later(9));
    (deletion.by, deletion.events) = (by.clone(), all_events());
    assert_eq!(store.delete_user(deletion).await.unwrap(), UserDeleted::NotPermitted);
    let mut sign_out = end(target, SessionSelector::All, later(9));
    sign_out.by = by;
    assert_eq!(store.end_sessions(sign_out).await.unwrap(), SessionsEnded::NotPermitted);
    assert_eq!(audited(store).await[before..], ["forbidden"; 3]);
    assert_eq!(last_entry(store).await.1, Some(target));
}

/// An actor whose roles differ from those of the decision, or who is disabled, deleted or unknown, does nothing.
pub async fn an_actor_acts_only_as_decided(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (first, target) = (admin(&store, ANA).await, user(&store, BOB).await);
    let session = signed_in(&store, &target, NOW).await;
    let support = user_with(&store, EVA, &["support"]).await;
    let (disabled, deleted) =
        (admin(&store, "off@example.org").await, admin(&store, "gone@example.org").await);
    updated(&store, disable(disabled.id, later(1))).await;
    store.delete_user(delete(deleted.id, later(1))).await.unwrap();
    let acting = |user: &User| acting(user, &[]);
    let before = seen(&store).await;
    for by in [
        Actor { roles: roles(&["admin", "support", "user"]), ..acting(&support) },
        Actor { roles: roles(&["user"]), ..acting(&support) },
        Actor { roles: roles(&["user"]), ..acting(&first) },
        Actor { roles: roles(&[]), ..acting(&first) },
        acting(&disabled),
        acting(&deleted),
        Actor { id: user_id(), ..acting(&first) },
    ] {
        refused_to(&store, &by, target.id).await;
        let creation = CreateUser { by: Some(by.clone()), ..create("new@example.org", later(9)) };
        assert_eq!(store.create_user(creation).await.unwrap(), UserCreated::NotPermitted);
        assert_eq!(last_entry(&store).await, (Some("forbidden".into()), None));
        let mut unknown = update(user_id(), name("Changed"), later(9));
        unknown.by = Some(by);
        assert_eq!(store.update_user(unknown).await.unwrap(), UserUpdated::NotPermitted);
        assert_eq!(last_entry(&store).await, (Some("forbidden".into()), None));
    }
    assert_eq!(seen(&store).await, before);
    assert!(holds(&store, session.id, later(9)).await);
    let mut change = update(target.id, name("Changed"), later(10));
    change.by = Some(acting(&support));
    updated(&store, change).await;
}

/// Whoever has, or would get or lose, a role beyond the actor's is out of reach.
pub async fn nobody_reaches_beyond_their_roles(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    admin(&store, ANA).await;
    let chief = user_with(&store, BOB, &["chief"]).await;
    let (support, target) = (user_with(&store, EVA, &["support"]).await, user(&store, "t@example.org").await);
    let by = acting(&support, &["admin", "chief"]);
    let before = seen(&store).await;
    refused_to(&store, &by, chief.id).await;
    for (who, change) in [
        (target.id, RolesChange::Grant(role("chief"))),
        (target.id, RolesChange::Grant(Role::admin())),
        (target.id, RolesChange::Set(roles(&["chief", "user"]))),
        (chief.id, RolesChange::Revoke(role("chief"))),
        (chief.id, RolesChange::Set(roles(&["user"]))),
        (chief.id, RolesChange::Grant(role("support"))),
        (support.id, RolesChange::Grant(Role::admin())),
    ] {
        let mut command = update(who, change_roles(change.clone()), later(1));
        (command.by, command.events) = (Some(by.clone()), all_events());
        assert_eq!(store.update_user(command).await.unwrap(), UserUpdated::NotPermitted, "{change:?}");
        assert_eq!(last_entry(&store).await, (Some("forbidden".into()), Some(who)), "{change:?}");
    }
    let mut creation = create("new@example.org", later(1));
    (creation.by, creation.roles) = (Some(by.clone()), roles(&["chief", "user"]));
    assert_eq!(store.create_user(creation.clone()).await.unwrap(), UserCreated::NotPermitted);
    assert_eq!(seen(&store).await, before);
    let mut command = update(target.id, change_roles(RolesChange::Grant(role("support"))), later(2));
    command.by = Some(by.clone());
    updated(&store, command).await;
    (creation.roles, creation.audit) = (roles(&["support", "user"]), create("new@example.org", NOW).audit);
    assert!(matches!(store.create_user(creation).await.unwrap(), UserCreated::Created(_)));
    let mut deletion = delete(target.id, later(3));
    deletion.by = Some(by);
    assert_eq!(store.delete_user(deletion).await.unwrap(), UserDeleted::Deleted);
}

/// Who is unknown or deleted is neither changed nor deleted.
pub async fn nobody_is_not_found(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (boss, gone) = (admin(&store, ANA).await, user(&store, BOB).await);
    let mut deletion = delete(gone.id, later(1));
    deletion.restorable_until = Some(later(1000));
    store.delete_user(deletion).await.unwrap();
    let before = seen(&store).await;
    for id in [gone.id, user_id()] {
        for by in [None, Some(acting(&boss, &["chief"]))] {
            let mut change = update(id, change_roles(RolesChange::Grant(role("chief"))), later(2));
            (change.by, change.events) = (by.clone(), all_events());
            assert_eq!(store.update_user(change).await.unwrap(), UserUpdated::NotFound);
            assert_eq!(last_entry(&store).await, (Some("not_found".into()), None));
            let mut deletion = delete(id, later(2));
            (deletion.by, deletion.events) = (by, all_events());
            assert_eq!(store.delete_user(deletion).await.unwrap(), UserDeleted::NotFound);
            assert_eq!(last_entry(&store).await, (Some("not_found".into()), None));
        }
    }
    assert_eq!(seen(&store).await, before);
}

/// The last administrator who can sign in stays one, however it is tried and by whomever.
pub async fn the_last_administrator_stays(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let boss = admin(&store, ANA).await;
    let (off, gone) = (admin(&store, BOB).await, admin(&store, EVA).await);
    updated(&store, disable(off.id, later(1))).await;
    assert_eq!(store.delete_user(delete(gone.id, later(1))).await.unwrap(), UserDeleted::Deleted);
    let session = signed_in(&store, &boss, later(1)).await;
    let before = seen(&store).await;
    for by in [None, Some(acting(&read(&store, boss.id).await.unwrap(), &[]))] {
        for change in [
            demoted(),
            change_roles(RolesChange::Set(roles(&["user"]))),
            status(UserStatus::Disabled),
            UserChange { username: Some(None), ..demoted() },
        ] {
            let mut command = update(boss.id, change, later(2));
            (command.by, command.events) = (by.clone(), all_events());
            assert_eq!(store.update_user(command).await.unwrap(), UserUpdated::LastAdmin);
            assert_eq!(last_entry(&store).await, (Some("last_admin".into()), Some(boss.id)));
        }
        let mut deletion = delete(boss.id, later(2));
        (deletion.by, deletion.events) = (by, all_events());
        assert_eq!(store.delete_user(deletion).await.unwrap(), UserDeleted::LastAdmin);
        assert_eq!(last_entry(&store).await, (Some("last_admin".into()), Some(boss.id)));
    }
    assert_eq!(seen(&store).await, before);
    assert!(holds(&store, session.id, later(2)).await);
    updated(&store, update(boss.id, name("Boss"), later(3))).await;
    updated(&store, update(off.id, demoted(), later(3))).await;
    updated(&store, update(off.id, change_roles(RolesChange::Grant(Role::admin())), later(4))).await;
    updated(&store, update(off.id, status(UserStatus::Active), later(5))).await;
    updated(&store, update(boss.id, demoted(), later(6))).await;
    assert_eq!(store.delete_user(delete(off.id, later(7))).await.unwrap(), UserDeleted::LastAdmin);
    assert_eq!(store.delete_user(delete(boss.id, later(7))).await.unwrap(), UserDeleted::Deleted);
}

/// Makes an administrator who was invited: without a password, and with an address that is not proven.
async fn invited(store: &Arc<dyn Store>, address: &str) -> User {
    let mut command = invite(address, NOW);
    command.roles = roles(&["admin", "user"]);
    match store.create_user(command).await.unwrap() {
        UserCreated::Created(user) => *user,
        outcome => panic!("{address}: {outcome:?}"),
    }
}

/// An administrator without a password leaves nobody who can administer: the last one who can sign in stays. With an
/// address that is not proven one can sign in all the same.
pub async fn an_administrator_who_cannot_sign_in_does_not_count(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let boss = admin(&store, ANA).await;
    let waiting = invited(&store, BOB).await;
    for (n, change) in (1..).zip([demoted(), status(UserStatus::Disabled)]) {
        let answer = store.update_user(update(boss.id, change, later(n))).await.unwrap();
        assert_eq!(answer, UserUpdated::LastAdmin);
        assert_eq!(last_entry(&store).await, (Some("last_admin".into()), Some(boss.id)));
    }
    let mut own = delete(boss.id, later(3));
    own.restorable_until = Some(later(100));
    for command in [own, delete(boss.id, later(3))] {
        assert_eq!(store.delete_user(command).await.unwrap(), UserDeleted::LastAdmin);
        assert_eq!(last_entry(&store).await, (Some("last_admin".into()), Some(boss.id)));
    }
    assert_eq!(read(&store, boss.id).await, Some(boss.clone()));
    // Who cannot sign in is no loss.
    updated(&store, update(waiting.id, demoted(), later(4))).await;
    updated(&store, update(waiting.id, change_roles(RolesChange::Grant(Role::admin())), later(5))).await;
    let other = invited(&store, "other@example.org").await;
    assert_eq!(store.delete_user(delete(other.id, later(5))).await.unwrap(), UserDeleted::Deleted);

    let setup = request(BOB, CodePurpose::FirstTimeSetup, later(6));
    let hit = setup.code.id;
    store.request_code(setup).await.unwrap();
    let effect = set_password("first", None);
    let command = guess(BOB, CodePurpose::FirstTimeSetup, &[hit], Some(hit), effect, later(7));
    assert!(matches!(store.redeem(command).await.unwrap(), Redeemed::Redeemed(_)));
    updated(&store, update(boss.id, demoted(), later(8))).await;
    updated(&store, update(boss.id, change_roles(RolesChange::Grant(Role::admin())), later(9))).await;

    let mut unproven = create("unproven@example.org", later(10));
    (unproven.roles, unproven.email_verified_at) = (roles(&["admin", "user"]), None);
    store.create_user(unproven).await.unwrap();
    for id in [boss.id, waiting.id] {
        assert_eq!(store.delete_user(delete(id, later(11))).await.unwrap(), UserDeleted::Deleted);
    }
}

/// An administrator who was left without a password by an undo does not count, until a new one is set.
pub async fn an_administrator_after_an_undo_does_not_count(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (boss, other) = (admin(&store, ANA).await, admin(&store, BOB).await);
    let change = change_email(other.id, EVA, later(1));
    let code = change.code.id;
    store.request_email_change(change).await.unwrap();
    let (effect, undo) = confirming(later(2));
    store.redeem(confirm(other.id, code, effect, later(2))).await.unwrap();
    let (effect, reset) = undoing(later(3));
    assert!(matches!(store.redeem(follow(undo, effect, later(3))).await.unwrap(), Redeemed::Redeemed(_)));
    let answer = store.update_user(update(boss.id, demoted(), later(4))).await.unwrap();
    assert_eq!(answer, UserUpdated::LastAdmin);
    let answer = store.redeem(follow(reset, set_password("new", None), later(5))).await.unwrap();
    assert!(matches!(answer, Redeemed::Redeemed(_)));
    updated(&store, update(boss.id, demoted(), later(6))).await;
    // An undo is a recovery: it is done also where it leaves no administrator who can sign in.
    let change = change_email(other.id, EVA, later(7));
    let code = change.code.id;
    store.request_email_change(change).await.unwrap();
    let (effect, undo) = confirming(later(8));
    store.redeem(confirm(other.id, code, effect, later(8))).await.unwrap();
    let answer = store.redeem(follow(undo, undoing(later(9)).0, later(9))).await.unwrap();
    assert!(matches!(answer, Redeemed::Redeemed(_)));
}

/// How an administrator ceases to be one.
#[derive(Debug, Clone, Copy)]
enum Fall {
    Demoted,
    Disabled,
    Deleted,
}

/// Whether it succeeded; a refusal is one of a good reason.
async fn fell(store: &Arc<dyn Store>, how: Fall, who: UserId, by: Option<Actor>) -> bool {
    if let Fall::Deleted = how {
        let mut command = delete(who, later(1));
        command.by = by;
        let answer = store.delete_user(command).await.unwrap();
        assert!(!matches!(answer, UserDeleted::NotFound | UserDeleted::Stale), "{answer:?}");
        return answer == UserDeleted::Deleted;
    }
    let change = if let Fall::Demoted = how { demoted() } else { status(UserStatus::Disabled) };
    let mut command = update(who, change, later(1));
    command.by = by;
    let answer = store.update_user(command).await.unwrap();
    assert_ne!(answer, UserUpdated::NotFound);
    matches!(answer, UserUpdated::Updated(_))
}

async fn administrators(store: &Arc<dyn Store>) -> usize {
    let query = crate::port::store::account::UserQuery {
        role: Some(Role::admin()),
        status: Some(UserStatus::Active),
        ..Default::default()
    };
    store.users(query).await.unwrap().items.len()
}

/// Two administrators who bring each other down at once: one succeeds, and one is left, every time.
pub async fn two_administrators_do_not_bring_each_other_down(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let falls = [Fall::Demoted, Fall::Disabled, Fall::Deleted];
    let mut left = admin(&store, "first@example.org").await;
    for round in 0..24 {
        let other = admin(&store, &format!("u{round}@example.org")).await;
        let (two, hows) = ([left.clone(), other], [falls[round % 3], falls[round / 3 % 3]]);
        let as_operator = round % 4 == 3;
        let chosen = two.clone();
        let answers = at_once(&store, 2, move |store, n| {
            let by = (!as_operator).then(|| acting(&chosen[1 - n], &[]));
            let (who, how) = (chosen[n].id, hows[n]);
            async move { fell(&store, how, who, by).await }
        })
        .await;
        assert!(answers[0] != answers[1], "round {round}, {hows:?}: {answers:?}");
        assert_eq!(administrators(&store).await, 1, "round {round}, {hows:?}");
        let [one, other] = two;
        left = read(&store, if answers[0] { other.id } else { one.id }).await.unwrap();
        assert!(left.roles.contains(&Role::admin()) && left.status == UserStatus::Active, "{left:?}");
    }
}

/// However many administrators fall at once, one is left.
pub async fn one_of_many_administrators_is_left(harness: &dyn StoreHarness) {
    for round in 0..4 {
        let store = harness.fresh().await;
        let mut all = Vec::new();
        for n in 0..6 {
            all.push(admin(&store, &format!("u{n}@example.org")).await.id);
        }
        let answers = at_once(&store, 6, |store, n| {
            let (who, how) = (all[n], [Fall::Demoted, Fall::Disabled, Fall::Deleted][(n + round) % 3]);
            async move { fell(&store, how, who, None).await }
        })
        .await;
        assert_eq!(answers.iter().filter(|fell| **fell).count(), 5, "{answers:?}");
        assert_eq!(administrators(&store).await, 1);
    }
}

/// What an actor asks who falls meanwhile is done before or not at all.
pub async fn who_fell_does_nothing_more(harness: &dyn StoreHarness) {
    for round in 0..9 {
        let store = harness.fresh().await;
        let (_, actor) = (admin(&store, ANA).await, admin(&store, BOB).await);
        let target = user(&store, EVA).await.id;
        let (by, how) = (acting(&actor, &[]), [Fall::Demoted, Fall::Disabled, Fall::Deleted][round % 3]);
        let answers = at_once(&store, 4, |store, n| {
            let by = by.clone();
            async move {
                if n == 2 {
                    assert!(fell(&store, how, by.id, None).await);
                    return None;
                }
                let mut command = update(target, name(&format!("by {n}")), later(1));
                command.by = Some(by);
                Some(store.update_user(command).await.unwrap())
            }
        })
        .await;
        let name = read(&store, target).await.unwrap().username;
        let done: Vec<_> = answers
            .iter()
            .flatten()
            .filter_map(|answer| match answer {
                UserUpdated::Updated(user) => Some(user.username.clone()),
                UserUpdated::NotPermitted => None,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(if done.is_empty() { name.is_none() } else { done.contains(&name) }, "{done:?}, {name:?}");
        refused_to(&store, &by, target).await;
    }
}
