//! What a session is made of, whom a token belongs to, and ending sessions.

use std::time::Duration;

use time::OffsetDateTime;

use super::limits::plain;
use crate::crypto::access_token::{AccessClaims, Expected};
use crate::crypto::digest::{random_token, token_digest};
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::event::EventKind;
use crate::domain::id::SessionId;
use crate::domain::secret::{AccessToken, RefreshToken};
use crate::domain::session::{AuthMethod, Session};
use crate::domain::user::User;
use crate::error::Error;
use crate::manager::Inner;
use crate::policy::TokenFormat;
use crate::port::store::session::{
    EndSessions, NewSession, SessionKey, SessionQuery, SessionSelector, SessionsEnded, SessionsQuery,
};

/// Sessions; see [`UserManager::sessions`](crate::UserManager::sessions).
///
/// ```
/// use usermgr_core::{ClientContext, Error, Password};
/// # use std::sync::Arc;
/// # use usermgr_core::testing::{Mailbox, MemoryStore};
/// # use usermgr_core::{SecretKey, UserManager};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mailbox = Arc::new(Mailbox::default());
/// # let users = UserManager::builder()
/// #     .store(Arc::new(MemoryStore::default()))
/// #     .mailer(mailbox.clone())
/// #     .secret_key(SecretKey::from_bytes([7; 32]))
/// #     .build()?;
/// # use usermgr_core::flow::permission::Principal;
/// # use usermgr_core::flow::users::CreateUser;
/// # let ana = CreateUser::new("ana@example.org").with_password("correct horse battery");
/// # users.users().create(Principal::Operator, ana, &ClientContext::new()).await?;
///
/// let client = ClientContext::new();
/// let password = Password::new("correct horse battery");
/// let signed_in = users.sessions().login("ana@example.org", &password, &client).await?;
/// let renewed = users.sessions().refresh(&signed_in.refresh_token, &client).await?;
///
/// let caller = users.sessions().authenticate(&renewed.access_token).await?; // at every request
/// users.sessions().logout(&caller, &client).await?;
/// let after = users.sessions().authenticate(&renewed.access_token).await;
/// assert!(matches!(after, Err(Error::SessionEnded)));
/// # Ok(())
/// # }
/// ```
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
    /// session is over, [`Error::Unavailable`]. An opaque token of a session that is over is [`Error::InvalidToken`] too:
    /// nothing is left to tell it by.
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
                let claims = inner.verify_token(token, &expected).await?;
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
        self.end_own(caller, SessionSelector::One(caller.session.id), client).await.map(drop)
    }

    /// The caller's sessions that hold, the one that was renewed last first; at most 200.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    ///
    /// ```
    /// use usermgr_core::ClientContext;
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::new();
    /// # let (users, client) = (auth.users(), ClientContext::new());
    ///
    /// # let signed_in = auth.signed_in("user").await;
    /// let caller = users.sessions().authenticate(&signed_in.access_token).await?;
    /// for session in users.sessions().list(&caller).await? {
    ///     let is_this = session.id == caller.session.id;
    ///     println!("{:?} since {}{}", session.user_agent, session.created_at, if is_this { ", here" } else { "" });
    /// }
    /// # let _: ClientContext = client;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list(&self, caller: &Authenticated) -> Result<Vec<Session>, Error> {
        let query = SessionsQuery { now: self.inner.clock.now(), user_id: caller.user.id };
        Ok(self.inner.store.sessions(query).await?)
    }

    /// Ends one of the caller's sessions.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the caller has no such session, [`Error::Unavailable`].
    pub async fn end(
        &self,
        caller: &Authenticated,
        id: SessionId,
        client: &ClientContext,
    ) -> Result<(), Error> {
        match self.end_own(caller, SessionSelector::One(id), client).await? {
            0 => Err(Error::NotFound),
            _ => Ok(()),
        }
    }

    /// Ends all of the caller's sessions but this one, which [`logout`](Self::logout) ends. Answers how many there were.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    ///
    /// ```
    /// use usermgr_core::ClientContext;
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::new();
    /// # let (users, client) = (auth.users(), ClientContext::new());
    ///
    /// # let signed_in = auth.signed_in("user").await;
    /// # let password = usermgr_core::Password::new(TestAuth::PASSWORD);
    /// # users.sessions().login(signed_in.user.email.as_str(), &password, &client).await?;
    /// let caller = users.sessions().authenticate(&signed_in.access_token).await?;
    /// assert_eq!(users.sessions().end_others(&caller, &client).await?, 1);
    /// users.sessions().logout(&caller, &client).await?; // and here: signed out everywhere
    /// # Ok(())
    /// # }
    /// ```
    pub async fn end_others(&self, caller: &Authenticated, client: &ClientContext) -> Result<u64, Error> {
        self.end_own(caller, SessionSelector::AllBut(caller.session.id), client).await
    }

    async fn end_own(
        &self,
        caller: &Authenticated,
        which: SessionSelector,
        client: &ClientContext,
    ) -> Result<u64, Error> {
        let inner = self.inner;
        let now = inner.clock.now();
        let user = &caller.user;
        let audit =
            inner.audit_draft(AuditEvent::SignOut, Some(user.email.key()), Some(user.id), client, now);
        let events = inner.event_drafts(&[EventKind::SessionsEnded], now);
        let command = EndSessions { now, user_id: user.id, which, by: None, audit, events };
        match inner.store.end_sessions(command).await? {
            SessionsEnded::Ended(ended) => Ok(ended),
            SessionsEnded::NotPermitted => Err(Error::Forbidden),
        }
    }
}

const ACCESS_PREFIX: &str = "uma_";
/// How far apart the clocks of two instances may be for a token of one to count at the other at once.
const NOT_BEFORE_SLACK: i64 = 30;

/// A session to be opened, with the secrets that only its owner will have.
pub(super) struct Issued {
    pub(super) session: NewSession,
    refresh: RefreshToken,
    access: Option<AccessToken>,
}

/// What an access token says of its session.
pub(super) struct TokenFacts {
    pub(super) session: SessionId,
    pub(super) method: AuthMethod,
    pub(super) authenticated_at: OffsetDateTime,
    pub(super) idle_expires_at: OffsetDateTime,
    pub(super) expires_at: OffsetDateTime,
}

impl Inner {
    /// Prepares a session. Whatever could fail about it fails here, before anything is written.
    pub(super) async fn new_session(
        &self,
        method: AuthMethod,
        client: &ClientContext,
        now: OffsetDateTime,
    ) -> Result<Issued, Error> {
        let sessions = &self.policies.sessions;
        let id = SessionId::new(now, &*self.random);
        let refresh = self.secrets.refresh_token(id, &*self.random);
        let expires_at = now + sessions.max_ttl;
        let access = self.prepare_access(now, expires_at).await?;
        let session = NewSession {
            id,
            refresh: token_digest(refresh.expose()),
            access: access.as_ref().map(|(token, ends_at)| (token_digest(token.expose()), *ends_at)),
            idle_expires_at: (now + sessions.idle_ttl).min(expires_at),
            expires_at,
            method,
            ip: client.ip,
            user_agent: client.user_agent.clone(),
            network: self.network_key(client),
        };
        Ok(Issued { session, refresh, access: access.map(|(token, _)| token) })
    }

    /// An opaque access token and when it runs out, where tokens are opaque; else sees to it that one can be signed.
    pub(super) async fn prepare_access(
        &self,
        now: OffsetDateTime,
        session_expires_at: OffsetDateTime,
    ) -> Result<Option<(AccessToken, OffsetDateTime)>, Error> {
        let tokens = &self.policies.tokens;
        match tokens.format {
            TokenFormat::Jwt => self.signing_keys(now).await.map(|_| None),
            TokenFormat::Opaque => {
                let token = AccessToken::new(random_token(ACCESS_PREFIX, &*self.random).as_str());
                Ok(Some((token, (now + tokens.access_ttl).min(session_expires_at))))
            }
        }
    }

    /// The answer to a sign-in whose session was opened.
    pub(super) async fn signed_in(
        &self,
        issued: Issued,
        user: User,
        now: OffsetDateTime,
    ) -> Result<SignedIn, Error> {
        let Issued { session, refresh, access } = issued;
        let facts = TokenFacts {
            session: session.id,
            method: session.method,
            authenticated_at: now,
            idle_expires_at: session.idle_expires_at,
            expires_at: session.expires_at,
        };
        self.session_answer(&facts, refresh, access, user, now).await
    }

    /// What whoever signed in or renewed a session is given.
    pub(super) async fn session_answer(
        &self,
        facts: &TokenFacts,
        refresh_token: RefreshToken,
        access: Option<AccessToken>,
        user: User,
        now: OffsetDateTime,
    ) -> Result<SignedIn, Error> {
        let access_ends = (now + self.policies.tokens.access_ttl).min(facts.expires_at);
        let access_token = match access {
            Some(access) => access,
            None => self.sign(facts, &user, now, access_ends).await?,
        };
        Ok(SignedIn {
            access_token,
            expires_in: plain(access_ends - now),
            refresh_token,
            refresh_expires_in: plain(facts.idle_expires_at - now),
            user,
            session_id: facts.session,
        })
    }

    async fn sign(
        &self,
        facts: &TokenFacts,
        user: &User,
        now: OffsetDateTime,
        ends_at: OffsetDateTime,
    ) -> Result<AccessToken, Error> {
        let tokens = &self.policies.tokens;
        let claims = AccessClaims {
            iss: self.issuer().into(),
            sub: user.id,
            aud: tokens.audience.clone(),
            iat: now.unix_timestamp(),
            nbf: now.unix_timestamp() - NOT_BEFORE_SLACK,
            exp: ends_at.unix_timestamp(),
            jti: random_token("", &*self.random).to_string(),
            sid: facts.session,
            roles: user.roles.iter().map(|role| role.as_str().into()).collect(),
            email: user.email.as_str().into(),
            auth_time: facts.authenticated_at.unix_timestamp(),
            amr: vec![facts.method.as_str().into()],
        };
        self.signing_keys(now)
            .await?
            .sign(&claims, tokens.algorithm, now)
            .ok_or(Error::Internal("an access token could not be signed"))
    }
}
