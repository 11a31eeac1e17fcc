//! Servers run as a role that can neither make, change nor drop a table (deploy/postgres-roles.sql). Every black-box test on
//! PostgreSQL runs so, and so do the laws of the store; here is what the role must not do, and what it must be told.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "support/blackbox.rs"]
mod blackbox;

use blackbox::{Database, Db, Mailbox, PATIENCE, Server, free_port};
use serde_json::json;
use sqlx::postgres::PgListener;

const ANA: &str = "ana@example.org";
const PASSWORD: &str = "correct horse battery";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn the_role_that_runs_cannot_touch_tables_or_versions() {
    let database = Database::create(Db::Postgres).await;
    let pool = sqlx::PgPool::connect(&database.url).await.unwrap();
    for statement in [
        "CREATE TABLE usermgr_more (id BIGINT)",
        "CREATE TEMPORARY TABLE more (id BIGINT)",
        "CREATE TABLE IF NOT EXISTS usermgr_schema (version BIGINT PRIMARY KEY)",
        "CREATE SCHEMA more",
        "CREATE FUNCTION more() RETURNS INT LANGUAGE sql AS 'SELECT 1'",
        "DROP TABLE usermgr_audit",
        "TRUNCATE usermgr_audit",
        "ALTER TABLE usermgr_users ADD COLUMN more TEXT",
        "ALTER TABLE usermgr_users DISABLE TRIGGER ALL",
        "DROP INDEX usermgr_users_email",
        "CREATE INDEX more ON usermgr_users (id)",
        "INSERT INTO usermgr_schema (version) VALUES (99)",
        "UPDATE usermgr_schema SET oldest = 99",
        "DELETE FROM usermgr_schema",
        "SET ROLE usermgr_test_owner",
        "CREATE ROLE more",
        "COPY usermgr_users TO PROGRAM 'cat'",
    ] {
        let error = sqlx::query(statement).execute(&pool).await.expect_err(statement);
        let error = error.as_database_error().unwrap();
        assert_eq!(error.code().as_deref(), Some("42501"), "{statement}: {error}");
    }
}

/// An attacker who takes the server over cannot hide it: entries of the audit log stay as they are for 30 days.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn the_role_that_runs_cannot_change_the_audit_log() {
    let database = Database::create(Db::Postgres).await;
    let pool = sqlx::PgPool::connect(&database.url).await.unwrap();
    for (n, (age, subject)) in
        [("0 days", "1"), ("29 days", "1"), ("31 days", "1"), ("1 day", "2")].into_iter().enumerate()
    {
        let sql = format!(
            "INSERT INTO usermgr_audit (id, at, event, outcome, subject, email, ip) VALUES \
             ('00000000-0000-7000-8000-00000000000{n}', now() - INTERVAL '{age}', 'login', 'done', \
             '00000000-0000-7000-8000-00000000010{subject}', 'ana@example.org', '192.0.2.1')"
        );
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
    }
    for statement in [
        "DELETE FROM usermgr_audit",
        "DELETE FROM usermgr_audit WHERE at > now() - INTERVAL '30 days'",
        "UPDATE usermgr_audit SET email = NULL, ip = NULL, user_agent = NULL",
        "UPDATE usermgr_audit SET at = now() - INTERVAL '31 days'",
        "UPDATE usermgr_audit SET outcome = 'refused' WHERE at < now() - INTERVAL '30 days'",
        "UPDATE usermgr_audit SET subject = NULL",
        "INSERT INTO usermgr_audit (id, at, event, outcome) SELECT id, at, event, outcome FROM usermgr_audit \
         ON CONFLICT (id) DO UPDATE SET event = 'logout'",
        "SET session_replication_role = replica",
        "DROP TRIGGER usermgr_guard_audit ON usermgr_audit",
        "ALTER TABLE usermgr_audit DISABLE TRIGGER usermgr_guard_audit",
        "CREATE OR REPLACE FUNCTION usermgr_guard_audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
        "CREATE FUNCTION now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz'",
        "TRUNCATE usermgr_audit",
    ] {
        let error = sqlx::query(statement).execute(&pool).await.expect_err(statement);
        let error = error.as_database_error().unwrap();
        assert_eq!(error.code().as_deref(), Some("42501"), "{statement}: {error}");
    }
    assert_eq!(database.count("usermgr_audit").await, 4);
    // What the upkeep does: what is older goes, and a deleted user's entries lose what points to a person.
    let removed = "DELETE FROM usermgr_audit WHERE at < now() - INTERVAL '30 days'";
    assert_eq!(sqlx::query(removed).execute(&pool).await.unwrap().rows_affected(), 1);
    sqlx::query(
        "INSERT INTO usermgr_users \
         (id, email, email_key, roles, status, password_version, created_at, updated_at, deleted_at) \
         VALUES ('00000000-0000-7000-8000-000000000102', 'ana@example.org', 'ana@example.org', 'user', 'active', 1, \
         now(), now(), now())",
    )
    .execute(&pool)
    .await
    .unwrap();
    let blanked = "UPDATE usermgr_audit SET email = NULL, ip = NULL, user_agent = NULL \
                   WHERE subject = '00000000-0000-7000-8000-000000000102'";
    assert_eq!(sqlx::query(blanked).execute(&pool).await.unwrap().rows_affected(), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn a_server_whose_role_cannot_migrate_says_who_has_to() {
    let database = Database::without_tables().await;
    let mailbox = Mailbox::open().await;
    let listen = format!("127.0.0.1:{}", free_port());
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_usermgr-server"));
        command
            .env_remove("DATABASE_URL")
            .env("USERMGR_DATABASE_URL", &database.url)
            .env("USERMGR_MAIL_URL", mailbox.url())
            .env("USERMGR_HTTP_LISTEN", &listen)
            .env("USERMGR_LOG_LEVEL", "error")
            .env("USERMGR_SECRET_KEY", "wZ5f0cL3mJq8yTnB4vRkXe1uHsGd7oPaQi2C6tEbUjM=");
        let ran = command.args(args).output().unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    for args in [&["serve"][..], &["worker"], &["migrate"]] {
        let (code, said) = run(args);
        assert_eq!((code, said.lines().count()), (Some(1), 1), "{args:?} {said}");
        assert!(said.contains("run usermgr-server migrate as the one that owns them"), "{args:?} {said}");
    }
    let (code, said) = run(&["migrate", "--check"]);
    assert!(code == Some(1) && said.contains("there are no tables yet"), "{said}");

    assert!(database.migrate().status.success());
    for args in [&["migrate"][..], &["migrate", "--check"]] {
        let (code, said) = run(args);
        assert_eq!((code, said.as_str()), (Some(0), ""), "{args:?}");
    }
    let server = Server::start(&database, &mailbox.url(), &[]).await;
    assert_eq!(server.run(&["health"]).status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn tables_that_another_role_made_are_taken_over() {
    let database = Database::without_tables().await;
    let store = usermgr_sqlx::PgStore::connect(&database.all_powerful, 1).await.unwrap();
    store.migrate().await.unwrap();
    let pool = sqlx::PgPool::connect(&database.url).await.unwrap();
    assert!(sqlx::query("SELECT 1 FROM usermgr_users").execute(&pool).await.is_err(), "not yet");
    for _ in 0..2 {
        database.say_roles().await;
        sqlx::query("SELECT 1 FROM usermgr_users").execute(&pool).await.unwrap();
        let versions = sqlx::query("DELETE FROM usermgr_schema").execute(&pool).await;
        assert!(versions.is_err(), "versions stay the owner's");
    }
    let others =
        "SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tableowner <> 'usermgr_test_owner'";
    assert_eq!(sqlx::query_scalar::<_, i64>(others).fetch_one(&pool).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn the_role_that_runs_wakes_and_is_woken() {
    let database = Database::create(Db::Postgres).await;
    let mailbox = Mailbox::open().await;
    let mut listener = PgListener::connect(&database.url).await.unwrap();
    listener.listen("usermgr_outbox").await.unwrap();
    let server = Server::start_with(&database, &mailbox.url(), &[], &["serve", "--no-worker"]).await;
    server.post("/users", json!({"email": ANA, "password": PASSWORD})).await.expect(202);
    let told = tokio::time::timeout(PATIENCE, listener.recv()).await.expect("a NOTIFY").unwrap();
    assert_eq!(told.channel(), "usermgr_outbox");

    let worker = Server::start(&database, &mailbox.url(), &[]).await;
    let code = mailbox.code(ANA, 1).await;
    server.post("/users/verify", json!({"email": ANA, "code": code})).await.expect(200);
    let pool = sqlx::PgPool::connect(&database.all_powerful).await.unwrap();
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                     AND usename = 'usermgr_test_app' AND query LIKE 'LISTEN%usermgr_outbox%'";
    let begun = std::time::Instant::now();
    // This test's own, and the worker's.
    while sqlx::query_scalar::<_, i64>(listening).fetch_one(&pool).await.unwrap() < 2 {
        assert!(begun.elapsed() < PATIENCE, "the worker does not listen:\n{}", worker.log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: run scripts/test"]
async fn what_an_operator_does_is_done_as_the_role_that_runs() {
    let (database, mailbox) = (Database::create(Db::Postgres).await, Mailbox::open().await);
    let server = Server::start(&database, &mailbox.url(), &[]).await;
    let created = server.run_with_input(
        &["users", "create", ANA, "--password-stdin", "--role", "admin"],
        "correct horse battery\n",
    );
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let rows = "{\"email\":\"bob@example.org\"}\n";
    let imported = server.run_with_input(&["users", "import", "-", "--format", "jsonl"], rows);
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    for args in [
        &["users", "invite", "eve@example.org"][..],
        &["users", "disable", "bob@example.org"],
        &["users", "delete", "bob@example.org"],
        &["roles", "grant", "eve@example.org", "admin"],
        &["keys", "rotate", "--now"],
        &["keys", "reseal"],
        &["outbox", "list"],
        &["events", "list"],
        &["audit", "list"],
        &["mail", "undeliverable", "list"],
        &["maintenance", "run"],
        &["maintenance", "list"],
        &["migrate", "--check"],
    ] {
        let ran = server.run(args);
        assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_what_the_server_says_and_1_without_one() {
    let (database, mailbox) = (Database::create(Db::Sqlite).await, Mailbox::open().await);
    let server = Server::start(&database, &mailbox.url(), &[]).await;
    let asked = server.run(&["health"]);
    assert_eq!((asked.status.code(), asked.stdout.as_slice()), (Some(0), &b"ready\n"[..]));

    let nobody = server.run_beside(&[("USERMGR_HTTP_LISTEN", "127.0.0.1:9")], &["health"]);
    let said = String::from_utf8_lossy(&nobody.stderr);
    assert_eq!(nobody.status.code(), Some(1), "{said}");
    assert!(said.starts_with("usermgr-server: 127.0.0.1:9 is not ready: "), "{said}");

    // Tables of a newer program that this one does not work on: it runs, and is not ready.
    let pool = sqlx::SqlitePool::connect(&database.url).await.unwrap();
    sqlx::query("INSERT INTO usermgr_schema (version, oldest) VALUES (99, 99)").execute(&pool).await.unwrap();
    let asked = server.run(&["health"]);
    let said = String::from_utf8_lossy(&asked.stderr);
    assert_eq!(asked.status.code(), Some(1), "{said}");
    assert!(said.contains("it answers 503 Service Unavailable"), "{said}");
}
