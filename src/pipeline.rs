//! From prompts to a running call: what the embedder and its streams share.

use std::time::Instant;

use crate::error::Result;
use crate::execution::{Call, Executor};
use crate::model::Manifest;
use crate::options::EmbedOptions;
use crate::prompt::Prompt;
use crate::tokenize::{Encoding, Limits, Tokenizer};

/// An open tokenizer and an open graph.
pub(crate) struct Pipeline {
    tokenizer: Tokenizer,
    pub(crate) executor: Executor,
    max_length: usize,
    pub(crate) dim: usize,
}

impl Pipeline {
    pub(crate) fn new(manifest: &Manifest, tokenizer: Tokenizer, executor: Executor) -> Self {
        let (max_length, dim) = (manifest.max_length(), manifest.dim());
        Self { tokenizer, executor, max_length, dim }
    }

    /// Checks the options of a call; returns the row limit in force, in token ids.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) for an option out of range.
    pub(crate) fn check(&self, options: &EmbedOptions) -> Result<usize> {
        options.resolve(self.max_length, self.dim)
    }

    /// Tokenizes. The outer error is of the options, each inner one of its prompt.
    pub(crate) fn encode(&self, prompts: &[Prompt<'_>], options: &EmbedOptions) -> Result<Vec<Result<Encoding>>> {
        let max_length = self.check(options)?;
        let stop = &options.stop();
        stop.check()?;
        let EmbedOptions { truncation, special_tokens, .. } = *options;
        let encodings = self.tokenizer.encode(prompts, Limits { max_length, truncation, special_tokens, stop })?;
        let checked = |encoding: Encoding| self.executor.check_length(encoding.ids().len()).map(|()| encoding);
        Ok(encodings.into_iter().map(|encoding| encoding.and_then(checked)).collect())
    }

    /// The vocabulary's entry of a token id.
    pub(crate) fn piece(&self, id: u32) -> Option<String> {
        self.tokenizer.piece(id)
    }

    /// Tokenizes prompts that must all be good; an error names its prompt.
    pub(crate) fn encode_all(&self, prompts: &[Prompt<'_>], options: &EmbedOptions) -> Result<Vec<Encoding>> {
        let named = |(index, encoding): (usize, Result<Encoding>)| encoding.map_err(|error| error.of_prompt(index));
        self.encode(prompts, options)?.into_iter().enumerate().map(named).collect()
    }

    /// Plans a call, and begins to run it. `start` is when the call began.
    ///
    /// # Errors
    /// As [`Call::start`].
    pub(crate) fn start(&self, encodings: Vec<Encoding>, options: &EmbedOptions, start: Instant) -> Result<Call<'_>> {
        Call::start(&self.executor, encodings, options.form(self.dim), options, start)
    }

    /// Whether runs go on by themselves while the caller tokenizes.
    pub(crate) fn runs_ahead(&self) -> bool {
        self.executor.depth() > 0
    }
}
