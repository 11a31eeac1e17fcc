//! Every example is run, not only compiled.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
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
fn custom_mailer_sends_each_domain_its_own_way() {
    let said = output_of(env!("CARGO_BIN_EXE_custom_mailer"));
    assert!(said.contains("inside: ") && said.contains("to ana@example.org"), "{said}");
    assert!(said.contains("outside: ") && said.contains("to bob@example.com"), "{said}");
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
