//! `config`: the configuration in force.

use super::failure::Failure;
use super::output::print;
use crate::config::Config;

pub(super) fn show(config: &Config, json: bool) -> Result<(), Failure> {
    if json {
        let values: serde_json::Map<String, serde_json::Value> = config
            .values
            .masked()
            .map(|(name, value, source)| {
                (name.to_owned(), serde_json::json!({ "value": value, "from": source }))
            })
            .collect();
        return print(&serde_json::Value::Object(values).to_string());
    }
    for (name, value, source) in config.values.masked() {
        print(&format!("{name} = {value:?}  ({source})"))?;
    }
    Ok(())
}
