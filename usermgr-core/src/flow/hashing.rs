//! Passwords through the hash pool, in the name of a client.

use crate::crypto::hash_queue::{HashOrigin, HashPurpose};
use crate::crypto::hasher::Verified;
use crate::crypto::password_text::NormalizedPassword;
use crate::domain::client::ClientContext;
use crate::domain::password::PasswordHash;
use crate::error::Error;
use crate::manager::Inner;

impl Inner {
    /// Refuses a client at once whose password will not be compared: who cannot be served in a storm costs no statement.
    pub(super) fn admit_sign_in(&self, client: &ClientContext) -> Result<(), Error> {
        Ok(self.hasher.admit(&origin(HashPurpose::SignIn, client))?)
    }

    /// Hashes a new password in the pool.
    pub(super) async fn hash(
        &self,
        password: NormalizedPassword,
        client: &ClientContext,
    ) -> Result<PasswordHash, Error> {
        Ok(self.hasher.hash(password, origin(HashPurpose::NewPassword, client)).await?)
    }

    /// Compares a password in the pool; without a hash the same work is done on a dummy.
    pub(super) async fn verify_password(
        &self,
        password: NormalizedPassword,
        stored: Option<PasswordHash>,
        client: &ClientContext,
    ) -> Result<Verified, Error> {
        Ok(self.hasher.verify(password, stored, origin(HashPurpose::SignIn, client)).await?)
    }
}

fn origin(purpose: HashPurpose, client: &ClientContext) -> HashOrigin {
    // The /48 of an IPv6 client: it has as many networks of a /64 as the queue has places, and more.
    HashOrigin { purpose, network: client.wide_network().unwrap_or_else(|| client.network()) }
}
