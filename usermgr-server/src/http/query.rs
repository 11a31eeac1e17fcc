//! Reading what stands behind the `?`: each parameter once, none that is not known.

use std::collections::BTreeMap;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use usermgr_core::domain::audit::AuditEvent;
use usermgr_core::domain::id::{AuditId, OutboxId, UserId};
use usermgr_core::domain::page::PageSize;
use usermgr_core::flow::account::ExportCursor;
use usermgr_core::port::store::account::UserCursor;
use usermgr_core::port::store::outbox::OutboxStatus;
use uuid::Uuid;

use super::problem::Problem;

/// The parameters of a request that were not taken yet.
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    /// The most characters a value may have.
    pub(super) const MAX_CHARS: usize = 512;

    pub(crate) fn read(query: Option<&str>) -> Result<Self, Problem> {
        Self::of(url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()))
    }

    /// The parameters that these pairs are.
    pub(crate) fn of<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl Iterator<Item = (N, V)>,
    ) -> Result<Self, Problem> {
        let mut parameters = BTreeMap::new();
        for (name, value) in pairs {
            let (name, value) = (name.as_ref(), value.as_ref());
            if value.chars().count() > Self::MAX_CHARS || value.chars().any(char::is_control) {
                return Err(Problem::field(name, "invalid"));
            }
            if parameters.insert(name.to_owned(), value.to_owned()).is_some() {
                return Err(Problem::field(name, "duplicate"));
            }
        }
        Ok(Self(parameters))
    }

    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    fn read_as<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Problem> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(value) => read(&value).map(Some).ok_or_else(|| Problem::field(name, "invalid")),
        }
    }

    pub(crate) fn parsed<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Problem> {
        self.read_as(name, |value| value.parse().ok())
    }

    pub(crate) fn time(&mut self, name: &str) -> Result<Option<OffsetDateTime>, Problem> {
        self.read_as(name, |value| OffsetDateTime::parse(value, &Rfc3339).ok())
    }

    pub(crate) fn event(&mut self) -> Result<Option<AuditEvent>, Problem> {
        self.read_as("event", AuditEvent::from_name)
    }

    pub(crate) fn outbox_status(&mut self) -> Result<Option<OutboxStatus>, Problem> {
        self.read_as("status", OutboxStatus::from_name)
    }

    /// How many items a page shall hold: 1 to 200.
    pub(crate) fn limit(&mut self) -> Result<PageSize, Problem> {
        let limit = self.read_as("limit", |value| {
            value.parse::<u16>().ok().filter(|limit| (1..=PageSize::MAX).contains(limit))
        })?;
        Ok(limit.map(PageSize::new).unwrap_or_default())
    }

    /// Where a page of users ended; nothing when it is empty, as for the first page.
    pub(crate) fn user_cursor(&mut self) -> Result<Option<UserCursor>, Problem> {
        let cursor = self.read_as("cursor", |value| {
            if value.is_empty() {
                return Some(None);
            }
            let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
            let (id, term) = bytes.split_first_chunk::<16>()?;
            let term = std::str::from_utf8(term).ok().filter(|term| !term.chars().any(char::is_control))?;
            let id = UserId::from_uuid(Uuid::from_bytes(*id));
            Some(Some(UserCursor { term: (!term.is_empty()).then(|| term.to_owned()), id }))
        })?;
        Ok(cursor.flatten())
    }

    /// Where a page ended that is ordered by identifiers; nothing when it is empty, as for the first page.
    pub(crate) fn id_cursor<T: FromUuid>(&mut self) -> Result<Option<T>, Problem> {
        let cursor = self.read_as("cursor", |value| {
            if value.is_empty() {
                return Some(None);
            }
            let bytes: [u8; 16] = URL_SAFE_NO_PAD.decode(value).ok()?.try_into().ok()?;
            Some(Some(T::from_uuid(Uuid::from_bytes(bytes))))
        })?;
        Ok(cursor.flatten())
    }

    /// Where a part of an export ended; nothing when it is empty, as for the first part.
    pub(crate) fn export_cursor(&mut self) -> Result<Option<ExportCursor>, Problem> {
        let cursor = self.read_as("cursor", |value| {
            if value.is_empty() {
                return Some(None);
            }
            let bytes: [u8; 32] = URL_SAFE_NO_PAD.decode(value).ok()?.try_into().ok()?;
            let (audit, outbox) = bytes.split_at(16);
            let read = |bytes| Uuid::from_slice(bytes).ok();
            let (audit, outbox) = (read(audit)?, read(outbox)?);
            let audit = (!audit.is_nil()).then(|| AuditId::from_uuid(audit));
            let outbox = (!outbox.is_nil()).then(|| OutboxId::from_uuid(outbox));
            Some(Some(ExportCursor { audit, outbox }))
        })?;
        Ok(cursor.flatten())
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        match self.0.into_keys().next() {
            Some(name) if name.len() <= 64 => Err(Problem::field(&name, "unknown")),
            Some(_) => Err(Problem::field("query", "unknown")),
            None => Ok(()),
        }
    }
}

/// Identifiers that a cursor holds.
pub(crate) trait FromUuid {
    fn from_uuid(uuid: Uuid) -> Self;
}

impl FromUuid for AuditId {
    fn from_uuid(uuid: Uuid) -> Self {
        Self::from_uuid(uuid)
    }
}

impl FromUuid for OutboxId {
    fn from_uuid(uuid: Uuid) -> Self {
        Self::from_uuid(uuid)
    }
}

/// Where a page of users ended, as text that says nothing to anybody else.
pub(crate) fn user_cursor(cursor: &UserCursor) -> String {
    let term = cursor.term.as_deref().unwrap_or_default();
    URL_SAFE_NO_PAD.encode([cursor.id.as_uuid().as_bytes().as_slice(), term.as_bytes()].concat())
}

/// Where a part of an export ended. Nil stands for a list that is at its end.
pub(crate) fn export_cursor(cursor: ExportCursor) -> String {
    let audit = cursor.audit.map_or(Uuid::nil(), |id| id.as_uuid());
    let outbox = cursor.outbox.map_or(Uuid::nil(), |id| id.as_uuid());
    URL_SAFE_NO_PAD.encode([*audit.as_bytes(), *outbox.as_bytes()].concat())
}

/// Where a page ended that is ordered by identifiers.
pub(crate) fn id_cursor(id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(query: &str, read: impl Fn(&mut Query) -> Result<(), Problem>) -> bool {
        read(&mut Query::read(Some(query)).unwrap()).is_err()
    }

    #[test]
    fn what_is_empty_is_no_value_but_for_a_search_and_a_first_page() {
        assert!(refused("limit=", |query| query.limit().map(drop)));
        assert!(refused("since=", |query| query.time("since").map(drop)));
        assert!(refused("user_id=", |query| query.parsed::<UserId>("user_id").map(drop)));
        assert!(!refused("cursor=", |query| query.user_cursor().map(drop)));
        assert!(!refused("cursor=", |query| query.id_cursor::<AuditId>().map(drop)));
        assert!(!refused("cursor=", |query| query.export_cursor().map(drop)));
        assert_eq!(Query::read(Some("q=")).unwrap().text("q"), None);
    }

    #[test]
    fn a_cursor_of_an_export_comes_back() {
        let id = |text: &str| Uuid::parse_str(text).unwrap();
        let audit = AuditId::from_uuid(id("0197c000-0000-7000-8000-000000000001"));
        let outbox = OutboxId::from_uuid(id("0197c000-0000-7000-8000-000000000002"));
        for (audit, outbox) in [(Some(audit), Some(outbox)), (Some(audit), None), (None, Some(outbox))] {
            let ours = ExportCursor { audit, outbox };
            let query = format!("cursor={}", export_cursor(ours));
            assert_eq!(Query::read(Some(&query)).unwrap().export_cursor().unwrap(), Some(ours));
        }
        for cursor in ["AAAA".to_owned(), "!".repeat(43), "A".repeat(44), id_cursor(audit.as_uuid())] {
            assert!(
                Query::read(Some(&format!("cursor={cursor}"))).unwrap().export_cursor().is_err(),
                "{cursor}"
            );
        }
    }

    #[test]
    fn a_cursor_that_we_did_not_give_is_refused() {
        let id = UserId::from_uuid(Uuid::from_u128(7));
        let ours = UserCursor { term: Some("ana@example.org".into()), id };
        let read = |cursor: &str| Query::read(Some(&format!("cursor={cursor}"))).unwrap().user_cursor();
        assert_eq!(read(&user_cursor(&ours)).unwrap(), Some(ours));
        // No database takes a NUL in a text.
        let nul = UserCursor { term: Some("a\0".into()), id };
        for cursor in [user_cursor(&nul), "AAAA".into(), "=".into(), "!".repeat(22)] {
            assert!(read(&cursor).is_err(), "{cursor}");
        }
    }
}
