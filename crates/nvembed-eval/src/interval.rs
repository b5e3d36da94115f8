//! Bootstrap intervals: how much a figure would vary with other queries of the same kind.

/// How often queries are drawn again.
const DRAWS: usize = 2000;

/// A figure and where 95 % of the draws lie.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Interval {
    /// The figure of all queries.
    pub value: f64,
    /// 2.5 % of the draws are below.
    pub low: f64,
    /// 2.5 % of the draws are above.
    pub high: f64,
}

/// The mean of a measure over queries.
pub fn mean_interval(values: &[f64]) -> Interval {
    draw(values.len(), |chosen| chosen.iter().map(|index| values[*index]).sum::<f64>() / chosen.len().max(1) as f64)
}

/// The ratio of two means over the same queries, which are drawn in pairs.
pub fn ratio_interval(values: &[f64], reference: &[f64]) -> Interval {
    draw(values.len().min(reference.len()), |chosen| {
        let sum = |values: &[f64]| chosen.iter().map(|index| values[*index]).sum::<f64>();
        sum(values) / sum(reference)
    })
}

/// The same numbers give the same interval: the generator (SplitMix64) has a fixed seed.
fn draw(count: usize, figure: impl Fn(&[usize]) -> f64) -> Interval {
    let mut chosen: Vec<_> = (0..count).collect();
    let value = figure(&chosen);
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    };
    let mut figures: Vec<_> = (0..DRAWS)
        .map(|_| {
            chosen.iter_mut().for_each(|index| *index = ((u128::from(next()) * count as u128) >> 64) as usize);
            figure(&chosen)
        })
        .collect();
    figures.sort_unstable_by(f64::total_cmp);
    Interval { value, low: figures[DRAWS / 40], high: figures[DRAWS - 1 - DRAWS / 40] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_mean_is_about_two_standard_errors() {
        let values: Vec<_> = (0..1000).map(|index| f64::from(index % 2)).collect();
        let Interval { value, low, high } = mean_interval(&values);
        let error = 1.96 * (0.25_f64 / 1000.0).sqrt();
        assert_eq!(value, 0.5);
        assert!((low - (0.5 - error)).abs() < 0.005 && (high - (0.5 + error)).abs() < 0.005, "{low} {high}");
        assert_eq!(mean_interval(&values), mean_interval(&values));
    }

    #[test]
    fn queries_that_lose_the_same_share_have_a_certain_ratio() {
        let reference: Vec<_> = (1..50).map(f64::from).collect();
        let values: Vec<_> = reference.iter().map(|value| 0.75 * value).collect();
        let Interval { value, low, high } = ratio_interval(&values, &reference);
        for found in [value, low, high] {
            assert!((found - 0.75).abs() < 1e-12);
        }
    }
}
