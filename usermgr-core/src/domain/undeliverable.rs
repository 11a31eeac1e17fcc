//! Addresses that no mail goes to any more.

use time::OffsetDateTime;

use super::email::EmailKey;

/// An address that no mail goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndeliverableAddress {
    /// The address, in the form that accounts are looked up by.
    pub email: EmailKey,
    /// Why.
    pub reason: UndeliverableReason,
    /// Since when.
    pub since: OffsetDateTime,
}

/// Why no mail goes to an address. [`as_str`](Self::as_str) is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UndeliverableReason {
    /// Mail came back for good: there is no such mailbox.
    Bounce,
    /// The receiver reported a mail as unwanted.
    Complaint,
}

impl UndeliverableReason {
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::Bounce, Self::Complaint];

    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bounce => "bounce",
            Self::Complaint => "complaint",
        }
    }

    /// Reads the stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}
