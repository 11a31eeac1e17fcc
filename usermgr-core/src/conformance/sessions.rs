//! Laws of sessions and users.

use time::Duration;

use super::StoreHarness;
use super::build::{NOW, audit, audited, candidates, later, mail, open, owed, password_of, request, user};
use crate::domain::audit::AuditEvent;
use crate::domain::code::CodePurpose;
use crate::domain::mail::MailKind;
use crate::domain::page::PageSize;
use crate::domain::password::{PasswordHash, PasswordVersion};
use crate::port::store::account::{PasswordReplaced, ReplacePassword, UserQuery};
use crate::port::store::session::{EndSessions, SessionKey, SessionOpened, SessionQuery, SessionSelector};

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
        now: later(1),
        user_id: ana.id,
        expect,
        password: PasswordHash::new("new"),
        keep: Some(mine.session.id),
        notice: mail(MailKind::PasswordChanged),
        audit: audit(AuditEvent::PasswordChange),
        events: Vec::new(),
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
    let end = |user_id, which| EndSessions { now: NOW, user_id, which, audit: audit(AuditEvent::SignOut) };
    let first = commands[0].session.id;
    assert_eq!(store.end_sessions(end(bob.id, SessionSelector::One(first))).await.unwrap(), 0);
    assert_eq!(store.end_sessions(end(ana.id, SessionSelector::One(first))).await.unwrap(), 1);
    assert_eq!(
        store.end_sessions(end(ana.id, SessionSelector::AllBut(commands[1].session.id))).await.unwrap(),
        1
    );
    assert_eq!(store.end_sessions(end(ana.id, SessionSelector::All)).await.unwrap(), 1);
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
        let page = store.users(UserQuery { after, size: PageSize::new(2) }).await.unwrap();
        seen.extend(page.items.iter().map(|user| user.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, made);
}
