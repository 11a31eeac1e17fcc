//! A host in whose build `jsonwebtoken` has both of its crypto providers, as happens when another crate switches on the other
//! one. Run with `host-first` it chooses that one for the whole process before it signs anybody in, else afterwards.

use std::error::Error;
use std::sync::Arc;

use jsonwebtoken::crypto::rust_crypto;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use usermgr_core::domain::signing::SigningAlgorithm;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::users::CreateUser;
use usermgr_core::policy::{HashPolicy, Policies};
use usermgr_core::testing::{Mailbox, MemoryStore, TestClock};
use usermgr_core::verifier::{Verifier, VerifierSettings};
use usermgr_core::{ClientContext, Password, SecretKey, UserManager};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let host_first = std::env::args().nth(1).as_deref() == Some("host-first");
    if host_first {
        rust_crypto::DEFAULT_PROVIDER.install_default().map_err(|_| "somebody was quicker")?;
    }
    for algorithm in SigningAlgorithm::ALL {
        sign_in(algorithm).await.map_err(|error| format!("{algorithm}: {error}"))?;
    }
    if !host_first && rust_crypto::DEFAULT_PROVIDER.install_default().is_ok() {
        return Err("usermgr-core left the choice open, so the next use of jsonwebtoken may panic".into());
    }
    // The host's own use of the crate goes on.
    let claims = serde_json::json!({ "sub": "host", "exp": 4_000_000_000_u64 });
    let key = b"a key of the host that has 32 bytes or more";
    let token = jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(key))?;
    let validation = Validation::new(Algorithm::HS256);
    jsonwebtoken::decode::<serde_json::Value>(&token, &DecodingKey::from_secret(key), &validation)?;
    println!("tokens are signed and verified under all algorithms");
    Ok(())
}

async fn sign_in(algorithm: SigningAlgorithm) -> Result<(), Box<dyn Error>> {
    let mut policies = Policies::default();
    policies.tokens.algorithm = algorithm;
    policies.hashing = HashPolicy { memory_kib: 64, iterations: 1, ..HashPolicy::default() };
    let clock = Arc::new(TestClock::default());
    let users = UserManager::builder()
        .store(Arc::new(MemoryStore::default()))
        .mailer(Arc::new(Mailbox::default()))
        .clock(clock.clone())
        .secret_key(SecretKey::from_bytes([7; 32]))
        .policies(policies)
        .build()?;
    let (client, password) = (ClientContext::new(), Password::new("correct horse battery"));
    let mut ana = CreateUser::new("ana@example.org");
    ana.password = Some(password.clone());
    users.users().create(Principal::Operator, ana, &client).await?;

    let signed_in = users.sessions().login("ana@example.org", &password, &client).await?;
    let caller = users.sessions().authenticate(&signed_in.access_token).await?;
    if algorithm.is_asymmetric() {
        let settings = VerifierSettings::new("http://localhost:8000", "usermgr");
        let verifier = Verifier::from_jwks(&users.jwks().await?.to_string(), settings)?;
        let now = time::macros::datetime!(2026-01-01 12:00 UTC);
        let claims = verifier.verify(signed_in.access_token.expose(), now)?;
        assert_eq!(claims.sub, caller.user.id);
    }
    Ok(())
}
