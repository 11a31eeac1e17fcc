//! Addresses that no mail goes to any more: what a mail service tells of them, and what the operator does about them.

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::users::Users;
use crate::crypto::webhook::verify_webhook;
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::email::{Email, EmailKey};
use crate::domain::field::{FieldError, FieldFault};
use crate::domain::page::Page;
use crate::domain::undeliverable::{UndeliverableAddress, UndeliverableReason};
use crate::error::Error;
use crate::manager::Inner;
use crate::port::store::undeliverable::{
    MarkDeliverable, MarkRemoved, MarkUndeliverable, UndeliverableQuery,
};

/// What a mail service tells us, signed. `docs/mail-callbacks.md` says how.
#[derive(Clone, Copy)]
pub struct MailCallbacks<'a> {
    pub(crate) inner: &'a Inner,
}

/// The body of a callback.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Callback {
    events: Vec<CallbackEvent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallbackEvent {
    r#type: String,
    email: String,
    #[serde(rename = "message_id")]
    _message_id: Option<String>,
    at: Option<String>,
}

impl MailCallbacks<'_> {
    /// Checks a callback, by its headers and every byte of its body, and marks its addresses as undeliverable, and answers how many were not marked before. The same callback
    /// again changes nothing. A text that is no address of ours is passed over: no mail of ours went there.
    ///
    /// # Errors
    /// [`Error::NotFound`] without a [secret](crate::UserManagerBuilder::mail_callback_secrets),
    /// [`Error::InvalidSignature`] when nobody who knows it signed this within five minutes, [`Error::Invalid`] when the
    /// body is not of the form, [`Error::Unavailable`]. Nothing is marked then.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use time::OffsetDateTime;
    /// use usermgr_core::crypto::webhook::{WebhookSecret, sign_webhook};
    /// # use usermgr_core::testing::{Mailbox, MemoryStore};
    /// use usermgr_core::{ClientContext, SecretKey, UserManager};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///
    /// let secret: WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?;
    /// let users = UserManager::builder()
    /// #     .store(Arc::new(MemoryStore::default()))
    /// #     .mailer(Arc::new(Mailbox::default()))
    /// #     .secret_key(SecretKey::from_bytes([7; 32]))
    ///     .mail_callback_secrets(vec![secret.clone()])
    ///     .build()?;
    ///
    /// // What the mail service sends:
    /// let body = br#"{"events": [{"type": "bounce", "email": "ana@example.org"}]}"#;
    /// # let now = usermgr_core::port::clock::Clock::now(&usermgr_core::port::clock::SystemClock);
    /// let signature = sign_webhook(&[secret], "msg-1", now, body);
    /// let seconds = now.unix_timestamp().to_string();
    /// let headers = [("webhook-id", "msg-1"), ("webhook-timestamp", &seconds), ("webhook-signature", &signature)];
    ///
    /// assert_eq!(users.mail_callbacks().receive(headers, body, &ClientContext::new()).await?, 1);
    /// # let _: OffsetDateTime = now;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn receive<'h>(
        &self,
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
        body: &[u8],
        client: &ClientContext,
    ) -> Result<u32, Error> {
        let inner = self.inner;
        if inner.mail_callback_secrets.is_empty() {
            return Err(Error::NotFound);
        }
        let now = inner.clock.now();
        verify_webhook(&inner.mail_callback_secrets, headers, body, now)
            .map_err(|_| Error::InvalidSignature)?;
        let invalid = |field| Error::Invalid(vec![FieldError::new(field, FieldFault::Invalid)]);
        let Callback { events } = serde_json::from_slice(body).map_err(|_| invalid("body"))?;
        let mut addresses = Vec::with_capacity(events.len());
        for CallbackEvent { r#type, email, at, .. } in events {
            let reason = UndeliverableReason::from_name(&r#type).ok_or_else(|| invalid("type"))?;
            let at = at.map(|at| OffsetDateTime::parse(&at, &Rfc3339)).transpose();
            let since = at.map_err(|_| invalid("at"))?.map_or(now, |at| at.min(now));
            let Ok(email) = Email::parse(&email) else { continue };
            let key = email.key().clone();
            let audit = inner.audit_draft(AuditEvent::UndeliverableMark, Some(&key), None, client, now);
            addresses.push((UndeliverableAddress { email: key, reason, since }, audit));
        }
        let told = addresses.len();
        let marked = inner.store.mark_undeliverable(MarkUndeliverable { now, addresses }).await?;
        tracing::info!(told, marked, "a mail service told of undeliverable addresses");
        Ok(marked)
    }
}

impl Users<'_> {
    /// The addresses that no mail goes to, in their order, for the operator.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn undeliverable(
        &self,
        query: UndeliverableQuery,
    ) -> Result<Page<UndeliverableAddress, EmailKey>, Error> {
        Ok(self.inner.store.undeliverable(query).await?)
    }

    /// Lets mail go to an address again, for the operator. Mails that are dead meanwhile are
    /// [sent again](Self::retry_mail) one by one.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is no address, [`Error::NotFound`] when it is not marked, [`Error::Unavailable`].
    pub async fn mark_deliverable(&self, email: &str, client: &ClientContext) -> Result<(), Error> {
        let inner = self.inner;
        let email = Email::parse(email)
            .map_err(|_| Error::Invalid(vec![FieldError::new("email", FieldFault::Invalid)]))?;
        let (now, key) = (inner.clock.now(), email.key());
        let audit = inner.audit_draft(AuditEvent::UndeliverableRemoval, Some(key), None, client, now);
        match inner.store.mark_deliverable(MarkDeliverable { now, email: key.clone(), audit }).await? {
            MarkRemoved::Removed => Ok(()),
            MarkRemoved::NotFound => Err(Error::NotFound),
        }
    }
}
