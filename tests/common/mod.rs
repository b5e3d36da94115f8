//! What the integration tests share: where the models are, and how the program is called.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nvembed::{Embedder, LoadOptions};

pub mod reference;
#[cfg(target_os = "linux")]
pub mod shim;

/// Largest difference between a row alone, in a batch, and in another order, for an fp32 model: rows of a batch change
/// no value of each other, only how kernels cut their sums.
pub const BATCH_INVARIANCE: f32 = 1e-6;

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The exported mini model: "fp32", "fp16", "bf16", "int8", "int4", "w8a8", "openvino-fp32" or "openvino-bf16".
pub fn mini(precision: &str) -> PathBuf {
    let folder = root().join(format!("build/models/nv-embed-mini-{precision}"));
    assert!(folder.join("nvembed.json").is_file(), "{} is made by `make models`", folder.display());
    folder
}

/// The exported mini model, open with default options.
pub fn open(precision: &str) -> Embedder {
    Embedder::open(mini(precision), &LoadOptions::default()).unwrap()
}

/// A copy of the fp32 mini model to damage; its big file is a hard link where the file system allows.
pub fn mini_copy() -> tempfile::TempDir {
    mini_copy_of("fp32")
}

/// The same of another precision.
pub fn mini_copy_of(precision: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir_in(root().join("build")).unwrap();
    for entry in std::fs::read_dir(mini(precision)).unwrap() {
        let entry = entry.unwrap();
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

/// The program, without what the caller's environment would change about it.
pub fn nvembed() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvembed"));
    command.env_remove("NVEMBED_MODEL").env_remove("RUST_LOG");
    command
}

/// Runs the program with `input` on stdin.
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    use std::io::Write;
    use std::process::Stdio;
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nvembed starts");
    // A program that fails early closes its end: that is its right.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// The largest absolute difference of two arrays.
pub fn difference(one: &ndarray::Array2<f32>, other: &ndarray::Array2<f32>) -> f32 {
    assert_eq!(one.dim(), other.dim());
    one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}
