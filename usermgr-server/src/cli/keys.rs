//! `keys`: those that sign access tokens.

use clap::Subcommand;
use serde_json::json;
use usermgr_core::Error;
use usermgr_core::domain::id::SigningKeyId;
use usermgr_core::flow::signing_keys::Rotation;
use usermgr_core::port::clock::{Clock as _, SystemClock};

use super::failure::Failure;
use super::operator::Operator;
use super::output::{Listing, or_dash, print, time_text, time_value};
use crate::config::Config;

/// When a revocation has reached everybody.
const WHEN_REVOKED: &str = "every server refuses its tokens within a minute, and a service that keeps the key set when it reads the set \
again, within five minutes";

#[derive(Subcommand)]
pub(super) enum KeysCommand {
    /// List the signing keys, those that sign the latest first
    #[command(after_help = "Example:\n  usermgr-server keys list --json")]
    List {
        /// As JSON, one array
        #[arg(long)]
        json: bool,
    },
    /// Add a signing key, which takes the place of the current one in ten minutes. The keys before it go on verifying
    #[command(
        after_help = "Example:\n  usermgr-server keys rotate\n  usermgr-server keys rotate --now --revoke"
    )]
    Rotate {
        /// Sign with it at once. Services that keep a key set refuse the new tokens until they read the set again
        #[arg(long)]
        now: bool,
        /// Revoke every key before it, because one leaked: no token that they signed is accepted any more
        #[arg(long, requires = "now")]
        revoke: bool,
    },
    /// Revoke a signing key: it leaves the key set, and every server refuses its tokens within a minute. If it is the one
    /// that signs, a new one takes its place at once
    #[command(after_help = "Example:\n  usermgr-server keys revoke 01994a3e-8a5b-7c1e-9d3a-6f4d2b1a0c9e")]
    Revoke {
        /// The identifier of the key, as `keys list` shows it
        id: SigningKeyId,
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
            let mut listing =
                Listing::new(json, &["id", "algorithm", "state", "created", "signs from", "revoked"]);
            listing.page(
                &found,
                |key| {
                    json!({
                        "id": key.id,
                        "algorithm": key.algorithm,
                        "state": key.state.as_str(),
                        "created_at": time_value(key.created_at),
                        "signs_from": time_value(key.signs_from),
                        "revoked_at": key.revoked_at.and_then(time_value),
                    })
                },
                |key| {
                    vec![
                        key.id.to_string(),
                        key.algorithm.to_string(),
                        key.state.as_str().to_owned(),
                        time_text(key.created_at),
                        time_text(key.signs_from),
                        or_dash(key.revoked_at.map(time_text)),
                    ]
                },
            )?;
            listing.end()
        }
        KeysCommand::Rotate { revoke: true, .. } => {
            let made = keys.revoke_all(&operator.client, now).await?;
            print(&format!("revoked every signing key and added {made}, which signs at once\n{WHEN_REVOKED}"))
        }
        KeysCommand::Revoke { id } => {
            let made = keys.revoke(id, &operator.client, now).await.map_err(|error| match error {
                Error::NotFound => Failure::NoSigningKey(id),
                error => error.into(),
            })?;
            let next = made.map_or_else(String::new, |made| format!("; {made} signs in its place"));
            print(&format!("revoked {id}{next}\n{WHEN_REVOKED}"))
        }
        KeysCommand::Rotate { now: at_once, revoke: false } => {
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
