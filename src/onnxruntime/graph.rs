//! Opening a graph: the session options it gets, and the check that it is what the manifest says.

use std::path::PathBuf;

use ort::ep::ExecutionProviderDispatch;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{Outlet, TensorElementType, ValueType};

use super::{Library, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Dim, Manifest, TensorSpec};
use crate::options::ModelOptions;
use crate::provider::Provider;

/// Which file of a model's graph is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GraphFile {
    /// The model folder's. It is optimized while it opens.
    Model,
    /// The model folder's, and the optimized graph is written into this folder.
    SaveInto(PathBuf),
    /// The optimized graph that was written into this folder.
    Prepared(PathBuf),
}

impl GraphFile {
    /// The file name of a prepared graph; its weights are in a file beside it.
    const NAME: &str = "model.onnx";
    const DATA_NAME: &str = "model.onnx.data";
    /// Smaller constants stay inside the graph file.
    const DATA_MIN_BYTES: &str = "1024";

    pub(crate) fn path(&self, manifest: &Manifest) -> PathBuf {
        match self {
            Self::Model | Self::SaveInto(_) => manifest.graph_path(),
            Self::Prepared(folder) => folder.join(Self::NAME),
        }
    }
}

/// Opens a graph on a provider, and checks that its inputs and outputs are the manifest's.
///
/// # Errors
/// [`ErrorKind::Provider`] when the provider does not start, [`ErrorKind::Model`] when ONNX Runtime refuses the graph or its
/// inputs and outputs are not the manifest's.
pub(crate) fn open_graph(
    manifest: &Manifest,
    library: &Library,
    options: &ModelOptions,
    file: &GraphFile,
    dispatch: ExecutionProviderDispatch,
) -> Result<Session> {
    let path = file.path(manifest);
    let mut builder = builder(library, options, file)?.with_execution_providers([dispatch]).map_err(|error| {
        let message = format!("execution provider {} could not be started", options.provider);
        explained(ErrorKind::Provider, message, error)
    })?;
    let session = builder
        .commit_from_file(&path)
        .map_err(|error| explained(ErrorKind::Model, format!("ONNX Runtime cannot open {}", path.display()), error))?;
    let (inputs, outputs) = manifest.contract();
    check("inputs", session.inputs(), &inputs)?;
    check("outputs", session.outputs(), &outputs)?;
    tracing::debug!(graph = %path.display(), provider = %options.provider, "opened");
    Ok(session)
}

/// An error with the reason and the remedy, where they are known. ONNX Runtime's own message stays as the cause: it is what
/// can be searched for.
fn explained<R>(kind: ErrorKind, message: String, error: ort::Error<R>) -> Error {
    let cause = error.to_string();
    let message = match explain(&cause) {
        Some(reason) => format!("{message}: {reason}"),
        None => message,
    };
    Error::new(kind, message).because(cause)
}

pub(super) fn builder(library: &Library, options: &ModelOptions, file: &GraphFile) -> Result<SessionBuilder> {
    let failed = |error: ort::Error<SessionBuilder>| {
        Error::new(ErrorKind::Library, "ONNX Runtime refused a session option").because(error.to_string())
    };
    let is_openvino = options.provider == Provider::OpenVino;
    let mut builder = Session::builder(library.environment())
        .map_err(|error| Error::new(ErrorKind::Library, "ONNX Runtime made no session").because(error))?
        .with_optimization_level(match file {
            GraphFile::Prepared(_) => GraphOptimizationLevel::Disable,
            // OpenVINO optimizes itself, and reads weights from the file; a folded constant would be a copy in memory.
            _ if is_openvino => GraphOptimizationLevel::Disable,
            GraphFile::Model | GraphFile::SaveInto(_) => GraphOptimizationLevel::All,
        })
        .map_err(failed)?
        // Every batch has its own shape: a memory plan for each would only grow.
        .with_memory_pattern(false)
        .map_err(failed)?;
    // OpenVINO has threads of its own; ONNX Runtime's would only wait.
    if let Some(threads) = if is_openvino { Some(1) } else { options.intra_threads } {
        builder = builder.with_intra_threads(threads).map_err(failed)?;
    }
    if options.parallel_prepacking {
        builder = builder.with_config_entry("session.prepack.enable_parallel", "1").map_err(failed)?;
    }
    if let GraphFile::SaveInto(folder) = file {
        builder = builder.with_optimized_model_path(folder.join(GraphFile::NAME)).map_err(failed)?;
        for (key, value) in [
            ("session.optimized_model_external_initializers_file_name", GraphFile::DATA_NAME),
            ("session.optimized_model_external_initializers_min_size_in_bytes", GraphFile::DATA_MIN_BYTES),
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

/// Compares the graph's own inputs or outputs with those the runtime needs: names in order, types and dimensions.
fn check(what: &str, found: &[Outlet], wanted: &[TensorSpec]) -> Result<()> {
    let found: Vec<_> = found.iter().map(spec).collect();
    if found == wanted {
        return Ok(());
    }
    let list = |specs: &[TensorSpec]| specs.iter().map(show).collect::<Vec<_>>().join(", ");
    let message = format!("the graph's {what} must be {}, got {}", list(wanted), list(&found));
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
