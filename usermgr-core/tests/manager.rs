//! Building a manager, and what its values show of themselves.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use support::{ANA, PASSWORD, World};
use usermgr_core::domain::json::JsonObject;
use usermgr_core::flow::change_password::ChangePassword;
use usermgr_core::flow::register::Register;
use usermgr_core::flow::set_password::SetWithCode;
use usermgr_core::flow::verify_email::{Activate, Verify};
use usermgr_core::{Password, Policies, SecretKey, UserManager};

#[test]
fn everything_that_is_missing_or_wrong_is_told_at_once() {
    let mut policies = Policies::default();
    policies.codes.attempts = 0;
    policies.passwords.min_length = 4;
    let error = UserManager::builder().policies(policies).build().unwrap_err();
    let said = error.to_string();
    for part in ["a store", "a mailer", "a secret key", "codes.attempts", "passwords.min_length"] {
        assert!(said.contains(part), "{said}");
    }
}

#[tokio::test]
async fn no_value_shows_a_secret() {
    const CANARY: &str = "canary-8c1f";
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let signed_in = world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    let canary = JsonObject::of(&serde_json::json!({ "token": CANARY })).unwrap();
    let shown = format!(
        "{signed_in:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        Register { profile: Some(canary.clone()), extra: Some(canary), ..Register::new(ANA, CANARY) },
        Verify {
            password: Some(CANARY.into()),
            registration: Some(CANARY.into()),
            ..Verify::new(ANA, CANARY)
        },
        Activate { email: ANA.into(), password: CANARY.into(), code: CANARY.into() },
        SetWithCode {
            email: ANA.into(),
            code: CANARY.into(),
            new_password: CANARY.into(),
            confirmation_password: CANARY.into(),
            purpose: None,
        },
        ChangePassword {
            current_password: CANARY.into(),
            new_password: CANARY.into(),
            confirmation_password: CANARY.into(),
        },
        SecretKey::from_bytes(*b"canary-8c1f-canary-8c1f-canary-8"),
        world.users,
        world.mailbox.mails(),
    );
    for secret in [CANARY, PASSWORD, signed_in.access_token.expose(), signed_in.refresh_token.expose()] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
