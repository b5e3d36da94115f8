//! Where a long text can be cut without changing the tokens before the cut.
//!
//! A byte-pair tokenizer without pre-tokenization, such as Mistral's, merges neighbours anywhere in a text, so in general a
//! token depends on the whole text. But every merge produces a piece of the vocabulary. If no piece contains the characters x
//! and y next to each other, no merge can span a place where x is followed by y, and what is on the left of that place is
//! tokenized as if the right were not there. Mistral's vocabulary has about 3,000 pairs of neighbours, none of them a space to
//! the right of another character, so in ordinary text every word starts at such a place.
//!
//! A stretch without one, such as a million spaces, is cut where more than two characters show that it can be
//! ([`Cutter::settled`]). Two facts about byte-pair encoding, which always merges the pair of least rank, the leftmost of equal
//! ones:
//!
//! 1. Where two tokens of a text's encoding meet, the tokens on either side are the encoding of that side alone: no merge spanned
//!    the place, so those of each side were made in the order of that side alone. So neighbouring tokens of an encoding are the
//!    encoding of their two strings together.
//! 2. The reverse: a sequence of tokens, each of which is the encoding of its string, and any two neighbours that of theirs, is the
//!    encoding of the whole. Otherwise consider the first merge that spans a place between two tokens. All merges before it within
//!    these two would be made for the two alone as well, and this one next, but their encoding has that place.
//!
//! Let t be a token in the encoding of the start of a text. What follows is not known, but the encoding of the whole from t on
//! has a place between tokens in any stretch as long as the longest piece, one of the last places of the start. If the text from
//! t to each of these places begins with the token t, so does the whole from t on (1), and what is before t stays as it is (2).

use std::collections::HashSet;

use tokenizers::{Model, ModelWrapper, Tokenizer};

/// The character that Mistral's normalizer turns spaces into.
const SPACE: char = '\u{2581}';

/// Finds the places where a text can be cut.
pub(super) struct Cutter {
    /// Characters that are next to each other in a piece of the vocabulary, or in a special token: special tokens are found
    /// before anything else, and must not be cut in two either.
    neighbours: HashSet<(char, char)>,
    /// The special tokens.
    specials: HashSet<u32>,
    special_texts: Vec<String>,
    /// The bytes of the longest special token.
    longest_special: usize,
    /// Whether one special token may begin in another one.
    specials_overlap: bool,
    /// The characters of the longest piece or special token.
    longest_piece: usize,
}

/// Where a text can be cut at or after a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// At this byte, whatever is around.
    Safe(usize),
    /// Nowhere near. This byte begins a character.
    Unknown(usize),
    /// Only at its end, which is near.
    End,
}

/// The start of a text that stays as it is, whatever follows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// The number of its ids.
    pub(super) ids: usize,
    /// Its end in the text, in bytes.
    pub(super) end: usize,
    /// Whether it ends with a special token, behind which the tokenizer starts anew.
    pub(super) is_special: bool,
}

/// How many characters are searched for a place where two neighbours allow to cut.
const SCANNED: usize = 1024;
/// How often a token is looked for that stays, each time twice as far from the end.
const TRIES: u32 = 8;

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
        let special_texts: Vec<String> = added.values().map(|token| token.content.clone()).collect();
        let longest_special = special_texts.iter().map(String::len).max().unwrap_or(0);
        let specials_overlap = special_texts.iter().any(|one| special_texts.iter().any(|other| overlap(one, other)));
        let pieces = vocabulary.keys().filter(|piece| !piece.starts_with("<0x"));
        let longest_piece = pieces.chain(&special_texts).map(|piece| piece.chars().count()).max().unwrap_or(1);
        let specials = added.keys().copied().collect();
        Some(Self { neighbours, specials, special_texts, longest_special, specials_overlap, longest_piece })
    }

    /// The start of `text`, whose ids end with `ids`, that stays as it is whatever follows; `None` when nothing near its end shows
    /// where that start ends. `parses` says whether special tokens are read as such.
    pub(super) fn settled(&self, tokenizer: &Tokenizer, text: &str, ids: &[u32], parses: bool) -> Option<Settled> {
        let specials = if parses { self.special_ends(text) } else { Vec::new() };
        let segment = specials.last().copied().unwrap_or(0);
        // The places one of which is between tokens of the whole.
        let ends: Vec<usize> =
            (0..=text.len()).rev().filter(|end| text.is_char_boundary(*end)).take(self.longest_piece).collect();
        let mut distance = 2 * self.longest_piece;
        let farthest = distance << TRIES;
        let (mut start, mut characters) = (text.len(), 0);
        for (index, id) in ids.iter().enumerate().rev() {
            let Some((before, count)) = self.before_token(tokenizer, text, start, *id) else { break };
            (start, characters) = (before, characters + count);
            if start <= segment || characters > farthest || index == 0 {
                break;
            }
            if characters < distance || !text.is_char_boundary(start) {
                continue;
            }
            let stays = |end: &usize| first_token(tokenizer, &text[start..*end]) == Some(*id);
            if ends.iter().all(stays) {
                return Some(Settled { ids: index, end: start, is_special: false });
            }
            distance = characters * 2;
        }
        self.settled_by_special(text, ids, &specials)
    }

    /// The start up to a special token that no longer one can begin in.
    fn settled_by_special(&self, text: &str, ids: &[u32], ends: &[usize]) -> Option<Settled> {
        if self.specials_overlap {
            return None;
        }
        let far = ends.iter().rev().position(|end| end + self.longest_special <= text.len())?;
        let mut special = (0..ids.len()).rev().filter(|index| self.specials.contains(&ids[*index]));
        let ids = special.nth(far)? + 1;
        Some(Settled { ids, end: ends[ends.len() - 1 - far], is_special: true })
    }

    /// Where a token begins in the text that ends with it, in bytes, and its characters; `None` if the text does not end so: at
    /// the start of a text, the tokenizer adds a space.
    fn before_token(&self, tokenizer: &Tokenizer, text: &str, end: usize, id: u32) -> Option<(usize, usize)> {
        if self.specials.contains(&id) {
            return None;
        }
        let piece = tokenizer.id_to_token(id)?;
        if piece.starts_with("<0x") {
            // A byte of a character that has no piece; the first of its bytes counts it.
            let start = end.checked_sub(1)?;
            return Some((start, usize::from(text.is_char_boundary(start))));
        }
        let mut before = text[..end].chars();
        for wanted in piece.chars().rev() {
            before.next_back().filter(|found| spaced(*found) == wanted)?;
        }
        Some((before.as_str().len(), piece.chars().count()))
    }

    /// Where each special token of a text ends.
    fn special_ends(&self, text: &str) -> Vec<usize> {
        let mut ends = Vec::new();
        let mut from = 0;
        while let Some((start, length)) = self.first_special(&text[from..]) {
            from += start + length;
            ends.push(from);
        }
        ends
    }

    /// The first special token of a text: where it begins, and its bytes. Of several at one place the longest, as the tokenizer
    /// has it.
    pub(super) fn first_special(&self, text: &str) -> Option<(usize, usize)> {
        let found = self.special_texts.iter().filter_map(|special| Some((text.find(special.as_str())?, special.len())));
        found.min_by_key(|(start, length)| (*start, usize::MAX - length))
    }

    /// The last place before byte `to` where `text` can be cut; `None` if there is none behind its start.
    pub(super) fn last_boundary(&self, text: &str, to: usize) -> Option<usize> {
        let mut places = text[..to].char_indices().rev();
        let mut right = places.next()?;
        for left in places {
            if !self.neighbours.contains(&(spaced(left.1), spaced(right.1))) {
                return Some(right.0);
            }
            right = left;
        }
        None
    }

    /// The text just before a boundary: at least one character, and room for a special token, which the tokenizer starts anew
    /// after.
    pub(super) fn before<'t>(&self, text: &'t str, boundary: usize) -> &'t str {
        let from = boundary.saturating_sub(self.longest_special.max(1));
        let from = (0..=from).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0);
        &text[from..boundary]
    }

    /// Where `text` can be cut at or after byte `from`, inside the text.
    pub(super) fn cut(&self, text: &str, from: usize) -> Cut {
        let Some(from) = (from.max(1)..text.len()).find(|index| text.is_char_boundary(*index)) else { return Cut::End };
        let Some(mut left) = text[..from].chars().next_back() else { return Cut::End };
        let mut last = from;
        for (offset, right) in text[from..].char_indices().take(SCANNED) {
            last = from + offset;
            if !self.neighbours.contains(&(spaced(left), spaced(right))) {
                return Cut::Safe(last);
            }
            left = right;
        }
        if last + left.len_utf8() < text.len() { Cut::Unknown(last) } else { Cut::End }
    }
}

/// The first token of a text that does not start one.
fn first_token(tokenizer: &Tokenizer, text: &str) -> Option<u32> {
    Some(tokens_inside(tokenizer, text).ok()?.first()?.to_owned())
}

/// The ids of a part of a text that is not its start and has no special token.
pub(super) fn tokens_inside(tokenizer: &Tokenizer, text: &str) -> tokenizers::Result<Vec<u32>> {
    let text: String = text.chars().map(spaced).collect();
    Ok(tokenizer.get_model().tokenize(&text)?.iter().map(|token| token.id).collect())
}

/// Whether a text may have both special tokens at places that have bytes in common.
fn overlap(one: &str, other: &str) -> bool {
    let inside = one != other && one.contains(other);
    inside || (1..one.len().min(other.len())).any(|bytes| one.as_bytes().ends_with(&other.as_bytes()[..bytes]))
}

fn spaced(character: char) -> char {
    if character == ' ' { SPACE } else { character }
}
