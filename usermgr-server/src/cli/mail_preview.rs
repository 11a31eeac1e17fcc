//! `mail preview`: every mail as a file, to be looked at.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use usermgr_core::Policies;
use usermgr_core::domain::id::OutboxId;
use usermgr_core::domain::mail::MailKind;
use usermgr_core::port::clock::{Clock as _, SystemClock};
use usermgr_core::port::mailer::Mail;
use usermgr_core::template::{
    BuiltInTemplates, FolderTemplates, MailTemplates, RenderedMail, SampleMail, TemplateError,
};
use usermgr_smtp::build_message;

use super::failure::Failure;
use super::output::print;
use crate::config::Config;
use crate::serve::StartError;

/// Writes every mail in every language there is, as `KIND.LANGUAGE.html`, `.txt` and `.eml`, and a list of them.
pub(super) fn preview(config: &Config, dir: &Path) -> Result<(), Failure> {
    let (templates, mails) = templates(config).map_err(StartError::from)?;
    let failed = |source| Failure::File { path: dir.display().to_string(), source };
    fs::create_dir_all(dir).map_err(failed)?;
    let mut list = String::new();
    for (kind, language) in mails {
        let rendered = sample(&*templates, kind, &language, &config.policies).map_err(StartError::from)?;
        let message = build_message(&mail(&rendered, kind)?, &config.mail_from)
            .map_err(|error| Failure::NotWritten(error.to_string()))?;
        let name = format!("{kind}.{language}");
        let files: [(&str, &[u8]); 3] =
            [("html", rendered.html.as_bytes()), ("txt", rendered.text.as_bytes()), ("eml", &message)];
        for (suffix, bytes) in files {
            fs::write(dir.join(format!("{name}.{suffix}")), bytes).map_err(failed)?;
        }
        // Writing to a string cannot fail.
        let _ = write!(list, "{}", row(&name, &language, &rendered.subject));
    }
    let index = dir.join("index.html");
    fs::write(&index, page(&escaped(&config.policies.mail.service_name), &list)).map_err(failed)?;
    print(&format!("open {} in a browser", index.display()))
}

type Mails = Vec<(MailKind, String)>;

fn templates(config: &Config) -> Result<(Arc<dyn MailTemplates>, Mails), TemplateError> {
    let default = &config.policies.mail.default_locale;
    Ok(if let Some(folder) = &config.mail_templates {
        let templates = FolderTemplates::load(folder)?.with_default(default);
        let mails = templates.mails();
        (Arc::new(templates), mails)
    } else {
        let templates = BuiltInTemplates::new(default);
        let mails = templates.mails();
        (Arc::new(templates), mails)
    })
}

fn sample(
    templates: &dyn MailTemplates,
    kind: MailKind,
    language: &str,
    policies: &Policies,
) -> Result<RenderedMail, TemplateError> {
    templates.render(kind, language, &SampleMail::new(kind, policies).values())
}

fn mail(rendered: &RenderedMail, kind: MailKind) -> Result<Mail, Failure> {
    let RenderedMail { subject, text, html } = rendered.clone();
    let number = MailKind::ALL.iter().position(|other| *other == kind).unwrap_or_default();
    let id = format!("00000000-0000-7000-8000-{number:012x}").parse::<OutboxId>();
    let to = SampleMail::EMAIL.parse();
    match (id, to) {
        (Ok(id), Ok(to)) => Ok(Mail { id, to, subject, text, html, date: SystemClock.now() }),
        _ => Err(Failure::NotWritten("the sample address is none".into())),
    }
}

fn row(name: &str, language: &str, subject: &str) -> String {
    format!(
        "<li><a target=\"mail\" href=\"{name}.html\" lang=\"{language}\">{}</a>\n<small>{name}: \
         <a target=\"mail\" href=\"{name}.txt\">text</a>, <a href=\"{name}.eml\" download>eml</a></small></li>\n",
        escaped(subject)
    )
}

fn page(service: &str, list: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>Mails of {service}</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n<nav>\n<h1>Mails of {service}</h1>\n<ul>\n{list}</ul>\n</nav>\n\
         <iframe name=\"mail\" title=\"The mail\" src=\"verify_email.en.html\" sandbox></iframe>\n</body>\n</html>\n"
    )
}

const STYLE: &str = "
body { margin: 0; font: 15px/1.4 system-ui, sans-serif; display: flex; flex-wrap: wrap; min-height: 100vh }
nav { flex: 1 1 300px; max-width: 420px; padding: 16px; box-sizing: border-box }
h1 { font-size: 18px } ul { list-style: none; padding: 0 } li { margin: 0 0 12px } small { display: block; opacity: .8 }
iframe { flex: 3 1 320px; min-height: 90vh; border: 0; resize: horizontal; overflow: auto }
";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
