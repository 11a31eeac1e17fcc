//! The law of the model: any sequence of commands answers as on the reference store.

use std::sync::Arc;

use time::{Duration, OffsetDateTime};

use super::StoreHarness;
use super::build::{
    NOW, audit, audited, candidates, claim, create, guess, open, owed, password_of, register, request, rule,
    set_password, verify,
};
use crate::domain::audit::AuditEvent;
use crate::domain::code::CodePurpose;
use crate::domain::id::{CodeId, UserId};
use crate::domain::password::PasswordVersion;
use crate::memory::MemoryStore;
use crate::port::store::Store;
use crate::port::store::account::UserQuery;
use crate::port::store::outbox::{DeliveryResult, Settle};
use crate::port::store::session::{EndSessions, LoginFailed, SessionKey, SessionQuery, SessionSelector};
use crate::port::store::upkeep::Purge;

const ADDRESSES: [&str; 3] = ["ana@example.org", "BOB@example.org", "eva@exámple.org"];

/// A small generator: the same sequence for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % sides as u64).unwrap()
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        if items.is_empty() { None } else { Some(items[self.roll(items.len())]) }
    }
}

/// What the commands so far made, to draw from.
#[derive(Default)]
struct Known {
    codes: Vec<CodeId>,
    users: Vec<UserId>,
    sessions: Vec<crate::domain::id::SessionId>,
}

/// Seeded sequences of commands with a jumping clock, on the store under test and on the reference model.
pub async fn any_sequence_answers_as_the_model_does(harness: &dyn StoreHarness) {
    for seed in 0..12 {
        let stores: [Arc<dyn Store>; 2] = [harness.fresh().await, Arc::new(MemoryStore::new())];
        let (mut dice, mut known, mut now) = (Dice(seed), Known::default(), NOW);
        for step in 0..60 {
            let jump = [0, 1, 30, 599, 600, 7200, 90_000, -60][dice.roll(8)];
            now += Duration::seconds(jump);
            let (tested, model) = command(&stores, &mut dice, &mut known, now).await;
            assert_eq!(tested, model, "seed {seed}, step {step}");
            let (tested, model) = (look(&stores[0], &known, now).await, look(&stores[1], &known, now).await);
            assert_eq!(tested, model, "seed {seed}, after step {step}");
        }
    }
}

/// Runs one command on both stores and answers what each answered.
#[expect(clippy::too_many_lines, reason = "one arm a command: it reads as a table")]
async fn command(
    stores: &[Arc<dyn Store>; 2],
    dice: &mut Dice,
    known: &mut Known,
    now: OffsetDateTime,
) -> (String, String) {
    /// The same call on both.
    macro_rules! both {
        ($command:expr, $method:ident) => {{
            let command = $command;
            let tested = format!("{:?}", stores[0].$method(command.clone()).await.unwrap());
            (tested, format!("{:?}", stores[1].$method(command).await.unwrap()))
        }};
    }
    let address = ADDRESSES[dice.roll(3)];
    let purpose = CodePurpose::ALL[dice.roll(5)];
    match dice.roll(9) {
        0 => {
            let mut command = register(address, now);
            command.throttle = vec![rule(&format!("request {address}"), 4, Duration::minutes(10))];
            known.codes.push(command.code.id);
            both!(command, register)
        }
        1 => {
            let mut command = request(address, purpose, now);
            command.throttle = vec![rule(&format!("code {address}"), 3, Duration::minutes(10))];
            known.codes.push(command.code.id);
            both!(command, request_code)
        }
        2 | 3 => {
            let open: Vec<CodeId> = candidates(&stores[1], address, purpose, now)
                .await
                .iter()
                .map(|candidate| candidate.id)
                .collect();
            let hit = if dice.roll(3) == 0 { dice.one_of(&known.codes) } else { dice.one_of(&open) };
            let hit = hit.filter(|_| dice.roll(3) > 0);
            let session = (dice.roll(2) == 0).then(|| super::build::session(now));
            known.sessions.extend(session.as_ref().map(|session| session.id));
            let effect = if dice.roll(2) == 0 { verify() } else { set_password("set", session) };
            let (crate::port::store::code::RedeemEffect::Verify { user_id, .. }
            | crate::port::store::code::RedeemEffect::SetPassword { user_id, .. }) = &effect;
            known.users.push(*user_id);
            let mut command = guess(address, purpose, &open, hit, effect, now);
            command.settled = dice.roll(2) == 0;
            command.budget = Some(rule(&format!("budget {address}"), 7, Duration::DAY));
            command.events = super::build::all_events();
            both!(command, redeem)
        }
        4 => {
            let mut command = create(address, now);
            if dice.roll(2) == 0 {
                command.password = None;
                command.email_verified_at = None;
            }
            known.users.push(command.id);
            both!(command, create_user)
        }
        5 => {
            let Some(id) = dice.one_of(&known.users) else { return Default::default() };
            let Some(user) = stores[1].user(id).await.unwrap() else { return Default::default() };
            let version = if dice.roll(4) == 0 { PasswordVersion::NONE } else { PasswordVersion::FIRST };
            let mut command = open(&user, version, now);
            command.guard = Some(super::build::guard(address, "home", now));
            known.sessions.push(command.session.id);
            both!(command, open_session)
        }
        6 => {
            let guard = Some(super::build::guard(address, ["home", "away"][dice.roll(2)], now));
            let user_id = dice.one_of(&known.users);
            both!(LoginFailed { now, user_id, guard, audit: audit(AuditEvent::SignIn) }, login_failed)
        }
        7 => {
            let ((lease, tested), (other, model)) =
                (claim(&stores[0], now).await, claim(&stores[1], now).await);
            let claimed = (format!("{tested:?}"), format!("{model:?}"));
            if let Some(first) = model.first() {
                let result = [
                    DeliveryResult::Sent { code_ttl: Some(Duration::minutes(10)) },
                    DeliveryResult::Retry { at: now + Duration::minutes(1), error: "later".into() },
                    DeliveryResult::Dead { error: "never".into() },
                ][dice.roll(3)]
                .clone();
                for (store, lease) in [(&stores[0], lease), (&stores[1], other)] {
                    let settle = Settle { now, id: first.item.id(), lease, result: result.clone() };
                    store.settle(settle).await.unwrap();
                }
            }
            claimed
        }
        _ => match dice.one_of(&known.users) {
            Some(user_id) if dice.roll(2) == 0 => {
                let which =
                    dice.one_of(&known.sessions).map_or(SessionSelector::All, SessionSelector::AllBut);
                both!(EndSessions { now, user_id, which, audit: audit(AuditEvent::SignOut) }, end_sessions)
            }
            _ => {
                let purge = Purge {
                    now,
                    ended_before: now - Duration::DAY,
                    settled_before: now - Duration::WEEK,
                    audited_before: now - Duration::days(365),
                    known_before: now - Duration::days(30),
                    batch: 1000,
                };
                // Rows of limits that were refused are an adapter's own affair.
                let count = |mut purged: crate::port::store::upkeep::Purged| {
                    purged.throttles = 0;
                    format!("{purged:?}")
                };
                let tested = count(stores[0].purge(purge).await.unwrap());
                (tested, count(stores[1].purge(purge).await.unwrap()))
            }
        },
    }
}

/// Everything that can be seen through the port.
async fn look(store: &Arc<dyn Store>, known: &Known, now: OffsetDateTime) -> Vec<String> {
    let mut seen = vec![format!("{:?}", audited(store).await), format!("{:?}", owed(store).await)];
    for address in ADDRESSES {
        seen.push(format!("{:?}", password_of(store, address).await));
        for purpose in CodePurpose::ALL {
            seen.push(format!("{:?}", candidates(store, address, purpose, now).await));
        }
    }
    for id in &known.sessions {
        seen.push(format!(
            "{:?}",
            store.session(SessionQuery { now, key: SessionKey::Id(*id) }).await.unwrap()
        ));
    }
    seen.push(format!("{:?}", store.users(UserQuery::default()).await.unwrap()));
    seen
}
