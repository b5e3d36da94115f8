//! How long exact search takes: `search_speed PASSAGES QUERIES DIMENSIONS DTYPE`, over random unit vectors. Prints seconds of
//! the search alone, without those in which the vectors are made.
//!
//! `benches/corpus/measure.py search` compares it with others.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program to measure with")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::{Array2, Axis};
use nvembed::{Dtype, Rows};
use nvembed_eval::{Form, Search};

/// Passages that are searched at once.
const BLOCK: usize = 4096;
/// Passages that are kept of each query.
const DEPTH: usize = 100;

fn unit_rows(rows: usize, dim: usize, state: &mut u64) -> Rows {
    let mut next = || {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut values = Array2::from_shape_fn((rows, dim), |_| next());
    for mut row in values.axis_iter_mut(Axis(0)) {
        let length = row.dot(&row).sqrt();
        row /= length;
    }
    Rows::F32(values)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [passages, queries, dim] = [0, 1, 2].map(|index| arguments[index].parse::<usize>().unwrap());
    let form = Form::new(arguments[3].parse::<Dtype>().unwrap(), dim);
    let mut state = 1;
    let mut search = Search::new(&unit_rows(queries, dim, &mut state), &[form], DEPTH).unwrap();
    let mut spent = Duration::ZERO;
    for start in (0..passages).step_by(BLOCK) {
        let end = passages.min(start + BLOCK);
        let (ids, rows): (Vec<Arc<str>>, _) =
            ((start..end).map(|id| id.to_string().into()).collect(), unit_rows(end - start, dim, &mut state));
        let begin = Instant::now();
        search.add(&ids, &rows).unwrap();
        spent += begin.elapsed();
    }
    let begin = Instant::now();
    let found = search.finish();
    spent += begin.elapsed();
    assert!(found[0].1.iter().all(|hits| hits.len() == DEPTH.min(passages)));
    println!("{:.2}", spent.as_secs_f64());
}
