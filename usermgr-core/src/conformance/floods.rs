//! Laws of what a client can repeat at will: it does not write without end.

use time::Duration;

use super::StoreHarness;
use super::build::{
    NOW, audited, delete, digest, email, end, entries, events, failed, guard, holds, later, open, outbox,
    record, replace, rotate, rule, seen, signed_in, update, user,
};
use super::races::at_once;
use crate::domain::audit::AuditOutcome;
use crate::domain::password::PasswordVersion;
use crate::domain::user::Username;
use crate::port::store::account::{
    CredentialsQuery, LimitsQuery, PasswordReplaced, UserChange, UserDeleted, UserUpdated,
};
use crate::port::store::audit::Recorded;
use crate::port::store::session::{LoginCounted, Rotated, SessionOpened, SessionSelector, SessionsEnded};

const ANA: &str = "ana@example.org";
const FIRST: PasswordVersion = PasswordVersion::FIRST;
const WINDOW: Duration = Duration::minutes(15);

/// Past a limit, one entry of the window says so, and later refusals leave nothing. The next window begins anew.
pub async fn refusals_end_with_one_last_entry(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let limit = rule("refusals", 3, WINDOW);
    let wait = |seconds| Recorded::Throttled { retry_after: Duration::seconds(900 - seconds) };
    for seconds in 0..3 {
        let recorded = store.record(record(&[limit], later(seconds))).await.unwrap();
        assert_eq!(recorded, Recorded::Recorded);
    }
    for seconds in [3, 4, 5, 899] {
        assert_eq!(store.record(record(&[limit], later(seconds))).await.unwrap(), wait(seconds));
        let expected = ["forbidden", "forbidden", "forbidden", "too_many_attempts"];
        assert_eq!(audited(&store).await, expected, "after {seconds} s");
    }
    let written = entries(&store).await;
    assert!(written.iter().all(|entry| entry.outcome == AuditOutcome::Refused));
    // A look by the rule that is one more finds that the last entry is there.
    let look = async |rule| {
        let query = LimitsQuery { now: later(10), rules: vec![rule], network: None };
        !store.limits(query).await.unwrap().used_up.is_empty()
    };
    assert!(look(limit.past()).await && !look(limit.past().past()).await);
    assert_eq!(store.record(record(&[limit], later(900))).await.unwrap(), Recorded::Recorded);
    // Without limits everything is recorded.
    for _ in 0..5 {
        assert_eq!(store.record(record(&[], later(901))).await.unwrap(), Recorded::Recorded);
    }
    assert_eq!(audited(&store).await.len(), 4 + 1 + 5);
}

/// An entry counts on each of its limits, and one that is past ends it for all.
pub async fn an_entry_counts_on_each_of_its_limits(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (one, other) = (rule("one", 2, WINDOW), rule("other", 2, WINDOW));
    let wide = rule("wide", 4, Duration::HOUR);
    let ask = |narrow, seconds| store.record(record(&[narrow, wide], later(seconds)));
    for narrow in [one, one, one, one, one] {
        ask(narrow, 0).await.unwrap();
    }
    // Two entries and the last one: the wide limit has counted three.
    assert_eq!(audited(&store).await.len(), 3);
    assert_eq!(ask(other, 1).await.unwrap(), Recorded::Recorded);
    let last = Recorded::Throttled { retry_after: Duration::HOUR - Duration::seconds(2) };
    assert_eq!(ask(other, 2).await.unwrap(), last);
    assert_eq!(ask(rule("third", 2, WINDOW), 2).await.unwrap(), last);
    assert_eq!(audited(&store).await[3..], ["forbidden", "too_many_attempts"]);
}

/// Of many refusals at once, as many are recorded as the limit has, and one last one.
pub async fn limits_of_entries_hold_in_a_race(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let limits = [rule("network", 5, WINDOW), rule("wide", 40, WINDOW)];
    let answers = at_once(&store, 16, |store, _| async move { store.record(record(&limits, NOW)).await });
    let recorded = answers.await.into_iter().filter(|one| matches!(one, Ok(Recorded::Recorded))).count();
    assert_eq!(recorded, 5);
    let last = audited(&store).await.into_iter().filter(|reason| reason == "too_many_attempts").count();
    assert_eq!((audited(&store).await.len(), last), (6, 1));
}

/// A write to one's own account over a limit changes nothing and is not audited.
pub async fn own_writes_over_a_limit_change_nothing(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let session = signed_in(&store, &ana, NOW).await;
    let throttle = vec![rule("own writes", 2, WINDOW)];
    let rename = |name: &str, seconds| {
        let username = Some(Some(Username::parse(name).unwrap()));
        let mut command = update(ana.id, UserChange { username, ..UserChange::default() }, later(seconds));
        command.throttle.clone_from(&throttle);
        command
    };
    for name in ["Ana", "Anna"] {
        let updated = store.update_user(rename(name, 1)).await.unwrap();
        assert!(matches!(updated, UserUpdated::Updated(_)), "{updated:?}");
    }
    let before = (seen(&store).await, audited(&store).await, events(&store).await);
    let retry_after = Duration::seconds(900 - 9);
    let over = store.update_user(rename("Anne", 10)).await.unwrap();
    assert_eq!(over, UserUpdated::Throttled { retry_after });
    let mut command = replace(ana.id, FIRST, later(10));
    command.throttle.clone_from(&throttle);
    let over = store.replace_password(command).await.unwrap();
    assert_eq!(over, PasswordReplaced::Throttled { retry_after });
    let mut command = delete(ana.id, later(10));
    command.throttle.clone_from(&throttle);
    assert_eq!(store.delete_user(command).await.unwrap(), UserDeleted::Throttled { retry_after });
    assert_eq!((seen(&store).await, audited(&store).await, events(&store).await), before);
    assert!(holds(&store, session.id, later(10)).await);
    let free = store.update_user(rename("Anne", 901)).await.unwrap();
    assert!(matches!(free, UserUpdated::Updated(_)), "{free:?}");
    // What an administrator does counts on no limit of the user.
    let mut free = delete(ana.id, later(902));
    free.throttle.clear();
    assert_eq!(store.delete_user(free).await.unwrap(), UserDeleted::Deleted);
}

/// A change that changes nothing is answered, and neither an entry nor an event tells of it.
pub async fn a_change_of_nothing_is_not_audited(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let username = Some(Some(Username::parse("Ana").unwrap()));
    let change = UserChange { username, ..UserChange::default() };
    store.update_user(update(ana.id, change.clone(), later(1))).await.unwrap();
    let before = (seen(&store).await, audited(&store).await, events(&store).await);
    for change in [change, UserChange::default()] {
        let mut command = update(ana.id, change, later(2));
        command.events = super::build::all_events();
        let UserUpdated::Updated(same) = store.update_user(command).await.unwrap() else { panic!() };
        assert_eq!(same.updated_at, later(1));
    }
    assert_eq!((seen(&store).await, audited(&store).await, events(&store).await), before);
}

/// Ending sessions that are over, or never were, leaves nothing.
pub async fn ending_no_session_is_not_audited(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let bob = user(&store, "bob@example.org").await;
    let (session, other) = (signed_in(&store, &ana, NOW).await, signed_in(&store, &bob, NOW).await);
    let one = SessionSelector::One(session.id);
    assert_eq!(store.end_sessions(end(ana.id, one, later(1))).await.unwrap(), SessionsEnded::Ended(1));
    let before = audited(&store).await;
    for which in [one, SessionSelector::One(other.id), SessionSelector::All] {
        let mut command = end(ana.id, which, later(2));
        command.events = super::build::all_events();
        assert_eq!(store.end_sessions(command).await.unwrap(), SessionsEnded::Ended(0));
    }
    assert_eq!(audited(&store).await, before);
    assert!(events(&store).await.is_empty() && outbox(&store).await.is_empty());
    assert!(holds(&store, other.id, later(2)).await);
}

/// A renewal over the limit changes nothing: the token goes on, and renews when the limit is free.
pub async fn renewals_over_a_limit_change_nothing(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let session = signed_in(&store, &ana, NOW).await;
    let renew = async |presented, next: &str, seconds| {
        let mut command = rotate(session.id, presented, next, later(seconds));
        command.throttle = vec![rule("renewals", 2, WINDOW)];
        store.rotate(command).await.unwrap()
    };
    assert!(matches!(renew(session.refresh, "second", 0).await, Rotated::Rotated(_)));
    // The same again within the grace: it grants an access token, so it counts too.
    assert!(matches!(renew(session.refresh, "second", 1).await, Rotated::Repeated { .. }));
    let before = audited(&store).await;
    let (first, second) = (session.refresh, digest("second"));
    for (presented, next, seconds) in [(second, "third", 2), (first, "second", 3), (second, "third", 899)] {
        let retry_after = Duration::seconds(900 - seconds);
        assert_eq!(renew(presented, next, seconds).await, Rotated::Throttled { retry_after });
    }
    assert_eq!(audited(&store).await, before);
    assert!(holds(&store, session.id, later(899)).await);
    assert!(matches!(renew(digest("second"), "third", 900).await, Rotated::Rotated(_)));
}

/// A token that was used up ends its session, however many renewals there were.
pub async fn no_limit_hides_a_used_token(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let session = signed_in(&store, &ana, NOW).await;
    let renew = async |presented, next: &str, seconds| {
        let mut command = rotate(session.id, presented, next, later(seconds));
        command.throttle = vec![rule("renewals", 2, WINDOW)];
        store.rotate(command).await.unwrap()
    };
    renew(session.refresh, "second", 0).await;
    renew(digest("second"), "third", 1).await;
    assert!(matches!(renew(digest("third"), "fourth", 2).await, Rotated::Throttled { .. }));
    assert_eq!(renew(session.refresh, "fourth", 3).await, Rotated::Reused);
    assert!(!holds(&store, session.id, later(3)).await);
}

/// A clock that is set back an hour neither unlocks renewals nor freezes them for an hour.
pub async fn a_limit_on_renewals_neither_unlocks_nor_freezes(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let session = signed_in(&store, &ana, NOW).await;
    let renew = async |presented, next: &str, seconds| {
        let mut command = rotate(session.id, presented, next, later(seconds));
        command.throttle = vec![rule("renewals", 1, WINDOW)];
        store.rotate(command).await.unwrap()
    };
    assert!(matches!(renew(session.refresh, "second", 3600).await, Rotated::Rotated(_)));
    let second = digest("second");
    assert_eq!(renew(second, "third", 0).await, Rotated::Throttled { retry_after: WINDOW });
    let retry_after = Duration::SECOND;
    assert_eq!(renew(second, "third", 899).await, Rotated::Throttled { retry_after });
    assert!(matches!(renew(second, "third", 900).await, Rotated::Rotated(_)));
}

/// Sessions that are opened with the right password are limited too; over the limit nothing changes.
pub async fn sign_ins_that_succeed_are_limited(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let sign_in = |seconds| {
        let mut command = open(&ana, FIRST, later(seconds));
        command.throttle = vec![rule("sign-ins", 2, WINDOW)];
        command
    };
    let again = sign_in(0);
    for command in [again.clone(), again, sign_in(1)] {
        let opened = store.open_session(command).await.unwrap();
        assert!(matches!(opened, SessionOpened::Opened(_)), "the same command counts once: {opened:?}");
    }
    let before = (seen(&store).await, audited(&store).await);
    let over = sign_in(2);
    let id = over.session.id;
    let retry_after = Duration::seconds(898);
    assert_eq!(store.open_session(over).await.unwrap(), SessionOpened::Throttled { retry_after });
    assert!(!holds(&store, id, later(2)).await);
    assert_eq!((seen(&store).await, audited(&store).await), before);
    let free = store.open_session(sign_in(900)).await.unwrap();
    assert!(matches!(free, SessionOpened::Opened(_)), "{free:?}");
}

/// Failures from many networks of one wide network are limited together, and other networks are not touched.
pub async fn a_wide_network_is_limited_over_all_of_its_networks(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let limits = |network: usize, wide: &str| {
        let mut limits = guard(&format!("u{network}@example.org"), &format!("network {network}"), NOW);
        limits.wide = Some(rule(wide, 4, WINDOW));
        limits
    };
    for network in 0..4 {
        let counted = store.login_failed(failed(None, limits(network, "wide"), NOW)).await.unwrap();
        assert_eq!(counted, LoginCounted::Counted);
    }
    let over = store.login_failed(failed(None, limits(4, "wide"), later(1))).await.unwrap();
    assert_eq!(over, LoginCounted::Throttled { retry_after: Duration::seconds(899) });
    let look = async |guard| {
        let email = email("u9@example.org").key().clone();
        store
            .credentials(CredentialsQuery { now: later(1), email, guard: Some(guard) })
            .await
            .unwrap()
            .throttled
    };
    assert_eq!(look(limits(9, "wide")).await, Some(Duration::seconds(899)));
    assert_eq!(look(limits(9, "another")).await, None);
    // The right password from there is not looked at either; a success forgives nobody else's failures.
    let ana = user(&store, ANA).await;
    let mut sign_in = open(&ana, FIRST, later(2));
    sign_in.guard = Some(limits(5, "wide"));
    let refused = store.open_session(sign_in.clone()).await.unwrap();
    assert!(matches!(refused, SessionOpened::Throttled { .. }), "{refused:?}");
    sign_in.guard = Some(limits(5, "another"));
    let opened = store.open_session(sign_in).await.unwrap();
    assert!(matches!(opened, SessionOpened::Opened(_)), "{opened:?}");
    assert_eq!(look(limits(9, "wide")).await, Some(Duration::seconds(899)));
}
