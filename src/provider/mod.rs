//! Execution providers: which there are, what each needs, and how it is configured. One entry each, in `spec.rs`.

mod gpu_options;
mod plugin_name;
mod settings;
mod spec;

use std::fmt;
use std::str::FromStr;

use ort::ep::ExecutionProviderDispatch;

pub use gpu_options::{ArenaStrategy, GpuOptions, TargetGpu, UserStream};
pub use plugin_name::PluginName;

pub(crate) use plugin_name::MAX_NAME;
pub(crate) use settings::{Placement, compile_options, engine_options};
use spec::{Form, ProviderSpec};
pub(crate) use spec::{MINIMUM_VERSION, OPENVINO_MINIMUM_VERSION, Package, PluginSpec, Prepares, Source};

use crate::error::{Error, ErrorKind, Result};
use crate::model::Manifest;

/// Where a model runs. The names are those of ONNX Runtime's execution providers.
///
/// A provider that cannot be used is refused with the reason; the model never runs on the CPU instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Provider {
    /// The host's processor.
    #[default]
    Cpu,
    /// NVIDIA GPUs, through ONNX Runtime's own CUDA kernels.
    Cuda,
    /// NVIDIA GPUs, through TensorRT.
    TensorRt,
    /// NVIDIA RTX GPUs, through TensorRT for RTX.
    NvTensorRtRtx,
    /// The host's processor, through OpenVINO. Matrix products are in bf16 if the model is.
    OpenVino,
    /// Any other execution provider, by the name that its plugin gives it; inputs and outputs are in host memory. It needs
    /// [`ModelOptions::provider_library`](crate::ModelOptions::provider_library). Nothing about it is tested or assumed:
    /// compare its results with the golden file first.
    Plugin(PluginName),
}

/// What the runtime sets itself. Another device, stream or profile than the one that buffers are made for would fail late,
/// and CUDA graphs that are not kept apart would give wrong results.
const RESERVED: [&str; 14] = [
    "device_id",
    "device_type",
    "has_user_compute_stream",
    "user_compute_stream",
    "enable_cuda_graph",
    "load_config",
    "trt_cuda_graph_enable",
    "trt_profile_min_shapes",
    "trt_profile_opt_shapes",
    "trt_profile_max_shapes",
    "nv_target_sm",
    "nv_profile_min_shapes",
    "nv_profile_opt_shapes",
    "nv_profile_max_shapes",
];

impl Provider {
    /// Every provider that nvembed knows by name.
    pub const ALL: &'static [Self] = &[Self::Cpu, Self::Cuda, Self::TensorRt, Self::NvTensorRtRtx, Self::OpenVino];

    /// `cpu`, `cuda`, `tensorrt`, `nv-tensorrt-rtx` or `openvino`; for another one, the name that was given.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plugin(name) => name.as_str(),
            known => known.spec().name,
        }
    }

    /// Whether the provider runs on an NVIDIA GPU.
    pub fn is_gpu(self) -> bool {
        self.spec().is_gpu
    }

    /// What to load where the provider is missing, for error messages: for example "the library of PyPI's onnxruntime-gpu".
    pub fn remedy(self) -> &'static str {
        self.spec().remedy
    }

    /// The oldest ONNX Runtime that this provider was tested with, as (major, minor).
    pub fn minimum_version(self) -> (u32, u32) {
        self.spec().minimum_version
    }

    /// Whether it runs kernels of ONNX Runtime's own CUDA library.
    pub(crate) fn uses_cuda_kernels(self) -> bool {
        matches!(self, Self::Cuda | Self::TensorRt)
    }

    /// Whether the provider compiles the graph into engines.
    pub(crate) fn builds_engines(self) -> bool {
        matches!(self.spec().prepares, Prepares::Engines | Prepares::Compiled)
    }

    /// Whether what is prepared is a graph of its own, with the engine in a file beside it.
    pub(crate) fn compiles(self) -> bool {
        self.spec().prepares == Prepares::Compiled
    }

    /// The provider's entry.
    pub(crate) fn spec(self) -> &'static ProviderSpec {
        match self {
            Self::Cpu => &spec::CPU,
            Self::Cuda => &spec::CUDA,
            Self::TensorRt => &spec::TENSORRT,
            Self::NvTensorRtRtx => &spec::NV_TENSORRT_RTX,
            Self::OpenVino => &spec::OPENVINO,
            Self::Plugin(_) => &spec::PLUGIN,
        }
    }

    /// Whether the loaded library was built with this provider.
    pub(crate) fn is_built_in(self) -> bool {
        match self.spec().source {
            Source::BuiltIn { is_available, .. } => is_available().unwrap_or(false),
            Source::Plugin(_) => false,
        }
    }

    /// # Errors
    /// [`ErrorKind::Option`] for a name that is not known, unless a plugin is named with it.
    pub(crate) fn check_name(self, has_library: bool) -> Result<()> {
        match self {
            Self::Plugin(name) if !has_library => {
                let known = Self::ALL.iter().map(|provider| provider.name()).collect::<Vec<_>>().join(", ");
                let message = format!(
                    "`provider` must be one of {known}, got {:?}; another one needs its plugin, named with `provider_library`",
                    name.as_str()
                );
                Err(Error::new(ErrorKind::Option, message))
            }
            _ => Ok(()),
        }
    }

    /// Whether the provider can run the model in a folder.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] naming the model, the reason and what to do: ONNX Runtime would name some node instead.
    pub(crate) fn check_model(self, manifest: &Manifest) -> Result<()> {
        let form = Form {
            target: manifest.target(),
            precision: manifest.precision(),
            activations: manifest.quantization().map(|quantization| quantization.activations),
            direct_pooler: manifest.has_direct_pooler(),
        };
        match (self.spec().refuses)(&form) {
            None => Ok(()),
            Some(reason) => {
                let (folder, Form { target, precision, .. }) = (manifest.folder().display(), form);
                let message = format!(
                    "{folder} ({precision}, exported with --target {target}) cannot run on provider {self}: {reason}"
                );
                Err(Error::new(ErrorKind::Provider, message))
            }
        }
    }

    /// # Errors
    /// [`ErrorKind::Option`] naming an option of the provider that the runtime sets itself.
    pub(crate) fn check_provider_options(self, options: &[(String, String)]) -> Result<()> {
        match options.iter().find(|(name, _)| RESERVED.contains(&name.as_str())) {
            Some((name, _)) => {
                let message = format!("`provider_options` cannot set {name}, which follows from other options");
                Err(Error::new(ErrorKind::Option, message))
            }
            None => Ok(()),
        }
    }

    /// The one place that turns a provider and its options into ONNX Runtime's terms.
    pub(crate) fn attachment(
        self,
        gpu: &GpuOptions,
        provider_options: &[(String, String)],
        placement: &Placement,
    ) -> Attachment {
        let pairs = settings::settings(self, gpu, provider_options, placement);
        match self.spec().source {
            Source::BuiltIn { dispatch, .. } => Attachment::BuiltIn(dispatch(pairs, placement).error_on_failure()),
            Source::Plugin(_) => Attachment::Plugin { device: placement.device_id, pairs },
        }
    }
}

/// How a session gets its provider.
pub(crate) enum Attachment {
    /// The library has it.
    BuiltIn(ExecutionProviderDispatch),
    /// A plugin has it, and gets these options.
    Plugin {
        /// The number of the device among those that it offers.
        device: usize,
        pairs: Vec<(String, String)>,
    },
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Provider {
    type Err = Error;

    /// A known provider, or [`Provider::Plugin`] with a name that is not known.
    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.iter().find(|provider| provider.name() == name) {
            Some(known) => Ok(*known),
            None => PluginName::new(name).map(Self::Plugin),
        }
    }
}
