//! How values of the domain stand in a row: as the text that the domain itself gives and reads.

use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serializer};
use usermgr_core::domain::audit::{AuditEvent, AuditOutcome};
use usermgr_core::domain::code::{CodeForm, CodePurpose};
use usermgr_core::domain::email::EmailKey;
use usermgr_core::domain::event::{EventKind, EventPosition};
use usermgr_core::domain::job::{JobName, JobOutcome};
use usermgr_core::domain::mail::MailKind;
use usermgr_core::domain::password::{PasswordHash, PasswordVersion};
use usermgr_core::domain::profile::Profile;
use usermgr_core::domain::role::{Role, Roles};
use usermgr_core::domain::secret::{Digest, SecretKeyId};
use usermgr_core::domain::session::AuthMethod;
use usermgr_core::domain::undeliverable::UndeliverableReason;
use usermgr_core::domain::user::{Locale, UserStatus, Username};
use usermgr_core::port::store::outbox::{Lease, OutboxStatus};

/// A value that stands as text.
pub(crate) trait Text: Sized {
    fn text(&self) -> String;
    fn read(text: &str) -> Option<Self>;
}

/// For `#[serde(with = "text")]`.
pub(crate) fn serialize<T: Text, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.text())
}

pub(crate) fn deserialize<'de, T: Text, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::read(&String::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("no such value"))
}

/// The same for a value that may be missing.
pub(crate) mod option {
    use super::{Deserializer, Serializer, Text};
    use serde::de::Error as _;
    use serde::{Deserialize as _, Serialize as _};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(crate) fn serialize<T: Text, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(Text::text).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Text, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| T::read(&text).ok_or_else(|| D::Error::custom("no such value"))).transpose()
    }
}

/// Types that have their text themselves.
macro_rules! texts {
    ($($type:ty: $value:ident => $text:expr, $read:ident => $reads:expr;)+) => {
        $(impl Text for $type {
            fn text(&self) -> String {
                let $value = self;
                String::from($text)
            }

            fn read($read: &str) -> Option<Self> {
                $reads
            }
        })+
    };
}

texts! {
    EmailKey: key => key.as_str(), text => Some(Self::from_stored(text));
    Username: name => name.as_str(), text => Self::from_stored(text);
    Profile: profile => profile.as_str(), text => Self::from_stored(text.to_owned()).ok();
    Locale: locale => locale.as_str(), text => Self::parse(text).ok();
    UserStatus: status => status.as_str(), text => Self::from_str(text).ok();
    CodePurpose: purpose => purpose.as_str(), text => Self::from_str(text).ok();
    MailKind: kind => kind.as_str(), text => Self::from_str(text).ok();
    AuthMethod: method => method.as_str(), text => Self::from_name(text);
    OutboxStatus: status => status.as_str(), text => Self::from_name(text);
    EventKind: kind => kind.as_str(), text => Self::from_name(text);
    AuditEvent: event => event.as_str(), text => Self::from_name(text);
    AuditOutcome: outcome => outcome.as_str(), text => Self::from_name(text);
    UndeliverableReason: reason => reason.as_str(), text => Self::from_name(text);
    JobName: name => name.as_str(), text => Self::from_str(text).ok();
    JobOutcome: outcome => outcome.as_str(), text => Self::from_name(text);
    PasswordHash: hash => hash.expose(), text => Some(Self::new(text));
    PasswordVersion: version => version.as_i64().to_string(), text => text.parse().ok().map(Self::from_i64);
    CodeForm: form => form.digits().to_string(), text => text.parse().ok().and_then(Self::from_digits);
    EventPosition: position => position.as_u64().to_string(), text => text.parse().ok().map(Self::from_u64);
    SecretKeyId: id => hex(id.as_bytes()), text => bytes(text).map(Self::from_bytes);
    Digest: digest => hex(digest.as_bytes()), text => bytes(text).map(Self::from_bytes);
    Lease: lease => hex(&lease.0), text => bytes(text).map(Self);
    Roles: roles => roles.iter().map(Role::as_str).collect::<Vec<_>>().join(" "),
        text => text.split_whitespace().map(|role| role.parse().ok()).collect();
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect()
}

fn bytes<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let bytes: Option<Vec<u8>> = digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect();
    bytes?.try_into().ok()
}
