//! What can be chosen of a GPU.

use crate::buckets::Buckets;
use crate::device::UserStream;
use crate::error::{Error, ErrorKind, Result};
use crate::options::in_range;

/// The most devices that a model is opened on.
const MAX_DEVICES: usize = 64;
/// The most CUDA graphs that are kept.
const MAX_CUDA_GRAPHS: usize = 4096;

/// The most outputs of one shape that callers may hold.
const MAX_BUFFER_SETS: usize = 256;

/// What the runtime relies on in ONNX Runtime's providers, and sets itself. Another device, stream or profile than the one
/// that buffers are made for would fail late, and graphs where they are not kept apart would give wrong results.
const RESERVED: [&str; 11] = [
    "device_id",
    "has_user_compute_stream",
    "user_compute_stream",
    "enable_cuda_graph",
    "trt_cuda_graph_enable",
    "trt_profile_min_shapes",
    "trt_profile_opt_shapes",
    "trt_profile_max_shapes",
    "nv_profile_min_shapes",
    "nv_profile_opt_shapes",
    "nv_profile_max_shapes",
];

/// # Errors
/// [`ErrorKind::Option`] naming a reserved option.
fn check_names(options: &[(String, String)]) -> Result<()> {
    match options.iter().find(|(name, _)| RESERVED.contains(&name.as_str())) {
        Some((name, _)) => {
            let message = format!("the provider option {name} follows from other options and cannot be set");
            Err(Error::new(ErrorKind::Option, message))
        }
        None => Ok(()),
    }
}

/// How a model runs on NVIDIA GPUs, whether by the CUDA provider or by one of TensorRT's. The CPU ignores it.
#[derive(Debug, Clone)]
pub struct CudaOptions {
    /// The devices that are used, as CUDA numbers them. Each gets a worker with a session of its own and so the whole
    /// model. Default: device 0.
    pub device_ids: Vec<usize>,
    /// The most memory that ONNX Runtime's arena takes on each device, in bytes. Default: no limit but the device's.
    pub memory_limit: Option<usize>,
    /// A stream of the caller's that copies and runs are put on, for one device only. Default: one of the model's own.
    pub stream: Option<UserStream>,
    /// How that arena grows.
    pub arena_strategy: ArenaStrategy,
    /// Let fp32 products be computed in TF32, whose mantissa has 10 bits: faster, and no longer fp32. Default: false.
    pub tf32: bool,
    /// Record the kernels of a run once for each shape, and replay them with one call. Default: true. The TensorRT
    /// providers ignore it and record nothing.
    pub cuda_graphs: bool,
    /// How many shapes get a CUDA graph, each of which takes memory; the others run without. Default: 128.
    pub max_cuda_graphs: usize,
    /// How many outputs of one shape callers may hold on the device at once, see [`crate::Embedder::embed_on_device`].
    /// Default: 2.
    pub buffer_sets: usize,
    /// The shapes that batches are padded to.
    pub buckets: Buckets,
    /// Further options of the provider by ONNX Runtime's names, for example `("sdpa_kernel", "1")`. They go last, so they
    /// replace what the fields above say; device, stream, graphs and profiles are not to be had this way.
    pub provider_options: Vec<(String, String)>,
}

impl Default for CudaOptions {
    fn default() -> Self {
        Self {
            device_ids: vec![0],
            memory_limit: None,
            stream: None,
            arena_strategy: ArenaStrategy::default(),
            tf32: false,
            cuda_graphs: true,
            max_cuda_graphs: 128,
            buffer_sets: 2,
            buckets: Buckets::default(),
            provider_options: Vec::new(),
        }
    }
}

impl CudaOptions {
    /// # Errors
    /// [`ErrorKind::Option`] naming the value and its limits.
    pub(crate) fn check(&self) -> Result<()> {
        in_range("the number of device_ids", self.device_ids.len(), 1, MAX_DEVICES)?;
        for (index, device) in self.device_ids.iter().enumerate() {
            in_range("a device id", *device, 0, MAX_DEVICES - 1)?;
            if self.device_ids[..index].contains(device) {
                return Err(Error::new(ErrorKind::Option, format!("device {device} is asked for twice")));
            }
        }
        in_range("max_cuda_graphs", self.max_cuda_graphs, 1, MAX_CUDA_GRAPHS)?;
        in_range("buffer_sets", self.buffer_sets, 1, MAX_BUFFER_SETS)?;
        if self.stream.is_some() && self.device_ids.len() > 1 {
            let count = self.device_ids.len();
            return Err(Error::new(ErrorKind::Option, format!("one stream is given for {count} devices")));
        }
        check_names(&self.provider_options)?;
        if self.memory_limit == Some(0) {
            return Err(Error::new(ErrorKind::Option, "memory_limit is 0 bytes, at least 1 is needed"));
        }
        Ok(())
    }
}

/// By how much ONNX Runtime's arena of device memory grows when it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ArenaStrategy {
    /// By what is asked for. The least memory; the shapes of the buckets soon repeat, and it grows no more.
    #[default]
    SameAsRequested,
    /// By the next power of two: fewer growths, up to twice the memory.
    NextPowerOfTwo,
}

/// How TensorRT builds engines. Only the TensorRT providers read it.
///
/// [`crate::prepare`] builds them, into [`crate::LoadOptions::cache`]; opening a model takes them from there and builds none.
#[derive(Debug, Clone)]
pub struct TensorRtOptions {
    /// How hard the builder looks for fast kernels, 0 to 5. Default: 3, TensorRT's own.
    pub builder_optimization_level: u8,
    /// The most scratch memory that kernels may use, in bytes. Default: TensorRT's own limit, the device's memory.
    pub workspace: Option<usize>,
    /// Build when a model is opened for which none was prepared: minutes each time, and nothing is kept. Default: false,
    /// which makes that an error.
    pub build_on_open: bool,
    /// Further options of the provider by ONNX Runtime's names, for example `("trt_sparsity_enable", "1")`.
    pub provider_options: Vec<(String, String)>,
}

impl Default for TensorRtOptions {
    fn default() -> Self {
        Self { builder_optimization_level: 3, workspace: None, build_on_open: false, provider_options: Vec::new() }
    }
}

impl TensorRtOptions {
    /// # Errors
    /// [`ErrorKind::Option`] naming the value and its limits.
    pub(crate) fn check(&self) -> Result<()> {
        check_names(&self.provider_options)?;
        in_range("builder_optimization_level", usize::from(self.builder_optimization_level), 0, 5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let cuda = CudaOptions::default;
        let extra = |name: &str| vec![(name.to_owned(), "1".to_owned())];
        for (options, wanted) in [
            (CudaOptions { device_ids: vec![], ..cuda() }, "number of device_ids is 0"),
            (CudaOptions { device_ids: vec![64], ..cuda() }, "a device id is 64, allowed are 0 to 63"),
            (CudaOptions { device_ids: vec![1, 0, 1], ..cuda() }, "device 1 is asked for twice"),
            (CudaOptions { max_cuda_graphs: 0, ..cuda() }, "max_cuda_graphs is 0"),
            (CudaOptions { buffer_sets: 0, ..cuda() }, "buffer_sets is 0"),
            (CudaOptions { memory_limit: Some(0), ..cuda() }, "memory_limit is 0"),
            (CudaOptions { provider_options: extra("device_id"), ..cuda() }, "provider option device_id"),
        ] {
            let error = options.check().unwrap_err();
            assert!(error.kind() == ErrorKind::Option && error.to_string().contains(wanted), "{error}");
        }
        cuda().check().unwrap();
        let tensorrt = TensorRtOptions { builder_optimization_level: 6, ..TensorRtOptions::default() };
        assert!(tensorrt.check().unwrap_err().to_string().contains("builder_optimization_level is 6"));
        let tensorrt =
            TensorRtOptions { provider_options: extra("trt_cuda_graph_enable"), ..TensorRtOptions::default() };
        assert!(tensorrt.check().unwrap_err().to_string().contains("trt_cuda_graph_enable"));
    }
}
