//! How far embeddings are from a reference.

/// How far an embedding is from a reference.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Deviation {
    /// The largest absolute difference of two numbers.
    pub largest_difference: f64,
    /// 1 − cosine.
    pub cosine_distance: f64,
}

impl Deviation {
    /// Compares two vectors of the same length.
    pub fn between<'a>(found: impl IntoIterator<Item = &'a f32>, wanted: impl IntoIterator<Item = &'a f32>) -> Self {
        let (mut largest, mut product, mut found_square, mut wanted_square) = (0.0, 0.0, 0.0, 0.0);
        for (one, other) in found.into_iter().zip(wanted) {
            let (one, other) = (f64::from(*one), f64::from(*other));
            let difference = (one - other).abs();
            // `f64::max` would drop a NaN.
            largest = if difference > largest || difference.is_nan() { difference } else { largest };
            product += one * other;
            found_square += one * one;
            wanted_square += other * other;
        }
        let cosine = product / (found_square * wanted_square).sqrt();
        Self { largest_difference: largest, cosine_distance: 1.0 - cosine }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Precision;

    #[test]
    fn a_deviation_is_zero_of_equal_vectors_and_never_hides_a_nan() {
        let same = Deviation::between(&[0.6, 0.8], &[0.6, 0.8]);
        assert!(same.largest_difference == 0.0 && same.cosine_distance.abs() < 1e-12);
        let turned = Deviation::between(&[1.0, 0.0], &[0.0, 1.0]);
        assert_eq!((turned.largest_difference, turned.cosine_distance), (1.0, 1.0));
        for found in [[f32::NAN, 0.0], [0.0, f32::NAN]] {
            let deviation = Deviation::between(&found, &[0.0, 1.0]);
            for precision in [Precision::Fp32, Precision::Fp16] {
                assert!(!precision.tolerance().allows(deviation), "{deviation:?}");
            }
        }
    }
}
