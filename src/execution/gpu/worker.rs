//! A thread that owns a device: it opens the session, and runs one batch after another.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::buffers::Location;
use super::memory::Copy;
use super::session::{GpuSession, Slot};
use crate::batch::{Batch, Shape};
use crate::embeddings::Rows;
use crate::error::{Error, ErrorKind, Result};
use crate::options::Stop;

/// How often a waiting call checks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(5);

/// A handle to a device's thread. Dropping the last one ends the thread, after the jobs it was given.
pub(crate) struct Worker {
    device_id: usize,
    jobs: Option<Sender<Job>>,
    /// Jobs that are waiting or running.
    load: Arc<AtomicUsize>,
    /// Why the device is unusable, once it is.
    failure: Arc<OnceLock<Error>>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Run { batch: Batch, stop: Stop, abandoned: Arc<AtomicBool>, answer: SyncSender<Result<Rows>> },
    Hold { batch: Batch, stop: Stop, abandoned: Arc<AtomicBool>, answer: SyncSender<Result<(Slot, Location)>> },
    Copy { slot: Slot, bytes: usize, answer: SyncSender<Result<Copy>> },
    Release { slot: Slot, event: Option<usize> },
    WarmUp { shape: Shape, abandoned: Arc<AtomicBool>, answer: SyncSender<Result<()>> },
}

/// A job that was handed to a worker. Dropping it drops the job, unless it has started.
pub(crate) struct Ticket<T> {
    answer: Receiver<Result<T>>,
    abandoned: Arc<AtomicBool>,
    stop: Stop,
    failure: Arc<OnceLock<Error>>,
}

impl Worker {
    /// Starts the thread, which first runs `open` to make what it owns.
    ///
    /// # Errors
    /// What `open` returns; [`ErrorKind::Device`] when it panics or the thread cannot be started.
    pub(crate) fn start(device_id: usize, open: impl FnOnce() -> Result<GpuSession> + Send + 'static) -> Result<Self> {
        let (jobs, inbox) = channel();
        let (report, opened) = sync_channel(1);
        let load = Arc::new(AtomicUsize::new(0));
        let failure = Arc::new(OnceLock::new());
        let (of_thread, failure_of_thread) = (Arc::clone(&load), Arc::clone(&failure));
        let thread = std::thread::Builder::new().name(format!("nvembed-gpu{device_id}")).spawn(move || {
            match open() {
                Ok(session) => {
                    // The opener waits for this, or is gone with the channel.
                    let _ = report.send(Ok(()));
                    serve(session, &inbox, &of_thread, &failure_of_thread);
                }
                Err(error) => {
                    let _ = report.send(Err(error));
                }
            }
        });
        let thread = thread.map_err(|error| {
            Error::new(ErrorKind::Device, format!("GPU {device_id}: starting its thread failed")).because(error)
        })?;
        opened.recv().unwrap_or_else(|_| Err(gone(&failure)))?;
        Ok(Self { device_id, jobs: Some(jobs), load, failure, thread: Some(thread) })
    }

    pub(crate) fn device_id(&self) -> usize {
        self.device_id
    }

    /// Jobs waiting or running; `None` when the device is unusable.
    pub(crate) fn load(&self) -> Option<usize> {
        self.failure.get().is_none().then(|| self.load.load(Ordering::Relaxed))
    }

    /// Why the device is unusable, if it is.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }

    /// Hands over a batch without waiting for it.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when the device failed earlier.
    pub(crate) fn submit(&self, batch: Batch, stop: &Stop) -> Result<Ticket<Rows>> {
        let (answer, ticket) = self.ticket(1, stop);
        let abandoned = Arc::clone(&ticket.abandoned);
        self.send(Job::Run { batch, stop: stop.clone(), abandoned, answer })?;
        Ok(ticket)
    }

    /// Runs a batch whose output stays on the device, and waits until it has started.
    ///
    /// # Errors
    /// As [`GpuSession::hold`]; those of `stop` and of a device that failed earlier.
    pub(super) fn hold(&self, batch: Batch, stop: &Stop) -> Result<(Slot, Location)> {
        // The channel has no room, so an answer that nobody takes comes back to the worker, which frees the buffers.
        let (answer, ticket) = self.ticket(0, stop);
        let abandoned = Arc::clone(&ticket.abandoned);
        self.send(Job::Hold { batch, stop: stop.clone(), abandoned, answer })?;
        ticket.wait()
    }

    /// Copies the rows of held buffers into memory of their own, and waits until the copy has started.
    ///
    /// # Errors
    /// As [`GpuSession::copy`]; that of a device that failed earlier.
    pub(super) fn copy(&self, slot: Slot, bytes: usize) -> Result<Copy> {
        let (answer, ticket) = self.ticket(1, &Stop::default());
        self.send(Job::Copy { slot, bytes, answer })?;
        ticket.wait()
    }

    pub(crate) fn release(&self, slot: Slot, event: Option<usize>) {
        // A worker that is gone has already freed the buffers.
        let _ = self.send(Job::Release { slot, event });
    }

    /// Makes a shape ready, and waits for that.
    ///
    /// # Errors
    /// As [`GpuSession::warm_up`]; those of `stop` and of a device that failed earlier.
    pub(crate) fn warm_up(&self, shape: Shape, stop: &Stop) -> Result<()> {
        let (answer, ticket) = self.ticket(1, stop);
        let abandoned = Arc::clone(&ticket.abandoned);
        self.send(Job::WarmUp { shape, abandoned, answer })?;
        ticket.wait()
    }

    /// The two ends of an answer: the worker's, and the one that waits.
    fn ticket<T>(&self, room: usize, stop: &Stop) -> (SyncSender<Result<T>>, Ticket<T>) {
        let (sender, answer) = sync_channel(room);
        let abandoned = Arc::new(AtomicBool::new(false));
        (sender, Ticket { answer, abandoned, stop: stop.clone(), failure: Arc::clone(&self.failure) })
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
    /// Those of the job; [`ErrorKind::Cancelled`] or [`ErrorKind::DeadlineExceeded`] at once, whatever the device does.
    pub(crate) fn wait(self) -> Result<T> {
        loop {
            let left = self.stop.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let poll = self.stop.cancel.as_ref().map(|_| CANCEL_POLL);
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
                Err(RecvTimeoutError::Timeout) => self.stop.check()?,
            }
        }
    }
}

impl<T> Drop for Ticket<T> {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

/// The thread's main loop. Runs fail one by one; once the device itself is unusable, every job gets that error.
fn serve(mut session: GpuSession, inbox: &Receiver<Job>, load: &AtomicUsize, failure: &OnceLock<Error>) {
    while let Ok(job) = inbox.recv() {
        handle(job, &mut session, failure);
        load.fetch_sub(1, Ordering::Relaxed);
    }
    if failure.get().is_some() {
        // Freeing memory on such a device fails too, and ONNX Runtime would end the process.
        std::mem::forget(session);
    }
}

fn handle(job: Job, session: &mut GpuSession, failure: &OnceLock<Error>) {
    let is_abandoned = |abandoned: &AtomicBool| abandoned.load(Ordering::Relaxed);
    match job {
        Job::Run { abandoned, .. } | Job::Hold { abandoned, .. } | Job::WarmUp { abandoned, .. }
            if is_abandoned(&abandoned) => {}
        // An answer that nobody takes is dropped, except one whose buffers have to be released.
        Job::Run { batch, stop, answer, .. } => {
            let _ = answer.send(attempt(session, failure, |session| stop.check().and_then(|()| session.run(&batch))));
        }
        Job::Hold { batch, stop, answer, .. } => {
            let result = attempt(session, failure, |session| stop.check().and_then(|()| session.hold(&batch)));
            if let Err(unread) = answer.send(result)
                && let Ok((slot, _)) = unread.0
            {
                let _ = session.release(slot, None);
            }
        }
        Job::WarmUp { shape, answer, .. } => {
            let _ = answer.send(attempt(session, failure, |session| session.warm_up(shape)));
        }
        Job::Copy { slot, bytes, answer } => {
            let _ = answer.send(attempt(session, failure, |session| session.copy(slot, bytes)));
        }
        Job::Release { slot, event } => {
            if let Err(error) = session.release(slot, event) {
                tracing::warn!(%error, "the driver refused the event that an output was released with");
            }
        }
    }
}

/// Does `work` unless the device is unusable. When `work` fails, checks whether the device still is usable.
fn attempt<T>(
    session: &mut GpuSession,
    failure: &OnceLock<Error>,
    work: impl FnOnce(&mut GpuSession) -> Result<T>,
) -> Result<T> {
    if let Some(error) = failure.get() {
        return Err(error.clone());
    }
    work(session).map_err(|error| {
        let on_device = matches!(error.kind(), ErrorKind::Device | ErrorKind::Inference);
        match session.check() {
            Err(broken) if on_device => {
                let message = format!("{broken}; the device is unusable until this process restarts");
                tracing::error!(message, error = error.report(str::to_owned), "a GPU failed");
                failure.get_or_init(|| Error::new(ErrorKind::Device, message).because(error)).clone()
            }
            _ => error,
        }
    })
}

/// The error of a worker whose thread has ended.
fn gone(failure: &OnceLock<Error>) -> Error {
    let ended = || {
        Error::new(ErrorKind::Device, "the GPU's thread panicked, which is a bug in nvembed; start the process again")
    };
    failure.get().cloned().unwrap_or_else(ended)
}
