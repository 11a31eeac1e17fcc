//! The rows of a file of users: one line each, as JSON or CSV. No fault quotes what a field holds: it may be a hash.

use std::io::{self, BufRead};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use usermgr_core::domain::password::PasswordHash;
use usermgr_core::flow::import_users::ImportUser;

/// The most bytes of a line.
const MAX_LINE: usize = 64 * 1024;
/// The fields of a user.
const FIELDS: [&str; 9] =
    ["email", "email_verified", "username", "locale", "roles", "status", "password_hash", "created_at", "id"];

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// One JSON object on each line
    Jsonl,
    /// A line that names the fields, and one line for each user
    Csv,
}

/// Why a row cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RowFault {
    #[error("the line has more than 64 KiB")]
    TooLong,
    #[error("the line is not UTF-8")]
    NotUtf8,
    #[error("not JSON, from column {0} on")]
    NotJson(usize),
    #[error("not a JSON object")]
    NotAnObject,
    #[error("a quote is not closed on its line")]
    OpenQuote,
    #[error("{found} field(s), where the first line names {named}")]
    FieldCount { found: usize, named: usize },
    #[error("unknown field{0}")]
    UnknownField(String),
    #[error("invalid {field}: it takes {takes}")]
    Invalid { field: &'static str, takes: &'static str },
}

impl RowFault {
    /// The reason as a stable word.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid_field",
            Self::UnknownField(_) => "unknown_field",
            _ => "malformed_row",
        }
    }
}

/// A row of the file, with the number of its line.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) line: u64,
    pub(super) user: Result<ImportUser, RowFault>,
}

/// Reads rows, one after the other, in bounded memory.
pub(super) struct Rows<R> {
    from: R,
    /// The fields in the order of the columns; of CSV alone.
    columns: Option<Vec<&'static str>>,
    line: u64,
    /// How many bytes were read.
    pub(super) read: u64,
    buffer: Vec<u8>,
}

/// Why a file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileFault {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Header(String),
}

enum Line {
    Whole,
    TooLong,
}

impl<R: BufRead> Rows<R> {
    /// Begins to read; of CSV, the line that names the fields.
    pub(super) fn open(from: R, format: Format) -> Result<Self, FileFault> {
        let mut rows = Self { from, columns: None, line: 0, read: 0, buffer: Vec::new() };
        if format == Format::Csv {
            let header = match rows.next_line()? {
                None => return Err(FileFault::Header("the file is empty".to_owned())),
                Some(Line::TooLong) => Err(RowFault::TooLong),
                Some(Line::Whole) => text(&rows.buffer).and_then(csv_fields),
            };
            let header = header.map_err(|fault| FileFault::Header(fault.to_string()))?;
            rows.columns = Some(columns(&header).map_err(FileFault::Header)?);
        }
        Ok(rows)
    }

    /// The next row; lines with nothing on them are passed over.
    pub(super) fn next_row(&mut self) -> io::Result<Option<Row>> {
        loop {
            let user = match self.next_line()? {
                None => return Ok(None),
                Some(Line::TooLong) => Err(RowFault::TooLong),
                Some(Line::Whole) if self.buffer.iter().all(u8::is_ascii_whitespace) => continue,
                Some(Line::Whole) => text(&self.buffer).and_then(|text| match &self.columns {
                    None => json_user(text),
                    Some(columns) => csv_user(columns, text),
                }),
            };
            return Ok(Some(Row { line: self.line, user }));
        }
    }

    /// Reads a line into the buffer, without its end. Of one that is too long, only the length is looked at.
    fn next_line(&mut self) -> io::Result<Option<Line>> {
        self.buffer.clear();
        let (mut any, mut whole) = (false, true);
        loop {
            let available = match self.from.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                break;
            }
            any = true;
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            whole = whole && self.buffer.len() + part.len() <= MAX_LINE;
            if whole {
                self.buffer.extend_from_slice(part);
            }
            let used = end.map_or(part.len(), |end| end + 1);
            self.from.consume(used);
            self.read += u64::try_from(used).unwrap_or(u64::MAX);
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(None);
        }
        self.line += 1;
        if self.buffer.last() == Some(&b'\r') {
            self.buffer.pop();
        }
        if self.line == 1 && self.buffer.starts_with(b"\xef\xbb\xbf") {
            self.buffer.drain(..3);
        }
        Ok(Some(if whole { Line::Whole } else { Line::TooLong }))
    }
}

fn text(line: &[u8]) -> Result<&str, RowFault> {
    std::str::from_utf8(line).map_err(|_| RowFault::NotUtf8)
}

fn json_user(line: &str) -> Result<ImportUser, RowFault> {
    let value: Value = serde_json::from_str(line).map_err(|error| RowFault::NotJson(error.column()))?;
    let Value::Object(mut fields) = value else { return Err(RowFault::NotAnObject) };
    if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return Err(RowFault::UnknownField(hint(unknown)));
    }
    let verified = match fields.remove("email_verified") {
        None | Some(Value::Null) => true,
        Some(Value::Bool(verified)) => verified,
        Some(_) => return Err(RowFault::Invalid { field: "email_verified", takes: "true or false" }),
    };
    let roles = match fields.remove("roles") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(roles)) => roles
            .into_iter()
            .map(|role| if let Value::String(role) = role { Some(role) } else { None })
            .collect(),
        Some(_) => None,
    };
    let email = string(&mut fields, "email")?;
    let mut user = ImportUser::new(email.ok_or(RowFault::Invalid { field: "email", takes: "an address" })?);
    user.email_verified = verified;
    user.roles = roles.ok_or(RowFault::Invalid { field: "roles", takes: "a list of names" })?;
    user.username = string(&mut fields, "username")?;
    user.locale = string(&mut fields, "locale")?;
    user.status = string(&mut fields, "status")?;
    user.password = string(&mut fields, "password_hash")?.map(PasswordHash::new);
    set_created_at(&mut user, string(&mut fields, "created_at")?.as_deref())?;
    set_id(&mut user, string(&mut fields, "id")?.as_deref())?;
    Ok(user)
}

fn string(fields: &mut Map<String, Value>, field: &'static str) -> Result<Option<String>, RowFault> {
    match fields.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(RowFault::Invalid { field, takes: "a text" }),
    }
}

fn csv_user(columns: &[&'static str], line: &str) -> Result<ImportUser, RowFault> {
    let record = csv_fields(line)?;
    if record.len() != columns.len() {
        return Err(RowFault::FieldCount { found: record.len(), named: columns.len() });
    }
    let mut user = ImportUser::new("");
    for (column, value) in columns.iter().zip(&record).filter(|(_, value)| !value.is_empty()) {
        match *column {
            "email" => value.clone_into(&mut user.email),
            "email_verified" => {
                user.email_verified = boolean(value)
                    .ok_or(RowFault::Invalid { field: "email_verified", takes: "true or false" })?;
            }
            "username" => user.username = Some(value.to_owned()),
            "locale" => user.locale = Some(value.to_owned()),
            "roles" => {
                user.roles =
                    value.split([' ', '|']).filter(|role| !role.is_empty()).map(ToOwned::to_owned).collect();
            }
            "status" => user.status = Some(value.to_owned()),
            "password_hash" => user.password = Some(PasswordHash::new(value)),
            "created_at" => set_created_at(&mut user, Some(value))?,
            _ => set_id(&mut user, Some(value))?,
        }
    }
    Ok(user)
}

/// The fields of one line. A field that went on over the end of a line would hold what no field may hold.
fn csv_fields(line: &str) -> Result<csv::StringRecord, RowFault> {
    if line.bytes().filter(|byte| *byte == b'"').count() % 2 == 1 {
        return Err(RowFault::OpenQuote);
    }
    let mut record = csv::StringRecord::new();
    csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(line.len().max(1))
        .from_reader(line.as_bytes())
        .read_record(&mut record)
        .map_err(|_| RowFault::NotUtf8)?;
    Ok(record)
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "1" => Some(true),
        "false" | "f" | "0" => Some(false),
        _ => None,
    }
}

fn set_created_at(user: &mut ImportUser, text: Option<&str>) -> Result<(), RowFault> {
    let fault = RowFault::Invalid { field: "created_at", takes: "a time such as 2026-01-31T00:00:00Z" };
    let time = text.map(|text| OffsetDateTime::parse(text, &Rfc3339)).transpose();
    user.created_at = time.map_err(|_| fault)?;
    Ok(())
}

fn set_id(user: &mut ImportUser, text: Option<&str>) -> Result<(), RowFault> {
    let fault = RowFault::Invalid { field: "id", takes: "a UUID with hyphens" };
    user.id = text.map(str::parse).transpose().map_err(|_| fault)?;
    Ok(())
}

/// The fields that the first line names.
fn columns(header: &csv::StringRecord) -> Result<Vec<&'static str>, String> {
    let mut columns = Vec::new();
    for (place, name) in header.iter().enumerate() {
        let name = name.trim();
        let Some(field) = FIELDS.into_iter().find(|field| *field == name) else {
            return Err(format!("unknown column {}{}", place + 1, hint(name)));
        };
        if columns.contains(&field) {
            return Err(format!("two columns are {field}"));
        }
        columns.push(field);
    }
    if columns.contains(&"email") { Ok(columns) } else { Err("no column is email".to_owned()) }
}

/// A name that is no field, and the field that was probably meant. What looks like no name is not repeated: it may be a
/// hash of a file whose first line is missing.
fn hint(name: &str) -> String {
    let is_name = (1..=24).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_' || b == b'-' || b == b' ');
    let near = FIELDS.into_iter().map(|field| (strsim::levenshtein(name, field), field)).min();
    match near.filter(|_| is_name) {
        Some((edits, field)) if edits <= 4 => format!(" {name}; did you mean {field}?"),
        Some(_) => format!(" {name}; there are {}", FIELDS.join(", ")),
        None => format!("; there are {}", FIELDS.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$04$YOnCeXQ9b7Ns58omDVBxcu3sltJlTkQQXAxMnqi/jchrpDW7peCDK";

    fn read(text: &str, format: Format) -> Vec<Row> {
        let mut rows = Rows::open(text.as_bytes(), format).map_err(|fault| fault.to_string()).unwrap();
        std::iter::from_fn(|| rows.next_row().unwrap()).collect()
    }

    fn header_fault(text: &str) -> String {
        Rows::open(text.as_bytes(), Format::Csv).err().unwrap().to_string()
    }

    #[test]
    fn both_formats_tell_the_same() {
        let json = format!(
            "\u{feff}{{\"email\":\"a@example.org\",\"email_verified\":false,\"username\":\"A, \\\"B\\\"\",\
             \"locale\":\"es\",\"roles\":[\"admin\",\"user\"],\"status\":\"disabled\",\"password_hash\":\"{HASH}\",\
             \"created_at\":\"2020-01-31T00:00:00+01:00\",\"id\":\"01890a5d-ac96-774b-bcce-b302099a8057\"}}\r\n"
        );
        let csv = format!(
            "\u{feff}email,email_verified,username,locale,roles,status,password_hash,created_at,id\r\n\
             a@example.org,false,\"A, \"\"B\"\"\",es,admin|user,disabled,{HASH},2020-01-31T00:00:00+01:00,\
             01890a5d-ac96-774b-bcce-b302099a8057\r\n"
        );
        let (json, csv) = (read(&json, Format::Jsonl), read(&csv, Format::Csv));
        assert_eq!((json[0].line, csv[0].line), (1, 2));
        let (json, csv) = (json[0].user.as_ref().unwrap(), csv[0].user.as_ref().unwrap());
        assert_eq!(format!("{json:?}"), format!("{csv:?}"));
        assert_eq!(json.password.as_ref().unwrap().expose(), HASH);
        assert_eq!(json.username.as_deref(), Some("A, \"B\""));
        assert!(!json.email_verified);
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        for rows in [
            read("{\"email\":\"a@example.org\",\"roles\":null}", Format::Jsonl),
            read("email,roles,id\na@example.org,,", Format::Csv),
        ] {
            let user = rows[0].user.as_ref().unwrap();
            assert_eq!(format!("{user:?}"), format!("{:?}", ImportUser::new("a@example.org")));
        }
    }

    #[test]
    fn a_bad_row_is_told_by_its_line_without_what_it_holds() {
        let long = format!("{{\"email\":\"{}\"}}", "a".repeat(MAX_LINE));
        let lines = [
            "",
            "{\"email\":\"a@example.org\"}",
            "{\"email\":",
            "[1]",
            "{}",
            "{\"email\":\"a@example.org\",\"pasword_hash\":\"x\"}",
            "{\"email\":\"a@example.org\",\"password_hash\":123456}",
            "{\"email\":\"a@example.org\",\"email_verified\":\"$2b$12$secret\"}",
            "{\"email\":\"a@example.org\",\"roles\":[1]}",
            "{\"email\":\"a@example.org\",\"id\":\"7\"}",
            "{\"email\":\"a@example.org\",\"created_at\":\"yesterday\"}",
            "{\"email\":\"a@example.org\",\"$2b$12$secret\":1}",
            &long,
            "{\"email\":\"last@example.org\"}",
        ];
        let rows = read(&lines.join("\n"), Format::Jsonl);
        let told: Vec<String> = rows
            .iter()
            .filter_map(|row| row.user.as_ref().err().map(|fault| format!("{}: {fault}", row.line)))
            .collect();
        assert_eq!(told[0], "3: not JSON, from column 9 on");
        assert_eq!(told[1], "4: not a JSON object");
        assert_eq!(told[2], "5: invalid email: it takes an address");
        assert_eq!(told[3], "6: unknown field pasword_hash; did you mean password_hash?");
        assert_eq!(told[4], "7: invalid password_hash: it takes a text");
        assert_eq!(told[5], "8: invalid email_verified: it takes true or false");
        assert_eq!(told[10], "13: the line has more than 64 KiB");
        assert_eq!(told.len(), 11);
        assert!(!told.join("\n").contains("secret"));
        assert!(rows.last().unwrap().user.is_ok());
    }

    #[test]
    fn a_csv_row_has_the_fields_that_the_first_line_names() {
        let rows = read("email,username\na@example.org\n\"a@example.org\nb@example.org,B\n", Format::Csv);
        let told: Vec<String> = rows
            .iter()
            .map(|row| row.user.as_ref().err().map_or_else(String::new, ToString::to_string))
            .collect();
        let too_few = "1 field(s), where the first line names 2";
        assert_eq!(told, [too_few, "a quote is not closed on its line", ""]);
    }

    #[test]
    fn a_header_is_refused_without_repeating_a_hash() {
        assert_eq!(header_fault("email,user_name\n"), "unknown column 2 user_name; did you mean username?");
        assert_eq!(header_fault("username\n"), "no column is email");
        assert_eq!(header_fault("email,email\n"), "two columns are email");
        assert_eq!(header_fault(""), "the file is empty");
        for hash in [HASH, "9cc2ae8a1ba7a93da39b46fc1019c481"] {
            let told = header_fault(&format!("email,{hash}\n"));
            assert!(told.starts_with("unknown column 2; there are email,"), "{told}");
        }
    }
}
