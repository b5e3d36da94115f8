//! The state that callers and devices share, and the threads that run rows.
//!
//! There are two kinds of locks. That of the state is held to admit, to pull and to account, never during a run or a
//! caller's code. Each request has its own for its result. The two are never held together.

mod admission;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fit::Fit;
use super::options::{Class, QueueOptions};
use super::request::{Part, Request};
use super::schedule::{Device, Row, Schedule, shape_of};
use super::stats::{QueueStats, RunAge};
use crate::batch::{BATCH_TOKENS_ON_CPU, Batch, Shape};
use crate::embedder::Embedder;
use crate::embeddings::Rows;
use crate::error::{Error, ErrorKind, Result};
use crate::execution::{Arena, Executor, Submitted};
use crate::options::{CancelToken, EmbedOptions, Stop, deadline_passed};

/// The default of [`QueueOptions::max_run`].
const MAX_RUN_ON_CPU: Duration = Duration::from_millis(250);
const MAX_RUN_ON_GPU: Duration = Duration::from_millis(25);

pub(in crate::queue) struct Engine {
    pub(in crate::queue) embedder: Arc<Embedder>,
    pub(in crate::queue) limits: EmbedOptions,
    max_tokens: usize,
    devices: usize,
    start: Instant,
    state: Mutex<State>,
    /// There is something to run, or the threads are to end.
    work: Condvar,
    /// Nothing waits or runs.
    idle: Condvar,
}

struct State {
    schedule: Schedule,
    fit: Fit,
    requests: HashMap<u64, Arc<Request>>,
    runs: HashMap<u64, Run>,
    next: u64,
    is_closed: bool,
    is_over: bool,
    counts: QueueStats,
}

/// Rows that are running.
struct Run {
    rows: Vec<Row>,
    cancel: CancelToken,
    began: Instant,
    expected: Option<Duration>,
}

/// What a device thread takes along while it runs rows.
struct Job {
    number: u64,
    rows: Vec<Row>,
    requests: HashMap<u64, Arc<Request>>,
    cancel: CancelToken,
    began: Instant,
    /// How many runs share a device with this one, itself included: it takes as many times as long.
    sharing: f64,
}

impl Device for (&Executor, &EmbedOptions) {
    fn fits(&self, shape: Shape) -> bool {
        self.0.fits(shape, self.1)
    }

    fn cost(&self, shape: Shape) -> usize {
        self.0.cost(shape)
    }

    fn run_cost(&self) -> usize {
        self.0.run_cost()
    }
}

impl Engine {
    pub(in crate::queue) fn new(embedder: Arc<Embedder>, options: &QueueOptions) -> Self {
        let depth = embedder.pipeline.executor.depth();
        let is_gpu = depth > 0;
        // Two runs per GPU are handed over at a time; they take turns on it.
        let devices = if is_gpu { depth / 2 } else { 1 };
        let max_run = options.max_run.unwrap_or(if is_gpu { MAX_RUN_ON_GPU } else { MAX_RUN_ON_CPU });
        let state = State {
            schedule: Schedule::new(options.order, options.bulk_weight, max_run, devices),
            fit: Fit::default(),
            requests: HashMap::new(),
            runs: HashMap::new(),
            next: 0,
            is_closed: false,
            is_over: false,
            counts: QueueStats::default(),
        };
        Self {
            embedder,
            limits: options.limits(),
            max_tokens: options.max_tokens,
            devices,
            start: Instant::now(),
            state: Mutex::new(state),
            work: Condvar::new(),
            idle: Condvar::new(),
        }
    }

    /// How many threads keep the devices busy: one for the host, two per GPU.
    pub(in crate::queue) fn threads(&self) -> usize {
        self.executor().depth().max(1)
    }

    fn executor(&self) -> &Executor {
        &self.embedder.pipeline.executor
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn since_start(&self, time: Instant) -> Duration {
        time.saturating_duration_since(self.start)
    }

    /// # Errors
    /// [`ErrorKind::Closed`].
    pub(in crate::queue) fn check_open(&self) -> Result<()> {
        if self.lock().is_closed { Err(closed()) } else { Ok(()) }
    }

    /// Ends a request that nobody waits for any more, or whose rows cannot be had.
    pub(in crate::queue) fn end(&self, id: u64, error: Error) {
        let mut state = self.lock();
        let Some((request, runs)) = state.abandon(id) else { return };
        let is_idle = state.is_idle();
        drop(state);
        for run in runs {
            run.cancel();
        }
        request.end(error);
        if is_idle {
            self.idle.notify_all();
        }
    }

    /// Takes no more requests.
    pub(in crate::queue) fn close(&self) {
        self.lock().is_closed = true;
    }

    /// Waits until nothing waits or runs, or until then. Returns whether it is so.
    pub(in crate::queue) fn wait_idle(&self, until: Option<Instant>) -> bool {
        let mut state = self.lock();
        loop {
            if state.is_idle() {
                return true;
            }
            state = match until {
                None => self.idle.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    self.idle.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Ends all requests and the threads; returns how many requests that were.
    pub(in crate::queue) fn finish(&self) -> usize {
        let mut state = self.lock();
        (state.is_closed, state.is_over) = (true, true);
        let requests: Vec<u64> = state.requests.keys().copied().collect();
        let mut ended = Vec::new();
        for id in requests {
            ended.extend(state.abandon(id));
        }
        drop(state);
        self.work.notify_all();
        let count = ended.len();
        for (request, runs) in ended {
            for run in runs {
                run.cancel();
            }
            request.end(Error::new(ErrorKind::Closed, "the queue ended before the request was done"));
        }
        self.idle.notify_all();
        count
    }

    pub(in crate::queue) fn stats(&self) -> QueueStats {
        let now = Instant::now();
        let state = self.lock();
        let mut stats = state.counts;
        let (rows, tokens) = (state.schedule.rows(), state.schedule.tokens());
        (stats.interactive.waiting_rows, stats.bulk.waiting_rows) = rows;
        (stats.interactive.waiting_tokens, stats.bulk.waiting_tokens) = tokens;
        stats.interactive.estimated_wait = self.estimate(&state, Class::Interactive, now);
        stats.bulk.estimated_wait = self.estimate(&state, Class::Bulk, now);
        stats.running_rows = state.runs.values().map(|run| run.rows.len()).sum();
        stats.running_tokens = state.running_tokens();
        let age = |run: &Run| RunAge { elapsed: now.saturating_duration_since(run.began), expected: run.expected };
        stats.longest_run = state.runs.values().map(age).max_by_key(|age| age.elapsed);
        stats.is_closed = state.is_closed;
        stats
    }

    /// The life of a thread that runs rows: as long as the queue is not over.
    pub(in crate::queue) fn serve(&self) {
        let mut state = self.lock();
        while !state.is_over {
            let now = Instant::now();
            let device = (self.executor(), &self.limits);
            let fit = state.fit;
            let pull = state.schedule.pull(self.since_start(now), &device, &fit);
            let hopeless: Vec<_> = pull.hopeless.iter().filter_map(|id| state.abandon(*id)).collect();
            state.counts.hopeless_requests += hopeless.len() as u64;
            let job = (!pull.rows.is_empty()).then(|| {
                let sharing = ((state.runs.len() + 1) as f64 / self.devices as f64).max(1.0);
                let expected = fit.predict(device.cost(shape_of(&pull.rows)));
                state.begin(pull.rows, now, sharing, expected.map(|time| time.mul_f64(sharing)))
            });
            if job.is_none() && hopeless.is_empty() {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let is_idle = state.is_idle();
            drop(state);
            for (request, runs) in hopeless {
                runs.iter().for_each(CancelToken::cancel);
                request.end(deadline_passed());
            }
            if is_idle {
                self.idle.notify_all();
            }
            if let Some(job) = job {
                self.run(job);
            }
            state = self.lock();
        }
    }

    /// Runs rows, and gives each request its own.
    fn run(&self, job: Job) {
        let shape = shape_of(&job.rows);
        let output = catch_unwind(AssertUnwindSafe(|| self.compute(&job, shape)));
        let output = output.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Inference, "a run panicked, which is a bug in nvembed; see the log"))
        });
        let time = job.began.elapsed();
        let computed = self.executor().computed(shape);
        let mut over = Vec::new();
        for (id, request) in &job.requests {
            let places: Vec<(usize, usize)> = job
                .rows
                .iter()
                .enumerate()
                .filter(|(_, row)| row.request == *id)
                .map(|(from, row)| (from, row.index))
                .collect();
            let tokens: usize = places.iter().map(|(from, _)| job.rows[*from].tokens).sum();
            let computed = computed * tokens / shape.tokens.max(1);
            let part = Part { places, computed, began: job.began, time };
            over.extend(request.place(&part, &output).map(|result| (*id, request, result)));
        }
        let mut state = self.lock();
        state.runs.remove(&job.number);
        for (id, ..) in &over {
            state.schedule.remove(*id);
            state.requests.remove(id);
        }
        let counts = &mut state.counts;
        counts.runs += 1;
        // A run that was ended because nobody waits for its rows any more did not fail.
        counts.failed_runs += u64::from(output.as_ref().is_err_and(|error| error.kind() != ErrorKind::Cancelled));
        counts.run_rows += shape.rows as u64;
        counts.run_tokens += shape.tokens as u64;
        counts.computed_positions += computed as u64;
        let time = time.div_f64(job.sharing);
        counts.run_time += time;
        if output.is_ok() {
            state.fit.add(self.executor().cost(shape), shape.tokens, time);
        }
        let is_idle = state.is_idle();
        drop(state);
        for (_, request, result) in over {
            request.tell(result);
        }
        if is_idle {
            self.idle.notify_all();
        }
    }

    /// # Errors
    /// Those of the run; none of its rows is there then.
    fn compute(&self, job: &Job, shape: Shape) -> Result<Rows> {
        let encoding = |row: &Row| job.requests.get(&row.request).and_then(|request| request.encodings.get(row.index));
        let encodings: Vec<_> = job.rows.iter().filter_map(encoding).collect();
        let stop = Stop { deadline: None, cancel: Some(job.cancel.clone()) };
        // What a very long row takes on the host is not kept.
        let arena = if shape.length > BATCH_TOKENS_ON_CPU { Arena::Shrink } else { Arena::Keep };
        let submitted = self.executor().submit(Batch::new(&encodings), &stop, arena)?;
        let output = Submitted::wait(submitted)?;
        EmbedOptions::default().form(self.embedder.dim()).check(&output, job.rows.len())?;
        Ok(output)
    }
}

impl State {
    fn running_tokens(&self) -> usize {
        self.runs.values().flat_map(|run| &run.rows).map(|row| row.tokens).sum()
    }

    fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.runs.is_empty()
    }

    fn begin(&mut self, rows: Vec<Row>, began: Instant, sharing: f64, expected: Option<Duration>) -> Job {
        self.next += 1;
        let (number, cancel) = (self.next, CancelToken::new());
        let request = |row: &Row| self.requests.get(&row.request).map(|request| (row.request, Arc::clone(request)));
        let requests = rows.iter().filter_map(request).collect();
        self.runs.insert(number, Run { rows: rows.clone(), cancel: cancel.clone(), began, expected });
        Job { number, rows, requests, cancel, began, sharing }
    }

    /// Forgets a request; returns it, and the runs that only nobody waits for any more.
    fn abandon(&mut self, id: u64) -> Option<(Arc<Request>, Vec<CancelToken>)> {
        let request = self.requests.remove(&id)?;
        self.counts.abandoned_waiting_rows += self.schedule.remove(id) as u64;
        let mut unwanted = Vec::new();
        for run in self.runs.values() {
            let of_request = run.rows.iter().filter(|row| row.request == id).count();
            self.counts.abandoned_running_rows += of_request as u64;
            if of_request > 0 && run.rows.iter().all(|row| !self.requests.contains_key(&row.request)) {
                unwanted.push(run.cancel.clone());
            }
        }
        Some((request, unwanted))
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the queue is closed and takes no more requests")
}
