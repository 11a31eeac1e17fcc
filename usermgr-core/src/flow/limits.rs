//! The limits in force, spelled out as rules for the store; and what every command needs: ids and audit drafts.

use time::{Duration, OffsetDateTime};

use crate::domain::audit::{AuditDraft, AuditEvent};
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
        let network = client.network();
        let network = self.rule("guess-network", &[&network], throttle.network_failures, throttle.window);
        let query = LimitsQuery {
            now,
            rules: [budgets.strangers, budgets.own, network].map(ThrottleRule::past).to_vec(),
            network: Some(self.known_network(email, client, now)),
        };
        let view = self.store.limits(query).await?;
        let budgets = vec![budgets.of(standing, view.is_known), network];
        match view.wait(&budgets) {
            Some(retry_after) => Err(Error::TooManyAttempts { retry_after: wait(retry_after) }),
            None => Ok(budgets),
        }
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
        let budgets = redeemer.map(|redeemer| (redeemer, self.guess_budgets(email, redeemer, client)));

        let mut rules = everybody.clone();
        rules.extend([anywhere, mails, mails_of_owner]);
        rules.extend(budgets.iter().flat_map(|(_, budgets)| [budgets.strangers, budgets.own]));
        let network = Some(self.known_network(email, client, now));
        let view = self.store.limits(LimitsQuery { now, rules, network }).await?;

        let mut throttle = everybody;
        match standing {
            Standing::Unproven if !view.is_known => throttle.extend([anywhere, mails]),
            Standing::Registration(_) => throttle.push(mails),
            Standing::Unproven | Standing::User(_) => throttle.push(mails_of_owner),
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
        let codes = &self.policies.codes;
        let user = user.to_string();
        let mut rules = self.request_limits(new_email, what, client);
        rules.extend(self.stranger_request_limits(new_email, what));
        rules.extend([
            self.rule("request-user", &[&user, what], codes.requests, codes.window),
            self.mails_a_day("mails-user", &[&user]),
        ]);
        rules
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
