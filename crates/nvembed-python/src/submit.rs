//! Requests in the queue, and the thread that tells Python of their results.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

use nvembed::queue::Ticket;
use nvembed::{Embeddings, Result};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::errors::to_python;
use crate::rows;

/// A result, and whom to tell.
type Done = (Py<PyAny>, Result<Embeddings>);

/// The thread that calls back. The queue's own must not: it would wait for Python's lock while a device waits for it.
pub(crate) struct Delivery {
    sender: Sender<Done>,
}

impl Delivery {
    /// Starts the thread. It ends when all senders are gone.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start() -> PyResult<Self> {
        let (sender, receiver) = channel::<Done>();
        let deliver = move || {
            while let Ok((on_done, result)) = receiver.recv() {
                // Python that is shutting down has nobody to tell.
                Python::try_attach(|py| {
                    let (embeddings, error) = match result {
                        Ok(embeddings) => match rows::to_python(py, embeddings) {
                            Ok(rows) => (Some(rows), None),
                            Err(error) => (None, Some(error)),
                        },
                        Err(error) => (None, Some(to_python(py, &error))),
                    };
                    if let Err(error) = on_done.call1(py, (embeddings, error)) {
                        error.write_unraisable(py, Some(on_done.bind(py)));
                    }
                    drop(on_done);
                });
            }
        };
        let thread = Builder::new().name("nvembed-deliver".to_owned()).spawn(deliver);
        thread.map_err(|error| PyOSError::new_err(format!("a thread could not be started: {error}")))?;
        Ok(Self { sender })
    }

    pub(crate) fn sender(&self) -> Sender<Done> {
        self.sender.clone()
    }
}

/// A request in the queue. `cancel`, or forgetting it, gives up its rows.
#[pyclass(frozen, module = "nvembed._nvembed")]
pub(crate) struct Pending {
    request: Mutex<Option<nvembed::queue::Pending>>,
}

impl Pending {
    pub(crate) fn new(ticket: Ticket, sender: Sender<Done>, on_done: Py<PyAny>) -> Self {
        // The receiver goes on as long as a sender is there.
        let pending = ticket.on_done(move |result| drop(sender.send((on_done, result))));
        Self { request: Mutex::new(Some(pending)) }
    }
}

#[pymethods]
impl Pending {
    /// Gives up the rows of the request; `on_done` is then called with an error, if it was not called yet.
    fn cancel(&self, py: Python<'_>) {
        let request = self.request.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(request));
    }
}
