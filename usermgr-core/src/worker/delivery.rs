//! One attempt to deliver one item: write, hand over, judge, settle.

use std::time::Duration;

use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::backoff::{backoff, doubled, jittered};
use super::caught::{Panicked, caught};
use super::mail::Inner;
use crate::domain::code::{CodeForm, CodePurpose};
use crate::domain::mail::{OwedCode, OwedMail};
use crate::domain::secret::{Code, LinkToken};
use crate::domain::user::Username;
use crate::port::mailer::Mail;
use crate::port::store::StoreError;
use crate::port::store::outbox::{Claimed, DeliveryResult, Lease, OutboxEntry, OutboxItem, Settle, Settled};
use crate::template::MailValues;

/// How long an attempt may take. It is well within a lease, so that nobody else sends the mail meanwhile.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);
/// How often a settlement is tried while the store fails. The mail has left by then.
const SETTLE_TRIES: u32 = 6;
/// The first and the longest wait between two tries to settle.
const SETTLE_WAIT: (time::Duration, time::Duration) =
    (time::Duration::milliseconds(100), time::Duration::seconds(2));

/// How an attempt ended, as the store knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Taken by the other side.
    Sent,
    /// Failed, and to be tried again.
    Retried,
    /// Failed for good.
    Dead,
    /// The store does not know: the item is due again when its lease has passed, or somebody else has it.
    Lost,
}

/// Why an attempt failed.
struct Failure {
    kind: FailureKind,
    error: String,
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
        Self { kind: FailureKind::Transient, error: error.into() }
    }

    fn unwritable(error: impl Into<String>) -> Self {
        Self { kind: FailureKind::Unwritable, error: error.into() }
    }
}

/// Makes one attempt and has its end noted.
pub(super) async fn deliver(inner: &Inner, claimed: Claimed, lease: Lease) -> End {
    let Claimed { item, attempt } = claimed;
    let attempted = match tokio::time::timeout(TIMEOUT, caught(hand_over(inner, &item))).await {
        Ok(Ok(attempted)) => attempted,
        Ok(Err(Panicked)) => Err(Failure::transient("the delivery panicked")),
        Err(_) => Err(Failure::transient("the delivery took longer than a minute")),
    };
    let now = inner.clock.now();
    let (end, result) = judge(inner, &item, attempt, now, &attempted);
    log(&item, attempt, end, attempted.as_ref().err());
    settle(inner, Settle { now, id: item.id(), lease, result }, end).await
}

async fn hand_over(inner: &Inner, item: &OutboxItem) -> Result<(), Failure> {
    match item {
        OutboxItem::Mail(owed) => {
            let mail = write(inner, owed)?;
            inner.mailer.send(&mail).await.map_err(|error| Failure {
                kind: if error.is_permanent() { FailureKind::Refused } else { FailureKind::Transient },
                error: error.to_string(),
            })
        }
        OutboxItem::Event(event) => match &inner.events {
            Some(publisher) => publisher
                .publish(event)
                .await
                .map_err(|error| Failure::transient(format!("{error}: {}", error.0))),
            // Nobody wants to know any more: another attempt would find nobody either.
            None => Ok(()),
        },
    }
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
    item: &OutboxItem,
    attempt: u32,
    now: OffsetDateTime,
    attempted: &Result<(), Failure>,
) -> (End, DeliveryResult) {
    match attempted {
        Ok(()) => {
            let code_ttl = match item {
                OutboxItem::Mail(owed) => owed.code.as_ref().map(|code| ttl(inner, code)),
                OutboxItem::Event(_) => None,
            };
            (End::Sent, DeliveryResult::Sent { code_ttl })
        }
        Err(Failure { kind: FailureKind::Transient, error })
            if attempt < inner.policies.outbox.max_attempts =>
        {
            let at = now.saturating_add(backoff(attempt, &*inner.random));
            (End::Retried, DeliveryResult::Retry { at, error: bounded(error) })
        }
        Err(failure) => (End::Dead, DeliveryResult::Dead { error: bounded(&failure.error) }),
    }
}

/// The text on one line, cut to what the outbox keeps.
fn bounded(error: &str) -> String {
    let mut bounded = String::new();
    for c in error.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if bounded.len() + c.len_utf8() > OutboxEntry::MAX_ERROR {
            break;
        }
        bounded.push(c);
    }
    bounded
}

/// Has the end noted, through short failures of the store: what was sent must not be sent again for them.
async fn settle(inner: &Inner, command: Settle, end: End) -> End {
    let id = command.id;
    for attempt in 1..=SETTLE_TRIES {
        let error = match caught(inner.outbox.settle(command.clone())).await {
            Ok(Ok(Settled::Settled)) => return end,
            Ok(Ok(Settled::LostLease)) => {
                tracing::warn!(%id, "the lease of a delivery was lost; it may be delivered twice");
                return End::Lost;
            }
            Ok(Err(error)) => error,
            Err(Panicked) => StoreError::unavailable("the store panicked"),
        };
        if attempt == SETTLE_TRIES {
            tracing::error!(%id, error = &error as &dyn std::error::Error,
                "the end of a delivery could not be noted; it is delivered again when its lease has passed");
            break;
        }
        if attempt == 1 {
            tracing::warn!(%id, error = &error as &dyn std::error::Error,
                "the end of a delivery could not be noted; trying again");
        }
        let wait = jittered(doubled(SETTLE_WAIT.0, SETTLE_WAIT.1, attempt), &*inner.random);
        tokio::time::sleep(wait.unsigned_abs()).await;
    }
    End::Lost
}

/// One line for each attempt: who gets the mail and what stands in it is nobody's business.
fn log(item: &OutboxItem, attempt: u32, end: End, failure: Option<&Failure>) {
    let (what, kind) = match item {
        OutboxItem::Mail(mail) => ("mail", mail.kind.as_str()),
        OutboxItem::Event(event) => ("event", event.kind.as_str()),
    };
    let outcome = match end {
        End::Sent => "sent",
        End::Retried => "retry",
        End::Dead => "dead",
        End::Lost => "lost",
    };
    let id = item.id();
    match failure {
        None => tracing::info!(%id, what, kind, attempt, outcome, "delivery"),
        Some(Failure { kind: FailureKind::Unwritable, error }) => {
            tracing::error!(%id, what, kind, attempt, outcome, error = bounded(error), "delivery");
        }
        Some(Failure { error, .. }) => {
            tracing::warn!(%id, what, kind, attempt, outcome, error = bounded(error), "delivery");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_of_bounded_length_cut_between_characters() {
        assert_eq!(bounded("550 no\r\nsuch\tuser"), "550 no  such user");
        let long = "ñ".repeat(300);
        assert_eq!(bounded(&long), "ñ".repeat(250));
        let odd = format!("x{long}");
        assert_eq!(bounded(&odd).len(), 499);
        assert!(bounded(&"a".repeat(10_000)).len() == OutboxEntry::MAX_ERROR);
    }
}
