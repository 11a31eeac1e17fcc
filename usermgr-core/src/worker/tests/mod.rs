//! The workers over doubles of the ports, in tokio's paused time.

mod delivery;
mod event;
mod handle;
mod schedule;
mod upkeep;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use time::{Duration, OffsetDateTime};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::mail::{Inner, MailWorker};
use crate::crypto::secret_keys::SecretKeys;
use crate::domain::code::{CodeForm, CodeLength, CodePurpose};
use crate::domain::email::Email;
use crate::domain::id::{CodeId, OutboxId};
use crate::domain::mail::{MailKind, OwedCode, OwedMail};
use crate::domain::page::Page;
use crate::domain::secret::{SecretKey, SecretKeyId};
use crate::policy::Policies;
use crate::port::clock::Clock;
use crate::port::mailer::{Mail, MailError, Mailer};
use crate::port::random::SystemRandom;
use crate::port::store::StoreError;
use crate::port::store::outbox::{
    Claim, Claimed, DeliveryResult, Lease, OutboxEntry, OutboxQuery, OutboxStore, RenewLeases, Renewed,
    Requeue, Requeued, Settle, Settled,
};
use crate::template::{BuiltInTemplates, MailTemplates};

/// The time of tokio, from some day on.
#[derive(Debug)]
struct TokioClock(Instant);

impl TokioClock {
    fn new() -> Arc<Self> {
        Arc::new(Self(Instant::now()))
    }
}

impl Clock for TokioClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::days(20_000) + self.0.elapsed()
    }
}

/// A mail of the outbox double.
#[derive(Debug, Clone)]
struct Row {
    mail: OwedMail,
    due: OffsetDateTime,
    lease: Option<Lease>,
    attempts: u32,
    settled: Vec<DeliveryResult>,
    done: bool,
}

/// An outbox in memory, with faults to order.
#[derive(Debug, Default)]
struct Outbox {
    rows: Mutex<BTreeMap<OutboxId, Row>>,
    signal: Notify,
    claims: AtomicU32,
    /// How many claims found nothing.
    empty_claims: AtomicU32,
    largest_claim: AtomicU32,
    largest_settlement: AtomicU32,
    /// How many of the next claims fail.
    failing_claims: AtomicU32,
    /// How many of the next claims are made, and their answer lost.
    unanswered_claims: AtomicU32,
    /// How many of the next claims panic.
    panicking_claims: AtomicU32,
    /// Whether it always says at once that something may be due.
    restless: AtomicBool,
    /// How many of the next settlements fail.
    failing_settlements: AtomicU32,
    /// How many renewals were made.
    renewals: AtomicU32,
    /// How many of the next renewals fail.
    failing_renewals: AtomicU32,
    /// How many of the next claims, renewals and settlements never end.
    hanging: AtomicU32,
}

fn take_one(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl Outbox {
    fn owe(&self, mail: OwedMail) -> OutboxId {
        let id = mail.id;
        let due = OffsetDateTime::UNIX_EPOCH;
        let row = Row { mail, due, lease: None, attempts: 0, settled: Vec::new(), done: false };
        self.rows.lock().unwrap().insert(id, row);
        self.signal.notify_one();
        id
    }

    fn row(&self, id: OutboxId) -> Row {
        self.rows.lock().unwrap()[&id].clone()
    }

    fn all_done(&self) -> bool {
        self.rows.lock().unwrap().values().all(|row| row.done)
    }
}

#[async_trait]
impl OutboxStore for Outbox {
    async fn claim(&self, command: Claim) -> Result<Vec<Claimed>, StoreError> {
        self.claims.fetch_add(1, Ordering::SeqCst);
        self.largest_claim.fetch_max(command.limit, Ordering::SeqCst);
        assert!(!take_one(&self.panicking_claims), "planted");
        if take_one(&self.hanging) {
            std::future::pending::<()>().await;
        }
        if take_one(&self.failing_claims) {
            return Err(StoreError::unavailable("planted"));
        }
        let mut rows = self.rows.lock().unwrap();
        let again = |row: &&Row| !row.done && row.lease == Some(command.lease);
        let again: Vec<_> = rows.values().filter(again).map(|row| (row.mail.clone(), row.attempts)).collect();
        if !again.is_empty() {
            return Ok(again.into_iter().map(|(mail, attempt)| Claimed { mail, attempt }).collect());
        }
        let mut due: Vec<&mut Row> =
            rows.values_mut().filter(|row| !row.done && row.due <= command.now).collect();
        due.sort_by_key(|row| row.due);
        let mut room = command.room;
        let due = due.into_iter().filter(|row| room.take(row.mail.to.domain()));
        let claimed = due.take(command.limit as usize).map(|row| {
            row.due = command.lease_until;
            row.lease = Some(command.lease);
            row.attempts += 1;
            Claimed { mail: row.mail.clone(), attempt: row.attempts }
        });
        let claimed: Vec<_> = claimed.collect();
        self.empty_claims.fetch_add(u32::from(claimed.is_empty()), Ordering::SeqCst);
        if take_one(&self.unanswered_claims) {
            return Err(StoreError::unavailable("planted"));
        }
        Ok(claimed)
    }

    async fn settle_all(&self, commands: Vec<Settle>) -> Result<Vec<Settled>, StoreError> {
        if take_one(&self.hanging) {
            std::future::pending::<()>().await;
        }
        if take_one(&self.failing_settlements) {
            return Err(StoreError::unavailable("planted"));
        }
        self.largest_settlement.fetch_max(u32::try_from(commands.len()).unwrap(), Ordering::SeqCst);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        let mut rows = self.rows.lock().unwrap();
        let mut settle = |command: Settle| {
            let row = rows.get_mut(&command.id).unwrap();
            if row.done || row.lease != Some(command.lease) {
                return Settled::LostLease;
            }
            row.lease = None;
            match &command.result {
                DeliveryResult::Retry { at, .. } => row.due = *at,
                DeliveryResult::Sent { .. } | DeliveryResult::Dead { .. } => row.done = true,
            }
            row.settled.push(command.result);
            Settled::Settled
        };
        Ok(commands.into_iter().map(&mut settle).collect())
    }

    async fn renew_mails(&self, command: RenewLeases<OutboxId>) -> Result<Vec<Renewed>, StoreError> {
        if take_one(&self.hanging) {
            std::future::pending::<()>().await;
        }
        if take_one(&self.failing_renewals) {
            return Err(StoreError::unavailable("planted"));
        }
        self.renewals.fetch_add(1, Ordering::SeqCst);
        let mut rows = self.rows.lock().unwrap();
        let renew = |(id, lease)| match rows.get_mut(&id) {
            Some(row) if !row.done && row.lease == Some(lease) => {
                row.due = command.lease_until;
                Renewed::Kept
            }
            _ => Renewed::Lost,
        };
        Ok(command.held.into_iter().map(renew).collect())
    }

    async fn requeue(&self, _: Requeue) -> Result<Requeued, StoreError> {
        Err(StoreError::unavailable("not part of the double"))
    }

    async fn outbox(&self, _: OutboxQuery) -> Result<Page<OutboxEntry, OutboxId>, StoreError> {
        Err(StoreError::unavailable("not part of the double"))
    }

    async fn wait_for_due(&self, at_most: std::time::Duration) {
        if self.restless.load(Ordering::SeqCst) {
            return;
        }
        let _ = tokio::time::timeout(at_most, self.signal.notified()).await;
    }
}

/// What a mail brings about, by the receiver's name.
#[derive(Debug, Default)]
struct Post {
    /// Each mail as it was handed over, and when.
    taken: Mutex<Vec<(Mail, Instant)>>,
    under_way: AtomicU32,
    most_under_way: AtomicU32,
}

impl Post {
    fn times(&self) -> Vec<Instant> {
        self.taken.lock().unwrap().iter().map(|(_, at)| *at).collect()
    }

    fn mails(&self) -> Vec<Mail> {
        self.taken.lock().unwrap().iter().map(|(mail, _)| mail.clone()).collect()
    }
}

#[async_trait]
impl Mailer for Post {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        self.taken.lock().unwrap().push((mail.clone(), Instant::now()));
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(under_way, Ordering::SeqCst);
        let answer = match mail.to.local() {
            "transient" => Err(MailError::transient("421 try again later")),
            "asks" => Err(MailError::transient("429").with_retry_after(std::time::Duration::from_secs(600))),
            "asks-long" => Err(MailError::transient("429").with_retry_after(std::time::Duration::MAX)),
            "permanent" => Err(MailError::permanent("550 no such user")),
            "panic" => panic!("planted"),
            "slow" => {
                tokio::time::sleep(std::time::Duration::from_secs(10)).await;
                Ok(())
            }
            "never" => std::future::pending().await,
            _ => Ok(()),
        };
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        answer
    }
}

/// A worker over doubles.
struct Bench {
    outbox: Arc<Outbox>,
    post: Arc<Post>,
    clock: Arc<TokioClock>,
    secrets: SecretKeys,
    key: SecretKeyId,
    templates: Arc<dyn MailTemplates>,
    policies: Policies,
}

impl Bench {
    fn new() -> Self {
        let secrets = SecretKeys::new(SecretKey::from_bytes([7; 32]), Vec::new());
        Self {
            outbox: Arc::default(),
            post: Arc::default(),
            clock: TokioClock::new(),
            key: secrets.current_id(),
            secrets,
            templates: Arc::new(BuiltInTemplates::default()),
            policies: Policies::default(),
        }
    }

    fn worker(&self) -> MailWorker {
        MailWorker {
            inner: Arc::new(Inner {
                outbox: Arc::clone(&self.outbox) as _,
                mailer: Arc::clone(&self.post) as _,
                templates: Arc::clone(&self.templates),
                clock: Arc::clone(&self.clock) as _,
                random: Arc::new(SystemRandom),
                secrets: self.secrets.clone(),
                policies: Arc::new(self.policies.clone()),
            }),
        }
    }

    fn mail(&self, local: &str, kind: MailKind, code: Option<OwedCode>) -> OwedMail {
        OwedMail {
            id: OutboxId::new(self.clock.now(), &SystemRandom),
            kind,
            to: Email::parse(local).or_else(|_| Email::parse(&format!("{local}@example.org"))).unwrap(),
            locale: None,
            username: None,
            code,
            created_at: self.clock.now(),
        }
    }

    fn code(&self, form: CodeForm) -> OwedCode {
        let id = CodeId::new(self.clock.now(), &SystemRandom);
        OwedCode { id, purpose: CodePurpose::EmailVerification, form, key: self.key }
    }

    /// Owes a mail with a code to somebody of this name, or at this address.
    fn owe_code(&self, local: &str) -> OutboxId {
        let code = self.code(CodeForm::Digits(CodeLength::SIX));
        self.owe(self.mail(local, MailKind::VerifyEmail, Some(code)))
    }

    fn owe(&self, mail: OwedMail) -> OutboxId {
        self.outbox.owe(mail)
    }
}
