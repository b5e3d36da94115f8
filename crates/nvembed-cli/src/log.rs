//! Logs go to stderr. User texts are never logged.

use std::io::{IsTerminal, Stderr, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;
use tracing_subscriber::fmt::format::{DefaultFields, Format};

/// How the lines of a server's log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Text for a person.
    Text,
    /// An object of JSON per line.
    Json,
}

/// Starts logging at the level that `-v`, `-vv` or RUST_LOG ask for.
pub(crate) fn start(verbose: u8) {
    // ONNX Runtime warns about things its user cannot change; its errors are returned and printed as errors.
    let default = match verbose {
        0 => "warn,ort=off",
        1 => "info,ort=warn,nvembed=debug",
        _ => "debug",
    };
    lines(default).init();
}

/// Starts the log of a server, which tells of each request too. Default: JSON, unless a person watches.
pub(crate) fn start_server(verbose: u8, format: Option<LogFormat>) {
    let default = match verbose {
        0 => "info,ort=off",
        1 => "info,ort=warn,nvembed=debug,nvembed_server=debug,nvembed::request=trace",
        _ => "debug,nvembed::request=trace",
    };
    let by_place = if stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json };
    match format.unwrap_or(by_place) {
        LogFormat::Text => lines(default).init(),
        LogFormat::Json => lines(default).json().flatten_event(true).with_current_span(false).init(),
    }
}

type Lines = SubscriberBuilder<DefaultFields, Format, EnvFilter, fn() -> Stderr>;

fn lines(default: &str) -> Lines {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(stderr().is_terminal());
    builder.with_writer(stderr as fn() -> Stderr)
}
