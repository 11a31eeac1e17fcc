//! The limits in force, spelled out as rules for the store; and what every command needs: ids and audit drafts.

use time::{Duration, OffsetDateTime};

use crate::domain::audit::{AuditDraft, AuditEntry, AuditEvent};
use crate::domain::client::ClientContext;
use crate::domain::code::{CodeForm, CodePurpose};
use crate::domain::email::EmailKey;
use crate::domain::event::EventKind;
use crate::domain::id::{AuditId, CodeId, EventId, OutboxId, UserId};
use crate::domain::mail::MailKind;
use crate::error::Error;
use crate::manager::Inner;
use crate::policy::ThrottlePolicy;
use crate::port::store::account::ThrottleQuery;
use crate::port::store::audit::Record;
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
        rules.extend(self.wide_rule("request-network", client, throttle.network_requests, codes.window));
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
            wide: self.wide_rule("login-network", client, throttle.network_failures, throttle.window),
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

    /// The rule for the /48 around the client's IPv6 network, beside the rule of `limit` for that network.
    pub(super) fn wide_rule(
        &self,
        limit_name: &'static str,
        client: &ClientContext,
        limit: u32,
        window: Duration,
    ) -> Option<ThrottleRule> {
        let limit = limit.saturating_mul(ThrottlePolicy::WIDE_NETWORK_FACTOR);
        client.wide_network().map(|wide| self.rule(limit_name, &[&wide], limit, window))
    }

    /// The limit on writes of users to their own accounts.
    pub(super) fn own_writes(&self, user: UserId) -> Vec<ThrottleRule> {
        self.of_user("own-writes", user, ThrottlePolicy::OWN_WRITES, self.policies.throttle.window)
    }

    /// The limit on changes of a user's password. It is apart from the other writes: they need no password, so a stolen
    /// session could use up the owner's changes.
    pub(super) fn password_changes(&self, user: UserId) -> Vec<ThrottleRule> {
        self.of_user("password-changes", user, ThrottlePolicy::OWN_WRITES, self.policies.throttle.window)
    }

    /// The limit on sessions that a user opens with the right password.
    pub(super) fn sign_ins(&self, user: UserId) -> Vec<ThrottleRule> {
        self.of_user("sign-ins", user, ThrottlePolicy::SIGN_INS, self.policies.throttle.window)
    }

    /// The limit on renewals of a user's sessions. Its window is the life of an access token where that is shorter: a
    /// client renews about once in that time.
    pub(super) fn renewals(&self, user: UserId) -> Vec<ThrottleRule> {
        let window = self.policies.throttle.window.min(self.policies.tokens.access_ttl);
        self.of_user("renewals", user, ThrottlePolicy::RENEWALS, window)
    }

    /// The limit on exports of a user's data.
    pub(super) fn export_limit(&self, user: UserId) -> Vec<ThrottleRule> {
        self.of_user("exports", user, ThrottlePolicy::EXPORTS_AN_HOUR, Duration::HOUR)
    }

    fn of_user(
        &self,
        limit_name: &'static str,
        user: UserId,
        limit: u32,
        window: Duration,
    ) -> Vec<ThrottleRule> {
        let rule = || self.rule(limit_name, &[&user.to_string()], limit, window);
        self.policies.throttle.enabled.then(rule).into_iter().collect()
    }

    /// The limit on recorded refusals of clients who have not proven who they are.
    fn refusals_of_network(&self, client: &ClientContext) -> Vec<ThrottleRule> {
        let throttle = &self.policies.throttle;
        if !throttle.enabled {
            return Vec::new();
        }
        let (name, limit) = ("refusals", ThrottlePolicy::RECORDED_REFUSALS);
        let network = self.rule(name, &[&client.network()], limit, throttle.window);
        let wide = self.wide_rule(name, client, limit, throttle.window);
        [network].into_iter().chain(wide).collect()
    }

    /// The limits on recorded refusals of a user: from one network, and from all of them.
    fn refusals_of_user(&self, user: UserId, client: &ClientContext) -> Vec<ThrottleRule> {
        let throttle = &self.policies.throttle;
        if !throttle.enabled {
            return Vec::new();
        }
        let (user, limit) = (user.to_string(), ThrottlePolicy::RECORDED_REFUSALS);
        let everywhere = limit.saturating_mul(ThrottlePolicy::WIDE_NETWORK_FACTOR);
        vec![
            self.rule("refusals-user", &[&user, &client.network()], limit, throttle.window),
            self.rule("refusals-user", &[&user], everywhere, throttle.window),
        ]
    }

    /// Whether refusals of the client's network are past their limit, so that none is recorded any more. A read.
    pub(super) async fn is_past_refusals(
        &self,
        client: &ClientContext,
        now: OffsetDateTime,
    ) -> Result<bool, Error> {
        self.is_past(&self.refusals_of_network(client), now).await
    }

    async fn is_past(&self, rules: &[ThrottleRule], now: OffsetDateTime) -> Result<bool, Error> {
        if rules.is_empty() {
            return Ok(false);
        }
        let rules = rules.iter().copied().map(ThrottleRule::past).collect();
        Ok(self.store.throttled(ThrottleQuery { now, rules }).await?.is_some())
    }

    /// Records a refusal that a client can cause at will: of the acting user where there is one, else of the network.
    /// Past the limit a read finds it so, and nothing is written.
    pub(super) async fn record_refusal(
        &self,
        entry: AuditEntry,
        acting: Option<UserId>,
        client: &ClientContext,
    ) -> Result<(), Error> {
        let throttle = match acting {
            Some(user) => self.refusals_of_user(user, client),
            None => self.refusals_of_network(client),
        };
        let now = entry.at;
        if !self.is_past(&throttle, now).await? {
            self.store.record(Record { now, entry, throttle }).await?;
        }
        Ok(())
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
