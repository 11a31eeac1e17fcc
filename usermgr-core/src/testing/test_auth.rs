//! A whole installation in memory, for the tests of an application.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Failure, FaultyStore, Mailbox, MemoryStore, StoreFault, TestClock, TestRandom};
use crate::domain::client::ClientContext;
use crate::domain::role::Role;
use crate::domain::secret::{Password, SecretKey};
use crate::flow::permission::Principal;
use crate::flow::sessions::SignedIn;
use crate::flow::users::CreateUser;
use crate::manager::{UserManager, UserManagerBuilder};
use crate::policy::{HashPolicy, Policies};
use crate::port::store::Store;

/// A [`UserManager`] over a store in memory, with all that a test moves: the clock, the mailbox, and what fails.
///
/// Hashing is as cheap as Argon2 can be, chance repeats itself, and the clock stands still until it is moved. All else is
/// as in production, the limits included: a second code within 30 seconds is refused until the clock is moved. Hooks, a
/// type of profiles, a store in a database and other parts of the application come in by [`with_parts`](Self::with_parts).
///
/// ```
/// use usermgr_core::flow::register::Register;
/// use usermgr_core::flow::verify_email::Verify;
/// use usermgr_core::testing::{Failure, TestAuth};
/// use usermgr_core::ClientContext;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let auth = TestAuth::new();
/// let (users, client) = (auth.users(), ClientContext::new());
///
/// auth.mail_fails(Some(Failure::Transient));
/// users.registration().register(Register::new("ana@example.org", "correct horse battery"), &client).await?;
/// assert_eq!(auth.last_code("ana@example.org").await, None);
///
/// auth.mail_fails(None);
/// auth.clock().advance(time::Duration::minutes(5)); // by then the worker tries again
/// let code = auth.last_code("ana@example.org").await.ok_or("no code")?;
/// users.registration().verify(Verify::new("ana@example.org", code), &client).await?;
///
/// let admin = auth.signed_in("admin").await;
/// assert!(users.sessions().authenticate(&admin.access_token).await.is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TestAuth {
    users: UserManager,
    store: FaultyStore,
    clock: Arc<TestClock>,
    mailbox: Arc<Mailbox>,
    signed_in: AtomicU32,
}

impl Default for TestAuth {
    fn default() -> Self {
        Self::new()
    }
}

impl TestAuth {
    /// The password of everybody whom [`signed_in`](Self::signed_in) makes.
    pub const PASSWORD: &str = "correct horse battery";

    /// An empty installation under the default rules.
    ///
    /// # Panics
    /// When the threads that hash cannot be started.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// An empty installation under rules of one's own.
    ///
    /// # Panics
    /// When the rules cannot be in force, or the threads that hash cannot be started.
    pub fn with(change: impl FnOnce(&mut Policies)) -> Self {
        let mut policies = Policies::default();
        cheap(&mut policies.hashing);
        change(&mut policies);
        Self::of(UserManager::builder().policies(policies))
    }

    /// An installation with parts of one's own: hooks, the type of profiles, a receiver of events, rules, jobs, texts of
    /// mails, and a store, which is an empty one in memory where none is given. Clock, mailer, chance and secret key are
    /// those of the test whatever is given, and hashing is as cheap.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use usermgr_core::port::hook::AllowedDomains;
    /// use usermgr_core::testing::TestAuth;
    /// use usermgr_core::{ClientContext, Error, UserManagerBuilder};
    /// # use usermgr_core::flow::register::Register;
    ///
    /// /// What the application adds, in production and in tests.
    /// fn parts(builder: UserManagerBuilder) -> UserManagerBuilder {
    ///     builder.hook(Arc::new(AllowedDomains::new(["example.org"]).expect("a domain")))
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let auth = TestAuth::with_parts(parts);
    /// let request = Register::new("ana@example.net", TestAuth::PASSWORD);
    /// let refused = auth.users().registration().register(request, &ClientContext::new()).await;
    /// assert!(matches!(refused, Err(Error::Refused(refusal)) if refusal.reason() == "domain_not_allowed"));
    /// # }
    /// ```
    ///
    /// # Panics
    /// When the rules cannot be in force, or the threads that hash cannot be started.
    pub fn with_parts(add: impl FnOnce(UserManagerBuilder) -> UserManagerBuilder) -> Self {
        let mut builder = add(UserManager::builder());
        cheap(&mut builder.policies.hashing);
        Self::of(builder)
    }

    #[expect(clippy::expect_used, reason = "a test that cannot be set up fails")]
    fn of(mut builder: UserManagerBuilder) -> Self {
        let store = FaultyStore::new(builder.store.take().unwrap_or_else(|| Arc::new(MemoryStore::new())));
        let (clock, mailbox) = (Arc::new(TestClock::default()), Arc::new(Mailbox::default()));
        let users = builder
            .store(Arc::new(store.clone()) as Arc<dyn Store>)
            .mailer(mailbox.clone())
            .clock(clock.clone())
            .random(Arc::new(TestRandom::default()))
            .secret_key(SecretKey::from_bytes(*b"a key that everybody knows: test"))
            .build()
            .expect("the rules of a test can be in force");
        Self { users, store, clock, mailbox, signed_in: AtomicU32::new(0) }
    }

    /// What the application under test is given.
    pub const fn users(&self) -> &UserManager {
        &self.users
    }

    /// The clock, which stands still until it is moved.
    pub fn clock(&self) -> &TestClock {
        &self.clock
    }

    /// Every mail that was delivered.
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Delivers the mails that are due, and tells of the events that are, where somebody is to be told. What fails is due
    /// again when the clock was moved.
    pub async fn deliver(&self) {
        let mails = self.users.mail_worker();
        while mails.run_once().await.is_ok_and(|delivered| delivered.attempts() > 0) {}
        let Some(events) = self.users.event_worker() else { return };
        while events.run_once().await.is_ok_and(|delivered| delivered.attempts() > 0) {}
    }

    /// The code in the last mail to an address that has one, once what is due was delivered.
    pub async fn last_code(&self, address: &str) -> Option<String> {
        self.deliver().await;
        self.mailbox.last_code(address)
    }

    /// The link in the last mail to an address that has one, once what is due was delivered.
    pub async fn last_link(&self, address: &str) -> Option<String> {
        self.deliver().await;
        self.mailbox.last_link(address)
    }

    /// The token of the link in the last mail to an address that has one, once what is due was delivered.
    pub async fn last_link_token(&self, address: &str) -> Option<String> {
        self.deliver().await;
        self.mailbox.last_link_token(address)
    }

    /// Somebody new who has a role and is signed in: `admin-1@example.org`, then `admin-2@example.org`, all with
    /// [`PASSWORD`](Self::PASSWORD).
    ///
    /// # Panics
    /// When there is no such role, or while the store fails.
    #[expect(clippy::expect_used, reason = "a test that cannot be set up fails")]
    pub async fn signed_in(&self, role: &str) -> SignedIn {
        let number = self.signed_in.fetch_add(1, Ordering::Relaxed) + 1;
        let email = format!("{role}-{number}@example.org");
        let role: Role = role.parse().expect("the name of a role");
        let (password, client) = (Password::new(Self::PASSWORD), ClientContext::new());
        let request = CreateUser::new(email.as_str()).with_password(password.clone()).with_roles([role]);
        self.users.users().create(Principal::Operator, request, &client).await.expect("a user can be made");
        self.users.sessions().login(&email, &password, &client).await.expect("the user can sign in")
    }

    /// From now on no mail gets through, or every one does.
    pub fn mail_fails(&self, failure: Option<Failure>) {
        self.mailbox.fail(failure);
    }

    /// From now on the store fails so, or it does not.
    pub fn store_fails(&self, fault: Option<StoreFault>) {
        self.store.fail(fault);
    }
}

/// The least that Argon2 takes: eight blocks for each lane.
fn cheap(hashing: &mut HashPolicy) {
    *hashing = HashPolicy { memory_kib: 8, iterations: 1, parallelism: 1, threads: Some(1), ..*hashing };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::{Event, EventKind};
    use crate::error::Error;
    use crate::flow::register::Register;
    use crate::flow::verify_email::Verify;
    use crate::port::events::{EventPublisher, PublishError};
    use crate::port::store::account::AccountStore;
    use crate::testing::held;
    use async_trait::async_trait;
    use std::sync::Mutex;
    use std::time::Duration;

    const ANA: &str = "ana@example.org";

    async fn register(auth: &TestAuth) -> Result<(), Error> {
        let request = Register::new(ANA, TestAuth::PASSWORD);
        auth.users().registration().register(request, &ClientContext::new()).await.map(drop)
    }

    #[tokio::test]
    async fn two_installations_send_the_same_codes() {
        let (one, other) = (TestAuth::new(), TestAuth::new());
        for auth in [&one, &other] {
            register(auth).await.unwrap();
        }
        let code = one.last_code(ANA).await;
        assert!(code.is_some());
        assert_eq!(code, other.last_code(ANA).await);
    }

    /// Keeps what it is told of, and fails once.
    #[derive(Debug, Default)]
    struct Told(Mutex<Vec<EventKind>>, AtomicU32);

    #[async_trait]
    impl EventPublisher for Told {
        async fn publish(&self, event: &Event) -> Result<(), PublishError> {
            if self.1.fetch_add(1, Ordering::Relaxed) == 0 {
                return Err(PublishError::new("not now"));
            }
            held(&self.0).push(event.kind);
            Ok(())
        }
    }

    #[tokio::test]
    async fn parts_of_ones_own_work_and_those_of_the_test_stay() {
        let told = Arc::new(Told::default());
        let stopped = Arc::new(TestClock::default());
        let own = Arc::new(MemoryStore::new());
        let mut policies = Policies::default();
        policies.codes.ttl = time::Duration::minutes(2);
        let auth = TestAuth::with_parts(|builder| {
            builder.store(own.clone()).events(told.clone()).clock(stopped.clone()).policies(policies)
        });
        register(&auth).await.unwrap();
        let code = auth.last_code(ANA).await.unwrap();
        auth.clock().advance(time::Duration::minutes(3));
        let verified =
            auth.users().registration().verify(Verify::new(ANA, code), &ClientContext::new()).await;
        assert!(matches!(verified, Err(Error::CodeExpired)));

        let user = auth.signed_in("user").await.user;
        assert!(AccountStore::user(&*own, user.id).await.unwrap().is_some());
        auth.deliver().await;
        assert_eq!(*held(&told.0), []);
        auth.clock().advance(time::Duration::minutes(5));
        auth.deliver().await;
        assert_eq!(*held(&told.0), [EventKind::UserRegistered, EventKind::SignedIn]);

        auth.store_fails(Some(StoreFault::Down));
        assert!(auth.users().ping().await.is_err());
    }

    #[tokio::test]
    async fn a_store_that_is_down_does_nothing() {
        let auth = TestAuth::new();
        auth.store_fails(Some(StoreFault::Down));
        assert!(matches!(register(&auth).await, Err(Error::Unavailable(_))));
        auth.store_fails(None);
        assert_eq!(auth.last_code(ANA).await, None);
    }

    #[tokio::test]
    async fn a_commit_whose_answer_is_lost_is_there() {
        let auth = TestAuth::new();
        auth.store_fails(Some(StoreFault::CommitUnanswered));
        assert!(matches!(register(&auth).await, Err(Error::Unavailable(_))));
        auth.store_fails(None);
        let code = auth.last_code(ANA).await.unwrap();
        let verify = Verify::new(ANA, code);
        assert!(auth.users().registration().verify(verify, &ClientContext::new()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_store_takes_its_time() {
        let auth = TestAuth::new();
        auth.store_fails(Some(StoreFault::Slow(Duration::from_secs(7))));
        let begun = tokio::time::Instant::now();
        auth.users().ping().await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(7));
    }

    #[tokio::test]
    async fn each_who_is_signed_in_is_somebody_else() {
        let auth = TestAuth::new();
        let (one, other) = (auth.signed_in("user").await, auth.signed_in("admin").await);
        assert_ne!(one.user.id, other.user.id);
        assert!(other.user.roles.contains(&Role::admin()) && !one.user.roles.contains(&Role::admin()));
    }
}
