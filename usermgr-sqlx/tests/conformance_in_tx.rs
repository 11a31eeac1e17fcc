//! The stores obey the laws also when each command runs in a transaction of the host's.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{PgPool, SqlitePool};
use support::Database;
use usermgr_core::conformance::StoreHarness;
use usermgr_core::domain::audit::AuditEntry;
use usermgr_core::domain::email::EmailKey;
use usermgr_core::domain::id::{AuditId, EventId, OutboxId, UserId};
use usermgr_core::domain::page::Page;
use usermgr_core::domain::session::Session;
use usermgr_core::domain::undeliverable::UndeliverableAddress;
use usermgr_core::domain::user::User;
use usermgr_core::port::store::account::{
    CreateUser, CredentialsQuery, CredentialsView, DeleteUser, EmailChangeRequested, ImportUsers,
    LimitsQuery, LimitsView, PasswordReplaced, Register, Registered, ReplacePassword, RequestEmailChange,
    UpdateUser, UserCreated, UserCursor, UserDeleted, UserImported, UserQuery, UserUpdated,
};
use usermgr_core::port::store::audit::{AuditQuery, Record, Recorded};
use usermgr_core::port::store::code::{
    Candidate, CandidateQuery, CodeRequested, Redeem, Redeemed, RequestCode,
};
use usermgr_core::port::store::event::{ClaimedEvent, EventFeed, EventQuery, SettleEvent};
use usermgr_core::port::store::job::{BeginJob, EndJob, JobBegun, JobLease, JobRecord, RenewJob};
use usermgr_core::port::store::key::{AddSigningKey, ResealSigningKey, RevokeSigningKeys, SealedSigningKey};
use usermgr_core::port::store::outbox::{
    Claim, Claimed, OutboxEntry, OutboxQuery, RenewLeases, Renewed, Requeue, Requeued, Settle, Settled,
};
use usermgr_core::port::store::session::{
    EndSessions, LoginCounted, LoginFailed, OpenSession, Rotate, Rotated, SessionOpened, SessionQuery,
    SessionView, SessionsEnded, SessionsQuery,
};
use usermgr_core::port::store::undeliverable::{
    MarkDeliverable, MarkRemoved, MarkUndeliverable, UndeliverableQuery,
};
use usermgr_core::port::store::upkeep::{Backlog, Purge, Purged};
use usermgr_core::port::store::{
    AccountStore, AuditStore, CodeStore, EventStore, JobStore, KeyStore, OutboxStore, SessionStore, Store,
    StoreError, UndeliverableStore, UpkeepStore,
};
use usermgr_sqlx::{PgHostTransaction, PgStore, SqliteHostTransaction, SqliteStore, TransactionError};

/// Runs each command in a transaction of its own that a host begins and commits. What is refused there runs outside.
enum InHostTransactions {
    Sqlite(SqliteStore, SqlitePool),
    Postgres(PgStore, PgPool),
}

enum HostTransaction {
    Sqlite(SqliteHostTransaction),
    Postgres(PgHostTransaction),
}

impl InHostTransactions {
    async fn begin(&self) -> Result<HostTransaction, StoreError> {
        match self {
            Self::Sqlite(store, pool) => {
                let tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::unavailable)?;
                store.in_tx(tx).await.map(HostTransaction::Sqlite)
            }
            Self::Postgres(store, pool) => {
                let tx = pool.begin().await.map_err(StoreError::unavailable)?;
                store.in_tx(tx).await.map(HostTransaction::Postgres)
            }
        }
        .map_err(StoreError::unavailable)
    }

    fn outside(&self) -> &dyn Store {
        match self {
            Self::Sqlite(store, _) => store,
            Self::Postgres(store, _) => store,
        }
    }
}

impl HostTransaction {
    fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(transaction) => transaction.store(),
            Self::Postgres(transaction) => transaction.store(),
        }
    }

    async fn commit(self) -> Result<(), StoreError> {
        let committed = match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgres(transaction) => transaction.commit().await,
        };
        match committed {
            // A wrong guess was counted outside.
            Ok(()) | Err(TransactionError::Over) => Ok(()),
            Err(error) => Err(StoreError::unavailable(error)),
        }
    }
}

macro_rules! inside {
    ($store:ident.$method:ident($($argument:ident)?)) => {{
        let transaction = $store.begin().await?;
        let answer = transaction.store().$method($($argument)?).await?;
        transaction.commit().await?;
        Ok(answer)
    }};
}

macro_rules! outside {
    ($store:ident.$method:ident($($argument:ident)?)) => {
        $store.outside().$method($($argument)?).await
    };
}

macro_rules! part {
    ($part:ident:
        $($place:ident $method:ident($($argument:ident: $type:ty)?) -> $answer:ty;)+ $(=> $waits:ident;)?
    ) => {
        #[async_trait]
        impl $part for InHostTransactions {
            $(async fn $method(&self $(, $argument: $type)?) -> Result<$answer, StoreError> {
                $place!(self.$method($($argument)?))
            })+
            $(async fn $waits(&self, at_most: Duration) {
                self.outside().$waits(at_most).await;
            })?
        }
    };
}

part! { AccountStore:
    inside register(command: Register) -> Registered;
    inside limits(command: LimitsQuery) -> LimitsView;
    inside create_user(command: CreateUser) -> UserCreated;
    inside credentials(command: CredentialsQuery) -> CredentialsView;
    inside replace_password(command: ReplacePassword) -> PasswordReplaced;
    inside user(command: UserId) -> Option<User>;
    inside users(command: UserQuery) -> Page<User, UserCursor>;
    inside update_user(command: UpdateUser) -> UserUpdated;
    inside delete_user(command: DeleteUser) -> UserDeleted;
    inside request_email_change(command: RequestEmailChange) -> EmailChangeRequested;
    inside import_users(command: ImportUsers) -> Vec<UserImported>;
}

part! { CodeStore:
    inside request_code(command: RequestCode) -> CodeRequested;
    inside candidates(command: CandidateQuery) -> Vec<Candidate>;
    inside redeem(command: Redeem) -> Redeemed;
}

part! { SessionStore:
    inside open_session(command: OpenSession) -> SessionOpened;
    inside login_failed(command: LoginFailed) -> LoginCounted;
    inside session(command: SessionQuery) -> Option<SessionView>;
    inside sessions(command: SessionsQuery) -> Vec<Session>;
    outside rotate(command: Rotate) -> Rotated;
    inside end_sessions(command: EndSessions) -> SessionsEnded;
}

part! { OutboxStore:
    outside claim(command: Claim) -> Vec<Claimed>;
    outside settle_all(command: Vec<Settle>) -> Vec<Settled>;
    outside renew_mails(command: RenewLeases<OutboxId>) -> Vec<Renewed>;
    inside outbox(command: OutboxQuery) -> Page<OutboxEntry, OutboxId>;
    inside requeue(command: Requeue) -> Requeued;
    => wait_for_due;
}

part! { UndeliverableStore:
    inside mark_undeliverable(command: MarkUndeliverable) -> u32;
    inside mark_deliverable(command: MarkDeliverable) -> MarkRemoved;
    inside undeliverable(command: UndeliverableQuery) -> Page<UndeliverableAddress, EmailKey>;
}

part! { EventStore:
    outside events(command: EventQuery) -> EventFeed;
    outside claim_events(command: Claim) -> Vec<ClaimedEvent>;
    outside settle_events(command: Vec<SettleEvent>) -> Vec<Settled>;
    outside renew_events(command: RenewLeases<EventId>) -> Vec<Renewed>;
    => wait_for_events;
}

part! { AuditStore:
    inside audit(command: AuditQuery) -> Page<AuditEntry, AuditId>;
    inside record(command: Record) -> Recorded;
}

part! { KeyStore:
    inside signing_keys() -> Vec<SealedSigningKey>;
    outside add_signing_key(command: AddSigningKey) -> Vec<SealedSigningKey>;
    outside reseal_signing_key(command: ResealSigningKey) -> bool;
    outside revoke_signing_keys(command: RevokeSigningKeys) -> Option<Vec<SealedSigningKey>>;
}

part! { JobStore:
    outside begin_job(command: BeginJob) -> JobBegun;
    outside renew_job(command: RenewJob) -> JobLease;
    outside end_job(command: EndJob) -> JobLease;
    inside jobs() -> Vec<JobRecord>;
}

part! { UpkeepStore:
    outside purge(command: Purge) -> Purged;
    inside backlog() -> Backlog;
    inside ping() -> ();
}

#[derive(Default)]
struct Sqlite(Mutex<Vec<tempfile::TempDir>>);

#[async_trait]
impl StoreHarness for Sqlite {
    async fn fresh(&self) -> Arc<dyn Store> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.db");
        let store = SqliteStore::connect(&format!("sqlite://{}", path.display()), 4).await.unwrap();
        store.migrate().await.unwrap();
        // One connection: so hosts take turns instead of looking again and again whether it is theirs.
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
        let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect_with(options);
        self.0.lock().unwrap().push(folder);
        Arc::new(InHostTransactions::Sqlite(store, pool.await.unwrap()))
    }
}

#[derive(Default)]
struct Postgres(Mutex<Vec<Database>>);

#[async_trait]
impl StoreHarness for Postgres {
    async fn fresh(&self) -> Arc<dyn Store> {
        let database = Database::create().await;
        let store = PgStore::connect(&database.url, 4).await.unwrap();
        store.migrate().await.unwrap();
        let pool = PgPool::connect(&database.url).await.unwrap();
        self.0.lock().unwrap().push(database);
        Arc::new(InHostTransactions::Postgres(store, pool))
    }
}

mod sqlite {
    usermgr_core::conformance_suite!(super::Sqlite::default());
}

mod postgres {
    usermgr_core::conformance_suite!(super::Postgres::default(), #[ignore = "needs Postgres: run scripts/test"]);
}
