//! What opening a model starts from, read and checked once.

use std::path::Path;

use super::gpu::{Shapes, check_gpus, preload_checked};
use crate::error::Result;
use crate::model::Manifest;
use crate::onnxruntime::Library;
use crate::options::ModelOptions;

/// A model folder, the library and the options, which fit together.
pub(crate) struct Opening {
    pub(crate) manifest: Manifest,
    pub(crate) library: Library,
    pub(crate) options: ModelOptions,
    /// The shapes that batches are padded to on a GPU; `None` on the host.
    pub(crate) shapes: Option<Shapes>,
}

impl Opening {
    /// Reads the manifest, loads ONNX Runtime and NVIDIA's libraries, and checks that the provider is there, can run the model
    /// and reads the options.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model), [`ErrorKind::Library`](crate::ErrorKind::Library),
    /// [`ErrorKind::Provider`](crate::ErrorKind::Provider) or [`ErrorKind::Option`](crate::ErrorKind::Option).
    pub(crate) fn new(folder: impl AsRef<Path>, options: &ModelOptions) -> Result<Self> {
        let manifest = Manifest::open(folder)?;
        options.check()?;
        let provider = options.provider;
        provider.check_model(&manifest)?;
        let library = Library::load(options.library.as_deref())?;
        library.check_provider(options)?;
        if options.parallel_prepacking && !library.prepacks_in_parallel() {
            let version = library.version();
            tracing::warn!(version, "parallel_prepacking has no effect: it needs ONNX Runtime 1.32");
        }
        if provider.is_gpu() {
            check_gpus(provider, library.version_numbers(), &options.gpu.device_ids, manifest.precision())?;
        }
        preload_checked(library.path(), provider)?;
        let shapes = provider.is_gpu().then(|| Shapes::new(options, &manifest)).transpose()?;
        if options.verify_hashes {
            manifest.verify_hashes()?;
        }
        Ok(Self { manifest, library, options: options.clone(), shapes })
    }
}
