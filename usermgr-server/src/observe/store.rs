//! A store that tells what it did: each entry of the audit log is a line of the log and counts, once it is committed.
//!
//! Outcomes that callers must not learn ([`EmailChangeRequested::Queued`]) are told here as callers are told them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use usermgr_core::domain::audit::{AuditDraft, AuditEntry, AuditEvent, AuditOutcome};
use usermgr_core::domain::code::{CodeForm, CodePurpose};
use usermgr_core::domain::email::EmailKey;
use usermgr_core::domain::id::{AuditId, EventId, OutboxId, UserId};
use usermgr_core::domain::page::Page;
use usermgr_core::domain::session::Session;
use usermgr_core::domain::undeliverable::UndeliverableAddress;
use usermgr_core::domain::user::User;
use usermgr_core::port::store::account::{
    AccountStore, CreateUser, CredentialsQuery, CredentialsView, DeleteUser, EmailChangeRequested,
    ImportUsers, LimitsQuery, LimitsView, PasswordReplaced, Register, Registered, ReplacePassword,
    RequestEmailChange, UpdateUser, UserCreated, UserCursor, UserDeleted, UserImported, UserQuery,
    UserUpdated,
};
use usermgr_core::port::store::audit::{AuditQuery, AuditStore, Record, Recorded};
use usermgr_core::port::store::code::{
    Candidate, CandidateQuery, CodeRequested, CodeStore, Redeem, RedeemEffect, Redeemed, RequestCode,
};
use usermgr_core::port::store::event::{
    ClaimedEvent, EventFeed, EventQuery, EventResult, EventStore, SettleEvent,
};
use usermgr_core::port::store::job::{BeginJob, EndJob, JobBegun, JobLease, JobRecord, JobStore, RenewJob};
use usermgr_core::port::store::key::{
    AddSigningKey, KeyStore, ResealSigningKey, RevokeSigningKeys, SealedSigningKey,
};
use usermgr_core::port::store::outbox::{
    Claim, Claimed, DeliveryResult, OutboxEntry, OutboxQuery, OutboxStore, RenewLeases, Renewed, Requeue,
    Requeued, Settle, Settled,
};
use usermgr_core::port::store::session::{
    EndSessions, LoginCounted, LoginFailed, OpenSession, Rotate, Rotated, SessionOpened, SessionQuery,
    SessionStore, SessionView, SessionsEnded, SessionsQuery,
};
use usermgr_core::port::store::undeliverable::{
    MarkDeliverable, MarkRemoved, MarkUndeliverable, UndeliverableQuery, UndeliverableStore,
};
use usermgr_core::port::store::upkeep::{Backlog, Purge, Purged, UpkeepStore};
use usermgr_core::port::store::{Store, StoreError};

use super::metrics::{Metrics, count};

/// A limit that is used up: nothing was written.
const THROTTLED: &str = "throttled";

/// A store whose answers are counted and told.
pub(crate) struct ObservedStore {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

/// What an audit entry will be of, kept while the store has the command.
struct Told {
    event: AuditEvent,
    actor: Option<UserId>,
    request_id: Option<String>,
}

impl Told {
    fn of(audit: &AuditDraft) -> Self {
        Self { event: audit.event, actor: audit.actor, request_id: audit.request_id.clone() }
    }
}

impl fmt::Debug for ObservedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObservedStore")
    }
}

impl ObservedStore {
    pub(crate) const fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }

    fn done(&self, told: Told, user: Option<UserId>) {
        self.tell(told, AuditOutcome::Done, None, user);
    }

    fn refused(&self, told: Told, reason: &'static str, user: Option<UserId>) {
        self.tell(told, AuditOutcome::Refused, Some(reason), user);
    }

    fn tell(&self, told: Told, outcome: AuditOutcome, reason: Option<&'static str>, user: Option<UserId>) {
        let Told { event, actor, request_id } = told;
        let (event, outcome) = (event.as_str(), outcome.as_str());
        let labels = [
            ("event", event.into()),
            ("outcome", outcome.into()),
            ("reason", reason.unwrap_or_default().into()),
        ];
        count(&self.metrics.audited, &labels);
        let (user_id, actor_id) = (user.map(|id| id.to_string()), actor.map(|id| id.to_string()));
        tracing::info!(event, outcome, reason, user_id, actor_id, request_id, "domain event");
    }

    fn issued(&self, purpose: &'static str) {
        count(&self.metrics.codes_issued, &[("purpose", purpose.into())]);
    }

    fn not_issued(&self, purpose: &'static str, reason: &'static str) {
        count(&self.metrics.codes_refused, &[("purpose", purpose.into()), ("reason", reason.into())]);
    }

    fn guessed(&self, outcome: &'static str) {
        count(&self.metrics.code_guesses, &[("outcome", outcome.into())]);
    }

    fn sign_in(&self, outcome: &'static str) {
        count(&self.metrics.sign_ins, &[("outcome", outcome.into())]);
    }

    fn renewed(&self, outcome: &'static str) {
        count(&self.metrics.sessions_renewed, &[("outcome", outcome.into())]);
    }

    fn delivered(&self, what: &'static str, results: Vec<&'static str>, settled: &[Settled]) {
        for (result, settled) in results.into_iter().zip(settled) {
            let outcome = if *settled == Settled::Settled { result } else { "lease_lost" };
            count(&self.metrics.deliveries, &[("what", what.into()), ("outcome", outcome.into())]);
        }
    }
}

/// What a code or a link is for. Links have no purpose of their own in commands.
const fn purpose_of(purpose: CodePurpose, form: CodeForm) -> &'static str {
    match form {
        CodeForm::Link => "link",
        CodeForm::Digits(_) => purpose.as_str(),
    }
}

#[async_trait]
impl AccountStore for ObservedStore {
    async fn register(&self, command: Register) -> Result<Registered, StoreError> {
        let told = Told::of(&command.audit);
        let purpose = CodePurpose::EmailVerification.as_str();
        let outcome = self.inner.register(command).await?;
        match outcome {
            Registered::Pending => {
                self.issued(purpose);
                self.done(told, None);
            }
            Registered::Taken => {
                self.not_issued(purpose, "email_taken");
                self.refused(told, "email_taken", None);
            }
            Registered::Throttled { .. } => self.not_issued(purpose, THROTTLED),
        }
        Ok(outcome)
    }

    async fn limits(&self, query: LimitsQuery) -> Result<LimitsView, StoreError> {
        self.inner.limits(query).await
    }

    async fn create_user(&self, command: CreateUser) -> Result<UserCreated, StoreError> {
        let told = Told::of(&command.audit);
        let invited = command.invitation.is_some();
        let outcome = self.inner.create_user(command).await?;
        match &outcome {
            UserCreated::Created(user) => {
                if invited {
                    self.issued(CodePurpose::FirstTimeSetup.as_str());
                }
                self.done(told, Some(user.id));
            }
            UserCreated::Taken => self.refused(told, "email_taken", None),
            UserCreated::NotPermitted => self.refused(told, "forbidden", None),
        }
        Ok(outcome)
    }

    async fn credentials(&self, query: CredentialsQuery) -> Result<CredentialsView, StoreError> {
        let view = self.inner.credentials(query).await?;
        if view.throttled.is_some() {
            self.sign_in(THROTTLED);
        }
        Ok(view)
    }

    async fn replace_password(&self, command: ReplacePassword) -> Result<PasswordReplaced, StoreError> {
        let (told, user) = (Told::of(&command.audit), Some(command.user_id));
        let outcome = self.inner.replace_password(command).await?;
        match outcome {
            PasswordReplaced::Replaced => self.done(told, user),
            PasswordReplaced::Stale => self.refused(told, "stale", user),
            PasswordReplaced::Gone => self.refused(told, "gone", user),
            PasswordReplaced::Throttled { .. } => {}
        }
        Ok(outcome)
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.inner.user(id).await
    }

    async fn users(&self, query: UserQuery) -> Result<Page<User, UserCursor>, StoreError> {
        self.inner.users(query).await
    }

    async fn update_user(&self, command: UpdateUser) -> Result<UserUpdated, StoreError> {
        let (told, user) = (Told::of(&command.audit), Some(command.id));
        let outcome = self.inner.update_user(command).await?;
        match &outcome {
            UserUpdated::Updated(_) => self.done(told, user),
            UserUpdated::NotFound => self.refused(told, "not_found", None),
            UserUpdated::NotPermitted => self.refused(told, "forbidden", user),
            UserUpdated::LastAdmin => self.refused(told, "last_admin", user),
            UserUpdated::Throttled { .. } => {}
        }
        Ok(outcome)
    }

    async fn delete_user(&self, command: DeleteUser) -> Result<UserDeleted, StoreError> {
        let (told, user) = (Told::of(&command.audit), Some(command.id));
        let outcome = self.inner.delete_user(command).await?;
        match outcome {
            UserDeleted::Deleted => self.done(told, user),
            UserDeleted::NotFound => self.refused(told, "not_found", None),
            UserDeleted::NotPermitted => self.refused(told, "forbidden", user),
            UserDeleted::LastAdmin => self.refused(told, "last_admin", user),
            UserDeleted::Stale => self.refused(told, "stale", user),
            UserDeleted::Throttled { .. } => {}
        }
        Ok(outcome)
    }

    async fn request_email_change(
        &self,
        command: RequestEmailChange,
    ) -> Result<EmailChangeRequested, StoreError> {
        let (told, user) = (Told::of(&command.audit), Some(command.user_id));
        let purpose = CodePurpose::ChangeEmail.as_str();
        let outcome = self.inner.request_email_change(command).await?;
        match outcome {
            EmailChangeRequested::Queued => {
                self.issued(purpose);
                self.done(told, user);
            }
            EmailChangeRequested::Stale => self.refused(told, "stale", user),
            EmailChangeRequested::Gone => self.refused(told, "gone", user),
            EmailChangeRequested::Throttled { .. } => self.not_issued(purpose, THROTTLED),
        }
        Ok(outcome)
    }

    async fn import_users(&self, command: ImportUsers) -> Result<Vec<UserImported>, StoreError> {
        let told: Vec<_> = command.users.iter().map(|one| (Told::of(&one.audit), one.user.id)).collect();
        let outcomes = self.inner.import_users(command).await?;
        for ((told, user), outcome) in told.into_iter().zip(&outcomes) {
            if *outcome == UserImported::Added {
                self.done(told, Some(user));
            }
        }
        Ok(outcomes)
    }
}

#[async_trait]
impl CodeStore for ObservedStore {
    async fn request_code(&self, command: RequestCode) -> Result<CodeRequested, StoreError> {
        let told = Told::of(&command.audit);
        let purpose = purpose_of(command.purpose, command.code.form);
        let outcome = self.inner.request_code(command).await?;
        match outcome {
            CodeRequested::Queued => {
                self.issued(purpose);
                self.done(told, None);
            }
            CodeRequested::Nobody => {
                self.not_issued(purpose, "nobody");
                self.refused(told, "nobody", None);
            }
            CodeRequested::Throttled { .. } => self.not_issued(purpose, THROTTLED),
        }
        Ok(outcome)
    }

    async fn candidates(&self, query: CandidateQuery) -> Result<Vec<Candidate>, StoreError> {
        self.inner.candidates(query).await
    }

    async fn redeem(&self, command: Redeem) -> Result<Redeemed, StoreError> {
        let told = Told::of(&command.audit);
        let signs_in = matches!(&command.effect,
            RedeemEffect::SetPassword { password, .. } if password.session.is_some());
        let outcome = self.inner.redeem(command).await?;
        let reason = match &outcome {
            Redeemed::Redeemed(user) => {
                self.guessed("redeemed");
                if signs_in {
                    self.metrics.sessions_opened.inc();
                }
                self.done(told, Some(user.id));
                return Ok(outcome);
            }
            Redeemed::Wrong => "invalid_code",
            Redeemed::Exhausted { .. } => "too_many_attempts",
            Redeemed::Expired => "code_expired",
            Redeemed::Ambiguous => "registration_ambiguous",
        };
        self.guessed(reason);
        self.refused(told, reason, None);
        Ok(outcome)
    }
}

#[async_trait]
impl SessionStore for ObservedStore {
    async fn open_session(&self, command: OpenSession) -> Result<SessionOpened, StoreError> {
        let (told, user) = (Told::of(&command.audit), Some(command.user_id));
        let outcome = self.inner.open_session(command).await?;
        match &outcome {
            SessionOpened::Opened(_) => {
                self.sign_in("ok");
                self.metrics.sessions_opened.inc();
                self.done(told, user);
            }
            SessionOpened::Stale => {
                self.sign_in("stale");
                self.refused(told, "stale", user);
            }
            SessionOpened::NotActive => {
                self.sign_in("not_active");
                self.refused(told, "not_active", user);
            }
            SessionOpened::Throttled { .. } => self.sign_in(THROTTLED),
        }
        Ok(outcome)
    }

    async fn login_failed(&self, command: LoginFailed) -> Result<LoginCounted, StoreError> {
        let (told, user) = (Told::of(&command.audit), command.user_id);
        let outcome = self.inner.login_failed(command).await?;
        match outcome {
            LoginCounted::Counted => {
                self.sign_in("invalid_credentials");
                self.refused(told, "invalid_credentials", user);
            }
            LoginCounted::Throttled { .. } => self.sign_in(THROTTLED),
        }
        Ok(outcome)
    }

    async fn session(&self, query: SessionQuery) -> Result<Option<SessionView>, StoreError> {
        self.inner.session(query).await
    }

    async fn sessions(&self, query: SessionsQuery) -> Result<Vec<Session>, StoreError> {
        self.inner.sessions(query).await
    }

    async fn rotate(&self, command: Rotate) -> Result<Rotated, StoreError> {
        let told = Told::of(&command.audit);
        let outcome = self.inner.rotate(command).await?;
        match &outcome {
            Rotated::Rotated(view) => {
                self.renewed("ok");
                self.done(told, Some(view.user.id));
            }
            Rotated::Repeated { .. } => self.renewed("repeated"),
            Rotated::Reused => {
                self.renewed("token_reused");
                self.metrics.sessions_ended.inc();
                self.refused(told, "token_reused", None);
            }
            // Its refusal is recorded by itself, within limits.
            Rotated::Ended { .. } => self.renewed("session_ended"),
            Rotated::Throttled { .. } => self.renewed(THROTTLED),
        }
        Ok(outcome)
    }

    async fn end_sessions(&self, command: EndSessions) -> Result<SessionsEnded, StoreError> {
        let (told, user) = (Told::of(&command.audit), Some(command.user_id));
        let outcome = self.inner.end_sessions(command).await?;
        match outcome {
            SessionsEnded::Ended(0) => {}
            SessionsEnded::Ended(sessions) => {
                self.metrics.sessions_ended.inc_by(sessions);
                self.done(told, user);
            }
            SessionsEnded::NotPermitted => self.refused(told, "forbidden", user),
        }
        Ok(outcome)
    }
}

#[async_trait]
impl OutboxStore for ObservedStore {
    async fn claim(&self, command: Claim) -> Result<Vec<Claimed>, StoreError> {
        self.inner.claim(command).await
    }

    async fn settle_all(&self, commands: Vec<Settle>) -> Result<Vec<Settled>, StoreError> {
        let results = commands.iter().map(|command| match &command.result {
            DeliveryResult::Sent { .. } => "sent",
            DeliveryResult::Retry { .. } => "retry",
            DeliveryResult::Dead { .. } => "dead",
        });
        let results: Vec<_> = results.collect();
        let settled = self.inner.settle_all(commands).await?;
        self.delivered("mail", results, &settled);
        Ok(settled)
    }

    async fn renew_mails(&self, command: RenewLeases<OutboxId>) -> Result<Vec<Renewed>, StoreError> {
        self.inner.renew_mails(command).await
    }

    async fn outbox(&self, query: OutboxQuery) -> Result<Page<OutboxEntry, OutboxId>, StoreError> {
        self.inner.outbox(query).await
    }

    async fn requeue(&self, command: Requeue) -> Result<Requeued, StoreError> {
        let told = Told::of(&command.audit);
        let outcome = self.inner.requeue(command).await?;
        match outcome {
            Requeued::Requeued => self.done(told, None),
            Requeued::NotFound => self.refused(told, "not_found", None),
            Requeued::NotPermitted => self.refused(told, "forbidden", None),
        }
        Ok(outcome)
    }

    async fn wait_for_due(&self, at_most: StdDuration) {
        self.inner.wait_for_due(at_most).await;
    }
}

#[async_trait]
impl UndeliverableStore for ObservedStore {
    async fn mark_undeliverable(&self, command: MarkUndeliverable) -> Result<u32, StoreError> {
        let told = command.addresses.first().map(|(_, audit)| Told::of(audit));
        let marked = self.inner.mark_undeliverable(command).await?;
        // Which of the addresses were marked before, the answer does not tell.
        if let Some(Told { event, actor, request_id }) = told {
            for _ in 0..marked {
                self.done(Told { event, actor, request_id: request_id.clone() }, None);
            }
        }
        Ok(marked)
    }

    async fn mark_deliverable(&self, command: MarkDeliverable) -> Result<MarkRemoved, StoreError> {
        let told = Told::of(&command.audit);
        let outcome = self.inner.mark_deliverable(command).await?;
        match outcome {
            MarkRemoved::Removed => self.done(told, None),
            MarkRemoved::NotFound => self.refused(told, "not_found", None),
        }
        Ok(outcome)
    }

    async fn undeliverable(
        &self,
        query: UndeliverableQuery,
    ) -> Result<Page<UndeliverableAddress, EmailKey>, StoreError> {
        self.inner.undeliverable(query).await
    }
}

#[async_trait]
impl EventStore for ObservedStore {
    async fn events(&self, query: EventQuery) -> Result<EventFeed, StoreError> {
        self.inner.events(query).await
    }

    async fn claim_events(&self, command: Claim) -> Result<Vec<ClaimedEvent>, StoreError> {
        self.inner.claim_events(command).await
    }

    async fn settle_events(&self, commands: Vec<SettleEvent>) -> Result<Vec<Settled>, StoreError> {
        let results = commands.iter().map(|command| match command.result {
            EventResult::Delivered => "delivered",
            EventResult::Retry { .. } => "retry",
        });
        let results: Vec<_> = results.collect();
        let settled = self.inner.settle_events(commands).await?;
        self.delivered("event", results, &settled);
        Ok(settled)
    }

    async fn renew_events(&self, command: RenewLeases<EventId>) -> Result<Vec<Renewed>, StoreError> {
        self.inner.renew_events(command).await
    }

    async fn wait_for_events(&self, at_most: StdDuration) {
        self.inner.wait_for_events(at_most).await;
    }
}

#[async_trait]
impl AuditStore for ObservedStore {
    async fn audit(&self, query: AuditQuery) -> Result<Page<AuditEntry, AuditId>, StoreError> {
        self.inner.audit(query).await
    }

    async fn record(&self, command: Record) -> Result<Recorded, StoreError> {
        let entry = &command.entry;
        let told = Told { event: entry.event, actor: entry.actor, request_id: entry.request_id.clone() };
        let (outcome, user) = (entry.outcome, entry.subject);
        // The words of this program; a text of another would be a label that anybody makes.
        let reason = match &entry.reason {
            Some(std::borrow::Cow::Borrowed(reason)) => Some(*reason),
            _ => None,
        };
        let recorded = self.inner.record(command).await?;
        match recorded {
            Recorded::Recorded => self.tell(told, outcome, reason, user),
            // One entry of the window says so; here each is counted.
            Recorded::Throttled { .. } => self.refused(told, "too_many_attempts", user),
        }
        Ok(recorded)
    }
}

#[async_trait]
impl KeyStore for ObservedStore {
    async fn signing_keys(&self) -> Result<Vec<SealedSigningKey>, StoreError> {
        self.inner.signing_keys().await
    }

    async fn add_signing_key(&self, command: AddSigningKey) -> Result<Vec<SealedSigningKey>, StoreError> {
        let (told, id) = (Told::of(&command.audit), command.key.id);
        let keys = self.inner.add_signing_key(command).await?;
        if keys.iter().any(|key| key.id == id) {
            self.done(told, None);
        }
        Ok(keys)
    }

    async fn reseal_signing_key(&self, command: ResealSigningKey) -> Result<bool, StoreError> {
        self.inner.reseal_signing_key(command).await
    }

    async fn revoke_signing_keys(
        &self,
        command: RevokeSigningKeys,
    ) -> Result<Option<Vec<SealedSigningKey>>, StoreError> {
        let told = Told::of(&command.audit);
        let keys = self.inner.revoke_signing_keys(command).await?;
        if keys.is_some() {
            self.done(told, None);
        }
        Ok(keys)
    }
}

#[async_trait]
impl JobStore for ObservedStore {
    async fn begin_job(&self, command: BeginJob) -> Result<JobBegun, StoreError> {
        self.inner.begin_job(command).await
    }

    async fn renew_job(&self, command: RenewJob) -> Result<JobLease, StoreError> {
        self.inner.renew_job(command).await
    }

    async fn end_job(&self, command: EndJob) -> Result<JobLease, StoreError> {
        self.inner.end_job(command).await
    }

    async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError> {
        self.inner.jobs().await
    }
}

#[async_trait]
impl UpkeepStore for ObservedStore {
    async fn purge(&self, command: Purge) -> Result<Purged, StoreError> {
        self.inner.purge(command).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.inner.backlog().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }
}
