//! The manifest of a corpus, `manifest.json`: written before the first part, and never again.

use std::path::Path;

use nvembed::{Dtype, model};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::files::{read_json, write_new};
use crate::hash::{sha256, sha256_of_file};
use crate::input::Fields;
use crate::options::{CorpusOptions, OnError};
use crate::plan::{Input, Plan, Start, State};

/// The schema that this version writes and reads.
const SCHEMA_VERSION: u64 = 1;
/// The name of the manifest in the folder of a corpus.
pub(crate) const FILE_NAME: &str = "manifest.json";

/// What a corpus is made of, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    schema_version: u64,
    /// The version of this crate that planned the corpus.
    software: String,
    pub(crate) model: Model,
    pub(crate) options: Settings,
    pub(crate) fields: Fields,
    pub(crate) inputs: Vec<Input>,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) parts: Vec<Start>,
}

/// The model, and what runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) digest: String,
    pub(crate) precision: String,
    pub(crate) provider: String,
}

/// The options that the embeddings or the parts depend on, named as in [`CorpusOptions`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) format: String,
    pub(crate) text: String,
    pub(crate) id: Option<String>,
    pub(crate) instruction_field: Option<String>,
    pub(crate) instruction: String,
    pub(crate) max_length: usize,
    pub(crate) truncation: String,
    pub(crate) special_tokens: String,
    pub(crate) window: usize,
    pub(crate) dtype: String,
    pub(crate) dimensions: usize,
    pub(crate) shard_rows: u64,
    pub(crate) compression: String,
    pub(crate) on_error: String,
    pub(crate) text_hash: bool,
    pub(crate) dedupe: bool,
}

impl Model {
    pub(crate) fn of(manifest: &model::Manifest, provider: &str) -> Self {
        Self {
            name: manifest.name().to_owned(),
            digest: manifest.digest().to_owned(),
            precision: manifest.precision().to_string(),
            provider: provider.to_owned(),
        }
    }
}

impl Settings {
    pub(crate) fn of(options: &CorpusOptions, model: &model::Manifest) -> Self {
        let embed = &options.embed;
        Self {
            format: options.format.to_string(),
            text: options.text.clone(),
            id: options.id.clone(),
            instruction_field: options.instruction_field.clone(),
            instruction: options.instruction.clone(),
            max_length: embed.max_length.unwrap_or(model.max_length()),
            truncation: embed.truncation.to_string(),
            special_tokens: embed.special_tokens.to_string(),
            window: embed.window,
            dtype: embed.dtype.to_string(),
            dimensions: embed.dimensions.unwrap_or(model.dim()),
            shard_rows: options.shard_rows,
            compression: options.compression.to_string(),
            on_error: options.on_error.to_string(),
            text_hash: options.text_hash,
            dedupe: options.dedupe,
        }
    }

    pub(crate) fn skips_errors(&self) -> bool {
        self.on_error == OnError::Skip.name()
    }
}

impl Manifest {
    pub(crate) fn new(model: Model, options: Settings, plan: Plan) -> Self {
        let Plan { inputs, fields, rows, bytes, parts } = plan;
        let software = format!("nvembed {}", env!("CARGO_PKG_VERSION"));
        Self { schema_version: SCHEMA_VERSION, software, model, options, fields, inputs, rows, bytes, parts }
    }

    /// Reads the manifest in the folder of a corpus; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Incomplete`] when it is damaged or of another version.
    pub fn find(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE_NAME);
        let Some(value) = read_json(&path)? else { return Ok(None) };
        let version = value.get("schema_version").and_then(Value::as_u64);
        if version != Some(SCHEMA_VERSION) {
            let found = version.map_or("none".to_owned(), |version| version.to_string());
            return Err(Error::Incomplete(format!(
                "{}: schema version {found}, this version reads {SCHEMA_VERSION}",
                path.display()
            )));
        }
        let manifest: Self = serde_json::from_value(value)
            .map_err(|error| Error::Incomplete(format!("{}: not a manifest of a corpus: {error}", path.display())))?;
        Ok(Some(manifest))
    }

    /// Writes it, unless another process was faster.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE_NAME);
        let text = serde_json::to_vec_pretty(self).map_err(|error| Error::output(&path, error.into()))?;
        write_new(&path, &text)
    }

    /// What stands for the corpus in its parts: a hash of everything that they depend on.
    pub(crate) fn digest(&self) -> String {
        let inputs: Vec<_> = self.inputs.iter().map(|input| (input.kind, input.rows, &input.sha256)).collect();
        let Model { digest, provider, .. } = &self.model;
        let all = serde_json::json!([digest, provider, self.options, self.fields, inputs, self.parts]);
        sha256(all.to_string())
    }

    /// The number of parts.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The rows of a part; the last one may have fewer.
    pub fn shard_rows(&self) -> u64 {
        self.options.shard_rows
    }

    /// The number of rows of the input.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of the inputs.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of input files.
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// The field that identifiers come from; `None` where rows are numbered.
    pub fn id_field(&self) -> Option<&str> {
        self.fields.id.as_deref()
    }

    /// Bytes of a row's embedding, before compression.
    pub fn bytes_per_row(&self) -> u64 {
        let dtype = self.options.dtype.parse().unwrap_or(Dtype::F32);
        let (elements, scale) = (dtype.elements(self.options.dimensions) as u64, 4);
        match dtype {
            Dtype::F16 => 2 * elements,
            Dtype::Int8 => elements + scale,
            Dtype::Binary => elements,
            _ => 4 * elements,
        }
    }

    /// The first row of a part and the one behind its last.
    pub(crate) fn rows_of(&self, part: usize) -> std::ops::Range<u64> {
        let start = part as u64 * self.options.shard_rows;
        start..self.rows.min(start + self.options.shard_rows)
    }

    /// Bytes of input that a part is made of, as a measure of work.
    pub(crate) fn bytes_of(&self, part: usize) -> u64 {
        let end = self.parts.get(part + 1).map_or(self.bytes, |next| next.bytes_before);
        end.saturating_sub(self.parts[part].bytes_before)
    }

    /// The file of a part.
    pub(crate) fn name_of(&self, part: usize) -> String {
        format!("part-{part:05}-of-{:05}.parquet", self.parts.len())
    }

    /// The file and the number of the record there, from 1, of a row.
    pub(crate) fn place_of(&self, row: u64) -> String {
        let mut first = 0;
        for input in &self.inputs {
            if row < first + input.rows {
                return format!("{}, record {}", input.path, row - first + 1);
            }
            first += input.rows;
        }
        format!("row {row}")
    }

    /// # Errors
    /// [`Error::Option`] naming the first thing that differs between this corpus and a command.
    pub(crate) fn check_same(&self, folder: &Path, model: &Model, options: &Settings) -> Result<()> {
        let refuse = |what: &str, there: &str, here: &str| {
            Err(Error::Option(format!(
                "{} holds a corpus with {what} {there}, and this command has {here}: embeddings would be mixed. Repeat the \
                 command that began it, name another folder (`out`), or remove the corpus (`start_over`)",
                folder.display()
            )))
        };
        if self.model.digest != model.digest {
            let named = |model: &Model| format!("{:?} (manifest {:.12}…)", model.name, model.digest);
            return refuse("model", &named(&self.model), &named(model));
        }
        if self.model.provider != model.provider {
            return refuse("`provider`", &self.model.provider, &model.provider);
        }
        let fields = |settings: &Settings| match serde_json::to_value(settings) {
            Ok(Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let (there, here) = (fields(&self.options), fields(options));
        for (name, value) in &there {
            if here.get(name) != Some(value) {
                let here = here.get(name).unwrap_or(&Value::Null);
                return refuse(&format!("`{name}`"), &value.to_string(), &here.to_string());
            }
        }
        Ok(())
    }

    /// Checks that the inputs are the ones that the corpus was planned for, and returns their state. A file at another place,
    /// or that was touched, is read to see whether it is the same.
    ///
    /// # Errors
    /// [`Error::Option`] naming the first that differs, [`Error::Input`] when one cannot be read.
    pub(crate) fn check_inputs(&self, folder: &Path, options: &CorpusOptions) -> Result<Vec<State>> {
        let refuse = |what: String| {
            Err(Error::Option(format!(
                "{} holds a corpus of other input: {what}. Name another folder (`out`), or remove the corpus (`start_over`)",
                folder.display()
            )))
        };
        let (there, here) = (self.inputs.len(), options.inputs.len());
        if there != here {
            return refuse(format!("it has {there} files, and this command {here}"));
        }
        let mut states = Vec::with_capacity(here);
        for (input, path) in self.inputs.iter().zip(&options.inputs) {
            let state = State::of(path)?;
            let name = path.display().to_string();
            if state.bytes != input.bytes {
                return refuse(format!("{name} has {} bytes, and it had {}", state.bytes, input.bytes));
            }
            if state.modified != input.modified || name != input.path {
                let found =
                    sha256_of_file(path).map_err(|error| Error::input(path, format!("cannot be read: {error}")))?;
                if found != input.sha256 {
                    return refuse(format!("{name} has sha256 {found:.12}…, and it had {:.12}…", input.sha256));
                }
            }
            states.push(state);
        }
        Ok(states)
    }
}
