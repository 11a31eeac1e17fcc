//! The templates of pages: the built-in ones, and a folder that replaces some of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value, json};

use super::PagesError;
use super::samples::{self, COMMON, PARTS, Sample};

/// The file of a folder that replaces the stylesheet.
pub(super) const STYLE: &str = "style.css";

/// Templates and the stylesheet. A built-in template is compiled when it is first shown: all of them compiled are a megabyte.
#[derive(Clone)]
pub(super) struct Templates {
    environment: Environment<'static>,
    /// What each page's template gets beside what every page gets.
    takes: BTreeMap<&'static str, BTreeSet<String>>,
    pub(super) style: String,
}

impl Templates {
    /// Reads a folder, if there is one, over the built-in templates, and then tries each page with sample values.
    pub(super) fn load(folder: Option<&Path>, words: &BTreeMap<String, String>) -> Result<Self, PagesError> {
        let samples = samples::all();
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.add_filter("fill", fill);
        let sources: Vec<_> =
            samples.iter().map(|sample| (sample.name, sample.source)).chain(PARTS).collect();
        let mut style = include_str!("templates/style.css").to_owned();
        let mut own = BTreeSet::new();
        for (file, source) in folder.map(read).transpose()?.unwrap_or_default() {
            if file == STYLE {
                style = source;
            } else if sources.iter().any(|(name, _)| *name == file) {
                let added = environment.add_template_owned(file.clone(), source);
                added.map_err(|error| faulty(&file, &error))?;
                own.insert(file);
            } else {
                let known: Vec<&str> = sources.iter().map(|(name, _)| *name).chain([STYLE]).collect();
                return Err(PagesError::UnknownFile { file, known: known.join(", ") });
            }
        }
        environment.set_loader(move |name| {
            let found = sources.iter().find(|(known, _)| *known == name);
            Ok(found.map(|(_, source)| (*source).to_owned()))
        });
        let takes = samples.iter().map(|sample| (sample.name, keys(&sample.values).collect())).collect();
        let templates = Self { environment, takes, style };
        if folder.is_some() {
            // What the trial compiles goes with it.
            templates.clone().check(&samples, words, &own)?;
        }
        Ok(templates)
    }

    /// Renders a page. The values are what its sample names, neither more nor less.
    pub(super) fn render(
        &self,
        template: &'static str,
        common: Value,
        values: Map<String, Value>,
    ) -> Result<String, minijinja::Error> {
        let given: BTreeSet<String> = values.keys().filter(|name| *name != "form").cloned().collect();
        if cfg!(debug_assertions) && self.takes.get(template) != Some(&given) {
            let detail =
                format!("{template} is given {given:?} and its sample {:?}", self.takes.get(template));
            return Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, detail));
        }
        self.environment.get_template(template)?.render(merged(common, values))
    }

    fn check(
        &self,
        samples: &[Sample],
        words: &BTreeMap<String, String>,
        own: &BTreeSet<String>,
    ) -> Result<(), PagesError> {
        for file in own {
            let values = samples.iter().find(|sample| sample.name == file).map(|sample| &sample.values);
            self.check_variables(file, values.unwrap_or(&Value::Null), words)?;
        }
        for sample in samples {
            for common in [stranger(words), administrator(words)] {
                let html = self
                    .environment
                    .get_template(sample.name)
                    .and_then(|template| {
                        template
                            .render(merged(common, sample.values.as_object().cloned().unwrap_or_default()))
                    })
                    .map_err(|error| faulty(error.name().unwrap_or(sample.name), &error))?;
                // Where the layout is a team's, a page that misses its content misses it there.
                if let Some(missing) = sample.needs.iter().find(|need| !html.contains(**need)) {
                    let file = if own.contains(sample.name) { sample.name } else { "layout.html" };
                    return Err(PagesError::Lacks { file: file.into(), missing: (*missing).into() });
                }
            }
        }
        Ok(())
    }

    /// Whether a template uses only what it gets. What stands in branches that no sample reaches is looked at, too.
    fn check_variables(
        &self,
        file: &str,
        values: &Value,
        words: &BTreeMap<String, String>,
    ) -> Result<(), PagesError> {
        let Ok(template) = self.environment.get_template(file) else { return Ok(()) };
        let builtin: BTreeSet<&str> =
            self.environment.globals().map(|(name, _)| name).chain(["self", "super", "loop"]).collect();
        let known: BTreeSet<String> =
            COMMON.iter().map(|name| (*name).to_owned()).chain(keys(values)).collect();
        let form = ["values", "faults", "problem", "reauthenticate", "wait"];
        let fits = |used: &str| {
            let (root, member) = used.split_once('.').map_or((used, None), |(root, rest)| (root, Some(rest)));
            let first = member.map(|member| member.split('.').next().unwrap_or(member));
            match (root, first) {
                ("t", Some(word)) => words.contains_key(word),
                ("form", Some(part)) => form.contains(&part),
                _ => known.contains(root) || builtin.contains(root),
            }
        };
        let used: BTreeSet<String> = template.undeclared_variables(true).into_iter().collect();
        match used.into_iter().find(|used| !fits(used)) {
            Some(variable) => {
                let takes = known.into_iter().collect::<Vec<_>>().join(", ");
                Err(PagesError::UnknownVariable { file: file.into(), variable, takes })
            }
            None => Ok(()),
        }
    }
}

fn keys(values: &Value) -> impl Iterator<Item = String> {
    values.as_object().into_iter().flatten().map(|(name, _)| name.clone())
}

fn merged(common: Value, values: Map<String, Value>) -> Value {
    let mut all = if let Value::Object(common) = common { common } else { Map::new() };
    all.extend(values);
    Value::Object(all)
}

/// Puts values into a text: `Sent to {email}`. The whole is escaped where it is shown.
#[expect(clippy::needless_pass_by_value, reason = "as the engine calls filters")]
fn fill(text: &str, values: minijinja::value::Kwargs) -> Result<String, minijinja::Error> {
    let mut filled = text.to_owned();
    let names: Vec<String> = values.args().map(str::to_owned).collect();
    for name in &names {
        let value: minijinja::Value = values.get(name)?;
        filled = filled.replace(&format!("{{{name}}}"), &value.to_string());
    }
    values.assert_all_used()?;
    Ok(filled)
}

fn stranger(words: &BTreeMap<String, String>) -> Value {
    json!({
        "language": "en", "t": words, "name": "Example", "logo": "/pages/logo", "style": "/pages/style.css", "script": "",
        "fragment_script": "", "signed_in": null, "administers": false, "in_administration": false, "sections": [],
        "notice": null, "back": null,
        "form": {
            "values": { "email": "ana@example.org" }, "faults": {}, "problem": null, "reauthenticate": false, "wait": null
        },
    })
}

fn administrator(words: &BTreeMap<String, String>) -> Value {
    json!({
        "language": "es", "t": words, "name": "Example", "logo": "/pages/logo", "style": "/pages/style.css", "script": "",
        "fragment_script": "", "signed_in": { "email": "ana@example.org", "username": "Ana" }, "administers": true,
        "in_administration": true, "sections": [{ "name": "Users", "path": "/admin/users", "current": true }],
        "notice": "Saved.", "back": "/account",
        "form": {
            "values": { "email": "ana@example.org", "locale": "fr" }, "faults": { "email": "It is not valid." },
            "problem": "Too many requests.", "reauthenticate": true, "wait": 5
        },
    })
}

/// The files of a folder, by name. Names that begin with a dot are passed over.
fn read(folder: &Path) -> Result<BTreeMap<String, String>, PagesError> {
    let unreadable =
        |file: String| move |source| PagesError::Unreadable { setting: "pages.templates", file, source };
    let shown = folder.display().to_string();
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable(shown.clone()))? {
        let entry = entry.map_err(unreadable(shown.clone()))?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if !file.starts_with('.') {
            let source = std::fs::read_to_string(entry.path()).map_err(unreadable(file.clone()))?;
            files.insert(file, source);
        }
    }
    Ok(files)
}

/// One line: the template, what is wrong, and where.
fn faulty(file: &str, error: &minijinja::Error) -> PagesError {
    let line = error.line().map(|line| format!(", line {line}")).unwrap_or_default();
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    PagesError::Faulty { file: format!("{file}{line}"), detail: detail.replace('\n', " ") }
}

#[cfg(test)]
mod tests {
    use super::super::words;
    use super::*;

    fn load(files: &[(&str, &str)]) -> Result<Templates, String> {
        let folder = tempfile::tempdir().unwrap();
        for (file, source) in files {
            std::fs::write(folder.path().join(file), source).unwrap();
        }
        let loaded = Templates::load(Some(folder.path()), &words::english().unwrap());
        loaded.map_err(|error| error.to_string())
    }

    fn fault(file: &str, source: &str) -> String {
        let Err(said) = load(&[(file, source)]) else { panic!("{file} was taken") };
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    }

    #[test]
    fn the_built_in_templates_use_only_what_they_get() {
        let words = words::english().unwrap();
        let templates = Templates::load(None, &words).unwrap();
        for sample in samples::all() {
            templates.check_variables(sample.name, &sample.values, &words).unwrap();
        }
        templates.check_variables("layout.html", &Value::Null, &words).unwrap();
    }

    #[test]
    fn a_folder_replaces_one_template_or_the_stylesheet() {
        let own = "{% extends \"layout.html\" %}{% block title %}X{% endblock %}{% block content %}<h1>Ours</h1>\
                   <form method=post><input name=\"email\"></form>{% endblock %}";
        let templates = load(&[("forgot.html", own), (STYLE, "body{}"), (".hidden", "{{")]).unwrap();
        assert_eq!(templates.style, "body{}");
        let words = words::english().unwrap();
        let html = templates.render("forgot.html", stranger(&words), Map::new()).unwrap();
        assert!(html.contains("<h1>Ours</h1>"), "{html}");
    }

    #[test]
    fn a_wrong_template_is_one_line_that_names_what_is_wrong() {
        let said = fault("forgot.html", "<input name=\"email\">{{ nmae }}");
        assert!(
            said.starts_with("pages.templates: forgot.html: the variable nmae is not known here"),
            "{said}"
        );
        let said = fault("forgot.html", "<input name=\"email\">{% if name == 'x' %}{{ t.fogot }}{% endif %}");
        assert!(said.contains("the variable t.fogot is not known here"), "{said}");
        let said = fault("sign_in.html", "<form><input name=\"email\"><input name=\"next\"></form>");
        assert_eq!(
            said,
            "pages.templates: sign_in.html: it lacks name=\"password\", without which the page does not work"
        );
        let said = fault("layout.html", "<html>{% block titel %}{% endblock %}</html>");
        assert!(said.starts_with("pages.templates: layout.html: it lacks name="), "{said}");
        let said = fault("forgot.html", "a\n{% if %}");
        assert!(said.starts_with("pages.templates: forgot.html, line 2: "), "{said}");
        let said = fault("devices.html", "{% for device in devices %}{{ device.nmae }}{% endfor %}");
        assert!(said.starts_with("pages.templates: devices.html, line 1: "), "{said}");
        let said = fault("signin.html", "x");
        assert!(
            said.starts_with("pages.templates: signin.html: no template has this name; there are"),
            "{said}"
        );
    }

    #[test]
    fn what_is_filled_in_is_escaped() {
        let mut environment = Environment::new();
        environment.add_filter("fill", fill);
        environment.add_template("x.html", "{{ '<b> {email}'|fill(email='<script>') }}").unwrap();
        let html = environment.get_template("x.html").unwrap().render(()).unwrap();
        assert_eq!(html, "&lt;b&gt; &lt;script&gt;");
    }
}
