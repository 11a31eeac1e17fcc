//! What those see and do who keep the installation running: the audit log, owed mails, and the feed of events.
//!
//! [`Users::audit`], [`Users::outbox`], [`Users::events`], [`Users::retry_mail`].

use super::permission::{Operation, Principal};
use super::users::Users;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::client::ClientContext;
use crate::domain::id::{AuditId, OutboxId};
use crate::domain::page::Page;
use crate::error::Error;
use crate::port::store::audit::AuditQuery;
use crate::port::store::event::{EventFeed, EventQuery};
use crate::port::store::outbox::{OutboxEntry, OutboxQuery, Requeue, Requeued};

impl Users<'_> {
    /// The audit log, newest first, a page at a time.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; of a user who acts, [`Error::Forbidden`] without `audit:read`.
    ///
    /// ```
    /// use usermgr_core::ClientContext;
    /// use usermgr_core::domain::audit::AuditEvent;
    /// use usermgr_core::flow::permission::Principal;
    /// use usermgr_core::port::store::audit::AuditQuery;
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::new();
    /// # let (users, client) = (auth.users(), ClientContext::new());
    ///
    /// # let user = auth.signed_in("user").await.user;
    /// let query = AuditQuery { subject: Some(user.id), event: Some(AuditEvent::SignIn), ..AuditQuery::default() };
    /// let page = users.users().audit(Principal::Operator, query, &client).await?;
    /// assert_eq!(page.items.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn audit(
        &self,
        by: Principal<'_>,
        query: AuditQuery,
        client: &ClientContext,
    ) -> Result<Page<AuditEntry, AuditId>, Error> {
        self.inner.permit(by, Operation::ReadAudit, client).await?;
        Ok(self.inner.store.audit(query).await?)
    }

    /// Owed mails, newest first, a page at a time. No secret is among them.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; of a user who acts, [`Error::Forbidden`] without `outbox:manage`.
    pub async fn outbox(
        &self,
        by: Principal<'_>,
        query: OutboxQuery,
        client: &ClientContext,
    ) -> Result<Page<OutboxEntry, OutboxId>, Error> {
        self.inner.permit(by, Operation::ReadOutbox, client).await?;
        Ok(self.inner.store.outbox(query).await?)
    }

    /// What happened after a position, in order, a page at a time. Whoever remembers the `next` of each page and asks with
    /// it misses nothing: see [`EventFeed`].
    ///
    /// # Errors
    /// [`Error::Unavailable`]; of a user who acts, [`Error::Forbidden`] without `events:read`.
    ///
    /// ```
    /// use usermgr_core::ClientContext;
    /// use usermgr_core::flow::permission::Principal;
    /// use usermgr_core::port::store::event::{EventFeed, EventQuery};
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::new();
    /// # let (users, client) = (auth.users(), ClientContext::new());
    ///
    /// # auth.signed_in("user").await;
    /// let mut query = EventQuery::default(); // with the position that was remembered, if there is one
    /// match users.users().events(Principal::Operator, query, &client).await? {
    ///     EventFeed::Page { events, next } => {
    ///         for event in events {
    ///             println!("{}: {} {}", event.at, event.user_id, event.kind.as_str());
    ///         }
    ///         query.after = Some(next); // remember it with what was done
    ///     }
    ///     EventFeed::Gap { resume_after } => query.after = Some(resume_after), // and read all users anew
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn events(
        &self,
        by: Principal<'_>,
        query: EventQuery,
        client: &ClientContext,
    ) -> Result<EventFeed, Error> {
        self.inner.permit(by, Operation::ReadEvents, client).await?;
        Ok(self.inner.store.events(query).await?)
    }

    /// Has a dead mail sent again.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such item or it is not dead, [`Error::Unavailable`]; of a user who acts,
    /// [`Error::Forbidden`] without `outbox:manage`.
    ///
    /// ```
    /// use usermgr_core::ClientContext;
    /// use usermgr_core::flow::permission::Principal;
    /// use usermgr_core::port::store::outbox::{OutboxQuery, OutboxStatus};
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::new();
    /// # let (users, client) = (auth.users(), ClientContext::new());
    ///
    /// # auth.mail_fails(Some(usermgr_core::testing::Failure::Permanent));
    /// # let ana = usermgr_core::flow::users::CreateUser::new("ana@example.org");
    /// # users.users().create(Principal::Operator, ana, &client).await?;
    /// # auth.deliver().await;
    /// # auth.mail_fails(None);
    /// let query = OutboxQuery { status: Some(OutboxStatus::Dead), ..OutboxQuery::default() };
    /// for entry in users.users().outbox(Principal::Operator, query, &client).await?.items {
    ///     users.users().retry_mail(Principal::Operator, entry.mail.id, &client).await?;
    /// }
    /// # assert!(auth.last_code("ana@example.org").await.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn retry_mail(
        &self,
        by: Principal<'_>,
        id: OutboxId,
        client: &ClientContext,
    ) -> Result<(), Error> {
        let inner = self.inner;
        let actor = inner.permit(by, Operation::RetryMail, client).await?;
        let now = inner.clock.now();
        let audit = inner.audit_draft(AuditEvent::MailRetry, None, by.actor(), client, now);
        match inner.store.requeue(Requeue { now, id, by: actor, audit }).await? {
            Requeued::Requeued => Ok(()),
            Requeued::NotFound => Err(Error::NotFound),
            Requeued::NotPermitted => Err(Error::Forbidden),
        }
    }
}
