//! What a caller can choose: [`LoadOptions`] once, when a model opens; [`EncodeOptions`] at each call.

use std::path::PathBuf;
use std::time::Instant;

use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};
use crate::provider::{CudaOptions, Provider, TensorRtOptions};

/// The largest padded size of a batch in tokens that a call may ask for: 2²⁰.
///
/// Beyond it, one batch of the smallest useful model would already need gigabytes for its activations.
pub(crate) const MAX_BATCH_TOKENS: usize = 1 << 20;

/// The largest number of rows of a batch that a call may ask for. The planner's work grows with it.
const MAX_BATCH_SIZE: usize = 8192;

/// Choices that are fixed while a model is open.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Where the computation runs. Default: the CPU. A provider that is not there is an error, never a silent CPU run.
    pub provider: Provider,
    /// What the GPU providers read: devices, memory, shapes, CUDA graphs.
    pub cuda: CudaOptions,
    /// What the TensorRT providers read besides.
    pub tensorrt: TensorRtOptions,
    /// The ONNX Runtime library to load. `None` looks for it; see [`crate::Library::load`] for the places.
    pub library: Option<PathBuf>,
    /// Threads of one run, 1 to 1,024. `None` lets ONNX Runtime take one for each physical core. Tokenization uses
    /// rayon's global pool, which this does not change.
    pub intra_threads: Option<usize>,
    /// Compare the SHA-256 of every file with the manifest. Default: false, since it reads the whole model.
    pub verify_hashes: bool,
    /// Where [`crate::prepare`] keeps what it makes and [`crate::Embedder::open`] looks for it. `None`: the folder
    /// `cache` in the model folder.
    pub cache: Option<PathBuf>,
    /// On the CPU, rearrange the weights for the processor with all threads instead of one. Opening is then faster, and
    /// the pages of the whole weights file stay mapped beside the rearranged copy until it is done: the process's
    /// resident memory shows twice the model for that time, though the system can drop those pages whenever it needs
    /// them. Needs ONNX Runtime 1.32; older ones ignore it. Default: false.
    pub parallel_prepacking: bool,
    /// On the CPU, give the memory of each node of the graph back to the system as soon as it is free. Otherwise ONNX
    /// Runtime's arena keeps it for the next node and the next run, which is faster, but takes half as much again in a
    /// row of many thousand tokens. Default: false.
    pub low_memory: bool,
}

/// Choices of one call.
#[derive(Debug, Clone)]
pub struct EncodeOptions {
    /// Longest row in token ids, `<s>` and `</s>` included. `None`: the model's own limit.
    pub max_length: Option<usize>,
    /// What to do with a text that is longer.
    pub truncation: Truncation,
    /// How a literal `<s>` or `</s>` inside a prompt is read.
    pub special_tokens: SpecialTokens,
    /// Padded tokens of one batch, B × S. A single row longer than this makes a batch of its own. `None`: 1,024 on the
    /// CPU, where larger batches take more memory and more time a token, and 4,096 on a GPU.
    pub max_batch_tokens: Option<usize>,
    /// Rows of one batch. Default: 256.
    pub max_batch_size: usize,
    /// Prompts that [`crate::Embedder::embed_iter`] takes at a time: more fill batches better, fewer give results
    /// sooner. Default: 1,024.
    pub window: usize,
    /// When to give up. Checked before each batch and while one runs on a GPU; a run that has begun on the CPU ends first.
    /// Default: never.
    pub deadline: Option<Instant>,
    /// Element type of the returned embeddings. A stream's are 32-bit floats in any case, rounded to this type.
    pub output: OutputType,
    /// Ends the call early, from another thread. A stream yields the error for every prompt that is left.
    pub cancel: Option<CancelToken>,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            max_length: None,
            truncation: Truncation::default(),
            special_tokens: SpecialTokens::default(),
            max_batch_tokens: None,
            max_batch_size: 256,
            window: 1024,
            deadline: None,
            output: OutputType::default(),
            cancel: None,
        }
    }
}

impl EncodeOptions {
    /// Checks every range and returns the row limit in force, in token ids.
    ///
    /// # Errors
    /// [`ErrorKind::Option`] naming the value and its limits.
    pub(crate) fn resolve(&self, model_max_length: usize) -> Result<usize> {
        let max_length = self.max_length.unwrap_or(model_max_length);
        in_range("max_length", max_length, 1, model_max_length)?;
        if let Some(max_batch_tokens) = self.max_batch_tokens {
            in_range("max_batch_tokens", max_batch_tokens, 1, MAX_BATCH_TOKENS)?;
        }
        in_range("max_batch_size", self.max_batch_size, 1, MAX_BATCH_SIZE)?;
        in_range("window", self.window, 1, MAX_BATCH_TOKENS)?;
        Ok(max_length)
    }
}

pub(crate) fn in_range(name: &str, value: usize, low: usize, high: usize) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Option, format!("{name} is {value}, allowed are {low} to {high}")))
}

/// What happens to a text of more token ids than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Truncation {
    /// Cut on the right; the closing `</s>` is lost. That is what NVIDIA's code does.
    #[default]
    Reference,
    /// Cut on the right, and make the last id `</s>`.
    KeepEos,
    /// Refuse the text with [`ErrorKind::TooLong`].
    Error,
}

/// How a literal `<s>`, `</s>` or `<unk>` inside a prompt is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SpecialTokens {
    /// As the special token. That is what NVIDIA's code does.
    #[default]
    Parse,
    /// As plain text, in the instruction too: for texts from users who must not be able to write special tokens.
    Literal,
}

/// Element type of returned embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OutputType {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats (IEEE half precision). An fp16 model returns them as computed; an fp32 model's are rounded.
    F16,
}
