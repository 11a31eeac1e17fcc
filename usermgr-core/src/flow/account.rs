//! One's own account: read whole, for its owner to take along.

use super::sessions::Authenticated;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::client::ClientContext;
use crate::domain::page::PageSize;
use crate::domain::session::Session;
use crate::domain::user::User;
use crate::error::Error;
use crate::manager::Inner;
use crate::port::store::audit::AuditQuery;
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
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AccountExport {
    /// The user.
    pub user: User,
    /// The sessions that hold.
    pub sessions: Vec<Session>,
    /// What the audit log tells of the user, newest first.
    pub audit: Vec<AuditEntry>,
    /// Mails to the user and events about the user that are still kept, newest first.
    pub outbox: Vec<OutboxEntry>,
}

impl Account<'_> {
    /// Everything held about the caller (GDPR, article 15 and 20). That it was read is audited.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn export(
        &self,
        caller: &Authenticated,
        client: &ClientContext,
    ) -> Result<AccountExport, Error> {
        let inner = self.inner;
        let now = inner.clock.now();
        let user = &caller.user;
        let id = user.id;
        let draft = inner.audit_draft(AuditEvent::UserExport, Some(user.email.key()), Some(id), client, now);
        inner.store.record(draft.done(now, Some(id))).await?;
        let size = PageSize::new(PageSize::MAX);
        let (mut audit, mut after) = (Vec::new(), None);
        loop {
            let query = AuditQuery { subject: Some(id), after, size, ..AuditQuery::default() };
            let page = inner.store.audit(query).await?;
            audit.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let (mut outbox, mut after) = (Vec::new(), None);
        loop {
            let query = OutboxQuery { user: Some(id), after, size, ..OutboxQuery::default() };
            let page = inner.store.outbox(query).await?;
            outbox.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let sessions = inner.store.sessions(SessionsQuery { now, user_id: id }).await?;
        Ok(AccountExport { user: user.clone(), sessions, audit, outbox })
    }
}
