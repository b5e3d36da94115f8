//! The program on the CUDA shim: what it says of missing libraries, `nvembed doctor`, `nvembed prepare`.

use std::process::Command;

use crate::common::shim::{self, FINITE};
use crate::common::{mini, mini_for_tensorrt, skipped};
use crate::{nvembed, run};

/// The program with the shim's CUDA, or why there is none.
fn on_shim(environment: &[(&str, &str)]) -> Result<Command, String> {
    let (library, shim) = shim::places()?;
    let mut command = nvembed();
    command.env("ORT_DYLIB_PATH", library).env("LD_LIBRARY_PATH", shim).envs(environment.iter().copied());
    Ok(command)
}

/// Opens the fp16 model on `provider` with the program, on the shim without `library`; what it prints on stderr.
fn refusal(library: &str, provider: &str, environment: &[(&str, &str)]) -> Option<String> {
    let mut command = match on_shim(environment) {
        Ok(command) => command,
        Err(reason) => {
            skipped(&format!("without {library}"), &reason);
            return None;
        }
    };
    let (folder, onnxruntime) = (shim::without(library)?, shim::library_alone()?);
    let (any, for_tensorrt) = (mini("fp16"), mini_for_tensorrt("bf16"));
    let model = if provider == "cuda" { &*any } else { for_tensorrt.path() };
    command.env("LD_LIBRARY_PATH", folder.path()).env("ORT_DYLIB_PATH", onnxruntime.path());
    command.args(["embed", "--provider", provider, "--model"]).arg(model);
    let output = run(&mut command, b"a text\n");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "without {library}: {message}");
    assert!(output.stdout.is_empty());
    Some(message)
}

#[test]
fn each_missing_library_is_named_with_its_remedy() {
    for (library, wanted) in [
        ("libcuda.so.1", ["there is no NVIDIA driver", "install it"]),
        ("libcudart.so.13", ["libcudart.so.13 is not on this machine", "onnxruntime-gpu[cuda,cudnn]"]),
        ("libcublasLt.so.13", ["libcublasLt.so.13 is not on this machine", "onnxruntime-gpu[cuda,cudnn]"]),
        ("libcurand.so.10", ["libcurand.so.10 is not on this machine", "onnxruntime-gpu[cuda,cudnn]"]),
    ] {
        let Some(message) = refusal(library, "cuda", &[]) else { return };
        for part in wanted {
            assert!(message.contains(part), "without {library}: {message}");
        }
    }
}

#[test]
fn missing_tensorrt_an_old_driver_and_a_hidden_gpu_are_each_told() {
    for (provider, environment, wanted) in [
        ("tensorrt", ("CUDA_SHIM_CC", "89"), ["libnvinfer.so.10 is not on this machine", "version of TensorRT"]),
        (
            "nv-tensorrt-rtx",
            ("CUDA_SHIM_CC", "89"),
            ["comes as a plugin, and none was found", "onnxruntime-ep-nv-tensorrt-rtx"],
        ),
        ("cuda", ("CUDA_SHIM_DRIVER", "12040"), ["the NVIDIA driver supports CUDA 12.4", "R580 or newer"]),
        ("cuda", ("CUDA_SHIM_DEVICES", "0"), ["the NVIDIA driver finds no GPU", "CUDA_VISIBLE_DEVICES"]),
    ] {
        let Some(message) = refusal("no library", provider, &[environment]) else { return };
        for part in wanted {
            assert!(message.contains(part), "{provider}, {environment:?}: {message}");
        }
    }
}

/// `nvembed doctor` on the shim, as lines of its table, and its exit code.
fn doctor(environment: &[(&str, &str)], arguments: &[&str]) -> Option<(i32, String)> {
    match on_shim(environment) {
        Ok(mut command) => {
            let output = run(command.arg("doctor").args(arguments), b"");
            Some((output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap()))
        }
        Err(reason) => {
            skipped("doctor", &reason);
            None
        }
    }
}

#[test]
fn doctor_finds_nothing_wrong_where_a_model_runs() {
    let model = mini("fp16").display().to_string();
    let Some((code, table)) = doctor(&[FINITE], &["--no-self-check", "--model", &model]) else { return };
    assert_eq!(code, 0, "{table}");
    for line in [
        "ONNX Runtime           1.31 at",
        "NVIDIA driver          supports CUDA 13.0",
        "compute capability 8.9, 16.0 GiB",
    ] {
        assert!(table.contains(line), "{line}: {table}");
    }
    for line in [
        "libcudnn.so.9          9.13.0",
        "model                  nv-embed-mini, fp16",
        "a run                  1 embedding of",
    ] {
        assert!(table.contains(line), "{line}: {table}");
    }
    assert!(!table.contains("PROBLEM"), "{table}");
    for line in [
        "cpu                    can be used on this machine",
        "tensorrt               cannot be used: libnvinfer.so.10 is not on this machine",
        "nv-tensorrt-rtx        cannot be used:",
        "export for the CPU     --target cpu --precision",
        "export for GPU 0       --target cuda --precision int8",
    ] {
        assert!(table.contains(line), "{line}: {table}");
    }
}

#[test]
fn doctor_advises_what_fits_a_gpu() {
    let gib = |count: usize| (count << 30).to_string();
    for (capability, memory, wanted) in [
        ("89", gib(24), "--target cuda --precision fp16; or --target tensorrt --precision fp16 for nv-tensorrt-rtx"),
        ("90", gib(80), "--target cuda --precision fp16\n"),
        ("75", gib(16), "--target cuda --precision int8\n"),
        ("86", gib(8), "--target cuda --precision int4\n"),
        ("89", gib(6), "too little memory for the 7B model"),
        ("100", gib(180), "no provider has code for it"),
    ] {
        let environment = [("CUDA_SHIM_CC", capability), ("CUDA_SHIM_MEMORY", memory.as_str())];
        let Some((_, table)) = doctor(&environment, &[]) else { return };
        assert!(table.contains(&format!("export for GPU 0       {wanted}")), "{capability}, {memory}: {table}");
    }
    let Some((code, table)) = doctor(&[("CUDA_SHIM_CC", "100")], &["--provider", "cpu"]) else { return };
    assert_eq!(code, 0, "{table}");
    assert!(table.contains("cuda                   cannot be used: GPU 0"), "{table}");
}

#[test]
fn doctor_works_where_there_is_no_gpu() {
    let Some((code, table)) = doctor(&[("CUDA_SHIM_DEVICES", "0")], &["--provider", "cpu"]) else { return };
    assert_eq!(code, 0, "{table}");
    for line in ["cuda                   cannot be used:", "export for the CPU     --target cpu --precision"] {
        assert!(table.contains(line), "{line}: {table}");
    }
}

#[test]
fn an_old_driver_is_a_problem_for_doctor() {
    let Some((code, table)) = doctor(&[("CUDA_SHIM_DRIVER", "12080")], &[]) else { return };
    assert_eq!(code, 5, "{table}");
    assert!(table.contains("supports CUDA 12.8") && table.contains("R580 or newer"), "{table}");
}

#[test]
fn a_gpu_that_the_library_has_no_code_for_is_refused_before_anything_is_loaded() {
    for (capability, model, wanted) in [
        ("100", "fp16", "compute capability 10.0"),
        ("121", "fp16", "compute capability 12.1"),
        ("75", "bf16", "bf16 needs 8.0 or newer"),
    ] {
        let model = mini(model);
        let Ok(mut command) = on_shim(&[FINITE, ("CUDA_SHIM_CC", capability)]) else {
            return skipped("a_gpu_that_the_library_has_no_code_for", "there is no shim");
        };
        let output = run(command.args(["embed", "--provider", "cuda", "--model"]).arg(&model), b"a text");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && message.contains(wanted), "{capability}: {message}");
    }
}

#[test]
fn doctor_makes_every_check_and_tells_each_problem() {
    let model = mini("fp32").display().to_string();
    let small = [FINITE, ("CUDA_SHIM_MEMORY", "10000000"), ("CUDA_SHIM_CC", "70")];
    let Some((code, table)) = doctor(&small, &["--model", &model, "--device-ids", "0,3"]) else { return };
    assert_eq!(code, 5, "{table}");
    for (check, words) in [
        ("GPU 0", "has code for 7.5, 8.x, 9.0 and 12.0 only"),
        ("GPU 3", "does not exist; there are 1"),
        ("memory", "0.0 GiB free on GPU 0 is too little"),
        ("opening", "compute capability 7.0"),
    ] {
        let found =
            table.lines().any(|line| line.starts_with("PROBLEM") && line.contains(check) && line.contains(words));
        assert!(found, "{check}: {table}");
    }
    let (code, json) = doctor(&[("CUDA_SHIM_DEVICES", "0")], &["--provider", "tensorrt", "--json"]).unwrap();
    assert_eq!(code, 5, "{json}");
    let findings: serde_json::Value = serde_json::from_str(&json).unwrap();
    let wrong: Vec<&str> = findings
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["ok"] == false)
        .map(|one| one["check"].as_str().unwrap())
        .collect();
    assert_eq!(wrong, ["libnvinfer.so.10", "libnvonnxparser.so.10", "NVIDIA driver", "GPUs"]);
}

#[test]
fn tensorrt_serves_only_what_was_prepared_and_a_failed_preparation_leaves_nothing() {
    let (Some(libraries), Ok(mut open), Ok(mut prepare)) = (shim::without("no library"), on_shim(&[]), on_shim(&[]))
    else {
        return skipped("tensorrt_serves_only_what_was_prepared", "there is no shim");
    };
    // Libraries of the right names are here, and are not TensorRT.
    for name in ["libnvinfer.so.10", "libnvonnxparser.so.10"] {
        std::fs::copy(libraries.path().join("libcurand.so.10"), libraries.path().join(name)).unwrap();
    }
    let (cache, model) = (tempfile::tempdir().unwrap(), mini_for_tensorrt("bf16"));
    for (command, name) in [(&mut open, "embed"), (&mut prepare, "prepare")] {
        command.env("LD_LIBRARY_PATH", libraries.path()).arg(name).args(["--provider", "tensorrt", "--model"]);
        command.arg(model.path()).arg("--cache").arg(cache.path());
    }
    let output = run(&mut open, b"a text\n");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{message}");
    assert!(message.contains("no tensorrt engine was prepared") && message.contains("nvembed prepare"), "{message}");
    let output = run(&mut prepare, b"");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{message}");
    assert!(message.contains("provider tensorrt could not be started"), "{message}");
    let left: Vec<_> = std::fs::read_dir(cache.path()).unwrap().flatten().filter(|one| one.path().is_dir()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_corpus_is_made_on_all_gpus_that_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("texts.txt");
    std::fs::write(&input, "a text\n".repeat(90)).unwrap();
    let corpus = |busy: &str| {
        let mut command = on_shim(&[FINITE, ("CUDA_SHIM_DEVICES", "2"), ("CUDA_SHIM_BUSY", busy)])?;
        command.args(["corpus", "--provider", "cuda", "--device-ids", "0,1", "--no-self-check", "--shard-rows", "40"]);
        command.arg("-m").arg(mini("fp16")).arg("--input").arg(&input).arg("--out").arg(folder.path().join("out"));
        Ok::<_, String>(run(&mut command, b""))
    };
    let refused = match corpus("1") {
        Ok(output) => output,
        Err(reason) => return skipped("a corpus on two GPUs", &reason),
    };
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() != Some(0) && said.contains("GPU 1"), "the second one is opened too: {said}");
    let made = corpus("-1").unwrap();
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success(), "{said}");
    let done: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&done["rows"], &done["parts"]), (&90.into(), &3.into()));
}
