//! The cookies of the pages: the session, the language, and what one page hands to the next.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Serialize};
use usermgr_core::flow::sessions::SignedIn;

/// How long what one page hands to the next is kept, in seconds.
const CARRIED_FOR: u64 = 60 * 60;
/// How long the choice of a language is kept, in seconds.
const LANGUAGE_FOR: u64 = 365 * 24 * 60 * 60;
/// Browsers keep no cookie of more than 4096 bytes, its name and attributes included.
const MAX_VALUE: usize = 3500;

/// How cookies are named and guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// `__Host-` and `Secure`: set and sent over https only, and by this host only.
    Host,
    /// Without both, for plain HTTP on the machine itself, where some browsers refuse them.
    Plain,
}

/// What a cookie is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Access,
    Refresh,
    Language,
    Carried,
}

impl Kind {
    const fn name(self, naming: Naming) -> &'static str {
        match (naming, self) {
            (Naming::Host, Self::Access) => "__Host-usermgr-access",
            (Naming::Host, Self::Refresh) => "__Host-usermgr-refresh",
            (Naming::Host, Self::Language) => "__Host-usermgr-language",
            (Naming::Host, Self::Carried) => "__Host-usermgr-carried",
            (Naming::Plain, Self::Access) => "usermgr-access",
            (Naming::Plain, Self::Refresh) => "usermgr-refresh",
            (Naming::Plain, Self::Language) => "usermgr-language",
            (Naming::Plain, Self::Carried) => "usermgr-carried",
        }
    }
}

impl Naming {
    /// The value of a cookie. One that comes twice was set by somebody else too, and counts as none.
    pub(super) fn read(self, headers: &HeaderMap, kind: Kind) -> Option<&str> {
        let name = kind.name(self);
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut values = lines
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(known, _)| *known == name)
            .map(|(_, value)| value);
        match (values.next(), values.next()) {
            (Some(value), None) if !value.is_empty() => Some(value),
            _ => None,
        }
    }

    /// A cookie that is kept so many seconds; none are kept at all when there are none.
    fn write(self, kind: Kind, value: &str, seconds: u64) -> Option<HeaderValue> {
        let name = kind.name(self);
        let secure = if self == Self::Host { "; Secure" } else { "" };
        let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

/// What a reply does to cookies.
#[derive(Debug)]
pub(super) enum Change {
    /// Somebody signed in, or the session was renewed.
    SignedIn(Box<SignedIn>),
    /// Nobody is signed in any more.
    SignedOut,
    /// The language was chosen.
    Language(&'static str),
    /// What the next page is to know.
    Carried(Carried),
}

impl Change {
    pub(super) fn write(&self, naming: Naming) -> Vec<HeaderValue> {
        let cookies = match self {
            Self::SignedIn(signed_in) => {
                let access = signed_in.access_token.expose();
                // A token that no cookie holds is made anew for each page.
                let kept = if access.len() > MAX_VALUE { 0 } else { signed_in.expires_in.as_secs() };
                vec![
                    naming.write(Kind::Access, if kept == 0 { "" } else { access }, kept),
                    naming.write(
                        Kind::Refresh,
                        signed_in.refresh_token.expose(),
                        signed_in.refresh_expires_in.as_secs(),
                    ),
                ]
            }
            Self::SignedOut => vec![naming.write(Kind::Access, "", 0), naming.write(Kind::Refresh, "", 0)],
            Self::Language(tag) => vec![naming.write(Kind::Language, tag, LANGUAGE_FOR)],
            Self::Carried(carried) if *carried == Carried::default() => {
                vec![naming.write(Kind::Carried, "", 0)]
            }
            Self::Carried(carried) => {
                let text = serde_json::to_vec(carried).map(|json| URL_SAFE_NO_PAD.encode(json));
                vec![
                    text.ok()
                        .filter(|text| text.len() <= MAX_VALUE)
                        .and_then(|text| naming.write(Kind::Carried, &text, CARRIED_FOR)),
                ]
            }
        };
        cookies.into_iter().flatten().collect()
    }
}

/// What one page hands to the next: a notice, and of a flow what its next step asks for. It is the visitor's own and is
/// read as anything a visitor types.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Carried {
    /// What just happened, said once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) notice: Option<Notice>,
    /// The address that was typed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) email: Option<String>,
    /// Which registration was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) registration: Option<String>,
    /// When another code may be asked for, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resend_at: Option<i64>,
}

impl Carried {
    pub(super) fn read(naming: Naming, headers: &HeaderMap) -> Self {
        let read = || {
            let json = URL_SAFE_NO_PAD.decode(naming.read(headers, Kind::Carried)?).ok()?;
            serde_json::from_slice(&json).ok()
        };
        read().unwrap_or_default()
    }

    pub(super) fn notice(notice: Notice) -> Self {
        Self { notice: Some(notice), ..Self::default() }
    }
}

/// What just happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Notice {
    AccountReady,
    SignedOut,
    CodeSent,
    PasswordSet,
    PasswordChanged,
    EmailChanged,
    EmailUndone,
    Saved,
    DeviceEnded,
    OthersEnded,
    AccountDeleted,
    Invited,
    RolesSet,
    StatusSet,
    SessionsEnded,
    UserDeleted,
    MailQueued,
}

impl Notice {
    #[cfg(test)]
    pub(super) const ALL: [Self; 17] = [
        Self::AccountReady,
        Self::SignedOut,
        Self::CodeSent,
        Self::PasswordSet,
        Self::PasswordChanged,
        Self::EmailChanged,
        Self::EmailUndone,
        Self::Saved,
        Self::DeviceEnded,
        Self::OthersEnded,
        Self::AccountDeleted,
        Self::Invited,
        Self::RolesSet,
        Self::StatusSet,
        Self::SessionsEnded,
        Self::UserDeleted,
        Self::MailQueued,
    ];

    /// The word that says it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::AccountReady => "notice_account_ready",
            Self::SignedOut => "notice_signed_out",
            Self::CodeSent => "notice_code_sent",
            Self::PasswordSet => "notice_password_set",
            Self::PasswordChanged => "notice_password_changed",
            Self::EmailChanged => "notice_email_changed",
            Self::EmailUndone => "notice_email_undone",
            Self::Saved => "notice_saved",
            Self::DeviceEnded => "notice_device_ended",
            Self::OthersEnded => "notice_others_ended",
            Self::AccountDeleted => "notice_account_deleted",
            Self::Invited => "notice_invited",
            Self::RolesSet => "notice_roles_set",
            Self::StatusSet => "notice_status_set",
            Self::SessionsEnded => "notice_sessions_ended",
            Self::UserDeleted => "notice_user_deleted",
            Self::MailQueued => "notice_mail_queued",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_that_comes_twice_is_none() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; usermgr-access=one; x"));
        assert_eq!(Naming::Plain.read(&headers, Kind::Access), Some("one"));
        assert_eq!(Naming::Host.read(&headers, Kind::Access), None);
        headers.append(header::COOKIE, HeaderValue::from_static("usermgr-access=two"));
        assert_eq!(Naming::Plain.read(&headers, Kind::Access), None);
    }

    #[test]
    fn what_is_carried_comes_back_and_nonsense_is_nothing() {
        let carried = Carried { email: Some("ana@example.org".into()), ..Carried::notice(Notice::CodeSent) };
        let written = Change::Carried(carried.clone()).write(Naming::Host);
        let text = written[0].to_str().unwrap();
        assert!(text.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure"), "{text}");
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, text.split(';').next().unwrap().parse().unwrap());
        assert_eq!(Carried::read(Naming::Host, &headers), carried);
        for nonsense in ["x", "e30x", "eyJub3RpY2UiOiI8c2NyaXB0PiJ9"] {
            let mut headers = HeaderMap::new();
            headers.append(header::COOKIE, format!("usermgr-carried={nonsense}").parse().unwrap());
            assert_eq!(Carried::read(Naming::Plain, &headers), Carried::default(), "{nonsense}");
        }
    }
}
