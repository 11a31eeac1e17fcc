//! What mails look like, and a folder of texts that replace the built-in ones.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the program in a folder of its own, with these settings.
fn run(dir: &Path, args: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_usermgr-server"));
    command.current_dir(dir).env_remove("DATABASE_URL").env("USERMGR_LOG_LEVEL", "error");
    command.envs(settings.iter().copied()).args(args).output().unwrap()
}

fn write(dir: &Path, file: &str, text: &str) {
    let path = dir.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn every_mail_is_written_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("USERMGR_MAIL_FROM", "\"A & B\" <noreply@example.org>"), ("USERMGR_CODES_TTL", "7m")];
    let ran = run(dir.path(), &["mail", "preview", "--open-dir", "new/mails"], &settings);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "open new/mails/index.html in a browser\n");
    let mails = dir.path().join("new/mails");
    let index = fs::read_to_string(mails.join("index.html")).unwrap();
    assert!(index.contains("A &amp; B") && !index.contains("A & B"), "{index}");
    let mut files = 0;
    for file in fs::read_dir(&mails).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let text = fs::read_to_string(mails.join(&name)).unwrap();
        assert!(name == "index.html" || index.contains(&format!("href=\"{name}\"")), "{name}");
        assert!(!text.contains("{{") && !text.contains("{%"), "{name}");
        files += 1;
    }
    assert_eq!(files, 12 * 2 * 3 + 1, "each mail in two languages in three forms, and the list");
    let text = fs::read_to_string(mails.join("verify_email.es.txt")).unwrap();
    assert!(text.contains("A & B") && text.contains("\n048215\n") && text.contains("7 minutos"), "{text}");
    let eml = fs::read_to_string(mails.join("reset_password_link.en.eml")).unwrap();
    assert!(eml.contains("\r\nAuto-Submitted: auto-generated\r\n"), "{eml}");
    assert!(!dir.path().join("usermgr.db").exists(), "to look at mails takes no database");
}

#[test]
fn previews_are_of_the_folder_too() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "texts/en/welcome.txt", "Ahoy {{ username }}\n");
    write(dir.path(), "texts/fr/welcome.txt", "Salut {{ username }}\n");
    write(dir.path(), "texts/fr/welcome.subject.txt", "Bienvenue");
    write(dir.path(), "texts/fr/welcome.html", "<p lang=\"fr\">Salut {{ username }}</p>");
    let settings = [("USERMGR_MAIL_TEMPLATES", "texts")];
    let ran = run(dir.path(), &["mail", "preview", "--open-dir", "mails"], &settings);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let read = |file: &str| fs::read_to_string(dir.path().join("mails").join(file)).unwrap();
    assert_eq!(read("welcome.en.txt"), "Ahoy Ana\n");
    assert_eq!(read("welcome.fr.txt"), "Salut Ana\n");
    assert!(read("welcome.es.txt").starts_with("Hola Ana:"));
    assert!(!dir.path().join("mails/verify_email.fr.txt").exists(), "the folder has none in French");
}

#[test]
fn a_wrong_folder_is_one_clear_line_and_no_start() {
    let layout = "<p>{% block lead %}{% endblock %}</p>";
    for (file, text, said) in [
        ("en/verify_email.txt", "Hello", "en/verify_email.txt: it has to show {{ code }}"),
        (
            "es/verify_email.html",
            "<p>Hola {{ username }}</p>",
            "es/verify_email.html: it has to show {{ code }}",
        ),
        ("layout.html", layout, "en/verify_email.html: it has to show {{ code }}"),
        ("en/reset_password_link.txt", "Hello", "en/reset_password_link.txt: it has to show {{ link }}"),
        (
            "en/verify_email.txt",
            "{{ cod }}",
            "en/verify_email.txt: the variable cod is not known here; it takes code, code_spaced, email, language",
        ),
        ("en/welcome.txt", "{% if %}", "en/welcome.txt: "),
        ("en/verify.txt", "x", "en/verify.txt: no template has this name"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &format!("texts/{file}"), text);
        let settings = [("USERMGR_MAIL_TEMPLATES", "texts"), ("USERMGR_HTTP_LISTEN", "127.0.0.1:0")];
        for args in [&["serve"][..], &["worker"], &["mail", "preview", "--open-dir", "mails"]] {
            let ran = run(dir.path(), args, &settings);
            let told = String::from_utf8_lossy(&ran.stderr);
            assert_eq!(ran.status.code(), Some(1), "{args:?} {told}");
            assert_eq!(told.lines().count(), 1, "{args:?} {told}");
            assert!(told.starts_with(&format!("usermgr-server: mail.templates: {said}")), "{args:?} {told}");
        }
    }
}
