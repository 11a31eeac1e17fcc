//! Laws of what is listed: users by what they begin with, the audit log and the outbox by what they tell of; and of
//! users that come from another system.

use std::sync::Arc;

use time::Duration;

use super::StoreHarness;
use super::build::{
    NOW, SettleOne as _, audit, audited, claim, create, delete, disable, email, end, entries, imported,
    later, open, outbox, owed, password_of, read, register, replace, roles, seen, sent, user, user_id,
    user_with,
};
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::id::{AuditId, UserId};
use crate::domain::page::PageSize;
use crate::domain::password::{PasswordHash, PasswordVersion};
use crate::domain::role::Role;
use crate::domain::user::{Locale, UserStatus, Username};
use crate::port::store::Store;
use crate::port::store::account::{
    ImportUsers, ImportedUser, PasswordReplaced, UserCreated, UserCursor, UserImported, UserQuery,
};
use crate::port::store::audit::{AuditQuery, Record};
use crate::port::store::outbox::{DeliveryResult, OutboxQuery, OutboxStatus, Settle};
use crate::port::store::session::{SessionOpened, SessionSelector};

const ANA: &str = "ana@example.org";

async fn named(store: &Arc<dyn Store>, address: &str, name: &str) -> UserId {
    let mut command = create(address, NOW);
    command.username = Some(Username::parse(name).unwrap());
    let id = command.id;
    assert!(matches!(store.create_user(command).await.unwrap(), UserCreated::Created(_)), "{address}");
    id
}

/// Every user of a query, read in pages of that size; no page is longer, and only the last may be shorter.
async fn paged(store: &Arc<dyn Store>, query: &UserQuery, size: u16) -> Vec<UserId> {
    let (mut found, mut query) = (Vec::new(), query.clone());
    query.size = PageSize::new(size);
    loop {
        let page = store.users(query.clone()).await.unwrap();
        assert!(page.next.is_none() || page.items.len() == usize::from(size), "{query:?}");
        found.extend(page.items.iter().map(|user| user.id));
        query.after = page.next;
        if query.after.is_none() {
            return found;
        }
    }
}

fn begins(prefix: &str) -> UserQuery {
    UserQuery { prefix: Some(prefix.into()), ..UserQuery::default() }
}

/// Users are found by what their address or their name begins with, in the order of that, each once.
pub async fn users_are_found_by_what_they_begin_with(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let zed = named(&store, "zed@example.org", "Analu").await;
    let ana = named(&store, "Ana@example.org", "Ana").await;
    let twin = named(&store, "anabel@example.org", "ANALU").await;
    let plain = user(&store, "anb@example.org").await.id;
    let other = named(&store, "bob@example.org", "Éva Anatol").await;
    let last = named(&store, "yan@example.org", "Analu").await;
    for size in [1, 2, 3, 200] {
        assert_eq!(paged(&store, &begins("ana"), size).await, [ana, twin, zed, last], "pages of {size}");
        assert_eq!(paged(&store, &begins("an"), size).await, [ana, twin, zed, last, plain]);
        assert_eq!(paged(&store, &begins("ana@"), size).await, [ana]);
        assert_eq!(paged(&store, &begins("analu"), size).await, [zed, twin, last]);
        assert_eq!(paged(&store, &begins(&Username::folded("E\u{301}VA")), size).await, [other]);
        assert!(paged(&store, &begins("natol"), size).await.is_empty());
        assert!(paged(&store, &begins("analuz"), size).await.is_empty());
        let all = [ana, twin, zed, last, plain, other];
        let mut found = paged(&store, &begins(""), size).await;
        assert_eq!(found.len(), all.len(), "whatever there is begins with nothing");
        found.retain(|found| all.contains(found));
        assert_eq!(found.len(), all.len());
    }
}

/// What a pattern would take for something else, and what lies beyond ASCII, is taken as it stands.
pub async fn a_prefix_is_taken_as_it_stands(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let names = [
        "100% sure",
        "100 sure",
        "a_b",
        "axb",
        "a\\b",
        "a'b",
        "a*b",
        "a?b",
        "ñandú",
        "nandu",
        "Ωmega",
        "😀 smile",
        "ß",
        "ss",
        "\u{10ffff}",
        "\u{10ffff}\u{10ffff}z",
        "日本",
        "日本語",
        "a[b]",
        "a^b",
    ];
    let mut made = Vec::new();
    for (n, name) in names.iter().enumerate() {
        made.push((Username::folded(name), named(&store, &format!("zz{n}@example.org"), name).await));
    }
    let mut prefixes: Vec<String> = Vec::new();
    for (name, _) in &made {
        prefixes.extend(name.char_indices().map(|(at, c)| name[..at + c.len_utf8()].to_owned()));
    }
    prefixes.extend(["%", "_", "a%", "100_", "a_", "\\", "A"].map(str::to_owned));
    for prefix in prefixes {
        let mut expected: Vec<_> = made.iter().filter(|(name, _)| name.starts_with(&prefix)).collect();
        expected.sort();
        let expected: Vec<_> = expected.into_iter().map(|(_, id)| *id).collect();
        assert_eq!(paged(&store, &begins(&prefix), 2).await, expected, "{prefix:?}");
    }
}

/// A user is on one page at most, and none is passed over, also while others come and go between the pages.
pub async fn pages_of_users_hold_while_others_come_and_go(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for query in [UserQuery::default(), begins("u")] {
        let mut made = Vec::new();
        for n in 0..7 {
            let name = format!("u{n}{}", if query.prefix.is_some() { "p" } else { "" });
            made.push(user(&store, &format!("{name}@example.org")).await.id);
        }
        let (mut seen, mut after) = (Vec::new(), None::<UserCursor>);
        let mut round = 0;
        loop {
            let query = UserQuery { after, size: PageSize::new(2), ..query.clone() };
            let page = store.users(query).await.unwrap();
            seen.extend(page.items.iter().map(|user| user.id));
            after = page.next;
            if after.is_none() {
                break;
            }
            for place in ["a", "u0", "u3", "z"] {
                let address = format!("{place}{round}{}@example.org", seen.len());
                drop(store.create_user(create(&address, NOW)).await.unwrap());
            }
            round += 1;
            let gone = seen[seen.len() - 1];
            store.delete_user(delete(gone, later(1))).await.unwrap();
        }
        for id in &made {
            assert_eq!(seen.iter().filter(|seen| *seen == id).count(), 1, "{query:?}");
        }
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all, "nobody is there twice");
    }
}

/// Users are filtered by role, by status and by both, with and without a prefix; who is deleted is never listed.
pub async fn users_are_filtered_by_role_and_status(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let mut made = Vec::new();
    for n in 0..12_u32 {
        let names: &[&str] = [&[][..], &["support"], &["editor", "support"]][n as usize % 3];
        let address = format!("{}{n:02}@example.org", if n % 2 == 0 { "even" } else { "odd" });
        let user = user_with(&store, &address, names).await;
        if n % 4 >= 2 {
            store.update_user(disable(user.id, later(1))).await.unwrap();
        }
        made.push(read(&store, user.id).await.unwrap());
    }
    for name in ["even", "odd"] {
        let gone = user_with(&store, &format!("{name}99@example.org"), &["support"]).await;
        let mut command = delete(gone.id, later(1));
        command.restorable_until = (name == "odd").then(|| later(1000));
        store.delete_user(command).await.unwrap();
    }
    let of_role =
        [None, Some(Role::user()), Some(super::build::role("support")), Some(super::build::role("x"))];
    for role in of_role {
        for status in [None, Some(UserStatus::Active), Some(UserStatus::Disabled)] {
            for prefix in [None, Some("even"), Some("odd0"), Some("none")] {
                let mut expected: Vec<_> = made
                    .iter()
                    .filter(|user| {
                        role.as_ref().is_none_or(|role| user.roles.contains(role))
                            && status.is_none_or(|status| user.status == status)
                            && prefix.is_none_or(|prefix| user.email.as_str().starts_with(prefix))
                    })
                    .map(|user| user.id)
                    .collect();
                if prefix.is_none() {
                    expected.reverse();
                }
                let prefix = prefix.map(str::to_owned);
                let query = UserQuery { prefix, role: role.clone(), status, ..UserQuery::default() };
                for size in [2, 200] {
                    assert_eq!(paged(&store, &query, size).await, expected, "{query:?}");
                }
            }
        }
    }
}

/// An entry of the audit log that was made then.
fn entry(event: AuditEvent, at: Duration, n: u128, subject: Option<UserId>) -> AuditEntry {
    let at = NOW + at;
    let mut entry = audit(event).refused(at, "access_denied", subject);
    entry.id = AuditId::from_uuid(uuid::Uuid::from_u128(AuditId::first_of(at).as_uuid().as_u128() + n));
    entry
}

/// The audit log is filtered by event, by subject and by time to the millisecond, alone and together, a page at a time.
pub async fn the_audit_log_is_filtered(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let subjects = [None, Some(user_id()), Some(user_id())];
    let events = [AuditEvent::AccessDenied, AuditEvent::UserExport, AuditEvent::SignIn];
    let mut written = Vec::new();
    for n in 0..36_u32 {
        let (subject, event) = (subjects[n as usize % 3], events[n as usize / 3 % 3]);
        let entry = entry(event, Duration::milliseconds(i64::from(n / 9)), u128::from(n), subject);
        store.record(Record::unlimited(entry.clone())).await.unwrap();
        written.push(entry);
    }
    written.reverse();
    let times =
        [None, Some(-1_000), Some(0), Some(1_000), Some(1_999), Some(2_000), Some(3_000), Some(4_000)];
    for subject in subjects {
        for event in [None, Some(events[0]), Some(events[2]), Some(AuditEvent::Registration)] {
            for since in times {
                let from = since.map(|micros| NOW + Duration::milliseconds(i64::div_euclid(micros, 1000)));
                let expected: Vec<_> = written
                    .iter()
                    .filter(|entry| {
                        subject.is_none_or(|subject| entry.subject == Some(subject))
                            && event.is_none_or(|event| entry.event == event)
                            && from.is_none_or(|from| entry.at >= from)
                    })
                    .cloned()
                    .collect();
                let since = since.map(|micros| NOW + Duration::microseconds(micros));
                let mut query =
                    AuditQuery { subject, event, since, size: PageSize::new(5), ..Default::default() };
                let mut found = Vec::new();
                loop {
                    let page = store.audit(query).await.unwrap();
                    found.extend(page.items);
                    query.after = page.next;
                    if query.after.is_none() {
                        break;
                    }
                }
                assert_eq!(found, expected, "{query:?}");
            }
        }
    }
}

/// What is recorded comes back as it went in.
pub async fn what_is_recorded_comes_back(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let mut full = entry(AuditEvent::AccessDenied, Duration::microseconds(123_456), 1, Some(user_id()));
    (full.actor, full.email) = (Some(user_id()), Some(email(ANA).key().clone()));
    (full.ip, full.user_agent) = (Some("2001:db8::1".parse().unwrap()), Some("an 'agent' %_".into()));
    full.request_id = Some("request".into());
    let done = audit(AuditEvent::UserExport).done(later(1), None);
    for entry in [&full, &done] {
        store.record(Record::unlimited(entry.clone())).await.unwrap();
    }
    let mut found = entries(&store).await;
    found.sort_by_key(|entry| entry.at);
    assert_eq!(found, [full, done]);
    assert!(owed(&store).await.is_empty());
}

/// The outbox is read by whom it concerns, by how it fares, and by both.
pub async fn the_outbox_is_filtered(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, bob) = (user(&store, ANA).await, user(&store, "bob@example.org").await);
    let (first, second) = (PasswordVersion::FIRST, PasswordVersion::FIRST.next());
    let changes = [(&ana, first), (&bob, first), (&ana, second), (&ana, second.next())];
    for (at, (whom, expect)) in (0..).zip(changes) {
        let outcome = store.replace_password(replace(whom.id, expect, later(at))).await.unwrap();
        assert_eq!(outcome, PasswordReplaced::Replaced);
    }
    store.register(register(ANA, later(4))).await.unwrap();
    store.register(register("new@example.org", later(5))).await.unwrap();
    let (lease, claimed) = claim(&store, later(6)).await;
    assert_eq!(claimed.len(), 6);
    store.settle(sent(&claimed[0], lease, later(6))).await.unwrap();
    let result = DeliveryResult::Dead { error: "no such mailbox".into() };
    let dead = Settle { now: later(6), id: claimed[4].mail.id, lease, result };
    store.settle(dead).await.unwrap();
    let of = |user, status: Option<OutboxStatus>| {
        let store = Arc::clone(&store);
        async move {
            let mut query = OutboxQuery { user, status, size: PageSize::new(1), ..OutboxQuery::default() };
            let mut found = Vec::new();
            loop {
                let page = store.outbox(query).await.unwrap();
                assert!(page.items.iter().all(|entry| status.is_none_or(|status| entry.status == status)));
                found.extend(page.items.iter().map(|entry| entry.mail.id));
                query.after = page.next;
                if query.after.is_none() {
                    return found;
                }
            }
        }
    };
    let id = |n: usize| claimed[n].mail.id;
    assert_eq!(of(None, None).await, [id(5), id(4), id(3), id(2), id(1), id(0)]);
    assert_eq!(of(Some(ana.id), None).await, [id(4), id(3), id(2), id(0)]);
    assert_eq!(of(Some(bob.id), None).await, [id(1)]);
    assert!(of(Some(user_id()), None).await.is_empty());
    assert_eq!(of(None, Some(OutboxStatus::Queued)).await, [id(5), id(3), id(2), id(1)]);
    assert_eq!(of(Some(ana.id), Some(OutboxStatus::Queued)).await, [id(3), id(2)]);
    assert_eq!(of(Some(ana.id), Some(OutboxStatus::Dead)).await, [id(4)]);
    assert_eq!(of(Some(ana.id), Some(OutboxStatus::Sent)).await, [id(0)]);
    assert!(of(Some(ana.id), Some(OutboxStatus::Void)).await.is_empty());
}

/// A user of another system in every detail.
fn detailed(address: &str) -> ImportedUser {
    let mut import = imported(address, later(-1000));
    let user = &mut import.user;
    user.email_verified_at = Some(later(-900) + Duration::microseconds(1));
    user.username = Some(Username::parse("Ana O'Ñandú 😀").unwrap());
    user.roles = roles(&["editor", "support", "user"]);
    user.locale = Some(Locale::parse("es-419").unwrap());
    (user.updated_at, user.last_login_at) = (later(-800), Some(later(-700)));
    import.password = Some(PasswordHash::new("$2b$12$abcdefghijklmnopqrstuu"));
    import
}

/// Users from another system come back in all that they came with, and each is audited.
pub async fn imported_users_come_back_as_they_went_in(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = detailed("Ana@example.org");
    let mut off = detailed("off@example.org");
    (off.user.status, off.user.locale, off.user.username) = (UserStatus::Disabled, None, None);
    let mut invited = imported("new@example.org", later(-5));
    (invited.password, invited.user.email_verified_at) = (None, None);
    let users = vec![ana, off, invited];
    let answers = store.import_users(ImportUsers { now: NOW, users: users.clone() }).await.unwrap();
    assert_eq!(answers, [UserImported::Added; 3]);
    let written = entries(&store).await;
    assert_eq!(written.len(), 3);
    for (import, entry) in users.iter().zip(&written) {
        assert_eq!(read(&store, import.user.id).await.as_ref(), Some(&import.user));
        assert_eq!(*entry, import.audit.clone().done(NOW, Some(import.user.id)));
        let (hash, version) = password_of(&store, import.user.email.as_str()).await.unwrap();
        assert_eq!(hash.as_deref(), import.password.as_ref().map(PasswordHash::expose));
        assert_eq!(version == PasswordVersion::NONE, hash.is_none());
    }
    assert!(outbox(&store).await.is_empty(), "nobody gets a mail");
    let support = UserQuery { role: Some(super::build::role("support")), ..UserQuery::default() };
    assert_eq!(paged(&store, &support, 9).await, [users[1].user.id, users[0].user.id]);
    assert_eq!(paged(&store, &begins("ana o'"), 9).await, [users[0].user.id]);
    let opened = store.open_session(open(&users[0].user, PasswordVersion::FIRST, later(1))).await.unwrap();
    assert!(matches!(opened, SessionOpened::Opened(_)), "{opened:?}");
}

/// Whose identifier or address is there already is left out, also within one import; the answers come in order.
pub async fn an_import_leaves_out_who_is_there(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, gone) = (user(&store, ANA).await, user(&store, "gone@example.org").await);
    store.delete_user(delete(gone.id, later(1))).await.unwrap();
    let before = (read(&store, ana.id).await, password_of(&store, ANA).await, audited(&store).await.len());
    let mut same_id = detailed("other@example.org");
    same_id.user.id = ana.id;
    let mut deleted_id = detailed("back@example.org");
    deleted_id.user.id = gone.id;
    let (first, second) = (detailed("two@example.org"), detailed("TWO@example.org"));
    let mut twice = detailed("three@example.org");
    twice.user.id = first.user.id;
    let freed = detailed("gone@example.org");
    let users = vec![same_id, detailed("ANA@example.org"), first, second, twice, deleted_id, freed];
    let command = ImportUsers { now: later(2), users: users.clone() };
    let answers = store.import_users(command).await.unwrap();
    let (added, exists) = (UserImported::Added, UserImported::Exists);
    assert_eq!(answers, [exists, exists, added, exists, exists, exists, added]);
    let now = (read(&store, ana.id).await, password_of(&store, ANA).await, audited(&store).await.len() - 2);
    assert_eq!(now, before);
    for (address, there) in
        [("other@example.org", false), ("two@example.org", true), ("three@example.org", false)]
    {
        assert_eq!(password_of(&store, address).await.is_some(), there, "{address}");
    }
    assert_eq!(read(&store, users[2].user.id).await.as_ref(), Some(&users[2].user));
    assert_eq!((read(&store, users[3].user.id).await, read(&store, gone.id).await), (None, None));
    let before = (seen(&store).await, audited(&store).await);
    let empty = store.import_users(ImportUsers { now: later(3), users: Vec::new() }).await.unwrap();
    assert!(empty.is_empty());
    assert_eq!((seen(&store).await, audited(&store).await), before);
    store.end_sessions(end(ana.id, SessionSelector::All, later(4))).await.unwrap();
}
