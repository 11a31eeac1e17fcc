//! Laws of callers that go away: whatever was dropped at whichever await, all of it is there or nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::StoreHarness;
use super::build::{
    NOW, SettleOne as _, add_key, all_events, candidates, change_email, claim, confirm, confirming, create,
    delete, digest, disable, email, end, entries, failed, follow, guard, holds, imported, invite, later,
    lease, mark, open, outbox, password_of, purge, read, register, registered, replace, request, requeue,
    revoke_keys, right, role, rotate, sent, signed_in, signing_key, undoing, user,
};
use super::jobs::{begin, done};
use crate::domain::code::CodePurpose;
use crate::domain::id::CodeId;
use crate::domain::page::PageSize;
use crate::domain::password::PasswordVersion;
use crate::domain::undeliverable::UndeliverableReason;
use crate::domain::user::{UserStatus, Username};
use crate::port::store::Store;
use crate::port::store::account::{CredentialsQuery, ImportUsers, RolesChange};
use crate::port::store::code::{CandidateFilter, CandidateQuery, CodeTarget};
use crate::port::store::job::BeginJob;
use crate::port::store::key::{ResealSigningKey, RevokedKeys};
use crate::port::store::outbox::{Claim, DeliveryResult, DomainRoom, OutboxStatus, Settle};
use crate::port::store::session::{SessionKey, SessionQuery, SessionSelector};
use crate::port::store::undeliverable::UndeliverableQuery;

const VERIFY: CodePurpose = CodePurpose::EmailVerification;
const FIRST: PasswordVersion = PasswordVersion::FIRST;
/// No command needs more polls to come to its end than this.
const MOST_POLLS: usize = 1000;

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A command that is about to be dropped.
struct Dropped {
    /// The command. It does nothing before it is polled.
    command: Later<()>,
    /// Whether its effect is there; panics when only a part of it is.
    took_place: Box<dyn Fn() -> Later<bool> + Send + Sync>,
    /// How many entries of the audit log belong to the effect.
    audited: usize,
    /// How many mails and events belong to the effect.
    owed: usize,
}

/// Shows that a command, dropped after every number of polls (many polls in larger steps), took place with all that belongs to it or not at all.
async fn all_or_nothing(
    harness: &dyn StoreHarness,
    prepare: impl Fn(Arc<dyn Store>, usize) -> Later<Dropped> + Send + Sync,
) {
    let store = harness.fresh().await;
    let mut polls = 0;
    while polls < MOST_POLLS {
        polls += 1 + polls / 64;
        let Dropped { command, took_place, audited, owed } = prepare(Arc::clone(&store), polls).await;
        let before = (entries(&store).await.len(), super::build::owed(&store).await.len());
        let ended = polled(command, polls).await;
        // Another command waits in its turn for what is still being rolled back.
        registered(&store, &format!("after{polls}@example.org")).await;
        let before = (before.0 + 1, before.1 + 1);
        let mut seen = (false, (0, 0));
        // A commit that was under way when its caller left may arrive between two of these reads, but only once.
        for _ in 0..50 {
            seen =
                (took_place().await, (entries(&store).await.len(), super::build::owed(&store).await.len()));
            if seen.1 == expected(seen.0, before, audited, owed) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (there, counts) = seen;
        assert_eq!(counts, expected(there, before, audited, owed), "there: {there}, after {polls} polls");
        assert!(there || !ended, "it was answered and is not there");
        if ended {
            return;
        }
    }
    panic!("the command did not come to its end in {MOST_POLLS} polls");
}

fn expected(there: bool, before: (usize, usize), audited: usize, owed: usize) -> (usize, usize) {
    if there { (before.0 + audited, before.1 + owed) } else { before }
}

/// Polls a future so often, with time between for what it waits for, then drops it. Whether it came to its end.
async fn polled(mut future: Later<()>, polls: usize) -> bool {
    for _ in 0..polls {
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    false
}

/// The command and the look at its effect, each with a handle of the store.
macro_rules! dropped {
    ($store:ident, audited: $audited:literal, owed: $owed:expr, $command:expr, $took_place:expr) => {{
        let command = {
            let $store = Arc::clone(&$store);
            Box::pin(async move { $command.await.map(|_| ()).unwrap() })
        };
        let took_place = Box::new(move || -> Later<bool> {
            let $store = Arc::clone(&$store);
            Box::pin(async move { $took_place })
        });
        Dropped { command, took_place, audited: $audited, owed: $owed }
    }};
}

fn address(n: usize) -> String {
    format!("u{n}@example.org")
}

async fn is_open(store: &Arc<dyn Store>, n: usize, purpose: CodePurpose) -> bool {
    !candidates(store, &address(n), purpose, later(1)).await.is_empty()
}

/// A registration with its code, its mail and its audit entry; a redemption with the end of the code, the user that it
/// makes, the welcome, the events and the audit entry.
pub async fn a_dropped_command_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let command = register(&address(n), NOW);
            dropped!(store, audited: 1, owed: 1, store.register(command), is_open(&store, n, VERIFY).await)
        })
    })
    .await;
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let code = registered(&store, &address(n)).await;
            let mut command = right(&address(n), code, later(1));
            command.events = all_events();
            dropped!(store, audited: 1, owed: 3, store.redeem(command), {
                let there = password_of(&store, &address(n)).await.is_some();
                assert_eq!(is_open(&store, n, VERIFY).await, !there, "the code is spent with its effect");
                there
            })
        })
    })
    .await;
}

/// A user, the invitation, the event and the audit entry.
pub async fn a_dropped_user_creation_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let mut command = invite(&address(n), NOW);
            command.events = all_events();
            let id = command.id;
            dropped!(store, audited: 1, owed: 2, store.create_user(command), {
                let there = store.user(id).await.unwrap().is_some();
                assert_eq!(is_open(&store, n, CodePurpose::FirstTimeSetup).await, there, "the invitation");
                there
            })
        })
    })
    .await;
}

/// A new code, the end of the older one, the mail and the audit entry.
pub async fn a_dropped_code_request_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            registered(&store, &address(n)).await;
            let command = request(&address(n), VERIFY, later(1));
            let newer = command.code.id;
            dropped!(store, audited: 1, owed: 1, store.request_code(command), {
                let open = candidates(&store, &address(n), VERIFY, later(1)).await;
                assert_eq!(open.len(), 1, "the older one is void with the newer one");
                open[0].id == newer
            })
        })
    })
    .await;
}

/// A new password, the end of sessions and codes, the notice, the event and the audit entry.
pub async fn a_dropped_password_change_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let user = user(&store, &address(n)).await;
            let session = open(&user, FIRST, NOW);
            let session_id = session.session.id;
            store.open_session(session).await.unwrap();
            store.request_code(request(&address(n), CodePurpose::ResetPassword, NOW)).await.unwrap();
            let mut command = replace(user.id, FIRST, later(1));
            command.events = all_events();
            dropped!(store, audited: 1, owed: 2, store.replace_password(command), {
                let there = password_of(&store, &address(n)).await.unwrap().1 == FIRST.next();
                assert_eq!(holds(&store, session_id, later(1)).await, !there, "the session");
                assert_eq!(is_open(&store, n, CodePurpose::ResetPassword).await, !there, "the code");
                there
            })
        })
    })
    .await;
}

/// A session, the time of the sign-in, the event and the audit entry.
pub async fn a_dropped_sign_in_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let user = user(&store, &address(n)).await;
            let mut command = open(&user, FIRST, later(1));
            command.events = all_events();
            let id = command.session.id;
            dropped!(store, audited: 1, owed: 1, store.open_session(command), {
                let there = holds(&store, id, later(1)).await;
                let signed_in = store.user(user.id).await.unwrap().unwrap().last_login_at;
                assert_eq!(signed_in, there.then_some(later(1)));
                there
            })
        })
    })
    .await;
}

/// The count of a failed sign-in and its audit entry.
pub async fn a_dropped_failure_is_counted_as_it_is_audited(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let mut guard = guard(&address(n), "home", NOW);
            (guard.own.limit, guard.network.limit) = (1, 1000);
            dropped!(store, audited: 1, owed: 0, store.login_failed(failed(None, guard, NOW)), {
                let email = email(&address(n)).key().clone();
                let query = CredentialsQuery { now: NOW, email, guard: Some(guard) };
                store.credentials(query).await.unwrap().throttled.is_some()
            })
        })
    })
    .await;
}

/// The end of sessions and its audit entry.
pub async fn a_dropped_sign_out_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let user = user(&store, &address(n)).await;
            let sessions = [open(&user, FIRST, NOW), open(&user, FIRST, NOW)];
            let ids = [sessions[0].session.id, sessions[1].session.id];
            for session in sessions {
                store.open_session(session).await.unwrap();
            }
            let command = end(user.id, SessionSelector::All, later(1));
            dropped!(store, audited: 1, owed: 0, store.end_sessions(command), {
                let hold = [holds(&store, ids[0], later(1)).await, holds(&store, ids[1], later(1)).await];
                assert_eq!(hold[0], hold[1], "both are ended or neither");
                !hold[0]
            })
        })
    })
    .await;
}

/// A claim leases all that it takes, or nothing.
pub async fn a_dropped_claim_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            drop(claim(&store, later(1)).await);
            let (one, two) = (register(&address(n), NOW), register(&address(n), NOW));
            let ids = [one.code_mail.id, two.code_mail.id];
            for command in [one, two] {
                store.register(command).await.unwrap();
            }
            let command = Claim {
                now: later(1),
                lease: lease(),
                lease_until: later(600),
                limit: 10,
                room: DomainRoom::UNBOUNDED,
            };
            dropped!(store, audited: 0, owed: 0, store.claim(command), {
                let entries = outbox(&store).await;
                let mine = entries.iter().filter(|entry| ids.contains(&entry.mail.id));
                let attempts: Vec<_> = mine.map(|entry| entry.attempts).collect();
                assert!(attempts.len() == 2 && attempts[0] == attempts[1], "{attempts:?}");
                attempts[0] == 1
            })
        })
    })
    .await;
}

/// The hand-over of a mail and the beginning of its code's life.
pub async fn a_dropped_hand_over_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let other = registered(&store, &address(n)).await;
            drop(claim(&store, NOW).await);
            let code = registered(&store, &address(n)).await;
            let (lease, claimed) = claim(&store, NOW).await;
            let command = sent(&claimed[0], lease, NOW);
            let id = command.id;
            dropped!(store, audited: 0, owed: 0, store.settle(command), {
                let entries = outbox(&store).await;
                let there = entries.iter().any(|entry| {
                    entry.mail.id == id && entry.status == OutboxStatus::Sent
                });
                // Once its life is over, the newer code stands behind the older one, which is still live.
                let order: Vec<CodeId> =
                    candidates(&store, &address(n), VERIFY, later(600)).await.iter().map(|c| c.id).collect();
                assert_eq!(order, if there { [other, code] } else { [code, other] });
                there
            })
        })
    })
    .await;
}

/// A purge takes a registration with its codes.
pub async fn a_dropped_purge_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let mut command = register(&address(n), NOW);
            command.expires_at = later(1);
            let mut again = request(&address(n), VERIFY, NOW);
            again.target = CodeTarget::Registration(command.id);
            store.register(command).await.unwrap();
            store.request_code(again).await.unwrap();
            let mut command = purge(later(2));
            (command.audited_before, command.settled_before, command.ended_before) = (NOW, NOW, NOW);
            dropped!(store, audited: 0, owed: 0, store.purge(command), {
                candidates(&store, &address(n), VERIFY, NOW).await.is_empty()
            })
        })
    })
    .await;
}

/// A signing key.
pub async fn a_dropped_signing_key_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let key = signing_key(1, &format!("algorithm {n}"));
            let id = key.id;
            dropped!(store, audited: 1, owed: 0, store.add_signing_key(add_key(key)), {
                store.signing_keys().await.unwrap().iter().any(|key| key.id == id)
            })
        })
    })
    .await;
}

/// A user that an administrator makes at a taken address: the refusal is audited.
pub async fn a_dropped_refusal_is_audited_or_was_none(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            user(&store, &address(n)).await;
            let command = create(&address(n), NOW);
            let entry = command.audit.id;
            dropped!(store, audited: 1, owed: 0, store.create_user(command), {
                entries(&store).await.iter().any(|written| written.id == entry)
            })
        })
    })
    .await;
}

/// A new refresh token, the idle end, the access token and the audit entry; and the end of a session by a used token.
pub async fn a_dropped_renewal_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let user = user(&store, &address(n)).await;
            let new = signed_in(&store, &user, NOW).await;
            let command = rotate(new.id, new.refresh, "second", later(1));
            let access = SessionKey::Access(command.access.unwrap().0);
            dropped!(store, audited: 1, owed: 0, store.rotate(command), {
                let view = |key| store.session(SessionQuery { now: later(1), key });
                let there = view(access).await.unwrap().is_some();
                let held = view(SessionKey::Id(new.id)).await.unwrap().unwrap();
                assert_eq!(held.session.last_seen_at == later(1), there, "the session and its token");
                there
            })
        })
    })
    .await;
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let user = user(&store, &address(n)).await;
            let new = signed_in(&store, &user, NOW).await;
            let command = rotate(new.id, digest("never issued"), "second", later(1));
            dropped!(store, audited: 1, owed: 0, store.rotate(command), !holds(&store, new.id, later(1)).await)
        })
    })
    .await;
}

/// A changed user, the end of sessions and codes, the events and the audit entry.
pub async fn a_dropped_update_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let user = user(&store, &address(n)).await;
            let session = signed_in(&store, &user, NOW).await;
            store.request_code(request(&address(n), CodePurpose::ResetPassword, NOW)).await.unwrap();
            let mut command = disable(user.id, later(1));
            command.change.username = Some(Username::parse("New").ok());
            command.change.roles = Some(RolesChange::Grant(role("support")));
            command.events = all_events();
            dropped!(store, audited: 1, owed: 3, store.update_user(command), {
                let now = read(&store, user.id).await.unwrap();
                let there = now.status == UserStatus::Disabled;
                assert_eq!((now.username.is_some(), now.roles.len()), (there, 1 + usize::from(there)));
                assert_eq!(holds(&store, session.id, later(1)).await, !there, "the session");
                assert_eq!(is_open(&store, n, CodePurpose::ResetPassword).await, !there, "the code");
                there
            })
        })
    })
    .await;
}

/// A deleted user, the notice, the event and the audit entry; and one who comes back with a session and two entries.
pub async fn a_dropped_deletion_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let user = user(&store, &address(n)).await;
            let session = signed_in(&store, &user, NOW).await;
            let mut command = delete(user.id, later(1));
            command.events = all_events();
            dropped!(store, audited: 1, owed: 2, store.delete_user(command), {
                let there = read(&store, user.id).await.is_none();
                assert_eq!(holds(&store, session.id, later(1)).await, !there, "the session");
                there
            })
        })
    })
    .await;
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let user = user(&store, &address(n)).await;
            let mut deletion = delete(user.id, later(1));
            deletion.restorable_until = Some(later(1000));
            store.delete_user(deletion).await.unwrap();
            let mut command = open(&user, FIRST, later(2));
            command.events = all_events();
            let id = command.session.id;
            dropped!(store, audited: 2, owed: 2, store.open_session(command), {
                let there = read(&store, user.id).await.is_some();
                assert_eq!(holds(&store, id, later(2)).await, there, "the session");
                there
            })
        })
    })
    .await;
}

/// A code for a new address with its mails; a new address with its link; an old one with the end of the password.
pub async fn a_dropped_change_of_address_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let user = user(&store, &address(n)).await;
            let command = change_email(user.id, &format!("new{n}@example.org"), later(1));
            dropped!(store, audited: 1, owed: 2, store.request_email_change(command), {
                let which = CandidateFilter::User { id: user.id, purpose: CodePurpose::ChangeEmail };
                let found = store.candidates(CandidateQuery { now: later(1), which }).await.unwrap();
                !found.is_empty()
            })
        })
    })
    .await;
    for undone in [false, true] {
        all_or_nothing(harness, |store, n| {
            Box::pin(async move {
                let (old, new) = (format!("o{n}@example.org"), format!("new{n}@example.org"));
                let user = user(&store, &old).await;
                let request = change_email(user.id, &new, NOW);
                let code = request.code.id;
                store.request_email_change(request).await.unwrap();
                let (effect, mut link) = confirming(later(1));
                let mut command = confirm(user.id, code, effect, later(1));
                if undone {
                    store.redeem(command).await.unwrap();
                    let (effect, reset) = undoing(later(2));
                    command = follow(link, effect, later(2));
                    link = reset;
                }
                command.events = all_events();
                dropped!(store, audited: 1, owed: 2 + usize::from(undone), store.redeem(command), {
                    let now = read(&store, user.id).await.unwrap().email;
                    let there = now.as_str().starts_with(if undone { "o" } else { "new" });
                    let which = CandidateFilter::Link(link);
                    let found = store.candidates(CandidateQuery { now: later(3), which }).await.unwrap();
                    assert_eq!(!found.is_empty(), there, "the link");
                    let (password, version) = password_of(&store, now.as_str()).await.unwrap();
                    let taken = undone && there;
                    assert_eq!((password.is_none(), version == FIRST), (taken, !taken), "the password");
                    there
                })
            })
        })
        .await;
    }
}

/// Every user of an import with their audit entries, or none.
pub async fn a_dropped_import_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let users: Vec<_> = (0..3).map(|i| imported(&format!("i{i}.{n}@example.org"), NOW)).collect();
            let ids = [0, 1, 2].map(|n: usize| users[n].user.id);
            let command = ImportUsers { now: NOW, users };
            dropped!(store, audited: 3, owed: 3, store.import_users(command), {
                let mut there = 0;
                for id in ids {
                    there += usize::from(read(&store, id).await.is_some());
                }
                assert!(there == 0 || there == 3, "{there} of three");
                there == 3
            })
        })
    })
    .await;
}

/// A dead mail that is due again, and its audit entry.
pub async fn a_dropped_requeue_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let command = register(&address(n), NOW);
            let id = command.code_mail.id;
            store.register(command).await.unwrap();
            let (lease, _) = claim(&store, NOW).await;
            let result = DeliveryResult::Dead { error: "never".into() };
            store.settle(Settle { now: NOW, id, lease, result }).await.unwrap();
            dropped!(store, audited: 1, owed: 0, store.requeue(requeue(id, later(1))), {
                let entries = outbox(&store).await;
                let entry = entries.iter().find(|entry| entry.mail.id == id).unwrap();
                let there = entry.status == OutboxStatus::Queued;
                assert_eq!((entry.attempts == 0, entry.settled_at.is_none()), (there, there));
                there
            })
        })
    })
    .await;
}

/// A revoked key and the one in its place.
pub async fn a_dropped_revocation_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let algorithm = format!("algorithm {n}");
            let key = signing_key(1, &algorithm);
            let id = key.id;
            store.add_signing_key(add_key(key)).await.unwrap();
            let command = revoke_keys(RevokedKeys::One(id), 10, signing_key(5, &algorithm));
            let replacement = command.replacement.id;
            dropped!(store, audited: 1, owed: 0, store.revoke_signing_keys(command), {
                let keys = store.signing_keys().await.unwrap();
                let revoked = keys.iter().any(|key| key.id == id && key.revoked_at.is_some());
                assert_eq!(keys.iter().any(|key| key.id == replacement), revoked);
                revoked
            })
        })
    })
    .await;
}

/// A key that is sealed anew.
pub async fn a_dropped_reseal_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let key = signing_key(1, &format!("algorithm {n}"));
            let id = key.id;
            store.add_signing_key(add_key(key)).await.unwrap();
            let command = ResealSigningKey { id, before: vec![1], after: vec![2, 3] };
            dropped!(store, audited: 0, owed: 0, store.reseal_signing_key(command), {
                let keys = store.signing_keys().await.unwrap();
                let sealed = &keys.iter().find(|key| key.id == id).unwrap().sealed;
                assert!([[1].as_slice(), &[2, 3]].contains(&sealed.as_slice()), "{sealed:?}");
                sealed.len() == 2
            })
        })
    })
    .await;
}

/// A run that is begun, and one that is ended.
pub async fn a_dropped_run_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let job = format!("begun-{n}").parse().unwrap();
            let command = BeginJob { job, ..begin(NOW) };
            dropped!(store, audited: 0, owed: 0, store.begin_job(command), {
                let records = store.jobs().await.unwrap();
                let record = records.iter().find(|record| record.job.as_str() == format!("begun-{n}"));
                record.inspect(|record| assert_eq!((record.lease.is_some(), record.runs), (true, 1))).is_some()
            })
        })
    })
    .await;
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let job = format!("ended-{n}").parse().unwrap();
            let run = BeginJob { job, ..begin(NOW) };
            store.begin_job(run.clone()).await.unwrap();
            dropped!(store, audited: 0, owed: 0, store.end_job(done(&run, later(1))), {
                let records = store.jobs().await.unwrap();
                let record = records.iter().find(|record| record.job.as_str() == format!("ended-{n}")).unwrap();
                let there = record.lease.is_none();
                assert_eq!((record.ended_at.is_some(), record.outcome.is_some()), (there, there));
                there
            })
        })
    })
    .await;
}

/// The marks of several addresses, and their audit entries.
pub async fn a_dropped_mark_is_all_or_nothing(harness: &dyn StoreHarness) {
    all_or_nothing(harness, |store, n| {
        Box::pin(async move {
            let addresses = [1, 2].map(|i| format!("m{i}.{n}@example.org"));
            let (one, two) = (addresses[0].as_str(), addresses[1].as_str());
            let command = mark(&[one, two], UndeliverableReason::Bounce, NOW);
            dropped!(store, audited: 2, owed: 0, store.mark_undeliverable(command), {
                let query = UndeliverableQuery { after: None, size: PageSize::new(PageSize::MAX) };
                let marks = store.undeliverable(query).await.unwrap().items;
                let mine = format!(".{n}@example.org");
                let there = marks.iter().filter(|mark| mark.email.as_str().ends_with(&mine)).count();
                assert!(there == 0 || there == 2, "{there} of two");
                there == 2
            })
        })
    })
    .await;
}

/// A caller that goes away takes nothing from the others: their commands at the same time are done.
pub async fn a_dropped_command_fails_no_other(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for round in 0..100 {
        let mut others = Vec::new();
        let mut leaving = Vec::new();
        for member in 0..4 {
            let (stays, leaves) = (Arc::clone(&store), Arc::clone(&store));
            let name = move |what: &str| format!("{what}{round}-{member}@example.org");
            others.push(tokio::spawn(async move { stays.register(register(&name("stays"), NOW)).await }));
            leaving.push(tokio::spawn(async move {
                let command: Later<()> = Box::pin(async move {
                    leaves.register(register(&name("leaves"), NOW)).await.unwrap();
                });
                left_after(command, round % 25).await;
            }));
        }
        for other in others {
            other.await.unwrap().unwrap_or_else(|error| panic!("another's command failed: {error}"));
        }
        for left in leaving {
            left.await.unwrap();
        }
    }
    assert!(entries(&store).await.len() >= 400);
}

/// Polls a future so often as it wakes its task, then drops it at once.
async fn left_after(mut future: Later<()>, polls: usize) {
    let mut left = polls;
    std::future::poll_fn(move |context| {
        if left == 0 || future.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        left -= 1;
        if left == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
