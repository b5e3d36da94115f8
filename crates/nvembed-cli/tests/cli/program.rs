//! The program as a user calls it: what goes in, what comes out.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::common::{mini, precisions_on_this_cpu, root};
use crate::{as_in_the_foreground, nvembed, run};
use serde_json::Value;

fn json_lines(bytes: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The numbers of a .npy file [N, D] of 32-bit floats, after a check of its header.
fn npy(path: &std::path::Path, rows: usize, dim: usize) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let header = String::from_utf8_lossy(&bytes[..128]).into_owned();
    let shape = format!("'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim})");
    assert!(bytes.starts_with(b"\x93NUMPY\x01\x00\x76\x00") && header.contains(&shape), "{header}");
    bytes[128..].chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[test]
fn lines_from_stdin_become_json_lines() {
    let output = run(nvembed().args(["embed", "-m"]).arg(mini("fp32")), b"first text\r\n\nthird");
    assert!(output.status.success());
    let rows = json_lines(&output.stdout);
    assert_eq!(rows.len(), 3, "an empty line is an empty text");
    for (index, row) in rows.iter().enumerate() {
        assert_eq!((&row["index"], &row["truncated"]), (&index.into(), &false.into()));
        assert_eq!(row["embedding"].as_array().unwrap().len(), 256);
        assert!(row.get("id").is_none());
    }
    assert_eq!(rows[1]["tokens"], 2, "<s> and </s>");
    let summary = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(summary.starts_with("3 texts, ") && summary.lines().count() == 1, "{summary}");
}

#[test]
fn json_records_carry_their_own_instruction_task_and_id() {
    let input = br#"{"text": "who?", "id": 17}
{"text": "who?", "task": "find it", "id": {"any": "json"}}

{"text": "who?", "instruction": "Instruct: find it\nQuery: "}
{"text": "a\u0000b", "instruction": "", "id": 123456789012345678901234567890}"#;
    let command = || {
        let mut command = nvembed();
        command.args(["embed", "--format", "jsonl", "--quiet", "-m"]).arg(mini("fp32"));
        command
    };
    let output = run(command().args(["--task", "find it"]), input);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = json_lines(&output.stdout);
    assert_eq!(rows.len(), 4);
    assert_eq!((&rows[0]["id"], &rows[1]["id"]["any"]), (&17.into(), &"json".into()));
    let exact = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(exact.contains("\"id\":123456789012345678901234567890,"), "an identifier comes back as it was written");
    for row in &rows[..3] {
        assert_eq!(row["tokens"], rows[0]["tokens"], "the same instruction given in three ways");
    }
    let plain = json_lines(&run(&mut command(), input).stdout);
    assert!(plain[0]["tokens"].as_u64() < plain[1]["tokens"].as_u64());
    assert_eq!(plain[3]["embedding"], rows[3]["embedding"], "an empty instruction overrides the default");
}

#[test]
fn files_become_one_npy_array_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("a.txt"), "\u{feff}one\ntwo\n").unwrap();
    std::fs::write(path("b.jsonl"), "{\"text\": \"three\"}\n").unwrap();
    let all = nvembed()
        .args(["embed", "-m"])
        .arg(mini("fp32"))
        .args([path("a.txt"), path("b.jsonl")])
        .arg("-o")
        .arg(path("out.npy"))
        .output()
        .unwrap();
    assert!(all.status.success() && all.stdout.is_empty(), "{}", String::from_utf8_lossy(&all.stderr));
    let array = npy(&path("out.npy"), 3, 256);
    let lines = json_lines(&run(nvembed().args(["embed", "-m"]).arg(mini("fp32")), b"one\ntwo\nthree\n").stdout);
    for (row, line) in array.chunks(256).zip(&lines) {
        let line: Vec<f32> = serde_json::from_value(line["embedding"].clone()).unwrap();
        assert_eq!(row, line, "a byte order mark is not part of the text");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "no temporary file is left");
}

#[test]
fn rows_are_written_in_every_element_type_and_width() {
    let folder = tempfile::tempdir().unwrap();
    let embed = |arguments: &[&str]| {
        let out = folder.path().join("out.npy");
        let command = |arguments: &[&str]| {
            let mut command = nvembed();
            command.args(["embed", "--quiet", "--dimensions", "10", "-m"]).arg(mini("fp32")).args(arguments);
            command
        };
        let output = run(command(arguments).arg("-o").arg(&out), b"one\ntwo\n");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let array = std::fs::read(out).unwrap();
        let header = String::from_utf8_lossy(&array[..128]).into_owned();
        (header, array[128..].to_vec(), json_lines(&run(&mut command(arguments), b"one\ntwo\n").stdout))
    };
    let (_, bytes, _) = embed(&[]);
    let floats: Vec<f32> = bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    assert_eq!(floats.len(), 20);
    for row in floats.chunks(10) {
        assert!((row.iter().map(|value| value * value).sum::<f32>() - 1.0).abs() < 1e-6, "{row:?}");
    }

    let (header, bytes, lines) = embed(&["--dtype", "int8"]);
    assert!(header.contains("'|i1', 'fortran_order': False, 'shape': (2, 10)"), "{header}");
    let scales = std::fs::read(folder.path().join("out.scales.npy")).unwrap();
    assert!(String::from_utf8_lossy(&scales[..128]).contains("'<f4', 'fortran_order': False, 'shape': (2,)"));
    for (index, byte) in bytes.iter().enumerate() {
        let (row, column) = (index / 10, index % 10);
        let scale = f32::from_le_bytes(scales[128 + 4 * row..][..4].try_into().unwrap());
        let value = f32::from(byte.cast_signed());
        assert!((value * scale - floats[index]).abs() <= 0.501 * scale, "{value} * {scale} for {}", floats[index]);
        assert_eq!(lines[row]["embedding"][column], byte.cast_signed());
        assert_eq!(lines[row]["scale"].as_f64().unwrap() as f32, scale);
    }

    let (header, bytes, lines) = embed(&["--dtype", "binary"]);
    assert!(header.contains("'|u1', 'fortran_order': False, 'shape': (2, 2)"), "{header}");
    for (index, value) in floats.iter().enumerate() {
        let (row, column) = (index / 10, index % 10);
        let byte = bytes[2 * row + column / 8];
        assert_eq!(byte >> (7 - column % 8) & 1 == 1, *value > 0.0, "{row}, {column}");
        assert_eq!(lines[row]["embedding"][column / 8], byte);
    }

    let (header, bytes, lines) = embed(&["--dtype", "f16"]);
    assert!(header.contains("'<f2', 'fortran_order': False, 'shape': (2, 10)"), "{header}");
    for (index, two) in bytes.chunks_exact(2).enumerate() {
        let value = half::f16::from_le_bytes(two.try_into().unwrap()).to_f32();
        assert!((value - floats[index]).abs() <= 5e-4, "{value} for {}", floats[index]);
        assert_eq!(lines[index / 10]["embedding"][index % 10].as_f64().unwrap() as f32, value);
    }

    let output = run(nvembed().args(["embed", "--dimensions", "257", "-m"]).arg(mini("fp32")), b"x\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--dimensions must be 1 to 256, got 257"));
}

#[test]
fn the_model_cards_right_pairs_score_highest() {
    for precision in precisions_on_this_cpu() {
        let mut command = nvembed();
        command.args(["score", "--json", "-m"]).arg(mini(precision));
        command.arg("--queries").arg(root().join("examples/model-card/queries.txt"));
        command.arg("--passages").arg(root().join("examples/model-card/passages.txt"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let scores: Value = serde_json::from_slice(&output.stdout).unwrap();
        let score = |query: usize, passage: usize| scores["scores"][query][passage].as_f64().unwrap();
        assert!(score(0, 0) > score(0, 1) + 20.0 && score(1, 1) > score(1, 0) + 20.0, "{scores}");
    }
}

#[test]
fn the_score_matrix_marks_the_best_passage_and_hides_control_characters() {
    let mut command = nvembed();
    command.args(["score", "-m"]).arg(mini("fp32")).args(["--query", "what is rain?"]);
    command.args(["--passage", "water that falls from clouds\u{1b}[2J", "--passage", "a kind of dance"]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let query = text.lines().find(|line| line.starts_with("Q1")).unwrap();
    assert!(query.split_whitespace().nth(1).unwrap().ends_with('*'), "{text}");
    assert!(text.contains("P2   a kind of dance") && !text.contains('\u{1b}'));
}

#[test]
fn inspect_describes_model_library_and_machine() {
    let output = nvembed().args(["inspect", "--verify-hashes"]).arg(mini("fp32")).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for word in ["nv-embed-mini", "apache-2.0", "fused", "providers            cpu", "libonnxruntime", "cores"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let output = nvembed().args(["inspect", "--json"]).arg(mini("int4")).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let stored = "4 bits, blocks of 32, symmetric, float32 activations, accuracy level 4";
    assert_eq!(report["model"]["quantization"], stored, "{report}");
    let output = nvembed().args(["inspect", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report.get("model").is_none() && report["library"]["version"].is_string());
}

#[test]
fn verify_accepts_the_golden_embeddings_and_refuses_changed_ones() {
    for precision in precisions_on_this_cpu() {
        let output = nvembed().args(["verify", "-m"]).arg(mini(precision)).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("golden embeddings agree"), "{text}");
    }
    let copy = crate::common::mini_copy();
    let path = copy.path().join("golden.json");
    let mut golden: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let first = golden["rows"][0]["embedding"][0].as_f64().unwrap();
    golden["rows"][0]["embedding"][0] = (first + 3e-5).into();
    golden["rows"][1]["input_ids"][3] = 5.into();
    std::fs::write(&path, golden.to_string()).unwrap();
    let output = nvembed().args(["verify", "-m"]).arg(copy.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(8));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.lines().filter(|line| line.ends_with("WRONG")).count(), 2, "{text}");
    let said = String::from_utf8_lossy(&output.stderr);
    for part in ["the token ids of 1 of 8 golden rows are wrong", "1 of 8 golden embeddings differ by more than"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_model_with_wrong_golden_rows_is_refused_and_one_without_any_is_warned_about() {
    let model = crate::common::mini_copy();
    let path = model.path().join("golden.json");
    let mut golden: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    golden["rows"][0]["embedding"][0] = 1.0.into();
    std::fs::write(&path, golden.to_string()).unwrap();
    let embed = |switch: &[&str]| {
        let output = run(nvembed().args(["embed", "-m"]).arg(model.path()).args(switch), b"a text\n");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = embed(&[]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("the self-check failed") && said.contains("--no-self-check"), "{said}");
    assert_eq!(embed(&["--no-self-check"]).0, Some(0));
    crate::common::change_manifest(model.path(), "/golden", Value::Null);
    let (code, said) = embed(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the folder has no golden rows"), "{said}");
}

#[test]
fn the_model_card_is_compared_only_where_scores_were_published() {
    let output = nvembed().args(["verify", "--model-card", "-m"]).arg(mini("fp32")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no published scores for \"nv-embed-mini\""));
    // The mini model's scores are other ones, so the comparison itself must say so.
    let output = nvembed().args(["verify", "--model-card=v1", "-m"]).arg(mini("fp32")).output().unwrap();
    assert_eq!(output.status.code(), Some(8));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("77.9402") && text.matches("WRONG").count() >= 3, "{text}");
}

#[test]
fn a_command_refuses_a_flag_without_effect_and_names_only_flags_it_has() {
    let words = ["score", "--window", "5", "--query", "a", "--passage", "b", "-m"];
    let output = nvembed().args(words).arg(mini("fp32")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    // Only embed has --max-length; bench has --length.
    let words = ["bench", "--quiet", "--batch", "1", "--length", "5000", "-m"];
    let output = nvembed().args(words).arg(mini("fp32")).output().unwrap();
    let row: Value = serde_json::from_slice(output.stdout.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    let error = row["error"].as_str().unwrap();
    assert!(error.contains("max_length must be 1 to 4096") && !error.contains("--max-length"), "{error}");
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let input: Vec<u8> = (0..20_000).flat_map(|index| format!("text {index}\n").into_bytes()).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.txt");
    std::fs::write(&path, input).unwrap();
    let mut command = nvembed();
    command.args(["embed", "-m"]).arg(mini("fp32")).arg(path).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!((child.wait().unwrap().code(), errors.as_str()), (Some(0), ""));
    assert!(first.starts_with("{\"index\":0,"));
}

/// Sends a signal and returns the exit code.
#[cfg(unix)]
fn interrupt(mut child: std::process::Child, signal: &str) -> Option<i32> {
    let sent = std::process::Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status();
    assert!(sent.unwrap().success());
    child.wait().unwrap().code()
}

#[cfg(unix)]
#[test]
fn an_interrupted_program_leaves_no_file() {
    for signal in ["INT", "TERM", "HUP"] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out.npy");
        let mut command = nvembed();
        command.args(["embed", "-m"]).arg(mini("fp32")).arg("-o").arg(&out);
        let mut command = as_in_the_foreground(&command);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The program waits for its input for ever; once its unfinished file is there, it is at work.
        while std::fs::read_dir(folder.path()).unwrap().count() == 0 {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(interrupt(child, signal), Some(130));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{signal}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_program_leaves_whole_rows_and_never_crashes() {
    let folder = tempfile::tempdir().unwrap();
    let many = folder.path().join("many.txt");
    std::fs::write(&many, "a text of some words\n".repeat(50_000)).unwrap();
    for _ in 0..5 {
        let rows = folder.path().join("rows.jsonl");
        let mut command = nvembed();
        command.args(["embed", "--window", "16", "-m"]).arg(mini("fp32")).arg(&many);
        let child = command.stdout(std::fs::File::create(&rows).unwrap()).stderr(Stdio::null()).spawn().unwrap();
        // In the middle of its work, with rows written and a run under way.
        while rows.metadata().unwrap().len() == 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(interrupt(child, "TERM"), Some(130));
        let text = std::fs::read_to_string(&rows).unwrap();
        assert!(text.ends_with('\n') && !json_lines(text.as_bytes()).is_empty());
    }
}

#[cfg(unix)]
#[test]
fn an_interruption_ends_a_program_whose_reader_stalls() {
    let mut command = nvembed();
    command.args(["embed", "-m"]).arg(mini("fp32")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        // More than the pipe behind holds, so that the program ends up blocked in a write that nobody reads.
        while std::io::Write::write_all(&mut input, &b"a text\n".repeat(1000)).is_ok() {}
    });
    let mut first = [0];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(interrupt(child, "TERM"), Some(130));
    drop(stdout);
    writer.join().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let mut command = std::process::Command::new("sh");
    command.arg("-c").arg("trap '' HUP; exec \"$0\" embed -q --window 1 -m \"$1\"");
    command.arg(env!("CARGO_BIN_EXE_nvembed")).arg(mini("fp32"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"one\n").unwrap();
    // Its first row says that it is at work and has set up what it does about signals.
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    output.read_line(&mut first).unwrap();
    let sent = std::process::Command::new("kill").arg("-HUP").arg(child.id().to_string()).status();
    assert!(sent.unwrap().success());
    std::io::Write::write_all(&mut input, b"two\n").unwrap();
    drop(input);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!((child.wait().unwrap().code(), rest.lines().count()), (Some(0), 1));
}

#[cfg(unix)]
#[test]
fn an_output_keeps_its_links_and_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("real.npy"), folder.path().join("link.npy"));
    std::fs::write(&file, "old").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let output = run(nvembed().args(["embed", "-m"]).arg(mini("fp32")).arg("-o").arg(&link), b"x\n");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    npy(&file, 1, 256);
    assert!(link.is_symlink() && file.metadata().unwrap().permissions().mode() & 0o777 == 0o640);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o440)).unwrap();
    let output = run(nvembed().args(["embed", "-m"]).arg(mini("fp32")).arg("-o").arg(&file), b"x\n");
    assert_eq!(output.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&output.stderr).contains("it is read-only"));
}

#[cfg(unix)]
#[test]
fn a_folder_whose_name_is_not_utf_8_is_described() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let strange = folder.path().join(std::ffi::OsStr::from_bytes(b"model\xff"));
    std::os::unix::fs::symlink(mini("fp32"), &strange).unwrap();
    assert!(nvembed().arg("inspect").arg(&strange).output().unwrap().status.success());
}
