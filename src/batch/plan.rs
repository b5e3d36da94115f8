//! Which rows run together.

use super::Shape;

/// The fixed cost of a run on the CPU, in tokens.
///
/// It keeps the plan from running every length alone. On two cores, a run of nv-embed-mini was measured to cost as much as
/// 3 of its tokens; 16 leaves room for larger models, whose short batches read all weights for few rows.
pub(crate) const RUN_COST_ON_CPU: usize = 16;

/// The same on a GPU, computed from data sheets, not measured: while an H100 reads the 14 GB of the 7B model's layers once,
/// 4.3 ms, it could compute 280 of its tokens at its peak, and about half of that in practice.
pub(crate) const RUN_COST_ON_GPU: usize = 192;

/// The default of padded tokens per batch on the CPU.
///
/// On two cores, larger batches took more time per token, and twice the memory at 4,096 (docs/lab/cpu-speed.md).
pub(crate) const BATCH_TOKENS_ON_CPU: usize = 1024;

/// The same on a GPU; not measured.
pub(crate) const BATCH_TOKENS_ON_GPU: usize = 4096;

/// Which rows run together: each batch is a list of row numbers, and every row is in exactly one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    batches: Vec<Vec<usize>>,
}

impl Plan {
    /// The cheapest way to run rows of the given lengths.
    ///
    /// Rows are sorted by length and cut into batches that `fits` allows (one row always is), so that the sum of `cost` and
    /// `run_cost` over the batches, in tokens, is minimal (dynamic programming over the sorted lengths). What fits must still
    /// fit without its shortest row. Batches of long rows run first, so that memory peaks at once.
    pub(crate) fn new(
        lengths: &[usize],
        run_cost: usize,
        fits: impl Fn(Shape) -> bool,
        cost: impl Fn(Shape) -> usize,
    ) -> Self {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|row| lengths[*row]);
        // best[i]: the least cost of the i shortest rows, and where the batch that ends there begins.
        let mut best = vec![(0, 0)];
        for end in 1..=order.len() {
            let length = lengths[order[end - 1]];
            let mut tokens = 0;
            let mut choice = None;
            for start in (0..end).rev() {
                tokens += lengths[order[start]];
                let shape = Shape { rows: end - start, length, tokens };
                if choice.is_some() && !fits(shape) {
                    break;
                }
                let total = (best[start].0 + cost(shape) + run_cost, start);
                choice = Some(choice.map_or(total, |least: (usize, usize)| least.min(total)));
            }
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

    /// The same, by reference.
    pub(crate) fn batches(&self) -> &[Vec<usize>] {
        &self.batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::mixed_lengths;

    fn budget(max_tokens: usize, max_rows: usize) -> impl Fn(Shape) -> bool {
        move |shape| shape.positions() <= max_tokens && shape.rows <= max_rows
    }

    fn padded(plan: &Plan, lengths: &[usize]) -> usize {
        let cost = |rows: &Vec<usize>| rows.len() * rows.iter().map(|row| lengths[*row]).max().unwrap_or(0);
        plan.batches().iter().map(cost).sum()
    }

    #[test]
    fn every_row_is_in_exactly_one_batch_within_the_limits() {
        let lengths = mixed_lengths(777);
        let plan = Plan::new(&lengths, RUN_COST_ON_CPU, budget(1000, 32), Shape::positions);
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
        let lengths = mixed_lengths(2000);
        let real: usize = lengths.iter().sum();
        let limits = budget(BATCH_TOKENS_ON_CPU, 256);
        let padded = padded(&Plan::new(&lengths, RUN_COST_ON_CPU, limits, Shape::positions), &lengths);
        let waste = 1.0 - real as f64 / padded as f64;
        println!("padding waste on 2000 mixed lengths: {:.2} %", 100.0 * waste);
        assert!(waste <= 0.05, "{waste}");
    }

    #[test]
    fn long_rows_run_first_and_alone_when_over_the_budget() {
        let plan = Plan::new(&[3, 5000, 4, 9000], RUN_COST_ON_CPU, budget(4096, 8), Shape::positions);
        assert_eq!(plan.batches(), [vec![3], vec![1], vec![0, 2]]);
    }

    #[test]
    fn a_plan_by_tokens_puts_rows_of_all_lengths_together() {
        let lengths = mixed_lengths(2000);
        let by_tokens = Plan::new(&lengths, RUN_COST_ON_GPU, |shape| shape.tokens <= 4096, |shape| shape.tokens);
        let real: usize = lengths.iter().sum();
        assert_eq!(by_tokens.batches().len(), real.div_ceil(4096));
    }

    #[test]
    fn no_rows_make_no_batches() {
        assert!(Plan::new(&[], RUN_COST_ON_CPU, budget(4096, 8), Shape::positions).batches().is_empty());
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
        let plan = Plan::new(&lengths, RUN_COST_ON_CPU, |_| true, Shape::positions);
        assert_eq!(Some(padded(&plan, &lengths) + plan.batches().len() * RUN_COST_ON_CPU), best);
    }
}
