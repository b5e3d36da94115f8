//! Formats that are not guessed, outputs that cannot be renamed, instructions that are probably a mistake.

use std::path::Path;
use std::process::{Command, Output};

use super::{nvembed, run};
use crate::common::mini;

fn embed(arguments: &[&str], input: &[u8]) -> Output {
    run(nvembed().args(["embed", "--quiet", "-m"]).arg(mini("fp32")).args(arguments), input)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn names_in_capitals_say_the_format_too() {
    let folder = tempfile::tempdir().unwrap();
    let (input, array) = (folder.path().join("A.JSONL"), folder.path().join("OUT.NPY"));
    std::fs::write(&input, b"{\"text\": \"the odyssey\"}\n").unwrap();
    let named = embed(&[input.to_str().unwrap()], b"");
    assert_eq!(named.status.code(), Some(0), "{}", stderr(&named));
    assert_eq!(named.stdout, embed(&[], b"the odyssey\n").stdout);
    assert_eq!(embed(&["-o", array.to_str().unwrap()], b"the odyssey\n").status.code(), Some(0));
    assert!(std::fs::read(&array).unwrap().starts_with(b"\x93NUMPY"));
}

#[test]
fn json_records_that_nothing_says_to_be_records_are_refused_until_the_format_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (record, input) = (b"{\"id\": 1, \"text\": \"the odyssey\"}\n", folder.path().join("a.json"));
    std::fs::write(&input, record).unwrap();
    for (files, bytes) in [(vec![input.to_str().unwrap()], &b""[..]), (vec![], &record[..])] {
        let refused = embed(&files, bytes);
        assert_eq!(refused.status.code(), Some(3));
        let message = stderr(&refused);
        assert!(message.contains(":1: the line is a JSON object") && message.contains("--format jsonl"), "{message}");
        assert!(!message.contains("odyssey"));
        let lines = embed(&[&files[..], &["--format", "lines"]].concat(), bytes);
        let records = embed(&[&files[..], &["--format", "jsonl"]].concat(), bytes);
        assert_eq!((lines.status.code(), records.status.code()), (Some(0), Some(0)));
        assert_ne!(lines.stdout, records.stdout);
    }
    for text in ["{ no record", "{}", "[{\"text\": 1}]", "{\"texts\": 1}"] {
        assert_eq!(embed(&[], text.as_bytes()).status.code(), Some(0), "{text}");
    }
}

#[test]
fn what_is_no_text_in_utf8_is_named() {
    for (bytes, message) in [
        (&b"\xff\xfea\0\n\0"[..], "UTF-16, as PowerShell writes it"),
        (b"\xfe\xff\0a\0\n", "UTF-16"),
        (b"\x1f\x8b\x08\0\0\0\0\0\n", "compressed by gzip"),
        (b"PK\x03\x04\x14\0\n", "zip archive"),
    ] {
        let output = embed(&[], bytes);
        assert_eq!(output.status.code(), Some(3));
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
    }
}

#[test]
fn an_instruction_that_is_probably_a_mistake_is_taken_with_a_warning() {
    for (arguments, warning) in [
        (["--instruction", "Instruct: X\\nQuery: "], "--instruction has a backslash and the letter n"),
        (["--instruction", "Instruct: X\nQuery:"], "--instruction ends without the space"),
        (["--task", "Instruct: X\nQuery: "], "--task is the sentence alone"),
    ] {
        let output = embed(&arguments, b"a\n");
        assert_eq!(output.status.code(), Some(0));
        assert!(stderr(&output).contains(warning), "{}", stderr(&output));
    }
    let output = embed(&["--task", "Retrieve passages"], b"a\n");
    assert_eq!(stderr(&output), "");
}

/// Mounts a file on another one; false where that is not allowed.
fn bind(from: &Path, on: &Path) -> bool {
    Command::new("mount").arg("--bind").args([from, on]).output().is_ok_and(|output| output.status.success())
}

#[cfg(target_os = "linux")]
#[test]
fn a_mounted_file_gets_the_output_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (real, mounted) = (folder.path().join("real.npy"), folder.path().join("mounted.npy"));
    std::fs::write(&real, b"what was there before, and is much longer than".repeat(1000)).unwrap();
    std::fs::write(&mounted, b"").unwrap();
    if !bind(&real, &mounted) {
        crate::common::skipped("a mounted output", "mounting a file needs root and permission to mount");
        return;
    }
    let output = embed(&["-o", mounted.to_str().unwrap()], b"the odyssey\n");
    let unmounted = Command::new("umount").arg(&mounted).status().unwrap();
    assert!(unmounted.success());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let expected = folder.path().join("expected.npy");
    embed(&["-o", expected.to_str().unwrap()], b"the odyssey\n");
    assert_eq!(std::fs::read(&real).unwrap(), std::fs::read(&expected).unwrap());
    assert_eq!(std::fs::read(&mounted).unwrap(), b"");
    assert_eq!(folder.path().read_dir().unwrap().count(), 3);
}

#[test]
fn an_input_without_texts_is_an_output_without_rows_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    for (dtype, header) in [("f32", "'<f4'"), ("int8", "'|i1'")] {
        let array = folder.path().join(format!("{dtype}.npy"));
        let arguments = ["--dtype", dtype, "--allow-empty", "-o", array.to_str().unwrap()];
        let empty = embed(&arguments, b"");
        assert_eq!(empty.status.code(), Some(0), "{}", stderr(&empty));
        let bytes = std::fs::read(&array).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("(0, 256)") && text.contains(header) && text.ends_with('\n'), "{text}");
    }
    let scales = std::fs::read(folder.path().join("int8.scales.npy")).unwrap();
    assert!(String::from_utf8_lossy(&scales).contains("(0,)"));
    let lines = embed(&["--allow-empty"], b"");
    assert_eq!((lines.status.code(), lines.stdout), (Some(0), vec![]));
    let refused = embed(&["-o", folder.path().join("no.npy").to_str().unwrap()], b"");
    assert!(refused.status.code() == Some(3) && stderr(&refused).contains("--allow-empty"), "{}", stderr(&refused));
    assert!(!folder.path().join("no.npy").exists());
}

#[test]
fn unknown_fields_are_passed_over_where_that_is_asked_for() {
    let record = br#"{"_id": "a", "title": "Homer", "text": "the odyssey", "id": 7, "metadata": {"text": "no"}}"#;
    let refused = embed(&["--format", "jsonl"], record);
    assert!(refused.status.code() == Some(3) && stderr(&refused).contains("--ignore-unknown-fields"));
    let passed = embed(&["--format", "jsonl", "--ignore-unknown-fields"], record);
    assert_eq!(passed.status.code(), Some(0), "{}", stderr(&passed));
    let plain = embed(&["--format", "jsonl"], br#"{"id": 7, "text": "the odyssey"}"#);
    assert_eq!(passed.stdout, plain.stdout);
    for (bad, says) in [
        (&br#"{"text": "a", "text": "b"}"#[..], "duplicate field"),
        (br#"{"title": "a"}"#, "missing field `text`"),
        (br#"{"text": "a"} {"text": "b"}"#, "trailing characters"),
    ] {
        let refused = embed(&["--format", "jsonl", "--ignore-unknown-fields"], bad);
        assert!(refused.status.code() == Some(3) && stderr(&refused).contains(says), "{}", stderr(&refused));
    }
}

#[test]
fn cut_texts_are_told_of_where_the_output_cannot_say_them() {
    let folder = tempfile::tempdir().unwrap();
    let array = folder.path().join("a.npy");
    let texts = b"a text of many more words than four tokens\nshort\n";
    let cut = embed(&["--max-length", "4", "-o", array.to_str().unwrap()], texts);
    assert!(cut.status.success() && stderr(&cut).contains("1 of 2 texts are longer"), "{}", stderr(&cut));
    let lines = embed(&["--max-length", "4"], texts);
    assert!(lines.status.success() && lines.stderr.is_empty(), "each line says it: {}", stderr(&lines));
    let whole = embed(&["-o", array.to_str().unwrap()], texts);
    assert!(whole.status.success() && whole.stderr.is_empty(), "{}", stderr(&whole));
}
