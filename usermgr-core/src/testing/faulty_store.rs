//! A store that fails when it is told to.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration as StdDuration;

use async_trait::async_trait;

use super::held;
use crate::domain::audit::AuditEntry;
use crate::domain::email::EmailKey;
use crate::domain::id::{AuditId, EventId, OutboxId, UserId};
use crate::domain::page::Page;
use crate::domain::session::Session;
use crate::domain::undeliverable::UndeliverableAddress;
use crate::domain::user::User;
use crate::port::store::account::{
    AccountStore, CreateUser, CredentialsQuery, CredentialsView, DeleteUser, EmailChangeRequested,
    ImportUsers, LimitsQuery, LimitsView, PasswordReplaced, Register, Registered, ReplacePassword,
    RequestEmailChange, UpdateUser, UserCreated, UserCursor, UserDeleted, UserImported, UserQuery,
    UserUpdated,
};
use crate::port::store::audit::{AuditQuery, AuditStore, Record, Recorded};
use crate::port::store::code::{
    Candidate, CandidateQuery, CodeRequested, CodeStore, Redeem, Redeemed, RequestCode,
};
use crate::port::store::event::{ClaimedEvent, EventFeed, EventQuery, EventStore, SettleEvent};
use crate::port::store::job::{BeginJob, EndJob, JobBegun, JobLease, JobRecord, JobStore, RenewJob};
use crate::port::store::key::{
    AddSigningKey, KeyStore, ResealSigningKey, RevokeSigningKeys, SealedSigningKey,
};
use crate::port::store::outbox::{
    Claim, Claimed, OutboxEntry, OutboxQuery, OutboxStore, RenewLeases, Renewed, Requeue, Requeued, Settle,
    Settled,
};
use crate::port::store::session::{
    EndSessions, LoginCounted, LoginFailed, OpenSession, Rotate, Rotated, SessionOpened, SessionQuery,
    SessionStore, SessionView, SessionsEnded, SessionsQuery,
};
use crate::port::store::undeliverable::{
    MarkDeliverable, MarkRemoved, MarkUndeliverable, UndeliverableQuery, UndeliverableStore,
};
use crate::port::store::upkeep::{Backlog, Purge, Purged, UpkeepStore};
use crate::port::store::{Store, StoreError};

/// How a [`FaultyStore`] fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreFault {
    /// It cannot be reached: nothing is done.
    Down,
    /// Each command takes so much longer, by the clock of tokio.
    Slow(StdDuration),
    /// What is written is committed, and the answer is lost on its way. Reads are answered.
    CommitUnanswered,
}

/// A store that fails when it is told to, over any other: to see what an application answers then.
///
/// ```
/// use std::sync::Arc;
/// use usermgr_core::testing::{FaultyStore, Mailbox, MemoryStore, StoreFault};
/// use usermgr_core::{SecretKey, UserManager};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = FaultyStore::new(Arc::new(MemoryStore::default()));
/// let users = UserManager::builder()
///     .store(Arc::new(store.clone()))
///     .mailer(Arc::new(Mailbox::default()))
///     .secret_key(SecretKey::from_bytes([7; 32]))
///     .build()?;
/// store.fail(Some(StoreFault::Down));
/// assert!(users.ping().await.is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    fault: Arc<Mutex<Option<StoreFault>>>,
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").field("fault", &*held(&self.fault)).finish_non_exhaustive()
    }
}

impl FaultyStore {
    /// A store that does what another one does, until it is told to fail. Clones fail together.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, fault: Arc::default() }
    }

    /// From now on every command fails so, or none does.
    pub fn fail(&self, fault: Option<StoreFault>) {
        *held(&self.fault) = fault;
    }

    async fn reads<T>(
        &self,
        query: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let fault = *held(&self.fault);
        match fault {
            Some(StoreFault::Down) => return Err(StoreError::unavailable("the store was told to be down")),
            Some(StoreFault::Slow(by)) => tokio::time::sleep(by).await,
            Some(StoreFault::CommitUnanswered) | None => {}
        }
        query.await
    }

    async fn writes<T: Send>(
        &self,
        command: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let answer = self.reads(command).await;
        if *held(&self.fault) == Some(StoreFault::CommitUnanswered) {
            answer?;
            return Err(StoreError::unavailable("the store was told to lose its answers"));
        }
        answer
    }
}

/// The methods of the port: what each takes and answers, and whether it reads or writes.
macro_rules! faulty {
    ($($port:ident { $($kind:ident $method:ident($($argument:ident: $taken:ty)?) -> $answered:ty;)* })*) => {$(
        #[async_trait]
        impl $port for FaultyStore {
            $(async fn $method(&self, $($argument: $taken)?) -> Result<$answered, StoreError> {
                self.$kind(self.inner.$method($($argument)?)).await
            })*
        }
    )*};
}

faulty! {
    AccountStore {
        writes register(command: Register) -> Registered;
        reads limits(query: LimitsQuery) -> LimitsView;
        writes create_user(command: CreateUser) -> UserCreated;
        reads credentials(query: CredentialsQuery) -> CredentialsView;
        writes replace_password(command: ReplacePassword) -> PasswordReplaced;
        reads user(id: UserId) -> Option<User>;
        reads users(query: UserQuery) -> Page<User, UserCursor>;
        writes update_user(command: UpdateUser) -> UserUpdated;
        writes delete_user(command: DeleteUser) -> UserDeleted;
        writes request_email_change(command: RequestEmailChange) -> EmailChangeRequested;
        writes import_users(command: ImportUsers) -> Vec<UserImported>;
    }
    CodeStore {
        writes request_code(command: RequestCode) -> CodeRequested;
        reads candidates(query: CandidateQuery) -> Vec<Candidate>;
        writes redeem(command: Redeem) -> Redeemed;
    }
    SessionStore {
        writes open_session(command: OpenSession) -> SessionOpened;
        writes login_failed(command: LoginFailed) -> LoginCounted;
        reads session(query: SessionQuery) -> Option<SessionView>;
        reads sessions(query: SessionsQuery) -> Vec<Session>;
        writes rotate(command: Rotate) -> Rotated;
        writes end_sessions(command: EndSessions) -> SessionsEnded;
    }
    UndeliverableStore {
        writes mark_undeliverable(command: MarkUndeliverable) -> u32;
        writes mark_deliverable(command: MarkDeliverable) -> MarkRemoved;
        reads undeliverable(query: UndeliverableQuery) -> Page<UndeliverableAddress, EmailKey>;
    }
    AuditStore {
        reads audit(query: AuditQuery) -> Page<AuditEntry, AuditId>;
        writes record(command: Record) -> Recorded;
    }
    KeyStore {
        reads signing_keys() -> Vec<SealedSigningKey>;
        writes add_signing_key(command: AddSigningKey) -> Vec<SealedSigningKey>;
        writes reseal_signing_key(command: ResealSigningKey) -> bool;
        writes revoke_signing_keys(command: RevokeSigningKeys) -> Option<Vec<SealedSigningKey>>;
    }
    JobStore {
        writes begin_job(command: BeginJob) -> JobBegun;
        writes renew_job(command: RenewJob) -> JobLease;
        writes end_job(command: EndJob) -> JobLease;
        reads jobs() -> Vec<JobRecord>;
    }
    UpkeepStore {
        writes purge(command: Purge) -> Purged;
        reads backlog() -> Backlog;
        reads ping() -> ();
    }
}

#[async_trait]
impl OutboxStore for FaultyStore {
    async fn claim(&self, command: Claim) -> Result<Vec<Claimed>, StoreError> {
        self.writes(self.inner.claim(command)).await
    }

    async fn settle_all(&self, commands: Vec<Settle>) -> Result<Vec<Settled>, StoreError> {
        self.writes(self.inner.settle_all(commands)).await
    }

    async fn renew_mails(&self, command: RenewLeases<OutboxId>) -> Result<Vec<Renewed>, StoreError> {
        self.writes(self.inner.renew_mails(command)).await
    }

    async fn outbox(&self, query: OutboxQuery) -> Result<Page<OutboxEntry, OutboxId>, StoreError> {
        self.reads(self.inner.outbox(query)).await
    }

    async fn requeue(&self, command: Requeue) -> Result<Requeued, StoreError> {
        self.writes(self.inner.requeue(command)).await
    }

    async fn wait_for_due(&self, at_most: StdDuration) {
        self.inner.wait_for_due(at_most).await;
    }
}

#[async_trait]
impl EventStore for FaultyStore {
    async fn events(&self, query: EventQuery) -> Result<EventFeed, StoreError> {
        self.reads(self.inner.events(query)).await
    }

    async fn claim_events(&self, command: Claim) -> Result<Vec<ClaimedEvent>, StoreError> {
        self.writes(self.inner.claim_events(command)).await
    }

    async fn settle_events(&self, commands: Vec<SettleEvent>) -> Result<Vec<Settled>, StoreError> {
        self.writes(self.inner.settle_events(commands)).await
    }

    async fn renew_events(&self, command: RenewLeases<EventId>) -> Result<Vec<Renewed>, StoreError> {
        self.writes(self.inner.renew_events(command)).await
    }

    async fn wait_for_events(&self, at_most: StdDuration) {
        self.inner.wait_for_events(at_most).await;
    }
}
