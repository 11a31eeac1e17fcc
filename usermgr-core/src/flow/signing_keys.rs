//! The keys that sign access tokens: made on first use, rotated in time, and known to every instance before they sign.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use time::{Duration, OffsetDateTime};

use crate::crypto::access_token::{AccessClaims, Expected, StrictHeader};
use crate::crypto::jwt::{self, SigningKeyStatus, SigningKeys, SigningKeysError};
use crate::crypto::secret_keys::SecretKeys;
use crate::domain::audit::{AuditDraft, AuditEvent};
use crate::domain::client::ClientContext;
use crate::domain::id::{AuditId, SigningKeyId};
use crate::domain::secret::AccessToken;
use crate::error::Error;
use crate::manager::Inner;
use crate::policy::{Policies, TokenFormat};
use crate::port::random::Random;
use crate::port::store::Store;
use crate::port::store::key::{
    AddSigningKey, ResealSigningKey, RevokeSigningKeys, RevokedKeys, SealedSigningKey,
};

/// How far apart the clocks of two instances may be for the first key of one to sign at the other at once.
const FIRST_KEY_SLACK: Duration = Duration::minutes(5);
/// How long a key is published before it signs: longer than key sets are cached, here and at other services.
const PUBLISHED_BEFORE: Duration = Duration::minutes(10);
/// How long an instance goes on with the keys it read.
const READ_AGAIN: Duration = Duration::minutes(1);
/// How soon an instance reads the keys again for a token whose key it does not know.
const READ_AGAIN_FOR_UNKNOWN: Duration = Duration::seconds(5);

/// The signing keys of one installation; see [`UserManager::signing_keys`](crate::UserManager::signing_keys).
///
/// ```
/// use usermgr_core::ClientContext;
/// use usermgr_core::flow::signing_keys::Rotation;
/// # use usermgr_core::testing::TestAuth;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let auth = TestAuth::new();
/// # let (users, client) = (auth.users(), ClientContext::new());
///
/// # let now = time::macros::datetime!(2026-01-01 12:00 UTC);
/// # users.jwks().await?;
/// users.signing_keys().rotate(Rotation::Announced, &client, now).await?;
/// for key in users.signing_keys().list(now).await? {
///     println!("{key:?}");
/// }
/// # assert_eq!(users.signing_keys().list(now).await?.len(), 2);
/// // The keys may be in other hands.
/// users.signing_keys().revoke_all(&client, now).await?;
/// # Ok(())
/// # }
/// ```
pub struct KeyRing {
    store: Arc<dyn Store>,
    secrets: SecretKeys,
    random: Arc<dyn Random>,
    policies: Arc<Policies>,
    read: RwLock<Option<(Arc<SigningKeys>, OffsetDateTime)>>,
    reading: tokio::sync::Mutex<()>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").finish_non_exhaustive()
    }
}

/// When a new key begins to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a caller says which")]
pub enum Rotation {
    /// In ten minutes, when every instance and every service that keeps a key set has it.
    Announced,
    /// At once. Services that keep a key set refuse the new key's tokens until they read the set again. The keys before it
    /// go on verifying: [`KeyRing::revoke`] is for a key that is no longer to be trusted.
    AtOnce,
}

impl KeyRing {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        secrets: SecretKeys,
        random: Arc<dyn Random>,
        policies: Arc<Policies>,
    ) -> Self {
        Self {
            store,
            secrets,
            random,
            policies,
            read: RwLock::default(),
            reading: tokio::sync::Mutex::default(),
        }
    }

    /// The keys as they were read within the last minute; made and shared through the store on first use.
    pub(crate) async fn keys(&self, now: OffsetDateTime) -> Result<Arc<SigningKeys>, Error> {
        self.read_within(READ_AGAIN, now).await
    }

    async fn read_within(&self, age: Duration, now: OffsetDateTime) -> Result<Arc<SigningKeys>, Error> {
        if let Some(keys) = self.fresh(age, now) {
            return Ok(keys);
        }
        let _one_reads = self.reading.lock().await;
        if let Some(keys) = self.fresh(age, now) {
            return Ok(keys);
        }
        match self.read_now(now).await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                *self.read.write().unwrap_or_else(PoisonError::into_inner) = Some((Arc::clone(&keys), now));
                Ok(keys)
            }
            Err(error) => {
                if !matches!(error, Error::Unavailable(_)) {
                    // None of the keys opens. What was read before may have been revoked since: nothing is accepted by it.
                    *self.read.write().unwrap_or_else(PoisonError::into_inner) = None;
                    return Err(error);
                }
                let before = self.read.read().unwrap_or_else(PoisonError::into_inner).clone();
                let Some((keys, _)) = before else { return Err(error) };
                tracing::warn!(%error, "the signing keys could not be read again");
                Ok(keys)
            }
        }
    }

    fn fresh(&self, age: Duration, now: OffsetDateTime) -> Option<Arc<SigningKeys>> {
        let read = self.read.read().unwrap_or_else(PoisonError::into_inner);
        read.as_ref().filter(|(_, at)| (now - *at).abs() < age).map(|(keys, _)| Arc::clone(keys))
    }

    async fn read_now(&self, now: OffsetDateTime) -> Result<SigningKeys, Error> {
        let algorithm = self.policies.tokens.algorithm;
        let sealed = self.store.signing_keys().await?;
        let trusted = || sealed.iter().filter(|key| key.revoked_at.is_none());
        let found = if trusted().next().is_none() { None } else { Some(self.open(&sealed)?) };
        if let Some(keys) = found.filter(|keys| keys.has_current(algorithm, now)) {
            return Ok(keys);
        }
        // None at all: of instances that start together, one adds. All in the future: a clock was set back.
        let any = trusted().any(|key| key.algorithm == algorithm.as_str());
        let unless_since = (!any).then_some(OffsetDateTime::UNIX_EPOCH);
        let sealed = self.add(now - FIRST_KEY_SLACK, unless_since, self.audit(now), now).await?;
        self.open(&sealed)
    }

    fn open(&self, sealed: &[SealedSigningKey]) -> Result<SigningKeys, Error> {
        jwt::open(sealed, &self.secrets).map_err(|error: SigningKeysError| {
            tracing::error!(%error, "the signing keys cannot be opened");
            Error::Internal("the signing keys cannot be opened; was secret.key changed?")
        })
    }

    async fn add(
        &self,
        signs_from: OffsetDateTime,
        unless_since: Option<OffsetDateTime>,
        audit: AuditDraft,
        now: OffsetDateTime,
    ) -> Result<Vec<SealedSigningKey>, Error> {
        let key = self.generate(signs_from, now).await?;
        Ok(self.store.add_signing_key(AddSigningKey { now, key, unless_since, audit }).await?)
    }

    async fn generate(
        &self,
        signs_from: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<SealedSigningKey, Error> {
        let algorithm = self.policies.tokens.algorithm;
        let id = SigningKeyId::new(now, &*self.random);
        let (secrets, random) = (self.secrets.clone(), Arc::clone(&self.random));
        // RSA takes tenths of a second: nobody else waits for it.
        let made = tokio::task::spawn_blocking(move || {
            jwt::generate(algorithm, id, now, signs_from, &secrets, &*random)
        });
        made.await.ok().flatten().ok_or(Error::Internal("a signing key could not be made"))
    }

    fn audit(&self, now: OffsetDateTime) -> AuditDraft {
        AuditDraft {
            id: AuditId::new(now, &*self.random),
            event: AuditEvent::KeyRotation,
            actor: None,
            email: None,
            ip: None,
            user_agent: None,
            request_id: None,
        }
    }

    /// What a token says, by the keys as they are; a key that is not known yet is looked for in the store.
    pub(crate) async fn verify(
        &self,
        token: &AccessToken,
        expected: &Expected<'_>,
    ) -> Result<AccessClaims, Error> {
        let header = StrictHeader::read(token.expose()).ok_or(Error::InvalidToken)?;
        let id: SigningKeyId = header.kid.parse().map_err(|_| Error::InvalidToken)?;
        let mut keys = self.keys(expected.now).await?;
        if keys.state(id, expected.now).is_none() {
            keys = self.read_within(READ_AGAIN_FOR_UNKNOWN, expected.now).await?;
        }
        keys.verify(token, expected).map_err(|_| Error::InvalidToken)
    }

    /// Every key and its state, those that sign the latest first; revoked ones last.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list(&self, now: OffsetDateTime) -> Result<Vec<SigningKeyStatus>, Error> {
        Ok(self.read_now(now).await?.list(now))
    }

    /// Adds a key, which takes the place of the current one. Every instance finds it by itself within a minute, and at
    /// once when it is shown a token that the key signed.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn rotate(
        &self,
        rotation: Rotation,
        client: &ClientContext,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let signs_from = match rotation {
            Rotation::Announced => now + PUBLISHED_BEFORE,
            Rotation::AtOnce => now,
        };
        let ClientContext { ip, user_agent, request_id } = client.clone();
        let audit = AuditDraft { ip, user_agent, request_id, ..self.audit(now) };
        self.add(signs_from, None, audit, now).await?;
        *self.read.write().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// Revokes this key: it leaves the key set, and what it signed is refused; here at once, on every other instance within
    /// a minute, and in a service that keeps a key set when it reads the set again. The users' sessions stay: a client whose
    /// token is refused renews it. Answers the key that was made in its place, if it was the one that signs; the new key
    /// signs at once. Done again, it changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such key, [`Error::Unavailable`], [`Error::Internal`].
    ///
    /// # Security
    /// Instances of a version that does not know revocation go on accepting the key.
    pub async fn revoke(
        &self,
        id: SigningKeyId,
        client: &ClientContext,
        now: OffsetDateTime,
    ) -> Result<Option<SigningKeyId>, Error> {
        self.revoke_keys(RevokedKeys::One(id), client, now).await?.ok_or(Error::NotFound)
    }

    /// Revokes every key, and answers the one that was made in their place. No key is opened, so this is also the way on
    /// when the secret key that sealed them is gone.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn revoke_all(
        &self,
        client: &ClientContext,
        now: OffsetDateTime,
    ) -> Result<SigningKeyId, Error> {
        let made = self.revoke_keys(RevokedKeys::All, client, now).await?.flatten();
        made.ok_or(Error::Internal("the store kept a revoked signing key"))
    }

    /// `None` when there is no such key; else the key that was made, if one was.
    async fn revoke_keys(
        &self,
        which: RevokedKeys,
        client: &ClientContext,
        now: OffsetDateTime,
    ) -> Result<Option<Option<SigningKeyId>>, Error> {
        // It signs at once, also where a clock is behind this one.
        let replacement = self.generate(now - FIRST_KEY_SLACK, now).await?;
        let ClientContext { ip, user_agent, request_id } = client.clone();
        let event = AuditEvent::KeyRevocation;
        let audit = AuditDraft { event, ip, user_agent, request_id, ..self.audit(now) };
        let made = replacement.id;
        let command = RevokeSigningKeys { now, which, replacement, audit };
        let keys = self.store.revoke_signing_keys(command).await?;
        *self.read.write().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(keys.map(|keys| keys.iter().any(|key| key.id == made).then_some(made)))
    }

    /// Adds the next key if the current one has signed for long enough. Of instances that do so together, one adds.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn rotate_if_due(&self, now: OffsetDateTime) -> Result<bool, Error> {
        let TokenFormat::Jwt = self.policies.tokens.format else { return Ok(false) };
        let (tokens, keys) = (&self.policies.tokens, self.read_now(now).await?);
        if !keys.needs_rotation(tokens.algorithm, tokens.rotate_every, now) {
            return Ok(false);
        }
        let unless_since = Some(now - tokens.rotate_every + Duration::SECOND);
        self.add(now + PUBLISHED_BEFORE, unless_since, self.audit(now), now).await?;
        Ok(true)
    }

    /// Seals every key that was not revoked anew under the secret key in force, so that the previous ones can be taken out of the
    /// configuration. Answers how many were sealed anew. Run again, it changes nothing that matters.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`] when a key opens under none of the secret keys.
    pub async fn reseal(&self) -> Result<u64, Error> {
        let mut sealed_anew = 0;
        for key in self.store.signing_keys().await?.into_iter().filter(|key| key.revoked_at.is_none()) {
            let after = jwt::reseal(&key, &self.secrets, &*self.random)
                .ok_or(Error::Internal("a signing key opens under none of the secret keys"))?;
            let command = ResealSigningKey { id: key.id, before: key.sealed, after: after.sealed };
            sealed_anew += u64::from(self.store.reseal_signing_key(command).await?);
        }
        Ok(sealed_anew)
    }
}

impl Inner {
    pub(super) async fn signing_keys(&self, now: OffsetDateTime) -> Result<Arc<SigningKeys>, Error> {
        self.keys.keys(now).await
    }

    pub(super) async fn verify_token(
        &self,
        token: &AccessToken,
        expected: &Expected<'_>,
    ) -> Result<AccessClaims, Error> {
        self.keys.verify(token, expected).await
    }
}
