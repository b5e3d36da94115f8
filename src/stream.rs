//! Embedding an endless stream with bounded memory.

use std::iter::{Fuse, FusedIterator};
use std::time::Instant;

use crate::embeddings::{Embedding, Stats};
use crate::error::Result;
use crate::execution::Call;
use crate::options::EmbedOptions;
use crate::pipeline::Pipeline;
use crate::prompt::Prompt;

/// The most bytes of text per window, not counting the prompt that goes beyond it.
const WINDOW_BYTES: usize = 4 << 20;

/// The results of [`Embedder::embed_iter`](crate::Embedder::embed_iter): the tag of each prompt and its embedding, in the order of the prompts.
///
/// Holds one window of prompts and results at a time, and asks the source for the next one when it is used up. On GPUs it
/// holds two: the next window is read and tokenized while the one before runs.
pub struct EmbedIter<'e, T, I> {
    pipeline: &'e Pipeline,
    prompts: Fuse<I>,
    options: EmbedOptions,
    ahead: Option<Window<'e, T>>,
    ready: std::vec::IntoIter<(T, Result<Embedding>)>,
    stats: Stats,
}

/// A window that was tokenized, and whose runs have begun.
struct Window<'e, T> {
    /// For each prompt its tag, and why it cannot be embedded, if it cannot.
    prompts: Vec<(T, Result<()>)>,
    call: Result<Call<'e>>,
}

impl<'e, 'p, T, I: Iterator<Item = (T, Prompt<'p>)>> EmbedIter<'e, T, I> {
    pub(crate) fn new(pipeline: &'e Pipeline, prompts: I, options: EmbedOptions) -> Self {
        let (ready, stats) = (Vec::new().into_iter(), Stats::default());
        Self { pipeline, prompts: prompts.fuse(), options, ahead: None, ready, stats }
    }

    /// Reads and tokenizes the next window, and begins to run it; `None` at the end of the source.
    fn begin(&mut self) -> Option<Window<'e, T>> {
        let start = Instant::now();
        let (mut tags, mut prompts, mut bytes) = (Vec::new(), Vec::new(), 0);
        while prompts.len() < self.options.window && bytes < WINDOW_BYTES {
            let Some((tag, prompt)) = self.prompts.next() else { break };
            bytes += prompt.instruction().len() + prompt.text().len();
            tags.push(tag);
            prompts.push(prompt);
        }
        if prompts.is_empty() {
            return None;
        }
        let encodings = match self.pipeline.encode(&prompts, &self.options) {
            Ok(encodings) => encodings,
            Err(error) => {
                return Some(Window { prompts: tags.into_iter().map(|tag| (tag, Ok(()))).collect(), call: Err(error) });
            }
        };
        let mut good = Vec::with_capacity(prompts.len());
        // Each prompt's error keeps its place; the embeddings fill the rest in order.
        let outcomes = encodings.into_iter().map(|encoding| encoding.map(|encoding| good.push(encoding)));
        let prompts = tags.into_iter().zip(outcomes).collect();
        Some(Window { prompts, call: self.pipeline.start(good, &self.options, start) })
    }

    fn finish(&mut self, window: Window<'e, T>) -> Vec<(T, Result<Embedding>)> {
        match window.call.and_then(Call::finish) {
            Ok(embeddings) => {
                self.stats.add(embeddings.stats());
                let mut rows = embeddings.into_each();
                let result = |(tag, outcome): (T, Result<()>)| {
                    outcome.map(|()| rows.next()).transpose().map(|result| (tag, result))
                };
                window.prompts.into_iter().filter_map(result).collect()
            }
            // A failed run fails every prompt of its window: none may be lost.
            Err(error) => window.prompts.into_iter().map(|(tag, _)| (tag, Err(error.clone()))).collect(),
        }
    }
}

impl<T, I> EmbedIter<'_, T, I> {
    /// What was done so far, summed over the windows.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Whether the next result needs a new run: a good moment to flush what was written.
    pub fn is_between_windows(&self) -> bool {
        self.ready.len() == 0
    }
}

impl<'p, T, I: Iterator<Item = (T, Prompt<'p>)>> Iterator for EmbedIter<'_, T, I> {
    type Item = (T, Result<Embedding>);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(result) = self.ready.next() {
            return Some(result);
        }
        let window = self.ahead.take().or_else(|| self.begin())?;
        if self.pipeline.runs_ahead() {
            self.ahead = self.begin();
        }
        self.ready = self.finish(window).into_iter();
        self.ready.next()
    }
}

impl<'p, T, I: Iterator<Item = (T, Prompt<'p>)>> FusedIterator for EmbedIter<'_, T, I> {}

impl<T, I> std::fmt::Debug for EmbedIter<'_, T, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbedIter").field("stats", &self.stats).finish_non_exhaustive()
    }
}
