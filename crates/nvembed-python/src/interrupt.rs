//! Calls that Ctrl-C ends.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{Builder, scope};
use std::time::Duration;

use nvembed::{CancelToken, Error};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;

use crate::errors::to_python;

/// How often a call looks for signals. Python runs their handlers only when the main thread asks.
const PERIOD: Duration = Duration::from_millis(50);

/// Runs `work` on a thread of its own without Python's lock. When a signal's handler raises, as that of Ctrl-C does, the work is
/// cancelled, and the exception raised once it has ended.
pub(crate) fn interruptible<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(CancelToken) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let cancel = CancelToken::new();
    let (tell, mut told) = channel();
    scope(|threads| {
        let token = cancel.clone();
        let thread = Builder::new().name("nvembed-python".to_owned());
        thread
            .spawn_scoped(threads, move || tell.send(work(token)))
            .map_err(|error| PyOSError::new_err(format!("the call's thread could not be started: {error}")))?;
        let mut raised = None;
        loop {
            let (message, back) = py.detach(move || (told.recv_timeout(PERIOD), told));
            told = back;
            match message {
                Ok(result) => return raised.map_or_else(|| result.map_err(|error| to_python(py, &error)), Err),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(PyRuntimeError::new_err("a call panicked, which is a bug in nvembed"));
                }
                Err(RecvTimeoutError::Timeout) if raised.is_none() => {
                    if let Err(signal) = py.check_signals() {
                        cancel.cancel();
                        raised = Some(signal);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    })
}
