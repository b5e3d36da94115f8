//! Prompts to token ids and the lengths that the masks are made of.
//!
//! What is tokenized is `instruction + text + "</s>"` as one string, with `<s>` in front, cut on the right to the row limit.
//! The instruction's length is that of the instruction tokenized alone, without `<s>`. NV-Embed leaves that many leading
//! positions out of the pooling, not the instruction's length in context: alone, its trailing space is a token of its own,
//! which makes up for the `<s>` that is not counted.

mod cut;
mod encoding;
mod tokenizer;

pub use encoding::Tokens;

pub(crate) use encoding::Encoding;
pub(crate) use tokenizer::{Limits, Tokenizer};
