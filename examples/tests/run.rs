//! Every example is run, not only compiled.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime};

fn output_of(program: &str) -> String {
    let output = Command::new(program).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn embed_sqlite_registers_signs_in_and_resets() {
    let said = output_of(env!("CARGO_BIN_EXE_embed_sqlite"));
    assert!(said.contains("signed in as ana@example.org"), "{said}");
    assert!(said.contains("the password was reset"), "{said}");
}

#[test]
fn own_transaction_commits_both_or_neither() {
    let said = output_of(env!("CARGO_BIN_EXE_own_transaction"));
    let lines = [
        "ana signs up with acme: done; companies 1, registrations 1, users 0",
        "bob signs up with acme: failed; companies 1, registrations 1, users 0",
        "ana leaves with an open invoice: failed; companies 1, registrations 0, users 1",
        "ana leaves: done; companies 0, registrations 0, users 0",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), lines);
}

#[test]
fn custom_mailer_sends_each_domain_its_own_way() {
    let said = output_of(env!("CARGO_BIN_EXE_custom_mailer"));
    assert!(said.contains("inside: ") && said.contains("to ana@example.org"), "{said}");
    assert!(said.contains("outside: ") && said.contains("to bob@example.com"), "{said}");
}

#[test]
fn hooks_and_profile_signs_up_by_an_invitation_that_is_good_once() {
    let said = output_of(env!("CARGO_BIN_EXE_hooks_and_profile"));
    for line in [
        "invite_needed: Sign-up is by invitation, and each is good for one account.",
        "profile.number is invalid",
        "ana@example.org is customer 12345678",
        "the invitation is used up",
        r#"the profile is {"number":"12345678","newsletter":true}"#,
    ] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
}

/// The service under `/auth` of an axum application, and a route of its own for those signed in.
#[test]
fn embed_axum_mounts_the_service_and_guards_a_route() {
    let folder = std::env::temp_dir().join(format!("usermgr-axum-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let url = format!("sqlite://{}", folder.join("users.db").display());
    let mut program = Command::new(env!("CARGO_BIN_EXE_embed_axum"))
        .args([&url, "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let address = lines.next().unwrap().unwrap().rsplit_once('/').unwrap().1.to_owned();
    let call = |request: &str, body: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        let length = body.len();
        let head = format!("{request}\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n");
        write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let refused = call("GET /hello HTTP/1.1", "");
    let registered = call(
        "POST /auth/v1/users HTTP/1.1",
        r#"{"email":"ana@example.org","password":"correct horse battery"}"#,
    );
    let is_code = |line: &String| line.len() == 6 && line.bytes().all(|b| b.is_ascii_digit());
    let code = lines.map_while(Result::ok).find(is_code).unwrap();
    let body = format!(r#"{{"email":"ana@example.org","code":"{code}"}}"#);
    let verified = call("POST /auth/v1/users/verify HTTP/1.1", &body);
    let session = call(
        "POST /auth/v1/users/login HTTP/1.1",
        r#"{"email":"ana@example.org","password":"correct horse battery"}"#,
    );
    let token = session.split("\"access_token\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let greeted = call(&format!("GET /hello HTTP/1.1\r\nAuthorization: Bearer {token}"), "");
    program.kill().unwrap();
    program.wait().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    assert!(registered.starts_with("HTTP/1.1 202"), "{registered}");
    assert!(verified.starts_with("HTTP/1.1 200"), "{verified}");
    assert!(greeted.starts_with("HTTP/1.1 200") && greeted.contains("ana@example.org"), "{greeted}");
}

/// Starts an instance of the host that removes old pictures.
fn purge_pictures(folder: &Path) -> (Child, std::io::Lines<BufReader<ChildStdout>>) {
    let database = format!("sqlite://{}", folder.join("users.db").display());
    let pictures = format!("file://{}", folder.join("pictures").display());
    let mut program = Command::new(env!("CARGO_BIN_EXE_purge_pictures"))
        .args([&database, &pictures, "30"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(program.stdout.take().unwrap()).lines();
    (program, lines)
}

#[test]
fn old_pictures_are_removed_once_though_two_instances_run() {
    const DAY: Duration = Duration::from_secs(86_400);
    let folder = std::env::temp_dir().join(format!("usermgr-pictures-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("pictures/ana")).unwrap();
    std::fs::create_dir_all(folder.join("elsewhere")).unwrap();
    let picture = |name: &str, days: u32| -> PathBuf {
        let path = folder.join(name);
        let file = std::fs::File::create(&path).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the age of a file on the disk")]
        file.set_modified(SystemTime::now() - DAY * days).unwrap();
        path
    };
    let old = [picture("pictures/old.jpg", 31), picture("pictures/ana/older.jpg", 400)];
    let kept = [
        picture("pictures/new.jpg", 0),
        picture("pictures/ana/almost.jpg", 29),
        picture("elsewhere/old.jpg", 400),
    ];
    let (mut one, mut said_by_one) = purge_pictures(&folder);
    assert_eq!(said_by_one.next().unwrap().unwrap(), "old-pictures is due");
    assert_eq!(said_by_one.next().unwrap().unwrap(), "removed 2 pictures older than 30 days");
    assert!(old.iter().all(|path| !path.exists()));
    assert!(kept.iter().all(|path| path.exists()));

    let tomorrow = picture("pictures/tomorrow.jpg", 31);
    let (mut other, mut said_by_other) = purge_pictures(&folder);
    let next = said_by_other.next().unwrap().unwrap();
    for program in [&mut one, &mut other] {
        program.kill().unwrap();
        program.wait().unwrap();
    }
    let more: Vec<String> = said_by_one.chain(said_by_other).map_while(Result::ok).collect();
    // The line of the first instance comes a moment before it notes the end.
    let told = ["old-pictures runs next at", "old-pictures runs elsewhere"];
    assert!(told.iter().any(|words| next.starts_with(words)) && next != "old-pictures is due", "{next}");
    assert_eq!(more, Vec::<String>::new(), "the other one leaves today's run to the first");
    assert!(tomorrow.exists());
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A broker of RabbitMQ of one's own, as an unprivileged user where tests run as root. It is removed at the end.
struct Broker {
    folder: tempfile::TempDir,
    processes: Vec<Child>,
    port: u16,
}

impl Broker {
    /// Finds ports that are free, and starts nothing.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // It answers on this port, talks to its kind on the next, and is found by the one after that.
        let port = (20_000..60_000)
            .step_by(7)
            .skip(usize::try_from(std::process::id() % 1000).unwrap())
            .find(|port| (*port..port + 3).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()))
            .unwrap();
        Self { folder, processes: Vec::new(), port }
    }

    fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    fn start(&mut self) {
        let folder = self.folder.path().display().to_string();
        let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        let server = "exec $(ls -d /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin | tail -n 1)/rabbitmq-server";
        let mapper = format!("exec epmd -address 127.0.0.1 -port {}", self.port + 2);
        for script in [mapper.as_str(), server] {
            let mut command = if root { Command::new("setpriv") } else { Command::new("env") };
            if root {
                assert!(Command::new("chown").args(["rabbitmq", &folder]).status().unwrap().success());
                command.args(["--reuid=rabbitmq", "--regid=rabbitmq", "--clear-groups"]);
            }
            let process = command
                .args(["sh", "-c", script])
                .current_dir("/")
                .env("HOME", &folder)
                .env("RABBITMQ_NODENAME", format!("usermgr-{}@localhost", self.port))
                .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
                .env("RABBITMQ_NODE_PORT", self.port.to_string())
                .env("RABBITMQ_DIST_PORT", (self.port + 1).to_string())
                .env("ERL_EPMD_PORT", (self.port + 2).to_string())
                .env("RABBITMQ_MNESIA_BASE", &folder)
                .env("RABBITMQ_LOG_BASE", &folder)
                .env("RABBITMQ_ENABLED_PLUGINS_FILE", format!("{folder}/plugins"))
                .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
                .env("RABBITMQ_CONFIG_FILE", format!("{folder}/none"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
                .unwrap();
            self.processes.push(process);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let group = format!("-{}", process.id());
            drop(Command::new("kill").args(["-KILL", "--", &group]).status());
            drop(process.wait());
        }
    }
}

/// Events wait while the broker is down, and come in order when it is there.
#[test]
#[ignore = "needs RabbitMQ: run scripts/test"]
fn events_to_rabbitmq_waits_for_the_broker_and_tells_it_everything() {
    let mut broker = Broker::new();
    let mut program = Command::new(env!("CARGO_BIN_EXE_events_to_rabbitmq"))
        .arg(broker.url())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.next().unwrap(), "signed in as ana@example.org");
    assert!(lines.next().unwrap().starts_with("waiting for the broker: "));
    broker.start();
    let told: Vec<String> = lines
        .filter(|line| !line.starts_with("waiting"))
        .map(|line| line.split(':').next().unwrap().to_owned())
        .collect();
    assert!(program.wait().unwrap().success());
    assert_eq!(told, ["user_registered", "email_verified", "signed_in"]);
}
