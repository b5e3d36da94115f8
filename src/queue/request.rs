//! A request that was admitted: its rows, its result, and who waits for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::options::Class;
use crate::embeddings::{Embeddings, Form, Rows, Stats};
use crate::error::{Error, Result};
use crate::options::Watch;
use crate::tokenize::Encoding;

/// Called once, with the result.
pub(super) type OnDone = Box<dyn FnOnce(Result<Embeddings>) + Send>;

/// A request that was admitted.
pub(super) struct Request {
    pub(super) class: Class,
    pub(super) encodings: Vec<Encoding>,
    pub(super) tokens: usize,
    pub(super) deadline: Option<Instant>,
    start: Instant,
    progress: Mutex<Progress>,
    done: Condvar,
}

struct Progress {
    /// `None` once the request is over.
    open: Option<Open>,
    /// Until somebody takes it.
    result: Option<Result<Embeddings>>,
    waker: Option<Waker>,
    on_done: Option<OnDone>,
    /// Ends with the request.
    watch: Option<Watch>,
}

struct Open {
    embeddings: Embeddings,
    rows_left: usize,
    stats: Stats,
}

/// The part of a run that belongs to one request.
pub(super) struct Part {
    /// Which row of the run is which row of the request.
    pub(super) places: Vec<(usize, usize)>,
    pub(super) computed: usize,
    pub(super) began: Instant,
    pub(super) time: Duration,
}

impl Request {
    pub(super) fn new(
        class: Class,
        encodings: Vec<Encoding>,
        form: Form,
        deadline: Option<Instant>,
        start: Instant,
    ) -> Self {
        let mut embeddings = Embeddings::new(encodings.len(), form);
        for (row, encoding) in encodings.iter().enumerate() {
            embeddings.set_info(row, encoding.ids().len(), encoding.truncated());
        }
        let tokens = embeddings.token_counts().iter().sum();
        let stats = Stats { tokens, ..Stats::default() };
        let open = Open { embeddings, rows_left: encodings.len(), stats };
        let progress = Progress { open: Some(open), result: None, waker: None, on_done: None, watch: None };
        Self { class, encodings, tokens, deadline, start, progress: Mutex::new(progress), done: Condvar::new() }
    }

    /// Takes rows from a run's output. With its last row, or with an error, the request is over: this returns the result that
    /// [`Request::tell`] is to be called with.
    pub(super) fn place(&self, part: &Part, output: &Result<Rows>) -> Option<Result<Embeddings>> {
        let mut progress = self.lock();
        let open = progress.open.as_mut()?;
        let placed = match output {
            Ok(output) => open.embeddings.set(part.places.iter().copied(), output),
            Err(error) => Err(error.clone()),
        };
        if open.stats.batches == 0 {
            open.stats.queue_time = part.began.saturating_duration_since(self.start);
        }
        open.stats.batches += 1;
        open.stats.padded_tokens += part.computed;
        open.stats.session_time += part.time;
        open.rows_left -= part.places.len();
        if placed.is_ok() && open.rows_left > 0 {
            return None;
        }
        let Open { mut embeddings, mut stats, .. } = progress.open.take()?;
        Some(placed.map(|()| {
            stats.total_time = self.start.elapsed();
            embeddings.set_stats(stats);
            embeddings
        }))
    }

    /// Ends the request now with an error, unless it is over.
    pub(super) fn end(&self, error: Error) {
        if self.lock().open.take().is_some() {
            self.tell(Err(error));
        }
    }

    /// The result of a request without rows.
    pub(super) fn end_empty(&self) {
        let open = self.lock().open.take();
        if let Some(Open { embeddings, .. }) = open {
            self.tell(Ok(embeddings));
        }
    }

    /// Gives the result to who waits for it. Called once, by who took [`Progress::open`].
    pub(super) fn tell(&self, result: Result<Embeddings>) {
        let mut progress = self.lock();
        let (waker, on_done, watch) = (progress.waker.take(), progress.on_done.take(), progress.watch.take());
        let result = match on_done {
            Some(on_done) => Some((on_done, result)),
            None => {
                progress.result = Some(result);
                None
            }
        };
        drop(progress);
        self.done.notify_all();
        // The code of others runs without the lock.
        drop(watch);
        if let Some((on_done, result)) = result {
            call(on_done, result);
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Keeps what watches for a cancellation until the request is over.
    pub(super) fn keep(&self, watch: Watch) {
        let mut progress = self.lock();
        if progress.open.is_some() {
            progress.watch = Some(watch);
        }
    }

    /// Calls `on_done` with the result, on the thread that ends the request, or now.
    pub(super) fn on_done(&self, on_done: OnDone) {
        let mut progress = self.lock();
        match progress.result.take() {
            Some(result) => {
                drop(progress);
                call(on_done, result);
            }
            None => progress.on_done = Some(on_done),
        }
    }

    /// The result, or `None` when it is not there at `until`.
    pub(super) fn wait(&self, until: Option<Instant>) -> Option<Result<Embeddings>> {
        let mut progress = self.lock();
        loop {
            if let Some(result) = progress.result.take() {
                return Some(result);
            }
            progress = match until {
                None => self.done.wait(progress).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
                    self.done.wait_timeout(progress, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<Result<Embeddings>> {
        let mut progress = self.lock();
        match progress.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                progress.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The caller's code must not end the queue's thread.
fn call(on_done: OnDone, result: Result<Embeddings>) {
    if catch_unwind(AssertUnwindSafe(|| on_done(result))).is_err() {
        tracing::error!("a callback of a queue's request panicked");
    }
}
