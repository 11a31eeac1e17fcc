//! Codes and links.
//!
//! A command locks in one order: limits, then the owner of the code, then codes.

use async_trait::async_trait;
use sqlx::QueryBuilder;
use time::OffsetDateTime;
use usermgr_core::domain::code::{CodeForm, CodePurpose};
use usermgr_core::domain::email::{Email, EmailKey};
use usermgr_core::domain::id::{CodeId, RegistrationId, UserId};
use usermgr_core::domain::password::{PasswordHash, PasswordVersion};
use usermgr_core::domain::role::{Role, Roles};
use usermgr_core::domain::secret::SecretKeyId;
use usermgr_core::domain::user::{User, UserStatus};
use usermgr_core::port::store::account::{Credentials, NewPassword};
use usermgr_core::port::store::code::{
    Candidate, CandidateFilter, CandidateQuery, CodeOwner, CodeRequested, CodeStore, CodeTarget, NewCode,
    Redeem, RedeemEffect, Redeemed, RequestCode,
};
use usermgr_core::port::store::{Happened, MailDraft, StoreError};
use uuid::Uuid;

use super::super::Db;
use super::account::{insert_user, locked_deleted_user, locked_user, set_password, user_of};
use super::event::owe_events;
use super::rows::{corrupt, locale, profile, username};
use super::writing::{
    Limits, Receiver, audit_done, audit_refused, end_codes_of, end_everything_of, end_undos_of, open_session,
    owe_mail,
};
use super::{Store, Ts, Tx, fault, from_ts, reread, transact, ts};

#[async_trait]
impl CodeStore for Store {
    async fn request_code(&self, command: RequestCode) -> Result<CodeRequested, StoreError> {
        transact!(self.request_code_once(command))
    }

    async fn candidates(&self, query: CandidateQuery) -> Result<Vec<Candidate>, StoreError> {
        reread!(self.candidates_once(query))
    }

    async fn redeem(&self, command: Redeem) -> Result<Redeemed, StoreError> {
        let outcome = transact!(self.redeem_once(command))?;
        if matches!(outcome, Redeemed::Wrong | Redeemed::Exhausted { .. })
            && let Some(outside) = self.end_host_transaction().await
        {
            return outside.redeem(Redeem { hit: None, ..command }).await;
        }
        Ok(outcome)
    }
}

impl Store {
    async fn candidates_once(&self, query: CandidateQuery) -> Result<Vec<Candidate>, StoreError> {
        let CandidateQuery { now, which } = query;
        let rows: Vec<CandidateRow> = match which {
            CandidateFilter::Link(id) => {
                sqlx::query_as(
                    "SELECT c.id, c.purpose, c.digits, c.secret_key, c.registration_id, c.user_id, r.password \
                     FROM usermgr_codes c LEFT JOIN usermgr_registrations r ON r.id = c.registration_id \
                     WHERE c.id = $1 AND c.digits = 0 AND c.closed_at IS NULL",
                )
                .bind(id.as_uuid())
                .fetch_all(&mut *self.reader().await?)
                .await
            }
            CandidateFilter::User { id, purpose } => {
                sqlx::query_as(
                    "SELECT c.id, c.purpose, c.digits, c.secret_key, c.registration_id, c.user_id, \
                     CAST(NULL AS TEXT) AS password FROM usermgr_codes c \
                     WHERE c.user_id = $1 AND c.purpose = $2 AND c.digits > 0 AND c.closed_at IS NULL \
                     ORDER BY CASE WHEN c.dies_at > $3 AND (c.expires_at IS NULL OR c.expires_at > $3) \
                     THEN 0 ELSE 1 END, c.id DESC LIMIT $4",
                )
                .bind(id.as_uuid())
                .bind(purpose.as_str())
                .bind(ts(now))
                .bind(i64::try_from(Candidate::MOST).unwrap_or(i64::MAX))
                .fetch_all(&mut *self.reader().await?)
                .await
            }
            CandidateFilter::Address { email, purposes, registration } => {
                // A list of up to four purposes, the first repeated: one statement for all lengths.
                let name = |index: usize| purposes.get(index).or(purposes.first()).map(|purpose| purpose.as_str());
                sqlx::query_as(
                    "SELECT c.id, c.purpose, c.digits, c.secret_key, c.registration_id, c.user_id, r.password \
                     FROM usermgr_codes c LEFT JOIN usermgr_registrations r ON r.id = c.registration_id \
                     WHERE c.email_key = $1 AND c.purpose IN ($2, $3, $4, $5, $6) AND c.digits > 0 \
                     AND c.closed_at IS NULL AND ($7 IS NULL OR c.registration_id = $7) \
                     ORDER BY CASE WHEN c.dies_at > $8 AND (c.expires_at IS NULL OR c.expires_at > $8) \
                     THEN 0 ELSE 1 END, c.id DESC LIMIT $9",
                )
                .bind(email.as_str())
                .bind(name(0))
                .bind(name(1))
                .bind(name(2))
                .bind(name(3))
                .bind(name(4))
                .bind(registration.map(|id| id.as_uuid()))
                .bind(ts(now))
                .bind(i64::try_from(Candidate::MOST).unwrap_or(i64::MAX))
                .fetch_all(&mut *self.reader().await?)
                .await
            }
        }
        .map_err(fault)?;
        rows.into_iter().map(CandidateRow::candidate).collect()
    }

    async fn request_code_once(&self, command: RequestCode) -> Result<CodeRequested, StoreError> {
        let RequestCode { now, email, purpose, target, mut code, mail, throttle, tries, audit } = command;
        let mut tx = self.begin().await?;
        let mut limits = Limits::lock(&mut tx, throttle.iter().chain(&tries), now).await?;
        if code_exists(&mut tx, code.id).await? {
            return Ok(CodeRequested::Queued);
        }
        if let Some(retry_after) = limits.used_up(&throttle) {
            limits.leave(tx).await?;
            return Ok(CodeRequested::Throttled { retry_after });
        }
        for rule in &throttle {
            limits.count(rule);
        }
        if let Some(tries) = &tries {
            limits.reset(tries);
        }
        limits.write(&mut tx).await?;
        let owner = owner(&mut tx, &email, purpose, target, now).await?;
        let id = owner.as_ref().map(Owner::id);
        // For nobody the same statements are made, with a code that is void from the beginning: time tells nothing.
        void_older(&mut tx, id.unwrap_or(CodeOwnerId::NOBODY), purpose, code.form, now).await?;
        let Some(owner) = owner else {
            let of_mail = NewCode { id: CodeId::from_uuid(mail.id.as_uuid()), ..code };
            for code in [code, of_mail] {
                insert_void_code(&mut tx, &code, purpose, None, &email, now).await?;
            }
            audit_refused(&mut tx, audit, now, "nobody", None).await?;
            tx.commit().await.map_err(fault)?;
            self.wake();
            return Ok(CodeRequested::Nobody);
        };
        let (key, receiver, subject) = match &owner {
            Owner::Registration(row) => {
                code.dies_at = code.dies_at.min(row.expires_at);
                (row.email.key(), row.receiver(), None)
            }
            Owner::User(user) => (user.email.key(), Receiver::user(user), Some(user.id)),
        };
        insert_code(&mut tx, &code, purpose, owner.id(), key).await?;
        owe_mail(&mut tx, mail, &receiver, Some(code.id), now).await?;
        audit_done(&mut tx, audit, now, subject).await?;
        tx.commit().await.map_err(fault)?;
        self.wake();
        Ok(CodeRequested::Queued)
    }

    async fn redeem_once(&self, command: Redeem) -> Result<Redeemed, StoreError> {
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
        let mut tx = self.begin().await?;
        let mut limits = Limits::lock(&mut tx, tries.iter().chain(&budgets), now).await?;
        if let Some(retry_after) = limits.used_up(&budgets) {
            let is_first = limits.is_first_refusal(&budgets);
            count_wrong_guess(&mut tx, &candidates, attempts, now).await?;
            for rule in &budgets {
                limits.count(rule);
            }
            limits.write(&mut tx).await?;
            if is_first {
                audit_refused(&mut tx, audit, now, "too_many_attempts", None).await?;
            }
            tx.commit().await.map_err(fault)?;
            return Ok(Redeemed::Exhausted { retry_after });
        }
        if let Some((owner, code)) = open_code(&mut tx, hit, attempts, now)
            .await?
            .filter(|(_, code)| effect.fits(code.purpose, code.form))
        {
            let tried_out = code.wrong_tries >= i64::from(attempts);
            let is_over = code.is_over(now, latest_end);
            if is_over && !tried_out {
                limits.leave(tx).await?;
                return Ok(Redeemed::Expired);
            }
            if let Some(owner) = owner.filter(|_| !is_over && !tried_out) {
                if !settled && is_ambiguous(&mut tx, &owner, now).await? {
                    limits.leave(tx).await?;
                    return Ok(Redeemed::Ambiguous);
                }
                if let Some((user, happened)) = apply(&mut tx, owner, code, effect, now).await? {
                    owe_events(&mut tx, &events, happened, user.id, now).await?;
                    audit_done(&mut tx, audit, now, Some(user.id)).await?;
                    tx.commit().await.map_err(fault)?;
                    self.wake();
                    return Ok(Redeemed::Redeemed(Box::new(user)));
                }
            }
        }
        count_wrong_guess(&mut tx, &candidates, attempts, now).await?;
        if tries.is_empty() && budgets.is_empty() {
            tx.commit().await.map_err(fault)?;
            return Ok(Redeemed::Wrong);
        }
        for rule in &budgets {
            limits.count(rule);
        }
        let waits: Vec<_> = tries.iter().filter_map(|rule| limits.used_up([rule])).collect();
        let used_up = waits.iter().max().filter(|_| waits.len() == tries.len());
        let outcome = if let Some(retry_after) = used_up {
            limits.write(&mut tx).await?;
            audit_refused(&mut tx, audit, now, "too_many_attempts", None).await?;
            Redeemed::Exhausted { retry_after: *retry_after }
        } else {
            for rule in &tries {
                limits.count(rule);
            }
            limits.write(&mut tx).await?;
            audit_refused(&mut tx, audit, now, "invalid_code", None).await?;
            Redeemed::Wrong
        };
        tx.commit().await.map_err(fault)?;
        Ok(outcome)
    }
}

#[derive(sqlx::FromRow)]
struct CandidateRow {
    id: Uuid,
    purpose: String,
    digits: i64,
    secret_key: Vec<u8>,
    registration_id: Option<Uuid>,
    user_id: Option<Uuid>,
    password: Option<String>,
}

impl CandidateRow {
    fn candidate(self) -> Result<Candidate, StoreError> {
        let Self { id, purpose, digits, secret_key, registration_id, user_id, password } = self;
        let wrong = |column| corrupt("usermgr_codes", column, id);
        let (purpose, form, key) = code_parts(id, &purpose, digits, &secret_key)?;
        let owner = match (registration_id, password, user_id) {
            (Some(registration), Some(password), _) => CodeOwner::Registration {
                id: RegistrationId::from_uuid(registration),
                password: PasswordHash::new(password),
            },
            (_, _, Some(user)) => CodeOwner::User { id: UserId::from_uuid(user) },
            _ => return Err(wrong("user_id")),
        };
        Ok(Candidate { id: CodeId::from_uuid(id), purpose, form, key, owner })
    }
}

/// What a code's row says of its secret.
pub(super) fn code_parts(
    id: Uuid,
    purpose: &str,
    digits: i64,
    secret_key: &[u8],
) -> Result<(CodePurpose, CodeForm, SecretKeyId), StoreError> {
    let wrong = |column| corrupt("usermgr_codes", column, id);
    Ok((
        purpose.parse().map_err(|_| wrong("purpose"))?,
        u8::try_from(digits).ok().and_then(CodeForm::from_digits).ok_or_else(|| wrong("digits"))?,
        SecretKeyId::from_bytes(secret_key.try_into().map_err(|_| wrong("secret_key"))?),
    ))
}

/// Whose a code is, by identifier.
#[derive(Clone, Copy)]
pub(super) enum CodeOwnerId {
    Registration(RegistrationId),
    User(UserId),
}

impl CodeOwnerId {
    /// A user that there is not: what is asked of it finds nothing, in the time of one that there is.
    const NOBODY: Self = Self::User(NOBODY);
}

const NOBODY: UserId = UserId::from_uuid(Uuid::nil());

/// Whose a code is, read and locked.
enum Owner {
    Registration(Box<Registration>),
    User(Box<User>),
}

struct Registration {
    id: RegistrationId,
    email: Email,
    password: PasswordHash,
    username: Option<usermgr_core::domain::user::Username>,
    locale: Option<usermgr_core::domain::user::Locale>,
    profile: Option<usermgr_core::domain::profile::Profile>,
    expires_at: OffsetDateTime,
}

impl Registration {
    fn receiver(&self) -> Receiver<'_> {
        Receiver {
            user: None,
            email: &self.email,
            locale: self.locale.as_ref(),
            // Nobody has proven the address: a stranger's words open no mail.
            username: None,
        }
    }
}

impl Owner {
    fn id(&self) -> CodeOwnerId {
        match self {
            Self::Registration(registration) => CodeOwnerId::Registration(registration.id),
            Self::User(user) => CodeOwnerId::User(user.id),
        }
    }
}

/// Inserts a code.
pub(super) async fn insert_code(
    tx: &mut Tx,
    code: &NewCode,
    purpose: CodePurpose,
    owner: CodeOwnerId,
    email: &EmailKey,
) -> Result<(), StoreError> {
    insert(tx, code, purpose, Some(owner), email, None).await
}

/// Inserts a code that is void from the beginning and that the next upkeep removes, so that a request takes as long
/// whether or not it is for somebody.
pub(super) async fn insert_void_code(
    tx: &mut Tx,
    code: &NewCode,
    purpose: CodePurpose,
    registration: Option<RegistrationId>,
    email: &EmailKey,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let code = NewCode { dies_at: now, ..*code };
    insert(tx, &code, purpose, registration.map(CodeOwnerId::Registration), email, Some(now)).await
}

async fn insert(
    tx: &mut Tx,
    code: &NewCode,
    purpose: CodePurpose,
    owner: Option<CodeOwnerId>,
    email: &EmailKey,
    closed_at: Option<OffsetDateTime>,
) -> Result<(), StoreError> {
    let (registration, user) = match owner {
        Some(CodeOwnerId::Registration(id)) => (Some(id.as_uuid()), None),
        Some(CodeOwnerId::User(id)) => (None, Some(id.as_uuid())),
        None => (None, None),
    };
    sqlx::query(
        "INSERT INTO usermgr_codes \
         (id, registration_id, user_id, email_key, purpose, digits, secret_key, dies_at, wrong_tries, closed_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9)",
    )
    .bind(code.id.as_uuid())
    .bind(registration)
    .bind(user)
    .bind(email.as_str())
    .bind(purpose.as_str())
    .bind(i64::from(code.form.digits()))
    .bind(code.key.as_bytes().as_slice())
    .bind(ts(code.dies_at))
    .bind(closed_at.map(ts))
    .execute(&mut **tx)
    .await
    .map_err(fault)?;
    Ok(())
}

/// Whether a code was issued before.
pub(super) async fn code_exists(tx: &mut Tx, id: CodeId) -> Result<bool, StoreError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT CAST(1 AS BIGINT) FROM usermgr_codes WHERE id = $1")
        .bind(id.as_uuid())
        .fetch_optional(&mut **tx)
        .await
        .map_err(fault)?;
    Ok(found.is_some())
}

/// Has a code name the address that it gives its user.
pub(super) async fn name_new_email(tx: &mut Tx, code: CodeId, email: &Email) -> Result<(), StoreError> {
    sqlx::query("UPDATE usermgr_codes SET new_email = $2 WHERE id = $1")
        .bind(code.as_uuid())
        .bind(email.as_str())
        .execute(&mut **tx)
        .await
        .map_err(fault)?;
    Ok(())
}

/// Voids the open codes of the same owner, purpose and kind of form.
pub(super) async fn void_older(
    tx: &mut Tx,
    owner: CodeOwnerId,
    purpose: CodePurpose,
    form: CodeForm,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    // No index but the owner's serves: without statistics PostgreSQL takes those that are open for few, and reads them all.
    macro_rules! void {
        ($owner:literal) => {
            concat!(
                "UPDATE usermgr_codes SET closed_at = $4 WHERE ",
                $owner,
                " = $1 AND CASE WHEN closed_at IS NOT NULL OR purpose <> $2 THEN NULL WHEN digits = 0 THEN 1 ELSE 0 END = $3"
            )
        };
    }
    let (statement, id) = match owner {
        CodeOwnerId::Registration(id) => (void!("registration_id"), id.as_uuid()),
        CodeOwnerId::User(id) => (void!("user_id"), id.as_uuid()),
    };
    sqlx::query(statement)
        .bind(id)
        .bind(purpose.as_str())
        .bind(i64::from(form == CodeForm::Link))
        .bind(ts(now))
        .execute(&mut **tx)
        .await
        .map_err(fault)?;
    Ok(())
}

/// Finds and locks the owner of the code that is asked for. Each purpose makes the same statements whether or not there is
/// an owner.
async fn owner(
    tx: &mut Tx,
    email: &EmailKey,
    purpose: CodePurpose,
    target: CodeTarget,
    now: OffsetDateTime,
) -> Result<Option<Owner>, StoreError> {
    let registration = match purpose {
        CodePurpose::EmailVerification => waiting_registration(tx, email, target, now).await?,
        _ => Waiting::None,
    };
    let fits = |found: &Credentials| {
        found.user.status == UserStatus::Active
            && match purpose {
                CodePurpose::EmailVerification => found.user.email_verified_at.is_none(),
                CodePurpose::FirstTimeSetup => found.password.is_none(),
                _ => true,
            }
    };
    // Lock only a user that fits: the lock is written to the row, and that takes time.
    let by_email = user_of(&mut **tx, email).await?.filter(fits).map(|found| found.user.id);
    let id = match target {
        CodeTarget::User(id) => Some(id),
        CodeTarget::Anybody => by_email,
        CodeTarget::Registration(_) | CodeTarget::Nobody => None,
    };
    let found = locked_user(tx, id.unwrap_or(NOBODY)).await?;
    match registration {
        Waiting::One(registration) => return Ok(Some(Owner::Registration(registration))),
        Waiting::Several => return Ok(None),
        Waiting::None => {}
    }
    Ok(found.filter(fits).map(|found| Owner::User(Box::new(found.user))))
}

/// Which registrations a code of verification may be for.
enum Waiting {
    None,
    One(Box<Registration>),
    /// Nobody said which.
    Several,
}

async fn waiting_registration(
    tx: &mut Tx,
    email: &EmailKey,
    target: CodeTarget,
    now: OffsetDateTime,
) -> Result<Waiting, StoreError> {
    let of_address: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM usermgr_registrations WHERE email_key = $1 AND expires_at > $2 ORDER BY id DESC LIMIT 2",
    )
    .bind(email.as_str())
    .bind(ts(now))
    .fetch_all(&mut **tx)
    .await
    .map_err(fault)?;
    let id = match (target, of_address.as_slice()) {
        (CodeTarget::Registration(id), _) => Some(id),
        (CodeTarget::Anybody, [only]) => Some(RegistrationId::from_uuid(*only)),
        _ => None,
    };
    let found = locked_registration(tx, id.unwrap_or(RegistrationId::from_uuid(Uuid::nil()))).await?;
    Ok(match found.filter(|found| found.expires_at > now && found.email.key() == email) {
        Some(found) => Waiting::One(Box::new(found)),
        None if of_address.len() > 1 && matches!(target, CodeTarget::Anybody) => Waiting::Several,
        None => Waiting::None,
    })
}

async fn locked_registration(tx: &mut Tx, id: RegistrationId) -> Result<Option<Registration>, StoreError> {
    type Row = (String, String, Option<String>, Option<String>, Option<String>, Ts);
    let row: Option<Row> = sqlx::query_as(locking!(
        "SELECT email, password, username, locale, profile, expires_at FROM usermgr_registrations WHERE id = $1"
    ))
    .bind(id.as_uuid())
    .fetch_optional(&mut **tx)
    .await
    .map_err(fault)?;
    let Some((email, password, name, language, kept, expires_at)) = row else { return Ok(None) };
    let wrong = |column| corrupt("usermgr_registrations", column, id);
    Ok(Some(Registration {
        id,
        email: Email::parse(&email).map_err(|_| wrong("email"))?,
        password: PasswordHash::new(password),
        username: username(name.as_deref()).map_err(|()| wrong("username"))?,
        locale: locale(language.as_deref()).map_err(|()| wrong("locale"))?,
        profile: profile(kept).map_err(|()| wrong("profile"))?,
        expires_at: from_ts(expires_at),
    }))
}

/// An open code, locked.
struct OpenCode {
    id: CodeId,
    purpose: CodePurpose,
    form: CodeForm,
    new_email: Option<Email>,
    dies_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
    wrong_tries: i64,
    /// Whether its user is deleted and comes back by it.
    returns: bool,
}

impl OpenCode {
    fn is_over(&self, now: OffsetDateTime, latest_end: OffsetDateTime) -> bool {
        self.dies_at <= now || self.expires_at.is_some_and(|at| at <= now || at > latest_end)
    }
}

type CodeRow = (Ts, Option<Ts>, i64, String, i64, Vec<u8>, Option<String>);

/// The open code that a guess hit, with its owner if the owner still may redeem it; both locked, the owner first.
async fn open_code(
    tx: &mut Tx,
    hit: Option<CodeId>,
    attempts: u32,
    now: OffsetDateTime,
) -> Result<Option<(Option<Owner>, OpenCode)>, StoreError> {
    // A wrong guess reads as much as a right guess at a dead code, so the time does not tell them apart.
    let id = hit.unwrap_or(CodeId::from_uuid(Uuid::nil()));
    let owner: Option<(Option<Uuid>, Option<Uuid>, bool)> = sqlx::query_as(
        "SELECT registration_id, user_id, purpose = 'change_email' AND digits = 0 FROM usermgr_codes \
         WHERE id = $1 AND closed_at IS NULL AND wrong_tries < $2",
    )
    .bind(id.as_uuid())
    .bind(i64::from(attempts))
    .fetch_optional(&mut **tx)
    .await
    .map_err(fault)?;
    if owner.is_none() {
        return Ok(None);
    }
    let mut returns = false;
    let owner = match owner {
        Some((Some(registration), _, _)) => {
            let found = locked_registration(tx, RegistrationId::from_uuid(registration)).await?;
            match found.filter(|found| found.expires_at > now) {
                Some(found) if user_of(&mut **tx, found.email.key()).await?.is_none() => {
                    Some(Owner::Registration(Box::new(found)))
                }
                _ => None,
            }
        }
        Some((None, Some(user), is_undo)) => {
            let user = UserId::from_uuid(user);
            let mut found = locked_user(tx, user)
                .await?
                .filter(|found| is_undo || found.user.status == UserStatus::Active);
            if is_undo && found.is_none() {
                found = locked_deleted_user(tx, user, now).await?;
                returns = found.is_some();
            }
            found.map(|found| Owner::User(Box::new(found.user)))
        }
        Some((None, None, _)) | None => None,
    };
    let row: Option<CodeRow> = sqlx::query_as(locking!(
        "SELECT dies_at, expires_at, wrong_tries, purpose, digits, secret_key, new_email FROM usermgr_codes \
         WHERE id = $1 AND closed_at IS NULL"
    ))
    .bind(id.as_uuid())
    .fetch_optional(&mut **tx)
    .await
    .map_err(fault)?;
    let Some((dies_at, expires_at, wrong_tries, purpose, digits, secret_key, new_email)) = row else {
        return Ok(None);
    };
    let (purpose, form, _) = code_parts(id.as_uuid(), &purpose, digits, &secret_key)?;
    let new_email = new_email.as_deref().map(Email::parse).transpose();
    let new_email = new_email.map_err(|_| corrupt("usermgr_codes", "new_email", id))?;
    let owner = match (owner, &new_email) {
        (Some(Owner::User(user)), Some(email)) => user_of(&mut **tx, email.key())
            .await?
            .is_none_or(|other| other.user.id == user.id)
            .then_some(Owner::User(user)),
        (owner, _) => owner,
    };
    let (dies_at, expires_at) = (from_ts(dies_at), expires_at.map(from_ts));
    let code = OpenCode { id, purpose, form, new_email, dies_at, expires_at, wrong_tries, returns };
    Ok(Some((owner, code)))
}

/// Whether another registration of the same address is not over.
async fn is_ambiguous(tx: &mut Tx, owner: &Owner, now: OffsetDateTime) -> Result<bool, StoreError> {
    let Owner::Registration(registration) = owner else { return Ok(false) };
    let other: Option<i64> = sqlx::query_scalar(
        "SELECT CAST(1 AS BIGINT) FROM usermgr_registrations \
         WHERE email_key = $1 AND id <> $2 AND expires_at > $3 LIMIT 1",
    )
    .bind(registration.email.key().as_str())
    .bind(registration.id.as_uuid())
    .bind(ts(now))
    .fetch_optional(&mut **tx)
    .await
    .map_err(fault)?;
    Ok(other.is_some())
}

/// Adds a wrong try to each of some codes that is live. One statement, also for no code: the work tells nothing.
async fn count_wrong_guess(
    tx: &mut Tx,
    candidates: &[CodeId],
    attempts: u32,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let mut statement = QueryBuilder::<Db>::new(
        "UPDATE usermgr_codes SET wrong_tries = wrong_tries + 1 WHERE closed_at IS NULL AND dies_at > ",
    );
    statement.push_bind(ts(now));
    statement.push(" AND (expires_at IS NULL OR expires_at > ").push_bind(ts(now));
    statement.push(") AND wrong_tries < ").push_bind(i64::from(attempts)).push(" AND id IN (");
    let mut ids = statement.separated(", ");
    if candidates.is_empty() {
        ids.push_bind(Uuid::nil());
    }
    for id in candidates {
        ids.push_bind(id.as_uuid());
    }
    statement.push(")");
    statement.build().execute(&mut **tx).await.map_err(fault)?;
    Ok(())
}

/// Spends a code and applies its effect. `None` when the address got a user at this very moment.
async fn apply(
    tx: &mut Tx,
    owner: Owner,
    code: OpenCode,
    effect: RedeemEffect,
    now: OffsetDateTime,
) -> Result<Option<(User, Happened)>, StoreError> {
    let OpenCode { id: code, new_email, dies_at, returns, .. } = code;
    let applied = match (owner, effect) {
        (Owner::Registration(registration), RedeemEffect::Verify { user_id, welcome }) => {
            activate(tx, *registration, user_id, None, welcome, now).await?
        }
        (Owner::Registration(registration), RedeemEffect::SetPassword { user_id, welcome, password }) => {
            activate(tx, *registration, user_id, Some(password), welcome, now).await?
        }
        (Owner::User(user), RedeemEffect::Verify { user_id: _, welcome: _ }) => {
            close(tx, code, now).await?;
            let email_verified = prove_address(tx, &user, now).await?;
            Some((user.id, Happened { email_verified, ..Happened::default() }))
        }
        (Owner::User(user), RedeemEffect::SetPassword { user_id: _, welcome: _, password }) => {
            close(tx, code, now).await?;
            Some((user.id, reset(tx, &user, password, now).await?))
        }
        (Owner::User(user), RedeemEffect::ChangeEmail { undo, undo_mail }) => {
            let new_email = new_email.ok_or_else(|| corrupt("usermgr_codes", "new_email", code))?;
            let (undone, ends) = undos_of(tx, user.id, &new_email, now).await?;
            change_email(tx, user.id, &new_email, now).await?;
            end_codes_of(tx, user.id, now).await?;
            if undone.is_some() {
                end_undos_of(tx, user.id, undone, now).await?;
            } else {
                let (undo, owner) = (undo.ending_after(ends), CodeOwnerId::User(user.id));
                insert_code(tx, &undo, CodePurpose::ChangeEmail, owner, user.email.key()).await?;
                name_new_email(tx, undo.id, &user.email).await?;
                owe_mail(tx, undo_mail, &Receiver::user(&user), Some(undo.id), now).await?;
            }
            Some((user.id, Happened { email_changed: true, ..Happened::default() }))
        }
        (Owner::User(user), RedeemEffect::UndoEmailChange { reset, reset_mail }) => {
            let old_email = new_email.ok_or_else(|| corrupt("usermgr_codes", "new_email", code))?;
            change_email(tx, user.id, &old_email, now).await?;
            sqlx::query(
                "UPDATE usermgr_users SET password = NULL, password_version = password_version + 1, \
                 deleted_at = NULL, restorable_until = NULL WHERE id = $1",
            )
            .bind(user.id.as_uuid())
            .execute(&mut **tx)
            .await
            .map_err(fault)?;
            end_everything_of(tx, user.id, None, now).await?;
            end_undos_of(tx, user.id, Some(dies_at), now).await?;
            let owner = CodeOwnerId::User(user.id);
            insert_code(tx, &reset, CodePurpose::ResetPassword, owner, old_email.key()).await?;
            let to = Receiver { email: &old_email, ..Receiver::user(&user) };
            owe_mail(tx, reset_mail, &to, Some(reset.id), now).await?;
            let happened = Happened {
                email_changed: true,
                sessions_ended: true,
                user_restored: returns,
                ..Happened::default()
            };
            Some((user.id, happened))
        }
        (Owner::Registration(_), RedeemEffect::ChangeEmail { .. } | RedeemEffect::UndoEmailChange { .. }) => {
            None
        }
    };
    let Some((id, happened)) = applied else { return Ok(None) };
    let user = locked_user(tx, id).await?.ok_or_else(|| corrupt("usermgr_users", "id", id))?.user;
    Ok(Some((user, happened)))
}

/// The open links by which a user undoes changes of address: the end of the oldest that is not over and gives this
/// address, and the ends of all.
async fn undos_of(
    tx: &mut Tx,
    user: UserId,
    new: &Email,
    now: OffsetDateTime,
) -> Result<(Option<OffsetDateTime>, Vec<OffsetDateTime>), StoreError> {
    let rows: Vec<(Uuid, String, Ts, Option<Ts>)> = sqlx::query_as(
        "SELECT id, new_email, dies_at, expires_at FROM usermgr_codes \
         WHERE user_id = $1 AND closed_at IS NULL AND purpose = 'change_email' AND digits = 0 \
         AND new_email IS NOT NULL",
    )
    .bind(user.as_uuid())
    .fetch_all(&mut **tx)
    .await
    .map_err(fault)?;
    let (mut undone, mut ends) = (None, Vec::with_capacity(rows.len()));
    for (id, email, dies_at, expires_at) in rows {
        let email = Email::parse(&email).map_err(|_| corrupt("usermgr_codes", "new_email", id))?;
        let (end, expires_at) = (from_ts(dies_at), expires_at.map(from_ts));
        ends.push(end);
        let is_over = end <= now || expires_at.is_some_and(|at| at <= now);
        if !is_over && email.is_spelt_as(new) {
            undone = Some(undone.map_or(end, |oldest: OffsetDateTime| oldest.min(end)));
        }
    }
    Ok((undone, ends))
}

/// Gives a user another address.
async fn change_email(
    tx: &mut Tx,
    user: UserId,
    email: &Email,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE usermgr_users SET email = $2, email_key = $3, email_verified_at = $4, updated_at = $4 WHERE id = $1",
    )
    .bind(user.as_uuid())
    .bind(email.as_str())
    .bind(email.key().as_str())
    .bind(ts(now))
    .execute(&mut **tx)
    .await
    .map_err(fault)?;
    Ok(())
}

async fn close(tx: &mut Tx, code: CodeId, now: OffsetDateTime) -> Result<(), StoreError> {
    sqlx::query("UPDATE usermgr_codes SET closed_at = $2 WHERE id = $1")
        .bind(code.as_uuid())
        .bind(ts(now))
        .execute(&mut **tx)
        .await
        .map_err(fault)?;
    Ok(())
}

async fn prove_address(tx: &mut Tx, user: &User, now: OffsetDateTime) -> Result<bool, StoreError> {
    if user.email_verified_at.is_some() {
        return Ok(false);
    }
    sqlx::query("UPDATE usermgr_users SET email_verified_at = $2, updated_at = $2 WHERE id = $1")
        .bind(user.id.as_uuid())
        .bind(ts(now))
        .execute(&mut **tx)
        .await
        .map_err(fault)?;
    Ok(true)
}

/// A user's password is set by a code or a link.
async fn reset(
    tx: &mut Tx,
    user: &User,
    password: NewPassword,
    now: OffsetDateTime,
) -> Result<Happened, StoreError> {
    let NewPassword { hash, session, notice } = password;
    let email_verified = prove_address(tx, user, now).await?;
    let version = locked_user(tx, user.id).await?.map_or(PasswordVersion::NONE, |found| found.version).next();
    set_password(tx, user.id, &hash, version, now).await?;
    end_everything_of(tx, user.id, None, now).await?;
    owe_mail(tx, notice, &Receiver::user(user), None, now).await?;
    let opened = session.as_ref().map(|session| session.id);
    if let Some(session) = session {
        open_session(tx, session, user.id, version, now).await?;
    }
    Ok(Happened {
        email_verified,
        password_changed: true,
        signed_in: opened.is_some(),
        session: opened,
        ..Happened::default()
    })
}

/// A registration becomes a user, and every registration of the address is gone with its codes.
async fn activate(
    tx: &mut Tx,
    registration: Registration,
    id: UserId,
    password: Option<NewPassword>,
    welcome: Option<MailDraft>,
    now: OffsetDateTime,
) -> Result<Option<(UserId, Happened)>, StoreError> {
    let Registration { id: _, email, password: registered, username, locale, profile, expires_at: _ } =
        registration;
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
    if !insert_user(tx, &user, Some(&hash), PasswordVersion::FIRST).await? {
        return Ok(None);
    }
    if let Some(welcome) = welcome {
        owe_mail(tx, welcome, &Receiver::user(&user), None, now).await?;
    }
    sqlx::query("DELETE FROM usermgr_registrations WHERE email_key = $1")
        .bind(user.email.key().as_str())
        .execute(&mut **tx)
        .await
        .map_err(fault)?;
    let opened = session.as_ref().map(|session| session.id);
    if let Some(session) = session {
        open_session(tx, session, id, PasswordVersion::FIRST, now).await?;
    }
    let happened = Happened {
        user_registered: true,
        email_verified: true,
        signed_in: opened.is_some(),
        session: opened,
        ..Happened::default()
    };
    Ok(Some((id, happened)))
}
