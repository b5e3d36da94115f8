//! What can go wrong, in two parts: an opaque [`Error`] to read and an [`ErrorKind`] to decide by.

use std::fmt;

/// The result of this library's calls.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this library.
///
/// Its message names the offending value and the limit, and the underlying cause where there is one. Decide by
/// [`Error::kind`], never by the text.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// The classes of errors; each has its own remedy, and its own exit code in the command line program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No usable ONNX Runtime library: none found, not loadable, or too old. The message lists where it was looked for.
    Library,
    /// The execution provider asked for is not in the library, or could not be started.
    Provider,
    /// The model folder is missing, incomplete, damaged, or of another schema version.
    Model,
    /// A prompt cannot be embedded: for example, its instruction fills the whole row and nothing is left to pool.
    Input,
    /// A prompt is longer than the limit and the truncation policy forbids to cut it, or so long that the provider could
    /// not hold its attention scores.
    TooLong,
    /// An option is out of its range.
    Option,
    /// ONNX Runtime failed during a run, or returned something that is not an embedding.
    Inference,
    /// What was to be kept for later cannot be written: the cache folder, or the disk.
    Cache,
    /// A GPU failed: out of memory, an error of the driver, or one that makes the device useless for this process. The
    /// message says which. After the last kind every call on the device returns this error; open the model anew, or
    /// start the process anew.
    Device,
    /// The caller's [`CancelToken`](crate::CancelToken) ended the call.
    Cancelled,
    /// The call's deadline passed before it was done.
    DeadlineExceeded,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The same error, with the number of the prompt it is about in front.
    pub(crate) fn of_prompt(self, index: usize) -> Self {
        Self { kind: self.kind, message: format!("prompt {index}: {}", self.message) }
    }

    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
