//! The library's errors as Python's exceptions.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// The Python exception of the error's kind, with its message, code and wait. `nvembed.errors` has the classes.
pub(crate) fn to_python(py: Python<'_>, error: &nvembed::Error) -> PyErr {
    let message = error.report(|option| format!("`{option}`"));
    let (kind, wait) = (format!("{:?}", error.kind()), error.retry_after().map(|wait| wait.as_secs_f64()));
    make(py, &kind, &message, wait)
}

/// A wrong argument, as the library would say it.
pub(crate) fn option(py: Python<'_>, message: &str) -> PyErr {
    make(py, &format!("{:?}", nvembed::ErrorKind::Option), message, None)
}

fn make(py: Python<'_>, kind: &str, message: &str, wait: Option<f64>) -> PyErr {
    static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let made =
        MAKE.import(py, "nvembed.errors", "make").and_then(|make: &Bound<'_, PyAny>| make.call1((kind, message, wait)));
    made.map_or_else(|error| error, PyErr::from_value)
}

/// A number of seconds that a caller waits at most.
///
/// # Errors
/// When it is no time.
pub(crate) fn seconds(py: Python<'_>, name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| option(py, &format!("`{name}` is {value}, which is no time to wait; give seconds, 0 or more")))
}
