//! The parts that the whole is compared with. Each runs in a process of its own, which `load part …` starts: nothing else
//! is in its memory.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sqlx::Row as _;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use usermgr_core::Password;
use usermgr_core::crypto::hash_queue::{HashOrigin, HashPurpose};
use usermgr_core::crypto::hasher::{HashPool, Verified};
use usermgr_core::crypto::password_text::NormalizedPassword;
use usermgr_core::domain::password::PasswordHash;
use usermgr_core::policy::HashPolicy;
use usermgr_core::port::random::SystemRandom;
use usermgr_core::verifier::{Verifier, VerifierSettings};

use usermgr_benches::Trouble;
use usermgr_benches::database::{sqlite_options, user_email};
use usermgr_benches::machine::cores;

/// The parameters of Argon2id: memory in KiB, passes, lanes. They are the product's defaults (OWASP).
pub(crate) const ARGON2: (u32, u32, u32) = (19_456, 2, 1);

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Part {
    /// Argon2 on all cores, each with its own memory, and nothing else: prints hashes a second
    Limit { seconds: f64 },
    /// A bare hyper server with the hash pool and no database
    Bound { hash: String, users: usize },
    /// A bare hyper server with two routes that answer the same: `/hello` at once, `/verify` after a check of the token
    Routes { issuer: String, jwks: String },
    /// Selects sessions with their users by primary key, by sqlx alone: prints selects a second
    Select {
        url: String,
        connections: u32,
        tasks: usize,
        /// Whether each statement is preceded by a ping
        #[arg(action = clap::ArgAction::Set)]
        ping: bool,
        seconds: f64,
    },
}

pub(crate) async fn run(part: Part) -> Result<(), Trouble> {
    match part {
        Part::Limit { seconds } => print_rate(limit(seconds)?),
        Part::Bound { hash, users } => bound(hash, users).await,
        Part::Routes { issuer, jwks } => routes(issuer, &jwks).await,
        Part::Select { url, connections, tasks, ping, seconds } => {
            print_rate(select(&url, connections, tasks, ping, seconds).await?)
        }
    }
}

fn print_rate(rate: f64) -> Result<(), Trouble> {
    Ok(writeln!(std::io::stdout(), "{rate}")?)
}

fn limit(seconds: f64) -> Result<f64, Trouble> {
    let (memory, passes, lanes) = ARGON2;
    let params = Params::new(memory, passes, lanes, Some(32)).map_err(|error| error.to_string())?;
    let time = Duration::from_secs_f64(seconds);
    let threads: Vec<_> = (0..cores())
        .map(|_| {
            let params = params.clone();
            std::thread::spawn(move || {
                let mut memory = vec![Block::default(); params.block_count()];
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                let mut output = [0_u8; 32];
                let mut hash = || {
                    let password = std::hint::black_box(b"correct horse battery");
                    argon2.hash_password_into_with_memory(
                        password,
                        b"salt of 16 bytes",
                        &mut output,
                        &mut memory,
                    )
                };
                hash()?;
                let (begun, mut hashes) = (Instant::now(), 0_u32);
                while begun.elapsed() < time {
                    hash()?;
                    hashes += 1;
                }
                Ok(f64::from(hashes) / begun.elapsed().as_secs_f64())
            })
        })
        .collect();
    let mut rate = 0.0;
    for thread in threads {
        let hashed: Result<f64, argon2::Error> = thread.join().map_err(|_| "a thread panicked")?;
        rate += hashed.map_err(|error| error.to_string())?;
    }
    Ok(rate)
}

/// What a server of the parts knows.
struct Known {
    pool: Option<(HashPool, HashMap<String, PasswordHash>)>,
    verifier: Option<Verifier>,
}

#[derive(serde::Deserialize)]
struct SignIn {
    email: String,
    password: Password,
}

async fn bound(hash: String, users: usize) -> Result<(), Trouble> {
    let pool = HashPool::start(&HashPolicy::default(), Arc::new(SystemRandom))?;
    let users = (0..users).map(|n| (user_email(n), PasswordHash::new(hash.clone()))).collect();
    serve(Known { pool: Some((pool, users)), verifier: None }).await
}

async fn routes(issuer: String, jwks: &str) -> Result<(), Trouble> {
    let verifier = Verifier::from_jwks(jwks, VerifierSettings::new(issuer, "usermgr"))?;
    serve(Known { pool: None, verifier: Some(verifier) }).await
}

/// Serves until it is killed.
async fn serve(known: Known) -> Result<(), Trouble> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    writeln!(std::io::stdout(), "listening on http://{}", listener.local_addr()?)?;
    let known = Arc::new(known);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let known = Arc::clone(&known);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let known = Arc::clone(&known);
                async move { Ok::<_, Infallible>(known.answer(request).await) }
            });
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

impl Known {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let mut response = match (request.method(), request.uri().path()) {
            (&Method::GET, "/hello" | "/v1/users/me") => json_response(),
            (&Method::GET, "/verify") => self.verify(&request),
            (&Method::POST, "/v1/sessions") => {
                self.sign_in(request).await.unwrap_or_else(|| of(StatusCode::UNAUTHORIZED))
            }
            _ => of(StatusCode::NOT_FOUND),
        };
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a service that checks tokens asks the system for the time"
    )]
    fn verify(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let value = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = value.and_then(|value| value.strip_prefix("Bearer "));
        let good = self
            .verifier
            .as_ref()
            .zip(token)
            .is_some_and(|(verifier, token)| verifier.verify(token, OffsetDateTime::now_utc()).is_ok());
        if good { json_response() } else { of(StatusCode::UNAUTHORIZED) }
    }

    async fn sign_in(&self, request: Request<Incoming>) -> Option<Response<Full<Bytes>>> {
        let (pool, users) = self.pool.as_ref()?;
        let body = request.into_body().collect().await.ok()?.to_bytes();
        let SignIn { email, password } = serde_json::from_slice(&body).ok()?;
        let stored = users.get(&email).cloned();
        let origin = HashOrigin { purpose: HashPurpose::SignIn, network: "127.0.0.1".to_owned() };
        let password = NormalizedPassword::parse(&password).ok()?;
        match pool.verify(password, stored, origin).await {
            Ok(Verified::Match { .. }) => Some(json_response()),
            Ok(Verified::Mismatch) => None,
            Err(_) => Some(of(StatusCode::SERVICE_UNAVAILABLE)),
        }
    }
}

fn of(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

const ANSWER: &str = r#"{"status":"active","roles":["user"],"locale":null}"#;

fn json_response() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(ANSWER));
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// The statement of `GET /users/me`, for any session.
const SELECT: &str = "SELECT s.id, s.method, s.ip, s.user_agent, s.created_at, s.authenticated_at, s.last_seen_at, \
    s.idle_expires_at, s.expires_at, u.id AS user_id, u.email, u.email_verified_at, u.username, u.roles, u.status, \
    u.locale, u.password, u.password_version, u.created_at AS user_created_at, u.updated_at, u.last_login_at \
    FROM usermgr_sessions s JOIN usermgr_users u ON u.id = s.user_id WHERE s.id = $1";
const SESSIONS: &str = "SELECT id FROM usermgr_sessions ORDER BY id DESC LIMIT 64";

async fn select(url: &str, connections: u32, tasks: usize, ping: bool, seconds: f64) -> Result<f64, Trouble> {
    macro_rules! select {
        ($pool:expr) => {{
            let pool = $pool;
            let sessions: Vec<uuid::Uuid> = sqlx::query_scalar(SESSIONS).fetch_all(&pool).await?;
            let selected = Arc::new(AtomicU64::new(0));
            let until = Instant::now() + Duration::from_secs_f64(seconds);
            let mut running = tokio::task::JoinSet::new();
            for task in 0..tasks {
                let (pool, selected) = (pool.clone(), Arc::clone(&selected));
                let session = *sessions.get(task % sessions.len().max(1)).ok_or("there is no session")?;
                running.spawn(async move {
                    while Instant::now() < until {
                        let row = sqlx::query(SELECT).bind(session).fetch_one(&pool).await?;
                        let _email: String = row.try_get("email")?;
                        selected.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok::<_, sqlx::Error>(())
                });
            }
            while let Some(ended) = running.join_next().await {
                ended??;
            }
            selected.load(Ordering::Relaxed) as f64 / seconds
        }};
    }
    Ok(if url.starts_with("postgres") {
        let options =
            sqlx::postgres::PgPoolOptions::new().max_connections(connections).test_before_acquire(ping);
        select!(options.connect(url).await?)
    } else {
        let options =
            sqlx::sqlite::SqlitePoolOptions::new().max_connections(connections).test_before_acquire(ping);
        select!(options.connect_with(sqlite_options(url)?).await?)
    })
}
