//! Laws of renewing sessions.

use std::sync::Arc;

use time::{Duration, OffsetDateTime};

use super::StoreHarness;
use super::build::{NOW, audit, audited, digest, end, holds, later, open, replace, user};
use super::races::at_once;
use crate::domain::audit::AuditEvent;
use crate::domain::id::SessionId;
use crate::domain::password::PasswordVersion;
use crate::port::store::Store;
use crate::port::store::session::{
    OpenSession, Rotate, Rotated, SessionKey, SessionQuery, SessionSelector, SessionsQuery,
};

const ANA: &str = "ana@example.org";
const FIRST: PasswordVersion = PasswordVersion::FIRST;

/// A session of Ana's that lives 1000 seconds without being renewed and 5000 in all.
async fn signed_in(store: &Arc<dyn Store>) -> OpenSession {
    let ana = user(store, ANA).await;
    let mut command = open(&ana, FIRST, NOW);
    command.session.refresh = digest("token 0");
    (command.session.idle_expires_at, command.session.expires_at) = (later(1000), later(5000));
    store.open_session(command.clone()).await.unwrap();
    command
}

/// Renews by token `n`, of which token `n + 1` is the successor, under the second of two keys.
pub(super) fn rotate(id: SessionId, n: u32, now: OffsetDateTime) -> Rotate {
    Rotate {
        now,
        id,
        presented: digest(&format!("token {n}")),
        next: vec![digest(&format!("token {}", n + 1)), digest(&format!("other token {}", n + 1))],
        access: None,
        idle_expires_at: now + Duration::seconds(1000),
        grace: Duration::seconds(10),
        audit: audit(AuditEvent::SessionRefresh),
    }
}

fn kind(outcome: &Rotated) -> &'static str {
    match outcome {
        Rotated::Rotated(_) => "rotated",
        Rotated::Repeated { .. } => "repeated",
        Rotated::Reused => "reused",
        Rotated::Ended => "ended",
    }
}

async fn rotated(store: &Arc<dyn Store>, id: SessionId, n: u32, seconds: i64) -> &'static str {
    kind(&store.rotate(rotate(id, n, later(seconds))).await.unwrap())
}

/// Renewing moves the idle end, never past the absolute one, and adds an access token beside the one before.
pub async fn a_renewal_moves_the_idle_end_up_to_the_absolute_one(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let command = signed_in(&store).await;
    let id = command.session.id;
    let renewed = Rotate { access: Some((digest("access 1"), later(2000))), ..rotate(id, 0, later(999)) };
    let Rotated::Rotated(view) = store.rotate(renewed).await.unwrap() else { panic!("refused") };
    assert_eq!((view.session.last_seen_at, view.session.idle_expires_at), (later(999), later(1999)));
    assert_eq!((view.session.authenticated_at, view.session.created_at), (NOW, NOW));
    let mut seconds = 999;
    for n in 1..5 {
        seconds += 999;
        assert_eq!(rotated(&store, id, n, seconds).await, "rotated");
    }
    let found = store.session(SessionQuery { now: later(4999), key: SessionKey::Id(id) }).await.unwrap();
    assert_eq!(found.unwrap().session.idle_expires_at, later(5000), "the absolute end");
    assert_eq!(rotated(&store, id, 5, 4999).await, "rotated");
    assert_eq!(rotated(&store, id, 6, 5000).await, "ended");
    let (before, _) = command.session.access.unwrap();
    for (token, seconds, good) in [
        (before, 899, true),
        (before, 900, false),
        (digest("access 1"), 1999, true),
        (digest("access 1"), 2000, false),
    ] {
        let query = SessionQuery { now: later(seconds), key: SessionKey::Access(token) };
        assert_eq!(store.session(query).await.unwrap().is_some(), good, "after {seconds} s");
    }
}

/// A session that is over is not renewed, whatever ended it.
pub async fn a_session_that_is_over_is_not_renewed(harness: &dyn StoreHarness) {
    for (seconds, answer) in [(999, "rotated"), (1000, "ended")] {
        let store = harness.fresh().await;
        let id = signed_in(&store).await.session.id;
        assert_eq!(rotated(&store, id, 0, seconds).await, answer, "after {seconds} s");
    }
    let store = harness.fresh().await;
    let command = signed_in(&store).await;
    let id = command.session.id;
    store.replace_password(replace(command.user_id, FIRST, later(1))).await.unwrap();
    assert_eq!(rotated(&store, id, 0, 2).await, "ended");
    let store = harness.fresh().await;
    let command = signed_in(&store).await;
    store.end_sessions(end(command.user_id, SessionSelector::All, later(1))).await.unwrap();
    assert_eq!(rotated(&store, command.session.id, 0, 2).await, "ended");
    let nobody = SessionId::from_uuid(uuid::Uuid::nil());
    assert_eq!(rotated(&store, nobody, 0, 2).await, "ended");
    assert_eq!(audited(&store).await, ["done", "done", "done", "session_ended", "session_ended"]);
}

/// The token before counts for a while, until its successor is used; whoever asks gets the successor that is current.
pub async fn asking_twice_is_answered_the_same(harness: &dyn StoreHarness) {
    for (seconds, answer) in [(0, "repeated"), (9, "repeated"), (10, "reused")] {
        let store = harness.fresh().await;
        let id = signed_in(&store).await.session.id;
        assert_eq!(rotated(&store, id, 0, 100).await, "rotated");
        let mut again = rotate(id, 0, later(100 + seconds));
        // By now another secret key is in force.
        again.next.insert(0, digest("a newer key's"));
        let outcome = store.rotate(again).await.unwrap();
        assert_eq!(kind(&outcome), answer, "{seconds} s later");
        if let Rotated::Repeated { view, successor } = outcome {
            assert_eq!((view.session.id, successor), (id, 1));
            assert_eq!(view.session.last_seen_at, later(100), "it was renewed once");
            assert_eq!(rotated(&store, id, 1, 110).await, "rotated");
        }
    }
    let store = harness.fresh().await;
    let id = signed_in(&store).await.session.id;
    assert_eq!(rotated(&store, id, 0, 100).await, "rotated");
    assert_eq!(rotated(&store, id, 0, 99).await, "reused", "a clock that was set back opens no grace");
    let store = harness.fresh().await;
    let id = signed_in(&store).await.session.id;
    assert_eq!(rotated(&store, id, 0, 100).await, "rotated");
    let unknown = Rotate { next: vec![digest("of a lost key")], ..rotate(id, 0, later(101)) };
    assert_eq!(kind(&store.rotate(unknown).await.unwrap()), "reused", "a successor that nobody can tell");
}

/// A token that was used up ends its session at once, and the token in force with it.
pub async fn a_used_up_token_ends_its_session(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let id = signed_in(&store).await.session.id;
    for n in 0..3 {
        assert_eq!(rotated(&store, id, n, i64::from(n)).await, "rotated");
    }
    assert_eq!(rotated(&store, id, 1, 3).await, "reused", "within the grace, but its successor was used");
    assert!(!holds(&store, id, later(3)).await);
    assert_eq!(rotated(&store, id, 3, 4).await, "ended");
    let log = audited(&store).await;
    assert_eq!(log[log.len() - 2..], ["token_reused", "session_ended"]);
}

/// A user's sessions that hold, the one that was renewed last first, and nobody else's.
pub async fn sessions_that_hold_are_listed(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let first = signed_in(&store).await;
    let ana = store.user(first.user_id).await.unwrap().unwrap();
    let bob = user(&store, "bob@example.org").await;
    let (second, ended) = (open(&ana, FIRST, later(1)), open(&ana, FIRST, later(2)));
    for command in [second.clone(), ended.clone(), open(&bob, FIRST, later(3))] {
        store.open_session(command).await.unwrap();
    }
    store.end_sessions(end(ana.id, SessionSelector::One(ended.session.id), later(3))).await.unwrap();
    assert_eq!(rotated(&store, first.session.id, 0, 4).await, "rotated");
    let listed = async |seconds| -> Vec<SessionId> {
        let query = SessionsQuery { now: later(seconds), user_id: ana.id };
        store.sessions(query).await.unwrap().iter().map(|session| session.id).collect()
    };
    assert_eq!(listed(5).await, [first.session.id, second.session.id]);
    assert_eq!(listed(1004).await, [second.session.id], "one is over by itself");
}

/// Of 16 that renew by one token, one rotates, all get the same successor, and the session goes on.
pub async fn parallel_renewals_are_one(harness: &dyn StoreHarness) {
    for round in 0..4 {
        let store = harness.fresh().await;
        let id = signed_in(&store).await.session.id;
        let answers = at_once(&store, 16, move |store, n| async move {
            let access = Some((digest(&format!("access {round} {n}")), later(900)));
            store.rotate(Rotate { access, ..rotate(id, 0, later(1)) }).await.unwrap()
        })
        .await;
        let of = |name| answers.iter().filter(|answer| kind(answer) == name).count();
        assert_eq!((of("rotated"), of("repeated")), (1, 15), "{answers:?}");
        for answer in &answers {
            assert!(!matches!(answer, Rotated::Repeated { successor, .. } if *successor != 0));
        }
        for n in 0..16 {
            let key = SessionKey::Access(digest(&format!("access {round} {n}")));
            assert!(store.session(SessionQuery { now: later(2), key }).await.unwrap().is_some(), "tab {n}");
        }
        assert_eq!(rotated(&store, id, 1, 2).await, "rotated");
    }
}

/// A session that is ended while it is renewed is over.
pub async fn no_renewal_outlives_the_end_of_its_session(harness: &dyn StoreHarness) {
    for _ in 0..8 {
        let store = harness.fresh().await;
        let command = signed_in(&store).await;
        let (id, user_id) = (command.session.id, command.user_id);
        at_once(&store, 8, move |store, n| async move {
            if n == 0 {
                store.end_sessions(end(user_id, SessionSelector::All, later(1))).await.unwrap();
            } else {
                drop(store.rotate(rotate(id, 0, later(1))).await.unwrap());
            }
        })
        .await;
        assert!(!holds(&store, id, later(1)).await);
        assert_eq!(rotated(&store, id, 1, 2).await, "ended");
    }
}
