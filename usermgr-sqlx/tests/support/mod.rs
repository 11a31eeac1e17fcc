//! Databases of one's own on the throw-away cluster of the test command.
#![allow(dead_code, unreachable_pub, reason = "shared by several test programs")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;

/// What is run before the first start, under names of its own: roles belong to the whole cluster.
const ROLES: &str = include_str!("../../../deploy/postgres-roles.sql");

/// A database that is removed at the end.
pub struct Database {
    pub url: String,
    admin: String,
    name: String,
}

impl Database {
    #[expect(clippy::disallowed_methods, reason = "how the test command names its throw-away cluster")]
    pub async fn create() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let admin = std::env::var("USERMGR_TEST_POSTGRES_URL")
            .expect("USERMGR_TEST_POSTGRES_URL names a cluster: run scripts/test");
        let name = format!("laws_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let pool = sqlx::PgPool::connect(&admin).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&pool).await.unwrap();
        pool.close().await;
        let (base, _) = admin.rsplit_once('/').unwrap();
        Self { url: format!("{base}/{name}"), admin, name }
    }

    /// As [`create`](Self::create), with the two roles of an installation.
    pub async fn with_roles() -> Self {
        let database = Self::create().await;
        let pool = sqlx::PgPool::connect(&database.url).await.unwrap();
        let roles = ROLES.replace("usermgr_owner", OWNER).replace("usermgr_app", APP);
        // One role is for all databases, and what two do to it at once one of them has to do again.
        let begun = Instant::now();
        while let Err(error) = sqlx::raw_sql(AssertSqlSafe(roles.clone())).execute(&pool).await {
            assert!(begun.elapsed() < PATIENCE, "{error}");
        }
        pool.close().await;
        database
    }

    /// The URL for another role. Clusters of tests trust whoever comes from here.
    pub fn url_as(&self, role: &str) -> String {
        let rest = self.url.split_once("://").map(|(_, rest)| rest).unwrap();
        let at = rest.rsplit_once('@').map_or(rest, |(_, at)| at);
        format!("postgres://{role}@{at}")
    }
}

/// How long roles may be in each other's way before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);
pub const OWNER: &str = "usermgr_test_owner";
pub const APP: &str = "usermgr_test_app";

impl Drop for Database {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let pool = sqlx::PgPool::connect(&admin).await.unwrap();
                let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                sqlx::query(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
            });
        });
        drop(dropping.join());
    }
}
