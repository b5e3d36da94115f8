//! Calls that end early: stopped from another thread, or out of time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ort::session::RunOptions;

use crate::error::{Error, ErrorKind, Result};
use crate::options::EncodeOptions;

/// Stops the calls it was given to, from any thread; see [`EncodeOptions::cancel`](crate::EncodeOptions::cancel).
///
/// Clones are the same token. Once cancelled it stays so: a call that gets it later ends at once. A call notices before
/// it tokenizes, before each run of the graph, and, in a run, between two nodes of the graph, of which OpenVINO has only
/// one. A call that waits for another call's run notices when it is its turn.
///
/// ```
/// let token = nvembed::CancelToken::new();
/// let of_the_call = token.clone();
/// token.cancel();
/// assert!(of_the_call.is_cancelled());
/// ```
#[derive(Clone, Default)]
pub struct CancelToken {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    is_cancelled: bool,
    runs: Vec<Arc<RunOptions>>,
}

/// A run of the graph that the token can stop, for as long as this lives.
pub(crate) struct Run<'t> {
    token: &'t CancelToken,
    options: Arc<RunOptions>,
}

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the calls that have this token, with [`ErrorKind::Cancelled`]. Returns at once; they end a little later.
    pub fn cancel(&self) {
        let mut state = self.lock();
        state.is_cancelled = true;
        for run in &state.runs {
            if let Err(error) = run.terminate() {
                tracing::warn!(%error, "a run could not be told to stop, its call ends after it");
            }
        }
    }

    /// Whether [`CancelToken::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.lock().is_cancelled
    }

    /// # Errors
    /// [`ErrorKind::Cancelled`] when it is.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    /// Registers a run with these options that is about to start.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`] when the token is cancelled already.
    pub(crate) fn start_run(&self, options: RunOptions) -> Result<Run<'_>> {
        let options = Arc::new(options);
        let mut state = self.lock();
        if state.is_cancelled {
            return Err(cancelled());
        }
        state.runs.push(Arc::clone(&options));
        Ok(Run { token: self, options })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelToken").field("is_cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}

impl Run<'_> {
    pub(crate) fn options(&self) -> &RunOptions {
        &self.options
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.token.lock().runs.retain(|run| !Arc::ptr_eq(run, &self.options));
    }
}

fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the call was cancelled")
}

/// When a call has to end before it is done.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patience {
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancel: Option<CancelToken>,
}

impl Patience {
    pub(crate) fn of(options: &EncodeOptions) -> Self {
        Self { deadline: options.deadline, cancel: options.cancel.clone() }
    }

    /// # Errors
    /// [`ErrorKind::Cancelled`] or [`ErrorKind::DeadlineExceeded`].
    pub(crate) fn check(&self) -> Result<()> {
        self.cancel.as_ref().map_or(Ok(()), CancelToken::check)?;
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Error::new(ErrorKind::DeadlineExceeded, "the deadline of the call passed before it was done"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Embedder, EncodeOptions, LoadOptions, Prompt};

    #[test]
    fn a_run_in_flight_is_stopped_and_forgotten() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/build/models/nv-embed-mini-fp32");
        let embedder = Embedder::open(folder, &LoadOptions::default()).unwrap();
        let cancel = CancelToken::new();
        // One run, of seconds: were it not stopped, the call would succeed.
        let (max_batch_tokens, max_batch_size) = (Some(1 << 20), 8192);
        let options = EncodeOptions {
            max_batch_tokens,
            max_batch_size,
            cancel: Some(cancel.clone()),
            ..EncodeOptions::default()
        };
        let text = "rain falls on the plain ".repeat(16);
        let prompts = vec![Prompt::passage(text.as_str()); 1000];
        let outcome = std::thread::scope(|scope| {
            let call = scope.spawn(|| embedder.embed(&prompts, &options));
            while cancel.lock().runs.is_empty() && !call.is_finished() {
                std::thread::yield_now();
            }
            cancel.cancel();
            call.join().unwrap()
        });
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(cancel.lock().runs.is_empty());
        let again = EncodeOptions { cancel: None, ..options };
        assert!(embedder.embed(&prompts[..1], &again).is_ok(), "the session is whole after a stopped run");
    }
}
