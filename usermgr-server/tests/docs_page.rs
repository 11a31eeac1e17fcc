//! The page of interactive docs in a real browser.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "support/blackbox.rs"]
mod blackbox;

use std::process::Command;

use blackbox::{Database, Db, Server};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium and playwright-core: run scripts/test"]
async fn the_docs_page_works_in_a_browser() {
    let (database, mails) = (Database::create(Db::Sqlite).await, tempfile::tempdir().unwrap());
    let mail_url = format!("file://{}", mails.path().display());
    let server = Server::start(&database, &mail_url, &[]).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/docs.mjs");
    let base = server.base.trim_end_matches("/v1");
    let mut browser = Command::new("node");
    browser.arg(script).env("USERMGR_TEST_URL", base).env("USERMGR_TEST_MAILS", mails.path());
    let output = browser.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
