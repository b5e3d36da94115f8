//! `nvembed bench`: what is wrong is not timed, rows are whole and say where they come from, ratios are of like with like.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::common::{change_manifest, mini, mini_copy};
use crate::{nvembed, run};
use serde_json::{Value, json};

fn bench(models: &[&Path], arguments: &[&str]) -> Output {
    let mut command = nvembed();
    command.args(["bench", "--quiet", "--seconds", "0.01", "--min-calls", "2"]);
    for model in models {
        command.arg("-m").arg(model);
    }
    run(command.args(arguments), b"")
}

fn rows(bytes: &[u8]) -> Vec<Value> {
    std::str::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_model_and_shape_is_checked_and_timed() {
    let (fp32, int8) = (mini("fp32"), mini("int8"));
    let reference = fp32.to_str().unwrap();
    let arguments = ["--batch", "1,3", "--length", "16,40", "--rounds", "2", "--reference", reference];
    let output = bench(&[&fp32, &int8], &arguments);
    assert!(output.status.success(), "{output:?}");
    let rows = rows(&output.stdout);
    assert_eq!(rows.len(), 2 * 2 * 4);
    for row in &rows {
        let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name} of {row}"));
        assert_eq!((row["schema_version"].as_u64(), row["workload"]["kind"].as_str()), (Some(2), Some("shape")));
        let size = |name: &str| row["workload"][name].as_f64().unwrap();
        let tokens = size("batch") * size("length");
        assert_eq!((row["status"].as_str(), number("tokens"), number("padding_waste")), (Some("ok"), tokens, 0.0));
        let p50 = row["latency_ms"]["p50"].as_f64().unwrap();
        assert!((number("tokens_per_s") / (tokens / p50 * 1e3) - 1.0).abs() < 1e-9, "{row}");
        assert!((number("share_of_peak") - number("gflop_per_s") / number("peak_gflop_per_s")).abs() < 1e-9, "{row}");
        assert!((0.01..=1.0).contains(&number("session_share")) && number("calls") >= 2.0, "{row}");
        let exact = row["precision"] == "fp32";
        assert!(number("cosine_min") > 0.999 && (number("cosine_min") > 1.0 - 1e-9) == exact, "{row}");
        assert!(row["verified_against"].as_str().unwrap().contains("golden embeddings"), "{row}");
        assert!(row["onnxruntime"].as_str().unwrap().starts_with("1.") && number("open_s") > 0.0, "{row}");
        assert!(row["command"].as_str().unwrap().contains("bench --quiet"), "{row}");
        if cfg!(target_os = "linux") {
            assert!(number("peak_memory_bytes") > 1e7 && row["processor"] != "unknown", "{row}");
        }
    }
    let rounds: Vec<_> = rows.iter().map(|row| row["round"].as_u64().unwrap()).collect();
    assert_eq!(rounds, [[0; 8], [1; 8]].concat(), "models take turns");
}

#[test]
fn a_wrong_answer_is_reported_and_not_timed() {
    let model = mini_copy();
    let path = model.path().join("golden.json");
    let mut golden: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    golden["rows"][1]["embedding"][0] = json!(0.5);
    fs::write(&path, golden.to_string()).unwrap();
    let output = bench(&[model.path(), &mini("fp32")], &["--batch", "1", "--length", "16"]);
    assert_eq!(output.status.code(), Some(8));
    let rows = rows(&output.stdout);
    assert_eq!(
        (rows[0]["status"].as_str(), &rows[0]["latency_ms"], &rows[0]["calls"]),
        (Some("wrong"), &json!(null), &json!(0))
    );
    assert!(rows[0]["cosine_min"].as_f64().unwrap() < 0.99, "{}", rows[0]);
    assert!(rows[0]["error"].as_str().unwrap().ends_with("allowed is 1e-5 in each number"), "{}", rows[0]);
    assert_eq!(rows[1]["status"], "ok", "the others are measured all the same");
}

#[test]
fn an_answer_that_differs_from_the_references_is_wrong() {
    let other = mini_copy();
    let weights = other.path().join("model.onnx.data");
    let mut bytes = fs::read(&weights).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0);
    fs::remove_file(&weights).unwrap(); // it may be a link to the intact one
    fs::write(&weights, bytes).unwrap();
    let reference = other.path().to_str().unwrap().to_owned();
    let texts = ["--texts", "examples/model-card/queries.txt", "--reference", &reference, "--no-self-check"];
    let output = bench(&[&mini("fp32")], &texts);
    assert_eq!(rows(&output.stdout)[0]["status"], "wrong", "{output:?}");
}

#[test]
fn a_reference_must_be_the_same_model_in_fp32() {
    for (reference, wanted) in [(mini("int8"), "an fp32 model is needed, got int8"), (other_width(), "dimension")] {
        let arguments = ["--batch", "1", "--length", "16", "--reference", reference.to_str().unwrap()];
        let output = bench(&[&mini("fp32")], &arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(wanted), "{output:?}");
    }
}

/// An fp32 model of another embedding dimension than nv-embed-mini's.
fn other_width() -> std::path::PathBuf {
    let folder = crate::common::root().join("build/reference/numerics/mistral-tokenizer/fp32");
    assert!(folder.is_dir(), "{} is made by `make reference`", folder.display());
    folder
}

#[test]
fn what_cannot_be_checked_or_opened_is_a_failed_row() {
    let model = mini_copy();
    change_manifest(model.path(), "/golden", Value::Null);
    let output = bench(&[model.path(), &mini("bf16"), &mini("fp32")], &["--batch", "1", "--length", "16"]);
    assert_eq!(output.status.code(), Some(8));
    let rows = rows(&output.stdout);
    let statuses: Vec<_> = rows.iter().map(|row| row["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["failed", "failed", "ok"]);
    assert!(rows[0]["error"].as_str().unwrap().contains("cannot be verified"), "{}", rows[0]);
    assert!(rows[1]["error"].as_str().unwrap().contains("bf16"), "{}", rows[1]);
}

#[test]
fn requests_at_a_rate_are_late_from_when_they_were_due() {
    let arguments =
        ["--texts", "examples/model-card/passages.txt", "--rate", "1000", "--min-calls", "40", "--clients", "1"];
    let mut command = nvembed();
    command.args(["bench", "--quiet", "--seconds", "0.01", "-m"]).arg(mini("fp32")).args(arguments);
    let output = run(&mut command, b"");
    let row = &rows(&output.stdout)[0];
    assert_eq!(
        (&row["workload"], row["rate_per_s"].as_f64(), row["calls"].as_u64()),
        (&json!({"kind": "texts"}), Some(1000.0), Some(40))
    );
    // One client and more requests than it can serve: each waits for all before it.
    let latency = |name: &str| row["latency_ms"][name].as_f64().unwrap();
    assert!(latency("max") > 5.0 * latency("min") && latency("p50") > 2.0 * latency("min"), "{row}");
}

#[cfg(unix)]
#[test]
fn an_interrupted_sweep_keeps_what_it_measured() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl");
    let mut command = nvembed();
    command.args([
        "bench",
        "--quiet",
        "--batch",
        "1",
        "--length",
        "16",
        "--rounds",
        "100000",
        "--seconds",
        "0.01",
        "-m",
    ]);
    let mut child = command.arg(mini("fp32")).arg("-o").arg(&file).stdout(std::process::Stdio::null()).spawn().unwrap();
    while fs::metadata(&file).map_or(0, |file| file.len()) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        std::thread::yield_now();
    }
    // As Ctrl-C, but that may be ignored where the tests run in the background.
    assert!(std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let text = fs::read(&file).unwrap();
    assert!(text.ends_with(b"\n") && !rows(&text).is_empty());
}

#[test]
fn ratios_are_taken_round_by_round_between_like_rows() {
    let folder = tempfile::tempdir().unwrap();
    let template = rows(&bench(&[&mini("fp32")], &["--batch", "1", "--length", "16"]).stdout).remove(0);
    let file = |name: &str, lines: &[(&str, &str, f64)]| {
        let line = |(precision, workload, speed): &(&str, &str, f64)| {
            let mut row = template.clone();
            row["precision"] = json!(precision);
            let (batch, length) = workload.split_once('x').unwrap();
            let [batch, length] = [batch, length].map(|size| size.parse::<usize>().unwrap());
            row["workload"] = json!({"kind": "shape", "batch": batch, "length": length});
            row["tokens_per_s"] = json!(speed);
            format!("{row}\n")
        };
        let path = folder.path().join(name);
        fs::write(&path, lines.iter().map(line).collect::<String>()).unwrap();
        path
    };
    let a =
        file("a", &[("fp32", "1x16", 100.0), ("fp32", "1x16", 200.0), ("fp32", "1x16", 100.0), ("fp32", "8x16", 7.0)]);
    let b = file("b", &[("fp32", "1x16", 150.0), ("fp32", "1x16", 200.0), ("fp32", "1x16", 400.0)]);
    let c = file("c", &[("int8", "1x16", 50.0)]);
    let compare = |arguments: &[&Path], across: bool| {
        let mut command = nvembed();
        command.args(["bench", "compare"]).args(arguments).args(across.then_some("--across"));
        run(&mut command, b"")
    };
    let text = String::from_utf8(compare(&[&a, &b], false).stdout).unwrap();
    let words: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(words, ["nv-embed-mini", "fp32", "cpu", "1x16", "100", "200", "1.50", "1.00,", "4.00"]);
    assert!(text.contains("only in A: nv-embed-mini fp32 cpu 8x16"), "{text}");
    let unlike = compare(&[&a, &c], false);
    assert_eq!(unlike.status.code(), Some(3), "{unlike:?}");
    let across = compare(&[&a, &c], true);
    assert!(String::from_utf8(across.stdout).unwrap().contains("0.50"));
    let mixed = file("mixed", &[("fp32", "1x16", 1.0), ("int8", "1x16", 1.0)]);
    let refused = compare(&[&mixed, &c], true);
    assert!(String::from_utf8(refused.stderr).unwrap().contains("one of them on each side"));
    fs::write(&mixed, "{}\n").unwrap();
    let damaged = compare(&[&mixed, &c], false);
    assert_eq!(damaged.status.code(), Some(3));
    assert!(String::from_utf8(damaged.stderr).unwrap().contains("mixed:1: not a row of results"));
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    for (arguments, wanted) in [
        (["--batch", "0"], "--batch must be 1 to 1048576, got 0"),
        (["--length", "2000000"], "got 2000000"),
        (["--rounds", "0"], "--rounds must be"),
        (["--seconds", "0"], "--seconds must be"),
    ] {
        let mut command = nvembed();
        let output = run(command.args(["bench", "-m"]).arg(mini("fp32")).args(arguments), b"");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(wanted), "{output:?}");
    }
}
