//! Workers that are killed and started again, and what the database says of whom it gave which mail.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::process::Child;
use uuid::Uuid;

use super::arrivals::Arrivals;
use super::judge::{Claim, Owed, Record};
use super::{Over, WORKERS, until};
use crate::Trouble;
use crate::mail_server::MailServer;
use crate::moment::{Moment, now};
use crate::server::{Database, Servers};

/// Notes every claim of a mail: whose it is, from when until when. It sees what is committed, whoever commits it.
pub(super) async fn watch_claims(pool: &PgPool) -> Result<(), Trouble> {
    const SQL: &str = "
        CREATE TABLE proof_claims (
            n BIGSERIAL PRIMARY KEY, mail UUID NOT NULL, lease BYTEA NOT NULL, owner TEXT NOT NULL,
            claimed_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(), lease_until TIMESTAMPTZ NOT NULL,
            passed BOOLEAN NOT NULL DEFAULT false, settled_at TIMESTAMPTZ);
        CREATE INDEX proof_claims_lease ON proof_claims (lease, mail);
        CREATE FUNCTION proof_note_claim() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.lease = OLD.lease THEN
                UPDATE proof_claims SET lease_until = NEW.lease_until WHERE lease = OLD.lease AND mail = OLD.id;
            ELSIF NEW.lease IS NULL THEN
                UPDATE proof_claims SET settled_at = clock_timestamp() WHERE lease = OLD.lease AND mail = OLD.id;
            ELSE
                INSERT INTO proof_claims (mail, lease, owner, lease_until)
                VALUES (NEW.id, NEW.lease, current_setting('application_name'), NEW.lease_until);
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER proof_note_claim AFTER UPDATE ON usermgr_outbox FOR EACH ROW
            WHEN (OLD.lease IS DISTINCT FROM NEW.lease OR OLD.lease_until IS DISTINCT FROM NEW.lease_until) EXECUTE FUNCTION proof_note_claim();";
    sqlx::raw_sql(SQL).execute(pool).await?;
    Ok(())
}

/// The leases that somebody left behind.
const LEFT: &str = "SELECT count(*) FROM proof_claims WHERE owner = $1 AND settled_at IS NULL";
/// Puts them back.
const PASS: &str = "WITH dead AS (UPDATE proof_claims SET passed = true \
    WHERE owner = $1 AND settled_at IS NULL RETURNING lease) \
    UPDATE usermgr_outbox SET lease_until = now() WHERE lease IN (SELECT lease FROM dead)";

/// A worker's process, and the mail server that only it knows.
struct Worker {
    number: usize,
    child: Child,
    mail: MailServer,
}

impl Worker {
    fn name(&self) -> String {
        name(self.number)
    }
}

/// What a worker is known by in the database.
fn name(number: usize) -> String {
    format!("worker-{number}")
}

/// As many workers as there are at once.
pub(super) struct Crew {
    over: Over,
    database: Arc<Database>,
    arrivals: Arc<Arrivals>,
    workers: Vec<Worker>,
    started: usize,
    /// Who was killed, and when.
    pub(super) deaths: HashMap<usize, Moment>,
    /// How many leases they left behind.
    pub(super) orphans: u64,
}

impl Crew {
    pub(super) fn new(over: Over, database: Arc<Database>, arrivals: Arc<Arrivals>) -> Self {
        Self { over, database, arrivals, workers: Vec::new(), started: 0, deaths: HashMap::new(), orphans: 0 }
    }

    pub(super) async fn start(&mut self, servers: &Servers) -> Result<(), Trouble> {
        while self.workers.len() < WORKERS {
            let worker = self.hire(servers).await?;
            self.workers.push(worker);
        }
        Ok(())
    }

    async fn hire(&mut self, servers: &Servers) -> Result<Worker, Trouble> {
        let (number, arrivals) = (self.started, Arc::clone(&self.arrivals));
        self.started += 1;
        let mail = match self.over {
            Over::Smtp => MailServer::smtp(move |mail| arrivals.take_mail(number, &mail)).await?,
            Over::Http => MailServer::http(move |posted| arrivals.take_post(number, &posted)).await?,
        };
        let url = format!("{}?application_name={}", self.database.url, name(number));
        let mut command = servers.command(&self.database, &mail.url, &["worker"])?;
        let child = command.env("USERMGR_DATABASE_URL", url).spawn()?;
        Ok(Worker { number, child, mail })
    }

    /// Kills one as `kill -9` does and starts another in its place. What it had sent until then has arrived, and what it
    /// had asked of the database is done, when this returns. Then its leases are put back, as if 30 seconds had gone
    /// by, unless they are to pass by themselves.
    pub(super) async fn kill(&mut self, servers: &Servers, which: usize, pass: bool) -> Result<(), Trouble> {
        let next = self.hire(servers).await?;
        let slot = self.workers.get_mut(which).ok_or("there is no such worker")?;
        let mut dead = std::mem::replace(slot, next);
        dead.child.kill().await?;
        let pool = self.database.postgres()?;
        until("the connections of a dead worker stay open", async || {
            let alive: i64 =
                sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1")
                    .bind(dead.name())
                    .fetch_one(pool)
                    .await?;
            Ok(alive == 0 && dead.mail.open() == 0)
        })
        .await?;
        self.deaths.insert(dead.number, now());
        let left: i64 = sqlx::query_scalar(LEFT).bind(dead.name()).fetch_one(pool).await?;
        self.orphans += u64::try_from(left)?;
        if pass {
            sqlx::query(PASS).bind(dead.name()).execute(pool).await?;
        }
        Ok(())
    }

    /// Waits until nothing is owed any more. False when nothing arrives for too long.
    pub(super) async fn finish(&self, still: Duration) -> Result<bool, Trouble> {
        let (mut seen, mut since) = (self.arrivals.count(), Instant::now());
        while self.database.number("SELECT count(*) FROM usermgr_outbox WHERE status = $1", "queued").await?
            > 0
        {
            if self.arrivals.count() > seen {
                (seen, since) = (self.arrivals.count(), Instant::now());
            }
            if since.elapsed() > still {
                return Ok(false);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(true)
    }

    /// All that is to be judged.
    pub(super) async fn record(&self) -> Result<Record, Trouble> {
        const OWED: &str =
            "SELECT id, email, status, lease IS NOT NULL FROM usermgr_outbox WHERE email IS NOT NULL";
        const CLAIMS: &str = "SELECT mail, owner, (extract(epoch FROM claimed_at) * 1000000)::bigint, \
            (extract(epoch FROM lease_until) * 1000000)::bigint, passed, \
            (extract(epoch FROM settled_at) * 1000000)::bigint FROM proof_claims ORDER BY n";
        type OwedRow = (Uuid, String, String, bool);
        type ClaimRow = (Uuid, String, Moment, Moment, bool, Option<Moment>);
        let pool = self.database.postgres()?;
        let rows: Vec<OwedRow> = sqlx::query_as(OWED).fetch_all(pool).await?;
        let owed =
            rows.into_iter().map(|(id, to, status, is_held)| (id, Owed { to, status, is_held })).collect();
        let rows: Vec<ClaimRow> = sqlx::query_as(CLAIMS).fetch_all(pool).await?;
        let mut claims: HashMap<Uuid, Vec<Claim>> = HashMap::new();
        for (mail, owner, claimed_at, lease_until, passed, settled_at) in rows {
            let by = owner.trim_start_matches("worker-").parse()?;
            let claim = Claim { by, claimed_at, lease_until, passed, settled_at };
            claims.entry(mail).or_default().push(claim);
        }
        Ok(Record { owed, claims, arrivals: self.arrivals.by_mail(), deaths: self.deaths.clone() })
    }

    /// Asks those who are left to stop, as an operator does.
    pub(super) async fn stop(mut self) -> Result<Vec<String>, Trouble> {
        let mut faults = Vec::new();
        for worker in &mut self.workers {
            if let Some(id) = worker.child.id() {
                tokio::process::Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
            }
            match tokio::time::timeout(crate::PATIENCE, worker.child.wait()).await {
                Ok(Ok(status)) if status.success() => {}
                ended => faults.push(format!("{} ended with {ended:?}", worker.name())),
            }
        }
        Ok(faults)
    }
}
