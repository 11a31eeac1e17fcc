//! Laws of limits.

use time::Duration;

use super::StoreHarness;
use super::build::{
    ATTEMPTS, NOW, audit, audited, create, delete, digest, email, failed, guard, guess, later, open, owed,
    register, registered, request, right, rule, set_password, user, wrong,
};
use crate::domain::audit::AuditEvent;
use crate::domain::code::CodePurpose;
use crate::domain::password::PasswordVersion;
use crate::port::store::account::{
    CreateUser, CredentialsQuery, KnownNetwork, LimitsQuery, LimitsView, Registered,
};
use crate::port::store::code::{CodeRequested, Redeem, Redeemed};
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
    assert!(matches!(store.register(ask(599)).await.unwrap(), Registered::Throttled { .. }));
    assert_eq!(
        store.register(ask(600)).await.unwrap(),
        Registered::Pending,
        "not frozen until the clock is back"
    );

    // Failed sign-ins the same, though the read before the hash sees nothing yet.
    let bob = user(&store, "bob@example.org").await;
    let fail = |seconds| failed(Some(bob.id), guard("bob@example.org", "cafe", NOW), later(seconds));
    for _ in 0..3 {
        assert_eq!(store.login_failed(fail(86_400)).await.unwrap(), LoginCounted::Counted);
    }
    let wait = |retry_after| LoginCounted::Throttled { retry_after };
    assert_eq!(store.login_failed(fail(0)).await.unwrap(), wait(Duration::minutes(15)));
    assert_eq!(store.login_failed(fail(899)).await.unwrap(), wait(Duration::SECOND));
    assert_eq!(store.login_failed(fail(900)).await.unwrap(), LoginCounted::Counted);
}

/// A look at limits sees what a command would be told, and changes nothing.
pub async fn a_look_sees_what_a_command_would_be_told(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let rules = vec![rule("two", 2, Duration::minutes(10)), rule("many", 9, Duration::minutes(20))];
    let look = async |seconds: i64| {
        let query = LimitsQuery { now: later(seconds), rules: rules.clone(), network: None };
        store.limits(query).await.unwrap().wait(&rules)
    };
    for n in 0..2 {
        assert_eq!(look(n).await, None);
        let command = register(&format!("u{n}@example.org"), later(n));
        store
            .register(crate::port::store::account::Register { throttle: rules.clone(), ..command })
            .await
            .unwrap();
    }
    assert_eq!(look(60).await, Some(Duration::minutes(9)));
    assert_eq!(look(599).await, Some(Duration::SECOND));
    assert_eq!(look(600).await, None);
    assert_eq!(look(-86_400).await, None, "a clock that was set back: the command decides");
    let none = LimitsQuery { now: NOW, rules: Vec::new(), network: None };
    let nothing = LimitsView { used_up: [].into(), is_known: false };
    assert_eq!(store.limits(none).await.unwrap(), nothing);
}

/// A read of limits tells the network that signed in to the account of an address from every other.
pub async fn a_look_knows_networks_that_signed_in(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, bob) = (user(&store, ANA).await, user(&store, "bob@example.org").await);
    store.open_session(open(&ana, PasswordVersion::FIRST, NOW)).await.unwrap();
    let store = &store;
    let knows = async |address: &str, network: &str, since| {
        let network = KnownNetwork { email: email(address).key().clone(), network: digest(network), since };
        let query = LimitsQuery { now: later(60), rules: Vec::new(), network: Some(network) };
        store.limits(query).await.unwrap().is_known
    };
    assert!(knows(ANA, "home", NOW).await);
    assert!(!knows(ANA, "home", later(1)).await, "signed in before then");
    assert!(!knows(ANA, "elsewhere", NOW).await);
    assert!(!knows(bob.email.as_str(), "home", NOW).await, "of another account");
    assert!(!knows("nobody@example.org", "home", NOW).await);
    store.delete_user(delete(ana.id, later(61))).await.unwrap();
    assert!(!knows(ANA, "home", NOW).await, "deleted");
}

/// A code is dead after its guesses, also while a budget refuses every one of them: none of them could be judged later.
pub async fn a_code_dies_of_guesses_past_a_budget(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for is_right in [false, true] {
        let code = registered(&store, ANA).await;
        let budget = rule(&format!("budget {is_right}"), 1, Duration::HOUR);
        let guess = |hit: bool, now| Redeem {
            hit: hit.then_some(code),
            budgets: vec![budget],
            tries: Vec::new(),
            settled: true,
            ..wrong(ANA, &[code], now)
        };
        let before = Redeem { candidates: Vec::new(), ..guess(false, NOW) };
        assert_eq!(store.redeem(before).await.unwrap(), Redeemed::Wrong, "the budget is used up by it");
        for n in 0..ATTEMPTS {
            let refused = store.redeem(guess(is_right, later(1))).await.unwrap();
            let retry_after = Duration::seconds(3599);
            assert_eq!(refused, Redeemed::Exhausted { retry_after }, "guess {n}, right: {is_right}");
        }
        let late = store.redeem(guess(true, later(3600))).await.unwrap();
        assert_eq!(late, Redeemed::Wrong, "the budget is free, the code is dead; right: {is_right}");
    }
}

/// Past a budget the first refusal is audited, and no other until the window ends.
pub async fn one_refusal_past_a_budget_is_audited(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let code = registered(&store, ANA).await;
    let [own, network] = [rule("own", 2, Duration::HOUR), rule("network", 9, Duration::HOUR)];
    let guess = |seconds| Redeem {
        budgets: vec![own, network],
        tries: Vec::new(),
        ..wrong(ANA, &[code], later(seconds))
    };
    for n in 0..20 {
        store.redeem(guess(n)).await.unwrap();
    }
    let reasons = audited(&store).await;
    // One when the address' budget began to refuse, one when the network's did.
    assert_eq!(reasons[1..], ["invalid_code", "invalid_code", "too_many_attempts", "too_many_attempts"]);
    for n in 3600..3604 {
        store.redeem(guess(n)).await.unwrap();
    }
    assert_eq!(audited(&store).await[5..], ["invalid_code", "invalid_code", "too_many_attempts"]);
}

/// Wrong tries are counted for the address over all its codes.
pub async fn the_day_budget_counts_across_codes(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let mut code = registered(&store, ANA).await;
    let budget = rule("budget", 2 * ATTEMPTS, Duration::DAY);
    for _ in 0..2 {
        for _ in 0..ATTEMPTS {
            let mut guess = wrong(ANA, &[code], later(1));
            guess.budgets = vec![budget];
            assert_eq!(store.redeem(guess).await.unwrap(), Redeemed::Wrong);
        }
        let again = request(ANA, CodePurpose::EmailVerification, later(2));
        code = again.code.id;
        store.request_code(again).await.unwrap();
    }
    let mut guess = right(ANA, code, later(3));
    guess.budgets = vec![budget];
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

/// A guess at codes of several purposes is judged while the counter of one of them is free.
pub async fn a_guess_is_judged_while_one_counter_is_free(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let [one, other] = [CodePurpose::ResetPassword, CodePurpose::EmailVerification];
    let at_both = |now| {
        let mut guess = guess(ANA, one, &[], None, set_password("x", None), now);
        guess.tries.push(super::build::tries(ANA, other));
        guess
    };
    for n in 0..ATTEMPTS {
        let at_one = guess(ANA, one, &[], None, set_password("x", None), NOW);
        assert_eq!(store.redeem(at_one).await.unwrap(), Redeemed::Wrong, "guess {n}");
    }
    for n in 0..ATTEMPTS {
        assert_eq!(store.redeem(at_both(NOW)).await.unwrap(), Redeemed::Wrong, "guess {n} at both");
    }
    let refused = store.redeem(at_both(NOW)).await.unwrap();
    assert!(matches!(refused, Redeemed::Exhausted { .. }), "{refused:?}");
}

/// A guess that is right counts nothing and begins no window, also when it is refused.
pub async fn a_right_guess_counts_nothing(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let code = registered(&store, ANA).await;
    registered(&store, ANA).await;
    let attempt = |guess: Redeem| Redeem {
        tries: vec![rule("two", 2, Duration::minutes(10))],
        budgets: vec![rule("three", 3, Duration::DAY)],
        ..guess
    };
    let hit = attempt(right(ANA, code, NOW));
    assert_eq!(store.redeem(hit).await.unwrap(), Redeemed::Ambiguous);
    for seconds in [599, 601] {
        let guess = attempt(wrong(ANA, &[], later(seconds)));
        assert_eq!(store.redeem(guess).await.unwrap(), Redeemed::Wrong, "after {seconds} s");
    }
    let refused = store.redeem(attempt(wrong(ANA, &[], later(601)))).await.unwrap();
    let retry_after = Duration::seconds(599 + 600 - 601);
    assert_eq!(refused, Redeemed::Exhausted { retry_after }, "the window began with the first wrong one");
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

/// Wrong tries are counted for the address over all purposes, for the length of a window, and the right code is
/// refused as well.
pub async fn the_day_budget_counts_across_purposes(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = CreateUser { email_verified_at: None, ..create(ANA, NOW) };
    store.create_user(ana).await.unwrap();
    let asked = request(ANA, CodePurpose::ResetPassword, NOW);
    let code = asked.code.id;
    store.request_code(asked).await.unwrap();
    let budget = rule("budget", 4, Duration::DAY);
    let purposes = [CodePurpose::ResetPassword, CodePurpose::EmailVerification];
    let attempt = |n: i64, hit: Option<_>| {
        let purpose = purposes[usize::from(n % 2 == 1)];
        let mut guess = guess(ANA, purpose, &[], hit, set_password("x", None), later(n));
        guess.budgets = vec![budget];
        guess
    };
    for n in 0..4 {
        assert_eq!(store.redeem(attempt(n, None)).await.unwrap(), Redeemed::Wrong, "guess {n}");
    }
    let before = owed(&store).await;
    for n in [4, 5, 86_399] {
        let retry_after = Duration::seconds(86_400 - n);
        let refused = store.redeem(attempt(n, Some(code))).await.unwrap();
        assert_eq!(refused, Redeemed::Exhausted { retry_after }, "after {n} s");
    }
    assert_eq!(owed(&store).await, before);
    assert_eq!(audited(&store).await[6..], ["too_many_attempts"]);
    assert_eq!(store.redeem(attempt(86_400, None)).await.unwrap(), Redeemed::Wrong, "a day later");
}

/// A request counts whatever comes of it, so that limits tell nobody whether an address is known.
pub async fn a_refusal_counts_as_much_as_a_success(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    user(&store, ANA).await;
    for address in [ANA, "new@example.org"] {
        for n in 0..3 {
            let mut command = register(address, NOW);
            command.throttle = vec![rule(&format!("register {address}"), 2, Duration::HOUR)];
            let outcome = store.register(command).await.unwrap();
            assert_eq!(matches!(outcome, Registered::Throttled { .. }), n == 2, "{address}: {outcome:?}");
        }
    }
    for address in [ANA, "nobody@example.org"] {
        for n in 0..3 {
            let mut command = request(address, CodePurpose::ResetPassword, NOW);
            command.throttle = vec![rule(&format!("request {address}"), 2, Duration::HOUR)];
            let outcome = store.request_code(command).await.unwrap();
            assert_eq!(matches!(outcome, CodeRequested::Throttled { .. }), n == 2, "{address}: {outcome:?}");
        }
    }
}

/// Of several limits that are used up, the longest wait is told.
pub async fn the_longest_wait_is_told(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ask = |now| {
        let mut command = register(ANA, now);
        command.throttle = vec![
            rule("a minute", 1, Duration::MINUTE),
            rule("an hour", 1, Duration::HOUR),
            rule("ten minutes", 1, Duration::minutes(10)),
        ];
        command
    };
    assert_eq!(store.register(ask(NOW)).await.unwrap(), Registered::Pending);
    let retry_after = Duration::HOUR - Duration::seconds(30);
    assert_eq!(store.register(ask(later(30))).await.unwrap(), Registered::Throttled { retry_after });
}

/// A sign-in forgives the failures of its own address and network, and no others.
pub async fn a_sign_in_forgives_no_other_failures(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let limits = |network: &str| {
        let mut limits = guard(ANA, network, NOW);
        (limits.network.limit, limits.far.limit) = (4, 4);
        limits
    };
    for _ in 0..2 {
        let counted = store.login_failed(failed(Some(ana.id), limits("home"), NOW)).await.unwrap();
        assert_eq!(counted, LoginCounted::Counted);
    }
    let mut sign_in = open(&ana, PasswordVersion::FIRST, NOW);
    sign_in.guard = Some(limits("home"));
    assert!(matches!(store.open_session(sign_in).await.unwrap(), SessionOpened::Opened(_)));
    // The network has two of four; from it, own begins anew.
    for counted in [true, true, false] {
        let outcome = store.login_failed(failed(Some(ana.id), limits("home"), NOW)).await.unwrap();
        assert_eq!(outcome == LoginCounted::Counted, counted, "from home: {outcome:?}");
    }
    // Those from afar had two of four before home was known; home's later ones are none of theirs.
    for counted in [true, true, false] {
        let outcome = store.login_failed(failed(Some(ana.id), limits("away"), NOW)).await.unwrap();
        assert_eq!(outcome == LoginCounted::Counted, counted, "from away: {outcome:?}");
    }
}

/// Failures at an address without a user are counted and answered like any other.
pub async fn failures_look_alike_without_a_user(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    for n in 0..6 {
        let known = guard(ANA, "here", NOW);
        let unknown = guard("nobody@example.org", "there", NOW);
        let query = |address: &str, guard| {
            let email = email(address).key().clone();
            store.credentials(CredentialsQuery { now: later(n), email, guard: Some(guard) })
        };
        let views = (query(ANA, known).await.unwrap(), query("nobody@example.org", unknown).await.unwrap());
        assert_eq!(views.0.throttled, views.1.throttled, "before failure {n}");
        assert_eq!(views.0.throttled.is_some(), n >= 3, "before failure {n}");
        let known = store.login_failed(failed(Some(ana.id), known, later(n))).await.unwrap();
        let unknown = store.login_failed(failed(None, unknown, later(n))).await.unwrap();
        assert_eq!(known, unknown, "failure {n}");
    }
    assert_eq!(audited(&store).await[1..], ["invalid_credentials"; 6]);
}

/// A network that signed in too long ago is one from afar again.
pub async fn a_network_is_known_for_a_while(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    store.open_session(open(&ana, PasswordVersion::FIRST, NOW)).await.unwrap();
    let month = 30 * 86_400;
    for (now, refused) in [(month, false), (month + 1, true)] {
        let mut limits = guard(ANA, "home", later(now));
        limits.far.limit = 0;
        let email = email(ANA).key().clone();
        let query = CredentialsQuery { now: later(now), email, guard: Some(limits) };
        assert_eq!(store.credentials(query).await.unwrap().throttled.is_some(), refused, "after {now} s");
    }
}
