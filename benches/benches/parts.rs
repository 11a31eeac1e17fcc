//! What codes, tokens and mails cost, without a store and without a hash.
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![expect(clippy::unwrap_used, reason = "a measurement that fails is none")]

use criterion::{Criterion, criterion_group, criterion_main};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use usermgr_core::SecretKey;
use usermgr_core::crypto::jwt;
use usermgr_core::crypto::secret_keys::SecretKeys;
use usermgr_core::domain::code::{CodeLength, CodePurpose};
use usermgr_core::domain::id::{CodeId, SessionId, SigningKeyId, UserId};
use usermgr_core::domain::mail::MailKind;
use usermgr_core::domain::signing::SigningAlgorithm;
use usermgr_core::port::random::SystemRandom;
use usermgr_core::template::{BuiltInTemplates, MailTemplates as _, MailValues};
use usermgr_core::verifier::{AccessClaims, Verifier, VerifierSettings};

const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
const ISSUER: &str = "https://app.example.org";

fn secrets() -> SecretKeys {
    SecretKeys::new(SecretKey::from_bytes([7; 32]), Vec::new())
}

fn codes(criterion: &mut Criterion) {
    let (secrets, id) = (secrets(), CodeId::new(NOW, &SystemRandom));
    let length = CodeLength::new(6).unwrap();
    criterion.bench_function("derive a code", |bencher| {
        bencher.iter(|| secrets.code(secrets.current_id(), CodePurpose::ResetPassword, id, length));
    });
}

fn tokens(criterion: &mut Criterion) {
    let now = NOW.unix_timestamp();
    let claims = AccessClaims {
        iss: ISSUER.to_owned(),
        sub: UserId::new(NOW, &SystemRandom),
        aud: "usermgr".to_owned(),
        iat: now,
        nbf: now,
        exp: now + 900,
        jti: "x".repeat(43),
        sid: SessionId::new(NOW, &SystemRandom),
        roles: vec!["user".to_owned()],
        email: "ana@example.org".to_owned(),
        auth_time: now,
        amr: vec!["pwd".to_owned()],
    };
    let secrets = secrets();
    for algorithm in [SigningAlgorithm::EdDsa, SigningAlgorithm::Es256, SigningAlgorithm::Rs256] {
        let id = SigningKeyId::new(NOW, &SystemRandom);
        let key = jwt::generate(algorithm, id, NOW, NOW, &secrets, &SystemRandom).unwrap();
        let keys = jwt::open(&[key], &secrets).unwrap();
        criterion.bench_function(&format!("sign a token, {algorithm}"), |bencher| {
            bencher.iter(|| keys.sign(&claims, algorithm, NOW));
        });
        let token = keys.sign(&claims, algorithm, NOW).unwrap();
        let verifier =
            Verifier::from_jwks(&keys.jwks().to_string(), VerifierSettings::new(ISSUER, "usermgr"));
        let verifier = verifier.unwrap();
        verifier.verify(token.expose(), NOW).unwrap();
        criterion.bench_function(&format!("verify a token, {algorithm}"), |bencher| {
            bencher.iter(|| verifier.verify(token.expose(), NOW));
        });
    }
}

fn mails(criterion: &mut Criterion) {
    let templates = BuiltInTemplates::default();
    let values = MailValues {
        service_name: "Example",
        public_url: ISSUER,
        email: "ana@example.org",
        username: Some("Ana"),
        code: Some("123456"),
        link: None,
        ttl: Duration::minutes(10),
    };
    templates.render(MailKind::VerifyEmail, "en", &values).unwrap();
    criterion.bench_function("render a mail", |bencher| {
        bencher.iter(|| templates.render(MailKind::VerifyEmail, "en", &values));
    });
}

criterion_group!(benches, codes, tokens, mails);
criterion_main!(benches);
