//! Which requests may wait: those for which there is room, and time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Engine, Run, State, closed};
use crate::error::{Error, ErrorKind, Result};
use crate::options::deadline_passed;
use crate::queue::options::Class;
use crate::queue::request::Request;

/// The least that [`Error::retry_after`] says.
const LEAST_WAIT: Duration = Duration::from_millis(10);

impl Engine {
    /// Lets a request wait, and returns its number.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`]; [`ErrorKind::Overloaded`] when there is no room, or too much waits before it to meet its deadline;
    /// [`ErrorKind::DeadlineExceeded`] when it could not meet it alone; [`ErrorKind::Option`] when it could never be admitted.
    pub(in crate::queue) fn admit(&self, request: &Arc<Request>) -> Result<u64> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.is_closed {
            return Err(closed());
        }
        if let Err(error) = self.check_room(&state, request, now) {
            if error.kind() == ErrorKind::Overloaded {
                state.counts.class(request.class).refused_requests += 1;
            }
            return Err(error);
        }
        state.next += 1;
        let id = state.next;
        let lengths: Vec<usize> = request.encodings.iter().map(|encoding| encoding.ids().len()).collect();
        let deadline = request.deadline.map(|deadline| self.since_start(deadline));
        let fit = state.fit;
        state.schedule.add(id, request.class, &lengths, deadline, self.since_start(now), &fit);
        state.requests.insert(id, Arc::clone(request));
        let counts = state.counts.class(request.class);
        counts.admitted_requests += 1;
        counts.admitted_rows += lengths.len() as u64;
        counts.admitted_tokens += request.tokens as u64;
        drop(state);
        self.work.notify_all();
        Ok(id)
    }

    fn check_room(&self, state: &State, request: &Request, now: Instant) -> Result<()> {
        let (tokens, class) = (request.tokens, request.class);
        // A tenth is kept for those who wait.
        let room = if class == Class::Bulk { self.max_tokens - self.max_tokens / 10 } else { self.max_tokens };
        if tokens > room {
            let message = format!(
                "the request has {tokens} tokens, of which a queue of {} (`max_tokens`) admits {room} at a time; submit fewer \
                 prompts, or open the queue with a larger `max_tokens`",
                self.max_tokens
            );
            return Err(Error::new(ErrorKind::Option, message));
        }
        let (interactive, bulk) = state.schedule.tokens();
        let busy = interactive + bulk + state.running_tokens();
        if busy + tokens > room {
            let wait = self.work(state, busy + tokens - room).max(LEAST_WAIT);
            let message = format!(
                "the queue is full: {busy} tokens wait or run, and {tokens} more are beyond the limit of {room} (`max_tokens`); \
                 try again in about {wait:.1?}"
            );
            return Err(Error::new(ErrorKind::Overloaded, message).retry_after_about(wait));
        }
        let Some(deadline) = request.deadline else { return Ok(()) };
        let left = deadline.saturating_duration_since(now);
        let alone = self.work(state, tokens);
        if left.is_zero() || alone > left {
            return Err(deadline_passed());
        }
        let before = self.estimate(state, class, now);
        if before + alone > left {
            let wait = (before + alone - left).max(LEAST_WAIT);
            let message = format!(
                "the request would end in about {:.1?}, and its deadline is in {left:.1?}; try again in about {wait:.1?}, or \
                 with a later `deadline`",
                before + alone
            );
            return Err(Error::new(ErrorKind::Overloaded, message).retry_after_about(wait));
        }
        Ok(())
    }

    /// How long all devices together take for so many tokens.
    fn work(&self, state: &State, tokens: usize) -> Duration {
        state.fit.work(tokens).div_f64(self.devices as f64)
    }

    /// How long a short request of a class that comes now waits before it runs.
    pub(super) fn estimate(&self, state: &State, class: Class, now: Instant) -> Duration {
        let left = |run: &Run| {
            let elapsed = now.saturating_duration_since(run.began);
            run.expected.unwrap_or_default().saturating_sub(elapsed)
        };
        let running: Duration = state.runs.values().map(left).sum();
        let (interactive, bulk) = state.schedule.tokens();
        let tokens = if class == Class::Bulk { interactive + bulk } else { interactive };
        running.div_f64(self.devices as f64) + self.work(state, tokens)
    }
}
