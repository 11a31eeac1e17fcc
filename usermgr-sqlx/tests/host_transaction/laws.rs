//! The laws of a host's transaction, compiled for each database by the module that includes this file.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake};
use std::time::Duration;

use time::OffsetDateTime;
use usermgr_core::domain::audit::{AuditDraft, AuditEvent};
use usermgr_core::domain::code::CodeForm;
use usermgr_core::domain::event::EventPosition;
use usermgr_core::domain::id::{AuditId, CodeId, OutboxId, UserId};
use usermgr_core::domain::mail::MailKind;
use usermgr_core::domain::page::PageSize;
use usermgr_core::domain::role::{Role, Roles};
use usermgr_core::domain::secret::SecretKeyId;
use usermgr_core::domain::user::User;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::register::Register;
use usermgr_core::flow::users::CreateUser;
use usermgr_core::flow::verify_email::Verify;
use usermgr_core::policy::HashPolicy;
use usermgr_core::port::random::SystemRandom;
use usermgr_core::port::store::code::NewCode;
use usermgr_core::port::store::{MailDraft, OutboxStore as _, StoreError, account};
use usermgr_core::testing::Mailbox;
use usermgr_core::{ClientContext, Error, Password, Policies, SecretKey, UserManager};

use super::{Connection, HostTransaction, Place, Pool, Store, TransactionError, begin, open};

const PASSWORD: &str = "correct horse battery";
/// How long something is waited for before a test gives up.
const PATIENCE: Duration = Duration::from_mins(1);

/// A host with a table of its own beside ours.
pub(super) struct Installation {
    pub(super) pool: Pool,
    pub(super) store: Store,
    pub(super) users: UserManager,
    mailbox: Arc<Mailbox>,
    client: ClientContext,
    _place: Place,
}

impl Installation {
    pub(super) async fn new() -> Self {
        let (place, pool, store) = open().await;
        store.migrate().await.unwrap();
        sqlx::query("CREATE TABLE tenants (name TEXT PRIMARY KEY)").execute(&pool).await.unwrap();
        let hashing = HashPolicy { memory_kib: 64, iterations: 1, ..HashPolicy::default() };
        let mut policies = Policies { hashing, ..Policies::default() };
        policies.codes.resend_interval = time::Duration::ZERO;
        let mailbox = Arc::new(Mailbox::default());
        let users = UserManager::builder()
            .store(Arc::new(store.clone()))
            .mailer(mailbox.clone())
            .secret_key(SecretKey::from_bytes(*b"0123456789abcdef0123456789abcdef"))
            .policies(policies)
            .build()
            .unwrap();
        users.jwks().await.unwrap();
        let client = ClientContext::new().with_ip("192.0.2.1".parse().unwrap());
        Self { pool, store, users, mailbox, client, _place: place }
    }

    pub(super) async fn join(&self) -> HostTransaction {
        self.store.in_tx(begin(&self.pool).await).await.unwrap()
    }

    pub(super) async fn register(&self, email: &str) -> Result<(), Error> {
        register(&self.users, email, &self.client).await
    }

    /// Registers and delivers, and answers the code.
    async fn code_of(&self, email: &str) -> String {
        self.register(email).await.unwrap();
        self.users.mail_worker().run_once().await.unwrap();
        self.mailbox.last_code(email).unwrap()
    }

    pub(super) async fn count(&self, table: &'static str) -> i64 {
        let sql = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    pub(super) async fn tenants(&self) -> i64 {
        self.count("tenants").await
    }
}

pub(super) async fn insert_tenant(connection: &mut Connection, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO tenants VALUES ($1)").bind(name).execute(connection).await.map(drop)
}

async fn register(users: &UserManager, email: &str, client: &ClientContext) -> Result<(), Error> {
    users.registration().register(Register::new(email, PASSWORD), client).await.map(drop)
}

pub(super) async fn create(users: &UserManager, email: &str) -> Result<User, Error> {
    let request = CreateUser { password: Some(Password::new(PASSWORD)), ..CreateUser::new(email) };
    users.users().create(Principal::Operator, request, &ClientContext::new()).await
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

pub(super) fn nobody() -> UserId {
    UserId::new(now(), &SystemRandom)
}

fn audit() -> AuditDraft {
    AuditDraft {
        id: AuditId::new(now(), &SystemRandom),
        event: AuditEvent::UserCreation,
        actor: None,
        email: None,
        ip: None,
        user_agent: None,
        request_id: None,
    }
}

fn creation(email: &str) -> account::CreateUser {
    account::CreateUser {
        now: now(),
        id: nobody(),
        email: email.parse().unwrap(),
        email_verified_at: None,
        username: None,
        locale: None,
        profile: None,
        roles: Roles::from([Role::user()]),
        password: None,
        invitation: None,
        by: None,
        audit: audit(),
        events: Vec::new(),
    }
}

tests![
    a_row_and_a_registration_are_committed_together,
    a_row_and_a_user_are_committed_together,
    a_row_and_a_deletion_are_committed_together,
    a_failing_statement_of_the_host_leaves_neither,
    a_command_that_fails_leaves_the_rest,
    a_command_that_is_given_up_is_taken_back,
    flows_see_what_the_host_has_not_committed,
    nobody_is_woken_by_a_transaction_that_is_rolled_back,
    the_worker_is_woken_by_the_commit,
    a_wrong_code_ends_the_transaction_and_counts,
    a_wrong_password_ends_the_transaction_and_counts,
    other_counts_go_with_the_transaction,
    what_is_over_is_over,
    what_is_done_outside_only_is_refused,
    two_tasks_take_turns,
    others_who_write_wait_and_go_on,
];

pub(super) async fn a_row_and_a_registration_are_committed_together() {
    let host = Installation::new().await;
    let joined = host.join().await;
    insert_tenant(&mut joined.connection().await.unwrap(), "acme").await.unwrap();
    register(&host.users.over(joined.store()), "ana@example.org", &host.client).await.unwrap();
    assert_eq!((host.tenants().await, host.count("usermgr_registrations").await), (0, 0));
    host.users.mail_worker().run_once().await.unwrap();
    assert!(host.mailbox.mails().is_empty(), "no mail leaves before the commit");
    joined.commit().await.unwrap();
    assert_eq!((host.tenants().await, host.count("usermgr_registrations").await), (1, 1));
    host.users.mail_worker().run_once().await.unwrap();
    let code = host.mailbox.last_code("ana@example.org").unwrap();
    host.users.registration().verify(Verify::new("ana@example.org", code), &host.client).await.unwrap();
}

pub(super) async fn a_row_and_a_user_are_committed_together() {
    let host = Installation::new().await;
    let code = host.code_of("ana@example.org").await;
    // Rolled back, the code is not spent.
    for commits in [false, true] {
        let joined = host.join().await;
        let users = host.users.over(joined.store());
        let verify = Verify::new("ana@example.org", code.clone());
        let user = users.registration().verify(verify, &host.client).await.unwrap();
        insert_tenant(&mut joined.connection().await.unwrap(), &user.id.to_string()).await.unwrap();
        let password = Password::new(PASSWORD);
        users.sessions().login("ana@example.org", &password, &host.client).await.unwrap();
        if commits { joined.commit().await } else { joined.rollback().await }.unwrap();
        let there = i64::from(commits);
        assert_eq!((host.tenants().await, host.count("usermgr_users").await), (there, there));
        assert_eq!(host.count("usermgr_sessions").await, there);
    }
}

pub(super) async fn a_row_and_a_deletion_are_committed_together() {
    let host = Installation::new().await;
    let ana = create(&host.users, "ana@example.org").await.unwrap();
    for commits in [false, true] {
        let joined = host.join().await;
        insert_tenant(&mut joined.connection().await.unwrap(), "ana has left").await.unwrap();
        let users = host.users.over(joined.store());
        users.users().delete(Principal::Operator, ana.id, &host.client).await.unwrap();
        if commits {
            joined.commit().await.unwrap();
        } else {
            drop(joined);
        }
        let found = host.users.users().get(Principal::Operator, ana.id, &host.client).await;
        assert_eq!((host.tenants().await, found.is_err()), (i64::from(commits), commits));
    }
}

pub(super) async fn a_failing_statement_of_the_host_leaves_neither() {
    let host = Installation::new().await;
    let ana = create(&host.users, "ana@example.org").await.unwrap();
    sqlx::query("INSERT INTO tenants VALUES ('acme')").execute(&host.pool).await.unwrap();
    let signs_up = async || -> Result<(), Box<dyn std::error::Error>> {
        let joined = host.join().await;
        let users = host.users.over(joined.store());
        register(&users, "bob@example.org", &host.client).await?;
        users.users().delete(Principal::Operator, ana.id, &host.client).await?;
        let mut connection = joined.connection().await?;
        insert_tenant(&mut connection, "fresh").await?;
        insert_tenant(&mut connection, "acme").await?;
        drop(connection);
        Ok(joined.commit().await?)
    };
    let refused = signs_up().await.unwrap_err();
    assert!(refused.to_string().to_lowercase().contains("unique"), "{refused}");
    assert_eq!((host.tenants().await, host.count("usermgr_registrations").await), (1, 0));
    host.users.users().get(Principal::Operator, ana.id, &host.client).await.unwrap();
    host.users.mail_worker().run_once().await.unwrap();
    assert!(host.mailbox.mails().is_empty());
}

pub(super) async fn a_command_that_fails_leaves_the_rest() {
    let host = Installation::new().await;
    let joined = host.join().await;
    let (store, users) = (joined.store(), host.users.over(joined.store()));
    insert_tenant(&mut joined.connection().await.unwrap(), "before").await.unwrap();
    create(&users, "before@example.org").await.unwrap();

    // The mail of the second invitation has the identifier of the first: the user is inserted, and then it fails.
    let mail = OutboxId::new(now(), &SystemRandom);
    let invitation = |email: &str| {
        let code = NewCode {
            id: CodeId::new(now(), &SystemRandom),
            form: CodeForm::from_digits(6).unwrap(),
            key: SecretKeyId::from_bytes([7; 8]),
            dies_at: now(),
        };
        let draft = MailDraft { id: mail, kind: MailKind::FirstTimeSetup };
        account::CreateUser { invitation: Some((code, draft)), ..creation(email) }
    };
    store.create_user(invitation("first@example.org")).await.unwrap();
    let failed = store.create_user(invitation("second@example.org")).await;
    assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");

    create(&users, "after@example.org").await.unwrap();
    insert_tenant(&mut joined.connection().await.unwrap(), "after").await.unwrap();
    joined.commit().await.unwrap();
    assert_eq!(host.tenants().await, 2);
    assert_eq!(host.count("usermgr_users WHERE email LIKE 'second%'").await, 0);
    let kept =
        "usermgr_users WHERE email IN ('before@example.org', 'first@example.org', 'after@example.org')";
    assert_eq!(host.count(kept).await, 3);
}

/// At each of its awaits: it leaves nothing, and the rest; or, while it began, nothing at all.
pub(super) async fn a_command_that_is_given_up_is_taken_back() {
    let host = Installation::new().await;
    let mut given_up = 0;
    for round in 0..10 {
        for steps in 1.. {
            let joined = host.join().await;
            let row = format!("row {round} {steps}");
            insert_tenant(&mut joined.connection().await.unwrap(), &row).await.unwrap();
            let store = joined.store();
            let tenants = host.tenants().await;
            let mut command = store.create_user(creation(&format!("user-{round}@example.org")));
            let is_done = steps_through(&mut command, steps).await;
            drop(command);
            let committed = joined.commit().await.is_ok();
            assert_eq!(host.tenants().await, tenants + i64::from(committed));
            let both = round + i64::from(is_done);
            let audited = host.count("usermgr_audit WHERE event = 'user_creation'").await;
            assert_eq!((host.count("usermgr_users").await, audited), (both, both));
            if is_done {
                break;
            }
            given_up += 1;
        }
    }
    assert!(given_up > 0);
}

/// Polls a future so often, each time when it says so. Whether it is done by then.
async fn steps_through<T>(future: &mut Pin<Box<dyn Future<Output = T> + Send + '_>>, steps: usize) -> bool {
    let woken = Arc::new(Woken::default());
    for _ in 0..steps {
        if future.as_mut().poll(&mut Context::from_waker(&Arc::clone(&woken).into())).is_ready() {
            return true;
        }
        tokio::time::timeout(PATIENCE, woken.0.notified()).await.unwrap();
    }
    false
}

/// Tells when a future is to be polled again.
#[derive(Default)]
struct Woken(tokio::sync::Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

pub(super) async fn flows_see_what_the_host_has_not_committed() {
    let host = Installation::new().await;
    let joined = host.join().await;
    let users = host.users.over(joined.store());
    let ana = create(&users, "ana@example.org").await.unwrap();
    sqlx::query("UPDATE usermgr_users SET locale = 'es'")
        .execute(&mut *joined.connection().await.unwrap())
        .await
        .unwrap();
    let inside = users.users().get(Principal::Operator, ana.id, &host.client).await.unwrap();
    assert_eq!(inside.locale.unwrap().as_str(), "es");
    let outside = host.users.users().get(Principal::Operator, ana.id, &host.client).await;
    assert!(matches!(outside, Err(Error::NotFound)), "{outside:?}");
}

pub(super) async fn the_worker_is_woken_by_the_commit() {
    let host = Installation::new().await;
    let store = host.store.clone();
    is_woken_by_the_commit(&host, store).await;
}

pub(super) async fn is_woken_by_the_commit(host: &Installation, waits: Store) {
    let waiter = tokio::spawn(async move { waits.wait_for_due(PATIENCE * 2).await });
    // It listens by then, or has it kept for it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let joined = host.join().await;
    register(&host.users.over(joined.store()), "ana@example.org", &host.client).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiter.is_finished(), "it is woken before there is anything to see");
    joined.commit().await.unwrap();
    tokio::time::timeout(PATIENCE, waiter).await.unwrap().unwrap();
}

pub(super) async fn nobody_is_woken_by_a_transaction_that_is_rolled_back() {
    let host = Installation::new().await;
    let store = host.store.clone();
    let waiter = tokio::spawn(async move { store.wait_for_due(PATIENCE * 2).await });
    let joined = host.join().await;
    register(&host.users.over(joined.store()), "ana@example.org", &host.client).await.unwrap();
    joined.rollback().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiter.is_finished());
    waiter.abort();
}

pub(super) async fn a_wrong_code_ends_the_transaction_and_counts() {
    let host = Installation::new().await;
    let code = host.code_of("ana@example.org").await;
    let wrong = if code == "000000" { "000001" } else { "000000" };
    for _ in 0..5 {
        let joined = host.join().await;
        insert_tenant(&mut joined.connection().await.unwrap(), "acme").await.unwrap();
        let users = host.users.over(joined.store());
        let guess = || Verify::new("ana@example.org", wrong);
        let refused = users.registration().verify(guess(), &host.client).await;
        assert!(matches!(refused, Err(Error::InvalidCode)), "{refused:?}");
        let another = users.registration().verify(guess(), &host.client).await;
        assert!(matches!(another, Err(Error::Internal(_))), "one transaction, one wrong guess: {another:?}");
        let ended = joined.connection().await.map(drop);
        assert!(matches!(ended, Err(TransactionError::Over)), "{ended:?}");
        assert!(matches!(joined.commit().await, Err(TransactionError::Over)));
    }
    assert_eq!(host.tenants().await, 0);
    assert_eq!(host.count("usermgr_audit WHERE reason = 'invalid_code'").await, 5);
    let joined = host.join().await;
    let users = host.users.over(joined.store());
    let right = users.registration().verify(Verify::new("ana@example.org", code), &host.client).await;
    assert!(right.is_err(), "the code is used up by guesses that the host rolled back: {right:?}");
}

pub(super) async fn a_wrong_password_ends_the_transaction_and_counts() {
    let host = Installation::new().await;
    create(&host.users, "ana@example.org").await.unwrap();
    let login = async |password: &str| {
        let joined = host.join().await;
        let users = host.users.over(joined.store());
        let answer = users.sessions().login("ana@example.org", &Password::new(password), &host.client).await;
        (answer.map(drop), joined)
    };
    let (right, joined) = login(PASSWORD).await;
    right.unwrap();
    joined.rollback().await.unwrap();
    for _ in 0..10 {
        let (wrong, joined) = login("a wrong password").await;
        assert!(matches!(wrong, Err(Error::InvalidCredentials)), "{wrong:?}");
        assert!(matches!(joined.rollback().await, Err(TransactionError::Over)));
    }
    let (right, _) = login(PASSWORD).await;
    assert!(matches!(right, Err(Error::TooManyAttempts { .. })), "{right:?}");
}

pub(super) async fn other_counts_go_with_the_transaction() {
    let host = Installation::new().await;
    for _ in 0..5 {
        let joined = host.join().await;
        register(&host.users.over(joined.store()), "ana@example.org", &host.client).await.unwrap();
    }
    for _ in 0..3 {
        host.register("ana@example.org").await.unwrap();
    }
    let joined = host.join().await;
    let fourth = register(&host.users.over(joined.store()), "ana@example.org", &host.client).await;
    assert!(matches!(fourth, Err(Error::RateLimited { .. })), "{fourth:?}");
    create(&host.users.over(joined.store()), "bob@example.org").await.unwrap();
    joined.commit().await.unwrap();
}

pub(super) async fn what_is_over_is_over() {
    let host = Installation::new().await;
    for commits in [true, false] {
        let joined = host.join().await;
        let (store, users) = (joined.store(), host.users.over(joined.store()));
        if commits { joined.commit().await } else { joined.rollback().await }.unwrap();
        assert!(matches!(store.user(nobody()).await, Err(StoreError::TransactionOver)));
        assert!(matches!(create(&users, "ana@example.org").await, Err(Error::Internal(_))));
    }
    let joined = host.join().await;
    let store = joined.store();
    drop(joined);
    assert!(matches!(store.ping().await, Err(StoreError::TransactionOver)), "dropped");
    host.register("ana@example.org").await.unwrap();
}

pub(super) async fn what_is_done_outside_only_is_refused() {
    use usermgr_core::port::store::event::EventQuery;
    use usermgr_core::port::store::key::{
        AddSigningKey, ResealSigningKey, RevokeSigningKeys, RevokedKeys, SealedSigningKey,
    };
    use usermgr_core::port::store::outbox::{Claim, DomainRoom, Lease, RenewLeases};
    use usermgr_core::port::store::upkeep::Purge;
    let host = Installation::new().await;
    create(&host.users, "ana@example.org").await.unwrap();
    let password = Password::new(PASSWORD);
    let session = host.users.sessions().login("ana@example.org", &password, &host.client).await.unwrap();
    let joined = host.join().await;
    let (store, users) = (joined.store(), host.users.over(joined.store()));
    let (lease, then) = (Lease([1; 16]), now());
    let claim = || Claim { now: then, lease, lease_until: then, limit: 1, room: DomainRoom::new(1) };
    let key = SealedSigningKey {
        id: usermgr_core::domain::id::SigningKeyId::new(then, &SystemRandom),
        algorithm: "EdDSA".to_owned(),
        created_at: then,
        signs_from: then,
        sealed: Vec::new(),
        revoked_at: None,
    };
    let which = RevokedKeys::All;
    let revoke = RevokeSigningKeys { now: then, which, replacement: key.clone(), audit: audit() };
    let reseal = ResealSigningKey { id: key.id, before: Vec::new(), after: Vec::new() };
    let purge = Purge {
        now: then,
        ended_before: then,
        settled_before: then,
        dead_before: then,
        audited_before: then,
        events_before: then,
        deleted_before: then,
        retired_before: then,
        known_before: then,
        marked_before: then,
        batch: 1,
    };
    let feed = EventQuery { after: Some(EventPosition::from_u64(0)), size: PageSize::default() };
    let answers = [
        store.claim(claim()).await.err(),
        store.settle_all(Vec::new()).await.err(),
        store.renew_mails(RenewLeases { lease_until: then, held: Vec::new() }).await.err(),
        store.events(feed).await.err(),
        store.claim_events(claim()).await.err(),
        store.settle_events(Vec::new()).await.err(),
        store.renew_events(RenewLeases { lease_until: then, held: Vec::new() }).await.err(),
        store.purge(purge).await.err(),
        store
            .add_signing_key(AddSigningKey { now: then, key, unless_since: None, audit: audit() })
            .await
            .err(),
        store.reseal_signing_key(reseal).await.err(),
        store.revoke_signing_keys(revoke).await.err(),
    ];
    for (index, answer) in answers.into_iter().enumerate() {
        assert!(matches!(answer, Some(StoreError::OutsideOnly)), "{index}: {answer:?}");
    }
    let renewed = users.sessions().refresh(&session.refresh_token, &host.client).await;
    assert!(matches!(renewed, Err(Error::Internal(_))), "{renewed:?}");
    joined.commit().await.unwrap();
    host.users.sessions().refresh(&session.refresh_token, &host.client).await.unwrap();
}

pub(super) async fn two_tasks_take_turns() {
    let host = Installation::new().await;
    let joined = host.join().await;
    let tasks = (0..16).map(|n| {
        let (users, client) = (host.users.over(joined.store()), host.client.clone());
        tokio::spawn(async move { register(&users, &format!("user-{n}@example.org"), &client).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        insert_tenant(&mut joined.connection().await.unwrap(), &task.id().to_string()).await.unwrap();
        task.await.unwrap().unwrap();
    }
    joined.commit().await.unwrap();
    assert_eq!((host.tenants().await, host.count("usermgr_registrations").await), (16, 16));
}

/// On SQLite all others wait; on PostgreSQL those on the same address, whose limits are counted.
pub(super) async fn others_who_write_wait_and_go_on() {
    let host = Arc::new(Installation::new().await);
    let joined = host.join().await;
    register(&host.users.over(joined.store()), "ana@example.org", &host.client).await.unwrap();
    let other = {
        let host = Arc::clone(&host);
        tokio::spawn(async move { host.register("ana@example.org").await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!other.is_finished());
    joined.commit().await.unwrap();
    tokio::time::timeout(PATIENCE, other).await.unwrap().unwrap().unwrap();
    assert_eq!(host.count("usermgr_registrations").await, 2);
}
