//! Where log lines go, and how they look.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Config, LogFormat};

/// Writes log lines to standard error: for people at a terminal, else as JSON. Colours are for terminals alone, and not
/// where `NO_COLOR` is set.
pub(super) fn to_stderr(config: &Config) {
    let terminal = io::stderr().is_terminal();
    let filter = EnvFilter::new(format!("{0},sqlx=warn,hyper=info,h2=info,rustls=info", config.log_level));
    let lines =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(terminal && !config.no_color);
    let default = if terminal { LogFormat::Pretty } else { LogFormat::Json };
    let lines = match config.log_format.unwrap_or(default) {
        LogFormat::Pretty => lines.with_target(false).boxed(),
        // The request that a line belongs to is in its span.
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
}

/// A panic is a line of the log like any other. Where it was is told, not what it said: that may quote a secret.
pub(super) fn panics() {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string);
        tracing::error!(at, "panicked");
    }));
}
