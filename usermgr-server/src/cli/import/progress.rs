//! How far an import is, on standard error: a bar at a terminal, else a line now and then.

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressStyle};

/// How many rows pass between two lines.
const ROWS_A_LINE: u64 = 10_000;

pub(super) enum Progress {
    Bar(ProgressBar),
    Lines { next: u64 },
}

impl Progress {
    /// Begins, with the bytes of the file where they are known.
    pub(super) fn begin(bytes: Option<u64>) -> Self {
        if !io::stderr().is_terminal() {
            return Self::Lines { next: ROWS_A_LINE };
        }
        let bar = bytes.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let template = if bytes.is_some() {
            "{wide_bar} {percent}%  {msg}  {eta} left"
        } else {
            "{spinner} {msg}  {elapsed}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self::Bar(bar)
    }

    /// So many rows were done, and so many bytes read.
    pub(super) fn at(&mut self, rows: u64, bytes: u64) {
        match self {
            Self::Bar(bar) => {
                bar.set_position(bytes);
                bar.set_message(format!("{rows} rows"));
            }
            Self::Lines { next } => {
                if rows >= *next {
                    *next = (rows / ROWS_A_LINE + 1) * ROWS_A_LINE;
                    let _nobody_reads = writeln!(io::stderr(), "{rows} rows");
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
