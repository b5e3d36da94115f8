//! What a queue says of itself, for metrics and health checks.

use std::time::Duration;

use super::options::Class;

/// A snapshot of a [`Queue`](super::Queue). Counts are since it was started.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct QueueStats {
    /// Requests of which somebody waits for the answer.
    pub interactive: ClassStats,
    /// Requests for throughput.
    pub bulk: ClassStats,
    /// Rows that are running.
    pub running_rows: usize,
    /// Their tokens.
    pub running_tokens: usize,
    /// The run that has taken longest so far, if one runs.
    pub longest_run: Option<RunAge>,
    /// Runs that have ended.
    pub runs: u64,
    /// Runs that failed. One that was ended because nobody waited for its rows any more is not among them.
    pub failed_runs: u64,
    /// Rows of all runs.
    pub run_rows: u64,
    /// Tokens of all runs.
    pub run_tokens: u64,
    /// Positions that all runs computed, including padding.
    pub computed_positions: u64,
    /// Time that all runs took, summed over devices.
    pub run_time: Duration,
    /// Rows that nobody waited for any more, and that did not run.
    pub abandoned_waiting_rows: u64,
    /// Rows that nobody waited for any more while they ran.
    pub abandoned_running_rows: u64,
    /// Requests that were dropped before they ran because they could not meet their deadline.
    pub hopeless_requests: u64,
    /// Whether the queue takes no more requests.
    pub is_closed: bool,
}

/// The part of [`QueueStats`] that each class has.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct ClassStats {
    /// Rows that wait.
    pub waiting_rows: usize,
    /// Their tokens.
    pub waiting_tokens: usize,
    /// How long a short request that came now would wait before it ran.
    pub estimated_wait: Duration,
    /// Requests that were admitted.
    pub admitted_requests: u64,
    /// Their rows.
    pub admitted_rows: u64,
    /// Their tokens.
    pub admitted_tokens: u64,
    /// Requests that were refused because the queue was full, or their deadline too near.
    pub refused_requests: u64,
}

/// How long a run has taken so far.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RunAge {
    /// Since it began.
    pub elapsed: Duration,
    /// How long it was to take, as predicted from earlier runs; `None` for the first ones.
    pub expected: Option<Duration>,
}

impl QueueStats {
    pub(super) fn class(&mut self, class: Class) -> &mut ClassStats {
        match class {
            Class::Interactive => &mut self.interactive,
            Class::Bulk => &mut self.bulk,
        }
    }
}
