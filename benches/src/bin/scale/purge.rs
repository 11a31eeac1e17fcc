//! Whether users wait while a million expired sessions are removed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::site::{Site, quantile};

const SESSIONS: u64 = 1_000_000;
/// How often `me` is asked.
const EVERY: Duration = Duration::from_millis(5);
/// How long it is asked before the purge.
const CALM: Duration = Duration::from_secs(5);

const SQLITE: &str = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000000) \
    INSERT INTO usermgr_sessions (id, user_id, refresh, password_version, method, created_at, authenticated_at, last_seen_at, \
    idle_expires_at, expires_at) SELECT randomblob(16), user_id, randomblob(32), password_version, method, created_at, \
    authenticated_at, last_seen_at, 1, 1 FROM n, (SELECT * FROM usermgr_sessions LIMIT 1)";
const POSTGRES: &str = "INSERT INTO usermgr_sessions (id, user_id, refresh, password_version, method, created_at, \
    authenticated_at, last_seen_at, idle_expires_at, expires_at) SELECT gen_random_uuid(), user_id, \
    sha256(gen_random_uuid()::text::bytea), password_version, method, created_at, authenticated_at, last_seen_at, \
    'epoch', 'epoch' FROM generate_series(1, 1000000), (SELECT * FROM usermgr_sessions LIMIT 1) AS one";

/// Removes them, and tells what `me` took before and meanwhile.
pub(crate) async fn measure(site: &Site) -> String {
    assert_eq!(site.database.execute(SQLITE, POSTGRES).await.unwrap(), SESSIONS);
    site.database.settle().await.unwrap();
    let done = AtomicBool::new(false);
    let calm = ask(site, || async { tokio::time::sleep(CALM).await }, &done).await.1;
    let purge = || async { site.manager.upkeep().run_once().await.unwrap() };
    let began = Instant::now();
    done.store(false, Ordering::Relaxed);
    let (purged, busy) = ask(site, purge, &done).await;
    let took = began.elapsed().as_secs_f64();
    assert_eq!(purged.sessions, SESSIONS);
    let p99 = |times: Vec<f64>| quantile(times, 0.99);
    let (calm, busy) = (p99(calm), p99(busy));
    format!(
        "{} expired sessions removed in {took:.0} s; `me` p99 {calm:.2} ms before, {busy:.2} ms meanwhile: {:.2} times",
        purged.sessions,
        busy / calm
    )
}

/// Asks `me` again and again while something goes on, each time from the moment it was due, in milliseconds.
async fn ask<T, F: Future<Output = T>>(
    site: &Site,
    go_on: impl FnOnce() -> F,
    done: &AtomicBool,
) -> (T, Vec<f64>) {
    let asking = async {
        let (mut due, mut times) = (Instant::now(), Vec::new());
        while !done.load(Ordering::Relaxed) {
            due += EVERY;
            tokio::time::sleep_until(due.into()).await;
            site.manager.sessions().authenticate(site.token(times.len())).await.unwrap();
            times.push(due.elapsed().as_secs_f64() * 1e3);
        }
        times
    };
    let going_on = async {
        let outcome = go_on().await;
        done.store(true, Ordering::Relaxed);
        outcome
    };
    tokio::join!(going_on, asking)
}
