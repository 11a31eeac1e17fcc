//! The operator: who acts at the command line, and on whom.

use std::fmt;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::str::FromStr;

use usermgr_core::domain::id::UserId;
use usermgr_core::flow::permission::Principal;
use usermgr_core::{ClientContext, Email, Error, Password, User, UserManager};

use super::failure::Failure;
use crate::config::Config;
use crate::serve;

/// The most bytes of a password that are read; no password may be so long.
const MAX_PASSWORD_BYTES: u64 = 16 * 1024;

/// The operator over an installation's database.
pub(super) struct Operator {
    pub(super) manager: UserManager,
    /// What the audit log tells of this program.
    pub(super) client: ClientContext,
}

impl Operator {
    pub(super) async fn connect(config: &Config) -> Result<Self, Failure> {
        let agent = concat!("usermgr-server/", env!("CARGO_PKG_VERSION"));
        let client = ClientContext::new().with_user_agent(agent);
        Ok(Self { manager: serve::manager(config).await?, client })
    }

    /// The user, or words that say that there is none.
    pub(super) async fn find(&self, who: &Who) -> Result<User, Failure> {
        let users = self.manager.users();
        let found = match who {
            Who::Id(id) => users.get(Principal::Operator, *id, &self.client).await,
            Who::Email(email) => users.by_email(email).await,
        };
        found.map_err(|error| match error {
            Error::NotFound => Failure::NoUser(who.to_string()),
            error => error.into(),
        })
    }
}

/// A user as named in an argument: by address or by identifier.
#[derive(Debug, Clone)]
pub(super) enum Who {
    Id(UserId),
    Email(String),
}

impl FromStr for Who {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        match Email::parse(text) {
            Ok(_) => Ok(Self::Email(text.to_owned())),
            Err(_) => Err("it takes the address or the identifier of a user"),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Email(email) => f.write_str(email),
        }
    }
}

/// A new password: from the first line of standard input, or asked for twice at the terminal.
pub(super) fn new_password(stdin: bool) -> Result<Password, Failure> {
    if stdin {
        let mut line = String::new();
        io::stdin().lock().take(MAX_PASSWORD_BYTES).read_line(&mut line)?;
        line.truncate(line.trim_end_matches(['\r', '\n']).len());
        return Ok(Password::new(line));
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::NoPassword);
    }
    let password = Password::new(rpassword::prompt_password("Password: ")?);
    let again = Password::new(rpassword::prompt_password("Again: ")?);
    if password.expose() == again.expose() { Ok(password) } else { Err(Failure::PasswordsDiffer) }
}
