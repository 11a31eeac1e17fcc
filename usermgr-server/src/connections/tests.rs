//! Hostile clients, in a time that goes by when nobody does anything: each deadline is waited for to the second.

use bytes::Bytes;
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

/// What lies between the two ends, as a socket's buffers do.
const BETWEEN: usize = 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(75);
const LARGE: usize = 100 * 1024;

/// A connection that is served, the client's end of it, and when it ended.
struct Served {
    client: DuplexStream,
    ended: tokio::task::JoinHandle<Instant>,
    begun: Instant,
    _quit: watch::Sender<()>,
}

impl Served {
    fn over(protocol: Protocol, kind: Kind) -> Self {
        let (client, server) = duplex(BETWEEN);
        let limits = Limits {
            connections: usize::from(kind == Kind::Full),
            per_network: 1,
            spare: 1,
            proxies: vec!["0.0.0.0/0".parse().unwrap()],
        };
        let (quit, told) = watch::channel(());
        let peer: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let keep_alive = if kind == Kind::Spare { SPARE_KEEP_ALIVE } else { KEEP_ALIVE };
        let connection = Connection {
            activity: Activity::new(keep_alive),
            place: Places::new(limits).take(peer.ip()).0.unwrap(),
            peer,
            service: tower::service_fn(serve_request),
            metrics: ConnectionMetrics::default(),
            quit: told,
        };
        assert_eq!(connection.place.kind, kind);
        let watched = Watched::new(server, Arc::clone(&connection.activity), |_| ());
        let ended = tokio::spawn(async move {
            match protocol {
                Protocol::Http1 => connection.serve_http1(watched).await,
                Protocol::Http2 => connection.serve_http2(watched).await,
            }
            Instant::now()
        });
        Self { client, ended, begun: Instant::now(), _quit: quit }
    }

    fn http1() -> Self {
        Self::over(Protocol::Http1, Kind::Full)
    }

    fn http2() -> Self {
        Self::over(Protocol::Http2, Kind::Full)
    }

    /// After how many seconds the connection ended.
    async fn lasted(self) -> u64 {
        let ended = self.ended.await.unwrap();
        drop(self.client);
        ended.duration_since(self.begun).as_secs()
    }

    async fn ask(&mut self, path: &str) {
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        self.client.write_all(head.as_bytes()).await.unwrap();
    }

    /// The next answer of no body.
    async fn answer(&mut self) -> String {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            let byte = self.client.read_u8().await.unwrap();
            read.push(byte);
        }
        String::from_utf8(read).unwrap()
    }
}

async fn serve_request(request: Request<RequestBody>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match request.uri().path() {
        "/large" => Bytes::from(vec![b'x'; LARGE]),
        "/slow" => {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Bytes::new()
        }
        "/over" => Bytes::from(format!("{:?}", request.extensions().get::<OverLimit>())),
        _ => Bytes::new(),
    };
    Ok(Response::new(Full::from(body)))
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_given_up() {
    let mut served = Served::http1();
    served.ask("/large").await;
    let lasted = served.lasted().await;
    assert_eq!(lasted, progress::STALL_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_a_byte_now_and_then_is_given_up() {
    let mut served = Served::http1();
    served.ask("/large").await;
    let Served { mut client, ended, begun, _quit } = served;
    let dripping = tokio::spawn(async move {
        while client.read_u8().await.is_ok() {
            seconds(1).await;
        }
    });
    let lasted = ended.await.unwrap().duration_since(begun).as_secs();
    assert!((20..25).contains(&lasted), "{lasted}");
    dripping.abort();
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_that_goes_on_reading_gets_its_answer() {
    let mut served = Served::http1();
    served.ask("/large").await;
    let mut read = 0;
    let mut buffer = vec![0; 1024];
    while read < LARGE {
        let now = served.client.read(&mut buffer).await.unwrap();
        assert!(now > 0, "it was given up after {read} bytes");
        read += now;
        seconds(1).await;
    }
    assert!(!served.ended.is_finished());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_after_its_keep_alive() {
    let mut served = Served::http1();
    for _ in 0..3 {
        served.ask("/").await;
        assert!(served.answer().await.starts_with("HTTP/1.1 200"));
        seconds(KEEP_ALIVE.as_secs() - 1).await;
    }
    let so_far = 3 * (KEEP_ALIVE.as_secs() - 1);
    assert_eq!(served.lasted().await, so_far + 1);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drips_is_not_waited_for_as_long_as_an_idle_connection() {
    let mut served = Served::http1();
    served.ask("/").await;
    served.answer().await;
    seconds(30).await;
    let Served { mut client, ended, begun, _quit } = served;
    let dripping = tokio::spawn(async move {
        for byte in b"GET / HTTP/1.1\r\nhost: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" {
            if client.write_all(&[*byte]).await.is_err() {
                return;
            }
            seconds(1).await;
        }
    });
    assert_eq!(ended.await.unwrap().duration_since(begun).as_secs(), 30 + HEAD_TIMEOUT.as_secs());
    dripping.abort();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_nothing_is_given_up() {
    assert_eq!(Served::http1().lasted().await, HEAD_TIMEOUT.as_secs());
    let mut served = Served::http2();
    served.client.write_all(PREFACE).await.unwrap();
    assert_eq!(served.lasted().await, HEAD_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_is_told_to_end_with_an_answer() {
    let mut served = Served::http1();
    let mut answer = String::new();
    for _ in 0..=61 {
        served.ask("/").await;
        answer = served.answer().await;
        if answer.contains("connection: close") {
            break;
        }
        seconds(60).await;
    }
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    // At the hour it was asked before the bell rang.
    assert_eq!(served.lasted().await, MAX_AGE.as_secs() + 60);
}

#[tokio::test(start_paused = true)]
async fn a_connection_over_the_limit_is_marked_and_answers_once() {
    let mut served = Served::over(Protocol::Http1, Kind::Spare);
    served.ask("/over").await;
    let mut answer = String::new();
    served.client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("connection: close") && answer.ends_with("Some(OverLimit)"), "{answer}");
    let silent = Served::over(Protocol::Http1, Kind::Spare);
    assert_eq!(silent.lasted().await, SPARE_AGE.as_secs());
    let mut streams = Served::over(Protocol::Http2, Kind::Spare);
    streams.client.write_all(&[PREFACE, &settings(65_535), &get(1, "/")].concat()).await.unwrap();
    assert!(streams.lasted().await <= SPARE_AGE.as_secs());
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// SETTINGS with a window for each stream.
fn settings(window: u32) -> Vec<u8> {
    frame(4, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat())
}

/// HEADERS of a request without a body.
fn get(stream: u32, path: &str) -> Vec<u8> {
    let length = [u8::try_from(path.len()).unwrap()];
    // :method GET, :scheme http, :path literal, :authority literal.
    let block = [&[0x82, 0x86, 0x04][..], &length, path.as_bytes(), &[0x01, 1, b'x']].concat();
    frame(1, 0b101, stream, &block)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(3, 0, stream, &8_u32.to_be_bytes())
}

/// Reads whatever comes, answers pings, and says of which kinds frames came until the end.
async fn read_frames(client: DuplexStream) -> Vec<u8> {
    let (mut reading, mut writing) = tokio::io::split(client);
    let mut kinds = Vec::new();
    let mut head = [0; 9];
    while reading.read_exact(&mut head).await.is_ok() {
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        if reading.read_exact(&mut payload).await.is_err() {
            break;
        }
        kinds.push(head[3]);
        if head[3] == 6 && head[4] == 0 && writing.write_all(&frame(6, 1, 0, &payload)).await.is_err() {
            break;
        }
    }
    kinds
}

#[tokio::test(start_paused = true)]
async fn a_window_that_stays_0_is_given_up() {
    let mut served = Served::http2();
    served.client.write_all(&[PREFACE, &settings(0), &get(1, "/large")].concat()).await.unwrap();
    let Served { client, ended, begun, _quit } = served;
    let reading = tokio::spawn(read_frames(client));
    let lasted = ended.await.unwrap().duration_since(begun).as_secs();
    assert_eq!(lasted, progress::STALL_TIMEOUT.as_secs());
    reading.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_window_of_a_byte_now_and_then_is_given_up() {
    let mut served = Served::http2();
    served.client.write_all(&[PREFACE, &settings(0), &get(1, "/large")].concat()).await.unwrap();
    let Served { client, ended, begun, _quit } = served;
    let (mut reading, mut writing) = tokio::io::split(client);
    let opening = tokio::spawn(async move {
        while writing.write_all(&frame(8, 0, 1, &1_u32.to_be_bytes())).await.is_ok() {
            seconds(1).await;
        }
    });
    let reading = tokio::spawn(async move { tokio::io::copy(&mut reading, &mut tokio::io::sink()).await });
    let lasted = ended.await.unwrap().duration_since(begun).as_secs();
    assert!((20..25).contains(&lasted), "{lasted}");
    opening.abort();
    reading.abort();
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_of_http_2_is_asked_to_end() {
    let mut served = Served::http2();
    served.client.write_all(&[PREFACE, &settings(65_535), &get(1, "/")].concat()).await.unwrap();
    let Served { client, ended, begun, _quit } = served;
    let reading = tokio::spawn(read_frames(client));
    let lasted = ended.await.unwrap().duration_since(begun).as_secs();
    assert_eq!(lasted, KEEP_ALIVE.as_secs(), "pings keep no connection open");
    assert!(reading.await.unwrap().contains(&7), "GOAWAY");
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http_2_that_went_away_is_noticed() {
    let mut served = Served::http2();
    served.client.write_all(&[PREFACE, &settings(65_535), &get(1, "/")].concat()).await.unwrap();
    let lasted = served.lasted().await;
    assert!(lasted <= (PING_INTERVAL + PING_TIMEOUT).as_secs(), "{lasted}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_gives_requests_up_over_and_over_is_given_up() {
    let mut served = Served::http2();
    served.client.write_all(&[PREFACE, &settings(65_535)].concat()).await.unwrap();
    let Served { client, ended, begun, _quit } = served;
    let (mut reading, mut writing) = tokio::io::split(client);
    let flood = tokio::spawn(async move {
        for stream in (1..1_000_u32).step_by(2) {
            if writing.write_all(&get(stream, "/slow")).await.is_err() {
                return stream / 2;
            }
            // Long enough to be taken for a request that is answered.
            tokio::time::sleep(Duration::from_millis(10)).await;
            if writing.write_all(&reset(stream)).await.is_err() {
                return stream / 2;
            }
        }
        1_000
    });
    let reading = tokio::spawn(async move { tokio::io::copy(&mut reading, &mut tokio::io::sink()).await });
    assert!(ended.await.unwrap().duration_since(begun).as_secs() < 5);
    let requests = flood.await.unwrap();
    assert!((90..130).contains(&requests), "{requests}");
    reading.abort();
}
