//! What a configuration means, in words, and which of its choices are weak.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use secrecy::ExposeSecret as _;
use usermgr_core::domain::code::CodeLength;
use usermgr_core::domain::role::Permission;
use usermgr_core::domain::signing::SigningAlgorithm;
use usermgr_core::policy::{HashPolicy, ThrottlePolicy, TokenFormat};

use super::text::span;
use super::{Config, DatabaseUrl, EventTarget, ListenAddress};
use crate::http::Hsts;

/// Memory in KiB and passes that OWASP takes for the least, each pair as strong as the others.
const LEAST_HASHES: [(u32, u32); 5] = [(7_168, 5), (9_216, 4), (12_288, 3), (19_456, 2), (47_104, 1)];

/// The words of `config check --explain`, one room after the other.
struct Words(String);

impl Words {
    fn room(&mut self, title: &str) {
        let _infallible = writeln!(self.0, "{}{title}", if self.0.is_empty() { "" } else { "\n" });
    }

    fn say(&mut self, line: &str) {
        let _infallible = writeln!(self.0, "  {line}");
    }
}

impl Config {
    /// What is in force, in words.
    pub fn explain(&self) -> String {
        let mut words = Words(String::new());
        self.codes(&mut words);
        self.passwords(&mut words);
        self.sessions(&mut words);
        self.sight(&mut words);
        self.leaving(&mut words);
        self.keeping(&mut words);
        words.0
    }

    fn codes(&self, words: &mut Words) {
        let (codes, throttle) = (&self.policies.codes, &self.policies.throttle);
        let digits = codes.length.digits();
        words.room("Codes");
        words.say(&format!(
            "A mailed code has {digits} digits, is used up by {} wrong tries, and lives {} from the hand-over of its mail.",
            codes.attempts,
            span(codes.ttl)
        ));
        if digits < CodeLength::MIN_FOR_PASSWORDS {
            words.say(&format!(
                "That holds for the first verification of an address; codes that set a password or change an address have {}.",
                CodeLength::MIN_FOR_PASSWORDS
            ));
        }
        if throttle.enabled {
            let (budget, mails) = (ThrottlePolicy::WRONG_CODES_A_DAY, ThrottlePolicy::MAILS_A_DAY);
            words.say(&format!(
                "Strangers have {budget} wrong guesses a day at the codes of one address, over all purposes: they hit with \
                 a chance of {} an account and day. The token of a registration, a session, and a network that signed in \
                 have {budget} of their own.",
                chance(budget, digits)
            ));
            words.say(&format!(
                "Strangers have {mails} mails a day sent to one address. Under an address without an account they open \
                 one with a chance of {} a day: each of {mails} registrations is dead after {} guesses.",
                chance(mails.saturating_mul(codes.attempts.min(budget)), digits),
                codes.attempts
            ));
            let windows =
                (time::Duration::DAY.whole_seconds() / throttle.window.whole_seconds().max(1)).max(1);
            let a_day = throttle.network_failures.saturating_mul(u32::try_from(windows).unwrap_or(u32::MAX));
            words.say(&format!(
                "One network has {} wrong guesses in {}, over all addresses: {a_day} a day, which hit any code of any \
                 address with a chance of {}.",
                throttle.network_failures,
                span(throttle.window),
                chance(a_day, digits)
            ));
            words.say(&format!(
                "Asked for is a code, link or registration {} times in {} for one address from one network, {} times from \
                 all, not again within {}; {} times by one network over all addresses.",
                codes.requests,
                span(codes.window),
                ThrottlePolicy::REQUESTS_FROM_ALL_NETWORKS,
                span(codes.resend_interval),
                throttle.network_requests
            ));
        } else {
            words.say(&format!(
                "Nothing limits how many codes are asked for: each falls to a guess with a chance of {}, and there is no \
                 bound for a day.",
                chance(codes.attempts, digits)
            ));
        }
        let links = &self.policies.links;
        words.say(&format!("A mailed link has 256 bits and lives {}.", span(links.ttl)));
    }

    fn passwords(&self, words: &mut Words) {
        let (passwords, hashing) = (&self.policies.passwords, &self.policies.hashing);
        let throttle = &self.policies.throttle;
        words.room("Passwords");
        words.say(&format!(
            "A password has {} to 256 characters and is none of the common ones.",
            passwords.min_length
        ));
        if throttle.enabled {
            let windows = time::Duration::DAY.whole_seconds() / throttle.window.whole_seconds().max(1);
            let known = i64::from(throttle.login_failures).saturating_mul(windows.max(1));
            words.say(&format!(
                "Strangers have {} tries at an account a day, all together; a network that signed in to it in the last {} has \
                 {} in {}, that is {known} a day.",
                ThrottlePolicy::FAR_FAILURES_A_DAY,
                span(ThrottlePolicy::KNOWN_NETWORK),
                throttle.login_failures,
                span(throttle.window)
            ));
            words.say(&format!(
                "One network fails {} times in {} over all accounts.",
                throttle.network_failures,
                span(throttle.window)
            ));
        } else {
            words.say("Nothing limits failed sign-ins.");
        }
        let (threads, queue) = (threads(hashing), hashing.queue.unwrap_or(64 * threads(hashing)));
        words.say(&format!(
            "Hashes are Argon2id with {} KiB, {} passes and {} lane(s). {threads} threads hold {} MiB for life, and more only while a hash of \
             other settings is compared; {queue} callers may wait, further ones are answered 503 at once.",
            hashing.memory_kib,
            hashing.iterations,
            hashing.parallelism,
            memory_mib(hashing)
        ));
    }

    fn sessions(&self, words: &mut Words) {
        let (sessions, tokens) = (&self.policies.sessions, &self.policies.tokens);
        words.room("Sessions");
        words.say(&format!(
            "A session ends {} after it was last renewed, and {} after it began.",
            span(sessions.idle_ttl),
            span(sessions.max_ttl)
        ));
        words.say(&match tokens.format {
            TokenFormat::Jwt => format!(
                "An access token is a JWT ({}) and lives {}. This server looks its session up; a service that verifies \
                 tokens itself learns of an ended session when the token runs out.",
                tokens.algorithm.as_str(),
                span(tokens.access_ttl)
            ),
            TokenFormat::Opaque => format!(
                "An access token is looked up on every request and lives {}; one whose session ended is refused at once.",
                span(tokens.access_ttl)
            ),
        });
    }

    fn sight(&self, words: &mut Words) {
        let registration = &self.policies.registration;
        words.room("Who may see and do what");
        words.say(if registration.enabled {
            "Anybody may register."
        } else {
            "Nobody registers: accounts come by invitation, import or the command line."
        });
        words.say(if registration.reveal_existing {
            "A registration tells whether an address has an account."
        } else {
            "No answer tells whether an address has an account."
        });
        for (role, permissions) in self.policies.roles.all() {
            let permissions: Vec<&str> = permissions.iter().map(Permission::as_str).collect();
            let may = if permissions.is_empty() {
                "their own account alone".into()
            } else {
                permissions.join(", ")
            };
            words.say(&format!("Users with the role {role}: {may}."));
        }
        if !self.cors_origins.is_empty() {
            words.say(&format!("Scripts of these origins may call: {}.", self.cors_origins.join(", ")));
        }
        words.say("Whoever reaches the server sees /health/… and the public keys, without signing in.");
        words.say(&match &self.metrics_listen {
            Some(address) => format!("Whoever reaches {address} reads the metrics, without signing in."),
            None => "There are no metrics to be read.".to_owned(),
        });
    }

    fn leaving(&self, words: &mut Words) {
        words.room("What leaves this process");
        let shown = |name: &str| {
            self.values.masked().find(|(key, ..)| *key == name).map(|(_, value, _)| value).unwrap_or_default()
        };
        words.say(&format!("Everything that is kept: to {}.", shown("database.url")));
        words.say(&match shown("mail.url").as_str() {
            "console:" => "Mails: to standard output, with their codes.".to_owned(),
            "memory:" => "Mails: nowhere; they are forgotten.".to_owned(),
            url => format!("Mails, with their codes and links: to {url}."),
        });
        words.say(&match &self.events {
            EventTarget::Nowhere => "Events: nowhere; they wait for readers of the feed.".to_owned(),
            EventTarget::Console => "Events, with users' identifiers: to standard output.".to_owned(),
            EventTarget::Webhook { .. } => {
                format!("Events, with users' identifiers and signed: to {}.", shown("events.url"))
            }
        });
        if self.otlp_url.is_some() {
            words.say(&format!(
                "Spans of requests, without anything personal: to {}.",
                shown("traces.otlp_url")
            ));
        }
        words
            .say("Log lines: to standard error, with identifiers of users and no address, code or password.");
        words.say(&match &self.tls {
            Some(_) => format!("Answers: from {} by TLS 1.2 or 1.3.", self.listen),
            None => format!("Answers: from {} unencrypted, for a proxy that speaks TLS.", self.listen),
        });
    }

    fn keeping(&self, words: &mut Words) {
        let policies = &self.policies;
        words.room("How long things are kept");
        words.say(&format!(
            "Audit entries {}, events {}, settled mails {}, dead mails {}, deleted users {}, registrations that wait {}.",
            span(policies.retention.audit),
            span(policies.retention.events),
            span(policies.outbox.keep_sent),
            span(policies.outbox.keep_dead),
            span(policies.deletion.grace),
            span(policies.registration.pending_ttl)
        ));
        if !policies.maintenance.enabled {
            words.say("Another process has to do the upkeep, or everything is kept for ever.");
        }
    }

    /// What an operator should know about the rules in force: choices that are weak, or that rarely are what was meant.
    pub fn warnings(&self) -> Vec<String> {
        let found = self.of_rules().into_iter().chain(self.of_places()).chain(self.of_connections());
        found.filter(|(weak, _)| *weak).map(|(_, warning)| warning.to_owned()).collect()
    }

    /// What is weak about the rules.
    fn of_rules(&self) -> [(bool, &'static str); 8] {
        let policies = &self.policies;
        let (codes, hashing, tokens) = (&policies.codes, &policies.hashing, &policies.tokens);
        let strong_hash = LEAST_HASHES
            .iter()
            .any(|(memory, passes)| hashing.memory_kib >= *memory && hashing.iterations >= *passes);
        [
            (
                codes.length.digits() < CodeLength::MIN_FOR_PASSWORDS,
                "codes.length is under 6: such codes are easy to guess; they count for e-mail verification only",
            ),
            (
                codes.ttl > time::Duration::HOUR,
                "codes.ttl is over 1h: whoever reads a mailbox later still finds a code",
            ),
            (
                policies.links.ttl > time::Duration::DAY,
                "links.ttl is over 24h: whoever reads a mailbox later still finds a link",
            ),
            (
                !policies.throttle.enabled,
                "throttle.enabled is false: nothing limits guessing and mail bombing; for load tests only",
            ),
            (
                policies.registration.reveal_existing,
                "registration.reveal_existing is true: anybody can ask who has an account",
            ),
            (
                !strong_hash,
                "passwords.memory_kib and passwords.iterations are weaker than OWASP advises, such as 19456 and 2: \
                 passwords of a stolen database fall sooner",
            ),
            (
                tokens.format == TokenFormat::Jwt && tokens.algorithm == SigningAlgorithm::Hs256,
                "tokens.algorithm is HS256: whoever can verify a token can make one, and no public key is published",
            ),
            (
                tokens.format == TokenFormat::Jwt && tokens.access_ttl > time::Duration::HOUR,
                "tokens.access_ttl is over 1h: services that verify tokens themselves take one that long after its session ended",
            ),
        ]
    }

    /// What is weak about connections that leave this machine.
    fn of_connections(&self) -> [(bool, &'static str); 4] {
        let database = match &self.database_url {
            DatabaseUrl::Postgres(url) => remote(url.expose_secret()),
            DatabaseUrl::Sqlite(_) | DatabaseUrl::Memory => None,
        };
        let mode =
            |url: &url::Url| query(url, "sslmode").or_else(|| query(url, "ssl-mode")).unwrap_or_default();
        let mode = database.as_ref().map(mode);
        let mail = remote(self.mail_url.expose_secret()).filter(|url| url.scheme() == "smtp");
        let traces = self.otlp_url.as_ref().and_then(|url| remote(url.expose_secret()));
        [
            (
                mode.as_ref().is_some_and(|mode| !["verify-full", "verify-ca"].contains(&mode.as_str())),
                "database.url is another host and its certificate is not verified: whoever is on the way reads and \
                 changes everything; add ?sslmode=verify-full&sslrootcert=FILE",
            ),
            (
                mode.is_some_and(|mode| mode == "verify-ca"),
                "database.url has sslmode=verify-ca, which does not check the server's name: sslmode=verify-full does",
            ),
            (
                mail.is_some_and(|url| query(&url, "tls").is_some_and(|tls| tls == "opportunistic")),
                "mail.url has tls=opportunistic: whoever is on the way can take the encryption away, and reads codes \
                 and links; tls=required refuses that",
            ),
            (
                traces.is_some_and(|url| url.scheme() == "http"),
                "traces.otlp_url begins with http://: who calls what and when can be read on the way",
            ),
        ]
    }

    /// What is weak about where things come from and go to.
    fn of_places(&self) -> [(bool, &'static str); 11] {
        let public = url::Url::parse(&self.policies.mail.public_url).ok();
        let host = public.as_ref().and_then(url::Url::host_str).unwrap_or_default();
        let at_home = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
        let mail = self.mail_url.expose_secret();
        let goes_nowhere = mail == "console:" || mail == "memory:" || mail.starts_with("file:");
        let unencrypted_events = matches!(&self.events,
            EventTarget::Webhook { url, .. } if url.expose_secret().starts_with("http:"));
        [
            (
                matches!(self.database_url, DatabaseUrl::Memory),
                "database.url is memory: everything is forgotten when this process ends",
            ),
            (
                !at_home && public.as_ref().is_some_and(|url| url.scheme() == "http"),
                "http.public_url begins with http://: mailed links and what is typed behind them can be read on the way",
            ),
            (
                self.pages.as_ref().is_some_and(|pages| !pages.keeps_cookies()),
                "http.public_url is http:// and not this machine: browsers keep none of the pages' cookies, and nobody \
                 can sign in there; it takes https:// in front, or http.pages = false",
            ),
            (
                !self.listen.is_loopback() && self.tls.is_none() && self.trusted_proxies.is_empty(),
                "http.listen is reached from outside without TLS, and no proxy is named: set http.trusted_proxies, or \
                 http.tls_cert and http.tls_key",
            ),
            (
                self.trusted_proxies.iter().any(is_anybody),
                "http.trusted_proxies has a network that anybody may be in: every client chooses its own address, and no \
                 limit of a network holds; name the proxies alone",
            ),
            (
                self.tls.is_some() && public.as_ref().is_some_and(|url| url.scheme() == "http"),
                "http.tls_cert is set and http.public_url begins with http://: links lead past TLS",
            ),
            (
                self.hsts.max_age().is_some_and(|age| age < Hsts::LEAST_AGE),
                "http.hsts is for less than 365d: browsers forget soon that this host comes by TLS alone",
            ),
            (
                self.metrics_listen.as_ref().is_some_and(ListenAddress::is_everywhere),
                "http.metrics_listen is every interface: anybody who reaches it reads the metrics",
            ),
            (
                !at_home && goes_nowhere,
                "mail.url delivers to nobody: codes and links are printed, written to files or forgotten",
            ),
            (
                self.mail_plaintext == usermgr_smtp::PlaintextPolicy::Allow,
                "mail.allow_plaintext is true: codes and links can be read on the way",
            ),
            (unencrypted_events, "events.url begins with http://: who does what can be read on the way"),
        ]
    }
}

/// Whether a network is more than an operator's own: a large part of all addresses, private ones of IPv6 excepted.
fn is_anybody(network: &IpNet) -> bool {
    match network {
        IpNet::V4(network) => network.prefix_len() < 8,
        IpNet::V6(network) => {
            let mapped = Ipv6Net::new_assert(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96);
            let private = Ipv6Net::new_assert(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7);
            let is_large = network.prefix_len() < 16 && !private.contains(network);
            is_large
                || network.contains(&mapped)
                || (mapped.contains(network) && network.prefix_len() < 96 + 8)
        }
    }
}

/// A URL whose host is not this machine. A host that begins with a slash is a Unix socket.
fn remote(url: &str) -> Option<url::Url> {
    let url = url::Url::parse(url).ok()?;
    let host = query(&url, "host").or_else(|| url.host_str().map(str::to_owned))?;
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    let is_here = host.is_empty()
        || host == "localhost"
        || host.starts_with('/')
        || host.to_ascii_lowercase().starts_with("%2f")
        || address.is_ok_and(|address| address.is_loopback());
    (!is_here).then_some(url)
}

/// A parameter of a URL.
fn query(url: &url::Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn threads(hashing: &HashPolicy) -> usize {
    hashing.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

/// The memory that the threads hold.
fn memory_mib(hashing: &HashPolicy) -> u64 {
    (threads(hashing) as u64).saturating_mul(u64::from(hashing.memory_kib)).div_ceil(1024)
}

/// The chance that one of so many different guesses is a code of so many digits.
fn chance(guesses: u32, digits: u8) -> String {
    let codes = 10_u64.saturating_pow(u32::from(digits));
    format!("1 in {}", (codes / u64::from(guesses.max(1))).max(1))
}
