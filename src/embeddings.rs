//! The result: one row a prompt, in the order the prompts came.

use std::time::Duration;

use half::f16;
use half::slice::HalfFloatSliceExt;
use ndarray::{Array2, ArrayView2, Axis};

use crate::error::{Error, ErrorKind, Result};
use crate::options::OutputType;
use crate::session::RawOutput;

/// The embeddings of one call, `[N, D]`, with what happened to each prompt.
#[derive(Debug, Clone)]
pub struct Embeddings {
    data: Data,
    tokens: Vec<usize>,
    truncated: Vec<bool>,
    stats: Stats,
}

#[derive(Debug, Clone)]
enum Data {
    F32(Array2<f32>),
    F16(Array2<f16>),
}

/// The rows of [`Embeddings`], `[N, D]`, of the element type that was asked for.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum EmbeddingsView<'a> {
    /// 32-bit floats.
    F32(ArrayView2<'a, f32>),
    /// 16-bit floats.
    F16(ArrayView2<'a, f16>),
}

/// One embedding of a stream.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Embedding {
    /// The D numbers.
    pub values: Vec<f32>,
    /// The number of token ids of the row, `<s>` and instruction included.
    pub tokens: usize,
    /// Whether ids were cut off; of a text that just fills the row that is only the closing `</s>`.
    pub truncated: bool,
}

/// What a call did. Times are of the wall clock.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Runs of the graph.
    pub batches: usize,
    /// Real token ids.
    pub tokens: usize,
    /// Token positions computed, padding included: Σ B × S. A model exported for the CPU alone computes no padding.
    pub padded_tokens: usize,
    /// Time inside ONNX Runtime, waiting for another thread's run included.
    pub session_time: Duration,
    /// Time of the whole call.
    pub total_time: Duration,
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
        self.total_time += other.total_time;
    }
}

impl Embeddings {
    /// Room for `rows` embeddings of `dim` numbers; rows are filled by [`Embeddings::set`].
    pub(crate) fn with_shape(rows: usize, dim: usize, output: OutputType) -> Self {
        let data = match output {
            OutputType::F32 => Data::F32(Array2::zeros((rows, dim))),
            OutputType::F16 => Data::F16(Array2::from_elem((rows, dim), f16::ZERO)),
        };
        Self { data, tokens: vec![0; rows], truncated: vec![false; rows], stats: Stats::default() }
    }

    /// Puts a batch's output where it belongs: its row i becomes row `rows[i]`.
    ///
    /// # Errors
    /// [`ErrorKind::Inference`] when the output has another shape or holds a number that is not finite.
    pub(crate) fn set(&mut self, rows: &[usize], output: &RawOutput) -> Result<()> {
        let found = match output {
            RawOutput::F32(output) => output.dim(),
            RawOutput::F16(output) => output.dim(),
        };
        let wanted = (rows.len(), self.dim());
        if found != wanted {
            return Err(Error::new(
                ErrorKind::Inference,
                format!("the graph returned shape {found:?}, not {wanted:?}"),
            ));
        }
        let is_finite = match (&mut self.data, output) {
            (Data::F32(data), RawOutput::F32(output)) => scatter(data, rows, output, |value| value.is_finite()),
            (Data::F16(data), RawOutput::F16(output)) => scatter(data, rows, output, |value| value.is_finite()),
            (Data::F32(data), RawOutput::F16(output)) => {
                scatter(data, rows, &widened(output), |value| value.is_finite())
            }
            (Data::F16(data), RawOutput::F32(output)) => {
                scatter(data, rows, &narrowed(output), |value| value.is_finite())
            }
        };
        if is_finite {
            return Ok(());
        }
        let message = "the graph returned a number that is not finite; an fp16 model may have overflowed";
        Err(Error::new(ErrorKind::Inference, message))
    }

    pub(crate) fn set_info(&mut self, row: usize, tokens: usize, truncated: bool) {
        self.tokens[row] = tokens;
        self.truncated[row] = truncated;
    }

    pub(crate) fn set_stats(&mut self, stats: Stats) {
        self.stats = stats;
    }

    /// All rows, `[N, D]`, of the element type that was asked for.
    pub fn view(&self) -> EmbeddingsView<'_> {
        match &self.data {
            Data::F32(data) => EmbeddingsView::F32(data.view()),
            Data::F16(data) => EmbeddingsView::F16(data.view()),
        }
    }

    /// All rows, `[N, D]`, without a copy; `None` when 16-bit floats were asked for.
    pub fn as_f32(&self) -> Option<ArrayView2<'_, f32>> {
        match &self.data {
            Data::F32(data) => Some(data.view()),
            Data::F16(_) => None,
        }
    }

    /// All rows as 32-bit floats, `[N, D]`; a copy.
    pub fn to_f32(&self) -> Array2<f32> {
        match &self.data {
            Data::F32(data) => data.clone(),
            Data::F16(data) => widened(data),
        }
    }

    /// The rows one by one, as 32-bit floats, with what happened to each.
    pub fn into_rows(self) -> impl Iterator<Item = Embedding> {
        let Self { data, tokens, truncated, .. } = self;
        let rows = match data {
            Data::F32(data) => data,
            Data::F16(data) => widened(&data),
        };
        tokens.into_iter().zip(truncated).enumerate().map(move |(row, (tokens, truncated))| Embedding {
            values: rows.index_axis(Axis(0), row).to_vec(),
            tokens,
            truncated,
        })
    }

    /// N, the number of rows.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// D, the embedding dimension.
    pub fn dim(&self) -> usize {
        match &self.data {
            Data::F32(data) => data.ncols(),
            Data::F16(data) => data.ncols(),
        }
    }

    /// The number of token ids of each row, `<s>` and instruction included.
    pub fn token_counts(&self) -> &[usize] {
        &self.tokens
    }

    /// Whether ids of each row were cut off; of a text that just fills the row that is only the closing `</s>`.
    pub fn truncated(&self) -> &[bool] {
        &self.truncated
    }

    /// What the call did and how long it took.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// Copies row i of `output` to row `rows[i]` of `data`, and says whether all of it is good.
fn scatter<T: Copy>(data: &mut Array2<T>, rows: &[usize], output: &Array2<T>, is_good: impl Fn(T) -> bool) -> bool {
    for (row, values) in rows.iter().zip(output.rows()) {
        data.row_mut(*row).assign(&values);
    }
    output.iter().all(|value| is_good(*value))
}

/// 32-bit floats as 16-bit ones, by the processor's own instructions where the memory is in one piece.
fn narrowed(wide: &Array2<f32>) -> Array2<f16> {
    let Some(from) = wide.as_slice() else { return wide.mapv(f16::from_f32) };
    let mut narrow = vec![f16::ZERO; from.len()];
    narrow.convert_from_f32_slice(from);
    Array2::from_shape_vec(wide.dim(), narrow).unwrap_or_else(|_| wide.mapv(f16::from_f32))
}

/// 16-bit floats as 32-bit ones, by the processor's own instructions where the memory is in one piece.
fn widened(narrow: &Array2<f16>) -> Array2<f32> {
    let Some(from) = narrow.as_slice() else { return narrow.mapv(f32::from) };
    let mut wide = vec![0.0; from.len()];
    from.convert_to_f32_slice(&mut wide);
    Array2::from_shape_vec(narrow.dim(), wide).unwrap_or_else(|_| narrow.mapv(f32::from))
}
