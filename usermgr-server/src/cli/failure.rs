//! Why a command did not do what it was told, in words that say what to do next.

use std::io;
use std::process::ExitCode;

use usermgr_core::Error;
use usermgr_core::domain::field::FieldFault;

use super::tables::pending_told;
use crate::config::ConfigError;
use crate::serve::StartError;

/// Why a command did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("{}", told(.0))]
    Refused(#[from] Error),
    #[error("{0}")]
    Store(#[from] usermgr_core::port::store::StoreError),
    #[error("{0}")]
    HashPool(#[from] usermgr_core::crypto::hasher::HashPoolError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{path}: {source}")]
    File { path: String, source: io::Error },
    #[cfg(feature = "otlp")]
    #[error("traces.otlp_url: {0}")]
    Traces(Box<dyn std::error::Error + Send + Sync>),
    #[error("{address} is not ready: {why}")]
    NotReady { address: std::net::SocketAddr, why: String },
    #[error("the mail cannot be written: {0}")]
    NotWritten(String),
    #[error("{0}")]
    Usage(&'static str),
    #[error("{}", pending_told(.0))]
    Pending(usermgr_sqlx::SchemaStatus),
    #[error("{0} job(s) were not done: see above; they run again with the next worker, or run it again")]
    JobsNotDone(usize),
    #[error("a password is needed: use --password-stdin, or a terminal")]
    NoPassword,
    #[error("the two passwords differ: run it again")]
    PasswordsDiffer,
    #[error("no user {0}: see usermgr-server users list")]
    NoUser(String),
    #[error("{0} is disabled: run usermgr-server users enable {0} first")]
    Disabled(String),
    #[error("the password of {0} was changed by somebody else meanwhile: run it again")]
    Busy(String),
    #[error("no role {0} is defined: see usermgr-server roles list")]
    NoRole(String),
    #[error("every user has the role user; it cannot be taken")]
    RoleOfAll,
    #[error("events after this position may be gone: run it with --after {0}, and read users anew")]
    EventsGone(usermgr_core::domain::event::EventPosition),
    #[error("no signing key {0}: see usermgr-server keys list")]
    NoSigningKey(usermgr_core::domain::id::SigningKeyId),
    #[error("no dead item {0} in the outbox: see usermgr-server outbox list --status dead")]
    NoDeadItem(String),
    #[error("{0} is not marked: see usermgr-server mail undeliverable list")]
    NotMarked(String),
    #[error("{0}: {1}; the first line names the fields, see docs/operations.md")]
    Header(String, String),
    #[error("{0} row(s) refused: correct them and run it again; users who exist are left as they are")]
    RowsRefused(u64),
    #[error("interrupted between two batches: run it again to go on; users who exist are left as they are")]
    Interrupted,
    #[error("{0}; run it again to go on: users who exist are left as they are")]
    ImportStopped(Box<Failure>),
}

impl Failure {
    /// Says it on standard error. A reader who went away is no fault.
    pub(super) fn report(&self) -> ExitCode {
        use io::Write as _;
        if let Self::Io(error) = self
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            return ExitCode::SUCCESS;
        }
        for line in self.to_string().lines() {
            let _nowhere_else_to_say_it = writeln!(io::stderr(), "usermgr-server: {line}");
        }
        if let Self::Usage(_) = self { ExitCode::from(2) } else { ExitCode::FAILURE }
    }
}

/// A refusal with its fields, for somebody at a terminal.
fn told(error: &Error) -> String {
    match error {
        Error::Invalid(faults) => faults
            .iter()
            .map(|fault| match (fault.field.as_ref(), fault.fault) {
                ("roles", FieldFault::Unsupported) => {
                    "no such role is defined: see usermgr-server roles list".to_owned()
                }
                ("email", FieldFault::Invalid) => {
                    "email: it takes an address such as ana@example.org".to_owned()
                }
                (field, fault) => format!("{field}: {}", fault_told(fault)),
            })
            .collect::<Vec<_>>()
            .join("\n"),
        Error::LastAdmin => {
            format!("{error}: give another user the role first, with usermgr-server roles grant EMAIL admin")
        }
        Error::EmailTaken => format!("{error}: see usermgr-server users show EMAIL"),
        Error::Unavailable(cause) => cause.to_string(),
        other => other.to_string(),
    }
}

fn fault_told(fault: FieldFault) -> String {
    let word = fault.as_str();
    match fault {
        FieldFault::TooShort { min } => format!("{word}, it takes {min} characters at least"),
        FieldFault::TooLong { max } => format!("{word}, it takes {max} characters at most"),
        FieldFault::TooLarge { max } => format!("{word}, it takes {max} bytes at most"),
        FieldFault::TooDeep { max } => format!("{word}, it takes {max} levels at most"),
        FieldFault::TooCommon => format!("{word}, it is on every list of passwords to try"),
        FieldFault::SameAsIdentity => format!("{word}, it is the address or the name"),
        _ => word.to_owned(),
    }
}
