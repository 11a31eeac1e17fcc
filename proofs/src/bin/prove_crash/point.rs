//! One point: a copy of the template, a flow, a kill, a restart, and what is found afterwards.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use usermgr_smtp::testing::SmtpSink;

use crate::Fallible;
use crate::database::{Database, EVERYBODY, Kind, Reader, Snapshot};
use crate::flow::{FIRST, Flow, Person, message_id, text};
use crate::server::{Launch, SYSTEM_CALLS, Server, Watch, run};

/// How long a mail may take, once nothing is in its way.
const MAIL_PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for a server that has nothing left to do to come to its point.
const IDLE: Duration = Duration::from_millis(300);
/// How soon the server must be ready again.
const READY: Duration = Duration::from_secs(2);

/// How a server is brought down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Killed before the n-th system call of this name, all of which write to files.
    SystemCall { flow: usize, call: &'static str, n: u32 },
    /// Killed after so long in a flow.
    Random { flow: usize, after: Duration },
    /// Killed after so long, while every flow runs at once.
    Load { after: Duration },
    /// Its connections to the database cut after so long in a flow.
    Cut { flow: usize, after: Duration },
}

/// What kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Lost,
    Half,
    Double,
    Stuck,
    Other,
}

/// What one point showed.
#[derive(Debug, Default)]
pub(crate) struct Finding {
    /// Whether it was brought down before the flow had ended.
    pub(crate) hit: bool,
    pub(crate) faults: Vec<(Fault, String)>,
    pub(crate) restart: Duration,
}

/// A database that every point begins with, and what must stand in it after each step.
pub(crate) struct Template {
    kind: Kind,
    program: PathBuf,
    tokens: &'static str,
    database: Database,
    people: Vec<Person>,
    mails: Vec<String>,
    /// For each person, what stands in the database after so many steps.
    steps: Vec<Vec<Vec<String>>>,
    /// How long each flow takes.
    pub(crate) lengths: Vec<Duration>,
}

/// The code and the link of a mail.
type Secrets = (Option<String>, Option<String>);

/// How far somebody came.
struct Walk {
    person: Person,
    number: usize,
    done: usize,
    /// Whether the next call was sent, and not acknowledged.
    sent: bool,
    wrong: Option<String>,
}

impl Template {
    /// Makes the users that flows begin with. Every flow has `copies` people.
    pub(crate) async fn make(
        kind: Kind,
        admin: &str,
        program: PathBuf,
        tokens: &'static str,
        copies: usize,
    ) -> Fallible<Self> {
        let database = Database::create(kind, admin).await?;
        let count = Flow::ALL.len() * copies;
        let flows = Flow::ALL.into_iter().cycle().take(count).enumerate();
        let people = flows.map(|(number, flow)| Person::new(number, flow)).collect();
        let mut template = Self {
            kind,
            program,
            tokens,
            database,
            people,
            mails: Vec::new(),
            steps: Vec::new(),
            lengths: Vec::new(),
        };
        template.fill().await?;
        template.refer().await?;
        Ok(template)
    }

    fn launch(&self, database: &Database, mailbox: &SmtpSink) -> Launch {
        Launch {
            program: self.program.clone(),
            database: database.url.clone(),
            mail: mailbox.url(),
            tokens: self.tokens,
            folder: database.path(),
        }
    }

    async fn fill(&mut self) -> Fallible<()> {
        let mailbox = SmtpSink::start().await?;
        let launch = self.launch(&self.database, &mailbox);
        let server = Server::start(&launch, &Watch::No).await?;
        let create = |address: &str, role: &str| {
            let args = ["users", "create", address, "--password-stdin", "--role", role];
            if run(&launch, &Watch::No, &args, FIRST)? {
                Ok(())
            } else {
                Err(crate::Failure::from(format!("{address} could not be created")))
            }
        };
        let sign_in = async |address: &str| {
            let body = json!({"email": address, "password": FIRST});
            let answer = server.call("POST", "/users/login", None, Some(body)).await?;
            if answer.status == 200 {
                Ok(answer.body)
            } else {
                Err(crate::Failure::from(answer.body.to_string()))
            }
        };
        create("admin@example.org", "admin")?;
        let admin = text(&sign_in("admin@example.org").await?, "access_token");
        // Whoever is asked to come by a mail that is refused for good.
        mailbox.refuse_rcpt(550);
        for person in &mut self.people {
            person.admin.clone_from(&admin);
            if person.flow.begins_with_user() {
                let role = if person.flow == Flow::Administration { "admin" } else { "user" };
                create(person.address(), role)?;
                person.signed_in(&sign_in(person.address()).await?);
            }
            if person.flow == Flow::Administration {
                let guest = format!("{}guest@example.org", person.prefix);
                let body = Some(json!({"email": guest}));
                server.call("POST", "/users/invite", Some(&admin), body).await?;
                person.dead_mail = dead_mail(&server, &admin, &guest).await?;
            }
        }
        server.stop().await?;
        let reader = self.database.open().await?;
        self.mails = reader.mails().await?.into_iter().map(|mail| mail.id).collect();
        reader.run("DELETE FROM usermgr_throttles").await?;
        reader.close().await;
        Ok(())
    }

    /// Runs every flow undisturbed and notes what stands in the database after each step.
    async fn refer(&mut self) -> Fallible<()> {
        let mailbox = SmtpSink::start().await?;
        let database = self.database.copy().await?;
        let server = Server::start(&self.launch(&database, &mailbox), &Watch::No).await?;
        let reader = database.open().await?;
        for mut person in self.people.clone() {
            reader.run("DELETE FROM usermgr_throttles").await?;
            let begun = Instant::now();
            let mut steps = vec![self.lines(&reader.snapshot().await?, &person)];
            for step in person.flow.steps() {
                if !person.prepare(*step, &mailbox, &server, MAIL_PATIENCE).await {
                    return Err(format!("{:?}: no mail before {step:?}", person.flow).into());
                }
                let answer = person.send(*step, &server).await?;
                if !(200..300).contains(&answer.status) {
                    return Err(format!("{:?}: {step:?}: {answer:?}", person.flow).into());
                }
                person.applied(*step);
                person.answered(*step, &answer.body);
                steps.push(self.lines(&reader.snapshot().await?, &person));
            }
            self.lengths.push(begun.elapsed());
            self.steps.push(steps);
            let wrong = [person.wrong_tokens(&server).await?, person.wrong_passwords(&server).await?];
            if let Some(wrong) = wrong.concat().first() {
                return Err(format!("{:?}, undisturbed: {wrong}", person.flow).into());
            }
        }
        reader.close().await;
        drop(server);
        database.remove().await
    }

    fn lines(&self, snapshot: &Snapshot, person: &Person) -> Vec<String> {
        let limits = if self.tokens == "jwt" { None } else { snapshot.get(EVERYBODY) };
        snapshot.get(&person.prefix).into_iter().chain(limits).flatten().cloned().collect()
    }

    pub(crate) async fn remove(self) -> Fallible<()> {
        self.database.remove().await
    }

    /// How many calls of each name a flow makes, of the thread that makes most.
    pub(crate) async fn count_calls(&self, flow: usize) -> Fallible<Vec<(&'static str, u32)>> {
        let (mailbox, database) = (SmtpSink::start().await?, self.database.copy().await?);
        let record = database.path().join("calls");
        let server = Server::start(&self.launch(&database, &mailbox), &Watch::Record(record.clone())).await?;
        let down = AtomicBool::new(false);
        let walk = self.walk(flow, &mailbox, &server, &down).await;
        if walk.done < walk.person.flow.steps().len() {
            return Err(format!(
                "{:?} did not end while it was recorded: {:?}",
                walk.person.flow, walk.wrong
            )
            .into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(server);
        let mut calls: BTreeMap<(&str, String), u32> = BTreeMap::new();
        for line in std::fs::read_to_string(record)?.lines() {
            let mut words = line.split_whitespace();
            let thread = words.next().unwrap_or_default().to_owned();
            let name = words.next().and_then(|call| call.split_once('(')).map_or("", |(name, _)| name);
            if let Some(name) = SYSTEM_CALLS.into_iter().find(|call| *call == name) {
                *calls.entry((name, thread)).or_default() += 1;
            }
        }
        let most = |name| calls.iter().filter(|((call, _), _)| *call == name).map(|(_, count)| *count).max();
        Ok(SYSTEM_CALLS.into_iter().filter_map(|name| Some((name, most(name)?))).collect())
    }

    /// A flow until its end or the first call that is not acknowledged.
    async fn walk(&self, number: usize, mailbox: &SmtpSink, server: &Server, down: &AtomicBool) -> Walk {
        let Some(person) = self.people.get(number).cloned() else {
            let person = Person::new(number, Flow::Session);
            return Walk { person, number, done: 0, sent: false, wrong: Some("there is nobody".into()) };
        };
        let mut walk = Walk { person, number, done: 0, sent: false, wrong: None };
        for step in walk.person.flow.steps() {
            let person = &mut walk.person;
            let begun = Instant::now();
            // A mail whose delivery was cut off comes when its lease has passed.
            while !person.prepare(*step, mailbox, server, Duration::from_millis(100)).await {
                let waits = begun.elapsed();
                let cut = down.load(Ordering::SeqCst) && waits > Duration::from_secs(1);
                if cut || server.is_gone() || waits > MAIL_PATIENCE {
                    return walk;
                }
            }
            match person.send(*step, server).await {
                Ok(answer) if (200..300).contains(&answer.status) => {
                    person.applied(*step);
                    person.answered(*step, &answer.body);
                    walk.done += 1;
                }
                Ok(answer) if answer.status >= 500 => {
                    walk.sent = true;
                    return walk;
                }
                Ok(answer) => {
                    walk.sent = true;
                    walk.wrong = Some(format!("{step:?} is answered {} {}", answer.status, answer.body));
                    return walk;
                }
                Err(_) => {
                    walk.sent = true;
                    return walk;
                }
            }
        }
        walk
    }

    /// Goes to a point, and says what is found there.
    pub(crate) async fn visit(&self, way: Way) -> Fallible<Finding> {
        let (mailbox, database) = (SmtpSink::start().await?, self.database.copy().await?);
        let launch = self.launch(&database, &mailbox);
        let watch = match way {
            Way::SystemCall { call, n, .. } => Watch::KillAt(call, n),
            _ => Watch::No,
        };
        let server = Server::start(&launch, &watch).await?;
        let down = AtomicBool::new(false);
        let bring_down = async {
            match way {
                Way::SystemCall { .. } => {}
                Way::Random { after, .. } | Way::Load { after } => {
                    tokio::time::sleep(after).await;
                    server.kill();
                }
                Way::Cut { after, .. } => {
                    tokio::time::sleep(after).await;
                    down.store(true, Ordering::SeqCst);
                    let cut = database.cut().await;
                    // What the cut interrupted has its answer soon.
                    return cut.and(server.wait_ready(Instant::now()).await.map(Some));
                }
            }
            Ok(None)
        };
        let (walks, cut) = match way {
            Way::SystemCall { flow, .. } | Way::Random { flow, .. } | Way::Cut { flow, .. } => {
                let (walk, cut) = tokio::join!(self.walk(flow, &mailbox, &server, &down), bring_down);
                (vec![walk], cut?)
            }
            Way::Load { .. } => {
                let all = self.people.len();
                let (walks, cut) = tokio::join!(self.walk_all(all, &mailbox, &server, &down), bring_down);
                (walks, cut?)
            }
        };
        // The last mail may still be under way.
        let ended = Instant::now();
        while matches!(way, Way::SystemCall { .. }) && !server.is_gone() && ended.elapsed() < IDLE {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut finding = Finding { hit: true, ..Finding::default() };
        let begun = Instant::now();
        let server = if let Some(ready) = cut {
            finding.restart = ready;
            tokio::time::sleep(Duration::from_millis(300)).await;
            server
        } else {
            if !server.is_gone() {
                // The flow ended before the call was reached.
                finding.hit = false;
                drop(server);
                database.remove().await?;
                return Ok(finding);
            }
            let server = Server::start(&launch, &Watch::No).await?;
            finding.restart = server.ready_after;
            server
        };
        if server.is_gone() {
            let said = format!("it does not start again: {}", server.log());
            finding.faults.push((Fault::Other, said));
        } else {
            let reader = database.open().await?;
            let about = self.check(walks, &server, &reader, &mailbox, begun, &mut finding).await;
            if let Err(error) = about {
                finding.faults.push((Fault::Other, format!("{error}; it said: {}", server.log())));
            }
            reader.close().await;
        }
        if finding.restart > READY {
            finding.faults.push((Fault::Other, format!("ready only after {:?}", finding.restart)));
        }
        drop(server);
        database.remove().await?;
        Ok(finding)
    }

    async fn walk_all(
        &self,
        all: usize,
        mailbox: &SmtpSink,
        server: &Server,
        down: &AtomicBool,
    ) -> Vec<Walk> {
        let mut walks: Vec<_> =
            (0..all).map(|number| Box::pin(self.walk(number, mailbox, server, down))).collect();
        let mut done = Vec::new();
        std::future::poll_fn(|context| {
            walks.retain_mut(|walk| match walk.as_mut().poll(context) {
                std::task::Poll::Ready(walk) => {
                    done.push(walk);
                    false
                }
                std::task::Poll::Pending => true,
            });
            if walks.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        done
    }

    async fn check(
        &self,
        walks: Vec<Walk>,
        server: &Server,
        reader: &Reader,
        mailbox: &SmtpSink,
        begun: Instant,
        finding: &mut Finding,
    ) -> Fallible<()> {
        let faults = &mut finding.faults;
        let snapshot = reader.snapshot().await?;
        let mut open = Vec::new();
        for mut walk in walks {
            let flow = walk.person.flow;
            if let Some(wrong) = walk.wrong.take() {
                faults.push((Fault::Other, format!("{flow:?}: {wrong}")));
            }
            let found = self.lines(&snapshot, &walk.person);
            let steps = self.steps.get(walk.number).ok_or("a flow was never run undisturbed")?;
            let step = flow.steps().get(walk.done).copied();
            let is = |number: usize| steps.get(number) == Some(&found);
            let happened = if is(walk.done) {
                false
            } else if walk.sent && is(walk.done + 1) {
                true
            } else if let Some(lost) = (0..walk.done).find(|number| is(*number)) {
                let text = format!("{flow:?}: {} calls were acknowledged, {lost} are there", walk.done);
                faults.push((Fault::Lost, text));
                continue;
            } else {
                let text = difference(steps.get(walk.done), &found);
                faults.push((Fault::Half, format!("{flow:?}, in {step:?} (sent: {}): {text}", walk.sent)));
                continue;
            };
            if let Some(step) = step.filter(|_| happened) {
                walk.person.applied(step);
            }
            let wrong = walk.person.wrong_tokens(server).await?;
            faults.extend(wrong.into_iter().map(|text| (Fault::Lost, format!("{flow:?}: {text}"))));
            open.push((walk, happened));
        }
        // What nobody knows the end of is asked again.
        if reader.endless_leases().await? > 0 {
            faults.push((Fault::Stuck, "a lease is longer than five minutes".to_owned()));
        }
        reader.pass_leases(begun.elapsed().as_secs_f64()).await?;
        for (walk, happened) in &mut open {
            self.again(walk, *happened, server, reader, mailbox, faults).await?;
        }
        self.check_mails(reader, mailbox, faults).await?;
        for (walk, _) in &open {
            let wrong = walk.person.wrong_passwords(server).await?;
            let flow = walk.person.flow;
            faults.extend(wrong.into_iter().map(|text| (Fault::Lost, format!("{flow:?}: {text}"))));
        }
        if !reader.is_sound().await? {
            faults.push((Fault::Half, "the file is damaged".to_owned()));
        }
        Ok(())
    }

    /// Repeats the call that got no answer.
    async fn again(
        &self,
        walk: &mut Walk,
        happened: bool,
        server: &Server,
        reader: &Reader,
        mailbox: &SmtpSink,
        faults: &mut Vec<(Fault, String)>,
    ) -> Fallible<()> {
        let Walk { person, number, done, sent, .. } = walk;
        let Some(step) = person.flow.steps().get(*done).copied() else { return Ok(()) };
        let flow = person.flow;
        if happened {
            let answer = person.send(step, server).await?;
            if answer.status != step.again() {
                let text = format!("{flow:?}: {step:?} had happened, and is answered {}", answer.status);
                faults.push((Fault::Other, text));
            }
            return Ok(());
        }
        if !*sent && !person.prepare(step, mailbox, server, MAIL_PATIENCE).await {
            faults.push((Fault::Stuck, format!("{flow:?}: the mail before {step:?} never came")));
            return Ok(());
        }
        let answer = person.send(step, server).await?;
        if !(200..300).contains(&answer.status) {
            let text = format!("{flow:?}: {step:?} had not happened, and is answered {answer:?}");
            faults.push((Fault::Other, text));
            return Ok(());
        }
        person.applied(step);
        person.answered(step, &answer.body);
        let found = self.lines(&reader.snapshot().await?, person);
        let expected = self.steps.get(*number).and_then(|steps| steps.get(*done + 1));
        if expected != Some(&found) {
            let text = difference(expected, &found);
            faults.push((Fault::Half, format!("{flow:?}, {step:?} repeated: {text}")));
        }
        Ok(())
    }

    /// Every mail that is owed arrives, once, or again unchanged when its delivery was cut off.
    async fn check_mails(
        &self,
        reader: &Reader,
        mailbox: &SmtpSink,
        faults: &mut Vec<(Fault, String)>,
    ) -> Fallible<()> {
        let begun = Instant::now();
        let rows = loop {
            let rows = reader.mails().await?;
            if rows.iter().all(|row| row.status != "queued") || begun.elapsed() > MAIL_PATIENCE {
                break rows;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let mut arrived: BTreeMap<String, Vec<Secrets>> = BTreeMap::new();
        for mail in mailbox.mails() {
            arrived.entry(message_id(&mail)).or_default().push((mail.code(), mail.link_token()));
        }
        for row in &rows {
            let copies = arrived.remove(&row.id).unwrap_or_default();
            let old = self.mails.contains(&row.id);
            let name = &row.name;
            match row.status.as_str() {
                "queued" => faults.push((Fault::Stuck, format!("{name} still waits"))),
                "sent" if copies.is_empty() && !old => {
                    faults.push((Fault::Lost, format!("{name} counts as sent and never came")));
                }
                "sent" if row.live == 1 && row.begun == 0 => {
                    faults.push((Fault::Half, format!("{name} was sent, and its code has no end")));
                }
                "void" if row.live == 1 => {
                    faults.push((Fault::Half, format!("{name} is void, its code is not")));
                }
                "dead" if !old => faults.push((Fault::Stuck, format!("{name} is dead"))),
                _ => {}
            }
            if i64::try_from(copies.len())? > row.attempts {
                let text = format!("{name} came {} times in {} attempts", copies.len(), row.attempts);
                faults.push((Fault::Double, text));
            }
            if copies.windows(2).any(|pair| pair[0] != pair[1]) {
                faults.push((Fault::Double, format!("{name} came again with another code")));
            }
        }
        for id in arrived.keys() {
            faults.push((Fault::Half, format!("mail {id} came, and nobody owes it")));
        }
        Ok(())
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }
}

async fn dead_mail(server: &Server, admin: &str, to: &str) -> Fallible<String> {
    let begun = Instant::now();
    while begun.elapsed() < MAIL_PATIENCE {
        let page = server.call("GET", "/outbox?status=dead&limit=200", Some(admin), None).await?;
        let items = page.body["items"].as_array().cloned().unwrap_or_default();
        if let Some(mail) = items.iter().find(|mail| mail["to"] == to) {
            return Ok(text(mail, "id"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err("the refused mail did not die".into())
}

/// The lines that stand on one side only.
fn difference(expected: Option<&Vec<String>>, found: &[String]) -> String {
    let mut count: BTreeMap<&str, i32> = BTreeMap::new();
    for line in found {
        *count.entry(line).or_default() += 1;
    }
    for line in expected.into_iter().flatten() {
        *count.entry(line).or_default() -= 1;
    }
    let lines = count.into_iter().filter(|(_, count)| *count != 0);
    lines.map(|(line, count)| format!("{count:+} {line}")).collect::<Vec<_>>().join("; ")
}
