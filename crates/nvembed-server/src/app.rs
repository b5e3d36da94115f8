//! What all requests share: options, the model once it is open, and which part of its life the server is in.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use nvembed::queue::{Class, Queue, SubmitOptions, Ticket};
use nvembed::{EmbedOptions, Embedder, Embeddings, Prompt};
use tokio::sync::watch;

use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::options::ServerOptions;
use crate::problem::{Problem, What};
use crate::prompts::InputType;

/// The parts of a server's life, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The model is being opened and checked.
    Loading,
    Ready,
    /// A signal came: requests are still taken, but readiness is gone.
    Draining,
}

/// Texts of so many bytes are tokenized on a thread that serves connections; more of them would hold up its other requests.
const TOKENIZED_HERE: usize = 64 << 10;

pub(crate) struct App {
    pub(crate) options: ServerOptions,
    pub(crate) metrics: Metrics,
    pub(crate) started: Instant,
    keys: RwLock<Option<Keys>>,
    model: Arc<OnceLock<Model>>,
    phase: AtomicU8,
    /// True when everything is to end at once.
    stop: watch::Sender<bool>,
}

/// The open model, and what clients call it.
pub(crate) struct Model {
    pub(crate) embedder: Arc<Embedder>,
    pub(crate) queue: Arc<Queue>,
    /// The first name is the one in answers.
    pub(crate) names: Vec<String>,
    pub(crate) opened: Duration,
}

impl App {
    pub(crate) fn new(options: ServerOptions, keys: Option<Keys>, routes: &[&str]) -> Self {
        let model = Arc::<OnceLock<Model>>::default();
        Self {
            options,
            metrics: Metrics::new(routes, Arc::clone(&model)),
            started: Instant::now(),
            keys: RwLock::new(keys),
            model,
            phase: AtomicU8::new(Phase::Loading as u8),
            stop: watch::Sender::new(false),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Loading,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// Goes on to a later phase; never back, since a signal may come before the model is open.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }

    /// Whether requests would be answered now.
    pub(crate) fn is_ready(&self) -> bool {
        self.phase() == Phase::Ready && self.devices_work()
    }

    /// False once every GPU has failed, which only a restart mends.
    pub(crate) fn devices_work(&self) -> bool {
        self.model.get().is_none_or(|model| model.embedder.check_devices().is_ok())
    }

    pub(crate) fn set_model(&self, queue: Queue) {
        let embedder = Arc::clone(queue.embedder());
        let manifest = embedder.manifest();
        let mut names = self.options.names.clone();
        if names.is_empty() {
            names.push(manifest.name().to_owned());
            names.push(manifest.source().to_owned());
        }
        let _ = self.model.set(Model { embedder, queue: Arc::new(queue), names, opened: self.started.elapsed() });
    }

    /// The model.
    ///
    /// # Errors
    /// While it is being opened.
    pub(crate) fn model(&self) -> Result<&Model, Problem> {
        self.model.get().filter(|_| self.phase() != Phase::Loading).ok_or_else(|| Problem {
            retry_after: Some(Duration::from_secs(5)),
            ..Problem::new(What::Unavailable, "the model is still being opened; see /v1/health/ready")
        })
    }

    pub(crate) fn keys(&self) -> Option<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_keys(&self, keys: Keys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(keys);
    }

    /// Ends all requests with an error, and with them their runs.
    pub(crate) fn stop_all(&self) {
        self.stop.send_replace(true);
    }

    /// Waits for the threads of the queue, whose runs are cancelled: ONNX Runtime crashes when the process ends during one.
    pub(crate) fn join_runs(&self) {
        if let Some(model) = self.model.get() {
            model.queue.drain(Duration::ZERO);
        }
    }

    /// Lets prompts wait in the queue, and waits for their embeddings. Whoever stops waiting for it gives up the prompts'
    /// places, and a run that is only theirs.
    pub(crate) async fn embed(
        &self,
        model: &Model,
        prompts: Vec<Prompt<'static>>,
        class: Option<Class>,
        options: EmbedOptions,
    ) -> Result<Embeddings, Problem> {
        let deadline = options.deadline;
        let mut submit = SubmitOptions::default();
        (submit.embed, submit.class) = (options, class);
        let ticket = async { self.submit(model, prompts, submit).await?.await.map_err(Problem::from) };
        let mut stop = self.stop.subscribe();
        tokio::select! {
            embeddings = ticket => embeddings,
            () = reached(deadline) => {
                Err(Problem::new(What::Deadline, "the deadline passed before the embeddings were there"))
            }
            _ = stop.wait_for(|stop| *stop) => {
                Err(Problem::new(What::Unavailable, "the server is shutting down; try another replica"))
            }
        }
    }

    /// A place in the queue.
    async fn submit(
        &self,
        model: &Model,
        prompts: Vec<Prompt<'static>>,
        options: SubmitOptions,
    ) -> Result<Ticket, Problem> {
        let bytes: usize = prompts.iter().map(|prompt| prompt.instruction().len() + prompt.text().len()).sum();
        if bytes <= TOKENIZED_HERE {
            return Ok(model.queue.submit(&prompts, &options)?);
        }
        let queue = Arc::clone(&model.queue);
        let work = tokio::task::spawn_blocking(move || queue.submit(&prompts, &options));
        work.await.map_err(|_| Problem::new(What::Internal, "the request was lost"))?.map_err(Problem::from)
    }
}

/// Waits for a moment; for ever if there is none.
async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

impl Model {
    /// What a request's `model` says: the model's name, with a suffix that says what the texts are or without.
    ///
    /// # Errors
    /// When it is another model.
    pub(crate) fn suffix_of(&self, wanted: Option<&str>) -> Result<Option<InputType>, Problem> {
        let Some(wanted) = wanted else { return Ok(None) };
        let is_ours = |name: &str| self.names.iter().any(|ours| ours.eq_ignore_ascii_case(name));
        if is_ours(wanted) {
            return Ok(None);
        }
        for (suffix, kind) in [("-query", InputType::Query), ("-passage", InputType::Passage)] {
            if wanted.strip_suffix(suffix).is_some_and(is_ours) {
                return Ok(Some(kind));
            }
        }
        let names = self.names.join(" or ");
        let message = format!("this server has no such model; it has {names}, also with -query or -passage at the end");
        Err(Problem { param: Some("model".to_owned()), ..Problem::new(What::UnknownModel, message) })
    }

    /// The name in answers.
    pub(crate) fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}
