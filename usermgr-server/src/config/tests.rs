use secrecy::ExposeSecret as _;
use usermgr_core::policy::Policies;

use super::keys::{KEYS, Key, Secrecy, is_of_kubernetes, variable_of};
use super::values::mask;
use super::*;
use crate::http::Hsts;
use crate::pages::Accent;

fn read(file: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Config::read(file, "usermgr.toml", &environment).map_err(|error| error.to_string())
}

#[test]
fn the_defaults_are_the_policies_own() {
    let config = read("", &[]).unwrap();
    assert_eq!(format!("{:?}", config.policies), format!("{:?}", Policies::default()));
    assert_eq!(config.base_path, "/v1");
}

#[test]
fn the_environment_stands_over_the_file_over_the_defaults() {
    let file =
        "[codes]\nttl = \"60s\"\nlength = 4\n[http]\ntrusted_proxies = [\"10.0.0.0/8\", \"192.0.2.1\"]\n";
    let config = read(file, &[("USERMGR_CODES_TTL", "90s"), ("DATABASE_URL", "sqlite://other.db")]).unwrap();
    assert_eq!(config.policies.codes.ttl, time::Duration::seconds(90));
    assert_eq!(config.policies.codes.length.digits(), 4);
    assert_eq!(config.trusted_proxies.len(), 2);
    assert!(matches!(&config.database_url, DatabaseUrl::Sqlite(url) if url.file() == Path::new("other.db")));
    assert_eq!(config.warnings().len(), 1);
}

#[test]
fn every_fault_is_told_at_once_with_the_key_and_what_it_takes() {
    let file = "[codes]\nttl = \"soon\"\nlenght = 4\n[passwords]\nmin_length = 4\n";
    let said = read(file, &[("USERMGR_CODE_TTL", "1s"), ("USERMGR_HTTP_LISTEN", "nowhere")]).unwrap_err();
    for part in [
        "codes.ttl (usermgr.toml): it takes a duration",
        "codes.lenght is not a key; did you mean codes.length?",
        "USERMGR_CODE_TTL is not a setting; did you mean USERMGR_CODES_TTL?",
        "http.listen (USERMGR_HTTP_LISTEN): it takes an address",
    ] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    let said = read("[passwords]\nmin_length = 4\n", &[]).unwrap_err();
    assert!(said.contains("passwords.min_length: it takes 8 to 64"), "{said}");
    let said = read("", &[("USERMGR_DATABASE_URL", "postgres://h/d")]).unwrap_err();
    assert!(said.contains("secret.key: Postgres needs one"), "{said}");
}

#[test]
fn a_secret_is_given_once_and_services_of_kubernetes_are_not_settings() {
    let both = [("USERMGR_MAIL_URL", "console:"), ("USERMGR_MAIL_URL_FILE", "/nowhere")];
    let said = read("", &both).unwrap_err();
    assert_eq!(said, "mail.url: both USERMGR_MAIL_URL and USERMGR_MAIL_URL_FILE are set: it takes one");
    let kubernetes = [
        ("USERMGR_SERVICE_HOST", "10.0.0.1"),
        ("USERMGR_SERVICE_PORT", "80"),
        ("USERMGR_SERVICE_PORT_HTTP", "80"),
        ("USERMGR_PORT", "tcp://10.0.0.1:80"),
        ("USERMGR_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("USERMGR_API_SERVICE_HOST", "10.0.0.1"),
    ];
    read("", &kubernetes).unwrap();
    assert!(read("", &[("USERMGR_HTTP_PORT", "9000")]).is_err(), "somebody means http.listen");
    assert!(
        KEYS.iter().all(|key| !is_of_kubernetes(&variable_of(key.name), "tcp://")),
        "a key would never be read"
    );
    let said = read("", &[("USERMGR_DATABASE_MAX_CONNECTIONS", "0")]).unwrap_err();
    assert!(said.contains("it takes a whole number from 1 to 10000"), "{said}");
}

#[test]
fn no_url_shows_its_password_however_it_is_written() {
    for url in [
        "postgres://app:hunter22@db/app",
        "postgres://db/app?user=app&password=hunter22",
        "postgres://db/app?sslkey=hunter22",
        "postgres://app:hun/hunter22@db/app",
        "smtp://me:hun#hunter22@mail.example.org:587",
        "smtp://me:hunter22@mail.example.org:99999",
        "https://hunter22@mail.example.org/send",
        "https://:hunter22@mail.example.org/send",
    ] {
        assert!(!mask(url, Secrecy::Url).contains("hunter22"), "{}", mask(url, Secrecy::Url));
    }
    for url in ["console:", "memory:", "sqlite://usermgr.db", "smtp://mail.example.org:587?tls=required"] {
        assert_eq!(mask(url, Secrecy::Url), url);
    }
}

#[test]
fn a_time_of_day_has_two_digits_and_two_digits() {
    let config = read("[maintenance]\ndaily_at = \"03:30\"\n", &[]).unwrap();
    assert_eq!(config.policies.maintenance.daily_at, time::macros::time!(03:30));
    assert!(config.warnings().is_empty(), "it does something");
    for wrong in ["3:30", "24:00", "12:60", "12", "12:00:00", "+1:00", "noon"] {
        let said = read("", &[("USERMGR_MAINTENANCE_DAILY_AT", wrong)]).unwrap_err();
        assert!(said.contains("it takes a time of day in UTC"), "{said}");
    }
    let said = read("[maintenance]\ninterval = \"0s\"\n", &[]).unwrap_err();
    assert!(said.contains("maintenance.interval: it takes 1s to 36525d"), "{said}");
}

#[test]
fn roles_are_defined_by_what_they_permit() {
    let file = "[roles]\nsupport = [\"users:read\", \"audit:read\"]\n";
    let config = read(file, &[("USERMGR_ROLES_MAILROOM", "outbox:manage")]).unwrap();
    let names: Vec<_> = config.policies.roles.defined.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["mailroom", "support"]);
    let said = read("[roles]\nSupport = [\"everything\"]\nadmin = [\"users:read\"]\n", &[]).unwrap_err();
    assert!(said.contains("roles.Support (usermgr.toml): it takes a name"), "{said}");
}

#[test]
fn webhooks_are_signed_or_not_sent() {
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let webhook = ("USERMGR_EVENTS_URL", "https://app.example.org/hooks");
    let said = read("", &[webhook]).unwrap_err();
    assert!(said.contains("events.secret: webhooks need one"), "{said}");
    let said = read("", &[webhook, ("USERMGR_EVENTS_SECRET", "secret")]).unwrap_err();
    assert!(said.contains("events.secret (USERMGR_EVENTS_SECRET): it takes whsec_"), "{said}");
    let said = read("", &[("USERMGR_EVENTS_URL", "ftp://app.example.org")]).unwrap_err();
    assert!(said.contains("events.url (USERMGR_EVENTS_URL): it takes https://"), "{said}");
    let two = format!("{SECRET}, {SECRET}");
    let config = read("", &[webhook, ("USERMGR_EVENTS_SECRET", &two)]).unwrap();
    assert!(matches!(&config.events, EventTarget::Webhook { secrets, .. } if secrets.len() == 2));
    assert!(!format!("{config:?} {:?}", config.values).contains("MfKQ9r8"));
    for (url, is_console) in [("", false), ("none", false), ("console:", true)] {
        let config = read("", &[("USERMGR_EVENTS_URL", url)]).unwrap();
        assert_eq!(matches!(config.events, EventTarget::Console), is_console);
    }
}

#[test]
fn a_secret_key_that_anybody_can_guess_is_refused() {
    for (weak, why) in [
        ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "a pattern"),
        ("Y2hhbmdlbWVjaGFuZ2VtZWNoYW5nZW1lY2hhbmdlbWU=", "a text"),
        ("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwg=", "a pattern"),
        ("aGVsbG8gd29ybGQsIHRoaXMgaXMgYSB0ZXN0IGtleS4=", "publicly known"),
        ("q5X0mKkXn0bAq1dVQH3nYx4oF8o2m2eS0cVqz8m1T3k=", "publicly known"),
        ("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "publicly known"),
        ("Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZSwgc28=", "a text"),
    ] {
        let said = read("", &[("USERMGR_SECRET_KEY", weak)]).unwrap_err();
        assert!(said.starts_with(&format!("secret.key: it is {why}")), "{said}");
        assert!(said.contains("openssl rand -base64 32") && said.lines().count() == 1, "{said}");
        assert!(!said.contains(weak), "{said}");
        read("", &[("USERMGR_SECRET_PREVIOUS_KEYS", weak)]).unwrap();
    }
    let pattern = format!("whsec_{}", "A".repeat(44));
    let url = ("USERMGR_EVENTS_URL", "https://app.example.org/events");
    let said = read("", &[url, ("USERMGR_EVENTS_SECRET", &pattern)]).unwrap_err();
    assert!(said.contains("events.secret (USERMGR_EVENTS_SECRET): it takes"), "{said}");
}

#[test]
fn no_secret_is_shown() {
    let key = "wZ5f0cL3mJq8yTnB4vRkXe1uHsGd7oPaQi2C6tEbUjM=";
    let environment = [
        ("USERMGR_SECRET_KEY", key),
        ("USERMGR_DATABASE_URL", "postgres://app:hunter22@db/app"),
        ("USERMGR_MAIL_URL", "smtp://me:hunter33@mail.example.org:587"),
    ];
    let config = read("", &environment).unwrap();
    let shown = format!("{config:?} {:?}", config.values.masked().collect::<Vec<_>>());
    for secret in [key, "hunter22", "hunter33"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn every_fault_of_the_rules_is_told_at_once() {
    let file = "[codes]\nttl = \"soon\"\nlength = 3\n[links]\nttl = \"9999d\"\n[passwords]\nmin_length = 4\niterations = 0\n\
                [tokens]\nformat = \"paper\"\nalgorithm = \"none\"\n[http]\ntls_key = \"key.pem\"\nmetrics_listen = \"here\"\n";
    let said = read(file, &[]).unwrap_err();
    for key in [
        "codes.ttl (",
        "codes.length (",
        "links.ttl: it takes",
        "passwords.min_length: it takes",
        "passwords.iterations: it takes",
        "tokens.format (",
        "tokens.algorithm (",
        "http.tls_cert: it takes a file, since http.tls_key names one",
        "http.metrics_listen (",
    ] {
        assert_eq!(said.matches(key).count(), 1, "{key} in {said}");
    }
    assert_eq!(said.lines().count(), 9, "{said}");
}

#[test]
fn every_default_can_be_read() {
    for key in KEYS {
        let defaults = read("", &[(&variable_of(key.name), key.default)]);
        assert!(defaults.is_ok(), "{}: {defaults:?}", key.name);
    }
}

#[test]
fn the_sample_file_is_the_one_that_is_kept() {
    let kept = include_str!("../../usermgr.sample.toml");
    assert!(
        kept == sample(),
        "write it anew: usermgr-server config sample > usermgr-server/usermgr.sample.toml"
    );
}

#[test]
fn the_sample_file_means_the_defaults_also_when_its_values_are_taken() {
    assert!(read(&sample(), &[]).is_ok());
    let uncommented: String = sample()
        .lines()
        .filter(|line| !line.contains("\u{2026}\""))
        .map(|line| match line.strip_prefix('#') {
            Some(value) if !value.starts_with(' ') => format!("{value}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let table: toml::Table = uncommented.parse().unwrap();
    let names = |key: &Key| {
        key.secrecy == Secrecy::Secret || {
            let (section, name) = key.name.split_once('.').unwrap();
            table[section].get(name).is_some()
        }
    };
    let lacking: Vec<&str> = KEYS.iter().filter(|key| !names(key)).map(|key| key.name).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
    let sampled = sample();
    let lines: Vec<&str> = sampled.lines().collect();
    let without_examples: Vec<&str> = lines
        .windows(2)
        .filter(|pair| !pair[0].ends_with("as:") && !pair[0].starts_with("[roles]"))
        .map(|pair| pair[1].strip_prefix('#').filter(|value| !value.starts_with(' ')).unwrap_or(pair[1]))
        .collect();
    let config = read(&without_examples.join("\n"), &[]).unwrap();
    assert_eq!(format!("{:?}", config.policies), format!("{:?}", Policies::default()));
}

#[test]
fn the_explanation_counts_as_the_rules_do() {
    let said = read("[passwords]\nhash_threads = 3\n", &[]).unwrap().explain();
    for part in [
        "A mailed code has 6 digits, is used up by 5 wrong tries, and lives 10m",
        "a chance of 1 in 100000 an account and day",
        "3 threads hold 57 MiB for life",
        "192 callers may wait",
        "10 in 15m, that is 960 a day",
        "Users with the role user: their own account alone.",
        "Mails: to standard output, with their codes.",
        "There are no metrics to be read.",
    ] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    let file = "[codes]\nlength = 4\n[throttle]\nenabled = false\n[roles]\nsupport = [\"users:read\"]\n\
                [mail]\nurl = \"smtp://me:hunter22@mail.example.org:587\"\n[http]\nmetrics_listen = \"127.0.0.1:9464\"\n";
    let said = read(file, &[]).unwrap().explain();
    for part in [
        "codes that set a password or change an address have 6",
        "a chance of 1 in 2000, and there is no bound for a day",
        "Nothing limits failed sign-ins.",
        "Users with the role support: users:read.",
        "to smtp://me:********@mail.example.org:587.",
        "Whoever reaches 127.0.0.1:9464 reads the metrics",
    ] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    assert!(!said.contains("hunter22"), "{said}");
}

#[test]
fn weak_choices_are_warned_of() {
    let weak = [
        ("USERMGR_CODES_LENGTH", "5"),
        ("USERMGR_CODES_TTL", "2h"),
        ("USERMGR_LINKS_TTL", "2d"),
        ("USERMGR_THROTTLE_ENABLED", "false"),
        ("USERMGR_REGISTRATION_REVEAL_EXISTING", "true"),
        ("USERMGR_PASSWORDS_ITERATIONS", "1"),
        ("USERMGR_TOKENS_ALGORITHM", "HS256"),
        ("USERMGR_TOKENS_ACCESS_TTL", "2h"),
        ("USERMGR_DATABASE_URL", "memory:"),
        ("USERMGR_HTTP_PUBLIC_URL", "http://app.example.org"),
        ("USERMGR_HTTP_LISTEN", "0.0.0.0:80"),
        ("USERMGR_HTTP_METRICS_LISTEN", "[::]:9464"),
        ("USERMGR_MAIL_ALLOW_PLAINTEXT", "true"),
    ];
    for (variable, value) in weak {
        let config = read("", &[(variable, value)]).unwrap();
        assert!(!config.warnings().is_empty(), "{variable}={value}");
    }
    assert_eq!(
        read("", &weak).unwrap().warnings().len(),
        weak.len() + 2,
        "and mail that goes to nobody, and cookies"
    );
    assert!(read("", &[]).unwrap().warnings().is_empty());
    let proxied = [
        ("USERMGR_HTTP_LISTEN", "0.0.0.0:80"),
        ("USERMGR_HTTP_TRUSTED_PROXIES", "10.0.0.0/8"),
        ("USERMGR_HTTP_PUBLIC_URL", "https://app.example.org"),
        ("USERMGR_MAIL_URL", "smtps://mail.example.org"),
    ];
    assert!(read("", &proxied).unwrap().warnings().is_empty());
}

#[test]
fn unverified_connections_off_this_machine_are_told() {
    let key = ("USERMGR_SECRET_KEY", "wZ5f0cL3mJq8yTnB4vRkXe1uHsGd7oPaQi2C6tEbUjM=");
    let told = |name: &'static str, value: &str, word: &str| {
        let warnings = read("", &[key, (name, value)]).unwrap().warnings();
        warnings.iter().filter(|warning| warning.contains(word)).count()
    };
    let database = |url: &str| told("USERMGR_DATABASE_URL", url, "database.url");
    for here in [
        "postgres://app@localhost/app",
        "postgres://app@127.0.0.1:5432/app?sslmode=disable",
        "postgres://app@[::1]/app",
        "postgres:///app",
        "postgres://app@%2Fvar%2Frun%2Fpostgresql/app",
        "postgres://app@db.example.org/app?host=/var/run/postgresql",
        "postgres://app@db.example.org/app?sslmode=verify-full&sslrootcert=/etc/ca.pem",
        "sqlite://usermgr.db",
    ] {
        assert_eq!(database(here), 0, "{here}");
    }
    for off in [
        "postgres://app@db.example.org/app",
        "postgresql://app@db.example.org/app?sslmode=prefer",
        "postgres://app@db.example.org/app?sslmode=require",
        "postgres://app@10.0.0.7/app?sslmode=disable",
        "postgres://app@localhost/app?host=db.example.org",
    ] {
        let warnings = read("", &[key, ("USERMGR_DATABASE_URL", off)]).unwrap().warnings();
        let names = |warning: &String| warning.contains("sslmode=verify-full&sslrootcert=FILE");
        assert!(warnings.iter().any(names), "{off}: {warnings:?}");
    }
    let by_ca = "postgres://app@db.example.org/app?sslmode=verify-ca&sslrootcert=/etc/ca.pem";
    let warnings = read("", &[key, ("USERMGR_DATABASE_URL", by_ca)]).unwrap().warnings();
    assert!(warnings.iter().any(|warning| warning.contains("server's name")), "{warnings:?}");
    let mail = |url: &str| told("USERMGR_MAIL_URL", url, "tls=opportunistic");
    assert_eq!(mail("smtp://mail.example.org:587?tls=opportunistic"), 1);
    assert_eq!(mail("smtp://localhost:25?tls=opportunistic"), 0);
    assert_eq!(mail("smtp://mail.example.org:587"), 0);
    if cfg!(feature = "otlp") {
        let traces = |url: &str| told("USERMGR_TRACES_OTLP_URL", url, "traces.otlp_url");
        assert_eq!(traces("http://otel.example.org:4318/v1/traces"), 1);
        assert_eq!(traces("http://localhost:4318/v1/traces"), 0);
        assert_eq!(traces("https://otel.example.org/v1/traces"), 0);
    }
}

#[test]
fn pages_look_as_the_settings_say() {
    let config = read("[pages]\nname = \"Example\"\naccent = \"#0b6e4f\"\n", &[]).unwrap();
    assert!(config.warnings().is_empty());
    let pages = config.pages.unwrap();
    assert_eq!((pages.name.as_str(), pages.accent), ("Example", Accent::parse("#0b6e4f").unwrap()));
    let said = read("", &[("USERMGR_PAGES_ACCENT", "#ffcc00")]).unwrap_err();
    assert!(
        said.starts_with("pages.accent (USERMGR_PAGES_ACCENT): it takes a colour such as #3450c8"),
        "{said}"
    );
    let lan = ("USERMGR_HTTP_PUBLIC_URL", "http://192.0.2.7:8000");
    let cookies = |warning: &String| warning.contains("browsers keep none of the pages' cookies");
    assert!(read("", &[lan]).unwrap().warnings().iter().any(cookies));
    let off = read("", &[lan, ("USERMGR_HTTP_PAGES", "false")]).unwrap();
    assert!(off.pages.is_none() && !off.warnings().iter().any(cookies));
}

#[test]
fn hsts_is_for_https_and_says_what_it_takes() {
    let hsts = |value: &str, public_url: &str| {
        let file = format!("[http]\nhsts = \"{value}\"\npublic_url = \"{public_url}\"\n");
        Config::read(&file, "file", &BTreeMap::new())
            .map(|config| config.hsts)
            .map_err(|error| error.to_string())
    };
    let https = "https://id.example.org";
    assert_eq!(hsts("", https).unwrap(), Hsts::WhereHttps);
    assert_eq!(hsts("off", "http://localhost").unwrap(), Hsts::Off);
    assert_eq!(hsts("host 365d", https).unwrap(), Hsts::Host { max_age: time::Duration::days(365) });
    assert_eq!(hsts("subdomains", https).unwrap(), Hsts::Subdomains { max_age: Hsts::DEFAULT_AGE });
    assert!(
        hsts("preload", https).unwrap_err().starts_with("http.hsts (file): it takes off, host or subdomains")
    );
    assert!(
        hsts("host", "http://localhost")
            .unwrap_err()
            .starts_with("http.hsts: it takes off where http.public_url")
    );
    let weak =
        Config::read("[http]\nhsts = \"host 1d\"\npublic_url = \"https://x.example\"", "", &BTreeMap::new());
    assert!(
        weak.unwrap().warnings().iter().any(|warning| warning.contains("http.hsts is for less than 365d"))
    );
}

#[test]
fn connections_are_bounded_by_numbers_that_mean_something() {
    for (key, bad) in [
        ("keep_alive", "\"0s\""),
        ("keep_alive", "\"2h\""),
        ("keep_alive", "\"75\""),
        ("max_connections", "0"),
        ("max_connections_per_network", "0"),
        ("max_connections_per_network", "-1"),
        ("forwarded_header", "\"x-real-ip\""),
    ] {
        let read = Config::read(&format!("[http]\n{key} = {bad}\n"), "file", &BTreeMap::new());
        let told = read.unwrap_err().to_string();
        assert!(told.starts_with(&format!("http.{key} (file): it takes ")), "{told}");
    }
    let config = Config::read("", "file", &BTreeMap::new()).unwrap();
    assert_eq!((config.keep_alive.as_secs(), config.http_connections), (75, 10_000));
}

#[test]
fn an_empty_variable_hides_nothing_and_is_no_second_value() {
    let empty = [("USERMGR_DATABASE_URL", ""), ("DATABASE_URL", "sqlite://other.db")];
    let is = |config: &Config, file: &str| matches!(&config.database_url, DatabaseUrl::Sqlite(url) if url.file() == Path::new(file));
    assert!(is(&read("", &empty).unwrap(), "other.db"));
    assert!(is(&read("", &[("DATABASE_URL", " ")]).unwrap(), "usermgr.db"));
    let file = "[database]\nurl = \"sqlite://file.db\"\n";
    assert!(is(&read(file, &[("USERMGR_DATABASE_URL", ""), ("DATABASE_URL", "")]).unwrap(), "file.db"));
    for (direct, of_file) in [("", "/nowhere"), ("console:", "")] {
        let both = [("USERMGR_MAIL_URL", direct), ("USERMGR_MAIL_URL_FILE", of_file)];
        let said = read("", &both).map_or_else(|said| said, |_| String::new());
        assert!(!said.contains("both"), "{said}");
    }
    assert!(read("", &[("USERMGR_ROLES_SUPPORT", "")]).unwrap().policies.roles.defined.is_empty());
    assert!(
        read("", &[("USERMGR_CODE_TTL", "")]).is_err(),
        "a name that means nothing is told of all the same"
    );
}

#[test]
fn the_secret_in_a_file_may_end_in_any_line_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    std::fs::write(&path, "\u{feff}smtp://me:hunter22@mail.example.org:587 \r\n\r\n").unwrap();
    let named = format!("{}\r", path.display());
    let config = read("", &[("USERMGR_MAIL_URL_FILE", &named)]).unwrap();
    assert_eq!(config.mail_url.expose_secret(), "smtp://me:hunter22@mail.example.org:587");
}

#[test]
fn a_path_in_the_public_url_is_for_servers_without_pages() {
    let read = |pages: &str| {
        let url = ("USERMGR_HTTP_PUBLIC_URL", "https://example.org/accounts/");
        read("", &[url, ("USERMGR_HTTP_PAGES", pages)])
    };
    assert_eq!(read("false").unwrap().policies.mail.public_url, "https://example.org/accounts");
    let said = read("true").unwrap_err();
    assert!(said.starts_with("http.public_url: it takes no path where http.pages is true"), "{said}");
}

#[test]
fn proxies_that_may_be_anybody_are_warned_of() {
    let warned = |proxies: &str| {
        let warnings = read("", &[("USERMGR_HTTP_TRUSTED_PROXIES", proxies)]).unwrap().warnings();
        warnings
            .iter()
            .any(|warning| warning.contains("http.trusted_proxies has a network that anybody may be in"))
    };
    for anybody in [
        "0.0.0.0/0",
        "::/0",
        "10.0.0.0/8, 0.0.0.0/1",
        "::ffff:0.0.0.0/96",
        "::/1",
        "2000::/3",
        "::ffff:0:0/90",
    ] {
        assert!(warned(anybody), "{anybody}");
    }
    for own in [
        "10.0.0.0/8",
        "172.16.0.0/12,192.168.0.0/16",
        "fc00::/7",
        "fd00::/8",
        "2001:db8::/32",
        "::1",
        "127.0.0.0/8",
        "::ffff:10.0.0.0/104",
    ] {
        assert!(!warned(own), "{own}");
    }
}

#[test]
fn every_interface_is_warned_of_however_it_is_written() {
    for (key, word) in [
        ("USERMGR_HTTP_LISTEN", "http.listen is reached"),
        ("USERMGR_HTTP_METRICS_LISTEN", "every interface"),
    ] {
        let warned = |address: &str| {
            let warnings = read("", &[(key, address)]).unwrap().warnings();
            warnings.iter().any(|warning| warning.contains(word))
        };
        for everywhere in [":8000", "0.0.0.0:8000", "[::]:8000", "[::ffff:0.0.0.0]:8000"] {
            assert!(warned(everywhere), "{key}={everywhere}");
        }
        for here in ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"] {
            assert!(!warned(here), "{key}={here}");
        }
    }
}
