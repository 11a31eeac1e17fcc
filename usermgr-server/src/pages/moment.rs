//! Times and devices, in words.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use usermgr_core::domain::id::SessionId;
use usermgr_core::domain::session::Session;

use super::Pages;
use crate::http::problem::Language;

const ENGLISH: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const SPANISH: [&str; 12] = [
    "enero",
    "febrero",
    "marzo",
    "abril",
    "mayo",
    "junio",
    "julio",
    "agosto",
    "septiembre",
    "octubre",
    "noviembre",
    "diciembre",
];

/// A time as pages show it: for machines, and in words.
pub(super) fn moment(at: OffsetDateTime, language: Language) -> Value {
    let at = at.to_offset(time::UtcOffset::UTC);
    let month = usize::from(u8::from(at.month()) - 1);
    let (year, day, hour, minute) = (at.year(), at.day(), at.hour(), at.minute());
    let text = match language {
        Language::English => {
            format!("{day} {} {year}, {hour:02}:{minute:02} UTC", ENGLISH.get(month).unwrap_or(&""))
        }
        Language::Spanish => {
            format!("{day} de {} de {year}, {hour:02}:{minute:02} UTC", SPANISH.get(month).unwrap_or(&""))
        }
    };
    json!({ "iso": at.format(&Rfc3339).unwrap_or_default(), "text": text })
}

/// A session as a device.
pub(super) fn device(
    session: &Session,
    current: Option<SessionId>,
    pages: &Pages,
    language: Language,
) -> Value {
    let agent = session.user_agent.as_deref().unwrap_or_default();
    json!({
        "id": session.id,
        "name": device_name(agent, pages, language),
        "agent": agent,
        "ip": session.ip,
        "created": moment(session.created_at, language),
        "seen": moment(session.last_seen_at, language),
        "current": Some(session.id) == current,
    })
}

/// What an agent says of itself, for people: the first that fits, for each names those it descends from, too.
fn device_name(agent: &str, pages: &Pages, language: Language) -> String {
    let first = |known: &[(&str, &'static str)]| {
        known.iter().find(|(part, _)| agent.contains(part)).map(|(_, name)| *name)
    };
    let browser = first(&[
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("SamsungBrowser", "Samsung Internet"),
        ("Firefox/", "Firefox"),
        ("FxiOS", "Firefox"),
        ("Chrome/", "Chrome"),
        ("CriOS", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ]);
    let system = first(&[
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Android", "Android"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ]);
    match (browser, system) {
        (Some(browser), Some(system)) => {
            pages.word(language, "device_on").replace("{browser}", browser).replace("{system}", system)
        }
        (Some(name), None) | (None, Some(name)) => name.to_owned(),
        (None, None) => pages.word(language, "unknown_device").to_owned(),
    }
}
