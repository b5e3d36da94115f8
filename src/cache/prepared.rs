//! Where the work of opening a model is kept: the key of an entry, and what it is for each kind of provider. And where it is
//! remembered that an open model was checked.

use std::path::{Path, PathBuf};

use super::store::{Cache, Key};
use crate::error::Result;
use crate::execution::Opening;
use crate::execution::gpu::{DeviceInfo, Shapes, devices, driver_version, tensorrt_version};
use crate::hash::{fingerprint, sha256_of_file};
use crate::machine::processor_and_instructions;
use crate::provider::{Placement, Prepares, TargetGpu, engine_options};

/// The folder in a model folder that holds prepared models when no other is named.
const FOLDER: &str = "cache";

/// Raised when what is prepared changes in a way that the other parts of the key do not show.
const FORMAT: &str = "1";

/// The place of one entry in the cache.
pub(crate) struct Place {
    cache: Cache,
    key: Key,
}

/// A folder of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It is being filled: what opening makes is written there.
    Filling(PathBuf),
    /// It is complete: opening reads it.
    Complete(PathBuf),
}

impl Entry {
    pub(crate) fn folder(&self) -> &Path {
        match self {
            Self::Filling(folder) | Self::Complete(folder) => folder,
        }
    }
}

impl Place {
    /// The place for this model, library, machine and options; `None` where nothing can be prepared.
    pub(crate) fn of(opening: &Opening) -> Option<Self> {
        let Opening { manifest, library, options, shapes } = opening;
        let format = ("format", FORMAT.to_owned());
        let model = ("manifest_sha256", manifest.digest().to_owned());
        let runtime = ("onnxruntime", format!("{} {}", library.version(), library.build_info()));
        let key = match (options.provider.spec().prepares, shapes) {
            (Prepares::Graph, _) => {
                Key::new("cpu", [format, model, runtime, ("processor", processor_and_instructions()?)])
            }
            (Prepares::Engines, Some(shapes)) => {
                let facts = [format, model, runtime, tensorrt(), gpus(opening)?, engines(opening, shapes)];
                Key::new(options.provider.name(), facts)
            }
            (Prepares::Compiled, Some(shapes)) => {
                let gpu = ("gpu", target_gpu(opening)?.to_string());
                let facts = [format, model, runtime, plugin(opening)?, gpu, engines(opening, shapes)];
                Key::new(options.provider.name(), facts)
            }
            _ => return None,
        };
        Some(Self { cache: cache(opening), key })
    }

    /// The place where it is remembered that this model, with what was prepared for it, was checked with this library, machine
    /// and options; `None` where the system does not say what the machine is. Files that are written to have another place.
    pub(crate) fn of_check(opening: &Opening, entry: Option<&Entry>) -> Option<Self> {
        let Opening { manifest, library, options, .. } = opening;
        let mut files: Vec<PathBuf> = manifest.paths().collect();
        files.extend(library.plugin(options).ok()?.map(|plugin| plugin.path().to_owned()));
        if let Some(entry) = entry {
            let of_entry = std::fs::read_dir(entry.folder()).ok()?;
            files.extend(of_entry.map(|file| Some(file.ok()?.path())).collect::<Option<Vec<_>>>()?);
        }
        files.sort();
        let facts = files.iter().map(|file| {
            let name = file.file_name()?.to_string_lossy();
            Some(format!("{name}: {}\n", fingerprint(file).ok()?))
        });
        let gpus = if options.provider.is_gpu() { gpus(opening)?.1 } else { "none".to_owned() };
        let parts = [
            ("format", FORMAT.to_owned()),
            ("manifest_sha256", manifest.digest().to_owned()),
            ("onnxruntime", format!("{} {}", library.version(), library.build_info())),
            tensorrt(),
            ("processor", processor_and_instructions()?),
            ("gpus", gpus),
            ("options", format!("{:?}", options.of_computation())),
            ("files", facts.collect::<Option<String>>()?),
        ];
        Some(Self { cache: cache(opening), key: Key::new("checked", parts) })
    }

    /// The entry, if it is there.
    pub(crate) fn find(&self, verify_hashes: bool) -> Option<Entry> {
        self.cache.find(&self.key, verify_hashes).map(Entry::Complete)
    }

    /// Makes the entry unless it is there, and returns its folder.
    ///
    /// # Errors
    /// As [`Cache::make`].
    pub(crate) fn make(&self, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        self.cache.make(&self.key, make)
    }
}

fn cache(opening: &Opening) -> Cache {
    let Opening { manifest, options, .. } = opening;
    Cache::new(options.cache.clone().unwrap_or_else(|| manifest.folder().join(FOLDER)))
}

fn engines(opening: &Opening, shapes: &Shapes) -> (&'static str, String) {
    let options = &opening.options;
    let placement = Placement::for_gpu(&opening.manifest, shapes.profile());
    ("options", engine_options(options.provider, &options.gpu, &options.provider_options, &placement))
}

/// NVIDIA's libraries report their versions once they are loaded, as [`Opening::new`] does.
fn tensorrt() -> (&'static str, String) {
    ("tensorrt", tensorrt_version().unwrap_or_else(|| "unknown".to_owned()))
}

/// The plugin that compiles, by its bytes: it has no function for its version.
fn plugin(opening: &Opening) -> Option<(&'static str, String)> {
    let plugin = opening.library.plugin(&opening.options).ok()??;
    Some(("plugin_sha256", sha256_of_file(plugin.path()).ok()?))
}

/// The architecture to compile for: the one of the options, or that of all GPUs in use.
pub(crate) fn target_gpu(opening: &Opening) -> Option<TargetGpu> {
    let options = &opening.options.gpu;
    if options.target_gpu.is_some() {
        return options.target_gpu;
    }
    let used = devices().ok()?.into_iter().filter(|device| options.device_ids.contains(&device.id));
    let mut kinds: Vec<_> = used.map(|device| device.compute_capability).collect();
    kinds.dedup();
    let [(major, minor)] = kinds[..] else { return None };
    format!("sm{major}{minor}").parse().ok()
}

/// What TensorRT chooses its kernels by: each kind of GPU in use, once, and the driver.
fn gpus(opening: &Opening) -> Option<(&'static str, String)> {
    let (major, minor) = driver_version().ok()?;
    let ids = &opening.options.gpu.device_ids;
    let used = devices().ok()?.into_iter().filter(|device| ids.contains(&device.id));
    let mut kinds: Vec<String> = used
        .map(|DeviceInfo { name, compute_capability: (major, minor), total_memory, .. }| {
            // The driver's figure changes by some MiB with its version, and with ECC.
            let gibibytes = (total_memory + (1 << 29)) >> 30;
            format!("{name}, {major}.{minor}, {gibibytes} GiB")
        })
        .collect();
    kinds.sort();
    kinds.dedup();
    (!kinds.is_empty()).then(|| ("gpus", format!("{}; driver for CUDA {major}.{minor}", kinds.join("; "))))
}
