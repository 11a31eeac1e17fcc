//! What users do, step by step, and what must hold after each step.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use usermgr_smtp::testing::{ReceivedMail, SmtpSink};

use crate::Fallible;
use crate::server::{Answer, Server};

pub(crate) const FIRST: &str = "correct horse battery";
const SECOND: &str = "another fine password";

/// A course of calls, each of which depends on the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Registration,
    FirstPassword,
    ResetByLink,
    ResetByCode,
    Session,
    ChangeOfAddress,
    DeletionAndReturn,
    Invitation,
    Administration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Register,
    Resend,
    Verify,
    SetFirst,
    Login,
    Forgot,
    Reset,
    RequestCode,
    SetWithCode,
    Refresh,
    ChangePassword,
    Logout,
    AskAddress,
    ConfirmAddress,
    UndoAddress,
    DeleteMe,
    Invite,
    SetUp,
    Disable,
    Enable,
    Demote,
    RetryMail,
    Delete,
}

impl Flow {
    pub(crate) const ALL: [Self; 9] = [
        Self::Registration,
        Self::FirstPassword,
        Self::ResetByLink,
        Self::ResetByCode,
        Self::Session,
        Self::ChangeOfAddress,
        Self::DeletionAndReturn,
        Self::Invitation,
        Self::Administration,
    ];

    pub(crate) const fn steps(self) -> &'static [Step] {
        match self {
            Self::Registration => &[Step::Register, Step::Resend, Step::Verify, Step::Login],
            Self::FirstPassword => &[Step::Register, Step::SetFirst],
            Self::ResetByLink => &[Step::Forgot, Step::Reset, Step::Login],
            Self::ResetByCode => &[Step::RequestCode, Step::SetWithCode],
            Self::Session => &[Step::Login, Step::Refresh, Step::ChangePassword, Step::Logout],
            Self::ChangeOfAddress => {
                &[Step::AskAddress, Step::ConfirmAddress, Step::UndoAddress, Step::Reset, Step::Login]
            }
            Self::DeletionAndReturn => &[Step::DeleteMe, Step::Login],
            Self::Invitation => &[Step::Invite, Step::SetUp],
            Self::Administration => {
                &[Step::Disable, Step::Enable, Step::Demote, Step::RetryMail, Step::Delete]
            }
        }
    }

    /// Whether the user is there before the flow begins.
    pub(crate) const fn begins_with_user(self) -> bool {
        !matches!(self, Self::Registration | Self::FirstPassword | Self::Invitation)
    }
}

impl Step {
    /// What a call is answered that was done before, unknown to the caller.
    pub(crate) const fn again(self) -> u16 {
        match self {
            Self::Register | Self::Resend | Self::Forgot | Self::RequestCode | Self::AskAddress => 202,
            Self::Login | Self::Refresh | Self::Disable | Self::Enable | Self::Demote => 200,
            Self::Verify
            | Self::SetFirst
            | Self::Reset
            | Self::SetWithCode
            | Self::ConfirmAddress
            | Self::UndoAddress
            | Self::SetUp => 400,
            Self::ChangePassword | Self::Logout | Self::DeleteMe => 401,
            Self::Invite => 409,
            Self::RetryMail | Self::Delete => 404,
        }
    }
}

/// Somebody in the middle of a flow: what the client knows, and what was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) flow: Flow,
    /// What every address of this person begins with.
    pub(crate) prefix: String,
    pub(crate) id: String,
    pub(crate) admin: String,
    pub(crate) dead_mail: String,
    pub(crate) access: String,
    pub(crate) refresh: String,
    registration: Value,
    secret: String,
    seen: BTreeSet<String>,
    address: String,
    /// The password that signs in, when one does.
    password: Option<&'static str>,
    /// What must not sign in.
    refused: Vec<(String, &'static str)>,
    /// Access tokens of the session in hand, of the user's others, and of those that ended.
    here: Vec<String>,
    elsewhere: Vec<String>,
    ended: Vec<String>,
}

type Request = (&'static str, String, Option<String>, Option<Value>);

impl Person {
    pub(crate) fn new(number: usize, flow: Flow) -> Self {
        let prefix = format!("p{number}.");
        Self {
            flow,
            address: format!("{prefix}ana@example.org"),
            prefix,
            id: String::new(),
            admin: String::new(),
            dead_mail: String::new(),
            access: String::new(),
            refresh: String::new(),
            registration: Value::Null,
            secret: String::new(),
            seen: BTreeSet::new(),
            password: flow.begins_with_user().then_some(FIRST),
            refused: Vec::new(),
            here: Vec::new(),
            elsewhere: Vec::new(),
            ended: Vec::new(),
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A session that was there before.
    pub(crate) fn signed_in(&mut self, answer: &Value) {
        self.access = text(answer, "access_token");
        self.refresh = text(answer, "refresh_token");
        self.id = text(&answer["user"], "id");
        self.elsewhere.push(self.access.clone());
    }

    fn new_address(&self) -> String {
        format!("{}new@example.org", self.prefix)
    }

    /// What is sent for a step.
    pub(crate) fn request(&self, step: Step) -> Request {
        let address = &self.address;
        let set = |password: &str| json!({"new_password": password, "confirmation_password": password});
        let code = |password: &str| {
            let mut body = set(password);
            body["email"] = json!(address);
            body["verification_code"] = json!(self.secret);
            body
        };
        let post = |path: &str, body: Value| ("POST", path.to_owned(), None, Some(body));
        let mine =
            |path: &str, body: Option<Value>| ("POST", path.to_owned(), Some(self.access.clone()), body);
        let admins = |method: &'static str, path: String, body: Option<Value>| {
            (method, path, Some(self.admin.clone()), body)
        };
        let user = format!("/users/{}", self.id);
        match step {
            Step::Register => post("/users", json!({"email": address, "password": FIRST})),
            Step::Resend => {
                post("/users/resend-code", json!({"email": address, "registration_id": self.registration}))
            }
            Step::Verify => post(
                "/users/verify",
                json!({"email": address, "code": self.secret, "registration_id": self.registration}),
            ),
            Step::SetFirst => post("/users/set-password-with-email-code", code(SECOND)),
            Step::Login => {
                let password = self.password.unwrap_or(FIRST);
                post("/users/login", json!({"email": address, "password": password}))
            }
            Step::Forgot => post("/passwords/forgot", json!({"email": address})),
            Step::Reset => {
                let mut body = set(SECOND);
                body["token"] = json!(self.secret);
                post("/passwords/reset", body)
            }
            Step::RequestCode => {
                post("/passwords/request-code", json!({"email": address, "purpose": "reset_password"}))
            }
            Step::SetWithCode => post("/passwords/set-with-code", code(SECOND)),
            Step::Refresh => post("/sessions/refresh", json!({"refresh_token": self.refresh})),
            Step::ChangePassword => {
                let mut body = set(SECOND);
                body["current_password"] = json!(FIRST);
                mine("/passwords/change", Some(body))
            }
            Step::Logout => mine("/sessions/logout", None),
            Step::AskAddress => {
                mine("/users/me/email", Some(json!({"new_email": self.new_address(), "password": FIRST})))
            }
            Step::ConfirmAddress => mine("/users/me/email/confirm", Some(json!({"code": self.secret}))),
            Step::UndoAddress => post("/users/undo-email-change", json!({"token": self.secret})),
            Step::DeleteMe => {
                let (_, path, token, body) = mine("/users/me", Some(json!({"password": FIRST})));
                ("DELETE", path, token, body)
            }
            Step::Invite => admins("POST", "/users/invite".into(), Some(json!({"email": address}))),
            Step::SetUp => post("/passwords/set-with-code", {
                let mut body = code(FIRST);
                body["purpose"] = json!("first_time_setup");
                body
            }),
            Step::Disable => admins("PATCH", user, Some(json!({"status": "disabled"}))),
            Step::Enable => admins("PATCH", user, Some(json!({"status": "active"}))),
            Step::Demote => admins("PUT", format!("{user}/roles"), Some(json!({"roles": ["user"]}))),
            Step::RetryMail => admins("POST", format!("/outbox/{}/retry", self.dead_mail), None),
            Step::Delete => admins("DELETE", user, None),
        }
    }

    /// Waits for the mail that a step needs. False when it does not come.
    pub(crate) async fn prepare(
        &mut self,
        step: Step,
        mailbox: &SmtpSink,
        server: &Server,
        patience: Duration,
    ) -> bool {
        let (to, link) = match step {
            Step::Resend | Step::Verify | Step::SetFirst | Step::SetWithCode | Step::SetUp => {
                (self.address.clone(), false)
            }
            Step::ConfirmAddress => (self.new_address(), false),
            Step::Reset => (self.address.clone(), true),
            // To the address that it was.
            Step::UndoAddress => (format!("{}ana@example.org", self.prefix), true),
            _ => return true,
        };
        let begun = Instant::now();
        loop {
            for mail in mailbox.mails().iter().filter(|mail| mail.to.contains(&to)) {
                let id = message_id(mail);
                let secret = if link { mail.link_token() } else { mail.code() };
                if let Some(secret) = secret.filter(|_| !self.seen.contains(&id)) {
                    self.seen.insert(id);
                    self.secret = secret;
                    return true;
                }
            }
            if begun.elapsed() > patience || server.is_gone() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn send(&self, step: Step, server: &Server) -> Fallible<Answer> {
        let (method, path, token, body) = self.request(step);
        server.call(method, &path, token.as_deref(), body).await
    }

    /// Keeps what a call was answered.
    pub(crate) fn answered(&mut self, step: Step, body: &Value) {
        if step == Step::Register {
            self.registration = body["registration_id"].clone();
        }
        if body["access_token"].is_string() {
            self.access = text(body, "access_token");
            self.refresh = text(body, "refresh_token");
            if step != Step::Refresh {
                self.elsewhere.append(&mut self.here);
            }
            self.here.push(self.access.clone());
        }
    }

    /// What must hold from now on, whether or not the answer arrived. Comes before [`answered`](Self::answered).
    pub(crate) fn applied(&mut self, step: Step) {
        match step {
            Step::Verify | Step::SetUp => self.password = Some(FIRST),
            Step::SetFirst | Step::SetWithCode | Step::Reset => {
                self.end_all();
                self.set(SECOND);
            }
            Step::ChangePassword => {
                self.ended.append(&mut self.elsewhere);
                self.set(SECOND);
            }
            Step::Logout => self.ended.append(&mut self.here),
            Step::ConfirmAddress => {
                self.refused.push((self.address.clone(), FIRST));
                self.address = self.new_address();
            }
            Step::UndoAddress => {
                self.end_all();
                self.refused.push((self.address.clone(), FIRST));
                self.address = format!("{}ana@example.org", self.prefix);
                self.password = None;
            }
            Step::DeleteMe => self.end_all(),
            Step::Disable => {
                self.end_all();
                self.password = None;
                self.refused.push((self.address.clone(), FIRST));
            }
            Step::Enable => {
                self.refused.clear();
                self.password = Some(FIRST);
            }
            Step::Delete => {
                self.password = None;
                self.refused.push((self.address.clone(), FIRST));
            }
            _ => {}
        }
    }

    fn set(&mut self, password: &'static str) {
        self.refused.push((self.address.clone(), FIRST));
        self.password = Some(password);
    }

    fn end_all(&mut self) {
        self.ended.append(&mut self.here);
        self.ended.append(&mut self.elsewhere);
    }

    /// Tokens that work when they must not, or the other way round.
    pub(crate) async fn wrong_tokens(&self, server: &Server) -> Fallible<Vec<String>> {
        let mut wrong = Vec::new();
        let alive = self.here.iter().chain(&self.elsewhere).map(|token| (token, 200));
        for (token, status) in alive.chain(self.ended.iter().map(|token| (token, 401))) {
            let answer = server.call("GET", "/users/me", Some(token), None).await?;
            if answer.status != status {
                wrong.push(format!("a token is answered {} instead of {status}", answer.status));
            }
        }
        Ok(wrong)
    }

    /// Passwords that sign in when they must not, or the other way round.
    pub(crate) async fn wrong_passwords(&self, server: &Server) -> Fallible<Vec<String>> {
        let mut wrong = Vec::new();
        let right = self.password.iter().map(|password| (self.address.clone(), *password, 200));
        let refused = self.refused.iter().map(|(address, password)| (address.clone(), *password, 401));
        for (email, password, status) in refused.chain(right) {
            let body = json!({"email": email, "password": password});
            let answer = server.call("POST", "/users/login", None, Some(body)).await?;
            if answer.status != status {
                wrong.push(format!("{email} with {password:?}: {} instead of {status}", answer.status));
            }
        }
        Ok(wrong)
    }
}

/// The identifier that all deliveries of one mail share.
pub(crate) fn message_id(mail: &ReceivedMail) -> String {
    let id = mail.header("Message-ID").unwrap_or_default();
    id.trim_start_matches('<').split('@').next().unwrap_or_default().replace('-', "")
}

pub(crate) fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}
