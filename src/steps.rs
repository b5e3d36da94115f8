//! The steps of a call one by one, for `benches/steps.rs`. Not an interface: it changes with what it measures.

use crate::batch::{Batch, Plan, RUN_COST_ON_CPU, Shape};
use crate::embedder::Embedder;
use crate::embeddings::{Dtype, Embeddings, Form, Rows};
use crate::error::Result;
use crate::model::Layout;
use crate::options::EmbedOptions;
use crate::prompt::Prompt;
use crate::tokenize::Encoding;

/// Tokenized prompts.
pub struct Encodings {
    rows: Vec<Encoding>,
    layout: Layout,
    pad_token_id: u32,
}

impl Encodings {
    /// # Errors
    /// As [`Embedder::tokenize`].
    pub fn new(embedder: &Embedder, prompts: &[Prompt<'_>], options: &EmbedOptions) -> Result<Self> {
        let rows = embedder.pipeline.encode_all(prompts, options)?;
        let manifest = embedder.manifest();
        Ok(Self { rows, layout: manifest.layout(), pad_token_id: manifest.pad_token_id() })
    }

    /// Writes all of them as one batch, as the graph takes it; returns the number of rows and the longest one's length.
    pub fn padded(&self) -> (usize, usize) {
        let batch = Batch::new(&self.rows.iter().collect::<Vec<_>>());
        let shape = batch.shape();
        let mut numbers = vec![0; shape.numbers(self.layout)];
        batch.write(self.layout, shape, self.pad_token_id, &mut numbers);
        std::hint::black_box(&numbers);
        (shape.rows, shape.length)
    }
}

/// How many batches rows of these lengths become, of at most `max_tokens` padded tokens and `max_rows` rows each.
pub fn plan(lengths: &[usize], max_tokens: usize, max_rows: usize) -> usize {
    let fits = |shape: Shape| shape.positions() <= max_tokens && shape.rows <= max_rows;
    Plan::new(lengths, RUN_COST_ON_CPU, fits, Shape::positions).batches().len()
}

/// Puts a batch's rows [B, D], as a graph returned them, into the result of a call, in another element type.
///
/// # Errors
/// [`ErrorKind::Inference`](crate::ErrorKind::Inference) for a number that is not finite.
pub fn collect(output: &Rows, wanted: Dtype) -> Result<Embeddings> {
    let (rows, dim) = output.shape();
    let mut embeddings = Embeddings::new(rows, Form { dtype: wanted, graph_dim: dim, dim });
    embeddings.set((0..rows).map(|row| (row, row)), output)?;
    Ok(embeddings)
}
