//! The sample file: every key with its default and what it means, made from the table.

use super::keys::{KEYS, Key};

/// The widest line of a comment.
const WIDTH: usize = 100;

/// A configuration file in which every key stands behind `#`, with what it means.
pub fn sample() -> String {
    let mut text = String::from(
        "# The configuration of usermgr-server: every key and its default. Take the # away from what you change.\n\
         # The variable of `[section] key` is USERMGR_SECTION_KEY, and stands over this file; a secret may be a file, named\n\
         # by USERMGR_SECTION_KEY_FILE. Durations are 60s, 10m, 24h or 30d. `usermgr-server config check --explain` says\n\
         # in words what a configuration means.\n",
    );
    let mut open = "";
    let mut sections: Vec<&str> = Vec::new();
    for key in KEYS {
        let section = key.name.split_once('.').map_or("", |(section, _)| section);
        if !sections.contains(&section) {
            sections.push(section);
        }
    }
    for section in sections {
        for key in KEYS {
            let Some((of, name)) = key.name.split_once('.').filter(|(of, _)| *of == section) else {
                continue;
            };
            if open != of {
                open = of;
                text.extend(["\n[", of, "]\n"]);
            }
            describe(&mut text, key, name);
        }
    }
    text.push_str(
        "\n# Roles beside `user` and `admin`, and what each permits.\n[roles]\n\
         #support = [\"users:read\", \"audit:read\"]\n",
    );
    text
}

fn describe(text: &mut String, key: &Key, name: &str) {
    let suffix = key.example.map_or("", |_| " Not set by default; such as:");
    let mut line = String::from("#");
    for word in key.about.split_whitespace().chain(suffix.split_whitespace()) {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.extend([&line, "\n"]);
            line = String::from("#");
        }
        line.extend([" ", word]);
    }
    let value = match key.example {
        Some(example) => example.to_owned(),
        None if is_bare(key.default) => key.default.to_owned(),
        None => format!("{:?}", key.default),
    };
    text.extend([&line, "\n#", name, " = ", &value, "\n"]);
}

/// Whether a value stands in TOML without quotes.
fn is_bare(value: &str) -> bool {
    value == "true" || value == "false" || value.parse::<u64>().is_ok()
}
