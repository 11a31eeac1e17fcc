//! The command line, as an operator uses it: the real binary on SQLite.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "support/blackbox.rs"]
mod blackbox;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use blackbox::{Database, Db, Mailbox, Server};
use serde_json::{Value, json};

const ANA: &str = "ana@example.org";
const BOB: &str = "bob@example.org";
const PASSWORD: &str = "correct horse battery";
const OTHER: &str = "another fine password";
/// Of `STAPLE`.
const BCRYPT: &str = "$2y$04$YOnCeXQ9b7Ns58omDVBxcu3sltJlTkQQXAxMnqi/jchrpDW7peCDK";
const STAPLE: &str = "correct horse battery staple";

/// A folder with a database of its own, where commands are run.
struct Place(tempfile::TempDir);

/// What a command said, and with which exit code it ended.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn run(&self, args: &[&str]) -> Said {
        self.run_with(args, "")
    }

    fn run_with(&self, args: &[&str], input: &str) -> Said {
        let mut child = Command::new(env!("CARGO_BIN_EXE_usermgr-server"))
            .current_dir(self.0.path())
            .env_remove("DATABASE_URL")
            .env_remove("USERMGR_DATABASE_URL")
            .env("USERMGR_LOG_LEVEL", "warn")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that refuses its arguments reads nothing.
        let _may_be_closed = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = Said {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        for secret in [PASSWORD, OTHER, BCRYPT, "$2y$", "argon2id"] {
            assert!(!said.out.contains(secret) && !said.err.contains(secret), "{args:?}: {said:?}");
        }
        said
    }

    /// Runs a command that must do what it is told.
    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{args:?}: {}", said.out);
        said.out
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.done(args)).unwrap()
    }

    /// Runs a command that must fail, and say so on standard error.
    #[track_caller]
    fn refused(&self, code: i32, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!(said.code, code, "{args:?}: {said:?}");
        assert!(!said.err.is_empty(), "{args:?}");
        said.err
    }

    #[track_caller]
    fn create(&self, email: &str, role: &str) {
        let args = ["users", "create", email, "--password-stdin", "--role", role];
        let said = self.run_with(&args, &format!("{PASSWORD}\n"));
        assert_eq!((said.code, said.err.lines().count()), (0, 0), "{said:?}");
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// A place whose key file is there, so that nothing is said about making one.
fn place() -> Place {
    let place = Place::new();
    assert_eq!(place.run(&["users", "list"]).code, 0);
    place
}

fn fields(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn users_are_made_listed_changed_and_deleted() {
    let place = place();
    assert_eq!(place.done(&["users", "list", "--json"]), "[]\n");
    assert_eq!(place.done(&["users", "list"]).lines().count(), 1, "the columns alone");
    place.create(ANA, "admin");
    let invited = place.done(&["users", "invite", BOB, "--username", "Bob Ruiz", "--locale", "es"]);
    assert!(invited.contains("invited"));

    let all = place.json(&["users", "list", "--json"]);
    assert_eq!(all.as_array().unwrap().iter().map(|user| &user["email"]).collect::<Vec<_>>(), [BOB, ANA]);
    let names = [
        "created_at",
        "email",
        "email_verified",
        "id",
        "last_login_at",
        "locale",
        "profile",
        "roles",
        "status",
    ];
    assert_eq!(fields(&all[0])[..9], names);
    assert_eq!((&all[0]["email_verified"], &all[1]["email_verified"]), (&json!(false), &json!(true)));
    assert_eq!(place.json(&["users", "show", BOB, "--json"]), all[0]);
    let id = all[0]["id"].as_str().unwrap();
    assert_eq!(place.json(&["users", "show", id, "--json"]), all[0]);
    let shown = place.done(&["users", "show", BOB]);
    assert!(shown.contains("username    Bob Ruiz"), "{shown}");

    for (args, expected) in [
        (["--prefix", "BOB r"], vec![BOB]),
        (["--role", "admin"], vec![ANA]),
        (["--status", "disabled"], vec![]),
    ] {
        let found = place.json(&[&["users", "list", "--json"], &args[..]].concat());
        assert_eq!(found.as_array().unwrap().iter().map(|user| &user["email"]).collect::<Vec<_>>(), expected);
    }
    let table = place.done(&["users", "list"]);
    let column = table.find("EMAIL").unwrap();
    let emails: Vec<&str> = table.lines().skip(1).map(|line| &line[column..column + BOB.len()]).collect();
    assert_eq!(emails, [BOB, ANA], "{table}");

    assert!(place.done(&["users", "disable", BOB]).contains("disabled"));
    let said = place.run_with(&["users", "set-password", BOB, "--password-stdin"], OTHER);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("users enable bob@example.org"), "{said:?}");
    assert!(place.done(&["users", "enable", id]).contains("active"));
    assert!(place.done(&["users", "delete", BOB]).starts_with("deleted "));
    let refused = place.refused(1, &["users", "show", BOB]);
    assert!(refused.contains("no user bob@example.org: see usermgr-server users list"), "{refused}");
    assert!(place.refused(1, &["users", "show", id]).contains("no user"));
}

#[test]
fn passwords_come_by_standard_input_alone() {
    let place = place();
    place.create(ANA, "user");
    let set = |password: &str| place.run_with(&["users", "set-password", ANA, "--password-stdin"], password);
    assert_eq!(set(&format!("{OTHER}\r\n")).code, 0);
    let short = set("short");
    assert_eq!(short.code, 1);
    assert_eq!(short.err, "usermgr-server: password: too_short, it takes 8 characters at least\n");
    assert!(place.refused(1, &["users", "set-password", ANA]).contains("--password-stdin"));
    place.refused(2, &["users", "set-password", ANA, "--password", "x"]);
    let queued = place.json(&["outbox", "list", "--status", "queued", "--json"]);
    assert_eq!(queued[0]["name"], "password_changed");
    assert_eq!(queued[0]["to"], ANA);
}

#[test]
fn roles_are_given_and_taken_but_the_last_admin_stays() {
    let place = place();
    place.create(ANA, "admin");
    place.create(BOB, "user");
    let roles = place.json(&["roles", "list", "--json"]);
    assert_eq!(roles[0]["name"], "admin");
    assert!(roles[0]["permissions"].as_array().unwrap().contains(&json!("users:read")));
    assert_eq!(roles[1], json!({"name": "user", "permissions": [], "built_in": true}));
    assert!(place.done(&["roles", "list"]).contains("audit:read"));

    for args in
        [&["users", "disable", ANA][..], &["users", "delete", ANA], &["roles", "revoke", ANA, "admin"]]
    {
        let refused = place.refused(1, args);
        assert!(refused.contains("usermgr-server roles grant EMAIL admin"), "{refused}");
    }
    assert!(place.done(&["roles", "grant", BOB, "admin"]).contains("admin,user"));
    place.done(&["roles", "revoke", ANA, "admin"]);
    assert_eq!(place.json(&["users", "show", ANA, "--json"])["roles"], json!(["user"]));
    assert!(place.refused(1, &["roles", "grant", ANA, "nosuch"]).contains("roles list"));
    assert!(place.refused(1, &["roles", "revoke", ANA, "user"]).contains("every user"));
    place.refused(2, &["roles", "grant", ANA, "No Such"]);
}

#[test]
fn keys_the_outbox_and_the_audit_log_are_listed() {
    let place = place();
    place.create(ANA, "admin");
    place.done(&["users", "invite", BOB]);

    assert_eq!(place.json(&["keys", "list", "--json"]).as_array().unwrap().len(), 1);
    assert!(place.done(&["keys", "rotate"]).contains("ten minutes"));
    place.done(&["keys", "rotate", "--now"]);
    assert!(place.done(&["keys", "reseal"]).starts_with("3 "));
    let keys = place.json(&["keys", "list", "--json"]);
    assert_eq!(fields(&keys[0]), ["algorithm", "created_at", "id", "revoked_at", "signs_from", "state"]);
    let states: Vec<_> = keys.as_array().unwrap().iter().map(|key| &key["state"]).collect();
    assert_eq!(states, ["next", "current", "retired"]);
    assert!(place.done(&["keys", "list"]).contains("EdDSA"));

    let current = keys[1]["id"].as_str().unwrap();
    let told = place.done(&["keys", "revoke", current]);
    assert!(told.contains("signs in its place") && told.contains("within a minute"), "{told}");
    let states = || -> Vec<String> {
        let keys = place.json(&["keys", "list", "--json"]);
        keys.as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(states(), ["next", "current", "retired", "revoked"]);
    assert!(!place.done(&["keys", "revoke", current]).contains("in its place"), "done again");
    assert_eq!(states().len(), 4);
    let unknown = "019b7953-c7c0-7000-8000-000000000001";
    assert!(place.refused(1, &["keys", "revoke", unknown]).contains("keys list"));
    place.refused(2, &["keys", "revoke", "no-id"]);
    place.refused(2, &["keys", "rotate", "--revoke"]);
    assert!(place.done(&["keys", "rotate", "--now", "--revoke"]).contains("signs at once"));
    assert_eq!(states()[..2], ["current", "revoked"]);
    assert_eq!(states().len(), 5);

    let owed = place.json(&["outbox", "list", "--json"]);
    assert_eq!(
        fields(&owed[0]),
        ["attempts", "created_at", "due_at", "error", "id", "name", "settled_at", "status", "to"]
    );
    assert_eq!(owed[0]["name"], "first_time_setup");
    assert_eq!(place.json(&["outbox", "list", "--status", "dead", "--json"]), json!([]));
    assert!(place.done(&["outbox", "list"]).contains(BOB));
    let refused = place.refused(1, &["outbox", "retry", owed[0]["id"].as_str().unwrap()]);
    assert!(refused.contains("outbox list --status dead"), "{refused}");
    place.refused(2, &["outbox", "list", "--status", "lost"]);

    let happened = place.json(&["events", "list", "--json"]);
    assert_eq!(fields(&happened[0]), ["at", "id", "kind", "position", "session_id", "user_id"]);
    let kinds: Vec<_> = happened.as_array().unwrap().iter().map(|event| &event["kind"]).collect();
    assert_eq!(kinds, ["user_registered", "user_registered"]);
    assert_eq!(place.json(&["events", "list", "--after", "1", "--json"]), json!([happened[1]]));
    assert_eq!(place.json(&["events", "list", "--after", "2", "--json"]), json!([]));
    assert!(place.done(&["events", "list"]).contains("user_registered"));
    assert!(place.refused(1, &["events", "list", "--after", "3"]).contains("--after 0"));
    place.refused(2, &["events", "list", "--after", "-1"]);

    let all = place.json(&["audit", "list", "--json"]);
    assert_eq!(
        fields(&all[0]),
        [
            "actor_id",
            "at",
            "email",
            "event",
            "id",
            "ip",
            "outcome",
            "reason",
            "request_id",
            "user_agent",
            "user_id"
        ]
    );
    assert_eq!((&all[0]["event"], &all[0]["outcome"]), (&json!("mail_retry"), &json!("refused")));
    assert!(all[0]["user_agent"].as_str().unwrap().starts_with("usermgr-server"));
    assert_eq!(place.json(&["audit", "list", "--limit", "2", "--json"]).as_array().unwrap().len(), 2);
    let of_bob = place.json(&["audit", "list", "--user", BOB, "--json"]);
    assert_eq!(of_bob.as_array().unwrap().len(), 1);
    let rotated = place.json(&["audit", "list", "--event", "key_rotation", "--json"]);
    assert!(rotated[0]["user_agent"].as_str().unwrap().starts_with("usermgr-server"));
    assert_eq!(place.json(&["audit", "list", "--since", "2999-01-01T00:00:00Z", "--json"]), json!([]));
    assert!(place.done(&["audit", "list"]).contains("user_creation"));
    assert!(place.refused(2, &["audit", "list", "--event", "nonsense"]).contains("sign_in"));
    place.refused(2, &["audit", "list", "--since", "yesterday"]);
}

#[tokio::test]
async fn a_dead_mail_is_sent_again() {
    let database = Database::create(Db::Sqlite).await;
    // Nobody listens there, and one attempt is all.
    let nowhere = format!("smtp://127.0.0.1:{}?tls=none", blackbox::free_port());
    let server = Server::start(&database, &nowhere, &[("USERMGR_OUTBOX_MAX_ATTEMPTS", "1")]).await;
    server.post("/users", json!({"email": ANA, "password": PASSWORD})).await.expect(202);
    let dead = || {
        let said = server.run(&["outbox", "list", "--status", "dead", "--json"]);
        serde_json::from_slice::<Value>(&said.stdout).unwrap()
    };
    let begun = std::time::Instant::now();
    while dead().as_array().unwrap().is_empty() {
        assert!(begun.elapsed() < blackbox::PATIENCE, "{}", server.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let dead = dead();
    assert!(dead[0]["error"].is_string());
    let retried = server.run(&["outbox", "retry", dead[0]["id"].as_str().unwrap()]);
    assert!(retried.status.success(), "{}", String::from_utf8_lossy(&retried.stderr));
}

#[test]
fn jobs_are_listed_and_run_by_hand() {
    let place = Place::new();
    let before = place.json(&["maintenance", "list", "--json"]);
    let jobs: Vec<_> = before
        .as_array()
        .unwrap()
        .iter()
        .map(|job| format!("{}: {}", job["job"].as_str().unwrap(), job["schedule"].as_str().unwrap()))
        .collect();
    let expected = ["purge: every 1h", "signing-keys: every 1h", "retention: daily at 00:00 UTC"];
    assert_eq!(jobs, expected);
    assert!(before.as_array().unwrap().iter().all(|job| job["state"] == "due" && job["runs"] == 0));
    let ran = place.json(&["maintenance", "run", "--json"]);
    assert!(ran.as_array().unwrap().iter().all(|run| run["outcome"] == "done" && run["took_ms"].is_u64()));
    assert_eq!(ran[0]["what"], "removed nothing");
    assert!(place.done(&["maintenance", "run"]).contains("removed nothing"));
    let after = place.json(&["maintenance", "list", "--json"]);
    for job in after.as_array().unwrap() {
        assert_eq!((&job["state"], &job["last_outcome"]), (&json!("waiting"), &json!("done")), "{job}");
        assert_eq!((&job["runs"], &job["failures"]), (&json!(2), &json!(0)));
        assert!(job["next_at"].as_str() > job["last_started_at"].as_str(), "{job}");
    }
    assert!(place.done(&["maintenance", "list"]).contains("daily at 00:00 UTC"));
}

#[test]
fn the_other_commands_and_wrong_usage() {
    let place = Place::new();
    let pending = place.refused(1, &["migrate", "--check"]);
    assert!(pending.contains("run usermgr-server migrate") && pending.contains("0001_initial"), "{pending}");
    assert!(pending.contains("there are no tables yet"), "{pending}");
    assert!(place.done(&["migrate"]).contains("up to date"));
    assert!(place.done(&["migrate", "--check"]).contains("up to date"));
    assert!(place.done(&["config"]).contains("database.url = "));
    assert_eq!(place.json(&["config", "--json"])["codes.length"]["from"], "default");
    assert!(place.done(&["--version"]).starts_with("usermgr-server "));
    for args in [
        &["users", "--help"][..],
        &["users", "import", "--help"],
        &["roles", "grant", "--help"],
        &["keys", "revoke", "--help"],
        &["keys", "rotate", "--help"],
        &["outbox", "retry", "--help"],
        &["audit", "list", "--help"],
        &["events", "list", "--help"],
        &["serve", "--help"],
    ] {
        let help = place.done(args);
        assert!(help.contains("Usage:"), "{help}");
        assert!(args[1] == "--help" && args[0] == "users" || help.contains("Example:"), "{help}");
    }
    for args in [
        &["nonsense"][..],
        &["users"],
        &["users", "show"],
        &["users", "show", "not an address"],
        &["users", "list", "--status", "lost"],
        &["outbox", "retry", "7"],
        &["users", "import", "users.txt"],
        &["users", "import", "-"],
        &["users", "import", "users.csv", "--format", "xml"],
    ] {
        place.refused(2, args);
    }
}

#[test]
fn an_import_tells_of_each_row_that_it_refused() {
    let place = place();
    place.create(ANA, "admin");
    let lines = [
        json!({"email": "one@example.org", "password_hash": BCRYPT, "roles": ["admin"], "locale": "es"})
            .to_string(),
        json!({"email": "ANA@example.org", "password_hash": BCRYPT}).to_string(),
        json!({"email": "no address", "password_hash": BCRYPT}).to_string(),
        json!({"email": "two@example.org", "password_hash": "$2y$04$cut"}).to_string(),
        json!({"email": "two@example.org", "pasword_hash": BCRYPT}).to_string(),
        json!({"email": "two@example.org", "roles": ["editor"]}).to_string(),
        format!("{{\"email\": \"two@example.org\", \"password_hash\": \"{BCRYPT}"),
        json!({"email": "two@example.org", "status": "disabled", "email_verified": false}).to_string(),
        json!({"email": "two@example.org"}).to_string(),
    ];
    let file = place.write("users.jsonl", &lines.join("\n"));
    let file = file.to_str().unwrap();

    let dry = place.run(&["users", "import", file, "--dry-run", "--json"]);
    assert_eq!(place.json(&["users", "list", "--json"]).as_array().unwrap().len(), 1);
    let real = place.run(&["users", "import", file, "--json"]);
    assert_eq!((dry.code, real.code), (1, 1), "{dry:?}\n{real:?}");
    assert!(real.err.contains("5 row(s) refused: correct them and run it again"), "{}", real.err);
    let (mut dry, real): (Value, Value) =
        (serde_json::from_str(&dry.out).unwrap(), serde_json::from_str(&real.out).unwrap());
    assert_eq!(dry["dry_run"], true);
    dry["dry_run"] = json!(false);
    assert_eq!(dry, real, "a dry run tells what the real one does");
    assert_eq!((&real["rows"], &real["added"], &real["exists"]), (&json!(9), &json!(2), &json!(2)));
    let refusals: Vec<String> = real["refusals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refusal| format!("{} {} {}", refusal["line"], refusal["code"], refusal["reason"]))
        .collect();
    assert_eq!(
        refusals,
        [
            r#"3 "invalid_email" "invalid email""#,
            r#"4 "unsupported_password_hash" "unsupported password hash: not a valid encoding""#,
            r#"5 "unknown_field" "unknown field pasword_hash; did you mean password_hash?""#,
            r#"6 "unknown_role" "unknown role editor""#,
            r#"7 "malformed_row" "not JSON, from column 107 on""#,
        ]
    );
    let two = place.json(&["users", "show", "two@example.org", "--json"]);
    assert_eq!((&two["status"], &two["email_verified"]), (&json!("disabled"), &json!(false)));
    assert_eq!(
        place.json(&["users", "show", "one@example.org", "--json"])["roles"],
        json!(["admin", "user"])
    );

    let again = place.run(&["users", "import", file]);
    assert_eq!(again.code, 1);
    assert!(again.out.contains("line 3: invalid email\n"), "{}", again.out);
    assert!(again.out.ends_with("9 row(s): 0 added, 4 exist(s), 5 refused\n"), "{}", again.out);
    let imported = place.json(&["audit", "list", "--event", "user_import", "--json"]);
    assert_eq!(imported.as_array().unwrap().len(), 2);
}

#[test]
fn an_import_goes_on_where_it_was_cut_off() {
    let place = place();
    let mut csv = "email,username,roles,created_at\n".to_owned();
    for n in 0..1203 {
        writeln!(csv, "user{n}@example.org,\"User, {n}\",user|admin,2020-01-31T00:00:00Z").unwrap();
    }
    // As far as a run came that was cut off between two batches.
    let begun = csv.lines().take(501).collect::<Vec<_>>().join("\n");
    let begun = place.write("begun.csv", &begun);
    let begun = place.done(&["users", "import", begun.to_str().unwrap()]);
    assert_eq!(begun, "500 row(s): 500 added, 0 exist(s), 0 refused\n");
    let args = ["users", "import", "-", "--format", "csv", "--json"];
    for (added, exists) in [(703, 500), (0, 1203)] {
        let said = place.run_with(&args, &csv);
        assert_eq!(said.code, 0, "{said:?}");
        let report: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!((&report["added"], &report["exists"]), (&json!(added), &json!(exists)));
        assert_eq!(report["refusals"], json!([]));
    }
    let listed = place.json(&["users", "list", "--role", "admin", "--json"]);
    assert_eq!(listed.as_array().unwrap().len(), 1203);
    assert_eq!(listed[0]["created_at"], "2020-01-31T00:00:00Z");
}

#[test]
fn a_file_that_cannot_be_imported_is_refused_as_a_whole() {
    let place = place();
    let file = place.write("users.csv", "email,user_name\n");
    let refused = place.refused(1, &["users", "import", file.to_str().unwrap()]);
    assert!(refused.contains("unknown column 2 user_name; did you mean username?"), "{refused}");
    let file = place.write("headless.csv", &format!("ana@example.org,{BCRYPT}\n"));
    let refused = place.refused(1, &["users", "import", file.to_str().unwrap()]);
    assert!(refused.contains("unknown column 1"), "{refused}");
    assert!(place.refused(1, &["users", "import", "missing.csv"]).contains("missing.csv"));
}

#[tokio::test]
async fn an_imported_user_signs_in_and_the_hash_is_replaced() {
    let (database, mailbox) = (Database::create(Db::Sqlite).await, Mailbox::open().await);
    let server = Server::start(&database, &mailbox.url(), &[]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users.csv");
    std::fs::write(&file, format!("email,password_hash\n{ANA},{BCRYPT}\n")).unwrap();
    let said = server.run(&["users", "import", file.to_str().unwrap()]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));

    let stored = async || {
        let pool = sqlx::SqlitePool::connect(&database.url).await.unwrap();
        let hash: String =
            sqlx::query_scalar("SELECT password FROM usermgr_users").fetch_one(&pool).await.unwrap();
        hash
    };
    assert_eq!(stored().await, BCRYPT);
    let wrong = json!({"email": ANA, "password": PASSWORD});
    server.post("/users/login", wrong).await.problem(401, "invalid_credentials");
    let right = json!({"email": ANA, "password": STAPLE});
    let session = server.post("/users/login", right.clone()).await.expect(200);
    assert_eq!(session["user"]["email_verified"], true);
    assert!(stored().await.starts_with("$argon2id$"));
    server.post("/users/login", right).await.expect(200);
    assert!(!server.log().contains(BCRYPT) && !server.log().contains(STAPLE));
}

#[test]
fn hash_calibrate_measures_and_names_a_setting() {
    let place = Place::new();
    let said = place.run(&["hash", "calibrate", "--target", "60000ms"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.out.lines().filter(|line| line.trim_start().starts_with(char::is_numeric)).count(), 10);
    assert!(said.out.contains("[passwords]\nmemory_kib = 131072\niterations = 3\n"), "{said:?}");
    let nothing = place.run(&["hash", "calibrate", "--target", "0ms", "--json"]);
    let rows: Vec<Value> = serde_json::from_str(&nothing.out).unwrap();
    assert_eq!(rows.len(), 10);
    assert!(rows.iter().all(|row| row["hashes_per_second"].as_f64().unwrap() > 0.0), "{rows:?}");
    assert_eq!(place.run(&["hash", "calibrate", "--target", "soon"]).code, 2);
}

#[test]
fn a_configuration_is_checked_and_explained() {
    let place = Place::new();
    assert!(place.done(&["config", "check"]).contains("the configuration can be used"));
    let said = place.done(&["config", "check", "--explain"]);
    assert!(said.contains("a chance of 1 in 100000 an account and day"), "{said}");
    assert!(!place.0.path().join("usermgr.db").exists(), "the database is not touched");

    place.write("usermgr.toml", "[codes]\nlength = 4\n");
    assert!(place.done(&["config", "check"]).contains("warning: codes.length is under 6"));
    place.write("usermgr.toml", "[mail]\ntemplates = \"nowhere\"\n");
    assert!(place.refused(1, &["config", "check"]).contains("mail.templates: "));
    place.write("usermgr.toml", "[mail]\nurl = \"gopher://mail.example.org\"\n");
    assert!(place.refused(1, &["config", "check"]).contains("mail.url: "));
    place.write("usermgr.toml", "[codes]\nttl = \"soon\"\n[link]\nttl = \"1m\"\n");
    let said = place.refused(1, &["config", "check"]);
    assert!(said.contains("codes.ttl (usermgr.toml): it takes a duration"), "{said}");
    assert!(said.contains("link.ttl is not a key; did you mean links.ttl?"), "{said}");

    let sample = place.done(&["config", "sample"]);
    assert!(sample.contains("\n#length = 6\n"), "also where the configuration is wrong");
    place.write("usermgr.toml", &sample);
    place.done(&["config", "check"]);
}

#[test]
fn authorities_that_cannot_be_read_stop_check_and_start() {
    let place = Place::new();
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap().cert.pem();
    let half = &certificate[..certificate.len() / 2];
    // Mails are printed, so nothing speaks TLS yet.
    place.write("usermgr.toml", "[tls]\nextra_ca = \"ca.pem\"\n");
    let commands: [&[&str]; 2] = [&["config", "check"], &["serve"]];
    let refused = |reason: &str| {
        for command in commands {
            let said = place.refused(1, command);
            assert!(said.contains(&format!("tls.extra_ca ca.pem: {reason}")), "{command:?}: {said}");
        }
    };
    refused("No such file or directory");
    for (pem, reason) in [
        ("", "it holds no certificate in PEM"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "it holds no certificate in PEM"),
        (half, "its PEM cannot be read after certificate 0"),
        (&format!("{certificate}{half}"), "its PEM cannot be read after certificate 1"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1 cannot be read"),
    ] {
        place.write("ca.pem", pem);
        refused(reason);
    }
    place.write("ca.pem", &format!("Our authorities\n{certificate}{certificate}"));
    place.done(&["config", "check"]);
    assert!(place.done(&["config"]).contains("tls.extra_ca = \"ca.pem\""));
}

#[test]
fn completions_and_man_pages_know_every_command() {
    let place = Place::new();
    place.write("usermgr.toml", "wrong");
    for shell in ["bash", "zsh", "fish"] {
        let script = place.done(&["completions", shell]);
        for word in ["set-password", "undeliverable", "calibrate", "no-worker"] {
            assert!(script.contains(word), "{word} for {shell}");
        }
    }
    let bash = place.write("completions.bash", &place.done(&["completions", "bash"]));
    assert!(Command::new("bash").arg("-n").arg(bash).status().unwrap().success());
    assert_eq!(place.run(&["completions", "dos"]).code, 2);

    assert!(place.done(&["man"]).contains(".TH usermgr-server 1"));
    place.done(&["man", "--dir", "pages/man1"]);
    let page = |name: &str| std::fs::read_to_string(place.0.path().join("pages/man1").join(name)).unwrap();
    assert!(page("usermgr-server.1").contains("usermgr\\-server\\-users(1)"));
    assert!(page("usermgr-server-users-create.1").contains("password\\-stdin"));
    place.write("file", "");
    assert!(place.refused(1, &["man", "--dir", "file/man1"]).contains("file/man1: "));
}

#[test]
fn what_goes_wrong_says_what_to_do_next() {
    let place = place();
    assert!(place.refused(1, &["users", "list", "--config", "no.toml"]).contains("config sample > no.toml"));
    assert!(place.refused(2, &["users", "create", "ana"]).contains("it takes an address such as"));
    assert!(place.refused(2, &["users", "invite", "ana"]).contains("it takes an address such as"));
    assert!(place.refused(1, &["users", "create", ANA]).contains("--password-stdin"));
    assert!(
        place.refused(1, &["users", "invite", ANA, "--role", "boss"]).contains("usermgr-server roles list")
    );
    place.write("usermgr.toml", "[database]\nurl = \"sqlite://nowhere/usermgr.db\"\n");
    assert!(place.refused(1, &["users", "list"]).contains("database.url: "));
    assert!(place.refused(1, &["users", "list"]).contains("its folder has to exist"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("[http]\nlisten = \"{}\"\n", taken.local_addr().unwrap());
    place.write("usermgr.toml", &listen);
    let said = place.refused(1, &["serve"]);
    assert!(said.contains("http.listen ") && said.contains("is the server running already?"), "{said}");
}

#[test]
fn a_missing_or_readable_key_file_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let key = place.0.path().join("usermgr.key");
    let created = place.run_with(&["users", "create", ANA, "--password-stdin"], PASSWORD);
    assert_eq!(created.code, 0, "{created:?}");
    let list = || place.run(&["users", "list"]);
    assert!(!list().err.contains("chmod"), "{:?}", list());
    for mode in [0o640, 0o604, 0o602] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let said = list();
        assert!(said.code == 0 && said.err.contains("chmod 600 usermgr.key"), "{mode:o}: {said:?}");
    }
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    for args in [&["users", "list"][..], &["serve"], &["worker"]] {
        let said = place.run(args);
        assert_eq!((said.code, said.err.lines().count()), (1, 1), "{said:?}");
        assert!(said.err.contains("the secret key of this database is missing"), "{said:?}");
        assert!(!key.exists(), "no new key is made");
    }
    std::fs::write(&key, text).unwrap();
    assert_eq!(list().code, 0);
}

#[test]
fn colours_are_for_terminals() {
    let place = Place::new();
    place.write("usermgr.toml", "[log]\nformat = \"pretty\"\n[throttle]\nenabled = false\n");
    let said = place.run(&["users", "list"]);
    let (help, wrong) = (place.run(&["--help"]), place.run(&["user"]));
    for text in [&said.out, &said.err, &help.out, &wrong.err] {
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
    // With a terminal of its own, and with and without NO_COLOR. The key file is made anew each time, which is logged.
    let program = env!("CARGO_BIN_EXE_usermgr-server");
    let at_a_terminal = |no_color: &str| {
        let _may_be_gone = std::fs::remove_file(place.0.path().join("usermgr.key"));
        let command = format!("USERMGR_LOG_LEVEL=info {no_color} {program} users list");
        let output = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .current_dir(place.0.path())
            .env_remove("DATABASE_URL")
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("made a secret key"), "{text}");
        text
    };
    assert!(at_a_terminal("").contains('\u{1b}'));
    assert!(!at_a_terminal("NO_COLOR=1").contains('\u{1b}'));
}

#[test]
fn what_cannot_be_written_is_told() {
    let place = place();
    for args in [
        &["--help"][..],
        &["help"],
        &["help", "users"],
        &["users", "create", "--help"],
        &["--version"],
        &["config", "sample"],
        &["config"],
        &["config", "check"],
        &["completions", "bash"],
        &["man"],
        &["openapi"],
        &["users", "list"],
        &["users", "list", "--json"],
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_usermgr-server"))
            .current_dir(place.0.path())
            .env_remove("DATABASE_URL")
            .args(args)
            .stdout(full)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {told}");
        assert!(told.contains("No space left on device") && told.lines().count() == 1, "{args:?}: {told}");
    }
    let (help, version) = (place.done(&["--help"]), place.done(&["--version"]));
    assert!(help.contains("Usage: usermgr-server") && version.starts_with("usermgr-server "));
    assert!(place.refused(2, &["user"]).contains("unrecognized subcommand"));
}

#[test]
fn the_key_file_stands_beside_the_database_however_the_url_spells_it() {
    let place = Place::new();
    std::fs::create_dir(place.0.path().join("my data")).unwrap();
    place.write("usermgr.toml", "[database]\nurl = \"sqlite://my%20data/users.db\"\n");
    for _ in 0..2 {
        assert_eq!(place.run(&["users", "list"]).code, 0);
    }
    for file in ["users.db", "users.key"] {
        assert!(place.0.path().join("my data").join(file).exists(), "{file}");
    }
    assert!(!place.0.path().join("my%20data").exists());
    place.write("usermgr.toml", "[database]\nurl = \"sqlite:\"\n");
    let told = place.refused(1, &["serve"]);
    assert!(
        told.contains("database.url (./usermgr.toml)") || told.contains("database.url (usermgr.toml)"),
        "{told}"
    );
}

#[test]
fn the_check_judges_what_the_start_judges() {
    let place = place();
    for (name, text, told) in [
        ("usermgr.toml", "[pages]\nlogo = \"nowhere.svg\"\n", "nowhere.svg"),
        ("usermgr.toml", "[pages]\ntemplates = \"nowhere\"\n", "nowhere"),
        ("usermgr.toml", "[mail]\ntemplates = \"nowhere\"\n", "mail.templates"),
        ("usermgr.toml", "[mail]\nurl = \"gopher://mail.example.org\"\n", "mail.url"),
        ("usermgr.toml", "[http]\ntls_cert = \"nowhere\"\ntls_key = \"nowhere\"\n", "http.tls_"),
        ("usermgr.toml", "[http]\npublic_url = \"https://id.example.org/#x\"\n", "http.public_url"),
        ("usermgr.toml", "[database]\nurl = \"sqlite://\"\n", "database.url"),
    ] {
        place.write(name, text);
        for args in [&["config", "check"][..], &["serve"]] {
            assert!(place.refused(1, args).contains(told), "{args:?} with {text}");
        }
    }
    place.write("usermgr.toml", "");
    place.write("usermgr.key", "no key");
    for args in [&["config", "check"][..], &["serve"]] {
        assert!(place.refused(1, args).contains("it holds no secret key"), "{args:?}");
    }
}
