//! Every key at both ends of what it takes, and beyond them. A key without a row fails the test.

use std::collections::BTreeMap;

use super::keys::{KEYS, Key, Shape, variable_of};
use super::*;

const KEY: &str = "wZ5f0cL3mJq8yTnB4vRkXe1uHsGd7oPaQi2C6tEbUjM=";
const WEBHOOK: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a key takes, to both ends, and what it refuses.
struct Row {
    takes: Vec<String>,
    refuses: Vec<String>,
}

fn row(takes: &[&str], refuses: &[&str]) -> Row {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Row { takes: owned(takes), refuses: owned(refuses) }
}

fn flag() -> Row {
    row(&["true", "false"], &["yes", "1", "TRUE"])
}

fn count(least: u64, most: u64) -> Row {
    let (below, above) = (i128::from(least) - 1, i128::from(most) + 1);
    let refuses = [below.to_string(), above.to_string(), "1.5".into(), "2147483648000".into(), "ten".into()];
    Row { takes: vec![least.to_string(), most.to_string()], refuses: refuses.into() }
}

fn span_of(least: &str, most: &str, refuses: &[&str]) -> Row {
    let bad = [&["-1s", "10", "1y", "99999999999999999999d", "36526d"], refuses].concat();
    row(&[least, most], &bad)
}

/// A text of so many bytes, and one of one more.
fn long(most: usize, make: impl Fn(usize) -> String) -> (String, String) {
    (make(most), make(most + 1))
}

fn path() -> Row {
    let (fits, too_long) = long(4096, |length| format!("/{}", "x".repeat(length - 1)));
    row(&["x", "/etc/a file/x", &fits], &[&too_long, "a\nb"])
}

#[expect(clippy::too_many_lines, reason = "one table")]
fn row_of(key: &str) -> Option<Row> {
    Some(match key {
        "database.url" => {
            let (fits, too_long) = long(8 * 1024, |length| format!("sqlite://{}", "x".repeat(length - 9)));
            row(
                &["memory:", "sqlite://users.db", "postgres://u:p@h:65535/d", &fits],
                &["sqlite:", "sqlite://", "postgres://h:65536/d", "mysql://h", &too_long],
            )
        }
        "database.max_connections" => count(1, 10_000),
        "database.timeout" => span_of("1s", "1m", &["0s", "61s"]),
        "http.listen" | "http.metrics_listen" => row(
            &["127.0.0.1:0", "[::]:65535", ":8000", "localhost:8000"],
            &["127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1", "8000", "a b:1"],
        ),
        "http.base_path" => {
            let (fits, too_long) = long(256, |length| format!("/{}", "x".repeat(length - 1)));
            row(&["/", "/v1", &fits], &["v1", "/a b", "/a?b", "/a#b", "//a", &too_long])
        }
        "http.public_url" => {
            let (fits, too_long) =
                long(1024, |length| format!("http://h.example/{}", "x".repeat(length - 17)));
            row(
                &["http://localhost", "https://id.example.org:8443/", "http://[::1]:8000", &fits],
                &[
                    "id.example.org",
                    "ftp://id.example.org",
                    "https://",
                    "https:///id.example.org",
                    "https://id.example.org#x",
                    "https://id.example.org?x",
                    "https://id.exam ple.org",
                    "https://id.example.org/a b",
                    "https://id.example.org\\x",
                    "https://ana:secret@id.example.org",
                    "https://ana@id.example.org",
                    "https://id.example.org:99999",
                    "https://[::1",
                    "https://a..b:x",
                    "https://%zz",
                    &too_long,
                ],
            )
        }
        "http.trusted_proxies" => {
            let list = |length: usize| format!("{}10.0.0.1", "10.0.0.1,".repeat(length));
            row(&["0.0.0.0/0", "::/0", "10.0.0.1, fd00::/8", &list(1000)], &["10.0.0.0/33", "x", &list(8000)])
        }
        "http.forwarded_header" => {
            row(&["x-forwarded-for", "Forwarded"], &["x-real-ip", "x-forwarded-for,forwarded"])
        }
        "http.cors_origins" => row(
            &["https://a.example, http://localhost:3000"],
            &["https://a.example/", "*", "null", "https://a.example/x", "ftp://a.example"],
        ),
        "http.hsts" => row(
            &["off", "host 0s", "subdomains 3650d", "host"],
            &["on", "host 3651d", "off 1d", "host -1d", "subdomains 1d preload"],
        ),
        "http.keep_alive" => span_of("1s", "1h", &["0s", "3601s"]),
        "http.max_body" => row(
            &["1KiB", "1024", "64MiB"],
            &["0", "1023", "65MiB", "1GiB", "-1", "64 kb", "99999999999999999999"],
        ),
        "http.tls_cert" | "http.tls_key" | "pages.logo" | "pages.templates" | "mail.templates"
        | "tls.extra_ca" => path(),
        "pages.name" => {
            let (fits, too_long) = long(200, |length| "x".repeat(length));
            row(&["x", &fits], &[&too_long, "a\u{7}b"])
        }
        "pages.accent" => row(&["#000000", "#3450c8"], &["#ffffff", "3450c8", "#12345", "red"]),
        "mail.url" => {
            let (fits, too_long) = long(8 * 1024, |length| format!("https://h/{}", "x".repeat(length - 10)));
            row(
                &["console:", "memory:", "smtp://h:65535", &fits],
                &["smtp://h:65536", "mail.example.org", &too_long],
            )
        }
        "mail.from" => {
            let (fits, too_long) = long(200, |length| format!("{} <a@b.example>", "x".repeat(length)));
            row(&["a@localhost", &fits], &["nobody", "a@b@c", &too_long])
        }
        "mail.callback_secret" | "events.secret" => row(
            &[WEBHOOK, &format!("{WEBHOOK}, {WEBHOOK}")],
            &["whsec_", "whsec_c2hvcnQ=", "secret", &format!("whsec_{}", "q8".repeat(50))],
        ),
        "secret.key" => {
            row(&[KEY], &["c2hvcnQ=", &KEY.repeat(2), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="])
        }
        "secret.previous_keys" => row(&[KEY, &format!("{KEY},{KEY}")], &["c2hvcnQ=", &KEY.repeat(2)]),
        "codes.length" => count(4, 10),
        "codes.ttl" => span_of("1s", "24h", &["0s", "86401s"]),
        "codes.attempts" => count(1, 20),
        "codes.requests" => count(1, 1000),
        "codes.window" | "registration.pending_ttl" | "throttle.window" | "maintenance.interval" => {
            span_of("1s", "36525d", &["0s"])
        }
        "codes.resend_interval"
        | "sessions.step_up_age"
        | "outbox.keep_sent"
        | "outbox.keep_dead"
        | "audit.keep"
        | "users.deletion_grace" => span_of("0s", "36525d", &[]),
        "passwords.memory_kib" => count(8, 4 * 1024 * 1024),
        "passwords.iterations" => count(1, 100),
        "passwords.parallelism" => count(1, 64),
        "passwords.min_length" => count(8, 64),
        "passwords.hash_threads" | "outbox.concurrency" => count(1, 1024),
        "http.max_connections"
        | "http.max_connections_per_network"
        | "passwords.hash_queue"
        | "throttle.login_failures"
        | "throttle.network_failures"
        | "throttle.network_requests"
        | "outbox.max_attempts" => count(1, 1_000_000),
        "links.ttl" => span_of("1s", "7d", &["0s", "8d"]),
        "links.undo_ttl" => span_of("1s", "30d", &["0s", "31d"]),
        "tokens.format" => row(&["jwt", "opaque"], &["JWT", "paper"]),
        "tokens.algorithm" => row(&["EdDSA", "ES256", "RS256", "HS256"], &["none", "RS512"]),
        "tokens.access_ttl" => span_of("1s", "24h", &["0s", "25h"]),
        "tokens.rotate_every" | "events.keep" => span_of("1h", "36525d", &["59m", "0s"]),
        "tokens.issuer" => {
            let (fits, too_long) = long(1024, |length| "x".repeat(length));
            row(&["x", "https://id.example.org", &fits], &[&too_long, "a b"])
        }
        "tokens.audience" => {
            let (fits, too_long) = long(1024, |length| "x".repeat(length));
            row(&["x", &fits], &[&too_long, "a b", "a,b"])
        }
        "sessions.idle_ttl" => span_of("1s", "90d", &["0s", "91d"]),
        "sessions.max_ttl" => span_of("14d", "36525d", &["13d"]),
        "sessions.refresh_grace" => span_of("0s", "5m", &["301s"]),
        "events.url" => {
            let (fits, too_long) = long(8 * 1024, |length| format!("https://h/{}", "x".repeat(length - 10)));
            row(
                &["none", "console:", "http://h:65535", &fits],
                &["https://", "https://h:65536", "ftp://h", &too_long],
            )
        }
        "maintenance.daily_at" => row(&["00:00", "23:59"], &["24:00", "12:60", "3:30", "noon"]),
        "log.format" => row(&["pretty", "json"], &["JSON", "xml"]),
        "log.level" => row(&["trace", "debug", "info", "warn", "error"], &["off", "INFO", "info,sqlx=trace"]),
        "traces.otlp_url" => {
            let (fits, too_long) = long(8 * 1024, |length| format!("https://h/{}", "x".repeat(length - 10)));
            row(&["http://h:65535", &fits], &["https://", "http://h:65536", "otel:4317", &too_long])
        }
        flag_key
            if KEYS.iter().any(|key| key.name == flag_key && ["true", "false"].contains(&key.default)) =>
        {
            flag()
        }
        _ => return None,
    })
}

/// What has to be said elsewhere for a key to take its ends.
fn beside(key: &str) -> &'static [(&'static str, &'static str)] {
    match key {
        "database.url" => &[("USERMGR_SECRET_KEY", KEY)],
        "http.public_url" => &[("USERMGR_HTTP_PAGES", "false")],
        "http.hsts" => &[("USERMGR_HTTP_PUBLIC_URL", "https://id.example.org")],
        "http.tls_cert" => &[("USERMGR_HTTP_TLS_KEY", "key")],
        "http.tls_key" => &[("USERMGR_HTTP_TLS_CERT", "certificate")],
        "codes.ttl" | "registration.pending_ttl" => &[("USERMGR_CODES_TTL", "1s")],
        "passwords.memory_kib" => &[("USERMGR_PASSWORDS_ITERATIONS", "1")],
        "passwords.parallelism" => &[("USERMGR_PASSWORDS_MEMORY_KIB", "512")],
        "events.url" => &[("USERMGR_EVENTS_SECRET", WEBHOOK)],
        _ => &[],
    }
}

/// The keys of this build: without `otlp` no collector can be named.
fn keys() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| cfg!(feature = "otlp") || key.name != "traces.otlp_url")
}

fn read_with(key: &str, value: &str, beside: &[(&str, &str)]) -> Result<Config, String> {
    let mut environment: BTreeMap<String, String> =
        beside.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    environment.insert(variable_of(key), value.to_owned());
    Config::read("", "usermgr.toml", &environment).map_err(|error| error.to_string())
}

fn read(key: &str, value: &str) -> Result<Config, String> {
    read_with(key, value, beside(key))
}

fn shown(value: &str) -> String {
    value.chars().take(80).collect()
}

#[test]
fn every_key_takes_both_ends_and_nothing_beyond_them() {
    for key in keys() {
        let Row { takes, refuses } = row_of(key.name).unwrap_or_else(|| panic!("{} has no row", key.name));
        for value in takes {
            let read = read(key.name, &value);
            assert!(read.is_ok(), "{} = {}: {}", key.name, shown(&value), read.unwrap_err());
        }
        assert!(!refuses.is_empty(), "{}", key.name);
        for value in refuses {
            let told =
                read(key.name, &value).map(|_| ()).expect_err(&format!("{} = {}", key.name, shown(&value)));
            assert!(
                told.contains(key.name) && told.contains(": it takes"),
                "{} = {}: {told}",
                key.name,
                shown(&value)
            );
        }
    }
}

#[test]
fn blanks_around_any_value_mean_nothing_and_an_empty_variable_is_not_set() {
    for key in keys() {
        for value in row_of(key.name).unwrap().takes {
            let config = |value: &str| {
                let Config { values, .. } = read(key.name, value).unwrap();
                values.masked().map(|(_, value, _)| value).collect::<Vec<_>>()
            };
            let text = |value: &str| {
                format!("{:?}", Config { values: Values::default(), ..read(key.name, value).unwrap() })
            };
            for typed in [
                format!("{value}\r"),
                format!("{value}\r\n"),
                format!(" \t{value}\u{a0} "),
                format!("\u{feff}{value}"),
            ] {
                assert_eq!(text(&typed), text(&value), "{}", key.name);
                assert_eq!(config(&typed), config(&value), "{}", key.name);
            }
        }
        for empty in ["", " ", "\r", "\r\n"] {
            let is_default = read_with(key.name, empty, &[]).unwrap();
            let (_, _, source) = is_default.values.masked().find(|(name, ..)| *name == key.name).unwrap();
            assert_eq!(source, "default", "{}", key.name);
        }
    }
}

#[test]
fn no_key_takes_control_characters_or_no_end() {
    for key in keys() {
        for bad in ["a\nb", "a\u{0}b", "a\u{1b}[31mb", "a\u{85}b"] {
            let told = read(key.name, bad).map(|_| ()).unwrap_err();
            assert!(told.starts_with(key.name) && told.contains("control characters"), "{told}");
        }
        assert!(read(key.name, &"x".repeat(65 * 1024)).is_err(), "{}", key.name);
    }
}

#[test]
fn a_list_in_the_file_is_for_keys_that_take_one() {
    for key in keys() {
        let (section, name) = key.name.split_once('.').unwrap();
        let read = Config::read(
            &format!("[{section}]\n{name} = [\"a\", \"b\"]\n"),
            "usermgr.toml",
            &BTreeMap::new(),
        );
        let told = read.map(|_| ()).unwrap_err().to_string();
        let refused = told.contains("it takes one value, not a list");
        assert_eq!(refused, key.shape == Shape::One, "{}: {told}", key.name);
        let table = Config::read(&format!("[{section}.{name}]\nx = 1\n"), "usermgr.toml", &BTreeMap::new());
        assert!(table.unwrap_err().to_string().contains("is a table"), "{}", key.name);
    }
}
