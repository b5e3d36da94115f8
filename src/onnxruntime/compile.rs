//! Compiling a graph ahead of opening it, by ONNX Runtime's compile API.

use std::fs;
use std::path::Path;

use ort::compiler::ModelCompiler;

use super::Library;
use super::ep_context::with_plain_names;
use super::graph::{GraphFile, attach, builder, explained};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Manifest;
use crate::options::ModelOptions;
use crate::provider::Attachment;

/// Writes a graph of one node into `into`, with the engine that the provider compiled in a file beside it. It is opened as
/// [`GraphFile::Prepared`].
///
/// # Errors
/// [`ErrorKind::Provider`] when the provider does not start or cannot compile the graph.
pub(crate) fn compile_graph(
    manifest: &Manifest,
    library: &Library,
    options: &ModelOptions,
    attachment: &Attachment,
    into: &Path,
) -> Result<()> {
    let graph = manifest.graph_path();
    let failed = |error: ort::Error| {
        let message = format!("execution provider {} cannot compile {}", options.provider, graph.display());
        explained(ErrorKind::Provider, message, error)
    };
    let builder = attach(library, options, builder(library, options, &GraphFile::Model)?, attachment)?;
    let compiler = ModelCompiler::new(builder).map_err(failed)?.with_model_from_file(&graph).map_err(failed)?;
    let file = into.join(GraphFile::NAME);
    compiler.compile_to_file(&file).map_err(failed)?;
    let unreadable = |error: std::io::Error| {
        Error::new(ErrorKind::Cache, format!("{} cannot be completed", file.display())).because(error)
    };
    let (bytes, engines) = with_plain_names(&fs::read(&file).map_err(unreadable)?).ok_or_else(|| {
        let message =
            format!("execution provider {} left no graph with an engine in {}", options.provider, file.display());
        Error::new(ErrorKind::Provider, message)
    })?;
    for engine in engines {
        fs::metadata(into.join(engine)).map_err(unreadable)?;
    }
    fs::write(&file, bytes).map_err(unreadable)
}
