//! A client of HTTP/1.1 that costs as little as it can, since it shares its cores with what it measures: requests are
//! bytes made beforehand, and of an answer no more is read than what is asked for.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream as BlockingStream};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(40);
/// How many threads of the probe take turns, each with its connection: more than calls wait at a time. They stand
/// apart from the storm's runtime, so that a driver that is busy does not look like a server that is slow.
const PROBES: u32 = 128;

/// A request as it goes over the wire. `fields` are whole lines of a head.
pub(crate) fn request(method: &str, path: &str, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{fields}content-length: {length}\r\n\r\n{body}")
        .into()
}

/// A request with a JSON body.
pub(crate) fn post(path: &str, body: &serde_json::Value) -> Vec<u8> {
    request("POST", path, "content-type: application/json\r\n", &body.to_string())
}

/// A request with an access token.
pub(crate) fn get(path: &str, token: &str) -> Vec<u8> {
    request("GET", path, &format!("authorization: Bearer {token}\r\n"), "")
}

/// Where a message stands in a buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    head: usize,
    end: usize,
}

impl Message {
    /// The first message in the buffer, once it is there as a whole.
    pub(crate) fn find(buffer: &[u8]) -> Option<Self> {
        let head = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let length = field(buffer.get(..head)?, "content-length").and_then(|length| length.parse().ok());
        let end = head + length.unwrap_or(0);
        (buffer.len() >= end).then_some(Self { head, end })
    }

    pub(crate) fn head(self, buffer: &[u8]) -> &[u8] {
        buffer.get(..self.head).unwrap_or_default()
    }

    pub(crate) fn body(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.head..self.end).unwrap_or_default()
    }
}

/// The value of a field of a head.
pub(crate) fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (named, rest) = line.split_at_checked(name.len())?;
        let value = named.eq_ignore_ascii_case(name.as_bytes()).then(|| rest.strip_prefix(b":"))??;
        Some(std::str::from_utf8(value).ok()?.trim())
    })
}

fn status(head: &[u8]) -> io::Result<u16> {
    let digits = head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A connection that is kept.
#[derive(Debug)]
pub(crate) struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
    message: Option<Message>,
}

impl Line {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4096), message: None })
    }

    /// Sends a request and reads the status of its answer.
    pub(crate) async fn call(&mut self, request: &[u8]) -> io::Result<u16> {
        self.buffer.clear();
        self.stream.write_all(request).await?;
        let reading = async {
            loop {
                if self.stream.read_buf(&mut self.buffer).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
                if let Some(message) = Message::find(&self.buffer) {
                    return Ok(message);
                }
            }
        };
        let message = timeout(PATIENCE, reading).await??;
        self.message = Some(message);
        status(message.head(&self.buffer))
    }

    /// A field of the last answer's head.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(self.message?.head(&self.buffer), name)
    }

    /// The last answer's body.
    pub(crate) fn body(&self) -> &[u8] {
        self.message.map_or(&[], |message| message.body(&self.buffer))
    }
}

/// What came of many calls.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How long each call took that was answered as wished.
    pub(crate) granted: Vec<Duration>,
    /// How long each call took that was answered 503.
    pub(crate) refused: Vec<Duration>,
    /// How many of those said when to come back.
    pub(crate) told_when: usize,
    /// Other answers and broken connections.
    pub(crate) failed: usize,
    /// How long calls were counted.
    pub(crate) took: Duration,
}

impl Tally {
    /// Calls a second that were answered as wished.
    pub(crate) fn rate(&self) -> f64 {
        self.granted.len() as f64 / self.took.as_secs_f64()
    }

    fn add(&mut self, other: Self) {
        self.granted.extend(other.granted);
        self.refused.extend(other.refused);
        self.told_when += other.told_when;
        self.failed += other.failed;
    }
}

/// The time below which this share of all lie, in milliseconds.
pub(crate) fn percentile(times: &[Duration], share: f64) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let rank = (times.len() as f64 * share).ceil() as usize;
    times.get(rank.saturating_sub(1)).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

/// How hard to call, and when to count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Storm {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    /// Calls that end before this are not counted: connections are made, the queue fills.
    pub(crate) warm_up: Duration,
    pub(crate) counted: Duration,
    /// The answer that is wished for.
    pub(crate) wished: u16,
}

impl Storm {
    /// Calls as fast as answers come, over connections that are kept; `call` makes the n-th request of a connection. Who
    /// is refused waits as long as the answer says, give or take a quarter, as a client should.
    pub(crate) async fn run(
        self,
        call: impl Fn(usize, usize) -> Vec<u8> + Clone + 'static,
    ) -> io::Result<Tally> {
        let mut lines = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            lines.push(Line::connect(self.address).await?);
        }
        let from = Instant::now() + self.warm_up;
        let until = from + self.counted;
        let callers = lines.into_iter().enumerate().map(|(n, line)| {
            let call = call.clone();
            self.keep_calling(line, n, from, until, move |nth| call(n, nth))
        });
        let mut tally = Tally { took: self.counted, ..Tally::default() };
        for other in futures_util::future::join_all(callers).await {
            tally.add(other);
        }
        Ok(tally)
    }

    async fn keep_calling(
        self,
        mut line: Line,
        connection: usize,
        from: Instant,
        until: Instant,
        call: impl Fn(usize) -> Vec<u8>,
    ) -> Tally {
        let mut tally = Tally::default();
        for nth in 0.. {
            let request = call(nth);
            let begun = Instant::now();
            if begun >= until {
                break;
            }
            let answered = line.call(&request).await;
            let ended = Instant::now();
            let counts = (from..until).contains(&ended);
            match answered {
                Ok(status) if status == self.wished => {
                    if counts {
                        tally.granted.push(ended - begun);
                    }
                }
                Ok(503) => {
                    let wait: Option<u64> = line.field("retry-after").and_then(|wait| wait.parse().ok());
                    if counts {
                        tally.refused.push(ended - begun);
                        tally.told_when += usize::from(wait.is_some());
                    }
                    // Spread, as clients that came at different times are.
                    let spread = 0.75 + 0.5 * (((connection * 31 + nth * 17) % 64) as f64 / 64.0);
                    let wait = Duration::from_secs(wait.unwrap_or(1)).mul_f64(spread);
                    sleep(wait.min(until.saturating_duration_since(ended))).await;
                }
                Ok(_) => tally.failed += 1,
                Err(_) => {
                    tally.failed += 1;
                    match Line::connect(self.address).await {
                        Ok(again) => line = again,
                        Err(_) => break,
                    }
                }
            }
        }
        tally
    }
}

/// Calls at a fixed rate whatever the answers do, from threads of their own, and takes each answer's time from the moment
/// the call was due.
///
/// # Errors
/// When a call is answered otherwise than 200 or not at all.
pub(crate) fn probe(
    address: SocketAddr,
    requests: &[Vec<u8>],
    per_second: u32,
    counted: Duration,
) -> io::Result<Vec<Duration>> {
    let begun = Instant::now() + Duration::from_millis(200);
    let calls = (counted.as_secs_f64() * f64::from(per_second)) as u32;
    let due = |nth: u32| begun + Duration::from_secs(1) * nth / per_second;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..PROBES)
            .map(|first| {
                scope.spawn(move || {
                    let mut line = BlockingLine::connect(address)?;
                    let mut times = Vec::new();
                    for nth in (first..calls).step_by(PROBES as usize) {
                        std::thread::sleep(due(nth).saturating_duration_since(Instant::now()));
                        let request = &requests[nth as usize % requests.len()];
                        if line.call(request)? != 200 {
                            return Err(io::Error::other("a probe was refused"));
                        }
                        times.push(due(nth).elapsed());
                    }
                    Ok(times)
                })
            })
            .collect();
        let mut times = Vec::new();
        for thread in threads {
            times.extend(thread.join().map_err(|_| io::Error::other("a probe panicked"))??);
        }
        Ok(times)
    })
}

/// A connection of a thread of its own.
#[derive(Debug)]
pub(crate) struct BlockingLine {
    stream: BlockingStream,
    buffer: Vec<u8>,
}

impl BlockingLine {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = BlockingStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: Vec::with_capacity(4096) })
    }

    pub(crate) fn call(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        let mut part = [0_u8; 4096];
        loop {
            let read = self.stream.read(&mut part)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&part[..read]);
            if let Some(message) = Message::find(&self.buffer) {
                return status(message.head(&self.buffer));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_once_it_is_whole() {
        let whole = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\ncontent-length: 3\r\n\r\nabcHTTP";
        for end in 0..whole.len() - 4 {
            assert!(Message::find(&whole[..end]).is_none());
        }
        let message = Message::find(whole).unwrap();
        assert_eq!(message.body(whole), b"abc");
        assert_eq!(status(message.head(whole)).unwrap(), 503);
        assert_eq!(field(message.head(whole), "retry-after"), Some("2"));
        assert_eq!(field(message.head(whole), "retry"), None);
    }

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let times: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!((percentile(&times, 0.5), percentile(&times, 0.99)), (50.0, 99.0));
        assert_eq!((percentile(&times, 0.0), percentile(&times, 1.0)), (1.0, 100.0));
    }
}
