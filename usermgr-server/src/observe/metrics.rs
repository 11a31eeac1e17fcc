//! What is counted, and under which names. `docs/operations.md` says what each is for.

use std::borrow::Cow;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The upper bounds of durations, in seconds. A password hash takes some 50 ms, and more when it waits.
const DURATIONS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Labels with their values, of which there are few.
pub(super) type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
type Durations = Family<Labels<2>, Histogram, fn() -> Histogram>;

/// Every metric of this process.
pub(crate) struct Metrics {
    registry: Registry,
    pub(super) requests: Counters<3>,
    pub(super) request_durations: Durations,
    pub(super) requests_in_flight: Gauge,
    pub(crate) connections: ConnectionMetrics,
    pub(super) problems: Counters<1>,
    pub(super) audited: Counters<3>,
    pub(super) codes_issued: Counters<1>,
    pub(super) codes_refused: Counters<2>,
    pub(super) code_guesses: Counters<1>,
    pub(super) sign_ins: Counters<1>,
    pub(super) sessions_opened: Counter,
    pub(super) sessions_renewed: Counters<1>,
    pub(super) sessions_ended: Counter,
    pub(super) deliveries: Counters<2>,
    pub(super) store_up: Gauge,
    pub(super) outbox_mails: Gauges<1>,
    pub(super) outbox_oldest: Gauges<0>,
    pub(super) events_waiting: Gauges<0>,
    pub(super) events_oldest: Gauges<0>,
    pub(super) job_started: Gauges<1>,
    pub(super) job_ended: Gauges<1>,
    pub(super) job_ok: Gauges<1>,
    pub(super) job_runs: Counters<1>,
    pub(super) job_failures: Counters<1>,
    pub(super) hash_queued: Gauge,
    pub(super) hash_running: Gauge,
    pub(super) hash_threads: Gauge,
    pub(super) hash_memory: Gauge,
    pub(super) hash_refused: Counter,
    pub(super) hash_wait: Gauge<f64, std::sync::atomic::AtomicU64>,
    pub(super) pool_connections: Gauges<2>,
    pub(super) pool_max: Gauges<1>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let new_histogram: fn() -> Histogram = || Histogram::new(DURATIONS);
        let metrics = Self {
            registry: Registry::with_prefix("usermgr"),
            requests: Family::default(),
            request_durations: Family::new_with_constructor(new_histogram),
            requests_in_flight: Gauge::default(),
            connections: ConnectionMetrics::default(),
            problems: Family::default(),
            audited: Family::default(),
            codes_issued: Family::default(),
            codes_refused: Family::default(),
            code_guesses: Family::default(),
            sign_ins: Family::default(),
            sessions_opened: Counter::default(),
            sessions_renewed: Family::default(),
            sessions_ended: Counter::default(),
            deliveries: Family::default(),
            store_up: Gauge::default(),
            outbox_mails: Family::default(),
            outbox_oldest: Family::default(),
            events_waiting: Family::default(),
            events_oldest: Family::default(),
            job_started: Family::default(),
            job_ended: Family::default(),
            job_ok: Family::default(),
            job_runs: Family::default(),
            job_failures: Family::default(),
            hash_queued: Gauge::default(),
            hash_running: Gauge::default(),
            hash_threads: Gauge::default(),
            hash_memory: Gauge::default(),
            hash_refused: Counter::default(),
            hash_wait: Gauge::default(),
            pool_connections: Family::default(),
            pool_max: Family::default(),
        };
        metrics.named()
    }

    /// With every metric under its name.
    fn named(mut self) -> Self {
        let mut registry = std::mem::take(&mut self.registry);
        macro_rules! name {
            ($($($field:ident).+: $name:literal, $help:literal;)+) => {
                $(registry.register($name, $help, self.$($field).+.clone());)+
            };
        }
        name! {
            requests: "http_requests", "Requests that were answered, by method, route and class of status";
            request_durations: "http_request_duration_seconds", "How long requests took";
            requests_in_flight: "http_requests_in_flight", "Requests that are being answered";
            connections.open: "http_connections", "Connections to the public listener that are open";
            connections.refused: "http_connections_refused", "Connections that got no place of their own, by the limit they came over";
            connections.cut: "http_connections_ended", "Connections that the server ended, by what they failed to do in time";
            problems: "http_problems", "Answers that tell of a problem, by its code";
            audited: "audited", "Entries of the audit log that this process wrote, by event, outcome and reason";
            codes_issued: "codes_issued", "Codes and links whose mail was owed, by purpose";
            codes_refused: "codes_refused", "Codes and links that were asked for and not issued, by purpose and reason";
            code_guesses: "code_guesses", "Codes and links that were presented, by what became of them";
            sign_ins: "sign_ins", "Sign-ins with a password, by what became of them";
            sessions_opened: "sessions_opened", "Sessions that were opened";
            sessions_renewed: "sessions_renewed", "Sessions that were to be renewed, by what became of it";
            sessions_ended: "sessions_ended", "Sessions that somebody ended, or that a token used twice ended";
            deliveries: "deliveries", "Attempts to deliver a mail or an event, by what became of them";
            store_up: "store_up", "Whether the store answered when it was last asked";
            outbox_mails: "outbox_mails", "Mails that wait (queued) or failed for good (dead); 10000 stands for more";
            outbox_oldest: "outbox_oldest_seconds", "How long ago the oldest mail that waits was owed";
            events_waiting: "events_waiting", "Events that were not delivered; 10000 stands for more";
            events_oldest: "events_oldest_seconds", "How long ago the oldest event happened that was not delivered";
            job_started: "job_last_start_timestamp_seconds", "When a job last began";
            job_ended: "job_last_end_timestamp_seconds", "When a job last ended";
            job_ok: "job_last_ok", "Whether the last run of a job that is over was done";
            job_runs: "job_runs", "Runs of a job that began, on all instances";
            job_failures: "job_failures", "Runs of a job that were not done, on all instances";
            hash_queued: "hash_queued", "Passwords that wait to be hashed";
            hash_running: "hash_running", "Passwords that are being hashed";
            hash_threads: "hash_threads", "Threads that hash";
            hash_memory: "hash_memory_bytes", "Memory that the threads that hash hold";
            hash_refused: "hash_refused", "Callers who were told that the server is overloaded";
            hash_wait: "hash_last_wait_seconds", "How long the hash that was begun last had waited";
            pool_connections: "pool_connections", "Connections to the database, by pool and whether one is used";
            pool_max: "pool_max_connections", "The most connections of a pool";
        }
        let build: Gauges<1> = Family::default();
        set(&build, &[("version", env!("CARGO_PKG_VERSION").into())], 1);
        registry.register("build_info", "The version of this program", build);
        self.registry = registry;
        self
    }

    /// All of them as text, in the format `OpenMetrics` that Prometheus reads.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::with_capacity(16 * 1024);
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// The connections of a listener.
#[derive(Clone, Default)]
pub(crate) struct ConnectionMetrics {
    open: Gauge,
    refused: Counters<1>,
    cut: Counters<1>,
}

impl ConnectionMetrics {
    /// Counts a connection until what is answered is dropped.
    pub(crate) fn open(&self) -> OpenConnection {
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    /// A connection got no place of its own.
    pub(crate) fn refused(&self, reason: &'static str) {
        count(&self.refused, &[("reason", reason.into())]);
    }

    /// A connection was ended for something that did not come in time.
    pub(crate) fn cut(&self, reason: &'static str) {
        count(&self.cut, &[("reason", reason.into())]);
    }
}

/// A connection that is open.
pub(crate) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts one more.
pub(super) fn count<const N: usize>(counters: &Counters<N>, labels: &Labels<N>) {
    counters.get_or_create(labels).inc();
}

/// Sets a gauge.
pub(super) fn set<const N: usize>(gauges: &Gauges<N>, labels: &Labels<N>, value: impl TryInto<i64>) {
    gauges.get_or_create(labels).set(value.try_into().unwrap_or(i64::MAX));
}
