//! The reference model of a store: plain maps behind one lock. What a command does here is what it must do anywhere.

mod account;
mod code;
mod event;
mod job;
mod outbox;
mod session;
mod undeliverable;
mod upkeep;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use time::{Duration, OffsetDateTime};
use tokio::sync::Notify;

use crate::domain::audit::{AuditDraft, AuditEntry};
use crate::domain::code::CodePurpose;
use crate::domain::email::{Email, EmailKey};
use crate::domain::id::{CodeId, OutboxId, RegistrationId, SessionId, UserId};
use crate::domain::job::JobName;
use crate::domain::mail::{OwedCode, OwedMail};
use crate::domain::password::{PasswordHash, PasswordVersion};
use crate::domain::profile::Profile;
use crate::domain::role::Roles;
use crate::domain::secret::Digest;
use crate::domain::session::Session;
use crate::domain::undeliverable::UndeliverableAddress;
use crate::domain::user::{Locale, User, UserStatus, Username};
use crate::port::store::account::{Actor, is_working_admin};
use crate::port::store::code::NewCode;
use crate::port::store::job::JobRecord;
use crate::port::store::key::SealedSigningKey;
use crate::port::store::outbox::{Lease, OutboxStatus};
use crate::port::store::session::{NewSession, SessionView};
use crate::port::store::throttle::{LoginGuard, ThrottleRule};
use crate::port::store::{MailDraft, StoreError};

/// A store in memory. Clones share it. Everything is gone with the last of them.
#[derive(Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    due: Arc<Notify>,
    events_due: Arc<Notify>,
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryStore")
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn state(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        self.state.lock().map_err(|_| StoreError::unavailable("a command panicked while it held the store"))
    }

    pub(crate) fn wake(&self) {
        for due in [&self.due, &self.events_due] {
            due.notify_waiters();
            due.notify_one();
        }
    }
}

#[derive(Clone, Default)]
pub(crate) struct State {
    pub(crate) registrations: BTreeMap<RegistrationId, RegistrationRow>,
    pub(crate) users: BTreeMap<UserId, UserRow>,
    pub(crate) codes: BTreeMap<CodeId, CodeRow>,
    pub(crate) sessions: BTreeMap<SessionId, SessionRow>,
    pub(crate) outbox: BTreeMap<OutboxId, OutboxRow>,
    pub(crate) feed: event::Feed,
    pub(crate) audit: Vec<AuditEntry>,
    pub(crate) throttles: BTreeMap<Digest, ThrottleRow>,
    pub(crate) networks: BTreeMap<(UserId, Digest), OffsetDateTime>,
    pub(crate) access_tokens: BTreeMap<Digest, (SessionId, OffsetDateTime)>,
    pub(crate) keys: Vec<SealedSigningKey>,
    pub(crate) jobs: BTreeMap<JobName, JobRecord>,
    pub(crate) undeliverable: BTreeMap<EmailKey, UndeliverableAddress>,
}

#[derive(Clone)]
pub(crate) struct RegistrationRow {
    pub(crate) email: Email,
    pub(crate) password: PasswordHash,
    pub(crate) username: Option<Username>,
    pub(crate) locale: Option<Locale>,
    pub(crate) profile: Option<Profile>,
    pub(crate) expires_at: OffsetDateTime,
}

#[derive(Clone)]
pub(crate) struct UserRow {
    pub(crate) user: User,
    pub(crate) password: Option<PasswordHash>,
    pub(crate) version: PasswordVersion,
    pub(crate) deleted: Option<Deleted>,
}

impl UserRow {
    const fn new(user: User, password: Option<PasswordHash>, version: PasswordVersion) -> Self {
        Self { user, password, version, deleted: None }
    }

    fn is_active(&self) -> bool {
        self.deleted.is_none() && self.user.status == UserStatus::Active
    }

    fn is_working_admin(&self) -> bool {
        self.deleted.is_none() && is_working_admin(&self.user, self.password.as_ref())
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Deleted {
    pub(crate) at: OffsetDateTime,
    /// Until when signing in brings the account back.
    pub(crate) restorable_until: Option<OffsetDateTime>,
}

impl Deleted {
    fn is_restorable(self, now: OffsetDateTime) -> bool {
        self.restorable_until.is_some_and(|until| until > now)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Registration(RegistrationId),
    User(UserId),
}

#[derive(Clone)]
pub(crate) struct CodeRow {
    pub(crate) code: NewCode,
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
    pub(crate) fn is_over(&self, now: OffsetDateTime) -> bool {
        self.code.dies_at <= now || self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether it lives longer than a code that was handed over by now can.
    pub(crate) fn ends_after(&self, latest_end: OffsetDateTime) -> bool {
        self.expires_at.is_some_and(|at| at > latest_end)
    }

    /// Whether it is a link that undoes a change of address.
    pub(crate) fn is_undo(&self) -> bool {
        self.purpose.is_undo(self.code.form)
    }

    pub(crate) fn is_live(&self, now: OffsetDateTime, attempts: u32) -> bool {
        self.closed_at.is_none() && !self.is_over(now) && self.wrong_tries < attempts
    }
}

#[derive(Clone)]
pub(crate) struct SessionRow {
    pub(crate) session: Session,
    pub(crate) refresh: Digest,
    /// The refresh token before, and when it was replaced.
    pub(crate) previous: Option<(Digest, OffsetDateTime)>,
    pub(crate) version: PasswordVersion,
    pub(crate) ended_at: Option<OffsetDateTime>,
}

#[derive(Clone)]
pub(crate) struct OutboxRow {
    pub(crate) mail: OwedMail,
    pub(crate) code: Option<CodeId>,
    pub(crate) user: Option<UserId>,
    pub(crate) status: OutboxStatus,
    pub(crate) attempts: u32,
    pub(crate) due_at: OffsetDateTime,
    pub(crate) lease: Option<(Lease, OffsetDateTime)>,
    pub(crate) settled_at: Option<OffsetDateTime>,
    pub(crate) error: Option<String>,
}

#[derive(Clone, Copy)]
pub(crate) struct ThrottleRow {
    pub(crate) count: u32,
    pub(crate) ends_at: OffsetDateTime,
}

/// To whom a mail of a command goes.
struct Receiver<'a> {
    user: Option<UserId>,
    email: &'a Email,
    locale: Option<&'a Locale>,
    username: Option<&'a Username>,
}

impl<'a> Receiver<'a> {
    const fn user(user: &'a User) -> Self {
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

    /// Without the name: the address is not proven, so a stranger may have typed the name.
    const fn registration(row: &'a RegistrationRow) -> Self {
        Self { user: None, email: &row.email, locale: row.locale.as_ref(), username: None }
    }
}

impl State {
    /// A user who is not deleted.
    fn live_user(&self, id: UserId) -> Option<&UserRow> {
        self.users.get(&id).filter(|row| row.deleted.is_none())
    }

    fn user_of(&self, email: &EmailKey) -> Option<&UserRow> {
        self.users.values().find(|row| row.deleted.is_none() && row.user.email.key() == email)
    }

    /// The user whom signing in with an address is for: also a deleted one who may come back, if there is no other.
    fn credentials_of(&self, email: &EmailKey, now: OffsetDateTime) -> Option<&UserRow> {
        self.user_of(email).or_else(|| {
            self.users.values().rev().find(|row| {
                row.user.email.key() == email && row.deleted.is_some_and(|deleted| deleted.is_restorable(now))
            })
        })
    }

    /// Whether an actor still is who was permitted, and may reach users of these roles.
    fn permits(&self, by: Option<&Actor>, reached: &Roles) -> bool {
        by.is_none_or(|by| {
            let as_decided =
                self.users.get(&by.id).is_some_and(|row| row.is_active() && row.user.roles == by.roles);
            as_decided && reached.is_disjoint(&by.beyond)
        })
    }

    /// Whether another administrator who can sign in is left.
    fn has_other_admin(&self, but: UserId) -> bool {
        self.users.values().any(|row| row.user.id != but && row.is_working_admin())
    }

    // ---- limits ----

    /// How often a rule was counted in its open window, and how long that goes on.
    fn counted(&self, rule: &ThrottleRule, now: OffsetDateTime) -> (u32, Duration) {
        self.throttles
            .get(&rule.key)
            .and_then(|row| rule.open_until(row.ends_at, now).map(|end| (row.count, end - now)))
            .unwrap_or((0, rule.window))
    }

    /// Brings back ends of windows that a clock left too far away when it was set back.
    fn clamp<'a>(&mut self, rules: impl IntoIterator<Item = &'a ThrottleRule>, now: OffsetDateTime) {
        for rule in rules {
            if let Some(row) =
                self.throttles.get_mut(&rule.key).filter(|row| rule.is_too_far(row.ends_at, now))
            {
                row.ends_at = now + rule.window;
            }
        }
    }

    /// The longest wait of the rules that are used up.
    fn used_up<'a>(
        &self,
        rules: impl IntoIterator<Item = &'a ThrottleRule>,
        now: OffsetDateTime,
    ) -> Option<Duration> {
        rules
            .into_iter()
            .filter_map(|rule| {
                let (count, left) = self.counted(rule, now);
                (count >= rule.limit).then_some(left)
            })
            .max()
    }

    /// Whether a rule that is used up has refused nothing in its window yet.
    fn is_first_refusal(&self, rules: &[ThrottleRule], now: OffsetDateTime) -> bool {
        rules.iter().any(|rule| self.counted(rule, now).0 == rule.limit)
    }

    fn count(&mut self, rule: &ThrottleRule, now: OffsetDateTime) {
        let (count, left) = self.counted(rule, now);
        self.throttles.insert(rule.key, ThrottleRow { count: count.saturating_add(1), ends_at: now + left });
    }

    /// Counts each rule once, unless one is used up: then answers the longest wait, and counts none.
    fn count_unless_used_up(&mut self, rules: &[ThrottleRule], now: OffsetDateTime) -> Option<Duration> {
        self.clamp(rules, now);
        let used_up = self.used_up(rules, now);
        if used_up.is_none() {
            for rule in rules {
                self.count(rule, now);
            }
        }
        used_up
    }

    fn reset(&mut self, rule: &ThrottleRule, now: OffsetDateTime) {
        self.throttles.insert(rule.key, ThrottleRow { count: 0, ends_at: now + rule.window });
    }

    fn is_known(&self, user: Option<UserId>, guard: &LoginGuard) -> bool {
        user.and_then(|user| self.networks.get(&(user, guard.network_key)))
            .is_some_and(|seen| *seen >= guard.known_since)
    }

    fn guard_refuses(
        &self,
        user: Option<UserId>,
        guard: Option<&LoginGuard>,
        now: OffsetDateTime,
    ) -> Option<Duration> {
        let guard = guard?;
        self.seen_used_up(guard.rules_for(self.is_known(user, guard)), now)
    }

    /// As [`used_up`](Self::used_up), by a look that changes nothing.
    fn seen_used_up<'a>(
        &self,
        rules: impl IntoIterator<Item = &'a ThrottleRule>,
        now: OffsetDateTime,
    ) -> Option<Duration> {
        // The command that follows brings these back and decides.
        let too_far = |rule: &&ThrottleRule| {
            self.throttles.get(&rule.key).is_some_and(|row| rule.is_too_far(row.ends_at, now))
        };
        self.used_up(rules.into_iter().filter(|rule| !too_far(rule)), now)
    }

    // ---- what every command writes along ----

    fn owe_mail(&mut self, draft: MailDraft, to: &Receiver<'_>, code: Option<CodeId>, now: OffsetDateTime) {
        let mail = OwedMail {
            id: draft.id,
            kind: draft.kind,
            to: to.email.clone(),
            locale: to.locale.cloned(),
            username: to.username.cloned(),
            code: None,
            created_at: now,
        };
        let row = OutboxRow {
            mail,
            code,
            user: to.user,
            status: OutboxStatus::Queued,
            attempts: 0,
            due_at: now,
            lease: None,
            settled_at: None,
            error: None,
        };
        self.outbox.insert(draft.id, row);
    }

    fn audit_done(&mut self, draft: AuditDraft, now: OffsetDateTime, subject: Option<UserId>) {
        self.audit.push(draft.done(now, subject));
    }

    fn audit_refused(
        &mut self,
        draft: AuditDraft,
        now: OffsetDateTime,
        reason: &'static str,
        subject: Option<UserId>,
    ) {
        self.audit.push(draft.refused(now, reason, subject));
    }

    // ---- sessions and codes ----

    fn open(&mut self, new: NewSession, user_id: UserId, version: PasswordVersion, now: OffsetDateTime) {
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
        self.sessions.insert(id, SessionRow { session, refresh, previous: None, version, ended_at: None });
        self.grant_access(id, access);
        self.networks.insert((user_id, network), now);
        if let Some(row) = self.users.get_mut(&user_id) {
            row.user.last_login_at = Some(now);
        }
    }

    fn grant_access(&mut self, session: SessionId, access: Option<(Digest, OffsetDateTime)>) {
        if let Some((digest, ends_at)) = access {
            self.access_tokens.insert(digest, (session, ends_at));
        }
    }

    /// A session that holds, with its user.
    fn view(&self, id: SessionId, now: OffsetDateTime) -> Option<SessionView> {
        let row = self.sessions.get(&id).filter(|row| {
            row.ended_at.is_none() && row.session.idle_expires_at > now && row.session.expires_at > now
        })?;
        let user = self
            .users
            .get(&row.session.user_id)
            .filter(|user| user.is_active() && user.version == row.version)?;
        Some(SessionView {
            session: row.session.clone(),
            user: user.user.clone(),
            password_version: user.version,
        })
    }

    fn end_sessions_of(&mut self, user_id: UserId, keep: Option<SessionId>, now: OffsetDateTime) {
        for row in self.sessions.values_mut().filter(|row| row.session.user_id == user_id) {
            if Some(row.session.id) != keep && row.ended_at.is_none() {
                row.ended_at = Some(now);
            }
        }
    }

    fn void_codes_of(&mut self, owner: Owner, now: OffsetDateTime, which: impl Fn(&CodeRow) -> bool) {
        for row in self.codes.values_mut().filter(|row| row.owner == owner && row.closed_at.is_none()) {
            if which(row) {
                row.closed_at = Some(now);
            }
        }
    }

    /// Voids every open code and link of a user but those that undo a change of address.
    fn end_codes_of(&mut self, user: UserId, now: OffsetDateTime) {
        self.void_codes_of(Owner::User(user), now, |row| !row.is_undo());
    }

    /// Voids the open links that undo a change of address and die then or later.
    fn end_undos_of(&mut self, user: UserId, from: OffsetDateTime, now: OffsetDateTime) {
        self.void_codes_of(Owner::User(user), now, |row| row.is_undo() && row.code.dies_at >= from);
    }

    fn is_active(&self, id: UserId) -> bool {
        self.users.get(&id).is_some_and(UserRow::is_active)
    }
}

impl SessionRow {
    /// Whether it ended before then.
    fn is_over(&self, then: OffsetDateTime) -> bool {
        self.ended_at.is_some_and(|at| at < then)
            || self.session.expires_at < then
            || self.session.idle_expires_at < then
    }
}

impl OutboxRow {
    fn mail(&self, codes: &BTreeMap<CodeId, CodeRow>) -> OwedMail {
        let mut mail = self.mail.clone();
        mail.code = self.code.and_then(|id| codes.get(&id)).map(|row| OwedCode {
            id: row.code.id,
            purpose: row.purpose,
            form: row.code.form,
            key: row.code.key,
        });
        mail
    }
}
