//! Owed mails.

use serde_json::{Value, json};
use usermgr_core::domain::page::PageSize;
use usermgr_core::port::store::outbox::{OutboxEntry, OutboxQuery, OutboxStatus};

use super::cookies::Notice;
use super::moment::moment;
use super::reply::Reply;
use super::users::next_page;
use super::visit::Visit;
use crate::http::problem::Problem;
use crate::http::query::{Query, id_cursor};

pub(super) async fn list(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let mut query = Query::of(visit.query.filled())?;
    let wanted = OutboxQuery {
        user: None,
        status: query.outbox_status()?,
        after: query.id_cursor()?,
        size: PageSize::default(),
    };
    let found = visit.manager.users().outbox(visit.principal()?, wanted, &visit.client).await?;
    let shown = |entry: &OutboxEntry| {
        json!({
            "id": entry.mail.id, "created": moment(entry.mail.created_at, visit.language),
            "name": entry.mail.kind.as_str(), "to": entry.mail.to.as_str(), "status": entry.status.as_str(),
            "error": entry.error, "attempts": entry.attempts,
        })
    };
    let status = visit.query.text("status");
    let next = found.next.map(|id| id_cursor(id.as_uuid()));
    Ok(Reply::page(
        "mails.html",
        json!({
            "mails": found.items.iter().map(shown).collect::<Vec<Value>>(),
            "status": status, "statuses": OutboxStatus::ALL.map(OutboxStatus::as_str),
            "next": next_page("/admin/mails", &[("status", status)], next),
        }),
    ))
}

pub(super) async fn retry(visit: &Visit<'_>) -> Result<Reply, Problem> {
    visit.manager.users().retry_mail(visit.principal()?, visit.id()?, &visit.client).await?;
    Ok(Reply::see_other("/admin/mails").saying(Notice::MailQueued))
}
