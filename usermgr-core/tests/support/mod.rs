//! A manager over the reference model, with its clock and its mailbox.
#![allow(dead_code, unreachable_pub, reason = "not every test file needs every part")]

use std::sync::Arc;

use usermgr_core::flow::register::{Accepted, Register};
use usermgr_core::flow::verify_email::Verify;
use usermgr_core::policy::HashPolicy;
use usermgr_core::port::store::Store;
use usermgr_core::testing::{Mailbox, MemoryStore, TestClock};
use usermgr_core::{ClientContext, Password, Policies, SecretKey, User, UserManager, UserManagerBuilder};

pub const ANA: &str = "ana@example.org";
pub const PASSWORD: &str = "correct horse battery";
pub const OTHER: &str = "another fine password";

pub struct World {
    pub users: UserManager,
    pub store: Arc<MemoryStore>,
    pub clock: Arc<TestClock>,
    pub mailbox: Arc<Mailbox>,
    pub client: ClientContext,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// With other rules than the defaults. Hashing is cheap here, and requests may follow each other at once.
    pub fn with(change: impl FnOnce(&mut Policies)) -> Self {
        Self::built(change, |builder| builder)
    }

    /// With other rules, and parts of the host's own.
    pub fn built(
        change: impl FnOnce(&mut Policies),
        with: impl FnOnce(UserManagerBuilder) -> UserManagerBuilder,
    ) -> Self {
        let hashing = HashPolicy { memory_kib: 64, iterations: 1, ..HashPolicy::default() };
        let mut policies = Policies { hashing, ..Policies::default() };
        policies.codes.resend_interval = time::Duration::ZERO;
        change(&mut policies);
        let (store, clock, mailbox) =
            (Arc::new(MemoryStore::default()), Arc::new(TestClock::default()), Arc::new(Mailbox::default()));
        let builder = UserManager::builder()
            .store(Arc::clone(&store) as Arc<dyn Store>)
            .mailer(mailbox.clone())
            .clock(clock.clone())
            .secret_key(SecretKey::from_bytes(*b"0123456789abcdef0123456789abcdef"))
            .policies(policies);
        let users = with(builder).build().unwrap();
        Self { users, store, clock, mailbox, client: from("192.0.2.1") }
    }

    pub async fn deliver(&self) {
        self.users.mail_worker().run_once().await.unwrap();
    }

    pub async fn register(&self, email: &str, password: &str) -> Accepted {
        let accepted =
            self.users.registration().register(Register::new(email, password), &self.client).await.unwrap();
        self.deliver().await;
        accepted
    }

    pub async fn user(&self, email: &str, password: &str) -> User {
        self.register(email, password).await;
        let code = self.mailbox.last_code(email).unwrap();
        let user = self.users.registration().verify(Verify::new(email, code), &self.client).await.unwrap();
        self.deliver().await;
        user
    }

    pub async fn signs_in(&self, email: &str, password: &str) -> bool {
        self.users.sessions().login(email, &Password::new(password), &self.client).await.is_ok()
    }
}

/// A client with this address.
pub fn from(ip: &str) -> ClientContext {
    ClientContext::new().with_ip(ip.parse().unwrap())
}

/// A code that is not this one.
pub fn other_than(code: &str) -> String {
    let digits = code.len();
    let number: u64 = code.parse().unwrap();
    format!("{:0digits$}", (number + 1) % 10_u64.pow(u32::try_from(digits).unwrap()))
}
