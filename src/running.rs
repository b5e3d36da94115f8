//! Encodings on their way through the engine: planned, handed over batch by batch, put in order.

use std::collections::VecDeque;
use std::time::Instant;

use crate::batch::{BATCH_TOKENS_ON_CPU, Batch, Plan};
use crate::cancel::Patience;
use crate::embeddings::{Embeddings, Stats};
use crate::engine::{Engine, Run};
use crate::error::Result;
use crate::options::EncodeOptions;
use crate::tokenizer::Encoding;

/// A call that has begun: on GPUs the first batches run while the caller does something else.
pub(crate) struct Running<'e> {
    engine: &'e Engine,
    pad_token_id: u32,
    encodings: Vec<Encoding>,
    batches: std::vec::IntoIter<Vec<usize>>,
    /// Whether a row is longer than batches usually are: what it takes on the host is not kept after the call.
    has_long_row: bool,
    /// Batches that were handed over, with their rows, the oldest in front.
    waiting: VecDeque<(Vec<usize>, Run)>,
    embeddings: Embeddings,
    stats: Stats,
    patience: Patience,
    start: Instant,
}

impl<'e> Running<'e> {
    /// Plans, and hands over the first batches.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub(crate) fn start(
        engine: &'e Engine,
        encodings: Vec<Encoding>,
        dim: usize,
        pad_token_id: u32,
        options: &EncodeOptions,
        start: Instant,
    ) -> Result<Self> {
        let lengths: Vec<usize> = encodings.iter().map(|encoding| encoding.ids().len()).collect();
        let max_rows = |longest| engine.max_rows(longest, options);
        let plan = Plan::new(&lengths, engine.run_cost(), max_rows, |rows, longest| engine.cost(rows, longest));
        let stats = Stats { batches: plan.batches().len(), tokens: lengths.iter().sum(), ..Stats::default() };
        let mut running = Self {
            engine,
            pad_token_id,
            embeddings: Embeddings::with_shape(encodings.len(), dim, options.output),
            encodings,
            batches: plan.into_batches().into_iter(),
            has_long_row: lengths.iter().any(|length| *length > BATCH_TOKENS_ON_CPU),
            waiting: VecDeque::new(),
            stats,
            patience: Patience::of(options),
            start,
        };
        while running.waiting.len() < engine.depth() && running.submit()? {}
        Ok(running)
    }

    /// Runs the rest and waits for all of it.
    ///
    /// # Errors
    /// Of the first batch that failed; the others are dropped.
    pub(crate) fn finish(mut self) -> Result<Embeddings> {
        loop {
            let more = self.submit()?;
            if let Some((rows, run)) = self.waiting.pop_front() {
                let start = Instant::now();
                let output = run.wait()?;
                self.stats.session_time += start.elapsed();
                self.embeddings.set(&rows, &output)?;
            } else if !more {
                break;
            }
        }
        for (row, encoding) in self.encodings.iter().enumerate() {
            self.embeddings.set_info(row, encoding.ids().len(), encoding.truncated());
        }
        self.stats.total_time = self.start.elapsed();
        self.embeddings.set_stats(self.stats);
        Ok(self.embeddings)
    }

    /// Hands over the next batch, if there is one.
    fn submit(&mut self) -> Result<bool> {
        let Some(rows) = self.batches.next() else { return Ok(false) };
        let of_batch: Vec<&Encoding> = rows.iter().map(|row| &self.encodings[*row]).collect();
        let batch = Batch::new(&of_batch, self.pad_token_id);
        let tokens = of_batch.iter().map(|encoding| encoding.ids().len()).sum();
        self.stats.padded_tokens += self.engine.computed(batch.shape(), tokens);
        let start = Instant::now();
        let is_last = self.batches.len() == 0;
        let run = self.engine.submit(batch, &self.patience, self.has_long_row && is_last)?;
        self.stats.session_time += start.elapsed();
        self.waiting.push_back((rows, run));
        Ok(true)
    }
}
