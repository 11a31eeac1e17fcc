//! What hostile clients do.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use super::wire::{self, Asker};
use super::{Attack, HOSTILE, PASSWORD, Target, USER};
use crate::Trouble;

/// The largest answer that anybody may ask for.
const LARGE: &str = "/openapi.json";
/// As little as a client may keep of what it does not read.
const SMALL_BUFFER: u32 = 4096;

/// A way to hold a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Window0,
    WindowDrip,
    NeverReads,
    ReadsDrip,
    HeadDrip,
    BodyDrip,
    HangUps,
    Resets,
}

impl Hold {
    pub(super) const ALL: [Self; 8] = [
        Self::Window0,
        Self::WindowDrip,
        Self::NeverReads,
        Self::ReadsDrip,
        Self::HeadDrip,
        Self::BodyDrip,
        Self::HangUps,
        Self::Resets,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Window0 => "HTTP/2, window 0",
            Self::WindowDrip => "HTTP/2, a byte a second",
            Self::NeverReads => "HTTP/1, reads nothing",
            Self::ReadsDrip => "HTTP/1, a byte a second",
            Self::HeadDrip => "a head that drips",
            Self::BodyDrip => "a body that drips",
            Self::HangUps => "hang-ups in mid-request",
            Self::Resets => "resets of HTTP/2",
        }
    }

    /// Does so until then, over one connection after the other, and answers the longest that one of them was held.
    pub(super) async fn run(self, target: Target, until: Instant) -> Duration {
        let mut longest = Duration::ZERO;
        while Instant::now() < until {
            let begun = Instant::now();
            let left = until.duration_since(begun);
            // Whatever ends it is the end of the connection.
            let _ended = tokio::time::timeout(left, self.once(target)).await;
            longest = longest.max(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        longest
    }

    async fn once(self, target: Target) -> io::Result<()> {
        let buffer = matches!(self, Self::NeverReads | Self::ReadsDrip).then_some(SMALL_BUFFER);
        let mut stream = wire::connect(HOSTILE, target.address, buffer).await?;
        match self {
            Self::Window0 => window_0(stream).await,
            Self::WindowDrip => {
                stream.write_all(&[wire::PREFACE, &wire::settings(0), &wire::get(1, LARGE)].concat()).await?;
                let (mut reading, mut writing) = stream.into_split();
                let dripping = async {
                    loop {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        writing.write_all(&wire::window_update(1)).await?;
                    }
                };
                let mut sink = tokio::io::sink();
                tokio::select! {
                    ended = dripping => ended,
                    ended = tokio::io::copy(&mut reading, &mut sink) => ended.map(drop),
                }
            }
            Self::NeverReads | Self::ReadsDrip => {
                ask_much(&mut stream).await?;
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if self == Self::ReadsDrip {
                        stream.read_u8().await?;
                    }
                    // What it writes is of no interest, but whether it still can: what lies in its own buffer can be read
                    // long after the end.
                    match stream.try_write(b"G") {
                        Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                        _ => {}
                    }
                }
            }
            Self::HeadDrip => drip(stream, b"GET / HTTP/1.1\r\nhost: ").await,
            Self::BodyDrip => {
                let head = "POST /v1/users/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                     content-length: 1000\r\n\r\n{";
                drip(stream, head.as_bytes()).await
            }
            Self::HangUps => {
                stream.write_all(b"POST /v1/users/login HTTP/1.1\r\nhost: x\r\ncontent-le").await?;
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok(())
            }
            Self::Resets => resets(stream).await,
        }
    }
}

/// Asks for a large answer, and reads what is not that.
async fn window_0(mut stream: tokio::net::TcpStream) -> io::Result<()> {
    stream.write_all(&[wire::PREFACE, &wire::settings(0), &wire::get(1, LARGE)].concat()).await?;
    let (mut reading, mut writing) = stream.into_split();
    wire::stay(&mut reading, &mut writing).await
}

/// Asks for more than lies in the kernel's buffers.
async fn ask_much(stream: &mut tokio::net::TcpStream) -> io::Result<()> {
    let request = format!("GET {LARGE} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.repeat(60).as_bytes()).await
}

/// Sends the beginning of something, and a byte a second of the rest.
async fn drip(stream: tokio::net::TcpStream, beginning: &[u8]) -> io::Result<()> {
    let (mut reading, mut writing) = stream.into_split();
    writing.write_all(beginning).await?;
    let dripping = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            writing.write_all(b"x").await?;
        }
    };
    let mut sink = tokio::io::sink();
    tokio::select! {
        ended = dripping => ended,
        ended = tokio::io::copy(&mut reading, &mut sink) => ended.map(drop),
    }
}

/// Gives requests up that the server is already at work on.
async fn resets(mut stream: tokio::net::TcpStream) -> io::Result<()> {
    stream.write_all(&[wire::PREFACE, &wire::settings(65_535)].concat()).await?;
    let (mut reading, mut writing) = stream.into_split();
    let resetting = async {
        for batch in 0_u32.. {
            let streams = || (0..20).map(|n| 2 * (20 * batch + n) + 1);
            let asked: Vec<u8> = streams().flat_map(|stream| wire::post(stream, "/v1/users/login")).collect();
            writing.write_all(&asked).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            writing.write_all(&streams().flat_map(wire::reset).collect::<Vec<u8>>()).await?;
        }
        Ok(())
    };
    let mut sink = tokio::io::sink();
    tokio::select! {
        ended = resetting => ended,
        ended = tokio::io::copy(&mut reading, &mut sink) => ended.map(drop),
    }
}

/// What became of a flood.
#[derive(Debug)]
pub(super) struct Flood {
    /// Clients that connected at least once.
    pub(super) opened: usize,
    /// The most connections that were served at once.
    pub(super) most_open: usize,
}

#[derive(Debug, Default)]
struct Count {
    opened: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

/// So many clients, each with a connection; once all have tried, for so long.
pub(super) async fn flood(
    attack: Attack,
    target: Target,
    number: usize,
    networks: usize,
    lasts: Duration,
) -> Flood {
    let (count, at_once) = (Arc::new(Count::default()), Arc::new(Semaphore::new(100)));
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..number {
        let last = u8::try_from(n % networks).unwrap_or_default() + 1;
        let from = if networks == 1 { HOSTILE } else { IpAddr::V4(Ipv4Addr::new(127, 0, 1, last)) };
        let (count, at_once) = (Arc::clone(&count), Arc::clone(&at_once));
        clients.spawn(async move {
            let mut is_first = true;
            loop {
                let turn = at_once.acquire().await;
                let connected = wire::connect(from, target.address, None).await;
                drop(turn);
                if let Ok(stream) = connected {
                    if std::mem::take(&mut is_first) {
                        count.opened.fetch_add(1, Ordering::Relaxed);
                    }
                    let _ended = flood_one(attack, stream, &count).await;
                }
                // Pauses of different lengths, or they would all come at once.
                tokio::time::sleep(Duration::from_millis(4000 + n as u64 % 2000)).await;
            }
        });
    }
    let begun = Instant::now();
    while count.opened.load(Ordering::Relaxed) < number && begun.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(lasts).await;
    clients.shutdown().await;
    let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    Flood { opened: read(&count.opened), most_open: read(&count.most_open) }
}

/// One connection of a flood, until it is closed.
async fn flood_one(attack: Attack, mut stream: tokio::net::TcpStream, count: &Count) -> io::Result<()> {
    if attack == Attack::FloodIdle || attack == Attack::FloodNetworks {
        stream.write_all(b"GET /v1/users/me HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    } else {
        stream.write_all(&[wire::PREFACE, &wire::settings(0), &wire::get(1, LARGE)].concat()).await?;
    }
    let (mut reading, mut writing) = stream.into_split();
    let mut first = [0; 12];
    reading.read_exact(&mut first).await?;
    if &first == b"HTTP/1.1 503" {
        return Ok(());
    }
    let open = count.open.fetch_add(1, Ordering::Relaxed) + 1;
    count.most_open.fetch_max(open, Ordering::Relaxed);
    let _open = Open(&count.open);
    if attack == Attack::FloodIdle || attack == Attack::FloodNetworks {
        return tokio::io::copy(&mut reading, &mut tokio::io::sink()).await.map(drop);
    }
    // The rest of the server's SETTINGS.
    let mut rest = vec![0; (9 + usize::from(first[2])).saturating_sub(first.len())];
    reading.read_exact(&mut rest).await?;
    wire::stay(&mut reading, &mut writing).await
}

struct Open<'a>(&'a AtomicUsize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Somebody who guesses, from one address.
pub(super) struct Guesser {
    attack: Attack,
    target: Target,
    /// The refresh token of a session that is over.
    token: String,
    calls: AtomicUsize,
}

impl Guesser {
    /// With a live code or a session to guess at.
    pub(super) async fn prepare(attack: Attack, target: Target) -> Result<Self, Trouble> {
        let mut asker = Asker::connect(super::ELSEWHERE, target.address).await?;
        let mut token = String::new();
        if attack == Attack::GuessRefresh {
            let body = json!({"email": USER, "password": PASSWORD});
            let (_, session) = asker.ask("/v1/users/login", Some(&body)).await?;
            session["refresh_token"].as_str().ok_or("no refresh token")?.clone_into(&mut token);
            // Each renewal makes the token before it worthless; used again after a while, it ends the session.
            asker.log_out(session["access_token"].as_str().unwrap_or_default()).await?;
        } else if attack == Attack::GuessCode {
            let body = json!({"email": USER, "purpose": "reset_password"});
            let (status, _) = asker.ask("/v1/passwords/request-code", Some(&body)).await?;
            if status != 202 {
                return Err(format!("a code is refused with {status}").into());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(Self { attack, target, token, calls: AtomicUsize::new(0) })
    }

    /// Guesses so often, over eight connections, and answers how often it came to in the time that it may take.
    pub(super) async fn run(self: Arc<Self>, number: usize) -> Result<usize, Trouble> {
        const PATIENCE: Duration = Duration::from_mins(1);
        let until = Instant::now() + PATIENCE;
        let mut guessing = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let guesser = Arc::clone(&self);
            guessing.spawn(async move {
                while Instant::now() < until {
                    let Ok(mut asker) = Asker::connect(HOSTILE, guesser.target.address).await else {
                        continue;
                    };
                    loop {
                        let n = guesser.calls.fetch_add(1, Ordering::Relaxed);
                        if n >= number || Instant::now() >= until {
                            return Ok(());
                        }
                        let (path, body) = guesser.guess(n);
                        let Ok((status, _)) = asker.ask(path, Some(&body)).await else { break };
                        if status == 200 {
                            return Err(format!("{path} took a guess"));
                        }
                    }
                }
                Ok(())
            });
        }
        while let Some(lane) = guessing.join_next().await {
            lane??;
        }
        Ok(self.calls.load(Ordering::Relaxed).min(number))
    }

    /// Guesses at one account, at an address that has none, and at ever new ones.
    fn guess(&self, n: usize) -> (&'static str, Value) {
        let email = match n % 3 {
            0 => USER.to_owned(),
            1 => "nobody@example.org".to_owned(),
            _ => format!("nobody-{n}@example.org"),
        };
        match self.attack {
            Attack::GuessRefresh => {
                // The end is what proves it.
                let kept = self.token.len().saturating_sub(8);
                let forged = format!("{}{n:08}", self.token.get(..kept).unwrap_or_default());
                let token = if n.is_multiple_of(2) { &self.token } else { &forged };
                ("/v1/sessions/refresh", json!({"refresh_token": token}))
            }
            Attack::GuessCode => {
                let code = format!("{:06}", n * 7919 % 1_000_000);
                let new = "another horse battery";
                let body = json!({
                    "email": email, "verification_code": code, "new_password": new, "confirmation_password": new,
                    "purpose": "reset_password",
                });
                ("/v1/passwords/set-with-code", body)
            }
            _ => ("/v1/users/login", json!({"email": email, "password": format!("wrong horse {n}")})),
        }
    }
}
