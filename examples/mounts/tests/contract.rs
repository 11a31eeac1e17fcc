//! One contract for every mount: whatever framework is around it, the service is the same.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};

const CREDENTIALS: &str = r#"{"email":"ana@example.org","password":"correct horse battery"}"#;

/// A program that mounts the service, over a database of its own.
struct Mount {
    program: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: String,
    _folder: tempfile::TempDir,
}

impl Mount {
    fn start(program: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = format!("sqlite://{}", folder.path().join("users.db").display());
        let mut command = Command::new(program);
        let mut program = command.args([&database, "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
        let address = lines.next().unwrap().unwrap().rsplit_once('/').unwrap().1.to_owned();
        Self { program, lines, address, _folder: folder }
    }

    /// Sends the lines of a head, and a body in one piece.
    fn call(&self, head: &str, body: &str) -> Answer {
        self.send(&format!("{head}\r\ncontent-length: {}", body.len()), body.as_bytes())
    }

    fn send(&self, head: &str, body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let end = "host: localhost\r\nconnection: close\r\ncontent-type: application/json";
        let (line, rest) = head.split_once("\r\n").unwrap();
        write!(stream, "{line} HTTP/1.1\r\n{rest}\r\n{end}\r\n\r\n").unwrap();
        // Who is refused for its length may be cut off while it sends.
        let _cut = stream.write_all(body);
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        Answer(String::from_utf8(answer).unwrap())
    }

    /// The code in the next mail that has one.
    fn code(&mut self) -> String {
        let is_code = |line: &String| line.len() == 6 && line.bytes().all(|b| b.is_ascii_digit());
        self.lines.by_ref().map_while(Result::ok).find(is_code).unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(self.program.kill());
        drop(self.program.wait());
    }
}

/// An answer as it came over the line.
#[derive(Debug)]
struct Answer(String);

impl Answer {
    fn status(&self) -> &str {
        self.0.split(' ').nth(1).unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let head = self.0.split("\r\n\r\n").next()?;
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn body(&self) -> String {
        let body = self.0.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        if self.header("transfer-encoding") != Some("chunked") {
            return body.to_owned();
        }
        let (mut whole, mut rest) = (String::new(), body);
        while let Some((length, after)) = rest.split_once("\r\n") {
            let length = usize::from_str_radix(length, 16).unwrap();
            whole.push_str(&after[..length]);
            rest = &after[(length + 2).min(after.len())..];
        }
        whole
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body()).unwrap()
    }

    /// That it is a refusal as the service answers it.
    fn is_problem(&self, status: &str, code: &str) {
        assert_eq!(self.status(), status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.json()["code"], code, "{self:?}");
        assert_eq!(self.header("x-request-id"), self.json()["request_id"].as_str(), "{self:?}");
        assert_eq!(self.header("cache-control"), Some("no-store"), "{self:?}");
        assert_eq!(self.header("www-authenticate").is_some(), status == "401", "{self:?}");
    }
}

fn holds(program: &str) {
    let mut mount = Mount::start(program);

    // Sign-up, verification, sign-in; in the language of who asks; in as many chunks as it comes.
    let registered = mount.call("POST /auth/v1/users", CREDENTIALS);
    assert_eq!(registered.status(), "202", "{registered:?}");
    let code = mount.code();
    let wrong = if code == "000000" { "000001" } else { "000000" };
    let body = |code: &str| format!(r#"{{"email":"ana@example.org","code":"{code}"}}"#);
    let refused = mount.call("POST /auth/v1/users/verify\r\naccept-language: es", &body(wrong));
    refused.is_problem("400", "invalid_code");
    assert!(refused.body().contains("El código no es válido"), "{refused:?}");
    let whole = body(&code);
    let (first, second) = whole.split_at(20);
    let chunked = format!("{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
    let verified = mount.send("POST /auth/v1/users/verify\r\ntransfer-encoding: chunked", chunked.as_bytes());
    assert_eq!(verified.status(), "200", "{verified:?}");
    let session = mount.call("POST /auth/v1/users/login", CREDENTIALS);
    let token = session.json()["access_token"].as_str().unwrap().to_owned();
    let bearer = format!("authorization: Bearer {token}");

    // Who is signed in, and from where.
    mount.call("GET /hello\r\naccept: */*", "").is_problem("401", "missing_token");
    mount.call("GET /hello\r\nauthorization: Bearer x", "").is_problem("401", "invalid_token");
    let hello = mount.call(&format!("GET /hello\r\n{bearer}"), "");
    assert_eq!((hello.status(), &hello.json()["hello"]), ("200", &"ana@example.org".into()));
    let devices = mount.call(&format!("GET /auth/v1/sessions\r\n{bearer}"), "");
    assert_eq!(devices.json()["items"][0]["ip"], "127.0.0.1", "{devices:?}");

    // Who may.
    mount.call("GET /reports\r\naccept: */*", "").is_problem("401", "missing_token");
    mount.call(&format!("GET /reports\r\n{bearer}\r\nx-request-id: r-1"), "").is_problem("403", "forbidden");

    // In part, under the host's own path and middleware.
    let again = mount.call("POST /accounts/users/login", CREDENTIALS);
    assert_eq!(again.status(), "200", "{again:?}");
    assert!(again.header("x-served-by").is_some(), "{again:?}");
    for head in ["POST /accounts/passwords/forgot", "GET /accounts/users/me", "GET /accounts/audit"] {
        mount.call(&format!("{head}\r\n{bearer}"), "{}").is_problem("404", "not_found");
    }
    mount.call(&format!("GET /accounts/users\r\n{bearer}"), "").is_problem("405", "method_not_allowed");

    // What the service answers by itself.
    mount.call("GET /auth/v1/nowhere\r\naccept: */*", "").is_problem("404", "not_found");
    let large = format!(r#"{{"email":"{}"}}"#, "x".repeat(100_000));
    mount.call("POST /auth/v1/users", &large).is_problem("413", "payload_too_large");
    let options = mount.call("OPTIONS /auth/v1/users/login\r\naccept: */*", "");
    assert_eq!((options.status(), options.header("allow")), ("204", Some("POST, OPTIONS")), "{options:?}");
    let head = mount.call(&format!("HEAD /auth/v1/users/me\r\n{bearer}"), "");
    assert_eq!((head.status(), head.body().as_str()), ("200", ""), "{head:?}");

    // Signing out acts at once, everywhere.
    let out = mount.call(&format!("POST /auth/v1/sessions/logout\r\n{bearer}"), "");
    assert_eq!(out.status(), "204", "{out:?}");
    mount.call(&format!("GET /hello\r\n{bearer}"), "").is_problem("401", "session_ended");
    mount.call(&format!("GET /reports\r\n{bearer}"), "").is_problem("401", "session_ended");
}

#[test]
fn in_axum() {
    holds(env!("CARGO_BIN_EXE_mount_axum"));
}

#[test]
fn in_hyper() {
    holds(env!("CARGO_BIN_EXE_mount_hyper"));
}

#[test]
fn in_actix() {
    holds(env!("CARGO_BIN_EXE_mount_actix"));
}

#[test]
fn in_poem() {
    holds(env!("CARGO_BIN_EXE_mount_poem"));
}
