//! Sign-up by invitation, with a profile of the host's own: a hook asks for an invitation that is good for one account, and
//! a type checks what is kept of a customer.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use usermgr_core::domain::email::EmailKey;
use usermgr_core::domain::event::EventKind;
use usermgr_core::domain::json::JsonObject;
use usermgr_core::domain::refusal::Refusal;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::register::Register;
use usermgr_core::flow::update_user::UpdateUser;
use usermgr_core::flow::verify_email::Verify;
use usermgr_core::port::clock::{Clock as _, SystemClock};
use usermgr_core::port::hook::{Hook, HookError, RegistrationAttempt};
use usermgr_core::port::store::event::{EventFeed, EventQuery};
use usermgr_core::testing::Mailbox;
use usermgr_core::{ClientContext, Error, Password, SecretKey, UserManager};
use usermgr_sqlx::SqliteStore;

/// What the shop keeps of a customer. Whatever is stored has gone through this type.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Customer {
    number: CustomerNumber,
    #[serde(default)]
    newsletter: bool,
}

/// Eight digits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct CustomerNumber(String);

impl TryFrom<String> for CustomerNumber {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let fits = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit());
        if fits { Ok(Self(text)) } else { Err("a customer number has eight digits") }
    }
}

impl From<CustomerNumber> for String {
    fn from(number: CustomerNumber) -> Self {
        number.0
    }
}

/// Invitations by token, each good for one account. In a real program this is a table; its tokens are random and long.
#[derive(Debug, Default)]
struct Invitations(Mutex<HashMap<String, Invitation>>);

#[derive(Debug, Default, Clone)]
struct Invitation {
    /// Who registers by it, and until when it is kept for them.
    kept_for: Option<(EmailKey, OffsetDateTime)>,
    used: bool,
}

impl Invitations {
    /// Keeps an invitation for an address, as long as its registration may wait. Of any number who ask for one, one gets
    /// it; asking again does no harm, so a registration that failed afterwards can be made again.
    fn keep(&self, token: &str, email: &EmailKey) -> bool {
        let now = SystemClock.now();
        let mut invitations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(invitation) = invitations.get_mut(token) else { return false };
        let is_free =
            invitation.kept_for.as_ref().is_none_or(|(whose, until)| whose == email || *until < now);
        if invitation.used || !is_free {
            return false;
        }
        invitation.kept_for = Some((email.clone(), now + Duration::DAY));
        true
    }

    /// Uses up what was kept for an address.
    fn use_up(&self, email: &EmailKey) {
        let mut invitations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for invitation in invitations.values_mut() {
            invitation.used |= invitation.kept_for.as_ref().is_some_and(|(whose, _)| whose == email);
        }
    }
}

#[async_trait]
impl Hook for Invitations {
    async fn before_registration(&self, attempt: &RegistrationAttempt) -> Result<(), HookError> {
        let token = attempt.extra.text("invite").unwrap_or_default();
        if self.keep(token, attempt.email.key()) {
            return Ok(());
        }
        let refusal =
            Refusal::new("invite_needed", "Sign-up is by invitation, and each is good for one account.")?
                .also("es", "El registro es por invitación, y cada una sirve para una sola cuenta.")?;
        Err(refusal.into())
    }
}

/// What follows a registration, by the feed of events: it tells of what was committed, and skips nothing. A real program
/// keeps the position and reads on from there, or takes each event as it comes by an `EventPublisher`.
async fn follow(users: &UserManager, invitations: &Invitations) -> Result<(), Error> {
    let client = ClientContext::new();
    let EventFeed::Page { events, .. } =
        users.users().events(Principal::Operator, EventQuery::default(), &client).await?
    else {
        return Ok(());
    };
    for event in events.iter().filter(|event| event.kind == EventKind::UserRegistered) {
        match users.users().get(Principal::Operator, event.user_id, &client).await {
            Ok(user) => invitations.use_up(user.email.key()),
            // Deleted since.
            Err(Error::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn invited(email: &str, token: &str, number: &str) -> Result<Register, Box<dyn std::error::Error>> {
    Ok(Register::new(email, "correct horse battery")
        .with_extra(JsonObject::of(&HashMap::from([("invite", token)]))?)
        .with_profile(JsonObject::of(&HashMap::from([("number", number)]))?))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("usermgr-hooks-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let store = SqliteStore::connect(&format!("sqlite://{}", folder.join("users.db").display()), 4).await?;
    store.migrate().await?;
    let token = "kq7w-2f9c-x1mz-80ra";
    let invitations =
        Arc::new(Invitations(Mutex::new(HashMap::from([(token.into(), Invitation::default())]))));
    // A real program takes a transport of usermgr_smtp; this one reads its own mail.
    let mailbox = Arc::new(Mailbox::default());
    let users = UserManager::builder()
        .store(Arc::new(store))
        .mailer(mailbox.clone())
        // Keep a real one in a file that only the program can read.
        .secret_key(SecretKey::from_base64("q5X0mKkXn0bAq1dVQH3nYx4oF8o2m2eS0cVqz8m1T3k=")?)
        .hook(invitations.clone())
        .profile::<Customer>()
        .build()?;
    let client = ClientContext::new();
    let registration = users.registration();

    match registration.register(invited("ana@example.org", "guessed", "12345678")?, &client).await {
        Err(Error::Refused(refusal)) => println!("{}: {}", refusal.reason(), refusal.text("en")),
        other => return Err(format!("a guessed invitation was taken: {other:?}").into()),
    }
    match registration.register(invited("ana@example.org", token, "1234")?, &client).await {
        Err(Error::Invalid(faults)) => {
            for fault in faults {
                println!("{} is {}", fault.field, fault.fault.as_str());
            }
        }
        other => return Err(format!("a wrong number was taken: {other:?}").into()),
    }

    registration.register(invited("ana@example.org", token, "12345678")?, &client).await?;
    if registration.register(invited("bob@example.org", token, "87654321")?, &client).await.is_ok() {
        return Err("one invitation was taken by two".into());
    }
    users.mail_worker().run_once().await?;
    let code = mailbox.last_code("ana@example.org").ok_or("no mail")?;
    let user = registration.verify(Verify::new("ana@example.org", code), &client).await?;
    let customer: Customer = user.profile()?.ok_or("no profile")?;
    println!("{} is customer {}", user.email, customer.number.0);
    follow(&users, &invitations).await?;
    if registration.register(invited("bob@example.org", token, "87654321")?, &client).await.is_ok() {
        return Err("an invitation was used twice".into());
    }
    println!("the invitation is used up");

    let password = Password::new("correct horse battery");
    let signed_in = users.sessions().login("ana@example.org", &password, &client).await?;
    let caller = users.sessions().authenticate(&signed_in.access_token).await?;
    let profile = JsonObject::of(&Customer { newsletter: true, ..customer })?;
    let change = UpdateUser::new().with_profile(Some(profile));
    let user = users.account().update(&caller, change, &client).await?;
    println!("the profile is {}", user.profile.as_ref().map_or("none", |profile| profile.as_str()));

    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
