//! One's own account: name and language, export, deletion.

use bytes::Bytes;
use serde_json::{Value, json};
use usermgr_core::Password;
use usermgr_core::flow::update_user::UpdateUser;

use super::cookies::{Change, Notice};
use super::form::FormState;
use super::language;
use super::reply::{File, Reply};
use super::visit::Visit;
use crate::http::export_json;
use crate::http::problem::Problem;
use crate::http::query::Query;

const TEMPLATE: &str = "account.html";
const DATA_TEMPLATE: &str = "data.html";

fn values(visit: &Visit<'_>) -> Result<Value, Problem> {
    Ok(json!({ "email": visit.caller()?.user.email.as_str() }))
}

pub(super) fn show(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let user = &visit.caller()?.user;
    let username = user.username.as_ref().map_or("", |name| name.as_str());
    let locale = user.locale.as_ref().map_or("", |locale| locale.as_str());
    let form = FormState::with([("username", username), ("locale", locale)]);
    Ok(Reply::form(TEMPLATE, &form, values(visit)?))
}

/// An empty field removes what stood there. The pages speak the language that was chosen, too.
pub(super) async fn save(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let caller = visit.caller()?;
    let (username, locale) = (visit.form.text("username"), visit.form.text("locale"));
    let request = UpdateUser {
        username: Some(visit.form.optional("username")),
        locale: Some(visit.form.optional("locale")),
        ..UpdateUser::default()
    };
    match visit.manager.account().update(caller, request, &visit.client).await {
        Ok(user) => {
            let reply = Reply::see_other("/account").saying(Notice::Saved);
            let spoken = user.locale.and_then(|locale| language::named(&locale.language()));
            Ok(match spoken {
                Some(language) => reply.changing(Change::Language(language.tag())),
                None => reply,
            })
        }
        Err(error) => {
            let form = FormState::with([("username", username), ("locale", locale)]);
            visit.again(TEMPLATE, form, (error, None), values(visit)?)
        }
    }
}

fn data_values(visit: &Visit<'_>) -> Result<Value, Problem> {
    let days = visit.manager.policies().deletion.grace.whole_days();
    Ok(json!({ "email": visit.caller()?.user.email.as_str(), "grace_days": days }))
}

pub(super) fn data(visit: &Visit<'_>) -> Result<Reply, Problem> {
    Ok(Reply::form(DATA_TEMPLATE, &FormState::default(), data_values(visit)?))
}

pub(super) async fn export(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let caller = visit.caller()?;
    let account = visit.manager.account();
    let typed = visit.form.text("cursor").trim();
    let held = match Query::of([("cursor", typed)].into_iter())?.export_cursor()? {
        None => account.export(caller, &visit.client).await,
        Some(after) => account.export_rest(caller, after).await,
    };
    let held = match held {
        Ok(held) => held,
        Err(error) => {
            let form = FormState::with([("cursor", typed)]);
            return visit.again(DATA_TEMPLATE, form, (error, None), data_values(visit)?);
        }
    };
    let json = serde_json::to_vec_pretty(&export_json(&held, caller.session.id));
    let content = json.map(Bytes::from).map_err(|_| Problem::internal())?;
    let content_type = "application/json; charset=utf-8";
    Ok(Reply::file(File { content, content_type, cache: "no-store", save_as: Some("account.json") }))
}

pub(super) async fn delete(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let password = Password::new(visit.form.text("password"));
    match visit.manager.account().delete(visit.caller()?, Some(&password), &visit.client).await {
        Ok(()) => Ok(Reply::see_other("/sign-in").changing(Change::SignedOut).saying(Notice::AccountDeleted)),
        Err(error) => {
            visit.again(DATA_TEMPLATE, FormState::default(), (error, Some("password")), data_values(visit)?)
        }
    }
}
