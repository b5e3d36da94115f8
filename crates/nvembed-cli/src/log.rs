//! Logs go to stderr. User texts are never logged.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// Starts logging at the level that `-v`, `-vv` or RUST_LOG ask for.
pub(crate) fn start(verbose: u8) {
    // ONNX Runtime warns about things its user cannot change; its errors are returned and printed as errors.
    let default = match verbose {
        0 => "warn,ort=off",
        1 => "info,ort=warn,nvembed=debug",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal()).init();
}
