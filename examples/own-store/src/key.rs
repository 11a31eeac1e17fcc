//! The keys that sign tokens.

use std::cmp::Reverse;

use async_trait::async_trait;
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::key::{
    AddSigningKey, KeyStore, KeysChanged, ResealSigningKey, RevokeSigningKeys, SealedSigningKey,
};

use crate::FileStore;
use crate::database::Transaction;
use crate::rows::KeyRow;

#[async_trait]
impl KeyStore for FileStore {
    async fn signing_keys(&self) -> Result<Vec<SealedSigningKey>, StoreError> {
        self.run(|tx| signing_keys(tx)).await
    }

    async fn add_signing_key(&self, command: AddSigningKey) -> Result<Vec<SealedSigningKey>, StoreError> {
        self.run(|tx| add_signing_key(tx, command)).await
    }

    async fn reseal_signing_key(&self, command: ResealSigningKey) -> Result<bool, StoreError> {
        self.run(|tx| reseal_signing_key(tx, command)).await
    }

    async fn revoke_signing_keys(
        &self,
        command: RevokeSigningKeys,
    ) -> Result<Option<Vec<SealedSigningKey>>, StoreError> {
        self.run(|tx| revoke_signing_keys(tx, command)).await
    }
}

fn signing_keys(tx: &Transaction<'_>) -> Result<Vec<SealedSigningKey>, StoreError> {
    let mut keys: Vec<_> = tx.rows::<KeyRow>()?.into_iter().map(|(_, KeyRow(key))| key).collect();
    keys.sort_by_key(|key| Reverse((key.created_at, key.id)));
    Ok(keys)
}

fn add_signing_key(
    tx: &mut Transaction<'_>,
    command: AddSigningKey,
) -> Result<Vec<SealedSigningKey>, StoreError> {
    let AddSigningKey { now, key, unless_since, audit } = command;
    let is_there = signing_keys(tx)?.iter().any(|other| {
        let signs = other.revoked_at.is_none() && unless_since.is_some_and(|since| other.signs_from >= since);
        other.id == key.id || (other.algorithm == key.algorithm && signs)
    });
    if !is_there {
        tx.put(key.id, &KeyRow(key))?;
        tx.audit_done(audit, now, None)?;
    }
    signing_keys(tx)
}

fn reseal_signing_key(tx: &mut Transaction<'_>, command: ResealSigningKey) -> Result<bool, StoreError> {
    let ResealSigningKey { id, before, after } = command;
    let Some(KeyRow(key)) = tx.get::<KeyRow>(id)?.filter(|KeyRow(key)| key.sealed == before) else {
        return Ok(false);
    };
    tx.put(id, &KeyRow(SealedSigningKey { sealed: after, ..key }))?;
    Ok(true)
}

fn revoke_signing_keys(
    tx: &mut Transaction<'_>,
    command: RevokeSigningKeys,
) -> Result<Option<Vec<SealedSigningKey>>, StoreError> {
    let mut keys = signing_keys(tx)?;
    let Some(changed) = SealedSigningKey::revoke(&mut keys, &command) else { return Ok(None) };
    let RevokeSigningKeys { now, which: _, replacement: _, audit } = command;
    if changed == KeysChanged::Yes {
        for key in keys {
            tx.put(key.id, &KeyRow(key))?;
        }
        tx.audit_done(audit, now, None)?;
    }
    signing_keys(tx).map(Some)
}
