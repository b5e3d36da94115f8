//! The few shapes that batches are padded to on a GPU, so that buffers and CUDA graphs are made once and reused.

use super::buckets::{at_least, default_lengths, default_rows, token_bucket};
use crate::batch::Shape;
use crate::error::{Error, ErrorKind, Result, in_range};
use crate::model::{Layout, Manifest};
use crate::options::ModelOptions;

/// The most sequence or batch buckets that may be given.
const MAX_BUCKETS: usize = 256;
/// The longest row that TensorRT engines are built for by default: they reserve memory for their largest shape.
const ENGINE_LENGTH: usize = 512;
/// The most rows of the same. An engine has one profile, since ONNX Runtime 1.31 is not known to choose among several, and
/// reserves memory for the product of both: 8,192 tokens.
const ENGINE_ROWS: usize = 16;
/// The shape that TensorRT tunes an engine for, where the buckets have it: eight short passages.
const TYPICAL: (usize, usize) = (8, 128);

/// The longest padded rows that packed tokens are spread over for attention, relative to the limit of tokens per batch.
const MOST_POSITIONS: usize = 2;
/// What a position of those rows costs, in tokens, beside its attention: the copies between packed tokens and padded rows,
/// 41 kB per layer at the 7B widths. Computed from an H100's data sheet, not measured.
const COPY_COST: f64 = 0.02;

/// A CUDA graph saves the time in which the host starts a run's kernels one by one. Beyond this many products a layer, the GPU
/// takes longer than that to compute them, and a graph saves nothing: 512 tokens at the 7B widths. Computed, not measured: 23
/// kernels a layer at 7 µs each, and 29 µs a token for the whole model on an H100.
const RECORDED_PRODUCTS: usize = 512 * 218_103_808;

/// The buckets in force. A batch is padded to the smallest sequence bucket and the smallest batch bucket that hold it, and
/// packed tokens to a [`token_bucket`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shapes {
    layout: Layout,
    /// Row lengths S in token ids, increasing.
    sequence: Vec<usize>,
    /// Row counts B, increasing.
    batch: Vec<usize>,
    /// The cost of attention to a position, in tokens.
    attention_cost: f64,
    /// The most tokens of a run that is worth recording as a CUDA graph.
    recorded_tokens: usize,
}

impl Shapes {
    /// The buckets of the options, or the default ones, for a model.
    ///
    /// # Errors
    /// [`ErrorKind::Option`] when buckets are not strictly increasing, or one is 0 or beyond the model's limit.
    pub(crate) fn new(options: &ModelOptions, manifest: &Manifest) -> Result<Self> {
        let buckets = [options.gpu.sequence_buckets.as_slice(), &options.gpu.batch_buckets];
        let (length, rows) =
            if options.provider.builds_engines() { (ENGINE_LENGTH, ENGINE_ROWS) } else { (usize::MAX, usize::MAX) };
        let shapes = Self::of_buckets(manifest.layout(), buckets, manifest.max_length(), [length, rows])?;
        let architecture = manifest.architecture();
        let recorded_tokens = RECORDED_PRODUCTS / architecture.layer_weights().max(1);
        Ok(Self { attention_cost: architecture.attention_cost(), recorded_tokens, ..shapes })
    }

    fn of_buckets(
        layout: Layout,
        [sequence, batch]: [&[usize]; 2],
        max_length: usize,
        [longest_default, most_rows]: [usize; 2],
    ) -> Result<Self> {
        let sequence =
            if sequence.is_empty() { default_lengths(max_length.min(longest_default)) } else { sequence.to_vec() };
        let mut default_rows = default_rows(layout);
        default_rows.retain(|rows| *rows <= most_rows);
        let batch = if batch.is_empty() { default_rows } else { batch.to_vec() };
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
        Ok(Self { layout, sequence, batch, attention_cost: 0.0, recorded_tokens: usize::MAX })
    }

    /// Smallest, typical and largest (B, S), for a TensorRT profile.
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

    /// The shape that a batch is padded to; `None` when it has too many rows or tokens, or they are too long.
    pub(crate) fn shape(&self, batch: Shape) -> Option<Shape> {
        let (rows, length) = (at_least(&self.batch, batch.rows)?, at_least(&self.sequence, batch.length)?);
        let tokens = match self.layout {
            Layout::Padded => return Some(Shape::padded(rows, length)),
            Layout::Packed => token_bucket(batch.tokens),
        };
        Some(Shape { rows, length, tokens })
    }

    /// How many tokens are computed for a batch when it is padded; without a shape that holds it, its own.
    pub(crate) fn computed(&self, batch: Shape) -> usize {
        let own = if self.layout == Layout::Padded { batch.positions() } else { batch.tokens };
        self.shape(batch).map_or(own, |shape| shape.tokens)
    }

    /// The cost of running a batch without the fixed cost of a run, in tokens.
    pub(crate) fn cost(&self, batch: Shape) -> usize {
        let computed = self.computed(batch);
        if self.layout == Layout::Padded {
            return computed;
        }
        let shape = self.shape(batch).unwrap_or(batch);
        let of_position = COPY_COST + shape.length as f64 * self.attention_cost;
        computed + (shape.positions() as f64 * of_position) as usize
    }

    /// Whether a batch is within both limits when it is padded. The smallest batch bucket always is: one row must be possible.
    pub(crate) fn fits(&self, batch: Shape, max_tokens: usize, max_rows: usize) -> bool {
        let Some(shape) = self.shape(batch) else { return false };
        let most_positions = match self.layout {
            Layout::Padded => max_tokens,
            Layout::Packed => MOST_POSITIONS.saturating_mul(max_tokens),
        };
        let within = shape.rows <= max_rows && shape.tokens <= max_tokens && shape.positions() <= most_positions;
        within || (self.batch.first() == Some(&shape.rows) && batch.rows <= max_rows.max(1))
    }

    /// Whether a run of this shape is recorded as a CUDA graph, if graphs are on.
    pub(super) fn is_worth_recording(&self, shape: Shape) -> bool {
        shape.tokens <= self.recorded_tokens
    }

    /// Every shape that batches of rows of up to `max_length` tokens within these limits can be padded to, the largest first.
    ///
    /// Of packed tokens, those shapes that are recorded, and of the others the one with the most tokens for each number of rows
    /// and length: the rest need no more memory, and nothing but buffers is made for them.
    pub(crate) fn shapes(&self, max_tokens: usize, max_rows: usize, max_length: usize) -> Vec<Shape> {
        let longest = at_least(&self.sequence, max_length).unwrap_or(usize::MAX);
        let mut shapes = Vec::new();
        let mut shorter = 0;
        for length in self.sequence.iter().copied().take_while(|length| *length <= longest) {
            let mut fewer = 0;
            for rows in self.batch.iter().copied() {
                // The fewest tokens of a batch that needs this many rows and this length, and the most.
                let (least, most) = (shorter + 1 + fewer, rows * length);
                let mut tokens = least;
                while tokens <= most {
                    let batch = Shape { rows, length, tokens };
                    let Some(shape) = self.shape(batch) else { break };
                    if !self.fits(batch, max_tokens, max_rows) {
                        break;
                    }
                    if shapes.last().is_some_and(|last: &Shape| {
                        (last.rows, last.length) == (shape.rows, shape.length) && !self.is_worth_recording(*last)
                    }) {
                        shapes.pop();
                    }
                    shapes.push(shape);
                    tokens = shape.tokens + 1;
                }
                fewer = rows;
            }
            shorter = length;
        }
        shapes.sort_by_key(|shape| std::cmp::Reverse((shape.tokens, shape.length, shape.rows)));
        shapes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Plan, RUN_COST_ON_GPU, Shape, mixed_lengths};

    fn shapes(sequence: &[usize], batch: &[usize]) -> Shapes {
        resolve(sequence, batch, 1 << 20).unwrap()
    }

    fn resolve(sequence: &[usize], batch: &[usize], max_length: usize) -> Result<Shapes> {
        Shapes::of_buckets(Layout::Padded, [sequence, batch], max_length, [usize::MAX; 2])
    }

    /// With the 7B model's attention.
    fn packed(max_length: usize) -> Shapes {
        let shapes = Shapes::of_buckets(Layout::Packed, [&[], &[]], max_length, [usize::MAX; 2]).unwrap();
        Shapes { attention_cost: 3.8e-5, ..shapes }
    }

    #[test]
    fn engines_end_at_16_rows_of_512_ids_unless_larger_buckets_are_given() {
        let largest = |sequence: &[usize]| {
            let limits = [ENGINE_LENGTH, ENGINE_ROWS];
            Shapes::of_buckets(Layout::Padded, [sequence, &[]], 32_768, limits).unwrap().profile()[2]
        };
        assert_eq!((largest(&[]), largest(&[1024])), ((16, 512), (16, 1024)));
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
            let wanted = shape.map(|(rows, length)| Shape::padded(rows, length));
            assert_eq!(buckets.shape(Shape::padded(rows, length)), wanted, "{rows} rows of {length}");
        }
    }

    #[test]
    fn packed_tokens_have_a_size_of_their_own() {
        let batch = Shape { rows: 3, length: 90, tokens: 101 };
        assert_eq!(packed(512).shape(batch), Some(Shape { rows: 4, length: 96, tokens: 128 }));
        assert_eq!(packed(512).shape(Shape { rows: 257, ..batch }), None);
    }

    #[test]
    fn no_shape_is_over_the_limits_but_the_smallest_of_a_length() {
        let buckets = shapes(&[16, 100, 1000], &[2, 4, 8]);
        let most = |length, max_tokens, max_rows| {
            let fits = |rows: &usize| buckets.fits(Shape::padded(*rows, length), max_tokens, max_rows);
            (1..20).take_while(fits).count()
        };
        assert_eq!(most(16, 128, 8), 8);
        assert_eq!(most(17, 400, 8), 4);
        assert_eq!(most(16, 128, 5), 4);
        assert_eq!(most(1000, 128, 8), 2);
        assert_eq!(most(16, 128, 1), 1);
        let shapes: Vec<_> = buckets.shapes(400, 8, 1000).into_iter().map(|shape| (shape.rows, shape.length)).collect();
        assert_eq!(shapes, [(2, 1000), (4, 100), (2, 100), (8, 16), (4, 16), (2, 16)]);
    }

    #[test]
    fn the_listed_shapes_are_those_that_batches_within_the_limits_get() {
        for buckets in [shapes(&[16, 100, 1000], &[2, 4, 8]), packed(100)] {
            let listed = buckets.shapes(400, 6, 100);
            let mut met = std::collections::HashSet::new();
            for rows in 1..=7 {
                for length in 1..=100 {
                    for tokens in length + rows - 1..=length * rows {
                        let batch = Shape { rows, length, tokens };
                        if buckets.fits(batch, 400, 6) {
                            met.insert(buckets.shape(batch).unwrap());
                        }
                    }
                }
            }
            let missing: Vec<_> = met.iter().filter(|shape| !listed.contains(shape)).collect();
            assert!(missing.is_empty(), "{missing:?}");
            let unused: Vec<_> = listed.iter().filter(|shape| shape.length <= 100 && !met.contains(shape)).collect();
            assert!(unused.is_empty(), "{unused:?}");
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
        // Five rows of 64 ids are cheaper as 4 + 1 than as 5 of 16.
        let plan = Plan::new(&[60; 5], 16, |batch| buckets.fits(batch, 4096, 16), |batch| buckets.cost(batch));
        let mut sizes: Vec<_> = plan.batches().iter().map(Vec::len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 4]);
    }

    /// Run with `--nocapture` for the table of docs/lab/gpu-graph.md.
    #[test]
    fn padding_of_2000_mixed_lengths_is_below_a_quarter_and_packed_below_3_percent() {
        let lengths = mixed_lengths(2000);
        let real: usize = lengths.iter().sum();
        let powers =
            |limit: usize| std::iter::successors(Some(1), |size| Some(size * 2)).take_while(move |size| *size <= limit);
        let padded = |sequence: Vec<usize>| resolve(&sequence, &[], 514).unwrap();
        let table = [
            ("default", padded(vec![])),
            ("powers of two", padded(powers(512).skip(4).chain([514]).collect())),
            ("512 only", padded(vec![514])),
            ("every 16", padded((1..=32).map(|size| size * 16).chain([514]).collect())),
            ("packed", packed(514)),
        ];
        let mut wasted = Vec::new();
        for (name, buckets) in &table {
            let fits = |batch: Shape| buckets.fits(batch, 4096, 256);
            let plan = Plan::new(&lengths, RUN_COST_ON_GPU, fits, |batch| buckets.cost(batch));
            let batches: Vec<_> = plan
                .batches()
                .iter()
                .map(|rows| Shape {
                    rows: rows.len(),
                    length: rows.iter().map(|row| lengths[*row]).max().unwrap_or(0),
                    tokens: rows.iter().map(|row| lengths[*row]).sum(),
                })
                .collect();
            let sum = |of: &dyn Fn(Shape) -> usize| batches.iter().copied().map(of).sum::<usize>();
            let waste = 1.0 - real as f64 / sum(&|batch| buckets.computed(batch)) as f64;
            let positions = sum(&|batch| buckets.shape(batch).map_or(0, Shape::positions));
            let (runs, shapes) = (batches.len(), buckets.shapes(4096, 256, 514).len());
            let cost = sum(&|batch| buckets.cost(batch)) + runs * RUN_COST_ON_GPU;
            println!(
                "{name}: padding {:.1} %, {runs} runs, {shapes} shapes, {:.2} positions a token, cost {cost}",
                100.0 * waste,
                positions as f64 / real as f64
            );
            wasted.push(waste);
        }
        assert!(wasted[0] < 0.25 && wasted[4] < 0.03, "{wasted:?}");
    }
}
