//! Codes and links.

use std::cmp::Reverse;

use async_trait::async_trait;
use time::OffsetDateTime;
use usermgr_core::domain::code::{CodeForm, CodePurpose};
use usermgr_core::domain::email::{Email, EmailKey};
use usermgr_core::domain::id::{CodeId, UserId};
use usermgr_core::domain::password::PasswordVersion;
use usermgr_core::domain::role::{Role, Roles};
use usermgr_core::domain::user::{User, UserStatus};
use usermgr_core::port::store::account::NewPassword;
use usermgr_core::port::store::code::{
    Candidate, CandidateFilter, CandidateQuery, CodeOwner, CodeRequested, CodeStore, CodeTarget, Redeem,
    RedeemEffect, Redeemed, RequestCode,
};
use usermgr_core::port::store::throttle::ThrottleRule;
use usermgr_core::port::store::{Happened, MailDraft, StoreError};

use crate::FileStore;
use crate::database::Transaction;
use crate::rows::{CodeRow, Owner, Receiver, RegistrationRow, UserRow};

#[async_trait]
impl CodeStore for FileStore {
    async fn request_code(&self, command: RequestCode) -> Result<CodeRequested, StoreError> {
        self.run(|tx| request_code(tx, command)).await
    }

    async fn candidates(&self, query: CandidateQuery) -> Result<Vec<Candidate>, StoreError> {
        self.run(|tx| candidates(tx, query)).await
    }

    async fn redeem(&self, command: Redeem) -> Result<Redeemed, StoreError> {
        self.run(|tx| redeem(tx, command)).await
    }
}

fn request_code(tx: &mut Transaction<'_>, command: RequestCode) -> Result<CodeRequested, StoreError> {
    let RequestCode { now, email, purpose, target, mut code, mail, throttle, tries, audit } = command;
    if tx.get::<CodeRow>(code.id)?.is_some() {
        return Ok(CodeRequested::Queued);
    }
    tx.clamp(throttle.iter().chain(&tries), now)?;
    if let Some(retry_after) = tx.used_up(&throttle, now)? {
        return Ok(CodeRequested::Throttled { retry_after });
    }
    for rule in &throttle {
        tx.count(rule, now)?;
    }
    if let Some(tries) = &tries {
        tx.reset(tries, now)?;
    }
    let Some(found) = find_owner(tx, &email, purpose, target, now)? else {
        tx.audit_refused(audit, now, "nobody", None)?;
        return Ok(CodeRequested::Nobody);
    };
    let is_link = code.form == CodeForm::Link;
    let (owner, subject) = match &found {
        Found::Registration(owner, row) => {
            code.dies_at = code.dies_at.min(row.expires_at);
            tx.owe_mail(mail, Receiver::registration(row), Some(code.id), now)?;
            (*owner, None)
        }
        Found::User(row) => {
            tx.owe_mail(mail, Receiver::user(&row.user), Some(code.id), now)?;
            (Owner::User(row.user.id), Some(row.user.id))
        }
    };
    tx.void_codes_of(owner, now, |row| row.purpose == purpose && row.is_link() == is_link)?;
    tx.put(code.id, &CodeRow::new(code, purpose, owner))?;
    tx.audit_done(audit, now, subject)?;
    Ok(CodeRequested::Queued)
}

/// For whom a code is.
enum Found {
    Registration(Owner, RegistrationRow),
    User(Box<UserRow>),
}

fn find_owner(
    tx: &Transaction<'_>,
    email: &EmailKey,
    purpose: CodePurpose,
    target: CodeTarget,
    now: OffsetDateTime,
) -> Result<Option<Found>, StoreError> {
    if purpose == CodePurpose::EmailVerification {
        let waits = |row: &RegistrationRow| row.expires_at > now && row.email.key() == email;
        let found = match target {
            CodeTarget::Registration(id) => tx.get(id)?.filter(waits).map(|row| (id, row)),
            CodeTarget::Anybody => {
                let rows = tx.rows::<RegistrationRow>()?;
                let mut waiting = rows.into_iter().filter(|(_, row)| waits(row));
                match (waiting.next(), waiting.next()) {
                    (Some(_), Some(_)) => return Ok(None),
                    (only, _) => only.and_then(|(id, row)| Some((id.parse().ok()?, row))),
                }
            }
            CodeTarget::User(_) | CodeTarget::Nobody => None,
        };
        if let Some((id, row)) = found {
            return Ok(Some(Found::Registration(Owner::Registration(id), row)));
        }
    }
    let row = match target {
        CodeTarget::User(id) => tx.live_user(id)?,
        CodeTarget::Anybody => tx.user_of(email)?,
        CodeTarget::Registration(_) | CodeTarget::Nobody => None,
    };
    let fits = |row: &UserRow| {
        row.user.status == UserStatus::Active
            && match purpose {
                CodePurpose::EmailVerification => row.user.email_verified_at.is_none(),
                CodePurpose::FirstTimeSetup => row.password.is_none(),
                _ => true,
            }
    };
    Ok(row.filter(fits).map(|row| Found::User(Box::new(row))))
}

/// The address that an owner has now: codes are found by it.
fn email_of(tx: &Transaction<'_>, owner: Owner) -> Result<Option<Email>, StoreError> {
    Ok(match owner {
        Owner::Registration(id) => tx.get::<RegistrationRow>(id)?.map(|row| row.email),
        Owner::User(id) => tx.live_user(id)?.map(|row| row.user.email),
    })
}

fn candidates(tx: &Transaction<'_>, query: CandidateQuery) -> Result<Vec<Candidate>, StoreError> {
    let CandidateQuery { now, which } = query;
    let mut found = Vec::new();
    for (_, row) in tx.rows::<CodeRow>()? {
        let is_meant = row.closed_at.is_none()
            && match &which {
                CandidateFilter::Link(id) => row.is_link() && row.code.id == *id,
                CandidateFilter::User { id, purpose } => {
                    !row.is_link() && row.purpose == *purpose && row.owner == Owner::User(*id)
                }
                CandidateFilter::Address { email, purposes, registration } => {
                    !row.is_link()
                        && purposes.contains(&row.purpose)
                        && registration.is_none_or(|id| row.owner == Owner::Registration(id))
                        && email_of(tx, row.owner)?.is_some_and(|found| found.key() == email)
                }
            };
        if is_meant {
            found.push(row);
        }
    }
    found.sort_by_key(|row| (row.is_over(now), Reverse(row.code.id)));
    found.truncate(Candidate::MOST);
    let mut candidates = Vec::with_capacity(found.len());
    for CodeRow { code, purpose, owner, .. } in found {
        let owner = match owner {
            Owner::User(id) => CodeOwner::User { id },
            Owner::Registration(id) => match tx.get::<RegistrationRow>(id)? {
                Some(RegistrationRow { password, .. }) => CodeOwner::Registration { id, password },
                None => continue,
            },
        };
        candidates.push(Candidate { id: code.id, purpose, form: code.form, key: code.key, owner });
    }
    Ok(candidates)
}

fn redeem(tx: &mut Transaction<'_>, command: Redeem) -> Result<Redeemed, StoreError> {
    let Redeem { now, latest_end, candidates, hit, settled, attempts, tries, budgets, effect, audit, events } =
        command;
    tx.clamp(tries.iter().chain(&budgets), now)?;
    if let Some(retry_after) = tx.used_up(&budgets, now)? {
        let is_first = tx.is_first_refusal(&budgets, now)?;
        count_wrong_guess(tx, candidates, attempts, &budgets, now)?;
        if is_first {
            tx.audit_refused(audit, now, "too_many_attempts", None)?;
        }
        return Ok(Redeemed::Exhausted { retry_after });
    }
    let hit = match hit {
        Some(id) => tx.get::<CodeRow>(id)?,
        None => None,
    };
    let fits = |row: &CodeRow| row.closed_at.is_none() && effect.fits(row.purpose, row.code.form);
    if let Some(row) = hit.filter(fits) {
        let is_over = row.is_over(now) || row.ends_after(latest_end);
        if is_over && row.wrong_tries < attempts {
            return Ok(Redeemed::Expired);
        }
        if row.is_live(now, attempts) && may_redeem(tx, &row, now)? {
            if !settled && is_ambiguous(tx, &row, now)? {
                return Ok(Redeemed::Ambiguous);
            }
            let (user, happened) = spend(tx, row, effect, now)?;
            tx.owe_events(&events, happened, user.id, now)?;
            tx.audit_done(audit, now, Some(user.id))?;
            return Ok(Redeemed::Redeemed(Box::new(user)));
        }
    }
    count_wrong_guess(tx, candidates, attempts, &budgets, now)?;
    if tries.is_empty() && budgets.is_empty() {
        return Ok(Redeemed::Wrong);
    }
    let mut waits = Vec::new();
    for rule in &tries {
        waits.extend(tx.used_up([rule], now)?);
    }
    if let Some(retry_after) = waits.iter().max().filter(|_| waits.len() == tries.len()) {
        tx.audit_refused(audit, now, "too_many_attempts", None)?;
        return Ok(Redeemed::Exhausted { retry_after: *retry_after });
    }
    for rule in &tries {
        tx.count(rule, now)?;
    }
    tx.audit_refused(audit, now, "invalid_code", None)?;
    Ok(Redeemed::Wrong)
}

fn count_wrong_guess(
    tx: &mut Transaction<'_>,
    candidates: Vec<CodeId>,
    attempts: u32,
    budgets: &[ThrottleRule],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    for id in candidates {
        if let Some(mut row) = tx.get::<CodeRow>(id)?.filter(|row| row.is_live(now, attempts)) {
            row.wrong_tries += 1;
            tx.put(id, &row)?;
        }
    }
    for rule in budgets {
        tx.count(rule, now)?;
    }
    Ok(())
}

/// Whether the owner of a code still is what it was asked for.
fn may_redeem(tx: &Transaction<'_>, code: &CodeRow, now: OffsetDateTime) -> Result<bool, StoreError> {
    Ok(match code.owner {
        Owner::User(id) => {
            let other = match &code.new_email {
                Some(email) => tx.user_of(email.key())?,
                None => None,
            };
            let is_there = if code.is_undo() {
                let returns = |row: &UserRow| row.deleted.is_none_or(|deleted| deleted.is_restorable(now));
                tx.get::<UserRow>(id)?.is_some_and(|row| returns(&row))
            } else {
                tx.active_user(id)?.is_some()
            };
            is_there && other.is_none_or(|other| other.user.id == id)
        }
        Owner::Registration(id) => match tx.get::<RegistrationRow>(id)? {
            Some(row) => row.expires_at > now && tx.user_of(row.email.key())?.is_none(),
            None => false,
        },
    })
}

/// Whether another registration of the same address is not over.
fn is_ambiguous(tx: &Transaction<'_>, hit: &CodeRow, now: OffsetDateTime) -> Result<bool, StoreError> {
    let Owner::Registration(id) = hit.owner else { return Ok(false) };
    let Some(own) = tx.get::<RegistrationRow>(id)? else { return Ok(false) };
    let id = id.to_string();
    Ok(tx
        .rows::<RegistrationRow>()?
        .into_iter()
        .any(|(other, row)| other != id && row.expires_at > now && row.email.key() == own.email.key()))
}

fn spend(
    tx: &mut Transaction<'_>,
    row: CodeRow,
    effect: RedeemEffect,
    now: OffsetDateTime,
) -> Result<(User, Happened), StoreError> {
    let CodeRow { code, owner, ref new_email, .. } = row;
    let new_email = new_email.clone();
    tx.put(code.id, &CodeRow { closed_at: Some(now), ..row })?;
    let id = match owner {
        Owner::User(id) => id,
        Owner::Registration(_) => {
            return match effect {
                RedeemEffect::Verify { user_id, welcome } => activate(tx, owner, user_id, None, welcome, now),
                RedeemEffect::SetPassword { user_id, welcome, password } => {
                    activate(tx, owner, user_id, Some(password), welcome, now)
                }
                RedeemEffect::ChangeEmail { .. } | RedeemEffect::UndoEmailChange { .. } => {
                    Err(corrupt("code", &code.id))
                }
            };
        }
    };
    let mut row = tx.get::<UserRow>(id)?.ok_or_else(|| corrupt("user", &id))?;
    let before = row.user.clone();
    row.user.updated_at = now;
    let email_verified = row.user.email_verified_at.is_none();
    row.user.email_verified_at = Some(row.user.email_verified_at.unwrap_or(now));
    let happened = match effect {
        RedeemEffect::Verify { user_id: _, welcome: _ } => {
            if email_verified {
                tx.put(id, &row)?;
            } else {
                row.user = before;
            }
            return Ok((row.user, Happened { email_verified, ..Happened::default() }));
        }
        RedeemEffect::SetPassword { user_id: _, welcome: _, password } => {
            let NewPassword { hash, session, notice } = password;
            row.password = Some(hash);
            row.version = row.version.next();
            tx.put(id, &row)?;
            tx.end_everything_of(id, None, now)?;
            tx.owe_mail(notice, Receiver::user(&row.user), None, now)?;
            let opened = session.as_ref().map(|session| session.id);
            if let Some(session) = session {
                tx.open_session(session, id, row.version, now)?;
            }
            Happened {
                email_verified,
                password_changed: true,
                signed_in: opened.is_some(),
                session: opened,
                ..Happened::default()
            }
        }
        RedeemEffect::ChangeEmail { undo, undo_mail } => {
            let new_email = new_email.ok_or_else(|| corrupt("code", &code.id))?;
            let (undone, ends) = undos_of(tx, owner, &new_email, now)?;
            change_email(&mut row, new_email, now);
            tx.put(id, &row)?;
            tx.void_codes_of(owner, now, |row| !row.is_undo())?;
            if let Some(from) = undone {
                tx.end_undos_of(id, from, now)?;
            } else {
                let undo = undo.ending_after(ends);
                tx.owe_mail(undo_mail, Receiver::user(&before), Some(undo.id), now)?;
                let link = CodeRow::new(undo, CodePurpose::ChangeEmail, owner);
                tx.put(undo.id, &CodeRow { new_email: Some(before.email), ..link })?;
            }
            Happened { email_changed: true, ..Happened::default() }
        }
        RedeemEffect::UndoEmailChange { reset, reset_mail } => {
            change_email(&mut row, new_email.ok_or_else(|| corrupt("code", &code.id))?, now);
            row.password = None;
            row.version = row.version.next();
            let user_restored = row.deleted.take().is_some();
            tx.put(id, &row)?;
            tx.end_everything_of(id, None, now)?;
            tx.end_undos_of(id, code.dies_at, now)?;
            tx.owe_mail(reset_mail, Receiver::user(&row.user), Some(reset.id), now)?;
            tx.put(reset.id, &CodeRow::new(reset, CodePurpose::ResetPassword, owner))?;
            Happened { email_changed: true, sessions_ended: true, user_restored, ..Happened::default() }
        }
    };
    let user = tx.get::<UserRow>(id)?.ok_or_else(|| corrupt("user", &id))?.user;
    Ok((user, happened))
}

/// The open links by which a user undoes changes of address: the end of the oldest that is not over and gives this
/// address, and the ends of all.
fn undos_of(
    tx: &Transaction<'_>,
    owner: Owner,
    new: &Email,
    now: OffsetDateTime,
) -> Result<(Option<OffsetDateTime>, Vec<OffsetDateTime>), StoreError> {
    let (mut undone, mut ends) = (None, Vec::new());
    for (_, row) in tx.rows::<CodeRow>()? {
        if row.owner != owner || !row.is_undo() || row.closed_at.is_some() {
            continue;
        }
        let end = row.code.dies_at;
        ends.push(end);
        if !row.is_over(now) && row.new_email.as_ref().is_some_and(|email| email.is_spelt_as(new)) {
            undone = Some(undone.map_or(end, |oldest: OffsetDateTime| oldest.min(end)));
        }
    }
    Ok((undone, ends))
}

fn change_email(row: &mut UserRow, email: Email, now: OffsetDateTime) {
    row.user.email = email;
    row.user.email_verified_at = Some(now);
}

fn corrupt(table: &'static str, row: &impl ToString) -> StoreError {
    StoreError::Corrupt { table, column: "row", row: row.to_string() }
}

/// A registration becomes a user, and every registration of the address is gone with its codes.
fn activate(
    tx: &mut Transaction<'_>,
    owner: Owner,
    id: UserId,
    password: Option<NewPassword>,
    welcome: Option<MailDraft>,
    now: OffsetDateTime,
) -> Result<(User, Happened), StoreError> {
    let Owner::Registration(registration) = owner else { return Err(corrupt("code", &id)) };
    let row =
        tx.get::<RegistrationRow>(registration)?.ok_or_else(|| corrupt("registration", &registration))?;
    let RegistrationRow { email, password: registered, username, locale, profile, expires_at: _ } = row;
    let (hash, session) = match password {
        Some(NewPassword { hash, session, notice: _ }) => (hash, session),
        None => (registered, None),
    };
    let user = User {
        id,
        email,
        email_verified_at: Some(now),
        username,
        roles: Roles::from([Role::user()]),
        status: UserStatus::Active,
        locale,
        profile,
        created_at: now,
        updated_at: now,
        last_login_at: None,
    };
    tx.put(id, &UserRow::new(user.clone(), Some(hash)))?;
    if let Some(welcome) = welcome {
        tx.owe_mail(welcome, Receiver::user(&user), None, now)?;
    }
    tx.remove_registrations(usize::MAX, |row| row.email.key() == user.email.key())?;
    let opened = session.as_ref().map(|session| session.id);
    if let Some(session) = session {
        tx.open_session(session, id, PasswordVersion::FIRST, now)?;
    }
    let happened = Happened {
        user_registered: true,
        email_verified: true,
        signed_in: opened.is_some(),
        session: opened,
        ..Happened::default()
    };
    let user = tx.get::<UserRow>(id)?.map_or(user, |row| row.user);
    Ok((user, happened))
}
