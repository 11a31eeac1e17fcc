//! For tests, here and in applications: [`TestAuth`], a whole installation in memory; and its parts, a store in memory,
//! a clock that is set by hand, a mailbox that keeps what it gets, a source of chance that repeats itself, a store that
//! fails when it is told to; and the [conformance suite](crate::conformance) for stores. The mocks of every port, for
//! those who want to say which calls they expect, stand beside their traits, for example
//! [`MockMailer`](crate::port::mailer::MockMailer).

mod faulty_store;
mod test_auth;

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use time::{Duration, OffsetDateTime};

use crate::port::clock::Clock;
use crate::port::mailer::{Mail, MailError, Mailer};
use crate::port::random::Random;

pub use crate::memory::MemoryStore;
pub use faulty_store::{FaultyStore, StoreFault};
pub use test_auth::TestAuth;

/// A clock that stands still until it is moved. It begins on 1 January 2026 at noon, UTC.
///
/// ```
/// use usermgr_core::testing::TestAuth;
/// use usermgr_core::Error;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let auth = TestAuth::new();
/// let ana = auth.signed_in("user").await;
/// auth.clock().advance(time::Duration::minutes(16));
/// let late = auth.users().sessions().authenticate(&ana.access_token).await;
/// assert!(matches!(late, Err(Error::InvalidToken)));
/// # }
/// ```
#[derive(Debug)]
pub struct TestClock(Mutex<OffsetDateTime>);

impl Default for TestClock {
    fn default() -> Self {
        Self(Mutex::new(time::macros::datetime!(2026-01-01 12:00 UTC)))
    }
}

impl TestClock {
    /// Moves the clock, also back.
    pub fn advance(&self, by: Duration) {
        *held(&self.0) += by;
    }

    /// Sets the clock.
    pub fn set(&self, now: OffsetDateTime) {
        *held(&self.0) = now;
    }
}

impl Clock for TestClock {
    fn now(&self) -> OffsetDateTime {
        *held(&self.0)
    }
}

/// A source of chance that gives the same bytes in every run.
///
/// # Security
/// Everybody can tell what comes next: for tests only.
#[derive(Debug, Default)]
pub struct TestRandom(Mutex<u64>);

impl Random for TestRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let mut state = held(&self.0);
        for byte in bytes {
            // SplitMix64: short, and no two states give the same row of bytes.
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = *state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (mixed >> 56) as u8;
        }
    }
}

/// A mailbox: takes every mail, keeps it, and can be told to fail.
///
/// ```
/// use std::sync::Arc;
/// use usermgr_core::flow::permission::Principal;
/// use usermgr_core::flow::users::CreateUser;
/// use usermgr_core::testing::{Mailbox, MemoryStore};
/// use usermgr_core::{ClientContext, SecretKey, UserManager};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mailbox = Arc::new(Mailbox::default());
/// let users = UserManager::builder()
///     .store(Arc::new(MemoryStore::default()))
///     .mailer(mailbox.clone())
///     .secret_key(SecretKey::from_bytes([7; 32]))
///     .build()?;
/// let request = CreateUser::new("ana@example.org").with_locale("es");
/// users.users().create(Principal::Operator, request, &ClientContext::new()).await?;
/// users.mail_worker().run_once().await?;
///
/// let mail = mailbox.last("ana@example.org").ok_or("no mail")?;
/// assert!(mail.text.contains("código"));
/// assert!(mailbox.last_code("ana@example.org").is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Mailbox {
    mails: Mutex<Vec<Mail>>,
    failure: Mutex<Option<Failure>>,
}

/// How a [`Mailbox`] fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a mail fails for now or for good")]
pub enum Failure {
    /// As if the other side were down: another attempt may succeed.
    Transient,
    /// As if the address did not exist: no attempt will succeed.
    Permanent,
}

impl Mailbox {
    /// Every mail so far, in the order they came.
    pub fn mails(&self) -> Vec<Mail> {
        held(&self.mails).clone()
    }

    /// The last mail to an address.
    pub fn last(&self, address: &str) -> Option<Mail> {
        held(&self.mails).iter().rev().find(|mail| mail.to.as_str() == address).cloned()
    }

    /// The code in the last mail to an address that has one: a line of four to ten digits.
    pub fn last_code(&self, address: &str) -> Option<String> {
        let is_code =
            |line: &&str| (4..=10).contains(&line.len()) && line.bytes().all(|b| b.is_ascii_digit());
        self.last_line(address, |text| text.lines().map(str::trim).find(is_code).map(str::to_owned))
    }

    /// The link in the last mail to an address that has one.
    pub fn last_link(&self, address: &str) -> Option<String> {
        let is_link = |line: &&str| line.contains("#token=");
        self.last_line(address, |text| text.lines().map(str::trim).find(is_link).map(str::to_owned))
    }

    /// The token of the link in the last mail to an address that has one.
    pub fn last_link_token(&self, address: &str) -> Option<String> {
        Some(self.last_link(address)?.rsplit_once("#token=")?.1.to_owned())
    }

    fn last_line(&self, address: &str, find: impl Fn(&str) -> Option<String>) -> Option<String> {
        held(&self.mails)
            .iter()
            .rev()
            .filter(|mail| mail.to.as_str() == address)
            .find_map(|mail| find(&mail.text))
    }

    /// From now on every mail fails so, or none does.
    pub fn fail(&self, failure: Option<Failure>) {
        *held(&self.failure) = failure;
    }
}

#[async_trait]
impl Mailer for Mailbox {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        match *held(&self.failure) {
            Some(Failure::Transient) => return Err(MailError::transient("the mailbox was told to fail")),
            Some(Failure::Permanent) => return Err(MailError::permanent("the mailbox was told to fail")),
            None => {}
        }
        held(&self.mails).push(mail.clone());
        Ok(())
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
