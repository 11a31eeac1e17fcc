//! What a session is made of, whom a token belongs to, and signing out.

use std::time::Duration;

use time::OffsetDateTime;

use super::limits::plain;
use crate::crypto::access_token::{AccessClaims, Expected};
use crate::crypto::digest::{random_token, token_digest};
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::id::SessionId;
use crate::domain::secret::{AccessToken, RefreshToken};
use crate::domain::session::{AuthMethod, Session};
use crate::domain::signing::SigningAlgorithm;
use crate::domain::user::User;
use crate::error::Error;
use crate::manager::Inner;
use crate::policy::TokenFormat;
use crate::port::store::session::{EndSessions, NewSession, SessionKey, SessionQuery, SessionSelector};

/// Sessions; see [`UserManager::sessions`](crate::UserManager::sessions).
#[derive(Clone, Copy)]
pub struct Sessions<'a> {
    pub(crate) inner: &'a Inner,
}

impl std::fmt::Debug for Sessions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

/// Somebody signed in: the tokens to hand to them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SignedIn {
    /// What requests carry as `Authorization: Bearer`.
    pub access_token: AccessToken,
    /// How long the access token lives.
    pub expires_in: Duration,
    /// What renews the session.
    pub refresh_token: RefreshToken,
    /// How long the refresh token lives.
    pub refresh_expires_in: Duration,
    /// Who signed in.
    pub user: User,
    /// The session.
    pub session_id: SessionId,
}

/// Somebody whose access token was checked against the store just now. Only [`Sessions::authenticate`] makes one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Authenticated {
    /// The session.
    pub session: Session,
    /// Its user, as stored.
    pub user: User,
}

impl Sessions<'_> {
    /// Whose token this is. The session and its user are read from the store: signing out and disabling act at once.
    ///
    /// # Errors
    /// [`Error::InvalidToken`] for a token that is not ours, was altered or ran out, [`Error::SessionEnded`] when its
    /// session is over, [`Error::Unavailable`].
    pub async fn authenticate(&self, token: &AccessToken) -> Result<Authenticated, Error> {
        let inner = self.inner;
        let now = inner.clock.now();
        let (key, subject) = match inner.policies.tokens.format {
            TokenFormat::Jwt => {
                let expected = Expected {
                    issuer: inner.issuer(),
                    audience: &inner.policies.tokens.audience,
                    now,
                    leeway: time::Duration::ZERO,
                };
                let claims =
                    inner.signing_keys().await?.verify(token, &expected).map_err(|_| Error::InvalidToken)?;
                (SessionKey::Id(claims.sid), Some(claims.sub))
            }
            TokenFormat::Opaque => {
                let token = token.expose();
                // What cannot be one of ours is not looked up.
                if !token.starts_with(ACCESS_PREFIX) || token.len() > 128 {
                    return Err(Error::InvalidToken);
                }
                (SessionKey::Access(token_digest(token)), None)
            }
        };
        match inner.store.session(SessionQuery { now, key }).await? {
            Some(view) if subject.is_none_or(|subject| subject == view.user.id) => {
                Ok(Authenticated { session: view.session, user: view.user })
            }
            None if subject.is_some() => Err(Error::SessionEnded),
            Some(_) | None => Err(Error::InvalidToken),
        }
    }

    /// Ends the caller's session.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn logout(&self, caller: &Authenticated, client: &ClientContext) -> Result<(), Error> {
        let inner = self.inner;
        let now = inner.clock.now();
        let user = &caller.user;
        let command = EndSessions {
            now,
            user_id: user.id,
            which: SessionSelector::One(caller.session.id),
            audit: inner.audit_draft(AuditEvent::SignOut, Some(user.email.key()), Some(user.id), client, now),
        };
        inner.store.end_sessions(command).await?;
        Ok(())
    }
}

const ACCESS_PREFIX: &str = "uma_";
const REFRESH_PREFIX: &str = "umr_";
/// How far apart the clocks of two instances may be for a token of one to count at the other at once.
const NOT_BEFORE_SLACK: i64 = 30;

/// A session to be opened, with the secrets that only its owner will have.
pub(super) struct Issued {
    pub(super) session: NewSession,
    refresh: RefreshToken,
    access: Option<AccessToken>,
}

impl Inner {
    /// Prepares a session. Whatever could fail about it fails here, before anything is written.
    pub(super) async fn new_session(
        &self,
        method: AuthMethod,
        client: &ClientContext,
        now: OffsetDateTime,
    ) -> Result<Issued, Error> {
        let (tokens, sessions) = (&self.policies.tokens, &self.policies.sessions);
        let access = match tokens.format {
            TokenFormat::Jwt => {
                self.signing_keys().await?;
                None
            }
            TokenFormat::Opaque => Some(random_token(ACCESS_PREFIX, &*self.random)),
        };
        let refresh = random_token(REFRESH_PREFIX, &*self.random);
        let session = NewSession {
            id: SessionId::new(now, &*self.random),
            refresh: token_digest(&refresh),
            access: access.as_ref().map(|access| (token_digest(access), now + tokens.access_ttl)),
            idle_expires_at: now + sessions.idle_ttl,
            expires_at: now + sessions.max_ttl,
            method,
            ip: client.ip,
            user_agent: client.user_agent.clone(),
            network: self.network_key(client),
        };
        Ok(Issued {
            session,
            refresh: RefreshToken::new(refresh.as_str()),
            access: access.map(|access| AccessToken::new(access.as_str())),
        })
    }

    /// The answer to a sign-in whose session was opened.
    pub(super) async fn signed_in(
        &self,
        issued: Issued,
        user: User,
        now: OffsetDateTime,
    ) -> Result<SignedIn, Error> {
        let Issued { session, refresh, access } = issued;
        let access_token = match access {
            Some(access) => access,
            None => self.sign(&session, &user, now).await?,
        };
        Ok(SignedIn {
            access_token,
            expires_in: plain(self.policies.tokens.access_ttl),
            refresh_token: refresh,
            refresh_expires_in: plain(session.idle_expires_at - now),
            user,
            session_id: session.id,
        })
    }

    async fn sign(
        &self,
        session: &NewSession,
        user: &User,
        now: OffsetDateTime,
    ) -> Result<AccessToken, Error> {
        let tokens = &self.policies.tokens;
        let claims = AccessClaims {
            iss: self.issuer().into(),
            sub: user.id,
            aud: tokens.audience.clone(),
            iat: now.unix_timestamp(),
            nbf: now.unix_timestamp() - NOT_BEFORE_SLACK,
            exp: (now + tokens.access_ttl).unix_timestamp(),
            jti: random_token("", &*self.random).to_string(),
            sid: session.id,
            roles: user.roles.iter().map(|role| role.as_str().into()).collect(),
            email: user.email.as_str().into(),
            auth_time: now.unix_timestamp(),
            amr: vec![session.method.as_str().into()],
        };
        let keys = self.signing_keys().await?;
        keys.sign(&claims, SigningAlgorithm::EdDsa, now)
            .ok_or(Error::Internal("an access token could not be signed"))
    }
}
