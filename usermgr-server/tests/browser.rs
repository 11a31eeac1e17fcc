//! The pages in a real browser: `browser/pages.mjs` clicks through them, on both databases and with the mails of the
//! real worker.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "support/blackbox.rs"]
mod blackbox;

use std::process::Command;

use blackbox::{Database, Db, Server, free_port};

async fn click_through(db: Db, script: &str) {
    let database = Database::create(db).await;
    let mails = tempfile::tempdir().unwrap();
    let port = free_port();
    let (listen, url) = (format!("127.0.0.1:{port}"), format!("http://localhost:{port}"));
    let settings = [
        ("USERMGR_HTTP_LISTEN", listen.as_str()),
        ("USERMGR_HTTP_PUBLIC_URL", url.as_str()),
        ("USERMGR_CODES_RESEND_INTERVAL", "2s"),
        ("USERMGR_PAGES_NAME", "Example"),
    ];
    let server = Server::start(&database, &format!("file://{}", mails.path().display()), &settings).await;
    let create = ["users", "create", "admin@example.org", "--role", "admin", "--password-stdin"];
    assert!(server.run_with_input(&create, "correct horse battery").status.success());
    let output = tokio::task::spawn_blocking({
        let (url, mails) = (url.clone(), mails.path().to_owned());
        let script = format!("{}/tests/browser/{script}", env!("CARGO_MANIFEST_DIR"));
        move || {
            let mut node = Command::new("node");
            node.arg(script).env("USERMGR_TEST_URL", url).env("USERMGR_TEST_MAILS", mails).output()
        }
    });
    let output = output.await.unwrap().expect("node");
    let [said, failed] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{said}\n{failed}\n{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium, playwright-core and axe-core: run scripts/test"]
async fn every_page_is_clicked_through_in_a_browser() {
    click_through(Db::Sqlite, "pages.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium, playwright-core, axe-core and Postgres: run scripts/test"]
async fn every_page_is_clicked_through_in_a_browser_on_postgres() {
    click_through(Db::Postgres, "pages.mjs").await;
}
