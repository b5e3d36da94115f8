//! From the floats that a graph returns to what a caller asked for, row by row.

use half::f16;
use half::slice::HalfFloatSliceExt;
use ndarray::ArrayViewMut1;

use super::rows::{Dtype, Rows};
use crate::error::{Error, ErrorKind, Result, in_range};

impl Rows {
    /// These rows in another element type, and only the first `dimensions` numbers of each: what a call with
    /// [`EmbedOptions::dtype`](crate::EmbedOptions::dtype) and [`EmbedOptions::dimensions`](crate::EmbedOptions::dimensions)
    /// returns, if these are the floats of a call without.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) for more dimensions than there are;
    /// [`ErrorKind::Inference`](crate::ErrorKind::Inference) for a number that is not finite, and when all that is left of a row
    /// is zero.
    pub fn converted(&self, dtype: Dtype, dimensions: usize) -> Result<Self> {
        let (count, dim) = self.shape();
        in_range("`dimensions`", dimensions, 1, dim)?;
        let mut rows = Self::zeros(dtype, (count, dimensions));
        (0..count).try_for_each(|row| place(self, row, &mut rows, row))?;
        Ok(rows)
    }
}

/// Writes row `from` of a graph's output, cut to the width of `rows`, to row `to`. A row that is cut is brought back to unit
/// length.
///
/// # Errors
/// [`ErrorKind::Inference`] for a number that is not finite, here or in `rows`, and when all that is left of a row is zero.
pub(super) fn place(output: &Rows, from: usize, rows: &mut Rows, to: usize) -> Result<()> {
    let ((_, width), (_, dim)) = (output.shape(), rows.shape());
    match (output, rows) {
        (Rows::F32(output), Rows::F32(rows)) if dim == width => {
            rows.row_mut(to).assign(&output.row(from));
            check(output.row(from).iter().all(|value| value.is_finite()))
        }
        (Rows::F16(output), Rows::F16(rows)) if dim == width => {
            rows.row_mut(to).assign(&output.row(from));
            check(output.row(from).iter().all(|value| value.is_finite()))
        }
        (output, rows) => {
            let mut values = output.row(from).to_f32();
            check(values.iter().all(|value| value.is_finite()))?;
            if dim < width {
                values.truncate(dim);
                normalize(&mut values)?;
            }
            write(&values, rows, to)
        }
    }
}

/// Writes numbers in the element type of `rows`.
fn write(values: &[f32], rows: &mut Rows, to: usize) -> Result<()> {
    match rows {
        Rows::F32(rows) => copy(values.iter().copied(), rows.row_mut(to)),
        Rows::F16(rows) => {
            let mut narrow = vec![f16::ZERO; values.len()];
            narrow.convert_from_f32_slice(values);
            check(narrow.iter().all(|value| value.is_finite()))?;
            copy(narrow, rows.row_mut(to));
        }
        Rows::Int8 { values: integers, scales } => {
            let largest = values.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
            // A row of zeros stays one.
            let divisor = if largest > 0.0 { largest } else { 1.0 };
            scales[to] = largest / 127.0;
            let integer = |value: &f32| (value / divisor * 127.0).round_ties_even() as i8;
            copy(values.iter().map(integer), integers.row_mut(to));
        }
        Rows::Binary { bytes, .. } => {
            let bit = |(index, value): (usize, &f32)| u8::from(*value > 0.0) << (7 - index);
            copy(values.chunks(8).map(|eight| eight.iter().enumerate().map(bit).sum()), bytes.row_mut(to));
        }
    }
    Ok(())
}

fn copy<T>(from: impl IntoIterator<Item = T>, mut to: ArrayViewMut1<'_, T>) {
    to.iter_mut().zip(from).for_each(|(to, value)| *to = value);
}

/// # Errors
/// [`ErrorKind::Inference`] when numbers are not finite.
fn check(is_finite: bool) -> Result<()> {
    if is_finite {
        return Ok(());
    }
    let message = "the graph returned a number that is not finite; an fp16 model may have overflowed";
    Err(Error::new(ErrorKind::Inference, message))
}

/// Brings a row to unit length.
fn normalize(values: &mut [f32]) -> Result<()> {
    let norm = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if norm == 0.0 {
        let message = format!("the first {} numbers of an embedding are all zero; raise `dimensions`", values.len());
        return Err(Error::new(ErrorKind::Inference, message));
    }
    values.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
    Ok(())
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;
    use crate::embeddings::Row;

    fn placed(values: &[f32], dtype: Dtype, dim: usize) -> Result<Row> {
        let output = Rows::F32(Array2::from_shape_vec((1, values.len()), values.to_vec()).unwrap());
        let mut rows = Rows::zeros(dtype, (1, dim));
        place(&output, 0, &mut rows, 0).map(|()| rows.row(0))
    }

    #[test]
    fn bits_are_signs_with_the_first_number_in_the_most_significant_bit() {
        let values = [0.5, -0.5, 0.0, -0.0, 1e-30, -1.0, -1.0, -1.0, -1.0, 2.0];
        let row = placed(&values, Dtype::Binary, 10).unwrap();
        assert_eq!(row, Row::Binary { bytes: vec![0b1000_1000, 0b0100_0000], dim: 10 });
        let one = 1.0 / 10_f32.sqrt();
        assert_eq!(row.to_f32(), values.map(|value| if value > 0.0 { one } else { -one }));
    }

    #[test]
    fn integers_reach_127_whatever_the_size_of_a_row() {
        for factor in [1.0, 1e-30, 3e38] {
            let row = placed(&[factor, -0.5 * factor, 0.0, 0.25 * factor], Dtype::Int8, 4).unwrap();
            let Row::Int8 { values, scale } = row else { panic!("{row:?}") };
            assert_eq!(values, [127, -64, 0, 32], "{factor}");
            assert_eq!(scale, factor / 127.0);
        }
        assert_eq!(placed(&[0.0; 3], Dtype::Int8, 3).unwrap().to_f32(), [0.0; 3]);
    }

    #[test]
    fn a_cut_row_has_unit_length_and_the_same_direction() {
        for dtype in [Dtype::F32, Dtype::F16] {
            let row = placed(&[0.3, -0.4, 0.5, 0.1], dtype, 2).unwrap().to_f32();
            assert!((row[0] - 0.6).abs() < 1e-3 && (row[1] + 0.8).abs() < 1e-3, "{row:?}");
        }
        assert_eq!(placed(&[0.3, -0.4, 0.5], Dtype::F32, 3).unwrap().to_f32(), [0.3, -0.4, 0.5], "nothing was cut");
        let error = placed(&[0.0, 0.0, 1.0], Dtype::F32, 2).unwrap_err();
        assert!(error.to_string().contains("first 2 numbers"), "{error}");
    }

    #[test]
    fn a_number_that_is_not_finite_is_an_error_in_every_type_and_width() {
        for &dtype in Dtype::ALL {
            for dim in [1, 3] {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    assert_eq!(placed(&[1.0, 0.0, bad], dtype, dim).unwrap_err().kind(), ErrorKind::Inference);
                }
            }
        }
        assert!(placed(&[1e6, 0.0], Dtype::F16, 2).is_err(), "beyond the range of 16 bits");
        let output = Rows::F16(array![[f16::NAN], [f16::ONE]]);
        let mut rows = Rows::zeros(Dtype::F16, (1, 1));
        assert!(place(&output, 0, &mut rows, 0).is_err());
        assert!(place(&output, 1, &mut rows, 0).is_ok(), "another row's number is another row's error");
    }
}
