//! Rows as JSON under keys, in a file of which each line is a commit.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use usermgr_core::port::store::StoreError;

/// What changes in a commit: rows that are written, and rows that go.
type Changes = BTreeMap<String, Option<String>>;

/// A kind of row.
pub(crate) trait Row: Serialize + DeserializeOwned {
    const TABLE: &'static str;
    /// Whether somebody waits for what such a row owes.
    const OWES: bool = false;
}

/// Why a file cannot be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The operating system says so.
    Io(std::io::Error),
    /// Another process has it, or this one has it already.
    InUse(PathBuf),
    /// A line before the last is none that a commit wrote.
    Corrupt {
        /// Which line, from 1.
        line: usize,
    },
}

impl Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(_) => f.write_str("the store's file cannot be opened"),
            Self::InUse(path) => write!(f, "{} is in use", path.display()),
            Self::Corrupt { line } => write!(f, "line {line} of the store's file was written by nobody"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::InUse(_) | Self::Corrupt { .. } => None,
        }
    }
}

impl From<std::io::Error> for OpenError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

pub(crate) struct Database {
    rows: BTreeMap<String, String>,
    log: File,
    /// How much of the file is committed, in bytes.
    committed: u64,
    /// Whether the file may end in what is not committed, and could not be cut off.
    is_torn: bool,
    /// Held while this process has the file.
    _lock: File,
}

impl Database {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let lock = private().open(path.with_extension("lock"))?;
        if lock.try_lock().is_err() {
            return Err(OpenError::InUse(path.to_owned()));
        }
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        let rows = replay(&text)?;
        // One line of all there is, under another name until it is on the disk.
        let all: Changes = rows.iter().map(|(key, row)| (key.clone(), Some(row.clone()))).collect();
        let line = line(&all).map_err(std::io::Error::other)?;
        let fresh = path.with_extension("new");
        // One may be left of a death.
        drop(std::fs::remove_file(&fresh));
        let mut log = private().open(&fresh)?;
        log.write_all(line.as_bytes())?;
        log.sync_all()?;
        std::fs::rename(&fresh, path)?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        Ok(Self { rows, log, committed: line.len() as u64, is_torn: false, _lock: lock })
    }

    pub(crate) fn begin(&mut self) -> Transaction<'_> {
        Transaction { database: self, changes: Changes::new(), owes: false }
    }

    fn commit(&mut self, changes: Changes) -> Result<(), StoreError> {
        if self.is_torn {
            return Err(StoreError::unavailable("an earlier write to the store's file failed: open it anew"));
        }
        let line = line(&changes).map_err(StoreError::unavailable)?;
        if let Err(error) = self.log.write_all(line.as_bytes()).and_then(|()| self.log.sync_data()) {
            // Nothing of it remains, or nothing more is written.
            self.is_torn = self.log.set_len(self.committed).and_then(|()| self.log.sync_data()).is_err();
            return Err(StoreError::unavailable(error));
        }
        self.committed += line.len() as u64;
        apply(&mut self.rows, changes);
        Ok(())
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn line(changes: &Changes) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string(changes)? + "\n")
}

fn apply(rows: &mut BTreeMap<String, String>, changes: Changes) {
    for (key, row) in changes {
        match row {
            Some(row) => drop(rows.insert(key, row)),
            None => drop(rows.remove(&key)),
        }
    }
}

/// What all commits left. The last line may be one that a death cut off: nobody was told of it.
fn replay(text: &str) -> Result<BTreeMap<String, String>, OpenError> {
    let mut rows = BTreeMap::new();
    let mut lines = text.split_inclusive('\n').enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        match serde_json::from_str::<Changes>(line) {
            Ok(changes) if line.ends_with('\n') => apply(&mut rows, changes),
            _ if lines.peek().is_none() => {}
            _ => return Err(OpenError::Corrupt { line: index + 1 }),
        }
    }
    Ok(rows)
}

/// A command at work: it reads what it has written, and nothing remains of it until it is committed.
pub(crate) struct Transaction<'a> {
    database: &'a mut Database,
    changes: Changes,
    owes: bool,
}

impl Transaction<'_> {
    pub(crate) fn get<R: Row>(&self, key: impl Display) -> Result<Option<R>, StoreError> {
        let key = full_key::<R>(key);
        match self.changes.get(&key) {
            Some(changed) => changed.as_ref(),
            None => self.database.rows.get(&key),
        }
        .map(|row| parse(&key, row))
        .transpose()
    }

    /// Every row, in the order of the keys.
    pub(crate) fn rows<R: Row>(&self) -> Result<Vec<(String, R)>, StoreError> {
        let prefix = full_key::<R>("");
        let committed = self.database.rows.range(prefix.clone()..).map(|(key, row)| (key, Some(row)));
        let changed = self.changes.range(prefix.clone()..).map(|(key, row)| (key, row.as_ref()));
        let of_table = |(key, _): &(&String, _)| key.starts_with(&prefix);
        let mut all: BTreeMap<&String, Option<&String>> = committed.take_while(of_table).collect();
        all.extend(changed.take_while(of_table));
        let rows = all.into_iter().filter_map(|(key, row)| Some((key, row?)));
        rows.map(|(key, row)| Ok((key.trim_start_matches(&prefix).to_owned(), parse(key, row)?))).collect()
    }

    pub(crate) fn put<R: Row>(&mut self, key: impl Display, row: &R) -> Result<(), StoreError> {
        let row = serde_json::to_string(row).map_err(StoreError::unavailable)?;
        self.changes.insert(full_key::<R>(key), Some(row));
        self.owes |= R::OWES;
        Ok(())
    }

    pub(crate) fn remove<R: Row>(&mut self, key: impl Display) {
        self.changes.insert(full_key::<R>(key), None);
    }

    /// Changes the rows that a function changes and says so of. Answers how many.
    pub(crate) fn change<R: Row>(&mut self, change: impl Fn(&mut R) -> bool) -> Result<u64, StoreError> {
        let mut changed = 0;
        for (key, mut row) in self.rows::<R>()? {
            if change(&mut row) {
                self.put(key, &row)?;
                changed += 1;
            }
        }
        Ok(changed)
    }

    /// Removes at most so many of the rows that a function names. Answers their keys.
    pub(crate) fn purge<R: Row>(
        &mut self,
        most: usize,
        which: impl Fn(&R) -> bool,
    ) -> Result<Vec<String>, StoreError> {
        let rows = self.rows::<R>()?.into_iter();
        let keys: Vec<_> = rows.filter(|(_, row)| which(row)).map(|(key, _)| key).take(most).collect();
        for key in &keys {
            self.remove::<R>(key);
        }
        Ok(keys)
    }

    /// Whether the commit owes somebody something.
    pub(crate) fn commit(self) -> Result<bool, StoreError> {
        if !self.changes.is_empty() {
            self.database.commit(self.changes)?;
        }
        Ok(self.owes)
    }
}

fn full_key<R: Row>(key: impl Display) -> String {
    format!("{}/{key}", R::TABLE)
}

fn parse<R: Row>(key: &str, row: &str) -> Result<R, StoreError> {
    let corrupt = |_| StoreError::Corrupt { table: R::TABLE, column: "row", row: key.to_owned() };
    serde_json::from_str(row).map_err(corrupt)
}
