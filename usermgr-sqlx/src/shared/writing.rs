//! What commands write along: limits, mails, the audit log, and sessions.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::QueryBuilder;
use time::{Duration, OffsetDateTime};
use usermgr_core::domain::audit::{AuditDraft, AuditEntry};
use usermgr_core::domain::email::{Email, EmailKey};
use usermgr_core::domain::id::{CodeId, SessionId, UserId};
use usermgr_core::domain::password::PasswordVersion;
use usermgr_core::domain::secret::Digest;
use usermgr_core::domain::user::{Locale, User, Username};
use usermgr_core::port::store::account::KnownNetwork;
use usermgr_core::port::store::session::NewSession;
use usermgr_core::port::store::throttle::{LoginGuard, ThrottleRule};
use usermgr_core::port::store::{MailDraft, StoreError};

use super::super::Db;
use super::{Store, Tx, fault, from_ts, ts};

/// Rows of the throttle table, as they count now.
pub(super) struct Limits {
    rows: BTreeMap<Digest, (i64, OffsetDateTime)>,
    now: OffsetDateTime,
    /// The rows that are to be written.
    changed: BTreeSet<Digest>,
    /// Whether an end was brought back that a clock had left too far away when it was set back.
    clamped: bool,
}

/// A row of the throttle table: key, count, end.
type LimitRow = (Vec<u8>, i64, super::Ts);

impl Limits {
    /// Reads and locks the rows of some rules, always in the order of their keys, so that commands wait for each other
    /// in turn. A row that is not there yet is made, with nothing counted.
    pub(super) async fn lock<'a>(
        tx: &mut Tx,
        rules: impl IntoIterator<Item = &'a ThrottleRule>,
        now: OffsetDateTime,
    ) -> Result<Self, StoreError> {
        let rules = in_order(rules);
        if rules.is_empty() {
            return Ok(Self::of(&[], &[], now));
        }
        let mut statement = QueryBuilder::<Db>::new("INSERT INTO usermgr_throttles (key, count, ends_at) ");
        statement.push_values(&rules, |mut row, rule| {
            row.push_bind(rule.key.as_bytes().to_vec()).push_bind(0_i64);
            // Over at any time, also for a clock that is set back.
            row.push_bind(ts(OffsetDateTime::UNIX_EPOCH));
        });
        statement.push(" ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING key, count, ends_at");
        let rows: Vec<LimitRow> = statement.build_query_as().fetch_all(&mut **tx).await.map_err(fault)?;
        Self::brought_back(tx, &rows, &rules, now).await
    }

    /// Reads and locks those rows of some rules that are there, for a command that counts nothing.
    pub(super) async fn lock_present<'a>(
        tx: &mut Tx,
        rules: impl IntoIterator<Item = &'a ThrottleRule>,
        now: OffsetDateTime,
    ) -> Result<Self, StoreError> {
        let rules = in_order(rules);
        if rules.is_empty() {
            return Ok(Self::of(&[], &[], now));
        }
        let mut statement = select_limits(&rules);
        statement.push(locking!(" ORDER BY key"));
        let rows: Vec<LimitRow> = statement.build_query_as().fetch_all(&mut **tx).await.map_err(fault)?;
        Self::brought_back(tx, &rows, &rules, now).await
    }

    /// Reads the rows of some rules, without locking them, and whether the account of an address knows a network: one
    /// statement, whether or not there is an account.
    pub(super) async fn read(
        store: &Store,
        rules: &[&ThrottleRule],
        network: Option<&KnownNetwork>,
        now: OffsetDateTime,
    ) -> Result<(Self, bool), StoreError> {
        let mut statement = select_limits(rules);
        if let Some(KnownNetwork { email, network, since }) = network {
            statement
                .push(" UNION ALL SELECT n.network, CAST(-1 AS BIGINT), n.seen_at FROM usermgr_users u ");
            statement.push(
                "JOIN usermgr_networks n ON n.user_id = u.id WHERE u.deleted_at IS NULL AND u.email_key = ",
            );
            statement.push_bind(email.as_str().to_owned());
            statement.push(" AND n.network = ").push_bind(network.as_bytes().to_vec());
            statement.push(" AND n.seen_at >= ").push_bind(ts(*since));
        }
        let mut rows: Vec<LimitRow> =
            statement.build_query_as().fetch_all(&mut *store.reader().await?).await.map_err(fault)?;
        let all = rows.len();
        rows.retain(|(_, count, _)| *count >= 0);
        let is_known = rows.len() < all;
        // What is too far away does not count; the command that follows brings it back and decides.
        let mut limits = Self::of(&rows, rules, now);
        limits.rows.retain(|key, (_, ends_at)| !is_too_far(rules, key, *ends_at, now));
        Ok((limits, is_known))
    }

    fn of(rows: &[LimitRow], rules: &[&ThrottleRule], now: OffsetDateTime) -> Self {
        let rows = rows
            .iter()
            .filter_map(|(key, count, ends_at)| {
                let key = Digest::from_bytes(key.as_slice().try_into().ok()?);
                rules.iter().any(|rule| rule.key == key).then_some((key, (*count, from_ts(*ends_at))))
            })
            .collect();
        Self { rows, now, changed: BTreeSet::new(), clamped: false }
    }

    /// With the ends brought back that a clock left too far away.
    async fn brought_back(
        tx: &mut Tx,
        rows: &[LimitRow],
        rules: &[&ThrottleRule],
        now: OffsetDateTime,
    ) -> Result<Self, StoreError> {
        let mut limits = Self::of(rows, rules, now);
        for rule in rules {
            if let Some((count, ends_at)) = limits.rows.get(&rule.key).copied()
                && rule.is_too_far(ends_at, now)
            {
                limits.set(rule, count, now + rule.window);
                limits.clamped = true;
            }
        }
        limits.write(tx).await?;
        Ok(limits)
    }

    /// Leaves without doing what was asked. What was brought back stays.
    pub(super) async fn leave(&self, tx: Tx) -> Result<(), StoreError> {
        if self.clamped { tx.commit().await.map_err(fault) } else { Ok(()) }
    }

    fn counted(&self, rule: &ThrottleRule) -> (i64, Duration) {
        self.rows
            .get(&rule.key)
            .and_then(|(count, ends_at)| {
                rule.open_until(*ends_at, self.now).map(|end| (*count, end - self.now))
            })
            .unwrap_or((0, rule.window))
    }

    /// The longest wait of the rules that are used up.
    pub(super) fn used_up<'a>(&self, rules: impl IntoIterator<Item = &'a ThrottleRule>) -> Option<Duration> {
        rules
            .into_iter()
            .filter_map(|rule| {
                let (count, left) = self.counted(rule);
                (count >= i64::from(rule.limit)).then_some(left)
            })
            .max()
    }

    /// Whether a rule that is used up has refused nothing in its window yet.
    pub(super) fn is_first_refusal(&self, rules: &[ThrottleRule]) -> bool {
        rules.iter().any(|rule| self.counted(rule).0 == i64::from(rule.limit))
    }

    /// Whether there is a row of a rule.
    pub(super) fn has(&self, rule: &ThrottleRule) -> bool {
        self.rows.contains_key(&rule.key)
    }

    /// Counts a rule once. To be written.
    pub(super) fn count(&mut self, rule: &ThrottleRule) {
        let (count, left) = self.counted(rule);
        self.set(rule, count.saturating_add(1), self.now + left);
    }

    /// Locks some rules and counts each once, unless one is used up: then answers the longest wait, to leave with.
    pub(super) async fn count_unless_used_up(
        tx: &mut Tx,
        rules: &[ThrottleRule],
        now: OffsetDateTime,
    ) -> Result<(Self, Option<Duration>), StoreError> {
        let mut limits = Self::lock(tx, rules, now).await?;
        let used_up = limits.used_up(rules);
        if used_up.is_none() {
            for rule in rules {
                limits.count(rule);
            }
            limits.write(tx).await?;
        }
        Ok((limits, used_up))
    }

    /// Sets a rule to 0 with a whole window. To be written.
    pub(super) fn reset(&mut self, rule: &ThrottleRule) {
        self.set(rule, 0, self.now + rule.window);
    }

    fn set(&mut self, rule: &ThrottleRule, count: i64, ends_at: OffsetDateTime) {
        self.rows.insert(rule.key, (count, ends_at));
        self.changed.insert(rule.key);
    }

    /// Writes what was counted, at once.
    pub(super) async fn write(&mut self, tx: &mut Tx) -> Result<(), StoreError> {
        let changed = std::mem::take(&mut self.changed);
        let rows = changed.iter().filter_map(|key| self.rows.get(key).map(|row| (key, row)));
        let rows: Vec<_> = rows.collect();
        if rows.is_empty() {
            return Ok(());
        }
        let mut statement = QueryBuilder::<Db>::new("INSERT INTO usermgr_throttles (key, count, ends_at) ");
        statement.push_values(rows, |mut row, (key, (count, ends_at))| {
            row.push_bind(key.as_bytes().to_vec()).push_bind(*count).push_bind(ts(*ends_at));
        });
        statement.push(" ON CONFLICT (key) DO UPDATE SET count = excluded.count, ends_at = excluded.ends_at");
        statement.build().execute(&mut **tx).await.map_err(fault)?;
        Ok(())
    }

    /// The wait when a guard refuses, from a network that the account knows or does not know.
    pub(super) fn refused_by(&self, guard: &LoginGuard, known: bool) -> Option<Duration> {
        self.used_up(guard.rules_for(known))
    }

    /// The wait when a guard refuses. Whether the account knows the network is only asked when it matters.
    pub(super) async fn refused(
        &self,
        executor: impl sqlx::Executor<'_, Database = Db>,
        guard: &LoginGuard,
        user: Option<UserId>,
    ) -> Result<Option<Duration>, StoreError> {
        let known = self.used_up([&guard.far]).is_some() && is_known(executor, user, guard).await?;
        Ok(self.refused_by(guard, known))
    }
}

/// Counts each rule once. When one is used up, ends the transaction and answers the longest wait. A statement for each
/// rule, where [`Limits`] takes two for all: for a rule that everybody meets all the time.
pub(super) async fn count_each(
    mut tx: Tx,
    rules: &[ThrottleRule],
    now: OffsetDateTime,
) -> Result<Result<Tx, Duration>, StoreError> {
    let mut used_up: Option<Duration> = None;
    let mut brought_back = false;
    for rule in in_order(rules) {
        let (count, ends_at): (i64, super::Ts) = sqlx::query_as(
            "INSERT INTO usermgr_throttles (key, count, ends_at) VALUES ($1, 1, $3) \
             ON CONFLICT (key) DO UPDATE SET \
             count = CASE WHEN usermgr_throttles.ends_at <= $2 THEN 1 \
             WHEN usermgr_throttles.count > $4 THEN usermgr_throttles.count ELSE usermgr_throttles.count + 1 END, \
             ends_at = CASE WHEN usermgr_throttles.ends_at <= $2 OR usermgr_throttles.ends_at > $3 THEN $3 \
             ELSE usermgr_throttles.ends_at END RETURNING count, ends_at",
        )
        .bind(rule.key.as_bytes().as_slice())
        .bind(ts(now))
        .bind(ts(now + rule.window))
        .bind(i64::from(rule.limit))
        .fetch_one(&mut *tx)
        .await
        .map_err(fault)?;
        if count > i64::from(rule.limit) {
            let wait = from_ts(ends_at) - now;
            used_up = used_up.max(Some(wait));
            // A clock that was set back had left the end too far away.
            brought_back |= wait + Duration::MILLISECOND >= rule.window;
        }
    }
    let Some(wait) = used_up else { return Ok(Ok(tx)) };
    if brought_back {
        tx.commit().await.map_err(fault)?;
    }
    Ok(Err(wait))
}

/// Rules in the order in which their rows are locked, each once.
fn in_order<'a>(rules: impl IntoIterator<Item = &'a ThrottleRule>) -> Vec<&'a ThrottleRule> {
    let mut rules: Vec<_> = rules.into_iter().collect();
    rules.sort_unstable_by_key(|rule| rule.key);
    rules.dedup_by_key(|rule| rule.key);
    rules
}

fn select_limits(rules: &[&ThrottleRule]) -> QueryBuilder<Db> {
    let mut statement = QueryBuilder::new("SELECT key, count, ends_at FROM usermgr_throttles WHERE key IN (");
    let mut keys = statement.separated(", ");
    if rules.is_empty() {
        keys.push_bind(Vec::<u8>::new());
    }
    for rule in rules {
        keys.push_bind(rule.key.as_bytes().to_vec());
    }
    statement.push(")");
    statement
}

fn is_too_far(rules: &[&ThrottleRule], key: &Digest, ends_at: OffsetDateTime, now: OffsetDateTime) -> bool {
    rules.iter().any(|rule| rule.key == *key && rule.is_too_far(ends_at, now))
}

/// Whether a network signed in to the account lately.
pub(super) async fn is_known(
    executor: impl sqlx::Executor<'_, Database = super::super::Db>,
    user: Option<UserId>,
    guard: &LoginGuard,
) -> Result<bool, StoreError> {
    // The same read without a user, so the time does not tell whether there is an account.
    let user = user.unwrap_or(UserId::from_uuid(uuid::Uuid::nil()));
    let found: Option<i64> = sqlx::query_scalar(
        "SELECT CAST(1 AS BIGINT) FROM usermgr_networks WHERE user_id = $1 AND network = $2 AND seen_at >= $3",
    )
    .bind(user.as_uuid())
    .bind(guard.network_key.as_bytes().as_slice())
    .bind(ts(guard.known_since))
    .fetch_optional(executor)
    .await
    .map_err(fault)?;
    Ok(found.is_some())
}

/// To whom a mail of a command goes.
pub(super) struct Receiver<'a> {
    pub(super) user: Option<UserId>,
    pub(super) email: &'a Email,
    pub(super) locale: Option<&'a Locale>,
    pub(super) username: Option<&'a Username>,
}

impl<'a> Receiver<'a> {
    pub(super) const fn user(user: &'a User) -> Self {
        Self {
            user: Some(user.id),
            email: &user.email,
            locale: user.locale.as_ref(),
            // A stranger's words open no mail: the name only when the address is proven.
            username: match user.email_verified_at {
                Some(_) => user.username.as_ref(),
                None => None,
            },
        }
    }
}

/// Owes a mail.
pub(super) async fn owe_mail(
    tx: &mut Tx,
    draft: MailDraft,
    to: &Receiver<'_>,
    code: Option<CodeId>,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO usermgr_outbox \
         (id, name, email, email_key, locale, username, code_id, created_at, due_at, attempts, status, user_id) \
         VALUES ($1, $2, $3, $9, $4, $5, $6, $7, $7, 0, 'queued', $8)",
    )
    .bind(draft.id.as_uuid())
    .bind(draft.kind.as_str())
    .bind(to.email.as_str())
    .bind(to.locale.map(Locale::as_str))
    .bind(to.username.map(Username::as_str))
    .bind(code.map(|code| code.as_uuid()))
    .bind(ts(now))
    .bind(to.user.map(|user| user.as_uuid()))
    .bind(to.email.key().as_str())
    .execute(&mut **tx)
    .await
    .map_err(fault)?;
    Ok(())
}

/// Writes that something was done.
pub(super) async fn audit_done(
    tx: &mut Tx,
    draft: AuditDraft,
    now: OffsetDateTime,
    subject: Option<UserId>,
) -> Result<(), StoreError> {
    audit(&mut **tx, draft.done(now, subject)).await
}

/// Writes that something was refused, and why.
pub(super) async fn audit_refused(
    tx: &mut Tx,
    draft: AuditDraft,
    now: OffsetDateTime,
    reason: &'static str,
    subject: Option<UserId>,
) -> Result<(), StoreError> {
    audit(&mut **tx, draft.refused(now, reason, subject)).await
}

/// Writes an entry.
pub(super) async fn audit(
    executor: impl sqlx::Executor<'_, Database = super::super::Db>,
    entry: AuditEntry,
) -> Result<(), StoreError> {
    let AuditEntry { id, at, event, outcome, reason, actor, subject, email, ip, user_agent, request_id } =
        entry;
    sqlx::query(
        "INSERT INTO usermgr_audit \
         (id, at, event, outcome, reason, actor, subject, email, ip, user_agent, request_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(id.as_uuid())
    .bind(ts(at))
    .bind(event.as_str())
    .bind(outcome.as_str())
    .bind(reason.as_deref())
    .bind(actor.map(|actor| actor.as_uuid()))
    .bind(subject.map(|subject| subject.as_uuid()))
    .bind(email.as_ref().map(EmailKey::as_str))
    .bind(ip.map(|ip| ip.to_string()))
    .bind(user_agent)
    .bind(request_id)
    .execute(executor)
    .await
    .map_err(fault)?;
    Ok(())
}

/// Writes many entries.
pub(super) async fn audit_all(tx: &mut Tx, entries: Vec<AuditEntry>) -> Result<(), StoreError> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut statement: QueryBuilder<Db> = QueryBuilder::new(
        "INSERT INTO usermgr_audit \
         (id, at, event, outcome, reason, actor, subject, email, ip, user_agent, request_id) ",
    );
    statement.push_values(entries, |mut row, entry| {
        let AuditEntry { id, at, event, outcome, reason, actor, subject, email, ip, user_agent, request_id } =
            entry;
        row.push_bind(id.as_uuid())
            .push_bind(ts(at))
            .push_bind(event.as_str())
            .push_bind(outcome.as_str())
            .push_bind(reason.as_deref())
            .push_bind(actor.map(|actor| actor.as_uuid()))
            .push_bind(subject.map(|subject| subject.as_uuid()))
            .push_bind(email.as_ref().map(EmailKey::as_str))
            .push_bind(ip.map(|ip| ip.to_string()))
            .push_bind(user_agent)
            .push_bind(request_id);
    });
    statement.build().persistent(false).execute(&mut **tx).await.map_err(fault)?;
    Ok(())
}

/// Opens a session, sets `last_login_at`, and makes the network a known one.
pub(super) async fn open_session(
    tx: &mut Tx,
    session: NewSession,
    user: UserId,
    version: PasswordVersion,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let NewSession { id, refresh, access, idle_expires_at, expires_at, method, ip, user_agent, network } =
        session;
    sqlx::query(
        "INSERT INTO usermgr_sessions (id, user_id, refresh, password_version, method, ip, user_agent, created_at, \
         authenticated_at, last_seen_at, idle_expires_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $8, $9, $10)",
    )
    .bind(id.as_uuid())
    .bind(user.as_uuid())
    .bind(refresh.as_bytes().as_slice())
    .bind(version.as_i64())
    .bind(method.as_str())
    .bind(ip.map(|ip| ip.to_string()))
    .bind(user_agent)
    .bind(ts(now))
    .bind(ts(idle_expires_at))
    .bind(ts(expires_at))
    .execute(&mut **tx)
    .await
    .map_err(fault)?;
    grant_access(tx, id, access).await?;
    sqlx::query("UPDATE usermgr_users SET last_login_at = $2 WHERE id = $1")
        .bind(user.as_uuid())
        .bind(ts(now))
        .execute(&mut **tx)
        .await
        .map_err(fault)?;
    sqlx::query(
        "INSERT INTO usermgr_networks (user_id, network, seen_at) VALUES ($1, $2, $3) \
         ON CONFLICT (user_id, network) DO UPDATE SET seen_at = excluded.seen_at",
    )
    .bind(user.as_uuid())
    .bind(network.as_bytes().as_slice())
    .bind(ts(now))
    .execute(&mut **tx)
    .await
    .map_err(fault)?;
    Ok(())
}

/// Adds an opaque access token to a session.
pub(super) async fn grant_access(
    tx: &mut Tx,
    session: SessionId,
    access: Option<(Digest, OffsetDateTime)>,
) -> Result<(), StoreError> {
    let Some((digest, ends_at)) = access else { return Ok(()) };
    sqlx::query(
        "INSERT INTO usermgr_access_tokens (digest, session_id, expires_at) VALUES ($1, $2, $3) \
         ON CONFLICT (digest) DO NOTHING",
    )
    .bind(digest.as_bytes().as_slice())
    .bind(session.as_uuid())
    .bind(ts(ends_at))
    .execute(&mut **tx)
    .await
    .map_err(fault)?;
    Ok(())
}

/// Voids every open code and link of a user but those that undo a change of address ([`CodePurpose::is_undo`]).
///
/// [`CodePurpose::is_undo`]: usermgr_core::domain::code::CodePurpose::is_undo
pub(super) async fn end_codes_of(tx: &mut Tx, user: UserId, now: OffsetDateTime) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE usermgr_codes SET closed_at = $2 \
         WHERE user_id = $1 AND closed_at IS NULL AND NOT (purpose = 'change_email' AND digits = 0)",
    )
    .bind(user.as_uuid())
    .bind(ts(now))
    .execute(&mut **tx)
    .await
    .map_err(fault)?;
    Ok(())
}

/// Voids the open links of a user that undo a change of address: all, or those that die then or later.
pub(super) async fn end_undos_of(
    tx: &mut Tx,
    user: UserId,
    from: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE usermgr_codes SET closed_at = $2 WHERE user_id = $1 AND closed_at IS NULL \
         AND purpose = 'change_email' AND digits = 0 AND ($3 IS NULL OR dies_at >= $3)",
    )
    .bind(user.as_uuid())
    .bind(ts(now))
    .bind(from.map(ts))
    .execute(&mut **tx)
    .await
    .map_err(fault)?;
    Ok(())
}

/// Ends every session of a user but one, and voids every open code and link but those that undo a change of address.
pub(super) async fn end_everything_of(
    tx: &mut Tx,
    user: UserId,
    keep: Option<SessionId>,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE usermgr_sessions SET ended_at = $2 \
         WHERE user_id = $1 AND ended_at IS NULL AND ($3 IS NULL OR id <> $3)",
    )
    .bind(user.as_uuid())
    .bind(ts(now))
    .bind(keep.map(|keep| keep.as_uuid()))
    .execute(&mut **tx)
    .await
    .map_err(fault)?;
    end_codes_of(tx, user, now).await
}
