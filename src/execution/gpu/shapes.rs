//! The few shapes that batches are padded to on a GPU, so that buffers and CUDA graphs are made once and reused.

use crate::error::{Error, ErrorKind, Result, in_range};
use crate::model::Manifest;
use crate::options::ModelOptions;

/// The most sequence or batch buckets that may be given.
const MAX_BUCKETS: usize = 256;
/// The largest row count in the default.
const MAX_DEFAULT_BATCH: usize = 64;
/// The shortest length in the default.
const SHORTEST: usize = 16;
/// The longest row that TensorRT engines are built for by default: they reserve memory for their largest shape.
const ENGINE_LENGTH: usize = 512;
/// The shape that TensorRT tunes an engine for, where the buckets have it: eight short passages.
const TYPICAL: (usize, usize) = (8, 128);

/// The buckets in force: a batch is padded to the smallest sequence bucket and the smallest batch bucket that hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shapes {
    /// Row lengths S in token ids, increasing.
    sequence: Vec<usize>,
    /// Row counts B, increasing.
    batch: Vec<usize>,
}

impl Shapes {
    /// The buckets of the options, or the default ones, for a model.
    ///
    /// # Errors
    /// [`ErrorKind::Option`] when buckets are not strictly increasing, or one is 0 or beyond the model's limit.
    pub(crate) fn new(options: &ModelOptions, manifest: &Manifest) -> Result<Self> {
        let (sequence, batch) = (&options.gpu.sequence_buckets, &options.gpu.batch_buckets);
        let longest_default = if options.provider.builds_engines() { ENGINE_LENGTH } else { usize::MAX };
        Self::of_buckets(sequence, batch, manifest.max_length(), longest_default)
    }

    fn of_buckets(sequence: &[usize], batch: &[usize], max_length: usize, longest_default: usize) -> Result<Self> {
        let sequence =
            if sequence.is_empty() { default_lengths(max_length.min(longest_default)) } else { sequence.to_vec() };
        let batch = if batch.is_empty() { default_rows() } else { batch.to_vec() };
        for (name, list, limit) in [("sequence_buckets", &sequence, max_length), ("batch_buckets", &batch, 1 << 20)] {
            in_range(&format!("the number of `{name}`"), list.len(), 1, MAX_BUCKETS)?;
            for size in list {
                in_range(&format!("each of `{name}`"), *size, 1, limit)?;
            }
            if !list.is_sorted_by(|one, next| one < next) {
                let message = format!("`{name}` must be strictly increasing, got {list:?}");
                return Err(Error::new(ErrorKind::Option, message));
            }
        }
        Ok(Self { sequence, batch })
    }

    /// Smallest, typical and largest shape, for a TensorRT profile.
    pub(crate) fn profile(&self) -> [(usize, usize); 3] {
        let ends = |list: &[usize], typical: usize| {
            let first = list.first().copied().unwrap_or(1);
            let last = list.last().copied().unwrap_or(1);
            [first, typical.clamp(first, last), last]
        };
        let (rows, lengths) = (ends(&self.batch, TYPICAL.0), ends(&self.sequence, TYPICAL.1));
        [0, 1, 2].map(|index| (rows[index], lengths[index]))
    }

    /// The longest row that has a bucket.
    pub(crate) fn max_length(&self) -> usize {
        self.sequence.last().copied().unwrap_or(0)
    }

    /// The (B, S) that `rows` rows of at most `length` ids are padded to; `None` when there are too many or they are too long.
    pub(crate) fn shape(&self, rows: usize, length: usize) -> Option<(usize, usize)> {
        Some((at_least(&self.batch, rows)?, at_least(&self.sequence, length)?))
    }

    /// How many positions a batch has when it is padded; without a shape that holds it, those of the batch itself.
    pub(crate) fn positions(&self, rows: usize, length: usize) -> usize {
        let (rows, length) = self.shape(rows, length).unwrap_or((rows, length));
        rows * length
    }

    /// How many rows of `length` ids a batch takes so that its padded shape is within both limits; the smallest batch bucket
    /// is always allowed.
    pub(crate) fn max_rows(&self, length: usize, max_tokens: usize, max_rows: usize) -> usize {
        let Some(padded) = at_least(&self.sequence, length) else { return 1 };
        let fits = |rows: &&usize| **rows <= max_rows && rows.saturating_mul(padded) <= max_tokens;
        self.batch.iter().rev().find(fits).or(self.batch.first()).copied().unwrap_or(1)
    }

    /// Every shape that batches within these limits can be padded to, the largest first.
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

/// 16, 32, 48, 64, 96, 128 …: powers of two and one and a half times each, up to and including the limit.
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
    use crate::batch::{Plan, RUN_COST_ON_GPU, Shape, mixed_lengths};

    fn shapes(sequence: &[usize], batch: &[usize]) -> Shapes {
        resolve(sequence, batch, 1 << 20).unwrap()
    }

    fn resolve(sequence: &[usize], batch: &[usize], max_length: usize) -> Result<Shapes> {
        Shapes::of_buckets(sequence, batch, max_length, usize::MAX)
    }

    #[test]
    fn the_default_reaches_from_16_to_the_models_limit() {
        let lengths = |max_length| resolve(&[], &[], max_length).unwrap().sequence;
        assert_eq!(lengths(512), [16, 32, 48, 64, 96, 128, 192, 256, 384, 512]);
        assert_eq!(lengths(100), [16, 32, 48, 64, 96, 100]);
        assert_eq!(lengths(7), [7]);
        assert_eq!(resolve(&[], &[], 32_768).unwrap().max_length(), 32_768);
        assert_eq!(resolve(&[], &[], 7).unwrap().batch, [1, 2, 4, 8, 16, 32, 64]);
    }

    #[test]
    fn engines_end_at_512_ids_unless_longer_buckets_are_given() {
        let longest =
            |sequence: &[usize]| Shapes::of_buckets(sequence, &[], 32_768, ENGINE_LENGTH).unwrap().max_length();
        assert_eq!((longest(&[]), longest(&[1024])), (512, 1024));
    }

    #[test]
    fn a_tensorrt_profile_spans_the_buckets() {
        assert_eq!(shapes(&[16, 64, 512], &[1, 32]).profile(), [(1, 16), (8, 128), (32, 512)]);
        assert_eq!(shapes(&[64], &[2]).profile(), [(2, 64), (2, 64), (2, 64)]);
    }

    #[test]
    fn a_batch_gets_the_smallest_shape_that_holds_it() {
        let buckets = shapes(&[16, 32, 128], &[1, 4, 8]);
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
        let buckets = shapes(&[16, 100, 1000], &[2, 4, 8]);
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
        let too_many: Vec<usize> = (1..=257).collect();
        for (sequence, batch, wanted) in [
            (&[32, 16][..], &[][..], "`sequence_buckets` must be strictly increasing, got [32, 16]"),
            (&[16, 16], &[], "must be strictly increasing"),
            (&[0, 16], &[], "each of `sequence_buckets` must be 1 to 512, got 0"),
            (&[1024], &[], "each of `sequence_buckets` must be 1 to 512, got 1024"),
            (&[], &[0], "each of `batch_buckets` must be"),
            (&[], &too_many, "the number of `batch_buckets` must be 1 to 256, got 257"),
        ] {
            let error = resolve(sequence, batch, 512).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Option);
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }

    #[test]
    fn the_plan_accounts_for_bucket_padding() {
        let buckets = shapes(&[16, 64, 512], &[1, 4, 16]);
        let cost = |shape: Shape| buckets.positions(shape.rows, shape.length);
        // Five rows of 64 ids are cheaper as 4 + 1 than as 5 of 16.
        let plan = Plan::new(&[60; 5], 16, |shape| shape.rows <= buckets.max_rows(shape.length, 4096, 16), cost);
        let mut sizes: Vec<_> = plan.batches().iter().map(Vec::len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 4]);
    }

    /// Run with `--nocapture` for the table of docs/lab/gpu-graph.md.
    #[test]
    fn padding_of_2000_mixed_lengths_to_the_default_buckets_is_below_a_quarter() {
        let lengths = mixed_lengths(2000);
        let real: usize = lengths.iter().sum();
        let powers =
            |limit: usize| std::iter::successors(Some(1), |size| Some(size * 2)).take_while(move |size| *size <= limit);
        let waste = |sequence: &[usize]| {
            let buckets = resolve(sequence, &[], 514).unwrap();
            let fits = |shape: Shape| shape.rows <= buckets.max_rows(shape.length, 4096, 256);
            let cost = |shape: Shape| buckets.positions(shape.rows, shape.length);
            let plan = Plan::new(&lengths, RUN_COST_ON_GPU, fits, cost);
            let lengths = &lengths;
            let padded: usize = plan
                .batches()
                .iter()
                .map(|rows| buckets.positions(rows.len(), rows.iter().map(|row| lengths[*row]).max().unwrap_or(0)))
                .sum();
            (1.0 - real as f64 / padded as f64, plan.batches().len(), buckets.shapes(4096, 256).len())
        };
        let table = [
            ("default", vec![]),
            ("powers of two", powers(512).skip(4).chain([514]).collect()),
            ("512 only", vec![514]),
            ("every 16", (1..=32).map(|size| size * 16).chain([514]).collect()),
        ];
        for (name, sequence) in &table {
            let (waste, batches, shapes) = waste(sequence);
            println!("{name}: padding {:.1} %, {batches} runs, {shapes} shapes", 100.0 * waste);
        }
        assert!(waste(&table[0].1).0 < 0.25);
    }
}
