//! What a client can repeat at will does not write without end, and answers do not grow without end.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration as StdDuration;

use support::{ANA, OTHER, PASSWORD, World, from};
use time::Duration;
use usermgr_core::domain::audit::{AuditDraft, AuditEntry, AuditEvent};
use usermgr_core::domain::id::{AuditId, SessionId};
use usermgr_core::domain::page::PageSize;
use usermgr_core::domain::role::Permission;
use usermgr_core::flow::account::AccountExport;
use usermgr_core::flow::change_password::ChangePassword;
use usermgr_core::flow::sessions::{Authenticated, SignedIn};
use usermgr_core::flow::update_user::UpdateUser;
use usermgr_core::policy::ThrottlePolicy;
use usermgr_core::port::clock::Clock as _;
use usermgr_core::port::store::audit::{AuditQuery, AuditStore as _, Record};
use usermgr_core::port::store::event::{EventFeed, EventQuery, EventStore as _};
use usermgr_core::testing::{FaultyStore, StoreFault};
use usermgr_core::{Error, Password};

const RECORDED: usize = ThrottlePolicy::RECORDED_REFUSALS as usize;

/// A world whose store can be told to fail its writes, or to be slow.
fn faulty(change: impl FnOnce(&mut usermgr_core::Policies)) -> (World, FaultyStore) {
    let mut world = World::with(change);
    let store = FaultyStore::new(Arc::clone(&world.store) as Arc<dyn usermgr_core::port::store::Store>);
    world.users = world.users.over(Arc::new(store.clone()));
    (world, store)
}

async fn sign_in(world: &World) -> (SignedIn, Authenticated) {
    let sessions = world.users.sessions();
    let signed_in = sessions.login(ANA, &Password::new(PASSWORD), &world.client).await.unwrap();
    let caller = sessions.authenticate(&signed_in.access_token).await.unwrap();
    (signed_in, caller)
}

async fn entries(world: &World, event: AuditEvent) -> Vec<AuditEntry> {
    let size = PageSize::new(PageSize::MAX);
    let mut query = AuditQuery { event: Some(event), size, ..AuditQuery::default() };
    let mut all = Vec::new();
    loop {
        let page = world.store.audit(query).await.unwrap();
        all.extend(page.items);
        query.after = page.next;
        if query.after.is_none() {
            return all;
        }
    }
}

/// How many entries say that they are the last of a window.
fn last(entries: &[AuditEntry]) -> usize {
    entries.iter().filter(|entry| entry.reason.as_deref() == Some("too_many_attempts")).count()
}

/// Refused renewals of one network are recorded up to a limit; past it they are answered alike by reads, and a good token
/// of the same network renews as ever.
#[tokio::test]
async fn refused_renewals_do_not_write_without_end() {
    let (world, store) = faulty(|_| {});
    world.user(ANA, PASSWORD).await;
    let sessions = world.users.sessions();
    let (over, caller) = sign_in(&world).await;
    let (good, _) = sign_in(&world).await;
    sessions.logout(&caller, &world.client).await.unwrap();
    let refuse = async |ip: &str| {
        let refused = sessions.refresh(&over.refresh_token, &from(ip)).await;
        assert!(matches!(refused, Err(Error::SessionEnded)), "{refused:?}");
    };
    for _ in 0..3 * RECORDED {
        refuse("192.0.2.1").await;
    }
    let written = entries(&world, AuditEvent::SessionRefresh).await;
    assert_eq!((written.len(), last(&written)), (RECORDED + 1, 1));
    assert!(written.iter().all(|entry| entry.subject == Some(caller.user.id)), "whose session it was");

    store.fail(Some(StoreFault::CommitUnanswered));
    refuse("192.0.2.1").await;
    store.fail(None);
    let good = sessions.refresh(&good.refresh_token, &world.client).await.unwrap();
    assert_eq!(good.user.id, caller.user.id);
    refuse("192.0.2.2").await;
    world.clock.advance(Duration::minutes(15));
    refuse("192.0.2.1").await;
    assert_eq!(entries(&world, AuditEvent::SessionRefresh).await.len(), RECORDED + 1 + 3);
}

/// A whole /48 of refused renewals is recorded eight times as often as one network.
#[tokio::test]
async fn refused_renewals_of_a_wide_network_are_limited_together() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let (over, caller) = sign_in(&world).await;
    world.users.sessions().logout(&caller, &world.client).await.unwrap();
    for n in 0..900 {
        let client = from(&format!("2001:db8:7:{n:x}::1"));
        let refused = world.users.sessions().refresh(&over.refresh_token, &client).await;
        assert!(matches!(refused, Err(Error::SessionEnded)));
    }
    assert_eq!(entries(&world, AuditEvent::SessionRefresh).await.len(), 8 * RECORDED + 1);
}

/// What a user may not do is recorded up to a limit, and answered alike past it.
#[tokio::test]
async fn refused_permissions_do_not_write_without_end() {
    let (world, store) = faulty(|_| {});
    world.user(ANA, PASSWORD).await;
    let (_, caller) = sign_in(&world).await;
    let ask = async |ip: &str| {
        let refused = world.users.require(&caller, &Permission::AUDIT_READ, &from(ip)).await;
        assert!(matches!(refused, Err(Error::Forbidden)), "{refused:?}");
    };
    for _ in 0..3 * RECORDED {
        ask("192.0.2.1").await;
    }
    assert_eq!(entries(&world, AuditEvent::AccessDenied).await.len(), RECORDED + 1);
    store.fail(Some(StoreFault::CommitUnanswered));
    ask("192.0.2.1").await;
    store.fail(None);
    // Another network is recorded, and all of them together end too.
    for n in 0..2000 {
        ask(&format!("198.51.{}.{}", 100 + n / 200, n % 200)).await;
    }
    let written = entries(&world, AuditEvent::AccessDenied).await;
    assert_eq!((written.len(), last(&written)), (8 * RECORDED + 1, 2), "a last one of each limit");
}

async fn rename(world: &World, caller: &Authenticated, name: &str) -> Result<(), Error> {
    let change = UpdateUser::new().with_username(Some(name.into()));
    world.users.account().update(caller, change, &world.client).await.map(drop)
}

/// A user writes to their own account sixty times in a window; then it says when to come back.
#[tokio::test]
async fn own_writes_are_limited() {
    for enabled in [true, false] {
        let world = World::with(|policies| policies.throttle.enabled = enabled);
        world.user(ANA, PASSWORD).await;
        let (_, caller) = sign_in(&world).await;
        for n in 0..ThrottlePolicy::OWN_WRITES {
            rename(&world, &caller, &format!("Ana {n}")).await.unwrap();
        }
        let before = entries(&world, AuditEvent::UserUpdate).await.len();
        let over = rename(&world, &caller, "Ana").await;
        let account = world.users.account();
        let address = account.request_email_change(&caller, "new@example.org", None, &world.client).await;
        let address = address.map(drop);
        if !enabled {
            over.unwrap();
            address.unwrap();
            continue;
        }
        let quarter = StdDuration::from_secs(15 * 60);
        for over in [over, address, account.delete(&caller, None, &world.client).await] {
            assert!(
                matches!(over, Err(Error::RateLimited { retry_after }) if retry_after == quarter),
                "{over:?}"
            );
        }
        assert_eq!(entries(&world, AuditEvent::UserUpdate).await.len(), before);
        // Who holds a session and not the password cannot keep the owner from changing it, or from signing out.
        let change = ChangePassword::new(PASSWORD, OTHER);
        world.users.passwords().change(&caller, change, &world.client).await.unwrap();
        world.users.sessions().logout(&caller, &world.client).await.unwrap();
    }
}

/// A change that changes nothing writes no entry and no event.
#[tokio::test]
async fn a_change_of_nothing_writes_nothing() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let (_, caller) = sign_in(&world).await;
    rename(&world, &caller, "Ana").await.unwrap();
    let told = async || match world.store.events(EventQuery::default()).await.unwrap() {
        EventFeed::Page { events, .. } => events.len(),
        gap @ EventFeed::Gap { .. } => panic!("{gap:?}"),
    };
    let before = told().await;
    for _ in 0..5 {
        rename(&world, &caller, "Ana").await.unwrap();
    }
    assert_eq!(entries(&world, AuditEvent::UserUpdate).await.len(), 1);
    assert_eq!(told().await, before);
}

/// Ending a session that is not there is answered, and not recorded.
#[tokio::test]
async fn ending_what_is_not_there_writes_nothing() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let (_, caller) = sign_in(&world).await;
    let nobodys: SessionId = "0197c000-0000-7000-8000-000000000001".parse().unwrap();
    for _ in 0..5 {
        let ended = world.users.sessions().end(&caller, nobodys, &world.client).await;
        assert!(matches!(ended, Err(Error::NotFound)));
        assert_eq!(world.users.sessions().end_others(&caller, &world.client).await.unwrap(), 0);
    }
    assert!(entries(&world, AuditEvent::SignOut).await.is_empty());
}

/// A thousand renewals in a quarter of an hour are one account's; one more waits, and the session goes on.
#[tokio::test]
async fn renewals_are_limited_far_beyond_what_clients_do() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let (mut signed_in, _) = sign_in(&world).await;
    let sessions = world.users.sessions();
    for _ in 0..ThrottlePolicy::RENEWALS {
        signed_in = sessions.refresh(&signed_in.refresh_token, &world.client).await.unwrap();
    }
    let over = sessions.refresh(&signed_in.refresh_token, &world.client).await;
    assert!(matches!(over, Err(Error::RateLimited { .. })), "{over:?}");
    assert_eq!(entries(&world, AuditEvent::SessionRefresh).await.len(), ThrottlePolicy::RENEWALS as usize);
    world.clock.advance(Duration::minutes(15));
    sessions.refresh(&signed_in.refresh_token, &world.client).await.unwrap();
}

/// Where access tokens live for seconds, clients renew as often, and so often they may.
#[tokio::test]
async fn short_lived_tokens_are_renewed_as_often_as_they_need() {
    let world = World::with(|policies| policies.tokens.access_ttl = Duration::seconds(5));
    world.user(ANA, PASSWORD).await;
    let (mut signed_in, _) = sign_in(&world).await;
    for _ in 0..ThrottlePolicy::RENEWALS + 100 {
        world.clock.advance(Duration::seconds(1));
        signed_in = world.users.sessions().refresh(&signed_in.refresh_token, &world.client).await.unwrap();
    }
}

/// Sessions that are opened with the right password are limited too.
#[tokio::test]
async fn sign_ins_that_succeed_are_limited() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    for _ in 0..ThrottlePolicy::SIGN_INS {
        sign_in(&world).await;
    }
    let over = world.users.sessions().login(ANA, &Password::new(PASSWORD), &world.client).await;
    assert!(matches!(over, Err(Error::TooManyAttempts { .. })), "{over:?}");
    assert_eq!(entries(&world, AuditEvent::SignIn).await.len(), ThrottlePolicy::SIGN_INS as usize);
}

/// Failed sign-ins from all networks of a /48 are limited together, and its neighbours are not.
#[tokio::test]
async fn a_wide_network_does_not_multiply_guesses() {
    let world = World::with(|policies| policies.throttle.network_failures = 5);
    let guess = async |wide: u32, n: u32| {
        let client = from(&format!("2001:db8:{wide:x}:{n:x}::1"));
        let address = format!("u{n}@example.org");
        world.users.sessions().login(&address, &Password::new(OTHER), &client).await
    };
    for n in 0..40 {
        assert!(matches!(guess(7, n).await, Err(Error::InvalidCredentials)), "guess {n}");
    }
    for n in 40..50 {
        assert!(matches!(guess(7, n).await, Err(Error::TooManyAttempts { .. })), "guess {n}");
    }
    assert!(matches!(guess(8, 0).await, Err(Error::InvalidCredentials)));
}

/// Requests for codes from all networks of a /48 are limited together.
#[tokio::test]
async fn a_wide_network_does_not_multiply_requests() {
    let world = World::with(|policies| policies.throttle.network_requests = 5);
    let ask = async |n: u32| {
        let client = from(&format!("2001:db8:7:{n:x}::1"));
        world.users.passwords().forgot(&format!("u{n}@example.org"), &client).await
    };
    for n in 0..40 {
        ask(n).await.unwrap();
    }
    assert!(matches!(ask(40).await, Err(Error::RateLimited { .. })));
}

async fn with_entries(world: &World, caller: &Authenticated, many: u128) {
    for n in 0..many {
        let draft = AuditDraft {
            id: AuditId::from_uuid(uuid::Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0000 + n)),
            event: AuditEvent::SessionRefresh,
            actor: None,
            email: None,
            ip: None,
            user_agent: None,
            request_id: None,
        };
        let entry = draft.done(world.clock.now(), Some(caller.user.id));
        world.store.record(Record::unlimited(entry)).await.unwrap();
    }
}

/// An export comes in parts of a bounded size, and whoever follows gets everything once.
#[tokio::test]
async fn an_export_comes_in_bounded_parts_that_are_everything() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let (_, caller) = sign_in(&world).await;
    with_entries(&world, &caller, 2500).await;
    let account = world.users.account();
    let mut part = account.export(&caller, &world.client).await.unwrap();
    assert_eq!((part.sessions.len(), part.outbox.len()), (1, 1));
    let (mut parts, mut seen) = (0, BTreeSet::new());
    loop {
        parts += 1;
        assert!(part.audit.len() <= AccountExport::PART && part.outbox.len() <= AccountExport::PART);
        assert_eq!(part.user.id, caller.user.id);
        for entry in &part.audit {
            assert!(seen.insert(entry.id), "twice: {entry:?}");
        }
        let Some(next) = part.next else { break };
        part = account.export_rest(&caller, next).await.unwrap();
        assert!(part.sessions.is_empty() && part.outbox.is_empty());
    }
    // And its own: verification, sign-in and export.
    assert_eq!((parts, seen.len()), (3, 2503));
    assert_eq!(entries(&world, AuditEvent::UserExport).await.len(), 1);
}

/// A user begins a few exports an hour, and then it says when to come back.
#[tokio::test]
async fn exports_are_a_few_an_hour() {
    let world = World::new();
    world.user(ANA, PASSWORD).await;
    let (_, caller) = sign_in(&world).await;
    let account = world.users.account();
    for _ in 0..ThrottlePolicy::EXPORTS_AN_HOUR {
        account.export(&caller, &world.client).await.unwrap();
    }
    for _ in 0..5 {
        let over = account.export(&caller, &world.client).await;
        let hour = StdDuration::from_secs(3600);
        assert!(matches!(over, Err(Error::RateLimited { retry_after }) if retry_after == hour), "{over:?}");
    }
    let written = entries(&world, AuditEvent::UserExport).await;
    assert_eq!((written.len(), last(&written)), (6, 1));
    world.clock.advance(Duration::HOUR);
    account.export(&caller, &world.client).await.unwrap();
}

/// One export of a user is read at a time; other users do not wait for it.
#[tokio::test(start_paused = true)]
async fn one_export_of_a_user_is_read_at_a_time() {
    let (world, store) = faulty(|_| {});
    world.user(ANA, PASSWORD).await;
    let (_, caller) = sign_in(&world).await;
    let account = world.users.account();
    store.fail(Some(StoreFault::Slow(StdDuration::from_secs(1))));
    let (one, other) =
        tokio::join!(account.export(&caller, &world.client), account.export(&caller, &world.client));
    store.fail(None);
    assert!(one.is_ok(), "{one:?}");
    assert!(matches!(other, Err(Error::RateLimited { .. })), "{other:?}");
    // The place is free again, also after somebody who went away.
    store.fail(Some(StoreFault::Slow(StdDuration::from_secs(9))));
    let gone = tokio::time::timeout(StdDuration::from_secs(1), account.export(&caller, &world.client)).await;
    assert!(gone.is_err());
    store.fail(None);
    account.export(&caller, &world.client).await.unwrap();
}

/// Each event of the audit log has a row in `docs/limits.md` that says who causes it and what bounds it.
#[test]
fn every_event_of_the_audit_log_has_a_bound() {
    let page = include_str!("../../docs/limits.md");
    for event in AuditEvent::ALL {
        let name = format!("`{}`", event.as_str());
        let row = page.lines().find(|line| line.starts_with("| ") && line.contains(&name));
        let row = row.unwrap_or_else(|| panic!("docs/limits.md has no row with {name}"));
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert!(cells.len() == 4 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
    }
}
