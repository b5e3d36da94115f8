//! Work of opening a model that is done ahead, once per machine.
//!
//! On the CPU, ONNX Runtime optimizes the graph and rearranges ("prepacks") the weights of matrix products for the processor,
//! into memory of its own. Prepared, the optimized graph and the rearranged weights are files, which are mapped: all processes
//! that open the same model then share one copy of the weights.
//!
//! For TensorRT-RTX, they are a graph of one node and the engine beside it, compiled for one GPU architecture, which no GPU of
//! the machine needs to have.
//!
//! For TensorRT, the files are the engines it builds from the graph, for the GPUs, shapes and options they are used with.

use std::path::{Path, PathBuf};

use crate::cache::{Entry, Place, target_gpu};
use crate::embedder::Embedder;
use crate::error::{Error, ErrorKind, Result};
use crate::execution::Opening;
use crate::execution::gpu;
use crate::onnxruntime::compile_graph;
use crate::options::{EmbedOptions, ModelOptions};
use crate::prompt::Prompt;
use crate::provider::{Attachment, Placement, Prepares, compile_options};

/// Prepares a model folder for this machine, and returns the cache folder with what was made.
///
/// [`Embedder::open`] uses it from then on, as long as the model, the ONNX Runtime build, the processor or GPUs and
/// [`ModelOptions::cache`] are the same. Embeddings are the same bit for bit: some are computed with and without it, and
/// compared. What is already prepared is left as it is; of several callers at once, one works and the others wait.
///
/// On the CPU, the files take about twice the size of the model's. The memory needed is that of opening the model.
///
/// `started` is called with the folder that is being filled, if there is something to do: to show progress, and so that a
/// program that is about to be killed can remove the folder.
///
/// # Errors
/// [`ErrorKind::Option`] when there is nothing to prepare for the provider; [`ErrorKind::Cache`] when the cache cannot be
/// written; [`ErrorKind::Inference`] when the embeddings differ; and as [`Embedder::open`], which runs the self-check of what
/// was prepared.
pub fn prepare(folder: impl AsRef<Path>, options: &ModelOptions, started: impl FnOnce(&Path)) -> Result<PathBuf> {
    if options.provider.spec().prepares == Prepares::Nothing {
        return Err(nothing_to_prepare(options));
    }
    let opening = Opening::new(&folder, options)?;
    if options.provider.builds_engines() && options.gpu.target_gpu.is_none() {
        // Without devices the entry would have no name; their error says why there are none.
        gpu::devices()?;
    }
    let Some(place) = Place::of(&opening) else { return Err(nothing_to_prepare(options)) };
    let entry = place.make(|into| {
        started(into);
        if options.provider.compiles() {
            return compile(&opening, into);
        }
        let embed = |entry: &Entry| {
            let embedder = Embedder::assemble(&opening, Some(entry))?;
            embedder.embed(&probes(), &EmbedOptions::default())
        };
        let before = embed(&Entry::Filling(into.to_owned()))?.to_f32();
        let after = embed(&Entry::Complete(into.to_owned()))?.to_f32();
        if before != after {
            let folder = opening.manifest.folder().display();
            let message = format!("the prepared graph of {folder} gives other embeddings than the model's own graph");
            return Err(Error::new(ErrorKind::Inference, message));
        }
        Ok(())
    })?;
    if options.gpu.target_gpu.is_none() {
        // For its self-check, which the first user then need not wait for.
        Embedder::open(folder, &ModelOptions { verify_hashes: false, ..options.clone() })?;
    }
    Ok(entry)
}

/// Compiles the graph into the entry. If it is for this machine's GPU, some embeddings are computed with it: that it loads and
/// gives finite numbers.
fn compile(opening: &Opening, into: &Path) -> Result<()> {
    let Opening { manifest, library, options, shapes } = opening;
    let (Some(target), Some(shapes)) = (target_gpu(opening), shapes) else { return Err(nothing_to_prepare(options)) };
    let placement = Placement::for_gpu(manifest, shapes.profile());
    let pairs = compile_options(options.provider, &options.gpu, &options.provider_options, &placement, target);
    compile_graph(manifest, library, options, &Attachment::Plugin { device: 0, pairs }, into)?;
    if options.gpu.target_gpu.is_none() {
        let embedder = Embedder::assemble(opening, Some(&Entry::Complete(into.to_owned())))?;
        embedder.embed(&probes(), &EmbedOptions::default())?;
    }
    Ok(())
}

fn nothing_to_prepare(options: &ModelOptions) -> Error {
    let message = match options.provider.spec().prepares {
        Prepares::Nothing => {
            let provider = options.provider;
            format!("there is nothing to prepare for provider {provider}, only for cpu, tensorrt and nv-tensorrt-rtx")
        }
        Prepares::Graph => {
            "this system does not say what processor it has (/proc/cpuinfo), so nothing can be prepared for it"
                .to_owned()
        }
        Prepares::Compiled => {
            "the GPUs of `device_ids` are of several architectures, or of one that is not sm86, sm89, sm120 or sm121; name \
             one with `target_gpu`"
                .to_owned()
        }
        Prepares::Engines => "the NVIDIA driver does not say what GPUs there are, so no engine can be built".to_owned(),
    };
    Error::new(ErrorKind::Option, message)
}

/// Prompts whose embeddings must not change; rows of different lengths, so that padding takes part.
fn probes() -> [Prompt<'static>; 2] {
    [
        Prompt::query("Given a question, retrieve passages that answer the question", "where is the harbour?"),
        Prompt::passage("The harbour lies east of the old town."),
    ]
}
