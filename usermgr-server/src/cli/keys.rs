//! `keys`: those that sign access tokens.

use clap::Subcommand;
use serde_json::json;
use usermgr_core::flow::signing_keys::Rotation;
use usermgr_core::port::clock::{Clock as _, SystemClock};

use super::failure::Failure;
use super::operator::Operator;
use super::output::{Listing, print, time_text, time_value};
use crate::config::Config;

#[derive(Subcommand)]
pub(super) enum KeysCommand {
    /// List the signing keys, those that sign the latest first
    #[command(after_help = "Example:\n  usermgr-server keys list --json")]
    List {
        /// As JSON, one array
        #[arg(long)]
        json: bool,
    },
    /// Add a signing key, which takes the place of the current one in ten minutes
    #[command(after_help = "Example:\n  usermgr-server keys rotate")]
    Rotate {
        /// At once: for a key that is no longer to be trusted. Services that keep a key set refuse the new tokens until
        /// they read the set again
        #[arg(long)]
        now: bool,
    },
    /// Seal every signing key anew under `secret.key`, so that `secret.previous_keys` can go
    #[command(after_help = "Example:\n  usermgr-server keys reseal")]
    Reseal,
}

pub(super) async fn run(config: &Config, command: KeysCommand) -> Result<(), Failure> {
    let operator = Operator::connect(config).await?;
    let keys = operator.manager.signing_keys();
    let now = SystemClock.now();
    match command {
        KeysCommand::List { json } => {
            let found = keys.list(now).await?;
            let mut listing = Listing::new(json, &["id", "algorithm", "state", "created", "signs from"]);
            listing.page(
                &found,
                |key| {
                    json!({
                        "id": key.id,
                        "algorithm": key.algorithm,
                        "state": key.state.as_str(),
                        "created_at": time_value(key.created_at),
                        "signs_from": time_value(key.signs_from),
                    })
                },
                |key| {
                    vec![
                        key.id.to_string(),
                        key.algorithm.to_string(),
                        key.state.as_str().to_owned(),
                        time_text(key.created_at),
                        time_text(key.signs_from),
                    ]
                },
            )?;
            listing.end()
        }
        KeysCommand::Rotate { now: at_once } => {
            let rotation = if at_once { Rotation::AtOnce } else { Rotation::Announced };
            keys.rotate(rotation, &operator.client, now).await?;
            print(match rotation {
                Rotation::Announced => "added a signing key; it signs in ten minutes",
                Rotation::AtOnce => "added a signing key; every server signs with it within a minute",
            })
        }
        KeysCommand::Reseal => {
            let sealed = keys.reseal().await?;
            print(&format!("{sealed} signing key(s) sealed under the secret key in force"))
        }
    }
}
