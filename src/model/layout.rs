//! The inputs of a graph: which arrays it takes, and how long they are.

/// How a graph takes the tokens of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Rows of one length, with padding that two masks mark.
    Padded,
    /// The tokens of all rows, one after the other. Attention alone sees padded rows, which the graph makes from two lists of
    /// indices; so every size is known from the inputs, as CUDA graphs need it.
    Packed,
}

/// One input of a graph, int64.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) name: &'static str,
    pub(crate) axes: &'static [Axis],
}

/// A free dimension of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    /// B, the rows.
    Batch,
    /// S, the length of a padded row.
    Sequence,
    /// T, the tokens of all rows, and what they are padded with.
    Tokens,
}

impl Axis {
    /// Its name in graphs and manifests.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Sequence => "sequence",
            Self::Tokens => "tokens",
        }
    }
}

impl Layout {
    /// The inputs, in the graph's order.
    pub(crate) fn inputs(self) -> &'static [Input] {
        const ROWS: &[Axis] = &[Axis::Batch, Axis::Sequence];
        const TOKENS: &[Axis] = &[Axis::Tokens];
        match self {
            Self::Padded => {
                &[
                    Input { name: "input_ids", axes: ROWS },
                    // 1 for a token, 0 for padding.
                    Input { name: "attention_mask", axes: ROWS },
                    // 1 for a token that the mean is taken over.
                    Input { name: "pool_mask", axes: ROWS },
                ]
            }
            Self::Packed => {
                &[
                    Input { name: "input_ids", axes: TOKENS },
                    // The token's position in its row.
                    Input { name: "position_ids", axes: TOKENS },
                    Input { name: "pool_mask", axes: TOKENS },
                    // The token's row.
                    Input { name: "row_ids", axes: TOKENS },
                    // For each position of the padded rows, the index of its token; for padding that of any token.
                    Input { name: "token_of_position", axes: ROWS },
                    // For each token, its index in the padded rows, one after the other.
                    Input { name: "position_of_token", axes: TOKENS },
                    // The number of tokens in each row.
                    Input { name: "row_lengths", axes: &[Axis::Batch] },
                ]
            }
        }
    }
}
