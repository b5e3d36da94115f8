//! Measures against those of trec_eval, which trec.py asked pytrec_eval for. Not a digit may differ.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

use std::collections::HashMap;
use std::path::Path;

use nvembed_eval::measure;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    qrels: HashMap<String, i64>,
    run: Vec<(String, f32)>,
    measures: [String; 5],
}

#[test]
fn measures_are_those_of_trec_eval_to_the_last_digit() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trec.json");
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(cases.len() >= 100);
    for (index, mut case) in cases.into_iter().enumerate() {
        case.run.sort_by(|one, other| other.1.total_cmp(&one.1).then_with(|| other.0.cmp(&one.0)));
        let found = measure(case.run.iter().map(|(id, _)| id.as_str()), &case.qrels);
        assert_eq!(
            found.values().map(f64::to_bits),
            case.measures.map(|text| text.parse::<f64>().unwrap().to_bits()),
            "case {index}: {found:?}"
        );
    }
}
