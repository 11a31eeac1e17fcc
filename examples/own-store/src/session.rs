//! Sessions.

use std::cmp::Reverse;

use async_trait::async_trait;
use usermgr_core::domain::session::Session;
use usermgr_core::domain::user::UserStatus;
use usermgr_core::port::store::session::{
    EndSessions, LoginCounted, LoginFailed, OpenSession, Rotate, Rotated, SessionKey, SessionOpened,
    SessionQuery, SessionSelector, SessionStore, SessionView, SessionsEnded, SessionsQuery,
};
use usermgr_core::port::store::throttle::LoginGuard;
use usermgr_core::port::store::{Happened, StoreError};

use crate::FileStore;
use crate::database::Transaction;
use crate::rows::{AccessRow, SessionRow, ThrottleRow, UserRow};
use crate::text::Text as _;

#[async_trait]
impl SessionStore for FileStore {
    async fn open_session(&self, command: OpenSession) -> Result<SessionOpened, StoreError> {
        self.run(|tx| open_session(tx, command)).await
    }

    async fn login_failed(&self, command: LoginFailed) -> Result<LoginCounted, StoreError> {
        self.run(|tx| login_failed(tx, command)).await
    }

    async fn session(&self, query: SessionQuery) -> Result<Option<SessionView>, StoreError> {
        self.run(move |tx| session(tx, query)).await
    }

    async fn sessions(&self, query: SessionsQuery) -> Result<Vec<Session>, StoreError> {
        self.run(move |tx| sessions(tx, query)).await
    }

    async fn rotate(&self, command: Rotate) -> Result<Rotated, StoreError> {
        self.run(|tx| rotate(tx, command)).await
    }

    async fn end_sessions(&self, command: EndSessions) -> Result<SessionsEnded, StoreError> {
        self.run(|tx| end_sessions(tx, command)).await
    }
}

fn open_session(tx: &mut Transaction<'_>, command: OpenSession) -> Result<SessionOpened, StoreError> {
    let OpenSession { now, user_id, expect, session, upgrade, guard, throttle, restore, audit, events } =
        command;
    let found = tx.get::<UserRow>(user_id)?;
    if tx.get::<SessionRow>(session.id)?.is_some()
        && let Some(row) = found
    {
        return Ok(SessionOpened::Opened(Box::new(row.user)));
    }
    tx.clamp(guard.iter().flat_map(LoginGuard::rules), now)?;
    if let Some(retry_after) = tx.guard_refuses(Some(user_id), guard.as_ref(), now)? {
        return Ok(SessionOpened::Throttled { retry_after });
    }
    if let Some(retry_after) = tx.count_unless_used_up(&throttle, now)? {
        return Ok(SessionOpened::Throttled { retry_after });
    }
    let returns = match &found {
        Some(UserRow { user, deleted: Some(deleted), .. }) => {
            deleted.is_restorable(now) && tx.user_of(user.email.key())?.is_none()
        }
        _ => false,
    };
    let is_there =
        |row: &UserRow| row.user.status == UserStatus::Active && (row.deleted.is_none() || returns);
    let Some(mut row) = found.filter(is_there) else {
        tx.audit_refused(audit, now, "not_active", Some(user_id))?;
        return Ok(SessionOpened::NotActive);
    };
    if row.version != expect {
        tx.audit_refused(audit, now, "stale", Some(user_id))?;
        return Ok(SessionOpened::Stale);
    }
    if upgrade.is_some() {
        row.password = upgrade;
    }
    if returns {
        row.deleted = None;
        row.user.updated_at = now;
        tx.audit_done(restore, now, Some(user_id))?;
    }
    row.user.last_login_at = Some(now);
    tx.put(user_id, &row)?;
    if let Some(guard) = guard {
        tx.remove::<ThrottleRow>(guard.own.key.text());
    }
    let opened = session.id;
    tx.open_session(session, user_id, expect, now)?;
    let happened =
        Happened { signed_in: true, user_restored: returns, session: Some(opened), ..Happened::default() };
    tx.owe_events(&events, happened, user_id, now)?;
    tx.audit_done(audit, now, Some(user_id))?;
    Ok(SessionOpened::Opened(Box::new(row.user)))
}

fn login_failed(tx: &mut Transaction<'_>, command: LoginFailed) -> Result<LoginCounted, StoreError> {
    let LoginFailed { now, user_id, guard, audit } = command;
    tx.clamp(guard.iter().flat_map(LoginGuard::rules), now)?;
    if let Some(retry_after) = tx.guard_refuses(user_id, guard.as_ref(), now)? {
        return Ok(LoginCounted::Throttled { retry_after });
    }
    if let Some(guard) = guard {
        let known = tx.is_known(user_id, &guard)?;
        for rule in guard.rules_for(known) {
            tx.count(rule, now)?;
        }
    }
    tx.audit_refused(audit, now, "invalid_credentials", user_id)?;
    Ok(LoginCounted::Counted)
}

fn session(tx: &Transaction<'_>, query: SessionQuery) -> Result<Option<SessionView>, StoreError> {
    let SessionQuery { now, key } = query;
    let id = match key {
        SessionKey::Id(id) => Some(id),
        SessionKey::Access(digest) => {
            let row: Option<AccessRow> = tx.get(digest.text())?;
            row.filter(|row| row.ends_at > now).map(|row| row.session)
        }
    };
    id.map_or(Ok(None), |id| tx.session_view(id, now))
}

fn sessions(tx: &Transaction<'_>, query: SessionsQuery) -> Result<Vec<Session>, StoreError> {
    let SessionsQuery { now, user_id } = query;
    let mut sessions = Vec::new();
    for (_, row) in tx.rows::<SessionRow>()? {
        if row.session.user_id == user_id {
            sessions.extend(tx.session_view(row.session.id, now)?.map(|view| view.session));
        }
    }
    sessions.sort_by_key(|session| Reverse((session.last_seen_at, session.id)));
    sessions.truncate(SessionsQuery::MOST);
    Ok(sessions)
}

fn rotate(tx: &mut Transaction<'_>, command: Rotate) -> Result<Rotated, StoreError> {
    let Rotate { now, id, presented, next, access, idle_expires_at, grace, throttle, audit, events } =
        command;
    let found = tx.get::<SessionRow>(id)?;
    let owner = found.as_ref().map(|row| row.session.user_id);
    let (Some(mut row), Some(mut view)) = (found, tx.session_view(id, now)?) else {
        return Ok(Rotated::Ended { owner });
    };
    let again = row.previous == Some(presented) && row.replaced_at.is_some_and(|at| (now - at).abs() < grace);
    let successor = next.iter().position(|digest| *digest == row.refresh).filter(|_| again);
    let current = next.first().filter(|_| row.refresh == presented);
    if (current.is_some() || successor.is_some())
        && let Some(retry_after) = tx.count_unless_used_up(&throttle, now)?
    {
        return Ok(Rotated::Throttled { retry_after });
    }
    if let Some(first) = current {
        row.previous = Some(presented);
        row.replaced_at = Some(now);
        row.refresh = *first;
        row.session.last_seen_at = now;
        row.session.idle_expires_at = idle_expires_at.min(row.session.expires_at);
        tx.put(id, &row)?;
        view.session = row.session;
    } else if successor.is_none() {
        row.ended_at = Some(now);
        tx.put(id, &row)?;
        let happened = Happened { sessions_ended: true, session: Some(id), ..Happened::default() };
        tx.owe_events(&events, happened, view.user.id, now)?;
        tx.audit_refused(audit, now, "token_reused", owner)?;
        return Ok(Rotated::Reused);
    }
    tx.grant_access(id, access)?;
    tx.audit_done(audit, now, owner)?;
    let view = Box::new(view);
    Ok(match successor {
        Some(successor) => Rotated::Repeated { view, successor },
        None => Rotated::Rotated(view),
    })
}

fn end_sessions(tx: &mut Transaction<'_>, command: EndSessions) -> Result<SessionsEnded, StoreError> {
    let EndSessions { now, user_id, which, by, audit, events } = command;
    let reached = tx.live_user(user_id)?.map(|row| row.user.roles).unwrap_or_default();
    if !tx.permits(by.as_ref(), &reached)? {
        tx.audit_refused(audit, now, "forbidden", Some(user_id))?;
        return Ok(SessionsEnded::NotPermitted);
    }
    let is_meant = |session: &Session| match which {
        SessionSelector::One(id) => session.id == id,
        SessionSelector::AllBut(id) => session.id != id,
        SessionSelector::All => true,
    };
    let ended = tx.end_sessions_of(user_id, is_meant, now)?;
    if ended == 0 {
        return Ok(SessionsEnded::Ended(0));
    }
    let happened = Happened { sessions_ended: true, session: which.one(), ..Happened::default() };
    tx.owe_events(&events, happened, user_id, now)?;
    tx.audit_done(audit, now, Some(user_id))?;
    Ok(SessionsEnded::Ended(ended))
}
