//! How long the pages of administration and a sign-in's reads take with many users, against few.
//!
//! ```text
//! cargo run --release -p usermgr-benches --bin scale -- sqlite://FILE 10000 1000000
//! cargo run --release -p usermgr-benches --bin scale -- postgres://… 10000 1000000
//! ```
//!
//! It fills an empty database up to each number of users, by the import's own command, and measures after each step: the
//! median of many calls, in microseconds. The last column is the last step's time over the first one's.
#![expect(clippy::unwrap_used, reason = "a measurement that fails is none")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use time::{Duration, OffsetDateTime};
use usermgr_core::domain::audit::{AuditDraft, AuditEvent};
use usermgr_core::domain::event::EventKind;
use usermgr_core::domain::id::{AuditId, EventId, UserId};
use usermgr_core::domain::page::PageSize;
use usermgr_core::domain::password::PasswordHash;
use usermgr_core::domain::role::{Role, Roles};
use usermgr_core::domain::user::{UserStatus, Username};
use usermgr_core::port::random::SystemRandom;
use usermgr_core::port::store::account::{
    CredentialsQuery, ImportUsers, ImportedUser, UserCursor, UserQuery,
};
use usermgr_core::port::store::audit::AuditQuery;
use usermgr_core::port::store::{EventDraft, Store};
use usermgr_core::{Email, User};
use usermgr_sqlx::{PgStore, SqliteStore};

const BATCH: u64 = 2_000;
const RUNS: usize = 400;
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$\
                    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

const BEGAN: OffsetDateTime = time::macros::datetime!(2026-01-01 0:00 UTC);

fn user(n: u64) -> ImportedUser {
    let at = BEGAN + Duration::milliseconds(i64::try_from(n).unwrap() * 7);
    // Addresses and names come in no order, as they do in life.
    let scattered = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let mut roles = Roles::from([Role::user()]);
    if n.is_multiple_of(100) {
        roles.insert("support".parse().unwrap());
    }
    let status = if n % 100 == 50 { UserStatus::Disabled } else { UserStatus::Active };
    let user = User {
        id: UserId::new(at, &SystemRandom),
        email: Email::parse(&format!("{scattered:08x}.{n}@example.org")).unwrap(),
        email_verified_at: Some(at),
        username: Some(Username::parse(&format!("Person {:08x}", scattered.swap_bytes() >> 32)).unwrap()),
        roles,
        status,
        locale: None,
        profile: None,
        created_at: at,
        updated_at: at,
        last_login_at: None,
    };
    let audit = AuditDraft {
        id: AuditId::new(at, &SystemRandom),
        event: if n % 100 == 25 { AuditEvent::RoleChange } else { AuditEvent::UserImport },
        actor: None,
        email: Some(user.email.key().clone()),
        ip: None,
        user_agent: None,
        request_id: None,
    };
    let event = EventDraft { id: EventId::new(at, &SystemRandom), kind: EventKind::UserRegistered };
    ImportedUser { user, password: Some(PasswordHash::new(HASH)), audit, event }
}

async fn fill(store: &dyn Store, from: u64, to: u64) {
    let began = Instant::now();
    let mut next = from;
    while next < to {
        let end = (next + BATCH).min(to);
        store.import_users(ImportUsers { now: BEGAN, users: (next..end).map(user).collect() }).await.unwrap();
        next = end;
        eprint!("\r{next} users, {:.0} s", began.elapsed().as_secs_f64());
    }
    eprintln!();
}

/// The median of a call in microseconds.
async fn median<F: Future<Output = ()>>(mut call: impl FnMut(usize) -> F) -> f64 {
    for n in 0..RUNS / 10 {
        call(n).await;
    }
    let mut times = Vec::with_capacity(RUNS);
    for n in 0..RUNS {
        let began = Instant::now();
        call(n).await;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times.get(RUNS / 2).copied().unwrap_or_default().as_secs_f64() * 1e6
}

async fn measure(store: &Arc<dyn Store>, users: u64) -> Vec<(&'static str, f64)> {
    let sample: Vec<User> = {
        let mut picked = Vec::new();
        for n in (1..users).step_by(usize::try_from(users / 200).unwrap()) {
            let email = user(n).user.email;
            let query = CredentialsQuery { now: BEGAN, email: email.key().clone(), guard: None };
            picked.push(store.credentials(query).await.unwrap().user.unwrap().user);
        }
        picked
    };
    let at = |n: usize| sample[n % sample.len()].clone();
    let size = PageSize::new(50);
    let list = |query: UserQuery| {
        let store = Arc::clone(store);
        async move { drop(store.users(query).await.unwrap()) }
    };
    let audit = |query: AuditQuery| {
        let store = Arc::clone(store);
        async move { drop(store.audit(query).await.unwrap()) }
    };
    let all = UserQuery { size, ..UserQuery::default() };
    let log = AuditQuery { size, ..AuditQuery::default() };
    let last = |email: &Email| email.key().as_str().chars().take(2).collect::<String>();
    let mut rows = Vec::new();
    let mut note = |name, time| rows.push((name, time));
    note("users: newest page", median(|_| list(all.clone())).await);
    let deep = |n: usize| UserQuery { after: Some(UserCursor { term: None, id: at(n).id }), ..all.clone() };
    note("users: page in the middle", median(|n| list(deep(n))).await);
    let role = UserQuery { role: Some("support".parse().unwrap()), ..all.clone() };
    note("users: with a role", median(|_| list(role.clone())).await);
    let disabled = UserQuery { status: Some(UserStatus::Disabled), ..all.clone() };
    note("users: disabled", median(|_| list(disabled.clone())).await);
    let prefix = |prefix: String| UserQuery { prefix: Some(prefix), ..all.clone() };
    note("search: 2 letters of an address", median(|n| list(prefix(last(&at(n).email)))).await);
    let whole = |n: usize| prefix(at(n).email.key().as_str().to_owned());
    note("search: a whole address", median(|n| list(whole(n))).await);
    let name = |n: usize| prefix(Username::folded(at(n).username.unwrap().as_str()));
    note("search: a whole name", median(|n| list(name(n))).await);
    note("search: everybody's name", median(|_| list(prefix("person".into()))).await);
    note("search: nobody", median(|_| list(prefix("zzz".into()))).await);
    note("audit: newest page", median(|_| audit(log)).await);
    let of = |n: usize| AuditQuery { subject: Some(at(n).id), ..log };
    note("audit: of a user", median(|n| audit(of(n))).await);
    let event = AuditQuery { event: Some(AuditEvent::RoleChange), ..log };
    note("audit: of one event", median(|_| audit(event)).await);
    let since = |n: usize| AuditQuery { since: Some(at(n).created_at), ..log };
    note("audit: since", median(|n| audit(since(n))).await);
    let one = median(|n| {
        let (store, id) = (Arc::clone(store), at(n).id);
        async move { drop(store.user(id).await.unwrap()) }
    });
    note("one user", one.await);
    let credentials = median(|n| {
        let (store, email) = (Arc::clone(store), at(n).email.key().clone());
        let query = CredentialsQuery { now: BEGAN, email, guard: None };
        async move { drop(store.credentials(query).await.unwrap()) }
    });
    note("sign-in: read of the credentials", credentials.await);
    rows
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "sqlite::memory:".into());
    let mut steps: Vec<u64> = arguments.map(|step| step.parse().unwrap()).collect();
    if steps.is_empty() {
        steps = vec![10_000, 1_000_000];
    }
    let store: Arc<dyn Store> = if url.starts_with("postgres") {
        let store = PgStore::connect(&url, 4).await.unwrap();
        store.migrate().await.unwrap();
        Arc::new(store)
    } else {
        let store = SqliteStore::connect(&url, 4).await.unwrap();
        store.migrate().await.unwrap();
        Arc::new(store)
    };
    let (mut filled, mut columns) = (0, Vec::new());
    for step in &steps {
        fill(&*store, filled, *step).await;
        filled = *step;
        // Statistics settle as they do in a database that lives: PostgreSQL gathers them once a minute.
        let settle = if url.starts_with("postgres") { 75 } else { 5 };
        tokio::time::sleep(std::time::Duration::from_secs(settle)).await;
        columns.push(measure(&store, *step).await);
    }
    let mut table = format!("{:<36}", "median, microseconds");
    for step in &steps {
        write!(table, "{step:>12}").unwrap();
    }
    writeln!(table, "{:>9}", "ratio").unwrap();
    for (index, (name, first)) in columns[0].iter().enumerate() {
        write!(table, "{name:<36}").unwrap();
        let mut times = columns.iter().map(|column| column[index].1);
        for time in times.clone() {
            write!(table, "{time:>12.0}").unwrap();
        }
        writeln!(table, "{:>9.2}", times.next_back().unwrap_or(*first) / first).unwrap();
    }
    std::io::stdout().write_all(table.as_bytes()).unwrap();
}
