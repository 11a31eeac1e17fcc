//! Laws of sessions and users.

use time::Duration;

use super::StoreHarness;
use super::build::{
    NOW, all_events, audited, candidates, create, end, holds, later, open, owed, password_of, replace,
    request, user,
};
use crate::domain::code::CodePurpose;
use crate::domain::page::PageSize;
use crate::domain::password::{PasswordHash, PasswordVersion};
use crate::domain::role::Role;
use crate::domain::user::Username;
use crate::port::store::account::{PasswordReplaced, ReplacePassword, UserCreated, UserQuery};
use crate::port::store::session::{SessionKey, SessionOpened, SessionQuery, SessionSelector, SessionsEnded};

const ANA: &str = "ana@example.org";

/// A session holds until its idle end or its absolute end; an opaque token until its own.
pub async fn a_session_holds_until_any_of_its_ends(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let mut command = open(&ana, PasswordVersion::FIRST, NOW);
    command.session.idle_expires_at = later(1000);
    command.session.expires_at = later(2000);
    command.session.access = command.session.access.map(|(digest, _)| (digest, later(500)));
    let SessionOpened::Opened(opened) = store.open_session(command.clone()).await.unwrap() else {
        panic!("refused")
    };
    assert_eq!(opened.last_login_at, Some(NOW));
    assert!(
        matches!(store.open_session(command.clone()).await.unwrap(), SessionOpened::Opened(_)),
        "the same again"
    );
    assert_eq!(audited(&store).await, ["done", "done"], "is not doubled");
    let access = SessionKey::Access(command.session.access.unwrap().0);
    let id = SessionKey::Id(command.session.id);
    for (key, seconds, holds) in
        [(access, 499, true), (access, 500, false), (id, 999, true), (id, 1000, false)]
    {
        let found = store.session(SessionQuery { now: later(seconds), key }).await.unwrap();
        assert_eq!(found.is_some(), holds, "{key:?} after {seconds} s");
    }
    let view = store.session(SessionQuery { now: NOW, key: id }).await.unwrap().unwrap();
    assert_eq!(
        (view.user.id, view.session.ip, view.session.user_agent),
        (ana.id, command.session.ip, Some("agent".into()))
    );
}

/// A session is opened only under the password that was proven, and a better hash of it is no new password.
pub async fn a_session_needs_the_password_it_was_opened_with(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let stale = open(&ana, PasswordVersion::FIRST.next(), NOW);
    assert_eq!(store.open_session(stale).await.unwrap(), SessionOpened::Stale);
    let mut better = open(&ana, PasswordVersion::FIRST, NOW);
    better.upgrade = Some(PasswordHash::new("better"));
    let first = better.session.id;
    assert!(matches!(store.open_session(better).await.unwrap(), SessionOpened::Opened(_)));
    assert_eq!(password_of(&store, ANA).await, Some((Some("better".into()), PasswordVersion::FIRST)));
    assert!(store.session(SessionQuery { now: NOW, key: SessionKey::Id(first) }).await.unwrap().is_some());
    let mut nobody = open(&ana, PasswordVersion::FIRST, NOW);
    nobody.user_id = super::build::user_id();
    assert_eq!(store.open_session(nobody).await.unwrap(), SessionOpened::NotActive);
    assert_eq!(audited(&store).await, ["done", "stale", "done", "not_active"]);
}

/// Changing a password keeps the session it was changed in, ends the others and voids codes; a stale change is none.
pub async fn changing_a_password_keeps_one_session(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let (mine, other) = (open(&ana, PasswordVersion::FIRST, NOW), open(&ana, PasswordVersion::FIRST, NOW));
    store.open_session(mine.clone()).await.unwrap();
    store.open_session(other.clone()).await.unwrap();
    store.request_code(request(ANA, CodePurpose::ResetPassword, NOW)).await.unwrap();
    let change = |expect| ReplacePassword {
        password: PasswordHash::new("new"),
        keep: Some(mine.session.id),
        ..replace(ana.id, expect, later(1))
    };
    let stale = PasswordVersion::FIRST.next();
    assert_eq!(store.replace_password(change(stale)).await.unwrap(), PasswordReplaced::Stale);
    assert_eq!(
        store.replace_password(change(PasswordVersion::FIRST)).await.unwrap(),
        PasswordReplaced::Replaced
    );
    assert_eq!(password_of(&store, ANA).await, Some((Some("new".into()), stale)));
    for (session, holds) in [(mine.session.id, true), (other.session.id, false)] {
        let found =
            store.session(SessionQuery { now: later(1), key: SessionKey::Id(session) }).await.unwrap();
        assert_eq!(found.is_some(), holds);
    }
    assert!(candidates(&store, ANA, CodePurpose::ResetPassword, later(1)).await.is_empty());
    assert_eq!(owed(&store).await.last().map(String::as_str), Some("password_changed to ana@example.org"));
}

/// One session, the others, or all are ended, and only the user's own.
pub async fn ending_sessions_ends_those_meant(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, bob) = (user(&store, ANA).await, user(&store, "bob@example.org").await);
    let commands: Vec<_> = (0..3).map(|_| open(&ana, PasswordVersion::FIRST, NOW)).collect();
    for command in &commands {
        store.open_session(command.clone()).await.unwrap();
    }
    let end = |user_id, which| end(user_id, which, NOW);
    let first = commands[0].session.id;
    assert_eq!(
        store.end_sessions(end(bob.id, SessionSelector::One(first))).await.unwrap(),
        SessionsEnded::Ended(0)
    );
    assert_eq!(
        store.end_sessions(end(ana.id, SessionSelector::One(first))).await.unwrap(),
        SessionsEnded::Ended(1)
    );
    assert_eq!(
        store.end_sessions(end(ana.id, SessionSelector::AllBut(commands[1].session.id))).await.unwrap(),
        SessionsEnded::Ended(1)
    );
    assert_eq!(store.end_sessions(end(ana.id, SessionSelector::All)).await.unwrap(), SessionsEnded::Ended(1));
    for command in commands {
        let key = SessionKey::Id(command.session.id);
        assert!(store.session(SessionQuery { now: NOW + Duration::SECOND, key }).await.unwrap().is_none());
    }
}

/// Pages hold every user once, the newest first.
pub async fn users_are_paged(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(user(&store, &format!("u{n}@example.org")).await.id);
    }
    made.reverse();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page =
            store.users(UserQuery { after, size: PageSize::new(2), ..UserQuery::default() }).await.unwrap();
        seen.extend(page.items.iter().map(|user| user.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, made);
}

/// A session ends at its absolute end though its idle end is far, and a session that was ended is not found by its
/// token.
pub async fn no_way_leads_into_a_session_that_is_over(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let mut command = open(&ana, PasswordVersion::FIRST, NOW);
    let far = later(100 * 86_400);
    let (access, _) = command.session.access.unwrap();
    command.session.access = Some((access, far));
    (command.session.idle_expires_at, command.session.expires_at) = (far, later(1000));
    let keys = [SessionKey::Id(command.session.id), SessionKey::Access(access)];
    store.open_session(command).await.unwrap();
    for key in keys {
        for (seconds, there) in [(999, true), (1000, false)] {
            let found = store.session(SessionQuery { now: later(seconds), key }).await.unwrap();
            assert_eq!(found.is_some(), there, "{key:?} after {seconds} s");
        }
    }
    store.end_sessions(end(ana.id, SessionSelector::All, later(1))).await.unwrap();
    for key in keys {
        assert!(store.session(SessionQuery { now: later(2), key }).await.unwrap().is_none(), "{key:?}");
    }
    let unknown = SessionKey::Access(super::build::digest("unknown"));
    assert!(store.session(SessionQuery { now: NOW, key: unknown }).await.unwrap().is_none());
}

/// A password of nobody, or one that was changed meanwhile, is not changed; all that remains is the audit entry.
pub async fn a_refused_password_change_changes_nothing(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let session = open(&ana, PasswordVersion::FIRST, NOW);
    let id = session.session.id;
    store.open_session(session).await.unwrap();
    store.request_code(request(ANA, CodePurpose::ResetPassword, NOW)).await.unwrap();
    let before = owed(&store).await;
    for (user_id, expect, outcome) in [
        (ana.id, PasswordVersion::NONE, PasswordReplaced::Stale),
        (ana.id, PasswordVersion::FIRST.next(), PasswordReplaced::Stale),
        (super::build::user_id(), PasswordVersion::FIRST, PasswordReplaced::Gone),
    ] {
        let mut command = replace(user_id, expect, later(1));
        command.events = all_events();
        assert_eq!(store.replace_password(command).await.unwrap(), outcome);
    }
    let (password, version) = password_of(&store, ANA).await.unwrap();
    assert_eq!((password, version), (Some(format!("created {ANA}")), PasswordVersion::FIRST));
    assert!(holds(&store, id, later(2)).await);
    assert_eq!(candidates(&store, ANA, CodePurpose::ResetPassword, later(2)).await.len(), 1);
    assert_eq!(owed(&store).await, before);
    assert_eq!(audited(&store).await[3..], ["stale", "stale", "gone"]);
}

/// A refused sign-in opens nothing and sets nothing.
pub async fn a_refused_sign_in_changes_nothing(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let mut command = open(&ana, PasswordVersion::FIRST.next(), later(1));
    command.upgrade = Some(PasswordHash::new("better"));
    command.events = all_events();
    let id = command.session.id;
    assert_eq!(store.open_session(command).await.unwrap(), SessionOpened::Stale);
    assert!(!holds(&store, id, later(1)).await);
    assert_eq!(store.user(ana.id).await.unwrap(), Some(ana));
    assert_eq!(password_of(&store, ANA).await.unwrap().0, Some(format!("created {ANA}")));
    assert!(owed(&store).await.is_empty());
}

/// Whoever changes a password keeps a session of their own, never another user's.
pub async fn the_session_that_is_kept_is_ones_own(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, bob) = (user(&store, ANA).await, user(&store, "bob@example.org").await);
    let (mine, others) = (open(&ana, PasswordVersion::FIRST, NOW), open(&bob, PasswordVersion::FIRST, NOW));
    let (my_id, other_id) = (mine.session.id, others.session.id);
    store.open_session(mine).await.unwrap();
    store.open_session(others).await.unwrap();
    let mut change = replace(ana.id, PasswordVersion::FIRST, later(1));
    change.keep = Some(other_id);
    assert_eq!(store.replace_password(change).await.unwrap(), PasswordReplaced::Replaced);
    assert!(!holds(&store, my_id, later(2)).await);
    assert!(holds(&store, other_id, later(2)).await, "it holds under its own user's version");
    let mut change = replace(bob.id, PasswordVersion::FIRST, later(3));
    change.keep = Some(my_id);
    store.replace_password(change).await.unwrap();
    assert!(!holds(&store, my_id, later(4)).await, "what was ended stays ended");
}

/// A user comes back as made, by identifier and by address, and is not made twice.
pub async fn a_user_is_made_once_and_read_as_made(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let mut command = create("Ana@example.org", NOW);
    command.roles = [Role::user(), Role::admin()].into();
    command.username = Some(Username::parse("Ana").unwrap());
    let id = command.id;
    for _ in 0..2 {
        let UserCreated::Created(made) = store.create_user(command.clone()).await.unwrap() else {
            panic!("refused")
        };
        assert_eq!(store.user(id).await.unwrap(), Some(*made));
    }
    assert_eq!(audited(&store).await, ["done"]);
    let stored = store.user(id).await.unwrap().unwrap();
    assert_eq!((stored.email.as_str(), &stored.roles), ("Ana@example.org", &command.roles));
    assert_eq!((stored.created_at, stored.updated_at, stored.last_login_at), (NOW, NOW, None));
    assert_eq!(store.create_user(create(ANA, later(1))).await.unwrap(), UserCreated::Taken);
    assert_eq!(audited(&store).await, ["done", "email_taken"]);
    assert!(store.user(super::build::user_id()).await.unwrap().is_none());
}
