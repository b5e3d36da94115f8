//! ONNX Runtime: its shared library, the graph it opens, and the speed of one matrix product on it.

mod compile;
mod ep_context;
mod explain;
mod graph;
mod library;
mod peak;
mod places;
mod plugin;

pub use library::{Library, MINIMUM_VERSION, OPENVINO_MINIMUM_VERSION};
pub use peak::matmul_peak;
pub use plugin::Plugin;

pub(crate) use compile::compile_graph;
pub(crate) use explain::explain;
pub(crate) use graph::{GraphFile, open_graph};
