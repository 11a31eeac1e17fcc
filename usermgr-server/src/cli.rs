//! The command line.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use usermgr_core::domain::page::PageSize;
use usermgr_core::domain::role::Role;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::users::CreateUser;
use usermgr_core::port::store::account::UserQuery;
use usermgr_core::{ClientContext, Error, Password, User};

use crate::config::{Config, LogFormat};
use crate::http::user_json;
use crate::serve::{self, Database, StartError, Worker};

/// Registration, verification, passwords and sessions over HTTP.
#[derive(Parser)]
#[command(name = "usermgr-server", version)]
struct Arguments {
    /// The configuration file; else `USERMGR_CONFIG`, else ./usermgr.toml if there
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve HTTP, deliver mail and do upkeep (the default)
    Serve {
        /// Leave the delivery of mail and upkeep to `worker` processes
        #[arg(long)]
        no_worker: bool,
    },
    /// Deliver mail and do upkeep, without HTTP
    Worker,
    /// Make or upgrade the tables
    Migrate {
        /// Only say whether there is something to do: exit 0 when not, 1 when so
        #[arg(long)]
        check: bool,
    },
    /// Users
    #[command(subcommand)]
    Users(UsersCommand),
    /// Upkeep
    #[command(subcommand)]
    Maintenance(MaintenanceCommand),
    /// Show the configuration in force, secrets masked
    Config {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum UsersCommand {
    /// Make a user; the password is asked for at the terminal or read from standard input
    Create {
        email: String,
        /// A role beside `user`, such as `admin`; may be given several times
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<Role>,
        /// Read the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
        /// The display name
        #[arg(long)]
        username: Option<String>,
    },
    /// Make a user who sets the first password by a mailed code
    Invite {
        email: String,
        /// A role beside `user`, such as `admin`; may be given several times
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<Role>,
        /// The display name
        #[arg(long)]
        username: Option<String>,
    },
    /// List users, newest first
    List {
        /// As JSON, one array
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum MaintenanceCommand {
    /// Remove what is over, now
    Run,
}

/// Why a command did not do what it was told.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Config(#[from] crate::config::ConfigError),
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("{}", told(.0))]
    Refused(#[from] Error),
    #[error("{0}")]
    Store(#[from] usermgr_core::port::store::StoreError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0} migration(s) have not been run: run usermgr-server migrate")]
    Pending(u64),
    #[error("a password is needed: use --password-stdin, or a terminal")]
    NoPassword,
}

/// A refusal with its fields, for somebody at a terminal.
fn told(error: &Error) -> String {
    match error {
        Error::Invalid(faults) => faults
            .iter()
            .map(|fault| format!("{}: {}", fault.field, fault.fault.as_str()))
            .collect::<Vec<_>>()
            .join(", "),
        other => other.to_string(),
    }
}

/// Runs the program: exit code 0 done, 1 refused or failed, 2 wrong usage.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> ExitCode {
    for line in failure.to_string().lines() {
        let _nowhere_else_to_say_it = writeln!(io::stderr(), "usermgr-server: {line}");
    }
    ExitCode::FAILURE
}

/// A panic is a line of the log like any other. Where it was is told, not what it said: that may quote a secret.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string);
        tracing::error!(at, "panicked");
    }));
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = Config::load(arguments.config.as_deref())?;
    let command = arguments.command.unwrap_or(Command::Serve { no_worker: false });
    log_to_stderr(&config);
    log_panics();
    match command {
        Command::Serve { no_worker } => {
            let worker = if no_worker { Worker::Elsewhere } else { Worker::Here };
            Ok(serve::serve(&config, worker).await?)
        }
        Command::Worker => Ok(serve::work(&config).await?),
        Command::Migrate { check } => migrate(&config, check).await,
        Command::Users(command) => users(&config, command).await,
        Command::Maintenance(MaintenanceCommand::Run) => {
            let purged = serve::manager(&config).await?.upkeep().run_once().await?;
            print(&format!("{purged:?}"))
        }
        Command::Config { json } => show(&config, json),
    }
}

fn log_to_stderr(config: &Config) {
    let terminal = io::stderr().is_terminal();
    let filter = EnvFilter::new(format!("{0},sqlx=warn,hyper=info,h2=info,rustls=info", config.log_level));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(terminal);
    let default = if terminal { LogFormat::Pretty } else { LogFormat::Json };
    match config.log_format.unwrap_or(default) {
        LogFormat::Pretty => builder.with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

async fn migrate(config: &Config, check: bool) -> Result<(), Failure> {
    let database = Database::open(config).await.map_err(StartError::from)?;
    let pending = database.pending_migrations().await.map_err(StartError::from)?;
    if check {
        return if pending == 0 {
            print("the tables are up to date")
        } else {
            Err(Failure::Pending(pending))
        };
    }
    database.migrate().await.map_err(StartError::from)?;
    print(&format!("the tables are up to date; {pending} migration(s) run"))
}

async fn users(config: &Config, command: UsersCommand) -> Result<(), Failure> {
    let (request, wants_password) = match command {
        UsersCommand::List { json } => return list(config, json).await,
        UsersCommand::Create { email, roles, password_stdin, username } => {
            let roles: BTreeSet<Role> = roles.into_iter().collect();
            let password = Some(password(password_stdin)?);
            (CreateUser { username, roles, password, ..CreateUser::new(email) }, true)
        }
        UsersCommand::Invite { email, roles, username } => {
            let roles = roles.into_iter().collect();
            (CreateUser { username, roles, ..CreateUser::new(email) }, false)
        }
    };
    let manager = serve::manager(config).await?;
    let user = manager.users().create(Principal::Operator, request, &ClientContext::new()).await?;
    print(&line(&user))?;
    if !wants_password {
        print("invited: the mail with the code leaves with the next worker")?;
    }
    Ok(())
}

async fn list(config: &Config, json: bool) -> Result<(), Failure> {
    let manager = serve::manager(config).await?;
    let mut query = UserQuery { size: PageSize::new(PageSize::MAX), ..UserQuery::default() };
    let mut users = Vec::new();
    loop {
        let page = manager.users().list(Principal::Operator, query.clone(), &ClientContext::new()).await?;
        if json {
            users.extend(page.items.iter().map(user_json));
        } else {
            for user in &page.items {
                print(&line(user))?;
            }
        }
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    if json { print(&serde_json::Value::Array(users).to_string()) } else { Ok(()) }
}

fn line(user: &User) -> String {
    let roles: Vec<&str> = user.roles.iter().map(Role::as_str).collect();
    format!("{}  {}  {}  {}", user.id, user.status.as_str(), user.email, roles.join(","))
}

fn password(stdin: bool) -> Result<Password, Failure> {
    if stdin {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        return Ok(Password::new(line.trim_end_matches(['\r', '\n'])));
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::NoPassword);
    }
    Ok(Password::new(rpassword::prompt_password("Password: ")?))
}

fn show(config: &Config, json: bool) -> Result<(), Failure> {
    if json {
        let values: serde_json::Map<String, serde_json::Value> = config
            .values
            .masked()
            .map(|(name, value, source)| {
                (name.to_owned(), serde_json::json!({ "value": value, "from": source }))
            })
            .collect();
        return print(&serde_json::Value::Object(values).to_string());
    }
    for (name, value, source) in config.values.masked() {
        print(&format!("{name} = {value:?}  ({source})"))?;
    }
    Ok(())
}

/// A line on standard output. A reader that went away is no fault.
fn print(line: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
