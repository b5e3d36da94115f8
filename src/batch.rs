//! Encodings to batches: which rows run together, and the padded arrays they become.

use ndarray::Array2;

use crate::tokenizer::Encoding;

/// What one run costs beside its tokens, in tokens, on the CPU.
///
/// It keeps the plan from running every length alone. On two cores a run of nv-embed-mini was measured to cost as much as
/// 3 of its tokens; 16 leaves room for larger models, whose short batches read all weights for few rows.
pub(crate) const RUN_COST_ON_CPU: usize = 16;

/// The same on a GPU, from data sheets and not measured: in the time in which an H100 reads the 14 GB of the 7B model's
/// layers once, 4.3 ms, it could compute 280 of its tokens at its peak, and about half of that in practice.
pub(crate) const RUN_COST_ON_GPU: usize = 192;

/// Padded tokens of a batch on the CPU, unless the caller says otherwise.
///
/// On two cores, batches beyond it took more time a token, and twice the memory at 4,096: docs/performance.md.
pub(crate) const BATCH_TOKENS_ON_CPU: usize = 1024;

/// The same on a GPU; not measured.
pub(crate) const BATCH_TOKENS_ON_GPU: usize = 4096;

/// Which rows run together: each batch a list of row numbers, every row in exactly one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    batches: Vec<Vec<usize>>,
}

impl Plan {
    /// The cheapest way to run rows of the given lengths.
    ///
    /// Rows are sorted by length and cut into batches of at most `max_rows(longest)` rows (one is always allowed), such
    /// that the sum of `cost(rows, longest)` + `run_cost` over the batches, in tokens, is smallest (dynamic programming
    /// over the sorted lengths). Long batches run first, so that memory peaks at once.
    pub(crate) fn new(
        lengths: &[usize],
        run_cost: usize,
        max_rows: impl Fn(usize) -> usize,
        cost: impl Fn(usize, usize) -> usize,
    ) -> Self {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|row| lengths[*row]);
        // best[i]: the least cost of the i shortest rows, and where the batch that ends there begins.
        let mut best = vec![(0, 0)];
        for end in 1..=order.len() {
            let longest = lengths[order[end - 1]];
            let fits = max_rows(longest).max(1);
            let total = |start: usize| best[start].0 + cost(end - start, longest) + run_cost;
            let choice = (end.saturating_sub(fits)..end).map(|start| (total(start), start)).min();
            best.extend(choice);
        }
        let mut batches = Vec::new();
        let mut end = order.len();
        while end > 0 {
            let start = best[end].1;
            batches.push(order[start..end].to_vec());
            end = start;
        }
        Self { batches }
    }

    /// The batches, those of long rows first.
    pub(crate) fn into_batches(self) -> Vec<Vec<usize>> {
        self.batches
    }

    /// The same by reference.
    pub(crate) fn batches(&self) -> &[Vec<usize>] {
        &self.batches
    }
}

/// One run's input: three arrays `[B, S]`, padded on the right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    input_ids: Array2<i64>,
    attention_mask: Array2<i64>,
    pool_mask: Array2<i64>,
}

impl Batch {
    /// Pads encodings to the longest of them.
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

    /// Writes the three arrays one behind the other into `out`, `[3, B, S]`, padded to `(rows, length)` = (B, S).
    ///
    /// A row beyond those of the batch is one pad token that is attended to and pooled: nothing divides by zero in it,
    /// and no other row depends on it. Its output is to be dropped.
    ///
    /// # Panics
    /// When the batch is larger than the shape, or `out` is not of its size.
    pub(crate) fn write_padded(&self, (rows, length): (usize, usize), pad_token_id: u32, out: &mut [i64]) {
        assert_eq!(out.len(), 3 * rows * length, "the buffer is of another shape");
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

    /// The arrays by the names of the graph's inputs.
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
    use crate::buckets::Buckets;

    fn budget(max_tokens: usize, max_rows: usize) -> impl Fn(usize) -> usize {
        move |longest| (max_tokens / longest).min(max_rows)
    }

    fn padded(plan: &Plan, lengths: &[usize]) -> usize {
        let cost = |rows: &Vec<usize>| rows.len() * rows.iter().map(|row| lengths[*row]).max().unwrap_or(0);
        plan.batches().iter().map(cost).sum()
    }

    fn exact(rows: usize, longest: usize) -> usize {
        rows * longest
    }

    /// Lengths as real collections have them: many short, a long tail.
    fn mixed(count: usize) -> Vec<usize> {
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as f64 / f64::from(1_u32 << 31)
        };
        (0..count).map(|_| (4.0 * (1.0 / (1.0 - uniform())).powf(1.2)).min(512.0) as usize + 2).collect()
    }

    #[test]
    fn every_row_is_in_exactly_one_batch_within_the_limits() {
        let lengths = mixed(777);
        let plan = Plan::new(&lengths, RUN_COST_ON_CPU, budget(1000, 32), exact);
        let mut seen: Vec<usize> = plan.batches().concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..777).collect::<Vec<_>>());
        for rows in plan.batches() {
            let longest = rows.iter().map(|row| lengths[*row]).max().unwrap_or(0);
            assert!(rows.len() <= 32 && rows.len() * longest <= 1000, "{} rows of {longest}", rows.len());
        }
    }

    #[test]
    fn padding_of_2000_mixed_lengths_is_below_5_percent() {
        let lengths = mixed(2000);
        let real: usize = lengths.iter().sum();
        let limits = budget(BATCH_TOKENS_ON_CPU, 256);
        let padded = padded(&Plan::new(&lengths, RUN_COST_ON_CPU, limits, exact), &lengths);
        let waste = 1.0 - real as f64 / padded as f64;
        println!("padding waste on 2000 mixed lengths: {:.2} %", 100.0 * waste);
        assert!(waste <= 0.05, "{waste}");
    }

    #[test]
    fn long_rows_run_first_and_alone_when_over_the_budget() {
        let plan = Plan::new(&[3, 5000, 4, 9000], RUN_COST_ON_CPU, budget(4096, 8), exact);
        assert_eq!(plan.batches(), [vec![3], vec![1], vec![0, 2]]);
    }

    #[test]
    fn no_rows_make_no_batches() {
        assert!(Plan::new(&[], RUN_COST_ON_CPU, budget(4096, 8), exact).batches().is_empty());
    }

    #[test]
    fn the_plan_is_the_cheapest_of_all_cuts() {
        // All ways to cut seven sorted rows into batches, tried one by one.
        let lengths = [9, 80, 81, 85, 300, 310, 700];
        let cost = |cuts: u32| {
            let (mut sum, mut start) = (0, 0);
            for end in 1..=lengths.len() {
                if end == lengths.len() || cuts & (1 << (end - 1)) != 0 {
                    sum += (end - start) * lengths[end - 1] + RUN_COST_ON_CPU;
                    start = end;
                }
            }
            sum
        };
        let best = (0..1 << 6).map(cost).min();
        let plan = Plan::new(&lengths, RUN_COST_ON_CPU, |_| 100, exact);
        assert_eq!(Some(padded(&plan, &lengths) + plan.batches().len() * RUN_COST_ON_CPU), best);
    }

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

    #[test]
    fn the_plan_minds_the_shapes_that_batches_are_padded_to() {
        let buckets = Buckets { sequence: vec![16, 64, 512], batch: vec![1, 4, 16] };
        let shape =
            |rows, longest| buckets.shape(rows, longest).map_or(usize::MAX / 4096, |(rows, length)| rows * length);
        // Five rows of 64 ids are cheaper as 4 + 1 than as 5 of 16.
        let plan = Plan::new(&[60; 5], 16, |longest| buckets.max_rows(longest, 4096, 16), shape);
        let mut sizes: Vec<_> = plan.batches().iter().map(Vec::len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 4]);
    }

    /// Run with `--nocapture` for the table of docs/gpu.md.
    #[test]
    fn padding_of_2000_mixed_lengths_to_the_default_buckets_is_below_a_quarter() {
        let lengths = mixed(2000);
        let real: usize = lengths.iter().sum();
        let powers =
            |limit: usize| std::iter::successors(Some(1), |size| Some(size * 2)).take_while(move |size| *size <= limit);
        let waste = |buckets: &Buckets| {
            let buckets = buckets.resolve(514).unwrap();
            let shape =
                |rows, longest| buckets.shape(rows, longest).map_or(usize::MAX / 4096, |(rows, length)| rows * length);
            let plan = Plan::new(&lengths, RUN_COST_ON_GPU, |longest| buckets.max_rows(longest, 4096, 256), shape);
            let lengths = &lengths;
            let padded: usize = plan
                .batches()
                .iter()
                .map(|rows| shape(rows.len(), rows.iter().map(|row| lengths[*row]).max().unwrap_or(0)))
                .sum();
            (1.0 - real as f64 / padded as f64, plan.batches().len(), buckets.shapes(4096, 256).len())
        };
        let table = [
            ("default", Buckets::default()),
            ("powers of two", Buckets { sequence: powers(512).skip(4).chain([514]).collect(), batch: Vec::new() }),
            ("512 only", Buckets { sequence: vec![514], batch: Vec::new() }),
            (
                "every 16",
                Buckets { sequence: (1..=32).map(|size| size * 16).chain([514]).collect(), batch: Vec::new() },
            ),
        ];
        for (name, buckets) in &table {
            let (waste, batches, shapes) = waste(buckets);
            println!("{name}: padding {:.1} %, {batches} runs, {shapes} shapes", 100.0 * waste);
        }
        assert!(waste(&table[0].1).0 < 0.25);
    }
}
