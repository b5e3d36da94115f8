//! Embeddings as bytes of an answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nvembed::{Dtype, Embeddings, Row};
use serde::Serialize;
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

/// What the numbers of a row are, in the words of NIM, Cohere and sentence-transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Type {
    #[default]
    Float,
    /// -127 to 127; the row's `scale` makes them the embedding's numbers.
    Int8,
    /// The same, plus 128.
    Uint8,
    /// A bit per number, eight in a byte, less 128.
    Binary,
    /// A bit per number, eight in a byte.
    Ubinary,
}

impl Type {
    pub(crate) const NAMES: [(&str, Self); 5] = [
        ("float", Self::Float),
        ("int8", Self::Int8),
        ("uint8", Self::Uint8),
        ("binary", Self::Binary),
        ("ubinary", Self::Ubinary),
    ];

    /// What the library has to return for it.
    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Self::Float => Dtype::F32,
            Self::Int8 | Self::Uint8 => Dtype::Int8,
            Self::Binary | Self::Ubinary => Dtype::Binary,
        }
    }

    /// The numbers of a row of the library's, which has the type's [`Type::dtype`].
    pub(crate) fn cells(self, row: Row) -> Cells {
        match (self, row) {
            (Self::Uint8, Row::Int8 { values, .. }) => {
                Cells::Unsigned(values.into_iter().map(|value| (value as u8) ^ 0x80).collect())
            }
            (_, Row::Int8 { values, .. }) => Cells::Signed(values),
            (Self::Binary, Row::Binary { bytes, .. }) => {
                Cells::Signed(bytes.into_iter().map(|byte| (byte ^ 0x80) as i8).collect())
            }
            (_, Row::Binary { bytes, .. }) => Cells::Unsigned(bytes),
            (_, row) => Cells::Floats(row.to_f32()),
        }
    }
}

/// The numbers of one row.
#[derive(Debug, PartialEq)]
pub(crate) enum Cells {
    Floats(Vec<f32>),
    Signed(Vec<i8>),
    Unsigned(Vec<u8>),
}

impl Cells {
    /// Writes them so that floats read back as the same 32-bit floats.
    pub(crate) fn write(&self, body: &mut Vec<u8>, encoding: Encoding) {
        match (encoding, self) {
            (Encoding::Numbers, Self::Floats(values)) => push(body, values),
            (Encoding::Numbers, Self::Signed(values)) => push(body, values),
            (Encoding::Numbers, Self::Unsigned(values)) => push(body, values),
            (Encoding::Base64, cells) => {
                body.push(b'"');
                body.extend_from_slice(STANDARD.encode(cells.bytes()).as_bytes());
                body.push(b'"');
            }
        }
    }

    /// Their bytes, little-endian.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Floats(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Signed(values) => values.iter().map(|value| *value as u8).collect(),
            Self::Unsigned(values) => values.clone(),
        }
    }
}

/// OpenAI's list of embeddings. `tokens`, `truncated` and, for integers, `scale` are ours.
pub(crate) fn openai(embeddings: &Embeddings, model: &str, kind: Type, encoding: Encoding) -> Vec<u8> {
    let each = match encoding {
        Encoding::Numbers => 12 * embeddings.dim(),
        Encoding::Base64 => 16 * embeddings.dim() / 3 + 4,
    };
    let mut body = Vec::with_capacity(embeddings.len() * (each + 96) + 256);
    body.extend_from_slice(br#"{"object":"list","model":"#);
    push(&mut body, model);
    body.extend_from_slice(br#","data":["#);
    for index in 0..embeddings.len() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(format!(r#"{{"object":"embedding","index":{index},"embedding":"#).as_bytes());
        let row = embeddings.rows().row(index);
        let scale = scale_of(&row);
        kind.cells(row).write(&mut body, encoding);
        if let Some(scale) = scale {
            body.extend_from_slice(br#","scale":"#);
            push(&mut body, &scale);
        }
        let (tokens, truncated) = (embeddings.token_counts()[index], embeddings.truncated()[index]);
        body.extend_from_slice(format!(r#","tokens":{tokens},"truncated":{truncated}}}"#).as_bytes());
    }
    let tokens: usize = embeddings.token_counts().iter().sum();
    body.extend_from_slice(br#"],"usage":"#);
    push(&mut body, &json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    body.push(b'}');
    body
}

/// What integers have to be multiplied by.
pub(crate) fn scale_of(row: &Row) -> Option<f32> {
    match row {
        Row::Int8 { scale, .. } => Some(*scale),
        _ => None,
    }
}

/// A list of lists of numbers.
pub(crate) fn lists(rows: impl Iterator<Item = Cells>, encoding: Encoding) -> Vec<u8> {
    let mut body = vec![b'['];
    for (index, cells) in rows.enumerate() {
        if index > 0 {
            body.push(b',');
        }
        cells.write(&mut body, encoding);
    }
    body.push(b']');
    body
}

/// The rows of text-embeddings-inference.
pub(crate) fn tei(embeddings: &Embeddings) -> Vec<u8> {
    let rows = (0..embeddings.len()).map(|index| Type::Float.cells(embeddings.rows().row(index)));
    lists(rows, Encoding::Numbers)
}

/// Cohere's embeddings by type: name, and a list of rows each.
pub(crate) fn cohere(types: &[(String, Vec<u8>)], id: &str, tokens: usize) -> Vec<u8> {
    let mut body = br#"{"id":"#.to_vec();
    push(&mut body, id);
    body.extend_from_slice(br#","response_type":"embeddings_by_type","embeddings":{"#);
    for (index, (name, rows)) in types.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        push(&mut body, name);
        body.push(b':');
        body.extend_from_slice(rows);
    }
    body.extend_from_slice(br#"},"meta":"#);
    let meta: Value = json!({"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens}});
    push(&mut body, &meta);
    body.push(b'}');
    body
}

/// Writing into memory does not fail, and embeddings are finite.
pub(crate) fn push<T: Serialize + ?Sized>(body: &mut Vec<u8>, value: &T) {
    let _ = serde_json::to_writer(body, value);
}
