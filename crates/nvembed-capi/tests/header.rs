//! `include/nvembed.h` is what the sources say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use cbindgen::{Builder, Config, DocumentationStyle, Language, Style};

/// In the order of the header.
const SOURCES: [&str; 10] = [
    "src/capi.rs",
    "src/capi/codes.rs",
    "src/capi/error.rs",
    "src/capi/options.rs",
    "src/capi/gpu_options.rs",
    "src/capi/model.rs",
    "src/capi/cancel.rs",
    "src/capi/embed.rs",
    "src/capi/on_device.rs",
    "src/capi/log.rs",
];

const HEAD: &str = "/* nvembed: NV-Embed text embeddings on ONNX Runtime, for C and C++.
 *
 * The contract that holds for every function (errors, handles, strings, pointers, threads) is docs/c-api.md.
 *
 * Generated from src/capi by cbindgen: `make header` writes it, a test compares it. */";

fn header() -> String {
    let config = Config {
        language: Language::C,
        style: Style::Both,
        cpp_compat: true,
        usize_is_size_t: true,
        documentation_style: DocumentationStyle::Cxx,
        header: Some(HEAD.to_owned()),
        include_guard: Some("NVEMBED_H".to_owned()),
        no_includes: true,
        sys_includes: vec!["stddef.h".to_owned(), "stdint.h".to_owned()],
        line_length: 120,
        ..Config::default()
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let builder =
        SOURCES.iter().fold(Builder::new().with_config(config), |builder, source| builder.with_src(root.join(source)));
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    String::from_utf8(text).unwrap()
}

/// With NVEMBED_WRITE_HEADER set, as by `make header`, it writes the file instead.
#[test]
fn the_committed_header_is_generated_from_the_sources() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/nvembed.h");
    let wanted = header();
    if std::env::var_os("NVEMBED_WRITE_HEADER").is_some() {
        std::fs::write(&path, wanted).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(found == wanted, "include/nvembed.h is not what the sources say: run `make header` and commit it");
}
