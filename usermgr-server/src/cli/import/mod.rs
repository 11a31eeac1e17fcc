//! `users import`: users of another system, from a file.

mod progress;
mod rows;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use usermgr_core::domain::id::UserId;
use usermgr_core::flow::import_users::{ImportOutcome, ImportRefusal, ImportUser};
use usermgr_core::flow::permission::Principal;
use usermgr_core::{Email, EmailKey, Error};

use super::failure::Failure;
use super::operator::Operator;
use super::output::{print, printable};
use crate::config::Config;
use progress::Progress;
use rows::{FileFault, Format, Row, RowFault, Rows};

/// How many rows are added in one transaction.
const BATCH: usize = 500;
/// How many batches are read ahead.
const AHEAD: usize = 2;

/// What `--help` says at the end.
pub(super) const HELP: &str = "\
Fields: email (needed), email_verified (true unless false), username, locale, roles, status (active or disabled), \
password_hash, created_at (RFC 3339), id (UUID). A JSON line is an object; roles are a list. The first line of a CSV \
file names the fields; roles are separated by spaces or `|`.

Password hashes: Argon2, bcrypt, PBKDF2 and scrypt, as Django, Flask, Rails, Laravel, PHP and others write them. Each is \
replaced by Argon2id when its user signs in.

A user whose address or id exists is left as is, so an import that was cut off is simply run again.

Example:
  usermgr-server users import users.csv --dry-run
  usermgr-server users import - --format jsonl --json < users.jsonl";

#[derive(Args)]
pub(super) struct ImportArguments {
    /// The file; - reads standard input and needs --format
    file: PathBuf,
    /// How the file is written; else its ending says so: .jsonl, .ndjson or .csv
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// The report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, arguments: ImportArguments) -> Result<(), Failure> {
    let ImportArguments { file, format, dry_run, json } = arguments;
    let format = format.or_else(|| format_of(&file)).ok_or(Failure::Usage(
        "how is the file written? say --format jsonl or --format csv, or name it .jsonl or .csv",
    ))?;
    let source = Source::open(&file)?;
    let bytes = source.bytes;
    let mut batches = source.read(format)?;
    let operator = Operator::connect(config).await?;
    // From here on Ctrl-C waits for the batch under way.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut report = Report { dry_run, ..Report::default() };
    let mut dry = dry_run.then(DryRun::default);
    let mut progress = Progress::begin(bytes);
    let ended =
        import(&operator, &mut batches, &mut interrupt, &mut report, dry.as_mut(), &mut progress).await;
    drop(progress);
    if ended.is_err() && report.rows == 0 {
        return ended;
    }
    report.print(json)?;
    ended?;
    if report.refusals.is_empty() { Ok(()) } else { Err(Failure::RowsRefused(report.refused())) }
}

/// Takes batch after batch until the end, a fault or Ctrl-C.
async fn import(
    operator: &Operator,
    batches: &mut mpsc::Receiver<io::Result<Batch>>,
    interrupt: &mut Signal,
    report: &mut Report,
    mut dry: Option<&mut DryRun>,
    progress: &mut Progress,
) -> Result<(), Failure> {
    loop {
        let batch = tokio::select! {
            biased;
            _ = interrupt.recv() => return Err(Failure::Interrupted),
            batch = batches.recv() => batch,
        };
        let Some(batch) = batch else { return Ok(()) };
        let Batch { rows, read } = batch.map_err(|error| Failure::ImportStopped(Box::new(error.into())))?;
        let taken = match dry.as_deref_mut() {
            Some(dry) => dry.take(operator, rows, report).await,
            None => take(operator, rows, report).await,
        };
        taken.map_err(|error| Failure::ImportStopped(Box::new(error.into())))?;
        progress.at(report.rows, read);
    }
}

/// Adds the users of a batch, in one transaction.
async fn take(operator: &Operator, rows: Vec<Row>, report: &mut Report) -> Result<(), Error> {
    let (mut lines, mut users) = (Vec::new(), Vec::new());
    for Row { line, user } in rows {
        lines.push((line, user.map(|user| users.push(user))));
    }
    let mut outcomes = operator.manager.users().import(users, &operator.client).await?.into_iter();
    for (line, read) in lines {
        match read {
            Err(fault) => report.refuse(line, fault.into()),
            Ok(()) => match outcomes.next() {
                Some(ImportOutcome::Refused(refusal)) => report.refuse(line, refusal.into()),
                Some(ImportOutcome::Exists) => report.exists += 1,
                Some(ImportOutcome::Added(_)) => report.added += 1,
                None => return Err(Error::Internal("an imported user was not answered for")),
            },
        }
        report.rows += 1;
    }
    Ok(())
}

/// What a dry run has seen so far: of two rows with one address or identifier, the second would exist.
#[derive(Default)]
struct DryRun {
    emails: HashSet<EmailKey>,
    ids: HashSet<UserId>,
}

impl DryRun {
    async fn take(&mut self, operator: &Operator, rows: Vec<Row>, report: &mut Report) -> Result<(), Error> {
        for Row { line, user } in rows {
            let user = user.map_err(Refusal::from);
            let checked = user.and_then(|user| match operator.manager.users().check(&user) {
                Ok(()) => Ok(user),
                Err(refusal) => Err(refusal.into()),
            });
            match checked {
                Err(refusal) => report.refuse(line, refusal),
                Ok(user) if self.exists(operator, &user).await? => report.exists += 1,
                Ok(_) => report.added += 1,
            }
            report.rows += 1;
        }
        Ok(())
    }

    async fn exists(&mut self, operator: &Operator, user: &ImportUser) -> Result<bool, Error> {
        let users = operator.manager.users();
        let key = Email::parse(&user.email).map(|email| email.key().clone()).ok();
        if key.as_ref().is_some_and(|key| self.emails.contains(key))
            || user.id.is_some_and(|id| self.ids.contains(&id))
            || found(users.by_email(&user.email).await)?
        {
            return Ok(true);
        }
        if let Some(id) = user.id
            && found(users.get(Principal::Operator, id, &operator.client).await)?
        {
            return Ok(true);
        }
        self.emails.extend(key);
        self.ids.extend(user.id);
        Ok(false)
    }
}

fn found<T>(answer: Result<T, Error>) -> Result<bool, Error> {
    match answer {
        Ok(_) => Ok(true),
        Err(Error::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What became of the rows.
#[derive(Default)]
struct Report {
    dry_run: bool,
    rows: u64,
    added: u64,
    exists: u64,
    refusals: Vec<(u64, Refusal)>,
}

/// Why a row was refused: a stable word, and words for people.
struct Refusal {
    code: &'static str,
    reason: String,
}

impl From<RowFault> for Refusal {
    fn from(fault: RowFault) -> Self {
        Self { code: fault.as_str(), reason: fault.to_string() }
    }
}

impl From<ImportRefusal> for Refusal {
    fn from(refusal: ImportRefusal) -> Self {
        Self { code: refusal.as_str(), reason: refusal.to_string() }
    }
}

impl Report {
    fn refuse(&mut self, line: u64, refusal: Refusal) {
        self.refusals.push((line, refusal));
    }

    fn refused(&self) -> u64 {
        u64::try_from(self.refusals.len()).unwrap_or(u64::MAX)
    }

    fn print(&self, json: bool) -> Result<(), Failure> {
        if json {
            let refusals = self.refusals.iter().map(
                |(line, Refusal { code, reason })| json!({ "line": line, "code": code, "reason": reason }),
            );
            let report = json!({
                "dry_run": self.dry_run,
                "rows": self.rows,
                "added": self.added,
                "exists": self.exists,
                "refused": self.refused(),
                "refusals": refusals.collect::<Vec<_>>(),
            });
            return print(&report.to_string());
        }
        for (line, refusal) in &self.refusals {
            print(&format!("line {line}: {}", printable(&refusal.reason)))?;
        }
        let added = if self.dry_run { "would be added" } else { "added" };
        let Self { rows, added: count, exists, .. } = self;
        print(&format!("{rows} row(s): {count} {added}, {exists} exist(s), {} refused", self.refused()))
    }
}

/// Rows that are taken together, and how many bytes were read so far.
struct Batch {
    rows: Vec<Row>,
    read: u64,
}

/// What rows are read from.
struct Source {
    name: String,
    bytes: Option<u64>,
    from: Box<dyn Read + Send>,
}

impl Source {
    fn open(file: &Path) -> Result<Self, Failure> {
        if file == Path::new("-") {
            return Ok(Self { name: "standard input".to_owned(), bytes: None, from: Box::new(io::stdin()) });
        }
        let name = file.display().to_string();
        let failed = |source| Failure::File { path: name.clone(), source };
        let from = File::open(file).map_err(failed)?;
        let metadata = from.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        Ok(Self { bytes: metadata.is_file().then_some(metadata.len()), from: Box::new(from), name })
    }

    /// Reads batches on a thread of its own, a few ahead. Nobody waits for that thread at the end: it may wait for
    /// standard input.
    fn read(self, format: Format) -> Result<mpsc::Receiver<io::Result<Batch>>, Failure> {
        let Self { name, from, .. } = self;
        let mut rows =
            Rows::open(BufReader::with_capacity(1 << 16, from), format).map_err(|fault| match fault {
                FileFault::Io(source) => Failure::File { path: name.clone(), source },
                FileFault::Header(fault) => Failure::Header(name.clone(), fault),
            })?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let reading = move || {
            loop {
                let (batch, is_last) = match next_batch(&mut rows) {
                    Ok(batch) if batch.rows.is_empty() => return,
                    Ok(batch) => (Ok(batch), false),
                    Err(error) => (Err(error), true),
                };
                if sender.blocking_send(batch).is_err() || is_last {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("import".to_owned()).spawn(reading)?;
        Ok(receiver)
    }
}

fn next_batch(rows: &mut Rows<impl io::BufRead>) -> io::Result<Batch> {
    let mut batch = Vec::with_capacity(BATCH);
    while batch.len() < BATCH
        && let Some(row) = rows.next_row()?
    {
        batch.push(row);
    }
    Ok(Batch { rows: batch, read: rows.read })
}

/// The format that the ending of a file's name says.
fn format_of(file: &Path) -> Option<Format> {
    let ending = file.extension()?.to_str()?.to_ascii_lowercase();
    match ending.as_str() {
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        "csv" => Some(Format::Csv),
        _ => None,
    }
}
