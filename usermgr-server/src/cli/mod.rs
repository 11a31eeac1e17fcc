//! The command line.

mod audit;
mod config;
mod events;
mod failure;
mod hash;
mod health;
mod import;
mod keys;
mod mail;
mod mail_preview;
mod maintenance;
mod operator;
mod outbox;
mod output;
mod roles;
mod tables;
mod users;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};
use crate::serve::{self, Worker};
use failure::Failure;

/// Registration, verification, passwords and sessions over HTTP.
#[derive(Parser)]
#[command(
    name = "usermgr-server",
    version,
    after_help = "Examples:\n  usermgr-server users create ana@example.org --role admin\n  \
                  usermgr-server serve --config /etc/usermgr.toml\n\n\
                  Exit codes: 0 done, 1 refused or failed, 2 wrong usage."
)]
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
    #[command(after_help = "Example:\n  usermgr-server serve --no-worker")]
    Serve {
        /// Leave the delivery of mail and upkeep to `worker` processes
        #[arg(long)]
        no_worker: bool,
    },
    /// Deliver mail and do upkeep, without HTTP
    #[command(after_help = "Example:\n  usermgr-server worker")]
    Worker,
    /// Make or upgrade the tables
    #[command(after_help = "Example:\n  usermgr-server migrate --check")]
    Migrate {
        /// Only say what there is to do, and whether servers may keep running: exit 0 when nothing, 1 when something
        #[arg(long)]
        check: bool,
    },
    /// Ask the server of this configuration whether it is ready: exit 0 when it is, else 1
    #[command(after_help = "Example:\n  usermgr-server health")]
    Health,
    /// List, make, change, delete and import users
    #[command(subcommand)]
    Users(users::UsersCommand),
    /// List roles, and give them to users or take them
    #[command(subcommand)]
    Roles(roles::RolesCommand),
    /// List and rotate the keys that sign access tokens
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Measure what hashing a password costs on this machine
    #[command(subcommand)]
    Hash(hash::HashCommand),
    /// List mails that are owed, and have dead ones sent again
    #[command(subcommand)]
    Outbox(outbox::OutboxCommand),
    /// Read what happened, in order
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// See what mails look like; list addresses that no mail goes to, and let it go there again
    #[command(subcommand)]
    Mail(mail::MailCommand),
    /// Read the audit log: who did what, when, from where
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// List the jobs of the upkeep, and run them by hand
    #[command(subcommand)]
    Maintenance(maintenance::MaintenanceCommand),
    /// Show the configuration in force, secrets masked
    #[command(after_help = "Example:\n  usermgr-server config --json")]
    Config {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the program: exit code 0 done, 1 refused or failed, 2 wrong usage.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(error).report(),
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
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
        Command::Migrate { check } => tables::migrate(&config, check).await,
        Command::Health => health::health(&config).await,
        Command::Users(command) => users::run(&config, command).await,
        Command::Roles(command) => roles::run(&config, command).await,
        Command::Keys(command) => keys::run(&config, command).await,
        Command::Hash(command) => hash::run(&config, command).await,
        Command::Outbox(command) => outbox::run(&config, command).await,
        Command::Events(command) => events::run(&config, command).await,
        Command::Mail(command) => mail::run(&config, command).await,
        Command::Audit(command) => audit::run(&config, command).await,
        Command::Maintenance(command) => maintenance::run(&config, command).await,
        Command::Config { json } => config::show(&config, json),
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
