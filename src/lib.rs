//! Run NVIDIA NV-Embed text-embedding models on ONNX Runtime.
//!
//! ```text
//! Prompt ──► Encoding ──► Plan ──► Batch ──► Session ──► Embeddings
//! instruction  ids,        rows of   input_ids       ONNX       [N, D], rows in
//! + text       masks'      like      attention_mask  Runtime    input order
//!              lengths     length    pool_mask
//! ```
//!
//! A model folder is made once from a checkpoint by the exporter (`nvembed-export`); [`Embedder::open`] checks and loads
//! it, [`Embedder::embed`] embeds a slice of prompts, and [`Embedder::embed_iter`] an endless stream of them.
//!
//! ```no_run
//! use nvembed::{Embedder, EncodeOptions, LoadOptions, Prompt};
//!
//! # fn main() -> nvembed::Result<()> {
//! let embedder = Embedder::open("build/models/nv-embed-mini-fp32", &LoadOptions::default())?;
//! let prompts = [
//!     Prompt::query("Given a question, retrieve passages that answer the question", "who wrote the odyssey?"),
//!     Prompt::passage("The Odyssey is attributed to Homer."),
//! ];
//! let embeddings = embedder.embed(&prompts, &EncodeOptions::default())?;
//! let rows = embeddings.to_f32();
//! println!("{}", rows.row(0).dot(&rows.row(1)));
//! # Ok(())
//! # }
//! ```
//!
//! In this crate's documentation B is the number of rows of a batch, S its padded length in tokens, N the number of
//! prompts of a call and D the embedding dimension (4,096 for NV-Embed).

mod batch;
mod buckets;
mod cache;
mod cancel;
#[cfg(feature = "capi")]
pub mod capi;
mod device;
mod embedder;
mod embeddings;
mod engine;
mod error;
mod libraries;
mod library;
mod manifest;
mod on_device;
mod options;
mod peak;
mod precision;
mod prepare;
mod prompt;
mod provider;
mod running;
mod session;
#[cfg(feature = "steps")]
#[doc(hidden)]
pub mod steps;
mod stream;
mod tokenizer;
mod worker;

pub use half;
pub use ndarray;

pub use buckets::Buckets;
pub use cancel::CancelToken;
pub use device::{DeviceInfo, UserStream, devices, driver_version};
pub use embedder::Embedder;
pub use embeddings::{Embedding, Embeddings, EmbeddingsView, Stats};
pub use error::{Error, ErrorKind, Result};
pub use libraries::{SharedLibrary, preload_libraries};
pub use library::{Library, MINIMUM_VERSION, OPENVINO_MINIMUM_VERSION};
pub use manifest::{Architecture, Manifest};
pub use on_device::DeviceEmbeddings;
pub use options::{EncodeOptions, LoadOptions, OutputType, SpecialTokens, Truncation};
pub use peak::matmul_peak;
pub use precision::{Activations, Precision, Quantization, Target};
pub use prepare::prepare;
pub use prompt::Prompt;
pub use provider::{ArenaStrategy, CudaOptions, Provider, TensorRtOptions};
pub use stream::EmbedIter;
