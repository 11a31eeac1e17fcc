//! `outbox`: mails that are owed.

use clap::Subcommand;
use usermgr_core::Error;
use usermgr_core::domain::id::OutboxId;
use usermgr_core::domain::page::PageSize;
use usermgr_core::flow::permission::Principal;
use usermgr_core::port::store::outbox::{OutboxEntry, OutboxQuery, OutboxStatus};

use super::failure::Failure;
use super::operator::Operator;
use super::output::{Listing, or_dash, print, time_text};
use crate::config::Config;
use crate::http::outbox_json;

#[derive(Subcommand)]
pub(super) enum OutboxCommand {
    /// List mails, newest first
    #[command(after_help = "Example:\n  usermgr-server outbox list --status dead")]
    List {
        /// Only of this status: queued, sent, dead or void
        #[arg(long, value_parser = status)]
        status: Option<OutboxStatus>,
        /// As JSON, one array
        #[arg(long)]
        json: bool,
    },
    /// Have a dead mail sent again
    #[command(after_help = "Example:\n  usermgr-server outbox retry 01890a5d-ac96-774b-bcce-b302099a8057")]
    Retry { id: OutboxId },
}

fn status(text: &str) -> Result<OutboxStatus, &'static str> {
    OutboxStatus::from_name(text).ok_or("it takes queued, sent, dead or void")
}

pub(super) async fn run(config: &Config, command: OutboxCommand) -> Result<(), Failure> {
    let operator = Operator::connect(config).await?;
    let users = operator.manager.users();
    match command {
        OutboxCommand::List { status, json } => {
            let size = PageSize::new(PageSize::MAX);
            let mut query = OutboxQuery { status, size, ..OutboxQuery::default() };
            let columns = &["id", "status", "name", "to", "attempts", "due", "error"];
            let mut listing = Listing::new(json, columns);
            loop {
                let page = users.outbox(Principal::Operator, query, &operator.client).await?;
                listing.page(&page.items, outbox_json, texts)?;
                query.after = page.next;
                if query.after.is_none() {
                    return listing.end();
                }
            }
        }
        OutboxCommand::Retry { id } => {
            let retried = users.retry_mail(Principal::Operator, id, &operator.client).await;
            retried.map_err(|error| match error {
                Error::NotFound => Failure::NoDeadItem(id.to_string()),
                error => error.into(),
            })?;
            print(&format!("{id} is due now: it leaves with the next worker"))
        }
    }
}

fn texts(entry: &OutboxEntry) -> Vec<String> {
    let due = (entry.status == OutboxStatus::Queued).then(|| time_text(entry.due_at));
    vec![
        entry.mail.id.to_string(),
        entry.status.as_str().to_owned(),
        entry.mail.kind.as_str().to_owned(),
        entry.mail.to.to_string(),
        entry.attempts.to_string(),
        or_dash(due),
        or_dash(entry.error.as_ref()),
    ]
}
