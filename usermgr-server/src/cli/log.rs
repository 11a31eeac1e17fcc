//! Where log lines go, and how they look.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use super::failure::Failure;
use crate::config::{Config, LogFormat};

/// What is told while the program runs.
#[derive(Default)]
pub(super) struct Log {
    #[cfg(feature = "otlp")]
    spans: std::sync::OnceLock<crate::observe::Spans>,
}

impl Log {
    /// Writes log lines to standard error: for people at a terminal, else as JSON. Colours are for terminals alone, and
    /// not where `NO_COLOR` is set.
    #[cfg_attr(
        not(feature = "otlp"),
        expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "there is nowhere to send spans")
    )]
    pub(super) fn begin(&self, config: &Config) -> Result<(), Failure> {
        let terminal = io::stderr().is_terminal();
        // The spans of requests at any level: a warning bears the id of its request. The filter is the whole program's:
        // that of one layer is not asked again after the database's driver has asked whether its own lines are wanted,
        // and lines of ours are lost.
        let filter = EnvFilter::new(format!(
            "{0},usermgr_server::http::trace=info,sqlx=warn,hyper=info,h2=info,rustls=info",
            config.log_level
        ));
        let lines =
            tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(terminal && !config.no_color);
        let default = if terminal { LogFormat::Pretty } else { LogFormat::Json };
        let lines = match config.log_format.unwrap_or(default) {
            LogFormat::Pretty => lines.with_target(false).boxed(),
            // The request that a line belongs to is its span.
            LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        };
        let subscriber = tracing_subscriber::registry().with(filter).with(lines);
        #[cfg(feature = "otlp")]
        let subscriber = subscriber.with(self.spans(config)?);
        subscriber.init();
        Ok(())
    }

    /// What sends spans to a collector, if one is named. Log lines stay here: they tell of users.
    #[cfg(feature = "otlp")]
    fn spans<S>(&self, config: &Config) -> Result<Option<impl Layer<S> + use<S>>, Failure>
    where
        S: tracing::Subscriber + for<'span> tracing_subscriber::registry::LookupSpan<'span>,
    {
        use secrecy::ExposeSecret as _;
        use tracing_subscriber::filter::dynamic_filter_fn;
        let Some(url) = &config.otlp_url else { return Ok(None) };
        let runtime = tokio::runtime::Handle::current();
        let roots = crate::serve::trusted_roots(config)?;
        let spans = crate::observe::Spans::sent_to(url.expose_secret(), &roots, runtime)
            .map_err(|error| Failure::Traces(error.into()))?;
        // Dynamic, so that it is asked each time.
        let ours =
            dynamic_filter_fn(|metadata, _| metadata.is_span() && metadata.target().starts_with("usermgr"));
        let layer = self.spans.get_or_init(|| spans).layer().with_filter(ours);
        Ok(Some(layer))
    }

    /// Sends what is left. Outside of the runtime, for it waits.
    #[cfg_attr(not(feature = "otlp"), expect(clippy::unused_self, reason = "there is nothing to send"))]
    pub(super) fn end(&self) {
        #[cfg(feature = "otlp")]
        if let Some(spans) = self.spans.get() {
            spans.end();
        }
    }
}

/// A panic is a line of the log like any other. Where it was is told, not what it said: that may quote a secret.
pub(super) fn panics() {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string);
        tracing::error!(at, "panicked");
    }));
}
