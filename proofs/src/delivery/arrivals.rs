//! What arrived, from whom, and when.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use usermgr_smtp::testing::ReceivedMail;
use uuid::Uuid;

use crate::mail::message_id;
use crate::mail_server::Posted;
use crate::moment::{Moment, now};

/// A mail that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrival {
    /// What the other side tells mails apart by: the `Message-ID` or the `Idempotency-Key`.
    pub(super) key: String,
    /// Which mail it is.
    pub(super) mail: Uuid,
    pub(super) to: String,
    /// The worker that brought it, by its number.
    pub(super) by: usize,
    pub(super) at: Moment,
    /// Of every byte.
    pub(super) fingerprint: u64,
}

/// Everything that arrived.
#[derive(Default)]
pub(super) struct Arrivals {
    all: Mutex<Vec<Arrival>>,
    count: watch::Sender<usize>,
}

impl Arrivals {
    pub(super) fn take_mail(&self, by: usize, mail: &ReceivedMail) {
        let (id, to) = (message_id(mail), mail.to.first().cloned().unwrap_or_default());
        self.add(Arrival {
            key: id.to_string(),
            mail: id,
            to,
            by,
            at: now(),
            fingerprint: fingerprint(&mail.raw),
        });
    }

    pub(super) fn take_post(&self, by: usize, posted: &Posted) {
        let body: serde_json::Value = serde_json::from_slice(&posted.body).unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        let (mail, to) = (text("id").parse().unwrap_or_default(), text("to").to_owned());
        let key = posted.key.clone();
        self.add(Arrival { key, mail, to, by, at: now(), fingerprint: fingerprint(&posted.body) });
    }

    fn add(&self, arrival: Arrival) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
        self.count.send_modify(|count| *count += 1);
    }

    /// Returns when so many arrived. False when nothing arrives for too long.
    pub(super) async fn wait_for(&self, wanted: usize, still: Duration) -> bool {
        let mut count = self.count.subscribe();
        while *count.borrow_and_update() < wanted {
            if tokio::time::timeout(still, count.changed()).await.is_err() {
                return false;
            }
        }
        true
    }

    pub(super) fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// When a mail came to an address, once it did.
    pub(super) fn came(&self, to: &str) -> Option<Moment> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().rev().find(|arrival| arrival.to == to).map(|arrival| arrival.at)
    }

    /// All, by mail, in the order they came.
    pub(super) fn by_mail(&self) -> HashMap<Uuid, Vec<Arrival>> {
        let mut by_mail: HashMap<Uuid, Vec<Arrival>> = HashMap::new();
        for arrival in self.all.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            by_mail.entry(arrival.mail).or_default().push(arrival.clone());
        }
        by_mail
    }
}

fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
