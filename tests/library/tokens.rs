//! Token ids and masks against those that transformers computes, as NVIDIA's code uses it.

use nvembed::Prompt;

use crate::common::{embed_options, open, root};

/// One padded batch, as `tests/reference/for_rust.py` writes it from the committed answers.
#[derive(serde::Deserialize)]
struct ReferenceBatch {
    max_length: usize,
    rows: Vec<(String, String)>,
    input_ids: Vec<Vec<u32>>,
    attention_mask: Vec<Vec<usize>>,
    pool_mask: Vec<Vec<usize>>,
}

#[test]
fn ids_and_masks_equal_those_of_transformers() {
    let path = root().join("build/reference/tokens.jsonl");
    let lines = std::fs::read_to_string(path).expect("build/reference is made by `make reference`");
    let embedder = open("fp32");
    let (mut rows, mut different) = (0, Vec::new());
    for line in lines.lines() {
        let reference: ReferenceBatch = serde_json::from_str(line).unwrap();
        let prompts: Vec<_> = reference
            .rows
            .iter()
            .map(|(instruction, text)| Prompt::with_instruction(&**instruction, &**text))
            .collect();
        let options = embed_options(|options| options.max_length = Some(reference.max_length));
        let tokens = embedder.tokenize(&prompts, &options).unwrap();
        for (index, (prompt, tokens)) in prompts.iter().zip(&tokens).enumerate() {
            // Padding is on the right, so a row's masks are these runs of zeros and ones.
            let (padded, real) = (reference.input_ids[index].len(), tokens.ids.len());
            let mask =
                |from: usize| -> Vec<_> { (0..padded).map(|at| usize::from((from..real).contains(&at))).collect() };
            let is_same = reference.input_ids[index].starts_with(&tokens.ids)
                && reference.attention_mask[index] == mask(0)
                && reference.pool_mask[index] == mask(tokens.instruction_tokens);
            if !is_same {
                different.push(format!("{:?} + {:.40?}", prompt.instruction(), prompt.text()));
            }
        }
        rows += prompts.len();
    }
    println!("{rows} rows compared with transformers, {} different", different.len());
    assert!(rows > 6000, "{rows} rows");
    assert!(
        different.is_empty(),
        "{} of {rows} rows differ: {:?}",
        different.len(),
        &different[..different.len().min(5)]
    );
}
