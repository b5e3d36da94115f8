//! Rows of numbers in one of the element types that a caller can ask for.

use std::fmt;
use std::str::FromStr;

use half::f16;
use half::slice::HalfFloatSliceExt;
use ndarray::{Array2, Axis};

use crate::error::{Error, Result};

/// Element type of embeddings.
///
/// What a row becomes depends on that row alone: there is nothing to calibrate, and rows of different calls can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Dtype {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats (IEEE half precision). An fp16 model returns them as computed; embeddings of an fp32 model are rounded.
    F16,
    /// 8-bit integers, -127 to 127, with one scale per row: the largest magnitude of the row becomes 127. Multiply by the scale
    /// to get the numbers; cosine similarity does not need it, a dot product does.
    Int8,
    /// One bit per number: 1 if it is greater than 0. Eight bits a byte, the first number in the most significant bit, as
    /// numpy's `packbits` has them; the last byte of a row is filled up with zeros.
    Binary,
}

/// Rows of numbers, `[N, D]`, of one of the element types.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Rows {
    /// 32-bit floats.
    F32(Array2<f32>),
    /// 16-bit floats.
    F16(Array2<f16>),
    /// 8-bit integers.
    #[non_exhaustive]
    Int8 {
        /// `[N, D]`, -127 to 127.
        values: Array2<i8>,
        /// `[N]`: what each row has to be multiplied by.
        scales: Vec<f32>,
    },
    /// Bits.
    #[non_exhaustive]
    Binary {
        /// `[N, ⌈D / 8⌉]`, the first number of a row in the most significant bit of its first byte.
        bytes: Array2<u8>,
        /// D.
        dim: usize,
    },
}

/// One row of numbers, `[D]`, of one of the element types.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Row {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 16-bit floats.
    F16(Vec<f16>),
    /// 8-bit integers.
    #[non_exhaustive]
    Int8 {
        /// `[D]`, -127 to 127.
        values: Vec<i8>,
        /// What they have to be multiplied by.
        scale: f32,
    },
    /// Bits.
    #[non_exhaustive]
    Binary {
        /// `[⌈D / 8⌉]`, the first number in the most significant bit of the first byte.
        bytes: Vec<u8>,
        /// D.
        dim: usize,
    },
}

impl Dtype {
    /// Every element type.
    pub const ALL: &'static [Self] = &[Self::F32, Self::F16, Self::Int8, Self::Binary];

    /// `f32`, `f16`, `int8` or `binary`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Binary => "binary",
        }
    }

    /// How many elements hold a row of `dim` numbers: `dim`, or the bytes of [`Dtype::Binary`].
    pub fn elements(self, dim: usize) -> usize {
        match self {
            Self::Binary => dim.div_ceil(8),
            _ => dim,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        crate::error::by_name("dtype", name, Self::ALL, Self::name)
    }
}

impl Rows {
    /// `rows` rows of `dim` zeros.
    pub(crate) fn zeros(dtype: Dtype, (rows, dim): (usize, usize)) -> Self {
        match dtype {
            Dtype::F32 => Self::F32(Array2::zeros((rows, dim))),
            Dtype::F16 => Self::F16(Array2::from_elem((rows, dim), f16::ZERO)),
            Dtype::Int8 => Self::Int8 { values: Array2::zeros((rows, dim)), scales: vec![0.0; rows] },
            Dtype::Binary => Self::Binary { bytes: Array2::zeros((rows, dtype.elements(dim))), dim },
        }
    }

    /// (N, D).
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Self::F32(rows) => rows.dim(),
            Self::F16(rows) => rows.dim(),
            Self::Int8 { values, .. } => values.dim(),
            Self::Binary { bytes, dim } => (bytes.dim().0, *dim),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::F16(_) => Dtype::F16,
            Self::Int8 { .. } => Dtype::Int8,
            Self::Binary { .. } => Dtype::Binary,
        }
    }

    /// The rows as 32-bit floats; a copy. Integers are multiplied by their scale; bits become ±1/√D, a row of unit length.
    pub fn to_f32(&self) -> Array2<f32> {
        match self {
            Self::F32(rows) => rows.clone(),
            Self::F16(rows) => widened(rows),
            Self::Int8 { .. } | Self::Binary { .. } => {
                let mut wide = Array2::zeros(self.shape());
                for (index, mut row) in wide.rows_mut().into_iter().enumerate() {
                    row.iter_mut().zip(self.row(index).to_f32()).for_each(|(to, value)| *to = value);
                }
                wide
            }
        }
    }

    /// A copy of one row.
    ///
    /// # Panics
    /// When `index` is not less than N.
    pub fn row(&self, index: usize) -> Row {
        match self {
            Self::F32(rows) => Row::F32(rows.index_axis(Axis(0), index).to_vec()),
            Self::F16(rows) => Row::F16(rows.index_axis(Axis(0), index).to_vec()),
            Self::Int8 { values, scales } => {
                Row::Int8 { values: values.index_axis(Axis(0), index).to_vec(), scale: scales[index] }
            }
            Self::Binary { bytes, dim } => Row::Binary { bytes: bytes.index_axis(Axis(0), index).to_vec(), dim: *dim },
        }
    }
}

impl Row {
    /// The numbers as 32-bit floats; a copy, as [`Rows::to_f32`].
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::F32(values) => values.clone(),
            Self::F16(values) => values.to_f32_vec(),
            Self::Int8 { values, scale } => values.iter().map(|value| f32::from(*value) * scale).collect(),
            Self::Binary { bytes, dim } => {
                let one = 1.0 / (*dim as f32).sqrt();
                (0..*dim).map(|index| if bytes[index / 8] >> (7 - index % 8) & 1 == 1 { one } else { -one }).collect()
            }
        }
    }
}

/// 16-bit floats as 32-bit floats, by the processor's own instructions where the memory is contiguous.
fn widened(narrow: &Array2<f16>) -> Array2<f32> {
    let Some(from) = narrow.as_slice() else { return narrow.mapv(f32::from) };
    let mut wide = vec![0.0; from.len()];
    from.convert_to_f32_slice(&mut wide);
    Array2::from_shape_vec(narrow.dim(), wide).unwrap_or_else(|_| narrow.mapv(f32::from))
}
