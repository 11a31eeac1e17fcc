//! Renewing a session by its refresh token.
//!
//! [`Sessions::refresh`](super::sessions::Sessions::refresh).

use super::limits::wait;
use super::sessions::{Sessions, SignedIn, TokenFacts};
use crate::crypto::digest::token_digest;
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::event::EventKind;
use crate::domain::secret::RefreshToken;
use crate::error::Error;
use crate::port::store::session::{Rotate, Rotated, SessionKey, SessionQuery};

impl Sessions<'_> {
    /// Renews a session: a new access token, and a refresh token that takes the place of this one.
    ///
    /// Whoever asks by the same token at the same time, or again within the grace
    /// ([`SessionPolicy::refresh_grace`](crate::policy::SessionPolicy::refresh_grace)) because an answer was lost, gets
    /// the same successor, so that parallel tabs do not sign each other out. A token that was used up before that ends
    /// its session: somebody has a copy.
    ///
    /// # Errors
    /// [`Error::InvalidToken`] for a token that is not ours, [`Error::SessionEnded`] when its session is over or the
    /// token was used up, [`Error::RateLimited`] after [`RENEWALS`](crate::policy::ThrottlePolicy::RENEWALS) of the user,
    /// [`Error::Unavailable`].
    ///
    /// # Security
    /// RFC 9700 §4.14.2. Neither end of a session is ever moved past its absolute one. A token that we did not make is
    /// refused before anything is read. Refused renewals of one network are recorded within a limit, and past it cost two
    /// reads; they never keep another client of that network from renewing.
    pub async fn refresh(&self, token: &RefreshToken, client: &ClientContext) -> Result<SignedIn, Error> {
        let inner = self.inner;
        let (id, successors) = inner.secrets.open_refresh_token(token).ok_or(Error::InvalidToken)?;
        let now = inner.clock.now();
        let found = inner.store.session(SessionQuery { now, key: SessionKey::Id(id) }).await?;
        if found.is_none() && inner.is_past_refusals(client, now).await? {
            return Err(Error::SessionEnded);
        }
        let sessions = &inner.policies.sessions;
        let audit = inner.audit_draft(AuditEvent::SessionRefresh, None, None, client, now);
        let access = inner.prepare_access(now, now + sessions.max_ttl).await?;
        let command = Rotate {
            now,
            id,
            presented: token_digest(token.expose()),
            next: successors.iter().map(|next| token_digest(next.expose())).collect(),
            access: access.as_ref().map(|(token, ends_at)| (token_digest(token.expose()), *ends_at)),
            idle_expires_at: now + sessions.idle_ttl,
            grace: sessions.refresh_grace,
            throttle: found.map(|view| inner.renewals(view.user.id)).unwrap_or_default(),
            audit: audit.clone(),
            events: inner.event_drafts(&[EventKind::SessionsEnded], now),
        };
        let (view, successor) = match inner.store.rotate(command).await? {
            Rotated::Rotated(view) => (view, 0),
            Rotated::Repeated { view, successor } => (view, successor),
            Rotated::Reused => return Err(Error::SessionEnded),
            Rotated::Ended { owner } => {
                inner.record_refusal(audit.refused(now, "session_ended", owner), None, client).await?;
                return Err(Error::SessionEnded);
            }
            Rotated::Throttled { retry_after } => {
                return Err(Error::RateLimited { retry_after: wait(retry_after) });
            }
        };
        let refresh =
            successors.into_iter().nth(successor).ok_or(Error::Internal("a store named no successor"))?;
        let facts = TokenFacts {
            session: id,
            method: view.session.method,
            authenticated_at: view.session.authenticated_at,
            idle_expires_at: view.session.idle_expires_at,
            expires_at: view.session.expires_at,
        };
        inner.session_answer(&facts, refresh, access.map(|(token, _)| token), view.user, now).await
    }
}
