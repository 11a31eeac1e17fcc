//! Kills the real server at many points and shows that nothing that was acknowledged is lost, and nothing is half done.
//!
//! Run it by `scripts/prove-crash`, which brings what it needs.

mod database;
mod flow;
mod point;
mod server;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::database::Kind;
use crate::flow::Flow;
use crate::point::{Fault, Finding, Template, Way};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Fallible<T> = Result<T, Failure>;

/// What a run is asked for.
struct Options {
    server: PathBuf,
    postgres: String,
    points: usize,
    seed: u64,
    jobs: usize,
    /// Whether processes may be watched call by call.
    watch: bool,
}

impl Options {
    fn read() -> Fallible<Self> {
        let mut options = Self {
            server: PathBuf::new(),
            postgres: String::new(),
            points: 2400,
            seed: 1,
            jobs: std::thread::available_parallelism().map_or(2, usize::from) + 1,
            watch: true,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--short" => options.points = 60,
                "--no-strace" => options.watch = false,
                "--server" => options.server = value()?.into(),
                "--postgres" => options.postgres = value()?,
                "--points" => options.points = value()?.parse()?,
                "--seed" => options.seed = value()?.parse()?,
                "--jobs" => options.jobs = value()?.parse::<usize>()?.max(1),
                _ => return Err(format!("{argument}: unknown").into()),
            }
        }
        options.server = options.server.canonicalize()?;
        Ok(options)
    }
}

/// Chance that can be had again (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }

    fn flow(&mut self) -> usize {
        usize::try_from(self.below(Flow::ALL.len() as u64)).unwrap_or(0)
    }

    /// A moment of something that takes so long, or a little later.
    fn moment(&mut self, length: Duration) -> Duration {
        let micros = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(micros + micros / 8 + 1))
    }
}

/// A line of the table.
#[derive(Default)]
struct Row {
    points: usize,
    faults: BTreeMap<Fault, usize>,
    slowest: Duration,
}

#[tokio::main]
async fn main() -> ExitCode {
    match prove().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("prove-crash: {error}"));
            ExitCode::from(2)
        }
    }
}

fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

async fn prove() -> Fallible<bool> {
    let options = Options::read()?;
    let begun = Instant::now();
    let mut rows: BTreeMap<(&str, &str), Row> = BTreeMap::new();
    let mut dice = Dice(options.seed);
    let quarter = options.points / 4;
    for (kind, tokens) in
        [(Kind::Sqlite, "opaque"), (Kind::Sqlite, "jwt"), (Kind::Postgres, "opaque"), (Kind::Postgres, "jwt")]
    {
        let copies = if tokens == "jwt" { 2 } else { 1 };
        let template =
            Template::make(kind, &options.postgres, options.server.clone(), tokens, copies).await?;
        let ways = match (kind, tokens) {
            (Kind::Sqlite, "opaque") => {
                system_calls(&template, &options, options.points / 2, &mut dice).await?
            }
            (Kind::Postgres, "opaque") => {
                let mut ways = Vec::new();
                for n in 0..quarter {
                    let flow = dice.flow();
                    let length = template.lengths.get(flow).copied().unwrap_or_default();
                    let after = dice.moment(length);
                    ways.push(if n % 2 == 0 {
                        Way::Random { flow, after }
                    } else {
                        Way::Cut { flow, after }
                    });
                }
                ways
            }
            _ => {
                let length = Duration::from_millis(600);
                (0..options.points / 8).map(|_| Way::Load { after: dice.moment(length) }).collect()
            }
        };
        let template = Arc::new(template);
        visit_all(&template, ways, options.jobs, &mut rows).await;
        if let Some(template) = Arc::into_inner(template) {
            template.remove().await?;
        }
    }
    let good = table(&rows);
    say(&format!("seed {}, {} s", options.seed, begun.elapsed().as_secs()));
    Ok(good)
}

/// Points at calls that write: all there are, or so many of them by chance.
async fn system_calls(
    template: &Template,
    options: &Options,
    most: usize,
    dice: &mut Dice,
) -> Fallible<Vec<Way>> {
    if !options.watch {
        say("processes cannot be watched here: random kills instead of kills at system calls");
        let mut ways = Vec::new();
        for _ in 0..most {
            let flow = dice.flow();
            let after = dice.moment(template.lengths.get(flow).copied().unwrap_or_default());
            ways.push(Way::Random { flow, after });
        }
        return Ok(ways);
    }
    let mut ways = Vec::new();
    for (flow, name) in Flow::ALL.iter().enumerate() {
        let calls = template.count_calls(flow).await?;
        let list: Vec<_> = calls.iter().map(|(call, count)| format!("{count} {call}")).collect();
        say(&format!("{name:?}: {}", list.join(", ")));
        for (call, count) in calls {
            ways.extend((1..=count).map(|n| Way::SystemCall { flow, call, n }));
        }
    }
    while ways.len() > most {
        let one = usize::try_from(dice.below(ways.len() as u64))?;
        ways.swap_remove(one);
    }
    Ok(ways)
}

async fn visit_all(
    template: &Arc<Template>,
    ways: Vec<Way>,
    jobs: usize,
    rows: &mut BTreeMap<(&'static str, &'static str), Row>,
) {
    let mut ways = ways.into_iter();
    let mut running = JoinSet::new();
    let mut shown = 0;
    loop {
        while running.len() < jobs {
            let Some(way) = ways.next() else { break };
            let template = Arc::clone(template);
            running.spawn(async move {
                let found = template.visit(way).await.unwrap_or_else(|error| Finding {
                    hit: true,
                    faults: vec![(Fault::Other, error.to_string())],
                    ..Finding::default()
                });
                (way, found)
            });
        }
        let Some(Ok((way, found))) = running.join_next().await else { break };
        if !found.hit {
            continue;
        }
        let store = if template.kind() == Kind::Sqlite { "SQLite" } else { "PostgreSQL" };
        let name = match way {
            Way::SystemCall { .. } => "before a system call",
            Way::Random { .. } => "at a random moment",
            Way::Load { .. } => "under load",
            Way::Cut { .. } => "connections cut",
        };
        let row = rows.entry((store, name)).or_default();
        row.points += 1;
        row.slowest = row.slowest.max(found.restart);
        for (fault, text) in found.faults {
            *row.faults.entry(fault).or_default() += 1;
            shown += 1;
            if shown <= 20 {
                say(&format!("{store}, {way:?}: {fault:?}: {text}"));
            }
        }
    }
}

fn table(rows: &BTreeMap<(&str, &str), Row>) -> bool {
    say(
        "| store | killed | points | acknowledged effects lost | half states | doubles | stuck | other | slowest restart |",
    );
    say("|---|---|--:|--:|--:|--:|--:|--:|--:|");
    let mut total = 0;
    for ((store, way), row) in rows {
        let count = |fault| row.faults.get(&fault).copied().unwrap_or(0);
        let faults = [Fault::Lost, Fault::Half, Fault::Double, Fault::Stuck, Fault::Other].map(count);
        let cells = faults.map(|count| count.to_string()).join(" | ");
        say(&format!("| {store} | {way} | {} | {cells} | {} ms |", row.points, row.slowest.as_millis()));
        total += row.points;
    }
    say(&format!("{total} points"));
    total > 0 && rows.values().all(|row| row.faults.is_empty())
}
