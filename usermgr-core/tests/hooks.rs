//! Hooks: what they are asked, and what becomes of a request that they do not allow.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::json;
use support::{ANA, OTHER, PASSWORD, World, from};
use usermgr_core::domain::audit::{AuditEvent, AuditOutcome};
use usermgr_core::domain::json::JsonObject;
use usermgr_core::domain::refusal::Refusal;
use usermgr_core::domain::session::AuthMethod;
use usermgr_core::error::HookFault;
use usermgr_core::flow::register::Register;
use usermgr_core::flow::set_password::{PasswordSet, SetWithCode};
use usermgr_core::port::hook::{
    AllowedDomains, EmailChangeAttempt, Hook, HookError, MockHook, RegistrationAttempt, SignInAttempt,
};
use usermgr_core::port::random::{Random, SystemRandom};
use usermgr_core::port::store::audit::{AuditQuery, AuditStore as _};
use usermgr_core::{ClientContext, CodePurpose, Error, Password, UserManager};

/// Notes what it is asked, and answers as it is told.
#[derive(Debug, Default)]
struct Asked {
    attempts: Mutex<Vec<String>>,
    answer: Mutex<Answer>,
}

#[derive(Debug, Default, Clone, Copy)]
enum Answer {
    #[default]
    Yes,
    No,
    Failure,
    None,
}

impl Asked {
    fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// What was asked since the last look.
    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.attempts.lock().unwrap())
    }

    async fn ask(&self, attempt: String) -> Result<(), HookError> {
        self.attempts.lock().unwrap().push(attempt);
        let answer = *self.answer.lock().unwrap();
        match answer {
            Answer::Yes => Ok(()),
            Answer::No => Err(Refusal::new("not_today", "Not today.")?.also("es", "Hoy no.")?.into()),
            Answer::Failure => Err(HookError::undecided("the other side is down")),
            Answer::None => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Hook for Asked {
    async fn before_registration(&self, attempt: &RegistrationAttempt) -> Result<(), HookError> {
        let RegistrationAttempt { email, extra, client, .. } = attempt;
        self.ask(format!("register {email} {:?} {:?}", extra.text("invite"), client.ip)).await
    }

    async fn before_sign_in(&self, attempt: &SignInAttempt) -> Result<(), HookError> {
        let SignInAttempt { email, user, method, .. } = attempt;
        self.ask(format!("sign in {email} {} {}", user.is_some(), method.as_str())).await
    }

    async fn before_email_change(&self, attempt: &EmailChangeAttempt) -> Result<(), HookError> {
        self.ask(format!("change {} to {}", attempt.user.email, attempt.new_email)).await
    }
}

fn world() -> (World, Arc<Asked>) {
    let asked = Arc::new(Asked::default());
    let hook = Arc::clone(&asked) as Arc<dyn Hook>;
    (World::built(|_| {}, |builder| builder.hook(hook)), asked)
}

/// Counts how often chance is asked for: each hash has a salt.
#[derive(Debug, Default)]
struct Drawn(AtomicUsize);

impl Random for Drawn {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.fetch_add(1, Ordering::SeqCst);
        SystemRandom.fill(bytes);
    }
}

fn invited(email: &str) -> Register {
    let extra = JsonObject::of(&json!({ "invite": "canary-8c1f" })).unwrap();
    Register { extra: Some(extra), ..Register::new(email, PASSWORD) }
}

/// All that a request may leave behind.
async fn left_behind(world: &World) -> String {
    let audit = world.store.audit(AuditQuery::default()).await.unwrap().items;
    world.deliver().await;
    format!("{audit:?} {:?}", world.mailbox.mails())
}

fn refused(error: &Error) -> bool {
    error.reason() == "refused" && matches!(error, Error::Refused(refusal) if refusal.reason() == "not_today")
}

#[tokio::test]
async fn a_registration_is_asked_about_with_all_but_the_password() {
    let (world, asked) = world();
    world.users.registration().register(invited(ANA), &world.client).await.unwrap();
    assert_eq!(asked.seen(), [format!("register {ANA} Some(\"canary-8c1f\") Some(192.0.2.1)")]);
    let mut hook = MockHook::new();
    hook.expect_before_registration()
        .withf(|attempt| {
            let shown = format!("{attempt:?}");
            assert!(!shown.contains(PASSWORD) && !shown.contains("canary"), "{shown}");
            true
        })
        .times(1)
        .returning(|_| Ok(()));
    let world = World::built(|_| {}, |builder| builder.hook(Arc::new(hook)));
    world.users.registration().register(invited(ANA), &world.client).await.unwrap();
}

#[tokio::test]
async fn a_refused_registration_writes_nothing_hashes_nothing_and_counts_nothing() {
    let (asked, drawn) = (Arc::new(Asked::default()), Arc::new(Drawn::default()));
    let (hook, random) = (Arc::clone(&asked) as Arc<dyn Hook>, Arc::clone(&drawn));
    let world = World::built(|_| {}, |builder| builder.hook(hook).random(random));
    asked.answers(Answer::No);
    let before = left_behind(&world).await;
    let drawn_before = drawn.0.load(Ordering::SeqCst);
    for _ in 0..10 {
        let error = world.users.registration().register(invited(ANA), &world.client).await.unwrap_err();
        assert!(refused(&error), "{error:?}");
        let Error::Refused(refusal) = error else { panic!() };
        assert_eq!((refusal.text("en"), refusal.text("es")), ("Not today.", "Hoy no."));
    }
    assert_eq!(drawn.0.load(Ordering::SeqCst), drawn_before, "neither a salt nor an identifier was drawn");
    assert_eq!(left_behind(&world).await, before);
    asked.answers(Answer::Yes);
    world.users.registration().register(invited(ANA), &world.client).await.unwrap();
    assert!(drawn.0.load(Ordering::SeqCst) > drawn_before);
}

#[tokio::test]
async fn a_known_address_is_asked_about_and_answered_as_an_unknown_one() {
    let (world, asked) = world();
    world.user(ANA, PASSWORD).await;
    asked.seen();
    asked.answers(Answer::No);
    let mut answers = Vec::new();
    for address in [ANA, "nobody@example.org"] {
        let error = world.users.registration().register(invited(address), &world.client).await.unwrap_err();
        answers.push((format!("{error:?}"), asked.seen().concat().replace(address, "-")));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn nobody_is_asked_about_what_is_refused_anyway() {
    let (world, asked) = world();
    let registration = world.users.registration();
    registration.register(Register::new("none", PASSWORD), &world.client).await.unwrap_err();
    registration.register(Register::new(ANA, "short"), &world.client).await.unwrap_err();
    assert_eq!(asked.seen(), [""; 0]);
    for _ in 0..3 {
        registration.register(Register::new(ANA, PASSWORD), &world.client).await.unwrap();
    }
    assert_eq!(asked.seen().len(), 3);
    let error = registration.register(Register::new(ANA, PASSWORD), &world.client).await.unwrap_err();
    assert!(matches!(error, Error::RateLimited { .. }), "{error:?}");
    assert_eq!(asked.seen(), [""; 0]);
    let hook = Arc::clone(&asked) as Arc<dyn Hook>;
    let closed = World::built(|policies| policies.registration.enabled = false, |builder| builder.hook(hook));
    closed.users.registration().register(Register::new(ANA, PASSWORD), &closed.client).await.unwrap_err();
    assert_eq!(asked.seen(), [""; 0]);
}

#[tokio::test]
async fn extra_is_taken_only_where_there_is_a_hook_and_within_its_bounds() {
    let fields = |error: Error| match error {
        Error::Invalid(faults) => faults
            .into_iter()
            .map(|fault| format!("{}/{}", fault.field, fault.fault.as_str()))
            .collect::<Vec<_>>(),
        error => panic!("{error:?}"),
    };
    let bare = World::new();
    let error = bare.users.registration().register(invited(ANA), &bare.client).await.unwrap_err();
    assert_eq!(fields(error), ["extra/unknown"]);
    let (world, asked) = world();
    let extra = JsonObject::of(&json!({ "token": "x".repeat(JsonObject::MAX_BYTES) })).unwrap();
    let request = Register { extra: Some(extra), ..Register::new(ANA, PASSWORD) };
    let error = world.users.registration().register(request, &world.client).await.unwrap_err();
    assert_eq!(fields(error), ["extra/too_large"]);
    assert_eq!(asked.seen(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_or_never_answers_is_no_yes() {
    let (world, asked) = world();
    world.user(ANA, PASSWORD).await;
    let caller = {
        let signed_in =
            world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
        world.users.sessions().authenticate(&signed_in.access_token).await.unwrap()
    };
    let before = left_behind(&world).await;
    for (answer, timed_out) in [(Answer::Failure, false), (Answer::None, true)] {
        asked.answers(answer);
        let (registration, sessions) = (world.users.registration(), world.users.sessions());
        let password = Password::new(PASSWORD);
        let errors = [
            registration.register(invited("eva@example.org"), &world.client).await.map(drop),
            sessions.login(ANA, &password, &world.client).await.map(drop),
            world
                .users
                .account()
                .request_email_change(&caller, "new@example.org", Some(&password), &world.client)
                .await
                .map(drop),
        ];
        for error in errors.map(Result::unwrap_err) {
            assert_eq!((error.reason(), error.retry_after().is_some()), ("unavailable", true));
            assert!(
                matches!(&error, Error::Undecided(fault) if matches!(fault, HookFault::TimedOut) == timed_out),
                "{error:?}"
            );
        }
    }
    assert_eq!(left_behind(&world).await, before);
}

#[tokio::test]
async fn hooks_are_asked_in_their_order_until_one_refuses() {
    let (first, second, third) =
        (Arc::new(Asked::default()), Arc::new(Asked::default()), Arc::new(Asked::default()));
    second.answers(Answer::No);
    let hooks = [Arc::clone(&first), Arc::clone(&second), Arc::clone(&third)];
    let world = World::built(
        |_| {},
        |builder| hooks.into_iter().fold(builder, |builder, hook| builder.hook(hook as Arc<dyn Hook>)),
    );
    let error = world.users.registration().register(invited(ANA), &world.client).await.unwrap_err();
    assert!(refused(&error), "{error:?}");
    assert_eq!([first, second, third].map(|hook| hook.seen().len()), [1, 1, 0]);
}

#[tokio::test]
async fn only_the_right_password_is_asked_about() {
    let (world, asked) = world();
    world.user(ANA, PASSWORD).await;
    asked.seen();
    asked.answers(Answer::No);
    let login = |email: &'static str, password: &'static str| {
        let (users, client) = (world.users.clone(), world.client.clone());
        async move { users.sessions().login(email, &Password::new(password), &client).await.unwrap_err() }
    };
    for (email, password) in [(ANA, OTHER), ("nobody@example.org", PASSWORD)] {
        assert!(matches!(login(email, password).await, Error::InvalidCredentials));
    }
    assert_eq!(asked.seen(), [""; 0]);
    assert!(refused(&login(ANA, PASSWORD).await));
    assert_eq!(asked.seen(), [format!("sign in {ANA} true {}", AuthMethod::Password.as_str())]);
    let audit = world.store.audit(AuditQuery::default()).await.unwrap().items;
    let refusals: Vec<_> = audit.iter().filter(|entry| entry.reason.as_deref() == Some("refused")).collect();
    assert_eq!(refusals.len(), 1);
    assert_eq!((refusals[0].outcome, refusals[0].event), (AuditOutcome::Refused, AuditEvent::SignIn));
    assert!(refusals[0].subject.is_some());
    asked.answers(Answer::Yes);
    assert!(world.signs_in(ANA, PASSWORD).await);
}

/// Refuses, and meanwhile others guess until the limit of failed sign-ins is used up.
#[derive(Debug, Default)]
struct Meanwhile(std::sync::OnceLock<(UserManager, ClientContext)>);

#[async_trait]
impl Hook for Meanwhile {
    async fn before_sign_in(&self, _: &SignInAttempt) -> Result<(), HookError> {
        let Some((users, client)) = self.0.get() else { return Ok(()) };
        let wrong = Password::new(OTHER);
        while !matches!(users.sessions().login(ANA, &wrong, client).await, Err(Error::TooManyAttempts { .. }))
        {
        }
        Err(Refusal::new("not_today", "Not today.")?.into())
    }
}

#[tokio::test]
async fn a_refusal_past_the_limit_does_not_tell_that_the_password_was_right() {
    let hook = Arc::new(Meanwhile::default());
    let asked = Arc::clone(&hook) as Arc<dyn Hook>;
    let world = World::built(|_| {}, |builder| builder.hook(asked));
    world.user(ANA, PASSWORD).await;
    hook.0.set((world.users.clone(), world.client.clone())).ok().unwrap();
    let error = world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap_err();
    assert!(matches!(error, Error::TooManyAttempts { .. }), "{error:?}");
    let audit = world.store.audit(AuditQuery::default()).await.unwrap().items;
    assert!(audit.iter().all(|entry| entry.reason.as_deref() != Some("refused")), "{audit:?}");
}

/// A code that sets a password.
async fn code(world: &World, purpose: CodePurpose) -> String {
    world.users.passwords().request_code(ANA, purpose, None, &world.client).await.unwrap();
    world.deliver().await;
    world.mailbox.last_code(ANA).unwrap()
}

fn set(code: String) -> SetWithCode {
    SetWithCode {
        email: ANA.into(),
        code: code.into(),
        new_password: OTHER.into(),
        confirmation_password: OTHER.into(),
        purpose: None,
    }
}

#[tokio::test]
async fn a_refused_sign_in_by_code_sets_the_password_and_opens_no_session() {
    let (world, asked) = world();
    let user = world.user(ANA, PASSWORD).await;
    let code = code(&world, CodePurpose::ResetPassword).await;
    asked.seen();
    asked.answers(Answer::No);
    let outcome = world.users.passwords().set_with_code(set(code), &world.client).await.unwrap();
    assert!(matches!(outcome, PasswordSet::Set(set) if set.id == user.id));
    assert_eq!(asked.seen(), [format!("sign in {ANA} true {}", AuthMethod::EmailCode.as_str())]);
    asked.answers(Answer::Yes);
    let signed_in = world.users.sessions().login(ANA, &Password::new(OTHER), &world.client).await.unwrap();
    let caller = world.users.sessions().authenticate(&signed_in.access_token).await.unwrap();
    assert_eq!(world.users.sessions().list(&caller).await.unwrap().len(), 1, "only this one was opened");
}

#[tokio::test]
async fn a_refused_first_sign_in_tells_why_and_the_user_is_there() {
    let (world, asked) = world();
    world.register(ANA, PASSWORD).await;
    let code = world.mailbox.last_code(ANA).unwrap();
    asked.seen();
    asked.answers(Answer::No);
    let error = world.users.passwords().set_with_email_code(set(code), &world.client).await.unwrap_err();
    assert!(refused(&error), "{error:?}");
    assert_eq!(asked.seen(), [format!("sign in {ANA} false {}", AuthMethod::EmailCode.as_str())]);
    asked.answers(Answer::Yes);
    assert!(world.signs_in(ANA, OTHER).await);
}

#[tokio::test]
async fn a_wrong_code_is_not_asked_about_and_a_right_one_past_the_cap_is_answered_as_a_wrong_one() {
    let (world, asked) = world();
    world.user(ANA, PASSWORD).await;
    let right = code(&world, CodePurpose::ResetPassword).await;
    let wrong = support::other_than(&right);
    asked.seen();
    asked.answers(Answer::No);
    let guess = |code: String| {
        let (users, client) = (world.users.clone(), world.client.clone());
        async move { users.passwords().set_with_code(set(code), &client).await.unwrap_err().reason() }
    };
    for _ in 0..5 {
        assert_eq!(guess(wrong.clone()).await, "invalid_code");
    }
    assert_eq!(asked.seen(), [""; 0]);
    assert_eq!([guess(wrong).await, guess(right).await], ["too_many_attempts"; 2]);
}

#[tokio::test]
async fn addresses_of_other_domains_neither_sign_up_nor_are_changed_to() {
    let hook = Arc::new(AllowedDomains::new(["example.org"]).unwrap());
    let world = World::built(|_| {}, |builder| builder.hook(hook));
    let elsewhere = "ana@example.com";
    let error = world.users.registration().register(Register::new(elsewhere, PASSWORD), &world.client).await;
    assert!(matches!(error, Err(Error::Refused(refusal)) if refusal.reason() == "domain_not_allowed"));
    world.user(ANA, PASSWORD).await;
    let signed_in = world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    let caller = world.users.sessions().authenticate(&signed_in.access_token).await.unwrap();
    let change = |new: &'static str| {
        let (users, caller) = (world.users.clone(), caller.clone());
        async move { users.account().request_email_change(&caller, new, None, &from("192.0.2.1")).await }
    };
    assert!(matches!(change(elsewhere).await, Err(Error::Refused(_))));
    change("eva@example.org").await.unwrap();
}
