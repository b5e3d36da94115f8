//! The few shapes that batches are padded to on a GPU, so that buffers and CUDA graphs can be made once and used again.

use crate::error::{Error, ErrorKind, Result};
use crate::options::in_range;

/// The most lengths, or row counts, that may be given.
const MAX_BUCKETS: usize = 256;
/// The longest row count that the default has.
const MAX_DEFAULT_BATCH: usize = 64;
/// The shortest length that the default has.
const SHORTEST: usize = 16;

/// The lengths and row counts that batches are padded to: each batch gets the smallest of both that holds it.
///
/// Both lists rise. Empty lists, the default, stand for lengths of 16, 32, 48, 64, 96, 128, 192 … up to the model's limit,
/// each a half or a third more than the one before, and for 1, 2, 4 … 64 rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Buckets {
    /// Row lengths S in token ids. A longer text is an error.
    pub sequence: Vec<usize>,
    /// Row counts B.
    pub batch: Vec<usize>,
}

impl Buckets {
    /// The lists in force for a model that takes rows of `max_length`.
    ///
    /// # Errors
    /// [`ErrorKind::Option`] when a list does not rise, or holds 0 or a length over the model's limit.
    pub(crate) fn resolve(&self, max_length: usize) -> Result<Self> {
        let sequence = if self.sequence.is_empty() { default_lengths(max_length) } else { self.sequence.clone() };
        let batch = if self.batch.is_empty() { default_rows() } else { self.batch.clone() };
        for (name, list, limit) in [("sequence", &sequence, max_length), ("batch", &batch, 1 << 20)] {
            in_range(&format!("the number of {name} buckets"), list.len(), 1, MAX_BUCKETS)?;
            for size in list {
                in_range(&format!("a {name} bucket"), *size, 1, limit)?;
            }
            if !list.is_sorted_by(|one, next| one < next) {
                return Err(Error::new(ErrorKind::Option, format!("the {name} buckets {list:?} do not rise")));
            }
        }
        Ok(Self { sequence, batch })
    }

    /// The longest row that has a bucket.
    pub(crate) fn max_length(&self) -> usize {
        self.sequence.last().copied().unwrap_or(0)
    }

    /// The (B, S) that `rows` rows of at most `length` ids are padded to; `None` when they are too many or too long.
    pub(crate) fn shape(&self, rows: usize, length: usize) -> Option<(usize, usize)> {
        Some((at_least(&self.batch, rows)?, at_least(&self.sequence, length)?))
    }

    /// How many rows of `length` ids a batch takes such that its padded shape is within both limits; one bucket is
    /// always allowed.
    pub(crate) fn max_rows(&self, length: usize, max_tokens: usize, max_rows: usize) -> usize {
        let Some(padded) = at_least(&self.sequence, length) else { return 1 };
        let fits = |rows: &&usize| **rows <= max_rows && rows.saturating_mul(padded) <= max_tokens;
        self.batch.iter().rev().find(fits).or(self.batch.first()).copied().unwrap_or(1)
    }

    /// Every shape that batches within these limits are padded to, the largest first.
    pub(crate) fn shapes(&self, max_tokens: usize, max_rows: usize) -> Vec<(usize, usize)> {
        let of_length = |length: &usize| {
            let most = self.max_rows(*length, max_tokens, max_rows);
            let length = *length;
            self.batch.iter().take_while(move |rows| **rows <= most).map(move |rows| (*rows, length))
        };
        let mut shapes: Vec<_> = self.sequence.iter().flat_map(of_length).collect();
        shapes.sort_by_key(|(rows, length)| std::cmp::Reverse((rows * length, *length)));
        shapes
    }
}

fn at_least(list: &[usize], wanted: usize) -> Option<usize> {
    list.get(list.partition_point(|size| *size < wanted)).copied()
}

/// 16, 32, 48, 64, 96, 128 … : powers of two and one and a half times each, up to and with the limit.
fn default_lengths(max_length: usize) -> Vec<usize> {
    let mut lengths = Vec::new();
    let mut power = SHORTEST;
    while power < max_length {
        lengths.push(power);
        if power > SHORTEST && power + power / 2 < max_length {
            lengths.push(power + power / 2);
        }
        power *= 2;
    }
    lengths.push(max_length);
    lengths
}

fn default_rows() -> Vec<usize> {
    std::iter::successors(Some(1), |rows| Some(rows * 2)).take_while(|rows| *rows <= MAX_DEFAULT_BATCH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(sequence: &[usize], batch: &[usize]) -> Buckets {
        Buckets { sequence: sequence.to_vec(), batch: batch.to_vec() }
    }

    #[test]
    fn the_default_reaches_from_16_to_the_models_limit() {
        let resolved = Buckets::default().resolve(512).unwrap();
        assert_eq!(resolved, buckets(&[16, 32, 48, 64, 96, 128, 192, 256, 384, 512], &[1, 2, 4, 8, 16, 32, 64]));
        assert_eq!(Buckets::default().resolve(100).unwrap().sequence, [16, 32, 48, 64, 96, 100]);
        assert_eq!(Buckets::default().resolve(7).unwrap().sequence, [7]);
        assert_eq!(Buckets::default().resolve(32_768).unwrap().max_length(), 32_768);
    }

    #[test]
    fn a_batch_gets_the_smallest_shape_that_holds_it() {
        let buckets = buckets(&[16, 32, 128], &[1, 4, 8]);
        for (rows, length, shape) in [
            (1, 1, Some((1, 16))),
            (1, 16, Some((1, 16))),
            (2, 17, Some((4, 32))),
            (8, 128, Some((8, 128))),
            (9, 16, None),
            (1, 129, None),
        ] {
            assert_eq!(buckets.shape(rows, length), shape, "{rows} rows of {length}");
        }
    }

    #[test]
    fn no_shape_is_over_the_limits_but_the_smallest_of_a_length() {
        let buckets = buckets(&[16, 100, 1000], &[2, 4, 8]);
        assert_eq!(buckets.max_rows(16, 128, 8), 8);
        assert_eq!(buckets.max_rows(17, 400, 8), 4);
        assert_eq!(buckets.max_rows(16, 128, 5), 4);
        assert_eq!(buckets.max_rows(1000, 128, 8), 2);
        let shapes = buckets.shapes(400, 8);
        assert_eq!(shapes, [(2, 1000), (4, 100), (2, 100), (8, 16), (4, 16), (2, 16)]);
        for (rows, length) in [(1, 3), (4, 90), (3, 16), (8, 2), (1, 1000)] {
            let rows = rows.min(buckets.max_rows(length, 400, 8));
            assert!(shapes.contains(&buckets.shape(rows, length).unwrap()), "{rows} rows of {length}");
        }
    }

    #[test]
    fn bad_lists_are_refused_by_name() {
        for (list, wanted) in [
            (buckets(&[32, 16], &[]), "sequence buckets [32, 16] do not rise"),
            (buckets(&[16, 16], &[]), "do not rise"),
            (buckets(&[0, 16], &[]), "a sequence bucket is 0"),
            (buckets(&[1024], &[]), "a sequence bucket is 1024, allowed are 1 to 512"),
            (buckets(&[], &[0]), "a batch bucket is 0"),
            (buckets(&[], &(1..=257).collect::<Vec<_>>()), "number of batch buckets is 257"),
        ] {
            let error = list.resolve(512).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Option);
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }
}
