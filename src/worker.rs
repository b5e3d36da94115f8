//! A thread that owns a device: it opens the session, and runs one batch after the other.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::cancel::Patience;
use crate::device::{Location, Runner};
use crate::error::{Error, ErrorKind, Result};
use crate::session::RawOutput;

/// How often a waiting call looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(5);

/// A device's thread, seen from those that give it work. Dropping the last handle ends it, after the work it has begun.
pub(crate) struct Worker {
    device_id: usize,
    jobs: Option<Sender<Job>>,
    /// Jobs that are waiting or running.
    load: Arc<AtomicUsize>,
    /// Why the device is useless, once it is.
    failure: Arc<OnceLock<Error>>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Run { batch: Batch, patience: Patience, abandoned: Arc<AtomicBool>, answer: SyncSender<Result<RawOutput>> },
    Hold { batch: Batch, patience: Patience, abandoned: Arc<AtomicBool>, answer: SyncSender<Result<(usize, Location)>> },
    GiveBack { slot: usize, event: Option<usize> },
    WarmUp { shape: (usize, usize), abandoned: Arc<AtomicBool>, answer: SyncSender<Result<()>> },
}

/// Work that was handed to a worker. Dropping it drops the work, unless it has begun.
pub(crate) struct Ticket<T> {
    answer: Receiver<Result<T>>,
    abandoned: Arc<AtomicBool>,
    patience: Patience,
    failure: Arc<OnceLock<Error>>,
}

impl Worker {
    /// Starts the thread, and in it `open`, which makes what it owns.
    ///
    /// # Errors
    /// What `open` returns; [`ErrorKind::Device`] when it panics or the system gives no thread.
    pub(crate) fn start(device_id: usize, open: impl FnOnce() -> Result<Runner> + Send + 'static) -> Result<Self> {
        let (jobs, inbox) = channel();
        let (report, opened) = sync_channel(1);
        let load = Arc::new(AtomicUsize::new(0));
        let failure = Arc::new(OnceLock::new());
        let (of_thread, failure_of_thread) = (Arc::clone(&load), Arc::clone(&failure));
        let thread = std::thread::Builder::new().name(format!("nvembed-gpu{device_id}")).spawn(move || {
            match open() {
                Ok(runner) => {
                    // Whoever opens has long waited for this, or has gone with the channel.
                    let _ = report.send(Ok(()));
                    serve(runner, &inbox, &of_thread, &failure_of_thread);
                }
                Err(error) => {
                    let _ = report.send(Err(error));
                }
            }
        });
        let thread = thread.map_err(|error| {
            Error::new(ErrorKind::Device, format!("the system gives no thread for GPU {device_id}: {error}"))
        })?;
        opened.recv().unwrap_or_else(|_| Err(gone(&failure)))?;
        Ok(Self { device_id, jobs: Some(jobs), load, failure, thread: Some(thread) })
    }

    pub(crate) fn device_id(&self) -> usize {
        self.device_id
    }

    /// Jobs waiting or running; `None` when the device is useless.
    pub(crate) fn load(&self) -> Option<usize> {
        self.failure.get().is_none().then(|| self.load.load(Ordering::Relaxed))
    }

    /// Why the device is useless, if it is.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }

    /// Hands over a batch, without waiting for it.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when the device failed earlier.
    pub(crate) fn submit(&self, batch: Batch, patience: &Patience) -> Result<Ticket<RawOutput>> {
        let (answer, ticket) = self.ticket(1, patience);
        let abandoned = Arc::clone(&ticket.abandoned);
        self.send(Job::Run { batch, patience: patience.clone(), abandoned, answer })?;
        Ok(ticket)
    }

    /// Runs a batch whose output stays on the device, and waits until that has begun.
    ///
    /// # Errors
    /// As [`Runner::hold`]; those of `patience` and of a device that failed earlier.
    pub(crate) fn hold(&self, batch: Batch, patience: &Patience) -> Result<(usize, Location)> {
        // Without room in the channel, an answer that nobody takes comes back to the worker, which frees the buffers.
        let (answer, ticket) = self.ticket(0, patience);
        let abandoned = Arc::clone(&ticket.abandoned);
        self.send(Job::Hold { batch, patience: patience.clone(), abandoned, answer })?;
        ticket.wait()
    }

    pub(crate) fn give_back(&self, slot: usize, event: Option<usize>) {
        // A worker that is gone has freed the buffers.
        let _ = self.send(Job::GiveBack { slot, event });
    }

    /// Makes a shape ready, and waits for that.
    ///
    /// # Errors
    /// As [`Runner::warm_up`]; those of `patience` and of a device that failed earlier.
    pub(crate) fn warm_up(&self, shape: (usize, usize), patience: &Patience) -> Result<()> {
        let (answer, ticket) = self.ticket(1, patience);
        let abandoned = Arc::clone(&ticket.abandoned);
        self.send(Job::WarmUp { shape, abandoned, answer })?;
        ticket.wait()
    }

    /// A way to answer, and who waits for it.
    fn ticket<T>(&self, room: usize, patience: &Patience) -> (SyncSender<Result<T>>, Ticket<T>) {
        let (sender, answer) = sync_channel(room);
        let abandoned = Arc::new(AtomicBool::new(false));
        (sender, Ticket { answer, abandoned, patience: patience.clone(), failure: Arc::clone(&self.failure) })
    }

    fn send(&self, job: Job) -> Result<()> {
        if let Some(error) = self.failure.get() {
            return Err(error.clone());
        }
        self.load.fetch_add(1, Ordering::Relaxed);
        if self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok()) {
            return Ok(());
        }
        self.load.fetch_sub(1, Ordering::Relaxed);
        Err(gone(&self.failure))
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("device_id", &self.device_id).finish_non_exhaustive()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic was reported to every caller as an error.
            let _ = thread.join();
        }
    }
}

impl<T> Ticket<T> {
    /// Waits for the answer.
    ///
    /// # Errors
    /// Those of the work; [`ErrorKind::Cancelled`] or [`ErrorKind::DeadlineExceeded`] as soon as it is so, whatever the
    /// device does.
    pub(crate) fn wait(self) -> Result<T> {
        loop {
            let left = self.patience.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let poll = self.patience.cancel.as_ref().map(|_| CANCEL_POLL);
            let outcome = match (left, poll) {
                (None, None) => self.answer.recv().map_err(|_| RecvTimeoutError::Disconnected),
                (left, poll) => {
                    let wait = left.unwrap_or(CANCEL_POLL).min(poll.unwrap_or(Duration::MAX));
                    self.answer.recv_timeout(wait)
                }
            };
            match outcome {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => return Err(gone(&self.failure)),
                Err(RecvTimeoutError::Timeout) => self.patience.check()?,
            }
        }
    }
}

impl<T> Drop for Ticket<T> {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

/// The thread's whole life. Runs fail one by one; once the device itself is useless, every job gets that as its answer.
fn serve(mut runner: Runner, inbox: &Receiver<Job>, load: &AtomicUsize, failure: &OnceLock<Error>) {
    while let Ok(job) = inbox.recv() {
        handle(job, &mut runner, failure);
        load.fetch_sub(1, Ordering::Relaxed);
    }
    if failure.get().is_some() {
        // Freeing memory fails on such a device as all else does, and ONNX Runtime ends the process over it.
        std::mem::forget(runner);
    }
}

fn handle(job: Job, runner: &mut Runner, failure: &OnceLock<Error>) {
    let is_abandoned = |abandoned: &AtomicBool| abandoned.load(Ordering::Relaxed);
    match job {
        Job::Run { abandoned, .. } | Job::Hold { abandoned, .. } | Job::WarmUp { abandoned, .. }
            if is_abandoned(&abandoned) => {}
        // An answer that nobody takes any more is lost, but for one that has to be given back.
        Job::Run { batch, patience, answer, .. } => {
            let _ = answer.send(attempt(runner, failure, |runner| patience.check().and_then(|()| runner.run(&batch))));
        }
        Job::Hold { batch, patience, answer, .. } => {
            let result = attempt(runner, failure, |runner| patience.check().and_then(|()| runner.hold(&batch)));
            if let Err(unread) = answer.send(result)
                && let Ok((slot, _)) = unread.0
            {
                let _ = runner.give_back(slot, None);
            }
        }
        Job::WarmUp { shape, answer, .. } => {
            let _ = answer.send(attempt(runner, failure, |runner| runner.warm_up(shape)));
        }
        Job::GiveBack { slot, event } => {
            if let Err(error) = runner.give_back(slot, event) {
                tracing::warn!(%error, "an output was given back with an event that the driver refuses");
            }
        }
    }
}

/// Does `work` unless the device is useless, and finds out whether it is when `work` fails.
fn attempt<T>(
    runner: &mut Runner,
    failure: &OnceLock<Error>,
    work: impl FnOnce(&mut Runner) -> Result<T>,
) -> Result<T> {
    if let Some(error) = failure.get() {
        return Err(error.clone());
    }
    work(runner).map_err(|error| {
        let on_device = matches!(error.kind(), ErrorKind::Device | ErrorKind::Inference);
        match runner.check() {
            Err(broken) if on_device => {
                let message = format!("{broken}; it is of no more use to this process ({error})");
                tracing::error!(message, "a GPU failed");
                failure.get_or_init(|| Error::new(ErrorKind::Device, message)).clone()
            }
            _ => error,
        }
    })
}

/// The error of a worker whose thread has ended.
fn gone(failure: &OnceLock<Error>) -> Error {
    let ended =
        || Error::new(ErrorKind::Device, "the thread of the GPU ended by a panic, which is a bug; open the model anew");
    failure.get().cloned().unwrap_or_else(ended)
}
