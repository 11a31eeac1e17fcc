//! One's own account: read whole, for its owner to take along.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::limits::wait;
use super::sessions::Authenticated;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::client::ClientContext;
use crate::domain::id::{AuditId, OutboxId, UserId};
use crate::domain::page::PageSize;
use crate::domain::session::Session;
use crate::domain::user::User;
use crate::error::Error;
use crate::manager::Inner;
use crate::port::store::audit::{AuditQuery, Record, Recorded};
use crate::port::store::outbox::{OutboxEntry, OutboxQuery};
use crate::port::store::session::SessionsQuery;

/// One's own account; see [`UserManager::account`](crate::UserManager::account).
///
/// ```
/// use usermgr_core::flow::update_user::UpdateUser;
/// use usermgr_core::{ClientContext, Error};
/// # use usermgr_core::testing::TestAuth;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let auth = TestAuth::new();
/// # let (users, client) = (auth.users(), ClientContext::new());
///
/// # let signed_in = auth.signed_in("user").await;
/// let caller = users.sessions().authenticate(&signed_in.access_token).await?;
/// let change = UpdateUser::new().with_username(Some("Ana".into())).with_locale(Some("es".into()));
/// let user = users.account().update(&caller, change, &client).await?;
/// assert_eq!(user.username.as_ref().map(|name| name.as_str()), Some("Ana"));
///
/// let export = users.account().export(&caller, &client).await?;
/// assert_eq!(export.sessions.len(), 1);
///
/// // Within a quarter of an hour of the sign-in no password is asked for; later it comes along.
/// users.account().delete(&caller, None, &client).await?;
/// let gone = users.sessions().authenticate(&signed_in.access_token).await;
/// assert!(matches!(gone, Err(Error::SessionEnded)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct Account<'a> {
    pub(crate) inner: &'a Inner,
}

impl std::fmt::Debug for Account<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Account")
    }
}

/// Everything held about a user, but secrets: of the password there is only a hash, which is of no use to its owner.
///
/// The lists of a long-lived account may be long, so an export comes in parts, and no part is larger than
/// [`PART`](Self::PART) says.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AccountExport {
    /// The user.
    pub user: User,
    /// The sessions that hold; in the first part only.
    pub sessions: Vec<Session>,
    /// What the audit log tells of the user, newest first.
    pub audit: Vec<AuditEntry>,
    /// Mails to the user that are still kept, newest first.
    pub outbox: Vec<OutboxEntry>,
    /// Where the next part begins; none when this was the last.
    pub next: Option<ExportCursor>,
}

impl AccountExport {
    /// The most entries of the audit log in one part, and the most mails.
    pub const PART: usize = 1000;
}

/// Where a part of an export ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a caller keeps it and gives it back")]
pub struct ExportCursor {
    /// The last entry of the audit log; none when the log was given to its end.
    pub audit: Option<AuditId>,
    /// The last mail; none when the mails were given to their end.
    pub outbox: Option<OutboxId>,
}

/// The exports that are being read in this process: one of each user.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exports(Arc<Mutex<BTreeSet<UserId>>>);

/// The place of one user; free again when it is dropped.
struct ExportPlace {
    exports: Exports,
    user: UserId,
}

impl Exports {
    fn users(&self) -> MutexGuard<'_, BTreeSet<UserId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, user: UserId) -> Result<ExportPlace, Error> {
        if self.users().insert(user) {
            Ok(ExportPlace { exports: self.clone(), user })
        } else {
            Err(Error::RateLimited { retry_after: std::time::Duration::from_secs(1) })
        }
    }
}

impl Drop for ExportPlace {
    fn drop(&mut self) {
        self.exports.users().remove(&self.user);
    }
}

impl Account<'_> {
    /// Everything held about the caller (GDPR, article 15 and 20): the first part. That it was read is audited.
    ///
    /// One part of a user is read at a time in one process, and an export may be begun
    /// [`EXPORTS_AN_HOUR`](crate::policy::ThrottlePolicy::EXPORTS_AN_HOUR) times.
    ///
    /// # Errors
    /// [`Error::RateLimited`], [`Error::Unavailable`].
    pub async fn export(
        &self,
        caller: &Authenticated,
        client: &ClientContext,
    ) -> Result<AccountExport, Error> {
        let inner = self.inner;
        let user = &caller.user;
        let id = user.id;
        let _place = inner.exports.enter(id)?;
        let now = inner.clock.now();
        let draft = inner.audit_draft(AuditEvent::UserExport, Some(user.email.key()), Some(id), client, now);
        let record = Record { now, entry: draft.done(now, Some(id)), throttle: inner.export_limit(id) };
        if let Recorded::Throttled { retry_after } = inner.store.record(record).await? {
            return Err(Error::RateLimited { retry_after: wait(retry_after) });
        }
        let (audit, audit_next) = inner.export_audit(id, None).await?;
        let (outbox, outbox_next) = inner.export_outbox(id, None).await?;
        let sessions = inner.store.sessions(SessionsQuery { now, user_id: id }).await?;
        let next = ExportCursor::of(audit_next, outbox_next);
        Ok(AccountExport { user: user.clone(), sessions, audit, outbox, next })
    }

    /// A later part of what is held about the caller. It is a read like any list: it is not audited.
    ///
    /// # Errors
    /// [`Error::RateLimited`] while another part is being read, [`Error::Unavailable`].
    ///
    /// ```
    /// use usermgr_core::{ClientContext, Error};
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::new();
    /// # let (users, client) = (auth.users(), ClientContext::new());
    /// # let signed_in = auth.signed_in("user").await;
    /// let caller = users.sessions().authenticate(&signed_in.access_token).await?;
    /// let mut part = users.account().export(&caller, &client).await?;
    /// while let Some(next) = part.next {
    ///     part = users.account().export_rest(&caller, next).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn export_rest(
        &self,
        caller: &Authenticated,
        after: ExportCursor,
    ) -> Result<AccountExport, Error> {
        let inner = self.inner;
        let id = caller.user.id;
        let _place = inner.exports.enter(id)?;
        let (audit, audit_next) = match after.audit {
            Some(after) => inner.export_audit(id, Some(after)).await?,
            None => (Vec::new(), None),
        };
        let (outbox, outbox_next) = match after.outbox {
            Some(after) => inner.export_outbox(id, Some(after)).await?,
            None => (Vec::new(), None),
        };
        let next = ExportCursor::of(audit_next, outbox_next);
        Ok(AccountExport { user: caller.user.clone(), sessions: Vec::new(), audit, outbox, next })
    }
}

impl ExportCursor {
    fn of(audit: Option<AuditId>, outbox: Option<OutboxId>) -> Option<Self> {
        (audit.is_some() || outbox.is_some()).then_some(Self { audit, outbox })
    }
}

impl Inner {
    async fn export_audit(
        &self,
        user: UserId,
        mut after: Option<AuditId>,
    ) -> Result<(Vec<AuditEntry>, Option<AuditId>), Error> {
        let mut entries = Vec::new();
        loop {
            let size = PageSize::new(PageSize::MAX);
            let query = AuditQuery { subject: Some(user), after, size, ..AuditQuery::default() };
            let page = self.store.audit(query).await?;
            entries.extend(page.items);
            after = page.next;
            if after.is_none() || entries.len() >= AccountExport::PART {
                return Ok((entries, after));
            }
        }
    }

    async fn export_outbox(
        &self,
        user: UserId,
        mut after: Option<OutboxId>,
    ) -> Result<(Vec<OutboxEntry>, Option<OutboxId>), Error> {
        let mut entries = Vec::new();
        loop {
            let size = PageSize::new(PageSize::MAX);
            let query = OutboxQuery { user: Some(user), after, size, ..OutboxQuery::default() };
            let page = self.store.outbox(query).await?;
            entries.extend(page.items);
            after = page.next;
            if after.is_none() || entries.len() >= AccountExport::PART {
                return Ok((entries, after));
            }
        }
    }
}
