//! Where the library of PyPI's onnxruntime-openvino is.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

use std::path::PathBuf;

use super::{root, skipped};

/// The library's folder, or `None`, saying so. `make test-openvino` installs it.
pub fn library() -> Option<PathBuf> {
    let pythons = std::fs::read_dir(root().join(".venv-openvino/lib")).ok();
    let folders = pythons.into_iter().flatten().flatten();
    let found = folders.map(|python| python.path().join("site-packages/onnxruntime/capi")).find(|path| path.is_dir());
    if found.is_none() {
        assert!(std::env::var_os("NVEMBED_REQUIRE_OPENVINO").is_none(), ".venv-openvino has no onnxruntime-openvino");
        skipped("OpenVINO", ".venv-openvino has no onnxruntime-openvino; `make test-openvino` installs it");
    }
    found
}
