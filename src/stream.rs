//! Embedding an endless stream with bounded memory.

use std::time::Instant;

use crate::embedder::Embedder;
use crate::embeddings::{Embedding, Stats};
use crate::error::Result;
use crate::options::EncodeOptions;
use crate::prompt::Prompt;

/// Prompts of one window at most: enough to fill batches with rows of like length.
const WINDOW_PROMPTS: usize = 2048;
/// Bytes of text of one window at most, before the prompt that goes beyond.
const WINDOW_BYTES: usize = 4 << 20;

/// The results of [`Embedder::embed_iter`], in the order of the prompts.
///
/// Holds one window of prompts and results at a time, and asks the source for the next only when it is used up.
pub struct EmbedIter<'a, I> {
    embedder: &'a Embedder,
    prompts: I,
    options: EncodeOptions,
    ready: std::vec::IntoIter<Result<Embedding>>,
    stats: Stats,
}

impl<'a, I: Iterator<Item = Prompt<'a>>> EmbedIter<'a, I> {
    pub(crate) fn new(embedder: &'a Embedder, prompts: I, options: EncodeOptions) -> Self {
        Self { embedder, prompts, options, ready: Vec::new().into_iter(), stats: Stats::default() }
    }

    /// What was done so far, summed over the windows.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn window(&mut self) -> Vec<Prompt<'a>> {
        let mut window = Vec::new();
        let mut bytes = 0;
        while window.len() < WINDOW_PROMPTS && bytes < WINDOW_BYTES {
            let Some(prompt) = self.prompts.next() else { break };
            bytes += prompt.instruction().len() + prompt.text().len();
            window.push(prompt);
        }
        window
    }

    fn embed(&mut self, window: &[Prompt<'a>]) -> Result<Vec<Result<Embedding>>> {
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

impl<'a, I: Iterator<Item = Prompt<'a>>> Iterator for EmbedIter<'a, I> {
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
        let results = self.embed(&window).unwrap_or_else(|error| {
            window.iter().map(|_| Err(crate::Error::new(error.kind(), error.to_string()))).collect()
        });
        self.ready = results.into_iter();
        self.ready.next()
    }
}
