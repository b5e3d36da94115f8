//! Prepared graphs: the same embeddings bit for bit, used only for what they were made of, never in the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{change_manifest, mini, mini_copy, nvembed, root, run};
use nvembed::{Embedder, EncodeOptions, ErrorKind, LoadOptions, Prompt, Provider, prepare};
use serde_json::json;

fn options(cache: &Path) -> LoadOptions {
    LoadOptions { cache: Some(cache.to_owned()), ..LoadOptions::default() }
}

/// A folder for a cache, on the disk that has room for it.
fn cache() -> tempfile::TempDir {
    tempfile::tempdir_in(root().join("build")).unwrap()
}

fn embed(embedder: &Embedder) -> ndarray::Array2<f32> {
    let prompts: Vec<_> = (1..20)
        .map(|words| Prompt::with_instruction("Instruct: x\nQuery: ", "one more word ".repeat(words * words)))
        .collect();
    embedder.embed(&prompts, &EncodeOptions::default()).unwrap().to_f32()
}

/// The prepared weights file of a cache with one entry.
fn weights(cache: &Path) -> PathBuf {
    let entries = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path().join("model.onnx.data"));
    let files: Vec<_> = entries.filter(|file| file.exists()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.into_iter().next().unwrap()
}

#[test]
fn a_prepared_model_gives_the_same_embeddings_from_mapped_files() {
    for precision in ["fp32", "fp16", "int8", "int4", "w8a8"] {
        let cache = cache();
        let plain = Embedder::open(mini(precision), &options(cache.path())).unwrap();
        assert!(plain.graph_path().starts_with(mini(precision)), "{precision}: {:?}", plain.graph_path());
        let wanted = embed(&plain);
        drop(plain);
        let mut started = None;
        let entry =
            prepare(mini(precision), &options(cache.path()), |partial| started = Some(partial.to_owned())).unwrap();
        assert!(started.is_some_and(|partial| partial.starts_with(cache.path()) && !partial.exists()), "{precision}");
        for parallel_prepacking in [false, true] {
            let options = LoadOptions { parallel_prepacking, verify_hashes: true, ..options(cache.path()) };
            let prepared = Embedder::open(mini(precision), &options).unwrap();
            assert!(prepared.graph_path().starts_with(&entry), "{precision}: {:?}", prepared.graph_path());
            assert_eq!(embed(&prepared), wanted, "{precision}");
            // That is what lets processes share it.
            #[cfg(target_os = "linux")]
            {
                let maps = fs::read_to_string("/proc/self/maps").unwrap();
                assert!(maps.contains(weights(cache.path()).to_str().unwrap()), "{precision}: not mapped");
            }
        }
        let again = prepare(mini(precision), &options(cache.path()), |_| panic!("nothing is left to do")).unwrap();
        assert_eq!(again, entry);
    }
}

#[test]
fn a_prepared_graph_is_used_for_its_own_model_only() {
    let model = mini_copy();
    let entry = prepare(model.path(), &LoadOptions::default(), |_| {}).unwrap();
    assert!(entry.starts_with(model.path().join("cache")), "{entry:?}");
    assert!(Embedder::open(model.path(), &LoadOptions::default()).unwrap().graph_path().starts_with(&entry));
    change_manifest(model.path(), "/graph/sha256", json!("0".repeat(64)));
    let other = Embedder::open(model.path(), &LoadOptions::default()).unwrap();
    assert_eq!(other.graph_path(), model.path().join("model.onnx"));
}

#[test]
fn a_damaged_prepared_graph_is_passed_over_and_made_again() {
    let cache = cache();
    let make = || prepare(mini("fp32"), &options(cache.path()), |_| {}).unwrap();
    let entry = make();
    let data = weights(cache.path());
    let intact = fs::read(&data).unwrap();
    let opens = |verify_hashes| {
        let options = LoadOptions { verify_hashes, ..options(cache.path()) };
        let embedder = Embedder::open(mini("fp32"), &options).unwrap();
        embedder.graph_path().starts_with(&entry)
    };
    fs::write(&data, &intact[..intact.len() - 1]).unwrap();
    assert!(!opens(false));
    assert_eq!(make(), entry);
    assert!(opens(false));
    let mut changed = fs::read(&data).unwrap();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(&data, changed).unwrap();
    assert!(!opens(true));
    assert_eq!(make(), entry);
    assert!(opens(true));
}

#[test]
fn what_cannot_be_prepared_is_an_error() {
    let cache = cache();
    let gpu = LoadOptions { provider: Provider::Cuda, ..options(cache.path()) };
    let error = prepare(mini("fp32"), &gpu, |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Option);
    assert!(error.to_string().contains("provider is cuda"), "{error}");
    let error = prepare(mini("bf16"), &options(cache.path()), |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Provider, "{error}");
    let file = cache.path().join("file");
    fs::write(&file, "").unwrap();
    let error = prepare(mini("fp32"), &options(&file), |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cache);
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}

#[test]
fn the_program_prepares_once_and_prints_where() {
    let cache = cache();
    let prepare = |place: &Path| {
        let mut command = nvembed();
        command.args(["prepare", "--model"]).arg(mini("int8")).arg("--cache").arg(place);
        run(&mut command, b"")
    };
    let (first, second) = (prepare(cache.path()), prepare(cache.path()));
    assert!(first.status.success(), "{first:?}");
    assert_eq!(first.stdout, second.stdout);
    let entry = PathBuf::from(String::from_utf8(first.stdout).unwrap().trim_end());
    let facts: serde_json::Value = serde_json::from_slice(&fs::read(entry.join("entry.json")).unwrap()).unwrap();
    assert!(facts["depends_on"]["onnxruntime"].as_str().unwrap().starts_with("1."), "{facts}");
    let mut embed = nvembed();
    embed.args(["embed", "-v", "--quiet", "--model"]).arg(mini("int8")).arg("--cache").arg(cache.path());
    let log = String::from_utf8(run(&mut embed, b"text\n").stderr).unwrap();
    assert!(log.contains(entry.to_str().unwrap()), "{log}");
    let file = cache.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(prepare(&file).status.code(), Some(7));
}

#[cfg(unix)]
#[test]
fn an_interrupted_preparation_leaves_no_files() {
    let cache = cache();
    let mut command = nvembed();
    command.args(["prepare", "--model"]).arg(mini("fp32")).arg("--cache").arg(cache.path());
    let mut child = command.spawn().unwrap();
    let folders = || -> Vec<_> {
        let entries = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect()
    };
    while folders().is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "ended before it could be interrupted");
        std::thread::yield_now();
    }
    let kill = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(folders(), Vec::<PathBuf>::new());
}
