//! One function for each group of rows.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::Lengths;
use crate::client::{Line, Message, Storm, Tally, get, percentile, post, probe, request};
use crate::report::{Goal, Report};
use crate::server::{self, ISSUER, Server, rate_of};
use usermgr_benches::Trouble;
use usermgr_benches::database::{Database, PASSWORD, Store, user_email};
use usermgr_benches::machine::{self, cores};

/// Users in the database, and owed mails of the outbox's row.
const USERS: usize = 20_000;
/// How many of them sign in.
const SIGNING_IN: usize = 1024;
/// Places in the hash queue for each core, as delivered.
const QUEUE_PER_CORE: usize = 64;
/// Connections of the product's pool, as delivered.
const POOL: &str = "10";
/// Calls a second of whoever only looks who they are.
const PROBES_PER_SECOND: u32 = 50;
const MIB: f64 = 1024.0 * 1024.0;

/// A run, and what it has found so far.
pub(crate) struct Run {
    pub(crate) program: PathBuf,
    pub(crate) lengths: Lengths,
    pub(crate) report: Report,
    /// The stored hash of every user's password.
    hash: String,
    /// The limit as it was measured last, in hashes a second.
    limit: f64,
}

/// A store with users, of which some have signed in.
pub(crate) struct Ground {
    store: Store,
    database: Database,
    tokens: Vec<String>,
    /// What names the next users that register.
    registered: usize,
}

fn sign_in(n: usize) -> Vec<u8> {
    post("/v1/sessions", &json!({"email": user_email(n), "password": PASSWORD}))
}

fn sign_ins() -> impl Fn(usize, usize) -> Vec<u8> + Clone {
    let requests: Rc<Vec<_>> = Rc::new((0..SIGNING_IN).map(sign_in).collect());
    // Who signs in at one time are different users.
    move |connection, nth| requests.get((connection + nth * 257) % SIGNING_IN).cloned().unwrap_or_default()
}

fn whoami(tokens: &[String]) -> Vec<Vec<u8>> {
    tokens.iter().map(|token| get("/v1/users/me", token)).collect()
}

impl Run {
    pub(crate) async fn begin(program: PathBuf, lengths: Lengths) -> Result<Self, Trouble> {
        Ok(Self { program, lengths, report: Report::default(), hash: hash().await?, limit: f64::NAN })
    }

    /// What the hash alone allows, now.
    async fn measure_limit(&mut self) -> Result<f64, Trouble> {
        self.limit = rate_of(&["limit", &self.lengths.limit.as_secs_f64().to_string()]).await?;
        self.report.add(
            "argon2",
            "limit: hashes/s, all cores, reused memory",
            Goal::Told,
            "/s",
            self.limit,
            None,
        );
        Ok(self.limit)
    }

    /// What a rate is of the limit, by the mean of the limit before and after it.
    async fn of_limit(&mut self, rate: f64) -> Result<f64, Trouble> {
        let before = self.limit;
        let after = self.measure_limit().await?;
        Ok(rate / f64::midpoint(before, after))
    }

    fn storm(&self, server: &Server, connections: usize, counted: Duration, wished: u16) -> Storm {
        Storm { address: server.address, connections, warm_up: self.lengths.warm_up, counted, wished }
    }

    fn check(&mut self, of: &str, what: &str, tally: &Tally) {
        if tally.failed > 0 {
            let failed = tally.failed as f64;
            self.report.add(
                of,
                &format!("{what}: other answers, or none"),
                Goal::AtMost(0.0),
                "",
                failed,
                None,
            );
        }
    }

    /// A server of hyper and the hash pool without a database: what nothing with one can beat.
    pub(crate) async fn bound(&mut self) -> Result<(), Trouble> {
        self.measure_limit().await?;
        for connections in [64, 256] {
            let hash = self.hash.clone();
            let server = Server::start_part(&["bound", &hash, &SIGNING_IN.to_string()]).await?;
            let tally = self.storm(&server, connections, self.lengths.storm, 200).run(sign_ins()).await?;
            let ratio = self.of_limit(tally.rate()).await?;
            self.check("bound", "sign-ins", &tally);
            let name = format!("sign-ins/s, {connections} connections ÷ limit");
            self.report.add("bound", &name, Goal::Told, "/s", tally.rate(), Some(ratio));
        }
        Ok(())
    }

    /// A store, migrated, with users.
    pub(crate) async fn seed(&mut self, store: Store) -> Result<Ground, Trouble> {
        let database = Database::create(store, "main").await?;
        server::run(&self.program, &database, &["migrate"]).await?;
        let before = database.size().await?;
        let file = database.users_file(USERS, &self.hash)?;
        let file = file.to_str().ok_or("a temporary folder has a name that is no text")?;
        server::run(&self.program, &database, &["users", "import", file]).await?;
        database.settle().await?;
        let bytes = (database.size().await? - before) as f64 / USERS as f64;
        self.report.add(
            store.name(),
            "cost: bytes of a user, with its audit entry",
            Goal::Told,
            "B",
            bytes,
            None,
        );
        Ok(Ground { store, database, tokens: Vec::new(), registered: 0 })
    }

    /// Everything of a store that is measured in each round.
    pub(crate) async fn round(&mut self, ground: &mut Ground) -> Result<(), Trouble> {
        self.start(ground).await?;
        self.sign_ins(ground).await?;
        self.storm_and_me(ground).await?;
        self.past_the_queue(ground).await?;
        self.me(ground).await?;
        self.registrations(ground).await
    }

    async fn start(&mut self, ground: &Ground) -> Result<(), Trouble> {
        let of = ground.store.name();
        let mut starts = Vec::new();
        for _ in 0..5 {
            let (server, took) = Server::start_timed(&self.program, &ground.database).await?;
            starts.push(took);
            if starts.len() == 5 {
                sleep(Duration::from_millis(500)).await;
                let idle = machine::memory_mib(server.pid, "VmRSS")?;
                let most = 16.0 + 19.0 * cores() as f64;
                self.report.add(
                    of,
                    "idle memory, hash buffers included",
                    Goal::AtMost(most),
                    "MiB",
                    idle,
                    None,
                );
            }
            server.stop().await?;
        }
        let start = percentile(&starts, 0.5);
        self.report.add(of, "start to first answer, median of 5", Goal::AtMost(20.0), "ms", start, None);
        Ok(())
    }

    /// Sign-ins at 16, 64 and 256 connections, each in a fresh process, with its memory and its processor time.
    async fn sign_ins(&mut self, ground: &Ground) -> Result<(), Trouble> {
        let of = ground.store.name();
        let mut peaks = Vec::new();
        self.measure_limit().await?;
        for connections in [16, 64, 256] {
            let sessions = "SELECT count(*) FROM usermgr_sessions";
            ground.database.settle().await?;
            let before = (ground.database.size().await?, ground.database.number(sessions).await?);
            let server = Server::start(&self.program, &ground.database, &["serve"], &[]).await?;
            let storm = self.storm(&server, connections, self.lengths.storm, 200);
            let watched = Watched { server: server.pid, postmaster: ground.database.postmaster };
            let (tally, cost) = watched.during(storm, sign_ins()).await?;
            let peak = server.peak_mib()?;
            peaks.push(peak);
            server.stop().await?;
            let ratio = self.of_limit(tally.rate()).await?;
            self.check(of, "sign-ins", &tally);
            let name = format!("sign-ins/s, {connections} connections ÷ limit");
            self.report.add(of, &name, Goal::RatioAtLeast(0.95), "/s", tally.rate(), Some(ratio));
            let goal = if connections == 256 { Goal::AtMost(64.0) } else { Goal::Told };
            self.report.add(
                of,
                &format!("peak memory, {connections} sign-ins at once"),
                goal,
                "MiB",
                peak,
                None,
            );
            if connections == 64 {
                cost.report(&mut self.report, of, "sign-in", &tally);
                let after = (ground.database.size().await?, ground.database.number(sessions).await?);
                let bytes = (after.0 - before.0) as f64 / (after.1 - before.1) as f64;
                self.report.add(
                    of,
                    "cost: bytes of a sign-in: session and audit entry",
                    Goal::Told,
                    "B",
                    bytes,
                    None,
                );
            }
        }
        let more = peaks.last().zip(peaks.first()).map_or(f64::NAN, |(most, least)| most - least);
        self.report.add(of, "peak memory, 256 over 16 sign-ins", Goal::AtMost(5.0), "MiB", more, None);
        Ok(())
    }

    /// What others notice of a storm.
    async fn storm_and_me(&mut self, ground: &mut Ground) -> Result<(), Trouble> {
        let of = ground.store.name();
        let server = Server::start(&self.program, &ground.database, &["serve"], &[]).await?;
        ground.tokens = tokens(&server, 64).await?;
        let me = whoami(&ground.tokens);
        let calm = self.probe(&server, me.clone(), self.lengths.calm).await?;
        let storm = self.storm(&server, 256, self.lengths.calm, 200);
        let probing = async {
            sleep(self.lengths.warm_up).await;
            self.probe(&server, me, self.lengths.calm).await
        };
        let (tally, stormy) = tokio::join!(storm.run(sign_ins()), probing);
        let stormy = stormy?;
        let tally = tally?;
        server.stop().await?;
        self.report_me(of, &calm, &stormy);
        self.check(of, "sign-ins of the storm", &tally);
        Ok(())
    }

    fn report_me(&mut self, of: &str, calm: &[Duration], stormy: &[Duration]) {
        let p99 = percentile(stormy, 0.99);
        let ratio = Some(p99 / percentile(calm, 0.99));
        for (name, times, goal) in
            [("calm", calm, Goal::Told), ("during 256 sign-ins at once", stormy, Goal::AtMost(10.0))]
        {
            let mut add = |what: &str, goal, share| {
                let name = format!("me {what}, {name}");
                self.report.add(of, &name, goal, "ms", percentile(times, share), None);
            };
            add("p50", Goal::Told, 0.5);
            add("p99", goal, 0.99);
            add("max", Goal::Told, 1.0);
        }
        self.report.add(of, "me p99 during 256 sign-ins ÷ calm", Goal::RatioAtMost(3.0), "ms", p99, ratio);
    }

    async fn probe(
        &self,
        server: &Server,
        me: Vec<Vec<u8>>,
        counted: Duration,
    ) -> Result<Vec<Duration>, Trouble> {
        let address = server.address;
        let probing = tokio::task::spawn_blocking(move || probe(address, &me, PROBES_PER_SECOND, counted));
        Ok(probing.await??)
    }

    /// More callers than there are places.
    async fn past_the_queue(&mut self, ground: &Ground) -> Result<(), Trouble> {
        let of = ground.store.name();
        let queue = QUEUE_PER_CORE * cores();
        let server = Server::start(&self.program, &ground.database, &["serve"], &[]).await?;
        let tally = self.storm(&server, queue * 4, self.lengths.storm, 200).run(sign_ins()).await?;
        server.stop().await?;
        self.check(of, "sign-ins past the queue", &tally);
        let silent = (tally.refused.len() - tally.told_when) as f64;
        let add = &mut self.report;
        add.add(of, "past the queue: 503 without Retry-After", Goal::AtMost(0.0), "", silent, None);
        add.add(
            of,
            "past the queue: 503s/s",
            Goal::Told,
            "/s",
            tally.refused.len() as f64 / tally.took.as_secs_f64(),
            None,
        );
        add.add(of, "past the queue: 503 p50", Goal::Told, "ms", percentile(&tally.refused, 0.5), None);
        add.add(
            of,
            "past the queue: 503 p99",
            Goal::AtMost(10.0),
            "ms",
            percentile(&tally.refused, 0.99),
            None,
        );
        let (p99, whole) = (percentile(&tally.granted, 0.99), queue as f64 / tally.rate() * 1e3);
        let name = "past the queue: admitted p99 ÷ (queue ÷ rate)";
        add.add(of, name, Goal::RatioAtMost(1.25), "ms", p99, Some(p99 / whole));
        Ok(())
    }

    /// Who am I, as fast as it goes, against what sqlx alone selects.
    async fn me(&mut self, ground: &Ground) -> Result<(), Trouble> {
        let of = ground.store.name();
        let url = ground.database.url.as_str();
        let seconds = self.lengths.select.as_secs_f64().to_string();
        for connections in [16, 64] {
            let server = Server::start(&self.program, &ground.database, &["serve"], &[]).await?;
            let me: Rc<Vec<_>> = Rc::new(whoami(&ground.tokens));
            let storm = self.storm(&server, connections, self.lengths.me, 200);
            let watched = Watched { server: server.pid, postmaster: ground.database.postmaster };
            let call = move |connection: usize, _| me.get(connection % me.len()).cloned().unwrap_or_default();
            let (tally, cost) = watched.during(storm, call).await?;
            server.stop().await?;
            let tasks = connections.to_string();
            let alone = rate_of(&["select", url, POOL, &tasks, "false", &seconds]).await?;
            self.check(of, "me", &tally);
            let name = format!("me/s, {connections} connections ÷ sqlx's SELECTs/s");
            self.report.add(
                of,
                &name,
                Goal::RatioAtLeast(0.6),
                "/s",
                tally.rate(),
                Some(tally.rate() / alone),
            );
            self.report.add(
                of,
                &format!("sqlx alone, SELECTs/s, {connections} tasks"),
                Goal::Told,
                "/s",
                alone,
                None,
            );
            if connections == 64 {
                cost.report(&mut self.report, of, "me", &tally);
                let pinging = rate_of(&["select", url, POOL, &tasks, "true", &seconds]).await?;
                let name = "sqlx alone, with a ping before each, SELECTs/s, 64 tasks";
                self.report.add(of, name, Goal::Told, "/s", pinging, None);
            }
        }
        Ok(())
    }

    /// Registrations, with the hash as delivered and with one that costs nothing: that is what the store alone can do.
    async fn registrations(&mut self, ground: &mut Ground) -> Result<(), Trouble> {
        let of = ground.store.name();
        let cheap = [("USERMGR_PASSWORDS_MEMORY_KIB", "64"), ("USERMGR_PASSWORDS_ITERATIONS", "1")];
        self.measure_limit().await?;
        for settings in [&[][..], &cheap] {
            let server = Server::start(&self.program, &ground.database, &["serve"], settings).await?;
            let storm = self.storm(&server, 64, self.lengths.registrations, 202);
            let first = ground.registered;
            ground.registered += 1;
            let call = move |connection: usize, nth: usize| {
                let email = format!("new{first}.{connection}.{nth}@example.org");
                post("/v1/users", &json!({"email": email, "password": PASSWORD}))
            };
            let tally = storm.run(call).await?;
            server.stop().await?;
            self.check(of, "registrations", &tally);
            if settings.is_empty() {
                let ratio = self.of_limit(tally.rate()).await?;
                let name = "registrations/s, 64 connections ÷ limit";
                self.report.add(of, name, Goal::RatioAtLeast(0.95), "/s", tally.rate(), Some(ratio));
            } else {
                let name = "registrations/s with a hash of 64 KiB: what commits allow";
                self.report.add(of, name, Goal::Told, "/s", tally.rate(), None);
            }
        }
        // What they owe is delivered now, not while the next row is measured.
        self.deliver(ground, "32").await?;
        Ok(())
    }

    /// The outbox, once for each store: with the places that a worker has by default, and with more.
    pub(crate) async fn outbox(&mut self, ground: &Ground) -> Result<(), Trouble> {
        let of = ground.store.name();
        for (places, goal) in [("8", Goal::Told), ("32", Goal::AtLeast(2000.0))] {
            let server =
                Server::start(&self.program, &ground.database, &["serve", "--no-worker"], &[]).await?;
            let mut storm = self.storm(&server, 64, self.lengths.owe, 202);
            storm.warm_up = Duration::ZERO;
            let mails = self.lengths.owed_mails;
            let call = move |connection: usize, nth: usize| {
                let n = connection + nth * 64;
                // Past the wanted number nothing is owed any more: nobody has such an address.
                let email = if n < mails { user_email(n) } else { "nobody@example.org".to_owned() };
                post("/v1/passwords/forgot", &json!({"email": email}))
            };
            let tally = storm.run(call).await?;
            server.stop().await?;
            self.check(of, "forgotten passwords", &tally);
            ground.database.settle().await?;
            let (settled, took) = self.deliver(ground, places).await?;
            let rate = settled as f64 / took.as_secs_f64();
            let name = format!("outbox: mails/s of one worker with {places} places, of {settled}");
            self.report.add(of, &name, goal, "/s", rate, None);
        }
        self.hand_over(ground.store).await
    }

    /// Lets one worker deliver what is owed, for a bounded time: how many it settled, and how long that took.
    async fn deliver(&self, ground: &Ground, places: &str) -> Result<(i64, Duration), Trouble> {
        let owed = "SELECT count(*) FROM usermgr_outbox WHERE status = 'queued'";
        let before = ground.database.number(owed).await?;
        let mut worker = server::product(&self.program, &ground.database, &["worker"])?;
        let mut worker = worker.env("USERMGR_OUTBOX_CONCURRENCY", places).spawn()?;
        let begun = Instant::now();
        let mut left = before;
        while left > 0 && begun.elapsed() < self.lengths.deliver {
            // Counting takes time of the database; the worker shall have it.
            sleep(Duration::from_millis(200)).await;
            left = ground.database.number(owed).await?;
        }
        let took = begun.elapsed();
        server::stop(&mut worker).await?;
        Ok((before - left, took))
    }

    /// From the answer of a registration to the arrival of its mail, over a database in which nothing else is to be done.
    async fn hand_over(&mut self, store: Store) -> Result<(), Trouble> {
        let of = store.name();
        let database = Database::create(store, "idle").await?;
        server::run(&self.program, &database, &["migrate"]).await?;
        let (url, mut arrivals) = sink().await?;
        let settings = [("USERMGR_MAIL_URL", url.as_str())];
        let server = Server::start(&self.program, &database, &["serve"], &settings).await?;
        let mut line = Line::connect(server.address).await?;
        let mut times = Vec::new();
        for n in 0..self.lengths.hand_overs {
            // Of no rhythm that anything else here has.
            sleep(Duration::from_millis(u64::try_from(60 + n * 37 % 150)?)).await;
            let email = format!("handover{n}@example.org");
            let status =
                line.call(&post("/v1/users", &json!({"email": email, "password": PASSWORD}))).await?;
            let answered = Instant::now();
            if status != 202 {
                return Err(format!("a registration was answered {status}").into());
            }
            let arrived = loop {
                let arrival = tokio::time::timeout(Duration::from_secs(10), arrivals.recv()).await?;
                let (to, at) = arrival.ok_or("the sink has ended")?;
                if to == email {
                    break at;
                }
            };
            times.push(arrived.saturating_duration_since(answered));
        }
        server.stop().await?;
        database.remove().await?;
        self.report.add(of, "hand-over of a mail p50, idle", Goal::Told, "ms", percentile(&times, 0.5), None);
        self.report.add(
            of,
            "hand-over of a mail, the slowest, idle",
            Goal::AtMost(50.0),
            "ms",
            percentile(&times, 1.0),
            None,
        );
        Ok(())
    }

    /// The check of a token without a store, against a route that does nothing.
    pub(crate) async fn verifier(&mut self, ground: &Ground) -> Result<(), Trouble> {
        let server = Server::start(&self.program, &ground.database, &["serve"], &[]).await?;
        let tokens = tokens(&server, 64).await?;
        let mut line = Line::connect(server.address).await?;
        line.call(&request("GET", "/.well-known/jwks.json", "", "")).await?;
        let jwks = std::str::from_utf8(line.body())?.to_owned();
        server.stop().await?;
        let part = Server::start_part(&["routes", ISSUER, &jwks]).await?;
        let mut rates = Vec::new();
        for path in ["/hello", "/verify"] {
            let requests: Rc<Vec<_>> = Rc::new(tokens.iter().map(|token| get(path, token)).collect());
            let storm = self.storm(&part, 64, self.lengths.me, 200);
            let tally =
                storm.run(move |n, _| requests.get(n % requests.len()).cloned().unwrap_or_default()).await?;
            self.check("verifier", path, &tally);
            rates.push(tally.rate());
        }
        if let [bare, checked] = rates[..] {
            self.report.add("verifier", "bare hyper, requests/s", Goal::Told, "/s", bare, None);
            let name = "token check without a store ÷ bare hyper";
            self.report.add("verifier", name, Goal::RatioAtLeast(0.75), "/s", checked, Some(checked / bare));
        }
        Ok(())
    }

    /// How large the program is.
    pub(crate) fn binary(&mut self) -> Result<(), Trouble> {
        let bytes = std::fs::metadata(&self.program)?.len();
        self.report.add(
            "binary",
            "size of the server's program",
            Goal::AtMost(20.0),
            "MiB",
            bytes as f64 / MIB,
            None,
        );
        Ok(())
    }

    /// The same storms on a peer. Its interface is said in `benches/peers/README.md`.
    pub(crate) async fn peer(&mut self, program: &Path) -> Result<(), Trouble> {
        let of = "peer";
        let database = Database::create(Store::Postgres, "peer").await?;
        self.measure_limit().await?;
        let form = |n: usize| {
            let body = format!("username=user{n}&password={}", PASSWORD.replace(' ', "+"));
            request("POST", "/login", "content-type: application/x-www-form-urlencoded\r\n", &body)
        };
        let sign_ins = move |connection: usize, nth: usize| form((connection + nth * 257) % SIGNING_IN);
        for connections in [16, 64, 256] {
            let server = Server::start_peer(program, &database, &self.hash, SIGNING_IN).await?;
            let tally = self.storm(&server, connections, self.lengths.storm, 303).run(sign_ins).await?;
            let peak = server.peak_mib()?;
            server.stop().await?;
            let ratio = self.of_limit(tally.rate()).await?;
            self.check(of, "sign-ins", &tally);
            let name = format!("sign-ins/s, {connections} connections ÷ limit");
            self.report.add(of, &name, Goal::Told, "/s", tally.rate(), Some(ratio));
            self.report.add(
                of,
                &format!("peak memory, {connections} sign-ins at once"),
                Goal::Told,
                "MiB",
                peak,
                None,
            );
        }
        let server = Server::start_peer(program, &database, &self.hash, SIGNING_IN).await?;
        let mut me = Vec::new();
        for n in 0..64 {
            let mut line = Line::connect(server.address).await?;
            line.call(&form(n)).await?;
            let cookie = line.field("set-cookie").and_then(|cookie| cookie.split(';').next());
            let cookie = cookie.ok_or("the peer gave no cookie")?.to_owned();
            me.push(request("GET", "/me", &format!("cookie: {cookie}\r\n"), ""));
        }
        let calm = self.probe(&server, me.clone(), self.lengths.calm).await?;
        let storm = self.storm(&server, 256, self.lengths.calm, 303);
        let probing = async {
            sleep(self.lengths.warm_up).await;
            self.probe(&server, me, self.lengths.calm).await
        };
        let (tally, stormy) = tokio::join!(storm.run(sign_ins), probing);
        let stormy = stormy?;
        let tally = tally?;
        server.stop().await?;
        self.report_me(of, &calm, &stormy);
        self.check(of, "sign-ins of the storm", &tally);
        database.remove().await
    }
}

impl Ground {
    pub(crate) async fn remove(self) -> Result<(), Trouble> {
        self.database.remove().await
    }
}

/// A hash of everybody's password by the product's own pool, with the parameters as delivered.
async fn hash() -> Result<String, Trouble> {
    use usermgr_core::crypto::hash_queue::{HashOrigin, HashPurpose};
    use usermgr_core::crypto::{hasher::HashPool, password_text::NormalizedPassword};
    use usermgr_core::{Password, policy::HashPolicy, port::random::SystemRandom};
    let pool = HashPool::start(&HashPolicy::default(), std::sync::Arc::new(SystemRandom))?;
    let password = NormalizedPassword::parse(&Password::new(PASSWORD)).map_err(|_| "the password is none")?;
    let origin = HashOrigin { purpose: HashPurpose::NewPassword, network: String::new() };
    Ok(pool.hash(password, origin).await?.expose().to_owned())
}

/// Signs some users in.
async fn tokens(server: &Server, users: usize) -> Result<Vec<String>, Trouble> {
    let mut line = Line::connect(server.address).await?;
    let mut tokens = Vec::new();
    for n in 0..users {
        let status = line.call(&sign_in(n)).await?;
        let answer: Value = serde_json::from_slice(line.body())?;
        let token = answer.get("access_token").and_then(Value::as_str);
        tokens.push(token.ok_or_else(|| format!("a sign-in was answered {status}"))?.to_owned());
    }
    Ok(tokens)
}

/// A mail API that takes everything at once: its URL, and who was written to and when.
async fn sink() -> Result<(String, mpsc::UnboundedReceiver<(String, Instant)>), Trouble> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let (arrived, arrivals) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let arrived = arrived.clone();
            tokio::spawn(async move {
                let mut buffer = Vec::new();
                while stream.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
                    let Some(message) = Message::find(&buffer) else { continue };
                    let at = Instant::now();
                    let mail: Value = serde_json::from_slice(message.body(&buffer)).unwrap_or_default();
                    let to = mail.get("to").and_then(Value::as_str).unwrap_or_default().to_owned();
                    drop(arrived.send((to, at)));
                    buffer.clear();
                    if stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await.is_err()
                    {
                        break;
                    }
                }
            });
        }
    });
    Ok((url, arrivals))
}

/// Whose processor time is watched.
struct Watched {
    server: u32,
    postmaster: Option<u32>,
}

/// Processor time of the server and of PostgreSQL.
struct Cost {
    server: Duration,
    database: Option<Duration>,
}

impl Watched {
    fn now(&self) -> Cost {
        Cost { server: machine::cpu(self.server), database: self.postmaster.map(machine::cpu_of_children) }
    }

    /// Runs a storm and tells what it cost while it was counted.
    async fn during(
        &self,
        storm: Storm,
        call: impl Fn(usize, usize) -> Vec<u8> + Clone + 'static,
    ) -> Result<(Tally, Cost), Trouble> {
        let watching = async {
            sleep(storm.warm_up).await;
            let before = self.now();
            sleep(storm.counted).await;
            let after = self.now();
            let database =
                after.database.zip(before.database).map(|(after, before)| after.saturating_sub(before));
            Cost { server: after.server.saturating_sub(before.server), database }
        };
        let (tally, cost) = tokio::join!(storm.run(call), watching);
        Ok((tally?, cost))
    }
}

impl Cost {
    fn report(&self, report: &mut Report, of: &str, what: &str, tally: &Tally) {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / tally.granted.len() as f64;
        let name = format!("cost: processor time of a {what}, server");
        report.add(of, &name, Goal::Told, "µs", each(self.server), None);
        if let Some(database) = self.database {
            let name = format!("cost: processor time of a {what}, PostgreSQL");
            report.add(of, &name, Goal::Told, "µs", each(database), None);
        }
    }
}
