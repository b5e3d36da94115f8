//! The golden file of a model folder: texts, and the embeddings a float64 reference computed for them from the checkpoint.

use std::path::Path;

use serde::Deserialize;

use super::manifest::Manifest;
use crate::error::{Error, ErrorKind, Result};
use crate::prompt::Prompt;

/// The form of golden.json that this version reads.
const SCHEMA_VERSION: u64 = 1;

/// Prompts with their token ids and float64 embeddings, to check a runtime with.
#[derive(Debug, Clone)]
pub struct Golden {
    rows: Vec<GoldenRow>,
}

/// A prompt with its expected token ids and embedding.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct GoldenRow {
    /// The instruction in front of the text; "" for none.
    pub instruction: String,
    /// The text.
    pub text: String,
    /// The token ids, `<s>` first.
    pub input_ids: Vec<u32>,
    /// The number of leading ids that are not pooled.
    pub instruction_tokens: usize,
    /// The embedding, D numbers, computed in float64 and rounded to 32 bits.
    pub embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct GoldenFile {
    schema_version: u64,
    rows: Vec<GoldenRow>,
}

impl Golden {
    /// Reads the golden file of a model folder; `None` when the model was exported without one.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] when the file is missing, damaged, of another schema version, or has no rows.
    pub fn open(manifest: &Manifest) -> Result<Option<Self>> {
        let Some(path) = manifest.golden_path() else { return Ok(None) };
        read(&path, manifest.dim()).map(Some)
    }

    /// The rows; at least one.
    pub fn rows(&self) -> &[GoldenRow] {
        &self.rows
    }
}

impl GoldenRow {
    /// The prompt.
    pub fn prompt(&self) -> Prompt<'_> {
        Prompt::with_instruction(&*self.instruction, &*self.text)
    }
}

fn read(path: &Path, dim: usize) -> Result<Golden> {
    let invalid =
        |reason: &str| Error::new(ErrorKind::Model, format!("{} is not a valid golden file{reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| invalid("").because(error))?;
    let file: GoldenFile = serde_json::from_str(&text).map_err(|error| invalid("").because(error))?;
    if file.schema_version != SCHEMA_VERSION {
        let found = file.schema_version;
        return Err(invalid(&format!(": schema_version is {found}, this nvembed reads {SCHEMA_VERSION}")));
    }
    if file.rows.is_empty() {
        return Err(invalid(": it has no rows"));
    }
    if let Some(row) = file.rows.iter().find(|row| row.embedding.len() != dim) {
        let found = row.embedding.len();
        return Err(invalid(&format!(": an embedding has {found} numbers, the model's dimension is {dim}")));
    }
    Ok(Golden { rows: file.rows })
}
