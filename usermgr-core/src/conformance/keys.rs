//! Laws of the keys that sign tokens.

use super::StoreHarness;
use super::build::{add_key, audited, entries, later, purge, revoke_keys, signing_key};
use super::races::at_once;
use crate::domain::audit::AuditEvent;
use crate::domain::id::SigningKeyId;
use crate::port::store::key::{AddSigningKey, ResealSigningKey, RevokedKeys, SealedSigningKey};
use crate::port::store::upkeep::Purge;

fn ids(keys: &[SealedSigningKey]) -> Vec<SigningKeyId> {
    keys.iter().map(|key| key.id).collect()
}

/// A key is added unless one of its algorithm signs from that time on or later, to the second; what is added is audited.
pub async fn a_key_is_added_unless_one_signs_from_then(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let first = signing_key(100, "EdDSA");
    let mut keys = store.add_signing_key(add_key(first.clone())).await.unwrap();
    assert_eq!(keys, [first]);
    for (n, (algorithm, since, added)) in (101..).zip([
        ("EdDSA", Some(99), false),
        ("EdDSA", Some(100), false),
        ("EdDSA", Some(101), true),
        ("EdDSA", Some(102), false),
        ("EdDSA", Some(103), false),
        ("ES256", Some(0), true),
        ("EdDSA", None, true),
        ("EdDSA", None, true),
    ]) {
        let key = SealedSigningKey { sealed: vec![0, 255, n], ..signing_key(n, algorithm) };
        let before = audited(&store).await.len();
        let command = AddSigningKey { unless_since: since.map(later), ..add_key(key.clone()) };
        let entry = command.audit.id;
        let answer = store.add_signing_key(command).await.unwrap();
        if added {
            keys.insert(0, key);
        }
        assert_eq!(answer, keys, "{algorithm} {since:?}: all of them, the newest first");
        assert_eq!(store.signing_keys().await.unwrap(), keys);
        let written = super::build::entries(&store).await.split_off(before);
        let written: Vec<_> =
            written.iter().map(|entry| (entry.id, entry.event, entry.reason.is_none())).collect();
        let expected = added.then_some((entry, AuditEvent::KeyRotation, true));
        assert_eq!(written, Vec::from_iter(expected), "{algorithm} {since:?}");
    }
}

/// The same key again is not doubled.
pub async fn the_same_key_is_added_once(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let command = AddSigningKey { unless_since: None, ..add_key(signing_key(1, "EdDSA")) };
    for _ in 0..2 {
        let answer = store.add_signing_key(command.clone()).await.unwrap();
        assert_eq!(answer, std::slice::from_ref(&command.key));
    }
    assert_eq!(audited(&store).await.len(), 1);
}

/// Of instances that rotate at once, one adds, and all get the same answer.
pub async fn a_rotation_adds_one_key(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let old = signing_key(1, "EdDSA");
    store.add_signing_key(add_key(old.clone())).await.unwrap();
    let answers = at_once(&store, 8, |store, n| async move {
        let key = signing_key(100 + u8::try_from(n).unwrap(), "EdDSA");
        let command = AddSigningKey { unless_since: Some(later(50)), ..add_key(key) };
        store.add_signing_key(command).await.unwrap()
    })
    .await;
    assert!(answers.iter().all(|keys| keys.len() == 2 && *keys == answers[0]), "{answers:?}");
    assert_eq!(answers[0][1], old);
    assert_eq!(audited(&store).await.len(), 2);
}

/// A key is sealed anew only over what was read, and nothing else of it changes.
pub async fn a_key_is_sealed_anew_over_what_was_read(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (one, other) = (signing_key(1, "EdDSA"), signing_key(2, "ES256"));
    for key in [&one, &other] {
        store.add_signing_key(add_key(key.clone())).await.unwrap();
    }
    let reseal = |id, before: &[u8], after: &[u8]| ResealSigningKey {
        id,
        before: before.to_vec(),
        after: after.to_vec(),
    };
    let unknown = signing_key(1, "EdDSA").id;
    for (command, done) in [
        (reseal(one.id, &[9], &[8]), false),
        (reseal(one.id, &[], &[8]), false),
        (reseal(unknown, &[1], &[8]), false),
        (reseal(one.id, &other.sealed, &[8]), false),
        (reseal(one.id, &[1], &[0, 255, 7]), true),
        (reseal(one.id, &[1], &[8]), false),
        (reseal(one.id, &[0, 255, 7], &[1]), true),
        (reseal(one.id, &[1], &[6; 200]), true),
    ] {
        assert_eq!(store.reseal_signing_key(command.clone()).await.unwrap(), done, "{command:?}");
    }
    let expected = [other, SealedSigningKey { sealed: vec![6; 200], ..one }];
    assert_eq!(store.signing_keys().await.unwrap(), expected);
}

/// Of instances that seal one key anew at once, one does.
pub async fn a_key_is_sealed_anew_once(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let key = signing_key(1, "EdDSA");
    let id = key.id;
    store.add_signing_key(add_key(key)).await.unwrap();
    let done = at_once(&store, 8, move |store, n| async move {
        let after = vec![100 + u8::try_from(n).unwrap()];
        let command = ResealSigningKey { id, before: vec![1], after: after.clone() };
        store.reseal_signing_key(command).await.unwrap().then_some(after)
    })
    .await;
    let done: Vec<_> = done.into_iter().flatten().collect();
    assert_eq!(done.len(), 1, "{done:?}");
    let keys = store.signing_keys().await.unwrap();
    assert_eq!((ids(&keys), &keys[0].sealed), (vec![id], &done[0]));
}

/// Revoking the key that signs adds its replacement in the same step, whatever older keys there are; revoking another
/// adds none. It is audited when it changed something.
pub async fn a_revoked_key_that_signs_is_replaced_at_once(harness: &dyn StoreHarness) {
    let revoked =
        |key: &SealedSigningKey, at| SealedSigningKey { revoked_at: Some(later(at)), ..key.clone() };
    let at = 50;
    let (retired, current, next) =
        (signing_key(10, "EdDSA"), signing_key(20, "EdDSA"), signing_key(90, "EdDSA"));
    let other = signing_key(15, "ES256");
    let all = || vec![next.clone(), current.clone(), other.clone(), retired.clone()];
    let with = |changed: &[&SealedSigningKey], added: &[SealedSigningKey]| {
        let is = |key: &SealedSigningKey| changed.iter().any(|other| other.id == key.id);
        let mut keys: Vec<_> =
            all().into_iter().map(|key| if is(&key) { revoked(&key, at) } else { key }).collect();
        keys.extend_from_slice(added);
        keys.sort_by_key(|key| std::cmp::Reverse((key.created_at, key.id)));
        keys
    };
    for (which, changed, replaced) in [
        (RevokedKeys::One(retired.id), vec![&retired], false),
        (RevokedKeys::One(next.id), vec![&next], false),
        (RevokedKeys::One(other.id), vec![&other], false),
        (RevokedKeys::One(current.id), vec![&current], true),
        (RevokedKeys::All, vec![&retired, &current, &next, &other], true),
    ] {
        let store = harness.fresh().await;
        for key in all() {
            store.add_signing_key(AddSigningKey { unless_since: None, ..add_key(key) }).await.unwrap();
        }
        let command = revoke_keys(which, at, signing_key(40, "EdDSA"));
        let (replacement, entry) = (command.replacement.clone(), command.audit.id);
        let before = audited(&store).await.len();
        let added = if replaced { vec![replacement] } else { Vec::new() };
        let expected = with(&changed, &added);
        assert_eq!(store.revoke_signing_keys(command).await.unwrap(), Some(expected.clone()), "{which:?}");
        assert_eq!(store.signing_keys().await.unwrap(), expected, "{which:?}");
        let written: Vec<_> = entries(&store).await.split_off(before);
        let written: Vec<_> = written.iter().map(|entry| (entry.id, entry.event)).collect();
        assert_eq!(written, [(entry, AuditEvent::KeyRevocation)], "{which:?}");
    }
}

/// A key is revoked once: done again it keeps its time, and nothing is added or audited. A key that is not there is told.
pub async fn a_key_is_revoked_once(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let key = signing_key(1, "EdDSA");
    store.add_signing_key(add_key(key.clone())).await.unwrap();
    let unknown = revoke_keys(RevokedKeys::One(signing_key(1, "EdDSA").id), 10, signing_key(2, "EdDSA"));
    assert_eq!(store.revoke_signing_keys(unknown).await.unwrap(), None);
    assert_eq!((store.signing_keys().await.unwrap(), audited(&store).await.len()), (vec![key.clone()], 1));

    let first = revoke_keys(RevokedKeys::One(key.id), 10, signing_key(5, "EdDSA"));
    let after = store.revoke_signing_keys(first.clone()).await.unwrap().unwrap();
    assert_eq!(after.iter().map(|key| key.revoked_at).collect::<Vec<_>>(), [None, Some(later(10))]);
    let again = revoke_keys(RevokedKeys::One(key.id), 20, signing_key(6, "EdDSA"));
    let everything = revoke_keys(RevokedKeys::All, 30, signing_key(25, "EdDSA"));
    for command in [first, again] {
        assert_eq!(store.revoke_signing_keys(command).await.unwrap().as_ref(), Some(&after));
    }
    assert_eq!(audited(&store).await.len(), 2);
    let replaced = store.revoke_signing_keys(everything.clone()).await.unwrap();
    assert_eq!(store.revoke_signing_keys(everything).await.unwrap(), replaced, "the same again");
    assert_eq!((replaced.unwrap().len(), audited(&store).await.len()), (3, 3));
}

/// A revoked key neither keeps a new one away nor takes an older one along when it is purged.
pub async fn a_revoked_key_counts_for_no_other(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (old, late) = (signing_key(10, "EdDSA"), signing_key(60, "EdDSA"));
    for key in [&old, &late] {
        store.add_signing_key(AddSigningKey { unless_since: None, ..add_key(key.clone()) }).await.unwrap();
    }
    let command = revoke_keys(RevokedKeys::One(late.id), 61, signing_key(30, "EdDSA"));
    let replacement = command.replacement.id;
    store.revoke_signing_keys(command).await.unwrap().unwrap();
    let purged = store.purge(Purge { retired_before: later(59), ..purge(later(10_000)) }).await.unwrap();
    assert_eq!(purged.signing_keys, 1, "the replacement superseded the oldest");
    assert_eq!(ids(&store.signing_keys().await.unwrap()), [late.id, replacement]);
    let purged = store.purge(Purge { retired_before: later(100), ..purge(later(10_000)) }).await.unwrap();
    assert_eq!(purged.signing_keys, 0, "the revoked one superseded none");
    let another = signing_key(70, "EdDSA");
    let command = AddSigningKey { unless_since: Some(later(40)), ..add_key(another.clone()) };
    assert_eq!(
        store.add_signing_key(command).await.unwrap()[0],
        another,
        "it is no key that signs from then"
    );
    let purged = store.purge(Purge { retired_before: later(100), ..purge(later(10_000)) }).await.unwrap();
    assert_eq!(purged.signing_keys, 2, "it goes with what was superseded");
}

/// Of instances that revoke one key at once, one adds its replacement, and all see the same keys.
pub async fn a_revocation_adds_one_key(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let key = signing_key(1, "EdDSA");
    let id = key.id;
    store.add_signing_key(add_key(key)).await.unwrap();
    let answers = at_once(&store, 8, move |store, n| async move {
        let key = signing_key(10 + u8::try_from(n).unwrap(), "EdDSA");
        store.revoke_signing_keys(revoke_keys(RevokedKeys::One(id), 30, key)).await.unwrap().unwrap()
    })
    .await;
    assert!(answers.iter().all(|keys| keys.len() == 2 && *keys == answers[0]), "{answers:?}");
    assert_eq!(audited(&store).await.len(), 2);
}
