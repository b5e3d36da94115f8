//! How an exported graph computes: its precision, how its weights are quantized, and which providers it is for.

use std::fmt;

use serde::Deserialize;

use super::deviation::Deviation;

/// The arithmetic of an exported graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// Everything in 32-bit floats; the graph returns float32.
    Fp32,
    /// Matrix products and attention in 16-bit floats, residual stream and statistics in 32; the graph returns float16.
    Fp16,
    /// As [`Precision::Fp16`] with bfloat16; the graph returns float32. For GPUs: ONNX Runtime's CPU provider has no
    /// bfloat16 matrix product. On CPUs, OpenVINO runs bf16 models, whose weights are then stored as 32-bit floats
    /// ([`Target::OpenVino`]).
    Bf16,
    /// Weights of matrix products as 8-bit codes in blocks; activations as [`Quantization::activations`] says.
    Int8,
    /// As [`Precision::Int8`] with 4-bit codes.
    Int4,
    /// 8-bit integer products: weights have one scale per output, activations one scale per token; everything else is in
    /// 32-bit floats. For CPUs.
    W8a8,
}

impl Precision {
    /// Every precision.
    pub const ALL: &'static [Self] = &[Self::Fp32, Self::Fp16, Self::Bf16, Self::Int8, Self::Int4, Self::W8a8];

    /// The bits of a weight's code, for the quantized precisions.
    pub(crate) fn bits(self) -> Option<u32> {
        match self {
            Self::Fp32 | Self::Fp16 | Self::Bf16 => None,
            Self::Int8 | Self::W8a8 => Some(8),
            Self::Int4 => Some(4),
        }
    }

    /// How far a right embedding of this precision may be from the float64 reference.
    ///
    /// The one table of these bounds: `nvembed verify`, the benchmarks and the GPU acceptance all read it.
    pub fn tolerance(self) -> Tolerance {
        match self {
            // The most that the exporter's tests allow at any depth. Measured there: at most 7e-7, at up to 12 layers.
            Self::Fp32 => Tolerance::LargestDifference(1e-5),
            // Measured: at most 4e-6, at up to 12 layers.
            Self::Fp16 => Tolerance::CosineDistance(1e-4),
            // Rounding is 8 times as coarse as in fp16, and 1 − cosine grows with its square. Random models of 12 layers were
            // 3e-4 away, nv-embed-mini 1e-5.
            Self::Bf16 => Tolerance::CosineDistance(2e-3),
            // Of quantized weights, the distance is that of a trained model and no bound: see docs/guides/precision.md.
            Self::Int8 => Tolerance::CosineDistance(1e-3),
            Self::Int4 => Tolerance::CosineDistance(5e-2),
            Self::W8a8 => Tolerance::CosineDistance(5e-3),
        }
    }
}

/// A bound on the [`Deviation`] of an embedding from a reference.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Tolerance {
    /// On the largest absolute difference of two numbers of the unit vectors.
    LargestDifference(f64),
    /// On 1 − cosine.
    CosineDistance(f64),
}

impl Tolerance {
    /// Whether the deviation is within the bound. One that is not a number is not.
    pub fn allows(self, deviation: Deviation) -> bool {
        match self {
            Self::LargestDifference(bound) => deviation.largest_difference <= bound,
            Self::CosineDistance(bound) => deviation.cosine_distance <= bound,
        }
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LargestDifference(bound) => write!(f, "{bound:.0e} in each number"),
            Self::CosineDistance(bound) => write!(f, "{bound:.0e} in 1 - cosine"),
        }
    }
}

/// How a quantized graph stores the weights of its matrix products, and computes with them: for blocks, the attributes of
/// ONNX Runtime's `MatMulNBits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Quantization {
    /// Bits per code.
    pub bits: u32,
    /// Weights that share a scale, along the summed dimension; `None`: all weights of an output ([`Precision::W8a8`]).
    pub block_size: Option<u32>,
    /// Without zero points.
    pub symmetric: bool,
    /// The least precision of a product: 0 the kernel's choice, 1 fp32, 2 fp16, 3 bf16, 4 int8; `None` where there is no
    /// choice.
    pub accuracy_level: Option<u32>,
    /// The dtype of what weights are multiplied with, and of the graph's output.
    pub activations: Activations,
}

/// The dtype of a quantized graph's activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Activations {
    /// For CPUs. [`Precision::W8a8`] rounds them to 8 bits for products.
    Float32,
    /// As in [`Precision::Fp16`]: for GPUs.
    Float16,
}

/// Which execution providers a graph is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Target {
    /// The CPU and CUDA providers.
    Any,
    /// The CUDA provider. Nothing is computed for padding, except in attention. The CPU provider runs it too, for checks.
    Cuda,
    /// The CPU provider only. Memory grows with the length of a row; with [`Target::Any`] it grows with the square.
    Cpu,
    /// The OpenVINO provider only. Memory grows with the length of a row.
    OpenVino,
    /// The TensorRT providers only: attention has a mask, because TensorRT ignores row lengths.
    TensorRt,
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.symmetric { "symmetric" } else { "asymmetric" };
        let activations = match self.activations {
            Activations::Float32 => "float32",
            Activations::Float16 => "float16",
        };
        write!(f, "{} bits, ", self.bits)?;
        match self.block_size {
            Some(size) => write!(f, "blocks of {size}, ")?,
            None => f.write_str("one scale per output, ")?,
        }
        write!(f, "{kind}, {activations} activations")?;
        match self.accuracy_level {
            Some(level) => write!(f, ", accuracy level {level}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::W8a8 => "w8a8",
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
            Self::OpenVino => "openvino",
            Self::TensorRt => "tensorrt",
        })
    }
}
