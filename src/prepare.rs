//! Work of opening a model that can be done ahead, once for each machine.
//!
//! On the CPU, ONNX Runtime optimises the graph and rearranges ("prepacks") the weights of matrix products for the
//! processor, into memory of its own. Prepared, the optimised graph and the rearranged weights are files, which are mapped:
//! all processes that open the same model then share one copy of the weights in memory.
//!
//! For TensorRT, the files are the engines it builds of the graph, for the GPUs, shapes and options that they are used with.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::cache::{Cache, Key};
use crate::device::{DeviceInfo, devices, driver_version};
use crate::embedder::Embedder;
use crate::engine;
use crate::error::{Error, ErrorKind, Result};
use crate::libraries;
use crate::library::Library;
use crate::manifest::{Manifest, hex};
use crate::options::{EncodeOptions, LoadOptions};
use crate::prompt::Prompt;
use crate::provider::{Provider, engine_options};
use crate::session::Source;

/// The folder of a model folder that holds prepared graphs when no other is named.
const CACHE_FOLDER: &str = "cache";

/// To be raised when what is prepared changes in a way that the other parts of the key do not show.
const FORMAT: &str = "1";

/// Prepares a model folder for this machine, and returns the folder in the cache that holds what was made.
///
/// [`Embedder::open`] uses it from then on, when the model, the ONNX Runtime build and the processor are the same and
/// [`LoadOptions::cache`] names the same folder. Embeddings are the same bit for bit: a few are computed with and without,
/// and compared. What is prepared already is left as it is; of several callers at the same time one works, and the others
/// wait.
///
/// On the CPU, the files take about twice the room of the model's. The memory needed is that of opening the model.
///
/// `started` is called with the folder that is being filled, if there is something to do: for showing progress, and so
/// that a program which is about to die can remove it.
///
/// # Errors
/// [`ErrorKind::Option`] when there is nothing to prepare for the provider; [`ErrorKind::Cache`] when the cache cannot be
/// written; [`ErrorKind::Inference`] when the embeddings differ; and as [`Embedder::open`].
pub fn prepare(folder: impl AsRef<Path>, options: &LoadOptions, started: impl FnOnce(&Path)) -> Result<PathBuf> {
    let manifest = Manifest::open(folder)?;
    let library = Library::load(options.library.as_deref())?;
    options.provider.check_model(&manifest)?;
    if options.provider.builds_engines() {
        options.provider.check_in_library(&library)?;
        libraries::preload_checked(library.path(), options.provider)?;
        devices()?;
    }
    let Some((cache, key)) = place(&manifest, &library, options)? else {
        let message = match options.provider {
            Provider::Cpu => {
                "this system does not say what processor it has (/proc/cpuinfo), so nothing can be kept".to_owned()
            }
            other => format!("provider is {other}, models can be prepared for cpu, tensorrt and nv-tensorrt-rtx"),
        };
        return Err(Error::new(ErrorKind::Option, message));
    };
    cache.make(&key, |into| {
        started(into);
        let embed = |source: &Source| {
            let embedder = Embedder::open_source(manifest.clone(), library.clone(), options, source)?;
            embedder.embed(&probes(), &EncodeOptions::default())
        };
        let before = embed(&Source::Save(into.to_owned()))?.to_f32();
        let after = embed(&Source::Prepared(into.to_owned()))?.to_f32();
        if before != after {
            let message = format!("the prepared graph of {} gives other embeddings", manifest.folder().display());
            return Err(Error::new(ErrorKind::Inference, message));
        }
        Ok(())
    })
}

/// What [`prepare`] made for these options, if it did.
pub(crate) fn find(manifest: &Manifest, library: &Library, options: &LoadOptions) -> Option<PathBuf> {
    let (cache, key) = place(manifest, library, options).ok()??;
    cache.find(&key, options.verify_hashes)
}

/// Where what is prepared is kept, and its key; `None` where nothing can be prepared.
///
/// # Errors
/// [`ErrorKind::Option`] when an option of a GPU is out of range.
fn place(manifest: &Manifest, library: &Library, options: &LoadOptions) -> Result<Option<(Cache, Key)>> {
    let folder = options.cache.clone().unwrap_or_else(|| manifest.folder().join(CACHE_FOLDER));
    let model = ("manifest_sha256", manifest.digest().to_owned());
    let runtime = ("onnxruntime", format!("{} {}", library.version(), library.build_info()));
    let format = ("format", FORMAT.to_owned());
    let key = match options.provider {
        Provider::Cpu => {
            let Some(processor) = processor() else { return Ok(None) };
            Key::new("cpu", [format, model, runtime, ("processor", processor)])
        }
        Provider::Cuda | Provider::OpenVino => return Ok(None),
        provider @ (Provider::TensorRt | Provider::NvTensorRtRtx) => {
            let (_, placement) = engine::plan(manifest, options)?;
            // NVIDIA's libraries tell their versions once they are loaded.
            libraries::preload_libraries(library.path(), provider);
            let Some(gpus) = gpus(&options.cuda.device_ids) else { return Ok(None) };
            let chosen = engine_options(provider, &options.cuda, &options.tensorrt, &placement);
            let tensorrt = libraries::tensorrt_version().unwrap_or_else(|| "unknown".to_owned());
            Key::new(
                provider.name(),
                [format, model, runtime, ("tensorrt", tensorrt), ("gpus", gpus), ("options", chosen)],
            )
        }
    };
    Ok(Some((Cache::new(folder), key)))
}

/// What TensorRT chooses its kernels by, of each kind of GPU that is used once; and the driver.
fn gpus(ids: &[usize]) -> Option<String> {
    let (major, minor) = driver_version().ok()?;
    let used = devices().ok()?.into_iter().filter(|device| ids.contains(&device.id));
    let mut kinds: Vec<String> = used
        .map(|DeviceInfo { name, compute_capability: (major, minor), total_memory, .. }| {
            format!("{name}, {major}.{minor}, {total_memory} bytes")
        })
        .collect();
    kinds.sort();
    kinds.dedup();
    (!kinds.is_empty()).then(|| format!("{}; driver for CUDA {major}.{minor}", kinds.join("; ")))
}

/// What ONNX Runtime chooses its kernels by: the processor's model and instruction sets.
fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let first: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).collect();
    let field = |names: &[&str]| {
        first.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            names.contains(&name.trim()).then(|| value.trim())
        })
    };
    // The second name of each is that of ARM's kernels.
    let flags = field(&["flags", "Features"])?;
    let model = field(&["model name", "CPU part"]).unwrap_or("unknown");
    Some(format!("{model}, instruction sets {}", &hex(&Sha256::digest(flags))[..16]))
}

/// Prompts whose embeddings must not change; rows of different lengths, so that padding takes part.
fn probes() -> [Prompt<'static>; 2] {
    [
        Prompt::query("Given a question, retrieve passages that answer the question", "where is the harbour?"),
        Prompt::passage("The harbour lies east of the old town."),
    ]
}
