//! The result of a call: one row per prompt, in the order of the prompts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use half::f16;
use half::slice::HalfFloatSliceExt;
use ndarray::{Array2, Axis};

use crate::error::{Error, ErrorKind, Result};

/// Element type of embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Dtype {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats (IEEE half precision). An fp16 model returns them as computed; embeddings of an fp32 model are rounded.
    F16,
}

/// Rows of numbers, `[N, D]`, of one of the element types.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Rows {
    /// 32-bit floats.
    F32(Array2<f32>),
    /// 16-bit floats.
    F16(Array2<f16>),
}

/// The embeddings of one call, `[N, D]`, with the token count of each prompt and whether it was truncated.
#[derive(Debug, Clone)]
pub struct Embeddings {
    rows: Rows,
    tokens: Vec<usize>,
    truncated: Vec<bool>,
    stats: Stats,
}

/// One embedding of a stream.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Embedding {
    /// The D numbers.
    pub values: Vec<f32>,
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
    /// Time of the whole call.
    pub total_time: Duration,
}

impl Dtype {
    /// Every element type.
    pub const ALL: &'static [Self] = &[Self::F32, Self::F16];

    /// `f32` or `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        crate::error::by_name("dtype", name, Self::ALL, Self::name)
    }
}

impl Rows {
    /// `rows` rows of `dim` zeros.
    pub(crate) fn zeros(dtype: Dtype, (rows, dim): (usize, usize)) -> Self {
        match dtype {
            Dtype::F32 => Self::F32(Array2::zeros((rows, dim))),
            Dtype::F16 => Self::F16(Array2::from_elem((rows, dim), f16::ZERO)),
        }
    }

    /// (N, D).
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Self::F32(rows) => rows.dim(),
            Self::F16(rows) => rows.dim(),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::F16(_) => Dtype::F16,
        }
    }

    /// The rows as 32-bit floats; a copy.
    pub fn to_f32(&self) -> Array2<f32> {
        match self {
            Self::F32(rows) => rows.clone(),
            Self::F16(rows) => widened(rows),
        }
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
        self.total_time += other.total_time;
    }
}

impl Embeddings {
    /// Room for `rows` embeddings of `dim` numbers; rows are filled by [`Embeddings::set`].
    pub(crate) fn with_shape(rows: usize, dim: usize, dtype: Dtype) -> Self {
        let (tokens, truncated) = (vec![0; rows], vec![false; rows]);
        Self { rows: Rows::zeros(dtype, (rows, dim)), tokens, truncated, stats: Stats::default() }
    }

    /// Puts a batch's output where it belongs: its row i becomes row `rows[i]`.
    ///
    /// # Errors
    /// [`ErrorKind::Inference`] when the output has another shape or holds a number that is not finite.
    pub(crate) fn set(&mut self, rows: &[usize], output: &Rows) -> Result<()> {
        let (found, wanted) = (output.shape(), (rows.len(), self.dim()));
        if found != wanted {
            let message = format!("the graph returned shape {found:?}, expected {wanted:?}");
            return Err(Error::new(ErrorKind::Inference, message));
        }
        let is_finite = match (&mut self.rows, output) {
            (Rows::F32(data), Rows::F32(output)) => scatter(data, rows, output, f32::is_finite),
            (Rows::F16(data), Rows::F16(output)) => scatter(data, rows, output, f16::is_finite),
            (Rows::F32(data), Rows::F16(output)) => scatter(data, rows, &widened(output), f32::is_finite),
            (Rows::F16(data), Rows::F32(output)) => scatter(data, rows, &narrowed(output), f16::is_finite),
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

    /// All rows, `[N, D]`, in the element type that was asked for.
    pub fn rows(&self) -> &Rows {
        &self.rows
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

    /// D, the embedding dimension.
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

    /// The rows one by one, as 32-bit floats.
    pub(crate) fn into_each(self) -> impl Iterator<Item = Embedding> {
        let Self { rows, tokens, truncated, .. } = self;
        let rows = match rows {
            Rows::F32(rows) => rows,
            Rows::F16(rows) => widened(&rows),
        };
        tokens.into_iter().zip(truncated).enumerate().map(move |(row, (tokens, truncated))| Embedding {
            values: rows.index_axis(Axis(0), row).to_vec(),
            tokens,
            truncated,
        })
    }
}

/// Copies row i of `output` to row `rows[i]` of `data`, and says whether all numbers are finite.
fn scatter<T: Copy>(data: &mut Array2<T>, rows: &[usize], output: &Array2<T>, is_finite: impl Fn(T) -> bool) -> bool {
    for (row, values) in rows.iter().zip(output.rows()) {
        data.row_mut(*row).assign(&values);
    }
    output.iter().all(|value| is_finite(*value))
}

/// 32-bit floats as 16-bit floats, by the processor's own instructions where the memory is contiguous.
fn narrowed(wide: &Array2<f32>) -> Array2<f16> {
    let Some(from) = wide.as_slice() else { return wide.mapv(f16::from_f32) };
    let mut narrow = vec![f16::ZERO; from.len()];
    narrow.convert_from_f32_slice(from);
    Array2::from_shape_vec(wide.dim(), narrow).unwrap_or_else(|_| wide.mapv(f16::from_f32))
}

/// 16-bit floats as 32-bit floats, by the processor's own instructions where the memory is contiguous.
fn widened(narrow: &Array2<f16>) -> Array2<f32> {
    let Some(from) = narrow.as_slice() else { return narrow.mapv(f32::from) };
    let mut wide = vec![0.0; from.len()];
    from.convert_to_f32_slice(&mut wide);
    Array2::from_shape_vec(narrow.dim(), wide).unwrap_or_else(|_| narrow.mapv(f32::from))
}
