//! Codes and links.

use async_trait::async_trait;
use time::OffsetDateTime;

use super::{CodeRow, MemoryStore, Owner, Receiver, State, UserRow};
use crate::domain::code::{CodeForm, CodePurpose};
use crate::domain::email::{Email, EmailKey};
use crate::domain::id::{CodeId, UserId};
use crate::domain::password::PasswordVersion;
use crate::domain::role::{Role, Roles};
use crate::domain::user::{User, UserStatus};
use crate::port::store::account::NewPassword;
use crate::port::store::code::{
    Candidate, CandidateFilter, CandidateQuery, CodeOwner, CodeRequested, CodeStore, CodeTarget, Redeem,
    RedeemEffect, Redeemed, RequestCode,
};
use crate::port::store::throttle::ThrottleRule;
use crate::port::store::{Happened, MailDraft, StoreError};

#[async_trait]
impl CodeStore for MemoryStore {
    async fn request_code(&self, command: RequestCode) -> Result<CodeRequested, StoreError> {
        let RequestCode { now, email, purpose, target, mut code, mail, throttle, tries, audit } = command;
        let mut state = self.state()?;
        if state.codes.contains_key(&code.id) {
            return Ok(CodeRequested::Queued);
        }
        state.clamp(throttle.iter().chain(&tries), now);
        if let Some(retry_after) = state.used_up(&throttle, now) {
            return Ok(CodeRequested::Throttled { retry_after });
        }
        for rule in &throttle {
            state.count(rule, now);
        }
        if let Some(tries) = &tries {
            state.reset(tries, now);
        }
        let Some(owner) = state.owner(&email, purpose, target, now) else {
            state.audit_refused(audit, now, "nobody", None);
            return Ok(CodeRequested::Nobody);
        };
        let is_link = code.form == CodeForm::Link;
        state.void_codes_of(owner, now, |row| {
            row.purpose == purpose && (row.code.form == CodeForm::Link) == is_link
        });
        let subject = match owner {
            Owner::Registration(id) => {
                if let Some(row) = state.registrations.get(&id).cloned() {
                    code.dies_at = code.dies_at.min(row.expires_at);
                    state.owe_mail(mail, &Receiver::registration(&row), Some(code.id), now);
                }
                None
            }
            Owner::User(id) => {
                if let Some(user) = state.users.get(&id).map(|row| row.user.clone()) {
                    state.owe_mail(mail, &Receiver::user(&user), Some(code.id), now);
                }
                Some(id)
            }
        };
        state.codes.insert(code.id, CodeRow::new(code, purpose, owner));
        state.audit_done(audit, now, subject);
        drop(state);
        self.wake();
        Ok(CodeRequested::Queued)
    }

    async fn candidates(&self, query: CandidateQuery) -> Result<Vec<Candidate>, StoreError> {
        let CandidateQuery { now, which } = query;
        let state = self.state()?;
        let mut rows: Vec<&CodeRow> = state
            .codes
            .values()
            .filter(|row| row.closed_at.is_none())
            .filter(|row| match &which {
                CandidateFilter::User { id, purpose } => {
                    row.code.form != CodeForm::Link
                        && row.purpose == *purpose
                        && row.owner == Owner::User(*id)
                }
                CandidateFilter::Link(id) => row.code.id == *id && row.code.form == CodeForm::Link,
                CandidateFilter::Address { email, purposes, registration } => {
                    row.code.form != CodeForm::Link
                        && purposes.contains(&row.purpose)
                        && state.email_of(row.owner) == Some(email)
                        && registration.is_none_or(|id| row.owner == Owner::Registration(id))
                }
            })
            .collect();
        rows.sort_by_key(|row| (row.is_over(now), std::cmp::Reverse(row.code.id)));
        Ok(rows.into_iter().take(Candidate::MOST).filter_map(|row| state.candidate(row)).collect())
    }

    async fn redeem(&self, command: Redeem) -> Result<Redeemed, StoreError> {
        let Redeem {
            now,
            latest_end,
            candidates,
            hit,
            settled,
            attempts,
            tries,
            budgets,
            effect,
            audit,
            events,
        } = command;
        let mut state = self.state()?;
        state.clamp(tries.iter().chain(&budgets), now);
        let exhausted = state.used_up(&budgets, now);
        let is_first = state.is_first_refusal(&budgets, now);
        if let Some(retry_after) = exhausted {
            state.count_wrong_guess(&candidates, attempts, &budgets, now);
            if is_first {
                state.audit_refused(audit, now, "too_many_attempts", None);
            }
            return Ok(Redeemed::Exhausted { retry_after });
        }
        if let Some(row) =
            hit.and_then(|id| state.codes.get(&id)).filter(|row| row.closed_at.is_none()).cloned()
            && effect.fits(row.purpose, row.code.form)
        {
            let is_over = row.is_over(now) || row.ends_after(latest_end);
            if is_over && row.wrong_tries < attempts {
                return Ok(Redeemed::Expired);
            }
            if row.is_live(now, attempts) && state.may_redeem(&row, now) {
                if !settled && state.is_ambiguous(&row, now) {
                    return Ok(Redeemed::Ambiguous);
                }
                if let Some((user, happened)) = state.spend(&row, effect, now) {
                    state.owe_events(&events, happened, user.id, now);
                    state.audit_done(audit, now, Some(user.id));
                    drop(state);
                    self.wake();
                    return Ok(Redeemed::Redeemed(Box::new(user)));
                }
            }
        }
        state.count_wrong_guess(&candidates, attempts, &budgets, now);
        if tries.is_empty() && budgets.is_empty() {
            return Ok(Redeemed::Wrong);
        }
        let waits: Vec<_> = tries.iter().filter_map(|rule| state.used_up([rule], now)).collect();
        if let Some(retry_after) = waits.iter().max().filter(|_| waits.len() == tries.len()) {
            state.audit_refused(audit, now, "too_many_attempts", None);
            return Ok(Redeemed::Exhausted { retry_after: *retry_after });
        }
        for rule in &tries {
            state.count(rule, now);
        }
        state.audit_refused(audit, now, "invalid_code", None);
        Ok(Redeemed::Wrong)
    }
}

impl State {
    fn owner(
        &self,
        email: &EmailKey,
        purpose: CodePurpose,
        target: CodeTarget,
        now: OffsetDateTime,
    ) -> Option<Owner> {
        let user = |fits: &dyn Fn(&UserRow) -> bool| {
            let row = match target {
                CodeTarget::User(id) => self.live_user(id),
                CodeTarget::Anybody => self.user_of(email),
                CodeTarget::Registration(_) | CodeTarget::Nobody => None,
            };
            row.filter(|row| row.user.status == UserStatus::Active && fits(row))
                .map(|row| Owner::User(row.user.id))
        };
        match purpose {
            CodePurpose::EmailVerification => {
                let waits = |id: &_| {
                    self.registrations
                        .get(id)
                        .is_some_and(|row| row.expires_at > now && row.email.key() == email)
                };
                let registration = match target {
                    CodeTarget::Registration(id) => Some(id).filter(waits),
                    CodeTarget::Anybody => {
                        let mut waiting = self.registrations.keys().filter(|id| waits(id)).copied();
                        match (waiting.next(), waiting.next()) {
                            (Some(_), Some(_)) => return None,
                            (only, _) => only,
                        }
                    }
                    CodeTarget::User(_) | CodeTarget::Nobody => None,
                };
                registration
                    .map(Owner::Registration)
                    .or_else(|| user(&|row| row.user.email_verified_at.is_none()))
            }
            CodePurpose::FirstTimeSetup => user(&|row| row.password.is_none()),
            CodePurpose::ResetPassword | CodePurpose::ChangePassword | CodePurpose::ChangeEmail => {
                user(&|_| true)
            }
        }
    }

    fn email_of(&self, owner: Owner) -> Option<&EmailKey> {
        match owner {
            Owner::Registration(id) => self.registrations.get(&id).map(|row| row.email.key()),
            Owner::User(id) => self.live_user(id).map(|row| row.user.email.key()),
        }
    }

    fn candidate(&self, row: &CodeRow) -> Option<Candidate> {
        let owner = match row.owner {
            Owner::User(id) => CodeOwner::User { id },
            Owner::Registration(id) => {
                CodeOwner::Registration { id, password: self.registrations.get(&id)?.password.clone() }
            }
        };
        Some(Candidate {
            id: row.code.id,
            purpose: row.purpose,
            form: row.code.form,
            key: row.code.key,
            owner,
        })
    }

    /// Whether the owner of a code still is what it was asked for.
    fn may_redeem(&self, code: &CodeRow, now: OffsetDateTime) -> bool {
        match code.owner {
            Owner::User(id) => {
                let other = code.new_email.as_ref().and_then(|email| self.user_of(email.key()));
                let is_there = if code.is_undo() {
                    self.users
                        .get(&id)
                        .is_some_and(|row| row.deleted.is_none_or(|deleted| deleted.is_restorable(now)))
                } else {
                    self.is_active(id)
                };
                is_there && other.is_none_or(|other| other.user.id == id)
            }
            Owner::Registration(id) => self
                .registrations
                .get(&id)
                .is_some_and(|row| row.expires_at > now && self.user_of(row.email.key()).is_none()),
        }
    }

    /// Whether another registration of the same address is not over.
    fn is_ambiguous(&self, hit: &CodeRow, now: OffsetDateTime) -> bool {
        let Owner::Registration(id) = hit.owner else { return false };
        let email = self.email_of(hit.owner);
        self.registrations
            .iter()
            .any(|(other, row)| *other != id && row.expires_at > now && Some(row.email.key()) == email)
    }

    fn count_wrong_guess(
        &mut self,
        candidates: &[CodeId],
        attempts: u32,
        budgets: &[ThrottleRule],
        now: OffsetDateTime,
    ) {
        for id in candidates {
            if let Some(row) = self.codes.get_mut(id).filter(|row| row.is_live(now, attempts)) {
                row.wrong_tries += 1;
            }
        }
        for rule in budgets {
            self.count(rule, now);
        }
    }

    fn spend(
        &mut self,
        row: &CodeRow,
        effect: RedeemEffect,
        now: OffsetDateTime,
    ) -> Option<(User, Happened)> {
        self.close(row.code.id, now);
        match (row.owner, effect) {
            (Owner::Registration(_), RedeemEffect::Verify { user_id, welcome }) => {
                self.activate(row, user_id, None, welcome, now)
            }
            (Owner::Registration(_), RedeemEffect::SetPassword { user_id, welcome, password }) => {
                self.activate(row, user_id, Some(password), welcome, now)
            }
            (Owner::User(id), RedeemEffect::Verify { user_id: _, welcome: _ }) => {
                let email_verified = self.prove_address(id, now);
                let user = self.users.get(&id)?.user.clone();
                Some((user, Happened { email_verified, ..Happened::default() }))
            }
            (Owner::User(id), RedeemEffect::SetPassword { user_id: _, welcome: _, password }) => {
                let NewPassword { hash, session, notice } = password;
                let email_verified = self.prove_address(id, now);
                let user = self.users.get_mut(&id)?;
                user.password = Some(hash);
                user.version = user.version.next();
                user.user.updated_at = now;
                let (told, version) = (user.user.clone(), user.version);
                self.end_sessions_of(id, None, now);
                self.end_codes_of(id, now);
                self.owe_mail(notice, &Receiver::user(&told), None, now);
                let opened = session.as_ref().map(|session| session.id);
                if let Some(session) = session {
                    self.open(session, id, version, now);
                }
                let user = self.users.get(&id)?.user.clone();
                let happened = Happened {
                    email_verified,
                    password_changed: true,
                    signed_in: opened.is_some(),
                    session: opened,
                    ..Happened::default()
                };
                Some((user, happened))
            }
            (Owner::User(id), RedeemEffect::ChangeEmail { undo, undo_mail }) => {
                let new = row.new_email.clone()?;
                let (undone, ends) = self.undos_of(id, &new, now);
                let old = self.change_email(id, new, now)?;
                self.end_codes_of(id, now);
                if let Some(from) = undone {
                    self.end_undos_of(id, from, now);
                } else {
                    let undo = undo.ending_after(ends);
                    let mut link = CodeRow::new(undo, CodePurpose::ChangeEmail, row.owner);
                    link.new_email = Some(old.email.clone());
                    self.codes.insert(undo.id, link);
                    self.owe_mail(undo_mail, &Receiver::user(&old), Some(undo.id), now);
                }
                let user = self.users.get(&id)?.user.clone();
                Some((user, Happened { email_changed: true, ..Happened::default() }))
            }
            (Owner::User(id), RedeemEffect::UndoEmailChange { reset, reset_mail }) => {
                self.change_email(id, row.new_email.clone()?, now)?;
                let user = self.users.get_mut(&id)?;
                user.password = None;
                user.version = user.version.next();
                let user_restored = user.deleted.take().is_some();
                let told = user.user.clone();
                self.end_sessions_of(id, None, now);
                self.end_codes_of(id, now);
                self.end_undos_of(id, row.code.dies_at, now);
                self.codes.insert(reset.id, CodeRow::new(reset, CodePurpose::ResetPassword, row.owner));
                self.owe_mail(reset_mail, &Receiver::user(&told), Some(reset.id), now);
                let happened = Happened {
                    email_changed: true,
                    sessions_ended: true,
                    user_restored,
                    ..Happened::default()
                };
                Some((told, happened))
            }
            (Owner::Registration(_), _) => None,
        }
    }

    /// The open links by which a user undoes changes of address: the end of the oldest that is not over and gives this
    /// address, and the ends of all.
    fn undos_of(
        &self,
        id: UserId,
        new: &Email,
        now: OffsetDateTime,
    ) -> (Option<OffsetDateTime>, Vec<OffsetDateTime>) {
        let is_open =
            |row: &&CodeRow| row.owner == Owner::User(id) && row.is_undo() && row.closed_at.is_none();
        let gives = |row: &&CodeRow| {
            !row.is_over(now) && row.new_email.as_ref().is_some_and(|email| email.is_spelt_as(new))
        };
        let open: Vec<&CodeRow> = self.codes.values().filter(is_open).collect();
        let undone = open.iter().copied().filter(gives).map(|row| row.code.dies_at).min();
        (undone, open.iter().map(|row| row.code.dies_at).collect())
    }

    /// Gives a user another address. Answers the user as it was.
    fn change_email(&mut self, id: UserId, email: Email, now: OffsetDateTime) -> Option<User> {
        let row = self.users.get_mut(&id)?;
        let before = row.user.clone();
        row.user.email = email;
        row.user.email_verified_at = Some(now);
        row.user.updated_at = now;
        Some(before)
    }

    fn close(&mut self, code: CodeId, now: OffsetDateTime) {
        if let Some(row) = self.codes.get_mut(&code) {
            row.closed_at = Some(now);
        }
    }

    fn prove_address(&mut self, id: UserId, now: OffsetDateTime) -> bool {
        match self.users.get_mut(&id) {
            Some(row) if row.user.email_verified_at.is_none() => {
                row.user.email_verified_at = Some(now);
                row.user.updated_at = now;
                true
            }
            _ => false,
        }
    }

    /// A registration becomes a user.
    fn activate(
        &mut self,
        row: &CodeRow,
        id: UserId,
        password: Option<NewPassword>,
        welcome: Option<MailDraft>,
        now: OffsetDateTime,
    ) -> Option<(User, Happened)> {
        let Owner::Registration(registration) = row.owner else { return None };
        let registration = self.registrations.get(&registration)?.clone();
        let email = registration.email.key().clone();
        let (hash, session) = match password {
            Some(NewPassword { hash, session, notice: _ }) => (hash, session),
            None => (registration.password, None),
        };
        let user = User {
            id,
            email: registration.email,
            email_verified_at: Some(now),
            username: registration.username,
            roles: Roles::from([Role::user()]),
            status: UserStatus::Active,
            locale: registration.locale,
            profile: registration.profile,
            created_at: now,
            updated_at: now,
            last_login_at: None,
        };
        if let Some(welcome) = welcome {
            self.owe_mail(welcome, &Receiver::user(&user), None, now);
        }
        self.users.insert(id, UserRow::new(user, Some(hash), PasswordVersion::FIRST));
        self.remove_registrations(|_, row| row.email.key() == &email);
        let opened = session.as_ref().map(|session| session.id);
        if let Some(session) = session {
            self.open(session, id, PasswordVersion::FIRST, now);
        }
        let happened = Happened {
            user_registered: true,
            email_verified: true,
            signed_in: opened.is_some(),
            session: opened,
            ..Happened::default()
        };
        Some((self.users.get(&id)?.user.clone(), happened))
    }
}
