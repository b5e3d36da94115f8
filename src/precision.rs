//! How an exported graph computes: its precision, how its weights are quantised, and which providers it is for.

use serde::Deserialize;

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
    /// bfloat16 matrix product. On CPUs OpenVINO runs them, from weights stored in 32-bit floats ([`Target::OpenVino`]).
    Bf16,
    /// Weights of matrix products as 8-bit codes in blocks, the rest as [`Quantization::activations`] says.
    Int8,
    /// As [`Precision::Int8`] with 4-bit codes.
    Int4,
    /// Weights with an 8-bit code and a scale for each output, multiplied as integers with activations of 8-bit codes
    /// with a scale for each token; the rest in 32-bit floats. For CPUs.
    W8a8,
}

impl Precision {
    /// The bits of a weight's code, for the quantised precisions.
    pub(crate) fn bits(self) -> Option<u32> {
        match self {
            Self::Fp32 | Self::Fp16 | Self::Bf16 => None,
            Self::Int8 | Self::W8a8 => Some(8),
            Self::Int4 => Some(4),
        }
    }
}

/// How a quantised graph stores the weights of its matrix products, and computes with them: for blocks, the attributes of
/// ONNX Runtime's `MatMulNBits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Quantization {
    /// Bits of a code.
    pub bits: u32,
    /// Weights that share a scale, along the sum; `None`: all of an output ([`Precision::W8a8`]).
    pub block_size: Option<u32>,
    /// Without zero points.
    pub symmetric: bool,
    /// The least precision of a product: 0 the kernel's choice, 1 fp32, 2 fp16, 3 bf16, 4 int8; `None` where there is no
    /// choice.
    pub accuracy_level: Option<u32>,
    /// What weights are multiplied with, and the graph's output.
    pub activations: Activations,
}

/// The dtype of a quantised graph's activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Activations {
    /// For CPUs. [`Precision::W8a8`] rounds them to 8 bits for products.
    Float32,
    /// As in [`Precision::Fp16`]: for GPUs.
    Float16,
}

impl std::fmt::Display for Quantization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.symmetric { "symmetric" } else { "asymmetric" };
        let activations = match self.activations {
            Activations::Float32 => "float32",
            Activations::Float16 => "float16",
        };
        write!(f, "{} bits, ", self.bits)?;
        match self.block_size {
            Some(size) => write!(f, "blocks of {size}, ")?,
            None => f.write_str("a scale an output, ")?,
        }
        write!(f, "{kind}, {activations} activations")?;
        match self.accuracy_level {
            Some(level) => write!(f, ", accuracy level {level}"),
            None => Ok(()),
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

/// Which execution providers a graph is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Target {
    /// All of them.
    Any,
    /// The CPU provider only; its memory grows with a row's length, where that of [`Target::Any`] grows with the square.
    Cpu,
    /// The OpenVINO provider only; its memory grows with a row's length.
    OpenVino,
    /// The TensorRT providers only. The exporter does not make such graphs yet.
    TensorRt,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::Cpu => "cpu",
            Self::OpenVino => "openvino",
            Self::TensorRt => "tensorrt",
        })
    }
}
