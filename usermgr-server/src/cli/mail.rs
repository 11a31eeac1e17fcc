//! `mail`: what mails look like, and addresses that no mail goes to any more.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;
use usermgr_core::domain::page::PageSize;
use usermgr_core::domain::undeliverable::UndeliverableAddress;
use usermgr_core::port::store::undeliverable::UndeliverableQuery;
use usermgr_core::{EmailKey, Error};

use super::failure::Failure;
use super::mail_preview;
use super::operator::Operator;
use super::output::{Listing, print, time_text};
use crate::config::Config;

#[derive(Subcommand)]
pub(super) enum MailCommand {
    /// Addresses that a mail service told of: no mail goes there
    #[command(subcommand)]
    Undeliverable(UndeliverableCommand),
    /// Write every mail with made-up values as .html, .txt and .eml, and an index.html that lists them
    #[command(after_help = "Example:\n  usermgr-server mail preview --open-dir /tmp/mails")]
    Preview {
        /// The folder, which is made if it is not there
        #[arg(long, value_name = "DIR")]
        open_dir: PathBuf,
    },
}

#[derive(Subcommand)]
pub(super) enum UndeliverableCommand {
    /// List them
    #[command(after_help = "Example:\n  usermgr-server mail undeliverable list --json")]
    List {
        /// As JSON, one array
        #[arg(long)]
        json: bool,
    },
    /// Let mail go to an address again
    #[command(after_help = "Example:\n  usermgr-server mail undeliverable remove ana@example.org")]
    Remove { email: String },
}

pub(super) async fn run(config: &Config, command: MailCommand) -> Result<(), Failure> {
    let command = match command {
        MailCommand::Undeliverable(command) => command,
        MailCommand::Preview { open_dir } => return mail_preview::preview(config, &open_dir),
    };
    let operator = Operator::connect(config).await?;
    let users = operator.manager.users();
    match command {
        UndeliverableCommand::List { json } => {
            let mut query = UndeliverableQuery { after: None, size: PageSize::new(PageSize::MAX) };
            let mut listing = Listing::new(json, &["email", "reason", "since"]);
            loop {
                let page = users.undeliverable(query.clone()).await?;
                let value = |address: &UndeliverableAddress| {
                    let UndeliverableAddress { email, reason, since } = address;
                    json!({ "email": email.as_str(), "reason": reason.as_str(), "since": time_text(*since) })
                };
                listing.page(&page.items, value, texts)?;
                query.after = page.next;
                if query.after.is_none() {
                    return listing.end();
                }
            }
        }
        UndeliverableCommand::Remove { email } => {
            users.mark_deliverable(&email, &operator.client).await.map_err(|error| match error {
                Error::NotFound => Failure::NotMarked(email.clone()),
                error => error.into(),
            })?;
            print(&format!("mail goes to {email} again; see usermgr-server outbox list --status dead"))
        }
    }
}

fn texts(address: &UndeliverableAddress) -> Vec<String> {
    let UndeliverableAddress { email, reason, since } = address;
    vec![EmailKey::to_string(email), reason.as_str().to_owned(), time_text(*since)]
}
