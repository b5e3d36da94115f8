//! What all requests share: options, the model once it is open, and which part of its life the server is in.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use nvembed::{CancelToken, EmbedOptions, Embedder, Embeddings, Prompt};
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

pub(crate) struct App {
    pub(crate) options: ServerOptions,
    pub(crate) metrics: Metrics,
    pub(crate) started: Instant,
    keys: RwLock<Option<Keys>>,
    model: OnceLock<Model>,
    phase: AtomicU8,
    /// True when everything is to end at once.
    stop: watch::Sender<bool>,
}

/// The open model, and what clients call it.
pub(crate) struct Model {
    pub(crate) embedder: Arc<Embedder>,
    /// The first name is the one in answers.
    pub(crate) names: Vec<String>,
    pub(crate) opened: Duration,
}

impl App {
    pub(crate) fn new(options: ServerOptions, keys: Option<Keys>, routes: &[&str]) -> Self {
        Self {
            options,
            metrics: Metrics::new(routes),
            started: Instant::now(),
            keys: RwLock::new(keys),
            model: OnceLock::new(),
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
        self.metrics.ready.set(i64::from(self.phase() == Phase::Ready));
    }

    pub(crate) fn set_model(&self, embedder: Arc<Embedder>) {
        let manifest = embedder.manifest();
        let mut names = self.options.names.clone();
        if names.is_empty() {
            names.push(manifest.name().to_owned());
            names.push(manifest.source().to_owned());
        }
        let _ = self.model.set(Model { embedder, names, opened: self.started.elapsed() });
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

    /// Ends all runs; their requests fail.
    pub(crate) fn stop_all(&self) {
        self.stop.send_replace(true);
    }

    /// Embeds prompts off the threads that serve connections. Whoever stops waiting for it stops the work.
    pub(crate) async fn embed(
        &self,
        model: &Model,
        prompts: Vec<Prompt<'static>>,
        mut options: EmbedOptions,
    ) -> Result<Embeddings, Problem> {
        let token = CancelToken::new();
        let _guard = CancelOnDrop(token.clone());
        options.cancel = Some(token);
        let embedder = Arc::clone(&model.embedder);
        let work = tokio::task::spawn_blocking(move || embedder.embed(&prompts, &options));
        let mut stop = self.stop.subscribe();
        tokio::select! {
            embeddings = work => Ok(embeddings.map_err(|_| Problem::new(What::Internal, "the request was lost"))??),
            _ = stop.wait_for(|stop| *stop) => {
                Err(Problem::new(What::Unavailable, "the server is shutting down; try another replica"))
            }
        }
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

struct CancelOnDrop(CancelToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
