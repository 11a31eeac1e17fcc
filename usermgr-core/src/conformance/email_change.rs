//! Laws of the change of an address: confirmed from the new one, undone from the old one.

use std::sync::Arc;

use time::Duration;

use super::StoreHarness;
use super::build::{
    ATTEMPTS, NOW, all_events, audited, candidates, change_email, claim, confirm, confirming, create, delete,
    disable, email, entries, events, follow, guess, holds, invite, later, outbox, owed, password_of, purge,
    read, replace, request, rule, seen, set_password, signed_in, undoing, update, user, user_id, verify,
};
use super::races::at_once;
use crate::domain::audit::{AuditEvent, AuditOutcome};
use crate::domain::code::{CodeForm, CodePurpose};
use crate::domain::id::{CodeId, UserId};
use crate::domain::mail::MailKind;
use crate::domain::password::PasswordVersion;
use crate::domain::user::{User, UserStatus};
use crate::port::store::Store;
use crate::port::store::account::{
    EmailChangeRequested, PasswordReplaced, RequestEmailChange, UserChange, UserCreated, UserDeleted,
};
use crate::port::store::code::{CandidateFilter, CandidateQuery, CodeTarget, Redeem, RedeemEffect, Redeemed};
use crate::port::store::outbox::Claimed;

const ANA: &str = "ana@example.org";
const NEW: &str = "new@example.org";
const CHANGE: CodePurpose = CodePurpose::ChangeEmail;
const FIRST: PasswordVersion = PasswordVersion::FIRST;

/// Asks for another address; the code, if the address was free.
async fn asked(store: &Arc<dyn Store>, user: UserId, new: &str, seconds: i64) -> CodeId {
    let command = change_email(user, new, later(seconds));
    let code = command.code.id;
    assert_eq!(store.request_email_change(command).await.unwrap(), EmailChangeRequested::Queued);
    code
}

/// The open codes of digits by which a user changes the address.
async fn open_codes(store: &Arc<dyn Store>, id: UserId, seconds: i64) -> Vec<CodeId> {
    let which = CandidateFilter::User { id, purpose: CHANGE };
    let found = store.candidates(CandidateQuery { now: later(seconds), which }).await.unwrap();
    found.iter().map(|found| found.id).collect()
}

/// Whether a link is open.
async fn is_open(store: &Arc<dyn Store>, link: CodeId, seconds: i64) -> bool {
    let which = CandidateFilter::Link(link);
    !store.candidates(CandidateQuery { now: later(seconds), which }).await.unwrap().is_empty()
}

async fn redeemed(store: &Arc<dyn Store>, command: Redeem) -> User {
    match store.redeem(command).await.unwrap() {
        Redeemed::Redeemed(user) => *user,
        outcome => panic!("not redeemed: {outcome:?}"),
    }
}

/// Confirms the change of an address; the link that undoes it.
async fn changed(store: &Arc<dyn Store>, user: UserId, code: CodeId, seconds: i64) -> CodeId {
    let (effect, undo) = confirming(later(seconds));
    redeemed(store, confirm(user, code, effect, later(seconds))).await;
    undo
}

/// A guess that is right and does nothing: wrong, audited unless it is of a link, and nothing changed but counts.
async fn is_wrong(store: &Arc<dyn Store>, mut command: Redeem) {
    let before = seen(store).await;
    command.events = all_events();
    let what = format!("{command:?}");
    let (is_link, entries) = (command.tries.is_empty(), audited(store).await.len());
    assert_eq!(store.redeem(command).await.unwrap(), Redeemed::Wrong, "{what}");
    let audited = audited(store).await;
    if is_link {
        assert_eq!(audited.len(), entries, "it can be repeated, so it writes nothing: {what}");
    } else {
        assert_eq!(audited.last().map(String::as_str), Some("invalid_code"), "{what}");
    }
    assert_eq!(seen(store).await, before, "{what}");
}

/// The whole way: the notice, the code to the new address, the new address, the link to the old one.
pub async fn an_address_is_changed_by_its_code(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, bob) = (user(&store, ANA).await, user(&store, "bob@example.org").await);
    let session = signed_in(&store, &ana, NOW).await;
    store.request_code(request(ANA, CodePurpose::ResetPassword, NOW)).await.unwrap();
    let mails = owed(&store).await.len();
    let code = asked(&store, ana.id, NEW, 10).await;
    let mut told = owed(&store).await.split_off(mails);
    told.sort_unstable();
    assert_eq!(told, [format!("change_email_code to {NEW}"), format!("email_change_requested to {ANA}")]);
    let written = entries(&store).await.pop().unwrap();
    assert_eq!((written.event, written.reason), (AuditEvent::EmailChangeRequest, None));
    assert_eq!(written.subject, Some(ana.id));
    let signed_in = read(&store, ana.id).await.unwrap();
    assert_eq!(signed_in.email, ana.email, "nothing changes before the code is redeemed");
    assert_eq!(open_codes(&store, ana.id, 11).await, [code]);
    assert!(open_codes(&store, bob.id, 11).await.is_empty());
    let mails = owed(&store).await.len();
    let (effect, undo) = confirming(later(20));
    let mut command = confirm(ana.id, code, effect, later(20));
    command.events = all_events();
    let seen = redeemed(&store, command).await;
    let expected =
        User { email: email(NEW), email_verified_at: Some(later(20)), updated_at: later(20), ..signed_in };
    assert_eq!(seen, expected);
    assert_eq!(read(&store, ana.id).await, Some(expected));
    let mut told = owed(&store).await.split_off(mails);
    told.sort_unstable();
    assert_eq!(told, ["email_changed".to_owned(), format!("email_changed to {ANA}")]);
    let mail = outbox(&store).await.into_iter().find(|entry| entry.mail.kind == MailKind::EmailChanged);
    assert_eq!(mail.unwrap().mail.code.map(|code| (code.id, code.form)), Some((undo, CodeForm::Link)));
    let written = entries(&store).await.pop().unwrap();
    assert_eq!((written.event, written.outcome), (AuditEvent::EmailChange, AuditOutcome::Done));
    assert_eq!(written.subject, Some(ana.id));
    assert!(holds(&store, session.id, later(21)).await, "sessions go on");
    let reset = candidates(&store, NEW, CodePurpose::ResetPassword, later(21)).await;
    assert!(reset.is_empty(), "every other code is void");
    assert!(open_codes(&store, ana.id, 21).await.is_empty() && is_open(&store, undo, 21).await);
    assert_eq!(password_of(&store, NEW).await, Some((Some(format!("created {ANA}")), FIRST)));
    assert_eq!(password_of(&store, ANA).await, None);
    is_wrong(&store, confirm(ana.id, code, confirming(later(22)).0, later(22))).await;
    user(&store, ANA).await;
    assert_eq!(store.create_user(create(NEW, later(23))).await.unwrap(), UserCreated::Taken);
}

/// The case of one's own address may be changed.
pub async fn the_case_of_an_address_may_be_changed(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let code = asked(&store, ana.id, "Ana@example.org", 1).await;
    let undo = changed(&store, ana.id, code, 2).await;
    assert_eq!(read(&store, ana.id).await.unwrap().email.as_str(), "Ana@example.org");
    assert!(password_of(&store, "ANA@example.org").await.is_some());
    let back = redeemed(&store, follow(undo, undoing(later(3)).0, later(3))).await;
    assert_eq!(back.email.as_str(), ANA);
}

/// Whoever asks for a taken address learns nothing; its owner and the asker's address are told, and there is no code.
pub async fn a_taken_address_is_not_told_to_the_asker(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, owner) = (user(&store, ANA).await, user(&store, NEW).await);
    let first = asked(&store, ana.id, "other@example.org", 1).await;
    let (mails, before) = (owed(&store).await.len(), read(&store, ana.id).await);
    let mut command = change_email(ana.id, "NEW@example.org", later(2));
    command.throttle = vec![rule("one", 1, Duration::minutes(10))];
    let code = command.code.id;
    let answer = store.request_email_change(command.clone()).await.unwrap();
    assert_eq!(answer, EmailChangeRequested::Queued);
    let mut told = owed(&store).await.split_off(mails);
    told.sort_unstable();
    assert_eq!(told, [format!("account_exists to {NEW}"), format!("email_change_requested to {ANA}")]);
    let written = entries(&store).await.pop().unwrap();
    assert_eq!(written.reason.as_deref(), Some("email_taken"));
    assert_eq!((written.outcome, written.subject), (AuditOutcome::Refused, Some(ana.id)));
    assert!(open_codes(&store, ana.id, 3).await.is_empty(), "the older code is void, as for a free address");
    for code in [first, code] {
        is_wrong(&store, confirm(ana.id, code, confirming(later(3)).0, later(3))).await;
    }
    assert_eq!((read(&store, ana.id).await, read(&store, owner.id).await), (before, Some(owner)));
    let again = change_email(ana.id, "free@example.org", later(4));
    let again = RequestEmailChange { throttle: command.throttle, ..again };
    let answer = store.request_email_change(again).await.unwrap();
    assert!(matches!(answer, EmailChangeRequested::Throttled { .. }), "it counts as any other: {answer:?}");
}

/// An address that was taken between the request and the code: a wrong guess, which changes nothing but counts.
pub async fn an_address_taken_meanwhile_is_a_wrong_guess(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let code = asked(&store, ana.id, NEW, 1).await;
    let other = user(&store, "NEW@example.org").await;
    for n in 1..ATTEMPTS {
        is_wrong(&store, confirm(ana.id, code, confirming(later(2)).0, later(1 + i64::from(n)))).await;
    }
    assert_eq!(open_codes(&store, ana.id, 9).await, [code]);
    assert_eq!(store.delete_user(delete(other.id, later(9))).await.unwrap(), UserDeleted::Deleted);
    changed(&store, ana.id, code, 10).await;
    let code = asked(&store, ana.id, "third@example.org", 11).await;
    user(&store, "third@example.org").await;
    for n in 0..=ATTEMPTS {
        let command = confirm(ana.id, code, confirming(later(12)).0, later(12));
        let answer = store.redeem(command).await.unwrap();
        assert_eq!(matches!(answer, Redeemed::Exhausted { .. }), n == ATTEMPTS, "try {n}: {answer:?}");
    }
}

/// A newer request voids the older code, and no other code or link.
pub async fn a_newer_request_voids_the_older_one(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, bob) = (user(&store, ANA).await, user(&store, "bob@example.org").await);
    let code = asked(&store, ana.id, "first@example.org", 1).await;
    let undo = changed(&store, ana.id, code, 2).await;
    store.request_code(request("first@example.org", CodePurpose::ResetPassword, later(2))).await.unwrap();
    let others = asked(&store, bob.id, "bobby@example.org", 3).await;
    let older = asked(&store, ana.id, "second@example.org", 3).await;
    let newer = asked(&store, ana.id, "third@example.org", 4).await;
    assert_eq!(open_codes(&store, ana.id, 5).await, [newer]);
    assert_eq!(open_codes(&store, bob.id, 5).await, [others]);
    assert!(is_open(&store, undo, 5).await);
    let reset = candidates(&store, "first@example.org", CodePurpose::ResetPassword, later(5)).await;
    assert_eq!(reset.len(), 1);
    is_wrong(&store, confirm(ana.id, older, confirming(later(5)).0, later(5))).await;
    changed(&store, ana.id, newer, 6).await;
    assert_eq!(read(&store, ana.id).await.unwrap().email, email("third@example.org"));
    changed(&store, bob.id, others, 6).await;
}

/// The same request again is answered as before and doubles nothing.
pub async fn a_change_is_asked_for_once(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let mut command = change_email(ana.id, NEW, later(1));
    command.throttle = vec![rule("one", 1, Duration::minutes(10))];
    let (mut before, code) = (None, command.code.id);
    for _ in 0..2 {
        let answer = store.request_email_change(command.clone()).await.unwrap();
        assert_eq!(answer, EmailChangeRequested::Queued);
        let now = (seen(&store).await, audited(&store).await);
        assert_eq!(*before.get_or_insert(now.clone()), now);
    }
    assert_eq!(open_codes(&store, ana.id, 2).await, [code]);
    let before = (seen(&store).await, audited(&store).await);
    let mut another = change_email(ana.id, "other@example.org", later(2));
    another.throttle = command.throttle;
    let answer = store.request_email_change(another).await.unwrap();
    let retry_after = Duration::minutes(10) - Duration::SECOND;
    assert_eq!(answer, EmailChangeRequested::Throttled { retry_after });
    assert_eq!((seen(&store).await, audited(&store).await), before, "over a limit, nothing changes");
    assert_eq!(open_codes(&store, ana.id, 2).await, [code]);
}

/// A change of nobody, or under a password that was changed meanwhile, is refused, and changes nothing but counts.
pub async fn a_refused_change_of_address_changes_nothing(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, off) = (user(&store, ANA).await, user(&store, "off@example.org").await);
    let gone = user(&store, "gone@example.org").await;
    store.update_user(disable(off.id, later(1))).await.unwrap();
    let mut deletion = delete(gone.id, later(1));
    deletion.restorable_until = Some(later(1000));
    store.delete_user(deletion).await.unwrap();
    let code = asked(&store, ana.id, NEW, 1).await;
    let before = seen(&store).await;
    for (id, expect, outcome, reason) in [
        (ana.id, Some(PasswordVersion::NONE), EmailChangeRequested::Stale, "stale"),
        (ana.id, Some(FIRST.next()), EmailChangeRequested::Stale, "stale"),
        (off.id, Some(FIRST), EmailChangeRequested::Gone, "gone"),
        (gone.id, None, EmailChangeRequested::Gone, "gone"),
        (user_id(), None, EmailChangeRequested::Gone, "gone"),
    ] {
        let mut command = change_email(id, "other@example.org", later(2));
        command.expect = expect;
        assert_eq!(store.request_email_change(command).await.unwrap(), outcome);
        let written = entries(&store).await.pop().unwrap();
        assert_eq!((written.reason.as_deref(), written.subject), (Some(reason), Some(id)));
    }
    assert_eq!((seen(&store).await, open_codes(&store, ana.id, 3).await), (before, vec![code]));
    let mut command = change_email(ana.id, "other@example.org", later(3));
    command.expect = Some(FIRST);
    assert_eq!(store.request_email_change(command).await.unwrap(), EmailChangeRequested::Queued);
}

/// A password that is set meanwhile voids a change that was asked for; so does being disabled.
pub async fn a_new_password_voids_a_change_of_address(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for how in 0..3 {
        let address = format!("u{how}@example.org");
        let ana = user(&store, &address).await;
        let code = asked(&store, ana.id, &format!("new{how}@example.org"), 1).await;
        match how {
            0 => {
                let answer = store.replace_password(replace(ana.id, FIRST, later(2))).await.unwrap();
                assert_eq!(answer, PasswordReplaced::Replaced);
            }
            1 => {
                let reset = request(&address, CodePurpose::ResetPassword, later(1));
                let hit = reset.code.id;
                store.request_code(reset).await.unwrap();
                let purpose = CodePurpose::ResetPassword;
                let effect = set_password("reset", None);
                redeemed(&store, guess(&address, purpose, &[hit], Some(hit), effect, later(2))).await;
            }
            _ => drop(store.update_user(disable(ana.id, later(2))).await.unwrap()),
        }
        assert!(open_codes(&store, ana.id, 3).await.is_empty(), "case {how}");
        is_wrong(&store, confirm(ana.id, code, confirming(later(3)).0, later(3))).await;
        assert_eq!(read(&store, ana.id).await.unwrap().email, ana.email);
    }
}

/// The link gives the old address back, takes the password and every session, and sends a link that sets a new one.
pub async fn a_change_of_address_is_undone_from_the_old_one(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let code = asked(&store, ana.id, NEW, 1).await;
    let undo = changed(&store, ana.id, code, 2).await;
    let thief = read(&store, ana.id).await.unwrap();
    let session = signed_in(&store, &thief, later(3)).await;
    asked(&store, ana.id, "third@example.org", 4).await;
    store.request_code(request(NEW, CodePurpose::ResetPassword, later(4))).await.unwrap();
    let (mails, before) = (owed(&store).await.len(), read(&store, ana.id).await.unwrap());
    let (effect, reset) = undoing(later(5));
    let mut command = follow(undo, effect, later(5));
    command.events = all_events();
    let seen = redeemed(&store, command).await;
    let expected =
        User { email: ana.email.clone(), email_verified_at: Some(later(5)), updated_at: later(5), ..before };
    assert_eq!(seen, expected);
    assert_eq!(read(&store, ana.id).await, Some(expected));
    assert_eq!(password_of(&store, ANA).await, Some((None, FIRST.next())));
    assert_eq!(password_of(&store, NEW).await, None);
    assert!(!holds(&store, session.id, later(6)).await);
    assert!(open_codes(&store, ana.id, 6).await.is_empty() && !is_open(&store, undo, 6).await);
    let codes = candidates(&store, ANA, CodePurpose::ResetPassword, later(6)).await;
    assert!(codes.is_empty(), "every code is void");
    let mut told = owed(&store).await.split_off(mails);
    told.sort_unstable();
    let link = format!("reset_password_link to {ANA}");
    assert_eq!(told, ["email_changed", link.as_str(), "sessions_ended"]);
    let written = entries(&store).await.pop().unwrap();
    assert_eq!((written.event, written.outcome), (AuditEvent::EmailChangeUndo, AuditOutcome::Done));
    assert_eq!(written.subject, Some(ana.id));
    is_wrong(&store, follow(undo, undoing(later(7)).0, later(7))).await;
    assert!(is_open(&store, reset, 7).await);
    redeemed(&store, follow(reset, set_password("mine again", None), later(8))).await;
    let password = password_of(&store, ANA).await;
    assert_eq!(password, Some((Some("mine again".into()), FIRST.next().next())));
    user(&store, NEW).await;
}

/// A change is not undone when somebody else has the old address.
pub async fn an_undo_needs_the_old_address(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let code = asked(&store, ana.id, NEW, 1).await;
    let undo = changed(&store, ana.id, code, 2).await;
    let other = user(&store, ANA).await;
    let now = read(&store, ana.id).await.unwrap();
    let session = signed_in(&store, &now, later(3)).await;
    is_wrong(&store, follow(undo, undoing(later(4)).0, later(4))).await;
    assert!(holds(&store, session.id, later(4)).await);
    assert_eq!(password_of(&store, NEW).await, Some((Some(format!("created {ANA}")), FIRST)));
    store.delete_user(delete(other.id, later(5))).await.unwrap();
    redeemed(&store, follow(undo, undoing(later(6)).0, later(6))).await;
}

/// A link that undoes a change dies when its time has come, and with a password that its user sets.
pub async fn an_undo_is_over_in_time(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let code = asked(&store, ana.id, NEW, 1).await;
    let (mut effect, undo) = confirming(later(2));
    if let RedeemEffect::ChangeEmail { undo, .. } = &mut effect {
        undo.dies_at = later(100);
    }
    redeemed(&store, confirm(ana.id, code, effect, later(2))).await;
    let late = store.redeem(follow(undo, undoing(later(100)).0, later(100))).await.unwrap();
    assert_eq!(late, Redeemed::Expired);
    redeemed(&store, follow(undo, undoing(later(99)).0, later(99))).await;
}

/// Changes the address of a user, from the request to the code; the link that undoes it.
async fn moved(store: &Arc<dyn Store>, user: UserId, new: &str, seconds: i64) -> CodeId {
    let code = asked(store, user, new, seconds).await;
    changed(store, user, code, seconds).await
}

/// Follows a link that undoes a change; the user as it is then, and the link that sets a new password.
async fn undone(store: &Arc<dyn Store>, undo: CodeId, seconds: i64) -> (User, CodeId) {
    let (effect, reset) = undoing(later(seconds));
    (redeemed(store, follow(undo, effect, later(seconds))).await, reset)
}

/// Sets a password by the link of a reset, as the owner of the mailbox does.
async fn reset_by_link(store: &Arc<dyn Store>, address: &str, seconds: i64) {
    let mut command = request(address, CodePurpose::ResetPassword, later(seconds));
    (command.code.form, command.target) = (CodeForm::Link, CodeTarget::Anybody);
    let link = command.code.id;
    store.request_code(command).await.unwrap();
    redeemed(store, follow(link, set_password("the thief's", None), later(seconds))).await;
}

/// The deletion of one's own account, with a way back until then.
async fn leave(store: &Arc<dyn Store>, user: UserId, seconds: i64, until: i64) {
    let mut deletion = delete(user, later(seconds));
    deletion.restorable_until = Some(later(until));
    assert_eq!(store.delete_user(deletion).await.unwrap(), UserDeleted::Deleted);
}

/// A second change leaves the link of the first one open, and its mail is still sent.
pub async fn an_undo_survives_a_second_change(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let undo = moved(&store, ana.id, NEW, 1).await;
    moved(&store, ana.id, "third@example.org", 2).await;
    asked(&store, ana.id, "fourth@example.org", 3).await;
    assert!(is_open(&store, undo, 3).await, "a second change voids the link");
    let (_, claimed) = claim(&store, later(4)).await;
    let mailed = |mail: &Claimed| mail.mail.code.as_ref().is_some_and(|code| code.id == undo);
    assert!(claimed.iter().any(mailed), "the mail with the link is not sent");
    let (back, _) = undone(&store, undo, 5).await;
    assert_eq!((back.id, back.email), (ana.id, ana.email));
}

/// A password that is changed, or set by a code or a link of the new mailbox, leaves the link open.
pub async fn an_undo_survives_a_new_password(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for how in 0..3 {
        let (old, new) = (format!("u{how}@example.org"), format!("new{how}@example.org"));
        let ana = user(&store, &old).await;
        let undo = moved(&store, ana.id, &new, 1).await;
        match how {
            0 => {
                let answer = store.replace_password(replace(ana.id, FIRST, later(2))).await.unwrap();
                assert_eq!(answer, PasswordReplaced::Replaced);
            }
            1 => reset_by_link(&store, &new, 2).await,
            _ => {
                let purpose = CodePurpose::ResetPassword;
                let reset = request(&new, purpose, later(2));
                let hit = reset.code.id;
                store.request_code(reset).await.unwrap();
                let effect = set_password("the thief's", None);
                redeemed(&store, guess(&new, purpose, &[hit], Some(hit), effect, later(2))).await;
            }
        }
        assert!(is_open(&store, undo, 3).await, "case {how}: a new password voids the link");
        assert_eq!(undone(&store, undo, 4).await.0.email, ana.email, "case {how}");
        assert_eq!(password_of(&store, &old).await.map(|(password, _)| password), Some(None), "case {how}");
    }
}

/// The link gives the address of a disabled user back, and the user stays disabled.
pub async fn an_undo_does_not_enable(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let undo = moved(&store, ana.id, NEW, 1).await;
    store.update_user(disable(ana.id, later(2))).await.unwrap();
    assert!(is_open(&store, undo, 3).await, "disabling voids the link");
    let (back, reset) = undone(&store, undo, 4).await;
    assert_eq!((back.email, back.status), (ana.email, UserStatus::Disabled));
    is_wrong(&store, follow(reset, set_password("mine again", None), later(5))).await;
    let enabled = UserChange { status: Some(UserStatus::Active), ..UserChange::default() };
    store.update_user(update(ana.id, enabled, later(6))).await.unwrap();
    redeemed(&store, follow(reset, set_password("mine again", None), later(7))).await;
}

/// The link brings a deleted user back while signing in would, whatever became of the newer address.
pub async fn an_undo_brings_a_deleted_user_back(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let undo = moved(&store, ana.id, NEW, 1).await;
    leave(&store, ana.id, 2, 100).await;
    user(&store, NEW).await;
    assert!(is_open(&store, undo, 3).await, "a deletion voids the link");
    let (effect, reset) = undoing(later(4));
    let mut command = follow(undo, effect, later(4));
    command.events = all_events();
    let before = events(&store).await.len();
    let back = redeemed(&store, command).await;
    assert_eq!((back.id, &back.email), (ana.id, &ana.email));
    assert_eq!(read(&store, ana.id).await, Some(back));
    let mut told = events(&store).await.split_off(before);
    told.sort_unstable();
    assert_eq!(told, ["email_changed", "sessions_ended", "user_restored"]);
    assert_eq!(password_of(&store, ANA).await, Some((None, FIRST.next())));
    redeemed(&store, follow(reset, set_password("mine again", None), later(5))).await;
    assert_eq!(store.create_user(create(ANA, later(6))).await.unwrap(), UserCreated::Taken);

    let bob = user(&store, "bob@example.org").await;
    let undo = moved(&store, bob.id, "bobby@example.org", 10).await;
    leave(&store, bob.id, 11, 20).await;
    is_wrong(&store, follow(undo, undoing(later(20)).0, later(20))).await;
    let other = user(&store, "bob@example.org").await;
    is_wrong(&store, follow(undo, undoing(later(19)).0, later(19))).await;
    store.delete_user(delete(other.id, later(19))).await.unwrap();
    assert_eq!(undone(&store, undo, 19).await.0.id, bob.id);
}

/// A deletion without a way back ends every link.
pub async fn a_deletion_for_good_ends_every_undo(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, bob) = (user(&store, ANA).await, user(&store, "bob@example.org").await);
    let others = moved(&store, bob.id, "bobby@example.org", 1).await;
    let first = moved(&store, ana.id, NEW, 1).await;
    let second = moved(&store, ana.id, "third@example.org", 2).await;
    store.delete_user(delete(ana.id, later(3))).await.unwrap();
    for link in [first, second] {
        assert!(!is_open(&store, link, 4).await);
        is_wrong(&store, follow(link, undoing(later(4)).0, later(4))).await;
    }
    assert_eq!(read(&store, ana.id).await, None);
    assert!(is_open(&store, others, 4).await);
}

/// Of the links of several changes, the oldest undoes all of them, and no later one works after it.
pub async fn the_oldest_undo_wins(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, bob) = (user(&store, ANA).await, user(&store, "bob@example.org").await);
    let others = moved(&store, bob.id, "bobby@example.org", 1).await;
    let first = moved(&store, ana.id, "b@example.org", 1).await;
    let second = moved(&store, ana.id, "c@example.org", 2).await;
    let third = moved(&store, ana.id, "d@example.org", 3).await;
    let (back, reset) = undone(&store, first, 4).await;
    assert_eq!(back.email, ana.email);
    for link in [first, second, third] {
        assert!(!is_open(&store, link, 5).await);
        is_wrong(&store, follow(link, undoing(later(5)).0, later(5))).await;
    }
    assert!(is_open(&store, reset, 5).await && is_open(&store, others, 5).await);
    assert_eq!(read(&store, ana.id).await.unwrap().email, ana.email);
}

/// A later link undoes its own change and those after it, and the older ones stay open: a thief who owns the second
/// mailbox gains nothing by its link.
pub async fn a_later_undo_leaves_the_older_ones(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let first = moved(&store, ana.id, "b@example.org", 1).await;
    let second = moved(&store, ana.id, "c@example.org", 2).await;
    let third = moved(&store, ana.id, "d@example.org", 3).await;
    let (thiefs, reset) = undone(&store, second, 4).await;
    assert_eq!(thiefs.email, email("b@example.org"));
    assert!(!is_open(&store, third, 5).await);
    redeemed(&store, follow(reset, set_password("the thief's", None), later(5))).await;
    let fourth = moved(&store, ana.id, "e@example.org", 6).await;
    leave(&store, ana.id, 7, 100).await;
    assert!(is_open(&store, first, 8).await, "the oldest link is still open");
    let (back, _) = undone(&store, first, 8).await;
    assert_eq!((back.id, back.email), (ana.id, ana.email));
    for link in [second, third, fourth] {
        is_wrong(&store, follow(link, undoing(later(9)).0, later(9))).await;
    }
}

/// Which link is older is decided by the changes, not by the clocks of the servers that made them.
pub async fn undos_are_in_the_order_of_the_changes(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let first = moved(&store, ana.id, "b@example.org", 60).await;
    // Another server, whose clock is behind.
    let second = moved(&store, ana.id, "c@example.org", 5).await;
    let third = moved(&store, ana.id, "d@example.org", 5).await;
    undone(&store, third, 61).await;
    assert!(is_open(&store, second, 61).await && is_open(&store, first, 61).await);
    undone(&store, second, 62).await;
    assert!(is_open(&store, first, 63).await);
    assert_eq!(undone(&store, first, 63).await.0.email, ana.email);
}

/// A user who proves the old mailbox by changing back to it undid the change: its link and every later one are void, and no
/// new one goes to the address that was left.
pub async fn a_change_back_ends_its_undo(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let older = moved(&store, ana.id, "b@example.org", 1).await;
    let first = moved(&store, ana.id, "c@example.org", 2).await;
    let second = moved(&store, ana.id, "d@example.org", 3).await;
    let mails = owed(&store).await.len();
    let none = moved(&store, ana.id, "B@example.org", 4).await;
    let mut told = owed(&store).await.split_off(mails);
    told.sort_unstable();
    let asked = ["change_email_code to B@example.org", "email_change_requested to d@example.org"];
    assert_eq!(told, asked, "the address that was left gets no link");
    for link in [first, second, none] {
        assert!(!is_open(&store, link, 5).await);
        is_wrong(&store, follow(link, undoing(later(5)).0, later(5))).await;
    }
    assert!(is_open(&store, older, 5).await);
    // A link that is over undoes nothing: the address that is left gets one.
    let over = later(4) + Duration::days(30);
    let code = change_email(ana.id, ANA, over);
    let hit = code.code.id;
    store.request_email_change(code).await.unwrap();
    let (effect, undo) = confirming(over);
    redeemed(&store, confirm(ana.id, hit, effect, over)).await;
    let which = CandidateFilter::Link(undo);
    assert!(!store.candidates(CandidateQuery { now: over, which }).await.unwrap().is_empty());
}

/// Upkeep removes no open link before its end, nor a user whom it brings back.
pub async fn an_undo_outlives_upkeep(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let undo = moved(&store, ana.id, NEW, 1).await;
    moved(&store, ana.id, "third@example.org", 2).await;
    leave(&store, ana.id, 3, 1000).await;
    let mut command = purge(later(900));
    (command.ended_before, command.deleted_before) = (later(900), later(900));
    store.purge(command).await.unwrap();
    assert_eq!(undone(&store, undo, 901).await.0.id, ana.id);
}

/// A code of one purpose and form never has the effect of another: a wrong guess, and the code is still what it was.
pub async fn no_code_does_what_it_was_not_made_for(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let mut n = 0;
    for purpose in CodePurpose::ALL {
        for form in [super::build::code(NOW).form, CodeForm::Link] {
            for kind in 0..4 {
                n += 1;
                let (address, new) = (format!("u{n}@example.org"), format!("new{n}@example.org"));
                let effect = match kind {
                    0 => verify(),
                    1 => set_password("set", None),
                    2 => confirming(later(5)).0,
                    _ => undoing(later(5)).0,
                };
                let Some((owner, address, code)) = made(&store, purpose, form, &address, &new).await else {
                    continue;
                };
                let fits = effect.fits(purpose, form);
                let mut command = guess(&address, purpose, &[code], Some(code), effect, later(5));
                if form == CodeForm::Link {
                    (command.candidates, command.tries) = (Vec::new(), Vec::new());
                }
                if fits {
                    redeemed(&store, command).await;
                    continue;
                }
                let before = password_of(&store, &address).await;
                is_wrong(&store, command).await;
                assert_eq!(password_of(&store, &address).await, before);
                let right = match (purpose, form) {
                    (CHANGE, CodeForm::Link) => undoing(later(6)).0,
                    (CHANGE, CodeForm::Digits(_)) => confirming(later(6)).0,
                    _ => set_password("set", None),
                };
                let user = redeemed(&store, follow(code, right, later(6))).await;
                assert_eq!(user.id, owner, "{purpose} {form:?} is as good as before");
            }
        }
    }
}

/// Makes a user with a code of this purpose and form: the user, the address that they have and the code.
async fn made(
    store: &Arc<dyn Store>,
    purpose: CodePurpose,
    form: CodeForm,
    address: &str,
    new: &str,
) -> Option<(UserId, String, CodeId)> {
    let mut command = invite(address, NOW);
    command.invitation = None;
    if purpose != CodePurpose::FirstTimeSetup {
        command.password = create(address, NOW).password;
    }
    let id = command.id;
    store.create_user(command).await.unwrap();
    if purpose == CHANGE {
        let code = asked(store, id, new, 1).await;
        if form == CodeForm::Link {
            return Some((id, new.to_owned(), changed(store, id, code, 2).await));
        }
        return Some((id, address.to_owned(), code));
    }
    let mut command = request(address, purpose, later(1));
    (command.code.form, command.target) = (form, CodeTarget::Anybody);
    let code = command.code.id;
    store.request_code(command).await.unwrap();
    Some((id, address.to_owned(), code))
}

/// Of many that confirm a change at once, one wins.
pub async fn one_of_many_changes_an_address(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await.id;
    let code = asked(&store, ana, NEW, 1).await;
    let answers = at_once(&store, 4, move |store, _| async move {
        store.redeem(confirm(ana, code, confirming(later(2)).0, later(2))).await.unwrap()
    })
    .await;
    let won = answers.iter().filter(|answer| matches!(answer, Redeemed::Redeemed(_))).count();
    assert_eq!(won, 1, "{answers:?}");
    assert_eq!(owed(&store).await.len(), 3, "one notice, one code and one link");
}

/// Of users who change to one address at once, one gets it.
pub async fn one_of_many_users_gets_an_address(harness: &dyn StoreHarness) {
    for _ in 0..8 {
        let store = harness.fresh().await;
        let mut users = Vec::new();
        for n in 0..4 {
            let id = user(&store, &format!("u{n}@example.org")).await.id;
            users.push((id, asked(&store, id, NEW, 1).await));
        }
        let answers = at_once(&store, 5, |store, n| {
            let user = users.get(n).copied();
            async move {
                let Some((id, code)) = user else {
                    let made = store.create_user(create(NEW, later(2))).await.unwrap();
                    return matches!(made, UserCreated::Created(_));
                };
                match store.redeem(confirm(id, code, confirming(later(2)).0, later(2))).await.unwrap() {
                    Redeemed::Redeemed(user) => user.email == email(NEW),
                    Redeemed::Wrong => false,
                    other => panic!("{other:?}"),
                }
            }
        })
        .await;
        assert_eq!(answers.iter().filter(|won| **won).count(), 1, "{answers:?}");
    }
}
