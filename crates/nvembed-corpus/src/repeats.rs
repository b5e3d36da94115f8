//! Texts that a part holds more than once, so that each is embedded once.
//!
//! Only within a part: a part depends on its rows alone, so that processes need not talk and an interruption changes nothing.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

/// The most bytes of embeddings that wait for the next row with the same text: what 65,536 rows of 4,096 f32 take, so with the
/// default rows of a part all fit.
const KEPT_BYTES: u64 = 1 << 30;

/// What stands for an instruction and a text: half of a SHA-256. Among 2²⁴ of them, two are equal by accident once in 2⁸¹ parts.
pub(crate) type Key = [u8; 16];

/// The key of an instruction and a text.
pub(crate) fn key(instruction: &str, text: &str) -> Key {
    let mut hasher = Sha256::new();
    // Where the text begins is a part of it.
    hasher.update((instruction.len() as u64).to_le_bytes());
    hasher.update(instruction);
    hasher.update(text);
    std::array::from_fn({
        let hash = hasher.finalize();
        move |index| hash[index]
    })
}

/// What is to be done for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Embed it; nothing follows from it.
    Once,
    /// Embed it, and keep the embedding for so many rows.
    First(Key, u32),
    /// An earlier row was the first.
    Again(Key),
}

/// The texts of a part that come more than once. What it says depends on the order of rows alone.
pub(crate) struct Repeats {
    texts: HashMap<Key, Text>,
    bytes_per_row: u64,
    /// Bytes of embeddings that may be kept beside those that are.
    room: u64,
}

#[derive(Default)]
struct Text {
    /// How many rows with it are still to come.
    rows: u32,
    is_kept: bool,
}

impl Repeats {
    pub(crate) fn new(bytes_per_row: u64) -> Self {
        // With what holds a row together.
        Self { texts: HashMap::new(), bytes_per_row: bytes_per_row + 128, room: KEPT_BYTES }
    }

    /// Counts the text of a row: first, all rows are counted.
    pub(crate) fn count(&mut self, key: Key) {
        self.texts.entry(key).or_default().rows += 1;
    }

    /// Forgets the texts that come once.
    pub(crate) fn counted(&mut self) {
        self.texts.retain(|_, text| text.rows > 1);
        self.texts.shrink_to_fit();
    }

    /// What is to be done for the next row: then, all rows are asked for in the same order.
    pub(crate) fn turn(&mut self, key: Key) -> Turn {
        let Some(text) = self.texts.get_mut(&key) else { return Turn::Once };
        text.rows -= 1;
        let (more, is_kept) = (text.rows, text.is_kept);
        if !is_kept && more > 0 && self.room >= self.bytes_per_row {
            self.room -= self.bytes_per_row;
            text.is_kept = true;
        }
        if more == 0 {
            self.texts.remove(&key);
            self.room += if is_kept { self.bytes_per_row } else { 0 };
        }
        match (is_kept, more) {
            (true, _) => Turn::Again(key),
            (false, 1..) if self.texts.get(&key).is_some_and(|text| text.is_kept) => Turn::First(key, more),
            (false, _) => Turn::Once,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(texts: &str, kept_rows: u64) -> String {
        let mut repeats = Repeats::new(0);
        repeats.room = kept_rows * repeats.bytes_per_row;
        let keys = || texts.chars().map(|text| key("", &text.to_string()));
        keys().for_each(|key| repeats.count(key));
        repeats.counted();
        let said = keys().map(|key| match repeats.turn(key) {
            Turn::Once => 'o',
            Turn::First(_, more) => char::from_digit(more, 10).unwrap(),
            Turn::Again(_) => '.',
        });
        let said = said.collect();
        assert_eq!(repeats.room, kept_rows * repeats.bytes_per_row, "all is given back");
        assert!(repeats.texts.is_empty());
        said
    }

    #[test]
    fn a_text_is_embedded_where_it_comes_first() {
        assert_eq!(turns("abcabdaa", 9), "31o..o..");
        assert_eq!(turns("", 9), "");
    }

    #[test]
    fn without_room_a_text_is_embedded_again() {
        assert_eq!(turns("abab", 1), "1o.o");
        // The room of a is free for the second b.
        assert_eq!(turns("abaxbb", 1), "1o.o1.");
        assert_eq!(turns("aaa", 0), "ooo");
    }

    #[test]
    fn an_instruction_belongs_to_the_text() {
        assert_ne!(key("ab", "c"), key("a", "bc"));
        assert_eq!(key("a", "b"), key("a", "b"));
    }
}
