//! `nvembed eval`: the table against the run files beside it, and what it refuses.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{mini, root};
use crate::nvembed;

/// The committed set of word definitions, cut to `count` queries, in BEIR's files.
fn beir(folder: &tempfile::TempDir, count: usize) -> [PathBuf; 3] {
    let text = std::fs::read_to_string(root().join("tests/eval/wordnet.jsonl")).unwrap();
    let rows: Vec<Value> = text.lines().take(count).map(|line| serde_json::from_str(line).unwrap()).collect();
    let write = |name: &str, lines: Vec<String>| {
        let path = folder.path().join(name);
        std::fs::write(&path, lines.join("\n")).unwrap();
        path
    };
    let lines = |id: &str, field: &str| {
        let line =
            |(index, row): (usize, &Value)| json!({"_id": format!("{id}{index}"), "text": row[field]}).to_string();
        rows.iter().enumerate().map(line).collect::<Vec<_>>()
    };
    let judgements = (0..count).map(|index| format!("q{index}\tp{index}\t1"));
    [
        write("queries.jsonl", lines("q", "query")),
        write("corpus.jsonl", lines("p", "passage")),
        write("qrels.tsv", std::iter::once("query-id\tcorpus-id\tscore".to_owned()).chain(judgements).collect()),
    ]
}

fn eval([queries, corpus, qrels]: &[PathBuf; 3]) -> Command {
    let mut command = nvembed();
    command.args(["eval", "-q", "-m"]).arg(mini("fp32")).arg("--queries").arg(queries);
    command.arg("--corpus").arg(corpus).arg("--qrels").arg(qrels);
    command
}

#[test]
fn the_table_has_the_figures_of_its_run_files() {
    let folder = tempfile::tempdir().unwrap();
    let files = beir(&folder, 60);
    let runs = folder.path().join("runs");
    let mut command = eval(&files);
    command.args(["--json", "--dimensions", "256,64", "--rescore", "20", "--runs"]).arg(&runs);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&table["queries"], &table["passages"]), (&60.into(), &60.into()));
    let lines = table["lines"].as_array().unwrap();
    let names: Vec<_> = lines.iter().map(|line| line["embeddings"].as_str().unwrap()).collect();
    assert_eq!(names[..4], ["f32-256", "f32-64", "f16-256", "f16-64"]);
    assert_eq!(names[8..], ["binary-256-top20-f32", "binary-64-top20-f32"]);
    for line in lines {
        let run = std::fs::read_to_string(runs.join(format!("{}.trec", line["embeddings"].as_str().unwrap()))).unwrap();
        let mut ranks = HashMap::new();
        for row in run.lines() {
            let words: Vec<_> = row.split(' ').collect();
            assert_eq!((words.len(), words[1]), (6, "Q0"));
            if words[0][1..] == words[2][1..] {
                ranks.insert(words[0].to_owned(), words[3].parse::<f64>().unwrap());
            }
        }
        let gain =
            ranks.values().filter(|rank| **rank <= 10.0).map(|rank| 1.0 / (rank + 1.0).log2()).sum::<f64>() / 60.0;
        let found = line["ndcg@10"]["value"].as_f64().unwrap();
        assert!((found - gain).abs() < 1e-12 && found > 0.2, "{line}");
        assert!(line["ndcg@10"]["low"].as_f64().unwrap() < found && found < line["ndcg@10"]["high"].as_f64().unwrap());
    }
    let ratio = |index: usize| lines[index]["ndcg@10_ratio"]["value"].as_f64().unwrap();
    assert_eq!(ratio(0), 1.0);
    assert!(ratio(6) < ratio(8), "ranking again by floats makes up for bits");
}

#[test]
fn data_that_does_not_go_together_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let files = beir(&folder, 3);
    let [queries, corpus, qrels] = &files;
    let other = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let more = other("more.tsv", "q0\tp0\t1\nq9\tp1\t1\n");
    let twice = other("twice.jsonl", "{\"_id\": \"p0\", \"text\": \"a\"}\n{\"_id\": \"p0\", \"text\": \"b\"}\n");
    let same = other("same.jsonl", "{\"_id\": \"q0\", \"text\": \"a\"}\n{\"_id\": \"q0\", \"text\": \"b\"}\n");
    for (files, wanted) in [
        ([queries.clone(), corpus.clone(), more], "1 queries that the judgements name are missing"),
        ([queries.clone(), twice, qrels.clone()], "identifier is there twice"),
        ([same, corpus.clone(), qrels.clone()], "same.jsonl: an identifier is there twice"),
        ([queries.clone(), corpus.clone(), "no/such.tsv".into()], "no/such.tsv: cannot be opened"),
    ] {
        let output = eval(&files).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(3) && said.contains(wanted), "{said}");
    }
    for (arguments, wanted) in [
        (["--dimensions", "257"], "--dimensions must be 1 to 256, got 257"),
        (["--rescore", "0"], "--rescore must be 1 or more"),
        (["--depth", "0"], "--depth must be 1 or more"),
    ] {
        let output = eval(&files).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(wanted), "{said}");
    }
}
