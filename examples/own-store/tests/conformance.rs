//! The store in a file obeys the laws, each in a file of its own; and what a file may be found as.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use usermgr_core::conformance::StoreHarness;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::users::CreateUser;
use usermgr_core::port::store::Store;
use usermgr_core::port::store::account::UserQuery;
use usermgr_core::testing::Mailbox;
use usermgr_core::{ClientContext, Error, SecretKey, UserManager};
use usermgr_own_store::{FileStore, OpenError};

#[derive(Default)]
struct Files(Mutex<Vec<tempfile::TempDir>>);

#[async_trait::async_trait]
impl StoreHarness for Files {
    async fn fresh(&self) -> Arc<dyn Store> {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::open(&folder.path().join("users.log")).unwrap();
        self.0.lock().unwrap().push(folder);
        Arc::new(store)
    }
}

usermgr_core::conformance_suite!(Files::default());

fn users(path: &Path) -> UserManager {
    UserManager::builder()
        .store(Arc::new(FileStore::open(path).unwrap()))
        .mailer(Arc::new(Mailbox::default()))
        .secret_key(SecretKey::from_bytes([7; 32]))
        .build()
        .unwrap()
}

async fn invite(users: &UserManager, email: &str) -> Result<(), Error> {
    users.users().create(Principal::Operator, CreateUser::new(email), &ClientContext::new()).await.map(drop)
}

#[tokio::test]
async fn what_was_committed_is_there_again_and_what_a_death_cut_off_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.log");
    for round in 0..3 {
        let there = users(&path);
        invite(&there, "ana@example.org")
            .await
            .map_or_else(|_| assert!(round > 0), |()| assert_eq!(round, 0));
        invite(&there, &format!("user-{round}@example.org")).await.unwrap();
        drop(there);
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(br#"{"user/cut-off":"{\"em"#).unwrap();
    }
    let there = users(&path);
    let all =
        there.users().list(Principal::Operator, UserQuery::default(), &ClientContext::new()).await.unwrap();
    assert_eq!(all.items.len(), 4);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn one_process_has_the_file_and_what_nobody_wrote_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.log");
    let store = FileStore::open(&path).unwrap();
    assert!(matches!(FileStore::open(&path), Err(OpenError::InUse(_))));
    drop(store);
    std::fs::write(&path, "{}\nnobody\n{}\n").unwrap();
    assert!(matches!(FileStore::open(&path), Err(OpenError::Corrupt { line: 2 })));
}
