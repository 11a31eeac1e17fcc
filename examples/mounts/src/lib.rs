//! What the mounts have in common: the users, and what each shows of them.
//!
//! Each program serves the same: the whole service under `/auth`, a part of it under `/accounts` with a middleware of its
//! own, `/hello` for who is signed in, and `/reports` for who may read them.

use std::sync::Arc;

use usermgr_core::domain::role::Permission;
use usermgr_core::port::random::{Random as _, SystemRandom};
use usermgr_core::{SecretKey, UserManager};
use usermgr_server::{Namespace, ServiceOptions};
use usermgr_smtp::{Console, Sender};
use usermgr_sqlx::SqliteStore;

/// The header that the middleware of `/accounts` adds.
pub const SERVED_BY: &str = "x-served-by";

/// Why a program does not start.
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

/// Where the database is, and on which address to listen: the two arguments of each program.
pub fn arguments() -> (String, String) {
    let mut arguments = std::env::args().skip(1);
    let database = arguments.next().unwrap_or_else(|| "sqlite://mounts.db".into());
    (database, arguments.next().unwrap_or_else(|| "127.0.0.1:3000".into()))
}

/// Users in an SQLite file; their mails are printed.
///
/// # Errors
/// When the file cannot be opened.
pub async fn users(database: &str) -> Result<UserManager, StartError> {
    let store = SqliteStore::connect(database, 4).await?;
    store.migrate().await?;
    let mut key = [0; 32];
    SystemRandom.fill(&mut key);
    Ok(UserManager::builder()
        .store(Arc::new(store))
        .mailer(Arc::new(Console::new(Sender::parse("Example <noreply@example.org>")?)))
        // Keep a real one in a file that only the program can read, or everybody signs in again after each start.
        .secret_key(SecretKey::from_bytes(key))
        .build()?)
}

/// A service with sign-up and sign-in alone, under a path of the host's.
pub fn in_part(base_path: &str) -> ServiceOptions {
    ServiceOptions {
        base_path: base_path.into(),
        namespaces: [Namespace::Registration, Namespace::Sessions].into(),
        docs: false,
        ..ServiceOptions::default()
    }
}

/// The permission that `/reports` asks for. No built-in role but `admin` has it.
///
/// # Errors
/// None: the text is a permission.
pub fn reports() -> Result<Permission, StartError> {
    Ok("reports:read".parse()?)
}

/// Says where a program listens, for whoever asked for port 0.
#[expect(clippy::print_stdout, reason = "programs for a terminal")]
pub fn say(address: std::net::SocketAddr) {
    println!("listening on http://{address}");
}
