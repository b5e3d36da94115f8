//! The options of one call.

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use super::cancel::{CancelToken, Stop};
use crate::embeddings::{Dtype, Form};
use crate::error::{Error, Result, by_name, in_range};

/// The most padded tokens per batch that a call may ask for: 2²⁰.
///
/// Beyond it, one batch of the smallest useful model would already need gigabytes for its activations.
const MAX_BATCH_TOKENS: usize = 1 << 20;

/// The most rows per batch that a call may ask for. The planner's work grows with it.
const MAX_BATCH_SIZE: usize = 8192;

/// Options of one call.
///
/// New options may be added: start from the defaults.
///
/// ```
/// let mut options = nvembed::EmbedOptions::default();
/// options.max_length = Some(512);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EmbedOptions {
    /// The longest row in token ids, including `<s>` and `</s>`. `None`: the model's own limit.
    pub max_length: Option<usize>,
    /// What happens to a longer text.
    pub truncation: Truncation,
    /// How a literal `<s>` or `</s>` in a prompt is read.
    pub special_tokens: SpecialTokens,
    /// The most padded tokens per batch, B × S. A single longer row runs in a batch of its own. `None`: 1,024 on the CPU,
    /// where larger batches take more memory and more time per token, and 4,096 on a GPU.
    pub max_batch_tokens: Option<usize>,
    /// The most rows per batch. Default: 256.
    pub max_batch_size: usize,
    /// How many prompts [`Embedder::embed_iter`](crate::Embedder::embed_iter) reads at a time. A larger window fills batches
    /// better, a smaller one returns results sooner. Default: 1,024.
    pub window: usize,
    /// When to give up. Checked before each batch, and during a run on a GPU; a run on the CPU that has started finishes
    /// first. Default: never.
    pub deadline: Option<Instant>,
    /// Element type of the returned embeddings.
    pub dtype: Dtype,
    /// How many of the embedding's numbers are returned: the first ones, brought back to unit length. `None`: all D. NV-Embed
    /// was not trained for it (it is no "Matryoshka" model), so measure what it costs on your texts.
    pub dimensions: Option<usize>,
    /// Ends the call early, from another thread. A stream then yields the error for every remaining prompt.
    pub cancel: Option<CancelToken>,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        Self {
            max_length: None,
            truncation: Truncation::default(),
            special_tokens: SpecialTokens::default(),
            max_batch_tokens: None,
            max_batch_size: 256,
            window: 1024,
            deadline: None,
            dtype: Dtype::default(),
            dimensions: None,
            cancel: None,
        }
    }
}

impl EmbedOptions {
    /// The names of all options.
    pub const NAMES: &'static [&'static str] = &[
        "max_length",
        "truncation",
        "special_tokens",
        "max_batch_tokens",
        "max_batch_size",
        "window",
        "deadline",
        "dtype",
        "dimensions",
        "cancel",
    ];

    /// Checks every range and returns the row limit in force, in token ids. `dim` is the model's D.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) naming the value and its limits.
    pub(crate) fn resolve(&self, model_max_length: usize, dim: usize) -> Result<usize> {
        let max_length = self.max_length.unwrap_or(model_max_length);
        in_range("`max_length`", max_length, 1, model_max_length)?;
        if let Some(max_batch_tokens) = self.max_batch_tokens {
            in_range("`max_batch_tokens`", max_batch_tokens, 1, MAX_BATCH_TOKENS)?;
        }
        in_range("`max_batch_size`", self.max_batch_size, 1, MAX_BATCH_SIZE)?;
        in_range("`window`", self.window, 1, MAX_BATCH_TOKENS)?;
        if let Some(dimensions) = self.dimensions {
            in_range("`dimensions`", dimensions, 1, dim)?;
        }
        Ok(max_length)
    }

    /// What becomes of the graph's rows of `graph_dim` numbers.
    pub(crate) fn form(&self, graph_dim: usize) -> Form {
        Form { dtype: self.dtype, graph_dim, dim: self.dimensions.unwrap_or(graph_dim) }
    }

    /// When the call has to end before it is done.
    pub(crate) fn stop(&self) -> Stop {
        Stop { deadline: self.deadline, cancel: self.cancel.clone() }
    }
}

/// What happens to a text of more token ids than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Truncation {
    /// Cut it on the right, which loses the closing `</s>`. That is what NVIDIA's code does.
    #[default]
    Reference,
    /// Cut it on the right, and make the last id `</s>`.
    KeepEos,
    /// Leave out the start of the text. `<s>`, the instruction, the end of the text and the closing `</s>` are kept.
    Start,
    /// Refuse it with [`ErrorKind::TooLong`](crate::ErrorKind::TooLong).
    Error,
}

/// How a literal `<s>`, `</s>` or `<unk>` in a prompt is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SpecialTokens {
    /// As the special token. That is what NVIDIA's code does.
    #[default]
    Parse,
    /// As plain text, in the instruction too: for texts from users who must not be able to write special tokens.
    Literal,
}

impl Truncation {
    /// Every policy.
    pub const ALL: &'static [Self] = &[Self::Reference, Self::KeepEos, Self::Start, Self::Error];

    /// `reference`, `keep-eos`, `start` or `error`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::KeepEos => "keep-eos",
            Self::Start => "start",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Truncation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Truncation {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        by_name("truncation", name, Self::ALL, Self::name)
    }
}

impl SpecialTokens {
    /// Both ways.
    pub const ALL: &'static [Self] = &[Self::Parse, Self::Literal];

    /// `parse` or `literal`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Literal => "literal",
        }
    }
}

impl fmt::Display for SpecialTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SpecialTokens {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        by_name("special_tokens", name, Self::ALL, Self::name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn every_name_reads_back_and_an_unknown_one_lists_them() {
        for &value in Truncation::ALL {
            assert_eq!(value.to_string().parse::<Truncation>().unwrap(), value);
        }
        for &value in SpecialTokens::ALL {
            assert_eq!(value.to_string().parse::<SpecialTokens>().unwrap(), value);
        }
        for &value in Dtype::ALL {
            assert_eq!(value.to_string().parse::<Dtype>().unwrap(), value);
        }
        let error = "left".parse::<Truncation>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Option);
        assert_eq!(error.to_string(), "`truncation` must be one of reference, keep-eos, start, error, got \"left\"");
    }

    #[test]
    fn the_list_of_names_is_that_of_the_fields() {
        let text = format!("{:?}", EmbedOptions::default());
        for name in EmbedOptions::NAMES {
            assert!(text.contains(&format!("{name}: ")), "{name}");
        }
        assert_eq!(text.matches(": ").count(), EmbedOptions::NAMES.len());
    }
}
