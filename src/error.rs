//! Errors: an opaque [`Error`] to print and an [`ErrorKind`] to decide by.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The result type of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this library.
///
/// Its text names the offending value, the limit and what to do about it; [`Error::source`](StdError::source) is the
/// underlying cause where there is one, for example an I/O error or ONNX Runtime's own message, and is not repeated in the
/// text. [`Error::report`] has both in one line. Decide by [`Error::kind`], never by the text.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    /// Options are named in backticks, which [`Error::report`] replaces.
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    retry_after: Option<Duration>,
}

/// The class of an [`Error`]. Each has its own remedy and its own [code](ErrorKind::code).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No usable ONNX Runtime library: none found, not loadable, or too old. The message lists the places searched.
    Library,
    /// The execution provider is not in the library, could not be started, or cannot run this model.
    Provider,
    /// The model folder is missing, incomplete, damaged, or of another schema version.
    Model,
    /// A prompt cannot be embedded: for example, its instruction fills the whole row and nothing is left to pool.
    Input,
    /// A prompt is longer than the limit and the truncation policy is to refuse it, or too long for the provider to hold its
    /// attention scores.
    TooLong,
    /// An option is out of range, or the provider ignores it.
    Option,
    /// ONNX Runtime failed during a run, or returned something that is not an embedding.
    Inference,
    /// The cache folder cannot be written.
    Cache,
    /// A GPU failed: out of memory, a driver error, or an error that makes the device unusable for this process. In the last
    /// case every later call on the device returns this error until the process restarts.
    Device,
    /// The caller's [`CancelToken`](crate::CancelToken) ended the call.
    Cancelled,
    /// The call's deadline passed before it finished, or will pass before it can.
    DeadlineExceeded,
    /// A [`Queue`](crate::queue::Queue) has no room for the request, or too much waits before it to meet its deadline.
    /// [`Error::retry_after`] estimates when there is room.
    Overloaded,
    /// A [`Queue`](crate::queue::Queue) was closed: it takes no more requests, or ended before this one ran.
    Closed,
    /// The system refused what the process needs: a thread, a file descriptor, memory, or /proc. The process and everything
    /// that is open stay usable; the same call may succeed later, or with a higher limit.
    System,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Library,
        Self::Provider,
        Self::Model,
        Self::Input,
        Self::TooLong,
        Self::Option,
        Self::Inference,
        Self::Cancelled,
        Self::Cache,
        Self::Device,
        Self::DeadlineExceeded,
        Self::Overloaded,
        Self::Closed,
        Self::System,
    ];

    /// The number of this kind outside of Rust, for example in the C interface. Never changed and never reused.
    pub fn code(self) -> i32 {
        match self {
            Self::Library => 1,
            Self::Provider => 2,
            Self::Model => 3,
            Self::Input => 4,
            Self::TooLong => 5,
            Self::Option => 6,
            Self::Inference => 7,
            Self::Cancelled => 8,
            Self::Cache => 9,
            Self::Device => 10,
            Self::DeadlineExceeded => 11,
            Self::Overloaded => 12,
            Self::Closed => 13,
            Self::System => 14,
        }
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None, retry_after: None }
    }

    /// The same error with its cause. One that comes from a limit of the system is of kind [`ErrorKind::System`] and says so,
    /// whatever failed for it.
    pub(crate) fn because(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = source.into();
        let (kind, message) = match refused_by_the_system(&source.to_string()) {
            Some(reason) => (ErrorKind::System, format!("{}: {reason}", self.message)),
            None => (self.kind, self.message),
        };
        Self { kind, message, source: Some(Arc::from(source)), ..self }
    }

    /// The same error, saying when another attempt may succeed.
    pub(crate) fn retry_after_about(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// The same error, naming the prompt it is about.
    pub(crate) fn of_prompt(self, index: usize) -> Self {
        Self { message: format!("prompt {index}: {}", self.message), ..self }
    }

    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// When another attempt may succeed: an estimate, with [`ErrorKind::Overloaded`] only.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The text and all of its causes in one line, with the names of options as the reader knows them.
    ///
    /// `name` gets the name of a field of [`ModelOptions`](crate::ModelOptions), [`GpuOptions`](crate::gpu::GpuOptions) or
    /// [`EmbedOptions`](crate::EmbedOptions) and returns what a program calls it, for example a flag of its command line.
    ///
    /// ```
    /// # use nvembed::{Embedder, ModelOptions};
    /// let mut options = ModelOptions::default();
    /// options.low_memory = true;
    /// let error = Embedder::open("no/such/model", &options).unwrap_err();
    /// eprintln!("{}", error.report(|name| format!("--{}", name.replace('_', "-"))));
    /// ```
    pub fn report(&self, name: impl Fn(&str) -> String) -> String {
        let mut text = self.renamed(&name);
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            match error.downcast_ref::<Self>() {
                Some(error) => text.push_str(&error.renamed(&name)),
                None => text.push_str(&error.to_string()),
            }
            cause = error.source();
        }
        text
    }

    /// The text with the names of options as the reader knows them.
    fn renamed(&self, name: &impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        let mut rest = self.message.as_str();
        while let Some((before, after)) = rest.split_once('`') {
            text.push_str(before);
            let end = after.find(|letter: char| !matches!(letter, 'a'..='z' | '0'..='9' | '_')).unwrap_or(after.len());
            match after[end..].strip_prefix('`') {
                Some(behind) if end > 0 => {
                    text.push_str(&name(&after[..end]));
                    rest = behind;
                }
                // Other code in backticks, such as a command, stays as it is.
                _ => {
                    text.push('`');
                    rest = after;
                }
            }
        }
        text.push_str(rest);
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// What the system refused and what to do, if a cause is of that kind: by the words of the C library, which ONNX Runtime passes
/// on.
pub(crate) fn refused_by_the_system(cause: &str) -> Option<&'static str> {
    const KNOWN: [(&[&str], &str); 4] = [
        (&["Too many open files"], "the process may open no more files; raise its limit (ulimit -n)"),
        (
            &["pthread_create failed", "Resource temporarily unavailable"],
            "no more threads can be made; raise the limit (ulimit -u, or pids.max of the cgroup), or set `intra_threads` to 1",
        ),
        (&["Cannot allocate memory", "std::bad_alloc"], "the process gets no more memory"),
        (&["/proc is mounted", "/proc mounted"], "ONNX Runtime reads a model's weights by way of /proc; mount it"),
    ];
    let is_of = |words: &[&str]| words.iter().any(|words| cause.contains(words));
    KNOWN.iter().find(|(words, _)| is_of(words)).map(|(_, reason)| *reason)
}

/// # Errors
/// [`ErrorKind::Option`] when the value is outside of `low` to `high`.
pub(crate) fn in_range(name: &str, value: usize, low: usize, high: usize) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Option, format!("{name} must be {low} to {high}, got {value}")))
}

/// The value with that name.
///
/// # Errors
/// [`ErrorKind::Option`] listing the names there are.
pub(crate) fn by_name<T: Copy>(
    option: &str,
    wanted: &str,
    values: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T> {
    values.iter().copied().find(|value| name(*value) == wanted).ok_or_else(|| {
        let names = values.iter().map(|value| name(*value)).collect::<Vec<_>>().join(", ");
        Error::new(ErrorKind::Option, format!("`{option}` must be one of {names}, got {wanted:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_the_causes_and_the_readers_names_of_options() {
        let io = std::io::Error::other("disk on fire");
        let error = Error::new(ErrorKind::Cache, "`tf32` or `max_length` is off; run `pip install x`").because(io);
        assert_eq!(error.to_string(), "`tf32` or `max_length` is off; run `pip install x`");
        assert_eq!(error.source().unwrap().to_string(), "disk on fire");
        let flag = |name: &str| format!("--{}", name.replace('_', "-"));
        let report = "--tf32 or --max-length is off; run `pip install x`: disk on fire";
        assert_eq!(error.report(flag), report);
        // A cause may be an error of this library itself.
        let outer = Error::new(ErrorKind::Device, "a GPU failed").because(error);
        assert_eq!(outer.report(flag), format!("a GPU failed: {report}"));
    }

    #[test]
    fn what_the_system_refuses_is_an_error_of_its_own_kind_whatever_failed_for_it() {
        let os = |code| std::io::Error::from_raw_os_error(code).to_string();
        let (files, threads, memory) = (os(24), os(11), os(12));
        // ONNX Runtime 1.32's words.
        let ort = "env.cc:327 pthread_create failed, error code: 11 error msg: Resource temporarily unavailable";
        let proc =
            "Secure opened-file canonicalization requires procfs at /proc/self/fd/8. Ensure /proc is mounted in the";
        for (cause, reason) in [
            (&*files, "ulimit -n"),
            (&threads, "`intra_threads` to 1"),
            (ort, "pids.max"),
            (&memory, "no more memory"),
            (proc, "mount it"),
        ] {
            let error = Error::new(ErrorKind::Model, "a cannot be read").because(cause.to_owned());
            assert_eq!(error.kind(), ErrorKind::System, "{cause}");
            assert!(error.to_string().starts_with("a cannot be read: ") && error.to_string().contains(reason));
            assert_eq!(error.source().unwrap().to_string(), cause);
        }
        let other = Error::new(ErrorKind::Model, "a").because(os(2));
        assert_eq!((other.kind(), other.to_string()), (ErrorKind::Model, "a".to_owned()));
    }

    #[test]
    fn every_kind_has_a_code_of_its_own() {
        let codes: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes, (1..=14).collect::<Vec<_>>());
    }
}
