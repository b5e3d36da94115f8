//! Opening a graph: the session options it gets, and the check that it is what the manifest says.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::logging::{LogLevel, LoggerFunction};
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{Outlet, TensorElementType, ValueType};

use super::{Library, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::machine;
use crate::model::{Dim, Manifest, TensorSpec};
use crate::options::ModelOptions;
use crate::provider::{Attachment, Provider};

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
    pub(super) const NAME: &str = "model.onnx";
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
    attachment: &Attachment,
) -> Result<Session> {
    let path = file.path(manifest);
    let mut builder = attach(library, options, builder(library, options, file)?, attachment)?;
    let session = builder.commit_from_file(&path).map_err(|error| {
        let message = format!("ONNX Runtime cannot open {}", path.display());
        let unplaced = || unplaced(manifest, library, options, &path, attachment);
        match error.to_string().contains(CPU_NODES).then(unplaced).flatten() {
            Some(reason) => Error::new(ErrorKind::Provider, format!("{message}: {reason}")).because(error.to_string()),
            None => explained(ErrorKind::Model, message, error),
        }
    })?;
    let (inputs, outputs) = manifest.contract();
    check("inputs", session.inputs(), &inputs)?;
    check("outputs", session.outputs(), &outputs)?;
    tracing::debug!(graph = %path.display(), provider = %options.provider, "opened");
    Ok(session)
}

/// The session options with the provider.
///
/// # Errors
/// [`ErrorKind::Provider`] when it does not start.
pub(super) fn attach(
    library: &Library,
    options: &ModelOptions,
    builder: SessionBuilder,
    attachment: &Attachment,
) -> Result<SessionBuilder> {
    match attachment {
        Attachment::BuiltIn(dispatch) => builder.with_execution_providers([dispatch.clone()]).map_err(|error| {
            let message = format!("execution provider {} could not be started", options.provider);
            explained(ErrorKind::Provider, message, error)
        }),
        Attachment::Plugin { device, pairs } => match library.plugin(options)? {
            Some(plugin) => plugin.attach(library, builder, *device, pairs),
            None => {
                Err(Error::new(ErrorKind::Provider, format!("execution provider {} is no plugin", options.provider)))
            }
        },
    }
}

/// An error with the reason and the remedy, where they are known. ONNX Runtime's own message stays as the cause: it is what
/// can be searched for.
pub(super) fn explained<R>(kind: ErrorKind, message: String, error: ort::Error<R>) -> Error {
    let cause = error.to_string();
    let message = match explain(&cause) {
        Some(reason) => format!("{message}: {reason}"),
        None => message,
    };
    Error::new(kind, message).because(cause)
}

/// The option that forbids it to run nodes on the CPU that the provider does not take.
const NO_CPU: &str = "session.disable_cpu_ep_fallback";
/// What ONNX Runtime says when a node is left for the CPU, and the CPU may not take it.
const CPU_NODES: &str = "fallback to CPU EP has been explicitly disabled";
/// How it starts its lists of nodes in its most detailed log, and how the one of these nodes goes on.
const PLACED_ON: &str = "placed on [";
const THE_CPU: &str = "CPUExecutionProvider]";
/// The most operators that a message names.
const MAX_NAMED: usize = 12;

/// A larger model is not opened again only to say more about an error, in bytes of weights.
const OPENED_AGAIN: u64 = 4 << 30;

/// Which operators a plugin did not take. ONNX Runtime lists them only in its log, and only when the CPU may run them: so the
/// graph is opened again for this.
fn unplaced(
    manifest: &Manifest,
    library: &Library,
    options: &ModelOptions,
    path: &Path,
    attachment: &Attachment,
) -> Option<String> {
    if !matches!(attachment, Attachment::Plugin { .. }) {
        return None;
    }
    let lines = Arc::new(Mutex::new(Vec::new()));
    if manifest.data_bytes() <= OPENED_AGAIN {
        let log = Arc::clone(&lines);
        let logger: LoggerFunction = Arc::new(move |_, _, _, _, message: &str| {
            log.lock().unwrap_or_else(PoisonError::into_inner).push(message.to_owned());
        });
        let again = builder(library, options, &GraphFile::Model).ok()?.with_logger(logger).ok()?;
        let again = again.with_log_level(LogLevel::Verbose).ok()?.with_config_entry(NO_CPU, "0").ok()?;
        let _ = attach(library, options, again, attachment).ok()?.commit_from_file(path);
    }
    let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    let operators = operators_on_the_cpu(&lines);
    let all = if operators.is_empty() { "some operators of this graph".to_owned() } else { operators.join(", ") };
    Some(format!(
        "provider {} does not take {all}, and nothing runs on the CPU instead; try another --target of the exporter, an option \
         of the provider (`provider_options`), or another provider",
        options.provider
    ))
}

/// The operators of the list of nodes on the CPU, each once: its lines are `Gather (/embed_tokens/Gather)`.
fn operators_on_the_cpu(log: &[String]) -> Vec<&str> {
    let mut operators = Vec::new();
    let mut in_list = false;
    for line in log {
        if let Some((_, place)) = line.split_once(PLACED_ON) {
            in_list = place.starts_with(THE_CPU);
        } else if in_list && let Some((operator, _)) = line.split_once(" (") {
            let operator = operator.trim();
            if !operators.contains(&operator) && operators.len() < MAX_NAMED {
                operators.push(operator);
            }
        }
    }
    operators
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
    // OpenVINO has threads of its own; ONNX Runtime's would only wait. A number that ONNX Runtime chooses itself is that of the
    // machine's cores, whatever this process may use of them, and it binds each thread to one.
    let threads = if is_openvino { 1 } else { options.intra_threads.unwrap_or_else(machine::threads) };
    builder = builder.with_intra_threads(threads).map_err(failed)?;
    if options.gpu.fpa_intb_gemm {
        builder = builder.with_config_entry("ep.cuda.fpa_intb_gemm", "1").map_err(failed)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What ONNX Runtime 1.32 writes, shortened.
    #[test]
    fn operators_that_a_provider_left_are_read_from_the_log() {
        let log = [
            "GraphTransformer modified: 1 (of 3)",
            " Node(s) placed on [WebGpuExecutionProvider]. Number of nodes: 2",
            "  Sub (embedding_model/Sub)",
            "  Gather (embedding_model/Gather)",
            " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 3",
            "  CumSum (embedding_model/CumSum)",
            "  com.microsoft.Foo ()",
            "  CumSum (embedding_model/CumSum_1)",
            "SaveMLValueNameIndexMapping",
            " Node(s) placed on [OtherExecutionProvider]. Number of nodes: 1",
            "  Mul (embedding_model/Mul)",
        ];
        assert_eq!(operators_on_the_cpu(&log.map(str::to_owned)), ["CumSum", "com.microsoft.Foo"]);
        assert!(operators_on_the_cpu(&[]).is_empty());
    }
}
