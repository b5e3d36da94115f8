//! The self-check of a model that opens, on models that give wrong embeddings in one way each.

use std::fs;
use std::path::{Path, PathBuf};

use nvembed::{Embedder, ErrorKind, ModelOptions};

use crate::common::{self, change_manifest, mini, model_options, root};

/// Opens a model with a cache of its own; the error's kind and text.
fn refusal(model: &Path, cache: &Path) -> (ErrorKind, String) {
    let error = Embedder::open(model, &options(cache)).expect_err("the self-check refuses it");
    (error.kind(), error.to_string())
}

fn options(cache: &Path) -> ModelOptions {
    model_options(|options| options.cache = Some(cache.to_owned()))
}

fn cache() -> tempfile::TempDir {
    tempfile::tempdir_in(root().join("build")).unwrap()
}

/// The checks that a cache remembers.
fn remembered(cache: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.is_dir() && path.file_name().unwrap().to_string_lossy().starts_with("checked-"))
        .collect()
}

/// A copy of the mini model that shares no file with it: to make and remove links is a change of a file, too.
fn mini_copy() -> tempfile::TempDir {
    let copy = common::mini_copy();
    let data = copy.path().join("model.onnx.data");
    fs::remove_file(&data).unwrap();
    fs::copy(mini("fp32").join("model.onnx.data"), data).unwrap();
    copy
}

/// A copy of the mini model whose golden file says something else at this JSON pointer.
fn with_golden(pointer: &str, value: serde_json::Value) -> tempfile::TempDir {
    let copy = common::mini_copy();
    let path = copy.path().join("golden.json");
    let mut golden: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    *golden.pointer_mut(pointer).unwrap() = value;
    fs::write(&path, golden.to_string()).unwrap();
    copy
}

#[test]
fn a_graph_that_attends_to_padding_is_refused_though_each_row_alone_is_right() {
    let (cache, model) = (cache(), root().join("build/reference/unmasked"));
    for _ in 0..2 {
        let (kind, message) = refusal(&model, cache.path());
        assert_eq!(kind, ErrorKind::Provider);
        assert!(message.contains("the self-check failed: on cpu") && message.contains("in a batch of 7"), "{message}");
        assert!(remembered(cache.path()).is_empty(), "a failure is not remembered");
    }
    let unchecked = model_options(|options| options.self_check = false);
    Embedder::open(&model, &unchecked).unwrap();
}

#[test]
fn weights_that_were_damaged_are_refused() {
    let (cache, model) = (cache(), mini_copy());
    Embedder::open(model.path(), &options(cache.path())).unwrap();
    let data = model.path().join("model.onnx.data");
    let mut bytes = fs::read(&data).unwrap();
    // The token table comes first, and golden rows use few of its rows.
    let start = bytes.len() / 10 * 9;
    bytes[start..].fill(0);
    fs::write(&data, bytes).unwrap();
    let (kind, message) = refusal(model.path(), cache.path());
    assert_eq!(kind, ErrorKind::Provider);
    assert!(message.contains(", run alone, is off by"), "{message}");
}

#[test]
fn a_check_is_remembered_until_a_file_or_an_option_changes() {
    let (cache, model) = (cache(), mini_copy());
    let open = |options: &ModelOptions| {
        Embedder::open(model.path(), options).unwrap();
        remembered(cache.path())
    };
    let first = open(&options(cache.path()));
    assert_eq!(first.len(), 1);
    let modified = fs::metadata(&first[0]).unwrap().modified().unwrap();
    let mut same = options(cache.path());
    same.verify_hashes = true;
    assert_eq!(open(&same), first);
    assert_eq!(fs::metadata(&first[0]).unwrap().modified().unwrap(), modified);
    let mut other = options(cache.path());
    other.low_memory = true;
    assert_eq!(open(&other).len(), 2);
    fs::write(model.path().join("tokenizer.json"), fs::read(mini("fp32").join("tokenizer.json")).unwrap()).unwrap();
    assert_eq!(open(&options(cache.path())).len(), 3);
}

#[test]
fn a_cache_that_cannot_be_written_costs_the_memory_and_not_the_check() {
    let folder = cache();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    Embedder::open(mini("fp32"), &options(&file)).unwrap();
    let wrong = with_golden("/rows/3/embedding/7", 0.5.into());
    let (kind, message) = refusal(wrong.path(), &file);
    assert_eq!(kind, ErrorKind::Provider);
    assert!(message.contains("a golden row of 162 tokens"), "{message}");
}

#[test]
fn a_tokenizer_that_gives_other_ids_is_named() {
    let cache = cache();
    for pointer in ["/rows/0/input_ids/5", "/rows/0/instruction_tokens"] {
        let (kind, message) = refusal(with_golden(pointer, 9.into()).path(), cache.path());
        assert_eq!(kind, ErrorKind::Model);
        assert!(message.contains("the tokenizer gives other token ids"), "{message}");
    }
}

#[test]
fn rows_that_the_options_do_not_allow_are_left_out_and_a_model_without_any_opens() {
    let model = common::mini_copy();
    change_manifest(model.path(), "/golden", serde_json::Value::Null);
    let cache = cache();
    Embedder::open(model.path(), &options(cache.path())).unwrap();
    assert!(remembered(cache.path()).is_empty());
}
