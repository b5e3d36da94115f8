//! Finds passages by their bits, and ranks the best of them again by 8-bit integers: an eighth of a byte a number in memory, and
//! one byte where the passages are.
//!
//!     cargo run --release --example rescore -- MODEL PASSAGES TASK QUERY     # a file with a passage per line
#![allow(clippy::print_stdout, reason = "the answer")]

use nvembed::ndarray::Array2;
use nvembed::{Dtype, EmbedOptions, Embedder, ModelOptions, Prompt, Rows};

/// Passages in both types.
pub(crate) struct Passages {
    pub(crate) bits: Array2<u8>,
    pub(crate) values: Array2<i8>,
    pub(crate) scales: Vec<f32>,
}

/// The best `count` passages and their cosine to `query`: of all, the best `candidates` by Hamming distance; of those, by int8.
pub(crate) fn search(passages: &Passages, query: &[f32], candidates: usize, count: usize) -> Vec<(usize, f32)> {
    let sign = |byte: u8, value: &f32| byte << 1 | u8::from(*value > 0.0);
    let query_bits: Vec<u8> = query.chunks(8).map(|eight| eight.iter().fold(0, sign) << (8 - eight.len())).collect();
    let distance = |row: &usize| -> u32 {
        passages.bits.row(*row).iter().zip(&query_bits).map(|(one, other)| (one ^ other).count_ones()).sum()
    };
    let mut rows: Vec<usize> = (0..passages.scales.len()).collect();
    rows.sort_by_cached_key(distance);
    rows.truncate(candidates);
    let cosine = |row: usize| {
        let product: f32 = passages.values.row(row).iter().zip(query).map(|(one, other)| f32::from(*one) * other).sum();
        (row, product * passages.scales[row])
    };
    let mut best: Vec<_> = rows.into_iter().map(cosine).collect();
    best.sort_by(|one, other| other.1.total_cmp(&one.1));
    best.truncate(count);
    best
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [model, passages, task, query] = &arguments[..] else {
        return Err("usage: rescore MODEL PASSAGES TASK QUERY".into());
    };
    let embedder = Embedder::open(model, &ModelOptions::default())?;
    let text = std::fs::read_to_string(passages)?;
    let prompts: Vec<_> = text.lines().map(Prompt::passage).collect();
    // One run of the model; what a call with these types returns is made from its floats.
    let floats = embedder.embed(&prompts, &EmbedOptions::default())?;
    let (Rows::Binary { bytes: bits, .. }, Rows::Int8 { values, scales, .. }) =
        (floats.rows().converted(Dtype::Binary, floats.dim())?, floats.rows().converted(Dtype::Int8, floats.dim())?)
    else {
        return Err("other rows than were asked for".into());
    };
    let query = embedder.embed(&[Prompt::query(task, query.as_str())], &EmbedOptions::default())?.to_f32();
    for (row, cosine) in search(&Passages { bits, values, scales }, query.as_slice().unwrap_or_default(), 40, 10) {
        println!("{} {cosine:.6}", row + 1);
    }
    Ok(())
}
