//! A server with many users, and the addresses that are still unused.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::cases::Setting;
use crate::client::{Call, Line, Request};
use crate::mail::Mailbox;
use crate::server::{Database, Manner, Servers};
use crate::{PATIENCE, SetUp, Trouble};

pub(super) const PASSWORD: &str = "correct horse battery";
/// Connections over which is prepared.
const LINES: usize = 8;
const QUEUED: &str = "SELECT count(*) FROM usermgr_outbox WHERE status = $1";

/// Who an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// To nobody.
    Nobody,
    /// To nobody until somebody registers it.
    Pending,
    /// To a user who can sign in.
    Account,
    /// To a user who is disabled.
    Disabled,
    /// To a user without a password, whose address is not proven.
    Invited,
}

impl Kind {
    /// The letter that its addresses begin with: all addresses are equally long.
    const fn letter(self) -> char {
        match self {
            Self::Nobody => 'n',
            Self::Pending => 'p',
            Self::Account => 'a',
            Self::Disabled => 'd',
            Self::Invited => 'i',
        }
    }

    fn address(self, n: usize) -> String {
        format!("{}{n:06}@example.org", self.letter())
    }
}

/// A running server.
pub(super) struct Ground {
    pub(super) database: Database,
    pub(super) mailbox: Mailbox,
    servers: Servers,
    /// Whether it delivers its mails.
    delivers: bool,
    lines: Vec<Line>,
    used: HashMap<Kind, usize>,
    /// How many users of each kind there are.
    users: [(Kind, usize); 3],
}

impl Ground {
    /// Starts a server with so many users of each kind.
    pub(super) async fn open(
        set_up: SetUp,
        setting: Setting,
        delivers: bool,
        users: [(Kind, usize); 3],
    ) -> Result<Self, Trouble> {
        let (database, mailbox) = (Database::create(set_up).await?, Mailbox::open().await?);
        let mut settings = vec![("USERMGR_HTTP_TRUSTED_PROXIES", "127.0.0.0/8".to_owned())];
        if setting == Setting::Limited {
            settings.push(("USERMGR_CODES_ATTEMPTS", "20".to_owned()));
            settings.push(("USERMGR_PASSWORDS_MEMORY_KIB", "1024".to_owned()));
        }
        let manner = match setting {
            Setting::Limited => Manner::Limited,
            Setting::Free if delivers => Manner::Free,
            Setting::Free => Manner::Apart,
        };
        let servers = Servers::start_with(&database, &mailbox.url(), manner, 1, settings).await?;
        let address = *servers.addresses.first().ok_or("no server")?;
        let lines = (0..LINES).map(|_| Line::new(0, address)).collect();
        let ground = Self { database, mailbox, servers, delivers, lines, used: HashMap::new(), users };
        ground.import().await?;
        Ok(ground)
    }

    /// Adds the users, whose password is hashed as the server hashes.
    async fn import(&self) -> Result<(), Trouble> {
        const SQL: &str = "SELECT password FROM usermgr_users WHERE email_key = $1";
        const FIRST: &str = "first@example.org";
        let url = self.mailbox.url();
        self.servers.create_user(&self.database, &url, FIRST, PASSWORD, "admin").await?;
        let hash = self.database.text(SQL, FIRST).await?;
        let mut users = String::new();
        for (kind, count) in self.users {
            for n in 0..count {
                let email = kind.address(n);
                let user = match kind {
                    Kind::Invited => json!({"email": email, "email_verified": false}),
                    Kind::Disabled => json!({"email": email, "status": "disabled", "password_hash": hash}),
                    _ => json!({"email": email, "password_hash": hash}),
                };
                writeln!(users, "{user}")?;
            }
        }
        let file = self.database.dir.path().join("users.jsonl");
        tokio::fs::write(&file, users).await?;
        let arguments = ["users", "import", file.to_str().ok_or("a path that is no text")?];
        let mut command = self.servers.command(&self.database, &url, &arguments)?;
        if !command.stdout(Stdio::null()).status().await?.success() {
            return Err(format!("users import failed:\n{}", self.servers.said()).into());
        }
        Ok(())
    }

    /// An address of this kind that no request has named yet.
    pub(super) fn take(&mut self, kind: Kind) -> Result<String, Trouble> {
        let used = self.used.entry(kind).or_default();
        if self.users.contains(&(kind, *used)) {
            return Err("more users are needed than were made".into());
        }
        *used += 1;
        Ok(kind.address(*used - 1))
    }

    pub(super) fn take_many(&mut self, kind: Kind, count: usize) -> Result<Vec<String>, Trouble> {
        (0..count).map(|_| self.take(kind)).collect()
    }

    /// Makes all requests, over several connections at once; each must be answered so.
    pub(super) async fn send_all(
        &mut self,
        requests: Vec<Request>,
        status: u16,
    ) -> Result<Vec<Call>, Trouble> {
        let mut shares = vec![Vec::new(); LINES];
        for (n, request) in requests.into_iter().enumerate() {
            shares[n % LINES].push((n, request));
        }
        let begun = Instant::now();
        let sending = self.lines.iter_mut().zip(shares).map(|(line, share)| async move {
            let mut calls = Vec::with_capacity(share.len());
            for (n, request) in share {
                let call = line.call(&request, begun).await.pop().ok_or("no call")?;
                calls.push((n, call.expect(status)?));
            }
            Ok::<_, Trouble>(calls)
        });
        let calls: Result<Vec<_>, _> = join_all(sending).await.into_iter().collect();
        let mut calls: Vec<_> = calls?.into_iter().flatten().collect();
        calls.sort_by_key(|(n, _)| *n);
        Ok(calls.into_iter().map(|(_, call)| call).collect())
    }

    /// Begins a registration at each address.
    pub(super) async fn register(&mut self, addresses: &[String]) -> Result<(), Trouble> {
        let request = |email: &String| {
            let body = json!({"email": email, "password": PASSWORD});
            Request::post("register", "/users", body).through_network_of(email)
        };
        self.send_all(addresses.iter().map(request).collect(), 202).await?;
        Ok(())
    }

    /// The addresses with the first code that was mailed to each.
    pub(super) async fn with_codes(&self, addresses: Vec<String>) -> Result<Vec<(String, String)>, Trouble> {
        let mut codes = Vec::with_capacity(addresses.len());
        for email in addresses {
            let letter = self.mailbox.codes(&email, 1).await?.pop();
            codes.push((email, letter.and_then(|letter| letter.code).ok_or("a mail without a code")?));
        }
        Ok(codes)
    }

    /// Signs in, and answers the access token and the refresh token.
    pub(super) async fn sign_in(&mut self, email: &str) -> Result<(String, String), Trouble> {
        let body: Value = json!({"email": email, "password": PASSWORD});
        let mut calls = self.send_all(vec![Request::post("sign in", "/users/login", body)], 200).await?;
        let call = calls.pop().ok_or("no call")?;
        Ok((call.text("access_token"), call.text("refresh_token")))
    }

    /// Waits until the server has delivered what it has to.
    pub(super) async fn quiet(&self) -> Result<(), Trouble> {
        let begun = Instant::now();
        while self.delivers && self.database.number(QUEUED, "queued").await? > 0 {
            if begun.elapsed() > PATIENCE {
                return Err("stuck: mails are still in the outbox".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// One call on the connection that is measured, and how long it took.
    pub(super) async fn measure(&mut self, request: &Request) -> Result<(Call, Duration), Trouble> {
        let line = self.lines.first_mut().ok_or("no connection")?;
        line.ready().await?;
        let call = line.call(request, Instant::now()).await.pop().ok_or("no call")?;
        let took = call.end.saturating_sub(call.start);
        Ok((call, took))
    }

    /// Ends the server and removes its database.
    pub(super) async fn close(self) -> Result<Vec<String>, Trouble> {
        let faults = self.servers.stop().await?;
        self.database.remove().await?;
        Ok(faults)
    }
}
