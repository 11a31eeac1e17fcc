//! Changing an account's address: proven at the new one before it counts, and undone from the old one for a while.
//!
//! [`Account::request_email_change`], [`Account::confirm_email_change`], [`Account::undo_email_change`].

use super::account::Account;
use super::hooks::Question;
use super::input::Input;
use super::limits::wait;
use super::redeem::{CLOCK_SKEW, Judgement};
use super::register::CodeSent;
use super::sessions::Authenticated;
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::code::{CodeForm, CodePurpose};
use crate::domain::event::EventKind;
use crate::domain::field::FieldFault;
use crate::domain::mail::MailKind;
use crate::domain::secret::{Code, LinkToken, Password};
use crate::domain::user::User;
use crate::error::Error;
use crate::flow::limits::{Standing, plain};
use crate::port::hook::EmailChangeAttempt;
use crate::port::store::account::{EmailChangeRequested, LimitsQuery, RequestEmailChange};
use crate::port::store::code::{CandidateFilter, CandidateQuery, NewCode, Redeem, RedeemEffect, Redeemed};

const PURPOSE: CodePurpose = CodePurpose::ChangeEmail;
const UNDO_EVENTS: [EventKind; 3] =
    [EventKind::EmailChanged, EventKind::SessionsEnded, EventKind::UserRestored];

impl Account<'_> {
    /// Begins the change of the caller's address: a code to the new one, a notice to the old. Nothing changes before the
    /// code is redeemed, and a password that is set meanwhile voids it.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::ReauthenticationRequired`] without a password long after the sign-in,
    /// [`Error::InvalidCredentials`], [`Error::TooManyAttempts`], [`Error::RateLimited`], [`Error::SessionEnded`],
    /// [`Error::Unavailable`]; where there are hooks, [`Error::Refused`] and [`Error::Undecided`].
    ///
    /// # Security
    /// An address that has an account gets a mail that says so; the caller is answered the same.
    pub async fn request_email_change(
        &self,
        caller: &Authenticated,
        new_email: &str,
        password: Option<&Password>,
        client: &ClientContext,
    ) -> Result<CodeSent, Error> {
        let inner = self.inner;
        let user = &caller.user;
        let mut input = Input::default();
        let new_email = input.email_field("new_email", new_email);
        if new_email.as_ref().is_some_and(|new| *new == user.email) {
            input.fault("new_email", FieldFault::Unchanged);
        }
        input.check()?;
        let Some(new_email) = new_email else { return Err(input.refusal()) };
        let attempt =
            EmailChangeAttempt { user: user.clone(), new_email: new_email.clone(), client: client.clone() };
        inner.ask(Question::EmailChange(attempt)).await?;

        let now = inner.clock.now();
        let (key, own) = (new_email.key().clone(), user.email.key());
        let audit = inner.audit_draft(AuditEvent::EmailChangeRequest, Some(own), Some(user.id), client, now);
        // Check the limits before the hash; the command checks them again. No code is issued that could not be redeemed.
        inner.admit_guess(own, Standing::User(user.id), client, now).await?;
        let mut throttle = inner.email_change_limits(user.id, &key, PURPOSE.as_str(), client);
        throttle.extend(inner.own_writes(user.id));
        if !throttle.is_empty() {
            let query = LimitsQuery { now, rules: throttle.clone(), network: None };
            if let Some(retry_after) = inner.store.limits(query).await?.wait(&throttle) {
                return Err(Error::RateLimited { retry_after: wait(retry_after) });
            }
        }
        let expect = inner.step_up(caller, password, client, &audit).await?;
        let now = inner.clock.now();
        let command = RequestEmailChange {
            now,
            user_id: user.id,
            new_email,
            expect,
            code: inner.new_digits(PURPOSE, now),
            code_mail: inner.mail(MailKind::ChangeEmailCode, now),
            taken_mail: inner.mail(MailKind::AccountExists, now),
            notice: inner.mail(MailKind::EmailChangeRequested, now),
            throttle,
            tries: Some(inner.tries(own, PURPOSE)),
            audit,
        };
        match inner.store.request_email_change(command).await? {
            EmailChangeRequested::Queued => {
                Ok(CodeSent { resend_after: plain(inner.policies.codes.resend_interval) })
            }
            EmailChangeRequested::Stale => Err(Error::InvalidCredentials),
            EmailChangeRequested::Gone => Err(Error::SessionEnded),
            EmailChangeRequested::Throttled { retry_after } => {
                Err(Error::RateLimited { retry_after: wait(retry_after) })
            }
        }
    }

    /// Redeems the code: the new address counts from now on. The old one gets a notice with a link that undoes it
    /// ([`LinkPolicy::undo_ttl`](crate::policy::LinkPolicy::undo_ttl)).
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::InvalidCode`] (also when somebody else registered the address meanwhile),
    /// [`Error::CodeExpired`], [`Error::TooManyAttempts`], [`Error::Unavailable`].
    ///
    /// ```
    /// use usermgr_core::{ClientContext, Code, LinkToken};
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::new();
    /// # let (users, client) = (auth.users(), ClientContext::new());
    ///
    /// # let signed_in = auth.signed_in("user").await;
    /// # let old = signed_in.user.email.as_str();
    /// let caller = users.sessions().authenticate(&signed_in.access_token).await?;
    /// users.account().request_email_change(&caller, "ana@example.net", None, &client).await?;
    /// # let code = Code::new(auth.last_code("ana@example.net").await.ok_or("no code")?);
    /// let user = users.account().confirm_email_change(&caller, &code, &client).await?;
    /// assert_eq!(user.email.as_str(), "ana@example.net");
    ///
    /// // Whoever still has the old mailbox may take it back, by the link that was mailed there.
    /// # let token = LinkToken::new(auth.last_link_token(old).await.ok_or("no link")?);
    /// users.account().undo_email_change(&token, &client).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn confirm_email_change(
        &self,
        caller: &Authenticated,
        code: &Code,
        client: &ClientContext,
    ) -> Result<User, Error> {
        let inner = self.inner;
        let user = &caller.user;
        let mut input = Input::default();
        let Some(code) = input.code(code) else { return Err(input.refusal()) };
        let now = inner.clock.now();
        let key = user.email.key();
        let aim = inner.aim(key, &[PURPOSE], Standing::User(user.id), client, now).await?;
        let guess = inner.guess(aim, &code, now).await?;
        let undo_for = inner.policies.links.undo_ttl + inner.policies.registration.pending_ttl;
        let judgement = Judgement {
            hit: guess.hit().map(|candidate| candidate.id),
            settled: true,
            effect: RedeemEffect::ChangeEmail {
                undo: NewCode { dies_at: now + undo_for, ..inner.new_code(CodeForm::Link, now) },
                undo_mail: inner.mail(MailKind::EmailChanged, now),
            },
            audit: inner.audit_draft(AuditEvent::EmailChange, Some(key), Some(user.id), client, now),
            events: inner.event_drafts(&[EventKind::EmailChanged], now),
        };
        inner.judge(&guess, judgement, client, now).await
    }

    /// Undoes a change of address by the link that the old address got. The old address counts again, the account is
    /// signed out everywhere and left without a password, and a link that sets a new one is mailed to the old address:
    /// whoever changed the address knew the password.
    ///
    /// The link works whatever was done since: a new password, more changes of address, disabling (the account stays
    /// disabled) and a deletion within its grace (the account comes back). It ends by its use, by its end, by an older
    /// link that is used, by a change back to the address, and by a deletion for good. While another account has the
    /// address it is refused, and works again when the address is free.
    ///
    /// # Security
    /// Of several changes the oldest link wins: it undoes the later ones. A later link leaves the older ones open, so a
    /// thief who owns a mailbox in the middle of the chain gains nothing by its link. An undo may leave no administrator
    /// who can sign in until the password is set anew: it is a recovery.
    ///
    /// # Errors
    /// [`Error::InvalidLink`], [`Error::Unavailable`].
    pub async fn undo_email_change(&self, token: &LinkToken, client: &ClientContext) -> Result<(), Error> {
        let inner = self.inner;
        let id = inner.secrets.open_link_token(token).ok_or(Error::InvalidLink)?;
        let now = inner.clock.now();
        let candidates =
            inner.store.candidates(CandidateQuery { now, which: CandidateFilter::Link(id) }).await?;
        if !candidates.iter().any(|candidate| candidate.purpose == PURPOSE) {
            return Err(Error::InvalidLink);
        }
        let command = Redeem {
            now,
            latest_end: now + inner.policies.links.undo_ttl + CLOCK_SKEW,
            // A link is not guessed: a try that fails, say while somebody else has the address, must not use it up.
            candidates: Vec::new(),
            hit: Some(id),
            settled: true,
            attempts: 1,
            tries: Vec::new(),
            budgets: Vec::new(),
            effect: RedeemEffect::UndoEmailChange {
                reset: inner.new_code(CodeForm::Link, now),
                reset_mail: inner.mail(MailKind::ResetPasswordLink, now),
            },
            audit: inner.audit_draft(AuditEvent::EmailChangeUndo, None, None, client, now),
            events: inner.event_drafts(&UNDO_EVENTS, now),
        };
        let audit = command.audit.clone();
        match inner.store.redeem(command).await? {
            Redeemed::Redeemed(_) => Ok(()),
            refused @ (Redeemed::Wrong
            | Redeemed::Exhausted { .. }
            | Redeemed::Expired
            | Redeemed::Ambiguous) => {
                inner.record_refused_link(audit, &refused, client, now).await?;
                Err(Error::InvalidLink)
            }
        }
    }
}
