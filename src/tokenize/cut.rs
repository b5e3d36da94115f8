//! Where a long text can be cut without changing the tokens before the cut.
//!
//! A byte-pair tokenizer without pre-tokenization, such as Mistral's, merges neighbours anywhere in a text, so in general a
//! token depends on the whole text. But every merge produces a piece of the vocabulary. If no piece contains the characters x
//! and y next to each other, no merge can span a place where x is followed by y, and what is on the left of that place is
//! tokenized as if the right were not there. Mistral's vocabulary has about 3,000 pairs of neighbours, none of them a space to
//! the right of another character, so in ordinary text every word starts at such a place. A stretch without one (a million
//! times the same letter) is tokenized whole.

use std::collections::HashSet;

use tokenizers::{ModelWrapper, Tokenizer};

/// The character that Mistral's normalizer turns spaces into.
const SPACE: char = '\u{2581}';

/// Finds the places where a text can be cut.
pub(super) struct Cutter {
    /// Characters that are next to each other in a piece of the vocabulary, or in a special token: special tokens are found
    /// before anything else, and must not be cut in two either.
    neighbours: HashSet<(char, char)>,
    /// The bytes of the longest special token.
    longest_special: usize,
}

impl Cutter {
    /// The cutter for a tokenizer, or `None` if it is not of the kind that the argument above is about.
    pub(super) fn new(tokenizer: &Tokenizer) -> Option<Self> {
        let normalizer = serde_json::to_value(tokenizer.get_normalizer()?).ok()?;
        let known = serde_json::json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]});
        let ModelWrapper::BPE(model) = tokenizer.get_model() else { return None };
        let vocabulary = tokenizer.get_vocab(true);
        // With all bytes in the vocabulary there is no unknown token, whose runs would be joined across any place. Bytes must
        // not be merged, because the merged piece's name would not show the characters.
        let has_all_bytes = (0..=u8::MAX).all(|byte| vocabulary.contains_key(&format!("<0x{byte:02X}>")))
            && vocabulary.keys().all(|piece| piece.len() == "<0x00>".len() || !piece.contains("<0x"));
        let plain_merges = model.dropout.is_none()
            && !model.ignore_merges
            && model.continuing_subword_prefix.is_none()
            && model.end_of_word_suffix.is_none();
        let added = tokenizer.get_added_tokens_decoder();
        let plain_specials =
            added.values().all(|token| !(token.normalized || token.single_word || token.lstrip || token.rstrip));
        if normalizer != known
            || tokenizer.get_pre_tokenizer().is_some()
            || !(model.byte_fallback && has_all_bytes && plain_merges && plain_specials)
        {
            return None;
        }
        let pairs = |piece: &String| -> Vec<_> { piece.chars().zip(piece.chars().skip(1)).collect() };
        let neighbours = vocabulary.keys().flat_map(pairs).map(|(left, right)| (spaced(left), spaced(right))).collect();
        let longest_special = added.values().map(|token| token.content.len()).max().unwrap_or(0);
        Some(Self { neighbours, longest_special })
    }

    /// The text just before a boundary: at least one character, and room for a special token, which the tokenizer starts anew
    /// after.
    pub(super) fn before<'t>(&self, text: &'t str, boundary: usize) -> &'t str {
        let from = boundary.saturating_sub(self.longest_special.max(1));
        let from = (0..=from).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0);
        &text[from..boundary]
    }

    /// The first place at or after byte `from` where `text` can be cut, as a byte index inside the text; `None` if there is
    /// none before its end.
    pub(super) fn boundary(&self, text: &str, from: usize) -> Option<usize> {
        let from = (from.max(1)..text.len()).find(|index| text.is_char_boundary(*index))?;
        let mut left = text[..from].chars().next_back()?;
        for (offset, right) in text[from..].char_indices() {
            let index = from + offset;
            let pair = (spaced(left), spaced(right));
            if !self.neighbours.contains(&pair) {
                return Some(index);
            }
            left = right;
        }
        None
    }
}

fn spaced(character: char) -> char {
    if character == ' ' { SPACE } else { character }
}
