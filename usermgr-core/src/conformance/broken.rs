//! Stores that break a law on purpose, each in the way real systems have broken it, and the law that catches it.

use std::sync::Arc;

use async_trait::async_trait;

use super::build::NOW;
use super::{
    StoreHarness, administration, codes, deletion, drops, email_change, events, floods, jobs, keys, limits,
    outbox, profiles, races, refresh, upkeep,
};
use crate::domain::audit::AuditEntry;
use crate::domain::email::EmailKey;
use crate::domain::id::{AuditId, EventId, OutboxId, UserId};
use crate::domain::page::Page;
use crate::domain::role::Role;
use crate::domain::session::Session;
use crate::domain::undeliverable::UndeliverableAddress;
use crate::domain::user::User;
use crate::memory::{MemoryStore, Owner, UserRow};
use crate::port::store::account::{
    AccountStore, CreateUser, CredentialsQuery, CredentialsView, DeleteUser, EmailChangeRequested,
    ImportUsers, LimitsQuery, LimitsView, PasswordReplaced, Register, Registered, ReplacePassword,
    RequestEmailChange, UpdateUser, UserCreated, UserCursor, UserDeleted, UserImported, UserQuery,
    UserUpdated,
};
use crate::port::store::audit::{AuditQuery, AuditStore, Record, Recorded};
use crate::port::store::code::{
    Candidate, CandidateQuery, CodeRequested, CodeStore, Redeem, RedeemEffect, Redeemed, RequestCode,
};
use crate::port::store::event::{ClaimedEvent, EventFeed, EventQuery, EventResult, EventStore, SettleEvent};
use crate::port::store::job::{BeginJob, EndJob, JobBegun, JobLease, JobRecord, JobStore, RenewJob};
use crate::port::store::key::{
    AddSigningKey, KeyStore, ResealSigningKey, RevokeSigningKeys, SealedSigningKey,
};
use crate::port::store::outbox::{
    Claim, Claimed, OutboxEntry, OutboxQuery, OutboxStore, RenewLeases, Renewed, Requeue, Requeued, Settle,
    Settled,
};
use crate::port::store::session::{
    EndSessions, LoginCounted, LoginFailed, OpenSession, Rotate, Rotated, SessionOpened, SessionQuery,
    SessionStore, SessionView, SessionsEnded, SessionsQuery,
};
use crate::port::store::undeliverable::{
    MarkDeliverable, MarkRemoved, MarkUndeliverable, UndeliverableQuery, UndeliverableStore,
};
use crate::port::store::upkeep::{Backlog, Purge, Purged, UpkeepStore};
use crate::port::store::{Store, StoreError};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A spent code is not looked at: `UPDATE … WHERE id = $1`, without `AND closed_at IS NULL`.
    UnguardedUpdate,
    /// The state is read, and written back a moment later.
    GetThenUpdate,
    /// The audit entry is written after the commit.
    AuditAfterCommit,
    /// Limits are not counted.
    LostThrottle,
    /// Refusals are recorded for ever.
    RefusalsWithoutEnd,
    /// Failed sign-ins are counted for each /64 and not for the /48 around them.
    WideNetworkForgotten,
    /// A refresh token that was used up is not looked at when too many were renewed.
    LimitBeforeReuse,
    /// Of several counters, one that is used up refuses.
    OneCounterRefuses,
    /// A guess is counted before it is judged, and stays counted when it was right.
    RightGuessCounted,
    /// Wrong tries are not counted.
    LostAttemptCount,
    /// Past a budget a guess is refused and counted on no code.
    BudgetStopsCounting,
    /// A refresh token that was used up is refused, and its session goes on.
    ReuseUnnoticed,
    /// Whether another administrator is left is read before the transaction.
    LastAdminReadFirst,
    /// An administrator counts who cannot sign in.
    InvitedAdminCounts,
    /// A new password voids every link, also the one that undoes a change of address.
    PasswordEndsUndo,
    /// An undo voids every link of its user, also those that undo older changes.
    UndoEndsOlder,
    /// A deletion sets a mark at the user, and the sessions stay.
    DeletionLeavesSessions,
    /// A purge of users leaves their address in the audit log.
    PurgeKeepsAddress,
    /// Whoever asks for a run that is due gets it, also while somebody has it.
    JobLeaseIgnored,
    /// A run is ended by whoever says so.
    JobEndUnfenced,
    /// A lease is renewed by whoever says so.
    RenewalUnfenced,
    /// A renewal is answered and not written.
    RenewalForgotten,
    /// Mails that failed for good are kept for ever.
    DeadMailsStay,
    /// Events get their positions when they are written, and commits come in another order.
    PositionBeforeCommit,
    /// The next event of a user is told when the one before was handed out.
    TurnPassedTooSoon,
    /// The profile stands with the address: who registers it last decides.
    ProfileOfTheLatest,
    /// An update of something else removes the profile.
    ProfileForgotten,
    /// A key is revoked, and the one before it signs again.
    RevocationWithoutSuccessor,
    /// Who may not change a user changes the profile.
    ProfileChangedFirst,
}

struct Broken {
    inner: MemoryStore,
    fault: Fault,
}

impl Broken {
    fn close_undos(&self, user: UserId) -> Result<(), StoreError> {
        let mut state = self.inner.state()?;
        for row in state.codes.values_mut().filter(|row| row.owner == Owner::User(user) && row.is_undo()) {
            row.closed_at.get_or_insert(NOW);
        }
        drop(state);
        Ok(())
    }
}

struct Harness(Fault);

#[async_trait]
impl StoreHarness for Harness {
    async fn fresh(&self) -> Arc<dyn Store> {
        Arc::new(Broken { inner: MemoryStore::new(), fault: self.0 })
    }
}

#[async_trait]
impl AccountStore for Broken {
    async fn register(&self, mut command: Register) -> Result<Registered, StoreError> {
        if self.fault == Fault::LostThrottle {
            command.throttle.clear();
        }
        if self.fault == Fault::AuditAfterCommit {
            let outcome = self.inner.register(command).await?;
            let entry = self.inner.state()?.audit.pop();
            tokio::task::yield_now().await;
            self.inner.state()?.audit.extend(entry);
            return Ok(outcome);
        }
        self.inner.register(command).await
    }

    async fn limits(&self, query: LimitsQuery) -> Result<LimitsView, StoreError> {
        self.inner.limits(query).await
    }

    async fn create_user(&self, command: CreateUser) -> Result<UserCreated, StoreError> {
        self.inner.create_user(command).await
    }

    async fn credentials(&self, query: CredentialsQuery) -> Result<CredentialsView, StoreError> {
        self.inner.credentials(query).await
    }

    async fn replace_password(&self, command: ReplacePassword) -> Result<PasswordReplaced, StoreError> {
        let user = command.user_id;
        let outcome = self.inner.replace_password(command).await;
        if self.fault == Fault::PasswordEndsUndo {
            self.close_undos(user)?;
        }
        outcome
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.inner.user(id).await
    }

    async fn users(&self, query: UserQuery) -> Result<Page<User, UserCursor>, StoreError> {
        self.inner.users(query).await
    }

    async fn update_user(&self, command: UpdateUser) -> Result<UserUpdated, StoreError> {
        if self.fault == Fault::PositionBeforeCommit {
            let outcome = self.inner.update_user(command).await?;
            let late = self.inner.state()?.feed.rows.pop();
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            let mut state = self.inner.state()?;
            state.feed.rows.extend(late);
            state.feed.rows.sort_by_key(|row| row.event.position);
            return Ok(outcome);
        }
        if self.fault == Fault::ProfileForgotten {
            let mut command = command;
            command.change.profile.get_or_insert_default();
            return self.inner.update_user(command).await;
        }
        if self.fault == Fault::ProfileChangedFirst
            && let Some(profile) = &command.change.profile
            && let Some(row) = self.inner.state()?.users.get_mut(&command.id)
        {
            row.user.profile.clone_from(profile);
        }
        if !matches!(self.fault, Fault::LastAdminReadFirst | Fault::InvitedAdminCounts) {
            return self.inner.update_user(command).await;
        }
        let (id, change) = (command.id, command.change.clone());
        let admin = |row: &UserRow| row.user.roles.contains(&Role::admin()) && row.deleted.is_none();
        let others = self.inner.state()?.users.values().filter(|row| admin(row) && row.user.id != id).count();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let outcome = self.inner.update_user(command).await?;
        if outcome == UserUpdated::LastAdmin
            && others > 0
            && let Some(row) = self.inner.state()?.users.get_mut(&id)
        {
            let user = &mut row.user;
            user.status = change.status.unwrap_or(user.status);
            user.roles =
                change.roles.map_or_else(|| user.roles.clone(), |roles| roles.applied_to(&user.roles));
            return Ok(UserUpdated::Updated(Box::new(user.clone())));
        }
        Ok(outcome)
    }

    async fn delete_user(&self, command: DeleteUser) -> Result<UserDeleted, StoreError> {
        let sessions = self.inner.state()?.sessions.clone();
        let outcome = self.inner.delete_user(command).await;
        if self.fault == Fault::DeletionLeavesSessions {
            self.inner.state()?.sessions = sessions;
        }
        outcome
    }

    async fn request_email_change(
        &self,
        command: RequestEmailChange,
    ) -> Result<EmailChangeRequested, StoreError> {
        self.inner.request_email_change(command).await
    }

    async fn import_users(&self, command: ImportUsers) -> Result<Vec<UserImported>, StoreError> {
        self.inner.import_users(command).await
    }
}

#[async_trait]
impl CodeStore for Broken {
    async fn request_code(&self, command: RequestCode) -> Result<CodeRequested, StoreError> {
        self.inner.request_code(command).await
    }

    async fn candidates(&self, query: CandidateQuery) -> Result<Vec<Candidate>, StoreError> {
        self.inner.candidates(query).await
    }

    async fn redeem(&self, command: Redeem) -> Result<Redeemed, StoreError> {
        match self.fault {
            Fault::OneCounterRefuses => {
                let mut command = command;
                command.tries.truncate(1);
                self.inner.redeem(command).await
            }
            Fault::RightGuessCounted if command.hit.is_some() => {
                let wrong = Redeem { hit: None, candidates: Vec::new(), ..command.clone() };
                self.inner.redeem(wrong).await?;
                self.inner.redeem(command).await
            }
            Fault::UnguardedUpdate => {
                if let Some(code) = command.hit.and_then(|id| Some((id, self.inner.state().ok()?))) {
                    let (id, mut state) = code;
                    if let Some(row) = state.codes.get_mut(&id) {
                        row.closed_at = None;
                    }
                }
                self.inner.redeem(command).await
            }
            Fault::GetThenUpdate => {
                let snapshot = self.inner.state()?.clone();
                tokio::task::yield_now().await;
                let aside = MemoryStore::new();
                *aside.state()? = snapshot;
                let outcome = aside.redeem(command).await?;
                let changed = aside.state()?.clone();
                *self.inner.state()? = changed;
                Ok(outcome)
            }
            Fault::LostAttemptCount => {
                let before: Vec<_> = self.inner.state()?.throttles.clone().into_iter().collect();
                let tries = self.inner.state()?.codes.clone();
                let outcome = self.inner.redeem(command).await?;
                if outcome == Redeemed::Wrong {
                    let mut state = self.inner.state()?;
                    state.throttles = before.into_iter().collect();
                    state.codes = tries;
                }
                Ok(outcome)
            }
            Fault::BudgetStopsCounting => {
                let before = self.inner.state()?.codes.clone();
                let outcome = self.inner.redeem(command).await?;
                if matches!(outcome, Redeemed::Exhausted { .. }) {
                    self.inner.state()?.codes = before;
                }
                Ok(outcome)
            }
            Fault::UndoEndsOlder if matches!(command.effect, RedeemEffect::UndoEmailChange { .. }) => {
                let outcome = self.inner.redeem(command).await?;
                if let Redeemed::Redeemed(user) = &outcome {
                    self.close_undos(user.id)?;
                }
                Ok(outcome)
            }
            Fault::ProfileOfTheLatest => {
                let latest = self.inner.state()?.registrations.values().last().map(|row| row.profile.clone());
                let outcome = self.inner.redeem(command).await?;
                if let (Redeemed::Redeemed(user), Some(latest)) = (&outcome, latest)
                    && let Some(row) = self.inner.state()?.users.get_mut(&user.id)
                {
                    row.user.profile = latest;
                }
                Ok(outcome)
            }
            _ => self.inner.redeem(command).await,
        }
    }
}

#[async_trait]
impl SessionStore for Broken {
    async fn open_session(&self, command: OpenSession) -> Result<SessionOpened, StoreError> {
        self.inner.open_session(command).await
    }

    async fn login_failed(&self, mut command: LoginFailed) -> Result<LoginCounted, StoreError> {
        if self.fault == Fault::WideNetworkForgotten
            && let Some(guard) = &mut command.guard
        {
            guard.wide = None;
        }
        self.inner.login_failed(command).await
    }

    async fn session(&self, query: SessionQuery) -> Result<Option<SessionView>, StoreError> {
        self.inner.session(query).await
    }

    async fn sessions(&self, query: SessionsQuery) -> Result<Vec<Session>, StoreError> {
        self.inner.sessions(query).await
    }

    async fn rotate(&self, command: Rotate) -> Result<Rotated, StoreError> {
        if self.fault == Fault::LimitBeforeReuse {
            let rules = command.throttle.clone();
            let query = LimitsQuery { now: command.now, rules, network: None };
            if let Some(retry_after) = self.inner.limits(query).await?.wait(&command.throttle) {
                return Ok(Rotated::Throttled { retry_after });
            }
        }
        let (id, before) = (command.id, self.inner.state()?.sessions.get(&command.id).cloned());
        let outcome = self.inner.rotate(command).await?;
        if let (Fault::ReuseUnnoticed, Rotated::Reused, Some(before)) = (self.fault, &outcome, before) {
            self.inner.state()?.sessions.insert(id, before);
        }
        Ok(outcome)
    }

    async fn end_sessions(&self, command: EndSessions) -> Result<SessionsEnded, StoreError> {
        self.inner.end_sessions(command).await
    }
}

#[async_trait]
impl OutboxStore for Broken {
    async fn claim(&self, command: Claim) -> Result<Vec<Claimed>, StoreError> {
        self.inner.claim(command).await
    }

    async fn settle_all(&self, commands: Vec<Settle>) -> Result<Vec<Settled>, StoreError> {
        self.inner.settle_all(commands).await
    }

    async fn renew_mails(&self, mut command: RenewLeases<OutboxId>) -> Result<Vec<Renewed>, StoreError> {
        if self.fault == Fault::RenewalUnfenced {
            let state = self.inner.state()?;
            for (id, lease) in &mut command.held {
                if let Some((by, _)) = state.outbox.get(id).and_then(|row| row.lease) {
                    *lease = by;
                }
            }
        }
        self.inner.renew_mails(command).await
    }

    async fn requeue(&self, command: Requeue) -> Result<Requeued, StoreError> {
        self.inner.requeue(command).await
    }

    async fn outbox(&self, query: OutboxQuery) -> Result<Page<OutboxEntry, OutboxId>, StoreError> {
        self.inner.outbox(query).await
    }

    async fn wait_for_due(&self, at_most: std::time::Duration) {
        self.inner.wait_for_due(at_most).await;
    }
}

#[async_trait]
impl EventStore for Broken {
    async fn events(&self, query: EventQuery) -> Result<EventFeed, StoreError> {
        self.inner.events(query).await
    }

    async fn claim_events(&self, command: Claim) -> Result<Vec<ClaimedEvent>, StoreError> {
        let mut claimed = self.inner.claim_events(command.clone()).await?;
        if self.fault == Fault::TurnPassedTooSoon {
            for ClaimedEvent { event, .. } in claimed.clone() {
                let (now, id, lease) = (command.now, event.id, command.lease);
                let delivered = SettleEvent { now, id, lease, result: EventResult::Delivered };
                self.inner.settle_events(vec![delivered]).await?;
            }
            claimed.extend(self.inner.claim_events(command).await?);
        }
        Ok(claimed)
    }

    async fn settle_events(&self, commands: Vec<SettleEvent>) -> Result<Vec<Settled>, StoreError> {
        self.inner.settle_events(commands).await
    }

    async fn renew_events(&self, command: RenewLeases<EventId>) -> Result<Vec<Renewed>, StoreError> {
        if self.fault == Fault::RenewalForgotten {
            return Ok(vec![Renewed::Kept; command.held.len()]);
        }
        self.inner.renew_events(command).await
    }

    async fn wait_for_events(&self, at_most: std::time::Duration) {
        self.inner.wait_for_events(at_most).await;
    }
}

#[async_trait]
impl UndeliverableStore for Broken {
    async fn mark_undeliverable(&self, command: MarkUndeliverable) -> Result<u32, StoreError> {
        self.inner.mark_undeliverable(command).await
    }

    async fn mark_deliverable(&self, command: MarkDeliverable) -> Result<MarkRemoved, StoreError> {
        self.inner.mark_deliverable(command).await
    }

    async fn undeliverable(
        &self,
        query: UndeliverableQuery,
    ) -> Result<Page<UndeliverableAddress, EmailKey>, StoreError> {
        self.inner.undeliverable(query).await
    }
}

#[async_trait]
impl AuditStore for Broken {
    async fn audit(&self, query: AuditQuery) -> Result<Page<AuditEntry, AuditId>, StoreError> {
        self.inner.audit(query).await
    }

    async fn record(&self, mut command: Record) -> Result<Recorded, StoreError> {
        if self.fault == Fault::RefusalsWithoutEnd {
            command.throttle.clear();
        }
        self.inner.record(command).await
    }
}

#[async_trait]
impl KeyStore for Broken {
    async fn signing_keys(&self) -> Result<Vec<SealedSigningKey>, StoreError> {
        self.inner.signing_keys().await
    }

    async fn add_signing_key(&self, command: AddSigningKey) -> Result<Vec<SealedSigningKey>, StoreError> {
        self.inner.add_signing_key(command).await
    }

    async fn reseal_signing_key(&self, command: ResealSigningKey) -> Result<bool, StoreError> {
        self.inner.reseal_signing_key(command).await
    }

    async fn revoke_signing_keys(
        &self,
        command: RevokeSigningKeys,
    ) -> Result<Option<Vec<SealedSigningKey>>, StoreError> {
        if self.fault == Fault::RevocationWithoutSuccessor {
            let replacement = command.replacement.id;
            let keys = self.inner.revoke_signing_keys(command).await?;
            self.inner.state()?.keys.retain(|key| key.id != replacement);
            return Ok(keys);
        }
        self.inner.revoke_signing_keys(command).await
    }
}

#[async_trait]
impl JobStore for Broken {
    async fn begin_job(&self, command: BeginJob) -> Result<JobBegun, StoreError> {
        if self.fault == Fault::JobLeaseIgnored
            && let Some(record) = self.inner.state()?.jobs.get_mut(&command.job)
            && let Some((_, until)) = &mut record.lease
        {
            *until = command.now;
        }
        self.inner.begin_job(command).await
    }

    async fn renew_job(&self, command: RenewJob) -> Result<JobLease, StoreError> {
        self.inner.renew_job(command).await
    }

    async fn end_job(&self, mut command: EndJob) -> Result<JobLease, StoreError> {
        if self.fault == Fault::JobEndUnfenced
            && let Some((lease, _)) = self.inner.state()?.jobs.get(&command.job).and_then(|job| job.lease)
        {
            command.lease = lease;
        }
        self.inner.end_job(command).await
    }

    async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError> {
        self.inner.jobs().await
    }
}

#[async_trait]
impl UpkeepStore for Broken {
    async fn purge(&self, command: Purge) -> Result<Purged, StoreError> {
        let before = self.inner.state()?.audit.clone();
        let command = match self.fault {
            Fault::DeadMailsStay => Purge { dead_before: time::OffsetDateTime::UNIX_EPOCH, ..command },
            _ => command,
        };
        let outcome = self.inner.purge(command).await;
        if self.fault == Fault::PurgeKeepsAddress {
            for entry in &mut self.inner.state()?.audit {
                entry.email = before.iter().find(|old| old.id == entry.id).and_then(|old| old.email.clone());
            }
        }
        outcome
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.inner.backlog().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }
}

/// Shows that a law fails on a store with this fault.
macro_rules! caught {
    ($($name:ident: $fault:ident by $topic:ident::$law:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $name() {
            let broken = tokio::spawn(async { $topic::$law(&Harness(Fault::$fault)).await });
            assert!(broken.await.is_err_and(|error| error.is_panic()), "the law held on a broken store");
        })*
    };
}

caught! {
    a_revocation_without_a_successor_is_caught:
        RevocationWithoutSuccessor by keys::a_revoked_key_that_signs_is_replaced_at_once
    an_unguarded_update_is_caught: UnguardedUpdate by codes::a_code_is_spent_once
    a_get_then_update_is_caught: GetThenUpdate by races::no_more_than_the_allowed_guesses_are_judged
    an_audit_after_the_commit_is_caught: AuditAfterCommit by drops::a_dropped_command_is_all_or_nothing
    a_lost_throttle_is_caught: LostThrottle by limits::a_limit_holds_to_the_second
    refusals_without_end_are_caught: RefusalsWithoutEnd by floods::refusals_end_with_one_last_entry
    a_forgotten_wide_network_is_caught:
        WideNetworkForgotten by floods::a_wide_network_is_limited_over_all_of_its_networks
    a_limit_before_reuse_is_caught: LimitBeforeReuse by floods::no_limit_hides_a_used_token
    a_counter_that_refuses_alone_is_caught:
        OneCounterRefuses by limits::a_guess_is_judged_while_one_counter_is_free
    a_right_guess_that_is_counted_is_caught: RightGuessCounted by limits::a_right_guess_counts_nothing
    a_lost_attempt_count_is_caught: LostAttemptCount by codes::wrong_tries_use_a_code_up
    a_budget_that_stops_counting_is_caught:
        BudgetStopsCounting by limits::a_code_dies_of_guesses_past_a_budget
    an_unnoticed_reuse_is_caught: ReuseUnnoticed by refresh::a_used_token_ends_its_session
    an_early_look_for_administrators_is_caught:
        LastAdminReadFirst by administration::one_of_many_administrators_is_left
    an_administrator_who_cannot_sign_in_and_counts_is_caught:
        InvitedAdminCounts by administration::an_administrator_who_cannot_sign_in_does_not_count
    an_undo_that_ends_with_the_password_is_caught:
        PasswordEndsUndo by email_change::an_undo_survives_a_new_password
    an_undo_that_ends_older_ones_is_caught: UndoEndsOlder by email_change::a_later_undo_leaves_the_older_ones
    a_deletion_that_leaves_sessions_is_caught:
        DeletionLeavesSessions by deletion::a_restorable_user_comes_back_in_time
    a_purge_that_keeps_addresses_is_caught:
        PurgeKeepsAddress by upkeep::a_deleted_user_is_purged_with_all_that_is_theirs
    a_purge_that_keeps_dead_mails_is_caught: DeadMailsStay by upkeep::a_dead_mail_is_purged_in_its_own_time
    an_ignored_lease_of_a_job_is_caught: JobLeaseIgnored by jobs::one_of_many_gets_the_run
    a_job_that_anybody_ends_is_caught: JobEndUnfenced by jobs::the_lease_of_a_run_is_fenced
    a_renewal_by_anybody_is_caught: RenewalUnfenced by outbox::a_lease_that_is_renewed_is_kept
    a_forgotten_renewal_is_caught: RenewalForgotten by events::a_lease_of_an_event_that_is_renewed_is_kept
    a_position_before_the_commit_is_caught: PositionBeforeCommit by events::no_reader_misses_an_event
    a_profile_of_the_latest_is_caught:
        ProfileOfTheLatest by profiles::a_registration_becomes_a_user_with_its_own_profile
    a_forgotten_profile_is_caught: ProfileForgotten by profiles::a_profile_is_replaced_whole
    a_profile_that_is_changed_first_is_caught:
        ProfileChangedFirst by profiles::a_refused_change_of_a_profile_changes_nothing
    a_turn_that_is_passed_too_soon_is_caught:
        TurnPassedTooSoon by events::events_of_a_user_are_told_one_after_the_other
}
