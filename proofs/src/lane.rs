//! One of several rounds that go on at once, each with addresses and connections of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::Trouble;
use crate::chance::Chance;
use crate::client::{Call, Line, Request};
use crate::mail::{Letter, Mailbox};
use crate::server::Database;

/// What all rounds of a set-up share.
pub(crate) struct Ground {
    pub(crate) database: Database,
    pub(crate) mailbox: Mailbox,
    /// How many mails each address is to get by the end.
    pub(crate) owed: Mutex<HashMap<String, usize>>,
}

/// The first administrator.
pub(crate) const ADMIN: &str = "admin@example.org";
pub(crate) const PASSWORD: &str = "correct horse battery";
const MOST_CALLERS: usize = 16;

/// A user whom a lane knows.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) email: String,
    pub(crate) password: String,
    pub(crate) id: String,
    pub(crate) token: String,
    /// How many links were mailed.
    pub(crate) links: usize,
}

pub(crate) struct Lane {
    pub(crate) ground: Arc<Ground>,
    pub(crate) chance: Chance,
    pub(crate) accounts: Vec<Account>,
    /// For each server, connections that nobody else uses.
    lines: Vec<Vec<Line>>,
    prefix: String,
    made: usize,
    /// When the round's calls were let go.
    begun: Instant,
    /// Every call of the round so far.
    pub(crate) calls: Vec<Call>,
}

impl Lane {
    pub(crate) fn new(
        ground: Arc<Ground>,
        servers: &[std::net::SocketAddr],
        chance: Chance,
        prefix: String,
    ) -> Self {
        let lines = servers
            .iter()
            .enumerate()
            .map(|(n, address)| (0..MOST_CALLERS).map(|_| Line::new(n, *address)).collect())
            .collect();
        Self {
            ground,
            chance,
            accounts: Vec::new(),
            lines,
            prefix,
            made: 0,
            begun: Instant::now(),
            calls: Vec::new(),
        }
    }

    /// An address that nobody has.
    pub(crate) fn fresh(&mut self) -> String {
        self.made += 1;
        format!("{}-{}@example.org", self.prefix, self.made)
    }

    /// How many call at once.
    pub(crate) fn callers(&mut self, first: usize, last: usize) -> usize {
        self.chance.within(first, last)
    }

    /// A short wait, or none.
    pub(crate) fn jitter(&mut self, most: u64) -> Duration {
        if self.chance.within(0, 1) == 0 {
            return Duration::ZERO;
        }
        Duration::from_micros(self.chance.within(0, usize::try_from(most).unwrap_or(0)) as u64)
    }

    /// Lets all go at once, each over its own connection, one server after the other.
    pub(crate) async fn at_once(&mut self, requests: &[Request]) -> Result<Vec<Call>, Trouble> {
        let first = self.chance.within(0, self.lines.len() - 1);
        let servers = self.lines.len();
        let mut lines: Vec<_> = self.lines.iter_mut().map(|lines| lines.iter_mut()).collect();
        let mut pairs = Vec::new();
        for (n, request) in requests.iter().enumerate() {
            let line = lines[(first + n) % servers].next().ok_or("more callers than connections")?;
            pairs.push((line, request));
        }
        for (line, _) in &mut pairs {
            line.ready().await?;
        }
        let begun = Instant::now();
        self.begun = begun;
        let calls = join_all(pairs.into_iter().map(|(line, request)| line.call(request, begun))).await;
        let calls: Vec<_> = calls.into_iter().flatten().collect();
        self.calls.extend_from_slice(&calls);
        Ok(calls)
    }

    /// One call, at any server.
    pub(crate) async fn ask(&mut self, request: Request) -> Result<Call, Trouble> {
        let server = self.chance.within(0, self.lines.len() - 1);
        self.ask_at(server, request).await
    }

    pub(crate) async fn ask_at(&mut self, server: usize, request: Request) -> Result<Call, Trouble> {
        let line = self.lines[server].first_mut().ok_or("no connection")?;
        let call = line.call(&request, self.begun).await.pop().ok_or("no call")?;
        self.calls.push(call.clone());
        Ok(call)
    }

    /// The addresses of the servers.
    pub(crate) fn addresses(&self) -> Vec<std::net::SocketAddr> {
        self.lines.iter().filter_map(|lines| lines.first()).map(Line::address).collect()
    }

    pub(crate) fn servers(&self) -> usize {
        self.lines.len()
    }

    /// From now on an address is to get so many mails more.
    pub(crate) fn owe(&self, address: &str, mails: usize) {
        let mut owed = self.ground.owed.lock().unwrap_or_else(PoisonError::into_inner);
        *owed.entry(address.to_owned()).or_default() += mails;
    }

    /// Begins a registration, and answers its token and the mail with its code.
    pub(crate) async fn register(&mut self, email: &str) -> Result<(String, Letter), Trouble> {
        let call = self.ask(registration(email)).await?.expect(202)?;
        let letter = self.ground.mailbox.codes(email, 1).await?.pop().ok_or("no mail")?;
        Ok((call.text("registration_id"), letter))
    }

    /// Makes the lane's users, as many as wanted, each signed in.
    pub(crate) async fn need_accounts(&mut self, wanted: usize) -> Result<(), Trouble> {
        while self.accounts.len() < wanted {
            let email = self.fresh();
            let (_, letter) = self.register(&email).await?;
            self.ask(verification(&email, letter.code.as_deref(), None)).await?.expect(200)?;
            let mut account = Account {
                email,
                password: PASSWORD.to_owned(),
                id: String::new(),
                token: String::new(),
                links: 0,
            };
            self.sign_in(&mut account).await?;
            self.accounts.push(account);
        }
        Ok(())
    }

    /// The administrator, signed in.
    pub(crate) async fn admin(&mut self) -> Result<Account, Trouble> {
        let (email, password) = (ADMIN.to_owned(), PASSWORD.to_owned());
        let mut admin = Account { email, password, id: String::new(), token: String::new(), links: 0 };
        self.sign_in(&mut admin).await?;
        Ok(admin)
    }

    /// Signs somebody in, which must succeed.
    pub(crate) async fn sign_in(&mut self, account: &mut Account) -> Result<Call, Trouble> {
        let call = self.ask(login("sign in", &account.email, &account.password)).await?.expect(200)?;
        account.token = call.text("access_token");
        let id = call.body.pointer("/user/id").and_then(Value::as_str);
        id.unwrap_or_default().clone_into(&mut account.id);
        Ok(call)
    }

    /// How many users have an address.
    pub(crate) async fn users(&self, email: &str) -> Result<i64, Trouble> {
        const SQL: &str = "SELECT count(*) FROM usermgr_users WHERE email_key = $1 AND deleted_at IS NULL";
        self.ground.database.number(SQL, email).await
    }

    /// How many registrations wait at an address.
    pub(crate) async fn registrations(&self, email: &str) -> Result<i64, Trouble> {
        const SQL: &str = "SELECT count(*) FROM usermgr_registrations WHERE email_key = $1";
        self.ground.database.number(SQL, email).await
    }
}

pub(crate) fn registration(email: &str) -> Request {
    Request::post("register", "/users", json!({"email": email, "password": PASSWORD}))
}

pub(crate) fn verification(email: &str, code: Option<&str>, password: Option<&str>) -> Request {
    let mut body = json!({"email": email, "code": code});
    if let Some(password) = password {
        body["password"] = json!(password);
    }
    Request::post("verify", "/users/verify", body)
}

pub(crate) fn login(label: &str, email: &str, password: &str) -> Request {
    Request::post(label, "/users/login", json!({"email": email, "password": password}))
}
