//! Embedding an endless stream with bounded memory.

use std::iter::{Fuse, FusedIterator};
use std::time::Instant;

use crate::embedder::Embedder;
use crate::embeddings::{Embedding, Stats};
use crate::error::{Error, Result};
use crate::options::EncodeOptions;
use crate::prompt::Prompt;

/// Bytes of text of one window at most, before the prompt that goes beyond.
const WINDOW_BYTES: usize = 4 << 20;

/// The results of [`Embedder::embed_iter`], in the order of the prompts.
///
/// Holds one window of prompts and results at a time, and asks the source for the next only when it is used up.
pub struct EmbedIter<'e, I> {
    embedder: &'e Embedder,
    prompts: Fuse<I>,
    options: EncodeOptions,
    ready: std::vec::IntoIter<Result<Embedding>>,
    stats: Stats,
}

impl<'e, 'p, I: Iterator<Item = Prompt<'p>>> EmbedIter<'e, I> {
    pub(crate) fn new(embedder: &'e Embedder, prompts: I, options: EncodeOptions) -> Self {
        Self { embedder, prompts: prompts.fuse(), options, ready: Vec::new().into_iter(), stats: Stats::default() }
    }

    /// What was done so far, summed over the windows.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn window(&mut self) -> Vec<Prompt<'p>> {
        let mut window = Vec::new();
        let mut bytes = 0;
        while window.len() < self.options.window && bytes < WINDOW_BYTES {
            let Some(prompt) = self.prompts.next() else { break };
            bytes += prompt.instruction().len() + prompt.text().len();
            window.push(prompt);
        }
        window
    }

    fn embed(&mut self, window: &[Prompt<'p>]) -> Result<Vec<Result<Embedding>>> {
        let start = Instant::now();
        let mut good = Vec::with_capacity(window.len());
        let mut results = Vec::with_capacity(window.len());
        for encoding in self.embedder.encode(window, &self.options)? {
            // Each prompt's error keeps its place; the embeddings fill the rest in order.
            results.push(encoding.map(|encoding| good.push(encoding)));
        }
        let embeddings = self.embedder.run(&good, &self.options, start)?;
        self.stats.add(embeddings.stats());
        let mut rows = embeddings.into_rows();
        Ok(results.into_iter().filter_map(|result| result.map(|()| rows.next()).transpose()).collect())
    }
}

impl<'p, I: Iterator<Item = Prompt<'p>>> Iterator for EmbedIter<'_, I> {
    type Item = Result<Embedding>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(result) = self.ready.next() {
            return Some(result);
        }
        let window = self.window();
        if window.is_empty() {
            return None;
        }
        // A failed run fails every prompt of its window: none may be lost.
        let failed = |error: Error| window.iter().map(|_| Err(error.clone())).collect();
        let results = self.embed(&window).unwrap_or_else(failed);
        self.ready = results.into_iter();
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
