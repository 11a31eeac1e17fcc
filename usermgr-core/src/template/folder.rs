//! A folder whose texts replace built-in ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use time::Duration;

use super::built_in::{LANGUAGES, SOURCES};
use super::texts::{Carries, Part, Texts, name, variables};
use super::{MailTemplates, MailValues, RenderedMail, TemplateError};
use crate::domain::mail::MailKind;
use crate::domain::user::Locale;

/// The file that all HTML texts stand in.
const LAYOUT: &str = "layout.html";

/// The texts of a folder, and the built-in ones where it has none.
///
/// The folder holds `{language}/{kind}.subject.txt`, `{language}/{kind}.txt` and `{language}/{kind}.html`, where a
/// kind is a [`MailKind`] as in `es/verify_email.html`, and perhaps `layout.html`, which the HTML texts extend. Each
/// file replaces the built-in one of its name. A language that is not built in gives every mail it has in all three
/// parts; its other mails come in the default language. Names that begin with a dot are passed over.
///
/// The files are minijinja templates. All get `language` and `service_name`; text and HTML get `email`, `public_url`
/// and `username` (which may be none) too; those of mails with a code or a link also `code` and `code_spaced`, or
/// `link`, and `ttl` in words (English or Spanish), `ttl_minutes` and `ttl_seconds`.
///
/// ```
/// use usermgr_core::template::FolderTemplates;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("usermgr-folder-{}", std::process::id()));
/// # std::fs::create_dir_all(folder.join("es"))?;
/// std::fs::write(folder.join("es/welcome.subject.txt"), "Te damos la bienvenida a {{ service_name }}")?;
/// let templates = FolderTemplates::load(&folder)?;
///
/// std::fs::write(folder.join("es/welcome.subject.txt"), "{{ no_such_value }}")?;
/// let fault = FolderTemplates::load(&folder).expect_err("there is no such value");
/// println!("{fault}");
/// # std::fs::remove_dir_all(folder)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FolderTemplates {
    texts: Texts,
}

impl FolderTemplates {
    /// Reads the folder, and renders every text of it once with sample values, so that a fault stops the start and
    /// not a mail. Later changes of the files are not seen.
    ///
    /// It reads files and is meant for the start of a program.
    ///
    /// # Errors
    /// [`TemplateError`] for the first faulty file in the order of names: one line with the file and what is wrong.
    pub fn load(dir: &Path) -> Result<Self, TemplateError> {
        let files = read(dir)?;
        let mut texts = Texts::new(SOURCES);
        for (file, source) in &files {
            texts.add(file.clone(), source.clone()).map_err(|error| faulty(file, error))?;
        }
        let mut languages: BTreeSet<&str> = LANGUAGES.into();
        languages.extend(files.keys().filter_map(|file| file.split_once('/')).map(|(language, _)| language));
        // What the trial compiles goes with it.
        let trial = texts.clone();
        for language in languages {
            for kind in MailKind::ALL {
                check(&trial, language, kind, &files)?;
            }
        }
        Ok(Self { texts })
    }

    /// With the language of receivers whose own is not known; without this, English.
    #[must_use]
    pub fn with_default(mut self, default: &Locale) -> Self {
        self.texts.set_default(&default.language());
        self
    }

    /// Every mail there is, built in or of the folder, and in which language.
    pub fn mails(&self) -> Vec<(MailKind, String)> {
        self.texts.mails()
    }
}

impl MailTemplates for FolderTemplates {
    fn render(
        &self,
        kind: MailKind,
        language: &str,
        values: &MailValues<'_>,
    ) -> Result<RenderedMail, TemplateError> {
        self.texts.render(kind, language, values)
    }
}

/// The folder's templates by name.
fn read(dir: &Path) -> Result<BTreeMap<String, String>, TemplateError> {
    let mut files = BTreeMap::new();
    for (entry, is_dir) in entries(dir, ".")? {
        if is_dir && is_language(&entry) {
            for (file, is_dir) in entries(&dir.join(&entry), &entry)? {
                let file = format!("{entry}/{file}");
                if is_dir || !is_template(&file) {
                    return Err(TemplateError::UnknownFile { file });
                }
                files.insert(file.clone(), source(dir, file)?);
            }
        } else if !is_dir && entry == LAYOUT {
            files.insert(entry.clone(), source(dir, entry)?);
        } else {
            return Err(TemplateError::UnknownFile { file: entry });
        }
    }
    Ok(files)
}

/// The names in a folder, in order, and whether each is a folder itself.
fn entries(dir: &Path, shown: &str) -> Result<BTreeMap<String, bool>, TemplateError> {
    let unreadable = |source| TemplateError::Unreadable { file: shown.into(), source };
    let mut entries = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            // What a link points to counts: mounted folders are full of links.
            let is_dir = fs::metadata(entry.path()).map_err(unreadable)?.is_dir();
            entries.insert(name, is_dir);
        }
    }
    Ok(entries)
}

fn source(dir: &Path, file: String) -> Result<String, TemplateError> {
    fs::read_to_string(dir.join(&file)).map_err(|source| TemplateError::Unreadable { file, source })
}

fn is_language(name: &str) -> bool {
    (2..=3).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase())
}

fn is_template(file: &str) -> bool {
    let Some((language, _)) = file.split_once('/') else { return false };
    MailKind::ALL.into_iter().any(|kind| Part::ALL.into_iter().any(|part| name(language, kind, part) == file))
}

/// Whether the three texts of a mail hold together, and come out with sample values.
fn check(
    texts: &Texts,
    language: &str,
    kind: MailKind,
    files: &BTreeMap<String, String>,
) -> Result<(), TemplateError> {
    let missing: Vec<Part> = Part::ALL.into_iter().filter(|part| !texts.has(language, kind, *part)).collect();
    match missing.first() {
        _ if missing.len() == Part::ALL.len() => return Ok(()),
        Some(part) => return Err(TemplateError::Incomplete { file: name(language, kind, *part) }),
        None => {}
    }
    for part in Part::ALL {
        let file = name(language, kind, part);
        let takes = variables(kind, part);
        if files.contains_key(&file)
            && let Some(variable) = texts.unknown_variables(&file, &takes).into_iter().next()
        {
            return Err(unknown(file, variable, &takes));
        }
    }
    for username in [Some("Ana"), None] {
        let mail = texts
            .render(kind, language, &MailValues { username, ..SAMPLE })
            .map_err(|error| located(error, texts, kind))?;
        come_out(&mail, language, kind)?;
    }
    Ok(())
}

const SAMPLE: MailValues<'_> = MailValues {
    service_name: "Example",
    public_url: "https://example.org",
    email: "ana@example.org",
    username: None,
    code: Some("048215"),
    link: Some("https://example.org/reset-password#token=sample"),
    ttl: Duration::minutes(10),
};

/// Whether the texts say something, and show the secret that the mail is for.
fn come_out(mail: &RenderedMail, language: &str, kind: MailKind) -> Result<(), TemplateError> {
    let shown = match Carries::of(kind) {
        Carries::Nothing => Vec::new(),
        Carries::Code => vec!["048215", "048 215"],
        Carries::Link => SAMPLE.link.into_iter().collect(),
    };
    for (part, text) in [(Part::Subject, &mail.subject), (Part::Text, &mail.text), (Part::Html, &mail.html)] {
        let file = name(language, kind, part);
        if text.trim().is_empty() {
            return Err(TemplateError::Empty { file });
        }
        if let (Some(value), true) = (Carries::of(kind).variable(), part != Part::Subject)
            && !shown.iter().any(|secret| text.contains(secret))
        {
            return Err(TemplateError::NotShown { file, value });
        }
    }
    Ok(())
}

/// The error of a test with the file that is at fault, which may be the layout, and the variable if one is unknown.
fn located(error: TemplateError, texts: &Texts, kind: MailKind) -> TemplateError {
    let TemplateError::Render { template, source } = error else { return error };
    let file = source
        .downcast_ref::<minijinja::Error>()
        .and_then(minijinja::Error::name)
        .unwrap_or(&template)
        .to_owned();
    let takes =
        variables(kind, if file.ends_with(Part::Subject.suffix()) { Part::Subject } else { Part::Html });
    match texts.unknown_variables(&file, &takes).into_iter().next() {
        Some(variable) => unknown(file, variable, &takes),
        None => TemplateError::Faulty { file, source },
    }
}

fn faulty(file: &str, error: minijinja::Error) -> TemplateError {
    TemplateError::Faulty { file: file.into(), source: error.into() }
}

fn unknown(file: String, variable: String, takes: &BTreeSet<&str>) -> TemplateError {
    let takes = takes.iter().copied().collect::<Vec<_>>().join(", ");
    TemplateError::UnknownVariable { file, variable, takes }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::BuiltInTemplates;
    use super::*;

    /// A folder of its own for a test, removed afterwards.
    struct Folder(PathBuf);

    impl Folder {
        fn with(files: &[(&str, &str)]) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::SeqCst);
            let dir = std::env::temp_dir().join(format!("usermgr-templates-{}-{count}", std::process::id()));
            for (file, source) in files {
                let path = dir.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, source).unwrap();
            }
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn load(&self) -> Result<FolderTemplates, TemplateError> {
            FolderTemplates::load(&self.0)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// What is said of a folder with these files: one line.
    fn fault(files: &[(&str, &str)]) -> String {
        let fault = Folder::with(files).load().unwrap_err().to_string();
        assert_eq!(fault.lines().count(), 1, "{fault}");
        fault
    }

    fn values() -> MailValues<'static> {
        MailValues { username: Some("Ana"), code: Some("999111"), ..SAMPLE }
    }

    #[test]
    fn an_empty_folder_changes_nothing() {
        let folder = Folder::with(&[(".gitkeep", "")]).load().unwrap();
        for kind in MailKind::ALL {
            for language in ["en", "es", "fr"] {
                let built_in = BuiltInTemplates::default().render(kind, language, &values()).unwrap();
                assert!(folder.render(kind, language, &values()).unwrap() == built_in, "{kind} {language}");
            }
        }
    }

    #[test]
    fn a_file_replaces_one_text() {
        let folder = Folder::with(&[(
            "es/verify_email.txt",
            "Código:\n{{ code }} {{ code_spaced }} {{ ttl_minutes }}\n",
        )]);
        let templates = folder.load().unwrap();
        let mail = templates.render(MailKind::VerifyEmail, "es", &values()).unwrap();
        let built_in = BuiltInTemplates::default().render(MailKind::VerifyEmail, "es", &values()).unwrap();
        assert_eq!(mail.text, "Código:\n999111 999 111 10\n");
        assert_eq!((mail.subject, mail.html), (built_in.subject, built_in.html));
        let english = templates.render(MailKind::VerifyEmail, "en", &values()).unwrap();
        assert!(
            english == BuiltInTemplates::default().render(MailKind::VerifyEmail, "en", &values()).unwrap()
        );
    }

    #[test]
    fn a_layout_replaces_that_of_every_mail() {
        let folder = Folder::with(&[(
            "layout.html",
            "<main>{% block lead %}{% endblock %}{% if code is defined %}{{ code }}{% endif %}\
             {% if link is defined %}{{ link }}{% endif %}</main>",
        )]);
        let templates = folder.load().unwrap();
        for kind in MailKind::ALL {
            assert!(templates.render(kind, "en", &values()).unwrap().html.starts_with("<main>"), "{kind}");
        }
    }

    #[test]
    fn values_are_escaped_in_html_and_data_in_text() {
        let folder = Folder::with(&[
            ("en/welcome.html", "<p title=\"{{ username }}\">{{ username }}</p>"),
            ("en/welcome.txt", "{{ username }}"),
        ]);
        let odd = MailValues { username: Some("{{7*7}}<\"'&"), ..values() };
        let mail = folder.load().unwrap().render(MailKind::Welcome, "en", &odd).unwrap();
        let escaped = "{{7*7}}&lt;&quot;&#39;&amp;";
        assert_eq!(mail.html, format!("<p title=\"{escaped}\">{escaped}</p>"));
        assert_eq!(mail.text, "{{7*7}}<\"'&\n");
    }

    #[test]
    fn a_new_language_is_whole_for_the_mails_it_has() {
        let subject = ("fr/welcome.subject.txt", "Bienvenue");
        let text = ("fr/welcome.txt", "Bonjour");
        let html = ("fr/welcome.html", "<p>Bonjour</p>");
        let templates = Folder::with(&[subject, text, html]).load().unwrap();
        assert_eq!(templates.render(MailKind::Welcome, "fr-CA", &values()).unwrap().text, "Bonjour\n");
        let other = |templates: &FolderTemplates| {
            templates.render(MailKind::PasswordChanged, "fr", &values()).unwrap().text
        };
        assert!(other(&templates).starts_with("Hello"));
        let spanish = templates.with_default(&Locale::parse("es").unwrap());
        assert!(other(&spanish).starts_with("Hola"));
        assert!(fault(&[subject, html]).starts_with("fr/welcome.txt: it is missing"));
        assert!(fault(&[text]).starts_with("fr/welcome.subject.txt: it is missing"));
    }

    #[test]
    fn an_unknown_name_is_refused() {
        for file in [
            "en/verify.txt",
            "en/verify_email.text",
            "verify_email.txt",
            "english/welcome.txt",
            "EN/welcome.txt",
            "en/sub/welcome.txt",
            "layout.htm",
            "en/layout.html",
            "en/welcome.txt/x",
        ] {
            let named = fault(&[(file, "x")]);
            let said = named.split(':').next().unwrap();
            assert!(file.starts_with(said) && named.contains("no template has this name"), "{file}: {named}");
        }
    }

    #[test]
    fn an_unknown_variable_is_named_also_where_no_test_comes() {
        for source in
            ["{{ usrname }} {{ code }}", "{% if username == 'Zoe' %}{{ usrname }}{% endif %}{{ code }}"]
        {
            let named = fault(&[("en/verify_email.txt", source)]);
            assert!(
                named.starts_with("en/verify_email.txt: the variable usrname is not known here"),
                "{named}"
            );
            assert!(named.contains("code, code_spaced, email"), "{named}");
        }
        assert!(fault(&[("en/welcome.html", "{{ code }}")]).contains("the variable code is not known here"));
        let in_subject = fault(&[("en/welcome.subject.txt", "Hello {{ username }}")]);
        assert!(in_subject.contains("the variable username is not known here"), "{in_subject}");
        let in_layout = fault(&[("layout.html", "{% block lead %}{% endblock %}{{ code }} {{ link }}")]);
        assert!(in_layout.starts_with("layout.html: the variable "), "{in_layout}");
        assert!(
            fault(&[("layout.html", "{{ cod }}")]).starts_with("layout.html: the variable cod is not known")
        );
    }

    #[test]
    fn a_template_that_does_not_parse_is_named_with_the_line() {
        let named = fault(&[("es/welcome.txt", "Hola\n{% if username %}")]);
        assert!(named.starts_with("es/welcome.txt: ") && named.contains("es/welcome.txt:2"), "{named}");
        let named = fault(&[("es/welcome.html", "{% extends \"other.html\" %}")]);
        assert!(named.starts_with("es/welcome.html: ") && named.contains("other.html"), "{named}");
        assert!(fault(&[("es/welcome.txt", "{{ email|frobnicate }}")]).contains("frobnicate"));
    }

    #[test]
    fn a_mail_must_say_what_it_is_for() {
        assert!(fault(&[("en/verify_email.txt", "Hello")]).contains("it has to show {{ code }}"));
        assert!(fault(&[("en/reset_password_link.html", "Hello")]).contains("it has to show {{ link }}"));
        assert!(fault(&[("en/welcome.subject.txt", " \n")]).contains("it is empty"));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let missing = FolderTemplates::load(Path::new("/nonexistent/templates")).unwrap_err();
        assert!(matches!(missing, TemplateError::Unreadable { .. }), "{missing}");
        let folder = Folder::with(&[]);
        fs::create_dir_all(folder.0.join("en")).unwrap();
        fs::write(folder.0.join("en/welcome.txt"), [0xff, 0xfe]).unwrap();
        assert!(folder.load().unwrap_err().to_string().starts_with("en/welcome.txt: it cannot be read"));
    }
}
