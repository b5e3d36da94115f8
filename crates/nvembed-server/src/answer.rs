//! Embeddings as bytes of an answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nvembed::Embeddings;
use serde_json::{Value, json};

/// How a row is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Encoding {
    /// A list of numbers.
    #[default]
    Numbers,
    /// The bytes of the numbers, little-endian, in base64.
    Base64,
}

/// OpenAI's list of embeddings. `tokens` and `truncated` are ours.
pub(crate) fn openai(embeddings: &Embeddings, model: &str, encoding: Encoding) -> Vec<u8> {
    let rows = embeddings.to_f32();
    let each = match encoding {
        Encoding::Numbers => 12 * rows.ncols(),
        Encoding::Base64 => 16 * rows.ncols() / 3 + 4,
    };
    let mut body = Vec::with_capacity(rows.nrows() * (each + 96) + 256);
    body.extend_from_slice(br#"{"object":"list","model":"#);
    push(&mut body, &model.into());
    body.extend_from_slice(br#","data":["#);
    for (index, row) in rows.rows().into_iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(format!(r#"{{"object":"embedding","index":{index},"embedding":"#).as_bytes());
        match (encoding, row.as_slice()) {
            (Encoding::Base64, _) => {
                let bytes: Vec<u8> = row.iter().flat_map(|number| number.to_le_bytes()).collect();
                body.push(b'"');
                body.extend_from_slice(STANDARD.encode(bytes).as_bytes());
                body.push(b'"');
            }
            (Encoding::Numbers, Some(row)) => numbers(&mut body, row),
            (Encoding::Numbers, None) => numbers(&mut body, &row.to_vec()),
        }
        let (tokens, truncated) = (embeddings.token_counts()[index], embeddings.truncated()[index]);
        body.extend_from_slice(format!(r#","tokens":{tokens},"truncated":{truncated}}}"#).as_bytes());
    }
    let tokens: usize = embeddings.token_counts().iter().sum();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    body.extend_from_slice(br#"],"usage":"#);
    push(&mut body, &usage);
    body.push(b'}');
    body
}

/// A list of lists of numbers.
pub(crate) fn tei(embeddings: &Embeddings) -> Vec<u8> {
    let rows = embeddings.to_f32();
    let mut body = Vec::with_capacity(rows.len() * 12 + 16);
    body.push(b'[');
    for (index, row) in rows.rows().into_iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        numbers(&mut body, &row.to_vec());
    }
    body.push(b']');
    body
}

/// Writes numbers so that they read back as the same 32-bit floats.
pub(crate) fn numbers(body: &mut Vec<u8>, numbers: &[f32]) {
    // Writing into memory does not fail, and embeddings are finite.
    let _ = serde_json::to_writer(body, numbers);
}

fn push(body: &mut Vec<u8>, value: &Value) {
    let _ = serde_json::to_writer(body, value);
}
