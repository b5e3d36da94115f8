//! Prompts to encodings: token ids and the lengths that the masks are made of.
//!
//! What is tokenized is `instruction + text + "</s>"` in one string, `<s>` in front, cut on the right to the row limit.
//! The instruction's length is that of the instruction tokenized alone, without `<s>`: that, and not its length in
//! context, is the number of leading positions NV-Embed leaves out of the pooling (its trailing space is a token of its
//! own only when alone, which makes up for the `<s>` that is not counted).

mod cut;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::OnceLock;

use rayon::prelude::*;
use tokenizers::Tokenizer as HfTokenizer;

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Manifest, SUFFIX};
use crate::options::{SpecialTokens, Truncation};
use crate::prompt::Prompt;
use cut::Cutter;

/// Below this many bytes of text, tokenizing is too short to wake other threads for it.
const PARALLEL_FROM_BYTES: usize = 4096;

/// Bytes of text for each id that is kept, at the first attempt to tokenize only the start of a long text. English has
/// about 4; a text with longer tokens is tried again with twice as much.
const BYTES_PER_ID: usize = 6;

/// One tokenized prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoding {
    ids: Vec<u32>,
    instruction_tokens: usize,
    truncated: bool,
}

impl Encoding {
    /// # Errors
    /// [`ErrorKind::Input`] when the instruction leaves no token to pool: the pooled mean would be 0/0.
    fn new(ids: Vec<u32>, instruction_tokens: usize, truncated: bool) -> Result<Self> {
        if instruction_tokens >= ids.len() {
            let (length, cut) = (ids.len(), if truncated { " after truncation" } else { "" });
            // Of an instruction that is far too long, only the start was counted.
            let count = if instruction_tokens > length { format!("more than {length}") } else { length.to_string() };
            return Err(Error::new(
                ErrorKind::Input,
                format!(
                    "the instruction has {count} tokens and the whole row {length}{cut}: nothing is left to pool; shorten \
                     the instruction or raise max_length"
                ),
            ));
        }
        Ok(Self { ids, instruction_tokens, truncated })
    }

    #[cfg(test)]
    pub(crate) fn for_test(ids: &[u32], instruction_tokens: usize) -> Self {
        Self { ids: ids.to_vec(), instruction_tokens, truncated: false }
    }

    /// The token ids, `<s>` first.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The number of leading positions that are not pooled; smaller than the number of ids.
    pub(crate) fn instruction_tokens(&self) -> usize {
        self.instruction_tokens
    }

    /// Whether the text was cut.
    pub(crate) fn truncated(&self) -> bool {
        self.truncated
    }
}

/// The choices of a call that matter to tokenization.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_length: usize,
    pub(crate) truncation: Truncation,
    pub(crate) special_tokens: SpecialTokens,
}

/// A model's tokenizer.
pub(crate) struct Tokenizer {
    parsing: HfTokenizer,
    /// The same tokenizer, reading special tokens as plain text; made when first needed, since it costs megabytes.
    literal: OnceLock<HfTokenizer>,
    cutter: Option<Cutter>,
    eos: u32,
}

impl Tokenizer {
    /// Reads the tokenizer of a model folder and checks that it fits the model.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] when the file is damaged, has ids the model has no row for, or does not put `<s>` in front.
    pub(crate) fn open(manifest: &Manifest) -> Result<Self> {
        let path = manifest.tokenizer_path();
        let mut tokenizer = HfTokenizer::from_file(&path).map_err(|error| {
            Error::new(ErrorKind::Model, format!("{} cannot be read as a tokenizer: {error}", path.display()))
        })?;
        // Length and padding are this crate's business; what the file says of them would be applied a second time.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| damaged(&path, &error.to_string()))?;
        check_vocabulary(&tokenizer, manifest, &path)?;
        Ok(Self::new(tokenizer, manifest.eos_token_id()))
    }

    fn new(tokenizer: HfTokenizer, eos: u32) -> Self {
        let cutter = Cutter::new(&tokenizer);
        if cutter.is_none() {
            tracing::warn!("unknown kind of tokenizer: long texts are tokenized whole");
        }
        Self { parsing: tokenizer, literal: OnceLock::new(), cutter, eos }
    }

    /// Tokenizes prompts, in order, on all cores when there is enough text. Each result is the prompt's own.
    pub(crate) fn encode(&self, prompts: &[Prompt<'_>], limits: Limits) -> Vec<Result<Encoding>> {
        let bytes: usize = prompts.iter().map(|prompt| prompt.instruction().len() + prompt.text().len()).sum();
        let in_parallel = bytes >= PARALLEL_FROM_BYTES;
        let distinct: HashSet<&str> = prompts.iter().map(Prompt::instruction).collect();
        let count = |instruction: &str| Ok((instruction.to_owned(), self.instruction_tokens(instruction, limits)?));
        let counts: Result<HashMap<String, usize>> = if in_parallel {
            distinct.into_par_iter().map(count).collect()
        } else {
            distinct.into_iter().map(count).collect()
        };
        let one = |prompt: &Prompt<'_>| -> Result<Encoding> {
            let counts = counts.as_ref().map_err(Error::clone)?;
            let instruction_tokens = counts.get(prompt.instruction()).copied().unwrap_or(0);
            let (ids, truncated) = self.ids(prompt, limits)?;
            Encoding::new(ids, instruction_tokens, truncated)
        };
        if in_parallel { prompts.par_iter().map(one).collect() } else { prompts.iter().map(one).collect() }
    }

    /// The length of an instruction tokenized alone and without `<s>`; of one beyond the row limit, only that it is.
    fn instruction_tokens(&self, instruction: &str, limits: Limits) -> Result<usize> {
        if instruction.is_empty() {
            return Ok(0);
        }
        let alone = Prompt::passage(instruction);
        let ids = match self.ids_of_start(&alone, limits)? {
            Some(ids) => ids,
            None => self.raw_ids(instruction, limits.special_tokens)?,
        };
        Ok(ids.len() - 1)
    }

    /// The ids of one prompt, at most `max_length`, and whether some were cut off.
    fn ids(&self, prompt: &Prompt<'_>, limits: Limits) -> Result<(Vec<u32>, bool)> {
        let Limits { max_length, truncation, special_tokens } = limits;
        let mut ids = match self.ids_of_start(prompt, limits)? {
            Some(ids) => ids,
            None => self.ids_of_whole(prompt, special_tokens)?,
        };
        let truncated = ids.len() > max_length;
        if truncated {
            match truncation {
                Truncation::Reference => ids.truncate(max_length),
                Truncation::KeepEos => {
                    ids.truncate(max_length);
                    if let Some(last) = ids.last_mut() {
                        *last = self.eos;
                    }
                }
                Truncation::Error => {
                    return Err(Error::new(
                        ErrorKind::TooLong,
                        format!("the text has more than {max_length} tokens, which is the limit (max_length)"),
                    ));
                }
            }
        }
        Ok((ids, truncated))
    }

    fn ids_of_whole(&self, prompt: &Prompt<'_>, special_tokens: SpecialTokens) -> Result<Vec<u32>> {
        let (instruction, text) = (prompt.instruction(), prompt.text());
        match special_tokens {
            SpecialTokens::Parse => self.raw_ids(&[instruction, text, SUFFIX].concat(), special_tokens),
            SpecialTokens::Literal => {
                let mut ids = self.raw_ids(&[instruction, text].concat(), special_tokens)?;
                ids.push(self.eos);
                Ok(ids)
            }
        }
    }

    /// More than `max_length` ids from only the start of a long text; `None` when the whole has to be tokenized.
    ///
    /// The start ends where the tokenizer can never join what is before with what is behind (see [`cut`]), so its ids
    /// are the first ids of the whole. If they do not suffice, a start twice as long is tried, and so on: at most about
    /// twice the text that is kept is ever tokenized, beyond the first attempt.
    fn ids_of_start(&self, prompt: &Prompt<'_>, limits: Limits) -> Result<Option<Vec<u32>>> {
        let Some(cutter) = &self.cutter else { return Ok(None) };
        let (instruction, text) = (prompt.instruction(), prompt.text());
        let mut wanted = limits.max_length.saturating_mul(BYTES_PER_ID);
        loop {
            let start = match wanted.checked_sub(instruction.len()) {
                Some(of_text) => cutter.boundary(text, of_text).map(|end| [instruction, &text[..end]].concat()),
                None => cutter.boundary(instruction, wanted).map(|end| instruction[..end].to_owned()),
            };
            let Some(start) = start else { return Ok(None) };
            let ids = self.raw_ids(&start, limits.special_tokens)?;
            if ids.len() > limits.max_length {
                return Ok(Some(ids));
            }
            wanted = start.len().saturating_mul(2);
        }
    }

    fn raw_ids(&self, string: &str, special_tokens: SpecialTokens) -> Result<Vec<u32>> {
        #[cfg(test)]
        tests::TOKENIZED_BYTES.with(|bytes| bytes.set(bytes.get() + string.len()));
        let encoding = self.tokenizer(special_tokens).encode_fast(string, true).map_err(|error| {
            Error::new(ErrorKind::Input, format!("a text of {} bytes cannot be tokenized: {error}", string.len()))
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    fn tokenizer(&self, special_tokens: SpecialTokens) -> &HfTokenizer {
        match special_tokens {
            SpecialTokens::Parse => &self.parsing,
            SpecialTokens::Literal => self.literal.get_or_init(|| {
                let mut literal = self.parsing.clone();
                literal.set_encode_special_tokens(true);
                literal
            }),
        }
    }
}

/// # Errors
/// [`ErrorKind::Model`] when the tokenizer and the manifest do not belong together.
fn check_vocabulary(tokenizer: &HfTokenizer, manifest: &Manifest, path: &Path) -> Result<()> {
    let rows = manifest.architecture().vocab_size;
    let largest = tokenizer.get_vocab(true).values().copied().max().unwrap_or(0) as usize;
    if largest >= rows {
        return Err(damaged(
            path,
            &format!("its largest token id is {largest}, the model's vocabulary ends at {}", rows - 1),
        ));
    }
    let (bos, eos) = (manifest.bos_token_id(), manifest.eos_token_id());
    let found = tokenizer.encode_fast(SUFFIX, true).map_err(|error| damaged(path, &error.to_string()))?;
    if found.get_ids() != [bos, eos] {
        let found = found.get_ids();
        return Err(damaged(
            path,
            &format!("it reads {SUFFIX:?} as ids {found:?}, the manifest needs {:?}", [bos, eos]),
        ));
    }
    Ok(())
}

fn damaged(path: &Path, reason: &str) -> Error {
    Error::new(ErrorKind::Model, format!("{} does not fit the model: {reason}", path.display()))
}

#[cfg(test)]
mod tests;
