//! A program with tables of its own beside ours: a company and the registration of its user are committed together, and so
//! are the end of the company and the deletion of its user. When a statement of the program fails, neither remains.
//!
//! On PostgreSQL it is the same, with `PgStore` and `pool.begin()`.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::sync::Arc;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool};
use usermgr_core::flow::register::Register;
use usermgr_core::flow::verify_email::Verify;
use usermgr_core::testing::Mailbox;
use usermgr_core::{ClientContext, Password, SecretKey, UserManager};
use usermgr_sqlx::SqliteStore;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const PASSWORD: &str = "correct horse battery";

struct Program {
    pool: SqlitePool,
    store: SqliteStore,
    users: UserManager,
    client: ClientContext,
}

impl Program {
    /// A company and the registration of its user, or neither.
    async fn sign_up(&self, company: &str, email: &str) -> Outcome<()> {
        let transaction = self.store.in_tx(self.pool.begin_with("BEGIN IMMEDIATE").await?).await?;
        let users = self.users.over(transaction.store());
        users.registration().register(Register::new(email, PASSWORD), &self.client).await?;
        sqlx::query("INSERT INTO companies (name, email) VALUES ($1, $2)")
            .bind(company)
            .bind(email)
            .execute(&mut *transaction.connection().await?)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// The end of a company and the deletion of its user, or neither.
    async fn leave(&self, email: &str) -> Outcome<()> {
        let password = Password::new(PASSWORD);
        let signed_in = self.users.sessions().login(email, &password, &self.client).await?;
        let caller = self.users.sessions().authenticate(&signed_in.access_token).await?;

        let transaction = self.store.in_tx(self.pool.begin_with("BEGIN IMMEDIATE").await?).await?;
        let users = self.users.over(transaction.store());
        users.account().delete(&caller, Some(&password), &self.client).await?;
        sqlx::query("DELETE FROM companies WHERE email = $1")
            .bind(email)
            .execute(&mut *transaction.connection().await?)
            .await?;
        Ok(transaction.commit().await?)
    }

    async fn count(&self, sql: &'static str) -> Outcome<i64> {
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    async fn says(&self, what: &str, outcome: Outcome<()>) -> Outcome<()> {
        let companies = self.count("SELECT COUNT(*) FROM companies").await?;
        let registrations = self.count("SELECT COUNT(*) FROM usermgr_registrations").await?;
        let users = self.count("SELECT COUNT(*) FROM usermgr_users WHERE deleted_at IS NULL").await?;
        let outcome = if outcome.is_ok() { "done" } else { "failed" };
        println!("{what}: {outcome}; companies {companies}, registrations {registrations}, users {users}");
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let folder = std::env::temp_dir().join(format!("usermgr-own-transaction-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let options = SqliteConnectOptions::new()
        .filename(folder.join("companies.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePool::connect_with(options).await?;
    sqlx::raw_sql(
        "CREATE TABLE companies (name TEXT PRIMARY KEY, email TEXT NOT NULL UNIQUE);
         CREATE TABLE invoices (company TEXT NOT NULL REFERENCES companies (name));",
    )
    .execute(&pool)
    .await?;

    let store = SqliteStore::with_pool(pool.clone());
    store.migrate().await?;
    let mailbox = Arc::new(Mailbox::default());
    let users = UserManager::builder()
        .store(Arc::new(store.clone()))
        .mailer(mailbox.clone())
        // Keep a real one in a file that only the program can read.
        .secret_key(SecretKey::from_base64("q5X0mKkXn0bAq1dVQH3nYx4oF8o2m2eS0cVqz8m1T3k=")?)
        .build()?;
    let program = Program { pool, store, users, client: ClientContext::new() };

    program.says("ana signs up with acme", program.sign_up("acme", "ana@example.org").await).await?;
    program.says("bob signs up with acme", program.sign_up("acme", "bob@example.org").await).await?;

    program.users.mail_worker().run_once().await?;
    assert!(mailbox.last("bob@example.org").is_none(), "what was rolled back is not mailed");
    let code = mailbox.last_code("ana@example.org").ok_or("the mail has no code")?;
    program.users.registration().verify(Verify::new("ana@example.org", code), &program.client).await?;

    sqlx::query("INSERT INTO invoices VALUES ('acme')").execute(&program.pool).await?;
    program.says("ana leaves with an open invoice", program.leave("ana@example.org").await).await?;
    sqlx::query("DELETE FROM invoices").execute(&program.pool).await?;
    program.says("ana leaves", program.leave("ana@example.org").await).await?;

    program.pool.close().await;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
