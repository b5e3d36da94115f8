//! Model folders that are damaged, each in one way: a typed error that says what and where, and never a panic.

use std::fs;
use std::path::Path;

use nvembed::model::{Activations, Manifest};
use nvembed::{Embedder, ErrorKind, ModelOptions};
use serde_json::json;

use crate::common::{change_manifest, mini, mini_copy, model_options};

/// Opens a damaged copy of the mini model and returns the message of the model error.
fn refused(damage: impl Fn(&Path), verify_hashes: bool) -> String {
    let copy = mini_copy();
    damage(copy.path());
    let options = model_options(|options| options.verify_hashes = verify_hashes);
    let error = Embedder::open(copy.path(), &options).expect_err("the damaged folder is refused");
    assert_eq!(error.kind(), ErrorKind::Model, "{error}");
    error.report(str::to_owned)
}

/// Replaces a file that may be a hard link to the intact model's.
fn replace(path: &Path, content: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn a_missing_folder_or_manifest_says_how_to_make_one() {
    let error = Embedder::open("no/such/folder", &ModelOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model);
    assert!(error.to_string().contains("no/such/folder does not exist"), "{error}");
    let message = refused(|folder| fs::remove_file(folder.join("nvembed.json")).unwrap(), false);
    assert!(message.contains("is not a model folder") && message.contains("nvembed-export"), "{message}");
}

/// The manifest's facts of 4-bit weights, with the given dtype of activations.
fn int4(activations: serde_json::Value) -> serde_json::Value {
    json!({ "bits": 4, "block_size": 32, "symmetric": true, "accuracy_level": 4, "activations": activations })
}

#[test]
fn a_manifest_of_quantised_weights_says_how_they_are_stored() {
    let quantization = Manifest::open(mini("int8")).unwrap().quantization().unwrap();
    assert_eq!((quantization.bits, quantization.block_size, quantization.symmetric), (8, Some(32), true));
    assert_eq!((quantization.accuracy_level, quantization.activations), (Some(4), Activations::Float32));
    let quantization = Manifest::open(mini("w8a8")).unwrap().quantization().unwrap();
    assert_eq!((quantization.bits, quantization.block_size, quantization.accuracy_level), (8, None, None));
    assert_eq!(quantization.to_string(), "8 bits, one scale per output, symmetric, float32 activations");
    assert_eq!(Manifest::open(mini("fp16")).unwrap().quantization(), None);
}

#[test]
fn float16_activations_mean_float16_embeddings() {
    let damage = |folder: &Path| {
        change_manifest(folder, "/precision", json!("int4"));
        change_manifest(folder, "/quantization", int4(json!("float16")));
    };
    let message = refused(damage, false);
    assert!(message.contains("graph.outputs must be") && message.contains("float16"), "{message}");
}

#[test]
fn a_manifest_with_a_wrong_value_is_refused_by_name() {
    let table = [
        ("/schema_version", json!(2), "schema_version is 2, this nvembed reads 1"),
        ("/schema_version", json!("one"), "schema_version is missing"),
        ("/max_length", json!(0), "max_length must be 1 to"),
        ("/architecture/vocab_size", json!(0), "architecture.vocab_size must be 1 to"),
        ("/architecture/num_attention_heads", json!(1_u64 << 62), "got 4611686018427387904"),
        ("/tokenizer/pad_token_id", json!(32000), "tokenizer.pad_token_id must be 0 to 31999, got 32000"),
        ("/max_length", json!(-5), "not a valid manifest"),
        ("/precision", json!("fp12"), "unknown variant `fp12`"),
        ("/precision", json!("int8"), "precision int8 does not go with quantization null"),
        ("/quantization", int4(json!("float32")), "precision fp32 does not go with quantization 4 bits"),
        ("/precision", json!("w8a8"), "precision w8a8 does not go with quantization null"),
        ("/quantization", json!({ "bits": 4 }), "missing field `symmetric`"),
        ("/quantization", int4(json!("float64")), "unknown variant `float64`"),
        (
            "/prompt/query_template",
            json!("Q: {task}"),
            "prompt.query_template must be \"Instruct: {task}\\nQuery: \", got \"Q: {task}\"",
        ),
        ("/prompt/suffix", json!(""), "prompt.suffix must be \"</s>\", got \"\""),
        ("/graph/inputs/2/name", json!("mask"), "graph.inputs must be"),
        ("/graph/inputs/0/dtype", json!("int32"), "graph.inputs must be"),
        ("/graph/outputs/0/dtype", json!("float16"), "graph.outputs must be"),
        ("/graph/file", json!("../model.onnx"), "is not a plain file name"),
        ("/graph/file", json!("/etc/passwd"), "is not a plain file name"),
        ("/graph/target", json!("npu"), "unknown variant `npu`"),
        ("/graph/data_bytes", json!(7), "the manifest says 7"),
        ("/tokenizer/file", json!("other.json"), "other.json is missing from the model folder"),
        ("/tokenizer/eos_token_id", json!(9), "the manifest needs [1, 9]"),
        ("/architecture/vocab_size", json!(31999), "largest token id is 31999"),
        ("/architecture/hidden_size", json!(128), "graph.outputs must be"),
    ];
    for (pointer, value, message) in table {
        let found = refused(|folder| change_manifest(folder, pointer, value.clone()), false);
        assert!(found.contains(message), "{pointer} = {value}: {found}");
    }
}

#[test]
fn a_manifest_that_is_not_json_names_the_place() {
    let message = refused(|folder| fs::write(folder.join("nvembed.json"), "{\"schema_version\": 1,").unwrap(), false);
    assert!(message.contains("not a valid manifest") && message.contains("line 1"), "{message}");
}

#[test]
fn missing_and_truncated_files_are_found_before_the_graph_is_opened() {
    for name in ["model.onnx", "model.onnx.data", "tokenizer.json", "golden.json"] {
        let message = refused(|folder| fs::remove_file(folder.join(name)).unwrap(), false);
        assert!(message.contains(&format!("{name} is missing")), "{message}");
    }
    let cut = |folder: &Path, name: &str| {
        let content = fs::read(folder.join(name)).unwrap();
        replace(&folder.join(name), &content[..content.len() / 2]);
    };
    let message = refused(|folder| cut(folder, "model.onnx.data"), false);
    assert!(message.contains("model.onnx.data has 23003648 bytes, the manifest says 46007296"), "{message}");
    let message = refused(|folder| cut(folder, "tokenizer.json"), false);
    assert!(message.contains("cannot be read as a tokenizer"), "{message}");
    let message = refused(|folder| cut(folder, "model.onnx"), false);
    assert!(message.contains("ONNX Runtime cannot open"), "{message}");
}

#[test]
fn a_graph_that_is_not_what_the_manifest_says_is_refused() {
    let fp16 = mini("fp16").join("model.onnx");
    let message = refused(
        |folder| {
            replace(&folder.join("model.onnx"), &fs::read(&fp16).unwrap());
            replace(&folder.join("model.onnx.data"), &fs::read(fp16.with_extension("onnx.data")).unwrap());
            let size = folder.join("model.onnx.data").metadata().unwrap().len();
            change_manifest(folder, "/graph/data_bytes", json!(size));
        },
        false,
    );
    assert!(
        message.contains("the graph's outputs must be embeddings float32")
            && message.contains("got embeddings float16"),
        "{message}"
    );
}

#[test]
fn a_bf16_model_is_refused_on_the_cpu_and_says_what_to_do() {
    let error = Embedder::open(mini("bf16"), &ModelOptions::default()).expect_err("the CPU has no bf16 kernels");
    assert_eq!(error.kind(), ErrorKind::Provider, "{error}");
    assert!(error.to_string().contains("export it with --precision fp32 or int8"), "{error}");
}

#[test]
fn a_changed_byte_is_found_when_hashes_are_verified() {
    for name in ["model.onnx", "model.onnx.data", "tokenizer.json", "golden.json"] {
        let message = refused(
            |folder| {
                let mut content = fs::read(folder.join(name)).unwrap();
                let middle = content.len() / 2;
                content[middle] ^= 1;
                replace(&folder.join(name), &content);
            },
            true,
        );
        assert!(message.contains(&format!("{name} has sha256")), "{message}");
    }
    let options = model_options(|options| options.verify_hashes = true);
    assert!(Embedder::open(mini("fp32"), &options).is_ok(), "the intact model passes");
}

#[test]
fn a_tokenizer_without_the_special_tokens_is_refused() {
    let message = refused(
        |folder| {
            let path = folder.join("tokenizer.json");
            let text = fs::read_to_string(&path).unwrap();
            let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
            value["post_processor"] = json!(null);
            fs::write(path, value.to_string()).unwrap();
        },
        false,
    );
    assert!(message.contains("reads \"</s>\" as ids [2], the manifest needs [1, 2]"), "{message}");
}
