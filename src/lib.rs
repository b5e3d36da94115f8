//! Run NVIDIA NV-Embed text-embedding models on ONNX Runtime.
//!
//! ```text
//! Prompt ──► Encoding ──► Plan ──► Batch ──► Executor ──► Embeddings
//! instruction  token      rows of   input_ids       ONNX       [N, D], rows in
//! + text       ids        like      attention_mask  Runtime    input order
//!                         length    pool_mask
//! ```
//!
//! A model folder is made once from a checkpoint by the exporter (`nvembed-export`). [`Embedder::open`] checks and loads it,
//! [`Embedder::embed`] embeds a slice of prompts, and [`Embedder::embed_iter`] an endless stream of them.
//!
//! ```no_run
//! use nvembed::{EmbedOptions, Embedder, ModelOptions, Prompt};
//!
//! # fn main() -> nvembed::Result<()> {
//! let embedder = Embedder::open("build/models/nv-embed-mini-fp32", &ModelOptions::default())?;
//! let prompts = [
//!     Prompt::query("Given a question, retrieve passages that answer the question", "who wrote the odyssey?"),
//!     Prompt::passage("The Odyssey is attributed to Homer."),
//! ];
//! let embeddings = embedder.embed(&prompts, &EmbedOptions::default())?.to_f32();
//! println!("{}", embeddings.row(0).dot(&embeddings.row(1)));
//! # Ok(())
//! # }
//! ```
//!
//! In this documentation B is the number of rows of a batch, S its padded length in tokens, N the number of prompts of a call
//! and D the embedding dimension (4,096 for NV-Embed).
//!
//! # ONNX Runtime
//!
//! The library `libonnxruntime` is loaded at run time, once per process, when the first model opens. `pip install onnxruntime`
//! in a virtual environment is enough if `VIRTUAL_ENV` is set or the environment is a `.venv` above the program; otherwise
//! name the file in `ORT_DYLIB_PATH` or in [`ModelOptions::library`]. [`onnxruntime::Library::load`] lists all places. The
//! execution providers come as different builds of that library: `onnxruntime-gpu` has CUDA and TensorRT,
//! `onnxruntime-openvino` has OpenVINO.
//!
//! # Threads
//!
//! All calls block. From asynchronous code, call them in a blocking task (`tokio::task::spawn_blocking`). An [`Embedder`] is
//! shared between threads by reference: calls tokenize at the same time and take turns on the graph. A call can be ended from
//! another thread with a [`CancelToken`], or by a deadline. A debug build of your program tokenizes slowly: set `opt-level` for
//! dependencies in its development profile.
//!
//! # GPUs
//!
//! Set [`ModelOptions::provider`] to [`Provider::Cuda`] and, if need be, [`ModelOptions::gpu`]. Each GPU has a worker thread
//! with the whole model; batches are padded to a few shapes (buckets) with buffers and CUDA graphs of their own.
//! [`Embedder::warm_up`] makes them all, [`Embedder::embed_on_device`] leaves rows in GPU memory. See [`gpu`].
//!
//! # Errors
//!
//! Decide by [`Error::kind`]. [`Error::report`] prints the message with all causes, and the options under the names that your
//! users know. Prompts never appear in messages or logs. Logs go through [`tracing`](https://docs.rs/tracing).

mod batch;
mod cache;
mod embedder;
mod embeddings;
mod error;
mod execution;
mod hash;
pub mod machine;
pub mod model;
pub mod onnxruntime;
mod options;
mod pipeline;
mod prepare;
mod prompt;
mod provider;
pub mod queue;
mod self_check;
#[doc(hidden)]
pub mod steps;
mod stream;
mod tokenize;

pub use half;
pub use ndarray;

pub use embedder::Embedder;
pub use embeddings::{Dtype, Embedding, Embeddings, Row, Rows, Stats};
pub use error::{Error, ErrorKind, Result};
pub use options::{CancelToken, EmbedOptions, ModelOptions, SpecialTokens, Truncation};
pub use prepare::prepare;
pub use prompt::Prompt;
pub use provider::{PluginName, Provider};
pub use stream::EmbedIter;
pub use tokenize::Tokens;

/// NVIDIA GPUs: options, devices, the libraries they need, and embeddings that stay in their memory.
pub mod gpu {
    pub use crate::execution::gpu::{
        DeviceEmbeddings, DeviceInfo, DeviceRows, KNOWN_LIBRARY, SharedLibrary, check_device, check_driver, devices,
        driver_version, free_memory, preload_libraries,
    };
    pub use crate::provider::{ArenaStrategy, GpuOptions, TargetGpu, UserStream};
}
