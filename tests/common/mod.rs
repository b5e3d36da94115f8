//! What the test programs share: where the models are, and how to open and damage them.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};

use nvembed::{EmbedOptions, Embedder, ModelOptions};

pub mod openvino;
pub mod reference;
#[cfg(target_os = "linux")]
pub mod shim;

/// The largest difference between a row alone, in a batch, and in another order, for an fp32 model: the rows of a batch do not
/// change each other's values, only how kernels split their sums.
pub const BATCH_INVARIANCE: f32 = 1e-6;

/// The repository's root, whichever package's tests these are.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .ancestors()
        .find(|folder| folder.join("models/nv-embed-mini").is_dir())
        .expect("a checkout of the repository")
}

/// The exported mini model: "fp32", "fp16", "bf16", "int8", "int4", "w8a8", "cpu-fp32", "cuda-fp16", "openvino-fp32" or "openvino-bf16".
pub fn mini(precision: &str) -> PathBuf {
    let folder = root().join(format!("build/models/nv-embed-mini-{precision}"));
    assert!(folder.join("nvembed.json").is_file(), "{} is made by `make models`", folder.display());
    folder
}

/// The exported mini model, open with default options.
pub fn open(precision: &str) -> Embedder {
    Embedder::open(mini(precision), &ModelOptions::default()).unwrap()
}

/// Default options with changes.
pub fn model_options(change: impl FnOnce(&mut ModelOptions)) -> ModelOptions {
    let mut options = ModelOptions::default();
    change(&mut options);
    options
}

/// Default options of a call with changes.
pub fn embed_options(change: impl FnOnce(&mut EmbedOptions)) -> EmbedOptions {
    let mut options = EmbedOptions::default();
    change(&mut options);
    options
}

/// The precisions that the CPU provider runs on this processor.
pub fn precisions_on_this_cpu() -> Vec<&'static str> {
    let mut precisions = vec!["fp32", "fp16", "int8", "int4"];
    if has_vnni() {
        precisions.push("w8a8");
    } else {
        skipped("w8a8", "this processor has no VNNI");
    }
    precisions
}

/// Whether this processor sums 8-bit products exactly, which w8a8 needs.
pub fn has_vnni() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = is_x86_feature_detected!("avx512vnni") || is_x86_feature_detected!("avxvnni");
    #[cfg(not(target_arch = "x86_64"))]
    let has = true;
    has
}

/// Says that something was not tested, past the test runner's capture.
pub fn skipped(what: &str, reason: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {reason}");
}

/// A copy of the fp32 mini model to damage; its large file is a hard link where the file system allows it.
pub fn mini_copy() -> tempfile::TempDir {
    mini_copy_of("fp32")
}

/// The same of another precision.
pub fn mini_copy_of(precision: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir_in(root().join("build")).unwrap();
    for entry in std::fs::read_dir(mini(precision)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            // What is remembered of the model.
            continue;
        }
        let target = copy.path().join(entry.file_name());
        if entry.file_name() == "model.onnx.data" && std::fs::hard_link(entry.path(), &target).is_ok() {
            continue;
        }
        std::fs::copy(entry.path(), target).unwrap();
    }
    copy
}

/// A copy of the mini model whose manifest says that it is for TensorRT; its graph is the one for any provider.
pub fn mini_for_tensorrt(precision: &str) -> tempfile::TempDir {
    let copy = mini_copy_of(precision);
    change_manifest(copy.path(), "/graph/target", "tensorrt".into());
    copy
}

/// Changes one value of a model folder's manifest, at a JSON pointer.
pub fn change_manifest(folder: &Path, pointer: &str, value: serde_json::Value) {
    let path = folder.join("nvembed.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    *manifest.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
    std::fs::write(path, manifest.to_string()).unwrap();
}

/// The largest absolute difference of two arrays.
pub fn difference(one: &ndarray::Array2<f32>, other: &ndarray::Array2<f32>) -> f32 {
    assert_eq!(one.dim(), other.dim());
    one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}
