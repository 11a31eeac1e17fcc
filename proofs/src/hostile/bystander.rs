//! Somebody else: from another address, over new connections, asking for health and signing in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;

use super::wire::Asker;
use super::{ELSEWHERE, PASSWORD, SOON, Target, USER};
use crate::Trouble;

/// The pause between two calls of a kind.
pub(super) const PAUSE: Duration = Duration::from_millis(200);
/// The pause during a flood that is over within a second.
pub(super) const SHORT_PAUSE: Duration = Duration::from_millis(20);

/// Somebody who goes on asking.
pub(super) struct Bystander {
    ended: Arc<AtomicBool>,
    asking: Vec<JoinHandle<Calls>>,
}

/// Calls of one kind.
#[derive(Debug, Default)]
pub(super) struct Calls {
    number: usize,
    slowest: Duration,
    failed: Vec<String>,
}

/// How somebody else was answered.
#[derive(Debug)]
pub(super) struct Seen {
    health: Calls,
    sign_in: Option<Calls>,
}

impl Bystander {
    /// Begins to ask, and to sign in if told so, with a pause after each call.
    pub(super) async fn begin(target: Target, signs_in: bool, pause: Duration) -> Result<Self, Trouble> {
        let ended = Arc::new(AtomicBool::new(false));
        let mut asking = vec![tokio::spawn(ask(target, false, pause, Arc::clone(&ended)))];
        if signs_in {
            asking.push(tokio::spawn(ask(target, true, pause, Arc::clone(&ended))));
        }
        tokio::task::yield_now().await;
        Ok(Self { ended, asking })
    }

    pub(super) async fn end(self) -> Result<Seen, Trouble> {
        self.ended.store(true, Ordering::Relaxed);
        let mut asked = futures_util::future::try_join_all(self.asking).await?.into_iter();
        Ok(Seen { health: asked.next().unwrap_or_default(), sign_in: asked.next() })
    }
}

async fn ask(target: Target, signs_in: bool, pause: Duration, ended: Arc<AtomicBool>) -> Calls {
    let mut calls = Calls::default();
    let body = signs_in.then(|| json!({"email": USER, "password": PASSWORD}));
    let path = if signs_in { "/v1/users/login" } else { "/health/ready" };
    while !ended.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let asking = async {
            let mut asker = Asker::connect(ELSEWHERE, target.address).await?;
            asker.ask(path, body.as_ref()).await
        };
        let answer = tokio::time::timeout(SOON * 2, asking).await;
        let took = begun.elapsed();
        calls.number += 1;
        calls.slowest = calls.slowest.max(took);
        match answer {
            Ok(Ok((200, _))) if took <= SOON => {}
            Ok(Ok((200, _))) => calls.failed.push(format!("answered after {:.1} s", took.as_secs_f64())),
            Ok(Ok((status, _))) => calls.failed.push(format!("answered {status}")),
            Ok(Err(error)) => calls.failed.push(error.to_string()),
            Err(_) => calls.failed.push(format!("not answered within {} s", (SOON * 2).as_secs())),
        }
        tokio::time::sleep(pause).await;
    }
    calls
}

impl Seen {
    fn kinds(&self) -> impl Iterator<Item = (&'static str, &Calls)> {
        [("/health/ready", &self.health)]
            .into_iter()
            .chain(self.sign_in.as_ref().map(|calls| ("sign-in", calls)))
    }

    /// Calls, failed ones, and the slowest of each kind.
    pub(super) fn cells(&self) -> (String, String, String, String) {
        let of = |number: fn(&Calls) -> usize| {
            self.kinds().map(|(_, calls)| number(calls)).sum::<usize>().to_string()
        };
        let slowest = |calls: &Calls| format!("{:.2} s", calls.slowest.as_secs_f64());
        (
            of(|calls| calls.number),
            of(|calls| calls.failed.len()),
            slowest(&self.health),
            self.sign_in.as_ref().map_or_else(String::new, slowest),
        )
    }

    pub(super) fn faults(&self, attack: &str) -> Vec<String> {
        let told = |(kind, calls): (&str, &Calls)| {
            let first = calls.failed.first()?;
            let (failed, number) = (calls.failed.len(), calls.number);
            Some(format!("{attack}: {failed} of {number} calls of somebody else ({kind}) failed: {first}"))
        };
        let too_few = (self.health.number < 5).then(|| format!("{attack}: somebody else hardly asked"));
        self.kinds().filter_map(told).chain(too_few).collect()
    }
}
