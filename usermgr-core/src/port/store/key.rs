//! The keys that sign tokens.

use async_trait::async_trait;
use time::OffsetDateTime;

use super::StoreError;
use crate::domain::audit::AuditDraft;
use crate::domain::id::SigningKeyId;

/// The keys that sign tokens. Their private parts are sealed before they get here.
#[cfg_attr(feature = "testing", mockall::automock)]
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// Every key, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn signing_keys(&self) -> Result<Vec<SealedSigningKey>, StoreError>;

    /// Adds a key, unless there is one of its algorithm that signs from `unless_since` on or later and was not revoked;
    /// then answers every key, the newest first. Of instances that do so together, one adds and all get the same answer. Adding is audited
    /// as done.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn add_signing_key(&self, command: AddSigningKey) -> Result<Vec<SealedSigningKey>, StoreError>;

    /// Replaces the sealed part of a key, if it still is `before`. Answers whether it was.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn reseal_signing_key(&self, command: ResealSigningKey) -> Result<bool, StoreError>;

    /// Revokes one key or all, then answers every key, the newest first. `None` when [`RevokedKeys::One`] names a key
    /// that is not there; then nothing changes.
    ///
    /// 1. A key that was revoked before keeps its time.
    /// 2. The replacement is added in the same step, unless the current key of its algorithm remains: the key that began
    ///    last by `now` and was not revoked. So nothing falls back to an older key.
    /// 3. The same command again (the replacement's identifier is there) changes nothing.
    /// 4. A revoked key stays in the table until it is purged, and never counts as a key that signs.
    /// 5. A step that revokes or adds a key is audited as done; one that changes nothing is not.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn revoke_signing_keys(
        &self,
        command: RevokeSigningKeys,
    ) -> Result<Option<Vec<SealedSigningKey>>, StoreError>;
}

/// See [`KeyStore::revoke_signing_keys`].
#[derive(Debug, Clone)]
pub struct RevokeSigningKeys {
    /// The time.
    pub now: OffsetDateTime,
    /// Which keys.
    pub which: RevokedKeys,
    /// The key that signs from now on, if the current one is revoked.
    pub replacement: SealedSigningKey,
    /// The audit entry.
    pub audit: AuditDraft,
}

/// Which keys are revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every store handles each")]
pub enum RevokedKeys {
    /// This one.
    One(SigningKeyId),
    /// Every key but the replacement.
    All,
}

/// See [`KeyStore::add_signing_key`].
#[derive(Debug, Clone)]
pub struct AddSigningKey {
    /// The time.
    pub now: OffsetDateTime,
    /// The key.
    pub key: SealedSigningKey,
    /// Not if there is a key of its algorithm that signs from this time on or later; `None` adds it in any case.
    pub unless_since: Option<OffsetDateTime>,
    /// The audit entry.
    pub audit: AuditDraft,
}

/// See [`KeyStore::reseal_signing_key`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResealSigningKey {
    /// Which key.
    pub id: SigningKeyId,
    /// What is sealed as it was read.
    pub before: Vec<u8>,
    /// The same, sealed anew.
    pub after: Vec<u8>,
}

/// A signing key as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedSigningKey {
    /// The key's identifier: `kid`, and part of the seal's associated data.
    pub id: SigningKeyId,
    /// The signature algorithm's JOSE name, for example `EdDSA`; the other part of the associated data.
    pub algorithm: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// From when it may sign; until then it is only published.
    pub signs_from: OffsetDateTime,
    /// The private part, sealed under the secret key.
    pub sealed: Vec<u8>,
    /// When it was revoked: from then on it neither signs nor verifies, and is not published.
    pub revoked_at: Option<OffsetDateTime>,
}

impl SealedSigningKey {
    /// The current key of this algorithm: of those that began to sign by `now` and were not revoked, the one that began
    /// last.
    pub fn current<'a>(keys: &'a [Self], algorithm: &str, now: OffsetDateTime) -> Option<&'a Self> {
        keys.iter()
            .filter(|key| key.algorithm == algorithm && key.signs_from <= now && key.revoked_at.is_none())
            .max_by_key(|key| (key.signs_from, key.id))
    }

    /// Revokes these keys in place, as [`KeyStore::revoke_signing_keys`] says: for a store that reads its keys, changes
    /// them and writes them back in one transaction. `None` when there is no such key.
    pub fn revoke(keys: &mut Vec<Self>, command: &RevokeSigningKeys) -> Option<KeysChanged> {
        let RevokeSigningKeys { now, which, replacement, audit: _ } = command;
        if keys.iter().any(|key| key.id == replacement.id) {
            return Some(KeysChanged::No);
        }
        let meant = |key: &Self| match which {
            RevokedKeys::One(id) => key.id == *id,
            RevokedKeys::All => true,
        };
        if *which != RevokedKeys::All && !keys.iter().any(meant) {
            return None;
        }
        let current = Self::current(keys, &replacement.algorithm, *now).map(|key| key.id);
        let mut changed = KeysChanged::No;
        for key in keys.iter_mut().filter(|key| meant(key) && key.revoked_at.is_none()) {
            key.revoked_at = Some(*now);
            changed = KeysChanged::Yes;
        }
        let remains = keys.iter().any(|key| Some(key.id) == current && key.revoked_at.is_none());
        if !remains {
            keys.push(replacement.clone());
            changed = KeysChanged::Yes;
        }
        Some(changed)
    }
}

/// Whether a step changed keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "yes or no")]
pub enum KeysChanged {
    /// At least one.
    Yes,
    /// None: what was asked for was done before.
    No,
}

impl std::fmt::Debug for SealedSigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedSigningKey")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}
