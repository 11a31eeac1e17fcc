//! The rows, and what every command does with them.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use usermgr_core::domain::audit::{AuditDraft, AuditEntry, AuditEvent, AuditOutcome};
use usermgr_core::domain::code::{CodeForm, CodePurpose};
use usermgr_core::domain::email::{Email, EmailKey};
use usermgr_core::domain::event::{Event, EventKind, EventPosition};
use usermgr_core::domain::id::{
    AuditId, CodeId, EventId, OutboxId, RegistrationId, SessionId, SigningKeyId, UserId,
};
use usermgr_core::domain::job::{JobName, JobOutcome};
use usermgr_core::domain::mail::MailKind;
use usermgr_core::domain::password::{PasswordHash, PasswordVersion};
use usermgr_core::domain::profile::Profile;
use usermgr_core::domain::role::Roles;
use usermgr_core::domain::secret::{Digest, SecretKeyId};
use usermgr_core::domain::session::{AuthMethod, Session};
use usermgr_core::domain::undeliverable::{UndeliverableAddress, UndeliverableReason};
use usermgr_core::domain::user::{Locale, User, UserStatus, Username};
use usermgr_core::port::store::account::{Actor, is_working_admin};
use usermgr_core::port::store::code::NewCode;
use usermgr_core::port::store::job::JobRecord;
use usermgr_core::port::store::key::SealedSigningKey;
use usermgr_core::port::store::outbox::{Lease, OutboxStatus};
use usermgr_core::port::store::session::{NewSession, SessionView};
use usermgr_core::port::store::throttle::{LoginGuard, ThrottleRule};
use usermgr_core::port::store::{EventDraft, Happened, MailDraft, StoreError};

use crate::database::{Row, Transaction};
use crate::text::{self, Text as _};

macro_rules! tables {
    ($($row:ident: $table:literal $(, owes: $owes:literal)?;)+) => {
        $(impl Row for $row {
            const TABLE: &'static str = $table;
            $(const OWES: bool = $owes;)?
        })+
    };
}

tables! {
    RegistrationRow: "registration";
    UserRow: "user";
    CodeRow: "code";
    SessionRow: "session";
    AccessRow: "access";
    MailRow: "mail", owes: true;
    EventRow: "event", owes: true;
    FeedRow: "feed";
    AuditRow: "audit";
    ThrottleRow: "throttle";
    NetworkRow: "network";
    KeyRow: "key";
    JobRow: "job";
    MarkRow: "mark";
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct RegistrationRow {
    pub(crate) email: Email,
    #[serde(with = "text")]
    pub(crate) password: PasswordHash,
    #[serde(with = "text::option")]
    pub(crate) username: Option<Username>,
    #[serde(with = "text::option")]
    pub(crate) locale: Option<Locale>,
    #[serde(default, with = "text::option")]
    pub(crate) profile: Option<Profile>,
    pub(crate) expires_at: OffsetDateTime,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "User")]
struct UserFields {
    id: UserId,
    email: Email,
    email_verified_at: Option<OffsetDateTime>,
    #[serde(with = "text::option")]
    username: Option<Username>,
    #[serde(with = "text")]
    roles: Roles,
    #[serde(with = "text")]
    status: UserStatus,
    #[serde(with = "text::option")]
    locale: Option<Locale>,
    #[serde(default, with = "text::option")]
    profile: Option<Profile>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    last_login_at: Option<OffsetDateTime>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct UserRow {
    #[serde(with = "UserFields")]
    pub(crate) user: User,
    #[serde(with = "text::option")]
    pub(crate) password: Option<PasswordHash>,
    #[serde(with = "text")]
    pub(crate) version: PasswordVersion,
    pub(crate) deleted: Option<Deleted>,
}

/// When, and until when signing in brings the account back.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Deleted {
    pub(crate) at: OffsetDateTime,
    pub(crate) restorable_until: Option<OffsetDateTime>,
}

impl Deleted {
    pub(crate) fn is_restorable(self, now: OffsetDateTime) -> bool {
        self.restorable_until.is_some_and(|until| until > now)
    }
}

impl UserRow {
    pub(crate) const fn new(user: User, password: Option<PasswordHash>) -> Self {
        let version = if password.is_some() { PasswordVersion::FIRST } else { PasswordVersion::NONE };
        Self { user, password, version, deleted: None }
    }

    pub(crate) fn is_active(&self) -> bool {
        self.deleted.is_none() && self.user.status == UserStatus::Active
    }

    pub(crate) fn is_working_admin(&self) -> bool {
        self.deleted.is_none() && is_working_admin(&self.user, self.password.as_ref())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Owner {
    Registration(RegistrationId),
    User(UserId),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "NewCode")]
struct CodeFields {
    id: CodeId,
    #[serde(with = "text")]
    form: CodeForm,
    #[serde(with = "text")]
    key: SecretKeyId,
    dies_at: OffsetDateTime,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct CodeRow {
    #[serde(with = "CodeFields")]
    pub(crate) code: NewCode,
    #[serde(with = "text")]
    pub(crate) purpose: CodePurpose,
    pub(crate) owner: Owner,
    /// The address that it gives its user.
    pub(crate) new_email: Option<Email>,
    /// When it was spent or voided.
    pub(crate) closed_at: Option<OffsetDateTime>,
    pub(crate) expires_at: Option<OffsetDateTime>,
    pub(crate) wrong_tries: u32,
}

impl CodeRow {
    pub(crate) const fn new(code: NewCode, purpose: CodePurpose, owner: Owner) -> Self {
        Self { code, purpose, owner, new_email: None, closed_at: None, expires_at: None, wrong_tries: 0 }
    }

    pub(crate) fn is_link(&self) -> bool {
        self.code.form == CodeForm::Link
    }

    /// Whether it is a link that undoes a change of address.
    pub(crate) fn is_undo(&self) -> bool {
        self.purpose.is_undo(self.code.form)
    }

    pub(crate) fn is_over(&self, now: OffsetDateTime) -> bool {
        self.code.dies_at <= now || self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether it lives longer than a code that was handed over by now can.
    pub(crate) fn ends_after(&self, latest_end: OffsetDateTime) -> bool {
        self.expires_at.is_some_and(|at| at > latest_end)
    }

    pub(crate) fn is_live(&self, now: OffsetDateTime, attempts: u32) -> bool {
        self.closed_at.is_none() && !self.is_over(now) && self.wrong_tries < attempts
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Session")]
struct SessionFields {
    id: SessionId,
    user_id: UserId,
    created_at: OffsetDateTime,
    authenticated_at: OffsetDateTime,
    last_seen_at: OffsetDateTime,
    idle_expires_at: OffsetDateTime,
    expires_at: OffsetDateTime,
    #[serde(with = "text")]
    method: AuthMethod,
    ip: Option<IpAddr>,
    user_agent: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SessionRow {
    #[serde(with = "SessionFields")]
    pub(crate) session: Session,
    #[serde(with = "text")]
    pub(crate) refresh: Digest,
    /// The refresh token before, and when it was replaced.
    #[serde(with = "text::option")]
    pub(crate) previous: Option<Digest>,
    pub(crate) replaced_at: Option<OffsetDateTime>,
    #[serde(with = "text")]
    pub(crate) version: PasswordVersion,
    pub(crate) ended_at: Option<OffsetDateTime>,
}

/// An opaque access token, under its digest.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct AccessRow {
    pub(crate) session: SessionId,
    pub(crate) ends_at: OffsetDateTime,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct MailRow {
    pub(crate) id: OutboxId,
    #[serde(with = "text")]
    pub(crate) kind: MailKind,
    pub(crate) to: Email,
    #[serde(with = "text::option")]
    pub(crate) locale: Option<Locale>,
    #[serde(with = "text::option")]
    pub(crate) username: Option<Username>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) code: Option<CodeId>,
    pub(crate) user: Option<UserId>,
    #[serde(with = "text")]
    pub(crate) status: OutboxStatus,
    pub(crate) attempts: u32,
    pub(crate) due_at: OffsetDateTime,
    #[serde(with = "text::option")]
    pub(crate) lease: Option<Lease>,
    pub(crate) lease_until: Option<OffsetDateTime>,
    pub(crate) settled_at: Option<OffsetDateTime>,
    pub(crate) error: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Event")]
struct EventFields {
    id: EventId,
    #[serde(with = "text")]
    position: EventPosition,
    at: OffsetDateTime,
    #[serde(with = "text")]
    kind: EventKind,
    user_id: UserId,
    session_id: Option<SessionId>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct EventRow {
    #[serde(with = "EventFields")]
    pub(crate) event: Event,
    pub(crate) attempts: u32,
    pub(crate) due_at: OffsetDateTime,
    #[serde(with = "text::option")]
    pub(crate) lease: Option<Lease>,
    pub(crate) delivered: bool,
}

impl EventRow {
    /// Keys in the order of the positions.
    pub(crate) fn key(&self) -> String {
        format!("{:020}", self.event.position.as_u64())
    }
}

/// Where the feed ends, and up to where it was purged.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct FeedRow {
    pub(crate) last: u64,
    pub(crate) purged: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "AuditEntry")]
struct AuditFields {
    id: AuditId,
    at: OffsetDateTime,
    #[serde(with = "text")]
    event: AuditEvent,
    #[serde(with = "text")]
    outcome: AuditOutcome,
    reason: Option<Cow<'static, str>>,
    actor: Option<UserId>,
    subject: Option<UserId>,
    #[serde(with = "text::option")]
    email: Option<EmailKey>,
    ip: Option<IpAddr>,
    user_agent: Option<String>,
    request_id: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct AuditRow(#[serde(with = "AuditFields")] pub(crate) AuditEntry);

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct ThrottleRow {
    pub(crate) count: u32,
    pub(crate) ends_at: OffsetDateTime,
}

/// A network that signed in to an account, under both.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct NetworkRow {
    pub(crate) user: UserId,
    pub(crate) seen_at: OffsetDateTime,
}

impl NetworkRow {
    pub(crate) fn key(user: UserId, network: &Digest) -> String {
        format!("{user}/{}", network.text())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "SealedSigningKey")]
struct KeyFields {
    id: SigningKeyId,
    algorithm: String,
    created_at: OffsetDateTime,
    signs_from: OffsetDateTime,
    sealed: Vec<u8>,
    #[serde(default)]
    revoked_at: Option<OffsetDateTime>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct KeyRow(#[serde(with = "KeyFields")] pub(crate) SealedSigningKey);

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct JobRow {
    #[serde(with = "text")]
    job: JobName,
    period: OffsetDateTime,
    #[serde(with = "text::option")]
    lease: Option<Lease>,
    lease_until: Option<OffsetDateTime>,
    retry_at: Option<OffsetDateTime>,
    started_at: OffsetDateTime,
    ended_at: Option<OffsetDateTime>,
    #[serde(with = "text::option")]
    outcome: Option<JobOutcome>,
    attempts: u32,
    runs: u64,
    failures: u64,
}

impl From<JobRecord> for JobRow {
    fn from(record: JobRecord) -> Self {
        let JobRecord {
            job,
            period,
            lease,
            retry_at,
            started_at,
            ended_at,
            outcome,
            attempts,
            runs,
            failures,
        } = record;
        let (lease, lease_until) = lease.unzip();
        Self {
            job,
            period,
            lease,
            lease_until,
            retry_at,
            started_at,
            ended_at,
            outcome,
            attempts,
            runs,
            failures,
        }
    }
}

impl From<JobRow> for JobRecord {
    fn from(row: JobRow) -> Self {
        let JobRow {
            job,
            period,
            lease,
            lease_until,
            retry_at,
            started_at,
            ended_at,
            outcome,
            attempts,
            runs,
            failures,
        } = row;
        let lease = lease.zip(lease_until);
        Self { job, period, lease, retry_at, started_at, ended_at, outcome, attempts, runs, failures }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "UndeliverableAddress")]
struct MarkFields {
    #[serde(with = "text")]
    email: EmailKey,
    #[serde(with = "text")]
    reason: UndeliverableReason,
    since: OffsetDateTime,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct MarkRow(#[serde(with = "MarkFields")] pub(crate) UndeliverableAddress);

/// To whom a mail of a command goes.
#[derive(Clone, Copy)]
pub(crate) struct Receiver<'a> {
    pub(crate) user: Option<UserId>,
    pub(crate) email: &'a Email,
    pub(crate) locale: Option<&'a Locale>,
    pub(crate) username: Option<&'a Username>,
}

impl<'a> Receiver<'a> {
    pub(crate) const fn user(user: &'a User) -> Self {
        Self {
            user: Some(user.id),
            email: &user.email,
            locale: user.locale.as_ref(),
            username: match user.email_verified_at {
                Some(_) => user.username.as_ref(),
                None => None,
            },
        }
    }

    /// Without the name: nobody has proven the address yet.
    pub(crate) const fn registration(row: &'a RegistrationRow) -> Self {
        Self { user: None, email: &row.email, locale: row.locale.as_ref(), username: None }
    }
}

/// What is looked up.
impl Transaction<'_> {
    /// A user who is not deleted.
    pub(crate) fn live_user(&self, id: UserId) -> Result<Option<UserRow>, StoreError> {
        Ok(self.get::<UserRow>(id)?.filter(|row| row.deleted.is_none()))
    }

    pub(crate) fn active_user(&self, id: UserId) -> Result<Option<UserRow>, StoreError> {
        Ok(self.get(id)?.filter(UserRow::is_active))
    }

    pub(crate) fn user_of(&self, email: &EmailKey) -> Result<Option<UserRow>, StoreError> {
        let mut rows = self.rows::<UserRow>()?.into_iter().map(|(_, row)| row);
        Ok(rows.find(|row| row.deleted.is_none() && row.user.email.key() == email))
    }

    /// Whether an actor still is who was permitted, and may reach users of these roles.
    pub(crate) fn permits(&self, by: Option<&Actor>, reached: &Roles) -> Result<bool, StoreError> {
        let Some(by) = by else { return Ok(true) };
        let as_decided = self.active_user(by.id)?.is_some_and(|row| row.user.roles == by.roles);
        Ok(as_decided && reached.is_disjoint(&by.beyond))
    }

    /// Whether another administrator who can sign in is left.
    pub(crate) fn has_other_admin(&self, but: UserId) -> Result<bool, StoreError> {
        Ok(self.rows::<UserRow>()?.iter().any(|(_, row)| row.user.id != but && row.is_working_admin()))
    }

    /// A session that holds, with its user.
    pub(crate) fn session_view(
        &self,
        id: SessionId,
        now: OffsetDateTime,
    ) -> Result<Option<SessionView>, StoreError> {
        let holds = |row: &SessionRow| {
            row.ended_at.is_none() && row.session.idle_expires_at > now && row.session.expires_at > now
        };
        let Some(row) = self.get::<SessionRow>(id)?.filter(holds) else { return Ok(None) };
        let user = self.active_user(row.session.user_id)?.filter(|user| user.version == row.version);
        Ok(user.map(|user| SessionView {
            session: row.session,
            user: user.user,
            password_version: user.version,
        }))
    }
}

/// Limits.
impl Transaction<'_> {
    fn throttle(&self, rule: &ThrottleRule) -> Result<Option<ThrottleRow>, StoreError> {
        self.get(rule.key.text())
    }

    /// How often a rule was counted in its open window, and how long that goes on.
    fn counted(&self, rule: &ThrottleRule, now: OffsetDateTime) -> Result<(u32, Duration), StoreError> {
        let row = self.throttle(rule)?;
        let open = row.and_then(|row| rule.open_until(row.ends_at, now).map(|end| (row.count, end - now)));
        Ok(open.unwrap_or((0, rule.window)))
    }

    /// Brings back ends of windows that a clock left too far away when it was set back.
    pub(crate) fn clamp<'r>(
        &mut self,
        rules: impl IntoIterator<Item = &'r ThrottleRule>,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        for rule in rules {
            if let Some(row) = self.throttle(rule)?.filter(|row| rule.is_too_far(row.ends_at, now)) {
                self.put(rule.key.text(), &ThrottleRow { ends_at: now + rule.window, ..row })?;
            }
        }
        Ok(())
    }

    /// The longest wait of the rules that are used up.
    pub(crate) fn used_up<'r>(
        &self,
        rules: impl IntoIterator<Item = &'r ThrottleRule>,
        now: OffsetDateTime,
    ) -> Result<Option<Duration>, StoreError> {
        let mut longest = None;
        for rule in rules {
            let (count, left) = self.counted(rule, now)?;
            if count >= rule.limit {
                longest = longest.max(Some(left));
            }
        }
        Ok(longest)
    }

    /// As [`used_up`](Self::used_up), by a look that changes nothing: what is too far away is left to the command.
    pub(crate) fn seems_used_up<'r>(
        &self,
        rules: impl IntoIterator<Item = &'r ThrottleRule>,
        now: OffsetDateTime,
    ) -> Result<Option<Duration>, StoreError> {
        let mut longest = None;
        for rule in rules {
            if !self.throttle(rule)?.is_some_and(|row| rule.is_too_far(row.ends_at, now)) {
                longest = longest.max(self.used_up([rule], now)?);
            }
        }
        Ok(longest)
    }

    /// Whether a rule that is used up has refused nothing in its window yet.
    pub(crate) fn is_first_refusal(
        &self,
        rules: &[ThrottleRule],
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        for rule in rules {
            if self.counted(rule, now)?.0 == rule.limit {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) fn count(&mut self, rule: &ThrottleRule, now: OffsetDateTime) -> Result<(), StoreError> {
        let (count, left) = self.counted(rule, now)?;
        self.put(rule.key.text(), &ThrottleRow { count: count.saturating_add(1), ends_at: now + left })
    }

    /// Counts each rule once, unless one is used up: then answers the longest wait, and counts none.
    pub(crate) fn count_unless_used_up(
        &mut self,
        rules: &[ThrottleRule],
        now: OffsetDateTime,
    ) -> Result<Option<Duration>, StoreError> {
        self.clamp(rules, now)?;
        let used_up = self.used_up(rules, now)?;
        if used_up.is_none() {
            for rule in rules {
                self.count(rule, now)?;
            }
        }
        Ok(used_up)
    }

    pub(crate) fn reset(&mut self, rule: &ThrottleRule, now: OffsetDateTime) -> Result<(), StoreError> {
        self.put(rule.key.text(), &ThrottleRow { count: 0, ends_at: now + rule.window })
    }

    /// Whether a network signed in to the account lately.
    pub(crate) fn is_known(&self, user: Option<UserId>, guard: &LoginGuard) -> Result<bool, StoreError> {
        let Some(user) = user else { return Ok(false) };
        self.knows(user, &guard.network_key, guard.known_since)
    }

    /// Whether somebody signed in to an account from a network since then.
    pub(crate) fn knows(
        &self,
        user: UserId,
        network: &Digest,
        since: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let row: Option<NetworkRow> = self.get(NetworkRow::key(user, network))?;
        Ok(row.is_some_and(|row| row.seen_at >= since))
    }

    /// The wait when the guard refuses.
    pub(crate) fn guard_refuses(
        &self,
        user: Option<UserId>,
        guard: Option<&LoginGuard>,
        now: OffsetDateTime,
    ) -> Result<Option<Duration>, StoreError> {
        let Some(guard) = guard else { return Ok(None) };
        self.seems_used_up(guard.rules_for(self.is_known(user, guard)?), now)
    }
}

/// What commands write along.
impl Transaction<'_> {
    pub(crate) fn owe_mail(
        &mut self,
        draft: MailDraft,
        to: Receiver<'_>,
        code: Option<CodeId>,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let row = MailRow {
            id: draft.id,
            kind: draft.kind,
            to: to.email.clone(),
            locale: to.locale.cloned(),
            username: to.username.cloned(),
            created_at: now,
            code,
            user: to.user,
            status: OutboxStatus::Queued,
            attempts: 0,
            due_at: now,
            lease: None,
            lease_until: None,
            settled_at: None,
            error: None,
        };
        self.put(draft.id, &row)
    }

    /// Writes those events that came true. One command runs at a time, so each has its position at once.
    pub(crate) fn owe_events(
        &mut self,
        drafts: &[EventDraft],
        happened: Happened,
        user_id: UserId,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let mut feed = self.feed()?;
        for EventDraft { id, kind } in drafts.iter().copied().filter(|draft| happened.includes(draft.kind)) {
            feed.last += 1;
            let position = EventPosition::from_u64(feed.last);
            let event = Event { id, position, at: now, kind, user_id, session_id: happened.session_of(kind) };
            let due_at = OffsetDateTime::UNIX_EPOCH;
            let row = EventRow { event, attempts: 0, due_at, lease: None, delivered: false };
            self.put(row.key(), &row)?;
            self.put("", &feed)?;
        }
        Ok(())
    }

    pub(crate) fn feed(&self) -> Result<FeedRow, StoreError> {
        Ok(self.get("")?.unwrap_or_default())
    }

    pub(crate) fn audit_done(
        &mut self,
        draft: AuditDraft,
        now: OffsetDateTime,
        subject: Option<UserId>,
    ) -> Result<(), StoreError> {
        self.record(draft.done(now, subject))
    }

    pub(crate) fn audit_refused(
        &mut self,
        draft: AuditDraft,
        now: OffsetDateTime,
        reason: &'static str,
        subject: Option<UserId>,
    ) -> Result<(), StoreError> {
        self.record(draft.refused(now, reason, subject))
    }

    pub(crate) fn record(&mut self, entry: AuditEntry) -> Result<(), StoreError> {
        self.put(entry.id, &AuditRow(entry))
    }

    /// Opens a session, sets `last_login_at`, and makes the network a known one.
    pub(crate) fn open_session(
        &mut self,
        new: NewSession,
        user_id: UserId,
        version: PasswordVersion,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let NewSession { id, refresh, access, idle_expires_at, expires_at, method, ip, user_agent, network } =
            new;
        let session = Session {
            id,
            user_id,
            created_at: now,
            authenticated_at: now,
            last_seen_at: now,
            idle_expires_at,
            expires_at,
            method,
            ip,
            user_agent,
        };
        let row = SessionRow { session, refresh, previous: None, replaced_at: None, version, ended_at: None };
        self.put(id, &row)?;
        self.grant_access(id, access)?;
        self.put(NetworkRow::key(user_id, &network), &NetworkRow { user: user_id, seen_at: now })?;
        if let Some(mut row) = self.get::<UserRow>(user_id)? {
            row.user.last_login_at = Some(now);
            self.put(user_id, &row)?;
        }
        Ok(())
    }

    pub(crate) fn grant_access(
        &mut self,
        session: SessionId,
        access: Option<(Digest, OffsetDateTime)>,
    ) -> Result<(), StoreError> {
        let Some((digest, ends_at)) = access else { return Ok(()) };
        self.put(digest.text(), &AccessRow { session, ends_at })
    }

    /// Ends every session of a user but one, and voids every open code and link but those that undo a change of address.
    pub(crate) fn end_everything_of(
        &mut self,
        user: UserId,
        keep: Option<SessionId>,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        self.end_sessions_of(user, |session| Some(session.id) != keep, now)?;
        self.void_codes_of(Owner::User(user), now, |row| !row.is_undo())
    }

    /// Voids the open links that undo a change of address and die then or later.
    pub(crate) fn end_undos_of(
        &mut self,
        user: UserId,
        from: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        self.void_codes_of(Owner::User(user), now, |row| row.is_undo() && row.code.dies_at >= from)
    }

    /// Ends those sessions of a user that are open and meant. Answers how many.
    pub(crate) fn end_sessions_of(
        &mut self,
        user: UserId,
        is_meant: impl Fn(&Session) -> bool,
        now: OffsetDateTime,
    ) -> Result<u64, StoreError> {
        self.change(|row: &mut SessionRow| {
            let ends = row.session.user_id == user && row.ended_at.is_none() && is_meant(&row.session);
            if ends {
                row.ended_at = Some(now);
            }
            ends
        })
    }

    pub(crate) fn void_codes_of(
        &mut self,
        owner: Owner,
        now: OffsetDateTime,
        which: impl Fn(&CodeRow) -> bool,
    ) -> Result<(), StoreError> {
        self.change(|row: &mut CodeRow| {
            let ends = row.owner == owner && row.closed_at.is_none() && which(row);
            if ends {
                row.closed_at = Some(now);
            }
            ends
        })?;
        Ok(())
    }

    /// Removes at most so many registrations, with their codes.
    pub(crate) fn remove_registrations(
        &mut self,
        most: usize,
        which: impl Fn(&RegistrationRow) -> bool,
    ) -> Result<u64, StoreError> {
        let removed = self.purge(most, which)?;
        self.purge(
            usize::MAX,
            |row: &CodeRow| matches!(row.owner, Owner::Registration(id) if removed.contains(&id.to_string())),
        )?;
        Ok(removed.len() as u64)
    }
}
