//! Commands as short as a law needs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::domain::audit::{AuditDraft, AuditEntry, AuditEvent};
use crate::domain::code::{CodeForm, CodeLength, CodePurpose};
use crate::domain::email::Email;
use crate::domain::event::{Event, EventKind};
use crate::domain::id::{
    AuditId, CodeId, EventId, OutboxId, RegistrationId, SessionId, SigningKeyId, UserId,
};
use crate::domain::mail::MailKind;
use crate::domain::page::PageSize;
use crate::domain::password::{PasswordHash, PasswordVersion};
use crate::domain::profile::Profile;
use crate::domain::role::{Role, Roles};
use crate::domain::secret::{Digest, SecretKeyId};
use crate::domain::session::AuthMethod;
use crate::domain::undeliverable::{UndeliverableAddress, UndeliverableReason};
use crate::domain::user::{User, UserStatus};
use crate::port::store::account::{
    Actor, CreateUser, DeleteUser, ImportedUser, NewPassword, Register, Registered, ReplacePassword,
    RequestEmailChange, UpdateUser, UserChange, UserCreated,
};
use crate::port::store::audit::{AuditQuery, Record};
use crate::port::store::code::{
    Candidate, CandidateFilter, CandidateQuery, CodeTarget, NewCode, Redeem, RedeemEffect, RequestCode,
};
use crate::port::store::event::{EventFeed, EventQuery, SettleEvent};
use crate::port::store::key::{AddSigningKey, RevokeSigningKeys, RevokedKeys, SealedSigningKey};
use crate::port::store::outbox::{
    Claim, Claimed, DeliveryResult, DomainRoom, Lease, OutboxEntry, OutboxQuery, Requeue, Settle, Settled,
};
use crate::port::store::session::{
    EndSessions, LoginFailed, NewSession, OpenSession, Rotate, SessionKey, SessionOpened, SessionQuery,
    SessionSelector,
};
use crate::port::store::throttle::{LoginGuard, ThrottleRule};
use crate::port::store::undeliverable::{MarkDeliverable, MarkUndeliverable};
use crate::port::store::upkeep::Purge;
use crate::port::store::{EventDraft, MailDraft, Store, StoreError};

pub(super) const NOW: OffsetDateTime = time::macros::datetime!(2026-01-01 12:00 UTC);
pub(super) const ATTEMPTS: u32 = 5;
const TTL: Duration = Duration::minutes(10);
/// For how long a refresh token that was replaced counts.
pub(super) const GRACE: Duration = Duration::seconds(30);

static NEXT: AtomicU64 = AtomicU64::new(1);

/// An identifier that nobody else has, later than every one before it.
fn fresh() -> Uuid {
    let n = u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
    Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0000 + (n << 70) + n)
}

pub(super) fn later(seconds: i64) -> OffsetDateTime {
    NOW + Duration::seconds(seconds)
}

pub(super) fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

pub(super) fn digest(name: &str) -> Digest {
    crate::crypto::digest::token_digest(name)
}

pub(super) fn rule(name: &str, limit: u32, window: Duration) -> ThrottleRule {
    ThrottleRule { key: digest(name), limit, window }
}

pub(super) fn tries(email: &str, purpose: CodePurpose) -> ThrottleRule {
    rule(&format!("tries {} {purpose}", self::email(email).key()), ATTEMPTS, TTL)
}

pub(super) fn audit(event: AuditEvent) -> AuditDraft {
    AuditDraft {
        id: AuditId::from_uuid(fresh()),
        event,
        actor: None,
        email: None,
        ip: None,
        user_agent: None,
        request_id: None,
    }
}

/// A profile, as a type of the host's wrote it.
pub(super) fn profile(text: &str) -> Profile {
    Profile::from_stored(text.to_owned()).unwrap()
}

pub(super) fn mail(kind: MailKind) -> MailDraft {
    MailDraft { id: OutboxId::from_uuid(fresh()), kind }
}

pub(super) fn all_events() -> Vec<EventDraft> {
    EventKind::ALL.map(|kind| EventDraft { id: EventId::from_uuid(fresh()), kind }).into()
}

pub(super) fn code(now: OffsetDateTime) -> NewCode {
    NewCode {
        id: CodeId::from_uuid(fresh()),
        form: CodeForm::Digits(CodeLength::SIX),
        key: SecretKeyId::from_bytes([7; 8]),
        dies_at: now + Duration::hours(24),
    }
}

pub(super) fn user_id() -> UserId {
    UserId::from_uuid(fresh())
}

pub(super) fn register(address: &str, now: OffsetDateTime) -> Register {
    Register {
        now,
        id: RegistrationId::from_uuid(fresh()),
        email: email(address),
        password: PasswordHash::new(format!("registered {address}")),
        username: None,
        locale: None,
        profile: None,
        expires_at: now + Duration::hours(24),
        code: code(now),
        code_mail: mail(MailKind::VerifyEmail),
        taken_mail: mail(MailKind::AccountExists),
        throttle: Vec::new(),
        tries: Some(tries(address, CodePurpose::EmailVerification)),
        audit: audit(AuditEvent::Registration),
    }
}

pub(super) fn request(address: &str, purpose: CodePurpose, now: OffsetDateTime) -> RequestCode {
    RequestCode {
        now,
        email: email(address).key().clone(),
        purpose,
        target: CodeTarget::Anybody,
        code: code(now),
        mail: mail(MailKind::of_code(purpose)),
        throttle: Vec::new(),
        tries: Some(tries(address, purpose)),
        audit: audit(AuditEvent::CodeRequest),
    }
}

pub(super) fn verify() -> RedeemEffect {
    RedeemEffect::Verify { user_id: user_id(), welcome: Some(mail(MailKind::Welcome)) }
}

pub(super) fn set_password(hash: &str, session: Option<NewSession>) -> RedeemEffect {
    RedeemEffect::SetPassword {
        user_id: user_id(),
        welcome: Some(mail(MailKind::Welcome)),
        password: NewPassword {
            hash: PasswordHash::new(hash),
            session,
            notice: mail(MailKind::PasswordChanged),
        },
    }
}

/// A guess at the codes of an address; `hit` is the one it is equal to.
pub(super) fn guess(
    address: &str,
    purpose: CodePurpose,
    candidates: &[CodeId],
    hit: Option<CodeId>,
    effect: RedeemEffect,
    now: OffsetDateTime,
) -> Redeem {
    Redeem {
        now,
        latest_end: now + TTL,
        candidates: candidates.to_vec(),
        hit,
        settled: false,
        attempts: ATTEMPTS,
        tries: vec![tries(address, purpose)],
        budgets: Vec::new(),
        effect,
        audit: audit(AuditEvent::Verification),
        events: Vec::new(),
    }
}

/// A right guess at an e-mail verification.
pub(super) fn right(address: &str, code: CodeId, now: OffsetDateTime) -> Redeem {
    guess(address, CodePurpose::EmailVerification, &[code], Some(code), verify(), now)
}

/// A wrong guess at an e-mail verification.
pub(super) fn wrong(address: &str, candidates: &[CodeId], now: OffsetDateTime) -> Redeem {
    guess(address, CodePurpose::EmailVerification, candidates, None, verify(), now)
}

pub(super) fn session(now: OffsetDateTime) -> NewSession {
    let id = fresh();
    NewSession {
        id: SessionId::from_uuid(id),
        refresh: digest(&format!("refresh {id}")),
        access: Some((digest(&format!("access {id}")), now + Duration::minutes(15))),
        idle_expires_at: now + Duration::days(14),
        expires_at: now + Duration::days(90),
        method: AuthMethod::Password,
        ip: Some(std::net::IpAddr::from([192, 0, 2, 1])),
        user_agent: Some("agent".into()),
        network: digest("home"),
    }
}

pub(super) fn open(user: &User, version: PasswordVersion, now: OffsetDateTime) -> OpenSession {
    OpenSession {
        now,
        user_id: user.id,
        expect: version,
        session: session(now),
        upgrade: None,
        guard: None,
        throttle: Vec::new(),
        restore: audit(AuditEvent::UserRestoration),
        audit: audit(AuditEvent::SignIn),
        events: Vec::new(),
    }
}

pub(super) fn guard(address: &str, network: &str, now: OffsetDateTime) -> LoginGuard {
    LoginGuard {
        own: rule(&format!("own {address} {network}"), 3, Duration::minutes(15)),
        network: rule(&format!("network {network}"), 20, Duration::minutes(15)),
        wide: None,
        far: rule(&format!("far {address}"), 6, Duration::days(1)),
        network_key: digest(network),
        known_since: now - Duration::days(30),
    }
}

#[expect(clippy::large_types_passed_by_value, reason = "a command is made once and moved")]
pub(super) fn failed(user_id: Option<UserId>, guard: LoginGuard, now: OffsetDateTime) -> LoginFailed {
    LoginFailed { now, user_id, guard: Some(guard), audit: audit(AuditEvent::SignIn) }
}

pub(super) fn replace(user_id: UserId, expect: PasswordVersion, now: OffsetDateTime) -> ReplacePassword {
    ReplacePassword {
        now,
        user_id,
        expect,
        password: PasswordHash::new("replaced"),
        keep: None,
        notice: mail(MailKind::PasswordChanged),
        throttle: Vec::new(),
        audit: audit(AuditEvent::PasswordChange),
        events: Vec::new(),
    }
}

pub(super) fn end(user_id: UserId, which: SessionSelector, now: OffsetDateTime) -> EndSessions {
    EndSessions { now, user_id, which, by: None, audit: audit(AuditEvent::SignOut), events: Vec::new() }
}

/// Renews a session by the token `presented`; its successor is `next`.
pub(super) fn rotate(id: SessionId, presented: Digest, next: &str, now: OffsetDateTime) -> Rotate {
    Rotate {
        now,
        id,
        presented,
        next: vec![digest(next)],
        access: Some((digest(&format!("access {}", fresh())), now + Duration::minutes(15))),
        idle_expires_at: now + Duration::days(14),
        grace: GRACE,
        throttle: Vec::new(),
        audit: audit(AuditEvent::SessionRefresh),
        events: Vec::new(),
    }
}

pub(super) fn update(id: UserId, change: UserChange, now: OffsetDateTime) -> UpdateUser {
    UpdateUser {
        now,
        id,
        by: None,
        change,
        throttle: Vec::new(),
        audit: audit(AuditEvent::UserUpdate),
        events: Vec::new(),
    }
}

/// Records a refusal.
pub(super) fn record(throttle: &[ThrottleRule], now: OffsetDateTime) -> Record {
    let entry = audit(AuditEvent::AccessDenied).refused(now, "forbidden", None);
    Record { now, entry, throttle: throttle.to_vec() }
}

/// Disables a user.
pub(super) fn disable(id: UserId, now: OffsetDateTime) -> UpdateUser {
    update(id, UserChange { status: Some(UserStatus::Disabled), ..UserChange::default() }, now)
}

/// Deletes a user for good.
pub(super) fn delete(id: UserId, now: OffsetDateTime) -> DeleteUser {
    DeleteUser {
        now,
        id,
        by: None,
        expect: None,
        restorable_until: None,
        notice: Some(mail(MailKind::AccountDeleted)),
        throttle: Vec::new(),
        audit: audit(AuditEvent::UserDeletion),
        events: Vec::new(),
    }
}

/// Whoever acts, as they are now; roles of `beyond` are out of their reach.
pub(super) fn acting(actor: &User, beyond: &[&str]) -> Actor {
    Actor { id: actor.id, roles: actor.roles.clone(), beyond: roles(beyond) }
}

pub(super) fn role(name: &str) -> Role {
    name.parse().unwrap()
}

pub(super) fn roles(names: &[&str]) -> Roles {
    names.iter().map(|name| role(name)).collect()
}

pub(super) fn link(now: OffsetDateTime) -> NewCode {
    NewCode { form: CodeForm::Link, ..code(now) }
}

pub(super) fn change_email(user_id: UserId, new: &str, now: OffsetDateTime) -> RequestEmailChange {
    RequestEmailChange {
        now,
        user_id,
        new_email: email(new),
        expect: None,
        code: code(now),
        code_mail: mail(MailKind::ChangeEmailCode),
        taken_mail: mail(MailKind::AccountExists),
        notice: mail(MailKind::EmailChangeRequested),
        throttle: Vec::new(),
        tries: Some(tries(&format!("{}@example.org", user_id.as_uuid()), CodePurpose::ChangeEmail)),
        audit: audit(AuditEvent::EmailChangeRequest),
    }
}

/// The effect of confirming a new address, and the link that undoes it.
pub(super) fn confirming(now: OffsetDateTime) -> (RedeemEffect, CodeId) {
    let undo = link(now);
    (RedeemEffect::ChangeEmail { undo, undo_mail: mail(MailKind::EmailChanged) }, undo.id)
}

/// The effect of undoing a change of address, and the link that resets the password.
pub(super) fn undoing(now: OffsetDateTime) -> (RedeemEffect, CodeId) {
    let reset = link(now);
    (RedeemEffect::UndoEmailChange { reset, reset_mail: mail(MailKind::ResetPasswordLink) }, reset.id)
}

/// A right guess at the code by which a user changes the address.
pub(super) fn confirm(user: UserId, code: CodeId, effect: RedeemEffect, now: OffsetDateTime) -> Redeem {
    let address = format!("{}@example.org", user.as_uuid());
    let guess = guess(&address, CodePurpose::ChangeEmail, &[code], Some(code), effect, now);
    Redeem { audit: audit(AuditEvent::EmailChange), ..guess }
}

/// The use of a link.
pub(super) fn follow(link: CodeId, effect: RedeemEffect, now: OffsetDateTime) -> Redeem {
    Redeem {
        now,
        latest_end: now + Duration::days(3),
        candidates: Vec::new(),
        hit: Some(link),
        settled: true,
        attempts: ATTEMPTS,
        tries: Vec::new(),
        budgets: Vec::new(),
        effect,
        audit: audit(AuditEvent::EmailChangeUndo),
        events: Vec::new(),
    }
}

/// A user of another system.
pub(super) fn imported(address: &str, now: OffsetDateTime) -> ImportedUser {
    let CreateUser { id, email, email_verified_at, username, locale, profile, roles, password, .. } =
        create(address, now);
    let user = User {
        id,
        email,
        email_verified_at,
        username,
        roles,
        status: UserStatus::Active,
        locale,
        profile,
        created_at: now,
        updated_at: now,
        last_login_at: None,
    };
    let event = EventDraft { id: EventId::from_uuid(fresh()), kind: EventKind::UserRegistered };
    ImportedUser { user, password, audit: audit(AuditEvent::UserImport), event }
}

pub(super) fn requeue(id: OutboxId, now: OffsetDateTime) -> Requeue {
    Requeue { now, id, by: None, audit: audit(AuditEvent::MailRetry) }
}

pub(super) fn sent(claimed: &Claimed, lease: Lease, now: OffsetDateTime) -> Settle {
    let result = DeliveryResult::Sent { code_ttl: Some(TTL) };
    Settle { now, id: claimed.mail.id, lease, result }
}

/// Marks addresses.
pub(super) fn mark(
    addresses: &[&str],
    reason: UndeliverableReason,
    now: OffsetDateTime,
) -> MarkUndeliverable {
    let address = |address: &&str| {
        let key = email(address).key().clone();
        let audit = AuditDraft { email: Some(key.clone()), ..audit(AuditEvent::UndeliverableMark) };
        (UndeliverableAddress { email: key, reason, since: now }, audit)
    };
    MarkUndeliverable { now, addresses: addresses.iter().map(address).collect() }
}

/// Takes the mark from an address.
pub(super) fn unmark(address: &str, now: OffsetDateTime) -> MarkDeliverable {
    let audit = audit(AuditEvent::UndeliverableRemoval);
    MarkDeliverable { now, email: email(address).key().clone(), audit }
}

/// Removes all that is over at `now`, however lately.
pub(super) fn purge(now: OffsetDateTime) -> Purge {
    Purge {
        now,
        ended_before: now,
        settled_before: now,
        dead_before: now,
        audited_before: now,
        events_before: now - Duration::days(30),
        deleted_before: now,
        retired_before: now,
        known_before: now - Duration::days(30),
        marked_before: now,
        batch: 1000,
    }
}

pub(super) fn signing_key(n: u8, algorithm: &str) -> SealedSigningKey {
    SealedSigningKey {
        id: SigningKeyId::from_uuid(fresh()),
        algorithm: algorithm.into(),
        created_at: later(i64::from(n)),
        signs_from: later(i64::from(n)),
        sealed: vec![n],
        revoked_at: None,
    }
}

/// Adds a key unless there is one of its algorithm.
pub(super) fn add_key(key: SealedSigningKey) -> AddSigningKey {
    let unless_since = Some(OffsetDateTime::UNIX_EPOCH);
    AddSigningKey { now: NOW, key, unless_since, audit: audit(AuditEvent::KeyRotation) }
}

/// Revokes one key, or all without one.
pub(super) fn revoke_keys(
    which: RevokedKeys,
    seconds: i64,
    replacement: SealedSigningKey,
) -> RevokeSigningKeys {
    RevokeSigningKeys { now: later(seconds), which, replacement, audit: audit(AuditEvent::KeyRevocation) }
}

/// An invited user: without a password, the address not proven.
pub(super) fn invite(address: &str, now: OffsetDateTime) -> CreateUser {
    CreateUser {
        email_verified_at: None,
        password: None,
        invitation: Some((code(now), mail(MailKind::FirstTimeSetup))),
        ..create(address, now)
    }
}

pub(super) fn create(address: &str, now: OffsetDateTime) -> CreateUser {
    CreateUser {
        now,
        id: user_id(),
        email: email(address),
        email_verified_at: Some(now),
        username: None,
        locale: None,
        profile: None,
        roles: Roles::from([Role::user()]),
        password: Some(PasswordHash::new(format!("created {address}"))),
        invitation: None,
        by: None,
        audit: audit(AuditEvent::UserCreation),
        events: Vec::new(),
    }
}

/// A user that exists.
pub(super) async fn user(store: &Arc<dyn Store>, address: &str) -> User {
    match store.create_user(create(address, NOW)).await.unwrap() {
        UserCreated::Created(user) => *user,
        outcome => panic!("{address}: {outcome:?}"),
    }
}

/// A user that exists and has these roles as well.
pub(super) async fn user_with(store: &Arc<dyn Store>, address: &str, names: &[&str]) -> User {
    let mut command = create(address, NOW);
    command.roles.extend(roles(names));
    match store.create_user(command).await.unwrap() {
        UserCreated::Created(user) => *user,
        outcome => panic!("{address}: {outcome:?}"),
    }
}

/// An administrator.
pub(super) async fn admin(store: &Arc<dyn Store>, address: &str) -> User {
    user_with(store, address, &[Role::ADMIN]).await
}

/// A session that is open from `now` on.
pub(super) async fn signed_in(store: &Arc<dyn Store>, user: &User, now: OffsetDateTime) -> NewSession {
    let command = open(user, PasswordVersion::FIRST, now);
    let session = command.session.clone();
    let opened = store.open_session(command).await.unwrap();
    assert!(matches!(opened, SessionOpened::Opened(_)), "{opened:?}");
    session
}

/// A user by identifier.
pub(super) async fn read(store: &Arc<dyn Store>, id: UserId) -> Option<User> {
    store.user(id).await.unwrap()
}

/// All that is seen of users, mails and events: what a refusal leaves as it was.
pub(super) async fn seen(store: &Arc<dyn Store>) -> String {
    let query = crate::port::store::account::UserQuery {
        size: PageSize::new(PageSize::MAX),
        ..crate::port::store::account::UserQuery::default()
    };
    format!("{:?} {:?}", store.users(query).await.unwrap().items, outbox(store).await)
}

/// A registration that waits; its code.
pub(super) async fn registered(store: &Arc<dyn Store>, address: &str) -> CodeId {
    let command = register(address, NOW);
    let code = command.code.id;
    assert_eq!(store.register(command).await.unwrap(), Registered::Pending);
    code
}

pub(super) fn lease() -> Lease {
    Lease(*fresh().as_bytes())
}

pub(super) async fn claim(store: &Arc<dyn Store>, now: OffsetDateTime) -> (Lease, Vec<Claimed>) {
    let lease = lease();
    let lease_until = now + Duration::minutes(5);
    let command = Claim { now, lease, lease_until, limit: 100, room: DomainRoom::UNBOUNDED };
    (lease, store.claim(command).await.unwrap())
}

/// One attempt at a time.
#[async_trait]
pub(super) trait SettleOne {
    async fn settle(&self, command: Settle) -> Result<Settled, StoreError>;
    async fn settle_event(&self, command: SettleEvent) -> Result<Settled, StoreError>;
}

#[async_trait]
impl SettleOne for dyn Store {
    async fn settle(&self, command: Settle) -> Result<Settled, StoreError> {
        self.settle_all(vec![command]).await.map(|settled| settled[0])
    }

    async fn settle_event(&self, command: SettleEvent) -> Result<Settled, StoreError> {
        self.settle_events(vec![command]).await.map(|settled| settled[0])
    }
}

/// The open codes of an address and purpose.
pub(super) async fn candidates(
    store: &Arc<dyn Store>,
    address: &str,
    purpose: CodePurpose,
    now: OffsetDateTime,
) -> Vec<Candidate> {
    let which = CandidateFilter::Address {
        email: email(address).key().clone(),
        purposes: vec![purpose],
        registration: None,
    };
    store.candidates(CandidateQuery { now, which }).await.unwrap()
}

/// Every entry of the audit log, the oldest first.
pub(super) async fn entries(store: &Arc<dyn Store>) -> Vec<AuditEntry> {
    let mut query = AuditQuery { size: PageSize::new(PageSize::MAX), ..AuditQuery::default() };
    let mut entries = Vec::new();
    loop {
        let page = store.audit(query).await.unwrap();
        entries.extend(page.items);
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    entries.reverse();
    entries
}

/// Everything in the outbox, the oldest first.
pub(super) async fn outbox(store: &Arc<dyn Store>) -> Vec<OutboxEntry> {
    let mut query = OutboxQuery { size: PageSize::new(PageSize::MAX), ..OutboxQuery::default() };
    let mut entries = Vec::new();
    loop {
        let page = store.outbox(query).await.unwrap();
        entries.extend(page.items);
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    entries.reverse();
    entries
}

/// The reasons of the audit log, the oldest first; `done` where something was done.
pub(super) async fn audited(store: &Arc<dyn Store>) -> Vec<String> {
    let entries = entries(store).await;
    entries.iter().map(|entry| entry.reason.as_deref().unwrap_or("done").to_owned()).collect()
}

/// The mails that are owed, left or were given up, by kind, the oldest first; then the events.
pub(super) async fn owed(store: &Arc<dyn Store>) -> Vec<String> {
    let named = |entry: &OutboxEntry| format!("{} to {}", entry.mail.kind, entry.mail.to);
    let mails = outbox(store).await;
    mails.iter().map(named).chain(events(store).await).collect()
}

/// The events by kind, in order.
pub(super) async fn events(store: &Arc<dyn Store>) -> Vec<String> {
    feed(store).await.iter().map(|event| event.kind.as_str().to_owned()).collect()
}

/// All that the feed holds.
pub(super) async fn feed(store: &Arc<dyn Store>) -> Vec<Event> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let query = EventQuery { after, size: PageSize::new(PageSize::MAX) };
        let EventFeed::Page { events, next } = store.events(query).await.unwrap() else {
            panic!("a gap where everything is read");
        };
        if events.is_empty() {
            return all;
        }
        all.extend(events);
        after = Some(next);
    }
}

/// Whether a session holds.
pub(super) async fn holds(store: &Arc<dyn Store>, id: SessionId, now: OffsetDateTime) -> bool {
    store.session(SessionQuery { now, key: SessionKey::Id(id) }).await.unwrap().is_some()
}

/// The password hash and version of an address's user.
pub(super) async fn password_of(
    store: &Arc<dyn Store>,
    address: &str,
) -> Option<(Option<String>, PasswordVersion)> {
    let query = crate::port::store::account::CredentialsQuery {
        now: NOW,
        email: email(address).key().clone(),
        guard: None,
    };
    let found = store.credentials(query).await.unwrap().user?;
    Some((found.password.map(|hash| hash.expose().to_owned()), found.version))
}
