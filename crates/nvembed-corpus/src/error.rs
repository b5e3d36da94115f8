//! What can go wrong with a corpus, by who has to do something about it.

use std::path::Path;

use parquet::errors::ParquetError;

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a corpus job. Options are named in backticks; no text of the corpus is in a message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An input file or a record that cannot be embedded.
    #[error("{0}")]
    Input(String),
    /// Options that do not go together, or differ from those that the corpus was begun with.
    #[error("{0}")]
    Option(String),
    /// Something that cannot be written.
    #[error("{what} cannot be written: {source}")]
    Output {
        /// The file or folder.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A corpus that is incomplete, or damaged.
    #[error("{0}")]
    Incomplete(String),
    /// The model or a run of it.
    #[error(transparent)]
    Embed(#[from] nvembed::Error),
}

impl Error {
    pub(crate) fn output(path: &Path, source: std::io::Error) -> Self {
        Self::Output { what: path.display().to_string(), source }
    }

    /// A failure of the Parquet writer, which is one of the file beneath it.
    pub(crate) fn parquet_output(path: &Path, error: ParquetError) -> Self {
        let source = match error {
            ParquetError::External(error) => match error.downcast::<std::io::Error>() {
                Ok(error) => *error,
                Err(error) => std::io::Error::other(error),
            },
            other => std::io::Error::other(other),
        };
        Self::output(path, source)
    }

    pub(crate) fn input(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Input(format!("{}: {reason}", path.display()))
    }
}
