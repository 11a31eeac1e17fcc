//! The language of pages: chosen by hand, else the user's, else the browser's.

use http::HeaderMap;
use usermgr_core::flow::sessions::Authenticated;

use super::cookies::{Change, Kind, Naming};
use super::reply::Reply;
use super::routes::safe_return;
use super::visit::Visit;
use crate::http::problem::{Language, Problem};

/// Reads the name of a language that we speak.
pub(super) fn named(tag: &str) -> Option<Language> {
    match tag {
        "en" => Some(Language::English),
        "es" => Some(Language::Spanish),
        _ => None,
    }
}

/// The language to answer in.
pub(super) fn of(headers: &HeaderMap, naming: Naming, caller: Option<&Authenticated>) -> Language {
    let chosen = naming.read(headers, Kind::Language).and_then(named);
    let own = || named(&caller?.user.locale.as_ref()?.language());
    chosen.or_else(own).unwrap_or_else(|| Language::of(headers))
}

/// Changes the language, and leads back to the page the switch stands on.
pub(super) fn set(visit: &Visit<'_>) -> Result<Reply, Problem> {
    let language = named(visit.form.text("language")).ok_or_else(|| Problem::field("language", "invalid"))?;
    let back = safe_return(visit.form.text("return")).unwrap_or_else(|| "/".to_owned());
    Ok(Reply::see_other(back).changing(Change::Language(language.tag())))
}
