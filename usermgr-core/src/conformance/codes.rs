//! Laws of registrations, codes and what they do.

use time::Duration;

use super::StoreHarness;
use super::build::{
    ATTEMPTS, NOW, SettleOne as _, audited, candidates, claim, code, create, email, guess, holds, invite,
    later, open, owed, password_of, register, registered, request, right, sent, set_password, user, verify,
    wrong,
};
use crate::domain::code::{CodeForm, CodePurpose};
use crate::domain::password::{PasswordHash, PasswordVersion};
use crate::domain::user::{Locale, Username};
use crate::port::store::account::{Registered, UserCreated};
use crate::port::store::code::{
    Candidate, CandidateFilter, CandidateQuery, CodeRequested, CodeTarget, Redeem, Redeemed,
};
use crate::port::store::outbox::{DeliveryResult, Settle, Settled};
use crate::port::store::session::{SessionKey, SessionQuery};

const ANA: &str = "ana@example.org";
const VERIFY: CodePurpose = CodePurpose::EmailVerification;

/// The same registration again is answered, not doubled.
pub async fn a_registration_is_begun_once(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let command = register(ANA, NOW);
    for _ in 0..2 {
        assert_eq!(store.register(command.clone()).await.unwrap(), Registered::Pending);
    }
    assert_eq!(owed(&store).await, ["verify_email to ana@example.org"]);
    assert_eq!(audited(&store).await, ["done"]);
    assert_eq!(candidates(&store, ANA, VERIFY, NOW).await.len(), 1);
}

/// Whoever registers a taken address learns nothing; its owner is told at the address as it is stored.
pub async fn a_taken_address_is_told_to_its_owner_only(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    user(&store, "Ana@example.org").await;
    assert_eq!(store.register(register("aNA@EXAMPLE.org", NOW)).await.unwrap(), Registered::Taken);
    assert_eq!(owed(&store).await, ["account_exists to Ana@example.org"]);
    assert_eq!(audited(&store).await, ["done", "email_taken"]);
    assert!(candidates(&store, ANA, VERIFY, NOW).await.is_empty());
}

/// A code is good for one redemption; the user it makes has what was registered.
pub async fn a_code_is_spent_once(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let code = registered(&store, ANA).await;
    let Redeemed::Redeemed(user) = store.redeem(right(ANA, code, later(1))).await.unwrap() else {
        panic!("refused")
    };
    assert_eq!(
        (user.email.as_str(), user.email_verified_at, user.last_login_at),
        (ANA, Some(later(1)), None)
    );
    assert_eq!(user.roles.iter().map(crate::domain::role::Role::as_str).collect::<Vec<_>>(), ["user"]);
    assert_eq!(
        password_of(&store, ANA).await,
        Some((Some(format!("registered {ANA}")), PasswordVersion::FIRST))
    );
    assert_eq!(owed(&store).await, ["verify_email to ana@example.org", "welcome to ana@example.org"]);
    assert_eq!(store.redeem(right(ANA, code, later(2))).await.unwrap(), Redeemed::Wrong);
    assert_eq!(audited(&store).await, ["done", "done", "invalid_code"]);
    assert_eq!(store.register(register(ANA, later(3))).await.unwrap(), Registered::Taken);

    let asked = request(ANA, CodePurpose::ResetPassword, later(4));
    store.request_code(asked.clone()).await.unwrap();
    let reset = |hash| {
        let effect = set_password(hash, None);
        guess(ANA, CodePurpose::ResetPassword, &[asked.code.id], Some(asked.code.id), effect, later(5))
    };
    assert!(matches!(store.redeem(reset("once")).await.unwrap(), Redeemed::Redeemed(_)));
    assert_eq!(store.redeem(reset("twice")).await.unwrap(), Redeemed::Wrong);
    assert_eq!(password_of(&store, ANA).await.unwrap().0.as_deref(), Some("once"));
}

/// A code's clock starts when its mail was handed over, and its registration bounds it before that.
pub async fn a_code_lives_from_its_hand_over(harness: &dyn StoreHarness) {
    for (seconds, alive) in [(7199 + 600, true), (7200 + 600, false)] {
        let store = harness.fresh().await;
        let code = registered(&store, ANA).await;
        let (lease, claimed) = claim(&store, later(7200)).await;
        let settle = Settle {
            now: later(7200),
            id: claimed[0].mail.id,
            lease,
            result: DeliveryResult::Sent { code_ttl: Some(Duration::minutes(10)) },
        };
        assert_eq!(store.settle(settle.clone()).await.unwrap(), Settled::Settled);
        assert_eq!(store.settle(settle).await.unwrap(), Settled::LostLease);
        let outcome = store.redeem(right(ANA, code, later(seconds))).await.unwrap();
        assert_eq!(matches!(outcome, Redeemed::Redeemed(_)), alive, "after {seconds} s: {outcome:?}");
    }
    let store = harness.fresh().await;
    let code = registered(&store, ANA).await;
    assert_eq!(store.redeem(right(ANA, code, later(86_400))).await.unwrap(), Redeemed::Expired);
}

/// A code that was handed over by a clock that has been set back since does not live the longer for it.
pub async fn a_code_of_a_clock_set_back_is_over(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let code = registered(&store, ANA).await;
    let (lease, claimed) = claim(&store, later(3600)).await;
    store.settle(sent(&claimed[0], lease, later(3600))).await.unwrap();
    let newer = registered(&store, ANA).await;
    for seconds in [0, 3599] {
        assert_eq!(
            store.redeem(right(ANA, code, later(seconds))).await.unwrap(),
            Redeemed::Expired,
            "{seconds}"
        );
    }
    let ambiguous = store.redeem(right(ANA, code, later(3600))).await.unwrap();
    assert_eq!(ambiguous, Redeemed::Ambiguous, "live when the clock is where it was");
    let settled = Redeem { settled: true, ..right(ANA, newer, NOW) };
    let outcome = store.redeem(settled).await.unwrap();
    assert!(matches!(outcome, Redeemed::Redeemed(_)), "{outcome:?}");
}

/// A right code too late is told apart from a wrong one, and counts nothing.
pub async fn a_right_code_too_late_is_expired(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let code = registered(&store, ANA).await;
    let (lease, claimed) = claim(&store, NOW).await;
    let result = DeliveryResult::Sent { code_ttl: Some(Duration::minutes(10)) };
    store.settle(Settle { now: NOW, id: claimed[0].mail.id, lease, result }).await.unwrap();
    let before = audited(&store).await;
    for _ in 0..7 {
        assert_eq!(store.redeem(right(ANA, code, later(600))).await.unwrap(), Redeemed::Expired);
    }
    assert_eq!(audited(&store).await, before, "it can be repeated, so it writes nothing");
    assert_eq!(candidates(&store, ANA, VERIFY, later(600)).await.len(), 1, "still known, to be told apart");
    assert_eq!(store.redeem(wrong(ANA, &[code], later(600))).await.unwrap(), Redeemed::Wrong);
}

/// Registrations of one address live side by side; completing one ends the others.
pub async fn a_code_completes_only_its_own_registration(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let first = registered(&store, ANA).await;
    let mut other = register("ANA@example.org", NOW);
    other.password = PasswordHash::new("mine");
    let (mine, id) = (other.code.id, other.id);
    store.register(other).await.unwrap();
    assert_eq!(store.redeem(right(ANA, mine, later(1))).await.unwrap(), Redeemed::Ambiguous);
    let which = CandidateFilter::Address {
        email: email(ANA).key().clone(),
        purposes: vec![VERIFY],
        registration: Some(id),
    };
    let only = store.candidates(CandidateQuery { now: NOW, which }).await.unwrap();
    assert_eq!(only.iter().map(|candidate| candidate.id).collect::<Vec<_>>(), [mine]);
    let mut settled = right(ANA, mine, later(1));
    settled.settled = true;
    assert!(matches!(store.redeem(settled).await.unwrap(), Redeemed::Redeemed(_)));
    assert_eq!(password_of(&store, ANA).await.unwrap().0.as_deref(), Some("mine"));
    assert_eq!(store.redeem(right(ANA, first, later(2))).await.unwrap(), Redeemed::Wrong);
    assert!(candidates(&store, ANA, VERIFY, later(2)).await.is_empty());
}

/// A new code voids the older one of the same owner, purpose and kind, and no other.
pub async fn a_new_code_voids_the_older_one(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    user(&store, ANA).await;
    let purpose = CodePurpose::ResetPassword;
    let ask = |form| {
        let mut command = request(ANA, purpose, NOW);
        command.code.form = form;
        command
    };
    let digits = code(NOW).form;
    let (older, link, newer) = (ask(digits), ask(CodeForm::Link), ask(digits));
    for command in [&older, &link, &newer] {
        assert_eq!(store.request_code(command.clone()).await.unwrap(), CodeRequested::Queued);
    }
    let open: Vec<_> =
        candidates(&store, ANA, purpose, NOW).await.iter().map(|candidate| candidate.id).collect();
    assert_eq!(open, [newer.code.id]);
    let by_link = |id| CandidateQuery { now: NOW, which: CandidateFilter::Link(id) };
    assert_eq!(store.candidates(by_link(link.code.id)).await.unwrap().len(), 1);
    assert!(store.candidates(by_link(newer.code.id)).await.unwrap().is_empty());
    let late = guess(ANA, purpose, &[older.code.id], Some(older.code.id), set_password("x", None), later(1));
    assert_eq!(store.redeem(late).await.unwrap(), Redeemed::Wrong);
    assert_eq!(store.request_code(newer).await.unwrap(), CodeRequested::Queued, "the same again is answered");
    assert_eq!(owed(&store).await.len(), 3);
}

/// After the allowed wrong tries the right code is refused; a new code has tries of its own.
pub async fn wrong_tries_use_a_code_up(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let first = registered(&store, ANA).await;
    for _ in 0..ATTEMPTS {
        assert_eq!(store.redeem(wrong(ANA, &[first], later(1))).await.unwrap(), Redeemed::Wrong);
    }
    let refused = store.redeem(right(ANA, first, later(1))).await.unwrap();
    assert!(matches!(refused, Redeemed::Exhausted { .. }), "{refused:?}");
    let again = request(ANA, VERIFY, later(2));
    store.request_code(again.clone()).await.unwrap();
    let redeemed = store.redeem(right(ANA, again.code.id, later(3))).await.unwrap();
    assert!(matches!(redeemed, Redeemed::Redeemed(_)), "{redeemed:?}");
    let reasons = audited(&store).await;
    assert_eq!(reasons.iter().filter(|reason| *reason == "invalid_code").count(), ATTEMPTS as usize);
}

/// A series of wrong guesses is answered alike whether or not there is a code.
pub async fn wrong_guesses_look_alike(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let code = registered(&store, ANA).await;
    store.request_code(request("nobody@example.org", VERIFY, NOW)).await.unwrap();
    for n in 0..2 * i64::from(ATTEMPTS) {
        let known = store.redeem(wrong(ANA, &[code], later(n))).await.unwrap();
        let unknown = store.redeem(wrong("nobody@example.org", &[], later(n))).await.unwrap();
        assert_eq!(known, unknown, "guess {n}");
    }
}

/// A code of a purpose is issued to those it is for, and to nobody else.
pub async fn whom_a_code_is_for(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let asked = |command| async { store.request_code(command).await.unwrap() };
    for purpose in CodePurpose::ALL {
        assert_eq!(asked(request(ANA, purpose, NOW)).await, CodeRequested::Nobody, "{purpose}");
    }
    let begun = register(ANA, NOW);
    let id = begun.id;
    store.register(begun).await.unwrap();
    assert_eq!(asked(request(ANA, CodePurpose::ResetPassword, NOW)).await, CodeRequested::Nobody);
    let mut of_it = request(ANA, VERIFY, NOW);
    of_it.target = CodeTarget::Registration(id);
    assert_eq!(asked(of_it.clone()).await, CodeRequested::Queued);
    let mut of_another_address = request("bob@example.org", VERIFY, NOW);
    of_another_address.target = CodeTarget::Registration(id);
    assert_eq!(asked(of_another_address).await, CodeRequested::Nobody);
    assert_eq!(asked(request(ANA, VERIFY, later(86_400))).await, CodeRequested::Nobody, "it is over");

    let mut invited = create("eva@example.org", NOW);
    (invited.password, invited.email_verified_at) = (None, None);
    let eva = invited.id;
    store.create_user(invited).await.unwrap();
    for (purpose, outcome) in
        [(CodePurpose::FirstTimeSetup, CodeRequested::Queued), (VERIFY, CodeRequested::Queued)]
    {
        assert_eq!(asked(request("eva@example.org", purpose, NOW)).await, outcome);
    }
    user(&store, "bob@example.org").await;
    for (purpose, outcome) in
        [(CodePurpose::FirstTimeSetup, CodeRequested::Nobody), (VERIFY, CodeRequested::Nobody)]
    {
        assert_eq!(asked(request("bob@example.org", purpose, NOW)).await, outcome);
    }
    let mut by_user = request("eva@example.org", CodePurpose::ChangePassword, NOW);
    by_user.target = CodeTarget::User(eva);
    assert_eq!(asked(by_user).await, CodeRequested::Queued);
}

/// A password set by a code ends every session, voids every code and link, and begins a new version.
pub async fn setting_a_password_ends_and_voids_everything(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let before = open(&ana, PasswordVersion::FIRST, NOW);
    store.open_session(before.clone()).await.unwrap();
    let purpose = CodePurpose::ResetPassword;
    let mut link = request(ANA, purpose, NOW);
    link.code.form = CodeForm::Link;
    let asked = request(ANA, purpose, NOW);
    for command in [&link, &asked] {
        store.request_code(command.clone()).await.unwrap();
    }
    let session = super::build::session(later(1));
    let effect = set_password("new", Some(session.clone()));
    let redeem = guess(ANA, purpose, &[asked.code.id], Some(asked.code.id), effect, later(1));
    let Redeemed::Redeemed(user) = store.redeem(redeem).await.unwrap() else { panic!("refused") };
    assert_eq!(user.last_login_at, Some(later(1)));
    assert_eq!(password_of(&store, ANA).await, Some((Some("new".into()), PasswordVersion::FIRST.next())));
    let store = &store;
    let holds = |id| async move {
        store.session(SessionQuery { now: later(2), key: SessionKey::Id(id) }).await.unwrap().is_some()
    };
    assert!(!holds(before.session.id).await);
    assert!(holds(session.id).await);
    let which = CandidateFilter::Link(link.code.id);
    assert!(store.candidates(CandidateQuery { now: later(2), which }).await.unwrap().is_empty());
}

/// Names, addresses, agents and languages come back as they went in.
pub async fn text_comes_back_as_it_went_in(harness: &dyn StoreHarness) {
    for name in
        ["O'Brien", "Robert'); DROP TABLE usermgr_users;--", "😀 שרה abc", "{{7*7}} %s $1 \\", "a\"b`c"]
    {
        let store = harness.fresh().await;
        let mut command = register("José.Ñandú@exámple.org", NOW);
        command.username = Some(Username::parse(name).unwrap());
        command.locale = Some(Locale::parse("es-MX").unwrap());
        let (code, address) = (command.code.id, command.email.clone());
        store.register(command).await.unwrap();
        let mut redeem = right("José.Ñandú@exámple.org", code, NOW);
        redeem.effect = verify();
        let Redeemed::Redeemed(user) = store.redeem(redeem).await.unwrap() else { panic!("refused") };
        let stored = store.user(user.id).await.unwrap().unwrap();
        assert_eq!(stored, *user);
        assert_eq!(stored.username.unwrap().as_str(), name);
        assert_eq!((stored.email, stored.locale.unwrap().as_str()), (address, "es-MX"));
    }
}

/// A new code leaves the codes of other purposes, of other users and of other registrations alone.
pub async fn a_new_code_leaves_the_others_alone(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    user(&store, ANA).await;
    user(&store, "bob@example.org").await;
    let (one, two) = (register("eva@example.org", NOW), register("eva@example.org", NOW));
    let mut of_one = request("eva@example.org", VERIFY, NOW);
    of_one.target = CodeTarget::Registration(one.id);
    let kept = two.code.id;
    for command in [one, two] {
        assert_eq!(store.register(command).await.unwrap(), Registered::Pending);
    }
    for command in [
        request(ANA, CodePurpose::ChangePassword, NOW),
        request("bob@example.org", CodePurpose::ResetPassword, NOW),
        request(ANA, CodePurpose::ResetPassword, NOW),
        of_one.clone(),
    ] {
        assert_eq!(store.request_code(command).await.unwrap(), CodeRequested::Queued);
    }
    for (address, purpose) in [
        (ANA, CodePurpose::ChangePassword),
        (ANA, CodePurpose::ResetPassword),
        ("bob@example.org", CodePurpose::ResetPassword),
    ] {
        assert_eq!(candidates(&store, address, purpose, NOW).await.len(), 1, "{purpose} of {address}");
    }
    let open = candidates(&store, "eva@example.org", VERIFY, NOW).await;
    assert_eq!(open.iter().map(|open| open.id).collect::<Vec<_>>(), [of_one.code.id, kept]);
}

/// A code ends with its registration, however long it was to live.
pub async fn a_code_dies_with_its_registration(harness: &dyn StoreHarness) {
    for (seconds, alive) in [(3599, true), (3600, false)] {
        let store = harness.fresh().await;
        let mut command = register(ANA, NOW);
        command.expires_at = later(3600);
        store.register(command).await.unwrap();
        let again = request(ANA, VERIFY, later(3000));
        let code = again.code.id;
        store.request_code(again).await.unwrap();
        let outcome = store.redeem(right(ANA, code, later(seconds))).await.unwrap();
        assert_eq!(matches!(outcome, Redeemed::Redeemed(_)), alive, "after {seconds} s: {outcome:?}");
        assert_eq!(outcome == Redeemed::Expired, !alive, "after {seconds} s: {outcome:?}");
    }
}

/// A right code of one of two live registrations is neither spent nor counted, until the other one is over.
pub async fn an_ambiguous_hit_changes_nothing(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let mut short = register(ANA, NOW);
    short.expires_at = later(100);
    store.register(short).await.unwrap();
    let code = registered(&store, ANA).await;
    for _ in 0..2 * ATTEMPTS {
        assert_eq!(store.redeem(right(ANA, code, later(99))).await.unwrap(), Redeemed::Ambiguous);
    }
    assert_eq!(audited(&store).await.len(), 2, "it can be repeated, so it writes nothing");
    assert_eq!(owed(&store).await.len(), 2);
    let outcome = store.redeem(right(ANA, code, later(100))).await.unwrap();
    assert!(matches!(outcome, Redeemed::Redeemed(_)), "{outcome:?}");
}

/// A wrong guess counts on every live code that it was compared with, and on no other.
pub async fn a_wrong_guess_counts_on_what_it_was_compared_with(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let compared = [registered(&store, ANA).await, registered(&store, ANA).await];
    let later_one = registered(&store, ANA).await;
    for _ in 0..ATTEMPTS {
        let mut guess = wrong(ANA, &compared, later(1));
        guess.tries.clear();
        assert_eq!(store.redeem(guess).await.unwrap(), Redeemed::Wrong);
    }
    for code in compared {
        let mut guess = right(ANA, code, later(2));
        guess.settled = true;
        guess.tries.clear();
        assert_eq!(store.redeem(guess).await.unwrap(), Redeemed::Wrong, "its tries are used up");
    }
    let ambiguous = right(ANA, later_one, later(3));
    assert_eq!(store.redeem(ambiguous).await.unwrap(), Redeemed::Ambiguous, "their registrations are there");
    let settled = Redeem { settled: true, ..right(ANA, later_one, later(3)) };
    let outcome = store.redeem(settled).await.unwrap();
    assert!(matches!(outcome, Redeemed::Redeemed(_)), "{outcome:?}");
}

/// A right code is ambiguous while another registration of its address is not over, whatever became of its code: used
/// up, run out, or void. Else a stranger, whose guesses end both codes, has the owner confirm the stranger's.
pub async fn another_registration_is_ambiguous_without_a_live_code(harness: &dyn StoreHarness) {
    for end in ["used up", "run out", "void"] {
        let store = harness.fresh().await;
        let owners = register(ANA, NOW);
        let of_owner = owners.code.id;
        store.register(owners.clone()).await.unwrap();
        match end {
            "used up" => {
                for _ in 0..ATTEMPTS {
                    store.redeem(wrong(ANA, &[of_owner], NOW)).await.unwrap();
                }
            }
            "run out" => {
                let (lease, claimed) = claim(&store, NOW).await;
                store.settle(sent(&claimed[0], lease, NOW)).await.unwrap();
            }
            _ => {
                let mut again = request(ANA, VERIFY, NOW);
                again.target = CodeTarget::Registration(owners.id);
                (again.code.dies_at, again.mail) = (later(1), super::build::mail(again.mail.kind));
                store.request_code(again).await.unwrap();
            }
        }
        let strangers = registered(&store, ANA).await;
        let outcome = store.redeem(right(ANA, strangers, later(900))).await.unwrap();
        assert_eq!(outcome, Redeemed::Ambiguous, "{end}");
    }
}

/// A request without the token of a registration chooses none of several of the address, and the only one of it.
pub async fn a_request_without_a_token_chooses_none_of_several(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let mut owners = register(ANA, NOW);
    owners.expires_at = later(3600);
    let of_owner = owners.id;
    store.register(owners).await.unwrap();
    assert_eq!(store.request_code(request(ANA, VERIFY, later(1))).await.unwrap(), CodeRequested::Queued);
    registered(&store, ANA).await;
    let before = owed(&store).await.len();
    assert_eq!(store.request_code(request(ANA, VERIFY, later(2))).await.unwrap(), CodeRequested::Nobody);
    assert_eq!(owed(&store).await.len(), before);
    let mut with_token = request(ANA, VERIFY, later(3));
    with_token.target = CodeTarget::Registration(of_owner);
    assert_eq!(store.request_code(with_token).await.unwrap(), CodeRequested::Queued);
    let only = store.request_code(request(ANA, VERIFY, later(3600))).await.unwrap();
    assert_eq!(only, CodeRequested::Queued, "the other one is over");
}

/// A request for nobody counts its limits, frees the guesses, and sends nothing to the owner of the address.
pub async fn a_request_for_nobody_sends_nothing(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    user(&store, ANA).await;
    let limit = super::build::rule("one", 1, Duration::HOUR);
    for purpose in [CodePurpose::ResetPassword, CodePurpose::ChangePassword] {
        let mut command = request(ANA, purpose, NOW);
        command.target = CodeTarget::Nobody;
        assert_eq!(store.request_code(command).await.unwrap(), CodeRequested::Nobody);
        assert!(candidates(&store, ANA, purpose, NOW).await.is_empty());
    }
    let mut counted = request(ANA, CodePurpose::ResetPassword, NOW);
    (counted.target, counted.throttle) = (CodeTarget::Nobody, vec![limit]);
    assert_eq!(store.request_code(counted).await.unwrap(), CodeRequested::Nobody);
    let mut refused = request(ANA, CodePurpose::ResetPassword, NOW);
    refused.throttle = vec![limit];
    let outcome = store.request_code(refused).await.unwrap();
    assert!(matches!(outcome, CodeRequested::Throttled { .. }), "{outcome:?}");
    assert!(owed(&store).await.is_empty());
}

/// A mail names its receiver only once the address is proven: until then a stranger may have typed the name.
pub async fn no_name_opens_a_mail_to_an_unproven_address(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let name = || Some(Username::parse("CALL +1 555 0100").unwrap());
    let mut registration = register(ANA, NOW);
    registration.username = name();
    let code = registration.code.id;
    store.register(registration).await.unwrap();
    store.request_code(request(ANA, VERIFY, NOW)).await.unwrap();
    let mut invited = invite("eva@example.org", NOW);
    invited.username = name();
    store.create_user(invited).await.unwrap();
    let named = |mails: Vec<crate::port::store::outbox::Claimed>| {
        mails
            .into_iter()
            .filter(|mail| mail.mail.username.is_some())
            .map(|mail| mail.mail.kind)
            .collect::<Vec<_>>()
    };
    assert_eq!(named(claim(&store, NOW).await.1), []);
    let _ = code;

    let mut proven = create("bob@example.org", NOW);
    proven.username = name();
    let bob = proven.id;
    store.create_user(proven).await.unwrap();
    let change = super::build::change_email(bob, "new@example.org", NOW);
    store.request_email_change(change).await.unwrap();
    let named = named(claim(&store, NOW).await.1);
    assert_eq!(
        named,
        [crate::domain::mail::MailKind::EmailChangeRequested],
        "not the code to the new address"
    );
}

/// Whoever asks for a code may guess again, also where there is nobody: the answers stay alike.
pub async fn a_request_frees_guesses_whoever_it_is_for(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    user(&store, ANA).await;
    let purpose = CodePurpose::ResetPassword;
    let mut code = None;
    for round in 0..3 {
        let now = later(round);
        for n in 0..=ATTEMPTS {
            let known: Vec<_> = code.into_iter().collect();
            let known = guess(ANA, purpose, &known, None, set_password("x", None), now);
            let unknown = guess("bob@example.org", purpose, &[], None, set_password("x", None), now);
            let (known, unknown) = (store.redeem(known).await.unwrap(), store.redeem(unknown).await.unwrap());
            assert_eq!(known, unknown, "guess {n} of round {round}");
            assert_eq!(known == Redeemed::Wrong, n < ATTEMPTS, "guess {n} of round {round}");
        }
        let asked = request(ANA, purpose, now);
        code = Some(asked.code.id);
        assert_eq!(store.request_code(asked).await.unwrap(), CodeRequested::Queued);
        let asked = request("bob@example.org", purpose, now);
        assert_eq!(store.request_code(asked).await.unwrap(), CodeRequested::Nobody);
    }
}

/// An invitation sets the first password and proves the address.
pub async fn an_invitation_sets_the_first_password(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let command = invite(ANA, NOW);
    let Some((code, _)) = command.invitation else { panic!("an invitation has a code") };
    for _ in 0..2 {
        let made = store.create_user(command.clone()).await.unwrap();
        assert!(matches!(made, UserCreated::Created(_)), "the same again is answered: {made:?}");
    }
    assert_eq!(password_of(&store, ANA).await, Some((None, PasswordVersion::NONE)));
    assert_eq!(owed(&store).await, ["first_time_setup to ana@example.org"]);
    let session = super::build::session(later(1));
    let effect = set_password("first", Some(session.clone()));
    let redeem = guess(ANA, CodePurpose::FirstTimeSetup, &[code.id], Some(code.id), effect, later(1));
    let Redeemed::Redeemed(user) = store.redeem(redeem).await.unwrap() else { panic!("refused") };
    assert_eq!((user.email_verified_at, user.last_login_at), (Some(later(1)), Some(later(1))));
    assert_eq!(password_of(&store, ANA).await, Some((Some("first".into()), PasswordVersion::FIRST)));
    assert!(holds(&store, session.id, later(2)).await);
    let again = request(ANA, CodePurpose::FirstTimeSetup, later(2));
    assert_eq!(store.request_code(again).await.unwrap(), CodeRequested::Nobody, "it has a password now");
}

/// Of a registration, a set password is the user's first instead of the registered one.
pub async fn a_password_may_be_set_with_the_registration(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let code = registered(&store, ANA).await;
    let session = super::build::session(later(1));
    let mut redeem = right(ANA, code, later(1));
    redeem.effect = set_password("set", Some(session.clone()));
    let Redeemed::Redeemed(user) = store.redeem(redeem).await.unwrap() else { panic!("refused") };
    assert_eq!(user.last_login_at, Some(later(1)));
    assert_eq!(password_of(&store, ANA).await, Some((Some("set".into()), PasswordVersion::FIRST)));
    assert!(holds(&store, session.id, later(2)).await);
    assert_eq!(owed(&store).await, ["verify_email to ana@example.org", "welcome to ana@example.org"]);
}

/// Candidates come the live ones first, then the newest, and never too many.
pub async fn candidates_come_in_order(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (first, mut over, last) = (register(ANA, NOW), register(ANA, NOW), register(ANA, NOW));
    over.expires_at = later(10);
    let ids = [last.code.id, first.code.id, over.code.id];
    for command in [first, over, last] {
        store.register(command).await.unwrap();
    }
    let found = candidates(&store, ANA, VERIFY, later(10)).await;
    assert_eq!(found.iter().map(|found| found.id).collect::<Vec<_>>(), ids);
    for _ in 0..Candidate::MOST {
        registered(&store, ANA).await;
    }
    let found = candidates(&store, ANA, VERIFY, later(10)).await;
    assert_eq!(found.len(), Candidate::MOST);
    assert!(found.iter().all(|found| !ids.contains(&found.id)), "the newest of the live ones");
}
