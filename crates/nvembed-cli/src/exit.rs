//! Exit codes, and how an outcome is reported.

use std::path::Path;
use std::process::ExitCode;

use nvembed::ErrorKind;

use crate::arguments::{flag, with_flags};

/// The exit codes, as `--help` lists them.
pub(crate) const HELP: &str = "Exit codes:
  0    success (also when the reader of the output closed the pipe)
  1    unexpected failure
  2    wrong arguments, or an option out of range
  3    bad input: a file, a line or a text that cannot be embedded
  4    the model folder is missing, damaged or of another version
  5    the ONNX Runtime library or the execution provider cannot be used
  6    a run failed, or the system refused a thread, a file descriptor or memory
  7    the output or the cache cannot be written
  8    embeddings differ from the known ones (verify), or rows are wrong or failed (bench), or a corpus is
       incomplete or damaged (corpus)
  9    an address cannot be listened on (serve)
  130  interrupted";

/// Too many open files: of the process, of the system.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// Errors that only the command line has.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// A file or line that cannot be read as texts.
    #[error("{0}")]
    Input(String),
    /// Arguments that parse but do not go together.
    #[error("{0}")]
    Usage(String),
    /// A file of the model folder that only a command reads is missing.
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
    /// The system refused what the program itself needs.
    #[error(
        "{what}: {source}; raise the limit of threads (ulimit -u, or pids.max of the cgroup) or of files (ulimit -n)"
    )]
    System {
        /// What failed for it.
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
    /// An address that cannot be listened on.
    #[error("{0}")]
    Listen(String),
}

impl CliError {
    /// A file that cannot be written.
    pub(crate) fn output(path: &Path, source: std::io::Error) -> Self {
        Self::Output { what: path.display().to_string(), source }
    }

    /// A file that cannot be opened. That the process may open no more of them is not the file's fault.
    pub(crate) fn unopened(name: &str, source: std::io::Error) -> Self {
        let what = format!("{name}: cannot be opened");
        match source.raw_os_error() {
            Some(EMFILE | ENFILE) => Self::System { what, source },
            _ => Self::Input(format!("{what}: {source}")),
        }
    }

    /// A thread of the program itself, or what it waits with, that the system refused.
    #[cfg(unix)]
    pub(crate) fn no_signals(source: std::io::Error) -> Self {
        Self::System { what: "signals cannot be waited for".to_owned(), source }
    }

    /// Standard output that cannot be written.
    pub(crate) fn stdout(source: std::io::Error) -> Self {
        Self::Output { what: "standard output".to_owned(), source }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Input(_) => 3,
            Self::Model(_) => 4,
            Self::Doctor(_) => 5,
            Self::System { .. } => 6,
            Self::Output { .. } => 7,
            Self::Verify(_) => 8,
            Self::Listen(_) => 9,
        }
    }
}

/// The exit code of an interrupted program.
#[cfg(unix)]
pub(crate) const INTERRUPTED: i32 = 130;

/// Prints an error on stderr and turns the outcome into the exit code.
#[expect(clippy::print_stderr, reason = "the one line that a failed command prints is not a log message")]
pub(crate) fn report(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if reader_is_gone(&error) {
        return ExitCode::SUCCESS;
    }
    let (code, message) = if let Some(error) = error.downcast_ref::<nvembed::Error>() {
        (code(error.kind()), error.report(flag))
    } else if let Some(error) = error.downcast_ref::<CliError>() {
        (error.code(), error.to_string())
    } else if let Some(error) = error.downcast_ref::<nvembed_corpus::Error>() {
        of_corpus(error)
    } else {
        (1, format!("{error:#}"))
    };
    eprintln!("nvembed: {message}");
    ExitCode::from(code)
}

fn of_corpus(error: &nvembed_corpus::Error) -> (u8, String) {
    use nvembed_corpus::Error;
    let number = match error {
        Error::Embed(error) => return (code(error.kind()), error.report(flag)),
        Error::Option(_) => 2,
        Error::Input(_) => 3,
        Error::Output { .. } => 7,
        Error::Incomplete(_) => 8,
        _ => 1,
    };
    (number, with_flags(&error.to_string()))
}

fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Option => 2,
        ErrorKind::Input | ErrorKind::TooLong => 3,
        ErrorKind::Model => 4,
        ErrorKind::Library | ErrorKind::Provider => 5,
        ErrorKind::Inference
        | ErrorKind::Device
        | ErrorKind::Cancelled
        | ErrorKind::DeadlineExceeded
        | ErrorKind::Overloaded
        | ErrorKind::Closed
        | ErrorKind::System => 6,
        ErrorKind::Cache => 7,
        _ => 1,
    }
}

/// A closed pipe, as with `| head`, is the reader's choice and not a failure.
fn reader_is_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<CliError>(),
        Some(CliError::Output { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe)
        || matches!(error.downcast_ref::<nvembed_corpus::Error>(),
            Some(nvembed_corpus::Error::Output { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_the_program_has_the_code_of_what_it_refuses_the_library() {
        let refused = std::io::Error::from_raw_os_error;
        for (error, limit) in
            [(CliError::no_signals(refused(11)), "pids.max"), (CliError::unopened("a", refused(EMFILE)), "ulimit -n")]
        {
            assert_eq!(error.code(), code(ErrorKind::System));
            assert!(error.to_string().contains(limit), "{error}");
        }
        assert_eq!(CliError::unopened("a", refused(2)).code(), code(ErrorKind::Input));
    }

    #[test]
    fn every_kind_of_error_has_an_exit_code() {
        for &kind in ErrorKind::ALL {
            assert_ne!(code(kind), 1, "{kind:?}");
        }
    }
}
