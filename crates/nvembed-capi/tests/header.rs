//! `include/nvembed.h` is generated from the sources, and what programs were compiled against stays in it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::mem::offset_of;
use std::path::Path;

use cbindgen::{Builder, Config, DocumentationStyle, Language, Style};
use nvembed_capi::{nvembed_output, nvembed_prompt, nvembed_string};

/// In the order of the header. src/lib.rs is not among them: cbindgen would follow it to each of them again.
const SOURCES: [&str; 10] = [
    "src/version.rs",
    "src/codes.rs",
    "src/error.rs",
    "src/options.rs",
    "src/gpu_options.rs",
    "src/model.rs",
    "src/cancel.rs",
    "src/embed.rs",
    "src/on_device.rs",
    "src/log.rs",
];

const HEAD: &str = "/* nvembed: NV-Embed text embeddings on ONNX Runtime, for C and C++.
 *
 * The contract for every function (errors, handles, strings, pointers, threads) is docs/guides/c-and-cpp.md.
 *
 * Generated from crates/nvembed-capi/src by cbindgen: `make header` writes it, a test compares it. */";

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

/// The declarations of a header, one per line, without comments and with single spaces: constants (except the version of the
/// interface), types and functions.
fn declarations(header: &str) -> BTreeSet<String> {
    let (mut found, mut code) = (BTreeSet::new(), String::new());
    let text = header.split_once("*/").unwrap().1.replace("extern \"C\" {", "").replace("}  // extern \"C\"", "");
    for line in text.lines().map(|line| line.split("//").next().unwrap_or_default().trim()) {
        if line.starts_with("#define NVEMBED_") && !line.contains("NVEMBED_ABI_VERSION") && line != "#define NVEMBED_H"
        {
            assert!(found.insert(line.to_owned()), "declared twice: {line}");
        } else if !line.starts_with('#') {
            code.push_str(line);
            code.push(' ');
        }
    }
    let (mut one, mut depth) = (String::new(), 0);
    for letter in code.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        one.push(letter);
        if letter == ';' && depth == 0 {
            let one_line = one.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(found.insert(one_line), "declared twice: {one}");
            one.clear();
        }
    }
    assert_eq!(one.trim(), "", "the header ends inside a declaration");
    found
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
    assert!(found == wanted, "include/nvembed.h is not what the sources generate: run `make header` and commit it");
}

/// `abi.txt` was made from the first header. Lines are added to it, and none is ever changed or removed, except that a struct
/// with a `struct_size` grows at its end.
#[test]
fn the_header_declares_what_it_always_did() {
    let committed: BTreeSet<String> = include_str!("abi.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("sizeof") && !line.starts_with("offsetof"))
        .map(str::to_owned)
        .collect();
    let found = declarations(&header());
    let list = |one: &BTreeSet<String>, other: &BTreeSet<String>| {
        one.difference(other).map(|line| format!("\n  {line}")).collect::<String>()
    };
    let (missing, new) = (list(&committed, &found), list(&found, &committed));
    assert!(missing.is_empty(), "the header must keep these declarations:{missing}\nnot in tests/abi.txt:{new}");
    assert!(new.is_empty(), "raise NVEMBED_ABI_VERSION, and add these lines to tests/abi.txt:{new}");
}

/// The same lines are checked in C by test_header_and_symbols.py.
#[test]
#[cfg(target_pointer_width = "64")]
fn structs_have_the_layout_that_they_always_had() {
    macro_rules! layout {
        ($($name:ident { $($field:ident),* })*) => {
            vec![$(
                format!("sizeof({}) == {}", stringify!($name), size_of::<$name>()),
                $(format!("offsetof({}, {}) == {}", stringify!($name), stringify!($field), offset_of!($name, $field)),)*
            )*]
        };
    }
    let found = layout! {
        nvembed_string { data, length }
        nvembed_prompt { instruction, text }
        nvembed_output { struct_size, data, capacity, row_stride, dtype, memory, token_counts, truncated, scales }
    };
    let lines = include_str!("abi.txt").lines();
    let committed: Vec<_> = lines.filter(|line| line.starts_with("sizeof") || line.starts_with("offsetof")).collect();
    assert_eq!(found, committed);
}
