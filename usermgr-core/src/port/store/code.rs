//! Codes and links: asked for, looked up, redeemed.

use async_trait::async_trait;
use time::{Duration, OffsetDateTime};

use super::account::NewPassword;
use super::throttle::ThrottleRule;
use super::{EventDraft, MailDraft, StoreError};
use crate::domain::audit::AuditDraft;
use crate::domain::code::{CodeForm, CodePurpose};
use crate::domain::email::EmailKey;
use crate::domain::id::{CodeId, RegistrationId, UserId};
use crate::domain::password::PasswordHash;
use crate::domain::secret::SecretKeyId;
use crate::domain::user::User;

/// Codes and links.
///
/// A code is *open* while it is neither spent nor void; it is *live* while it is open, `dies_at` and `expires_at`
/// (if it is set) lie ahead, and it has had fewer than the allowed wrong tries.
#[cfg_attr(feature = "testing", mockall::automock)]
#[async_trait]
pub trait CodeStore: Send + Sync {
    /// Issues a code or a link to whoever `target`, `email` and `purpose` name.
    ///
    /// 1. The same code id was issued before: answer `Queued`, change nothing.
    /// 2. A rule of `throttle` is used up: `Throttled`, change nothing. Else count each rule once.
    /// 3. Set `tries` (if any) to 0 with a whole window, whatever follows.
    /// 4. Find the owner. `EmailVerification`: the registration of `target`, or the only one of the address, each
    ///    only while it is not over; with [`CodeTarget::Anybody`] and no registration, an active user whose address is
    ///    not proven. Of several registrations of the address, [`CodeTarget::Anybody`] chooses none: nobody.
    ///    `FirstTimeSetup`: an active user without a password. Every other purpose: an active user.
    ///    [`CodeTarget::User`] names the user; [`CodeTarget::Anybody`] takes the user of the address;
    ///    [`CodeTarget::Nobody`] is nobody, and takes as long as the others.
    /// 5. Nobody: audit as refused (`nobody`), answer `Nobody`.
    /// 6. Void the open codes of the same owner, purpose and kind of form (digits or link), insert the new one (it
    ///    dies no later than its registration), owe the mail, audit as done, answer `Queued`.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn request_code(&self, command: RequestCode) -> Result<CodeRequested, StoreError>;

    /// The open codes that a guess is to be compared with, the live ones first, then the newest; at most
    /// [`Candidate::MOST`]. Codes that ran out lately are among them, to be told apart from wrong ones.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn candidates(&self, query: CandidateQuery) -> Result<Vec<Candidate>, StoreError>;

    /// Judges a guess, counts it, and on a hit spends the code together with its effect: one decision, one commit.
    ///
    /// 1. A rule of `budgets` is used up: the guess is refused, whether or not it is right. Add one wrong try to every
    ///    live code of `candidates`, count each rule of `budgets` once, answer `Exhausted` with the longest wait. Audit
    ///    as refused (`too_many_attempts`) when a rule that is used up stood at its limit exactly: the first
    ///    refusal of a window is audited, and no other.
    /// 2. `hit` names an open code that has had fewer than `attempts` wrong tries but ran out: `Expired`, change
    ///    nothing. The flow records it, within limits: it can be repeated at will.
    /// 3. `hit` names a live code that the effect fits ([`RedeemEffect::fits`]), its owner still is (a registration not over and its address without a user; a
    ///    user active, and nobody else with the address that the code gives; for a link that undoes a change of address
    ///    also a user who is disabled, or deleted and may come back), and:
    ///    - `settled` is false and another registration of the same address is not over, whatever became of its code:
    ///      `Ambiguous`, change nothing; the flow records it, within limits;
    ///    - else spend the code, apply the effect (see [`RedeemEffect`]), audit as done, answer `Redeemed`.
    /// 4. Anything else is a wrong guess. Without `tries` and `budgets` (a link, which cannot be guessed) answer `Wrong`
    ///    and audit nothing: the flow records it, within limits. Add one wrong try to every live code of `candidates`, and count each rule of
    ///    `budgets` once. When every rule of `tries` is used up (and there is one): answer `Exhausted`. Else count each
    ///    rule of `tries` once, answer `Wrong`. Audit either as refused (`too_many_attempts`, `invalid_code`).
    ///
    /// So a code is dead after `attempts` guesses whatever the budgets say, and the answer to a wrong guess depends on the
    /// address and the purpose alone, never on whether there is a code.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn redeem(&self, command: Redeem) -> Result<Redeemed, StoreError>;
}

/// A code or a link to issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewCode {
    /// The code's identifier, from which the secret is derived.
    pub id: CodeId,
    /// What it looks like.
    pub form: CodeForm,
    /// Which secret key derives it.
    pub key: SecretKeyId,
    /// When it is over whether or not its mail was ever handed over. Its life proper begins with the hand-over.
    pub dies_at: OffsetDateTime,
}

/// For whom a code is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeTarget {
    /// Whoever the address belongs to.
    Anybody,
    /// Nobody: a code could not be redeemed, so none is issued. The answer and the work are the same.
    Nobody,
    /// This pending registration of the address.
    Registration(RegistrationId),
    /// This user, who is signed in.
    User(UserId),
}

/// See [`CodeStore::request_code`].
#[derive(Debug, Clone)]
pub struct RequestCode {
    /// The time.
    pub now: OffsetDateTime,
    /// The address.
    pub email: EmailKey,
    /// What for.
    pub purpose: CodePurpose,
    /// For whom.
    pub target: CodeTarget,
    /// The code.
    pub code: NewCode,
    /// The mail that carries it.
    pub mail: MailDraft,
    /// The limits.
    pub throttle: Vec<ThrottleRule>,
    /// The counter of wrong tries for this address and purpose, set to 0. A link has none.
    pub tries: Option<ThrottleRule>,
    /// The audit entry.
    pub audit: AuditDraft,
}

/// The answer to [`RequestCode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeRequested {
    /// Its mail is owed.
    Queued,
    /// There is nobody to send it to. A caller who is not signed in must not learn it.
    Nobody,
    /// Too many requests.
    Throttled {
        /// How long until the last of the used-up limits is free again.
        retry_after: Duration,
    },
}

/// See [`CodeStore::candidates`].
#[derive(Debug, Clone)]
pub struct CandidateQuery {
    /// The time.
    pub now: OffsetDateTime,
    /// Which codes.
    pub which: CandidateFilter,
}

/// Which codes a guess may be meant for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CandidateFilter {
    /// Codes of digits for one address: the registrations' and the user's.
    Address {
        /// The address.
        email: EmailKey,
        /// Of one of these purposes.
        purposes: Vec<CodePurpose>,
        /// Of this registration only.
        registration: Option<RegistrationId>,
    },
    /// Codes of digits for one user and purpose, whatever address they were mailed to.
    User {
        /// The user.
        id: UserId,
        /// The purpose.
        purpose: CodePurpose,
    },
    /// One link.
    Link(CodeId),
}

/// A code that a guess is compared with.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The code.
    pub id: CodeId,
    /// What it is for.
    pub purpose: CodePurpose,
    /// What it looks like.
    pub form: CodeForm,
    /// Which secret key derives it.
    pub key: SecretKeyId,
    /// Whose it is.
    pub owner: CodeOwner,
}

impl Candidate {
    /// The most candidates that one guess is compared with. The limits on requests keep the live ones far below.
    pub const MOST: usize = 64;
}

/// Whose a code is.
#[derive(Debug, Clone)]
pub enum CodeOwner {
    /// A pending registration's.
    Registration {
        /// The registration.
        id: RegistrationId,
        /// The hash of its password.
        password: PasswordHash,
    },
    /// A user's.
    User {
        /// The user.
        id: UserId,
    },
}

/// See [`CodeStore::redeem`].
#[derive(Debug, Clone)]
pub struct Redeem {
    /// The time.
    pub now: OffsetDateTime,
    /// The latest end of a code that was handed over by now. A later one was set by a clock that has been set back since:
    /// the code counts as one that ran out.
    pub latest_end: OffsetDateTime,
    /// Every code that the guess was compared with.
    pub candidates: Vec<CodeId>,
    /// The one that it was equal to.
    pub hit: Option<CodeId>,
    /// Whether the caller named one registration, so that another one does not matter.
    pub settled: bool,
    /// Number of guesses after which a code is used up.
    pub attempts: u32,
    /// The counters of wrong tries of the address, one for each purpose in question.
    pub tries: Vec<ThrottleRule>,
    /// The limits of wrong guesses over all purposes and codes: of the address, for clients like this one, and of the
    /// client's network over all addresses.
    pub budgets: Vec<ThrottleRule>,
    /// What a hit does.
    pub effect: RedeemEffect,
    /// The audit entry.
    pub audit: AuditDraft,
    /// The events, if they come true.
    pub events: Vec<EventDraft>,
}

impl NewCode {
    /// The link that undoes a change of address, made to end later than every older open one of its user.
    ///
    /// A store orders these links by `dies_at`, because the clocks of two servers may put two changes in the wrong order.
    #[must_use]
    pub fn ending_after(self, older: impl IntoIterator<Item = OffsetDateTime>) -> Self {
        let latest = older.into_iter().max().map(|end| end + Duration::MICROSECOND);
        Self { dies_at: latest.map_or(self.dies_at, |latest| latest.max(self.dies_at)), ..self }
    }
}

/// What a hit does.
///
/// "Every open code and link of the user is void" never means the links that undo a change of address: only what is said
/// below, and a deletion for good, ends them ([`CodePurpose::is_undo`]).
///
/// Of a registration, either effect makes the user: with the registration's identity and profile and the role `user`, the
/// address proven now, no `last_login_at`, and the welcome mail owed; it removes every other registration of the
/// address with their codes.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a command is made once, moved once, and never kept in number")]
pub enum RedeemEffect {
    /// Proves the address. A registration's password becomes the user's first.
    Verify {
        /// The identifier of the user that a registration becomes.
        user_id: UserId,
        /// The mail to a new user.
        welcome: Option<MailDraft>,
    },
    /// Sets the password and proves the address.
    ///
    /// Of a registration: the user begins with this password instead of the registration's. Of a user: the next
    /// version, every session ends, every open code and link of the user is void, the notice is owed. Then the
    /// session, if there is one, is opened (which sets `last_login_at`).
    SetPassword {
        /// The identifier of the user that a registration becomes.
        user_id: UserId,
        /// The mail to a new user.
        welcome: Option<MailDraft>,
        /// The password and what comes with it.
        password: NewPassword,
    },
    /// Gives the user the address that the code names, proven now, unless another user has it. Every other open code
    /// and link of the user is void.
    ///
    /// 1. A link of the user that undoes a change and is not over names this address: that change is undone by this one.
    ///    The oldest such link and every later one are void, no link is issued, and no mail is owed.
    /// 2. Else a link that undoes the change is issued ([`NewCode::ending_after`]), and its mail owed to the old address.
    ChangeEmail {
        /// The link that undoes the change; it names the old address.
        undo: NewCode,
        /// Its mail.
        undo_mail: MailDraft,
    },
    /// Gives the user the address that the link names, unless another user has it. Whoever changed it knew the
    /// password, so the user is left without one: the next version, every session ends, every open code and link is
    /// void. A link that sets a new password is issued, and its mail owed to the address.
    ///
    /// 1. Links that undo later changes (those that die later) are void. Links that undo earlier ones stay open: the
    ///    oldest wins.
    /// 2. A user who was deleted and may come back is back (`user_restored`), whoever has the address that the user had.
    /// 3. A user who is disabled stays disabled.
    UndoEmailChange {
        /// The link that resets the password.
        reset: NewCode,
        /// Its mail.
        reset_mail: MailDraft,
    },
}

impl RedeemEffect {
    /// Whether a code of this purpose and form may have this effect. A code of any other is a wrong guess.
    pub fn fits(&self, purpose: CodePurpose, form: CodeForm) -> bool {
        let of_change = purpose == CodePurpose::ChangeEmail;
        match self {
            Self::Verify { .. } => purpose == CodePurpose::EmailVerification,
            Self::SetPassword { .. } => !of_change,
            Self::ChangeEmail { .. } => of_change && form != CodeForm::Link,
            Self::UndoEmailChange { .. } => of_change && form == CodeForm::Link,
        }
    }
}

/// The answer to [`Redeem`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redeemed {
    /// The code is spent and its effect applied; the user as it is now.
    Redeemed(Box<User>),
    /// The guess was wrong.
    Wrong,
    /// The guess was not looked at: there were too many wrong ones.
    Exhausted {
        /// How long until a guess is looked at again.
        retry_after: Duration,
    },
    /// The code was right and too late.
    Expired,
    /// The code was right, but there is another registration of the address too. It is not spent.
    Ambiguous,
}
