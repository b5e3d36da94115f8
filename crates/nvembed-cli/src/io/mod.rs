//! What goes in and out: texts, embeddings, files that appear complete, standard output, interruptions.

pub(crate) mod atomic;
mod format;
pub(crate) mod interrupt;
pub(crate) mod reader;
pub(crate) mod writer;

use std::io::Write;

use crate::exit::CliError;

/// Writes text to stdout.
///
/// # Errors
/// [`CliError::Output`], which tells a closed pipe from other failures.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(CliError::stdout)
}
