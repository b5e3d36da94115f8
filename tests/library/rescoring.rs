//! The example of rescoring, against exact search.

use nvembed::ndarray::Array2;
use nvembed::{Dtype, Rows};

#[allow(dead_code, reason = "its program is run by hand")]
#[path = "../../examples/rescore.rs"]
mod example;

/// Rows of numbers that look random.
fn rows(count: usize, dim: usize) -> Array2<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut rows = Array2::from_shape_fn((count, dim), |_| next());
    for mut row in rows.rows_mut() {
        let length = row.dot(&row).sqrt();
        row /= length;
    }
    rows
}

#[test]
fn the_example_of_rescoring_finds_what_exact_search_finds() {
    // A width that fills no whole byte.
    let floats = rows(200, 133);
    let typed = Rows::F32(floats.clone());
    let (Rows::Binary { bytes: bits, .. }, Rows::Int8 { values, scales, .. }) =
        (typed.converted(Dtype::Binary, 133).unwrap(), typed.converted(Dtype::Int8, 133).unwrap())
    else {
        panic!("other types than were asked for");
    };
    let passages = example::Passages { bits, values, scales };
    for row in [0, 77, 199] {
        let query = floats.row(row).to_owned();
        let exact = floats.dot(&query);
        let found = example::search(&passages, query.as_slice().unwrap(), 200, 10);
        assert_eq!(found[0].0, row);
        assert!(found.iter().all(|(row, cosine)| (cosine - exact[*row]).abs() < 0.01), "{found:?}");
        assert!(found.windows(2).all(|pair| pair[0].1 >= pair[1].1));
        // A tenth of the rows are candidates, by their bits: the row itself has a distance of 0.
        let few = example::search(&passages, query.as_slice().unwrap(), 20, 10);
        assert_eq!(few[0].0, row);
        assert!(few.iter().filter(|hit| found.contains(hit)).count() >= 5, "{few:?} {found:?}");
    }
}
