//! Delivery, law by law.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::*;
use crate::domain::user::{Locale, Username};
use crate::template::{MailValues, RenderedMail, TemplateError};
use crate::worker::keeper::{BEAT, MARGIN};
use crate::worker::lane::{CLAIM_TIMEOUT, LEASE, SIGNAL_JITTER, WAIT_AFTER_SIGNAL};
use crate::worker::{Delivered, Stopper};

/// Runs the worker until nothing is owed, and then to its end.
async fn run_until_done(bench: &Bench, at_most: Duration) {
    let stopper = Stopper::new();
    let (worker, stop) = (bench.worker(), stopper.token());
    let running = tokio::spawn(async move { worker.run(stop).await });
    timeout(at_most, async {
        while !bench.outbox.all_done() {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("everything is settled in time");
    stopper.stop();
    timeout(Duration::from_secs(120), running).await.expect("the worker ends").unwrap();
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test(start_paused = true)]
async fn each_attempt_is_the_same_mail_and_waits_twice_as_long() {
    let bench = Bench::new();
    let id = bench.owe_code("transient");
    run_until_done(&bench, DAY).await;

    let mails = bench.post.mails();
    assert_eq!(mails.len(), 12);
    for mail in &mails {
        assert_eq!((mail.id, mail.date), (id, mails[0].date));
        assert_eq!(
            (&mail.subject, &mail.text, &mail.html),
            (&mails[0].subject, &mails[0].text, &mails[0].html)
        );
    }
    let times = bench.post.times();
    for (attempt, pair) in times.windows(2).enumerate() {
        let (waited, bare) = ((pair[1] - pair[0]).as_secs_f64(), 5.0 * f64::from(1 << attempt));
        assert!(
            waited >= 0.8 * bare && waited <= 1.2 * bare + 1.1,
            "after attempt {}: {waited}",
            attempt + 1
        );
    }
    let row = bench.outbox.row(id);
    let retries = row
        .settled
        .iter()
        .filter(|end| matches!(end, DeliveryResult::Retry { error, .. } if error == "421 try again later"));
    assert_eq!(retries.count(), 11);
    assert_eq!(row.settled.last(), Some(&DeliveryResult::Dead { error: "421 try again later".into() }));
}

#[tokio::test(start_paused = true)]
async fn a_permanent_refusal_is_the_end() {
    let bench = Bench::new();
    let id = bench.owe_code("permanent");
    assert_eq!(bench.worker().run_once().await.unwrap(), Delivered { dead: 1, ..Delivered::default() });
    assert_eq!(bench.outbox.row(id).settled, [DeliveryResult::Dead { error: "550 no such user".into() }]);
    assert_eq!(bench.worker().run_once().await.unwrap(), Delivered::default());
}

#[tokio::test(start_paused = true)]
async fn a_sent_mail_begins_the_life_of_its_code() {
    let mut bench = Bench::new();
    bench.policies.codes.ttl = time::Duration::seconds(60);
    bench.policies.links.ttl = time::Duration::minutes(31);
    bench.policies.mail.public_url = "https://id.example.org".into();
    let code = bench.owe_code("ana");
    let link = bench.code(CodeForm::Link);
    let link = bench.owe(bench.mail("eva", MailKind::ResetPasswordLink, Some(link)));
    let notice = bench.owe(bench.mail("ida", MailKind::PasswordChanged, None));
    assert_eq!(bench.worker().run_once().await.unwrap().sent, 3);

    let ttl = |id| bench.outbox.row(id).settled;
    assert_eq!(ttl(code), [DeliveryResult::Sent { code_ttl: Some(time::Duration::seconds(60)) }]);
    assert_eq!(ttl(link), [DeliveryResult::Sent { code_ttl: Some(time::Duration::minutes(31)) }]);
    assert_eq!(ttl(notice), [DeliveryResult::Sent { code_ttl: None }]);

    let text = |local: &str| {
        let mails = bench.post.mails();
        mails.into_iter().find(|mail| mail.to.local() == local).unwrap().text
    };
    assert!(
        text("ana").lines().any(|line| line.len() == 6 && line.bytes().all(|byte| byte.is_ascii_digit()))
    );
    assert!(text("ana").contains("60 seconds"));
    let link = text("eva").lines().find(|line| line.starts_with("https://")).map(str::to_owned).unwrap();
    assert!(link.starts_with("https://id.example.org/reset-password#token="), "{link}");
    assert!(text("eva").contains("31 minutes"));
}

#[tokio::test(start_paused = true)]
async fn a_mail_speaks_the_language_of_its_receiver_else_the_default() {
    let mut bench = Bench::new();
    bench.policies.mail.default_locale = Locale::parse("es-MX").unwrap();
    let mut english = bench.mail("english", MailKind::Welcome, None);
    english.locale = Some(Locale::parse("en-GB").unwrap());
    english.username = Some(Username::parse("{{7*7}}").unwrap());
    bench.owe(english);
    bench.owe(bench.mail("spanish", MailKind::Welcome, None));
    bench.worker().run_once().await.unwrap();
    for mail in bench.post.mails() {
        let begins = if mail.to.local() == "english" { "Hello {{7*7}}," } else { "Hola:" };
        assert!(mail.text.starts_with(begins), "{}", mail.text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_mailer_ends_neither_the_worker_nor_the_mail() {
    let mut bench = Bench::new();
    bench.policies.outbox.max_attempts = 3;
    let panics = bench.owe_code("panic");
    let sent = bench.owe_code("ana");
    run_until_done(&bench, DAY).await;
    assert_eq!(bench.outbox.row(panics).attempts, 3);
    let last = bench.outbox.row(panics).settled.pop();
    assert_eq!(last, Some(DeliveryResult::Dead { error: "the delivery panicked".into() }));
    assert!(matches!(bench.outbox.row(sent).settled[..], [DeliveryResult::Sent { .. }]));
}

#[tokio::test(start_paused = true)]
async fn a_mailer_that_never_answers_is_given_two_minutes() {
    let mut bench = Bench::new();
    bench.policies.outbox.max_attempts = 1;
    let id = bench.owe_code("never");
    let began = Instant::now();
    assert_eq!(bench.worker().run_once().await.unwrap().dead, 1);
    assert_eq!(began.elapsed().as_secs(), 120);
    let error = "the delivery took longer than two minutes".into();
    assert_eq!(bench.outbox.row(id).settled, [DeliveryResult::Dead { error }]);
}

/// Lets the worker run for a while.
async fn run_for(bench: &Bench, time: Duration) {
    let stopper = Stopper::new();
    let (worker, stop) = (bench.worker(), stopper.token());
    let running = tokio::spawn(async move { worker.run(stop).await });
    sleep(time).await;
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_slow_receiver_holds_up_nobody_else() {
    let mut bench = Bench::new();
    bench.policies.outbox.concurrency = 3;
    bench.owe_code("never");
    sleep(Duration::from_millis(1)).await;
    for _ in 0..50 {
        bench.owe_code("ana");
    }
    run_for(&bench, Duration::from_secs(1)).await;
    let sent = bench.post.mails().iter().filter(|mail| mail.to.local() == "ana").count();
    assert_eq!(sent, 50, "at its own domain neither");
    assert_eq!(bench.outbox.largest_claim.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_slow_domain_holds_up_nobody_else() {
    let bench = Bench::new();
    for _ in 0..50 {
        bench.owe_code("never@tarpit.example");
    }
    sleep(Duration::from_millis(1)).await;
    for n in 0..20 {
        bench.owe_code(&format!("ana@place{}.example", n % 5));
    }
    run_for(&bench, Duration::from_secs(1)).await;
    let sent = |domain: &str| bench.post.mails().iter().filter(|mail| mail.to.domain() == domain).count();
    assert_eq!((0..5).map(|n| sent(&format!("place{n}.example"))).sum::<usize>(), 20);
    assert_eq!(sent("tarpit.example"), 2, "a quarter of eight places");
}

#[tokio::test(start_paused = true)]
async fn a_quick_domain_may_have_all_places_but_a_quarter() {
    let bench = Bench::new();
    bench.owe_code("ana");
    let (stopper, worker) = (Stopper::new(), bench.worker());
    let stop = stopper.token();
    let running = tokio::spawn(async move { worker.run(stop).await });
    sleep(Duration::from_secs(1)).await;
    for _ in 0..12 {
        bench.owe_code("slow");
    }
    sleep(Duration::from_secs(15)).await;
    assert_eq!(bench.post.most_under_way.load(Ordering::SeqCst), 6, "of eight");
    // A mail counts as soon as its delivery begins.
    assert_eq!(bench.post.mails().len(), 1 + 6 + 2, "slow now, it has its quarter");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.post.mails().len(), 1 + 6 + 2 + 2);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn what_ends_together_is_noted_together() {
    let mut bench = Bench::new();
    bench.policies.outbox.concurrency = 20;
    for n in 0..20 {
        bench.owe_code(&format!("slow@place{n}.example"));
    }
    assert_eq!(bench.worker().run_once().await.unwrap().sent, 20);
    let together = bench.outbox.largest_settlement.load(Ordering::SeqCst);
    assert!((10..=20).contains(&together), "{together} of 20");
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_has_all_its_places_goes_on_as_they_become_free() {
    let bench = Bench::new();
    for _ in 0..10 {
        bench.owe_code("slow");
    }
    let began = Instant::now();
    run_until_done(&bench, Duration::from_secs(60)).await;
    assert_eq!(began.elapsed().as_secs(), 50, "two at a time, ten seconds each, and nothing in between");
    assert_eq!(bench.post.most_under_way.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn where_only_a_domain_without_room_is_owed_others_are_looked_for_at_a_signal_alone() {
    let bench = Bench::new();
    for _ in 0..600 {
        bench.owe_code("ana");
    }
    run_for(&bench, Duration::from_millis(900)).await;
    assert_eq!(bench.post.mails().len(), 600);
    let (claims, empty) = (&bench.outbox.claims, &bench.outbox.empty_claims);
    assert!(claims.load(Ordering::SeqCst) >= 100, "six of eight places at a time");
    // At the begin, at the one signal, and at the end.
    assert!(empty.load(Ordering::SeqCst) <= 3, "{empty:?} of {claims:?}");
}

#[tokio::test(start_paused = true)]
async fn one_round_takes_no_more_than_may_be_under_way() {
    let mut bench = Bench::new();
    bench.policies.outbox.concurrency = 4;
    for _ in 0..10 {
        bench.owe_code("slow");
    }
    let began = Instant::now();
    assert_eq!(bench.worker().run_once().await.unwrap(), Delivered { sent: 4, ..Delivered::default() });
    assert_eq!(began.elapsed().as_secs(), 10);
    assert_eq!(bench.post.most_under_way.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn what_becomes_owed_later_leaves_at_once_and_an_idle_worker_rests() {
    let bench = Bench::new();
    let stopper = Stopper::new();
    let (worker, stop) = (bench.worker(), stopper.token());
    let running = tokio::spawn(async move { worker.run(stop).await });
    sleep(Duration::from_secs(100)).await;
    let claims = bench.outbox.claims.load(Ordering::SeqCst);
    assert!((90..=110).contains(&claims), "{claims} claims in 100 idle seconds");
    let owed = Instant::now();
    bench.owe_code("ana");
    sleep(Duration::from_millis(50)).await;
    assert!(bench.post.times()[0] - owed <= WAIT_AFTER_SIGNAL + SIGNAL_JITTER + Duration::from_millis(1));
    stopper.stop();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_signals_all_the_time_is_not_asked_all_the_time() {
    let bench = Bench::new();
    bench.outbox.restless.store(true, Ordering::SeqCst);
    let stopper = Stopper::new();
    let (worker, stop) = (bench.worker(), stopper.token());
    let running = tokio::spawn(async move { worker.run(stop).await });
    sleep(Duration::from_secs(1)).await;
    stopper.stop();
    running.await.unwrap();
    let claims = bench.outbox.claims.load(Ordering::SeqCst);
    assert!((50..=110).contains(&claims), "{claims} claims in a second");
}

#[tokio::test(start_paused = true)]
async fn stop_lets_what_is_under_way_end_and_begins_nothing() {
    let mut bench = Bench::new();
    bench.policies.outbox.concurrency = 1;
    let under_way = bench.owe_code("slow");
    sleep(Duration::from_millis(2)).await;
    let waiting = bench.owe_code("ana");
    let stopper = Stopper::new();
    let (worker, stop) = (bench.worker(), stopper.token());
    let began = Instant::now();
    let running = tokio::spawn(async move { worker.run(stop).await });
    sleep(Duration::from_secs(1)).await;
    stopper.stop();
    running.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 10);
    assert!(matches!(bench.outbox.row(under_way).settled[..], [DeliveryResult::Sent { .. }]));
    assert_eq!(bench.outbox.row(waiting).attempts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_or_panics_is_waited_for() {
    let bench = Bench::new();
    bench.outbox.failing_claims.store(5, Ordering::SeqCst);
    bench.outbox.panicking_claims.store(3, Ordering::SeqCst);
    bench.owe_code("ana");
    let began = Instant::now();
    run_until_done(&bench, Duration::from_secs(60)).await;
    // 0.25 + 0.5 + 1 + 2 + 4 + 5 + 5 + 5 seconds, a fifth more or less.
    let took = began.elapsed().as_secs_f64();
    assert!((18.0..=28.0).contains(&took), "{took}");
    assert_eq!(bench.post.mails().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_claimed_and_not_answered_leaves_before_its_lease_has_passed() {
    let bench = Bench::new();
    bench.outbox.unanswered_claims.store(1, Ordering::SeqCst);
    let mail = bench.owe_code("ana");
    run_until_done(&bench, Duration::from_secs(10)).await;
    assert_eq!(bench.outbox.row(mail).attempts, 1);
    assert_eq!(bench.post.mails().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failing_claim_is_the_answer_of_a_single_round() {
    let bench = Bench::new();
    bench.outbox.failing_claims.store(1, Ordering::SeqCst);
    assert!(bench.worker().run_once().await.is_err());
    bench.outbox.panicking_claims.store(1, Ordering::SeqCst);
    assert!(bench.worker().run_once().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_short_failure_of_the_store_does_not_repeat_a_mail() {
    let bench = Bench::new();
    bench.outbox.failing_settlements.store(5, Ordering::SeqCst);
    bench.owe_code("ana");
    run_until_done(&bench, Duration::from_secs(60)).await;
    assert_eq!(bench.post.mails().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_mail_whose_end_was_not_noted_is_repeated_under_the_same_identifier() {
    let bench = Bench::new();
    bench.outbox.failing_settlements.store(6, Ordering::SeqCst);
    bench.owe_code("ana");
    let began = Instant::now();
    assert_eq!(bench.worker().run_once().await.unwrap(), Delivered { lost: 1, ..Delivered::default() });
    run_until_done(&bench, Duration::from_secs(60)).await;
    assert!(began.elapsed() >= Duration::from_secs(30), "within the lease nobody repeats it");
    let mails = bench.post.mails();
    assert_eq!(mails.len(), 2);
    assert_eq!((mails[0].id, &mails[0].text), (mails[1].id, &mails[1].text));
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_worker_left_is_taken_over_when_its_lease_ends() {
    let mut bench = Bench::new();
    bench.policies.outbox.concurrency = 20;
    for n in 0..20 {
        bench.owe_code(&format!("slow@place{n}.example"));
    }
    let dead = {
        let worker = bench.worker();
        tokio::spawn(async move { worker.run(Stopper::new().token()).await })
    };
    sleep(Duration::from_secs(8)).await;
    assert_eq!(bench.post.mails().len(), 20);
    // Its renewals end with it.
    dead.abort();
    let died = Instant::now();
    run_until_done(&bench, Duration::from_secs(60)).await;
    assert_eq!(bench.post.mails().len(), 40);
    assert!(died.elapsed() >= Duration::from_secs(20), "{:?}", died.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_long_attempt_keeps_its_lease_and_is_made_once() {
    let mut bench = Bench::new();
    bench.policies.outbox.max_attempts = 1;
    let id = bench.owe_code("never");
    let other = {
        let worker = bench.worker();
        tokio::spawn(async move { worker.run(Stopper::new().token()).await })
    };
    run_until_done(&bench, Duration::from_secs(180)).await;
    assert_eq!(bench.post.mails().len(), 1, "two workers, one attempt of two minutes");
    assert_eq!(bench.outbox.row(id).attempts, 1);
    assert!((20..=26).contains(&bench.outbox.renewals.load(Ordering::SeqCst)), "every five seconds");
    other.abort();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_renew_stops_its_attempt_before_the_lease_ends() {
    let bench = Bench::new();
    let id = bench.owe_code("never");
    bench.outbox.failing_renewals.store(1000, Ordering::SeqCst);
    let began = Instant::now();
    assert_eq!(bench.worker().run_once().await.unwrap(), Delivered { lost: 1, ..Delivered::default() });
    assert_eq!(began.elapsed().as_secs(), 25);
    assert!(bench.outbox.row(id).due > bench.clock.now(), "nobody else has begun");
    assert!(bench.outbox.row(id).settled.is_empty());
    // Of a few that fail nobody learns.
    let bench = Bench::new();
    bench.owe_code("never");
    bench.outbox.failing_renewals.store(3, Ordering::SeqCst);
    assert_eq!(bench.worker().run_once().await.unwrap().retried, 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_lease_was_lost_is_stopped() {
    let bench = Bench::new();
    let id = bench.owe_code("never");
    let worker = bench.worker();
    let running = tokio::spawn(async move { worker.run_once().await });
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    bench.outbox.rows.lock().unwrap().get_mut(&id).unwrap().lease = Some(Lease([9; 16]));
    assert_eq!(running.await.unwrap().unwrap(), Delivered { lost: 1, ..Delivered::default() });
    assert!(began.elapsed() <= Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_mail_that_waits_to_be_noted_is_not_claimed_again_by_its_own_worker() {
    let bench = Bench::new();
    bench.owe_code("slow");
    let worker = bench.worker();
    let running = tokio::spawn(async move { worker.run(Stopper::new().token()).await });
    sleep(Duration::from_secs(1)).await;
    // The store is away from the hand-over on, for longer than the lease.
    bench.outbox.hanging.store(1000, Ordering::SeqCst);
    sleep(Duration::from_secs(41)).await;
    bench.outbox.hanging.store(0, Ordering::SeqCst);
    sleep(Duration::from_secs(60)).await;
    assert!(bench.outbox.all_done());
    assert_eq!(bench.post.mails().len(), 1);
    running.abort();
}

/// A claim whose answer came late leaves its attempts their time.
#[tokio::test(start_paused = true)]
async fn a_claim_ends_well_within_its_lease() {
    let bench = Bench::new();
    bench.owe_code("ana");
    bench.outbox.hanging.store(1, Ordering::SeqCst);
    let began = Instant::now();
    assert!(bench.worker().run_once().await.is_err());
    assert_eq!(began.elapsed(), CLAIM_TIMEOUT);
    assert!(CLAIM_TIMEOUT + BEAT + MARGIN < LEASE.unsigned_abs());
}

#[tokio::test(start_paused = true)]
async fn who_asks_to_be_left_alone_is_for_an_hour_at_most() {
    let bench = Bench::new();
    let (asks, asks_long) = (bench.owe_code("asks"), bench.owe_code("asks-long"));
    let began = bench.clock.now();
    assert_eq!(bench.worker().run_once().await.unwrap().retried, 2);
    let wait = |id| (bench.outbox.row(id).due - began).whole_minutes();
    assert_eq!((wait(asks), wait(asks_long)), (10, 60));
    let mut patient = Bench::new();
    patient.policies.outbox.max_attempts = Policies::default().outbox.max_attempts;
    patient.owe_code("asks-long");
    run_until_done(&patient, DAY).await;
    assert_eq!(patient.post.mails().len(), 12, "all within the day that services know a key for");
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_counts_as_nothing_sent() {
    let bench = Bench::new();
    let id = bench.owe_code("slow");
    let worker = bench.worker();
    let running = tokio::spawn(async move { worker.run_once().await });
    sleep(Duration::from_secs(1)).await;
    bench.outbox.rows.lock().unwrap().get_mut(&id).unwrap().lease = Some(Lease([9; 16]));
    assert_eq!(running.await.unwrap().unwrap(), Delivered { lost: 1, ..Delivered::default() });
    assert!(bench.outbox.row(id).settled.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_mail_of_an_unknown_key_is_dead() {
    let bench = Bench::new();
    let mut code = bench.code(CodeForm::Digits(CodeLength::SIX));
    code.key = SecretKeyId::from_bytes([9; 8]);
    let id = bench.owe(bench.mail("ana", MailKind::VerifyEmail, Some(code)));
    assert_eq!(bench.worker().run_once().await.unwrap().dead, 1);
    assert!(bench.post.mails().is_empty());
    let error = "the secret key that derives its code is not configured".into();
    assert_eq!(bench.outbox.row(id).settled, [DeliveryResult::Dead { error }]);
}

#[derive(Debug)]
struct Faulty;

impl MailTemplates for Faulty {
    fn render(&self, _: MailKind, _: &str, _: &MailValues<'_>) -> Result<RenderedMail, TemplateError> {
        Err(TemplateError::NoTemplate { template: "en/verify_email.txt".into() })
    }
}

#[tokio::test(start_paused = true)]
async fn a_mail_that_cannot_be_written_is_dead() {
    let mut bench = Bench::new();
    bench.templates = Arc::new(Faulty);
    let faulty = bench.owe_code("ana");
    assert_eq!(bench.worker().run_once().await.unwrap().dead, 1);
    let error = "there is no template en/verify_email.txt".into();
    assert_eq!(bench.outbox.row(faulty).settled, [DeliveryResult::Dead { error }]);

    bench.templates = Arc::new(BuiltInTemplates::default());
    let codeless = bench.owe(bench.mail("eva", MailKind::VerifyEmail, None));
    assert_eq!(bench.worker().run_once().await.unwrap().dead, 1);
    let error = "a mail of the kind verify_email needs a code".into();
    assert_eq!(bench.outbox.row(codeless).settled, [DeliveryResult::Dead { error }]);
}

/// Keeps all that is logged, as text.
#[derive(Default)]
struct Logged(Arc<Mutex<String>>);

impl tracing::Subscriber for Logged {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            let _ = write!(line, "{field}={value:?} ");
        });
        self.0.lock().unwrap().push_str(&(line + "\n"));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_log_tells_how_it_went_and_nothing_of_the_mail() {
    let logged = Logged::default();
    let log = Arc::clone(&logged.0);
    // While there is one subscriber only, tracing asks whichever thread logs first, and that may be another test's.
    let _other = tracing::Dispatch::new(Logged::default());
    let _guard = tracing::subscriber::set_default(logged);
    let bench = Bench::new();
    let mut ids = vec![bench.owe_code("ana"), bench.owe_code("permanent"), bench.owe_code("transient")];
    let link = bench.code(CodeForm::Link);
    let mut mail = bench.mail("eva", MailKind::ResetPasswordLink, Some(link));
    mail.username = Some(Username::parse("Eva Planted").unwrap());
    ids.push(bench.owe(mail));
    let worker = bench.worker();
    worker.run_once().await.unwrap();

    let log = log.lock().unwrap().clone();
    for id in ids {
        assert!(log.contains(&id.to_string()), "{log}");
    }
    for outcome in
        ["outcome=\"sent\"", "outcome=\"dead\"", "outcome=\"retry\"", "attempt=1", "reset_password_link"]
    {
        assert!(log.contains(outcome), "{outcome}: {log}");
    }
    for mail in bench.post.mails() {
        for secret in mail.text.lines().filter(|line| !line.contains(' ') && line.len() >= 6) {
            assert!(!log.contains(secret), "{secret}: {log}");
        }
        assert!(!log.contains(mail.to.as_str()) && !log.contains("Eva"), "{log}");
    }
    assert!(!log.contains("token="), "{log}");
    assert!(!format!("{worker:?}").contains("example"), "{worker:?}");
}
