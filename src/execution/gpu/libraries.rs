//! NVIDIA's shared libraries: where pip puts them, and which of them are on this machine.

use std::path::{Path, PathBuf};

use super::driver::ask_library;
use crate::error::{Error, ErrorKind, Result};
use crate::onnxruntime::explain;
use crate::provider::Provider;

/// Nothing is linked to these, and no kernel of this model asked for them on the stand-ins for CUDA.
const OPTIONAL: [&str; 3] = ["libnvrtc.so.13", "libcufft.so.12", CUDNN];
const CUDNN: &str = "libcudnn.so.9";
const NVINFER: &str = "libnvinfer.so.10";

/// A library that a provider may need.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SharedLibrary {
    /// The file name, which ends in the version of its interface.
    pub name: &'static str,
    /// Why it cannot be used, with the remedy; `None` when it can.
    pub problem: Option<String>,
    /// Whether a model can run without it.
    pub optional: bool,
    /// Its own version, where it has a function for that.
    pub version: Option<String>,
}

/// Loads the libraries that `provider` needs, so that ONNX Runtime finds them loaded, and reports on each.
///
/// The system's loader is asked first, with its own places and `LD_LIBRARY_PATH`; then the `nvidia` and `tensorrt_libs`
/// folders beside the package of ONNX Runtime's library, where `pip install 'onnxruntime-gpu[cuda,cudnn]'` puts CUDA. A
/// loaded library stays loaded.
pub fn preload_libraries(onnxruntime: &Path, provider: Provider) -> Vec<SharedLibrary> {
    let folders = pip_folders(onnxruntime);
    let looked_for = |name| match load(name, &folders) {
        None => {
            let version = version(name);
            let problem = version.as_deref().filter(|version| name == NVINFER && !is_new_enough(version)).map(too_old);
            SharedLibrary { name, problem, optional: OPTIONAL.contains(&name), version }
        }
        Some(problem) => SharedLibrary {
            name,
            problem: Some(explain(&problem).unwrap_or(problem)),
            optional: OPTIONAL.contains(&name),
            version: None,
        },
    };
    provider.spec().libraries.concat().into_iter().map(looked_for).collect()
}

/// The version of the loaded TensorRT, if there is one.
pub(crate) fn tensorrt_version() -> Option<String> {
    version(NVINFER)
}

/// cuDNN and TensorRT count 10,000 for a major version, 100 for a minor one.
fn version(name: &str) -> Option<String> {
    let function = match name {
        CUDNN => "cudnnGetVersion",
        NVINFER => "getInferLibVersion",
        _ => return None,
    };
    let number = ask_library(name, function)?;
    Some(format!("{}.{}.{}", number / 10_000, number % 10_000 / 100, number % 100))
}

/// [`preload_libraries`], and an error for a missing TensorRT, without which there is no point in looking for engines.
///
/// # Errors
/// [`ErrorKind::Provider`] with the remedy.
pub(crate) fn preload_checked(onnxruntime: &Path, provider: Provider) -> Result<()> {
    for library in preload_libraries(onnxruntime, provider) {
        tracing::debug!(name = library.name, problem = library.problem, "preloaded a library");
        if let (NVINFER, Some(message)) = (library.name, library.problem) {
            return Err(Error::new(
                ErrorKind::Provider,
                format!("execution provider {provider} cannot be used: {message}"),
            ));
        }
    }
    Ok(())
}

fn too_old(version: &str) -> String {
    format!(
        "TensorRT {version} is too old: the graph's operators need 10.15 or newer; pip install 'tensorrt-cu13>=10.15,<11'"
    )
}

/// TensorRT's ONNX parser has RotaryEmbedding and RMSNormalization from 10.15 on (onnx-tensorrt, docs/Changelog.md). An
/// attention of 10.14 failed to build (NVIDIA/TensorRT#4705).
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (10, 15)
}

/// `None` when the library is loaded, or the loader's reason.
fn load(name: &str, folders: &[PathBuf]) -> Option<String> {
    let system = ort::util::preload_dylib(name).err()?;
    match folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()) {
        Some(file) => ort::util::preload_dylib(file).err().map(|error| reason(&error)),
        None => Some(reason(&system)),
    }
}

/// The loader's own message, which is the cause of "dlopen failed".
fn reason(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// `site-packages/nvidia/*/lib` and `site-packages/tensorrt_libs`, for `site-packages/onnxruntime/capi/libonnxruntime.so`.
fn pip_folders(onnxruntime: &Path) -> Vec<PathBuf> {
    let Some(packages) = onnxruntime.ancestors().nth(3) else { return Vec::new() };
    let mut folders: Vec<_> = std::fs::read_dir(packages.join("nvidia"))
        .map(|entries| entries.flatten().map(|entry| entry.path().join("lib")).collect())
        .unwrap_or_default();
    folders.sort();
    folders.push(packages.join("tensorrt_libs"));
    folders
}

#[cfg(test)]
mod tests {
    use super::is_new_enough;

    #[test]
    fn tensorrt_before_10_15_is_too_old() {
        for (version, wanted) in
            [("10.14.1", false), ("8.6.1", false), ("10.15.0", true), ("10.16.1", true), ("11.0.0", true)]
        {
            assert_eq!(is_new_enough(version), wanted, "{version}");
        }
    }
}
