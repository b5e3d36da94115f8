//! Encodings to batches: which rows run together, and the arrays they become.

mod plan;
mod rows;
mod shape;

pub(crate) use plan::{BATCH_TOKENS_ON_CPU, BATCH_TOKENS_ON_GPU, Plan, RUN_COST_ON_CPU, RUN_COST_ON_GPU};
pub(crate) use rows::Batch;
pub(crate) use shape::Shape;

/// Lengths as real collections have them: many short, a long tail.
#[cfg(test)]
pub(crate) fn mixed_lengths(count: usize) -> Vec<usize> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as f64 / f64::from(1_u32 << 31)
    };
    (0..count).map(|_| (4.0 * (1.0 / (1.0 - uniform())).powf(1.2)).min(512.0) as usize + 2).collect()
}
