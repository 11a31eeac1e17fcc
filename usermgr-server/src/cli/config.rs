//! `config`: the configuration in force, what it means, and a file to begin with.

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::output::print;
use crate::config::{Config, sample};
use crate::serve;

#[derive(Args)]
#[command(
    after_help = "Examples:\n  usermgr-server config --json\n  usermgr-server config check --explain\n  \
                        usermgr-server config sample > usermgr.toml"
)]
pub(super) struct ConfigArguments {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<ConfigCommand>,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Say whether the configuration is right, without touching the database, and warn of weak choices
    #[command(after_help = "Example:\n  usermgr-server config check --explain --config /etc/usermgr.toml")]
    Check {
        /// Say in words what is in force
        #[arg(long)]
        explain: bool,
    },
    /// Print a file with every key, its default and what it means
    #[command(after_help = "Example:\n  usermgr-server config sample > usermgr.toml")]
    Sample,
}

pub(super) fn run(
    arguments: &ConfigArguments,
    config: impl FnOnce() -> Result<Config, Failure>,
) -> Result<(), Failure> {
    match arguments.command {
        Some(ConfigCommand::Check { explain }) => check(&config()?, explain),
        Some(ConfigCommand::Sample) => print(sample().trim_end()),
        None => show(&config()?, arguments.json),
    }
}

fn check(config: &Config, explain: bool) -> Result<(), Failure> {
    serve::check(config)?;
    if explain {
        print(&config.explain())?;
    }
    for warning in config.warnings() {
        print(&format!("warning: {warning}"))?;
    }
    print("the configuration can be used")
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
