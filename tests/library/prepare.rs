//! Prepared graphs: the same embeddings bit for bit, used only for what they were made of, never in the way.

use std::fs;
use std::path::{Path, PathBuf};

use nvembed::{EmbedOptions, Embedder, ErrorKind, ModelOptions, Prompt, Provider, prepare};
use serde_json::json;

use crate::common::{change_manifest, mini, mini_copy, model_options, precisions_on_this_cpu, root};

fn options(cache: &Path) -> ModelOptions {
    model_options(|options| options.cache = Some(cache.to_owned()))
}

/// A folder for a cache, on the disk that has room for it.
fn cache() -> tempfile::TempDir {
    tempfile::tempdir_in(root().join("build")).unwrap()
}

fn embed(embedder: &Embedder) -> ndarray::Array2<f32> {
    let prompts: Vec<_> = (1..20)
        .map(|words| Prompt::with_instruction("Instruct: x\nQuery: ", "one more word ".repeat(words * words)))
        .collect();
    embedder.embed(&prompts, &EmbedOptions::default()).unwrap().to_f32()
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
    for precision in precisions_on_this_cpu() {
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
            let mut options = options(cache.path());
            options.parallel_prepacking = parallel_prepacking;
            options.verify_hashes = true;
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
    let entry = prepare(model.path(), &ModelOptions::default(), |_| {}).unwrap();
    assert!(entry.starts_with(model.path().join("cache")), "{entry:?}");
    assert!(Embedder::open(model.path(), &ModelOptions::default()).unwrap().graph_path().starts_with(&entry));
    change_manifest(model.path(), "/graph/sha256", json!("0".repeat(64)));
    let other = Embedder::open(model.path(), &ModelOptions::default()).unwrap();
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
        let mut options = options(cache.path());
        options.verify_hashes = verify_hashes;
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
    assert!(!opens(false), "its size is as before");
    assert!(!opens(true));
    assert_eq!(make(), entry);
    assert!(opens(true));
}

#[test]
fn what_cannot_be_prepared_is_an_error() {
    let cache = cache();
    let gpu = model_options(|options| options.provider = Provider::Cuda);
    let error = prepare(mini("fp32"), &gpu, |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Option);
    assert!(error.to_string().starts_with("there is nothing to prepare for provider cuda"), "{error}");
    let error = prepare(mini("bf16"), &options(cache.path()), |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Provider, "{error}");
    let file = cache.path().join("file");
    fs::write(&file, "").unwrap();
    let error = prepare(mini("fp32"), &options(&file), |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cache);
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}
