//! Calls that end early: cancelled from another thread, or past their deadline.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ort::session::RunOptions;

use crate::error::{Error, ErrorKind, Result};

/// Cancels the calls it was given to, from any thread; see [`EmbedOptions::cancel`](crate::EmbedOptions::cancel).
///
/// Clones are the same token. A cancelled token stays cancelled: a call that gets it later ends at once. A call checks the
/// token before it tokenizes each prompt and each piece of a long one, before each run of the graph and, during a run, between two
/// nodes of the graph (OpenVINO has only one node). A call that waits for another call's run checks when its turn comes.
///
/// ```
/// let token = nvembed::CancelToken::new();
/// let same_token = token.clone();
/// token.cancel();
/// assert!(same_token.is_cancelled());
/// ```
#[derive(Clone, Default)]
pub struct CancelToken {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    is_cancelled: bool,
    runs: Vec<Arc<RunOptions>>,
    /// Who is told, by number.
    watches: Vec<(u64, Tell)>,
    next_watch: u64,
}

type Tell = Arc<dyn Fn() + Send + Sync>;

/// Something that is told once when the token is cancelled, for as long as this value lives.
pub(crate) struct Watch {
    token: CancelToken,
    number: u64,
}

/// A run of the graph that the token can stop for as long as this value lives.
pub(crate) struct StoppableRun<'t> {
    token: &'t CancelToken,
    options: Arc<RunOptions>,
}

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the calls that have this token with [`ErrorKind::Cancelled`]. Returns at once; the calls end a little later.
    pub fn cancel(&self) {
        let mut state = self.lock();
        state.is_cancelled = true;
        for run in &state.runs {
            if let Err(error) = run.terminate() {
                tracing::warn!(%error, "failed to stop a run; its call ends when the run ends");
            }
        }
        let watches = std::mem::take(&mut state.watches);
        // They take other locks, which are held where a watch of this token is dropped.
        drop(state);
        for (_, tell) in watches {
            tell();
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

    /// Registers a run that is about to start with these options.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`] when the token is already cancelled.
    pub(crate) fn start_run(&self, options: RunOptions) -> Result<StoppableRun<'_>> {
        let options = Arc::new(options);
        let mut state = self.lock();
        if state.is_cancelled {
            return Err(cancelled());
        }
        state.runs.push(Arc::clone(&options));
        Ok(StoppableRun { token: self, options })
    }

    /// Calls `tell` when the token is cancelled, on the thread that cancels it.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`] when the token is already cancelled.
    pub(crate) fn watch(&self, tell: impl Fn() + Send + Sync + 'static) -> Result<Watch> {
        let mut state = self.lock();
        if state.is_cancelled {
            return Err(cancelled());
        }
        let number = state.next_watch;
        state.next_watch += 1;
        state.watches.push((number, Arc::new(tell)));
        Ok(Watch { token: self.clone(), number })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        f.debug_struct("CancelToken")
            .field("is_cancelled", &state.is_cancelled)
            .field("runs", &state.runs.len())
            .finish()
    }
}

impl StoppableRun<'_> {
    pub(crate) fn options(&self) -> &RunOptions {
        &self.options
    }
}

impl Drop for StoppableRun<'_> {
    fn drop(&mut self) {
        self.token.lock().runs.retain(|run| !Arc::ptr_eq(run, &self.options));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.token.lock();
        let place = state.watches.iter().position(|(number, _)| *number == self.number);
        let watch = place.map(|place| state.watches.swap_remove(place));
        drop(state);
        // What it holds is freed without the lock.
        drop(watch);
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("number", &self.number).finish_non_exhaustive()
    }
}

pub(crate) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the call was cancelled")
}

/// What ends a call before it is done.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancel: Option<CancelToken>,
}

impl Stop {
    /// # Errors
    /// [`ErrorKind::Cancelled`] or [`ErrorKind::DeadlineExceeded`].
    pub(crate) fn check(&self) -> Result<()> {
        self.cancel.as_ref().map_or(Ok(()), CancelToken::check)?;
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(deadline_passed());
        }
        Ok(())
    }
}

pub(crate) fn deadline_passed() -> Error {
    Error::new(ErrorKind::DeadlineExceeded, "the call's deadline passed before it finished")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_told_once_and_not_after_it_was_dropped() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let (token, told) = (CancelToken::new(), Arc::new(AtomicUsize::new(0)));
        let tell = |by: usize| {
            let told = Arc::clone(&told);
            move || {
                told.fetch_add(by, Ordering::Relaxed);
            }
        };
        let kept = token.watch(tell(1)).unwrap();
        drop(token.watch(tell(10)).unwrap());
        token.cancel();
        token.cancel();
        assert_eq!(told.load(Ordering::Relaxed), 1);
        drop(kept);
        assert_eq!(token.watch(tell(1)).unwrap_err().kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn cancellation_comes_before_the_deadline() {
        let token = CancelToken::new();
        let late = Some(Instant::now());
        let stop = Stop { deadline: late, cancel: Some(token.clone()) };
        assert_eq!(stop.check().unwrap_err().kind(), ErrorKind::DeadlineExceeded);
        token.cancel();
        assert_eq!(stop.check().unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(Stop::default().check().is_ok());
    }
}
