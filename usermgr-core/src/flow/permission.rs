//! Who may do what. The roles that count are those in the store, never those in a token.

use super::sessions::Authenticated;
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::role::Permission;
use crate::error::Error;
use crate::manager::{Inner, UserManager};
use crate::port::store::account::Actor;

/// On whose authority something is done to somebody's account.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_enums, reason = "on whose authority is no place for an unknown")]
pub enum Principal<'a> {
    /// The operator at the command line, or the host's own program: may do everything.
    Operator,
    /// Somebody who signed in: may do what their roles permit.
    User(&'a Authenticated),
}

impl<'a> From<&'a Authenticated> for Principal<'a> {
    fn from(caller: &'a Authenticated) -> Self {
        Self::User(caller)
    }
}

impl UserManager {
    /// Whether the caller may do something: by one of their roles as the store had them a moment ago, when
    /// [`authenticate`](crate::flow::sessions::Sessions::authenticate) made the caller. A refusal is audited.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::Unavailable`].
    ///
    /// ```
    /// use usermgr_core::domain::role::Permission;
    /// use usermgr_core::{ClientContext, Error};
    /// # use usermgr_core::testing::TestAuth;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let auth = TestAuth::new();
    /// # let (users, client) = (auth.users(), ClientContext::new());
    ///
    /// let permission: Permission = "notes:read-all".parse()?; // granted to roles by `RolePolicy`
    /// # let signed_in = auth.signed_in("user").await;
    /// let caller = users.sessions().authenticate(&signed_in.access_token).await?;
    /// let refused = users.require(&caller, &permission, &client).await;
    /// assert!(matches!(refused, Err(Error::Forbidden)));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn require(
        &self,
        caller: &Authenticated,
        permission: &Permission,
        client: &ClientContext,
    ) -> Result<(), Error> {
        self.inner.permit(Principal::User(caller), permission, client).await.map(drop)
    }
}

impl Inner {
    /// Decides whether a principal may do something, and says what the store is to check again. A refusal is audited,
    /// within the limits of its user.
    pub(super) async fn permit(
        &self,
        by: Principal<'_>,
        permission: &Permission,
        client: &ClientContext,
    ) -> Result<Option<Actor>, Error> {
        let Principal::User(caller) = by else { return Ok(None) };
        let (user, policy) = (&caller.user, &self.policies.roles);
        if policy.permit(&user.roles, permission) {
            let beyond = policy.beyond(&user.roles);
            return Ok(Some(Actor { id: user.id, roles: user.roles.clone(), beyond }));
        }
        let now = self.clock.now();
        let draft = self.audit_draft(AuditEvent::AccessDenied, None, Some(user.id), client, now);
        self.record_refusal(draft.refused(now, "forbidden", None), Some(user.id), client).await?;
        Err(Error::Forbidden)
    }
}

impl Principal<'_> {
    /// The user who acts, for the audit log.
    pub(super) const fn actor(self) -> Option<crate::domain::id::UserId> {
        match self {
            Self::Operator => None,
            Self::User(caller) => Some(caller.user.id),
        }
    }
}
