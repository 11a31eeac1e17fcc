//! How durations, sizes, times of day, paths and URLs are written.

/// A text without the blanks, line ends and byte order marks around it.
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

pub(super) fn parse_duration(text: &str) -> Option<time::Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: i64 = number.parse().ok()?;
    let seconds = match unit.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    // A hundred years are long enough for every limit here.
    let seconds = number.checked_mul(seconds).filter(|seconds| *seconds <= 36_525 * 86_400)?;
    Some(time::Duration::seconds(seconds))
}

/// `hh:mm`, both with two digits.
pub(super) fn parse_time_of_day(text: &str) -> Option<time::Time> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| digits)
    };
    time::Time::from_hms(number(hour)?, number(minute)?, 0).ok()
}

pub(super) fn parse_size(text: &str) -> Option<usize> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor).filter(|size| *size > 0)
}

/// A duration as it is written in a configuration: `10m`.
pub(super) fn span(duration: time::Duration) -> String {
    let seconds = duration.whole_seconds();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let fits = units.into_iter().find(|(unit, _)| seconds >= *unit && seconds % unit == 0);
    fits.map_or_else(|| format!("{seconds}s"), |(unit, name)| format!("{}{name}", seconds / unit))
}

/// A path without a slash at its end.
pub(super) fn parse_base_path(text: &str) -> Option<String> {
    let path = text.trim_end_matches('/');
    let fits = path.is_empty() || path.starts_with('/');
    let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b));
    (fits && plain && !path.contains("//") && path.len() <= MAX_BASE_PATH).then(|| path.to_owned())
}

/// An origin as browsers send it.
pub(super) fn parse_origin(text: &str) -> Option<String> {
    let url = url::Url::parse(text).ok()?;
    (url.origin().ascii_serialization() == text && text.starts_with("http")).then(|| text.to_owned())
}

/// The most bytes of `http.base_path`.
const MAX_BASE_PATH: usize = 256;

/// What `http.public_url` takes.
pub(super) const TAKES_PUBLIC_URL: &str = "a URL that begins with http:// or https://, such as https://id.example.org, \
                                           without a user name, ?, # or blank, of at most 1024 bytes";

/// What mailed links begin with, as it is written but for the slashes at its end: the rest of a link is put behind it.
pub(super) fn parse_public_url(text: &str) -> Option<String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let url = url::Url::parse(text).ok()?;
    let plain = rest.chars().all(|c| !c.is_whitespace() && !c.is_control() && !"\\\"<>^`{|}@?#".contains(c));
    let has_host = url.has_host() && !rest.starts_with('/');
    (plain && has_host && is_claim(text)).then(|| text.trim_end_matches('/').to_owned())
}

/// Whether a text may be the issuer or audience of tokens: a token has at most 8 KiB.
pub(super) fn is_claim(text: &str) -> bool {
    (1..=usermgr_core::policy::TokenPolicy::MAX_NAME).contains(&text.len())
        && !text.contains(char::is_whitespace)
}

/// Whether a text is a URL of a service over HTTP.
pub(super) fn is_http_url(text: &str) -> bool {
    let has_scheme = text.starts_with("http://") || text.starts_with("https://");
    has_scheme && url::Url::parse(text).is_ok_and(|url| url.has_host())
}
