//! Sessions.

use async_trait::async_trait;

use super::MemoryStore;
use crate::domain::user::UserStatus;
use crate::port::store::session::{
    EndSessions, LoginCounted, LoginFailed, OpenSession, SessionKey, SessionOpened, SessionQuery,
    SessionSelector, SessionStore, SessionView,
};
use crate::port::store::{Happened, StoreError};

#[async_trait]
impl SessionStore for MemoryStore {
    async fn open_session(&self, command: OpenSession) -> Result<SessionOpened, StoreError> {
        let OpenSession { now, user_id, expect, session, upgrade, guard, audit, events } = command;
        let mut state = self.state()?;
        if state.sessions.contains_key(&session.id)
            && let Some(row) = state.users.get(&user_id)
        {
            return Ok(SessionOpened::Opened(Box::new(row.user.clone())));
        }
        if let Some(retry_after) = state.guard_refuses(Some(user_id), guard.as_ref(), now) {
            return Ok(SessionOpened::Throttled { retry_after });
        }
        let Some(row) = state.users.get_mut(&user_id).filter(|row| row.user.status == UserStatus::Active)
        else {
            state.audit_refused(audit, now, "not_active", Some(user_id));
            return Ok(SessionOpened::NotActive);
        };
        if row.version != expect {
            state.audit_refused(audit, now, "stale", Some(user_id));
            return Ok(SessionOpened::Stale);
        }
        if upgrade.is_some() {
            row.password = upgrade;
        }
        if let Some(guard) = guard {
            state.throttles.remove(&guard.own.key);
        }
        state.open(session, user_id, expect, now);
        let user = state.users.get(&user_id).map(|row| row.user.clone());
        let Some(user) = user else { return Ok(SessionOpened::NotActive) };
        let happened = Happened { signed_in: true, ..Happened::default() };
        state.owe_events(&events, happened, user_id, now);
        state.audit_done(audit, now, Some(user_id));
        drop(state);
        self.wake();
        Ok(SessionOpened::Opened(Box::new(user)))
    }

    async fn login_failed(&self, command: LoginFailed) -> Result<LoginCounted, StoreError> {
        let LoginFailed { now, user_id, guard, audit } = command;
        let mut state = self.state()?;
        if let Some(retry_after) = state.guard_refuses(user_id, guard.as_ref(), now) {
            return Ok(LoginCounted::Throttled { retry_after });
        }
        if let Some(guard) = guard {
            let known = state.is_known(user_id, &guard);
            state.count(&guard.own, now);
            state.count(&guard.network, now);
            if !known {
                state.count(&guard.far, now);
            }
        }
        state.audit_refused(audit, now, "invalid_credentials", user_id);
        Ok(LoginCounted::Counted)
    }

    async fn session(&self, query: SessionQuery) -> Result<Option<SessionView>, StoreError> {
        let SessionQuery { now, key } = query;
        let state = self.state()?;
        let row = match key {
            SessionKey::Id(id) => state.sessions.get(&id),
            SessionKey::Access(digest) => state
                .sessions
                .values()
                .find(|row| row.access.is_some_and(|(access, ends_at)| access == digest && ends_at > now)),
        };
        let Some(row) = row.filter(|row| {
            row.ended_at.is_none() && row.session.idle_expires_at > now && row.session.expires_at > now
        }) else {
            return Ok(None);
        };
        let user = state
            .users
            .get(&row.session.user_id)
            .filter(|user| user.user.status == UserStatus::Active && user.version == row.version);
        Ok(user.map(|user| SessionView {
            session: row.session.clone(),
            user: user.user.clone(),
            password_version: user.version,
        }))
    }

    async fn end_sessions(&self, command: EndSessions) -> Result<u64, StoreError> {
        let EndSessions { now, user_id, which, audit } = command;
        let mut state = self.state()?;
        let mut ended = 0;
        for row in
            state.sessions.values_mut().filter(|row| row.session.user_id == user_id && row.ended_at.is_none())
        {
            let meant = match which {
                SessionSelector::One(id) => row.session.id == id,
                SessionSelector::AllBut(id) => row.session.id != id,
                SessionSelector::All => true,
            };
            if meant {
                row.ended_at = Some(now);
                ended += 1;
            }
        }
        state.audit_done(audit, now, Some(user_id));
        Ok(ended)
    }
}
