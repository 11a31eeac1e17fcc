//! Laws of deleted accounts: they are not found, their address is free, and some come back.

use std::sync::Arc;

use time::OffsetDateTime;

use super::StoreHarness;
use super::build::{
    NOW, all_events, audited, candidates, change_email, create, delete, email, entries, events, holds, later,
    open, owed, password_of, read, registered, replace, request, right, seen, signed_in, user,
};
use super::races::at_once;
use crate::domain::audit::{AuditEvent, AuditOutcome};
use crate::domain::code::CodePurpose;
use crate::domain::id::{SessionId, UserId};
use crate::domain::password::PasswordVersion;
use crate::domain::user::{User, Username};
use crate::port::store::Store;
use crate::port::store::account::{
    CredentialsQuery, EmailChangeRequested, PasswordReplaced, UserCreated, UserDeleted, UserQuery,
};
use crate::port::store::code::{CodeRequested, Redeemed};
use crate::port::store::session::{SessionKey, SessionOpened, SessionQuery};

const ANA: &str = "ana@example.org";
const FIRST: PasswordVersion = PasswordVersion::FIRST;

/// Deletes a user, who may come back until `seconds`.
async fn deleted(store: &Arc<dyn Store>, id: UserId, seconds: Option<i64>) {
    let mut command = delete(id, later(10));
    command.restorable_until = seconds.map(later);
    assert_eq!(store.delete_user(command).await.unwrap(), UserDeleted::Deleted);
}

/// Whom signing in with an address is for.
async fn signs_in(store: &Arc<dyn Store>, address: &str, now: OffsetDateTime) -> Option<UserId> {
    let query = CredentialsQuery { now, email: email(address).key().clone(), guard: None };
    store.credentials(query).await.unwrap().user.map(|found| found.user.id)
}

async fn listed(store: &Arc<dyn Store>) -> Vec<UserId> {
    let mut ids = Vec::new();
    for prefix in [None, Some("ana".to_owned())] {
        let page = store.users(UserQuery { prefix, ..UserQuery::default() }).await.unwrap();
        ids.extend(page.items.iter().map(|user| user.id));
    }
    ids
}

/// Signs in; whether the session was opened.
async fn opens(store: &Arc<dyn Store>, user: &User, seconds: i64) -> Option<SessionId> {
    let command = open(user, FIRST, later(seconds));
    let id = command.session.id;
    match store.open_session(command).await.unwrap() {
        SessionOpened::Opened(opened) => {
            assert_eq!(opened.id, user.id);
            assert!(holds(store, id, later(seconds)).await);
            Some(id)
        }
        SessionOpened::NotActive => {
            assert!(!holds(store, id, later(seconds)).await);
            None
        }
        outcome => panic!("{outcome:?}"),
    }
}

/// A deleted user is not found by any way, loses every session and code, and is told at the address.
pub async fn a_deleted_user_is_not_found(harness: &dyn StoreHarness) {
    for restorable in [None, Some(1000)] {
        let store = harness.fresh().await;
        let (ana, bob) = (user(&store, ANA).await, user(&store, "bob@example.org").await);
        let (mine, others) = (signed_in(&store, &ana, NOW).await, signed_in(&store, &bob, NOW).await);
        let reset = CodePurpose::ResetPassword;
        store.request_code(request(ANA, reset, NOW)).await.unwrap();
        let mut command = delete(ana.id, later(10));
        (command.restorable_until, command.events) = (restorable.map(later), all_events());
        assert_eq!(store.delete_user(command).await.unwrap(), UserDeleted::Deleted);
        assert_eq!(events(&store).await, ["user_deleted"]);
        assert!(owed(&store).await.contains(&format!("account_deleted to {ANA}")));
        let written = entries(&store).await.pop().unwrap();
        assert_eq!((written.event, written.outcome), (AuditEvent::UserDeletion, AuditOutcome::Done));
        assert_eq!(written.subject, Some(ana.id));
        assert_eq!((read(&store, ana.id).await, listed(&store).await), (None, vec![bob.id]));
        let found = signs_in(&store, ANA, later(11)).await;
        assert_eq!(found, restorable.map(|_| ana.id), "only who may come back has credentials");
        for key in [SessionKey::Id(mine.id), SessionKey::Access(mine.access.unwrap().0)] {
            assert!(store.session(SessionQuery { now: later(11), key }).await.unwrap().is_none());
        }
        assert!(candidates(&store, ANA, reset, later(11)).await.is_empty());
        assert!(holds(&store, others.id, later(11)).await);
        let before = audited(&store).await.len();
        let asked = store.request_code(request(ANA, reset, later(12))).await.unwrap();
        assert_eq!(asked, CodeRequested::Nobody);
        let changed = store.replace_password(replace(ana.id, FIRST, later(12))).await.unwrap();
        assert_eq!(changed, PasswordReplaced::Gone);
        let moved = change_email(ana.id, "new@example.org", later(12));
        assert_eq!(store.request_email_change(moved).await.unwrap(), EmailChangeRequested::Gone);
        assert_eq!(store.delete_user(delete(ana.id, later(12))).await.unwrap(), UserDeleted::NotFound);
        assert_eq!(audited(&store).await[before..], ["nobody", "gone", "gone", "not_found"]);
    }
}

/// Without a notice none is owed.
pub async fn a_deletion_may_be_silent(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await.id;
    let mut command = delete(ana, later(1));
    command.notice = None;
    assert_eq!(store.delete_user(command).await.unwrap(), UserDeleted::Deleted);
    assert!(owed(&store).await.is_empty());
}

/// The address of a deleted user is free, for a registration and for an administrator.
pub async fn a_deleted_address_is_free(harness: &dyn StoreHarness) {
    for restorable in [None, Some(1000)] {
        let store = harness.fresh().await;
        let first = user(&store, ANA).await;
        deleted(&store, first.id, restorable).await;
        let code = registered(&store, ANA).await;
        let redeemed = store.redeem(right(ANA, code, later(11))).await.unwrap();
        let Redeemed::Redeemed(second) = redeemed else { panic!("{redeemed:?}") };
        assert_ne!(second.id, first.id);
        assert_eq!(store.create_user(create(ANA, later(12))).await.unwrap(), UserCreated::Taken);
        deleted(&store, second.id, restorable).await;
        let third = user(&store, ANA).await;
        assert_eq!(signs_in(&store, ANA, later(13)).await, Some(third.id));
        assert_eq!(read(&store, third.id).await, Some(third));
    }
}

/// Who may come back does so by signing in before it is too late, to the second, with all that was theirs.
pub async fn a_restorable_user_comes_back_in_time(harness: &dyn StoreHarness) {
    for (seconds, back) in [(999, true), (1000, false), (1001, false)] {
        let store = harness.fresh().await;
        let mut command = create(ANA, NOW);
        command.username = Some(Username::parse("Ana").unwrap());
        store.create_user(command.clone()).await.unwrap();
        let ana = read(&store, command.id).await.unwrap();
        let old = signed_in(&store, &ana, NOW).await;
        deleted(&store, ana.id, Some(1000)).await;
        let (before, mails) = (entries(&store).await.len(), owed(&store).await.len());
        let found = signs_in(&store, ANA, later(seconds)).await;
        assert_eq!(found, back.then_some(ana.id), "after {seconds} s");
        let mut command = open(&ana, FIRST, later(seconds));
        command.events = all_events();
        let (id, restore) = (command.session.id, command.restore.id);
        let answer = store.open_session(command).await.unwrap();
        let written = entries(&store).await.split_off(before);
        assert!(!holds(&store, old.id, later(seconds)).await, "what was ended stays ended");
        if !back {
            assert_eq!(answer, SessionOpened::NotActive);
            assert_eq!(written.len(), 1);
            assert_eq!(written[0].reason.as_deref(), Some("not_active"));
            assert_eq!((read(&store, ana.id).await, owed(&store).await.len()), (None, mails));
            continue;
        }
        let (last_login_at, updated_at) = (Some(later(seconds)), later(seconds));
        let expected = User { updated_at, last_login_at, ..ana };
        assert_eq!(answer, SessionOpened::Opened(Box::new(expected.clone())));
        assert_eq!(read(&store, expected.id).await.as_ref(), Some(&expected));
        assert!(holds(&store, id, later(seconds)).await);
        let mut told: Vec<_> =
            written.iter().map(|entry| (entry.event, entry.outcome, entry.subject)).collect();
        told.sort_by_key(|(event, ..)| *event == AuditEvent::SignIn);
        let done = |event| (event, AuditOutcome::Done, Some(expected.id));
        assert_eq!(told, [done(AuditEvent::UserRestoration), done(AuditEvent::SignIn)]);
        assert!(written.iter().any(|entry| entry.id == restore));
        assert_eq!(owed(&store).await[mails..].len(), 2, "{:?}", owed(&store).await);
        assert!(events(&store).await.contains(&"user_restored".to_owned()));
        let password = password_of(&store, ANA).await;
        assert_eq!(password, Some((Some(format!("created {ANA}")), FIRST)));
        assert!(opens(&store, &expected, 2000).await.is_some(), "it is an account like any other");
        assert_eq!(listed(&store).await, [expected.id; 2]);
    }
}

/// A sign-in of before is neither answered nor audited as a return when the user was not deleted.
pub async fn who_is_there_does_not_come_back(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let mut command = open(&ana, FIRST, NOW);
    command.events = all_events();
    store.open_session(command).await.unwrap();
    assert_eq!(events(&store).await, ["signed_in"]);
    assert_eq!(audited(&store).await.len(), 2);
}

/// Another user of the address keeps its old one away, as long as there is one.
pub async fn an_address_that_was_taken_keeps_its_old_user_away(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let old = user(&store, ANA).await;
    deleted(&store, old.id, Some(1000)).await;
    let new = user(&store, "ANA@example.org").await;
    assert_eq!(signs_in(&store, ANA, later(20)).await, Some(new.id));
    let before = seen(&store).await;
    assert_eq!(opens(&store, &old, 20).await, None);
    assert_eq!(audited(&store).await.pop().as_deref(), Some("not_active"));
    assert_eq!(seen(&store).await, before);
    deleted(&store, new.id, None).await;
    assert_eq!(signs_in(&store, ANA, later(21)).await, Some(old.id));
    assert!(opens(&store, &old, 21).await.is_some());
    assert_eq!(opens(&store, &new, 22).await, None, "who was deleted for good stays away");
    assert_eq!(read(&store, old.id).await.unwrap().email, old.email);
}

/// Who was deleted for good does not come back, not even with the right password at once.
pub async fn who_was_deleted_for_good_stays_away(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    deleted(&store, ana.id, None).await;
    assert_eq!(signs_in(&store, ANA, later(10)).await, None);
    assert_eq!(opens(&store, &ana, 10).await, None);
    assert_eq!(read(&store, ana.id).await, None);
}

/// A deletion under a password that was changed meanwhile is none.
pub async fn a_deletion_needs_the_password_that_was_proven(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let session = signed_in(&store, &ana, NOW).await;
    let before = seen(&store).await;
    for expect in [PasswordVersion::NONE, FIRST.next()] {
        let mut command = delete(ana.id, later(1));
        (command.expect, command.events) = (Some(expect), all_events());
        assert_eq!(store.delete_user(command).await.unwrap(), UserDeleted::Stale);
        assert_eq!(audited(&store).await.pop().as_deref(), Some("stale"));
    }
    assert_eq!(seen(&store).await, before);
    assert!(holds(&store, session.id, later(1)).await);
    let mut command = delete(ana.id, later(2));
    command.expect = Some(FIRST);
    assert_eq!(store.delete_user(command).await.unwrap(), UserDeleted::Deleted);
    let mut wrong = open(&ana, FIRST.next(), later(3));
    wrong.events = all_events();
    assert_eq!(store.open_session(wrong).await.unwrap(), SessionOpened::NotActive);
}

/// Coming back needs the password as it is.
pub async fn coming_back_needs_the_password(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    deleted(&store, ana.id, Some(1000)).await;
    let before = seen(&store).await;
    let stale = open(&ana, FIRST.next(), later(20));
    assert_eq!(store.open_session(stale).await.unwrap(), SessionOpened::Stale);
    assert_eq!(audited(&store).await.pop().as_deref(), Some("stale"));
    assert_eq!((seen(&store).await, read(&store, ana.id).await), (before, None));
}

/// What was sent before the deletion and is sent again is answered as before, and does nothing.
pub async fn what_is_sent_again_after_a_deletion_does_nothing(harness: &dyn StoreHarness) {
    for restorable in [None, Some(1000)] {
        let store = harness.fresh().await;
        let creation = create(ANA, NOW);
        assert!(matches!(store.create_user(creation.clone()).await.unwrap(), UserCreated::Created(_)));
        let sign_in = open(&read(&store, creation.id).await.unwrap(), FIRST, later(1));
        assert!(matches!(store.open_session(sign_in.clone()).await.unwrap(), SessionOpened::Opened(_)));
        deleted(&store, creation.id, restorable).await;
        let before = (seen(&store).await, audited(&store).await);
        let made = store.create_user(creation.clone()).await.unwrap();
        assert!(matches!(&made, UserCreated::Created(user) if user.id == creation.id), "{made:?}");
        let opened = store.open_session(sign_in.clone()).await.unwrap();
        assert!(matches!(&opened, SessionOpened::Opened(user) if user.id == creation.id), "{opened:?}");
        assert_eq!((seen(&store).await, audited(&store).await), before);
        assert!(!holds(&store, sign_in.session.id, later(11)).await);
        assert_eq!(read(&store, creation.id).await, None);
    }
}

/// A sign-in that meets the deletion of its user leaves no session that holds.
pub async fn no_session_outlives_a_deletion(harness: &dyn StoreHarness) {
    for round in 0..8 {
        let store = harness.fresh().await;
        let ana = user(&store, ANA).await;
        let id = ana.id;
        let sessions = at_once(&store, 6, move |store, n| {
            let command = open(&ana, FIRST, later(1));
            async move {
                if n == round % 6 {
                    let answer = store.delete_user(delete(command.user_id, later(1))).await.unwrap();
                    assert_eq!(answer, UserDeleted::Deleted);
                    return None;
                }
                let id = command.session.id;
                let answer = store.open_session(command).await.unwrap();
                assert!(matches!(answer, SessionOpened::Opened(_) | SessionOpened::NotActive), "{answer:?}");
                Some(id)
            }
        })
        .await;
        for session in sessions.into_iter().flatten() {
            assert!(!holds(&store, session, later(2)).await);
        }
        assert_eq!(read(&store, id).await, None);
    }
}

/// Sign-ins that bring a user back at once: the user comes back once, and all are signed in.
pub async fn sign_ins_at_once_bring_a_user_back_once(harness: &dyn StoreHarness) {
    for _ in 0..4 {
        let store = harness.fresh().await;
        let ana = user(&store, ANA).await;
        deleted(&store, ana.id, Some(1000)).await;
        let before = entries(&store).await.len();
        let sessions = at_once(&store, 6, move |store, _| {
            let ana = ana.clone();
            async move { opens(&store, &ana, 20).await }
        })
        .await;
        assert!(sessions.iter().all(Option::is_some), "{sessions:?}");
        let written = entries(&store).await.split_off(before);
        let returns = written.iter().filter(|entry| entry.event == AuditEvent::UserRestoration);
        assert_eq!((returns.count(), written.len()), (1, 7));
    }
}

/// Who comes back and somebody else who takes the address at once: one of them has it.
pub async fn an_address_has_one_user_after_a_return(harness: &dyn StoreHarness) {
    for _ in 0..8 {
        let store = harness.fresh().await;
        let old = user(&store, ANA).await;
        deleted(&store, old.id, Some(1000)).await;
        let id = old.id;
        let won = at_once(&store, 4, move |store, n| {
            let old = old.clone();
            async move {
                if n % 2 == 0 {
                    return opens(&store, &old, 20).await.map(|_| old.id);
                }
                match store.create_user(create(ANA, later(20))).await.unwrap() {
                    UserCreated::Created(user) => Some(user.id),
                    UserCreated::Taken => None,
                    UserCreated::NotPermitted => panic!("nobody was asked"),
                }
            }
        })
        .await;
        let mut won: Vec<_> = won.into_iter().flatten().collect();
        let signs_in = signs_in(&store, ANA, later(21)).await;
        assert!(won.iter().all(|winner| Some(*winner) == signs_in), "{won:?} {signs_in:?}");
        won.dedup();
        assert_eq!(won.len(), 1);
        assert_eq!(read(&store, id).await.is_some(), signs_in == Some(id));
    }
}
