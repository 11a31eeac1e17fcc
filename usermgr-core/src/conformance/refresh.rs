//! Laws of refresh tokens, and of the list of sessions.

use std::sync::Arc;

use super::StoreHarness;
use super::build::{
    GRACE, NOW, audited, delete, digest, disable, end, entries, holds, later, open, outbox, replace, rotate,
    session, signed_in, update, user,
};
use super::races::at_once;
use crate::domain::audit::AuditEvent;
use crate::domain::id::SessionId;
use crate::domain::password::PasswordVersion;
use crate::domain::secret::Digest;
use crate::domain::user::{User, UserStatus};
use crate::port::store::Store;
use crate::port::store::account::{UserChange, UserUpdated};
use crate::port::store::session::{
    NewSession, Rotate, Rotated, SessionKey, SessionOpened, SessionQuery, SessionSelector, SessionView,
    SessionsQuery,
};

const ANA: &str = "ana@example.org";
const FIRST: PasswordVersion = PasswordVersion::FIRST;

/// A user with a session of which the idle end is at 1000 seconds and the absolute end at 2000.
async fn short(store: &Arc<dyn Store>, address: &str) -> (User, NewSession) {
    let user = user(store, address).await;
    let mut command = open(&user, FIRST, NOW);
    (command.session.idle_expires_at, command.session.expires_at) = (later(1000), later(2000));
    let session = command.session.clone();
    store.open_session(command).await.unwrap();
    (user, session)
}

async fn renewed(store: &Arc<dyn Store>, command: Rotate) -> SessionView {
    match store.rotate(command).await.unwrap() {
        Rotated::Rotated(view) => *view,
        outcome => panic!("not renewed: {outcome:?}"),
    }
}

async fn view(store: &Arc<dyn Store>, key: SessionKey, seconds: i64) -> Option<SessionView> {
    store.session(SessionQuery { now: later(seconds), key }).await.unwrap()
}

/// The reasons of the audit log that follow the first `before` entries.
async fn audited_after(store: &Arc<dyn Store>, before: usize) -> Vec<String> {
    audited(store).await.split_off(before)
}

/// A token is renewed once: its successor is the current one, and the session was seen now.
pub async fn a_refresh_token_is_renewed_once(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let new = signed_in(&store, &ana, NOW).await;
    let mut command = rotate(new.id, new.refresh, "second", later(60));
    command.idle_expires_at = later(7000);
    let entry = command.audit.id;
    let seen = renewed(&store, command).await;
    assert_eq!((seen.session.id, seen.user.id, seen.password_version), (new.id, ana.id, FIRST));
    assert_eq!((seen.session.created_at, seen.session.authenticated_at), (NOW, NOW));
    assert_eq!((seen.session.last_seen_at, seen.session.idle_expires_at), (later(60), later(7000)));
    assert_eq!((seen.session.expires_at, seen.session.ip), (new.expires_at, new.ip));
    assert_eq!(view(&store, SessionKey::Id(new.id), 61).await, Some(seen));
    let written = entries(&store).await.pop().unwrap();
    assert_eq!((written.id, written.event, written.at), (entry, AuditEvent::SessionRefresh, later(60)));
    assert_eq!((written.subject, written.reason), (Some(ana.id), None));
    assert!(outbox(&store).await.is_empty());
    renewed(&store, rotate(new.id, digest("second"), "third", later(61))).await;
    renewed(&store, rotate(new.id, digest("third"), "fourth", later(62))).await;
}

/// A renewal moves the idle end, and never past the absolute one.
pub async fn a_renewal_moves_the_idle_end_to_the_absolute_end_at_most(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, new) = short(&store, ANA).await;
    let until = |presented, next, seconds, idle| Rotate {
        idle_expires_at: later(idle),
        ..rotate(new.id, presented, next, later(seconds))
    };
    let seen = renewed(&store, until(new.refresh, "second", 500, 1500)).await;
    assert_eq!((seen.session.idle_expires_at, seen.session.expires_at), (later(1500), later(2000)));
    assert!(holds(&store, new.id, later(1499)).await && !holds(&store, new.id, later(1500)).await);
    let seen = renewed(&store, until(digest("second"), "third", 1400, 2400)).await;
    assert_eq!((seen.session.idle_expires_at, seen.session.expires_at), (later(2000), later(2000)));
    assert!(holds(&store, new.id, later(1999)).await && !holds(&store, new.id, later(2000)).await);
    renewed(&store, until(digest("third"), "fourth", 1999, 2999)).await;
    let late = store.rotate(until(digest("fourth"), "fifth", 2000, 3000)).await.unwrap();
    assert_eq!(late, Rotated::Ended { owner: Some(ana.id) });
}

/// What ends a session before it is renewed.
#[derive(Debug, Clone, Copy)]
enum End {
    SignOut,
    Disabled,
    NewPassword,
    Deleted,
}

/// A session that is over is not renewed, to the second, and nothing is written: anybody can ask for ever.
pub async fn no_session_that_is_over_is_renewed(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for (n, (absolute, seconds, over)) in [
        (false, 999, false),
        (false, 1000, true),
        (false, 1001, true),
        (true, 999, false),
        (true, 1000, true),
        (true, 1001, true),
    ]
    .into_iter()
    .enumerate()
    {
        let ana = user(&store, &format!("u{n}@example.org")).await;
        let mut command = open(&ana, FIRST, NOW);
        let session = &mut command.session;
        let ends = if absolute { &mut session.expires_at } else { &mut session.idle_expires_at };
        *ends = later(1000);
        let new = session.clone();
        store.open_session(command).await.unwrap();
        let before = audited(&store).await.len();
        let answer = store.rotate(rotate(new.id, new.refresh, "second", later(seconds))).await.unwrap();
        let ended = Rotated::Ended { owner: Some(ana.id) };
        assert_eq!(answer == ended, over, "{absolute} {seconds}: {answer:?}");
        assert_eq!(audited_after(&store, before).await.len(), usize::from(!over));
    }
    for (n, how) in [End::SignOut, End::Disabled, End::NewPassword, End::Deleted].into_iter().enumerate() {
        let ana = user(&store, &format!("e{n}@example.org")).await;
        let new = signed_in(&store, &ana, NOW).await;
        let seen = renewed(&store, rotate(new.id, new.refresh, "second", later(9))).await;
        assert_eq!(seen.session.last_seen_at, later(9));
        match how {
            End::SignOut => {
                store.end_sessions(end(ana.id, SessionSelector::All, later(10))).await.map(|_| ()).unwrap();
            }
            End::Disabled => store.update_user(disable(ana.id, later(10))).await.map(|_| ()).unwrap(),
            End::NewPassword => {
                store.replace_password(replace(ana.id, FIRST, later(10))).await.map(|_| ()).unwrap();
            }
            End::Deleted => store.delete_user(delete(ana.id, later(10))).await.map(|_| ()).unwrap(),
        }
        let before = audited(&store).await.len();
        for presented in [digest("second"), new.refresh, digest("never")] {
            let command = rotate(new.id, presented, "third", later(11));
            let access = SessionKey::Access(command.access.unwrap().0);
            let ended = Rotated::Ended { owner: Some(ana.id) };
            assert_eq!(store.rotate(command).await.unwrap(), ended, "{how:?}");
            assert!(view(&store, access, 11).await.is_none(), "{how:?}");
        }
        assert!(audited_after(&store, before).await.is_empty(), "{how:?}");
    }
    let unknown = session(NOW);
    let answer = store.rotate(rotate(unknown.id, unknown.refresh, "second", later(1))).await.unwrap();
    assert_eq!(answer, Rotated::Ended { owner: None });
}

/// A client that asks twice within the grace gets the successor of the first time, and no token changes.
pub async fn a_renewal_asked_for_twice_has_one_successor(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let grace = GRACE.whole_seconds();
    for (n, (seconds, repeated)) in [
        (100, true),
        (100 + grace - 1, true),
        (100 + grace, false),
        (100 + grace + 1, false),
        (99, true),
        (101 - grace, true),
        (100 - grace, false),
    ]
    .into_iter()
    .enumerate()
    {
        let ana = user(&store, &format!("u{n}@example.org")).await;
        let new = signed_in(&store, &ana, NOW).await;
        let first = renewed(&store, rotate(new.id, new.refresh, "second", later(100))).await;
        let before = audited(&store).await.len();
        let mut again = rotate(new.id, new.refresh, "second", later(seconds));
        again.next = vec![digest("under a newer key"), digest("second")];
        again.idle_expires_at = later(1);
        let access = again.access.unwrap().0;
        let answer = store.rotate(again).await.unwrap();
        if !repeated {
            assert_eq!(answer, Rotated::Reused, "after {seconds} s");
            assert_eq!(audited_after(&store, before).await, ["token_reused"]);
            assert!(!holds(&store, new.id, later(200)).await);
            continue;
        }
        let Rotated::Repeated { view: seen, successor } = answer else { panic!("{seconds} s: {answer:?}") };
        assert_eq!((successor, *seen), (1, first.clone()), "nothing of the session changed");
        assert_eq!(audited_after(&store, before).await, ["done"]);
        let by_access = view(&store, SessionKey::Access(access), seconds).await;
        assert_eq!(by_access, Some(first), "the access token is good");
        renewed(&store, rotate(new.id, digest("second"), "third", later(seconds + 1))).await;
    }
}

/// The very same renewal sent again is answered, and doubles nothing.
pub async fn a_renewal_sent_again_is_one(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let new = signed_in(&store, &ana, NOW).await;
    let mut command = rotate(new.id, new.refresh, "second", later(1));
    let seen = renewed(&store, command.clone()).await;
    command.audit = rotate(new.id, new.refresh, "second", later(1)).audit;
    let again = store.rotate(command.clone()).await.unwrap();
    assert_eq!(again, Rotated::Repeated { view: Box::new(seen.clone()), successor: 0 });
    let access = command.access.unwrap().0;
    assert_eq!(view(&store, SessionKey::Access(access), 2).await, Some(seen));
}

/// A token that was used up, and one that never was, end the session: the current one is dead too.
pub async fn a_used_token_ends_its_session(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let successor_used = [("second", 2), ("third", 3)].as_slice();
    let older = [("second", 2), ("third", 3), ("fourth", 4)].as_slice();
    let late = [("second", 2)].as_slice();
    let (soon, too_late) = (5, 2 + GRACE.whole_seconds());
    for (n, (renewals, presented, seconds)) in [
        (successor_used, None, soon),
        (older, None, soon),
        (older, Some("second"), soon),
        (late, None, too_late),
        (late, Some("never issued"), soon),
        ([].as_slice(), Some("never issued"), soon),
    ]
    .into_iter()
    .enumerate()
    {
        let ana = user(&store, &format!("u{n}@example.org")).await;
        let (new, other) = (signed_in(&store, &ana, NOW).await, signed_in(&store, &ana, NOW).await);
        let (mut current, mut tokens) = (new.refresh, vec![new.access.unwrap().0]);
        for (next, at) in renewals {
            let command = rotate(new.id, current, next, later(*at));
            tokens.extend(command.access.map(|(digest, _)| digest));
            renewed(&store, command).await;
            current = digest(next);
        }
        let before = audited(&store).await.len();
        let presented = presented.map_or(new.refresh, digest);
        let stolen = rotate(new.id, presented, "stolen", later(seconds));
        tokens.extend(stolen.access.map(|(digest, _)| digest));
        assert_eq!(store.rotate(stolen).await.unwrap(), Rotated::Reused, "case {n}");
        assert!(!holds(&store, new.id, later(seconds)).await, "case {n}");
        for token in tokens {
            assert!(view(&store, SessionKey::Access(token), seconds).await.is_none(), "case {n}");
        }
        let answer = store.rotate(rotate(new.id, current, "next", later(seconds + 1))).await.unwrap();
        let ended = Rotated::Ended { owner: Some(ana.id) };
        assert_eq!(answer, ended, "case {n}: the current token is dead too");
        assert_eq!(audited_after(&store, before).await, ["token_reused"], "case {n}");
        assert!(holds(&store, other.id, later(seconds)).await, "another session goes on");
    }
}

/// The token before is used up, too, when its successor is not among those that it may have.
pub async fn a_repeated_renewal_names_its_successor(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let new = signed_in(&store, &ana, NOW).await;
    renewed(&store, rotate(new.id, new.refresh, "second", later(1))).await;
    let answer = store.rotate(rotate(new.id, new.refresh, "another", later(2))).await.unwrap();
    assert_eq!(answer, Rotated::Reused);
    assert!(!holds(&store, new.id, later(2)).await);
}

/// Opaque access tokens of before a renewal are good until their own end.
pub async fn access_tokens_outlive_a_renewal(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let new = signed_in(&store, &ana, NOW).await;
    let (first, first_ends) = new.access.unwrap();
    let command = rotate(new.id, new.refresh, "second", later(600));
    let (second, second_ends) = command.access.unwrap();
    renewed(&store, command).await;
    let none = Rotate { access: None, ..rotate(new.id, digest("second"), "third", later(601)) };
    renewed(&store, none).await;
    for (token, ends_at) in [(first, first_ends), (second, second_ends)] {
        let key = SessionKey::Access(token);
        let seconds = (ends_at - NOW).whole_seconds();
        assert_eq!(view(&store, key, seconds - 1).await.unwrap().session.id, new.id);
        assert!(view(&store, key, seconds).await.is_none());
    }
}

/// Of callers that renew by one token at once, one renews and all get the same successor; the session goes on.
pub async fn one_of_many_renews_a_session(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let new = signed_in(&store, &ana, NOW).await;
    let (id, first) = (new.id, new.refresh);
    let answers = at_once(&store, 16, move |store, _| async move {
        let command = rotate(id, first, "second", later(1));
        (command.access.unwrap().0, store.rotate(command).await.unwrap())
    })
    .await;
    let mut rotated = 0;
    for (access, answer) in answers {
        match answer {
            Rotated::Rotated(_) => rotated += 1,
            Rotated::Repeated { successor, .. } => assert_eq!(successor, 0),
            other => panic!("{other:?}"),
        }
        assert!(view(&store, SessionKey::Access(access), 2).await.is_some());
    }
    assert_eq!(rotated, 1);
    assert!(holds(&store, id, later(2)).await);
    renewed(&store, rotate(id, digest("second"), "third", later(2))).await;
    let answer = store.rotate(rotate(id, first, "second", later(3))).await.unwrap();
    assert_eq!(answer, Rotated::Reused, "no other token is current");
}

/// Renews many times while something ends the session: it is over, whichever came first.
async fn renewed_while<F>(harness: &dyn StoreHarness, ends: impl Fn(Arc<dyn Store>, User) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    for round in 0..8 {
        let store = harness.fresh().await;
        let ana = user(&store, ANA).await;
        let new = signed_in(&store, &ana, NOW).await;
        let (id, first) = (new.id, new.refresh);
        let answers = at_once(&store, 6, |store, n| {
            let ended = (n == round % 6).then(|| ends(Arc::clone(&store), ana.clone()));
            async move {
                let Some(ended) = ended else {
                    return Some(store.rotate(rotate(id, first, "second", later(1))).await.unwrap());
                };
                ended.await;
                None
            }
        })
        .await;
        let rotated = answers.iter().flatten().filter(|answer| matches!(answer, Rotated::Rotated(_))).count();
        assert!(rotated <= 1, "{answers:?}");
        assert!(answers.iter().flatten().all(|answer| *answer != Rotated::Reused), "{answers:?}");
        assert_over(&store, id, [first, digest("second")]).await;
    }
}

async fn assert_over(store: &Arc<dyn Store>, id: SessionId, tokens: [Digest; 2]) {
    assert!(!holds(store, id, later(2)).await);
    for presented in tokens {
        let answer = store.rotate(rotate(id, presented, "third", later(2))).await.unwrap();
        assert!(matches!(answer, Rotated::Ended { .. }), "{answer:?}");
    }
}

/// A renewal that meets a sign-out does not outlive it.
pub async fn no_renewal_outlives_a_sign_out(harness: &dyn StoreHarness) {
    renewed_while(harness, |store, ana| async move {
        store.end_sessions(end(ana.id, SessionSelector::All, later(1))).await.unwrap();
    })
    .await;
}

/// A renewal that meets its user's being disabled does not outlive it, also when the user is enabled again.
pub async fn no_renewal_outlives_a_disabled_user(harness: &dyn StoreHarness) {
    renewed_while(harness, |store, ana| async move {
        store.update_user(disable(ana.id, later(1))).await.unwrap();
        let enabled = UserChange { status: Some(UserStatus::Active), ..UserChange::default() };
        let answer = store.update_user(update(ana.id, enabled, later(1))).await.unwrap();
        assert!(matches!(answer, UserUpdated::Updated(_)), "{answer:?}");
    })
    .await;
}

/// The sessions of a user that hold are listed, the one that was renewed last first, and nobody else's.
pub async fn sessions_are_listed_as_they_were_renewed(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, bob) = (user(&store, ANA).await, user(&store, "bob@example.org").await);
    let mut mine = Vec::new();
    for seconds in [0, 10, 20] {
        mine.push(signed_in(&store, &ana, later(seconds)).await);
    }
    let others = signed_in(&store, &bob, later(5)).await;
    renewed(&store, rotate(mine[0].id, mine[0].refresh, "second", later(30))).await;
    let listed = |user_id, seconds| {
        let (store, query) = (Arc::clone(&store), SessionsQuery { now: later(seconds), user_id });
        async move { store.sessions(query).await.unwrap() }
    };
    let seen = listed(ana.id, 40).await;
    assert_eq!(ids(&seen), [mine[0].id, mine[2].id, mine[1].id]);
    for session in &seen {
        let held = view(&store, SessionKey::Id(session.id), 40).await.unwrap();
        assert_eq!(*session, held.session);
    }
    assert_eq!(ids(&listed(bob.id, 40).await), [others.id]);
    assert!(listed(super::build::user_id(), 40).await.is_empty());
    store.end_sessions(end(ana.id, SessionSelector::One(mine[2].id), later(41))).await.unwrap();
    assert_eq!(ids(&listed(ana.id, 41).await), [mine[0].id, mine[1].id]);
    let idle = (mine[1].idle_expires_at - NOW).whole_seconds();
    assert_eq!(ids(&listed(ana.id, idle - 1).await), [mine[0].id, mine[1].id]);
    assert_eq!(ids(&listed(ana.id, idle).await), [mine[0].id], "the other's idle end has come");
    store.replace_password(replace(ana.id, FIRST, later(42))).await.unwrap();
    assert!(listed(ana.id, 43).await.is_empty());
    store.update_user(disable(bob.id, later(42))).await.unwrap();
    assert!(listed(bob.id, 43).await.is_empty());
}

fn ids(sessions: &[crate::domain::session::Session]) -> Vec<SessionId> {
    sessions.iter().map(|session| session.id).collect()
}

/// No more sessions are listed than fit, the latest ones.
pub async fn the_latest_sessions_are_listed(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let mut made = Vec::new();
    for seconds in 0..=i64::try_from(SessionsQuery::MOST).unwrap() {
        let command = open(&ana, FIRST, later(seconds));
        made.push(command.session.id);
        let opened = store.open_session(command).await.unwrap();
        assert!(matches!(opened, SessionOpened::Opened(_)), "{opened:?}");
    }
    made.reverse();
    made.pop();
    let query = SessionsQuery { now: later(1000), user_id: ana.id };
    assert_eq!(ids(&store.sessions(query).await.unwrap()), made);
}
