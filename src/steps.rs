//! The steps of a call one by one, for `benches/steps.rs`. Not an interface: it changes with what it measures.

use crate::batch::{Batch, Plan, RUN_COST_ON_CPU};
use crate::embedder::Embedder;
use crate::embeddings::{Dtype, Embeddings, Rows};
use crate::error::Result;
use crate::options::EmbedOptions;
use crate::prompt::Prompt;
use crate::tokenize::Encoding;

/// Tokenized prompts.
pub struct Encodings {
    rows: Vec<Encoding>,
    pad_token_id: u32,
}

impl Encodings {
    /// # Errors
    /// As [`Embedder::tokenize`].
    pub fn new(embedder: &Embedder, prompts: &[Prompt<'_>], options: &EmbedOptions) -> Result<Self> {
        let rows = embedder.pipeline.encode_all(prompts, options)?;
        Ok(Self { rows, pad_token_id: embedder.pipeline.pad_token_id })
    }

    /// Pads all of them into one batch, with its two masks; returns its shape (B, S).
    pub fn padded(&self) -> (usize, usize) {
        let batch = Batch::new(&self.rows.iter().collect::<Vec<_>>(), self.pad_token_id);
        std::hint::black_box(&batch).shape()
    }
}

/// How many batches rows of these lengths become, of at most `max_tokens` padded tokens and `max_rows` rows each.
pub fn plan(lengths: &[usize], max_tokens: usize, max_rows: usize) -> usize {
    let rows = |longest: usize| (max_tokens / longest).min(max_rows);
    Plan::new(lengths, RUN_COST_ON_CPU, rows, |rows, longest| rows * longest).batches().len()
}

/// Puts a batch's rows [B, D], as a graph returned them, into the result of a call, in another element type.
///
/// # Errors
/// [`ErrorKind::Inference`](crate::ErrorKind::Inference) for a number that is not finite.
pub fn collect(output: &Rows, wanted: Dtype) -> Result<Embeddings> {
    let (rows, dim) = output.shape();
    let mut embeddings = Embeddings::with_shape(rows, dim, wanted);
    embeddings.set(&(0..rows).collect::<Vec<_>>(), output)?;
    Ok(embeddings)
}
