//! Sessions.

use async_trait::async_trait;

use super::MemoryStore;
use crate::domain::session::Session;
use crate::domain::user::UserStatus;
use crate::port::store::session::{
    EndSessions, LoginCounted, LoginFailed, OpenSession, Rotate, Rotated, SessionKey, SessionOpened,
    SessionQuery, SessionSelector, SessionStore, SessionView, SessionsEnded, SessionsQuery,
};
use crate::port::store::throttle::LoginGuard;
use crate::port::store::{Happened, StoreError};

#[async_trait]
impl SessionStore for MemoryStore {
    async fn open_session(&self, command: OpenSession) -> Result<SessionOpened, StoreError> {
        let OpenSession { now, user_id, expect, session, upgrade, guard, throttle, restore, audit, events } =
            command;
        let mut state = self.state()?;
        if state.sessions.contains_key(&session.id)
            && let Some(row) = state.users.get(&user_id)
        {
            return Ok(SessionOpened::Opened(Box::new(row.user.clone())));
        }
        state.clamp(guard.iter().flat_map(LoginGuard::rules), now);
        if let Some(retry_after) = state.guard_refuses(Some(user_id), guard.as_ref(), now) {
            return Ok(SessionOpened::Throttled { retry_after });
        }
        if let Some(retry_after) = state.count_unless_used_up(&throttle, now) {
            return Ok(SessionOpened::Throttled { retry_after });
        }
        let returns = state.users.get(&user_id).is_some_and(|row| {
            row.deleted.is_some_and(|deleted| deleted.is_restorable(now))
                && state.user_of(row.user.email.key()).is_none()
        });
        let Some(row) = state
            .users
            .get_mut(&user_id)
            .filter(|row| row.user.status == UserStatus::Active && (row.deleted.is_none() || returns))
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
        if returns {
            row.deleted = None;
            row.user.updated_at = now;
            state.audit_done(restore, now, Some(user_id));
        }
        if let Some(guard) = guard {
            state.throttles.remove(&guard.own.key);
        }
        let opened = session.id;
        state.open(session, user_id, expect, now);
        let user = state.users.get(&user_id).map(|row| row.user.clone());
        let Some(user) = user else { return Ok(SessionOpened::NotActive) };
        let happened = Happened {
            signed_in: true,
            user_restored: returns,
            session: Some(opened),
            ..Happened::default()
        };
        state.owe_events(&events, happened, user_id, now);
        state.audit_done(audit, now, Some(user_id));
        drop(state);
        self.wake();
        Ok(SessionOpened::Opened(Box::new(user)))
    }

    async fn login_failed(&self, command: LoginFailed) -> Result<LoginCounted, StoreError> {
        let LoginFailed { now, user_id, guard, audit } = command;
        let mut state = self.state()?;
        state.clamp(guard.iter().flat_map(LoginGuard::rules), now);
        if let Some(retry_after) = state.guard_refuses(user_id, guard.as_ref(), now) {
            return Ok(LoginCounted::Throttled { retry_after });
        }
        if let Some(guard) = guard {
            let known = state.is_known(user_id, &guard);
            for rule in guard.rules_for(known) {
                state.count(rule, now);
            }
        }
        state.audit_refused(audit, now, "invalid_credentials", user_id);
        Ok(LoginCounted::Counted)
    }

    async fn session(&self, query: SessionQuery) -> Result<Option<SessionView>, StoreError> {
        let SessionQuery { now, key } = query;
        let state = self.state()?;
        let id = match key {
            SessionKey::Id(id) => Some(id),
            SessionKey::Access(digest) => {
                state.access_tokens.get(&digest).filter(|(_, ends_at)| *ends_at > now).map(|(id, _)| *id)
            }
        };
        Ok(id.and_then(|id| state.view(id, now)))
    }

    async fn sessions(&self, query: SessionsQuery) -> Result<Vec<Session>, StoreError> {
        let SessionsQuery { now, user_id } = query;
        let state = self.state()?;
        let of_user = state.sessions.values().filter(|row| row.session.user_id == user_id);
        let mut sessions: Vec<Session> =
            of_user.filter_map(|row| Some(state.view(row.session.id, now)?.session)).collect();
        sessions.sort_by_key(|session| std::cmp::Reverse((session.last_seen_at, session.id)));
        sessions.truncate(SessionsQuery::MOST);
        Ok(sessions)
    }

    async fn rotate(&self, command: Rotate) -> Result<Rotated, StoreError> {
        let Rotate { now, id, presented, next, access, idle_expires_at, grace, throttle, audit, events } =
            command;
        let mut guard = self.state()?;
        let state = &mut *guard;
        let owner = state.sessions.get(&id).map(|row| row.session.user_id);
        let (Some(_), Some(row)) = (state.view(id, now), state.sessions.get(&id)) else {
            return Ok(Rotated::Ended { owner });
        };
        let again = row.previous.is_some_and(|(digest, at)| digest == presented && (now - at).abs() < grace);
        let successor = next.iter().position(|digest| *digest == row.refresh).filter(|_| again);
        let current = next.first().filter(|_| row.refresh == presented);
        if (current.is_some() || successor.is_some())
            && let Some(retry_after) = state.count_unless_used_up(&throttle, now)
        {
            return Ok(Rotated::Throttled { retry_after });
        }
        let Some(row) = state.sessions.get_mut(&id) else { return Ok(Rotated::Ended { owner }) };
        if let Some(first) = current {
            row.previous = Some((presented, now));
            row.refresh = *first;
            row.session.last_seen_at = now;
            row.session.idle_expires_at = idle_expires_at.min(row.session.expires_at);
        } else if successor.is_none() {
            row.ended_at = Some(now);
            let user = row.session.user_id;
            let happened = Happened { sessions_ended: true, session: Some(id), ..Happened::default() };
            state.owe_events(&events, happened, user, now);
            state.audit_refused(audit, now, "token_reused", owner);
            drop(guard);
            self.wake();
            return Ok(Rotated::Reused);
        }
        state.grant_access(id, access);
        state.audit_done(audit, now, owner);
        let Some(view) = state.view(id, now).map(Box::new) else { return Ok(Rotated::Ended { owner }) };
        Ok(match successor {
            Some(successor) => Rotated::Repeated { view, successor },
            None => Rotated::Rotated(view),
        })
    }

    async fn end_sessions(&self, command: EndSessions) -> Result<SessionsEnded, StoreError> {
        let EndSessions { now, user_id, which, by, audit, events } = command;
        let mut state = self.state()?;
        let reached = state.users.get(&user_id).map(|row| row.user.roles.clone()).unwrap_or_default();
        if !state.permits(by.as_ref(), &reached) {
            state.audit_refused(audit, now, "forbidden", Some(user_id));
            return Ok(SessionsEnded::NotPermitted);
        }
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
        if ended == 0 {
            return Ok(SessionsEnded::Ended(0));
        }
        let happened = Happened { sessions_ended: true, session: which.one(), ..Happened::default() };
        state.owe_events(&events, happened, user_id, now);
        state.audit_done(audit, now, Some(user_id));
        drop(state);
        self.wake();
        Ok(SessionsEnded::Ended(ended))
    }
}
