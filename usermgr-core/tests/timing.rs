//! Random pauses before answers that must not tell who has an account.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use support::{ANA, OTHER, PASSWORD, World};
use usermgr_core::flow::register::Register;
use usermgr_core::flow::set_password::SetWithCode;
use usermgr_core::flow::verify_email::{Activate, Verify};
use usermgr_core::port::random::{Random, SystemRandom};
use usermgr_core::port::store::Store;
use usermgr_core::{CodePurpose, Password, UserManager};

const NOBODY: &str = "nobody@example.org";

/// Random, except that the length of a pause (four bytes) is half of the longest. It counts the pauses.
#[derive(Debug, Default)]
struct HalfPauses(AtomicU32);

impl Random for HalfPauses {
    fn fill(&self, bytes: &mut [u8]) {
        if bytes.len() == 4 {
            self.0.fetch_add(1, Ordering::SeqCst);
            bytes.fill(0x80);
        } else {
            SystemRandom.fill(bytes);
        }
    }
}

/// Makes every call that answers alike for nobody and for somebody. Lists how long each took and how many pauses it made.
async fn calls(
    world: &World,
    users: &UserManager,
    random: &HalfPauses,
    email: &str,
) -> Vec<(&'static str, Duration, u32)> {
    let client = &world.client;
    let (registration, passwords, sessions) = (users.registration(), users.passwords(), users.sessions());
    let mut calls = Vec::new();
    macro_rules! call {
        ($what:literal, $answer:expr) => {{
            let (begun, before) = (Instant::now(), random.0.load(Ordering::SeqCst));
            drop($answer.await);
            calls.push(($what, begun.elapsed(), random.0.load(Ordering::SeqCst) - before));
        }};
    }
    let set = || SetWithCode::new(email, "000000", OTHER);
    let (activate, verify) = (Activate::new(email, OTHER, "000000"), Verify::new(email, "000000"));
    call!("register", registration.register(Register::new(email, PASSWORD), client));
    call!("resend", registration.resend(email, None, client));
    call!("forgot", passwords.forgot(email, client));
    call!("request_code", passwords.request_code(email, CodePurpose::ResetPassword, None, client));
    call!("login", sessions.login(email, &Password::new(OTHER), client));
    call!("verify", registration.verify(verify, client));
    call!("activate", registration.activate(activate, client));
    call!("set_with_code", passwords.set_with_code(set(), client));
    call!("set_with_email_code", passwords.set_with_email_code(set(), client));
    calls
}

#[tokio::test]
async fn answers_that_hide_something_come_after_a_random_pause() {
    let random = Arc::new(HalfPauses::default());
    let world = World::built(|_| {}, |builder| builder.random(random.clone()));
    world.user(ANA, PASSWORD).await;
    for email in [ANA, NOBODY] {
        for (what, took, pauses) in calls(&world, &world.users, &random, email).await {
            assert!(
                pauses > 0 && took >= Duration::from_millis(10),
                "{what} for {email}: {pauses}, {took:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_sign_in_and_a_host_transaction_do_not_pause() {
    let random = Arc::new(HalfPauses::default());
    let world = World::built(|_| {}, |builder| builder.random(random.clone()));
    world.user(ANA, PASSWORD).await;
    let before = random.0.load(Ordering::SeqCst);
    assert!(world.signs_in(ANA, PASSWORD).await);
    assert_eq!(random.0.load(Ordering::SeqCst), before);
    let within = world.users.over(Arc::clone(&world.store) as Arc<dyn Store>);
    for (what, _, pauses) in calls(&world, &within, &random, ANA).await {
        assert_eq!(pauses, 0, "{what}");
    }
}
