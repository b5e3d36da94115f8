//! A model's tokenizer.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rayon::ThreadPool;
use rayon::prelude::*;
use tokenizers::Tokenizer as HfTokenizer;

use super::cut::{Cut, Cutter, Settled, tokens_inside};
use super::encoding::Encoding;
use crate::error::{Error, ErrorKind, Result};
use crate::machine;
use crate::model::{Manifest, SUFFIX};
use crate::options::{SpecialTokens, Stop, Truncation};
use crate::prompt::Prompt;

/// Below this many bytes of text, tokenizing is too short to wake other threads for it.
const PARALLEL_FROM_BYTES: usize = 4096;

/// Bytes of text per id that is kept, in the first attempt to tokenize only the start of a long text. English has about 4; a
/// text with longer tokens is tried again with twice as much.
const BYTES_PER_ID: usize = 6;

/// The least bytes that are tokenized at a time, where a long stretch has to be tokenized to its end.
const PIECE_BYTES: usize = 1 << 16;

/// The choices of a call that matter to tokenization.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits<'s> {
    pub(crate) max_length: usize,
    pub(crate) truncation: Truncation,
    pub(crate) special_tokens: SpecialTokens,
    /// What ends the call before it is done.
    pub(crate) stop: &'s Stop,
}

/// A model's tokenizer.
pub(crate) struct Tokenizer {
    parsing: HfTokenizer,
    /// The same tokenizer, reading special tokens as plain text; made when first needed, since it costs megabytes.
    literal: OnceLock<HfTokenizer>,
    cutter: Option<Cutter>,
    eos: u32,
    /// `None` where one thread is all there is.
    pool: Option<Arc<ThreadPool>>,
}

/// The threads that all tokenizers of the process share, once they are made.
static POOL: Mutex<Option<Arc<ThreadPool>>> = Mutex::new(None);

/// The shared threads, one for each processor that this process may use. Where they cannot be made, texts are tokenized in the
/// caller's thread, which gives the same ids more slowly.
fn pool() -> Option<Arc<ThreadPool>> {
    let threads = machine::cores();
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if pool.is_some() || threads == 1 {
        return pool.clone();
    }
    match rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|_| "nvembed-tokens".to_owned()).build() {
        Ok(made) => *pool = Some(Arc::new(made)),
        Err(error) => {
            tracing::warn!(threads, %error, "no threads can be made to tokenize with; texts are tokenized one after the other");
        }
    }
    pool.clone()
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
        Self { parsing: tokenizer, literal: OnceLock::new(), cutter, eos, pool: pool() }
    }

    /// Tokenizes prompts, in order, on all processors that this process may use when there is enough text. One result per prompt.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`] or [`ErrorKind::DeadlineExceeded`] when the call has to end, which is looked at before each
    /// prompt and each piece of a long one.
    pub(crate) fn encode(&self, prompts: &[Prompt<'_>], limits: Limits<'_>) -> Result<Vec<Result<Encoding>>> {
        let bytes: usize = prompts.iter().map(|prompt| prompt.instruction().len() + prompt.text().len()).sum();
        let pool = self.pool.as_ref().filter(|_| bytes >= PARALLEL_FROM_BYTES);
        let distinct: HashSet<&str> = prompts.iter().map(Prompt::instruction).collect();
        let count = |instruction: &str| Ok((instruction.to_owned(), self.instruction_tokens(instruction, limits)?));
        let counts: Result<HashMap<String, usize>> = match pool {
            Some(pool) => pool.install(|| distinct.into_par_iter().map(count).collect()),
            None => distinct.into_iter().map(count).collect(),
        };
        let one = |prompt: &Prompt<'_>| -> Result<Encoding> {
            let counts = counts.as_ref().map_err(Error::clone)?;
            let instruction_tokens = counts.get(prompt.instruction()).copied().unwrap_or(0);
            let (ids, truncated) = self.ids(prompt, instruction_tokens, limits)?;
            Encoding::new(ids, instruction_tokens, truncated)
        };
        let encodings = match pool {
            Some(pool) => pool.install(|| prompts.par_iter().map(one).collect()),
            None => prompts.iter().map(one).collect(),
        };
        limits.stop.check()?;
        Ok(encodings)
    }

    /// The length of an instruction tokenized alone and without `<s>`. Of an instruction beyond the row limit, only that it is
    /// beyond it.
    fn instruction_tokens(&self, instruction: &str, limits: Limits<'_>) -> Result<usize> {
        if instruction.is_empty() {
            return Ok(0);
        }
        let alone = Prompt::passage(instruction);
        let ids = match self.ids_of_start(&alone, limits)? {
            Some(ids) => ids,
            None => self.raw_ids(instruction, limits)?,
        };
        Ok(ids.len() - 1)
    }

    /// The ids of one prompt, at most `max_length`, and whether some were cut off. `instruction_tokens` ids at the start are the
    /// instruction's.
    fn ids(&self, prompt: &Prompt<'_>, instruction_tokens: usize, limits: Limits<'_>) -> Result<(Vec<u32>, bool)> {
        let Limits { max_length, truncation, .. } = limits;
        let start = self.ids_of_start(prompt, limits)?;
        let is_whole = start.is_none();
        let mut ids = match start {
            Some(ids) => ids,
            None => self.ids_of_whole(prompt, limits)?,
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
                let end = if is_whole { None } else { self.ids_of_end(prompt, wanted, limits)? };
                let mut end = match end {
                    Some(ids) => ids,
                    None if is_whole => ids.split_off(kept),
                    None => self.ids_of_whole(prompt, limits)?.split_off(kept),
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

    fn ids_of_whole(&self, prompt: &Prompt<'_>, limits: Limits<'_>) -> Result<Vec<u32>> {
        let (instruction, text) = (prompt.instruction(), prompt.text());
        match limits.special_tokens {
            SpecialTokens::Parse => self.raw_ids(&[instruction, text, SUFFIX].concat(), limits),
            SpecialTokens::Literal => {
                let mut ids = self.raw_ids(&[instruction, text].concat(), limits)?;
                ids.push(self.eos);
                Ok(ids)
            }
        }
    }

    /// At least the last `wanted` ids of a long text, from only its end; `None` when the whole has to be tokenized.
    ///
    /// The mirror image of [`Self::ids_of_start`]: at a safe place, what is behind is tokenized as if what is before were not
    /// there. Except for the marker of a space that the tokenizer puts in front of everything: so what is tokenized begins a
    /// little before that place, and its ids are left out again. Where no place near the end is safe, everything behind the last
    /// safe place is tokenized, piece by piece.
    fn ids_of_end(&self, prompt: &Prompt<'_>, wanted: usize, limits: Limits<'_>) -> Result<Option<Vec<u32>>> {
        let (Some(cutter), text) = (&self.cutter, prompt.text()) else { return Ok(None) };
        if wanted == 0 {
            return Ok(Some(Vec::new()));
        }
        let mut bytes = wanted.saturating_mul(BYTES_PER_ID);
        loop {
            let Some(from) = text.len().checked_sub(bytes).filter(|from| *from > 0) else { return Ok(None) };
            let of_end = match cutter.cut(text, from) {
                Cut::Safe(start) => {
                    let before = cutter.before(text, start);
                    let end = Prompt::passage(&text[start - before.len()..]);
                    self.ids_of_whole(&end, limits)?.split_off(self.raw_ids(before, limits)?.len())
                }
                Cut::Unknown(_) | Cut::End => {
                    let from = (0..=from).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0);
                    let Some(start) = cutter.last_boundary(text, from) else {
                        return self
                            .last_ids(cutter, &[prompt.instruction(), text].concat(), 0, wanted, limits)
                            .map(Some);
                    };
                    let before = cutter.before(text, start).len();
                    self.last_ids(cutter, &text[start - before..], before, wanted, limits)?
                }
            };
            if of_end.len() >= wanted {
                return Ok(Some(of_end));
            }
            bytes = bytes.saturating_mul(2).max(BYTES_PER_ID);
        }
    }

    /// The last `wanted` ids of a text and its end, or fewer if there are no more behind byte `from`, a safe place. The text is
    /// tokenized piece by piece.
    fn last_ids(
        &self,
        cutter: &Cutter,
        text: &str,
        from: usize,
        wanted: usize,
        limits: Limits<'_>,
    ) -> Result<Vec<u32>> {
        let parses = limits.special_tokens == SpecialTokens::Parse;
        let mut last = Vec::new();
        // What is before `from` has ids that are not wanted.
        let mut unwanted = if from == 0 { 0 } else { self.raw_ids(&text[..from], limits)?.len() };
        let (mut start, mut is_anew) = (0_usize, true);
        let mut piece = wanted.saturating_mul(BYTES_PER_ID).max(PIECE_BYTES);
        loop {
            let end = (start.saturating_add(piece)..text.len()).find(|end| text.is_char_boundary(*end));
            let string = match end {
                Some(end) => Cow::Borrowed(&text[start..end]),
                None if parses => Cow::Owned([&text[start..], SUFFIX].concat()),
                None => Cow::Borrowed(&text[start..]),
            };
            let mut ids = if is_anew {
                // Only the first piece has `<s>`.
                self.raw_ids(&string, limits)?.split_off(usize::from(start > 0))
            } else {
                self.ids_inside(cutter, &string, limits)?
            };
            if end.is_some() {
                let tokenizer = self.tokenizer(limits.special_tokens);
                let Some(Settled { ids: settled, end, is_special }) = cutter.settled(tokenizer, &string, &ids, parses)
                else {
                    piece = piece.saturating_mul(2);
                    continue;
                };
                ids.truncate(settled);
                (start, is_anew) = (start + end, is_special);
            } else if !parses {
                ids.push(self.eos);
            }
            last.extend(ids.into_iter().skip(std::mem::take(&mut unwanted)));
            last.drain(..last.len().saturating_sub(wanted));
            if end.is_none() {
                return Ok(last);
            }
        }
    }

    /// The ids of a part of a text that is not its start.
    fn ids_inside(&self, cutter: &Cutter, text: &str, limits: Limits<'_>) -> Result<Vec<u32>> {
        let special = cutter.first_special(text).filter(|_| limits.special_tokens == SpecialTokens::Parse);
        let (inside, rest) = text.split_at(special.map_or(text.len(), |(start, _)| start));
        limits.stop.check()?;
        let mut ids = tokens_inside(self.tokenizer(limits.special_tokens), inside)
            .map_err(|error| not_tokenized(inside, error))?;
        if !rest.is_empty() {
            // Without `<s>`.
            ids.extend_from_slice(&self.raw_ids(rest, limits)?[1..]);
        }
        Ok(ids)
    }

    /// More than `max_length` ids from only the start of a long text; `None` when the whole has to be tokenized.
    ///
    /// The start ends where the tokenizer can never join what is before with what is behind (see [`cut`]), so its ids
    /// are the first ids of the whole. If they do not suffice, a start twice as long is tried, and so on: at most about
    /// twice the text that is kept is ever tokenized, beyond the first attempt.
    fn ids_of_start(&self, prompt: &Prompt<'_>, limits: Limits<'_>) -> Result<Option<Vec<u32>>> {
        let Some(cutter) = &self.cutter else { return Ok(None) };
        let (instruction, text) = (prompt.instruction(), prompt.text());
        let parses = limits.special_tokens == SpecialTokens::Parse;
        let mut wanted = limits.max_length.saturating_mul(BYTES_PER_ID);
        loop {
            let (cut, before, from) = match wanted.checked_sub(instruction.len()) {
                Some(of_text) => (cutter.cut(text, of_text), instruction, text),
                None => (cutter.cut(instruction, wanted), "", instruction),
            };
            let (end, is_safe) = match cut {
                Cut::Safe(end) => (end, true),
                Cut::Unknown(end) => (end, false),
                Cut::End => return Ok(None),
            };
            let start = [before, &from[..end]].concat();
            let mut ids = self.raw_ids(&start, limits)?;
            if !is_safe {
                let settled = cutter.settled(self.tokenizer(limits.special_tokens), &start, &ids, parses);
                ids.truncate(settled.map_or(0, |settled| settled.ids));
            }
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

    fn raw_ids(&self, string: &str, limits: Limits<'_>) -> Result<Vec<u32>> {
        limits.stop.check()?;
        #[cfg(test)]
        tests::TOKENIZED_BYTES.with(|bytes| bytes.set(bytes.get() + string.len()));
        let encoding = self
            .tokenizer(limits.special_tokens)
            .encode_fast(string, true)
            .map_err(|error| not_tokenized(string, error))?;
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

fn not_tokenized(string: &str, error: tokenizers::Error) -> Error {
    Error::new(ErrorKind::Input, format!("a text of {} bytes cannot be tokenized", string.len())).because(error)
}

fn damaged(path: &Path, reason: &str) -> Error {
    Error::new(ErrorKind::Model, format!("{} does not fit the model: {reason}", path.display()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
