//! Connections of the real program: port 0, those that say nothing, and TLS.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "support/blackbox.rs"]
mod blackbox;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use blackbox::{Database, Db, PATIENCE, Server};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where the program says that it listens.
fn told_address(log: &str, scheme: &str) -> Option<String> {
    let prefix = format!("listening on {scheme}://");
    let told = log.lines().find_map(|line| line.strip_prefix(&prefix))?;
    Some(told.trim_end_matches("/v1").to_owned())
}

/// Starts the program on a port that it chooses itself, and answers where it says it is.
async fn start(database: &Database, settings: &[(&str, &str)], scheme: &str) -> (Server, String) {
    let mut all = vec![("USERMGR_HTTP_LISTEN", "127.0.0.1:0")];
    all.extend_from_slice(settings);
    let server = Server::start_unready(database, "memory:", &all);
    let address = until(|| told_address(&server.log(), scheme)).await;
    let address = address.unwrap_or_else(|| panic!("it does not say where it listens:\n{}", server.log()));
    (server, address)
}

/// What is so at last, within patience.
async fn until<T>(look: impl Fn() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(found) = look() {
            return Some(found);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_port_0_is_told_the_port_whatever_the_log_says() {
    let database = Database::create(Db::Sqlite).await;
    let (server, address) = start(&database, &[("USERMGR_LOG_LEVEL", "error")], "http").await;
    assert!(!address.ends_with(":0"));
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(b"GET /health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(server.terminate().success());
}

/// Reads one answer: its head and a body of the length that it names.
async fn one_answer(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(read).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    Some(head)
}

/// A request with a body that nobody reads, and the status of its answer.
fn early_answers() -> Vec<(&'static str, String, u16)> {
    let whole = |line: &str, more: &str, length: usize| {
        format!("{line} HTTP/1.1\r\nhost: x\r\n{more}content-length: {length}\r\n\r\n{}", "x".repeat(length))
    };
    let json = "content-type: application/json\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 70_000, "x".repeat(70_000));
    let chunked = |line: &str| {
        format!("{line} HTTP/1.1\r\nhost: x\r\n{json}transfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n")
    };
    vec![
        ("nowhere", whole("POST /v1/nowhere", json, 100), 404),
        ("nowhere, chunked", chunked("POST /v1/nowhere"), 404),
        ("a page for browsers", whole("GET /nowhere", "accept: text/html\r\n", 100), 415),
        ("no such method", whole("PUT /v1/users", json, 100), 405),
        ("no such method of a page", whole("PUT /sign-in", "", 100), 405),
        ("a form from elsewhere", whole("POST /sign-in", "origin: https://evil.example\r\n", 100), 403),
        ("too large by its length", whole("POST /v1/users", json, 70_000), 413),
        ("too large by its chunks", chunked("POST /v1/users"), 413),
        (
            "compressed",
            whole("POST /v1/users", "content-type: application/json\r\ncontent-encoding: gzip\r\n", 100),
            415,
        ),
        ("options", whole("OPTIONS /v1/users", "", 100), 204),
        ("live with a body", whole("GET /health/live", "", 100), 200),
        ("very large", whole("POST /v1/users", json, 2_000_000), 413),
        ("very large and nowhere", whole("POST /v1/nowhere", json, 2_000_000), 404),
        (
            "no length that counts",
            "POST /v1/users HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n".into(),
            400,
        ),
        (
            "it waits to send",
            "POST /v1/nowhere HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 100\r\n\r\n"
                .into(),
            404,
        ),
        ("it never sends", "POST /v1/nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n".into(), 404),
        ("no host", "GET /v1/users/me HTTP/1.1\r\n\r\n".into(), 400),
        ("two hosts", "GET /health/live HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n".into(), 400),
        ("the same host twice", "GET /health/live HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n".into(), 400),
        ("no good host", "GET /sign-in HTTP/1.1\r\nhost: a b\r\naccept: text/html\r\n\r\n".into(), 400),
    ]
}

/// An early answer leaves the connection at the next request, or says that it is the last.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_keeps_the_connection_or_says_that_it_is_the_last() {
    let database = Database::create(Db::Sqlite).await;
    let metrics = ("USERMGR_HTTP_METRICS_LISTEN", "127.0.0.1:0");
    let (server, address) = start(&database, &[metrics], "http").await;
    for (what, request, status) in early_answers() {
        let stream = TcpStream::connect(&address).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let sending = tokio::spawn(async move {
            let _may_be_closed = write.write_all(request.as_bytes()).await;
            write
        });
        let begun = Instant::now();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(read.read_u8().await.unwrap_or_else(|error| panic!("{what}: {error}")));
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{what}: {head}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{what}");
        if head.contains("\r\nconnection: close\r\n") {
            assert!(
                ["very", "it ", "no ", "two", "the same"].iter().any(|last| what.starts_with(last)),
                "{what}: a short body is no reason to close"
            );
            continue;
        }
        let mut stream = read.reunite(sending.await.unwrap()).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let second =
            one_answer(&mut stream).await.unwrap_or_else(|| panic!("{what}: the second request fails"));
        assert!(second.starts_with("http/1.1 200 "), "{what}: {second}");
    }
    let log = server.log();
    let told = log.lines().find_map(|line| line.strip_prefix("metrics on http://")?.strip_suffix("/metrics"));
    let mut stream = TcpStream::connect(told.unwrap()).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc").await.unwrap();
        assert!(one_answer(&mut stream).await.expect("it answers twice").starts_with("http/1.1 405 "));
    }
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(one_answer(&mut stream).await.unwrap().starts_with("http/1.1 400 "));
    // HTTP/1.0 names no host, and clients of it are served.
    let mut old = TcpStream::connect(&address).await.unwrap();
    old.write_all(b"GET /health/live HTTP/1.0\r\n\r\n").await.unwrap();
    assert!(one_answer(&mut old).await.unwrap().starts_with("http/1.0 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_every_interface_are_listened_on() {
    let database = Database::create(Db::Sqlite).await;
    for (listen, reached) in
        [("localhost:0", &["127.0.0.1"][..]), (":0", &["127.0.0.1", "[::1]"]), ("[::1]:0", &["[::1]"])]
    {
        if reached.contains(&"[::1]") && std::net::TcpListener::bind("[::1]:0").is_err() {
            continue;
        }
        let (server, address) = start(&database, &[("USERMGR_HTTP_LISTEN", listen)], "http").await;
        let (_, port) = address.rsplit_once(':').unwrap();
        for ip in reached {
            let answer = asked_once_and_closed(&format!("{ip}:{port}"), "/health/ready").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{listen} by {ip}: {answer}");
        }
        let named = listen.replace(":0", &format!(":{port}"));
        assert!(
            server.run_beside(&[("USERMGR_HTTP_LISTEN", &named)], &["health"]).status.success(),
            "{named}"
        );
        let warns = server.log().contains("http.listen is reached from outside");
        assert_eq!(warns, listen == ":0", "{listen}");
        assert!(server.terminate().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_cannot_be_listened_on_is_one_clear_line() {
    let database = Database::create(Db::Sqlite).await;
    let everywhere = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = everywhere.local_addr().unwrap().port();
    for (listen, told) in [
        (format!("127.0.0.1:{port}"), "is the server running already?"),
        (format!("localhost:{port}"), "is the server running already?"),
        (format!(":{port}"), "is the server running already?"),
        ("nobody.invalid:8000".into(), "the name has no address"),
    ] {
        for key in ["http.listen", "http.metrics_listen"] {
            let variable = format!("USERMGR_{}", key.replace('.', "_").to_uppercase());
            let settings = [("USERMGR_LOG_LEVEL", "error"), (variable.as_str(), listen.as_str())];
            let (status, log) = Server::start_unready(&database, "memory:", &settings).wait_with_log();
            let lines: Vec<&str> = log.lines().filter(|line| line.starts_with("usermgr-server: ")).collect();
            assert_eq!((status.code(), lines.len()), (Some(1), 1), "{log}");
            assert!(lines[0].contains(&format!("{key} {listen}: ")) && lines[0].contains(told), "{log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_told_from_http_1_by_its_first_letters() {
    let database = Database::create(Db::Sqlite).await;
    let (_server, address) = start(&database, &[], "http").await;
    let stream = TcpStream::connect(&address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::builder().uri(format!("http://{address}/health/live"));
    let answer = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));

    let mut slow = TcpStream::connect(&address).await.unwrap();
    slow.set_nodelay(true).unwrap();
    for letter in b"PUT /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" {
        slow.write_all(&[*letter]).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{answer}");
}

/// Nothing, the beginning of HTTP/2, its preface and no request, and the beginning of a request.
const SILENCES: [&[u8]; 5] =
    [b"", b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /health/live HT", b"P"];

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_asks_nothing_is_let_go() {
    let database = Database::create(Db::Sqlite).await;
    let (_server, address) = start(&database, &[], "http").await;
    let mut waiting = Vec::new();
    for silence in SILENCES {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(silence).await.unwrap();
        waiting.push(async move {
            let mut said = Vec::new();
            let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
            assert!(ended.is_ok(), "{:?} is still waited for", String::from_utf8_lossy(silence));
        });
    }
    futures_util::future::join_all(waiting).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_ask_nothing_hold_up_no_stop() {
    let database = Database::create(Db::Sqlite).await;
    let (server, address) = start(&database, &[], "http").await;
    let mut open = Vec::new();
    for silence in SILENCES {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(silence).await.unwrap();
        open.push(stream);
    }
    let mut idle = TcpStream::connect(&address).await.unwrap();
    idle.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let (status, log) = server.terminate_with_log();
    assert!(status.success());
    assert!(!log.contains("did not finish in time"), "{log}");
    drop(open);
}

/// Asks over a new connection, and reads whatever comes until its end.
async fn asked_once(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    drop(stream.write_all(request.as_bytes()).await);
    let mut answer = Vec::new();
    drop(tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is not answered"));
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_limit_health_is_answered_and_everything_else_is_refused() {
    let database = Database::create(Db::Sqlite).await;
    // One network gets three quarters of all places.
    for (limit, own) in [("USERMGR_HTTP_MAX_CONNECTIONS_PER_NETWORK", 4), ("USERMGR_HTTP_MAX_CONNECTIONS", 3)]
    {
        let metrics = ("USERMGR_HTTP_METRICS_LISTEN", "127.0.0.1:0");
        let (server, address) = start(&database, &[(limit, "4"), metrics], "http").await;
        let mut open = Vec::new();
        for _ in 0..own {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut first = [0; 12];
            stream.read_exact(&mut first).await.unwrap();
            open.push(stream);
        }
        for path in ["/health/live", "/health/ready"] {
            let answer = asked_once(&address, path).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{limit}: {answer}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        }
        for path in ["/v1/users/me", "/sign-in", "/nowhere", "/.well-known/jwks.json"] {
            let answer = asked_once(&address, path).await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{limit}: {answer}");
            assert!(
                answer.contains("\r\nretry-after: 5\r\n") && answer.contains("\"overloaded\""),
                "{answer}"
            );
        }
        let told = server.log();
        let told =
            told.lines().find_map(|line| line.strip_prefix("metrics on http://")?.strip_suffix("/metrics"));
        let told = told.expect("it says where metrics are").to_owned();
        let answer = asked_once_and_closed(&told, "/health/ready").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let metrics = asked_once_and_closed(&told, "/metrics").await;
        assert!(metrics.contains("\nusermgr_http_connections "), "{metrics}");
        assert!(metrics.contains("\nusermgr_http_connections_refused_total{reason="), "{metrics}");
        drop(open);
        assert!(server.terminate().success());
    }
}

/// As [`asked_once`], of a server that would keep the connection.
async fn asked_once_and_closed(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_kept_as_long_as_it_is_configured() {
    let database = Database::create(Db::Sqlite).await;
    let (server, address) = start(&database, &[("USERMGR_HTTP_KEEP_ALIVE", "1s")], "http").await;
    let begun = Instant::now();
    assert!(asked_once(&address, "/health/live").await.starts_with("HTTP/1.1 200 OK\r\n"));
    let lasted = begun.elapsed();
    assert!((1.0..8.0).contains(&lasted.as_secs_f64()), "{lasted:?}");
    assert!(server.terminate().success());
}

/// A certificate for `localhost` that signs itself, and its key, in PEM.
fn new_pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

struct Files {
    certificates: PathBuf,
    key: PathBuf,
    _dir: tempfile::TempDir,
}

impl Files {
    fn new((certificates, key): &(String, String)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files =
            Self { certificates: dir.path().join("tls.crt"), key: dir.path().join("tls.key"), _dir: dir };
        write_private(&files.key, key);
        std::fs::write(&files.certificates, certificates).unwrap();
        files
    }

    fn settings(&self) -> [(&str, &str); 2] {
        [
            ("USERMGR_HTTP_TLS_CERT", self.certificates.to_str().unwrap()),
            ("USERMGR_HTTP_TLS_KEY", self.key.to_str().unwrap()),
        ]
    }
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Agrees upon TLS with a server that has this certificate.
async fn agree(
    address: &str,
    certificate: &str,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Asks whether the server lives, over a connection that is kept.
struct Http1(hyper::client::conn::http1::SendRequest<Empty<bytes::Bytes>>);

impl Http1 {
    async fn over(stream: TlsStream<TcpStream>) -> Self {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn asks(&mut self) -> u16 {
        let request = http::Request::builder().uri("/health/live").header("host", "localhost");
        let answer = self.0.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        answer.into_body().collect().await.unwrap();
        status
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_in_both_versions_and_protocols() {
    let (database, pair) = (Database::create(Db::Sqlite).await, new_pair());
    let files = Files::new(&pair);
    let (server, address) = start(&database, &files.settings(), "https").await;
    for (version, spoken) in [
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
    ] {
        let stream = agree(&address, &pair.0, &[version], &[b"http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(spoken));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(Http1::over(stream).await.asks().await, 200);
    }
    let stream = agree(&address, &pair.0, BOTH, &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::builder().uri("https://localhost/health/live");
    let answer = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));

    let stranger = new_pair();
    assert!(agree(&address, &stranger.0, BOTH, &[]).await.is_err(), "it has another certificate");
    let mut plain = TcpStream::connect(&address).await.unwrap();
    plain.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    drop(plain.read_to_end(&mut said).await);
    assert!(!said.starts_with(b"HTTP"), "nothing is said unencrypted");
    assert!(server.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_of_tls_is_let_go_and_holds_up_no_stop() {
    let (database, pair) = (Database::create(Db::Sqlite).await, new_pair());
    let files = Files::new(&pair);
    let (server, address) = start(&database, &files.settings(), "https").await;
    let mut before = TcpStream::connect(&address).await.unwrap();
    let mut after = agree(&address, &pair.0, BOTH, &[b"h2"]).await.unwrap();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let ended = tokio::time::timeout(PATIENCE, async {
        drop(tokio::join!(before.read_to_end(&mut first), after.read_to_end(&mut second)));
    });
    assert!(ended.await.is_ok(), "it is still waited for");
    let _silent = TcpStream::connect(&address).await.unwrap();
    let (status, log) = server.terminate_with_log();
    assert!(status.success());
    assert!(!log.contains("did not finish in time"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_certificates_come_into_force_under_open_connections_and_bad_ones_do_not() {
    let (database, old) = (Database::create(Db::Sqlite).await, new_pair());
    let files = Files::new(&old);
    let (server, address) = start(&database, &files.settings(), "https").await;
    let mut open = Http1::over(agree(&address, &old.0, BOTH, &[b"http/1.1"]).await.unwrap()).await;
    assert_eq!(open.asks().await, 200);

    let new = new_pair();
    std::fs::write(&files.certificates, &new.0).unwrap();
    let told = || server.log().contains("the new certificates cannot be used").then_some(());
    assert!(until(told).await.is_some(), "a certificate without its key is told of\n{}", server.log());
    assert!(agree(&address, &old.0, BOTH, &[]).await.is_ok(), "the old pair stays in force");

    write_private(&files.key, &new.1);
    let told = || server.log().contains("new certificates are in force").then_some(());
    assert!(until(told).await.is_some(), "{}", server.log());
    assert_eq!(open.asks().await, 200, "what stood goes on");
    assert!(agree(&address, &new.0, BOTH, &[]).await.is_ok());
    assert!(agree(&address, &old.0, BOTH, &[]).await.is_err());
    assert!(!server.log().contains("PRIVATE KEY"));
    assert!(server.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_that_cannot_be_spoken_stops_the_start_with_the_reason() {
    use std::os::unix::fs::PermissionsExt as _;
    let (database, pair) = (Database::create(Db::Sqlite).await, new_pair());
    let files = Files::new(&pair);
    let [certificates, key] = files.settings();
    let refused = |settings: &[(&str, &str)]| {
        let (status, log) = Server::start_unready(&database, "memory:", settings).wait_with_log();
        assert_eq!(status.code(), Some(1), "{log}");
        log
    };
    assert!(
        refused(&[certificates]).contains("http.tls_key: it takes a file, since http.tls_cert names one")
    );
    assert!(refused(&[key]).contains("http.tls_cert: it takes a file, since http.tls_key names one"));
    let swapped = [("USERMGR_HTTP_TLS_CERT", key.1), ("USERMGR_HTTP_TLS_KEY", certificates.1)];
    assert!(refused(&swapped).contains("it takes certificates in PEM"));
    assert!(
        refused(&[certificates, ("USERMGR_HTTP_TLS_KEY", certificates.1)])
            .contains("it takes one private key")
    );
    assert!(
        refused(&[certificates, ("USERMGR_HTTP_TLS_KEY", "/nowhere")]).contains("http.tls_key /nowhere: ")
    );
    let other = Files::new(&new_pair());
    let unfit = refused(&[certificates, other.settings()[1]]);
    assert!(unfit.contains("http.tls_cert and http.tls_key do not go together"), "{unfit}");

    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (server, _) = start(&database, &files.settings(), "https").await;
    assert!(
        server.log().contains("http.tls_key can be read by every user of this machine"),
        "{}",
        server.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn health_asks_over_tls_and_takes_no_other_certificate() {
    let (database, files, other) =
        (Database::create(Db::Sqlite).await, Files::new(&new_pair()), Files::new(&new_pair()));
    let (server, address) = start(&database, &files.settings(), "https").await;
    let asked = |files: &Files| {
        let [certificates, key] = files.settings();
        server.run_beside(&[("USERMGR_HTTP_LISTEN", &address), certificates, key], &["health"]).status.code()
    };
    assert_eq!((asked(&files), asked(&other)), (Some(0), Some(1)));
}
