//! The graph: opened, checked against the manifest, and run.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use half::f16;
use ndarray::{Array2, Ix2};
use ort::ep::ExecutionProviderDispatch;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{RunOptions, Session as OrtSession};
use ort::value::{Outlet, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType};

use crate::batch::Batch;
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};
use crate::library::Library;
use crate::manifest::{Architecture, Dim, Manifest, TensorSpec};
use crate::options::{LoadOptions, in_range};
use crate::precision::Target;
use crate::provider::{Placement, Provider, explain};

/// What a run returns: one row an input row, `[B, D]`.
pub(crate) enum RawOutput {
    F32(Array2<f32>),
    F16(Array2<f16>),
}

/// Which file of a model's graph is opened.
pub(crate) enum Source {
    /// The model folder's. It is optimised while it opens.
    Model,
    /// The model folder's, and what becomes of it is written into this folder.
    Save(PathBuf),
    /// The one that was written into this folder.
    Prepared(PathBuf),
}

impl Source {
    /// The file name of a prepared graph; its weights are in a file beside it.
    const FILE_NAME: &str = "model.onnx";
    const DATA_FILE_NAME: &str = "model.onnx.data";
    /// Smaller constants stay inside the graph file.
    const DATA_MIN_BYTES: &str = "1024";

    pub(crate) fn path(&self, manifest: &Manifest) -> PathBuf {
        match self {
            Self::Model | Self::Save(_) => manifest.graph_path(),
            Self::Prepared(folder) => folder.join(Self::FILE_NAME),
        }
    }
}

/// An open graph.
///
/// ONNX Runtime's `Run` is documented as thread-safe, but `ort` asks for exclusive access and gives reasons; runs
/// therefore take turns. Each run uses all of its session's threads, so nothing is gained by running two at once.
pub(crate) struct Session {
    session: Mutex<OrtSession>,
    /// Whether the graph returns float16 rather than float32; which of the two was checked when it was opened.
    half_output: bool,
    /// Whether runs keep memory for the next one.
    has_arena: bool,
    /// Bytes of attention scores for each row and squared token, where the provider stores them.
    score_bytes: Option<u64>,
    /// For a graph that computes real tokens alone: what attention to another token costs, in tokens.
    attention_cost: Option<f64>,
}

/// The most threads a run may be given.
const MAX_THREADS: usize = 1024;

/// The most attention scores a batch may need on a provider that stores them all, in bytes: 8 GiB.
///
/// It is there so that one long text ends in an error and not in the system's killing the process. 32 heads reach it
/// at 8,192 tokens.
const MAX_SCORE_BYTES: u64 = 8 << 30;

impl Session {
    /// Opens the graph of a model folder on the provider asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when the provider cannot be had or has no kernels for the precision, [`ErrorKind::Model`]
    /// when ONNX Runtime refuses the graph or the graph's inputs and outputs are not those of the manifest.
    pub(crate) fn open(manifest: &Manifest, library: &Library, options: &LoadOptions, source: &Source) -> Result<Self> {
        let placement = Placement {
            precision: Some(manifest.precision()),
            threads: options.intra_threads,
            arena: !options.low_memory,
            ..Placement::default()
        };
        let dispatch = options.provider.dispatch(&options.cuda, &options.tensorrt, &placement);
        let session = open_graph(manifest, library, options, source, dispatch)?;
        // GPU kernels and the graph for the CPU go through the scores in blocks; the CPU's kernel for any graph does not.
        let stores_scores = manifest.target() == Target::Any && options.provider == Provider::Cpu;
        let score_bytes = stores_scores.then(|| (manifest.architecture().num_attention_heads as u64).saturating_mul(4));
        let half_output = manifest.returns_half();
        let attention_cost = (manifest.target() == Target::Cpu).then(|| attention_cost(manifest.architecture()));
        let has_arena = options.provider == Provider::Cpu && placement.arena;
        Ok(Self { session: Mutex::new(session), half_output, has_arena, score_bytes, attention_cost })
    }

    /// What running rows of at most `length` tokens together costs, beside what they cost anyway, in tokens.
    pub(crate) fn cost(&self, rows: usize, length: usize) -> usize {
        match self.attention_cost {
            // Products leave padding out, attention does not.
            Some(cost) => ((rows * length * length) as f64 * cost) as usize,
            None => rows * length,
        }
    }

    /// How many of the positions of a batch of this shape are computed, of which `tokens` are real.
    pub(crate) fn computed(&self, (rows, length): (usize, usize), tokens: usize) -> usize {
        if self.attention_cost.is_some() { tokens } else { rows * length }
    }

    /// How many rows of `length` tokens fit into the memory for attention scores, on a provider that stores them all.
    pub(crate) fn max_rows(&self, length: usize) -> usize {
        let Some(score_bytes) = self.score_bytes else { return usize::MAX };
        let row = score_bytes.saturating_mul((length as u64).saturating_pow(2));
        usize::try_from(MAX_SCORE_BYTES / row.max(1)).unwrap_or(usize::MAX)
    }

    /// # Errors
    /// [`ErrorKind::TooLong`] when not even one row of `length` tokens fits.
    pub(crate) fn check_length(&self, length: usize) -> Result<()> {
        if self.max_rows(length) > 0 {
            return Ok(());
        }
        let row = self.score_bytes.unwrap_or(0).saturating_mul((length as u64).saturating_pow(2));
        let message = format!(
            "a row of {length} tokens needs {:.1} GiB for attention scores on the CPU, the limit is {} GiB; lower \
             max_length, or export the model with --target cpu, which does not store them",
            row as f64 / f64::from(1 << 30),
            MAX_SCORE_BYTES >> 30
        );
        Err(Error::new(ErrorKind::TooLong, message))
    }

    /// Runs one batch. Waits while another thread runs. `gives_back`: memory that is free after the run is not kept.
    ///
    /// # Errors
    /// [`ErrorKind::Inference`] when ONNX Runtime fails or the output has another shape than `[B, D]`;
    /// [`ErrorKind::Cancelled`] when the token is, before or while the batch runs.
    pub(crate) fn run(&self, batch: &Batch, cancel: Option<&CancelToken>, gives_back: bool) -> Result<RawOutput> {
        let failed = |error: ort::Error| {
            let (rows, length) = batch.shape();
            let message = format!("ONNX Runtime failed on a batch of {rows} rows of {length} tokens: {error}");
            Error::new(ErrorKind::Inference, message)
        };
        let mut inputs = Vec::with_capacity(3);
        for (name, array) in batch.inputs() {
            inputs.push((name, TensorRef::from_array_view(array.view()).map_err(failed)?));
        }
        // A thread that panicked while holding the lock left the session itself whole: it is not ours to change.
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let mut options = RunOptions::new().map_err(failed)?;
        if gives_back && self.has_arena {
            options.set("memory.enable_memory_arena_shrinkage", "cpu:0").map_err(failed)?;
        }
        let (stoppable, plain);
        let options = match cancel {
            Some(cancel) => {
                stoppable = cancel.start_run(options)?;
                stoppable.options()
            }
            None => {
                plain = options;
                &plain
            }
        };
        let outcome = session.run_with_options(inputs, options);
        // ONNX Runtime says that it was told to stop in words only.
        let outputs =
            outcome.map_err(|error| cancel.and_then(|token| token.check().err()).unwrap_or_else(|| failed(error)))?;
        let output = &outputs[0];
        if self.half_output {
            Ok(RawOutput::F16(rows(output).map_err(failed)?))
        } else {
            Ok(RawOutput::F32(rows(output).map_err(failed)?))
        }
    }
}

/// The products of a token with another one's key and value, over those of a token with a layer's weights.
fn attention_cost(shape: &Architecture) -> f64 {
    let projections = 2 * (shape.num_attention_heads + shape.num_key_value_heads) * shape.head_dim;
    let weights = shape.hidden_size * (projections + 3 * shape.intermediate_size);
    (2 * shape.num_attention_heads * shape.head_dim) as f64 / weights.max(1) as f64
}

/// Opens a graph on a provider, and checks that its inputs and outputs are the manifest's.
///
/// # Errors
/// As [`Session::open`].
pub(crate) fn open_graph(
    manifest: &Manifest,
    library: &Library,
    options: &LoadOptions,
    source: &Source,
    dispatch: ExecutionProviderDispatch,
) -> Result<OrtSession> {
    let provider = options.provider;
    let path = source.path(manifest);
    // ONNX Runtime's own words stay, behind ours: they are what can be searched for.
    let explained =
        |message: String| explain(&message).map_or_else(|| message.clone(), |why| format!("{why} ({message})"));
    let mut builder = builder(library, options, source)?.with_execution_providers([dispatch]).map_err(|error| {
        let message = format!("execution provider {provider} could not be started: {}", explained(error.to_string()));
        Error::new(ErrorKind::Provider, message)
    })?;
    let session = builder.commit_from_file(&path).map_err(|error| {
        let message = format!("ONNX Runtime cannot open {}: {}", path.display(), explained(error.to_string()));
        Error::new(ErrorKind::Model, message)
    })?;
    let (inputs, outputs) = manifest.contract();
    check("input", session.inputs(), &inputs)?;
    check("output", session.outputs(), &outputs)?;
    Ok(session)
}

pub(crate) fn builder(library: &Library, options: &LoadOptions, source: &Source) -> Result<SessionBuilder> {
    let failed = |error: ort::Error<SessionBuilder>| {
        Error::new(ErrorKind::Library, format!("ONNX Runtime refused a session option: {error}"))
    };
    let mut builder = OrtSession::builder(library.environment())
        .map_err(|error| Error::new(ErrorKind::Library, format!("ONNX Runtime made no session: {error}")))?
        .with_optimization_level(match source {
            Source::Prepared(_) => GraphOptimizationLevel::Disable,
            // OpenVINO does its own, and takes weights from the file; a folded constant would be a copy in memory.
            _ if options.provider == Provider::OpenVino => GraphOptimizationLevel::Disable,
            Source::Model | Source::Save(_) => GraphOptimizationLevel::All,
        })
        .map_err(failed)?
        // Every batch has its own shape: a memory plan for each would only grow.
        .with_memory_pattern(false)
        .map_err(failed)?;
    if let Some(threads) = options.intra_threads {
        in_range("intra_threads", threads, 1, MAX_THREADS)?;
        builder = builder.with_intra_threads(threads).map_err(failed)?;
    }
    if options.provider == Provider::OpenVino {
        // It has threads of its own; ONNX Runtime's would do nothing.
        builder = builder.with_intra_threads(1).map_err(failed)?;
    }
    if options.parallel_prepacking {
        builder = builder.with_config_entry("session.prepack.enable_parallel", "1").map_err(failed)?;
    }
    if let Source::Save(folder) = source {
        builder = builder.with_optimized_model_path(folder.join(Source::FILE_NAME)).map_err(failed)?;
        for (key, value) in [
            ("session.optimized_model_external_initializers_file_name", Source::DATA_FILE_NAME),
            ("session.optimized_model_external_initializers_min_size_in_bytes", Source::DATA_MIN_BYTES),
            ("session.save_external_prepacked_constant_initializers", "1"),
        ] {
            builder = builder.with_config_entry(key, value).map_err(failed)?;
        }
    }
    if options.provider != Provider::Cpu {
        builder = builder.with_disable_cpu_fallback().map_err(failed)?;
    }
    Ok(builder)
}

fn rows<T: PrimitiveTensorElementType + Clone>(value: &ort::value::DynValue) -> ort::Result<Array2<T>> {
    let array = value.try_extract_array::<T>()?;
    array.to_owned().into_dimensionality::<Ix2>().map_err(ort::Error::wrap)
}

/// Compares the graph's own inputs or outputs with those the runtime needs: names in order, types and dimensions.
fn check(what: &str, found: &[Outlet], wanted: &[TensorSpec]) -> Result<()> {
    let found: Vec<_> = found.iter().map(spec).collect();
    if found == wanted {
        return Ok(());
    }
    let list = |specs: &[TensorSpec]| specs.iter().map(show).collect::<Vec<_>>().join(", ");
    let message = format!("the graph's {what}s are {}, the runtime needs {}", list(&found), list(wanted));
    Err(Error::new(ErrorKind::Model, message))
}

fn spec(outlet: &Outlet) -> TensorSpec {
    let name = outlet.name().to_owned();
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return TensorSpec { name, dtype: outlet.dtype().to_string(), shape: Vec::new() };
    };
    let dtype = match ty {
        TensorElementType::Int64 => "int64".to_owned(),
        TensorElementType::Float32 => "float32".to_owned(),
        TensorElementType::Float16 => "float16".to_owned(),
        other => other.to_string(),
    };
    let dims = shape.iter().zip(dimension_symbols.iter());
    let shape = dims.map(|(size, symbol)| if *size < 0 { Dim::Free(symbol.to_string()) } else { Dim::Fixed(*size) });
    TensorSpec { name, dtype, shape: shape.collect() }
}

fn show(spec: &TensorSpec) -> String {
    let dims = spec.shape.iter().map(|dim| match dim {
        Dim::Fixed(size) => size.to_string(),
        Dim::Free(name) => name.clone(),
    });
    format!("{} {} [{}]", spec.name, spec.dtype, dims.collect::<Vec<_>>().join(", "))
}
