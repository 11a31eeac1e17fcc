//! The limits in force, spelled out as rules for the store; and what every command needs: ids and audit drafts.

use time::{Duration, OffsetDateTime};

use crate::domain::audit::{AuditDraft, AuditEntry, AuditEvent};
use crate::domain::client::ClientContext;
use crate::domain::code::{CodeForm, CodePurpose};
use crate::domain::email::EmailKey;
use crate::domain::event::EventKind;
use crate::domain::id::{AuditId, CodeId, EventId, OutboxId, RegistrationId, UserId};
use crate::domain::mail::MailKind;
use crate::error::Error;
use crate::manager::Inner;
use crate::policy::ThrottlePolicy;
use crate::port::store::account::{KnownNetwork, LimitsQuery};
use crate::port::store::audit::Record;
use crate::port::store::code::NewCode;
use crate::port::store::throttle::{LoginGuard, ThrottleRule};
use crate::port::store::{EventDraft, MailDraft};

/// What a client has shown of itself, by which its guesses and requests are counted apart from those of strangers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Standing {
    /// Nothing. The store tells a network that signed in to the account from others.
    Unproven,
    /// The token of a registration.
    Registration(RegistrationId),
    /// A session.
    User(UserId),
}

/// The day's budgets of wrong guesses for an address: of strangers, and of a client that is none.
struct GuessBudgets {
    strangers: ThrottleRule,
    own: ThrottleRule,
}

impl GuessBudgets {
    /// The budget that a client's guesses count on.
    const fn of(&self, standing: Standing, is_known: bool) -> ThrottleRule {
        match standing {
            Standing::Unproven if !is_known => self.strangers,
            Standing::Unproven | Standing::Registration(_) | Standing::User(_) => self.own,
        }
    }
}

/// How a request for a code, a link or a registration stands to its limits.
pub(super) struct AdmittedRequest {
    /// The limits that the command counts, and refuses by.
    pub(super) throttle: Vec<ThrottleRule>,
    /// How long the command would have the client wait, as the limits stood a moment ago.
    pub(super) wait: Option<Duration>,
    /// Whether the client could redeem a code now. If not, none is issued, and the answer is the same.
    pub(super) may_redeem: bool,
}

impl Inner {
    /// Reads the limits of a guess at a code before any work is done. Answers the budgets that a wrong guess counts.
    ///
    /// # Security
    /// The first guess past a budget goes on to the store, which counts it on the codes it is compared with, refuses it
    /// whether or not it is right, and audits it. Those after it are refused here: they are compared with nothing and
    /// write nothing.
    pub(super) async fn admit_guess(
        &self,
        email: &EmailKey,
        standing: Standing,
        client: &ClientContext,
        now: OffsetDateTime,
    ) -> Result<Vec<ThrottleRule>, Error> {
        let throttle = &self.policies.throttle;
        if !throttle.enabled {
            return Ok(Vec::new());
        }
        let budgets = self.guess_budgets(email, standing, client);
        let networks = self.guesses_of_network(client);
        let both = [budgets.strangers, budgets.own];
        let query = LimitsQuery {
            now,
            rules: both.iter().chain(&networks).copied().map(ThrottleRule::past).collect(),
            network: Some(self.known_network(email, client, now)),
        };
        let view = self.store.limits(query).await?;
        let mut counted = vec![budgets.of(standing, view.is_known)];
        counted.extend(networks);
        match view.wait(&counted) {
            Some(retry_after) => Err(Error::TooManyAttempts { retry_after: wait(retry_after) }),
            None => Ok(counted),
        }
    }

    /// The limit on guesses of a network over all addresses.
    pub(super) fn guesses_of_network(&self, client: &ClientContext) -> Vec<ThrottleRule> {
        let throttle = &self.policies.throttle;
        if !throttle.enabled {
            return Vec::new();
        }
        let (name, limit) = ("guess-network", throttle.network_failures);
        let network = self.rule(name, &[&client.network()], limit, throttle.window);
        [network].into_iter().chain(self.wide_rule(name, client, limit, throttle.window)).collect()
    }

    /// Reads the limits on asking for a code, a link or a registration. `what` is the purpose, or `reset_link`;
    /// `redeemer` is how the client will stand when it guesses at the code, if it is one of digits.
    pub(super) async fn admit_request(
        &self,
        email: &EmailKey,
        what: &str,
        standing: Standing,
        redeemer: Option<Standing>,
        client: &ClientContext,
        now: OffsetDateTime,
    ) -> Result<AdmittedRequest, Error> {
        if !self.policies.throttle.enabled {
            return Ok(AdmittedRequest { throttle: Vec::new(), wait: None, may_redeem: true });
        }
        let everybody = self.request_limits(email, what, client);
        let [anywhere, mails] = self.stranger_request_limits(email, what);
        let mails_of_owner = self.mails_a_day("mails-known", &[email.as_str(), &client.network()]);
        let [of_bearer, mails_of_bearer] = self.bearer_request_limits(standing, what);
        let budgets = redeemer.map(|redeemer| (redeemer, self.guess_budgets(email, redeemer, client)));

        let mut rules = everybody.clone();
        rules.extend([anywhere, mails, mails_of_owner, of_bearer, mails_of_bearer]);
        rules.extend(budgets.iter().flat_map(|(_, budgets)| [budgets.strangers, budgets.own]));
        let network = Some(self.known_network(email, client, now));
        let view = self.store.limits(LimitsQuery { now, rules, network }).await?;

        let mut throttle = everybody;
        match standing {
            Standing::Unproven if !view.is_known => throttle.extend([anywhere, mails]),
            Standing::Registration(_) => throttle.extend([of_bearer, mails]),
            Standing::Unproven => throttle.push(mails_of_owner),
            Standing::User(_) => throttle.extend([of_bearer, mails_of_bearer, mails_of_owner]),
        }
        let wait = view.wait(&throttle);
        let may_redeem = budgets
            .is_none_or(|(redeemer, budgets)| view.wait([&budgets.of(redeemer, view.is_known)]).is_none());
        Ok(AdmittedRequest { throttle, wait, may_redeem })
    }

    /// The limits on requests that hold for every client.
    fn request_limits(&self, email: &EmailKey, what: &str, client: &ClientContext) -> Vec<ThrottleRule> {
        let (codes, throttle) = (&self.policies.codes, &self.policies.throttle);
        let (email, network) = (email.as_str(), client.network());
        let mut rules = vec![
            self.rule("request", &[email, what, &network], codes.requests, codes.window),
            self.rule("request-network", &[&network], throttle.network_requests, codes.window),
        ];
        rules.extend(self.wide_rule("request-network", client, throttle.network_requests, codes.window));
        if codes.resend_interval.is_positive() {
            rules.push(self.rule("resend", &[email, what, &network], 1, codes.resend_interval));
        }
        rules
    }

    /// The limits on what strangers have sent to an address, over all networks: in a window, and in a day.
    fn stranger_request_limits(&self, email: &EmailKey, what: &str) -> [ThrottleRule; 2] {
        let email = email.as_str();
        let anywhere = self.rule(
            "request-anywhere",
            &[email, what],
            ThrottlePolicy::REQUESTS_FROM_ALL_NETWORKS,
            self.policies.codes.window,
        );
        [anywhere, self.mails_a_day("mails", &[email])]
    }

    /// The limits on asking for the change of a user's address. The new address is protected as from a stranger, the
    /// present one, which gets a notice, by limits on the user.
    pub(super) fn email_change_limits(
        &self,
        user: UserId,
        new_email: &EmailKey,
        what: &str,
        client: &ClientContext,
    ) -> Vec<ThrottleRule> {
        if !self.policies.throttle.enabled {
            return Vec::new();
        }
        let mut rules = self.request_limits(new_email, what, client);
        rules.extend(self.stranger_request_limits(new_email, what));
        rules.extend(self.bearer_request_limits(Standing::User(user), what));
        rules
    }

    /// The limits on what the bearer of a session or of a registration's token has sent, over all networks and addresses:
    /// in a window, and in a day. A forged token names a registration that there is not, which all forgers share.
    fn bearer_request_limits(&self, standing: Standing, what: &str) -> [ThrottleRule; 2] {
        let codes = &self.policies.codes;
        let bearer = match standing {
            Standing::Unproven => String::new(),
            Standing::Registration(id) => format!("registration {id}"),
            Standing::User(id) => format!("user {id}"),
        };
        [
            self.rule("request-bearer", &[&bearer, what], codes.requests, codes.window),
            self.mails_a_day("mails-bearer", &[&bearer]),
        ]
    }

    fn mails_a_day(&self, name: &'static str, parts: &[&str]) -> ThrottleRule {
        self.rule(name, parts, ThrottlePolicy::MAILS_A_DAY, Duration::DAY)
    }

    fn guess_budgets(&self, email: &EmailKey, standing: Standing, client: &ClientContext) -> GuessBudgets {
        let budget =
            |name, parts: &[&str]| self.rule(name, parts, ThrottlePolicy::WRONG_CODES_A_DAY, Duration::DAY);
        let own = match standing {
            Standing::Unproven => budget("wrong-codes-known", &[email.as_str(), &client.network()]),
            Standing::Registration(id) => budget("wrong-codes-registration", &[&id.to_string()]),
            Standing::User(id) => budget("wrong-codes-user", &[&id.to_string()]),
        };
        GuessBudgets { strangers: budget("wrong-codes", &[email.as_str()]), own }
    }

    fn known_network(&self, email: &EmailKey, client: &ClientContext, now: OffsetDateTime) -> KnownNetwork {
        KnownNetwork {
            email: email.clone(),
            network: self.network_key(client),
            since: now - ThrottlePolicy::KNOWN_NETWORK,
        }
    }

    /// The counter of wrong tries of one address and purpose. It is in force whatever the throttle policy says.
    pub(super) fn tries(&self, email: &EmailKey, purpose: CodePurpose) -> ThrottleRule {
        let codes = &self.policies.codes;
        self.rule("tries", &[email.as_str(), purpose.as_str()], codes.attempts, codes.ttl)
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
        let view = self.store.limits(LimitsQuery { now, rules, network: None }).await?;
        Ok(!view.used_up.is_empty())
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
