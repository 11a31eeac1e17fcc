//! Registers, verifies, signs in and resets a password, over an SQLite file and without HTTP.
//!
//! Mails are printed on the console, so this program plays both sides: it reads its own mail to find the code.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use usermgr_core::flow::register::Register;
use usermgr_core::flow::verify_email::Verify;
use usermgr_core::port::mailer::{Mail, MailError, Mailer};
use usermgr_core::{ClientContext, LinkToken, Password, SecretKey, UserManager};
use usermgr_sqlx::SqliteStore;

/// A mailbox that keeps the last mail. A real program uses `usermgr_smtp::Smtp`.
#[derive(Debug, Default)]
struct LastMail(Mutex<String>);

#[async_trait]
impl Mailer for LastMail {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        println!("--- mail to {}: {}", mail.to, mail.subject);
        *self.0.lock().map_err(|_| MailError::transient("the mailbox is broken"))? = mail.text.clone();
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("usermgr-example-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let store = SqliteStore::connect(&format!("sqlite://{}", folder.join("users.db").display()), 4).await?;
    store.migrate().await?;
    let mailbox = Arc::new(LastMail::default());
    let users = UserManager::builder()
        .store(Arc::new(store))
        .mailer(mailbox.clone())
        // Keep a real one in a file that only the program can read.
        .secret_key(SecretKey::from_base64("q5X0mKkXn0bAq1dVQH3nYx4oF8o2m2eS0cVqz8m1T3k=")?)
        .build()?;
    let client = ClientContext::new();

    users.registration().register(Register::new("ana@example.org", "correct horse battery"), &client).await?;
    users.mail_worker().run_once().await?;
    let code = line(&mailbox, |line| line.len() == 6 && line.bytes().all(|b| b.is_ascii_digit()))?;
    let user = users.registration().verify(Verify::new("ana@example.org", code), &client).await?;
    println!("{} is user {}", user.email, user.id);

    let signed_in =
        users.sessions().login("ana@example.org", &Password::new("correct horse battery"), &client).await?;
    let caller = users.sessions().authenticate(&signed_in.access_token).await?;
    println!("signed in as {}", caller.user.email);

    users.mail_worker().run_once().await?; // the welcome mail
    users.passwords().forgot("ana@example.org", &client).await?;
    users.mail_worker().run_once().await?;
    let link = line(&mailbox, |line| line.contains("#token="))?;
    let token = LinkToken::new(link.rsplit_once("#token=").map_or("", |(_, token)| token));
    let password = Password::new("an even better password");
    users.passwords().reset(&token, &password, &password, &client).await?;
    users.sessions().login("ana@example.org", &password, &client).await?;
    println!("the password was reset");

    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// The first line of the last mail that looks like this.
fn line(mailbox: &LastMail, looks: impl Fn(&str) -> bool) -> Result<String, &'static str> {
    let text = mailbox.0.lock().map_err(|_| "the mailbox is broken")?;
    text.lines().map(str::trim).find(|line| looks(line)).map(str::to_owned).ok_or("the mail has no such line")
}
