//! One attempt to deliver one mail: write, hand over, judge.

use time::OffsetDateTime;
use zeroize::Zeroizing;

use std::time::Duration;

use super::backoff::backoff;
use super::caught::{Panicked, caught};
use super::lane::{Attempted, End, TIMEOUT, bounded};
use super::mail::Inner;
use crate::domain::code::{CodeForm, CodePurpose};
use crate::domain::mail::{OwedCode, OwedMail};
use crate::domain::secret::{Code, LinkToken};
use crate::domain::user::Username;
use crate::port::mailer::Mail;
use crate::port::store::outbox::{Claimed, DeliveryResult, Lease, Settle};
use crate::template::MailValues;

/// The longest wait that the other side may ask for: all attempts shall end while services still know their keys.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// Why an attempt failed.
struct Failure {
    kind: FailureKind,
    error: String,
    /// How long the other side asks to be left alone.
    retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailureKind {
    /// Another attempt may succeed.
    Transient,
    /// The other side will never take it.
    Refused,
    /// It cannot be written: a template or a key of this installation is at fault.
    Unwritable,
}

impl Failure {
    fn transient(error: impl Into<String>) -> Self {
        Self { kind: FailureKind::Transient, error: error.into(), retry_after: None }
    }

    fn unwritable(error: impl Into<String>) -> Self {
        Self { kind: FailureKind::Unwritable, error: error.into(), retry_after: None }
    }
}

/// Makes one attempt.
pub(super) async fn attempt(inner: &Inner, claimed: Claimed, lease: Lease) -> Attempted<Settle> {
    let Claimed { mail: owed, attempt } = claimed;
    let attempted = match tokio::time::timeout(TIMEOUT, caught(hand_over(inner, &owed))).await {
        Ok(Ok(attempted)) => attempted,
        Ok(Err(Panicked)) => Err(Failure::transient("the delivery panicked")),
        Err(_) => Err(Failure::transient("the delivery took longer than two minutes")),
    };
    let now = inner.clock.now();
    let (end, result) = judge(inner, &owed, attempt, now, &attempted);
    log(&owed, attempt, end, attempted.as_ref().err());
    Attempted { end, settle: Settle { now, id: owed.id, lease, result } }
}

async fn hand_over(inner: &Inner, owed: &OwedMail) -> Result<(), Failure> {
    let mail = write(inner, owed)?;
    inner.mailer.send(&mail).await.map_err(|error| Failure {
        kind: if error.is_permanent() { FailureKind::Refused } else { FailureKind::Transient },
        error: error.to_string(),
        retry_after: error.retry_after(),
    })
}

/// What a mail carries, derived anew for each attempt and the same each time.
enum Carried {
    Nothing,
    Code(Code),
    Link(Zeroizing<String>),
}

fn write(inner: &Inner, owed: &OwedMail) -> Result<Mail, Failure> {
    let policies = &inner.policies;
    let carried = match &owed.code {
        None => Carried::Nothing,
        Some(code) => derive(inner, code)
            .ok_or_else(|| Failure::unwritable("the secret key that derives its code is not configured"))?,
    };
    let (code, link) = match &carried {
        Carried::Nothing => (None, None),
        Carried::Code(code) => (Some(code.expose()), None),
        Carried::Link(link) => (None, Some(link.as_str())),
    };
    let language = owed.locale.as_ref().unwrap_or(&policies.mail.default_locale).language();
    let values = MailValues {
        service_name: &policies.mail.service_name,
        public_url: &policies.mail.public_url,
        email: owed.to.as_str(),
        username: owed.username.as_ref().map(Username::as_str),
        code,
        link,
        // Of a mail without a code only the one that tells of a deletion speaks of a time.
        ttl: owed.code.as_ref().map_or(policies.deletion.grace, |code| ttl(inner, code)),
    };
    let rendered = inner
        .templates
        .render(owed.kind, &language, &values)
        .map_err(|error| Failure::unwritable(error.to_string()))?;
    Ok(Mail {
        id: owed.id,
        to: owed.to.clone(),
        subject: rendered.subject,
        text: rendered.text,
        html: rendered.html,
        date: owed.created_at,
    })
}

fn derive(inner: &Inner, code: &OwedCode) -> Option<Carried> {
    match code.form {
        CodeForm::Digits(length) => {
            inner.secrets.code(code.key, code.purpose, code.id, length).map(Carried::Code)
        }
        CodeForm::Link => {
            let token: LinkToken = inner.secrets.link_token(code.key, code.id)?;
            let page = match code.purpose {
                CodePurpose::ChangeEmail => "undo-email-change",
                _ => "reset-password",
            };
            // In the fragment, which browsers keep to themselves: it reaches no server, no log and no referrer.
            let link = format!("{}/{page}#token={}", inner.policies.mail.public_url, token.expose());
            Some(Carried::Link(Zeroizing::new(link)))
        }
    }
}

fn ttl(inner: &Inner, code: &OwedCode) -> time::Duration {
    match code.form {
        CodeForm::Digits(_) => inner.policies.codes.ttl,
        CodeForm::Link if code.purpose == CodePurpose::ChangeEmail => inner.policies.links.undo_ttl,
        CodeForm::Link => inner.policies.links.ttl,
    }
}

fn judge(
    inner: &Inner,
    owed: &OwedMail,
    attempt: u32,
    now: OffsetDateTime,
    attempted: &Result<(), Failure>,
) -> (End, DeliveryResult) {
    match attempted {
        Ok(()) => {
            let code_ttl = owed.code.as_ref().map(|code| ttl(inner, code));
            (End::Sent, DeliveryResult::Sent { code_ttl })
        }
        Err(Failure { kind: FailureKind::Transient, error, retry_after })
            if attempt < inner.policies.outbox.max_attempts =>
        {
            let asked = retry_after.unwrap_or_default().min(LONGEST_ASKED);
            let wait = backoff(attempt, &*inner.random).max(asked.try_into().unwrap_or_default());
            let at = now.saturating_add(wait);
            (End::Retried, DeliveryResult::Retry { at, error: bounded(error) })
        }
        Err(failure) => (End::Dead, DeliveryResult::Dead { error: bounded(&failure.error) }),
    }
}

/// One line for each attempt: who gets the mail and what stands in it is nobody's business.
fn log(owed: &OwedMail, attempt: u32, end: End, failure: Option<&Failure>) {
    let (id, what, kind, outcome) = (owed.id, "mail", owed.kind.as_str(), end.as_str());
    match failure {
        None => tracing::info!(%id, what, kind, attempt, outcome, "delivery"),
        Some(Failure { kind: FailureKind::Unwritable, error, .. }) => {
            tracing::error!(%id, what, kind, attempt, outcome, error = bounded(error), "delivery");
        }
        Some(Failure { error, .. }) => {
            tracing::warn!(%id, what, kind, attempt, outcome, error = bounded(error), "delivery");
        }
    }
}
