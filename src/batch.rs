//! Encodings to batches: which rows run together, and the padded arrays they become.

use ndarray::Array2;

use crate::tokenizer::Encoding;

/// What one run costs beside its tokens, in tokens.
///
/// It keeps the plan from running every length alone. On two cores a run of nv-embed-mini was measured to cost as much as
/// 3 of its tokens; 16 leaves room for larger models, whose short batches read all weights for few rows.
const RUN_COST_TOKENS: usize = 16;

/// Which rows run together: each batch a list of row numbers, every row in exactly one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    batches: Vec<Vec<usize>>,
}

impl Plan {
    /// The cheapest way to run rows of the given lengths, in padded tokens.
    ///
    /// Rows are sorted by length and cut into batches of at most `max_rows(longest)` rows (one is always allowed), such
    /// that the sum of rows × longest row + [`RUN_COST_TOKENS`] over the batches is smallest (dynamic programming over
    /// the sorted lengths). Long batches run first, so that memory peaks at once.
    pub(crate) fn new(lengths: &[usize], max_rows: impl Fn(usize) -> usize) -> Self {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|row| lengths[*row]);
        // best[i]: the least cost of the i shortest rows, and where the batch that ends there begins.
        let mut best = vec![(0, 0)];
        for end in 1..=order.len() {
            let longest = lengths[order[end - 1]];
            let fits = max_rows(longest).max(1);
            let cost = |start: usize| best[start].0 + (end - start) * longest + RUN_COST_TOKENS;
            let choice = (end.saturating_sub(fits)..end).map(|start| (cost(start), start)).min();
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

    fn budget(max_tokens: usize, max_rows: usize) -> impl Fn(usize) -> usize {
        move |longest| (max_tokens / longest).min(max_rows)
    }

    fn padded(plan: &Plan, lengths: &[usize]) -> usize {
        let cost = |rows: &Vec<usize>| rows.len() * rows.iter().map(|row| lengths[*row]).max().unwrap_or(0);
        plan.batches().iter().map(cost).sum()
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
        let plan = Plan::new(&lengths, budget(1000, 32));
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
        let padded = padded(&Plan::new(&lengths, budget(4096, 256)), &lengths);
        let waste = 1.0 - real as f64 / padded as f64;
        println!("padding waste on 2000 mixed lengths: {:.2} %", 100.0 * waste);
        assert!(waste <= 0.05, "{waste}");
    }

    #[test]
    fn long_rows_run_first_and_alone_when_over_the_budget() {
        let plan = Plan::new(&[3, 5000, 4, 9000], budget(4096, 8));
        assert_eq!(plan.batches(), [vec![3], vec![1], vec![0, 2]]);
    }

    #[test]
    fn no_rows_make_no_batches() {
        assert!(Plan::new(&[], budget(4096, 8)).batches().is_empty());
    }

    #[test]
    fn the_plan_is_the_cheapest_of_all_cuts() {
        // All ways to cut seven sorted rows into batches, tried one by one.
        let lengths = [9, 80, 81, 85, 300, 310, 700];
        let cost = |cuts: u32| {
            let (mut sum, mut start) = (0, 0);
            for end in 1..=lengths.len() {
                if end == lengths.len() || cuts & (1 << (end - 1)) != 0 {
                    sum += (end - start) * lengths[end - 1] + RUN_COST_TOKENS;
                    start = end;
                }
            }
            sum
        };
        let best = (0..1 << 6).map(cost).min();
        let plan = Plan::new(&lengths, |_| 100);
        assert_eq!(Some(padded(&plan, &lengths) + plan.batches().len() * RUN_COST_TOKENS), best);
    }

    #[test]
    fn rows_are_padded_on_the_right_and_the_instruction_is_not_pooled() {
        let rows = [Encoding::for_test(&[1, 7, 8, 2], 2), Encoding::for_test(&[1, 2], 0)];
        let batch = Batch::new(&[&rows[0], &rows[1]], 2);
        assert_eq!(batch.input_ids, ndarray::array![[1, 7, 8, 2], [1, 2, 2, 2]]);
        assert_eq!(batch.attention_mask, ndarray::array![[1, 1, 1, 1], [1, 1, 0, 0]]);
        assert_eq!(batch.pool_mask, ndarray::array![[0, 0, 1, 1], [1, 1, 0, 0]]);
    }
}
