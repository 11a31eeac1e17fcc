//! The law of the model: any sequence of commands answers as on the reference store.

use std::fmt::Debug;
use std::sync::Arc;

use time::{Duration, OffsetDateTime};

use super::StoreHarness;
use super::build::{
    NOW, acting, add_key, all_events, candidates, change_email, confirming, create, delete, email, end,
    entries, failed, feed, guard, guess, invite, lease, open, outbox, password_of, profile, purge, register,
    replace, request, requeue, revoke_keys, role, rotate, rule, session, set_password, signing_key, undoing,
    update, verify,
};
use crate::domain::code::{CodeForm, CodePurpose};
use crate::domain::id::{CodeId, EventId, OutboxId, RegistrationId, SessionId, UserId};
use crate::domain::password::{PasswordHash, PasswordVersion};
use crate::domain::profile::Profile;
use crate::domain::role::Role;
use crate::domain::secret::Digest;
use crate::domain::user::{Locale, UserStatus, Username};
use crate::memory::MemoryStore;
use crate::port::store::account::{
    Actor, Credentials, CredentialsQuery, RolesChange, UserChange, UserCreated, UserQuery,
};
use crate::port::store::code::{CandidateFilter, CandidateQuery, CodeTarget, RedeemEffect};
use crate::port::store::event::{EventResult, SettleEvent};
use crate::port::store::key::RevokedKeys;
use crate::port::store::outbox::{
    Claim, DeliveryResult, DomainRoom, Lease, OutboxStatus, RenewLeases, Settle,
};
use crate::port::store::session::{NewSession, SessionKey, SessionQuery, SessionSelector, SessionsQuery};
use crate::port::store::upkeep::{Purge, Purged};
use crate::port::store::{Store, StoreError};

const ADDRESSES: [&str; 3] = ["ana@example.org", "BOB@example.org", "eva@exámple.org"];
const NETWORKS: [&str; 3] = ["home", "work", "away"];
const SEQUENCES: u64 = 40;
const COMMANDS: usize = 60;
/// After so many commands everything that the port shows is compared.
const LOOK_EVERY: usize = 6;

/// A small generator: the same sequence for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % sides as u64).unwrap()
    }

    fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        if items.is_empty() { None } else { Some(items[self.roll(items.len())]) }
    }
}

/// The store under test, the model, and what the commands so far made, to draw from.
struct Pair {
    tested: Arc<dyn Store>,
    model: Arc<dyn Store>,
    dice: Dice,
    now: OffsetDateTime,
    registrations: Vec<RegistrationId>,
    codes: Vec<CodeId>,
    users: Vec<UserId>,
    sessions: Vec<NewSession>,
    /// The refresh tokens that a session had, the latest last.
    tokens: Vec<(SessionId, Digest)>,
    claims: Vec<(OutboxId, Lease)>,
    event_claims: Vec<(EventId, Lease)>,
}

/// Seeded sequences of commands with a jumping clock, on the store under test and on the reference model.
pub async fn any_sequence_answers_as_the_model_does(harness: &dyn StoreHarness) {
    for seed in 0..SEQUENCES {
        let mut pair = Pair {
            tested: harness.fresh().await,
            model: Arc::new(MemoryStore::new()),
            dice: Dice(seed),
            now: NOW,
            registrations: Vec::new(),
            codes: Vec::new(),
            users: Vec::new(),
            sessions: Vec::new(),
            tokens: Vec::new(),
            claims: Vec::new(),
            event_claims: Vec::new(),
        };
        for step in 1..=COMMANDS {
            let jump = [0, 0, 1, 30, 599, 600, 7200, 90_000, -60, -3600][pair.dice.roll(10)];
            pair.now += Duration::seconds(jump);
            let (what, tested, model) = pair.command().await;
            assert_eq!(tested, model, "seed {seed}, step {step}: {what}");
            if step % LOOK_EVERY == 0 {
                let (tested, model) = (pair.look(&pair.tested).await, pair.look(&pair.model).await);
                for (tested, model) in tested.iter().zip(&model) {
                    assert_eq!(tested, model, "seed {seed}, after step {step}");
                }
                assert_eq!(tested.len(), model.len(), "seed {seed}, after step {step}");
            }
        }
    }
}

/// What was asked, what the store under test answered, and what the model did.
type Answers = (String, String, String);

/// Sends one command to both stores; now and then a second time, where the answer says that it is idempotent.
macro_rules! both {
    ($pair:ident.$method:ident($command:expr), twice if $succeeded:pat) => {{
        let command = $command;
        let what = format!("{} {command:?}", stringify!($method));
        let mut tested = answer(&$pair.tested.$method(command.clone()).await);
        let outcome = $pair.model.$method(command.clone()).await;
        let mut model = answer(&outcome);
        if matches!(outcome, Ok($succeeded)) && $pair.dice.one_in(6) {
            tested += &answer(&$pair.tested.$method(command.clone()).await);
            model += &answer(&$pair.model.$method(command).await);
        }
        (what, tested, model)
    }};
    ($pair:ident.$method:ident($command:expr)) => {{
        let command = $command;
        let what = format!("{} {command:?}", stringify!($method));
        let tested = answer(&$pair.tested.$method(command.clone()).await);
        (what, tested, answer(&$pair.model.$method(command).await))
    }};
}

fn answer<T: Debug>(outcome: &Result<T, StoreError>) -> String {
    format!("{outcome:?}; ")
}

impl Pair {
    async fn command(&mut self) -> Answers {
        let address = ADDRESSES[self.dice.roll(3)];
        match self.dice.roll(22) {
            0 | 1 => self.register(address).await,
            2 | 3 => self.request_code(address).await,
            4..=7 => self.redeem(address).await,
            8 => self.create_user(address).await,
            9 => self.open_session(address).await,
            10 => self.login_failed(address).await,
            11 => self.replace_password().await,
            12 if self.dice.one_in(2) => self.claim_events().await,
            12 => self.claim().await,
            13 if self.dice.one_in(3) => self.renew().await,
            13 if self.dice.one_in(2) => self.settle_event().await,
            13 => self.settle().await,
            14 => self.end_sessions().await,
            15 | 16 => self.rotate().await,
            17 | 18 => self.update_user().await,
            19 => self.delete_user().await,
            20 => self.request_email_change(address).await,
            _ => self.upkeep().await,
        }
    }

    fn profile(&mut self) -> Option<Profile> {
        [None, Some(r#"{"plan":"free"}"#), Some(r#"{"plan":"paid"}"#)][self.dice.roll(3)].map(profile)
    }

    async fn register(&mut self, address: &str) -> Answers {
        use crate::port::store::account::Registered;

        let mut command = register(address, self.now);
        command.throttle = vec![rule(&format!("request {address}"), 4, Duration::minutes(10))];
        command.expires_at = self.now + [Duration::HOUR, Duration::DAY][self.dice.roll(2)];
        command.profile = self.profile();
        command.tries = command.tries.filter(|_| !self.dice.one_in(8));
        self.codes.push(command.code.id);
        self.registrations.push(command.id);
        both!(self.register(command), twice if Registered::Pending)
    }

    async fn request_code(&mut self, address: &str) -> Answers {
        use crate::port::store::code::CodeRequested;

        // A code of `ChangeEmail` names an address, so another command issues it.
        let purpose = CodePurpose::ALL[self.dice.roll(4)];
        let mut command = request(address, purpose, self.now);
        command.throttle = vec![rule(&format!("code {address}"), 3, Duration::minutes(10))];
        let registration = self.dice.one_of(&self.registrations).map(CodeTarget::Registration);
        let user = self.dice.one_of(&self.users).map(CodeTarget::User);
        // Whom a user that is named by identifier, and not by the address, verifies is not said.
        let user = user.filter(|_| purpose != CodePurpose::EmailVerification);
        command.target =
            [Some(CodeTarget::Anybody), registration, user][self.dice.roll(3)].unwrap_or(CodeTarget::Anybody);
        if purpose == CodePurpose::ResetPassword && self.dice.one_in(2) {
            command.code.form = CodeForm::Link;
            command.tries = None;
        }
        self.codes.push(command.code.id);
        both!(self.request_code(command), twice if CodeRequested::Queued)
    }

    async fn redeem(&mut self, address: &str) -> Answers {
        let open: Vec<(CodePurpose, Vec<CodeId>)> = {
            let mut open = Vec::new();
            for purpose in CodePurpose::ALL {
                let found = candidates(&self.model, address, purpose, self.now).await;
                if !found.is_empty() {
                    open.push((purpose, found.iter().map(|found| found.id).collect()));
                }
            }
            open
        };
        let (purpose, open) = match open.get(self.dice.roll(open.len() + 1)) {
            Some(open) => open.clone(),
            None => (CodePurpose::ALL[self.dice.roll(5)], Vec::new()),
        };
        let hit = match self.dice.roll(6) {
            0 => None,
            1 => self.dice.one_of(&self.codes),
            _ => self.dice.one_of(&open),
        };
        let session = self.dice.one_in(2).then(|| session(self.now));
        let effect = match self.dice.roll(6) {
            0 | 1 => verify(),
            2 | 3 => {
                self.sessions.extend(session.clone());
                set_password("set", session)
            }
            _ if self.dice.one_in(2) => undoing(self.now).0,
            _ => confirming(self.now).0,
        };
        if let RedeemEffect::ChangeEmail { undo: link, .. }
        | RedeemEffect::UndoEmailChange { reset: link, .. } = &effect
        {
            self.codes.push(link.id);
        }
        if let RedeemEffect::Verify { user_id, .. } | RedeemEffect::SetPassword { user_id, .. } = &effect {
            self.users.push(*user_id);
        }
        let mut command = guess(address, purpose, &open, hit, effect, self.now);
        command.settled = self.dice.one_in(2);
        command.attempts = 3;
        if self.dice.one_in(8) {
            command.tries.clear();
        }
        command.budgets = self
            .dice
            .one_in(2)
            .then(|| rule(&format!("budget {address}"), 5, Duration::DAY))
            .into_iter()
            .collect();
        command.events = all_events();
        both!(self.redeem(command))
    }

    async fn create_user(&mut self, address: &str) -> Answers {
        let mut command =
            if self.dice.one_in(2) { create(address, self.now) } else { invite(address, self.now) };
        command.events = all_events();
        command.roles.extend(self.dice.one_in(3).then(Role::admin));
        self.users.push(command.id);
        self.codes.extend(command.invitation.map(|(code, _)| code.id));
        both!(self.create_user(command), twice if UserCreated::Created(_))
    }

    async fn open_session(&mut self, address: &str) -> Answers {
        use crate::port::store::session::SessionOpened;

        let query = CredentialsQuery { now: self.now, email: email(address).key().clone(), guard: None };
        let known = self.model.credentials(query).await.unwrap().user;
        let Some(Credentials { user, version, .. }) = known else { return Answers::default() };
        let version = if self.dice.one_in(4) { version.next() } else { version };
        let mut command = open(&user, version, self.now);
        let network = NETWORKS[self.dice.roll(3)];
        command.session.network = super::build::digest(network);
        command.guard = self.dice.one_in(2).then(|| guard(address, network, self.now));
        command.upgrade = self.dice.one_in(4).then(|| PasswordHash::new("upgraded"));
        command.events = all_events();
        self.sessions.push(command.session.clone());
        both!(self.open_session(command), twice if SessionOpened::Opened(_))
    }

    async fn login_failed(&mut self, address: &str) -> Answers {
        let user_id = self.dice.one_of(&self.users);
        let guard = guard(address, NETWORKS[self.dice.roll(3)], self.now);
        both!(self.login_failed(failed(user_id, guard, self.now)))
    }

    async fn replace_password(&mut self) -> Answers {
        let Some(user_id) = self.dice.one_of(&self.users) else { return Answers::default() };
        let expect = [PasswordVersion::NONE, PasswordVersion::FIRST, PasswordVersion::FIRST.next()];
        let mut command = replace(user_id, expect[self.dice.roll(3)], self.now);
        let sessions: Vec<_> = self.sessions.iter().map(|session| session.id).collect();
        command.keep = self.dice.one_of(&sessions).filter(|_| self.dice.one_in(2));
        command.events = all_events();
        both!(self.replace_password(command))
    }

    async fn claim(&mut self) -> Answers {
        let lease_until = self.now + Duration::minutes(5);
        let limit = [1, 2, 100][self.dice.roll(3)];
        let lease = lease();
        let command = Claim { now: self.now, lease, lease_until, limit, room: DomainRoom::UNBOUNDED };
        let answers = both!(self.claim(command));
        // What was claimed is what has now been tried once more; a stale lease is drawn as well as the last one.
        for entry in outbox(&self.model).await {
            if answers.2.contains(&format!("{:?}", entry.mail.id)) {
                self.claims.push((entry.mail.id, lease));
            }
        }
        answers
    }

    async fn settle(&mut self) -> Answers {
        let mut commands = Vec::new();
        for _ in 0..=self.dice.roll(3) {
            let Some((id, lease)) = self.dice.one_of(&self.claims) else { return Answers::default() };
            let result = match self.dice.roll(4) {
                0 => DeliveryResult::Retry { at: self.now + Duration::MINUTE, error: "later".into() },
                1 => DeliveryResult::Dead { error: "never".into() },
                _ => DeliveryResult::Sent { code_ttl: Some(Duration::minutes(10)) },
            };
            commands.push(Settle { now: self.now, id, lease, result });
        }
        both!(self.settle_all(commands))
    }

    async fn renew(&mut self) -> Answers {
        let lease_until = self.now + Duration::minutes(5);
        let mut mails = Vec::new();
        for _ in 0..=self.dice.roll(3) {
            mails.extend(self.dice.one_of(&self.claims));
        }
        if self.dice.one_in(2) {
            return both!(self.renew_mails(RenewLeases { lease_until, held: mails }));
        }
        let events: Vec<_> = self.dice.one_of(&self.event_claims).into_iter().collect();
        both!(self.renew_events(RenewLeases { lease_until, held: events }))
    }

    async fn claim_events(&mut self) -> Answers {
        let lease_until = self.now + Duration::minutes(5);
        let limit = [1, 2, 100][self.dice.roll(3)];
        let lease = lease();
        let command = Claim { now: self.now, lease, lease_until, limit, room: DomainRoom::UNBOUNDED };
        let answers = both!(self.claim_events(command));
        for event in feed(&self.model).await {
            if answers.2.contains(&format!("{:?}", event.id)) {
                self.event_claims.push((event.id, lease));
            }
        }
        answers
    }

    async fn settle_event(&mut self) -> Answers {
        let mut commands = Vec::new();
        for _ in 0..=self.dice.roll(3) {
            let Some((id, lease)) = self.dice.one_of(&self.event_claims) else { return Answers::default() };
            let result = match self.dice.roll(3) {
                0 => EventResult::Retry { at: self.now + Duration::MINUTE },
                _ => EventResult::Delivered,
            };
            commands.push(SettleEvent { now: self.now, id, lease, result });
        }
        both!(self.settle_events(commands))
    }

    async fn end_sessions(&mut self) -> Answers {
        let Some(user_id) = self.dice.one_of(&self.users) else { return Answers::default() };
        let sessions: Vec<_> = self.sessions.iter().map(|session| session.id).collect();
        let which = match (self.dice.one_of(&sessions), self.dice.roll(3)) {
            (Some(session), 0) => SessionSelector::One(session),
            (Some(session), 1) => SessionSelector::AllBut(session),
            _ => SessionSelector::All,
        };
        let mut command = end(user_id, which, self.now);
        command.events = all_events();
        both!(self.end_sessions(command))
    }

    async fn rotate(&mut self) -> Answers {
        let Some(session) =
            self.dice.one_of(&self.sessions.iter().map(|new| (new.id, new.refresh)).collect::<Vec<_>>())
        else {
            return Answers::default();
        };
        let (id, first) = session;
        let mut tokens = vec![first];
        tokens.extend(self.tokens.iter().filter(|(of, _)| *of == id).map(|(_, token)| *token));
        let (current, last) = (tokens[tokens.len() - 1], tokens.len().saturating_sub(2));
        let presented = match self.dice.roll(8) {
            0 => self.dice.one_of(&tokens).unwrap_or(current),
            1 | 2 => tokens[last],
            _ => current,
        };
        let mut command = rotate(id, presented, &format!("token {}", self.dice.0), self.now);
        let next = command.next[0];
        command.next.push(current);
        command.events = all_events();
        if self.dice.one_in(4) {
            command.access = None;
        }
        let answers = both!(self.rotate(command));
        if answers.2.starts_with("Ok(Rotated(") {
            self.tokens.push((id, next));
        }
        answers
    }

    /// Nobody, or a user as they are now, or almost.
    async fn actor(&mut self) -> Option<Actor> {
        let id = self.dice.one_of(&self.users).filter(|_| self.dice.one_in(2))?;
        let user = self.model.user(id).await.unwrap()?;
        let mut by = acting(&user, [&[][..], &["admin"], &["support"]][self.dice.roll(3)]);
        if self.dice.one_in(6) {
            by.roles.insert(role("other"));
        }
        Some(by)
    }

    async fn update_user(&mut self) -> Answers {
        let Some(id) = self.dice.one_of(&self.users) else { return Answers::default() };
        let (names, tags) = ([None, Some("Ana"), Some("Ñandú")], [None, Some("en"), Some("es-MX")]);
        let name = names[self.dice.roll(3)].map(|name| Username::parse(name).unwrap());
        let tag = tags[self.dice.roll(3)].map(|tag| Locale::parse(tag).unwrap());
        let kept = self.profile();
        let status = [UserStatus::Active, UserStatus::Active, UserStatus::Disabled][self.dice.roll(3)];
        let which = role(["admin", "support", "user"][self.dice.roll(3)]);
        let change = [
            RolesChange::Grant(which.clone()),
            RolesChange::Revoke(which.clone()),
            RolesChange::Set([which].into()),
        ];
        let change = UserChange {
            username: self.dice.one_in(2).then_some(name),
            locale: self.dice.one_in(2).then_some(tag),
            profile: self.dice.one_in(2).then_some(kept),
            status: self.dice.one_in(2).then_some(status),
            roles: Some(change[self.dice.roll(3)].clone()).filter(|_| self.dice.one_in(2)),
        };
        let mut command = update(id, change, self.now);
        (command.by, command.events) = (self.actor().await, all_events());
        both!(self.update_user(command))
    }

    async fn delete_user(&mut self) -> Answers {
        let Some(id) = self.dice.one_of(&self.users) else { return Answers::default() };
        let mut command = delete(id, self.now);
        let until = [None, Some(Duration::HOUR), Some(Duration::DAY), Some(Duration::days(30))];
        command.restorable_until = until[self.dice.roll(4)].map(|grace| self.now + grace);
        let expect = [None, None, Some(PasswordVersion::FIRST), Some(PasswordVersion::FIRST.next())];
        (command.expect, command.events) = (expect[self.dice.roll(4)], all_events());
        command.by = self.actor().await;
        both!(self.delete_user(command))
    }

    async fn request_email_change(&mut self, address: &str) -> Answers {
        let Some(id) = self.dice.one_of(&self.users) else { return Answers::default() };
        let mut command = change_email(id, address, self.now);
        command.throttle = vec![rule(&format!("change {address}"), 3, Duration::minutes(10))];
        let expect = [None, None, None, Some(PasswordVersion::FIRST)];
        command.expect = expect[self.dice.roll(4)];
        command.tries = command.tries.filter(|_| !self.dice.one_in(8));
        self.codes.push(command.code.id);
        both!(self.request_email_change(command))
    }

    async fn upkeep(&mut self) -> Answers {
        let dead = outbox(&self.model).await.into_iter().find(|entry| entry.status == OutboxStatus::Dead);
        if let Some(dead) = dead
            && self.dice.one_in(4)
        {
            return both!(self.requeue(requeue(dead.mail.id, self.now)));
        }
        if self.dice.one_in(4) {
            let key =
                signing_key(u8::try_from(self.dice.roll(9)).unwrap(), ["EdDSA", "ES256"][self.dice.roll(2)]);
            let keys = self.model.signing_keys().await.unwrap_or_default();
            let known = keys.get(self.dice.roll(3)).map(|key| RevokedKeys::One(key.id));
            return match self.dice.roll(4) {
                0 => both!(self.revoke_signing_keys(revoke_keys(known.unwrap_or(RevokedKeys::All), 9, key))),
                1 => both!(self.revoke_signing_keys(revoke_keys(RevokedKeys::All, 9, key))),
                _ => both!(self.add_signing_key(add_key(key))),
            };
        }
        let ages = [Duration::ZERO, Duration::HOUR, Duration::DAY, Duration::days(30)];
        let now = self.now;
        let mut age = || now - ages[self.dice.roll(4)];
        let command = Purge {
            ended_before: age(),
            settled_before: age(),
            dead_before: age(),
            deleted_before: age(),
            retired_before: age(),
            audited_before: age(),
            events_before: age(),
            known_before: age(),
            ..purge(now)
        };
        let (tested, model) = (self.tested.purge(command).await, self.model.purge(command).await);
        let least = |count: fn(&Purged) -> u64| model.as_ref().map_or(0, count);
        let (registrations, codes) = (least(|purged| purged.registrations), least(|purged| purged.codes));
        let access_tokens = least(|purged| purged.access_tokens);
        // How a store keeps a limit of which nothing is counted is its own affair, and so is whether an access token goes
        // with its session or is counted when it runs out, and which void rows it writes to take the same time for nobody.
        let count = |outcome: Result<Purged, StoreError>| {
            answer(&outcome.map(|purged| Purged {
                throttles: 0,
                registrations: purged.registrations.min(registrations),
                codes: purged.codes.min(codes),
                access_tokens: purged.access_tokens.min(access_tokens),
                ..purged
            }))
        };
        (format!("{command:?}"), count(tested), count(model))
    }

    /// Everything that can be seen through the port.
    async fn look(&self, store: &Arc<dyn Store>) -> Vec<String> {
        let now = self.now;
        let mut seen = Vec::new();
        seen.extend(entries(store).await.iter().map(|entry| format!("{entry:?}")));
        seen.extend(outbox(store).await.iter().map(|entry| format!("{entry:?}")));
        seen.extend(feed(store).await.iter().map(|event| format!("{event:?}")));
        seen.push(format!("{:?}", store.users(UserQuery::default()).await));
        seen.push(format!("{:?}", store.signing_keys().await));
        for prefix in ["", "a", "b", "ñ"] {
            let query = UserQuery { prefix: Some(prefix.into()), ..UserQuery::default() };
            seen.push(format!("{prefix} {:?}", store.users(query).await));
        }
        for user_id in self.users.iter().rev().take(10).copied() {
            let user = store.user(user_id).await;
            // What stands in a profile is not shown by itself.
            let kept = user.as_ref().ok().and_then(Option::as_ref).and_then(|user| user.profile.as_ref());
            seen.push(format!("{user_id:?} {user:?} {:?}", kept.map(Profile::as_str)));
            seen.push(format!("{:?}", store.sessions(SessionsQuery { now, user_id }).await));
        }
        for address in ADDRESSES {
            seen.push(format!("{:?}", password_of(store, address).await));
            for network in NETWORKS {
                let guard = Some(guard(address, network, now));
                let query = CredentialsQuery { now, email: email(address).key().clone(), guard };
                seen.push(format!("{address} {network} {:?}", store.credentials(query).await));
            }
            let which = CandidateFilter::Address {
                email: email(address).key().clone(),
                purposes: CodePurpose::ALL.into(),
                registration: None,
            };
            seen.push(format!("{address} {:?}", store.candidates(CandidateQuery { now, which }).await));
        }
        for code in self.codes.iter().rev().take(10) {
            let query = CandidateQuery { now, which: CandidateFilter::Link(*code) };
            seen.push(format!("{code:?} {:?}", store.candidates(query).await));
        }
        for session in self.sessions.iter().rev().take(10) {
            let access = session.access.map(|(digest, _)| SessionKey::Access(digest));
            for key in [Some(SessionKey::Id(session.id)), access].into_iter().flatten() {
                seen.push(format!("{key:?} {:?}", store.session(SessionQuery { now, key }).await));
            }
        }
        seen
    }
}
