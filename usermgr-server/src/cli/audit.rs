//! `audit`: who did what, when, from where, with what outcome.

use clap::{Args, Subcommand};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use usermgr_core::domain::audit::{AuditEntry, AuditEvent};
use usermgr_core::domain::email::EmailKey;
use usermgr_core::domain::page::PageSize;
use usermgr_core::flow::permission::Principal;
use usermgr_core::port::store::audit::AuditQuery;

use super::failure::Failure;
use super::operator::{Operator, Who};
use super::output::{Listing, or_dash, time_text};
use crate::config::Config;
use crate::http::audit_json;

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// List entries, newest first
    #[command(after_help = "Example:\n  usermgr-server audit list --user ana@example.org --event sign_in \
                            --since 2026-01-31T00:00:00Z --limit 20")]
    List(List),
}

#[derive(Args)]
pub(super) struct List {
    /// Only what was done to this user; one who is deleted is named by identifier
    #[arg(long, value_name = "EMAIL_OR_ID")]
    user: Option<Who>,
    /// Only this event, such as `sign_in`
    #[arg(long, value_parser = event)]
    event: Option<AuditEvent>,
    /// Only from this time on (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<OffsetDateTime>,
    /// The most entries
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// As JSON, one array
    #[arg(long)]
    json: bool,
}

fn event(text: &str) -> Result<AuditEvent, String> {
    AuditEvent::from_name(text)
        .ok_or_else(|| format!("it takes {}", AuditEvent::ALL.map(AuditEvent::as_str).join(", ")))
}

fn time(text: &str) -> Result<OffsetDateTime, &'static str> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "it takes a time such as 2026-01-31T00:00:00Z")
}

pub(super) async fn run(config: &Config, command: AuditCommand) -> Result<(), Failure> {
    let AuditCommand::List(List { user, event, since, limit, json }) = command;
    let operator = Operator::connect(config).await?;
    let subject = match user {
        None => None,
        // Also one who is deleted.
        Some(Who::Id(id)) => Some(id),
        Some(who) => Some(operator.find(&who).await?.id),
    };
    let mut query = AuditQuery { subject, event, since, ..AuditQuery::default() };
    let columns =
        &["time", "event", "outcome", "reason", "actor", "subject", "email", "address", "agent", "request"];
    let mut listing = Listing::new(json, columns);
    let mut left = limit;
    while left > 0 {
        query.size = PageSize::new(u16::try_from(left).unwrap_or(PageSize::MAX));
        let page = operator.manager.users().audit(Principal::Operator, query, &operator.client).await?;
        listing.page(&page.items, audit_json, texts)?;
        left = left.saturating_sub(page.items.len());
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    listing.end()
}

fn texts(entry: &AuditEntry) -> Vec<String> {
    vec![
        time_text(entry.at),
        entry.event.as_str().to_owned(),
        entry.outcome.as_str().to_owned(),
        or_dash(entry.reason.as_ref()),
        or_dash(entry.actor),
        or_dash(entry.subject),
        or_dash(entry.email.as_ref().map(EmailKey::as_str)),
        or_dash(entry.ip),
        or_dash(entry.user_agent.as_ref()),
        or_dash(entry.request_id.as_ref()),
    ]
}
