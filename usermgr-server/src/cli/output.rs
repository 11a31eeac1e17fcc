//! What the commands print: lines and tables for people, JSON for programs.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::failure::Failure;

/// A line on standard output.
pub(super) fn print(line: &str) -> Result<(), Failure> {
    print_all(format!("{line}\n").as_bytes())
}

/// Bytes on standard output, to the last: what is kept back until the end of the program fails silently.
pub(super) fn print_all(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// What the parser of arguments says: help and the version on standard output, wrong usage on standard error.
pub(super) fn tell(told: &clap::Error) -> ExitCode {
    if told.use_stderr() {
        let _nowhere_else_to_say_it = told.print();
        return ExitCode::from(2);
    }
    let shown = told.render();
    let text = if io::stdout().is_terminal() { shown.ansi().to_string() } else { shown.to_string() };
    match print_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// A list that is printed while it is read: a table, or a JSON array.
pub(super) struct Listing {
    json: bool,
    any: bool,
    columns: &'static [&'static str],
    widths: Vec<usize>,
}

impl Listing {
    /// A list with these columns.
    pub(super) fn new(json: bool, columns: &'static [&'static str]) -> Self {
        Self { json, any: false, columns, widths: columns.iter().map(|column| column.len()).collect() }
    }

    /// Prints some items. Columns grow as their texts do.
    pub(super) fn page<T>(
        &mut self,
        items: &[T],
        value: impl Fn(&T) -> Value,
        texts: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), Failure> {
        if self.json {
            for item in items {
                let before = if self.any { ",\n" } else { "[" };
                print_all(format!("{before}{}", value(item)).as_bytes())?;
                self.any = true;
            }
            return Ok(());
        }
        let rows: Vec<Vec<String>> =
            items.iter().map(|item| texts(item).iter().map(|text| printable(text)).collect()).collect();
        for row in &rows {
            for (width, text) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(text.chars().count());
            }
        }
        self.header()?;
        rows.iter().try_for_each(|row| self.row(row))
    }

    /// Ends the list.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        if self.json { print(if self.any { "]" } else { "[]" }) } else { self.header() }
    }

    fn header(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.any, true) {
            return Ok(());
        }
        self.row(&self.columns.iter().map(|column| column.to_uppercase()).collect::<Vec<_>>())
    }

    fn row(&self, texts: &[String]) -> Result<(), Failure> {
        let cells = texts.iter().zip(&self.widths).map(|(text, &width)| format!("{text:width$}"));
        print(cells.collect::<Vec<_>>().join("  ").trim_end())
    }
}

/// The controls of the direction of text (UAX 9), in texts of other systems.
const fn turns_direction(c: char) -> bool {
    matches!(c, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// A text with nothing in it that moves the cursor of a terminal or turns what stands after it.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || turns_direction(c) { '\u{fffd}' } else { c }).collect()
}

/// A time to the second, for a table.
pub(super) fn time_text(time: OffsetDateTime) -> String {
    time.replace_nanosecond(0).ok().and_then(time_value).unwrap_or_default()
}

/// A time as RFC 3339, for JSON.
pub(super) fn time_value(time: OffsetDateTime) -> Option<String> {
    time.format(&Rfc3339).ok()
}

/// A text, or a dash where there is none.
pub(super) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}
