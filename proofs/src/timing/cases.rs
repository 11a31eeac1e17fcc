//! What is compared: for each path two kinds of request that must take equally long, and what has to be there first.

use serde_json::{Value, json};

use super::ground::{Ground, Kind, PASSWORD};
use crate::Trouble;
use crate::client::Request;

const NEW_PASSWORD: &str = "an even better password";
const WRONG_PASSWORD: &str = "wrong horse battery";
/// A guess; where it is the right code by chance, the other one.
const GUESSES: [&str; 2] = ["271828", "314159"];
/// How many accounts are shared by the pairs of a case that changes nothing.
const SHARED: usize = 10;
/// Wrong guesses at which the day's budget of an address is used up.
const BUDGET: usize = 10;
/// Wrong guesses at which a code is used up, by default.
const ATTEMPTS: usize = 5;

/// How the server of a case is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    /// Without limits but a code's own tries.
    Free,
    /// With the limits of an address; a code survives the budget of its address, and hashes cost more.
    Limited,
}

/// Two kinds of request of one path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) path: &'static str,
    /// The kind that stands for nobody or for a wrong guess, and the kind that must not be told from it.
    pub(super) sides: [&'static str; 2],
    pub(super) setting: Setting,
    /// Whether a mail must arrive before it begins.
    pub(super) needs_mail: bool,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// The same request for an address that nobody has and for one of a kind.
    Address(Ask, Kind),
    /// The same kind on both sides: what the machine's noise alone shows.
    Control,
    ActivateRightCode,
    VerifyRightCode,
    SetWrongGuess,
    SetDeadCode,
    SetPastBudget,
    RegistrationPastBudget,
    ResetLink,
    UndoLink,
    Refresh,
}

/// A request for an address.
#[derive(Debug, Clone, Copy)]
enum Ask {
    Register,
    Resend,
    Code(&'static str),
    Forgot,
    Login(&'static str),
    Activate,
    Verify,
}

const fn address(path: &'static str, ask: Ask, kind: Kind, side: &'static str) -> Case {
    Case {
        path,
        sides: ["nobody", side],
        setting: Setting::Free,
        needs_mail: false,
        what: What::Address(ask, kind),
    }
}

const fn guess(path: &'static str, sides: [&'static str; 2], what: What) -> Case {
    Case { path, sides, setting: Setting::Free, needs_mail: true, what }
}

const RESET: Ask = Ask::Code("reset_password");
const SETUP: Ask = Ask::Code("first_time_setup");
const PROOF: Ask = Ask::Code("email_verification");

impl Case {
    /// All of them.
    pub(super) const ALL: [Self; 31] = [
        Self {
            path: "control",
            sides: ["nobody", "nobody"],
            setting: Setting::Free,
            needs_mail: false,
            what: What::Control,
        },
        address("register", Ask::Register, Kind::Account, "account"),
        address("register", Ask::Register, Kind::Pending, "pending"),
        address("resend-code", Ask::Resend, Kind::Pending, "pending"),
        address("resend-code", Ask::Resend, Kind::Account, "account"),
        address("resend-code", Ask::Resend, Kind::Invited, "unproven account"),
        address("request-code reset_password", RESET, Kind::Account, "account"),
        address("request-code reset_password", RESET, Kind::Disabled, "disabled"),
        address("request-code reset_password", RESET, Kind::Pending, "pending"),
        address("request-code first_time_setup", SETUP, Kind::Invited, "invited"),
        address("request-code first_time_setup", SETUP, Kind::Account, "account"),
        address("request-code email_verification", PROOF, Kind::Pending, "pending"),
        address("request-code email_verification", PROOF, Kind::Account, "account"),
        address("forgot", Ask::Forgot, Kind::Account, "account"),
        address("forgot", Ask::Forgot, Kind::Disabled, "disabled"),
        address("forgot", Ask::Forgot, Kind::Pending, "pending"),
        address("login", Ask::Login(WRONG_PASSWORD), Kind::Account, "wrong password"),
        address("login", Ask::Login(PASSWORD), Kind::Disabled, "disabled"),
        address("login", Ask::Login(PASSWORD), Kind::Pending, "pending"),
        address("login", Ask::Login(PASSWORD), Kind::Invited, "without password"),
        address("activate", Ask::Activate, Kind::Pending, "pending, wrong password"),
        guess("activate, wrong password", ["wrong code", "right code"], What::ActivateRightCode),
        address("verify", Ask::Verify, Kind::Pending, "wrong code"),
        guess("verify, wrong password", ["wrong code", "right code"], What::VerifyRightCode),
        guess("set-with-code", ["nobody", "wrong code"], What::SetWrongGuess),
        guess("set-with-code, code used up", ["wrong code", "right code"], What::SetDeadCode),
        Self {
            setting: Setting::Limited,
            ..guess("set-with-code, budget used up", ["wrong code", "right code"], What::SetPastBudget)
        },
        Self {
            setting: Setting::Limited,
            ..guess(
                "set-password-with-email-code, budget used up",
                ["wrong code", "right code"],
                What::RegistrationPastBudget,
            )
        },
        guess("reset by link", ["unknown", "forged"], What::ResetLink),
        guess("undo by link", ["unknown", "forged"], What::UndoLink),
        Self {
            needs_mail: false,
            ..guess("refresh, forged", ["ended session", "live session"], What::Refresh)
        },
    ];

    /// Whose account each pair takes one of, if a pair does.
    pub(super) const fn takes(&self) -> Option<Kind> {
        match self.what {
            What::Address(_, kind) => Some(kind),
            What::SetWrongGuess => Some(Kind::Account),
            _ => None,
        }
    }

    /// Makes what the pairs need, and the pairs.
    pub(super) async fn prepare(
        self,
        ground: &mut Ground,
        pairs: usize,
    ) -> Result<Vec<[Request; 2]>, Trouble> {
        match self.what {
            What::Control => (0..pairs)
                .map(|_| {
                    Ok([
                        Ask::Forgot.of(&ground.take(Kind::Nobody)?),
                        Ask::Forgot.of(&ground.take(Kind::Nobody)?),
                    ])
                })
                .collect(),
            What::Address(ask, kind) => {
                let others = ground.take_many(kind, pairs)?;
                if kind == Kind::Pending {
                    ground.register(&others).await?;
                }
                let pair = |other: String| Ok([ask.of(&ground.take(Kind::Nobody)?), ask.of(&other)]);
                others.into_iter().map(pair).collect()
            }
            What::ActivateRightCode => {
                let codes = registrations(ground, 2 * pairs).await?;
                Ok(pair_up(&codes, |email, code| activate(email, WRONG_PASSWORD, code)))
            }
            What::VerifyRightCode => {
                let codes = registrations(ground, 2 * pairs).await?;
                Ok(pair_up(&codes, |email, code| {
                    let body = json!({"email": email, "code": code, "password": WRONG_PASSWORD});
                    Request::post("verify", "/users/verify", body).through_network_of(email)
                }))
            }
            What::SetWrongGuess => {
                let accounts = reset_codes(ground, pairs).await?;
                accounts
                    .iter()
                    .map(|(email, code)| {
                        let wrong = wrong(code);
                        Ok([set_with_code(&ground.take(Kind::Nobody)?, wrong), set_with_code(email, wrong)])
                    })
                    .collect()
            }
            What::SetDeadCode => {
                let accounts = reset_codes(ground, SHARED.min(pairs)).await?;
                spend(ground, &accounts, ATTEMPTS, set_with_code).await?;
                Ok(share(&accounts, pairs, set_with_code))
            }
            What::SetPastBudget => {
                let accounts = reset_codes(ground, SHARED.min(pairs)).await?;
                spend(ground, &accounts, BUDGET, set_with_code).await?;
                Ok(share(&accounts, pairs, set_with_code))
            }
            What::RegistrationPastBudget => {
                let pending = registrations(ground, SHARED.min(pairs)).await?;
                spend(ground, &pending, BUDGET, set_with_email_code).await?;
                Ok(share(&pending, pairs, set_with_email_code))
            }
            What::ResetLink => reset_links(ground, pairs).await,
            What::UndoLink => undo_links(ground, pairs).await,
            What::Refresh => refresh_tokens(ground, pairs).await,
        }
    }
}

impl Ask {
    fn of(self, email: &str) -> Request {
        match self {
            Self::Register => {
                Request::post("register", "/users", json!({"email": email, "password": PASSWORD}))
            }
            Self::Resend => Request::post("resend", "/users/resend-code", json!({"email": email})),
            Self::Code(purpose) => {
                let body = json!({"email": email, "purpose": purpose});
                Request::post("request-code", "/passwords/request-code", body)
            }
            Self::Forgot => Request::post("forgot", "/passwords/forgot", json!({"email": email})),
            Self::Login(password) => {
                Request::post("login", "/users/login", json!({"email": email, "password": password}))
            }
            Self::Activate => activate(email, WRONG_PASSWORD, GUESSES[0]),
            Self::Verify => {
                Request::post("verify", "/users/verify", json!({"email": email, "code": GUESSES[0]}))
            }
        }
        .through_network_of(email)
    }
}

fn activate(email: &str, password: &str, code: &str) -> Request {
    Request::post("activate", "/users/activate", json!({"code": code}))
        .basic(email, password)
        .through_network_of(email)
}

fn set_with_code(email: &str, code: &str) -> Request {
    set("/passwords/set-with-code", email, code)
}

fn set_with_email_code(email: &str, code: &str) -> Request {
    set("/users/set-password-with-email-code", email, code)
}

fn set(path: &str, email: &str, code: &str) -> Request {
    let body = json!({
        "email": email, "verification_code": code,
        "new_password": NEW_PASSWORD, "confirmation_password": NEW_PASSWORD,
    });
    Request::post("set", path, body).through_network_of(email)
}

fn wrong(code: &str) -> &'static str {
    if code == GUESSES[0] { GUESSES[1] } else { GUESSES[0] }
}

/// Registrations and their codes.
async fn registrations(ground: &mut Ground, count: usize) -> Result<Vec<(String, String)>, Trouble> {
    let pending = ground.take_many(Kind::Pending, count)?;
    ground.register(&pending).await?;
    ground.with_codes(pending).await
}

/// Accounts and the codes that may set their passwords.
async fn reset_codes(ground: &mut Ground, count: usize) -> Result<Vec<(String, String)>, Trouble> {
    let accounts = ground.take_many(Kind::Account, count)?;
    let requests = accounts.iter().map(|email| RESET.of(email)).collect();
    ground.send_all(requests, 202).await?;
    ground.with_codes(accounts).await
}

/// Guesses wrong at each code so many times.
async fn spend(
    ground: &mut Ground,
    codes: &[(String, String)],
    times: usize,
    request: fn(&str, &str) -> Request,
) -> Result<(), Trouble> {
    for _ in 0..times {
        let guesses = codes.iter().map(|(email, code)| request(email, wrong(code))).collect();
        ground.send_all(guesses, 400).await?;
    }
    Ok(())
}

/// One wrong guess and one right one each, at codes of their own.
fn pair_up(codes: &[(String, String)], request: impl Fn(&str, &str) -> Request) -> Vec<[Request; 2]> {
    codes
        .chunks_exact(2)
        .filter_map(|two| {
            let [(one, code), (other, right)] = two else { return None };
            Some([request(one, wrong(code)), request(other, right)])
        })
        .collect()
}

/// One wrong guess and one right one each, at the same few codes again and again.
fn share(codes: &[(String, String)], pairs: usize, request: fn(&str, &str) -> Request) -> Vec<[Request; 2]> {
    let shared = codes.iter().cycle().take(pairs);
    shared.map(|(email, code)| [request(email, wrong(code)), request(email, code)]).collect()
}

async fn reset_links(ground: &mut Ground, pairs: usize) -> Result<Vec<[Request; 2]>, Trouble> {
    let mut tokens = Vec::new();
    for email in ground.take_many(Kind::Account, SHARED.min(pairs))? {
        ground.send_all(vec![Ask::Forgot.of(&email)], 202).await?;
        tokens.push(ground.mailbox.link(&email, 0).await?);
    }
    Ok(forged(&tokens, pairs, |token| {
        let body =
            json!({"token": token, "new_password": NEW_PASSWORD, "confirmation_password": NEW_PASSWORD});
        Request::post("reset", "/passwords/reset", body)
    }))
}

async fn undo_links(ground: &mut Ground, pairs: usize) -> Result<Vec<[Request; 2]>, Trouble> {
    let mut tokens = Vec::new();
    for email in ground.take_many(Kind::Account, SHARED.min(pairs))? {
        tokens.push(change_address(ground, &email).await?);
    }
    Ok(forged(&tokens, pairs, |token| {
        Request::post("undo", "/users/undo-email-change", json!({"token": token}))
    }))
}

/// Tokens with another MAC: of sessions that have ended, and of sessions that have not.
async fn refresh_tokens(ground: &mut Ground, pairs: usize) -> Result<Vec<[Request; 2]>, Trouble> {
    let mut tokens = Vec::new();
    for email in ground.take_many(Kind::Account, SHARED.min(pairs))? {
        let (access, ended) = ground.sign_in(&email).await?;
        let sign_out = Request::post("logout", "/sessions/logout", json!({})).by(&access);
        ground.send_all(vec![sign_out], 204).await?;
        let (_, live) = ground.sign_in(&email).await?;
        tokens.push([ended, live].map(|token| forge(&token, token.len().saturating_sub(10))));
    }
    let request =
        |token: &String| Request::post("refresh", "/sessions/refresh", json!({"refresh_token": token}));
    Ok(tokens.iter().cycle().take(pairs).map(|pair| pair.each_ref().map(request)).collect())
}

/// Each link's token with another identifier, and with another MAC.
fn forged(tokens: &[String], pairs: usize, request: impl Fn(&str) -> Request) -> Vec<[Request; 2]> {
    let shared = tokens.iter().cycle().take(pairs);
    shared.map(|token| [15, 40].map(|place| request(&forge(token, place)))).collect()
}

/// The token with one character replaced.
fn forge(token: &str, place: usize) -> String {
    let other = |letter| if letter == 'A' { 'B' } else { 'A' };
    token.chars().enumerate().map(|(n, letter)| if n == place { other(letter) } else { letter }).collect()
}

/// Changes an account's address, and answers the token that undoes it.
async fn change_address(ground: &mut Ground, email: &str) -> Result<String, Trouble> {
    let (access, _) = ground.sign_in(email).await?;
    let new = ground.take(Kind::Nobody)?;
    let body = json!({"new_email": new, "password": PASSWORD});
    ground.send_all(vec![Request::post("change", "/users/me/email", body).by(&access)], 202).await?;
    let code = ground.mailbox.codes(&new, 1).await?.pop().and_then(|letter| letter.code);
    let body = json!({"code": code.map_or(Value::Null, Value::from)});
    ground.send_all(vec![Request::post("confirm", "/users/me/email/confirm", body).by(&access)], 200).await?;
    ground.mailbox.link(email, 0).await
}
