//! From the answer that follows a commit to the mail server: woken by NOTIFY, or by polling alone.

use std::sync::Arc;
use std::time::Duration;

use super::arrivals::Arrivals;
use super::{register, until};
use crate::chance::Chance;
use crate::client::Line;
use crate::mail_server::MailServer;
use crate::moment::now;
use crate::proxy::Proxy;
use crate::server::{Database, Manner, Servers};
use crate::{SetUp, Trouble};

/// What was measured.
#[derive(Debug)]
pub struct HandOver {
    /// How the worker learns of a commit.
    pub way: &'static str,
    /// How long half of them may take, and how long any.
    pub bounds: [Duration; 2],
    /// How long each took, the shortest first.
    took: Vec<Duration>,
}

impl HandOver {
    /// Whether none took longer than it may.
    pub fn holds(&self) -> bool {
        let within = |took: Option<&Duration>, bound| took.is_some_and(|took| *took <= bound);
        let [half, all] = self.bounds;
        within(self.took.get(self.took.len() / 2), half) && within(self.took.last(), all)
    }

    /// In one line.
    pub fn line(&self) -> String {
        let at = |part: usize| {
            let took = self.took.get((self.took.len() * part / 100).min(self.took.len().saturating_sub(1)));
            took.map_or(0.0, |took| took.as_secs_f64() * 1e3)
        };
        format!(
            "{}: {} mails, half within {:.0} ms (allowed: {}), 99 of 100 within {:.0} ms, all within {:.0} ms (allowed: {})\n",
            self.way,
            self.took.len(),
            at(50),
            self.bounds[0].as_millis(),
            at(99),
            at(100),
            self.bounds[1].as_millis()
        )
    }
}

/// One worker and one server on one database; the worker's way to it is a proxy.
pub(super) async fn measure(rounds: usize, seed: u64) -> Result<Vec<HandOver>, Trouble> {
    let database = Database::create(SetUp::Postgres).await?;
    let servers = Servers::start(&database, "memory:", Manner::Apart, 1).await?;
    let arrivals = Arc::new(Arrivals::default());
    let taking = Arc::clone(&arrivals);
    let mail = MailServer::smtp(move |mail| taking.take_mail(0, &mail)).await?;
    let proxy = Proxy::open(&database.url).await?;
    let mut worker = servers.command(&database, &mail.url, &["worker"])?;
    let worker = worker.env("USERMGR_DATABASE_URL", proxy.url(&database.url)?).spawn()?;
    let mut line = Line::new(0, *servers.addresses.first().ok_or("no server")?);
    let mut chance = Chance::new(seed, &[]);
    // Until it listens.
    until("the worker does not deliver", async || {
        register(&mut line, "first@example.org").await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(arrivals.count() > 0)
    })
    .await?;
    let mut found = Vec::new();
    // Polling is once a second; the rest is what a mail and a busy machine take.
    let most = Duration::from_secs(2);
    for (way, half) in [("LISTEN/NOTIFY", Duration::from_millis(250)), ("NOTIFY cut off", most)] {
        if way == "NOTIFY cut off" {
            proxy.leave_notifications_out();
        }
        let mut took = Vec::new();
        for n in 0..rounds {
            tokio::time::sleep(Duration::from_millis(chance.within(20, 320) as u64)).await;
            let to = format!("{}-{n}@example.org", if half < most { "woken" } else { "polled" });
            register(&mut line, &to).await?;
            let answered = now();
            until("a mail did not come", async || Ok(arrivals.came(&to).is_some())).await?;
            let micros = arrivals.came(&to).unwrap_or_default() - answered;
            took.push(Duration::from_micros(u64::try_from(micros).unwrap_or(0)));
        }
        took.sort_unstable();
        found.push(HandOver { way, bounds: [half, most], took });
    }
    drop(worker);
    servers.stop().await?;
    database.remove().await?;
    Ok(found)
}
