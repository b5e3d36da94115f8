//! One tokenized prompt.

use crate::error::{Error, ErrorKind, Result};

/// The token ids of a prompt, as a call with the same options would run them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tokens {
    /// The token ids, `<s>` first.
    pub ids: Vec<u32>,
    /// The number of leading ids that are not pooled; less than the number of ids.
    pub instruction_tokens: usize,
    /// Whether ids were cut off. For a text that just fills the row, that is only the closing `</s>`.
    pub truncated: bool,
}

/// A tokenized prompt of which something is left to pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoding(Tokens);

impl Encoding {
    /// # Errors
    /// [`ErrorKind::Input`] when the instruction leaves no token to pool: the pooled mean would be 0/0.
    pub(super) fn new(ids: Vec<u32>, instruction_tokens: usize, truncated: bool) -> Result<Self> {
        if instruction_tokens >= ids.len() {
            let (length, cut) = (ids.len(), if truncated { " after truncation" } else { "" });
            // Of an instruction that is far too long, only the start was counted.
            let count = if instruction_tokens > length { format!("more than {length}") } else { length.to_string() };
            return Err(Error::new(
                ErrorKind::Input,
                format!(
                    "the instruction has {count} tokens and the whole row {length}{cut}: nothing is left to pool; shorten the \
                     instruction or raise `max_length`"
                ),
            ));
        }
        Ok(Self(Tokens { ids, instruction_tokens, truncated }))
    }

    #[cfg(test)]
    pub(crate) fn for_test(ids: &[u32], instruction_tokens: usize) -> Self {
        Self(Tokens { ids: ids.to_vec(), instruction_tokens, truncated: false })
    }

    /// The token ids, `<s>` first.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.0.ids
    }

    /// The number of leading positions that are not pooled; less than the number of ids.
    pub(crate) fn instruction_tokens(&self) -> usize {
        self.0.instruction_tokens
    }

    /// Whether ids were cut off.
    pub(crate) fn truncated(&self) -> bool {
        self.0.truncated
    }

    pub(crate) fn into_tokens(self) -> Tokens {
        self.0
    }
}
