//! A batch: the padded arrays that one run of the graph takes.

use ndarray::Array2;

use crate::tokenize::Encoding;

/// One run's input: three arrays `[B, S]`, padded on the right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    input_ids: Array2<i64>,
    attention_mask: Array2<i64>,
    pool_mask: Array2<i64>,
}

impl Batch {
    /// Pads encodings to the longest one.
    ///
    /// Each row of `pool_mask` has at least one 1, since an [`Encoding`] has more ids than instruction tokens.
    pub(crate) fn new(rows: &[&Encoding], pad_token_id: u32) -> Self {
        let longest = rows.iter().map(|row| row.ids().len()).max().unwrap_or(0);
        let shape = (rows.len(), longest);
        let mut input_ids = Array2::from_elem(shape, i64::from(pad_token_id));
        let mut attention_mask = Array2::zeros(shape);
        let mut pool_mask = Array2::zeros(shape);
        for (index, row) in rows.iter().enumerate() {
            for (position, id) in row.ids().iter().enumerate() {
                input_ids[[index, position]] = i64::from(*id);
                attention_mask[[index, position]] = 1;
                pool_mask[[index, position]] = i64::from(position >= row.instruction_tokens());
            }
        }
        Self { input_ids, attention_mask, pool_mask }
    }

    /// No rows: what a shape is warmed up with.
    pub(crate) fn empty() -> Self {
        Self::new(&[], 0)
    }

    /// Writes the three arrays one after the other into `out`, `[3, B, S]`, padded to `(rows, length)` = (B, S).
    ///
    /// A row beyond those of the batch is one pad token that is attended to and pooled, so that it does not divide by zero. No
    /// other row depends on it, and its output must be dropped.
    ///
    /// # Panics
    /// When the batch is larger than the shape, or `out` is not of its size.
    pub(crate) fn write_padded(&self, (rows, length): (usize, usize), pad_token_id: u32, out: &mut [i64]) {
        assert_eq!(out.len(), 3 * rows * length, "the buffer has another shape");
        let (used, longest) = self.shape();
        let blocks = [
            (&self.input_ids, i64::from(pad_token_id), i64::from(pad_token_id)),
            (&self.attention_mask, 0, 1),
            (&self.pool_mask, 0, 1),
        ];
        for (block, (array, padding, first_of_padding_row)) in out.chunks_exact_mut(rows * length).zip(blocks) {
            block.fill(padding);
            for (row, values) in block.chunks_exact_mut(length).enumerate() {
                if row < used {
                    values[..longest].iter_mut().zip(array.row(row)).for_each(|(to, from)| *to = *from);
                } else {
                    values[0] = first_of_padding_row;
                }
            }
        }
    }

    /// The arrays, by the names of the graph's inputs.
    pub(crate) fn inputs(&self) -> [(&'static str, &Array2<i64>); 3] {
        [("input_ids", &self.input_ids), ("attention_mask", &self.attention_mask), ("pool_mask", &self.pool_mask)]
    }

    /// (B, S).
    pub(crate) fn shape(&self) -> (usize, usize) {
        self.input_ids.dim()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_on_the_right_and_the_instruction_is_not_pooled() {
        let rows = [Encoding::for_test(&[1, 7, 8, 2], 2), Encoding::for_test(&[1, 2], 0)];
        let batch = Batch::new(&[&rows[0], &rows[1]], 2);
        assert_eq!(batch.input_ids, ndarray::array![[1, 7, 8, 2], [1, 2, 2, 2]]);
        assert_eq!(batch.attention_mask, ndarray::array![[1, 1, 1, 1], [1, 1, 0, 0]]);
        assert_eq!(batch.pool_mask, ndarray::array![[0, 0, 1, 1], [1, 1, 0, 0]]);
    }

    #[test]
    fn a_padded_batch_keeps_its_rows_and_every_other_row_pools_one_token() {
        let rows = [Encoding::for_test(&[1, 7, 8], 1), Encoding::for_test(&[1, 2], 0)];
        let batch = Batch::new(&[&rows[0], &rows[1]], 9);
        let mut out = [-1; 3 * 3 * 4];
        batch.write_padded((3, 4), 9, &mut out);
        assert_eq!(out[..12], [1, 7, 8, 9, 1, 2, 9, 9, 9, 9, 9, 9]);
        assert_eq!(out[12..24], [1, 1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0]);
        assert_eq!(out[24..], [0, 1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0]);
    }
}
