//! The command line.

mod audit;
mod config;
mod events;
mod failure;
mod generated;
mod hash;
mod health;
mod import;
mod keys;
mod log;
mod mail;
mod mail_preview;
mod maintenance;
mod openapi;
mod operator;
mod outbox;
mod output;
mod roles;
mod tables;
mod users;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::config::Config;
use crate::serve::{self, Worker};
use failure::Failure;
use log::Log;

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
    /// Show the configuration in force, secrets masked; check and explain it; print a sample
    Config(config::ConfigArguments),
    /// Print what a shell reads to complete commands
    #[command(
        after_help = "Example:\n  usermgr-server completions bash > /etc/bash_completion.d/usermgr-server"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man page, or write the pages of all commands into a folder
    #[command(after_help = "Example:\n  usermgr-server man --dir /usr/local/share/man/man1")]
    Man {
        /// Where to write a page for each command
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print the OpenAPI document of the configuration in force
    #[command(after_help = "Example:\n  usermgr-server openapi > openapi.json")]
    Openapi,
}

/// Runs the program: exit code 0 done, 1 refused or failed, 2 wrong usage.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     usermgr_server::cli::main()
/// }
/// ```
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(told) => return output::tell(&told),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(error).report(),
    };
    let log = Log::default();
    let outcome = runtime.block_on(run(arguments, &log));
    log.end();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Reads the configuration, and begins to log as it says.
fn configured(file: Option<&Path>, log: &Log) -> Result<Config, Failure> {
    let config = Config::load(file)?;
    log.begin(&config)?;
    log::panics();
    Ok(config)
}

async fn run(arguments: Arguments, log: &Log) -> Result<(), Failure> {
    let command = arguments.command.unwrap_or(Command::Serve { no_worker: false });
    // What needs no configuration works also where that is wrong.
    let config = || configured(arguments.config.as_deref(), log);
    match command {
        Command::Serve { no_worker } => {
            let worker = if no_worker { Worker::Elsewhere } else { Worker::Here };
            Ok(serve::serve(&config()?, worker).await?)
        }
        Command::Worker => Ok(serve::work(&config()?).await?),
        Command::Migrate { check } => tables::migrate(&config()?, check).await,
        Command::Health => health::health(&config()?).await,
        Command::Users(command) => users::run(&config()?, command).await,
        Command::Roles(command) => roles::run(&config()?, command).await,
        Command::Keys(command) => keys::run(&config()?, command).await,
        Command::Hash(command) => hash::run(&config()?, command).await,
        Command::Outbox(command) => outbox::run(&config()?, command).await,
        Command::Events(command) => events::run(&config()?, command).await,
        Command::Mail(command) => mail::run(&config()?, command).await,
        Command::Audit(command) => audit::run(&config()?, command).await,
        Command::Maintenance(command) => maintenance::run(&config()?, command).await,
        Command::Config(command) => config::run(&command, config),
        Command::Completions { shell } => generated::completions(shell),
        Command::Man { dir } => generated::man(dir),
        Command::Openapi => openapi::show(&config()?),
    }
}
