//! One queue for all callers of a model: their rows run together, short requests do not wait behind long ones, and what cannot
//! be done in time is refused at once.
//!
//! ```no_run
//! use nvembed::queue::{Queue, QueueOptions, SubmitOptions};
//! use nvembed::{Embedder, ModelOptions, Prompt};
//!
//! # fn main() -> nvembed::Result<()> {
//! let embedder = Embedder::open("build/models/nv-embed-mini-fp32", &ModelOptions::default())?;
//! let queue = Queue::start(embedder, QueueOptions::default())?;
//! let ticket = queue.submit(&[Prompt::passage("The Odyssey is attributed to Homer.")], &SubmitOptions::default())?;
//! let embeddings = ticket.wait()?; // or ticket.await
//! # Ok(())
//! # }
//! ```
//!
//! A device takes the next run as soon as it is free; nothing waits for a batch to fill up. Without load a request runs at once,
//! and under load runs fill by themselves. A row's embedding does not depend on what it runs with, beyond rounding (1e-6 for an
//! fp32 model).

mod engine;
mod fit;
mod options;
mod request;
mod schedule;
mod stats;
mod ticket;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::Engine;
use request::Request;

use crate::batch::Shape;
use crate::embedder::Embedder;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{EmbedOptions, cancelled};
use crate::prompt::Prompt;
use crate::tokenize::Encoding;

pub use options::{Class, Order, QueueOptions, SubmitOptions};
pub use stats::{ClassStats, QueueStats, RunAge};
pub use ticket::{Pending, Ticket};

/// How many prompts are tokenized at a time: the other cores are free for others in between.
const SLICE: usize = 64;

/// A queue in front of an open model.
///
/// It is `Send` and `Sync`: share one between threads and tasks by reference or in an `Arc`. Dropping it ends the requests that
/// are left with [`ErrorKind::Closed`]; [`Queue::drain`] lets them finish first.
pub struct Queue {
    engine: Arc<Engine>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Queue {
    /// Starts a queue, with one thread for the host or two per GPU.
    ///
    /// # Errors
    /// [`ErrorKind::Option`] for an option out of range; [`ErrorKind::System`] when a thread cannot be started.
    pub fn start(embedder: impl Into<Arc<Embedder>>, options: QueueOptions) -> Result<Self> {
        options.check()?;
        let embedder = embedder.into();
        embedder.pipeline.check(&options.limits())?;
        let engine = Arc::new(Engine::new(embedder, &options));
        let queue = Self { engine, threads: Mutex::default() };
        for number in 0..queue.engine.threads() {
            let engine = Arc::clone(&queue.engine);
            let thread = std::thread::Builder::new().name(format!("nvembed-queue{number}"));
            let thread = thread.spawn(move || engine.serve()).map_err(|error| {
                Error::new(ErrorKind::System, "a thread of the queue could not be started").because(error)
            })?;
            queue.threads().push(thread);
        }
        Ok(queue)
    }

    /// Tokenizes prompts on the caller's thread, and lets them wait for a device.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] after [`Queue::close`]; [`ErrorKind::Overloaded`] when there is no room, or too much waits to meet
    /// the deadline, with [`Error::retry_after`]; [`ErrorKind::DeadlineExceeded`] when the deadline cannot be met at all;
    /// [`ErrorKind::Option`] for an option out of range, or more tokens than the queue ever admits; [`ErrorKind::Input`] or
    /// [`ErrorKind::TooLong`] naming the first prompt that cannot be embedded.
    pub fn submit(&self, prompts: &[Prompt<'_>], options: &SubmitOptions) -> Result<Ticket> {
        let start = Instant::now();
        let SubmitOptions { embed, class } = options;
        check_are_the_queues(embed)?;
        self.engine.check_open()?;
        let pipeline = &self.engine.embedder.pipeline;
        pipeline.check(embed)?;
        let mut encodings = Vec::with_capacity(prompts.len());
        for slice in prompts.chunks(SLICE) {
            for encoding in pipeline.encode(slice, embed)? {
                encodings.push(encoding.map_err(|error| error.of_prompt(encodings.len()))?);
            }
        }
        let class = class.unwrap_or_else(|| self.class_of(&encodings));
        let form = embed.form(self.engine.embedder.dim());
        let request = Arc::new(Request::new(class, encodings, form, embed.deadline, start));
        if prompts.is_empty() {
            request.end_empty();
            return Ok(Ticket::new(&self.engine, None, request));
        }
        let id = self.engine.admit(&request)?;
        let ticket = Ticket::new(&self.engine, Some(id), Arc::clone(&request));
        if let Some(token) = &embed.cancel {
            let engine = Arc::downgrade(&self.engine);
            let tell = move || {
                if let Some(engine) = engine.upgrade() {
                    engine.end(id, cancelled());
                }
            };
            // A token that was cancelled in the meantime drops the ticket.
            request.keep(token.watch(tell)?);
        }
        Ok(ticket)
    }

    /// Bulk, unless the rows fit one run.
    fn class_of(&self, encodings: &[Encoding]) -> Class {
        let lengths = encodings.iter().map(|encoding| encoding.ids().len());
        let (rows, length, tokens) = (encodings.len(), lengths.clone().max().unwrap_or(0), lengths.sum());
        let (executor, limits) = (&self.engine.embedder.pipeline.executor, &self.engine.limits);
        let fits = rows <= 1 || executor.fits(Shape { rows, length, tokens }, limits);
        if fits { Class::Interactive } else { Class::Bulk }
    }

    /// Takes no more requests. Those that were admitted are finished.
    pub fn close(&self) {
        self.engine.close();
    }

    /// Closes the queue and waits until all requests are done, for `timeout` at most. Those that are left then end with
    /// [`ErrorKind::Closed`], their runs are cancelled, and the threads have ended when this returns. Returns how many
    /// requests were left.
    pub fn drain(&self, timeout: Duration) -> usize {
        self.close();
        // A moment that the clock cannot represent is never reached.
        self.engine.wait_idle(Instant::now().checked_add(timeout));
        self.finish()
    }

    /// What waits, runs and was done.
    pub fn stats(&self) -> QueueStats {
        self.engine.stats()
    }

    /// The model.
    pub fn embedder(&self) -> &Arc<Embedder> {
        &self.engine.embedder
    }

    fn finish(&self) -> usize {
        let left = self.engine.finish();
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            // A callback may drop the last queue on the queue's own thread, which then ends after it.
            if thread.thread().id() != std::thread::current().id() {
                // Its runs' panics were caught, and are errors of their requests.
                let _ = thread.join();
            }
        }
        left
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// # Errors
/// [`ErrorKind::Option`] for an option of a call that the queue has for all.
fn check_are_the_queues(embed: &EmbedOptions) -> Result<()> {
    let default = EmbedOptions::default();
    let of_queue = [
        ("max_batch_tokens", embed.max_batch_tokens == default.max_batch_tokens),
        ("max_batch_size", embed.max_batch_size == default.max_batch_size),
        ("window", embed.window == default.window),
    ];
    match of_queue.into_iter().find(|(_, is_default)| !is_default) {
        None => Ok(()),
        Some((name, _)) => {
            let message = format!("`{name}` is an option of the queue, not of a request; leave it out here");
            Err(Error::new(ErrorKind::Option, message))
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.finish();
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
