//! The tables of the guide are made of the code: a reason that is added, renamed or explained anew stands in them, or this
//! fails and says how to renew them.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use usermgr_core::Error;
use usermgr_core::domain::field::{FieldError, FieldFault};
use usermgr_core::flow::import_users::ImportRefusal;

const CRATE: &str = env!("CARGO_MANIFEST_DIR");
const RENEW: &str = "USERMGR_TEST_RENEW=1 cargo test -p usermgr-core --test guide";

#[test]
#[expect(clippy::disallowed_methods, reason = "whether the page is to be written anew")]
fn the_tables_of_errors_are_those_of_the_code() {
    let page = format!("{CRATE}/src/guide/errors.md");
    let kept = std::fs::read_to_string(&page).unwrap();
    let mut made = kept.clone();
    for (name, table) in
        [("Error", errors()), ("FieldFault", field_faults()), ("ImportRefusal", import_refusals())]
    {
        let (before, rest) = made.split_once(&format!("<!-- {name} -->\n")).expect("the table has its place");
        let (_, after) = rest.split_once("<!-- end -->").expect("the table ends");
        made = format!("{before}<!-- {name} -->\n\n{table}\n<!-- end -->{after}");
    }
    if std::env::var_os("USERMGR_TEST_RENEW").is_some() {
        std::fs::write(&page, made).unwrap();
        return;
    }
    let differs = kept.lines().zip(made.lines()).position(|(kept, made)| kept != made);
    if kept != made {
        let line = differs.map_or(kept.lines().count(), |at| at) + 1;
        panic!("src/guide/errors.md is not what the code says, from line {line} on; renew it: {RENEW}");
    }
}

fn errors() -> String {
    let wait = Duration::from_secs(1);
    let samples = [
        Error::Invalid(Vec::new()),
        Error::InvalidCode,
        Error::CodeExpired,
        Error::InvalidLink,
        Error::RegistrationAmbiguous,
        Error::AlreadyVerified,
        Error::EmailTaken,
        Error::RegistrationClosed,
        Error::Refused(usermgr_core::domain::refusal::Refusal::new("closed", "Come back.").unwrap()),
        Error::Undecided(usermgr_core::error::HookFault::TimedOut),
        Error::InvalidCredentials,
        Error::MissingToken,
        Error::InvalidToken,
        Error::SessionEnded,
        Error::Forbidden,
        Error::ReauthenticationRequired { max_age: wait },
        Error::LastAdmin,
        Error::InvalidSignature,
        Error::NotFound,
        Error::RateLimited { retry_after: wait },
        Error::TooManyAttempts { retry_after: wait },
        Error::Overloaded { retry_after: wait },
        Error::Unavailable(usermgr_core::port::store::StoreError::Unavailable("down".into())),
        Error::Internal(""),
    ];
    let mut table = String::from("| reason | variant | what it means | try again |\n|---|---|---|---|\n");
    let rows = samples.iter().map(|error| {
        let again = if error.retry_after().is_some() { "after `retry_after`" } else { "" };
        (variant(error), [error.reason(), again])
    });
    for (variant, meaning, [reason, again]) in explained("src/error.rs", "Error", rows) {
        writeln!(table, "| `{reason}` | `{variant}` | {meaning} | {again} |").unwrap();
    }
    table
}

fn field_faults() -> String {
    let samples = [
        FieldFault::Required,
        FieldFault::Invalid,
        FieldFault::TooShort { min: 0 },
        FieldFault::TooLong { max: 0 },
        FieldFault::TooCommon,
        FieldFault::SameAsIdentity,
        FieldFault::ControlCharacter,
        FieldFault::Mismatch,
        FieldFault::Unsupported,
        FieldFault::Unchanged,
        FieldFault::Unknown,
        FieldFault::InvalidType,
        FieldFault::TooLarge { max: 0 },
        FieldFault::TooDeep { max: 0 },
    ];
    let rows = samples.iter().map(|fault| (variant(fault), fault.as_str()));
    words("src/domain/field.rs", "FieldFault", rows)
}

fn import_refusals() -> String {
    use usermgr_core::crypto::foreign_hash::UnsupportedHash;
    use usermgr_core::domain::role::{InvalidRole, Role};
    use usermgr_core::domain::user::InvalidUsername;
    let samples = [
        ImportRefusal::InvalidEmail,
        ImportRefusal::UnsupportedHash(UnsupportedHash::UnknownFormat),
        ImportRefusal::UnknownRole(Role::admin()),
        ImportRefusal::InvalidRole(InvalidRole),
        ImportRefusal::InvalidUsername(InvalidUsername::Blank),
        ImportRefusal::InvalidLocale,
        ImportRefusal::InvalidProfile(FieldError::new("profile", FieldFault::Invalid)),
        ImportRefusal::InvalidStatus,
        ImportRefusal::InvalidId,
        ImportRefusal::InvalidCreatedAt,
    ];
    let rows = samples.iter().map(|refusal| (variant(refusal), refusal.as_str()));
    words("src/flow/import_users.rs", "ImportRefusal", rows)
}

fn words(file: &str, name: &str, rows: impl Iterator<Item = (String, &'static str)>) -> String {
    let mut table = String::from("| reason | variant | what it means |\n|---|---|---|\n");
    for (variant, meaning, word) in explained(file, name, rows) {
        writeln!(table, "| `{word}` | `{variant}` | {meaning} |").unwrap();
    }
    table
}

/// The name of a value's variant.
fn variant(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// Rows with what the source says of each variant, in the order of the source. Every variant must have its row.
fn explained<T>(file: &str, name: &str, rows: impl Iterator<Item = (String, T)>) -> Vec<(String, String, T)> {
    let mut rows: BTreeMap<String, T> = rows.collect();
    let documented = documented_variants(&std::fs::read_to_string(format!("{CRATE}/{file}")).unwrap(), name);
    let table = documented
        .into_iter()
        .map(|(variant, meaning)| {
            let row = rows.remove(&variant).unwrap_or_else(|| panic!("{name}::{variant} has no sample here"));
            (variant, meaning, row)
        })
        .collect();
    assert!(rows.is_empty(), "{name} has no {:?} in {file}", rows.keys());
    table
}

/// The variants of an enum with their documentation on one line, its links as plain names.
fn documented_variants(source: &str, name: &str) -> Vec<(String, String)> {
    let (_, body) = source.split_once(&format!("pub enum {name} {{\n")).expect("the enum is there");
    let (body, _) = body.split_once("\n}").expect("the enum ends");
    let (mut variants, mut said) = (Vec::new(), Vec::new());
    // What stands deeper is a field's.
    for line in body.lines().filter(|line| !line.starts_with("     ")).map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            said.push(text.trim());
        } else if line.starts_with(|c: char| c.is_ascii_uppercase()) {
            let variant = line.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            let meaning: Vec<&str> = said.drain(..).take_while(|text| !text.is_empty()).collect();
            assert!(!meaning.is_empty(), "{name}::{variant} is not documented");
            variants.push((variant.to_owned(), meaning.join(" ").replace("[`", "`").replace("`]", "`")));
        }
    }
    assert!(!variants.is_empty(), "{name} has no variant");
    variants
}
