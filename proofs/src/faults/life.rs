//! Somebody who registers, proves the address, signs in, renews the session, changes the password and signs out, over and
//! over with a new address; what was acknowledged, and whether it is there afterwards.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use http::Method;
use serde_json::json;

use super::ANSWER;
use crate::Trouble;
use crate::chance::Chance;
use crate::client::{Call, Line, Request};
use crate::lane::{PASSWORD, login, registration, verification};
use crate::mail::Mailbox;

const SECOND: &str = "another fine password";
/// How long a mail may take while nothing is wrong with the mail server.
const MAIL: Duration = Duration::from_secs(10);

/// A call and its answer.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) label: String,
    /// Since the load began, as the end.
    pub(super) start: Duration,
    pub(super) end: Duration,
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) retry_after: Option<String>,
    expected: u16,
}

impl Seen {
    /// Whether it was answered as when nothing is wrong.
    pub(super) const fn is_expected(&self) -> bool {
        self.status == self.expected
    }
}

/// What is known of one address.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub(super) struct Life {
    email: String,
    /// Whether a registration was acknowledged, and so a mail.
    is_registered: bool,
    is_verified: bool,
    /// The password that signs in; unknown while a change of it was not answered.
    password: Option<&'static str>,
    was_changed: bool,
    access: Option<String>,
    /// Unknown while a renewal was not answered.
    refresh: Option<String>,
    has_signed_out: bool,
    acknowledged: usize,
}

impl Life {
    /// How many effects were acknowledged.
    pub(super) const fn acknowledged(&self) -> usize {
        self.acknowledged
    }
}

pub(super) struct Visitor {
    number: usize,
    line: Line,
    mailbox: Mailbox,
    begun: Instant,
    seen: Vec<Seen>,
}

impl Visitor {
    pub(super) fn new(number: usize, server: SocketAddr, mailbox: Mailbox, begun: Instant) -> Self {
        Self { number, line: Line::new(0, server).patient(ANSWER), mailbox, begun, seen: Vec::new() }
    }

    /// One life after the other, until told to stop.
    pub(super) async fn go(mut self, stop: Arc<AtomicBool>) -> (Vec<Seen>, Vec<Life>) {
        let mut lives = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let email = format!("v{}-{}@example.org", self.number, lives.len());
            let mut life = Life { email, ..Life::default() };
            let well = self.live(&mut life, &stop).await.is_some();
            lives.push(life);
            if !well {
                // As `Retry-After` asks, though sooner.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        (self.seen, lives)
    }

    /// Ends with the first call that is refused.
    async fn live(&mut self, life: &mut Life, stop: &AtomicBool) -> Option<()> {
        let email = life.email.clone();
        self.ask(registration(&email), 202).await?;
        life.is_registered = true;
        life.acknowledged += 1;
        let code = self.code(&email, stop).await?;

        life.password = None;
        self.ask(verification(&email, Some(&code), None), 200).await?;
        (life.is_verified, life.password) = (true, Some(PASSWORD));
        life.acknowledged += 1;

        let session = self.ask(login("sign in", &email, PASSWORD), 200).await?;
        life.acknowledged += 1;
        (life.access, life.refresh) =
            (Some(session.text("access_token")), Some(session.text("refresh_token")));
        self.ask(Request::get("me", "/users/me", &session.text("access_token")), 200).await?;

        let renewal = json!({"refresh_token": life.refresh.take()});
        let renewed = self.ask(Request::post("renew", "/sessions/refresh", renewal), 200).await?;
        life.acknowledged += 1;
        let access = renewed.text("access_token");
        (life.access, life.refresh) = (Some(access.clone()), Some(renewed.text("refresh_token")));

        life.password = None;
        let change =
            json!({"current_password": PASSWORD, "new_password": SECOND, "confirmation_password": SECOND});
        let change = Request::post("change password", "/passwords/change", change).by(&access);
        self.ask(change, 204).await?;
        (life.password, life.was_changed) = (Some(SECOND), true);
        life.acknowledged += 1;

        if self.number.is_multiple_of(2) {
            let (access, refresh) = (life.access.take(), life.refresh.take());
            let leave = Request::new("sign out", Method::POST, "/sessions/logout");
            self.ask(leave.by(&access.clone().unwrap_or_default()), 204).await?;
            (life.access, life.refresh, life.has_signed_out) = (access, refresh, true);
            life.acknowledged += 1;
        }
        Some(())
    }

    async fn ask(&mut self, request: Request, expected: u16) -> Option<Call> {
        let call = self.line.call(&request, self.begun).await.pop()?;
        let Call { label, start, end, status, code, retry_after, .. } = call.clone();
        self.seen.push(Seen { label, start, end, status, code, retry_after, expected });
        (status == expected).then_some(call)
    }

    async fn code(&self, email: &str, stop: &AtomicBool) -> Option<String> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) && !stop.load(Ordering::SeqCst) {
            if let Some(code) = self.mailbox.first_code(email) {
                return Some(code);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }
}

/// Registers and hangs up before the answer, for as long as this is polled. Nobody else may be refused for it.
pub(super) async fn leave_again_and_again(number: usize, server: SocketAddr) {
    let mut chance = Chance::new(1, &[number as u64]);
    for n in 0_u64.. {
        let request = registration(&format!("l{number}-{n}@example.org"));
        let after = Duration::from_micros(chance.within(0, 30_000) as u64);
        // During a fault there may be nobody to connect to.
        drop(crate::client::leave(server, &request, after).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What was acknowledged and is not there.
pub(super) async fn check_all(lives: Vec<Life>, server: SocketAddr, mailbox: &Mailbox) -> Vec<String> {
    let checks = lives.into_iter().map(|life| async move {
        match check(&life, server, mailbox).await {
            Ok(faults) => faults,
            Err(trouble) => vec![format!("{} cannot be checked: {trouble}", life.email)],
        }
    });
    futures_util::stream::iter(checks).buffer_unordered(8).collect::<Vec<_>>().await.concat()
}

async fn check(life: &Life, server: SocketAddr, mailbox: &Mailbox) -> Result<Vec<String>, Trouble> {
    let mut connection = Line::new(0, server);
    let mut lost = Vec::new();
    let mut status = async |request: Request| -> Result<u16, Trouble> {
        Ok(connection.call(&request, Instant::now()).await.pop().ok_or("no call")?.status)
    };
    let email = &life.email;
    let begun = Instant::now();
    while life.is_registered && mailbox.count(email) == 0 {
        if begun.elapsed() > MAIL {
            lost.push(format!("lost: the registration of {email} was acknowledged, and its mail never came"));
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if life.is_verified
        && let Some(password) = life.password
    {
        let right = status(login("right", email, password)).await?;
        if right != 200 {
            lost.push(format!("lost: the password of {email} signs in with {right}"));
        }
        if life.was_changed {
            let wrong = status(login("old", email, PASSWORD)).await?;
            if wrong != 401 {
                lost.push(format!("lost: the old password of {email} signs in with {wrong}"));
            }
        }
    }
    if let Some(access) = &life.access {
        let wanted = if life.has_signed_out { 401 } else { 200 };
        let got = status(Request::get("me", "/users/me", access)).await?;
        if got != wanted {
            lost.push(format!("lost: the session of {email} answers {got}, not {wanted}"));
        }
    }
    if let Some(refresh) = &life.refresh {
        let wanted = if life.has_signed_out { 401 } else { 200 };
        let renewal = json!({"refresh_token": refresh});
        let got = status(Request::post("renew", "/sessions/refresh", renewal)).await?;
        if got != wanted {
            lost.push(format!("lost: the session of {email} is renewed with {got}, not {wanted}"));
        }
    }
    Ok(lost)
}
