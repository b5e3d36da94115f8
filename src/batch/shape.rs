//! The size of a batch.

use std::fmt;

use crate::model::{Axis, Input, Layout};

/// How many rows a batch has, how long they are, and how many tokens there are in all.
///
/// Of a batch, this is what it needs. Of a run, it is the room that the run's arrays have, which may be more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    /// B.
    pub(crate) rows: usize,
    /// S, the longest row's tokens.
    pub(crate) length: usize,
    /// T, the tokens of all rows. Padded arrays have room for B · S.
    pub(crate) tokens: usize,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, length, tokens } = self;
        write!(f, "{rows} rows of {length} tokens")?;
        if *tokens == self.positions() { Ok(()) } else { write!(f, ", {tokens} in all") }
    }
}

impl Shape {
    /// The shape of padded rows.
    pub(crate) fn padded(rows: usize, length: usize) -> Self {
        Self { rows, length, tokens: rows * length }
    }

    /// How many positions padded rows of this shape have.
    pub(crate) fn positions(self) -> usize {
        self.rows.saturating_mul(self.length)
    }

    /// The dimensions of an input.
    pub(crate) fn of(self, input: &Input) -> Vec<usize> {
        let size = |axis: &Axis| match axis {
            Axis::Batch => self.rows,
            Axis::Sequence => self.length,
            Axis::Tokens => self.tokens,
        };
        input.axes.iter().map(size).collect()
    }

    /// How many numbers all inputs of a layout have together.
    pub(crate) fn numbers(self, layout: Layout) -> usize {
        layout.inputs().iter().map(|input| self.of(input).iter().product::<usize>()).sum()
    }

    /// Whether a batch of shape `other` fits into a run of this one.
    pub(crate) fn holds(self, other: Self) -> bool {
        other.rows <= self.rows && other.length <= self.length && other.tokens <= self.tokens
    }
}
