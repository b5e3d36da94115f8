//! The default sizes that rows, row counts and token counts are padded to.

use crate::model::Layout;

/// The largest row count in the default, of padded rows.
const MAX_DEFAULT_BATCH: usize = 64;
/// The same, of packed tokens.
const MAX_DEFAULT_PACKED: usize = 256;
/// The shortest length in the default.
const SHORTEST: usize = 16;

/// The smallest bucket that holds `wanted`.
pub(super) fn at_least(list: &[usize], wanted: usize) -> Option<usize> {
    list.get(list.partition_point(|size| *size < wanted)).copied()
}

/// 16, 32, 48, 64, 96, 128 …: powers of two and one and a half times each, up to and including the limit.
pub(super) fn default_lengths(max_length: usize) -> Vec<usize> {
    let mut lengths = Vec::new();
    let mut power = SHORTEST;
    while power < max_length {
        lengths.push(power);
        if power > SHORTEST && power + power / 2 < max_length {
            lengths.push(power + power / 2);
        }
        power *= 2;
    }
    lengths.push(max_length);
    lengths
}

/// Powers of two.
pub(super) fn default_rows(layout: Layout) -> Vec<usize> {
    let most = match layout {
        Layout::Padded => MAX_DEFAULT_BATCH,
        // Many short rows fill a run as well as a few long ones.
        Layout::Packed => MAX_DEFAULT_PACKED,
    };
    std::iter::successors(Some(1), |rows| Some(rows * 2)).take_while(|rows| *rows <= most).collect()
}

/// Packed tokens are padded to 16, 32, 48, 64, 96, 128, 192, 256, and then to multiples of 128.
pub(super) fn token_bucket(tokens: usize) -> usize {
    let step = match tokens {
        0..=64 => 16,
        65..=128 => 32,
        129..=256 => 64,
        _ => 128,
    };
    tokens.max(1).next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_lengths_reach_from_16_to_the_models_limit() {
        assert_eq!(default_lengths(512), [16, 32, 48, 64, 96, 128, 192, 256, 384, 512]);
        assert_eq!(default_lengths(100), [16, 32, 48, 64, 96, 100]);
        assert_eq!(default_lengths(7), [7]);
        assert_eq!(default_lengths(32_768).last(), Some(&32_768));
    }

    #[test]
    fn packed_batches_may_have_more_rows() {
        assert_eq!(default_rows(Layout::Padded), [1, 2, 4, 8, 16, 32, 64]);
        assert_eq!(default_rows(Layout::Packed).last(), Some(&256));
    }

    #[test]
    fn token_counts_are_rounded_up() {
        for (tokens, wanted) in [(0, 16), (1, 16), (17, 32), (64, 64), (65, 96), (129, 192), (257, 384), (4000, 4096)] {
            assert_eq!(token_bucket(tokens), wanted, "{tokens}");
        }
    }
}
