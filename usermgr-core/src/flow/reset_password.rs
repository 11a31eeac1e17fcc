//! Passwords set by a mailed link.
//!
//! [`Passwords::forgot`], [`Passwords::reset`].

use super::input::Input;
use super::redeem::CLOCK_SKEW;
use super::register::CodeSent;
use super::set_password::Passwords;
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::code::{CodeForm, CodePurpose};
use crate::domain::event::EventKind;
use crate::domain::id::UserId;
use crate::domain::mail::MailKind;
use crate::domain::secret::{LinkToken, Password};
use crate::error::Error;
use crate::flow::limits::Standing;
use crate::port::store::account::NewPassword;
use crate::port::store::code::{
    CandidateFilter, CandidateQuery, CodeTarget, Redeem, RedeemEffect, Redeemed, RequestCode,
};

impl Passwords<'_> {
    /// Owes a mail with a link by which the password can be set. It voids the link before it.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::RateLimited`], [`Error::Unavailable`].
    ///
    /// # Security
    /// The link begins with the configured public URL, whatever the request said, and carries its token in the
    /// fragment, which browsers send to nobody (OWASP ASVS 14.2.1).
    pub async fn forgot(&self, email: &str, client: &ClientContext) -> Result<CodeSent, Error> {
        let inner = self.inner;
        let mut input = Input::default();
        let email = input.email(email);
        let Some(email) = email else { return Err(input.refusal()) };
        let now = inner.clock.now();
        let key = email.key();
        // A link cannot be guessed: there is no budget that it would wait for.
        let what = "reset_link";
        let admitted = inner.admit_request(key, what, Standing::Unproven, None, client, now).await?;
        inner
            .answer_request(RequestCode {
                now,
                email: key.clone(),
                purpose: CodePurpose::ResetPassword,
                target: CodeTarget::Anybody,
                code: inner.new_code(CodeForm::Link, now),
                mail: inner.mail(MailKind::ResetPasswordLink, now),
                throttle: admitted.throttle,
                tries: None,
                audit: inner.audit_draft(AuditEvent::LinkRequest, Some(key), None, client, now),
            })
            .await
    }

    /// Sets the password by a link's token. Every session of the user ends, and nobody is signed in.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::InvalidLink`], [`Error::Overloaded`], [`Error::Unavailable`].
    ///
    /// # Security
    /// A token that was not made by us is refused before anything is read. A weak password spends no link.
    ///
    /// ```
    /// use usermgr_core::{ClientContext, LinkToken, Password};
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::new();
    /// # let (users, client) = (auth.users(), ClientContext::new());
    ///
    /// # let email = auth.signed_in("user").await.user.email;
    /// # let email = email.as_str();
    /// users.passwords().forgot(email, &client).await?;
    /// // The page that the link leads to reads what follows `#token=`, and posts it.
    /// # let token = auth.last_link_token(email).await.ok_or("no link")?;
    /// let (token, password) = (LinkToken::new(token), Password::new("an even better password"));
    /// users.passwords().reset(&token, &password, &password, &client).await?;
    /// users.sessions().login(email, &password, &client).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reset(
        &self,
        token: &LinkToken,
        new_password: &Password,
        confirmation_password: &Password,
        client: &ClientContext,
    ) -> Result<(), Error> {
        let inner = self.inner;
        let mut input = Input::default();
        let password = input.new_password("new_password", new_password, Some(confirmation_password));
        if let Some(password) = &password {
            input.strength("new_password", password, inner.policies.passwords.min_length, None, None);
        }
        input.check()?;
        let Some(password) = password else { return Err(input.refusal()) };

        let id = inner.secrets.open_link_token(token).ok_or(Error::InvalidLink)?;
        let now = inner.clock.now();
        let which = CandidateFilter::Link(id);
        let candidates = inner.store.candidates(CandidateQuery { now, which }).await?;
        if !candidates.iter().any(|candidate| candidate.purpose == CodePurpose::ResetPassword) {
            return Err(Error::InvalidLink);
        }
        let hash = inner.hash(password, client).await?;
        let now = inner.clock.now();
        let command = Redeem {
            now,
            latest_end: now + inner.policies.links.ttl + CLOCK_SKEW,
            candidates: vec![id],
            hit: Some(id),
            settled: true,
            attempts: 1,
            tries: Vec::new(),
            budgets: Vec::new(),
            effect: RedeemEffect::SetPassword {
                user_id: UserId::new(now, &*inner.random),
                welcome: None,
                password: NewPassword {
                    hash,
                    session: None,
                    notice: inner.mail(MailKind::PasswordChanged, now),
                },
            },
            audit: inner.audit_draft(AuditEvent::PasswordReset, None, None, client, now),
            events: inner.event_drafts(&[EventKind::EmailVerified, EventKind::PasswordChanged], now),
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
