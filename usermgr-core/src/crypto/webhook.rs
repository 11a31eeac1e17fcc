//! Signatures of webhooks, as Standard Webhooks describes them: whoever has the secret knows that a body came from here,
//! when, and that it was not altered.
//!
//! ```
//! use usermgr_core::crypto::webhook::{WebhookSecret, verify_webhook};
//! # use time::OffsetDateTime;
//!
//! let secret: WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?;
//! let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", r#"{"test": 2432232314}"#);
//! let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
//! let now = OffsetDateTime::from_unix_timestamp(1_614_265_330 + 60)?;
//! let headers = [("webhook-id", id), ("webhook-timestamp", "1614265330"), ("webhook-signature", signature)];
//! assert_eq!(verify_webhook(&[secret], headers, body.as_bytes(), now)?, id);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use time::{Duration, OffsetDateTime};

use super::weak_secret::{is_known, is_pattern};

/// What a webhook's secret begins with, as text.
const PREFIX: &str = "whsec_";
/// How a signature by HMAC-SHA-256 begins.
const VERSION: &str = "v1";
/// The most signatures that are looked at: one for each secret that is being replaced.
const MOST_SIGNATURES: usize = 10;

/// A secret that sender and receiver share: `whsec_` and 24 to 64 bytes in base64.
///
/// # Security
/// It is never shown, and wiped when it is dropped.
#[derive(Clone)]
pub struct WebhookSecret(hmac::Key);

/// A text that is no webhook secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a webhook secret is whsec_ and 24 to 64 random bytes in base64; no pattern, and none from a documentation"
)]
pub struct InvalidWebhookSecret;

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

impl FromStr for WebhookSecret {
    type Err = InvalidWebhookSecret;

    fn from_str(text: &str) -> Result<Self, InvalidWebhookSecret> {
        let text = text.strip_prefix(PREFIX).ok_or(InvalidWebhookSecret)?;
        let bytes = STANDARD.decode(text).map_err(|_| InvalidWebhookSecret)?;
        if !(24..=64).contains(&bytes.len()) {
            return Err(InvalidWebhookSecret);
        }
        // A provider may make its secrets of letters and digits, so a text is not refused here.
        if is_pattern(&bytes) || is_known(&bytes) && !cfg!(feature = "testing") {
            return Err(InvalidWebhookSecret);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }
}

/// The value of `webhook-signature`: one signature by each secret, so that receivers may replace theirs at any time
/// while two are in force.
pub fn sign_webhook(secrets: &[WebhookSecret], id: &str, at: OffsetDateTime, body: &[u8]) -> String {
    let signed = signed(id, &at.unix_timestamp().to_string(), body);
    let by =
        |secret: &WebhookSecret| format!("{VERSION},{}", STANDARD.encode(hmac::sign(&secret.0, &signed)));
    secrets.iter().map(by).collect::<Vec<_>>().join(" ")
}

/// How far the time of a webhook may be from the receiver's: whoever copied one cannot send it again later.
pub const WEBHOOK_TOLERANCE: Duration = Duration::minutes(5);

/// Why a webhook is not to be believed. Answer 400 or 401, and do nothing that it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// A header is missing, is there twice, or cannot be read.
    #[error("the header {0} is missing or cannot be read")]
    Header(&'static str),
    /// It was sent more than [`WEBHOOK_TOLERANCE`] ago, or so far in the future.
    #[error("the webhook's time is more than five minutes from now")]
    Time,
    /// No signature is by any of the secrets.
    #[error("the webhook is not signed by a secret that is in force")]
    Signature,
}

/// Checks a webhook and answers its identifier, by which the receiver tells repeats. `headers` are names, in any case,
/// and values; `body` is every byte as it came.
///
/// # Errors
/// [`WebhookError`] says why it is not to be believed.
///
/// # Security
/// Signatures are compared in constant time. What is right may still be a repeat: every webhook is sent until it is taken,
/// and whoever copied one may send it again for five minutes. Do nothing twice for one identifier.
pub fn verify_webhook<'a>(
    secrets: &[WebhookSecret],
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: &[u8],
    now: OffsetDateTime,
) -> Result<&'a str, WebhookError> {
    const NAMES: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let mut values = [None; 3];
    for (name, value) in headers {
        for (known, place) in NAMES.into_iter().zip(&mut values) {
            if name.eq_ignore_ascii_case(known) && place.replace(value).is_some() {
                return Err(WebhookError::Header(known));
            }
        }
    }
    let [id, timestamp, signatures] = values;
    let id = id.filter(|id| !id.is_empty()).ok_or(WebhookError::Header("webhook-id"))?;
    let timestamp = timestamp.ok_or(WebhookError::Header("webhook-timestamp"))?;
    let at = timestamp.parse().ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    let at = at.ok_or(WebhookError::Header("webhook-timestamp"))?;
    let signatures = signatures.ok_or(WebhookError::Header("webhook-signature"))?;
    if (now - at).abs() > WEBHOOK_TOLERANCE {
        return Err(WebhookError::Time);
    }
    let signed = signed(id, timestamp, body);
    let is_right = signatures
        .split(' ')
        .take(MOST_SIGNATURES)
        .filter_map(|signature| STANDARD.decode(signature.strip_prefix(VERSION)?.strip_prefix(',')?).ok())
        .any(|tag| secrets.iter().any(|secret| hmac::verify(&secret.0, &signed, &tag).is_ok()));
    if is_right { Ok(id) } else { Err(WebhookError::Signature) }
}

fn signed(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    // The vector of the reference libraries of Standard Webhooks.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const AT: i64 = 1_614_265_330;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn time(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(AT + seconds).unwrap()
    }

    fn verify(headers: &[(&str, &str)], body: &[u8], seconds: i64) -> Result<String, WebhookError> {
        let secrets = [SECRET.parse().unwrap()];
        verify_webhook(&secrets, headers.iter().copied(), body, time(seconds)).map(str::to_owned)
    }

    fn headers(signature: &str) -> [(&str, &str); 3] {
        [("Webhook-Id", ID), ("webhook-timestamp", "1614265330"), ("WEBHOOK-SIGNATURE", signature)]
    }

    #[test]
    fn a_webhook_is_signed_as_the_reference_does() {
        let (secret, other) = (SECRET.parse().unwrap(), OTHER.parse().unwrap());
        assert_eq!(sign_webhook(&[secret], ID, time(0), BODY), SIGNATURE);
        let both = sign_webhook(&[other, SECRET.parse().unwrap()], ID, time(0), BODY);
        assert!(both.ends_with(&format!(" {SIGNATURE}")), "{both}");
        assert_eq!(verify(&headers(&both), BODY, 0).as_deref(), Ok(ID), "one of several is enough");
    }

    #[test]
    fn a_webhook_counts_for_five_minutes() {
        for seconds in [-300, 0, 300] {
            assert_eq!(verify(&headers(SIGNATURE), BODY, seconds).as_deref(), Ok(ID), "{seconds}");
        }
        for seconds in [-301, 301, 1_000_000] {
            assert_eq!(verify(&headers(SIGNATURE), BODY, seconds), Err(WebhookError::Time), "{seconds}");
        }
    }

    #[test]
    fn whatever_is_altered_is_refused() {
        let wrong = Err(WebhookError::Signature);
        assert_eq!(verify(&headers(SIGNATURE), br#"{"test": 2432232315}"#, 0), wrong);
        let mut other_id = headers(SIGNATURE);
        other_id[0].1 = "msg_p5jXN8AQM9LWM0D4loKWxJeK";
        assert_eq!(verify(&other_id, BODY, 0), wrong);
        let mut other_time = headers(SIGNATURE);
        other_time[1].1 = "1614265331";
        assert_eq!(verify(&other_time, BODY, 0), wrong);
        for signature in ["", "v1,", "v1", SIGNATURE.trim_start_matches("v1,"), "v1,AAAA", "v1,*"] {
            assert_eq!(verify(&headers(signature), BODY, 0), wrong, "{signature}");
        }
        for version in ["v0,", "v1a,", "v2,"] {
            assert_eq!(verify(&headers(&SIGNATURE.replace("v1,", version)), BODY, 0), wrong, "{version}");
        }
        let cut = SIGNATURE.replace("OE=", "O");
        assert_eq!(verify(&headers(&cut), BODY, 0), wrong);
        let by_another = sign_webhook(&[OTHER.parse().unwrap()], ID, time(0), BODY);
        assert_eq!(verify(&headers(&by_another), BODY, 0), wrong);
    }

    #[test]
    fn every_header_is_there_once() {
        let all = headers(SIGNATURE);
        for (n, name) in ["webhook-id", "webhook-timestamp", "webhook-signature"].into_iter().enumerate() {
            let without: Vec<_> = all.iter().enumerate().filter(|(i, _)| *i != n).map(|(_, h)| *h).collect();
            assert_eq!(verify(&without, BODY, 0), Err(WebhookError::Header(name)));
            let twice: Vec<_> = all.iter().chain([&all[n]]).copied().collect();
            assert_eq!(verify(&twice, BODY, 0), Err(WebhookError::Header(name)));
        }
        let mut unreadable = all;
        unreadable[1].1 = "now";
        assert_eq!(verify(&unreadable, BODY, 0), Err(WebhookError::Header("webhook-timestamp")));
    }

    #[test]
    fn a_secret_is_long_enough_and_never_shown() {
        for text in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_c2hvcnQ=",
            "whsec_*",
            "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ] {
            assert!(text.parse::<WebhookSecret>().is_err(), "{text}");
        }
        let shown = format!("{:?}", SECRET.parse::<WebhookSecret>().unwrap());
        assert_eq!(shown, "WebhookSecret(…)");
    }
}
