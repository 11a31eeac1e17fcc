//! Sessions.

use async_trait::async_trait;
use time::OffsetDateTime;
use usermgr_core::domain::id::{SessionId, UserId};
use usermgr_core::domain::password::PasswordHash;
use usermgr_core::domain::secret::Digest;
use usermgr_core::domain::session::{AuthMethod, Session};
use usermgr_core::domain::user::UserStatus;
use usermgr_core::port::store::account::Credentials;
use usermgr_core::port::store::session::{
    EndSessions, LoginCounted, LoginFailed, OpenSession, Rotate, Rotated, SessionKey, SessionOpened,
    SessionQuery, SessionSelector, SessionStore, SessionView, SessionsEnded, SessionsQuery,
};
use usermgr_core::port::store::throttle::LoginGuard;
use usermgr_core::port::store::{Happened, StoreError};
use uuid::Uuid;

use super::account::{known_user, lock_user_and_actor, locked_returning_user, locked_user, permits};
use super::event::owe_events;
use super::rows::{UserRow, corrupt, user_columns};
use super::writing::{Limits, audit_done, audit_refused, count_each, grant_access, is_known, open_session};
use super::{Store, Ts, Tx, fault, from_ts, reread, transact, ts};

/// The columns of a session, in the order of [`SessionRow`].
macro_rules! session_columns {
    () => {
        "s.id, s.method, s.ip, s.user_agent, s.created_at, s.authenticated_at, s.last_seen_at, s.idle_expires_at, \
         s.expires_at"
    };
}

/// Whether a session `s` of a user `u` holds at a time.
macro_rules! session_holds {
    ($now:literal) => {
        concat!(
            "s.ended_at IS NULL AND s.idle_expires_at > ",
            $now,
            " AND s.expires_at > ",
            $now,
            " AND u.status = 'active' AND u.deleted_at IS NULL AND u.password_version = s.password_version"
        )
    };
}

#[async_trait]
impl SessionStore for Store {
    async fn open_session(&self, command: OpenSession) -> Result<SessionOpened, StoreError> {
        transact!(self.open_session_once(command))
    }

    async fn login_failed(&self, command: LoginFailed) -> Result<LoginCounted, StoreError> {
        if let Some(outside) = self.end_host_transaction().await {
            return outside.login_failed(command).await;
        }
        transact!(self.login_failed_once(command))
    }

    async fn session(&self, query: SessionQuery) -> Result<Option<SessionView>, StoreError> {
        reread!(self.session_once(query))
    }

    async fn sessions(&self, query: SessionsQuery) -> Result<Vec<Session>, StoreError> {
        reread!(self.sessions_once(query))
    }

    async fn rotate(&self, command: Rotate) -> Result<Rotated, StoreError> {
        self.outside_only()?;
        transact!(self.rotate_once(command))
    }

    async fn end_sessions(&self, command: EndSessions) -> Result<SessionsEnded, StoreError> {
        transact!(self.end_sessions_once(command))
    }
}

impl Store {
    async fn session_once(&self, query: SessionQuery) -> Result<Option<SessionView>, StoreError> {
        let SessionQuery { now, key } = query;
        let row: Option<SessionRow> =
            match key {
                SessionKey::Id(id) => sqlx::query_as(concat!(
                    "SELECT ",
                    session_columns!(),
                    ", ",
                    user_columns!(),
                    " FROM usermgr_sessions s JOIN usermgr_users u ON u.id = s.user_id WHERE s.id = $1 AND ",
                    session_holds!("$2")
                ))
                .bind(id.as_uuid())
                .bind(ts(now))
                .fetch_optional(&mut *self.reader().await?)
                .await,
                SessionKey::Access(digest) => {
                    sqlx::query_as(concat!(
                        "SELECT ",
                        session_columns!(),
                        ", ",
                        user_columns!(),
                        " FROM usermgr_access_tokens a JOIN usermgr_sessions s ON s.id = a.session_id \
                     JOIN usermgr_users u ON u.id = s.user_id WHERE a.digest = $1 AND a.expires_at > $2 AND ",
                        session_holds!("$2")
                    ))
                    .bind(digest.as_bytes().as_slice())
                    .bind(ts(now))
                    .fetch_optional(&mut *self.reader().await?)
                    .await
                }
            }
            .map_err(fault)?;
        row.map(SessionRow::view).transpose()
    }

    async fn sessions_once(&self, query: SessionsQuery) -> Result<Vec<Session>, StoreError> {
        let SessionsQuery { now, user_id } = query;
        let rows: Vec<SessionRow> = sqlx::query_as(concat!(
            "SELECT ",
            session_columns!(),
            ", ",
            user_columns!(),
            " FROM usermgr_sessions s JOIN usermgr_users u ON u.id = s.user_id WHERE s.user_id = $1 AND ",
            session_holds!("$2"),
            " ORDER BY s.last_seen_at DESC, s.id DESC LIMIT $3"
        ))
        .bind(user_id.as_uuid())
        .bind(ts(now))
        .bind(i64::try_from(SessionsQuery::MOST).unwrap_or(i64::MAX))
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(fault)?;
        rows.into_iter().map(|row| Ok(row.view()?.session)).collect()
    }

    async fn open_session_once(&self, command: OpenSession) -> Result<SessionOpened, StoreError> {
        let OpenSession { now, user_id, expect, session, upgrade, guard, throttle, restore, audit, events } =
            command;
        let mut tx = self.begin().await?;
        let rules = guard.iter().flat_map(LoginGuard::rules);
        let limits = Limits::lock_present(&mut tx, rules, now).await?;
        let (mut found, opened_before) = opening_user(&mut tx, user_id, session.id).await?;
        let mut returns = false;
        if found.is_none() {
            found = locked_returning_user(&mut tx, user_id, now).await?;
            returns = found.is_some();
        }
        if found.is_none() {
            // Another sign-in may have brought the user back while this one waited for it.
            found = locked_user(&mut tx, user_id).await?;
        }
        if opened_before && let Some(user) = known_user(&mut tx, user_id).await? {
            return Ok(SessionOpened::Opened(Box::new(user)));
        }
        if let Some(guard) = &guard
            && let Some(retry_after) = limits.refused(&mut *tx, guard, Some(user_id)).await?
        {
            limits.leave(tx).await?;
            return Ok(SessionOpened::Throttled { retry_after });
        }
        let mut tx = match count_each(tx, &throttle, now).await? {
            Ok(tx) => tx,
            Err(retry_after) => return Ok(SessionOpened::Throttled { retry_after }),
        };
        let refused = match &found {
            Some(found) if found.user.status == UserStatus::Active && found.version == expect => None,
            Some(found) if found.user.status == UserStatus::Active => Some(("stale", SessionOpened::Stale)),
            _ => Some(("not_active", SessionOpened::NotActive)),
        };
        if let Some((reason, outcome)) = refused {
            audit_refused(&mut tx, audit, now, reason, Some(user_id)).await?;
            tx.commit().await.map_err(fault)?;
            return Ok(outcome);
        }
        if let Some(upgrade) = &upgrade {
            sqlx::query("UPDATE usermgr_users SET password = $2 WHERE id = $1")
                .bind(user_id.as_uuid())
                .bind(PasswordHash::expose(upgrade))
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
        }
        if let Some(guard) = guard.as_ref().filter(|guard| limits.has(&guard.own)) {
            sqlx::query("DELETE FROM usermgr_throttles WHERE key = $1")
                .bind(guard.own.key.as_bytes().as_slice())
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
        }
        if returns {
            sqlx::query(
                "UPDATE usermgr_users SET deleted_at = NULL, restorable_until = NULL, updated_at = $2 WHERE id = $1",
            )
            .bind(user_id.as_uuid())
            .bind(ts(now))
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
            audit_done(&mut tx, restore, now, Some(user_id)).await?;
        }
        let opened = session.id;
        open_session(&mut tx, session, user_id, expect, now).await?;
        let happened = Happened {
            signed_in: true,
            user_restored: returns,
            session: Some(opened),
            ..Happened::default()
        };
        owe_events(&mut tx, &events, happened, user_id, now).await?;
        audit_done(&mut tx, audit, now, Some(user_id)).await?;
        let user = found.map(|found| {
            let updated_at = if returns { now } else { found.user.updated_at };
            usermgr_core::User { last_login_at: Some(now), updated_at, ..found.user }
        });
        tx.commit().await.map_err(fault)?;
        self.wake_for_events();
        user.map(|user| SessionOpened::Opened(Box::new(user)))
            .ok_or_else(|| corrupt("usermgr_users", "id", user_id))
    }

    async fn login_failed_once(&self, command: LoginFailed) -> Result<LoginCounted, StoreError> {
        let LoginFailed { now, user_id, guard, audit } = command;
        let mut tx = self.begin().await?;
        if let Some(guard) = &guard {
            let mut limits = Limits::lock(&mut tx, guard.rules(), now).await?;
            let known = is_known(&mut *tx, user_id, guard).await?;
            if let Some(retry_after) = limits.refused_by(guard, known) {
                limits.leave(tx).await?;
                return Ok(LoginCounted::Throttled { retry_after });
            }
            for rule in guard.rules_for(known) {
                limits.count(rule);
            }
            limits.write(&mut tx).await?;
        }
        audit_refused(&mut tx, audit, now, "invalid_credentials", user_id).await?;
        tx.commit().await.map_err(fault)?;
        Ok(LoginCounted::Counted)
    }

    async fn rotate_once(&self, command: Rotate) -> Result<Rotated, StoreError> {
        let Rotate { now, id, presented, next, access, idle_expires_at, grace, throttle, audit, events } =
            command;
        let mut tx = self.begin().await?;
        // The user before the session, as every command locks them.
        let owner: Option<Uuid> = sqlx::query_scalar(locking!(
            "SELECT u.id FROM usermgr_users u \
             WHERE u.id = (SELECT s.user_id FROM usermgr_sessions s WHERE s.id = $1)"
        ))
        .bind(id.as_uuid())
        .fetch_optional(&mut *tx)
        .await
        .map_err(fault)?;
        let owner = owner.map(UserId::from_uuid);
        let tokens: Option<RefreshRow> = sqlx::query_as(locking!(
            "SELECT refresh, previous_refresh, previous_rotated_at FROM usermgr_sessions WHERE id = $1"
        ))
        .bind(id.as_uuid())
        .fetch_optional(&mut *tx)
        .await
        .map_err(fault)?;
        let (Some(tokens), Some(mut view)) = (tokens, held_session(&mut tx, id, now).await?) else {
            return Ok(Rotated::Ended { owner });
        };
        let is = |stored: &[u8], digest: &Digest| stored == digest.as_bytes().as_slice();
        let again = tokens.previous_refresh.as_deref().is_some_and(|before| is(before, &presented))
            && tokens.previous_rotated_at.map(from_ts).is_some_and(|at| (now - at).abs() < grace);
        let successor = next.iter().position(|next| is(&tokens.refresh, next)).filter(|_| again);
        let current = next.first().filter(|_| is(&tokens.refresh, &presented));
        if current.is_some() || successor.is_some() {
            tx = match count_each(tx, &throttle, now).await? {
                Ok(tx) => tx,
                Err(retry_after) => return Ok(Rotated::Throttled { retry_after }),
            };
        }
        if let Some(first) = current {
            view.session.last_seen_at = now;
            view.session.idle_expires_at = idle_expires_at.min(view.session.expires_at);
            sqlx::query(
                "UPDATE usermgr_sessions SET previous_refresh = refresh, previous_rotated_at = $2, refresh = $3, \
                 last_seen_at = $2, idle_expires_at = $4 WHERE id = $1",
            )
            .bind(id.as_uuid())
            .bind(ts(now))
            .bind(first.as_bytes().as_slice())
            .bind(ts(view.session.idle_expires_at))
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        } else if successor.is_none() {
            sqlx::query("UPDATE usermgr_sessions SET ended_at = $2 WHERE id = $1")
                .bind(id.as_uuid())
                .bind(ts(now))
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
            let happened = Happened { sessions_ended: true, session: Some(id), ..Happened::default() };
            owe_events(&mut tx, &events, happened, view.user.id, now).await?;
            audit_refused(&mut tx, audit, now, "token_reused", owner).await?;
            tx.commit().await.map_err(fault)?;
            self.wake_for_events();
            return Ok(Rotated::Reused);
        }
        grant_access(&mut tx, id, access).await?;
        audit_done(&mut tx, audit, now, owner).await?;
        tx.commit().await.map_err(fault)?;
        let view = Box::new(view);
        Ok(match successor {
            Some(successor) => Rotated::Repeated { view, successor },
            None => Rotated::Rotated(view),
        })
    }

    async fn end_sessions_once(&self, command: EndSessions) -> Result<SessionsEnded, StoreError> {
        let EndSessions { now, user_id, which, by, audit, events } = command;
        let (one, but) = match which {
            SessionSelector::One(id) => (Some(id.as_uuid()), None),
            SessionSelector::AllBut(id) => (None, Some(id.as_uuid())),
            SessionSelector::All => (None, None),
        };
        let mut tx = self.begin().await?;
        let (found, actor) = lock_user_and_actor(&mut tx, user_id, by.as_ref()).await?;
        let reached = found.map(|found| found.user.roles).unwrap_or_default();
        if !permits(by.as_ref(), actor.as_ref(), &reached) {
            audit_refused(&mut tx, audit, now, "forbidden", Some(user_id)).await?;
            tx.commit().await.map_err(fault)?;
            return Ok(SessionsEnded::NotPermitted);
        }
        let ended = sqlx::query(
            "UPDATE usermgr_sessions SET ended_at = $2 WHERE user_id = $1 AND ended_at IS NULL \
             AND ($3 IS NULL OR id = $3) AND ($4 IS NULL OR id <> $4)",
        )
        .bind(user_id.as_uuid())
        .bind(ts(now))
        .bind(one)
        .bind(but)
        .execute(&mut *tx)
        .await
        .map_err(fault)?
        .rows_affected();
        if ended == 0 {
            return Ok(SessionsEnded::Ended(0));
        }
        let happened = Happened { sessions_ended: true, session: which.one(), ..Happened::default() };
        owe_events(&mut tx, &events, happened, user_id, now).await?;
        audit_done(&mut tx, audit, now, Some(user_id)).await?;
        tx.commit().await.map_err(fault)?;
        self.wake_for_events();
        Ok(SessionsEnded::Ended(ended))
    }
}

/// A user who is not deleted, locked, and whether a session of this identifier was opened before.
async fn opening_user(
    tx: &mut Tx,
    id: UserId,
    session: SessionId,
) -> Result<(Option<Credentials>, bool), StoreError> {
    let row: Option<OpeningRow> = sqlx::query_as(concat!(
        "SELECT ",
        user_columns!(),
        locking!(
            ", EXISTS (SELECT 1 FROM usermgr_sessions WHERE id = $2) AS opened_before \
             FROM usermgr_users u WHERE u.id = $1 AND u.deleted_at IS NULL"
        )
    ))
    .bind(id.as_uuid())
    .bind(session.as_uuid())
    .fetch_optional(&mut **tx)
    .await
    .map_err(fault)?;
    if let Some(row) = row {
        return Ok((Some(row.user.credentials()?), row.opened_before));
    }
    let opened_before: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM usermgr_sessions WHERE id = $1)")
            .bind(session.as_uuid())
            .fetch_one(&mut **tx)
            .await
            .map_err(fault)?;
    Ok((None, opened_before))
}

#[derive(sqlx::FromRow)]
struct OpeningRow {
    #[sqlx(flatten)]
    user: UserRow,
    opened_before: bool,
}

/// A session that holds, with its user.
async fn held_session(
    tx: &mut Tx,
    id: SessionId,
    now: OffsetDateTime,
) -> Result<Option<SessionView>, StoreError> {
    let row: Option<SessionRow> = sqlx::query_as(concat!(
        "SELECT ",
        session_columns!(),
        ", ",
        user_columns!(),
        " FROM usermgr_sessions s JOIN usermgr_users u ON u.id = s.user_id WHERE s.id = $1 AND ",
        session_holds!("$2")
    ))
    .bind(id.as_uuid())
    .bind(ts(now))
    .fetch_optional(&mut **tx)
    .await
    .map_err(fault)?;
    row.map(SessionRow::view).transpose()
}

#[derive(sqlx::FromRow)]
struct RefreshRow {
    refresh: Vec<u8>,
    previous_refresh: Option<Vec<u8>>,
    previous_rotated_at: Option<Ts>,
}

#[derive(sqlx::FromRow)]
struct SessionRow {
    id: Uuid,
    method: String,
    ip: Option<String>,
    user_agent: Option<String>,
    created_at: Ts,
    authenticated_at: Ts,
    last_seen_at: Ts,
    idle_expires_at: Ts,
    expires_at: Ts,
    #[sqlx(flatten)]
    user: UserRow,
}

impl SessionRow {
    fn view(self) -> Result<SessionView, StoreError> {
        let wrong = |column| corrupt("usermgr_sessions", column, self.id);
        let credentials = self.user.credentials()?;
        let session = Session {
            id: SessionId::from_uuid(self.id),
            user_id: UserId::from_uuid(credentials.user.id.as_uuid()),
            created_at: from_ts(self.created_at),
            authenticated_at: from_ts(self.authenticated_at),
            last_seen_at: from_ts(self.last_seen_at),
            idle_expires_at: from_ts(self.idle_expires_at),
            expires_at: from_ts(self.expires_at),
            method: AuthMethod::from_name(&self.method).ok_or_else(|| wrong("method"))?,
            ip: self.ip.map(|ip| ip.parse()).transpose().map_err(|_| wrong("ip"))?,
            user_agent: self.user_agent,
        };
        Ok(SessionView { session, user: credentials.user, password_version: credentials.version })
    }
}
