//! Sessions, each in two halves: the store under this one has its life, and Redis what lets one in and changes with use.
//! A session holds while both say so.

use std::sync::LazyLock;

use async_trait::async_trait;
use redis::{Script, ScriptInvocation};
use time::OffsetDateTime;
use usermgr_core::domain::id::{SessionId, UserId};
use usermgr_core::domain::secret::Digest;
use usermgr_core::domain::session::Session;
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::audit::Record;
use usermgr_core::port::store::session::{
    EndSessions, LoginCounted, LoginFailed, NewSession, OpenSession, Rotate, Rotated, SessionKey,
    SessionOpened, SessionQuery, SessionStore, SessionView, SessionsEnded, SessionsQuery,
};
use usermgr_core::port::store::throttle::ThrottleRule;

use super::limits::{Judged, script};
use super::redis_keys::{from_micros, micros};
use super::{Redis, RedisStore, left_behind};

static OPEN: LazyLock<Script> = script!("half.lua", "half_open.lua");
static SWAP: LazyLock<Script> = script!("half.lua", "half_swap.lua");

#[async_trait]
impl SessionStore for RedisStore {
    async fn open_session(&self, command: OpenSession) -> Result<SessionOpened, StoreError> {
        self.to_its_end(async move |store| store.open(command).await).await
    }

    async fn login_failed(&self, mut command: LoginFailed) -> Result<LoginCounted, StoreError> {
        let guard = command.guard.take();
        self.to_its_end(async move |store| {
            if let Some(guard) = guard
                && let Some(retry_after) =
                    store.redis.count_failure(&guard, command.user_id, command.now).await?
            {
                return Ok(LoginCounted::Throttled { retry_after });
            }
            store.under.login_failed(command).await
        })
        .await
    }

    async fn session(&self, query: SessionQuery) -> Result<Option<SessionView>, StoreError> {
        let SessionQuery { now, key } = query;
        let id = match key {
            SessionKey::Id(id) => id,
            SessionKey::Access(token) => match self.redis.session_of(&token).await? {
                Some((id, ends_at)) if ends_at > now => id,
                _ => return Ok(None),
            },
        };
        let (half, life) = self.halves(id, now).await?;
        Ok(half.filter(|half| half.idle_expires_at > now).zip(life).map(|(half, life)| half.seen_in(life)))
    }

    async fn sessions(&self, query: SessionsQuery) -> Result<Vec<Session>, StoreError> {
        let lives = self.under.sessions(query).await?;
        let ids: Vec<SessionId> = lives.iter().map(|session| session.id).collect();
        let halves = self.redis.halves(&ids).await?;
        let mut sessions: Vec<Session> = lives
            .into_iter()
            .zip(halves)
            .filter_map(|(session, half)| {
                half.filter(|half| half.idle_expires_at > query.now).map(|half| half.used(session))
            })
            .collect();
        sessions.sort_by_key(|session| std::cmp::Reverse((session.last_seen_at, session.id)));
        Ok(sessions)
    }

    async fn rotate(&self, command: Rotate) -> Result<Rotated, StoreError> {
        self.to_its_end(async move |store| store.renew(command).await).await
    }

    async fn end_sessions(&self, command: EndSessions) -> Result<SessionsEnded, StoreError> {
        self.under.end_sessions(command).await
    }
}

/// What Redis has of a session.
#[derive(Clone)]
struct Half {
    refresh: Digest,
    /// The refresh token before, and when it was replaced.
    previous: Option<(Digest, OffsetDateTime)>,
    last_seen_at: OffsetDateTime,
    idle_expires_at: OffsetDateTime,
}

impl Half {
    fn used(&self, session: Session) -> Session {
        Session { last_seen_at: self.last_seen_at, idle_expires_at: self.idle_expires_at, ..session }
    }

    fn seen_in(&self, life: SessionView) -> SessionView {
        SessionView { session: self.used(life.session), ..life }
    }
}

/// A session of which Redis has its half, and the store under this one not yet its life.
pub(super) struct Opening {
    id: SessionId,
    network: Digest,
    /// Whether the half is of this command, and not of the same one before.
    is_new: bool,
}

impl RedisStore {
    async fn open(&self, mut command: OpenSession) -> Result<SessionOpened, StoreError> {
        let (now, user) = (command.now, command.user_id);
        let mut forgiven = None;
        if let Some(guard) = command.guard.take() {
            match self.redis.judge(&guard, user, command.session.id, now).await? {
                Judged::Refused(retry_after) => return Ok(SessionOpened::Throttled { retry_after }),
                Judged::Passed { failures } => forgiven = Some((guard.own, failures)),
            }
        }
        let throttle = std::mem::take(&mut command.throttle);
        let counted = self.redis.count(command.session.id.as_uuid(), &throttle, None, now);
        if let Some(retry_after) = counted.await? {
            return Ok(SessionOpened::Throttled { retry_after });
        }
        let opening = self.write_half(&mut command.session, now).await?;
        let opened = self.under.open_session(command).await?;
        match &opened {
            SessionOpened::Opened(_) => self.was_opened(&opening, user, forgiven, now).await,
            _ => self.was_not_opened(&opening).await,
        }
        Ok(opened)
    }

    /// Writes the half of a new session, and leaves of the session what the store under this one is to know of its life.
    pub(super) async fn write_half(
        &self,
        session: &mut NewSession,
        now: OffsetDateTime,
    ) -> Result<Opening, StoreError> {
        let half = Half {
            refresh: session.refresh,
            previous: None,
            last_seen_at: now,
            idle_expires_at: session.idle_expires_at,
        };
        let is_new = self.redis.open(session.id, &half, session.access.take(), now).await?;
        session.refresh = no_token(session.id);
        session.idle_expires_at = session.expires_at;
        Ok(Opening { id: session.id, network: session.network, is_new })
    }

    pub(super) async fn was_opened(
        &self,
        opening: &Opening,
        user: UserId,
        forgiven: Option<(ThrottleRule, i64)>,
        now: OffsetDateTime,
    ) {
        left_behind(self.redis.signed_in(user, &opening.network, forgiven, now).await);
    }

    pub(super) async fn was_not_opened(&self, opening: &Opening) {
        if opening.is_new {
            left_behind(self.redis.remove(opening.id).await);
        }
    }

    /// Both halves of a session, the one in Redis as it stands, the life only while it holds.
    async fn halves(
        &self,
        id: SessionId,
        now: OffsetDateTime,
    ) -> Result<(Option<Half>, Option<SessionView>), StoreError> {
        let life = self.under.session(SessionQuery { now, key: SessionKey::Id(id) });
        tokio::try_join!(self.redis.half_of(id), life)
    }

    async fn renew(&self, mut command: Rotate) -> Result<Rotated, StoreError> {
        let (id, now) = (command.id, command.now);
        let access = command.access.take();
        let throttle = std::mem::take(&mut command.throttle);
        loop {
            let (half, life) = self.halves(id, now).await?;
            let Some(life) = life else { return self.under.rotate(command).await };
            let Some(half) = half.filter(|half| half.idle_expires_at > now) else {
                return Ok(Rotated::Ended { owner: Some(life.user.id) });
            };
            let presented = command.presented;
            let again = half
                .previous
                .is_some_and(|(digest, at)| digest == presented && (now - at).abs() < command.grace);
            let successor = command.next.iter().position(|next| *next == half.refresh).filter(|_| again);
            let after = match (command.next.first(), successor) {
                (Some(first), _) if half.refresh == presented => Half {
                    refresh: *first,
                    previous: Some((presented, now)),
                    last_seen_at: now,
                    idle_expires_at: command.idle_expires_at.min(life.session.expires_at),
                },
                (_, Some(_)) => half.clone(),
                // The life knows no token: to the store under this one, any is one that was used up.
                _ => return self.under.rotate(command).await,
            };
            let counted = self.redis.count(command.audit.id.as_uuid(), &throttle, None, now);
            if let Some(retry_after) = counted.await? {
                return Ok(Rotated::Throttled { retry_after });
            }
            if !self.redis.swap(id, &half, &after, access, now).await? {
                // Somebody else was faster, and what was read is not so any more.
                continue;
            }
            let subject = Some(life.user.id);
            let entry = command.audit.done(now, subject);
            if let Err(error) = self.under.record(Record::unlimited(entry)).await {
                left_behind(self.redis.swap(id, &after, &half, None, now).await.map(drop));
                return Err(error);
            }
            let view = Box::new(after.seen_in(life));
            return Ok(match successor.filter(|_| half.refresh != presented) {
                Some(successor) => Rotated::Repeated { view, successor },
                None => Rotated::Rotated(view),
            });
        }
    }
}

/// What stands for the refresh token where none is kept: different for each session, and the digest of nothing.
fn no_token(session: SessionId) -> Digest {
    let mut bytes = [0; 32];
    for (byte, value) in bytes.iter_mut().zip(session.as_uuid().as_bytes()) {
        *byte = *value;
    }
    Digest::from_bytes(bytes)
}

impl Redis {
    fn writing<'a>(
        &self,
        script: &'a Script,
        id: SessionId,
        (expected, half): (&Digest, &Half),
        access: Option<(Digest, OffsetDateTime)>,
        now: OffsetDateTime,
    ) -> ScriptInvocation<'a> {
        let mut invocation = script.key(self.half(id));
        invocation.key(self.access_ends()).arg(micros(now)).arg(expected.as_bytes());
        invocation.arg(half.refresh.as_bytes());
        match half.previous {
            Some((digest, at)) => invocation.arg(digest.as_bytes()).arg(micros(at)),
            None => invocation.arg("").arg(""),
        };
        invocation.arg(micros(half.last_seen_at)).arg(micros(half.idle_expires_at));
        if let Some((digest, ends_at)) = access {
            let ends_at = micros(ends_at);
            invocation.key(self.access(&digest)).arg(format!("{id} {ends_at}")).arg(ends_at);
        }
        invocation
    }

    /// Writes the half of a new session, unless it is there.
    async fn open(
        &self,
        id: SessionId,
        half: &Half,
        access: Option<(Digest, OffsetDateTime)>,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        self.run(&self.writing(&OPEN, id, (&half.refresh, half), access, now)).await
    }

    /// Writes a half over another one, while that is still there, and grants the access token with it.
    async fn swap(
        &self,
        id: SessionId,
        before: &Half,
        after: &Half,
        access: Option<(Digest, OffsetDateTime)>,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        self.run(&self.writing(&SWAP, id, (&before.refresh, after), access, now)).await
    }

    async fn remove(&self, id: SessionId) -> Result<(), StoreError> {
        let mut connection = self.connection.clone();
        redis::cmd("DEL")
            .arg(self.half(id))
            .exec_async(&mut connection)
            .await
            .map_err(StoreError::unavailable)
    }

    async fn half_of(&self, id: SessionId) -> Result<Option<Half>, StoreError> {
        Ok(self.halves(&[id]).await?.pop().flatten())
    }

    /// What Redis has of each of some sessions.
    async fn halves(&self, ids: &[SessionId]) -> Result<Vec<Option<Half>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut reading = redis::pipe();
        for id in ids {
            reading.cmd("HMGET").arg(self.half(*id)).arg(&FIELDS);
        }
        let rows: Vec<Fields> =
            reading.query_async(&mut self.connection.clone()).await.map_err(StoreError::unavailable)?;
        rows.into_iter().zip(ids).map(|(row, id)| read(row, *id)).collect()
    }

    /// The session of an access token, and when the token runs out.
    async fn session_of(&self, token: &Digest) -> Result<Option<(SessionId, OffsetDateTime)>, StoreError> {
        let text: Option<String> = redis::cmd("GET")
            .arg(self.access(token))
            .query_async(&mut self.connection.clone())
            .await
            .map_err(StoreError::unavailable)?;
        let Some(text) = text else { return Ok(None) };
        let read = || {
            let (id, ends_at) = text.split_once(' ')?;
            Some((id.parse().ok()?, from_micros(ends_at.parse().ok()?)?))
        };
        let row = || format!("{token:?}");
        read().map(Some).ok_or_else(|| StoreError::Corrupt { table: "access", column: "session", row: row() })
    }
}

const FIELDS: [&str; 5] = ["refresh", "previous", "replaced", "seen", "idle"];
type Fields = [Option<Vec<u8>>; 5];

fn read(row: Fields, id: SessionId) -> Result<Option<Half>, StoreError> {
    let [Some(refresh), previous, replaced, seen, idle] = row else { return Ok(None) };
    let wrong = |column| StoreError::Corrupt { table: "session", column, row: id.to_string() };
    let digest = |bytes: Vec<u8>| bytes.try_into().ok().map(Digest::from_bytes);
    let time = |text: Option<Vec<u8>>| from_micros(String::from_utf8(text?).ok()?.parse().ok()?);
    Ok(Some(Half {
        refresh: digest(refresh).ok_or_else(|| wrong("refresh"))?,
        previous: match previous.filter(|bytes| !bytes.is_empty()) {
            None => None,
            Some(bytes) => Some((
                digest(bytes).ok_or_else(|| wrong("previous"))?,
                time(replaced).ok_or_else(|| wrong("replaced"))?,
            )),
        },
        last_seen_at: time(seen).ok_or_else(|| wrong("seen"))?,
        idle_expires_at: time(idle).ok_or_else(|| wrong("idle"))?,
    }))
}
