//! The devices one is signed in on.

use serde_json::{Value, json};

use super::cookies::{Change, Notice};
use super::moment::device;
use super::reply::Reply;
use super::visit::Visit;
use crate::http::problem::Problem;

pub(super) async fn list(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let caller = visit.caller()?;
    let sessions = visit.manager.sessions().list(caller).await?;
    let devices: Vec<Value> = sessions
        .iter()
        .map(|session| device(session, Some(caller.session.id), visit.pages, visit.language))
        .collect();
    let others = sessions.iter().any(|session| session.id != caller.session.id);
    Ok(Reply::page("devices.html", json!({ "devices": devices, "others": others })))
}

pub(super) async fn end(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let caller = visit.caller()?;
    let id = visit.id()?;
    visit.manager.sessions().end(caller, id, &visit.client).await?;
    if id == caller.session.id {
        return Ok(Reply::see_other("/sign-in").changing(Change::SignedOut).saying(Notice::SignedOut));
    }
    Ok(Reply::see_other("/account/devices").saying(Notice::DeviceEnded))
}

pub(super) async fn end_others(visit: &Visit<'_>) -> Result<Reply, Problem> {
    visit.manager.sessions().end_others(visit.caller()?, &visit.client).await?;
    Ok(Reply::see_other("/account/devices").saying(Notice::OthersEnded))
}
