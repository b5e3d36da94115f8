//! A call that has begun: encodings are planned, handed over batch by batch, and put back in order.

use std::collections::VecDeque;
use std::time::Instant;

use super::executor::{Executor, Submitted};
use super::host::Arena;
use crate::batch::{BATCH_TOKENS_ON_CPU, Batch, Plan};
use crate::embeddings::{Embeddings, Form, Stats};
use crate::error::Result;
use crate::options::{EmbedOptions, Stop};
use crate::tokenize::Encoding;

/// A call that has begun. On GPUs the first batches run while the caller does something else.
pub(crate) struct Call<'e> {
    executor: &'e Executor,
    encodings: Vec<Encoding>,
    batches: std::vec::IntoIter<Vec<usize>>,
    /// Whether a row is longer than batches usually are: the memory it takes on the host is not kept after the call.
    has_long_row: bool,
    /// Batches that were handed over, with their rows, the oldest first.
    waiting: VecDeque<(Vec<usize>, Submitted)>,
    form: Form,
    embeddings: Embeddings,
    stats: Stats,
    stop: Stop,
    start: Instant,
}

impl<'e> Call<'e> {
    /// Plans, and hands over the first batches.
    ///
    /// # Errors
    /// As [`Executor::submit`].
    pub(crate) fn start(
        executor: &'e Executor,
        encodings: Vec<Encoding>,
        form: Form,
        options: &EmbedOptions,
        start: Instant,
    ) -> Result<Self> {
        let lengths: Vec<usize> = encodings.iter().map(|encoding| encoding.ids().len()).collect();
        let fits = |shape| executor.fits(shape, options);
        let plan = Plan::new(&lengths, executor.run_cost(), fits, |shape| executor.cost(shape));
        let stats = Stats { batches: plan.batches().len(), tokens: lengths.iter().sum(), ..Stats::default() };
        let mut call = Self {
            executor,
            form,
            embeddings: Embeddings::new(encodings.len(), form),
            encodings,
            batches: plan.into_batches().into_iter(),
            has_long_row: lengths.iter().any(|length| *length > BATCH_TOKENS_ON_CPU),
            waiting: VecDeque::new(),
            stats,
            stop: options.stop(),
            start,
        };
        while call.waiting.len() < executor.depth() && call.submit()? {}
        Ok(call)
    }

    /// Runs the rest, and waits for all of it.
    ///
    /// # Errors
    /// Of the first batch that failed; the others are dropped.
    pub(crate) fn finish(mut self) -> Result<Embeddings> {
        loop {
            let more = self.submit()?;
            if let Some((rows, submitted)) = self.waiting.pop_front() {
                let start = Instant::now();
                let output = submitted.wait()?;
                self.stats.session_time += start.elapsed();
                self.form.check(&output, rows.len())?;
                self.embeddings.set(rows.into_iter().enumerate(), &output)?;
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
        let batch = Batch::new(&of_batch);
        self.stats.padded_tokens += self.executor.computed(batch.shape());
        let start = Instant::now();
        let is_last = self.batches.len() == 0;
        let arena = if self.has_long_row && is_last { Arena::Shrink } else { Arena::Keep };
        let submitted = self.executor.submit(batch, &self.stop, arena)?;
        self.stats.session_time += start.elapsed();
        self.waiting.push_back((rows, submitted));
        Ok(true)
    }
}
