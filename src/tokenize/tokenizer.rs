//! A model's tokenizer.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::OnceLock;

use rayon::prelude::*;
use tokenizers::Tokenizer as HfTokenizer;

use super::cut::Cutter;
use super::encoding::Encoding;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Manifest, SUFFIX};
use crate::options::{SpecialTokens, Truncation};
use crate::prompt::Prompt;

/// Below this many bytes of text, tokenizing is too short to wake other threads for it.
const PARALLEL_FROM_BYTES: usize = 4096;

/// Bytes of text per id that is kept, in the first attempt to tokenize only the start of a long text. English has about 4; a
/// text with longer tokens is tried again with twice as much.
const BYTES_PER_ID: usize = 6;

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
            Error::new(ErrorKind::Model, format!("{} cannot be read as a tokenizer", path.display())).because(error)
        })?;
        // This crate truncates and pads; what the file says of that would be applied a second time.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| damaged(&path, "it has invalid truncation").because(error))?;
        check_vocabulary(&tokenizer, manifest, &path)?;
        Ok(Self::new(tokenizer, manifest.eos_token_id()))
    }

    fn new(tokenizer: HfTokenizer, eos: u32) -> Self {
        let cutter = Cutter::new(&tokenizer);
        if cutter.is_none() {
            tracing::warn!("this tokenizer is not known to be safe to cut: long texts are tokenized whole");
        }
        Self { parsing: tokenizer, literal: OnceLock::new(), cutter, eos }
    }

    /// Tokenizes prompts, in order, on all cores when there is enough text. One result per prompt.
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
            let (ids, truncated) = self.ids(prompt, instruction_tokens, limits)?;
            Encoding::new(ids, instruction_tokens, truncated)
        };
        if in_parallel { prompts.par_iter().map(one).collect() } else { prompts.iter().map(one).collect() }
    }

    /// The length of an instruction tokenized alone and without `<s>`. Of an instruction beyond the row limit, only that it is
    /// beyond it.
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

    /// The ids of one prompt, at most `max_length`, and whether some were cut off. `instruction_tokens` ids at the start are the
    /// instruction's.
    fn ids(&self, prompt: &Prompt<'_>, instruction_tokens: usize, limits: Limits) -> Result<(Vec<u32>, bool)> {
        let Limits { max_length, truncation, special_tokens } = limits;
        let start = self.ids_of_start(prompt, limits)?;
        let is_whole = start.is_none();
        let mut ids = match start {
            Some(ids) => ids,
            None => self.ids_of_whole(prompt, special_tokens)?,
        };
        if ids.len() <= max_length {
            return Ok((ids, false));
        }
        match truncation {
            Truncation::Reference => ids.truncate(max_length),
            Truncation::KeepEos => {
                ids.truncate(max_length);
                if let Some(last) = ids.last_mut() {
                    *last = self.eos;
                }
            }
            Truncation::Start => {
                // The instruction's length does not count `<s>`, which stays too where there is no instruction.
                let kept = instruction_tokens.max(1).min(max_length);
                let wanted = max_length - kept;
                let end = if is_whole { None } else { self.ids_of_end(prompt, wanted, special_tokens)? };
                let mut end = match end {
                    Some(ids) => ids,
                    None if is_whole => ids.split_off(kept),
                    None => self.ids_of_whole(prompt, special_tokens)?.split_off(kept),
                };
                ids.truncate(kept);
                ids.extend(end.drain(end.len() - wanted..));
            }
            Truncation::Error => {
                return Err(Error::new(
                    ErrorKind::TooLong,
                    format!("the text has more than {max_length} tokens, the limit (`max_length`)"),
                ));
            }
        }
        Ok((ids, true))
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

    /// At least the last `wanted` ids of a long text, from only its end; `None` when the whole has to be tokenized.
    ///
    /// The mirror image of [`Self::ids_of_start`]: at a safe place, what is behind is tokenized as if what is before were not
    /// there. Except for the marker of a space that the tokenizer puts in front of everything: so what is tokenized begins a
    /// little before that place, and its ids are left out again.
    fn ids_of_end(
        &self,
        prompt: &Prompt<'_>,
        wanted: usize,
        special_tokens: SpecialTokens,
    ) -> Result<Option<Vec<u32>>> {
        let (Some(cutter), text) = (&self.cutter, prompt.text()) else { return Ok(None) };
        let mut bytes = wanted.saturating_mul(BYTES_PER_ID);
        loop {
            let from = text.len().checked_sub(bytes).filter(|from| *from > 0);
            let Some(start) = from.and_then(|from| cutter.boundary(text, from)) else { return Ok(None) };
            let before = cutter.before(text, start);
            let end = Prompt::passage(&text[start - before.len()..]);
            let of_end =
                self.ids_of_whole(&end, special_tokens)?.split_off(self.raw_ids(before, special_tokens)?.len());
            if of_end.len() >= wanted {
                return Ok(Some(of_end));
            }
            bytes = bytes.saturating_mul(2).max(BYTES_PER_ID);
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

    /// The vocabulary's entry.
    pub(crate) fn piece(&self, id: u32) -> Option<String> {
        self.parsing.id_to_token(id)
    }

    fn raw_ids(&self, string: &str, special_tokens: SpecialTokens) -> Result<Vec<u32>> {
        #[cfg(test)]
        tests::TOKENIZED_BYTES.with(|bytes| bytes.set(bytes.get() + string.len()));
        let encoding = self.tokenizer(special_tokens).encode_fast(string, true).map_err(|error| {
            Error::new(ErrorKind::Input, format!("a text of {} bytes cannot be tokenized", string.len())).because(error)
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
        let reason = format!("its largest token id is {largest}, the model's vocabulary ends at {}", rows - 1);
        return Err(damaged(path, &reason));
    }
    let (bos, eos) = (manifest.bos_token_id(), manifest.eos_token_id());
    let found = tokenizer
        .encode_fast(SUFFIX, true)
        .map_err(|error| damaged(path, &format!("it cannot read {SUFFIX:?}")).because(error))?;
    let (found, wanted) = (found.get_ids(), [bos, eos]);
    if found != wanted {
        return Err(damaged(path, &format!("it reads {SUFFIX:?} as ids {found:?}, the manifest needs {wanted:?}")));
    }
    Ok(())
}

fn damaged(path: &Path, reason: &str) -> Error {
    Error::new(ErrorKind::Model, format!("{} does not fit the model: {reason}", path.display()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
