//! The races: each prepares a round, lets its calls go at once, and judges them.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::Trouble;
use crate::client::{Call, Request, leave as leave_early};
use crate::judge::{Round, Verdict, wins_by};
use crate::lane::{Account, Lane, PASSWORD, login, registration, verification};
use crate::server::{BRIEF, Manner};

/// Which race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Race {
    VerifyVerify,
    VerifyResend,
    ResendResend,
    GuessGuess,
    RegisterRegister,
    RegisterPurge,
    VerifyPurge,
    ResetReset,
    ResetSignIn,
    ChangeAddress,
    RefreshRefresh,
    DemoteUse,
    DeleteUse,
    DemoteDemote,
    WorkerWorker,
    RegisterLeave,
}

/// A race as it is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heat {
    pub(crate) race: Race,
    pub(crate) name: &'static str,
    /// Its share of all rounds, in parts of a hundred.
    pub(crate) share: usize,
    /// How many rounds go on at once.
    pub(crate) lanes: usize,
    /// How the servers are configured for it.
    pub(crate) manner: Manner,
}

impl Heat {
    const fn new(race: Race, name: &'static str, share: usize, lanes: usize, manner: Manner) -> Self {
        Self { race, name, share, lanes, manner }
    }
}

impl Race {
    /// Every race.
    pub(crate) const ALL: [Heat; 16] = [
        Heat::new(Self::VerifyVerify, "verify x verify", 10, 6, Manner::Free),
        Heat::new(Self::VerifyResend, "verify x resend", 8, 6, Manner::Free),
        Heat::new(Self::RegisterRegister, "register x register", 5, 6, Manner::Free),
        Heat::new(Self::ResetReset, "reset x reset", 10, 6, Manner::Free),
        Heat::new(Self::ResetSignIn, "reset x sign-in", 8, 6, Manner::Free),
        Heat::new(Self::ChangeAddress, "change-address x change-address", 8, 6, Manner::Free),
        Heat::new(Self::RefreshRefresh, "refresh x refresh", 8, 6, Manner::Free),
        Heat::new(Self::DemoteUse, "demote x use", 8, 6, Manner::Free),
        Heat::new(Self::DeleteUse, "delete x use", 7, 6, Manner::Free),
        Heat::new(Self::DemoteDemote, "demote x demote", 6, 1, Manner::Free),
        Heat::new(Self::WorkerWorker, "worker x worker", 4, 6, Manner::Free),
        Heat::new(Self::RegisterLeave, "register x leave", 4, 6, Manner::Free),
        Heat::new(Self::ResendResend, "resend x resend", 6, 6, Manner::Limited),
        Heat::new(Self::GuessGuess, "guess x guess", 6, 6, Manner::Limited),
        Heat::new(Self::RegisterPurge, "register x purge", 1, 16, Manner::Brief),
        Heat::new(Self::VerifyPurge, "verify x purge", 1, 16, Manner::Brief),
    ];

    /// One round of it.
    pub(crate) async fn round(self, lane: &mut Lane) -> Result<Round, Trouble> {
        match self {
            Self::VerifyVerify => verify_verify(lane).await,
            Self::VerifyResend => verify_resend(lane).await,
            Self::ResendResend => resend_resend(lane).await,
            Self::GuessGuess => guess_guess(lane).await,
            Self::RegisterRegister => register_register(lane).await,
            Self::RegisterPurge => register_purge(lane).await,
            Self::VerifyPurge => verify_purge(lane).await,
            Self::ResetReset => reset_reset(lane).await,
            Self::ResetSignIn => reset_sign_in(lane).await,
            Self::ChangeAddress if lane.callers(0, 1) == 0 => two_to_one_address(lane).await,
            Self::ChangeAddress => one_to_two_addresses(lane).await,
            Self::RefreshRefresh => refresh_refresh(lane).await,
            Self::DemoteUse => demote_use(lane).await,
            Self::DeleteUse => delete_use(lane).await,
            Self::DemoteDemote => demote_demote(lane).await,
            Self::WorkerWorker => worker_worker(lane).await,
            Self::RegisterLeave => register_leave(lane).await,
        }
    }
}

/// How a code that is not, or no more, the right one is refused.
const NO_CODE: [(u16, &str); 2] = [(400, "invalid_code"), (429, "too_many_attempts")];
/// The tries that a code has.
const TRIES: usize = 5;

fn granted(label: &'static str, status: u16) -> impl Fn(&Call) -> bool {
    move |call| call.label == label && call.status == status
}

/// One code, redeemed by many: one has it.
async fn verify_verify(lane: &mut Lane) -> Result<Round, Trouble> {
    let email = lane.fresh();
    let (_, letter) = lane.register(&email).await?;
    let request = verification(&email, letter.code.as_deref(), None);
    let callers = lane.callers(2, 16);
    let requests: Vec<_> = (0..callers).map(|_| request.clone().after(lane.jitter(1000))).collect();
    let history = lane.at_once(&requests).await?;
    lane.owe(&email, 2); // the code and the welcome
    let users = lane.users(&email).await?;
    let round = Round::of(history, wins_by(200, &NO_CODE)).one_wins();
    let judged = round.count(400);
    Ok(round
        .must(judged <= TRIES, || format!("{judged} wrong tries were judged"))
        .must(users == 1, || format!("{users} users")))
}

/// A code is redeemed while others are asked for: it wins, or the one live code does afterwards.
async fn verify_resend(lane: &mut Lane) -> Result<Round, Trouble> {
    let email = lane.fresh();
    let after = lane.ground.database.newest_mail().await?;
    let (registration, letter) = lane.register(&email).await?;
    let verify = verification(&email, letter.code.as_deref(), None);
    let body = json!({"email": email, "registration_id": registration});
    let resend = Request::post("resend", "/users/resend-code", body);
    // No more than leave the new code a try.
    let (verifies, resends) = (lane.callers(1, 4), lane.callers(1, 6));
    let mut requests: Vec<_> = (0..resends).map(|_| resend.clone().after(lane.jitter(1000))).collect();
    for _ in 0..verifies {
        let at = lane.callers(0, requests.len());
        requests.insert(at, verify.clone().after(lane.jitter(3000)));
    }
    let history = lane.at_once(&requests).await?;
    let rule = |call: &Call| match (call.label.as_str(), call.status) {
        ("resend", 202) => Verdict::Fine,
        ("resend", _) => Verdict::Wrong,
        _ => wins_by(200, &NO_CODE)(call),
    };
    let mut round = Round::of(history, rule).at_most(1);
    let live = lane.ground.database.live([&email, &email], after).await?;
    let wanted = 1 - round.winners;
    round = round.must(live.len() == wanted, || format!("{} live codes, not {wanted}", live.len()));
    if let [live] = live[..] {
        let letter = lane.ground.mailbox.letter(&[&email], live).await?;
        let call = lane.ask(verification(&email, letter.code.as_deref(), None)).await?;
        round.history.push(call);
        let last = round.history.iter().filter(|call| granted("verify", 200)(call)).count();
        round = round.must(last == 1, || "the live code was refused".to_owned());
        round.winners = last.min(1);
    }
    let users = lane.users(&email).await?;
    Ok(round.must(users == 1, || format!("{users} users")))
}

/// Codes asked for at once: as many as the limit lets are sent, and the last one lives.
async fn resend_resend(lane: &mut Lane) -> Result<Round, Trouble> {
    let email = lane.fresh();
    let after = lane.ground.database.newest_mail().await?;
    let (registration, _) = lane.register(&email).await?;
    let body = json!({"email": email, "registration_id": registration});
    let resend = Request::post("resend", "/users/resend-code", body);
    let callers = lane.callers(2, 16);
    let requests: Vec<_> = (0..callers).map(|_| resend.clone().after(lane.jitter(1000))).collect();
    let history = lane.at_once(&requests).await?;
    // The registration was the first of three.
    let mut round = Round::of(history, wins_by(202, &[(429, "rate_limited")])).wins(2);
    let live = lane.ground.database.live([&email, &email], after).await?;
    round = round.must(live.len() == 1, || format!("{} live codes", live.len()));
    if let [live] = live[..] {
        let letter = lane.ground.mailbox.letter(&[&email], live).await?;
        let call = lane.ask(verification(&email, letter.code.as_deref(), None)).await?;
        round = round.must(call.status == 200, || "the live code was refused".to_owned());
        round.history.push(call);
    }
    Ok(round)
}

/// Wrong guesses at once: five are judged, and then the right code is refused too.
async fn guess_guess(lane: &mut Lane) -> Result<Round, Trouble> {
    let email = lane.fresh();
    let (_, letter) = lane.register(&email).await?;
    let code = letter.code.unwrap_or_default();
    let right: usize = code.parse()?;
    let callers = lane.callers(TRIES, 16);
    let requests: Vec<_> = (1..=callers)
        .map(|n| {
            let wrong = format!("{:06}", (right + n * 61_803) % 1_000_000);
            verification(&email, Some(&wrong), None).after(lane.jitter(1000))
        })
        .collect();
    let history = lane.at_once(&requests).await?;
    lane.owe(&email, 1);
    let rule = |call: &Call| match (call.status, call.code.as_str()) {
        (400, "invalid_code") => Verdict::Win,
        (429, "too_many_attempts") => Verdict::Refused,
        _ => Verdict::Wrong,
    };
    let mut round = Round::of(history, rule).wins(TRIES);
    let call = lane.ask(verification(&email, Some(&code), None)).await?;
    round = round.must((call.status, call.code.as_str()) == (429, "too_many_attempts"), || {
        format!("the right code after all guesses: {} {}", call.status, call.code)
    });
    round.history.push(call);
    Ok(round)
}

/// One address registered by many: each waits; one of them becomes the user.
async fn register_register(lane: &mut Lane) -> Result<Round, Trouble> {
    let email = lane.fresh();
    let callers = lane.callers(2, 16);
    let requests: Vec<_> = (0..callers).map(|_| registration(&email).after(lane.jitter(1000))).collect();
    let history = lane.at_once(&requests).await?;
    let round = finish_registrations(lane, &email, callers, 0, history).await?;
    lane.owe(&email, callers + 1);
    Ok(round.one_wins())
}

/// Some register while others hang up in the middle of theirs: who stays is served, and who left has registered or not.
async fn register_leave(lane: &mut Lane) -> Result<Round, Trouble> {
    let (stay, leave) = (lane.callers(2, 8), lane.callers(2, 8));
    let staying: Vec<_> = (0..stay).map(|_| lane.fresh()).collect();
    let leaving: Vec<_> = (0..leave).map(|_| lane.fresh()).collect();
    let addresses = lane.addresses();
    let mut hang_ups = tokio::task::JoinSet::new();
    for (n, email) in leaving.iter().enumerate() {
        let (request, server) = (registration(email), addresses[n % addresses.len()]);
        let after = Duration::from_micros(lane.callers(0, 30_000) as u64);
        hang_ups.spawn(async move { leave_early(server, &request, after).await });
    }
    let requests: Vec<_> =
        staying.iter().map(|email| registration(email).after(lane.jitter(10_000))).collect();
    let history = lane.at_once(&requests).await?;
    for left in hang_ups.join_all().await {
        left?;
    }
    for email in &staying {
        lane.owe(email, 1);
    }
    let mut round = Round::of(history, wins_by(202, &[])).wins(stay);
    for email in &leaving {
        let waiting = lane.registrations(email).await?;
        round = round.must(waiting <= 1, || format!("{waiting} registrations of one who left"));
    }
    Ok(round)
}

/// Redeems the codes of all registrations at once, but those that were there before.
async fn finish_registrations(
    lane: &mut Lane,
    email: &str,
    callers: usize,
    before: usize,
    mut history: Vec<Call>,
) -> Result<Round, Trouble> {
    let accepted = history.iter().filter(|call| granted("register", 202)(call)).count();
    if accepted == callers {
        let letters = lane.ground.mailbox.codes(email, before + callers).await?;
        // The password settles which registration is meant.
        let requests: Vec<_> = letters
            .iter()
            .skip(before)
            .map(|letter| verification(email, letter.code.as_deref(), Some(PASSWORD)))
            .collect();
        history.extend(lane.at_once(&requests).await?);
    }
    let rule = |call: &Call| match (call.label.as_str(), call.status) {
        ("register", 202) => Verdict::Fine,
        ("register", _) => Verdict::Wrong,
        _ if call.code == "code_expired" => Verdict::Refused,
        _ => wins_by(200, &NO_CODE)(call),
    };
    let round = Round::of(history, rule);
    let (users, won) = (lane.users(email).await?, round.winners);
    let round = round.must(users == i64::from(won > 0), || format!("{users} users after {won} won"));
    let waiting = lane.registrations(email).await?;
    Ok(round.must(won == 0 || waiting == 0, || format!("{waiting} registrations are left")))
}

/// An address is registered anew while upkeep removes its registration that is over.
async fn register_purge(lane: &mut Lane) -> Result<Round, Trouble> {
    let email = lane.fresh();
    lane.register(&email).await?;
    let early = lane.callers(0, 150) as u64;
    tokio::time::sleep(BRIEF.saturating_sub(Duration::from_millis(early))).await;
    let callers = lane.callers(2, 4);
    let requests: Vec<_> = (0..callers).map(|_| registration(&email).after(lane.jitter(100_000))).collect();
    let begun = Instant::now();
    let history = lane.at_once(&requests).await?;
    let round = finish_registrations(lane, &email, callers, 1, history).await?;
    // All of it must have come to pass within the life of the new ones, else they may be over.
    let in_time = begun.elapsed() < BRIEF.mul_f32(0.9);
    Ok(if in_time { round.one_wins() } else { round.at_most(1) })
}

/// A code is redeemed at the moment at which its registration ends and upkeep removes it.
async fn verify_purge(lane: &mut Lane) -> Result<Round, Trouble> {
    let email = lane.fresh();
    let begun = Instant::now();
    let (_, letter) = lane.register(&email).await?;
    tokio::time::sleep(BRIEF.saturating_sub(begun.elapsed() + Duration::from_millis(80))).await;
    let request = verification(&email, letter.code.as_deref(), None);
    let callers = lane.callers(2, 6);
    let requests: Vec<_> = (0..callers)
        .map(|_| request.clone().after(Duration::from_millis(lane.callers(0, 200) as u64)))
        .collect();
    let history = lane.at_once(&requests).await?;
    let rule = |call: &Call| match call.code.as_str() {
        "code_expired" => Verdict::Refused,
        _ => wins_by(200, &NO_CODE)(call),
    };
    let round = Round::of(history, rule).at_most(1);
    let (users, won) = (lane.users(&email).await?, round.winners);
    Ok(round.must(usize::try_from(users)? == won, || format!("{users} users after {won} won")))
}

/// Mails the account's user a link that sets a password.
async fn link(lane: &mut Lane, account: &mut Account) -> Result<String, Trouble> {
    let body = json!({"email": account.email});
    lane.ask(Request::post("forgot", "/passwords/forgot", body)).await?.expect(202)?;
    account.links += 1;
    lane.ground.mailbox.link(&account.email, account.links - 1).await
}

fn reset(token: &str, password: &str) -> Request {
    let body = json!({"token": token, "new_password": password, "confirmation_password": password});
    Request::post("reset", "/passwords/reset", body)
}

/// One link, used by many: one sets the password.
async fn reset_reset(lane: &mut Lane) -> Result<Round, Trouble> {
    lane.need_accounts(1).await?;
    let mut account = lane.accounts[0].clone();
    let token = link(lane, &mut account).await?;
    let callers = lane.callers(2, 16);
    let passwords: Vec<_> = (0..callers).map(|n| format!("{}: password {n}", account.links)).collect();
    let requests: Vec<_> = passwords
        .iter()
        .enumerate()
        .map(|(n, password)| {
            let mut request = reset(&token, password).after(lane.jitter(1000));
            request.label = format!("reset {n}");
            request
        })
        .collect();
    let history = lane.at_once(&requests).await?;
    let mut round = Round::of(history, wins_by(204, &[(400, "invalid_link")])).one_wins();
    let winner = round.history.iter().find(|call| call.status == 204).map(|call| call.label.clone());
    lane.owe(&account.email, if lane.accounts[0].links == 0 { 4 } else { 2 });
    for (n, password) in passwords.iter().enumerate() {
        let won = winner.as_ref().is_some_and(|winner| *winner == format!("reset {n}"));
        // The winner's password, and one other.
        if !won && n > 1 {
            continue;
        }
        let call = lane.ask(login("sign in", &account.email, password)).await?;
        let wanted = if won { 200 } else { 401 };
        round = round.must(call.status == wanted, || format!("password {n}: {} {}", call.status, call.code));
        if won {
            account.password.clone_from(password);
        }
        round.history.push(call);
    }
    lane.accounts[0] = account;
    Ok(round)
}

/// Sign-ins with the password that is just replaced: none of their sessions lives on.
async fn reset_sign_in(lane: &mut Lane) -> Result<Round, Trouble> {
    lane.need_accounts(1).await?;
    let mut account = lane.accounts[0].clone();
    let token = link(lane, &mut account).await?;
    let password = format!("password number {}", account.links);
    let mut requests = vec![reset(&token, &password).after(lane.jitter(6000))];
    for _ in 0..lane.callers(1, 15) {
        let request = login("sign in", &account.email, &account.password).times(2);
        requests.push(request.after(lane.jitter(3000)));
    }
    let history = lane.at_once(&requests).await?;
    let rule = |call: &Call| match (call.label.as_str(), call.status, call.code.as_str()) {
        ("reset", 204, _) => Verdict::Win,
        ("sign in", 200, _) => Verdict::Fine,
        ("sign in", 401, "invalid_credentials") => Verdict::Refused,
        _ => Verdict::Wrong,
    };
    let mut round = Round::of(history, rule).one_wins().ends_with("reset", 200);
    let opened: Vec<_> = round.history.iter().filter(|call| granted("sign in", 200)(call)).cloned().collect();
    for session in opened {
        let use_it = Request::get("old session", "/users/me", &session.text("access_token"));
        let renew = json!({"refresh_token": session.text("refresh_token")});
        let renew = Request::post("old session renewed", "/sessions/refresh", renew);
        for request in [use_it, renew] {
            let call = lane.ask(request).await?;
            if call.status == 200 {
                round.doubles += 1;
            }
            round =
                round.must(matches!(call.status, 200 | 401), || format!("{}: {}", call.label, call.status));
            round.history.push(call);
        }
    }
    account.password = password;
    lane.sign_in(&mut account).await?;
    lane.accounts[0] = account;
    Ok(round)
}

fn change_address(account: &Account, to: &str) -> Request {
    let body = json!({"new_email": to, "password": account.password});
    Request::post("change", "/users/me/email", body).by(&account.token)
}

fn confirm(account: &Account, code: Option<&str>) -> Request {
    Request::post("confirm", "/users/me/email/confirm", json!({"code": code})).by(&account.token)
}

async fn address_of(lane: &mut Lane, account: &Account) -> Result<String, Trouble> {
    Ok(lane.ask(Request::get("me", "/users/me", &account.token)).await?.expect(200)?.text("email"))
}

/// Two users and one new address: one has it.
async fn two_to_one_address(lane: &mut Lane) -> Result<Round, Trouble> {
    lane.need_accounts(2).await?;
    let accounts = lane.accounts.clone();
    let new = lane.fresh();
    let mut requests = Vec::new();
    for (n, account) in accounts.iter().take(2).enumerate() {
        lane.ask(change_address(account, &new)).await?.expect(202)?;
        let letter = lane.ground.mailbox.codes(&new, n + 1).await?.pop().ok_or("no mail")?;
        for _ in 0..lane.callers(1, 6) {
            let mut request = confirm(account, letter.code.as_deref()).after(lane.jitter(1500));
            request.label = format!("confirm by user {n}");
            let at = lane.callers(0, requests.len());
            requests.insert(at, request);
        }
    }
    let history = lane.at_once(&requests).await?;
    let mut round = Round::of(history, wins_by(200, &NO_CODE)).one_wins();
    let mut owners = 0;
    for (n, account) in accounts.iter().take(2).enumerate() {
        let now = address_of(lane, account).await?;
        if now == new {
            owners += 1;
        } else {
            round = round.must(now == account.email, || "an address that nobody asked for".to_owned());
        }
        lane.accounts[n].email = now;
    }
    Ok(round.must(owners == 1, || format!("{owners} users have the address")))
}

/// One user and two new addresses, asked for at once: one code lives, and is good once.
async fn one_to_two_addresses(lane: &mut Lane) -> Result<Round, Trouble> {
    lane.need_accounts(2).await?;
    let account = lane.accounts[0].clone();
    let new = [lane.fresh(), lane.fresh()];
    let after = lane.ground.database.newest_mail().await?;
    let asks = lane.callers(2, 4);
    let requests: Vec<_> =
        (0..asks).map(|n| change_address(&account, &new[n % 2]).after(lane.jitter(1000))).collect();
    let mut history = lane.at_once(&requests).await?;
    let live = lane.ground.database.live([&new[0], &new[1]], after).await?;
    let mut to = account.email.clone();
    if let [live] = live[..] {
        let letter = lane.ground.mailbox.letter(&[&new[0], &new[1]], live).await?;
        to.clone_from(&letter.to);
        let request = confirm(&account, letter.code.as_deref());
        let callers = lane.callers(2, 12);
        let requests: Vec<_> = (0..callers).map(|_| request.clone().after(lane.jitter(1000))).collect();
        history.extend(lane.at_once(&requests).await?);
    }
    let rule = |call: &Call| match (call.label.as_str(), call.status) {
        ("change", 202) => Verdict::Fine,
        ("change", _) => Verdict::Wrong,
        _ => wins_by(200, &NO_CODE)(call),
    };
    let mut round = Round::of(history, rule).one_wins();
    round = round.must(live.len() == 1, || format!("{} live codes", live.len()));
    let now = address_of(lane, &account).await?;
    round = round.must(now == to, || "the address is not the code's".to_owned());
    lane.accounts[0].email = now;
    Ok(round)
}

/// One refresh token, used by many at once: all get the same successor, and the session holds.
async fn refresh_refresh(lane: &mut Lane) -> Result<Round, Trouble> {
    lane.need_accounts(1).await?;
    let mut account = lane.accounts[0].clone();
    let session = lane.sign_in(&mut account).await?;
    let refresh =
        |token: &str| Request::post("refresh", "/sessions/refresh", json!({"refresh_token": token}));
    let callers = lane.callers(2, 16);
    let request = refresh(&session.text("refresh_token"));
    let requests: Vec<_> = (0..callers).map(|_| request.clone().after(lane.jitter(1000))).collect();
    let history = lane.at_once(&requests).await?;
    let rule = |call: &Call| if call.status == 200 { Verdict::Fine } else { Verdict::Wrong };
    let mut round = Round::of(history, rule);
    let renewals: Vec<_> = round.history.iter().filter(|call| call.status == 200).collect();
    let mut successors: Vec<_> = renewals.iter().map(|call| call.text("refresh_token")).collect();
    let access = renewals.last().map(|call| call.text("access_token")).unwrap_or_default();
    successors.sort_unstable();
    successors.dedup();
    round.winners = successors.len().min(1);
    round.doubles = successors.len().saturating_sub(1);
    let held = lane.ask(Request::get("use", "/users/me", &access)).await?;
    let renewed = lane.ask(refresh(successors.first().map_or("", String::as_str))).await?;
    for call in [held, renewed] {
        round = round.must(call.status == 200, || format!("afterwards: {} {}", call.status, call.code));
        round.history.push(call);
    }
    Ok(round)
}

fn set_roles(account: &Account, by: &Account, roles: &Value) -> Request {
    let path = format!("/users/{}/roles", account.id);
    Request::new("demote", Method::PUT, path).with(json!({"roles": roles})).by(&by.token)
}

/// Rights that are taken away are gone for whoever asks afterwards, at each server.
async fn demote_use(lane: &mut Lane) -> Result<Round, Trouble> {
    lane.need_accounts(1).await?;
    if lane.accounts.len() < 2 {
        let admin = lane.admin().await?;
        lane.accounts.push(admin);
    }
    let (account, admin) = (lane.accounts[0].clone(), lane.accounts[1].clone());
    lane.ask(set_roles(&account, &admin, &json!(["support"]))).await?.expect(200)?;
    let list = Request::get("use", "/users?limit=1", &account.token);
    let mut requests = vec![set_roles(&account, &admin, &json!([])).after(lane.jitter(8000))];
    for _ in 0..lane.callers(1, 11) {
        requests.push(list.clone().times(3).after(lane.jitter(2000)));
    }
    let history = lane.at_once(&requests).await?;
    let rule = |call: &Call| match (call.label.as_str(), call.status, call.code.as_str()) {
        ("demote", 200, _) => Verdict::Win,
        ("use", 200, _) => Verdict::Fine,
        ("use", 403, "forbidden") => Verdict::Refused,
        _ => Verdict::Wrong,
    };
    let mut round = Round::of(history, rule).one_wins().ends_with("demote", 200);
    for server in 0..lane.servers() {
        let call = lane.ask_at(server, list.clone()).await?;
        round = round.must(call.status == 403, || format!("afterwards: {} {}", call.status, call.code));
        round.history.push(call);
    }
    Ok(round)
}

/// An account that deletes itself is out at once, by one of those who ask; signing in brings it back.
async fn delete_use(lane: &mut Lane) -> Result<Round, Trouble> {
    let new = lane.accounts.is_empty();
    lane.need_accounts(1).await?;
    let mut account = lane.accounts[0].clone();
    let delete = Request::new("delete", Method::DELETE, "/users/me")
        .with(json!({"password": account.password}))
        .by(&account.token);
    let me = Request::get("use", "/users/me", &account.token);
    let deletes = lane.callers(1, 4);
    let mut requests: Vec<_> = (0..deletes).map(|_| delete.clone().after(lane.jitter(6000))).collect();
    for _ in 0..lane.callers(1, 10) {
        requests.push(me.clone().times(3).after(lane.jitter(2000)));
    }
    let history = lane.at_once(&requests).await?;
    let rule = |call: &Call| match (call.label.as_str(), call.status) {
        ("delete", 204) => Verdict::Win,
        ("use", 200) => Verdict::Fine,
        (_, 401) => Verdict::Refused,
        _ => Verdict::Wrong,
    };
    let mut round = Round::of(history, rule).one_wins().ends_with("delete", 200);
    for server in 0..lane.servers() {
        let call = lane.ask_at(server, me.clone()).await?;
        round = round.must(call.status == 401, || format!("afterwards: {} {}", call.status, call.code));
        round.history.push(call);
    }
    lane.owe(&account.email, if new { 3 } else { 1 });
    lane.sign_in(&mut account).await?;
    lane.accounts[0] = account;
    Ok(round)
}

/// How many administrators there are.
const ADMINS: &str = "SELECT count(*) FROM usermgr_users u JOIN usermgr_user_roles r ON r.user_id = u.id \
     WHERE r.role = $1 AND u.status = 'active' AND u.deleted_at IS NULL";

/// Two administrators who take each other's rights away, or each their own: one of them wins, and one is left.
async fn demote_demote(lane: &mut Lane) -> Result<Round, Trouble> {
    if lane.accounts.is_empty() {
        lane.need_accounts(1).await?;
        let admin = lane.admin().await?;
        let other = lane.accounts[0].clone();
        lane.ask(set_roles(&other, &admin, &json!(["admin"]))).await?.expect(200)?;
        lane.accounts.push(admin);
    }
    let accounts = lane.accounts.clone();
    let (disable, own) = (lane.callers(0, 1) == 1, lane.callers(0, 1) == 1);
    let change = |whom: &Account, by: &Account, back: bool| {
        if disable {
            let status = if back { "active" } else { "disabled" };
            Request::new("", Method::PATCH, format!("/users/{}", whom.id))
                .with(json!({"status": status}))
                .by(&by.token)
        } else {
            set_roles(whom, by, &if back { json!(["admin"]) } else { json!([]) })
        }
    };
    let mut requests = Vec::new();
    for side in 0..2 {
        for _ in 0..lane.callers(1, 3) {
            let whom = if own { side } else { 1 - side };
            let mut request = change(&accounts[whom], &accounts[side], false).after(lane.jitter(500));
            request.label = format!("demote by {side}");
            let at = lane.callers(0, requests.len());
            requests.insert(at, request);
        }
    }
    let history = lane.at_once(&requests).await?;
    let won = |side: usize| {
        history.iter().any(|call| call.label == format!("demote by {side}") && call.status == 200)
    };
    let sides = [won(0), won(1)];
    // Who wins may say it twice; who lost has no rights any more, or no session.
    let rule = |call: &Call| match (call.status, call.code.as_str()) {
        (200, _) => Verdict::Fine,
        (403, "forbidden") | (409, "last_admin") => Verdict::Refused,
        (401, "session_ended") if disable => Verdict::Refused,
        _ => Verdict::Wrong,
    };
    let mut round = Round::of(history, rule);
    round.winners = sides.iter().filter(|won| **won).count();
    round = round.one_wins();
    let left = lane.ground.database.number(ADMINS, "admin").await?;
    round = round.must(left == 1, || format!("{left} administrators are left"));
    if !round.is_clean() {
        return Ok(round);
    }
    let rules = usize::from(sides[1] != own);
    let back = change(&accounts[1 - rules], &accounts[rules], true);
    let call = lane.ask(back).await?;
    round = round.must(call.status == 200, || format!("not put back: {} {}", call.status, call.code));
    round.history.push(call);
    if disable {
        let mut account = accounts[1 - rules].clone();
        lane.sign_in(&mut account).await?;
        lane.accounts[1 - rules] = account;
    }
    Ok(round)
}

/// Many mails at once, and several processes that deliver: each comes once.
async fn worker_worker(lane: &mut Lane) -> Result<Round, Trouble> {
    let callers = lane.callers(8, 16);
    let addresses: Vec<_> = (0..callers).map(|_| lane.fresh()).collect();
    let requests: Vec<_> = addresses.iter().map(|address| registration(address)).collect();
    let history = lane.at_once(&requests).await?;
    let mut round = Round::of(history, wins_by(202, &[])).wins(callers);
    for address in &addresses {
        lane.owe(address, 1);
        lane.ground.mailbox.codes(address, 1).await?;
        round.doubles += lane.ground.mailbox.count(address) - 1;
    }
    Ok(round)
}
