//! Databases of one's own on the throw-away cluster of the test command.
#![allow(dead_code, unreachable_pub, reason = "shared by several test programs")]

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::AssertSqlSafe;

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
}

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
