//! Options of the GPU providers.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result, by_name, in_range};

/// The most devices that a model is opened on.
const MAX_DEVICES: usize = 64;
/// The most CUDA graphs that are kept.
const MAX_CUDA_GRAPHS: usize = 4096;
/// The most outputs of one shape that callers may hold.
const MAX_BUFFER_SETS: usize = 256;

/// How a model runs on NVIDIA GPUs. New options may be added: start from the defaults.
///
/// An option that the chosen provider ignores is an error unless it has its default.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GpuOptions {
    /// The devices to use, as CUDA numbers them. Each gets a worker thread with a session of its own, and so the whole
    /// model. Default: device 0.
    pub device_ids: Vec<usize>,
    /// The most memory that ONNX Runtime's arena takes on each device, in bytes. Default: the device's memory. CUDA only.
    pub memory_limit: Option<usize>,
    /// A stream of the caller's that copies and runs are put on, for one device only. Default: a stream of the model's own.
    pub stream: Option<UserStream>,
    /// How that arena grows. CUDA only.
    pub arena_strategy: ArenaStrategy,
    /// Allow fp32 products to be computed in TF32, whose mantissa has 10 bits: faster, and no longer fp32. Default: false.
    /// CUDA only.
    pub tf32: bool,
    /// Compute the products of int8 and int4 models with one kernel that reads the weights as they are (fpA_intB), instead of
    /// unpacking them before each product of more than 16 tokens. Default: false, ONNX Runtime's own. CUDA only.
    pub fpa_intb_gemm: bool,
    /// Record the kernels of a run once for each shape, and replay them with one call. Default: true. CUDA only.
    pub cuda_graphs: bool,
    /// How many shapes get a CUDA graph, each of which takes memory; the others run without. Default: 128. CUDA only.
    pub max_cuda_graphs: usize,
    /// How many outputs of one shape callers may hold on the device at once, see
    /// [`Embedder::embed_on_device`](crate::Embedder::embed_on_device). Default: 2.
    pub buffer_sets: usize,
    /// The row lengths S, in token ids, that batches are padded to; a longer text is an error. Strictly increasing. Empty, the
    /// default: 16, 32, 48, 64, 96, 128, 192 … up to the model's limit (for TensorRT, up to 512).
    pub sequence_buckets: Vec<usize>,
    /// The row counts B that batches are padded to. Strictly increasing. Empty, the default: 1, 2, 4 … 64 (for TensorRT up
    /// to 16, for --target cuda up to 256).
    pub batch_buckets: Vec<usize>,
    /// How hard TensorRT's builder looks for fast kernels, 0 to 5. Default: 3, TensorRT's own. TensorRT only.
    pub builder_optimization_level: u8,
    /// The most scratch memory that TensorRT's kernels may use, in bytes. Default: the device's memory. TensorRT only.
    pub workspace: Option<usize>,
    /// Build TensorRT engines when a model opens for which none were [prepared](crate::prepare): minutes each time, and
    /// nothing is kept. Default: false, which makes that an error. TensorRT only.
    pub build_on_open: bool,
    /// The architecture that [`prepare`](crate::prepare) compiles for, which no GPU of this machine needs to have. `None`: that
    /// of the device. TensorRT-RTX only, and not for opening a model.
    pub target_gpu: Option<TargetGpu>,
}

impl Default for GpuOptions {
    fn default() -> Self {
        Self {
            device_ids: vec![0],
            memory_limit: None,
            stream: None,
            arena_strategy: ArenaStrategy::default(),
            tf32: false,
            fpa_intb_gemm: false,
            cuda_graphs: true,
            max_cuda_graphs: 128,
            buffer_sets: 2,
            sequence_buckets: Vec::new(),
            batch_buckets: Vec::new(),
            builder_optimization_level: 3,
            workspace: None,
            build_on_open: false,
            target_gpu: None,
        }
    }
}

impl GpuOptions {
    /// The names of all options.
    pub const NAMES: &'static [&'static str] = &[
        "device_ids",
        "memory_limit",
        "stream",
        "arena_strategy",
        "tf32",
        "fpa_intb_gemm",
        "cuda_graphs",
        "max_cuda_graphs",
        "buffer_sets",
        "sequence_buckets",
        "batch_buckets",
        "builder_optimization_level",
        "workspace",
        "build_on_open",
        "target_gpu",
    ];

    /// The names of the options that do not have their default.
    pub(crate) fn changed(&self) -> Vec<&'static str> {
        let default = Self::default();
        let changed = [
            self.device_ids != default.device_ids,
            self.memory_limit != default.memory_limit,
            self.stream != default.stream,
            self.arena_strategy != default.arena_strategy,
            self.tf32 != default.tf32,
            self.fpa_intb_gemm != default.fpa_intb_gemm,
            self.cuda_graphs != default.cuda_graphs,
            self.max_cuda_graphs != default.max_cuda_graphs,
            self.buffer_sets != default.buffer_sets,
            self.sequence_buckets != default.sequence_buckets,
            self.batch_buckets != default.batch_buckets,
            self.builder_optimization_level != default.builder_optimization_level,
            self.workspace != default.workspace,
            self.build_on_open != default.build_on_open,
            self.target_gpu != default.target_gpu,
        ];
        Self::NAMES.iter().zip(changed).filter_map(|(name, changed)| changed.then_some(*name)).collect()
    }

    /// The options that `keeps` has by name, and the defaults of the others.
    pub(crate) fn only(&self, keeps: impl Fn(&str) -> bool) -> Self {
        let (own, default) = (self.clone(), Self::default());
        Self {
            device_ids: if keeps("device_ids") { own.device_ids } else { default.device_ids },
            memory_limit: own.memory_limit.filter(|_| keeps("memory_limit")),
            stream: own.stream.filter(|_| keeps("stream")),
            arena_strategy: if keeps("arena_strategy") { own.arena_strategy } else { default.arena_strategy },
            tf32: own.tf32 && keeps("tf32"),
            fpa_intb_gemm: own.fpa_intb_gemm && keeps("fpa_intb_gemm"),
            cuda_graphs: own.cuda_graphs || !keeps("cuda_graphs"),
            max_cuda_graphs: if keeps("max_cuda_graphs") { own.max_cuda_graphs } else { default.max_cuda_graphs },
            buffer_sets: if keeps("buffer_sets") { own.buffer_sets } else { default.buffer_sets },
            sequence_buckets: if keeps("sequence_buckets") { own.sequence_buckets } else { Vec::new() },
            batch_buckets: if keeps("batch_buckets") { own.batch_buckets } else { Vec::new() },
            builder_optimization_level: if keeps("builder_optimization_level") {
                own.builder_optimization_level
            } else {
                default.builder_optimization_level
            },
            workspace: own.workspace.filter(|_| keeps("workspace")),
            build_on_open: own.build_on_open && keeps("build_on_open"),
            target_gpu: own.target_gpu.filter(|_| keeps("target_gpu")),
        }
    }

    /// Checks every range except the buckets', whose limit is the model's.
    ///
    /// # Errors
    /// [`ErrorKind::Option`] naming the value and its limits.
    pub(crate) fn check(&self) -> Result<()> {
        in_range("the number of `device_ids`", self.device_ids.len(), 1, MAX_DEVICES)?;
        for (index, device) in self.device_ids.iter().enumerate() {
            in_range("each of `device_ids`", *device, 0, MAX_DEVICES - 1)?;
            if self.device_ids[..index].contains(device) {
                return Err(Error::new(ErrorKind::Option, format!("`device_ids` names device {device} twice")));
            }
        }
        in_range("`max_cuda_graphs`", self.max_cuda_graphs, 1, MAX_CUDA_GRAPHS)?;
        in_range("`buffer_sets`", self.buffer_sets, 1, MAX_BUFFER_SETS)?;
        if self.stream.is_some() && self.device_ids.len() > 1 {
            let count = self.device_ids.len();
            let message = format!("`stream` is a stream of one device, `device_ids` names {count}");
            return Err(Error::new(ErrorKind::Option, message));
        }
        // CUstream 0, CU_STREAM_LEGACY and CU_STREAM_PER_THREAD.
        if let Some(stream @ UserStream(0..=2)) = self.stream {
            let message = format!(
                "`stream` is one of CUDA's default streams ({}), which cannot be recorded and wait for others; make a stream of \
                 your own",
                stream.0
            );
            return Err(Error::new(ErrorKind::Option, message));
        }
        if self.memory_limit == Some(0) {
            return Err(Error::new(ErrorKind::Option, "`memory_limit` must be at least 1 byte, got 0"));
        }
        in_range("`builder_optimization_level`", usize::from(self.builder_optimization_level), 0, 5)
    }
}

/// A CUDA stream of the caller's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserStream(usize);

impl UserStream {
    /// The stream at `address`, a `CUstream`.
    ///
    /// # Safety
    /// It is a stream of the primary context of the device that the model is opened on and not a default stream (0, 1 or 2,
    /// which opening the model refuses), it does not capture a graph while
    /// the model runs, and it exists until the model and all [`DeviceEmbeddings`](crate::gpu::DeviceEmbeddings) of it are
    /// dropped.
    #[expect(unsafe_code, reason = "whoever uses the address relies on the caller's promise")]
    pub unsafe fn new(address: usize) -> Self {
        Self(address)
    }

    pub(crate) fn address(self) -> usize {
        self.0
    }
}

/// An architecture of NVIDIA GPUs that TensorRT-RTX compiles for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TargetGpu {
    /// Compute capability 8.6: RTX 30, A10, A40.
    Sm86,
    /// Compute capability 8.9: RTX 40, L4, L40S.
    Sm89,
    /// Compute capability 12.0: RTX 50, RTX PRO 6000.
    Sm120,
    /// Compute capability 12.1: GB10.
    Sm121,
}

impl TargetGpu {
    /// Every architecture.
    pub const ALL: &'static [Self] = &[Self::Sm86, Self::Sm89, Self::Sm120, Self::Sm121];

    /// `sm86`, `sm89`, `sm120` or `sm121`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sm86 => "sm86",
            Self::Sm89 => "sm89",
            Self::Sm120 => "sm120",
            Self::Sm121 => "sm121",
        }
    }
}

impl fmt::Display for TargetGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TargetGpu {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        by_name("target_gpu", name, Self::ALL, Self::name)
    }
}

/// By how much ONNX Runtime's arena of device memory grows when it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ArenaStrategy {
    /// By what is asked for: the least memory. The shapes of the buckets soon repeat, and it stops growing.
    #[default]
    SameAsRequested,
    /// By the next power of two: it grows less often, to up to twice the memory.
    NextPowerOfTwo,
}

impl ArenaStrategy {
    /// Both strategies.
    pub const ALL: &'static [Self] = &[Self::SameAsRequested, Self::NextPowerOfTwo];

    /// `same-as-requested` or `next-power-of-two`.
    pub fn name(self) -> &'static str {
        match self {
            Self::SameAsRequested => "same-as-requested",
            Self::NextPowerOfTwo => "next-power-of-two",
        }
    }
}

impl fmt::Display for ArenaStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ArenaStrategy {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        by_name("arena_strategy", name, Self::ALL, Self::name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let default = GpuOptions::default;
        for (options, wanted) in [
            (GpuOptions { device_ids: vec![], ..default() }, "the number of `device_ids` must be 1 to 64, got 0"),
            (GpuOptions { device_ids: vec![64], ..default() }, "each of `device_ids` must be 0 to 63, got 64"),
            (GpuOptions { device_ids: vec![1, 0, 1], ..default() }, "names device 1 twice"),
            (GpuOptions { max_cuda_graphs: 0, ..default() }, "`max_cuda_graphs` must be 1 to 4096, got 0"),
            (GpuOptions { buffer_sets: 0, ..default() }, "`buffer_sets` must be"),
            (GpuOptions { memory_limit: Some(0), ..default() }, "`memory_limit` must be at least 1 byte"),
            (GpuOptions { builder_optimization_level: 6, ..default() }, "`builder_optimization_level` must be 0 to 5"),
        ] {
            let error = options.check().unwrap_err();
            assert!(error.kind() == ErrorKind::Option && error.to_string().contains(wanted), "{error}");
        }
        default().check().unwrap();
    }

    #[test]
    fn every_changed_option_is_listed_by_its_name() {
        #[expect(unsafe_code, reason = "an address that no model is opened with")]
        // SAFETY: only compared.
        let stream = Some(unsafe { UserStream::new(1) });
        let all = GpuOptions {
            device_ids: vec![1],
            memory_limit: Some(1),
            stream,
            arena_strategy: ArenaStrategy::NextPowerOfTwo,
            tf32: true,
            fpa_intb_gemm: true,
            cuda_graphs: false,
            max_cuda_graphs: 1,
            buffer_sets: 1,
            sequence_buckets: vec![1],
            batch_buckets: vec![1],
            builder_optimization_level: 1,
            workspace: Some(1),
            build_on_open: true,
            target_gpu: Some(TargetGpu::Sm89),
        };
        assert_eq!(all.changed(), GpuOptions::NAMES);
        assert!(GpuOptions::default().changed().is_empty());
        assert_eq!(all.only(|_| true), all);
        assert_eq!(all.only(|_| false), GpuOptions::default());
        for name in GpuOptions::NAMES {
            assert_eq!(all.only(|kept| kept == *name).changed(), [*name]);
        }
    }
}
