//! Model folders: the manifest, how a graph computes, and the golden embeddings to check it with.

mod golden;
mod manifest;
mod precision;

pub use golden::{Deviation, Golden, GoldenRow};
pub use manifest::{Architecture, Manifest};
pub use precision::{Activations, Precision, Quantization, Target, Tolerance};

pub(crate) use manifest::{Dim, SUFFIX, TensorSpec};
