//! Takes candle's own `nvembed_v2/model.rs` and lets the caller choose the sizes, which it has as constants: those of the
//! 7B model, with all 32 layers. Not a line that computes is changed; a release in which a line to be changed is not found
//! exactly once does not build.

use std::path::{Path, PathBuf};
use std::process::Command;

const CHANGES: [(&str, &str); 7] = [
    ("use super::embedding::Model", "use candle_transformers::models::nvembed_v2::embedding::Model"),
    ("use crate::models::{", "use candle_transformers::models::{"),
    (
        "pub fn new(vb: VarBuilder) -> Result<Self> {",
        "pub fn new(sizes: &crate::Sizes, vb: VarBuilder) -> Result<Self> {",
    ),
    ("let cfg = Config::config_7b_v0_1(false);", "let cfg: Config = sizes.backbone.clone();"),
    ("let dim = 4096;", "let dim = sizes.backbone.hidden_size;"),
    ("vb.get((512, dim), \"latents\")", "vb.get((sizes.latents, dim), \"latents\")"),
    ("dim, None, 8, 4096)", "dim, None, sizes.cross_heads, sizes.cross_head_dim)"),
];

fn main() {
    let file = candle_transformers().join("src/models/nvembed_v2/model.rs");
    println!("cargo::rerun-if-changed={}", file.display());
    let mut source = std::fs::read_to_string(&file).unwrap();
    for (old, new) in CHANGES {
        let found = source.matches(old).count();
        assert_eq!(found, 1, "{old:?} is {found} times in {}", file.display());
        source = source.replace(old, new);
    }
    std::fs::write(Path::new(&std::env::var("OUT_DIR").unwrap()).join("model.rs"), source).unwrap();
}

/// The folder of the crate's source, which only cargo knows.
fn candle_transformers() -> PathBuf {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap());
    // Packages of other platforms were not downloaded.
    let platform = std::env::var("TARGET").unwrap();
    let arguments = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &platform];
    let output = cargo.args(arguments).output().unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "candle-transformers").unwrap();
    Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
}
