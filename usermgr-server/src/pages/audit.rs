//! The audit log.

use serde_json::{Value, json};
use usermgr_core::EmailKey;
use usermgr_core::domain::audit::{AuditEntry, AuditEvent, AuditOutcome};
use usermgr_core::domain::page::PageSize;
use usermgr_core::port::store::audit::AuditQuery;

use super::moment::moment;
use super::reply::Reply;
use super::users::next_page;
use super::visit::Visit;
use crate::http::problem::{Language, Problem};
use crate::http::query::{Query, id_cursor};

pub(super) fn entry(entry: &AuditEntry, language: Language) -> Value {
    json!({
        "at": moment(entry.at, language),
        "event": entry.event.as_str(),
        "done": entry.outcome == AuditOutcome::Done,
        "reason": entry.reason.as_deref().unwrap_or_default(),
        "ip": entry.ip.map(|ip| ip.to_string()).unwrap_or_default(),
        "agent": entry.user_agent.as_deref().unwrap_or_default(),
        "subject": entry.subject,
        "email": entry.email.as_ref().map_or("", EmailKey::as_str),
        "actor": entry.actor,
    })
}

pub(super) async fn list(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let mut query = Query::of(visit.query.filled())?;
    let wanted = AuditQuery {
        subject: query.parsed("user_id")?,
        event: query.event()?,
        since: None,
        after: query.id_cursor()?,
        size: PageSize::default(),
    };
    let found = visit.manager.users().audit(visit.principal()?, wanted, &visit.client).await?;
    let (event, user_id) = (visit.query.text("event"), visit.query.text("user_id"));
    let next = found.next.map(|id| id_cursor(id.as_uuid()));
    Ok(Reply::page(
        "audit.html",
        json!({
            "entries": found.items.iter().map(|item| entry(item, visit.language)).collect::<Vec<_>>(),
            "event": event, "events": AuditEvent::ALL.map(AuditEvent::as_str), "user_id": user_id,
            "next": next_page("/admin/audit", &[("event", event), ("user_id", user_id)], next),
        }),
    ))
}
