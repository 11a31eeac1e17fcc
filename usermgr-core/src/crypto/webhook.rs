//! Signatures of webhooks, as <https://www.standardwebhooks.com> has them: HMAC-SHA-256 over
//! `identifier.timestamp.body`, in the header `webhook-signature` as `v1,` and base64.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

/// How far the time of a signature may be from now, before or after.
pub const TOLERANCE: Duration = Duration::minutes(5);
/// The most bytes of a webhook's identifier.
pub const MAX_ID: usize = 256;
/// The fewest and the most bytes of a secret.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The secret that both sides of a webhook share.
#[derive(Clone)]
pub struct WebhookSecret(hmac::Key);

/// A text that is no secret of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a webhook secret: whsec_ and 24 to 64 bytes in base64")]
pub struct InvalidWebhookSecret;

impl WebhookSecret {
    /// Reads `whsec_` and 24 to 64 bytes in base64.
    ///
    /// # Errors
    /// [`InvalidWebhookSecret`] when the text is anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidWebhookSecret> {
        let encoded = text.strip_prefix("whsec_").ok_or(InvalidWebhookSecret)?;
        let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| InvalidWebhookSecret)?);
        if !SECRET_BYTES.contains(&bytes.len()) {
            return Err(InvalidWebhookSecret);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret([redacted])")
    }
}

/// A webhook as it came: three headers and the body.
#[derive(Debug, Clone, Copy)]
pub struct SignedWebhook<'a> {
    /// `webhook-id`: the same for every attempt to deliver it.
    pub id: &'a str,
    /// `webhook-timestamp`: seconds since 1970, of the attempt.
    pub timestamp: &'a str,
    /// `webhook-signature`: one signature or several, with spaces between them.
    pub signatures: &'a str,
    /// Every byte of the body.
    pub body: &'a [u8],
}

/// A webhook that nobody who knows a secret signed, or not now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the webhook is not signed by anybody who knows the secret, or not now")]
pub struct InvalidSignature;

/// Signs a webhook: the value of `webhook-signature`. The identifier must hold no dot.
pub fn sign(secret: &WebhookSecret, id: &str, timestamp: i64, body: &[u8]) -> String {
    format!("v1,{}", STANDARD.encode(hmac::sign(&secret.0, &content(id, timestamp, body))))
}

/// Checks a webhook against the secrets in force, of which there are two while one takes the other's place. The
/// comparison takes constant time.
///
/// # Errors
/// [`InvalidSignature`] when no signature fits any secret, or the time is more than [`TOLERANCE`] from `now`.
pub fn verify(
    secrets: &[WebhookSecret],
    webhook: SignedWebhook<'_>,
    now: OffsetDateTime,
) -> Result<(), InvalidSignature> {
    let SignedWebhook { id, timestamp, signatures, body } = webhook;
    // With a dot in it, where the identifier ends could be argued.
    let id_fits = (1..=MAX_ID).contains(&id.len()) && !id.contains('.');
    let digits = timestamp.bytes().all(|b| b.is_ascii_digit());
    let timestamp: i64 = timestamp.parse().map_err(|_| InvalidSignature)?;
    let in_time = now.unix_timestamp().abs_diff(timestamp) <= TOLERANCE.whole_seconds().unsigned_abs();
    if !id_fits || !digits || !in_time {
        return Err(InvalidSignature);
    }
    let content = content(id, timestamp, body);
    let fits = signatures
        .split(' ')
        .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
        .any(|tag| secrets.iter().any(|secret| hmac::verify(&secret.0, &content, &tag).is_ok()));
    if fits { Ok(()) } else { Err(InvalidSignature) }
}

fn content(id: &str, timestamp: i64, body: &[u8]) -> Vec<u8> {
    let mut content = format!("{id}.{timestamp}.").into_bytes();
    content.extend_from_slice(body);
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn check(secrets: &[&str], id: &str, timestamp: &str, signatures: &str, body: &[u8], now: i64) -> bool {
        let secrets: Vec<_> = secrets.iter().map(|text| WebhookSecret::parse(text).unwrap()).collect();
        let now = OffsetDateTime::from_unix_timestamp(now).unwrap();
        verify(&secrets, SignedWebhook { id, timestamp, signatures, body }, now).is_ok()
    }

    #[test]
    fn the_vector_of_the_specification_is_signed_and_verified() {
        assert_eq!(sign(&WebhookSecret::parse(SECRET).unwrap(), ID, TIMESTAMP, BODY), SIGNATURE);
        assert!(check(&[SECRET], ID, "1614265330", SIGNATURE, BODY, TIMESTAMP));
    }

    #[test]
    fn any_change_is_noticed() {
        let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let good = |secrets: &[&str], id, timestamp, signatures: &str, body| {
            check(secrets, id, timestamp, signatures, body, TIMESTAMP)
        };
        assert!(!good(&[SECRET], "msg_other", "1614265330", SIGNATURE, BODY));
        assert!(!good(&[SECRET], ID, "1614265331", SIGNATURE, BODY));
        assert!(!good(&[SECRET], ID, "1614265330", SIGNATURE, b"{}"));
        assert!(!good(&[other], ID, "1614265330", SIGNATURE, BODY));
        assert!(!good(&[], ID, "1614265330", SIGNATURE, BODY));
        for signatures in
            ["", "v1,", "v1a,g0hM", &SIGNATURE[3..], &SIGNATURE.replace("v1", "v2"), &SIGNATURE[..20]]
        {
            assert!(!good(&[SECRET], ID, "1614265330", signatures, BODY), "{signatures}");
        }
        for timestamp in ["", "now", "+1614265330", "1614265330.0", " 1614265330", "99999999999999999999"] {
            assert!(!good(&[SECRET], ID, timestamp, SIGNATURE, BODY), "{timestamp}");
        }
        let dotted = sign(&WebhookSecret::parse(SECRET).unwrap(), "a.b", TIMESTAMP, BODY);
        assert!(!good(&[SECRET], "a.b", "1614265330", &dotted, BODY));
    }

    #[test]
    fn a_secret_is_replaced_while_both_count() {
        let new = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let both = format!("v1,c29tZXRoaW5nIGVsc2U= {SIGNATURE}");
        assert!(check(&[new, SECRET], ID, "1614265330", SIGNATURE, BODY, TIMESTAMP));
        assert!(check(&[SECRET], ID, "1614265330", &both, BODY, TIMESTAMP));
    }

    #[test]
    fn a_signature_holds_five_minutes() {
        for (apart, holds) in [(0, true), (300, true), (301, false)] {
            assert_eq!(
                check(&[SECRET], ID, "1614265330", SIGNATURE, BODY, TIMESTAMP + apart),
                holds,
                "{apart}"
            );
            assert_eq!(
                check(&[SECRET], ID, "1614265330", SIGNATURE, BODY, TIMESTAMP - apart),
                holds,
                "-{apart}"
            );
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_and_no_secret_is_shown() {
        for text in ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_not base64"] {
            assert_eq!(WebhookSecret::parse(text).unwrap_err(), InvalidWebhookSecret, "{text:?}");
        }
        assert_eq!(format!("{:?}", WebhookSecret::parse(SECRET).unwrap()), "WebhookSecret([redacted])");
    }
}
