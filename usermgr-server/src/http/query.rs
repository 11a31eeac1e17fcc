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
use usermgr_core::port::store::account::UserCursor;
use usermgr_core::port::store::outbox::OutboxStatus;
use uuid::Uuid;

use super::problem::Problem;

/// The parameters of a request that were not taken yet.
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
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
            if value.len() > 512 || value.chars().any(char::is_control) {
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
        match self.text(name) {
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

    pub(crate) fn user_cursor(&mut self) -> Result<Option<UserCursor>, Problem> {
        self.read_as("cursor", |value| {
            let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
            let (id, term) = bytes.split_first_chunk::<16>()?;
            let term = std::str::from_utf8(term).ok()?;
            let id = UserId::from_uuid(Uuid::from_bytes(*id));
            Some(UserCursor { term: (!term.is_empty()).then(|| term.to_owned()), id })
        })
    }

    pub(crate) fn id_cursor<T: FromUuid>(&mut self) -> Result<Option<T>, Problem> {
        self.read_as("cursor", |value| {
            let bytes: [u8; 16] = URL_SAFE_NO_PAD.decode(value).ok()?.try_into().ok()?;
            Some(T::from_uuid(Uuid::from_bytes(bytes)))
        })
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

/// Where a page ended that is ordered by identifiers.
pub(crate) fn id_cursor(id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(id.as_bytes())
}
