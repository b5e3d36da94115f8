//! `nvembed corpus`: what is in the parts, and that no interruption, sharing or damage changes it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, Int32Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};

use crate::common::mini;
use crate::{as_in_the_foreground, nvembed};

/// A folder with an input file, and room for corpora.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// JSON lines of short texts of mixed lengths, with identifiers.
    fn texts(&self, name: &str, count: usize) -> PathBuf {
        let line = |index: usize| {
            let text = format!("text {index} {}", "of some words ".repeat(index * 7 % 5));
            format!("{}\n", json!({"id": format!("t{index}"), "text": text, "other": [index]}))
        };
        self.write(name, (0..count).map(line).collect::<String>())
    }

    /// The command for a corpus in a folder here, with parts of ten rows.
    fn corpus(&self, input: &Path, out: &str) -> Command {
        let mut command = nvembed();
        command.args(["corpus", "--shard-rows", "10", "-m"]).arg(mini("fp32"));
        command.arg("--input").arg(input).arg("--out").arg(self.path(out));
        command
    }

    /// The parts of a corpus, byte by byte. Nothing else may be left beside the manifest and locks.
    fn parts(&self, out: &str) -> BTreeMap<String, Vec<u8>> {
        let mut parts = BTreeMap::new();
        for entry in std::fs::read_dir(self.path(out)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.starts_with("part-") {
                parts.insert(name.clone(), std::fs::read(self.path(out).join(name)).unwrap());
            } else {
                assert!(name == "manifest.json" || name.ends_with(".lock"), "{name}");
            }
        }
        parts
    }

    fn columns(&self, out: &str) -> Vec<RecordBatch> {
        let mut batches = Vec::new();
        for name in self.parts(out).keys() {
            let file = File::open(self.path(out).join(name)).unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
            batches.extend(reader.map(|batch| batch.unwrap()));
        }
        batches
    }
}

fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn fails(command: &mut Command, code: i32, words: &[&str]) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// Ids of string type, of all rows.
fn ids(batches: &[RecordBatch]) -> Vec<Option<String>> {
    let column = |batch: &RecordBatch| batch.column_by_name("id").unwrap().as_string::<i32>().clone();
    batches.iter().flat_map(|batch| column(batch).iter().map(|id| id.map(str::to_owned)).collect::<Vec<_>>()).collect()
}

/// The stored elements of all embeddings, as the bytes that they are in memory.
fn elements(batches: &[RecordBatch]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for batch in batches {
        let data = batch.column_by_name("embedding").unwrap().as_fixed_size_list().values().to_data();
        let size = data.data_type().primitive_width().unwrap();
        bytes.extend_from_slice(
            &data.buffers()[0].as_slice()[data.offset() * size..(data.offset() + data.len()) * size],
        );
    }
    bytes
}

#[test]
fn rows_are_those_of_embed_in_every_element_type() {
    let place = Place::new();
    let input = place.texts("texts.jsonl", 25);
    // For embed, which takes no other fields.
    let without = |line: &str| format!("{}}}\n", line.split_once(",\"other\"").unwrap().0);
    let plain = std::fs::read_to_string(&input).unwrap().lines().map(without).collect::<String>();
    let plain = place.write("plain.jsonl", plain);
    for dtype in ["f32", "f16", "int8", "binary"] {
        let dimensions = if dtype == "f16" { "100" } else { "256" };
        let out = format!("out-{dtype}");
        succeeds(place.corpus(&input, &out).args(["--dtype", dtype, "--dimensions", dimensions, "--text-hash", "-q"]));
        let array = place.path("rows.npy");
        let mut embed = nvembed();
        embed
            .args(["embed", "-q", "--dtype", dtype, "--dimensions", dimensions, "--window", "10", "-m"])
            .arg(mini("fp32"));
        succeeds(embed.arg(&plain).arg("-o").arg(&array));
        let batches = place.columns(&out);
        assert_eq!(elements(&batches), std::fs::read(&array).unwrap()[128..], "{dtype}");
        assert_eq!(ids(&batches), (0..25).map(|index| Some(format!("t{index}"))).collect::<Vec<_>>());
        let schema = batches[0].schema();
        assert_eq!(schema.field_with_name("scale").is_ok(), dtype == "int8");
        assert!(schema.fields().iter().all(|field| !field.is_nullable()), "{schema:?}");
        let hash = batches[0].column_by_name("text_sha256").unwrap();
        // sha256sum of "text 0 ".
        assert_eq!(hash.as_fixed_size_binary().value(0)[..4], [0xb0, 0x26, 0xb6, 0xb6]);
    }
}

#[test]
fn a_killed_job_goes_on_and_ends_as_if_it_had_not_been() {
    let place = Place::new();
    let input = place.texts("texts.jsonl", 120);
    succeeds(place.corpus(&input, "whole").arg("-q"));
    let whole = place.parts("whole");
    assert_eq!(whole.len(), 12);
    for wanted in [1, 3, 6] {
        let mut child = place.corpus(&input, "killed").stderr(Stdio::null()).spawn().unwrap();
        let parts = || {
            std::fs::read_dir(place.path("killed")).map_or(0, |entries| {
                entries
                    .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("part-"))
                    .count()
            })
        };
        while parts() < wanted {
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let mut status = nvembed();
        status.args(["corpus", "status"]).arg(place.path("killed"));
        fails(&mut status, 8, &["incomplete"]);
    }
    let output = succeeds(&mut place.corpus(&input, "killed"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let done: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert!(done["event"] == "done" && done["rows"].as_u64().unwrap() < 70, "what was there is not made again: {said}");
    assert!(place.parts("killed") == whole, "a part differs");
    succeeds(nvembed().args(["corpus", "status"]).arg(place.path("killed")));
}

#[cfg(unix)]
#[test]
fn a_terminated_job_leaves_whole_parts_only() {
    let place = Place::new();
    let input = place.texts("texts.jsonl", 2000);
    let child = as_in_the_foreground(&place.corpus(&input, "out")).stderr(Stdio::null()).spawn();
    let mut child = child.unwrap();
    while !place.path("out").join("part-00001-of-00200.parquet").exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(place.parts("out").len() > 1);
}

#[test]
fn shards_that_run_at_once_make_the_same_corpus() {
    let place = Place::new();
    let input = place.texts("texts.jsonl", 50);
    succeeds(place.corpus(&input, "one").arg("-q"));
    let shards =
        ["0/2", "1/2"].map(|shard| place.corpus(&input, "two").args(["-q", "--shard", shard]).spawn().unwrap());
    for mut shard in shards {
        assert!(shard.wait().unwrap().success());
    }
    assert!(place.parts("two") == place.parts("one"));
    fails(place.corpus(&input, "two").args(["--shard", "2/2"]), 2, &["--shard must be I/N", "2/2"]);
}

#[test]
fn a_text_that_comes_again_is_embedded_once() {
    let place = Place::new();
    // Parts of ten rows: 3 of the 20 texts of the first two parts are new in each, and a bad one comes again too.
    let line = |index: usize| match index % 5 {
        4 => json!({"text": null}).to_string() + "\n",
        row => format!(
            "{}\n",
            json!({"text": format!("text {} of {}", row % 3, index / 10), "instruction": "as ".repeat(row / 3)})
        ),
    };
    let input = place.write("texts.jsonl", (0..25).map(line).collect::<String>());
    let arguments = ["--on-error", "skip", "--text-hash", "--instruction-field", "instruction"];
    let tokens = |out: &str, more: &[&str]| {
        let output = succeeds(place.corpus(&input, out).args(arguments).args(more));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let done: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        (done["tokens"].as_u64().unwrap(), done["repeated"].as_u64().unwrap(), done["errors"].as_u64().unwrap())
    };
    let (all, none, errors) = tokens("each", &[]);
    let (fewer, repeated, same_errors) = tokens("once", &["--dedupe"]);
    // A row in four has the instruction, and with it is another text.
    assert_eq!((none, repeated, errors, same_errors), (0, 8, 5, 5));
    assert!(fewer < all);
    let column = |out: &str, name: &str| -> Vec<ArrayRef> {
        place.columns(out).iter().map(|batch| batch.column_by_name(name).unwrap().clone()).collect()
    };
    for name in ["id", "tokens", "truncated", "text_sha256", "error"] {
        assert_eq!(column("each", name), column("once", name), "{name}");
    }
    let embeddings = |out: &str| {
        let floats = |array: &ArrayRef| {
            let list = array.as_fixed_size_list();
            (list.nulls().cloned(), list.values().as_primitive::<Float16Type>().values().to_vec())
        };
        column(out, "embedding").iter().map(floats).collect::<Vec<_>>()
    };
    for ((nulls, values), (same_nulls, same)) in embeddings("each").into_iter().zip(embeddings("once")) {
        assert_eq!(nulls, same_nulls);
        // Other texts share their batch, so the last bit of f16 may differ.
        assert!(values.iter().zip(&same).all(|(one, other)| (one.to_f32() - other.to_f32()).abs() < 2e-3));
    }
    fails(place.corpus(&input, "once").args(arguments), 2, &["--dedupe true, and this command has false"]);
    succeeds(nvembed().args(["corpus", "verify"]).arg(place.path("once")));
}

#[test]
fn a_long_job_is_estimated_before_it_begins() {
    let place = Place::new();
    let input = place.texts("texts.jsonl", 800);
    let said = |command: &mut Command| -> Vec<Value> {
        let output = succeeds(command.args(["--shard-rows", "93"]));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let mut job = nvembed();
    job.args(["corpus", "-m"]).arg(mini("fp32")).arg("--input").arg(&input).arg("--out").arg(place.path("out"));
    let said = said(&mut job);
    let [plan, estimate, .., done] = &said[..] else { panic!("{said:?}") };
    assert!(plan["free_bytes"].as_u64().unwrap() > 0 && plan["embedding_bytes"] == 800 * 512);
    assert_eq!((&estimate["event"], &estimate["sample_rows"]), (&json!("estimate"), &json!(8)));
    // The first texts of each part are like all others.
    let (about, tokens) = (estimate["tokens"].as_f64().unwrap(), done["tokens"].as_f64().unwrap());
    assert!((about / tokens - 1.0).abs() < 0.2, "{about} {tokens}");
    assert_eq!(place.parts("out").len(), 9);
}

#[cfg(unix)]
#[test]
fn a_full_disk_and_a_folder_that_takes_no_files_end_the_job_and_leave_no_debris() {
    let place = Place::new();
    let input = place.texts("texts.jsonl", 60);
    // A limit on the size of files stands for a full disk: the manifest fits, a part does not.
    let job = place.corpus(&input, "out");
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"]).arg(job.get_program()).args(job.get_args());
    limited.args(["-q", "--compression", "none", "--dtype", "f32"]).current_dir(crate::common::root());
    fails(&mut limited, 7, &["part-00000-of-00006.parquet cannot be written", "File too large"]);
    assert!(place.parts("out").is_empty(), "nothing unfinished is left");
    // With room again, the same command goes on.
    succeeds(place.corpus(&input, "out").args(["-q", "--compression", "none", "--dtype", "f32"]));
    // Root may write everywhere but here.
    let mut nowhere = nvembed();
    nowhere.args(["corpus", "-m"]).arg(mini("fp32")).arg("--input").arg(&input).args(["--out", "/proc/self"]);
    fails(&mut nowhere, 7, &["/proc/self", "cannot be written"]);
}

#[test]
fn a_row_of_a_hundred_megabytes_is_one_row() {
    let place = Place::new();
    let text = "words of a very long text ".repeat((100 << 20) / 26);
    let lines = [json!({"text": "short"}), json!({"text": text}), json!({"text": "last"})];
    let input = place.write("long.jsonl", lines.map(|line| format!("{line}\n")).concat());
    succeeds(place.corpus(&input, "out").args(["-q", "--max-length", "64"]));
    let batch = &place.columns("out")[0];
    let column = |name: &str| batch.column_by_name(name).unwrap().clone();
    assert_eq!(column("truncated").as_boolean().iter().collect::<Vec<_>>(), [Some(false), Some(true), Some(false)]);
    assert_eq!(column("tokens").as_primitive::<Int32Type>().value(1), 64);
}

#[test]
fn another_model_option_or_input_is_refused_by_name() {
    let place = Place::new();
    let input = place.texts("texts.jsonl", 10);
    succeeds(place.corpus(&input, "out").args(["-q", "--plan"]));
    for (arguments, word) in [
        (["--max-length", "64"], "--max-length 4096, and this command has 64"),
        (["--dtype", "int8"], "--dtype \"f16\", and this command has \"int8\""),
        (["--dimensions", "100"], "--dimensions 256"),
        (["--truncation", "keep-eos"], "--truncation \"reference\""),
        (["--instruction", "Query: "], "--instruction \"\""),
        (["--text", "other"], "--text \"text\""),
        (["--on-error", "skip"], "--on-error"),
        (["--compression", "none"], "--compression"),
    ] {
        fails(place.corpus(&input, "out").args(arguments), 2, &[word, "embeddings would be mixed", "--start-over"]);
    }
    let mut other = nvembed();
    other.args(["corpus", "--shard-rows", "10", "-m"]).arg(mini("int8")).arg("--input").arg(&input);
    fails(other.arg("--out").arg(place.path("out")), 2, &["model", "nv-embed-mini"]);
    let more = place.texts("more.jsonl", 1);
    fails(place.corpus(&input, "out").arg("--input").arg(&more), 2, &["1 files, and this command 2"]);

    let text = std::fs::read_to_string(&input).unwrap();
    place.write("texts.jsonl", text.replace("text 3", "text 8"));
    fails(&mut place.corpus(&input, "out"), 2, &["texts.jsonl has sha256"]);
    place.write("texts.jsonl", format!("{text}\n"));
    fails(&mut place.corpus(&input, "out"), 2, &["bytes, and it had"]);
    // The same texts at another time, or elsewhere, are the same.
    place.write("texts.jsonl", &text);
    succeeds(&mut place.corpus(&input, "out"));
    let moved = place.write("moved.jsonl", &text);
    succeeds(&mut place.corpus(&moved, "out"));
    place.write("texts.jsonl", "{\"text\": \"another\"}\n");
    succeeds(place.corpus(&input, "out").arg("--start-over"));
    assert_eq!(place.columns("out")[0].num_rows(), 1);
}

#[test]
fn a_damaged_part_is_found_and_made_again() {
    let place = Place::new();
    let input = place.texts("texts.jsonl", 30);
    succeeds(place.corpus(&input, "out").arg("-q"));
    let whole = place.parts("out");
    let names: Vec<_> = whole.keys().cloned().collect();
    let verify = || {
        let mut command = nvembed();
        command.args(["corpus", "verify"]).arg(place.path("out"));
        command
    };
    succeeds(&mut verify());
    // Truncated; another part under its name; nothing at all.
    for bad in [&whole[&names[1]][..2000], &whole[&names[0]][..], b""] {
        std::fs::write(place.path("out").join(&names[1]), bad).unwrap();
        fails(&mut verify(), 8, &["1 are damaged"]);
        succeeds(&mut place.corpus(&input, "out"));
        assert!(place.parts("out") == whole);
    }
    // Bits that only a reader of the content can notice.
    let mut flipped = whole[&names[2]].clone();
    flipped[1500] ^= 1;
    std::fs::write(place.path("out").join(&names[2]), flipped).unwrap();
    fails(&mut verify(), 8, &["1 are damaged"]);
    // Parts without the manifest that says what they are.
    std::fs::remove_file(place.path("out").join("manifest.json")).unwrap();
    fails(&mut place.corpus(&input, "out"), 8, &["no manifest.json", "--start-over"]);
}

#[test]
fn a_bad_record_ends_the_job_or_is_listed() {
    let place = Place::new();
    let long = json!({"text": "many words ".repeat(60), "id": "long"});
    let lines = [
        r#"{"text": "fine", "id": "a"}"#.to_owned(),
        r#"{"text": null, "id": "null"}"#.to_owned(),
        r#"{"text": "no identifier, secret"}"#.to_owned(),
        r#"{"text": "half"#.to_owned(),
        long.to_string(),
        r#"{"text": "fine too", "id": "a"}"#.to_owned(),
    ];
    let input = place.write("bad.jsonl", [lines.join("\n").as_bytes(), b"\n\xff\n"].concat());
    let corpus = |out: &str| {
        let mut command = place.corpus(&input, out);
        command.args(["--truncation", "error", "--max-length", "32"]);
        command
    };
    fails(&mut corpus("stop"), 3, &["bad.jsonl, record 2 (id \"null\")", "the text is null"]);
    assert!(place.parts("stop").is_empty());
    succeeds(corpus("skip").args(["-q", "--on-error", "skip"]));
    let batch = &place.columns("skip")[0];
    let embedding = batch.column_by_name("embedding").unwrap();
    assert_eq!(
        (0..7).map(|row| embedding.is_valid(row)).collect::<Vec<_>>(),
        [true, false, false, false, false, true, false]
    );
    let output = succeeds(nvembed().args(["corpus", "errors"]).arg(place.path("skip")));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("secret"));
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found: Vec<_> = rows.iter().map(|row| (row["row"].as_u64().unwrap(), row["kind"].as_str().unwrap())).collect();
    assert_eq!(found, [(1, "input"), (2, "input"), (3, "input"), (4, "too_long"), (6, "input")]);
    assert_eq!((&rows[0]["id"], &rows[1]["id"], &rows[3]["id"]), (&json!("null"), &Value::Null, &json!("long")));
    // The same identifier twice is the user's business: rows go by their place.
    assert_eq!(ids(&place.columns("skip"))[5].as_deref(), Some("a"));
}

#[test]
fn parquet_is_read_by_its_columns_from_any_row_on() {
    let place = Place::new();
    let texts: Vec<_> = (0..33).map(|index| Some(format!("body {index}")).filter(|_| index != 12)).collect();
    let columns = |texts: &[Option<String>]| -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int32Array::from_iter_values((0..texts.len() as i32).map(|row| 100 + row)));
        let bodies: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        RecordBatch::try_from_iter_with_nullable([
            ("unused", bodies.clone(), true),
            ("body", bodies, true),
            ("key", numbers, false),
        ])
        .unwrap()
    };
    for (name, group) in [("small.parquet", 7), ("large.parquet", 100)] {
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
        let file = File::create(place.path(name)).unwrap();
        let batch = columns(&texts);
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let arguments = ["-q", "--text", "body", "--id", "key", "--on-error", "skip"];
        succeeds(place.corpus(&place.path(name), name.trim_end_matches(".parquet")).args(arguments));
    }
    let batches = place.columns("small");
    assert_eq!(elements(&batches), elements(&place.columns("large")), "row groups change nothing");
    let keys = batches.iter().flat_map(|batch| batch["id"].as_primitive::<Int64Type>().values().to_vec());
    assert!(keys.eq(100..133));
    let lines = texts.iter().map(|text| json!({"text": text}).to_string() + "\n").collect::<String>();
    let input = place.write("same.jsonl", lines);
    succeeds(place.corpus(&input, "same").args(["-q", "--on-error", "skip"]));
    assert_eq!(elements(&batches), elements(&place.columns("same")));
    let parquet = place.path("small.parquet");
    fails(&mut place.corpus(&parquet, "x"), 3, &["no column \"text\" (--text)", "unused, body, key"]);
    fails(place.corpus(&parquet, "x").args(["--text", "key"]), 3, &["is Int32, not a string"]);
    fails(place.corpus(&parquet, "x").args(["--text", "body", "--id", "no"]), 3, &["no column \"no\" (--id)"]);
}

#[test]
fn inputs_and_folders_that_cannot_be_used_are_named_before_the_first_run() {
    let place = Place::new();
    let good = place.texts("good.jsonl", 3);
    let packed = place.write("texts.jsonl.gz", b"\x1f\x8b");
    let broken = place.write("broken.parquet", b"PAR1 and nothing else");
    for (input, words) in [
        (Path::new("/no/such.jsonl"), ["/no/such.jsonl", "No such file"]),
        (Path::new("/"), ["/", "not a regular file"]),
        (Path::new("-"), ["standard input", "write it to a file"]),
        (&packed, ["texts.jsonl.gz", "unpack it"]),
        (&broken, ["broken.parquet", "cannot be read as Parquet"]),
    ] {
        fails(place.corpus(&good, "out").arg("--input").arg(input), 3, &words);
        assert!(place.parts("out").is_empty());
    }
    place.write("file", "");
    fails(&mut place.corpus(&good, "file"), 7, &["file cannot be written"]);
    fails(place.corpus(&good, "out").args(["--id", "no"]), 3, &["no field \"no\" (--id)"]);
    let mut none = nvembed();
    none.args(["corpus", "--shard-rows", "0", "-m"]).arg(mini("fp32")).arg("--input").arg(&good).arg("--out");
    fails(none.arg(place.path("out")), 2, &["--shard-rows must be 1 to"]);
    fails(nvembed().args(["corpus", "status"]).arg(place.0.path()), 8, &["holds no corpus"]);

    let empty = place.write("empty.txt", "");
    succeeds(place.corpus(&empty, "empty").arg("-q"));
    let parts = place.parts("empty");
    assert_eq!(parts.keys().collect::<Vec<_>>(), ["part-00000-of-00001.parquet"], "readers find the columns");
}
