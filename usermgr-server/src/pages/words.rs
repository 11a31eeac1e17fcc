//! What pages say, in each language.

use std::collections::BTreeMap;

use super::PagesError;

/// The words of a language, by name.
pub(super) type Words = BTreeMap<String, String>;

pub(super) fn english() -> Result<Words, PagesError> {
    read("en.toml", include_str!("words/en.toml"))
}

pub(super) fn spanish() -> Result<Words, PagesError> {
    read("es.toml", include_str!("words/es.toml"))
}

fn read(file: &'static str, text: &str) -> Result<Words, PagesError> {
    toml::from_str(text).map_err(|error| PagesError::Words { file, detail: error.message().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::super::cookies::Notice;
    use super::super::samples;
    use super::*;

    fn places(text: &str) -> Vec<&str> {
        let mut places: Vec<&str> =
            text.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
        places.sort_unstable();
        places
    }

    #[test]
    fn both_languages_say_the_same() {
        let (english, spanish) = (english().unwrap(), spanish().unwrap());
        for (name, text) in &english {
            let other = spanish.get(name).unwrap_or_else(|| panic!("{name} is missing in Spanish"));
            assert_eq!(places(text), places(other), "{name}");
        }
        assert_eq!(english.len(), spanish.len());
        for notice in Notice::ALL {
            assert!(english.contains_key(notice.word()), "{}", notice.word());
        }
    }

    #[test]
    fn no_word_is_left_over() {
        let mut sources: String = samples::all().iter().map(|sample| sample.source).collect();
        sources.extend(samples::PARTS.map(|(_, source)| source));
        let dynamic = ["error_", "field_", "mail_", "notice_", "section_"];
        let elsewhere = ["foreign_form", "unknown_device", "device_on"];
        for name in english().unwrap().keys() {
            let used = sources.contains(&format!("t.{name} "))
                || sources.contains(&format!("t.{name}|"))
                || sources.contains(&format!("t.{name})"))
                || sources.contains(&format!("t.{name},"));
            let known =
                dynamic.iter().any(|prefix| name.starts_with(prefix)) || elsewhere.contains(&name.as_str());
            assert!(used || known, "nothing says {name}");
        }
    }
}
