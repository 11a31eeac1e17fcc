//! Who may do what, and after which proof. The roles that count are those in the store, never those in a token.

use super::sessions::Authenticated;
use crate::domain::audit::AuditEvent;
use crate::domain::client::ClientContext;
use crate::domain::id::UserId;
use crate::domain::role::Permission;
use crate::domain::secret::Password;
use crate::error::Error;
use crate::manager::{Inner, UserManager};
use crate::port::store::account::Actor;

/// On whose authority something is done to somebody's account.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_enums, reason = "on whose authority is no place for an unknown")]
pub enum Principal<'a> {
    /// The operator at the command line, or the host's own program: may do everything.
    Operator,
    /// Somebody who signed in: may do what their roles permit. What gives or takes power needs a recent sign-in
    /// ([`SessionPolicy::step_up_age`](crate::policy::SessionPolicy::step_up_age)).
    User(&'a Authenticated),
    /// Somebody who signed in and proves the current password along: a recent sign-in is not needed.
    UserWithPassword {
        /// Who signed in.
        caller: &'a Authenticated,
        /// Their own current password. A wrong one counts as a failed sign-in.
        password: &'a Password,
    },
}

impl<'a> Principal<'a> {
    /// Proves the current password along, if there is one. The operator needs none.
    #[must_use]
    pub const fn with_password(self, password: Option<&'a Password>) -> Self {
        match (self, password) {
            (Self::User(caller) | Self::UserWithPassword { caller, .. }, Some(password)) => {
                Self::UserWithPassword { caller, password }
            }
            _ => self,
        }
    }
}

/// What must be proven before an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// Any session will do: nobody gains or loses power by it.
    Session,
    /// A recent sign-in, or the current password along. A wrong password is audited as this event.
    Recent(AuditEvent),
}

/// Makes the table of operations. A row without a permission or a proof does not compile.
macro_rules! operations {
    ($($(#[doc = $doc:literal])* $name:ident: $permission:ident, $proof:expr;)+) => {
        /// What is done to the accounts of others and to the installation. Every flow that does it passes
        /// [`Inner::permit`] with its operation, which is the only way to an [`Actor`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Operation {
            $($(#[doc = $doc])* $name,)+
        }

        impl Operation {
            /// Every operation.
            #[cfg(all(test, feature = "testing"))]
            const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The permission that it needs.
            pub(super) const fn permission(self) -> &'static Permission {
                match self { $(Self::$name => &Permission::$permission,)+ }
            }

            /// What must be proven before it.
            pub(super) const fn proof(self) -> Proof {
                match self { $(Self::$name => $proof,)+ }
            }
        }
    };
}

operations! {
    /// Lists users.
    ListUsers: USERS_READ, Proof::Session;
    /// Reads one user.
    ReadUser: USERS_READ, Proof::Session;
    /// Reads what roles permit.
    ListRoles: USERS_READ, Proof::Session;
    /// Creates or invites a user whose only role is the one that everybody has.
    CreateUser: USERS_WRITE, Proof::Session;
    /// Gives roles to a user who is created or invited.
    CreateUserWithRoles: ROLES_ASSIGN, Proof::Recent(AuditEvent::UserCreation);
    /// Changes a name, a language or a profile.
    UpdateUser: USERS_WRITE, Proof::Session;
    /// Disables or enables a user.
    ChangeStatus: USERS_WRITE, Proof::Recent(AuditEvent::StatusChange);
    /// Gives or takes roles.
    ChangeRoles: ROLES_ASSIGN, Proof::Recent(AuditEvent::RoleChange);
    /// Deletes a user.
    DeleteUser: USERS_DELETE, Proof::Recent(AuditEvent::UserDeletion);
    /// Reads a user's sessions.
    ReadSessions: USERS_WRITE, Proof::Session;
    /// Signs a user out everywhere.
    EndSessions: USERS_WRITE, Proof::Recent(AuditEvent::SignOut);
    /// Reads the audit log.
    ReadAudit: AUDIT_READ, Proof::Session;
    /// Reads the mails in the outbox.
    ReadOutbox: OUTBOX_MANAGE, Proof::Session;
    /// Sends a dead mail again: to the address that it had, with nothing that the sender learns.
    RetryMail: OUTBOX_MANAGE, Proof::Session;
    /// Reads the feed of events.
    ReadEvents: EVENTS_READ, Proof::Session;
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
        self.inner.may(caller, permission, client).await.map(drop)
    }
}

impl Inner {
    /// Decides whether a principal may do something and has proven enough for it, and says what the store is to check
    /// again. A refusal is audited, within the limits of its user.
    ///
    /// # Security
    /// ASVS 7.5.3. The permission comes first: without it nobody learns whether a password was right.
    pub(super) async fn permit(
        &self,
        by: Principal<'_>,
        operation: Operation,
        client: &ClientContext,
    ) -> Result<Option<Actor>, Error> {
        let (caller, password) = match by {
            Principal::Operator => return Ok(None),
            Principal::User(caller) => (caller, None),
            Principal::UserWithPassword { caller, password } => (caller, Some(password)),
        };
        let actor = self.may(caller, operation.permission(), client).await?;
        match operation.proof() {
            Proof::Session => {}
            Proof::Recent(event) => {
                let now = self.clock.now();
                let audit = self.audit_draft(event, None, Some(caller.user.id), client, now);
                self.step_up(caller, password, client, &audit).await?;
            }
        }
        Ok(Some(actor))
    }

    /// Decides whether somebody who signed in has a permission. A refusal is audited.
    async fn may(
        &self,
        caller: &Authenticated,
        permission: &Permission,
        client: &ClientContext,
    ) -> Result<Actor, Error> {
        let (user, policy) = (&caller.user, &self.policies.roles);
        if policy.permit(&user.roles, permission) {
            let beyond = policy.beyond(&user.roles);
            return Ok(Actor { id: user.id, roles: user.roles.clone(), beyond });
        }
        Err(self.denied(user.id, None, client).await?)
    }

    /// Audits that access was denied, to what belongs to `subject` if that is somebody, and answers the refusal.
    pub(super) async fn denied(
        &self,
        actor: UserId,
        subject: Option<UserId>,
        client: &ClientContext,
    ) -> Result<Error, Error> {
        let now = self.clock.now();
        let draft = self.audit_draft(AuditEvent::AccessDenied, None, Some(actor), client, now);
        self.record_refusal(draft.refused(now, "forbidden", subject), Some(actor), client).await?;
        Ok(Error::Forbidden)
    }
}

impl Principal<'_> {
    /// The user who acts, for the audit log.
    pub(super) const fn actor(self) -> Option<UserId> {
        match self {
            Self::Operator => None,
            Self::User(caller) | Self::UserWithPassword { caller, .. } => Some(caller.user.id),
        }
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use time::Duration;

    use super::*;
    use crate::domain::role::{Role, Roles};
    use crate::domain::user::UserStatus;
    use crate::error::Error;
    use crate::flow::update_user::UpdateUser;
    use crate::flow::users::CreateUser;
    use crate::port::store::account::{RolesChange, UserQuery};
    use crate::port::store::audit::AuditQuery;
    use crate::port::store::event::EventQuery;
    use crate::port::store::outbox::OutboxQuery;
    use crate::testing::TestAuth;

    /// Whether an operation is refused to a session whose sign-in is long ago. A new operation needs a row here, too.
    const fn needs_a_recent_sign_in(operation: Operation) -> bool {
        match operation {
            Operation::CreateUserWithRoles
            | Operation::ChangeStatus
            | Operation::ChangeRoles
            | Operation::DeleteUser
            | Operation::EndSessions => true,
            Operation::ListUsers
            | Operation::ReadUser
            | Operation::ListRoles
            | Operation::CreateUser
            | Operation::UpdateUser
            | Operation::ReadSessions
            | Operation::ReadAudit
            | Operation::ReadOutbox
            | Operation::RetryMail
            | Operation::ReadEvents => false,
        }
    }

    /// Does it to somebody new.
    async fn attempt(auth: &TestAuth, by: Principal<'_>, operation: Operation) -> Result<(), Error> {
        let (users, client) = (auth.users().users(), ClientContext::new());
        let target = auth.signed_in("user").await.user.id;
        let status = UpdateUser::new().with_status(UserStatus::Disabled);
        let new = CreateUser::new(format!("{}@example.org", target.as_uuid()));
        let support: Role = "support".parse().unwrap();
        match operation {
            Operation::ListUsers => users.list(by, UserQuery::default(), &client).await.map(drop),
            Operation::ReadUser => users.get(by, target, &client).await.map(drop),
            Operation::ListRoles => users.roles(by, &client).await.map(drop),
            Operation::CreateUser => users.create(by, new, &client).await.map(drop),
            Operation::CreateUserWithRoles => {
                users.create(by, new.with_roles([support]), &client).await.map(drop)
            }
            Operation::UpdateUser => {
                let named = UpdateUser::new().with_username(Some("Ana".into()));
                users.update(by, target, named, &client).await.map(drop)
            }
            Operation::ChangeStatus => users.update(by, target, status, &client).await.map(drop),
            Operation::ChangeRoles => {
                let change = RolesChange::Set(Roles::from([support]));
                users.change_roles(by, target, change, None, &client).await.map(drop)
            }
            Operation::DeleteUser => users.delete(by, target, &client).await,
            Operation::ReadSessions => users.sessions(by, target, &client).await.map(drop),
            Operation::EndSessions => users.end_sessions(by, target, &client).await.map(drop),
            Operation::ReadAudit => users.audit(by, AuditQuery::default(), &client).await.map(drop),
            Operation::ReadOutbox => users.outbox(by, OutboxQuery::default(), &client).await.map(drop),
            Operation::RetryMail => {
                let nothing = crate::domain::id::OutboxId::from_uuid(uuid::Uuid::nil());
                match users.retry_mail(by, nothing, &client).await {
                    Err(Error::NotFound) => Ok(()),
                    other => other,
                }
            }
            Operation::ReadEvents => users.events(by, EventQuery::default(), &client).await.map(drop),
        }
    }

    /// Who signed in, as of the last renewal of the session.
    async fn renewed(auth: &TestAuth, session: &crate::flow::sessions::SignedIn) -> Authenticated {
        let sessions = auth.users().sessions();
        let renewed = sessions.refresh(&session.refresh_token, &ClientContext::new()).await.unwrap();
        sessions.authenticate(&renewed.access_token).await.unwrap()
    }

    #[tokio::test]
    async fn what_gives_or_takes_power_needs_a_recent_sign_in() {
        let auth = TestAuth::with(|policies| {
            policies.roles.defined.insert("support".parse().unwrap(), [Permission::USERS_READ].into());
        });
        let admin = auth.signed_in("admin").await;
        let fresh = auth.users().sessions().authenticate(&admin.access_token).await.unwrap();
        for operation in Operation::ALL {
            let done = attempt(&auth, Principal::User(&fresh), *operation).await;
            assert!(done.is_ok(), "{operation:?}: {done:?}");
        }
        auth.clock().advance(auth.users().policies().sessions.step_up_age + Duration::SECOND);
        // To renew a session proves nothing.
        let old = renewed(&auth, &admin).await;
        let (right, wrong) = (Password::new(TestAuth::PASSWORD), Password::new("wrong password"));
        for operation in Operation::ALL {
            let late = attempt(&auth, Principal::User(&old), *operation).await;
            let recent = needs_a_recent_sign_in(*operation);
            let refused = matches!(late, Err(Error::ReauthenticationRequired { .. }));
            assert!(refused == recent && (recent || late.is_ok()), "{operation:?}: {late:?}");
            let by = Principal::User(&old).with_password(Some(&right));
            let proven = attempt(&auth, by, *operation).await;
            assert!(proven.is_ok(), "{operation:?}: {proven:?}");
            let by = Principal::User(&old).with_password(Some(&wrong));
            let guessed = attempt(&auth, by, *operation).await;
            let refused = matches!(guessed, Err(Error::InvalidCredentials));
            assert!(refused == recent && (recent || guessed.is_ok()), "{operation:?}: {guessed:?}");
        }
    }
}
