//! Exit codes, and how an outcome is reported.

use std::process::ExitCode;

use nvembed::ErrorKind;

/// The exit codes, as `--help` lists them.
pub(crate) const HELP: &str = "Exit codes:
  0    done (also when the reader of the output went away)
  1    an unexpected failure
  2    wrong arguments or an option out of range
  3    bad input: a file, a line or a text that cannot be embedded
  4    the model folder is missing, damaged or of another version
  5    the ONNX Runtime library or the execution provider cannot be had
  6    a run failed
  7    the output or the cache cannot be written
  8    verify: the embeddings differ from the known ones
  130  interrupted";

/// What only the command line can run into.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// A file or line that cannot be read as texts.
    #[error("{0}")]
    Input(String),
    /// Arguments that parse but do not go together.
    #[error("{0}")]
    Usage(String),
    /// A file of the model folder that only a command reads is missing or damaged.
    #[error("{0}")]
    Model(String),
    /// The output cannot be written.
    #[error("{what} cannot be written: {source}")]
    Output {
        /// The file, or "standard output".
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The machine cannot run a model.
    #[error("{0}")]
    Doctor(String),
    /// The embeddings are not the expected ones.
    #[error("{0}")]
    Verify(String),
}

/// The exit code of an interrupted program.
#[cfg(unix)]
pub(crate) const INTERRUPTED: i32 = 130;

/// Prints an error on stderr and turns the outcome into the exit code.
#[expect(clippy::print_stderr, reason = "the one line a failed command prints is not a log message")]
pub(crate) fn report(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if reader_is_gone(&error) {
        return ExitCode::SUCCESS;
    }
    eprintln!("nvembed: {error}");
    ExitCode::from(code(&error))
}

fn code(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<nvembed::Error>() {
        return match error.kind() {
            ErrorKind::Option => 2,
            ErrorKind::Input | ErrorKind::TooLong => 3,
            ErrorKind::Model => 4,
            ErrorKind::Library | ErrorKind::Provider => 5,
            ErrorKind::Inference | ErrorKind::Device | ErrorKind::Cancelled | ErrorKind::DeadlineExceeded => 6,
            ErrorKind::Cache => 7,
            _ => 1,
        };
    }
    match error.downcast_ref::<CliError>() {
        Some(CliError::Usage(_)) => 2,
        Some(CliError::Input(_)) => 3,
        Some(CliError::Model(_)) => 4,
        Some(CliError::Output { .. }) => 7,
        Some(CliError::Doctor(_)) => 5,
        Some(CliError::Verify(_)) => 8,
        None => 1,
    }
}

/// A closed pipe behind us, as with `| head`, is the reader's choice and no failure.
fn reader_is_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<CliError>(),
        Some(CliError::Output { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe)
}
