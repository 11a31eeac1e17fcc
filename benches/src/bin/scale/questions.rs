//! What is asked of a site, and how long the answer takes.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use usermgr_core::domain::audit::AuditEvent;
use usermgr_core::domain::page::PageSize;
use usermgr_core::domain::user::{UserStatus, Username};
use usermgr_core::flow::verify_email::Verify;
use usermgr_core::port::store::account::{UserCursor, UserQuery};
use usermgr_core::port::store::audit::AuditQuery;
use usermgr_core::{ClientContext, Password};

use crate::site::{PASSWORD, Site};

/// Asks for the n-th time.
pub(crate) type Question = fn(&Site, usize) -> BoxFuture<'_, Duration>;

/// All questions, those of users first.
pub(crate) const QUESTIONS: &[(&str, Question)] = &[
    ("sign-in, its hash costs nothing", |site, n| {
        Box::pin(async move {
            let (email, password, client) =
                (site.user(n).email.as_str(), Password::new(PASSWORD), ClientContext::new());
            timed(site.manager.sessions().login(email, &password, &client)).await
        })
    }),
    ("who a token belongs to (`me`)", |site, n| {
        Box::pin(timed_by(move || async move { site.manager.sessions().authenticate(site.token(n)).await }))
    }),
    ("verification of a registration", |site, n| {
        Box::pin(async move {
            let (email, code) = site.registrations.get(n).unwrap();
            let verify = Verify::new(email.clone(), code.clone());
            timed(site.manager.registration().verify(verify, &ClientContext::new())).await
        })
    }),
    ("users: newest page", |site, _| users(site, all())),
    ("users: page in the middle", |site, n| {
        users(site, UserQuery { after: Some(UserCursor { term: None, id: site.user(n).id }), ..all() })
    }),
    ("users: with a role", |site, _| {
        users(site, UserQuery { role: Some("support".parse().unwrap()), ..all() })
    }),
    ("users: disabled", |site, _| users(site, UserQuery { status: Some(UserStatus::Disabled), ..all() })),
    ("search: two letters of an address", |site, n| {
        prefix(site, site.user(n).email.key().as_str().chars().take(2).collect())
    }),
    ("search: a whole address", |site, n| prefix(site, site.user(n).email.key().as_str().to_owned())),
    ("search: a whole name", |site, n| {
        prefix(site, Username::folded(site.user(n).username.as_ref().unwrap().as_str()))
    }),
    ("search: everybody's name", |site, _| prefix(site, "person".to_owned())),
    ("search: nobody", |site, _| prefix(site, "zzz".to_owned())),
    ("audit: newest page", |site, _| audit(site, log())),
    ("audit: of a user", |site, n| audit(site, AuditQuery { subject: Some(site.user(n).id), ..log() })),
    ("audit: of one event", |site, _| {
        audit(site, AuditQuery { event: Some(AuditEvent::RoleChange), ..log() })
    }),
    ("audit: since", |site, n| audit(site, AuditQuery { since: Some(site.user(n).created_at), ..log() })),
];

fn all() -> UserQuery {
    UserQuery { size: PageSize::new(50), ..UserQuery::default() }
}

fn log() -> AuditQuery {
    AuditQuery { size: PageSize::new(50), ..AuditQuery::default() }
}

fn users(site: &Site, query: UserQuery) -> BoxFuture<'_, Duration> {
    Box::pin(timed_by(move || site.store.users(query)))
}

fn prefix(site: &Site, prefix: String) -> BoxFuture<'_, Duration> {
    users(site, UserQuery { prefix: Some(prefix), ..all() })
}

fn audit(site: &Site, query: AuditQuery) -> BoxFuture<'_, Duration> {
    Box::pin(timed_by(move || site.store.audit(query)))
}

async fn timed_by<T, E: std::fmt::Debug, F>(ask: impl FnOnce() -> F) -> Duration
where
    F: Future<Output = Result<T, E>>,
{
    timed(ask()).await
}

async fn timed<T, E: std::fmt::Debug>(answer: impl Future<Output = Result<T, E>>) -> Duration {
    let began = Instant::now();
    answer.await.unwrap();
    began.elapsed()
}
