//! Limits that are counted in the transaction of what they limit, so that all instances share them.

use time::{Duration, OffsetDateTime};

use crate::domain::secret::Digest;

/// A limit: at most `limit` times within a window that begins with the first.
///
/// A row of the throttle table is a key, a count and the end of its window. A row whose window is over counts as
/// absent. An end further away than `now + window` (a clock that was set back) counts as `now + window`, and a
/// command that meets one writes it so, also when it refuses; a read leaves it to the command. So limits neither unlock
/// nor freeze.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottleRule {
    /// What is limited: a digest of the limit's name, the address, the purpose and the network it is for.
    pub key: Digest,
    /// How often.
    pub limit: u32,
    /// Within how long.
    pub window: Duration,
}

impl ThrottleRule {
    /// The same rule, used up one later. A look before the work lets the first refusal through to the command, which
    /// counts and audits it; those after it are refused by the look, and write nothing.
    #[must_use]
    pub const fn past(self) -> Self {
        Self { limit: self.limit.saturating_add(1), ..self }
    }

    /// Whether an end is further away than a window can be: a clock was set back.
    pub fn is_too_far(&self, ends_at: OffsetDateTime, now: OffsetDateTime) -> bool {
        ends_at > now + self.window
    }

    /// The end of the window as it counts now: `None` when it is over.
    pub fn open_until(&self, ends_at: OffsetDateTime, now: OffsetDateTime) -> Option<OffsetDateTime> {
        if ends_at <= now { None } else { Some(ends_at.min(now + self.window)) }
    }
}

/// The limits of failed sign-ins.
///
/// A request is refused when `own`, `network` or `wide` is used up, or, from a network that never signed in to the
/// account since `known_since`, when `far` is used up. A failure counts on `own`, `network` and `wide`, and on `far`
/// from such a network. A success removes the row of `own` and makes the network known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginGuard {
    /// Failures for one address from one network.
    pub own: ThrottleRule,
    /// Failures from one network, over all addresses.
    pub network: ThrottleRule,
    /// Failures from the /48 around an IPv6 network, over all addresses; none for IPv4.
    pub wide: Option<ThrottleRule>,
    /// Failures for one address from networks that never signed in to it.
    pub far: ThrottleRule,
    /// The client's network.
    pub network_key: Digest,
    /// How far back a sign-in makes a network a known one.
    pub known_since: OffsetDateTime,
}

impl LoginGuard {
    /// Every rule: those whose rows a command locks.
    pub fn rules(&self) -> impl Iterator<Item = &ThrottleRule> {
        self.rules_for(false)
    }

    /// The rules that judge and count a client, whose network the account knows or does not know.
    pub fn rules_for(&self, known: bool) -> impl Iterator<Item = &ThrottleRule> {
        let far = (!known).then_some(&self.far);
        [&self.own, &self.network].into_iter().chain(&self.wide).chain(far)
    }
}
