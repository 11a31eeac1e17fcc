//! Laws of limits.

use time::Duration;

use super::StoreHarness;
use super::build::{
    ATTEMPTS, NOW, audit, audited, email, guard, later, open, owed, register, registered, request, right,
    rule, user, wrong,
};
use crate::domain::audit::AuditEvent;
use crate::domain::code::CodePurpose;
use crate::domain::password::PasswordVersion;
use crate::port::store::account::{CredentialsQuery, Registered};
use crate::port::store::code::{CodeRequested, Redeemed};
use crate::port::store::session::{LoginCounted, LoginFailed, SessionOpened};

const ANA: &str = "ana@example.org";

/// A limit holds for its window to the second, and says how long.
pub async fn a_limit_holds_to_the_second(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ask = |seconds| {
        let mut command = register(ANA, later(seconds));
        command.throttle =
            vec![rule("three", 3, Duration::minutes(10)), rule("many", 100, Duration::minutes(10))];
        command
    };
    for seconds in [0, 5, 10] {
        assert_eq!(store.register(ask(seconds)).await.unwrap(), Registered::Pending);
    }
    for (seconds, left) in [(11, 589), (599, 1)] {
        let retry_after = Duration::seconds(left);
        assert_eq!(store.register(ask(seconds)).await.unwrap(), Registered::Throttled { retry_after });
    }
    assert_eq!(store.register(ask(600)).await.unwrap(), Registered::Pending);
}

/// A request over a limit leaves nothing: no count, no row, no mail, no audit.
pub async fn a_refused_request_changes_nothing(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    user(&store, ANA).await;
    let (one, many) = (rule("one", 1, Duration::minutes(10)), rule("two", 2, Duration::minutes(10)));
    let ask = |rules: Vec<_>| {
        let mut command = request(ANA, CodePurpose::ResetPassword, NOW);
        command.throttle = rules;
        command
    };
    assert_eq!(store.request_code(ask(vec![one, many])).await.unwrap(), CodeRequested::Queued);
    let before = (audited(&store).await, owed(&store).await);
    for _ in 0..5 {
        let refused = store.request_code(ask(vec![one, many])).await.unwrap();
        assert!(matches!(refused, CodeRequested::Throttled { .. }), "{refused:?}");
    }
    assert_eq!((audited(&store).await, owed(&store).await), before);
    assert_eq!(
        store.request_code(ask(vec![many])).await.unwrap(),
        CodeRequested::Queued,
        "it was not counted"
    );
}

/// A clock that is set back an hour neither unlocks a limit nor freezes it for an hour.
pub async fn a_clock_set_back_neither_unlocks_nor_freezes(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ask = |seconds| {
        let mut command = register(ANA, later(seconds));
        command.throttle = vec![rule("one", 1, Duration::minutes(10))];
        command
    };
    store.register(ask(3600)).await.unwrap();
    let retry_after = Duration::minutes(10);
    assert_eq!(store.register(ask(0)).await.unwrap(), Registered::Throttled { retry_after });
}

/// Wrong tries are counted for the address over all its codes.
pub async fn the_day_budget_counts_across_codes(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let mut code = registered(&store, ANA).await;
    let budget = rule("budget", 2 * ATTEMPTS, Duration::DAY);
    for _ in 0..2 {
        for _ in 0..ATTEMPTS {
            let mut guess = wrong(ANA, &[code], later(1));
            guess.budget = Some(budget);
            assert_eq!(store.redeem(guess).await.unwrap(), Redeemed::Wrong);
        }
        let again = request(ANA, CodePurpose::EmailVerification, later(2));
        code = again.code.id;
        store.request_code(again).await.unwrap();
    }
    let mut guess = right(ANA, code, later(3));
    guess.budget = Some(budget);
    let refused = store.redeem(guess.clone()).await.unwrap();
    assert!(matches!(refused, Redeemed::Exhausted { .. }), "{refused:?}");
    guess.now = later(86_401 + 1);
    guess.audit = audit(AuditEvent::Verification);
    assert_eq!(
        store.redeem(guess).await.unwrap(),
        Redeemed::Expired,
        "the budget is free, the code is not live"
    );
}

/// Failures of an address from a network are counted to the cap, refuse even the right password, and are forgiven by a
/// sign-in before it.
pub async fn failed_sign_ins_are_counted_and_forgiven(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let fail = || async {
        let guard = Some(guard(ANA, "home", NOW));
        let command =
            LoginFailed { now: NOW, user_id: Some(ana.id), guard, audit: audit(AuditEvent::SignIn) };
        store.login_failed(command).await.unwrap()
    };
    let sign_in = || async {
        let mut command = open(&ana, PasswordVersion::FIRST, NOW);
        command.guard = Some(guard(ANA, "home", NOW));
        store.open_session(command).await.unwrap()
    };
    for _ in 0..2 {
        assert_eq!(fail().await, LoginCounted::Counted);
    }
    assert!(matches!(sign_in().await, SessionOpened::Opened(_)));
    for _ in 0..3 {
        assert_eq!(fail().await, LoginCounted::Counted);
    }
    let before = audited(&store).await;
    assert!(matches!(fail().await, LoginCounted::Throttled { .. }));
    assert!(matches!(sign_in().await, SessionOpened::Throttled { .. }), "past the cap nothing is learnt");
    assert_eq!(audited(&store).await, before);
}

/// Guesses from afar use up the budget of those from afar; a network that signed in keeps its own.
pub async fn known_networks_are_not_locked_out(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    store.open_session(open(&ana, PasswordVersion::FIRST, NOW)).await.unwrap();
    for n in 0..6 {
        let guard = Some(guard(ANA, &format!("stranger {n}"), NOW));
        let command =
            LoginFailed { now: NOW, user_id: Some(ana.id), guard, audit: audit(AuditEvent::SignIn) };
        assert_eq!(store.login_failed(command).await.unwrap(), LoginCounted::Counted);
    }
    let asked = |network: &'static str, now| {
        let query =
            CredentialsQuery { now, email: email(ANA).key().clone(), guard: Some(guard(ANA, network, now)) };
        async { store.credentials(query).await.unwrap().throttled.is_some() }
    };
    assert!(asked("another stranger", NOW).await);
    assert!(!asked("home", NOW).await);
    assert!(!asked("another stranger", later(86_400)).await, "a day later");
}
