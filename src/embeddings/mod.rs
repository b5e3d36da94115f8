//! The result of a call: one row per prompt, in the order of the prompts.

mod convert;
mod rows;

use std::time::Duration;

use ndarray::Array2;

use crate::error::{Error, ErrorKind, Result};

pub use rows::{Dtype, Row, Rows};

/// The embeddings of one call, `[N, D]`, with the token count of each prompt and whether it was truncated.
#[derive(Debug, Clone)]
pub struct Embeddings {
    rows: Rows,
    tokens: Vec<usize>,
    truncated: Vec<bool>,
    stats: Stats,
}

/// What a call makes of the graph's rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) dtype: Dtype,
    /// How many numbers the graph returns per row.
    pub(crate) graph_dim: usize,
    /// How many of them are kept.
    pub(crate) dim: usize,
}

/// One embedding of a stream.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Embedding {
    /// The numbers, in the element type that was asked for.
    pub values: Row,
    /// The number of token ids in the row, including `<s>` and the instruction.
    pub tokens: usize,
    /// Whether ids were cut off. For a text that just fills the row, that is only the closing `</s>`.
    pub truncated: bool,
}

/// What a call did. Times are wall-clock times.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Runs of the graph.
    pub batches: usize,
    /// Real token ids.
    pub tokens: usize,
    /// Token positions computed, including padding: Σ B × S. A model exported with `--target cpu` computes no padding.
    pub padded_tokens: usize,
    /// Time inside ONNX Runtime, including the wait for another thread's run.
    pub session_time: Duration,
    /// Time in a [`Queue`](crate::queue::Queue) before the first row ran; zero for a call without one.
    pub queue_time: Duration,
    /// Time of the whole call.
    pub total_time: Duration,
}

impl Form {
    /// # Errors
    /// [`ErrorKind::Inference`] when the output of `rows` rows has another shape.
    pub(crate) fn check(&self, output: &Rows, rows: usize) -> Result<()> {
        let (found, wanted) = (output.shape(), (rows, self.graph_dim));
        if found == wanted {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Inference, format!("the graph returned shape {found:?}, expected {wanted:?}")))
    }
}

impl Stats {
    /// The share of computed positions that were padding, 0 to 1.
    pub fn padding_waste(&self) -> f64 {
        if self.padded_tokens == 0 { 0.0 } else { 1.0 - self.tokens as f64 / self.padded_tokens as f64 }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.batches += other.batches;
        self.tokens += other.tokens;
        self.padded_tokens += other.padded_tokens;
        self.session_time += other.session_time;
        self.queue_time += other.queue_time;
        self.total_time += other.total_time;
    }
}

impl Embeddings {
    /// Room for `rows` embeddings, which are filled by [`Embeddings::set`].
    pub(crate) fn new(rows: usize, form: Form) -> Self {
        let (tokens, truncated) = (vec![0; rows], vec![false; rows]);
        Self { rows: Rows::zeros(form.dtype, (rows, form.dim)), tokens, truncated, stats: Stats::default() }
    }

    /// Puts a batch's output where it belongs: row `from` becomes row `to` for each (`from`, `to`).
    ///
    /// # Errors
    /// [`ErrorKind::Inference`] when one of these rows holds a number that is not finite, whatever the others hold.
    pub(crate) fn set(&mut self, places: impl IntoIterator<Item = (usize, usize)>, output: &Rows) -> Result<()> {
        places.into_iter().try_for_each(|(from, to)| convert::place(output, from, &mut self.rows, to))
    }

    pub(crate) fn set_info(&mut self, row: usize, tokens: usize, truncated: bool) {
        self.tokens[row] = tokens;
        self.truncated[row] = truncated;
    }

    pub(crate) fn set_stats(&mut self, stats: Stats) {
        self.stats = stats;
    }

    /// All rows, `[N, D]`, in the element type that was asked for.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The embeddings, without a copy; what is known of each row is given up.
    pub fn into_rows(self) -> Rows {
        self.rows
    }

    /// All rows as 32-bit floats, `[N, D]`; a copy.
    pub fn to_f32(&self) -> Array2<f32> {
        self.rows.to_f32()
    }

    /// N, the number of rows.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// D, the numbers of a row: the embedding dimension, or [`EmbedOptions::dimensions`](crate::EmbedOptions::dimensions).
    pub fn dim(&self) -> usize {
        self.rows.shape().1
    }

    /// The number of token ids in each row, including `<s>` and the instruction.
    pub fn token_counts(&self) -> &[usize] {
        &self.tokens
    }

    /// Whether ids of each row were cut off. For a text that just fills the row, that is only the closing `</s>`.
    pub fn truncated(&self) -> &[bool] {
        &self.truncated
    }

    /// What the call did and how long it took.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The rows one by one.
    pub(crate) fn into_each(self) -> impl Iterator<Item = Embedding> {
        let Self { rows, tokens, truncated, .. } = self;
        tokens.into_iter().zip(truncated).enumerate().map(move |(row, (tokens, truncated))| Embedding {
            values: rows.row(row),
            tokens,
            truncated,
        })
    }
}
