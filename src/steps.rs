//! The steps of a call one by one, for `benches/steps.rs`. Not an interface: it changes with what it measures.

use crate::batch::{Batch, Plan, RUN_COST_ON_CPU};
use crate::embedder::Embedder;
use crate::embeddings::Embeddings;
use crate::error::Result;
use crate::options::{EncodeOptions, OutputType};
use crate::prompt::Prompt;
use crate::session::RawOutput;
use crate::tokenizer::Encoding;
use half::f16;
use ndarray::Array2;

/// Tokenized prompts.
pub struct Encodings(Vec<Encoding>);

impl Encodings {
    /// # Errors
    /// As [`Embedder::tokenize`].
    pub fn new(embedder: &Embedder, prompts: &[Prompt<'_>], options: &EncodeOptions) -> Result<Self> {
        embedder.encode(prompts, options)?.into_iter().collect::<Result<_>>().map(Self)
    }

    /// Pads all of them into one batch, with its two masks; returns its shape (B, S).
    pub fn padded(&self) -> (usize, usize) {
        let batch = Batch::new(&self.0.iter().collect::<Vec<_>>(), 2);
        std::hint::black_box(&batch).shape()
    }
}

/// How many batches rows of these lengths become, of at most `max_tokens` padded tokens and `max_rows` rows each.
pub fn plan(lengths: &[usize], max_tokens: usize, max_rows: usize) -> usize {
    let rows = |longest: usize| (max_tokens / longest).min(max_rows);
    Plan::new(lengths, RUN_COST_ON_CPU, rows, |rows, longest| rows * longest).batches().len()
}

/// A batch's rows [B, D] as the graph returned them, in the order of the prompts and of another type.
///
/// # Errors
/// [`ErrorKind::Inference`](crate::ErrorKind::Inference) for a number that is not finite.
pub fn widened(rows: Array2<f16>) -> Result<Embeddings> {
    collected(RawOutput::F16(rows), OutputType::F32)
}

/// The same from float32 to float16.
///
/// # Errors
/// As [`widened`].
pub fn narrowed(rows: Array2<f32>) -> Result<Embeddings> {
    collected(RawOutput::F32(rows), OutputType::F16)
}

fn collected(output: RawOutput, wanted: OutputType) -> Result<Embeddings> {
    let (rows, dim) = match &output {
        RawOutput::F32(output) => output.dim(),
        RawOutput::F16(output) => output.dim(),
    };
    let mut embeddings = Embeddings::with_shape(rows, dim, wanted);
    embeddings.set(&(0..rows).collect::<Vec<_>>(), &output)?;
    Ok(embeddings)
}
