//! Hostile clients against the real server, over real sockets: they hold connections, flood with them, and guess. While they do,
//! somebody else, from another address, asks for health and signs in, and must be answered soon.

mod attacks;
mod bystander;
mod wire;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mail::Mailbox;
use crate::server::{Database, Manner, Servers};
use crate::{PATIENCE, SetUp, Trouble};
use attacks::Hold;
use bystander::{Bystander, PAUSE, SHORT_PAUSE, Seen};

/// Where hostile clients come from, and where somebody else does.
const HOSTILE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Who signs in from elsewhere.
const USER: &str = "somebody@example.org";
const PASSWORD: &str = "correct horse battery";
/// How soon somebody else must be answered.
const SOON: Duration = Duration::from_secs(3);
/// How long a hostile client may hold a connection by taking or sending next to nothing.
const HELD: Duration = Duration::from_secs(30);
/// Connections of a flood: more than the server has places.
const FLOOD: usize = 10_050;
/// Networks of the flood that comes from many, how many connections each brings, and for how many there are places.
const NETWORKS: usize = 40;
const OF_EACH_NETWORK: usize = 30;
const PLACES: (&str, &str) = ("USERMGR_HTTP_MAX_CONNECTIONS", "1000");

/// What hostile clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Attack {
    /// Eight ways to hold connections, at once.
    Hold,
    /// More connections than there are places, HTTP/2, each with a window of 0.
    #[value(name = "flood-window-0")]
    FloodWindow0,
    /// More connections than there are places, each idle after one request.
    FloodIdle,
    /// More connections than there are places, a thousand here, from forty networks: all are taken, and health must be answered.
    FloodNetworks,
    /// Guesses at mailed codes.
    GuessCode,
    /// Refresh tokens that are none.
    GuessRefresh,
    /// Guesses at passwords.
    GuessPassword,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Hold,
        Self::FloodWindow0,
        Self::FloodIdle,
        Self::FloodNetworks,
        Self::GuessCode,
        Self::GuessRefresh,
        Self::GuessPassword,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Hold => "holding connections",
            Self::FloodWindow0 => "10,050 with a window of 0",
            Self::FloodIdle => "10,050 that are idle",
            Self::FloodNetworks => "1,200 from 40 networks",
            Self::GuessCode => "guesses at codes",
            Self::GuessRefresh => "guesses at refresh tokens",
            Self::GuessPassword => "guesses at passwords",
        }
    }

    /// Whether it is about the rows that a stranger makes the server write.
    pub const fn guesses(self) -> bool {
        matches!(self, Self::GuessCode | Self::GuessRefresh | Self::GuessPassword)
    }
}

/// How to attack.
#[derive(Debug, Clone)]
pub struct HostilePlan {
    /// On what.
    pub set_up: SetUp,
    /// How long floods go on.
    pub lasts: Duration,
    /// How many guesses are made.
    pub guesses: usize,
    /// The most rows that one network's guesses may make the server write, however many they are.
    pub rows: i64,
}

/// What an attack did.
#[derive(Debug)]
pub struct Suffered {
    set_up: SetUp,
    rows: Vec<String>,
    /// What must not have been.
    pub faults: Vec<String>,
}

impl Suffered {
    /// The head of the table.
    pub const HEAD: &str = "\
| attack                    | set-up   | connections or calls | held for at most | others: calls | failed | health | sign-in | rows written |\n\
|---------------------------|----------|---------------------:|-----------------:|--------------:|-------:|-------:|--------:|-------------:|\n";

    /// Its rows of the table.
    pub fn rows(&self) -> String {
        self.rows.concat()
    }

    /// What must not have been, a line each.
    pub fn told(&self) -> String {
        self.faults.iter().fold(String::new(), |mut told, fault| {
            let _infallible = writeln!(told, "  BROKEN: {fault}");
            told
        })
    }

    fn row(&mut self, name: &str, number: usize, held: &str, seen: Option<&Seen>, rows: Option<i64>) {
        let (calls, failed, health, sign_in) = seen.map_or_else(Default::default, Seen::cells);
        let rows = rows.map_or_else(String::new, |rows| rows.to_string());
        self.rows.push(format!(
            "| {name:<25} | {:<8} | {number:>20} | {held:>16} | {calls:>13} | {failed:>6} | {health:>6} | {sign_in:>7} | {rows:>12} |\n",
            self.set_up.name(),
        ));
    }
}

/// A server that is attacked.
#[derive(Debug, Clone, Copy)]
struct Target {
    address: SocketAddr,
}

/// Runs one attack on a server of its own.
///
/// # Errors
/// When the server or the database cannot be started at all.
pub async fn attack(plan: &HostilePlan, attack: Attack) -> Result<Suffered, Trouble> {
    let database = Database::create(plan.set_up).await?;
    let mailbox = Mailbox::open().await?;
    let mail = mailbox.url();
    let settings = (attack == Attack::FloodNetworks).then(|| (PLACES.0, PLACES.1.to_owned()));
    let settings = settings.into_iter().collect();
    let servers = Servers::start_with(&database, &mail, Manner::Usual, 1, settings).await?;
    servers.create_user(&database, &mail, USER, PASSWORD, "user").await?;
    let address = *servers.addresses.first().ok_or("no server")?;
    let target = Target { address };
    let mut suffered = Suffered { set_up: plan.set_up, rows: Vec::new(), faults: Vec::new() };
    if attack.guesses() {
        guess(plan, attack, target, &database, &mut suffered).await?;
    } else if attack == Attack::Hold {
        hold(target, &mut suffered).await?;
    } else {
        flood(plan, attack, target, &mut suffered).await?;
    }
    let stopped = tokio::time::timeout(PATIENCE, servers.stop()).await;
    let faults = stopped.map_err(|_| "the server did not stop")??;
    suffered.faults.extend(faults.into_iter().map(|fault| format!("{}: {fault}", attack.name())));
    database.remove().await?;
    Ok(suffered)
}

/// Each way to hold connections, all at once, for as long as they may be held and a little longer.
async fn hold(target: Target, suffered: &mut Suffered) -> Result<(), Trouble> {
    const EACH: usize = 20;
    let others = Bystander::begin(target, true, PAUSE).await?;
    let until = Instant::now() + HELD + Duration::from_secs(2);
    let mut holding = Vec::new();
    for hold in Hold::ALL {
        let clients = (0..EACH).map(|_| tokio::spawn(hold.run(target, until)));
        holding.push((hold, futures_util::future::join_all(clients)));
    }
    let mut held = Vec::new();
    for (hold, clients) in holding {
        let longest = clients.await.into_iter().flatten().max().unwrap_or_default();
        held.push((hold, longest));
    }
    let seen = others.end().await?;
    for (hold, longest) in held {
        let still = longest > HELD;
        let text = if still {
            format!("over {} s", HELD.as_secs())
        } else {
            format!("{:.1} s", longest.as_secs_f64())
        };
        suffered.row(hold.name(), EACH, &text, None, None);
        if still {
            suffered.faults.push(format!(
                "{}: a connection was held for over {} s",
                hold.name(),
                HELD.as_secs()
            ));
        }
    }
    suffered.row(Attack::Hold.name(), EACH * Hold::ALL.len(), "", Some(&seen), None);
    suffered.faults.extend(seen.faults(Attack::Hold.name()));
    Ok(())
}

async fn flood(
    plan: &HostilePlan,
    attack: Attack,
    target: Target,
    suffered: &mut Suffered,
) -> Result<(), Trouble> {
    let (networks, number) =
        if attack == Attack::FloodNetworks { (NETWORKS, OF_EACH_NETWORK * NETWORKS) } else { (1, FLOOD) };
    // Sign-ins are refused, honestly, when all places are taken by forty networks.
    let others = Bystander::begin(target, networks == 1, PAUSE).await?;
    let flood = attacks::flood(attack, target, number, networks, plan.lasts).await;
    let seen = others.end().await?;
    suffered.row(attack.name(), flood.most_open, "", Some(&seen), None);
    suffered.faults.extend(seen.faults(attack.name()));
    if flood.opened < number {
        suffered.faults.push(format!("{}: only {} connections could be tried", attack.name(), flood.opened));
    }
    Ok(())
}

async fn guess(
    plan: &HostilePlan,
    attack: Attack,
    target: Target,
    database: &Database,
    suffered: &mut Suffered,
) -> Result<(), Trouble> {
    let guesser = Arc::new(attacks::Guesser::prepare(attack, target).await?);
    let before = rows(database).await?;
    let others = Bystander::begin(target, false, SHORT_PAUSE).await?;
    let calls = guesser.run(plan.guesses).await?;
    let seen = others.end().await?;
    // What workers had under way.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let written = rows(database).await? - before;
    suffered.row(attack.name(), calls, "", Some(&seen), Some(written));
    suffered.faults.extend(seen.faults(attack.name()));
    if written > plan.rows {
        suffered.faults.push(format!(
            "{}: {calls} guesses of one network wrote {written} rows, not {} at most",
            attack.name(),
            plan.rows
        ));
    }
    Ok(())
}

/// All rows that requests can write.
async fn rows(database: &Database) -> Result<i64, Trouble> {
    const SQL: &str = "SELECT (SELECT count(*) FROM usermgr_audit) + (SELECT count(*) FROM usermgr_codes) \
         + (SELECT count(*) FROM usermgr_outbox) + (SELECT count(*) FROM usermgr_events) \
         + (SELECT count(*) FROM usermgr_registrations) + (SELECT count(*) FROM usermgr_sessions) \
         + (SELECT count(*) FROM usermgr_throttles) WHERE $1 = $1";
    database.number(SQL, "").await
}
