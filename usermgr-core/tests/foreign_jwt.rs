//! Libraries of other languages take our tokens and refuse the same tamperings as we do: before, during and after a
//! change of keys.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use aws_lc_rs::rand::SystemRandom as LibraryRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use aws_lc_rs::{hmac, signature};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use usermgr_core::SecretKey;
use usermgr_core::crypto::access_token::AccessClaims;
use usermgr_core::crypto::jwt::{self, SigningKeys};
use usermgr_core::crypto::secret_keys::SecretKeys;
use usermgr_core::domain::id::{SessionId, SigningKeyId, UserId};
use usermgr_core::domain::signing::{KeyState, SigningAlgorithm};
use usermgr_core::port::clock::{Clock as _, SystemClock};
use usermgr_core::port::random::SystemRandom;
use usermgr_core::port::store::key::SealedSigningKey;
use usermgr_core::verifier::{Verifier, VerifierSettings};

const ISSUER: &str = "https://app.example.org";
const AUDIENCE: &str = "usermgr";
const PUBLISHED: [SigningAlgorithm; 3] =
    [SigningAlgorithm::EdDsa, SigningAlgorithm::Es256, SigningAlgorithm::Rs256];

/// A token, and whether it has to be taken.
struct Case {
    name: String,
    token: String,
    good: bool,
}

fn secrets() -> SecretKeys {
    SecretKeys::new(SecretKey::from_bytes([7; 32]), Vec::new())
}

/// The key of an algorithm that signs now, and the one that will sign in a minute.
struct Pair {
    algorithm: SigningAlgorithm,
    old: SealedSigningKey,
    new: SealedSigningKey,
}

impl Pair {
    fn new(algorithm: SigningAlgorithm, now: OffsetDateTime) -> Self {
        let made = |signs_from| {
            let id = SigningKeyId::new(now, &SystemRandom);
            jwt::generate(algorithm, id, now, signs_from, &secrets(), &SystemRandom).unwrap()
        };
        Self { algorithm, old: made(now - Duration::DAY), new: made(now + Duration::MINUTE) }
    }
}

fn opened<'a>(keys: impl IntoIterator<Item = &'a SealedSigningKey>) -> SigningKeys {
    jwt::open(&keys.into_iter().cloned().collect::<Vec<_>>(), &secrets()).unwrap()
}

fn claims(now: OffsetDateTime) -> AccessClaims {
    let now_seconds = now.unix_timestamp();
    AccessClaims {
        iss: ISSUER.into(),
        sub: UserId::new(now, &SystemRandom),
        aud: AUDIENCE.into(),
        iat: now_seconds,
        nbf: now_seconds - 30,
        exp: now_seconds + 900,
        jti: "1".into(),
        sid: SessionId::new(now, &SystemRandom),
        roles: vec!["user".into()],
        email: "ana@example.org".into(),
        auth_time: now_seconds,
        amr: vec!["pwd".into()],
    }
}

fn part(text: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// Signs anything with a key of ours, as somebody would who has stolen it or found a fault in what signs.
fn forge(key: &SealedSigningKey, header: &Value, claims: &Value) -> String {
    let name =
        [b"usermgr signing key ".as_slice(), key.id.as_uuid().as_bytes(), key.algorithm.as_bytes()].concat();
    let private = secrets().open(&name, &key.sealed).unwrap();
    let message = format!("{}.{}", part(header.to_string().as_bytes()), part(claims.to_string().as_bytes()));
    let (bytes, random) = (message.as_bytes(), LibraryRandom::new());
    let signature = match key.algorithm.as_str() {
        "EdDSA" => Ed25519KeyPair::from_pkcs8(&private).unwrap().sign(bytes).as_ref().to_vec(),
        "ES256" => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &private).unwrap();
            let signature: signature::Signature = pair.sign(&random, bytes).unwrap();
            signature.as_ref().to_vec()
        }
        _ => {
            let pair = RsaKeyPair::from_pkcs8(&private).unwrap();
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature).unwrap();
            signature
        }
    };
    format!("{message}.{}", part(&signature))
}

fn with(object: &Value, name: &str, value: impl Into<Value>) -> Value {
    let mut changed = object.clone();
    changed[name] = value.into();
    changed
}

fn without(object: &Value, name: &str) -> Value {
    let mut changed = object.clone();
    changed.as_object_mut().unwrap().remove(name);
    changed
}

/// Tokens that nobody may take, though all but the first few carry a right signature of a published key.
fn tamperings(key: &SealedSigningKey, other_kid: SigningKeyId, jwk: &Value) -> Vec<(String, String)> {
    let now = SystemClock.now();
    let seconds = now.unix_timestamp();
    let header = json!({"alg": key.algorithm, "typ": "at+jwt", "kid": key.id});
    let claims = serde_json::to_value(claims(now)).unwrap();
    let good = forge(key, &header, &claims);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (head, _) = message.split_once('.').unwrap();
    let altered = part(with(&claims, "roles", json!(["admin"])).to_string().as_bytes());
    let stranger = jwt::generate(key.algorithm.parse().unwrap(), key.id, now, now, &secrets(), &SystemRandom);
    let stranger = stranger.unwrap();
    let stranger_jwk = opened([&stranger]).jwks()["keys"][0].clone();
    let mut bad = vec![
        ("altered claims".to_owned(), format!("{head}.{altered}.{signature}")),
        ("no signature".into(), format!("{message}.")),
        ("cut signature".into(), good[..good.len() - 4].to_owned()),
        ("the signature of a stranger".into(), forge(&stranger, &header, &claims)),
        (
            "a stranger's key in the header".into(),
            forge(&stranger, &with(&header, "jwk", stranger_jwk), &claims),
        ),
    ];
    let none = with(&header, "alg", "none").to_string();
    let body = part(claims.to_string().as_bytes());
    bad.push(("none without a signature".into(), format!("{}.{body}.", part(none.as_bytes()))));
    // What somebody could take for the secret of an HMAC who lets the header choose the algorithm.
    for (name, secret) in [("the key set's entry", jwk.to_string()), ("an empty text", String::new())] {
        let header = with(&header, "alg", "HS256").to_string();
        let message = format!("{}.{body}", part(header.as_bytes()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), message.as_bytes());
        bad.push((format!("an HMAC under {name}"), format!("{message}.{}", part(tag.as_ref()))));
    }
    let other_algorithm = if key.algorithm == "ES256" { "RS256" } else { "ES256" };
    for (name, header) in [
        ("alg none", with(&header, "alg", "none")),
        ("alg of another key", with(&header, "alg", other_algorithm)),
        ("alg in lower case", with(&header, "alg", key.algorithm.to_lowercase())),
        ("typ JWT", with(&header, "typ", "JWT")),
        ("no typ", without(&header, "typ")),
        ("an unknown kid", with(&header, "kid", SigningKeyId::new(now, &SystemRandom).to_string())),
        ("the kid of another key", with(&header, "kid", other_kid.to_string())),
        ("no kid", without(&header, "kid")),
        ("crit", with(&header, "crit", json!(["usermgr"]))),
        ("jku", with(&header, "jku", "https://evil.example/jwks.json")),
        ("b64", with(&header, "b64", false)),
    ] {
        bad.push((name.into(), forge(key, &header, &claims)));
    }
    for (name, claims) in [
        ("another issuer", with(&claims, "iss", "https://evil.example")),
        ("another audience", with(&claims, "aud", "other")),
        ("a list of audiences", with(&claims, "aud", json!([AUDIENCE]))),
        ("run out", with(&claims, "exp", seconds - 120)),
        ("not yet", with(&claims, "nbf", seconds + 600)),
        ("exp as text", with(&claims, "exp", (seconds + 900).to_string())),
        ("sid as a number", with(&claims, "sid", 1)),
    ] {
        bad.push((name.into(), forge(key, &header, &claims)));
    }
    for name in ["iss", "sub", "aud", "exp", "nbf", "iat", "sid", "jti"] {
        bad.push((format!("no {name}"), forge(key, &header, &without(&claims, name))));
    }
    bad
}

/// Our own verifier first, then the other libraries: all of them take the same tokens.
fn everybody_agrees(phase: &str, jwks: &Value, cases: &[Case]) {
    let verifier = Verifier::from_jwks(&jwks.to_string(), VerifierSettings::new(ISSUER, AUDIENCE)).unwrap();
    for Case { name, token, good } in cases {
        assert_eq!(verifier.verify(token, SystemClock.now()).is_ok(), *good, "{phase}: {name}");
    }
    let tokens: Vec<Value> = cases
        .iter()
        .map(|Case { name, token, good }| json!({"name": name, "token": token, "good": good}))
        .collect();
    let work = json!({"jwks": jwks, "issuer": ISSUER, "audience": AUDIENCE, "tokens": tokens}).to_string();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../usermgr-server/tests/foreign_jwt");
    for (program, script) in [(python(), "verify.py"), ("node", "verify.mjs")] {
        let mut child = Command::new(program)
            .arg(format!("{folder}/{script}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        child.stdin.take().unwrap().write_all(work.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let [said, failed] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        let wrong: Vec<&str> = said.lines().filter(|line| !line.starts_with("ok ")).collect();
        assert!(output.status.success(), "{script}, {phase}: {wrong:#?}\n{failed}");
        assert_eq!(said.lines().count(), cases.len(), "{script}, {phase}: one answer for each token");
    }
}

/// The first Python that has the library: the system's packages belong to the system's Python only.
fn python() -> &'static str {
    let has_library = |program: &&str| {
        let status =
            Command::new(program).args(["-c", "import jwt, cryptography"]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    ["python3", "/usr/bin/python3"]
        .into_iter()
        .find(has_library)
        .expect("no Python here has PyJWT and cryptography")
}

#[test]
#[ignore = "needs python3-jwt and node jose: run scripts/test"]
fn other_libraries_take_our_tokens_and_refuse_what_was_tampered_with() {
    let now = SystemClock.now();
    let pairs = PUBLISHED.map(|algorithm| Pair::new(algorithm, now));
    let before = opened(pairs.iter().map(|pair| &pair.old));
    let during = opened(pairs.iter().flat_map(|pair| [&pair.old, &pair.new]));
    let after = opened(pairs.iter().map(|pair| &pair.new));
    let tokens = |old_is_known: bool, new_is_known: bool| -> Vec<Case> {
        let tokens_of = |pair: &Pair| {
            let changed = now + Duration::minutes(2);
            assert_eq!(during.state(pair.new.id, now), Some(KeyState::Next));
            assert_eq!(during.state(pair.new.id, changed), Some(KeyState::Current));
            [("old", now, old_is_known), ("new", changed, new_is_known)].map(|(name, at, good)| {
                let token = during.sign(&claims(now), pair.algorithm, at).unwrap().expose().to_owned();
                Case { name: format!("{} by the {name} key", pair.algorithm), token, good }
            })
        };
        pairs.iter().flat_map(tokens_of).collect()
    };
    everybody_agrees("before the change", &before.jwks(), &tokens(true, false));
    everybody_agrees("after the old keys are gone", &after.jwks(), &tokens(false, true));

    let mut cases = tokens(true, true);
    let set = during.jwks();
    for (pair, other) in pairs.iter().zip(pairs.iter().cycle().skip(1)) {
        let of_pair = |jwk: &&Value| jwk["kid"] == pair.old.id.to_string();
        let jwk = set["keys"].as_array().unwrap().iter().find(of_pair).unwrap();
        let bad = tamperings(&pair.old, other.old.id, jwk);
        assert!(bad.len() >= 20);
        cases.extend(bad.into_iter().map(|(name, token)| Case {
            name: format!("{}: {name}", pair.algorithm),
            token,
            good: false,
        }));
    }
    everybody_agrees("while both keys are published", &set, &cases);
}
