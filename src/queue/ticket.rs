//! What a caller holds while a request waits and runs.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::request::Request;
use crate::embeddings::Embeddings;
use crate::error::Result;
use crate::options::{cancelled, deadline_passed};

/// A request in a [`Queue`](super::Queue). It is a [`Future`] of the embeddings, for any async runtime, and can be waited for by
/// a thread.
///
/// Dropping it abandons the request: its rows that wait do not run, and a run ends early if nobody wants any of its rows.
#[must_use = "dropping a ticket abandons the request"]
pub struct Ticket {
    request: Arc<Request>,
    place: Place,
}

/// A request whose result goes to a callback. Dropping it abandons the request, and the callback gets
/// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
#[must_use = "dropping it abandons the request"]
pub struct Pending {
    place: Place,
}

/// Where the request is in the queue; abandons it.
struct Place {
    engine: Weak<Engine>,
    /// `None` for a request without rows, and once it is over.
    id: Option<u64>,
}

impl Ticket {
    pub(super) fn new(engine: &Arc<Engine>, id: Option<u64>, request: Arc<Request>) -> Self {
        Self { request, place: Place { engine: Arc::downgrade(engine), id } }
    }

    /// Waits for the embeddings: row i belongs to prompt i.
    ///
    /// # Errors
    /// Those of a run; [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded) at the request's deadline, whatever the
    /// device does; [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) by its token;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) when the queue ended before it was done.
    pub fn wait(mut self) -> Result<Embeddings> {
        let result = self.request.wait(self.request.deadline);
        let result = result.unwrap_or_else(|| {
            self.place.abandon(deadline_passed());
            // It may have been done in the meantime.
            self.request.wait(None).unwrap_or_else(|| Err(deadline_passed()))
        });
        self.place.id = None;
        result
    }

    /// Waits for the embeddings, but not longer than `timeout`.
    ///
    /// # Errors
    /// The ticket itself if they are not there by then: the request goes on. The inner errors are those of [`Ticket::wait`],
    /// except that the request's deadline is not waited for.
    pub fn wait_for(mut self, timeout: Duration) -> std::result::Result<Result<Embeddings>, Self> {
        // A moment that the clock cannot represent is never reached.
        match self.request.wait(Instant::now().checked_add(timeout)) {
            Some(result) => {
                self.place.id = None;
                Ok(result)
            }
            None => Err(self),
        }
    }

    /// Lets `on_done` be called once with the result, on the thread that ends the request: it must not block, since a device
    /// waits for it. If the request is already over, it is called now.
    pub fn on_done(mut self, on_done: impl FnOnce(Result<Embeddings>) + Send + 'static) -> Pending {
        self.request.on_done(Box::new(on_done));
        Pending { place: Place { engine: Weak::clone(&self.place.engine), id: self.place.id.take() } }
    }

    /// The number of prompts.
    pub fn rows(&self) -> usize {
        self.request.encodings.len()
    }

    /// Their token ids, including `<s>` and the instructions.
    pub fn tokens(&self) -> usize {
        self.request.tokens
    }
}

impl Future for Ticket {
    type Output = Result<Embeddings>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = self.request.poll(context);
        if result.is_ready() {
            self.place.id = None;
        }
        result
    }
}

impl Pending {
    /// Lets the request go on without anybody who could abandon it.
    pub fn detach(mut self) {
        self.place.id = None;
    }
}

impl Place {
    fn abandon(&mut self, error: crate::error::Error) {
        if let (Some(id), Some(engine)) = (self.id.take(), self.engine.upgrade()) {
            engine.end(id, error);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.abandon(cancelled());
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("rows", &self.rows()).field("tokens", &self.tokens()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("is_over", &self.place.id.is_none()).finish_non_exhaustive()
    }
}
