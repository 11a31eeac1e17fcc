//! A mailer of one's own: mails of one domain go one way, all others another.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::sync::Arc;

use async_trait::async_trait;
use usermgr_core::flow::register::Register;
use usermgr_core::memory::MemoryStore;
use usermgr_core::port::mailer::{Mail, MailError, Mailer};
use usermgr_core::{ClientContext, SecretKey, UserManager};

/// Hands colleagues' mails to one transport and everybody else's to another.
#[derive(Debug)]
struct ByDomain {
    domain: &'static str,
    inside: Arc<dyn Mailer>,
    outside: Arc<dyn Mailer>,
}

#[async_trait]
impl Mailer for ByDomain {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let transport = if mail.to.domain() == self.domain { &self.inside } else { &self.outside };
        transport.send(mail).await
    }
}

/// A transport that prints where it sends. What it returns decides whether the mail is tried again.
#[derive(Debug)]
struct Printed(&'static str);

#[async_trait]
impl Mailer for Printed {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        println!("{}: {} to {}", self.0, mail.subject, mail.to);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let users = UserManager::builder()
        .store(Arc::new(MemoryStore::default()))
        .mailer(Arc::new(ByDomain {
            domain: "example.org",
            inside: Arc::new(Printed("inside")),
            outside: Arc::new(Printed("outside")),
        }))
        .secret_key(SecretKey::from_base64("q5X0mKkXn0bAq1dVQH3nYx4oF8o2m2eS0cVqz8m1T3k=")?)
        .build()?;
    let client = ClientContext::new();
    for address in ["ana@example.org", "bob@example.com"] {
        users.registration().register(Register::new(address, "correct horse battery"), &client).await?;
    }
    users.mail_worker().run_once().await?;
    Ok(())
}
