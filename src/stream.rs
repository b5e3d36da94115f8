//! Embedding an endless stream with bounded memory.

use std::iter::{Fuse, FusedIterator};
use std::time::Instant;

use crate::embedder::Embedder;
use crate::embeddings::{Embedding, Stats};
use crate::error::Result;
use crate::options::EncodeOptions;
use crate::prompt::Prompt;
use crate::running::Running;

/// Bytes of text of one window at most, before the prompt that goes beyond.
const WINDOW_BYTES: usize = 4 << 20;

/// The results of [`Embedder::embed_iter`], in the order of the prompts.
///
/// Holds one window of prompts and results at a time, and asks the source for the next only when it is used up. On GPUs it
/// holds two: the next window is read and tokenized while the one before runs.
pub struct EmbedIter<'e, I> {
    embedder: &'e Embedder,
    prompts: Fuse<I>,
    options: EncodeOptions,
    ahead: Option<Window<'e>>,
    ready: std::vec::IntoIter<Result<Embedding>>,
    stats: Stats,
}

/// A window that was tokenized, and whose runs have begun.
struct Window<'e> {
    /// For each prompt nothing, or why it cannot be embedded.
    prompts: Vec<Result<()>>,
    running: Result<Running<'e>>,
}

impl<'e, 'p, I: Iterator<Item = Prompt<'p>>> EmbedIter<'e, I> {
    pub(crate) fn new(embedder: &'e Embedder, prompts: I, options: EncodeOptions) -> Self {
        let (ready, stats) = (Vec::new().into_iter(), Stats::default());
        Self { embedder, prompts: prompts.fuse(), options, ahead: None, ready, stats }
    }

    /// What was done so far, summed over the windows.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Reads and tokenizes the next window, and begins to run it; `None` at the end of the source.
    fn begin(&mut self) -> Option<Window<'e>> {
        let start = Instant::now();
        let mut window = Vec::new();
        let mut bytes = 0;
        while window.len() < self.options.window && bytes < WINDOW_BYTES {
            let Some(prompt) = self.prompts.next() else { break };
            bytes += prompt.instruction().len() + prompt.text().len();
            window.push(prompt);
        }
        if window.is_empty() {
            return None;
        }
        let encodings = match self.embedder.encode(&window, &self.options) {
            Ok(encodings) => encodings,
            Err(error) => {
                return Some(Window { prompts: window.iter().map(|_| Ok(())).collect(), running: Err(error) });
            }
        };
        let mut good = Vec::with_capacity(window.len());
        // Each prompt's error keeps its place; the embeddings fill the rest in order.
        let prompts = encodings.into_iter().map(|encoding| encoding.map(|encoding| good.push(encoding))).collect();
        Some(Window { prompts, running: self.embedder.start(good, &self.options, start) })
    }

    fn finish(&mut self, window: Window<'e>) -> Vec<Result<Embedding>> {
        match window.running.and_then(Running::finish) {
            Ok(embeddings) => {
                self.stats.add(embeddings.stats());
                let mut rows = embeddings.into_rows();
                window.prompts.into_iter().filter_map(|prompt| prompt.map(|()| rows.next()).transpose()).collect()
            }
            // A failed run fails every prompt of its window: none may be lost.
            Err(error) => window.prompts.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}

impl<'p, I: Iterator<Item = Prompt<'p>>> Iterator for EmbedIter<'_, I> {
    type Item = Result<Embedding>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(result) = self.ready.next() {
            return Some(result);
        }
        let window = self.ahead.take().or_else(|| self.begin())?;
        if self.embedder.runs_ahead() {
            self.ahead = self.begin();
        }
        self.ready = self.finish(window).into_iter();
        self.ready.next()
    }
}

impl<'p, I: Iterator<Item = Prompt<'p>>> FusedIterator for EmbedIter<'_, I> {}

impl<I> std::fmt::Debug for EmbedIter<'_, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbedIter")
            .field("embedder", &self.embedder)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
