//! Laws of what is written down: texts, times and the audit log come back as they went in.

use std::collections::BTreeSet;

use time::{Duration, OffsetDateTime};

use super::StoreHarness;
use super::build::{
    NOW, SettleOne as _, all_events, audit, candidates, claim, create, digest, email, entries, failed, guard,
    later, open, outbox, password_of, profile, registered, request, right, update, user, user_id,
};
use crate::domain::audit::{AuditEntry, AuditEvent, AuditOutcome};
use crate::domain::code::CodePurpose;
use crate::domain::id::UserId;
use crate::domain::mail::OwedCode;
use crate::domain::page::PageSize;
use crate::domain::password::{PasswordHash, PasswordVersion};
use crate::domain::role::{Role, Roles};
use crate::domain::session::AuthMethod;
use crate::domain::user::{Locale, User, UserStatus, Username};
use crate::port::store::account::{
    DeleteUser, ImportUsers, ImportedUser, UpdateUser, UserChange, UserImported, UserQuery,
};
use crate::port::store::audit::AuditQuery;
use crate::port::store::code::Redeemed;
use crate::port::store::outbox::{DeliveryResult, OutboxEntry, Settle};
use crate::port::store::session::{SessionKey, SessionQuery};

const ANA: &str = "ana@example.org";
/// Texts that stores have stumbled over.
pub(super) const TEXTS: [&str; 6] = [
    "O'Brien \"the\" `quoted`",
    "'); DROP TABLE usermgr_users; --",
    "100% _ \\ \\' $1 ?1 :name {{7*7}}",
    "😀🏳️‍🌈 𝒜𝓃𝒶 \u{10fffd}",
    "e\u{301} is not é; \u{202e}desrever; \u{feff}",
    " trimmed? NULL ",
];

/// A long text in which no byte count is a multiple of a character's.
pub(super) fn long(text: &str, bytes: usize) -> String {
    let mut long = String::new();
    for c in text.chars().cycle() {
        if long.len() + c.len_utf8() > bytes {
            return long;
        }
        long.push(c);
    }
    long
}

/// Gives a user another name.
fn renamed(id: UserId, n: usize, now: OffsetDateTime) -> UpdateUser {
    let username = Some(Some(Username::parse(&format!("Ana {n}")).unwrap()));
    update(id, UserChange { username, ..UserChange::default() }, now)
}

/// What the audit log tells comes back: who, of whom, at which address, from where, under which request.
pub async fn an_audit_entry_comes_back_as_it_went_in(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, bob) = (user(&store, ANA).await, user(&store, "bob@example.org").await);
    let mut written = Vec::new();
    for (n, text) in TEXTS.iter().enumerate() {
        let mut draft = audit(AuditEvent::ALL[n]);
        draft.actor = (n % 2 == 0).then_some(bob.id);
        draft.email = Some(email("José.O'Ñandú%_+$1@exámple.org").key().clone());
        draft.ip = [Some("2001:db8::1".parse().unwrap()), Some("192.0.2.7".parse().unwrap()), None][n % 3];
        draft.user_agent = Some(long(text, 256));
        draft.request_id = Some(long(text, 128));
        let now = NOW + Duration::MICROSECOND * u32::try_from(n).unwrap();
        let mut command = renamed(ana.id, n, now);
        command.audit = draft.clone();
        store.update_user(command).await.unwrap();
        written.push(draft.done(now, Some(ana.id)));
        let mut command = failed(Some(ana.id), guard(ANA, text, NOW), now);
        command.audit.user_agent = Some((*text).to_owned());
        written.push(command.audit.clone().refused(now, "invalid_credentials", Some(ana.id)));
        store.login_failed(command).await.unwrap();
    }
    assert_eq!(entries(&store).await[2..], written);
}

/// The audit log is read the newest first, a page at a time, also of one user.
pub async fn the_audit_log_is_paged(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let (ana, bob) = (user(&store, ANA).await, user(&store, "bob@example.org").await);
    for n in 0..3 {
        store.update_user(renamed(ana.id, n, NOW)).await.unwrap();
    }
    for (subject, expected) in [(None, 5_usize), (Some(ana.id), 4), (Some(bob.id), 1)] {
        let (mut seen, mut pages, mut after) = (Vec::<AuditEntry>::new(), 0, None);
        loop {
            let page = store
                .audit(AuditQuery { subject, after, size: PageSize::new(2), ..AuditQuery::default() })
                .await
                .unwrap();
            seen.extend(page.items);
            (pages, after) = (pages + 1, page.next);
            if after.is_none() {
                break;
            }
        }
        assert_eq!((seen.len(), pages), (expected, expected.div_ceil(2)), "{subject:?}");
        assert!(seen.is_sorted_by(|newer, older| newer.id > older.id), "{seen:?}");
        assert!(seen.iter().all(|entry| subject.is_none() || entry.subject == subject), "{seen:?}");
        assert!(seen.iter().all(|entry| entry.outcome == AuditOutcome::Done), "{seen:?}");
    }
}

/// A session comes back with its agent, its address and its times to the microsecond.
pub async fn a_session_comes_back_as_it_went_in(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    for (n, text) in TEXTS.iter().enumerate() {
        let now = NOW + Duration::MICROSECOND * (123_456 + u32::try_from(n).unwrap());
        let mut command = open(&ana, PasswordVersion::FIRST, now);
        let session = &mut command.session;
        session.user_agent = (n > 0).then(|| long(text, 256));
        session.ip = [None, Some("2001:db8::ffff".parse().unwrap())][n % 2];
        session.method = [AuthMethod::Password, AuthMethod::EmailCode][n % 2];
        session.access = Some((digest(text), later(900)));
        let new = command.session.clone();
        store.open_session(command).await.unwrap();
        for key in [SessionKey::Id(new.id), SessionKey::Access(digest(text))] {
            let view = store.session(SessionQuery { now, key }).await.unwrap().unwrap();
            let session = view.session;
            assert_eq!((session.id, session.user_id, view.user.id), (new.id, ana.id, ana.id));
            assert_eq!((session.user_agent, session.ip), (new.user_agent.clone(), new.ip));
            assert_eq!((session.method, view.password_version), (new.method, PasswordVersion::FIRST));
            assert_eq!([session.created_at, session.authenticated_at, session.last_seen_at], [now; 3]);
            assert_eq!(session.idle_expires_at, new.idle_expires_at);
            assert_eq!(session.expires_at, new.expires_at);
            assert_eq!(view.user.last_login_at, Some(now));
        }
    }
}

/// A mail knows its receiver, its language and its code; why it failed is kept to the last character.
pub async fn a_mail_comes_back_as_it_went_in(harness: &dyn StoreHarness) {
    for text in TEXTS {
        let store = harness.fresh().await;
        let mut written = create("José.Ñandú+'tag@exámple.org", NOW);
        written.username = Username::from_stored(text);
        written.locale = Some(Locale::parse("es-419").unwrap());
        store.create_user(written.clone()).await.unwrap();
        let purpose = CodePurpose::ResetPassword;
        let asked = request("José.Ñandú+'tag@exámple.org", purpose, NOW);
        store.request_code(asked.clone()).await.unwrap();
        let (lease, claimed) = claim(&store, later(1)).await;
        let mail = &claimed[0].mail;
        assert_eq!((mail.id, mail.kind, &mail.to), (asked.mail.id, asked.mail.kind, &written.email));
        assert_eq!((&mail.username, &mail.locale), (&written.username, &written.locale));
        let (id, form, key) = (asked.code.id, asked.code.form, asked.code.key);
        assert_eq!((mail.code, mail.created_at), (Some(OwedCode { id, purpose, form, key }), NOW));
        let at = later(60) + Duration::microseconds(1);
        let error = long(text, OutboxEntry::MAX_ERROR);
        let result = DeliveryResult::Retry { at, error: error.clone() };
        store.settle(Settle { now: later(2), id: mail.id, lease, result }).await.unwrap();
        let entry = &outbox(&store).await[0];
        assert_eq!((entry.due_at, entry.attempts, entry.settled_at), (at, 1, None));
        assert_eq!(entry.error, Some(error));
        assert_eq!(entry.mail, claimed[0].mail);
    }
}

/// A password hash of any scheme comes back, letter by letter.
pub async fn a_password_hash_comes_back_as_it_went_in(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    for (n, hash) in
        ["$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$aGFzaA+/", "$2b$12$abcdefghijklmnopqrstuuZ5/.Q'%_\\", ""]
            .into_iter()
            .enumerate()
    {
        let address = format!("u{n}@example.org");
        let mut command = create(&address, NOW);
        command.password = Some(PasswordHash::new(hash));
        store.create_user(command).await.unwrap();
        assert_eq!(password_of(&store, &address).await.unwrap().0.as_deref(), Some(hash));
    }
}

/// An address is found in whatever case it is typed, and never by what merely looks like it.
pub async fn an_address_is_found_by_its_key_alone(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let addresses = ["ana_1@example.org", "ana%1@example.org", "anax1@example.org", "änax1@example.org"];
    for address in addresses {
        registered(&store, address).await;
    }
    for address in addresses {
        let typed = address.to_uppercase();
        let found = candidates(&store, &typed, CodePurpose::EmailVerification, NOW).await;
        assert_eq!(found.len(), 1, "{typed}");
        let redeemed = store.redeem(right(&typed, found[0].id, NOW)).await.unwrap();
        let Redeemed::Redeemed(user) = redeemed else { panic!("{typed}: {redeemed:?}") };
        assert_eq!(user.email, email(address));
        assert_eq!(password_of(&store, &typed).await.unwrap().0, Some(format!("registered {address}")));
    }
}

fn imported(n: u32) -> ImportedUser {
    let id = user_id();
    let bare = n.is_multiple_of(3);
    let mut roles = Roles::from([Role::user()]);
    if n.is_multiple_of(5) {
        roles.extend([Role::admin(), "editor".parse().unwrap()]);
    }
    let user = User {
        id,
        email: email(&format!("User{n}@exámple.org")),
        email_verified_at: (!bare).then_some(NOW),
        username: (!bare).then(|| Username::parse("e\u{301} is not é").unwrap()),
        roles,
        status: if n.is_multiple_of(7) { UserStatus::Disabled } else { UserStatus::Active },
        locale: (!bare).then(|| Locale::parse("es-MX").unwrap()),
        profile: (!bare).then(|| profile(&format!(r#"{{"n":{n}}}"#))),
        created_at: later(-i64::from(n) * 86_400),
        updated_at: later(-1),
        last_login_at: (!bare).then(|| later(-2)),
    };
    let password = (!bare).then(|| PasswordHash::new(format!("hash {n}")));
    let event = all_events().swap_remove(0);
    ImportedUser { user, password, audit: audit(AuditEvent::UserImport), event }
}

/// Every field of an imported user is kept, of many as of one, and each is audited as done.
pub async fn an_imported_user_comes_back_as_it_went_in(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let users: Vec<ImportedUser> = (0..250).map(imported).collect();
    let answers = store.import_users(ImportUsers { now: NOW, users: users.clone() }).await.unwrap();
    assert_eq!(answers, vec![UserImported::Added; 250]);
    for ImportedUser { user, password, .. } in &users {
        assert_eq!(store.user(user.id).await.unwrap().as_ref(), Some(user));
        let hash = password.as_ref().map(|hash| hash.expose().to_owned());
        let version = if hash.is_some() { PasswordVersion::FIRST } else { PasswordVersion::NONE };
        assert_eq!(password_of(&store, user.email.as_str()).await, Some((hash, version)));
    }
    let entries = entries(&store).await;
    assert_eq!(entries.len(), 250);
    assert!(entries.iter().all(|entry| entry.outcome == AuditOutcome::Done && entry.at == NOW));
    let audited: BTreeSet<_> = entries.iter().filter_map(|entry| entry.subject).collect();
    assert_eq!(audited, users.iter().map(|imported| imported.user.id).collect());
    let query = UserQuery { role: Some("editor".parse().unwrap()), ..UserQuery::default() };
    assert_eq!(store.users(query).await.unwrap().items.len(), 50);
    assert_eq!(store.import_users(ImportUsers { now: NOW, users: Vec::new() }).await.unwrap(), Vec::new());
}

/// A user whose address or identifier is there, or comes twice in one command, is left out and changes nothing. The
/// address of a user who was deleted is free.
pub async fn who_is_there_is_not_imported(harness: &dyn StoreHarness) {
    let store = harness.fresh().await;
    let ana = user(&store, ANA).await;
    let gone = user(&store, "gone@example.org").await;
    let delete = DeleteUser {
        now: NOW,
        id: gone.id,
        by: None,
        expect: None,
        restorable_until: None,
        notice: None,
        throttle: Vec::new(),
        audit: audit(AuditEvent::UserDeletion),
        events: Vec::new(),
    };
    store.delete_user(delete).await.unwrap();
    let before = entries(&store).await.len();
    let named = |n: u32, address: &str| {
        let mut imported = imported(n);
        imported.user.email = email(address);
        imported
    };
    let (one, again) = (named(1, "one@example.org"), named(2, "ONE@example.org"));
    let mut same_id = named(4, "other@example.org");
    same_id.user.id = one.user.id;
    let mut of_gone = named(8, "gone.too@example.org");
    of_gone.user.id = gone.id;
    let mut of_ana = named(11, "ana.too@example.org");
    of_ana.user.id = ana.id;
    // Its first bearer is left out for the address, so the identifier is free.
    let (taken, mut bearer) = (named(13, "Ana@example.org"), named(16, "bearer@example.org"));
    bearer.user.id = taken.user.id;
    let back = named(17, "gone@example.org");
    let users = vec![one, again, same_id, of_gone, of_ana, taken, bearer, back];
    let (added, exists) = (UserImported::Added, UserImported::Exists);
    let expected = vec![added, exists, exists, exists, exists, exists, added, added];
    let command = ImportUsers { now: NOW, users };
    assert_eq!(store.import_users(command.clone()).await.unwrap(), expected);
    assert_eq!(entries(&store).await.len(), before + 3);
    assert_eq!(store.user(ana.id).await.unwrap(), Some(ana));
    assert_eq!(store.import_users(command).await.unwrap(), vec![exists; 8]);
    assert_eq!(entries(&store).await.len(), before + 3);
}
