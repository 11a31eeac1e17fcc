//! The keys that sign tokens.

use async_trait::async_trait;
use time::OffsetDateTime;

use super::StoreError;
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

    /// Adds the key unless there is one of its algorithm; then answers every key, the newest first. Of instances
    /// that start together, one adds and all get the same answer.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn ensure_signing_key(&self, key: SealedSigningKey) -> Result<Vec<SealedSigningKey>, StoreError>;
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
