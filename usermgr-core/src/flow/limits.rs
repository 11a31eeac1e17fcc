//! The limits in force, spelled out as rules for the store; and what every command needs: ids and audit drafts.

use time::{Duration, OffsetDateTime};

use crate::domain::audit::{AuditDraft, AuditEvent};
use crate::domain::client::ClientContext;
use crate::domain::code::{CodeForm, CodePurpose};
use crate::domain::email::EmailKey;
use crate::domain::event::EventKind;
use crate::domain::id::{AuditId, CodeId, EventId, OutboxId, UserId};
use crate::domain::mail::MailKind;
use crate::manager::Inner;
use crate::policy::ThrottlePolicy;
use crate::port::store::code::NewCode;
use crate::port::store::throttle::{LoginGuard, ThrottleRule};
use crate::port::store::{EventDraft, MailDraft};

impl Inner {
    /// The limits on asking for a code, a link or a registration. `what` is the purpose, or `link`.
    pub(super) fn request_limits(
        &self,
        email: &EmailKey,
        what: &str,
        client: &ClientContext,
    ) -> Vec<ThrottleRule> {
        let (codes, throttle) = (&self.policies.codes, &self.policies.throttle);
        if !throttle.enabled {
            return Vec::new();
        }
        let (email, network) = (email.as_str(), client.network());
        let mut rules = vec![
            self.rule("request", &[email, what, &network], codes.requests, codes.window),
            self.rule(
                "request-anywhere",
                &[email, what],
                ThrottlePolicy::REQUESTS_FROM_ALL_NETWORKS,
                codes.window,
            ),
            self.rule("request-network", &[&network], throttle.network_requests, codes.window),
        ];
        if codes.resend_interval.is_positive() {
            rules.push(self.rule("resend", &[email, what, &network], 1, codes.resend_interval));
        }
        rules
    }

    /// The counter of wrong tries of one address and purpose. It is in force whatever the throttle policy says.
    pub(super) fn tries(&self, email: &EmailKey, purpose: CodePurpose) -> ThrottleRule {
        let codes = &self.policies.codes;
        self.rule("tries", &[email.as_str(), purpose.as_str()], codes.attempts, codes.ttl)
    }

    /// The limit of wrong tries of one address in a day.
    pub(super) fn wrong_code_budget(&self, email: &EmailKey) -> Option<ThrottleRule> {
        self.policies.throttle.enabled.then(|| {
            self.rule("wrong-codes", &[email.as_str()], ThrottlePolicy::WRONG_CODES_A_DAY, Duration::DAY)
        })
    }

    /// The limits of failed sign-ins.
    pub(super) fn login_guard(
        &self,
        email: &EmailKey,
        client: &ClientContext,
        now: OffsetDateTime,
    ) -> Option<LoginGuard> {
        let throttle = &self.policies.throttle;
        let (email, network) = (email.as_str(), client.network());
        throttle.enabled.then(|| LoginGuard {
            own: self.rule("login", &[email, &network], throttle.login_failures, throttle.window),
            network: self.rule("login-network", &[&network], throttle.network_failures, throttle.window),
            far: self.rule("login-far", &[email], ThrottlePolicy::FAR_FAILURES_A_DAY, Duration::DAY),
            network_key: self.network_key(client),
            known_since: now - ThrottlePolicy::KNOWN_NETWORK,
        })
    }

    pub(super) fn network_key(&self, client: &ClientContext) -> crate::domain::secret::Digest {
        self.secrets.throttle_key("network", &[&client.network()])
    }

    fn rule(&self, limit_name: &'static str, parts: &[&str], limit: u32, window: Duration) -> ThrottleRule {
        ThrottleRule { key: self.secrets.throttle_key(limit_name, parts), limit, window }
    }

    /// A code or link to issue.
    pub(super) fn new_code(&self, form: CodeForm, now: OffsetDateTime) -> NewCode {
        NewCode {
            id: CodeId::new(now, &*self.random),
            form,
            key: self.secrets.current_id(),
            dies_at: now + self.policies.registration.pending_ttl,
        }
    }

    /// A code of digits for this purpose.
    pub(super) fn new_digits(&self, purpose: CodePurpose, now: OffsetDateTime) -> NewCode {
        self.new_code(CodeForm::Digits(self.policies.codes.length.for_purpose(purpose)), now)
    }

    pub(super) fn mail(&self, kind: MailKind, now: OffsetDateTime) -> MailDraft {
        MailDraft { id: OutboxId::new(now, &*self.random), kind }
    }

    /// The mail to a new user, if the policy wants one.
    pub(super) fn welcome(&self, now: OffsetDateTime) -> Option<MailDraft> {
        self.policies.registration.welcome_mail.then(|| self.mail(MailKind::Welcome, now))
    }

    /// Drafts of these events.
    pub(super) fn event_drafts(&self, kinds: &[EventKind], now: OffsetDateTime) -> Vec<EventDraft> {
        kinds.iter().map(|kind| EventDraft { id: EventId::new(now, &*self.random), kind: *kind }).collect()
    }

    pub(super) fn audit_draft(
        &self,
        event: AuditEvent,
        email: Option<&EmailKey>,
        actor: Option<UserId>,
        client: &ClientContext,
        now: OffsetDateTime,
    ) -> AuditDraft {
        AuditDraft {
            id: AuditId::new(now, &*self.random),
            event,
            actor,
            email: email.cloned(),
            ip: client.ip,
            user_agent: client.user_agent.clone(),
            request_id: client.request_id.clone(),
        }
    }
}

/// A waiting time of the store, as callers get it: never negative, never zero.
pub(super) fn wait(retry_after: Duration) -> std::time::Duration {
    std::time::Duration::try_from(retry_after).unwrap_or_default().max(std::time::Duration::from_secs(1))
}

/// A duration of a policy, as callers get it.
pub(super) fn plain(duration: Duration) -> std::time::Duration {
    std::time::Duration::try_from(duration).unwrap_or_default()
}
