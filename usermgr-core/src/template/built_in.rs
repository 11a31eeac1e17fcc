//! The texts that come with the crate, in English and Spanish.

use super::texts::Texts;
use super::{MailTemplates, MailValues, RenderedMail, TemplateError};
use crate::domain::mail::MailKind;
use crate::domain::user::Locale;

/// The built-in texts, in English and Spanish: short and calm, without images, tracking or anything remote.
#[derive(Debug, Clone)]
pub struct BuiltInTemplates {
    texts: Texts,
}

impl BuiltInTemplates {
    /// The built-in texts. A receiver whose language is not among them gets the default one, else English.
    pub fn new(default: &Locale) -> Self {
        let mut texts = Texts::new(SOURCES);
        texts.set_default(&default.language());
        Self { texts }
    }

    /// Every mail there is, and in which language.
    pub fn mails(&self) -> Vec<(MailKind, String)> {
        self.texts.mails()
    }
}

impl Default for BuiltInTemplates {
    fn default() -> Self {
        Self::new(&Locale::english())
    }
}

impl MailTemplates for BuiltInTemplates {
    fn render(
        &self,
        kind: MailKind,
        language: &str,
        values: &MailValues<'_>,
    ) -> Result<RenderedMail, TemplateError> {
        self.texts.render(kind, language, values)
    }
}

/// The languages that are complete.
pub(super) const LANGUAGES: [&str; 2] = ["en", "es"];

macro_rules! sources {
    ($($kind:literal)*) => {
        &[
            ("layout.html", include_str!("layout.html")),
            $(
                sources!(@file "en/", $kind, ".subject.txt"),
                sources!(@file "en/", $kind, ".txt"),
                sources!(@file "en/", $kind, ".html"),
                sources!(@file "es/", $kind, ".subject.txt"),
                sources!(@file "es/", $kind, ".txt"),
                sources!(@file "es/", $kind, ".html"),
            )*
        ]
    };
    (@file $language:literal, $kind:literal, $suffix:literal) => {
        (concat!($language, $kind, $suffix), include_str!(concat!($language, $kind, $suffix)))
    };
}

/// What each is called, and its text.
pub(super) const SOURCES: &[(&str, &str)] = sources! {
    "verify_email" "account_exists" "welcome" "first_time_setup" "reset_password_code" "reset_password_link"
    "change_password_code" "change_email_code" "password_changed" "email_change_requested"
    "email_changed" "account_deleted"
};

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::super::texts::Carries;
    use super::*;

    const LINK: &str = "https://id.example.org/reset-password#token=abc-DEF_123";

    fn values() -> MailValues<'static> {
        MailValues {
            service_name: "Example & Co",
            public_url: "https://id.example.org",
            email: "ana@example.org",
            username: Some("Ana"),
            code: Some("048215"),
            link: Some(LINK),
            ttl: Duration::minutes(10),
        }
    }

    /// Every kind in every language, with these values.
    fn every(values: &MailValues<'_>) -> Vec<(MailKind, &'static str, RenderedMail)> {
        let templates = BuiltInTemplates::default();
        let mut mails = Vec::new();
        for kind in MailKind::ALL {
            for language in LANGUAGES {
                let mail = templates.render(kind, language, values);
                mails.push((kind, language, mail.unwrap()));
            }
        }
        mails
    }

    #[test]
    fn every_mail_is_whole() {
        for username in [Some("Ana"), None] {
            for (kind, language, mail) in every(&MailValues { username, ..values() }) {
                let at = format!("{kind} {language}");
                for part in [&mail.subject, &mail.text, &mail.html] {
                    assert!(!part.trim().is_empty(), "{at}");
                    assert!(
                        !part.contains("{{") && !part.contains("{%") && !part.contains("}}"),
                        "{at}: {part}"
                    );
                    assert!(!part.replace(":none", "").contains("none"), "{at}: {part}");
                }
                assert_eq!(mail.subject.lines().count(), 1, "{at}");
                assert!(mail.subject.contains("Example & Co"), "{at}");
                assert!(mail.text.contains("ana@example.org"), "{at}");
                assert!(mail.html.contains("ana@example.org"), "{at}");
                assert!(
                    mail.html.contains("Example &amp; Co") && !mail.html.contains("Example & Co"),
                    "{at}"
                );
                assert!(mail.html.contains(&format!("lang=\"{language}\"")), "{at}");
                assert_eq!(mail.text.contains("Ana"), username.is_some(), "{at}");
            }
        }
    }

    #[test]
    fn the_languages_differ() {
        let mails = every(&values());
        for pair in mails.chunks(2) {
            let ((kind, _, english), (_, _, spanish)) = (&pair[0], &pair[1]);
            assert_ne!(english.subject, spanish.subject, "{kind}");
            assert!(english.text.starts_with("Hello Ana,\n"), "{kind}");
            assert!(spanish.text.starts_with("Hola Ana:\n"), "{kind}");
        }
    }

    #[test]
    fn a_secret_stands_alone_on_a_line_and_only_where_it_belongs() {
        for (kind, language, mail) in every(&values()) {
            let at = format!("{kind} {language}");
            let alone = |line: &str| mail.text.lines().filter(|candidate| *candidate == line).count();
            let carries = Carries::of(kind);
            assert_eq!(alone("048215"), usize::from(carries == Carries::Code), "{at}");
            assert_eq!(alone(LINK), usize::from(carries == Carries::Link), "{at}");
            assert_eq!(mail.text.contains("048215"), carries == Carries::Code, "{at}");
            assert_eq!(mail.html.contains(">048215<"), carries == Carries::Code, "{at}");
            assert_eq!(mail.html.contains(&format!("href=\"{LINK}\"")), carries == Carries::Link, "{at}");
            assert!(!mail.subject.contains("048215"), "{at}");
            let ttl = if language == "es" { "10 minutos" } else { "10 minutes" };
            assert_eq!(
                mail.text.contains(ttl) && mail.html.contains(ttl),
                carries != Carries::Nothing || kind == MailKind::AccountDeleted,
                "{at}"
            );
        }
    }

    #[test]
    fn a_link_stands_alone_on_its_line() {
        for (kind, language, mail) in every(&values()) {
            for line in mail.text.lines().filter(|line| line.contains("://")) {
                assert!(!line.contains(' ') && line.starts_with("https://"), "{kind} {language}: {line}");
            }
        }
    }

    #[test]
    fn a_code_is_the_only_number_of_its_length() {
        for (kind, language, mail) in every(&values()) {
            for part in [&mail.text, &mail.html] {
                let numbers: Vec<&str> =
                    part.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.len() >= 4).collect();
                let numbers: Vec<&&str> =
                    numbers.iter().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit())).collect();
                assert!(numbers.iter().all(|number| **number == "048215"), "{kind} {language}: {numbers:?}");
            }
        }
    }

    #[test]
    fn a_name_arrives_as_text() {
        let odd = MailValues { username: Some("{{7*7}}{% if x %}<script>\"'&"), ..values() };
        for (kind, language, mail) in every(&odd) {
            let at = format!("{kind} {language}");
            assert!(mail.text.contains("{{7*7}}{% if x %}<script>\"'&"), "{at}");
            assert!(mail.html.contains("{{7*7}}{% if x %}&lt;script&gt;&quot;&#39;&amp;"), "{at}");
            assert!(!mail.html.contains("<script>") && !mail.text.contains("49"), "{at}");
            assert!(!mail.subject.contains("7*7"), "{at}");
        }
    }

    #[test]
    fn a_name_that_is_an_advertisement_is_left_out() {
        let advertisement = MailValues { username: Some("Win at https://evil.example"), ..values() };
        for (kind, language, mail) in every(&advertisement) {
            assert!(!mail.text.contains("evil") && !mail.html.contains("evil"), "{kind} {language}");
        }
    }

    #[test]
    fn an_address_is_escaped() {
        let odd = MailValues { email: "a&b'c@example.org", ..values() };
        for (kind, language, mail) in every(&odd) {
            assert!(mail.text.contains("a&b'c@example.org"), "{kind} {language}");
            assert!(mail.html.contains("a&amp;b&#39;c@example.org"), "{kind} {language}");
        }
    }

    #[test]
    fn a_subject_is_one_line_whatever_the_service_is_called() {
        for (kind, language, mail) in every(&MailValues { service_name: "A\r\nBcc: x@y.z\n", ..values() }) {
            assert!(!mail.subject.chars().any(char::is_control), "{kind} {language}");
        }
    }

    #[test]
    fn nothing_remote_is_in_a_mail() {
        for (kind, language, mail) in every(&values()) {
            for forbidden in ["<img", "src=", "<script", "@import", "url(", "<link"] {
                assert!(!mail.html.contains(forbidden), "{kind} {language}: {forbidden}");
            }
            for (at, _) in mail.html.match_indices("http") {
                assert!(mail.html[at..].starts_with("https://id.example.org"), "{kind} {language}");
            }
        }
    }

    #[test]
    fn lists_of_mails_show_what_it_is_about_and_no_secret() {
        for (kind, language, mail) in every(&values()) {
            let (_, rest) = mail.html.split_once("mso-hide:all\">").unwrap();
            let (preview, _) = rest.split_once("</div>").unwrap();
            assert!((20..=100).contains(&preview.chars().count()), "{kind} {language}: {preview}");
            assert!(!preview.contains("048215") && !preview.contains("token"), "{kind} {language}");
        }
    }

    #[test]
    fn every_mail_keeps_to_what_all_clients_show() {
        for (kind, language, mail) in every(&values()) {
            let at = format!("{kind} {language}");
            for forbidden in ["<form", "<input", "<iframe", "<svg", " onclick", "position:", "display:flex"] {
                assert!(!mail.html.contains(forbidden), "{at}: {forbidden}");
            }
            assert!(mail.html.len() < 100 * 1024, "{at}: Gmail cuts it off");
            let tables = mail.html.matches("<table").count();
            assert!(tables >= 2, "{at}: Outlook lays out by tables");
            assert_eq!(mail.html.matches("<table role=\"presentation\"").count(), tables, "{at}");
            for tag in ["table", "tr", "td", "p", "a", "div", "body", "html"] {
                let opened = mail.html.matches(&format!("<{tag} ")).count()
                    + mail.html.matches(&format!("<{tag}>")).count();
                assert_eq!(opened, mail.html.matches(&format!("</{tag}>")).count(), "{at}: {tag}");
            }
        }
    }

    /// The contrast of two colours (WCAG 2.2 §1.4.3).
    fn contrast(one: &str, other: &str) -> f64 {
        let luminance = |colour: &str| {
            let channel = |at: usize| {
                let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
                if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
        };
        let (a, b) = (luminance(one), luminance(other));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn whatever_is_written_can_be_read_in_light_and_dark() {
        let layout = include_str!("layout.html");
        // Text, and what it stands on: in light, then in dark.
        let pairs = [
            ("#1c1f23", "#f3f4f6"),
            ("#1c1f23", "#ffffff"),
            ("#565e69", "#ffffff"),
            ("#1d4fb4", "#ffffff"),
            ("#ffffff", "#1c1f23"),
            ("#e8eaed", "#16181c"),
            ("#e8eaed", "#1f2227"),
            ("#aab2bc", "#1f2227"),
            ("#9dbcf8", "#1f2227"),
            ("#ffffff", "#2a2e34"),
            ("#16181c", "#e8eaed"),
        ];
        for (text, ground) in pairs {
            assert!(contrast(text, ground) >= 4.5, "{text} on {ground}: {}", contrast(text, ground));
        }
        let is_colour =
            |text: &&str| text.starts_with('#') && text[1..].bytes().all(|b| b.is_ascii_hexdigit());
        let colours = layout.match_indices("color:").filter_map(|(at, name)| {
            let is_border = layout[..at].ends_with("border-");
            layout.get(at + name.len()..).filter(|_| !is_border)?.trim_start().get(..7).filter(is_colour)
        });
        let measured: Vec<&str> = pairs.iter().flat_map(|(text, ground)| [*text, *ground]).collect();
        let colours: Vec<&str> = colours.collect();
        assert!(colours.len() > 15, "{colours:?}");
        assert!(colours.iter().all(|colour| measured.contains(colour)), "{colours:?}");
        assert!((contrast("#000000", "#ffffff") - 21.0).abs() < 0.01);
    }

    #[test]
    fn an_unknown_language_is_answered_in_the_default_one() {
        let subject = |default: &str, asked: &str| {
            let templates = BuiltInTemplates::new(&Locale::parse(default).unwrap());
            templates.render(MailKind::Welcome, asked, &values()).unwrap().subject
        };
        let (english, spanish) = (subject("en", "en"), subject("en", "es"));
        assert_ne!(english, spanish);
        assert_eq!(subject("en", "fr"), english);
        assert_eq!(subject("es-MX", "fr"), spanish);
        assert_eq!(subject("fr", "fr"), english);
        assert_eq!(subject("en", "es-MX"), spanish);
        assert_eq!(subject("en", "ES"), spanish);
        assert_eq!(subject("en", "../en"), english);
    }

    #[test]
    fn a_mail_without_its_secret_is_refused() {
        let bare = MailValues { code: None, link: None, ..values() };
        for kind in MailKind::ALL {
            let rendered = BuiltInTemplates::default().render(kind, "en", &bare);
            match Carries::of(kind) {
                Carries::Nothing => assert!(rendered.is_ok(), "{kind}"),
                _ => assert!(matches!(rendered, Err(TemplateError::MissingValue { .. })), "{kind}"),
            }
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let templates = BuiltInTemplates::default();
        let mail = templates.render(MailKind::VerifyEmail, "en", &values()).unwrap();
        let shown = format!("{mail:?} {:?} {templates:?}", values());
        assert!(!shown.contains("048215") && !shown.contains("ana@") && !shown.contains("token"), "{shown}");
    }
}
