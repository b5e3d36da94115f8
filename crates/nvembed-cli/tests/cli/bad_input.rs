//! Bad input to the program: each case has its exit code and one line that says what and where; nothing that looks like a
//! finished result is left behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::mini;
use crate::{nvembed, run};

/// A case: what is wrong, the arguments behind `embed -m MODEL -o OUT`, stdin, exit code, and what the message must name.
type Case<'a> = (&'a str, Vec<&'a str>, &'a [u8], i32, &'a [&'a str]);

fn one_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    text
}

#[test]
fn embed_refuses_bad_texts_and_options() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let empty = path("empty.txt", b"");
    let latin1 = path("latin1.txt", b"fine\ncaf\xe9\n");
    let utf16 = path("utf16.txt", b"h\0i\0\n\0");
    let half = path("half.jsonl", b"{\"text\": \"whole\"}\n{\"text\": \"ha");
    let long_line = path("long.jsonl", format!("{{\"text\": \"{}\"}}", "many words ".repeat(9000)).as_bytes());
    let long_instruction = "a very long instruction ".repeat(2000);
    let cases: Vec<Case<'_>> = vec![
        ("empty file", vec![&empty], b"", 3, &["input is empty"]),
        ("empty stdin", vec![], b"", 3, &["input is empty"]),
        ("missing file", vec!["no/such.txt"], b"", 3, &["no/such.txt: cannot be opened", "No such file"]),
        ("a folder", vec!["/"], b"", 3, &["/: cannot be read", "directory"]),
        ("invalid UTF-8", vec![&latin1], b"", 3, &["latin1.txt:2: invalid UTF-8 at byte 4"]),
        ("invalid UTF-8 on stdin", vec![], b"\xff\n", 3, &["standard input:1: invalid UTF-8 at byte 1"]),
        ("NUL byte", vec![], b"ok\na\0b\n", 3, &["standard input:2: NUL byte at byte 2"]),
        ("UTF-16", vec![&utf16], b"", 3, &["utf16.txt:1: NUL byte", "UTF-16"]),
        ("truncated JSON", vec![&half], b"", 3, &["half.jsonl:2: not a valid record", "EOF"]),
        ("no text", vec!["--format", "jsonl"], b"{\"id\": 1}", 3, &["input:1", "missing field `text`"]),
        (
            "text not a string",
            vec!["--format", "jsonl"],
            b"{\"text\": 5}",
            3,
            &["input:1", "field `text`: expected a string"],
        ),
        (
            "half of a surrogate pair",
            vec!["--format", "jsonl"],
            b"{\"id\": 1, \"text\": \"ab\\ud800 c\"}",
            3,
            &["input:1", "field `text`", "at byte 28 of the line"],
        ),
        ("a bare string", vec!["--format", "jsonl"], b"\"secret\"", 3, &["input:1", "expected a JSON object"]),
        ("an array", vec!["--format", "jsonl"], b"[\"who?\", \"find it\"]", 3, &["expected a JSON object"]),
        (
            "text twice",
            vec!["--format", "jsonl"],
            b"{\"text\": \"a\", \"text\": \"b\"}",
            3,
            &["duplicate field `text`"],
        ),
        (
            "unknown field",
            vec!["--format", "jsonl"],
            b"{\"text\": \"a\", \"instrution\": \"b\"}",
            3,
            &["unknown field `instrution`"],
        ),
        (
            "both prefixes",
            vec!["--format", "jsonl"],
            b"{\"text\": \"a\", \"task\": \"b\", \"instruction\": \"c\"}",
            3,
            &["both"],
        ),
        (
            "half a surrogate",
            vec!["--format", "jsonl"],
            b"{\"text\": \"\\ud800\"}",
            3,
            &["input:1: not a valid record: field `text`: unexpected end of hex escape"],
        ),
        (
            "too long by policy",
            vec![&long_line, "--truncation", "error"],
            b"",
            3,
            &["long.jsonl:1", "more than 4096 tokens"],
        ),
        (
            "instruction fills the row",
            vec!["--instruction", &long_instruction],
            b"x\n",
            3,
            &["input:1", "nothing is left to pool"],
        ),
        (
            "max length too large",
            vec!["--max-length", "5000"],
            b"x\n",
            2,
            &["--max-length must be 1 to 4096, got 5000"],
        ),
        ("max length zero", vec!["--max-length", "0"], b"x\n", 2, &["--max-length must be 1 to 4096, got 0"]),
        (
            "huge batch",
            vec!["--max-batch-tokens", "99999999999"],
            b"x\n",
            2,
            &["--max-batch-tokens must be 1 to 1048576, got 99999999999"],
        ),
        (
            "too many rows",
            vec!["--max-batch-size", "9999999"],
            b"x\n",
            2,
            &["--max-batch-size must be 1 to 8192, got 9999999"],
        ),
        (
            "too many threads",
            vec!["--intra-threads", "4294967297"],
            b"x\n",
            2,
            &["--intra-threads must be 1 to 1024, got 4294967297"],
        ),
        ("no window", vec!["--window", "0"], b"x\n", 2, &["--window must be 1 to"]),
        ("batch not a number", vec!["--max-batch-size", "many"], b"x\n", 2, &["invalid value 'many'"]),
        ("no threads", vec!["--intra-threads", "0"], b"x\n", 2, &["--intra-threads must be 1 to 1024, got 0"]),
        (
            "unknown provider",
            vec!["--provider", "rocm"],
            b"x\n",
            2,
            &["rocm", "cpu, cuda, tensorrt, nv-tensorrt-rtx, openvino"],
        ),
        ("provider not there", vec!["--provider", "cuda"], b"x\n", 5, &["cuda is not in the loaded", "has cpu"]),
        (
            "library not there",
            vec!["--library", "/no/libonnxruntime.so"],
            b"x\n",
            5,
            &["/no/libonnxruntime.so", "no such file"],
        ),
        ("library no library", vec!["--library", &empty], b"x\n", 5, &["empty.txt", "not an ONNX Runtime 1.x library"]),
        ("task and instruction", vec!["--task", "a", "--instruction", "b"], b"x\n", 2, &["cannot be used with"]),
        ("unknown option", vec!["--fast"], b"x\n", 2, &["--fast"]),
        ("option of another provider", vec!["--tf32"], b"x\n", 2, &["provider cpu ignores --tf32", "another provider"]),
        ("provider option on the CPU", vec!["--provider-option", "a=b"], b"x\n", 2, &["cpu ignores --provider-option"]),
        ("provider option without value", vec!["--provider-option", "a"], b"x\n", 2, &["expected NAME=VALUE"]),
        (
            "unknown truncation",
            vec!["--truncation", "left"],
            b"x\n",
            2,
            &["--truncation must be one of reference, keep-eos"],
        ),
        ("odd size", vec!["--memory-limit", "8GB"], b"x\n", 2, &["8GB", "such as 20GiB"]),
        ("old name of a flag", vec!["--threads", "1"], b"x\n", 2, &["--threads"]),
    ];
    assert!(cases.len() >= 25);
    let out = folder.path().join("out.npy");
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    for (name, arguments, input, code, wanted) in cases {
        let output = run(nvembed().args(["embed", "-m"]).arg(mini("fp32")).arg("-o").arg(&out).args(arguments), input);
        let message = one_line(&output);
        assert_eq!(output.status.code(), Some(code), "{name}: {message}");
        assert!(wanted.iter().all(|part| message.contains(part)), "{name}: {message}");
        assert!(output.stdout.is_empty(), "{name}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), files, "{name} left a file");
    }
}

#[test]
fn a_text_that_cannot_be_embedded_costs_its_row_when_errors_are_skipped() {
    let long = "many words ".repeat(60);
    let lines = [
        "{\"text\": \"secret\", \"id\": 1, \"x\": 0}",
        "{\"text\": \"one\"}",
        "{\"text\": null, \"id\": 7}",
        &format!("{{\"text\": \"{long}\", \"id\": 8}}"),
        "{\"text\": \"two\", \"id\": 9}",
        "{\"text\": \"secr",
    ];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("texts.jsonl");
    std::fs::write(&file, [lines.join("\n").as_bytes(), b"\n\xff\n"].concat()).unwrap();
    let command = |arguments: &[&str]| {
        let mut command = nvembed();
        command
            .args(["embed", "--truncation", "error", "--max-length", "32", "--on-error", "skip", "-m"])
            .arg(mini("fp32"));
        command.args(arguments).arg(&file);
        command
    };
    let output = command(&[]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for word in [
        "texts.jsonl:1:",
        "texts.jsonl:3: not a valid record: field `text`",
        "jsonl:4: ",
        "jsonl:6:",
        "jsonl:7: invalid UTF-8",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(said.contains("2 texts") && said.contains("5 without an embedding") && !said.contains("secr\""), "{said}");
    let rows = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!rows.contains("secret"));
    let rows: Vec<serde_json::Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 7);
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(row["index"], index);
        assert_eq!(row["embedding"].is_array(), [1, 4].contains(&index), "{row}");
        assert_eq!(row.get("error").is_none(), [1, 4].contains(&index), "{row}");
    }
    assert_eq!((&rows[2]["id"], &rows[3]["id"], &rows[4]["id"]), (&7.into(), &8.into(), &9.into()));
    for (dtype, bytes) in [("f32", 1024), ("f16", 512), ("int8", 256), ("binary", 32)] {
        let array = folder.path().join("rows.npy");
        assert!(command(&["-q", "--dtype", dtype, "-o", array.to_str().unwrap()]).output().unwrap().status.success());
        let rows = std::fs::read(&array).unwrap()[128..].to_vec();
        assert_eq!(rows.len(), 7 * bytes, "{dtype}");
        for (index, row) in rows.chunks(bytes).enumerate() {
            assert_eq!(row.iter().all(|byte| *byte == 0), ![1, 4].contains(&index), "{dtype} {index}");
        }
    }
    let scales = std::fs::metadata(folder.path().join("rows.scales.npy")).unwrap().len();
    assert_eq!(scales, 128 + 7 * 4);
}

#[test]
fn a_later_file_that_is_missing_is_found_before_the_model_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("texts.txt");
    std::fs::write(&file, "a\n").unwrap();
    let output = nvembed().args(["embed", "-m", "/no/model"]).arg(&file).arg("/no/such.txt").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(one_line(&output).contains("/no/such.txt: cannot be opened") && output.stdout.is_empty());
}

#[test]
fn an_error_message_does_not_hold_the_text() {
    let inputs =
        [r#""my secret text""#, r#"{"text": {"my secret text": 1}}"#, r#"{"text": "my secret text", "task": 5}"#];
    for input in inputs {
        let output = run(nvembed().args(["embed", "--format", "jsonl", "-m"]).arg(mini("fp32")), input.as_bytes());
        assert_eq!(output.status.code(), Some(3));
        assert!(!one_line(&output).contains("secret"), "{}", one_line(&output));
    }
}

#[test]
fn an_output_that_is_an_input_is_refused_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("in.txt"), folder.path().join("link.jsonl"));
    std::fs::write(&path, "precious\n").unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for output in [&path, &link] {
        let output =
            nvembed().args(["embed", "-m"]).arg(mini("fp32")).arg(&path).arg("-o").arg(output).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(one_line(&output).contains("is both input and output"));
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"precious\n");
}

#[test]
fn a_line_beyond_the_limit_is_refused_with_bounded_memory() {
    let mut limited = Command::new("sh");
    limited.arg("-c").arg("ulimit -v 8000000; exec \"$0\" embed -m \"$1\" --format lines /dev/zero");
    let output = limited.arg(env!("CARGO_BIN_EXE_nvembed")).arg(mini("fp32")).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", one_line(&output));
    assert!(one_line(&output).contains("/dev/zero:1: the line has more than 268435456 bytes"));
}

#[test]
fn a_damaged_golden_file_is_a_matter_of_the_model_folder() {
    for content in ["{", "{\"schema_version\": 9, \"rows\": []}", "{\"schema_version\": 1, \"rows\": []}"] {
        let copy = crate::common::mini_copy();
        std::fs::write(copy.path().join("golden.json"), content).unwrap();
        let output = nvembed().args(["verify", "-m"]).arg(copy.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(4));
        assert!(one_line(&output).contains("golden.json is not a valid golden file"), "{}", one_line(&output));
    }
}

#[test]
fn a_bad_line_in_the_middle_keeps_the_name_of_the_output_free() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let mut input = b"good line\n".repeat(3000);
    input.extend(b"bad \xff line\n");
    let output = run(nvembed().args(["embed", "-m"]).arg(mini("fp32")).arg("-o").arg(&out), &input);
    assert_eq!(output.status.code(), Some(3));
    assert!(one_line(&output).contains("standard input:3001: invalid UTF-8 at byte 5"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn model_folders_that_are_not_there_or_not_one_have_exit_code_4() {
    for (model, message) in [("no/model", "no/model does not exist"), ("src", "src is not a model folder")] {
        for arguments in [vec!["embed", "-m", model], vec!["verify", "-m", model], vec!["inspect", model]] {
            let output = run(nvembed().current_dir(crate::common::root()).args(arguments), b"x\n");
            assert_eq!(output.status.code(), Some(4));
            assert!(one_line(&output).contains(message) && output.stdout.is_empty());
        }
    }
}

#[test]
fn outputs_that_cannot_be_written_have_exit_code_7() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no/such/out.npy");
    let existing = folder.path().to_owned();
    let device = PathBuf::from("/dev/null");
    for (path, message) in [(missing, "No such file"), (existing, "it is a folder"), (device, "not a regular file")] {
        let output = run(nvembed().args(["embed", "-m"]).arg(mini("fp32")).arg("-o").arg(&path), b"x\n");
        assert_eq!(output.status.code(), Some(7));
        let found = one_line(&output);
        assert!(found.contains(message) && found.contains(&path.display().to_string()), "{found}");
    }
    let mut to_stdout = nvembed();
    let output = run(to_stdout.args(["embed", "--output-format", "npy", "-m"]).arg(mini("fp32")), b"x\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(one_line(&output).contains(".npy cannot go to standard output"), "{}", one_line(&output));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported_and_leaves_no_file() {
    // /dev/full fails each write with "no space left"; a file size limit fails in the middle of a file.
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = nvembed_on_lines().stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert!(one_line(&output).contains("standard output cannot be written: No space left"), "{}", one_line(&output));

    let folder = tempfile::tempdir().unwrap();
    for name in ["out.npy", "out.jsonl"] {
        let script = format!("trap '' XFSZ; ulimit -f 64; exec \"$0\" embed -m \"$1\" \"$2\" -o \"$3/{name}\"");
        let mut limited = Command::new("sh");
        limited.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_nvembed")).arg(mini("fp32")).arg(lines_file());
        let output = limited.arg(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{}", one_line(&output));
        assert!(one_line(&output).contains("cannot be written: File too large"), "{}", one_line(&output));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

fn lines_file() -> PathBuf {
    crate::common::root().join("tests/eval/README.md")
}

fn nvembed_on_lines() -> Command {
    let mut command = nvembed();
    command.args(["embed", "-m"]).arg(mini("fp32")).arg(lines_file());
    command
}

/// Builds a shared library that says it is ONNX Runtime of some version.
fn fake_library(folder: &Path, version: &str) -> PathBuf {
    let source = folder.join("fake.c");
    let library = folder.join(format!("libonnxruntime.so.{version}"));
    let code = format!(
        "static const char *version(void) {{ return \"{version}\"; }}\n\
         static const void *api(unsigned v) {{ (void)v; return 0; }}\n\
         static const struct {{ const void *(*a)(unsigned); const char *(*v)(void); }} base = {{ api, version }};\n\
         const void *OrtGetApiBase(void) {{ return &base; }}\n"
    );
    std::fs::write(&source, code).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
    assert!(built.success());
    library
}

#[test]
fn a_library_that_is_too_old_is_refused_with_both_versions() {
    let folder = tempfile::tempdir().unwrap();
    for (version, message) in [
        ("1.30.2", "version 1.30 is too old, 1.31 or newer is needed"),
        ("1.17.0", "version 1.17 is too old"),
        ("0.5.0", "not an ONNX Runtime 1.x library"),
    ] {
        let library = fake_library(folder.path(), version);
        for explicit in [true, false] {
            let mut command = nvembed();
            if explicit {
                command.args(["inspect", "--library"]).arg(&library);
            } else {
                command.arg("inspect").env("ORT_DYLIB_PATH", &library);
            }
            let output = command.output().unwrap();
            let text = one_line(&output);
            assert_eq!(output.status.code(), Some(5), "{text}");
            assert!(text.contains(message) && text.contains(&library.display().to_string()), "{text}");
        }
    }
}

#[test]
fn where_no_library_is_every_place_is_listed() {
    // A copy outside of the project finds neither its virtual environment nor, here, a library of the system.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("nvembed");
    std::fs::copy(env!("CARGO_BIN_EXE_nvembed"), &program).unwrap();
    let bare = || {
        let mut command = Command::new(&program);
        command.env_clear().arg("inspect");
        command
    };
    let output = bare().output().unwrap();
    let text = one_line(&output);
    if output.status.success() {
        println!("SKIPPED: this system has an ONNX Runtime library of its own");
        return;
    }
    assert_eq!(output.status.code(), Some(5));
    for place in
        [&*folder.path().display().to_string(), "/usr/lib (system)", "libonnxruntime.so", "pip install onnxruntime"]
    {
        assert!(text.contains(place), "{place}: {text}");
    }
    // And it is found beside the program, and in the active virtual environment.
    let venv = crate::common::root().join(".venv");
    let found = bare().env("VIRTUAL_ENV", &venv).output().unwrap();
    assert!(String::from_utf8_lossy(&found.stdout).contains("virtual environment"), "{}", one_line(&found));
    let library = String::from_utf8_lossy(&found.stdout).into_owned();
    let library = library.lines().find_map(|line| line.trim().strip_prefix("path")).unwrap().trim();
    std::os::unix::fs::symlink(library, folder.path().join("libonnxruntime.so")).unwrap();
    let found = bare().output().unwrap();
    assert!(String::from_utf8_lossy(&found.stdout).contains("beside the executable"), "{}", one_line(&found));
}

#[test]
fn a_limit_of_open_files_is_named_and_no_library_or_model_is_blamed() {
    for limit in 3..12 {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {limit} && exec \"$0\" \"$@\""));
        command.arg(env!("CARGO_BIN_EXE_nvembed")).args(["embed", "-m"]).arg(mini("fp32")).arg("-");
        let output = run(command.current_dir(crate::common::root()), b"a text\n");
        let text = one_line(&output);
        match output.status.code() {
            Some(0) => assert!(limit > 3),
            // The system's loader, before the program starts.
            Some(127) => {}
            Some(6) => assert!(text.contains("ulimit -n"), "{limit}: {text}"),
            code => panic!("{limit}: {code:?}: {text}"),
        }
    }
}

#[test]
fn without_proc_a_library_is_not_asked_for_by_name_and_nothing_panics() {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "umount -l /proc && exec \"$0\" inspect"]);
    let output =
        command.arg(env!("CARGO_BIN_EXE_nvembed")).env_remove("ORT_DYLIB_PATH").env_remove("VIRTUAL_ENV").output();
    let output = output.expect("unshare starts");
    let text = one_line(&output);
    if !text.contains("nvembed") && !output.status.success() {
        println!("SKIPPED: /proc cannot be taken away here: {text}");
    } else if !output.status.success() {
        assert_eq!(output.status.code(), Some(6), "{text}");
        assert!(text.contains("is /proc mounted?"), "{text}");
    }
}
