//! The manifest of a model folder, `nvembed.json`. Its fields are described in docs/guides/model-folder.md.

use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::layout::{Axis, Layout};
use super::precision::{Activations, Precision, Quantization, Target};
use crate::embeddings::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::{sha256, sha256_of_file};
use crate::prompt::Prompt;

/// The schema this version reads.
const SCHEMA_VERSION: u64 = 1;
/// The name of the manifest inside a model folder.
const FILE_NAME: &str = "nvembed.json";
/// The largest length, width or count accepted from a manifest.
const LARGEST: usize = 1 << 30;
/// The end-of-sequence token's text, which closes every prompt.
pub(crate) const SUFFIX: &str = "</s>";

/// The manifest of a model folder.
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    exporter_version: String,
    model: ModelName,
    architecture: Architecture,
    precision: Precision,
    #[serde(default)]
    quantization: Option<Quantization>,
    pooler: String,
    max_length: usize,
    graph: Graph,
    tokenizer: TokenizerFile,
    prompt: PromptFormat,
    golden: Option<HashedFile>,
    #[serde(skip)]
    folder: PathBuf,
    #[serde(skip)]
    digest: String,
}

#[derive(Debug, Clone, Deserialize)]
struct ModelName {
    name: String,
    source: String,
    license: String,
}

/// The dimensions of a model, named as in the checkpoint's configuration.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields carry the names of the checkpoint's config.json, which defines them")]
pub struct Architecture {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub intermediate_size: usize,
    pub vocab_size: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub num_latents_value: usize,
    pub num_cross_heads: usize,
    pub cross_dim_head: usize,
    pub output_normalize: bool,
}

impl Architecture {
    /// The weights of a layer's matrix products, each of which a token is multiplied with.
    pub(crate) fn layer_weights(&self) -> usize {
        let projections = 2 * (self.num_attention_heads + self.num_key_value_heads) * self.head_dim;
        self.hidden_size * (projections + 3 * self.intermediate_size)
    }

    /// The products of a token with another token's key and value, relative to those of a token with a layer's weights.
    pub(crate) fn attention_cost(&self) -> f64 {
        (2 * self.num_attention_heads * self.head_dim) as f64 / self.layer_weights().max(1) as f64
    }
}

#[derive(Debug, Clone, Deserialize)]
struct Graph {
    file: String,
    sha256: String,
    opset: u32,
    target: Target,
    data_file: String,
    data_sha256: String,
    data_bytes: u64,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

/// One input or output of the graph, as the manifest states it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct TensorSpec {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<Dim>,
}

/// A dimension: free and named, or fixed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Dim {
    Fixed(i64),
    Free(String),
}

#[derive(Debug, Clone, Deserialize)]
struct TokenizerFile {
    file: String,
    sha256: String,
    bos_token_id: u32,
    eos_token_id: u32,
    pad_token_id: u32,
}

#[derive(Debug, Clone, Deserialize)]
struct PromptFormat {
    query_template: String,
    suffix: String,
}

#[derive(Debug, Clone, Deserialize)]
struct HashedFile {
    file: String,
    sha256: String,
}

impl Manifest {
    /// Reads and checks the manifest of `folder`, and checks that the files it names exist with the right size.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] when the folder or a file is missing or unreadable, the schema version differs, or this version
    /// does not implement a value.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let path = folder.join(FILE_NAME);
        let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            IoErrorKind::NotFound => {
                let what = if folder.is_dir() { "is not a model folder: it has no" } else { "does not exist: no" };
                model_error(format!(
                    "{} {what} {FILE_NAME}; make a model folder with nvembed-export CHECKPOINT OUT",
                    folder.display()
                ))
            }
            _ => unreadable(&path, error),
        })?;
        let invalid = |error: serde_json::Error| {
            model_error(format!("{} is not a valid manifest", path.display())).because(error)
        };
        // The version first: a newer manifest may differ anywhere, and its version is then the thing to say.
        let value: serde_json::Value = serde_json::from_str(&text).map_err(invalid)?;
        match value.get("schema_version").and_then(serde_json::Value::as_u64) {
            Some(SCHEMA_VERSION) => {}
            found => {
                let found = found.map_or("missing".to_owned(), |version| version.to_string());
                return Err(model_error(format!(
                    "{}: schema_version is {found}, this nvembed reads {SCHEMA_VERSION}; export the model again with a \
                     matching nvembed-export",
                    path.display()
                )));
            }
        }
        let mut manifest: Self = serde_json::from_value(value).map_err(invalid)?;
        manifest.folder = folder.to_owned();
        manifest.digest = sha256(&text);
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<()> {
        let path = self.folder.join(FILE_NAME);
        let expect = |name: &str, found: &dyn std::fmt::Debug, wanted: &dyn std::fmt::Debug| {
            model_error(format!("{}: {name} must be {wanted:?}, got {found:?}", path.display()))
        };
        if self.prompt.query_template != Prompt::query_template() {
            return Err(expect("prompt.query_template", &self.prompt.query_template, &Prompt::query_template()));
        }
        if self.prompt.suffix != SUFFIX {
            return Err(expect("prompt.suffix", &self.prompt.suffix, &SUFFIX));
        }
        self.check_ranges(&path)?;
        let per_channel = self.quantization.is_some_and(|quantization| quantization.block_size.is_none());
        if self.precision.bits() != self.quantization.map(|quantization| quantization.bits)
            || per_channel != (self.precision == Precision::W8a8)
        {
            let found = self.quantization.map_or("null".to_owned(), |quantization| quantization.to_string());
            let precision = self.precision;
            let message = format!("{}: precision {precision} does not go with quantization {found}", path.display());
            return Err(model_error(message));
        }
        let (inputs, outputs) = self.contract();
        if self.graph.inputs != inputs {
            return Err(expect("graph.inputs", &self.graph.inputs, &inputs));
        }
        if self.graph.outputs != outputs {
            return Err(expect("graph.outputs", &self.graph.outputs, &outputs));
        }
        for name in self.files() {
            // A manifest may come from a stranger: it must not reach outside its folder.
            if Path::new(name).components().count() != 1 || name.starts_with("..") {
                return Err(model_error(format!("{}: {name:?} is not a plain file name", path.display())));
            }
            let file = self.folder.join(name);
            if !file.is_file() {
                return Err(model_error(format!("{} is missing from the model folder", file.display())));
            }
        }
        let data = self.folder.join(&self.graph.data_file);
        let found = data.metadata().map_or(0, |metadata| metadata.len());
        if found != self.graph.data_bytes {
            let wanted = self.graph.data_bytes;
            return Err(model_error(format!(
                "{} has {found} bytes, the manifest says {wanted}; copy or export the model again",
                data.display()
            )));
        }
        Ok(())
    }

    /// Checks the numbers that later code calculates with.
    fn check_ranges(&self, path: &Path) -> Result<()> {
        let shape = &self.architecture;
        let vocabulary_end = shape.vocab_size.saturating_sub(1);
        let table = [
            ("max_length", self.max_length, 1, LARGEST),
            ("architecture.hidden_size", shape.hidden_size, 1, LARGEST),
            ("architecture.num_attention_heads", shape.num_attention_heads, 1, LARGEST),
            ("architecture.vocab_size", shape.vocab_size, 1, LARGEST),
            ("tokenizer.bos_token_id", self.tokenizer.bos_token_id as usize, 0, vocabulary_end),
            ("tokenizer.eos_token_id", self.tokenizer.eos_token_id as usize, 0, vocabulary_end),
            ("tokenizer.pad_token_id", self.tokenizer.pad_token_id as usize, 0, vocabulary_end),
        ];
        for (name, value, low, high) in table {
            if !(low..=high).contains(&value) {
                return Err(model_error(format!("{}: {name} must be {low} to {high}, got {value}", path.display())));
            }
        }
        Ok(())
    }

    /// The inputs and outputs that a graph must have for this runtime to run it.
    pub(crate) fn contract(&self) -> (Vec<TensorSpec>, Vec<TensorSpec>) {
        let free = |axis: &Axis| Dim::Free(axis.name().to_owned());
        let spec =
            |name: &str, dtype: &str, shape| TensorSpec { name: name.to_owned(), dtype: dtype.to_owned(), shape };
        let inputs = self.layout().inputs().iter();
        let inputs = inputs.map(|input| spec(input.name, "int64", input.axes.iter().map(free).collect())).collect();
        let dim = Dim::Fixed(i64::try_from(self.dim()).unwrap_or(i64::MAX));
        let dtype = match self.output_dtype() {
            Dtype::F16 => "float16",
            _ => "float32",
        };
        (inputs, vec![spec("embeddings", dtype, vec![free(&Axis::Batch), dim])])
    }

    /// How the graph takes its tokens.
    pub(crate) fn layout(&self) -> Layout {
        match self.graph.target {
            Target::Cuda => Layout::Packed,
            Target::Any | Target::Cpu | Target::OpenVino | Target::TensorRt => Layout::Padded,
        }
    }

    /// The dtype of the graph's output: [`Dtype::F32`] or [`Dtype::F16`].
    pub fn output_dtype(&self) -> Dtype {
        match (self.precision, self.quantization.map(|quantization| quantization.activations)) {
            (Precision::Fp16, _) | (_, Some(Activations::Float16)) => Dtype::F16,
            _ => Dtype::F32,
        }
    }

    fn files(&self) -> impl Iterator<Item = &str> {
        let golden = self.golden.as_ref().map(|golden| golden.file.as_str());
        [self.graph.file.as_str(), &self.graph.data_file, &self.tokenizer.file].into_iter().chain(golden)
    }

    /// The paths of all files of the folder.
    pub(crate) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.files().map(|file| self.folder.join(file))
    }

    /// Compares the SHA-256 of every file in the folder with the manifest. Reads the whole model.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] naming the first file that differs, with both hashes.
    pub fn verify_hashes(&self) -> Result<()> {
        let mut files = vec![
            (&self.graph.file, &self.graph.sha256),
            (&self.tokenizer.file, &self.tokenizer.sha256),
            (&self.graph.data_file, &self.graph.data_sha256),
        ];
        files.extend(self.golden.as_ref().map(|golden| (&golden.file, &golden.sha256)));
        for (name, wanted) in files {
            let path = self.folder.join(name);
            let found = sha256_of_file(&path).map_err(|error| unreadable(&path, error))?;
            if found != *wanted {
                return Err(model_error(format!(
                    "{} has sha256 {found}, the manifest says {wanted}; the file was changed or damaged: copy or export \
                     the model again",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    /// The folder this manifest was read from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The model's name, for example `NV-Embed-v1`.
    pub fn name(&self) -> &str {
        &self.model.name
    }

    /// Where the checkpoint says it comes from, for example `nvidia/NV-Embed-v1`.
    pub fn source(&self) -> &str {
        &self.model.source
    }

    /// The licence of the weights, as a lower-case SPDX identifier. NV-Embed's is `cc-by-nc-4.0`: no commercial use.
    pub fn license(&self) -> &str {
        &self.model.license
    }

    /// The version of the exporter that made the folder.
    pub fn exporter_version(&self) -> &str {
        &self.exporter_version
    }

    /// The dimensions of the model.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The arithmetic of the graph.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Which execution providers the graph is for.
    pub fn target(&self) -> Target {
        self.graph.target
    }

    /// How the weights are quantized; `None` for the floating-point precisions.
    pub fn quantization(&self) -> Option<Quantization> {
        self.quantization
    }

    /// The form of the pooler: `fused` (constants folded at export) or `direct` (the formulas as published).
    pub fn pooler(&self) -> &str {
        &self.pooler
    }

    pub(crate) fn has_direct_pooler(&self) -> bool {
        self.pooler == "direct"
    }

    /// The embedding dimension D.
    pub fn dim(&self) -> usize {
        self.architecture.hidden_size
    }

    /// The longest row in token ids that the graph accepts.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The ONNX opset of the graph.
    pub fn opset(&self) -> u32 {
        self.graph.opset
    }

    /// The size of the weights file in bytes.
    pub fn data_bytes(&self) -> u64 {
        self.graph.data_bytes
    }

    /// The golden file ([`super::Golden`]), if the export made one.
    pub fn golden_path(&self) -> Option<PathBuf> {
        self.golden.as_ref().map(|golden| self.folder.join(&golden.file))
    }

    /// The SHA-256 of the manifest, in hex. As the manifest holds the hashes of all files, it stands for the model.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub(crate) fn graph_path(&self) -> PathBuf {
        self.folder.join(&self.graph.file)
    }

    pub(crate) fn tokenizer_path(&self) -> PathBuf {
        self.folder.join(&self.tokenizer.file)
    }

    pub(crate) fn bos_token_id(&self) -> u32 {
        self.tokenizer.bos_token_id
    }

    pub(crate) fn eos_token_id(&self) -> u32 {
        self.tokenizer.eos_token_id
    }

    pub(crate) fn pad_token_id(&self) -> u32 {
        self.tokenizer.pad_token_id
    }
}

fn model_error(message: String) -> Error {
    Error::new(ErrorKind::Model, message)
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    model_error(format!("{} cannot be read", path.display())).because(error)
}
