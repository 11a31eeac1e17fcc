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

    /// Adds a key, unless there is one of its algorithm that signs from `unless_since` on or later; then answers every
    /// key, the newest first. Of instances that do so together, one adds and all get the same answer. Adding is audited
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
}

impl std::fmt::Debug for SealedSigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedSigningKey")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}
