//! Model folders: the manifest, how a graph computes, and the golden embeddings to check it with.

mod deviation;
mod golden;
mod layout;
mod manifest;
mod precision;

pub use deviation::Deviation;
pub use golden::{Golden, GoldenRow};
pub use manifest::{Architecture, Manifest};
pub use precision::{Activations, Precision, Quantization, Target, Tolerance};

pub(crate) use layout::{Axis, Input, Layout};
pub(crate) use manifest::{Dim, SUFFIX, TensorSpec};
