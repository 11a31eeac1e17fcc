//! Asking the host's hooks, all of them within one bound of time.

use super::redeem::Guess;
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::email::Email;
use crate::domain::id::UserId;
use crate::domain::session::AuthMethod;
use crate::domain::user::User;
use crate::error::{Error, HookFault};
use crate::manager::Inner;
use crate::port::hook::{EmailChangeAttempt, HOOK_TIMEOUT, HookError, RegistrationAttempt, SignInAttempt};
use crate::port::store::code::CodeOwner;

/// What hooks are asked.
pub(super) enum Question {
    Registration(RegistrationAttempt),
    SignIn(SignInAttempt),
    EmailChange(EmailChangeAttempt),
}

impl Question {
    const fn what(&self) -> &'static str {
        match self {
            Self::Registration(_) => "registration",
            Self::SignIn(_) => "sign_in",
            Self::EmailChange(_) => "email_change",
        }
    }
}

impl Inner {
    /// Asks every hook in its order, until one does not allow it.
    pub(super) async fn ask(&self, question: Question) -> Result<(), Error> {
        if self.hooks.is_empty() {
            return Ok(());
        }
        let asking = async {
            for hook in &self.hooks {
                match &question {
                    Question::Registration(attempt) => hook.before_registration(attempt).await?,
                    Question::SignIn(attempt) => hook.before_sign_in(attempt).await?,
                    Question::EmailChange(attempt) => hook.before_email_change(attempt).await?,
                }
            }
            Ok(())
        };
        match tokio::time::timeout(HOOK_TIMEOUT, asking).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(HookError::Refused(refusal))) => {
                tracing::info!(what = question.what(), reason = refusal.reason(), "a hook refused");
                Err(Error::Refused(refusal))
            }
            Ok(Err(HookError::Undecided(source))) => Err(Error::Undecided(HookFault::Failed(source))),
            Err(_elapsed) => Err(Error::Undecided(HookFault::TimedOut)),
        }
    }

    /// Whether a user whose password was set by the code that was hit may be signed in.
    pub(super) async fn ask_sign_in_by_code(
        &self,
        guess: &Guess,
        email: &Email,
        user: &User,
        client: &ClientContext,
    ) -> Result<(), Error> {
        let user = match guess.hit().map(|candidate| &candidate.owner) {
            Some(CodeOwner::User { .. }) => Some(user.clone()),
            Some(CodeOwner::Registration { .. }) | None => None,
        };
        let (email, client) = (email.clone(), client.clone());
        self.ask(Question::SignIn(SignInAttempt { email, user, method: AuthMethod::EmailCode, client })).await
    }

    /// Audits that the owner of an account was not signed in for a hook that refused it, within the limits of the user.
    pub(super) async fn audit_refused_sign_in(
        &self,
        error: &Error,
        email: &Email,
        user: UserId,
        client: &ClientContext,
    ) -> Result<(), Error> {
        if let Error::Refused(_) = error {
            let now = self.clock.now();
            let draft = self.audit_draft(AuditEvent::SignIn, Some(email.key()), None, client, now);
            self.record_refusal(draft.refused(now, error.reason(), Some(user)), Some(user), client).await?;
        }
        Ok(())
    }
}
