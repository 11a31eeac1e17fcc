//! `events`: what happened, in order.

use clap::Subcommand;
use serde_json::json;
use usermgr_core::domain::event::{Event, EventPosition};
use usermgr_core::domain::page::PageSize;
use usermgr_core::flow::permission::Principal;
use usermgr_core::port::store::event::{EventFeed, EventQuery};

use super::failure::Failure;
use super::operator::Operator;
use super::output::{Listing, or_dash, time_text};
use crate::config::Config;

#[derive(Subcommand)]
pub(super) enum EventsCommand {
    /// List events, oldest first
    #[command(after_help = "Example:\n  usermgr-server events list --after 1042 --json")]
    List {
        /// Only those after this position; without it, all that are kept
        #[arg(long)]
        after: Option<EventPosition>,
        /// As JSON, one array
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(config: &Config, command: EventsCommand) -> Result<(), Failure> {
    let operator = Operator::connect(config).await?;
    let users = operator.manager.users();
    let EventsCommand::List { mut after, json } = command;
    let mut listing = Listing::new(json, &["position", "at", "kind", "user", "session", "id"]);
    loop {
        let query = EventQuery { after, size: PageSize::new(PageSize::MAX) };
        match users.events(Principal::Operator, query, &operator.client).await? {
            EventFeed::Page { events, .. } if events.is_empty() => return listing.end(),
            EventFeed::Page { events, next } => {
                listing.page(&events, |event| json!(event), texts)?;
                after = Some(next);
            }
            EventFeed::Gap { resume_after } => return Err(Failure::EventsGone(resume_after)),
        }
    }
}

fn texts(event: &Event) -> Vec<String> {
    vec![
        event.position.to_string(),
        time_text(event.at),
        event.kind.as_str().to_owned(),
        event.user_id.to_string(),
        or_dash(event.session_id),
        event.id.to_string(),
    ]
}
