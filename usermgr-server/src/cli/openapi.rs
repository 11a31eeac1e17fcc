//! `openapi`: the document that describes the interface.

use super::failure::Failure;
use super::output::print;
use crate::config::Config;
use crate::http::openapi;
use crate::serve::options;

pub(super) fn show(config: &Config) -> Result<(), Failure> {
    print(&format!("{:#}", openapi(&options(config), &config.policies)))
}
