//! A batch: the rows that run together, and the arrays that one run of the graph takes.

use super::Shape;
use crate::model::Layout;
use crate::tokenize::Encoding;

/// The token ids of some rows, and where each row and its pooled part begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The ids of all rows, one after the other.
    ids: Vec<u32>,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    tokens: usize,
    /// Leading tokens that are not pooled; fewer than `tokens`, as an [`Encoding`] promises.
    instruction_tokens: usize,
}

impl Batch {
    pub(crate) fn new(encodings: &[&Encoding]) -> Self {
        let rows = encodings
            .iter()
            .map(|encoding| Row { tokens: encoding.ids().len(), instruction_tokens: encoding.instruction_tokens() });
        Self { rows: rows.collect(), ids: encodings.iter().flat_map(|encoding| encoding.ids()).copied().collect() }
    }

    /// No rows: what a shape is warmed up with.
    pub(crate) fn empty() -> Self {
        Self::new(&[])
    }

    /// What the batch needs.
    pub(crate) fn shape(&self) -> Shape {
        let length = self.rows.iter().map(|row| row.tokens).max().unwrap_or(0);
        Shape { rows: self.rows.len(), length, tokens: self.ids.len() }
    }

    /// Writes all inputs of the layout into `out`, one after the other, for a run of `shape`; [`Shape::numbers`] says how many
    /// numbers that are.
    ///
    /// A row beyond those of the batch is made so that it divides by zero nowhere. No other row depends on it, and its
    /// output must be dropped.
    ///
    /// # Panics
    /// When the batch does not fit the shape, or `out` is not of its size.
    pub(crate) fn write(&self, layout: Layout, shape: Shape, pad_token_id: u32, out: &mut [i64]) {
        assert!(shape.holds(self.shape()), "{:?} does not fit {shape:?}", self.shape());
        assert_eq!(out.len(), shape.numbers(layout), "the buffer has another size");
        match layout {
            Layout::Padded => self.write_padded(shape, pad_token_id, out),
            Layout::Packed => self.write_packed(shape, pad_token_id, out),
        }
    }

    /// Three arrays [B, S], padded on the right. A row of padding is one pad token that is attended to and pooled.
    fn write_padded(&self, shape: Shape, pad_token_id: u32, out: &mut [i64]) {
        let (input_ids, masks) = out.split_at_mut(shape.positions());
        let (attention_mask, pool_mask) = masks.split_at_mut(shape.positions());
        input_ids.fill(i64::from(pad_token_id));
        attention_mask.fill(0);
        pool_mask.fill(0);
        for (number, row, ids) in self.rows() {
            let start = number * shape.length;
            for (to, id) in input_ids[start..].iter_mut().zip(ids) {
                *to = i64::from(*id);
            }
            attention_mask[start..start + row.tokens].fill(1);
            pool_mask[start + row.instruction_tokens..start + row.tokens].fill(1);
        }
        for row in self.rows.len()..shape.rows {
            attention_mask[row * shape.length] = 1;
            pool_mask[row * shape.length] = 1;
        }
    }

    /// The arrays of [`Layout::Packed`]. Tokens of padding are not pooled, and belong to the first position of the first row,
    /// whose result they repeat. A row of padding has one token, the first one; nothing of it is pooled.
    fn write_packed(&self, shape: Shape, pad_token_id: u32, out: &mut [i64]) {
        let Shape { tokens, rows, .. } = shape;
        let (input_ids, rest) = out.split_at_mut(tokens);
        let (position_ids, rest) = rest.split_at_mut(tokens);
        let (pool_mask, rest) = rest.split_at_mut(tokens);
        let (row_ids, rest) = rest.split_at_mut(tokens);
        let (token_of_position, rest) = rest.split_at_mut(shape.positions());
        let (position_of_token, row_lengths) = rest.split_at_mut(tokens);
        input_ids.fill(i64::from(pad_token_id));
        for array in [&mut *position_ids, &mut *pool_mask, &mut *row_ids, token_of_position, &mut *position_of_token] {
            array.fill(0);
        }
        row_lengths[self.rows.len()..rows].fill(1);
        let mut token = 0;
        for (number, row, ids) in self.rows() {
            for (position, id) in ids.iter().enumerate() {
                let at = number * shape.length + position;
                input_ids[token] = i64::from(*id);
                position_ids[token] = position as i64;
                pool_mask[token] = i64::from(position >= row.instruction_tokens);
                row_ids[token] = number as i64;
                token_of_position[at] = token as i64;
                position_of_token[token] = at as i64;
                token += 1;
            }
            row_lengths[number] = row.tokens as i64;
        }
    }

    /// Each row with its number and its ids.
    fn rows(&self) -> impl Iterator<Item = (usize, Row, &[u32])> {
        let mut rest = self.ids.as_slice();
        self.rows.iter().enumerate().map(move |(number, row)| {
            let (ids, others) = rest.split_at(row.tokens);
            rest = others;
            (number, *row, ids)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(rows: &[(&[u32], usize)]) -> Batch {
        let rows: Vec<_> = rows.iter().map(|(ids, instruction)| Encoding::for_test(ids, *instruction)).collect();
        Batch::new(&rows.iter().collect::<Vec<_>>())
    }

    /// Each input by its name, as a run of that shape gets it.
    fn written(batch: &Batch, layout: Layout, shape: Shape, pad: u32) -> Vec<(&'static str, Vec<i64>)> {
        let mut out = vec![-1; shape.numbers(layout)];
        batch.write(layout, shape, pad, &mut out);
        let mut rest = out.as_slice();
        let mut of_input = |input: &crate::model::Input| {
            let (numbers, others) = rest.split_at(shape.of(input).iter().product());
            rest = others;
            (input.name, numbers.to_vec())
        };
        let inputs = layout.inputs().iter().map(&mut of_input).collect();
        assert!(rest.is_empty());
        inputs
    }

    #[test]
    fn rows_are_padded_on_the_right_and_the_instruction_is_not_pooled() {
        let batch = batch(&[(&[1, 7, 8, 2], 2), (&[1, 2], 0)]);
        assert_eq!(batch.shape(), Shape { rows: 2, length: 4, tokens: 6 });
        assert_eq!(
            written(&batch, Layout::Padded, Shape::padded(2, 4), 9),
            [
                ("input_ids", vec![1, 7, 8, 2, 1, 2, 9, 9]),
                ("attention_mask", vec![1, 1, 1, 1, 1, 1, 0, 0]),
                ("pool_mask", vec![0, 0, 1, 1, 1, 1, 0, 0]),
            ]
        );
    }

    #[test]
    fn a_padded_batch_keeps_its_rows_and_every_other_row_pools_one_token() {
        let batch = batch(&[(&[1, 7, 8], 1), (&[1, 2], 0)]);
        assert_eq!(
            written(&batch, Layout::Padded, Shape::padded(3, 4), 9),
            [
                ("input_ids", vec![1, 7, 8, 9, 1, 2, 9, 9, 9, 9, 9, 9]),
                ("attention_mask", vec![1, 1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0]),
                ("pool_mask", vec![0, 1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0]),
            ]
        );
    }

    #[test]
    fn packed_tokens_know_their_row_and_their_position_in_the_padded_rows() {
        let batch = batch(&[(&[1, 7, 8], 2), (&[1, 2], 0)]);
        let packed = |shape| written(&batch, Layout::Packed, shape, 9);
        assert_eq!(
            packed(batch.shape()),
            [
                ("input_ids", vec![1, 7, 8, 1, 2]),
                ("position_ids", vec![0, 1, 2, 0, 1]),
                ("pool_mask", vec![0, 0, 1, 1, 1]),
                ("row_ids", vec![0, 0, 0, 1, 1]),
                ("token_of_position", vec![0, 1, 2, 3, 4, 0]),
                ("position_of_token", vec![0, 1, 2, 3, 4]),
                ("row_lengths", vec![3, 2]),
            ]
        );
        // Two tokens, one row and one position more than the batch has.
        assert_eq!(
            packed(Shape { rows: 3, length: 4, tokens: 7 }),
            [
                ("input_ids", vec![1, 7, 8, 1, 2, 9, 9]),
                ("position_ids", vec![0, 1, 2, 0, 1, 0, 0]),
                ("pool_mask", vec![0, 0, 1, 1, 1, 0, 0]),
                ("row_ids", vec![0, 0, 0, 1, 1, 0, 0]),
                ("token_of_position", vec![0, 1, 2, 0, 3, 4, 0, 0, 0, 0, 0, 0]),
                ("position_of_token", vec![0, 1, 2, 4, 5, 0, 0]),
                ("row_lengths", vec![3, 2, 1]),
            ]
        );
    }
}
