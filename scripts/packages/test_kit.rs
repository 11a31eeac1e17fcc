//! A test of an application that has the packaged crates and nothing else.

use usermgr_core::ClientContext;
use usermgr_core::crypto::foreign_hash::{ForeignHash, UnsupportedHash};
use usermgr_core::flow::register::Register;
use usermgr_core::flow::verify_email::Verify;
use usermgr_core::testing::{Failure, TestAuth};

#[tokio::test]
async fn the_test_kit_works_outside() {
    let (auth, client) = (TestAuth::new(), ClientContext::new());
    auth.mail_fails(Some(Failure::Transient));
    let request = Register::new("ana@example.org", TestAuth::PASSWORD);
    auth.users().registration().register(request, &client).await.unwrap();
    assert_eq!(auth.last_code("ana@example.org").await, None);
    auth.mail_fails(None);
    auth.clock().advance(time::Duration::minutes(5));
    let code = auth.last_code("ana@example.org").await.unwrap();
    auth.users().registration().verify(Verify::new("ana@example.org", code), &client).await.unwrap();
    let admin = auth.signed_in("admin").await;
    assert!(auth.users().sessions().authenticate(&admin.access_token).await.is_ok());
}

/// This crate has not asked for `legacy-hashes`; in the workspace the server has.
#[test]
fn a_hash_that_was_left_out_is_refused_by_that_name() {
    for text in [
        "$2y$04$YOnCeXQ9b7Ns58omDVBxcu3sltJlTkQQXAxMnqi/jchrpDW7peCDK",
        "bcrypt_sha256$$2b$04$jV2QQK4xqUSt45dHeGg9Ku/SUsz3DxKVmkC4GdyJUs4rm9gn/QyBG",
        "$scrypt$ln=6,r=8,p=1$613rfS+FkPJ+T6m11tqb0w$5rYDUcnILGKl53jwottb5ThCbBXwDB2LMohp0056pKU",
    ] {
        assert_eq!(ForeignHash::parse(text).err(), Some(UnsupportedHash::LeftOut), "{text}");
    }
    let pbkdf2 = "$pbkdf2-sha256$i=600000,l=32$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert!(ForeignHash::parse(pbkdf2).is_ok());
}
