//! How long exact search takes: `search QUERIES PASSAGES DIMENSIONS`, of numbers that look random. Prints seconds and the peak of
//! resident memory.
#![allow(clippy::print_stdout, reason = "a measurement is its output")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::Array2;
use nvembed::{Dtype, Rows, machine};
use nvembed_eval::{Form, Search};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers = std::env::args().skip(1).map(|number| number.parse()).collect::<Result<Vec<usize>, _>>()?;
    let [queries, passages, dim] = numbers[..] else { return Err("usage: search QUERIES PASSAGES DIMENSIONS".into()) };
    let mut state = 1_u64;
    let mut random = |count: usize| {
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        Array2::from_shape_vec((count, dim), (0..count * dim).map(next).collect())
    };
    let queries = Rows::F32(random(queries)?);
    for form in [Form::new(Dtype::F32, dim), Form::new(Dtype::Binary, dim)] {
        let mut search = Search::new(&queries, &[form], 100)?;
        let mut time = Duration::ZERO;
        let (mut start, window) = (0, 4096);
        while start < passages {
            let count = window.min(passages - start);
            let ids: Vec<Arc<str>> = (start..start + count).map(|index| index.to_string().into()).collect();
            let rows = Rows::F32(random(count)?);
            let begin = Instant::now();
            search.add(&ids, &rows)?;
            time += begin.elapsed();
            start += count;
        }
        let memory = machine::peak_memory().unwrap_or(0) >> 20;
        println!(
            "{form}: {} queries, {passages} passages: {:.1} s, {memory} MiB",
            queries.shape().0,
            time.as_secs_f64()
        );
    }
    Ok(())
}
