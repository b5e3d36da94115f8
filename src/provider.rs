//! Execution providers: what can be asked for, and how it is asked of ONNX Runtime.

mod explain;
mod options;
mod settings;

use std::str::FromStr;

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProvider, ExecutionProviderDispatch};

pub use options::{ArenaStrategy, CudaOptions, TensorRtOptions};

pub(crate) use explain::explain;
use settings::settings;
pub(crate) use settings::{Placement, engine_options};

use crate::error::{Error, ErrorKind, Result};
use crate::library::{Library, MINIMUM_VERSION, OPENVINO_MINIMUM_VERSION};
use crate::manifest::Manifest;
use crate::precision::{Precision, Target};

/// Where a model runs. The names are those of ONNX Runtime's execution providers.
///
/// One that cannot be had is refused clearly, and never turns into a silent run on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Provider {
    /// The host's processor.
    #[default]
    Cpu,
    /// NVIDIA GPUs through ONNX Runtime's own CUDA kernels.
    Cuda,
    /// NVIDIA GPUs through TensorRT.
    TensorRt,
    /// NVIDIA RTX GPUs through TensorRT for RTX.
    NvTensorRtRtx,
    /// The host's processor through OpenVINO, whose products are bf16 where the model is.
    OpenVino,
}

impl Provider {
    /// Every provider there is a name for.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::Cuda, Self::TensorRt, Self::NvTensorRtRtx, Self::OpenVino];

    /// The name used in options: `cpu`, `cuda`, `tensorrt`, `nv-tensorrt-rtx` or `openvino`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
            Self::NvTensorRtRtx => "nv-tensorrt-rtx",
            Self::OpenVino => "openvino",
        }
    }

    /// Whether the provider runs on an NVIDIA GPU.
    pub fn is_gpu(self) -> bool {
        matches!(self, Self::Cuda | Self::TensorRt | Self::NvTensorRtRtx)
    }

    /// What to load where the provider is missing: words for an error message.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Cpu => "the library of PyPI's onnxruntime",
            Self::Cuda | Self::TensorRt => "the library of PyPI's onnxruntime-gpu",
            Self::NvTensorRtRtx => "a library that was built with it",
            Self::OpenVino => "the library of PyPI's onnxruntime-openvino",
        }
    }

    /// Whether the provider compiles the graph into engines.
    pub(crate) fn builds_engines(self) -> bool {
        matches!(self, Self::TensorRt | Self::NvTensorRtRtx)
    }

    /// Whether the loaded library was built with this provider.
    pub(crate) fn in_library(self) -> bool {
        match self {
            Self::Cpu => ep::CPU::is_available(),
            Self::Cuda => ep::CUDA::is_available(),
            Self::TensorRt => ep::TensorRT::is_available(),
            Self::NvTensorRtRtx => ep::NVRTX::is_available(),
            Self::OpenVino => ep::OpenVINO::is_available(),
        }
        .unwrap_or(false)
    }

    /// The oldest ONNX Runtime that this provider was tested with, as (major, minor).
    pub(crate) fn minimum_version(self) -> (u32, u32) {
        if self == Self::OpenVino { OPENVINO_MINIMUM_VERSION } else { MINIMUM_VERSION }
    }

    /// # Errors
    /// [`ErrorKind::Provider`] when the library lacks the provider, naming what the library has.
    pub(crate) fn check_in_library(self, library: &Library) -> Result<()> {
        let has = library.providers();
        if has.contains(&self) {
            return Ok(());
        }
        let (major, minor) = self.minimum_version();
        let problem = if self.in_library() {
            format!("needs ONNX Runtime {major}.{minor}, {} is {}", library.path().display(), library.version())
        } else {
            let names: Vec<_> = has.into_iter().map(Self::name).collect();
            format!("is not in the loaded ONNX Runtime library, which has {}", names.join(", "))
        };
        let message = format!("execution provider {self} {problem}; load {}", self.remedy());
        Err(Error::new(ErrorKind::Provider, message))
    }

    /// Whether the provider can run what is in a model folder.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] naming the model, the reason and what to do: ONNX Runtime would name some node instead.
    pub(crate) fn check_model(self, manifest: &Manifest) -> Result<()> {
        let folder = manifest.folder().display();
        let refuse = |message: String| Err(Error::new(ErrorKind::Provider, message));
        let graph = manifest.graph_path();
        let graph = graph.display();
        match (manifest.target(), self) {
            (Target::OpenVino, Self::OpenVino)
            | (Target::Cpu, Self::Cpu)
            | (Target::TensorRt, Self::TensorRt | Self::NvTensorRtRtx) => {}
            (_, Self::OpenVino) => {
                return refuse(format!(
                    "{graph} has operators that OpenVINO does not know; export it with --target openvino"
                ));
            }
            (Target::Cpu, _) => {
                return refuse(format!(
                    "{graph} is exported for the CPU only, provider {self} cannot run it; export it with --target any"
                ));
            }
            (Target::OpenVino, _) => {
                return refuse(format!(
                    "{graph} is exported for provider openvino only, {self} cannot run it; export it with --target any, \
                     or cpu for the CPU"
                ));
            }
            (Target::TensorRt, _) => {
                return refuse(format!("{graph} is exported for TensorRT only, provider {self} cannot run it"));
            }
            // TensorRT's parser reads six inputs of an Attention node; the row lengths are the seventh, and it drops them without
            // a word.
            (Target::Any, Self::TensorRt | Self::NvTensorRtRtx) => {
                return refuse(format!(
                    "{graph} is exported with --target any, which provider {self} gets wrong: TensorRT ignores the row \
                     lengths that hide padding from attention; run the model on cuda"
                ));
            }
            (Target::Any, _) => {}
        }
        match (manifest.precision(), self) {
            (Precision::Bf16, Self::Cpu) => refuse(format!(
                "{folder} is a bf16 model, and ONNX Runtime's execution provider cpu has no bf16 matrix product; run it \
                 on cuda, export it with --target openvino and run it on openvino, or export with --precision fp32 or int8"
            )),
            (Precision::Bf16, Self::OpenVino) if !bf16_products() => refuse(format!(
                "{folder} is a bf16 model, and this processor has no bf16 products (AVX512_BF16); export with --precision fp32"
            )),
            (Precision::W8a8, Self::Cpu) if !exact_int8_products() => refuse(format!(
                "{folder} is a w8a8 model, and this processor has no VNNI: its sums of 8-bit products would overflow; export \
                 with --precision int8"
            )),
            (Precision::Fp32, Self::TensorRt | Self::NvTensorRtRtx) => refuse(format!(
                "{folder} is an fp32 model, and TensorRT has no fp32 kernel for its attention: no engine can be built; \
                 export with --precision fp16"
            )),
            (Precision::Int8 | Precision::Int4, Self::TensorRt | Self::NvTensorRtRtx) => refuse(format!(
                "{folder} is an {} model, whose MatMulNBits TensorRT does not know; run it on cuda, or export with \
                 --precision fp16",
                manifest.precision()
            )),
            _ => Ok(()),
        }
    }

    /// The one place that turns a provider and its options into ONNX Runtime's terms. Of a GPU it takes `placement`.
    pub(crate) fn dispatch(
        self,
        cuda: &CudaOptions,
        tensorrt: &TensorRtOptions,
        placement: &Placement,
    ) -> ExecutionProviderDispatch {
        let pairs = settings(self, cuda, tensorrt, placement);
        let dispatch = match self {
            // Its default, unlike ONNX Runtime's, is none.
            Self::Cpu => ep::CPU::default().with_arena_allocator(placement.arena).build(),
            Self::Cuda => configured(ep::CUDA::default(), pairs).build(),
            Self::TensorRt => configured(ep::TensorRT::default(), pairs).build(),
            Self::NvTensorRtRtx => configured(ep::NVRTX::default(), pairs).build(),
            Self::OpenVino => configured(ep::OpenVINO::default(), pairs).build(),
        };
        dispatch.error_on_failure()
    }
}

/// Whether 8-bit products are summed in 32 bits. x86 before VNNI adds two of them in 16 bits first, and saturates
/// ([ONNX Runtime, Quantize ONNX models](https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html)).
fn exact_int8_products() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512vnni") || is_x86_feature_detected!("avxvnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        true
    }
}

/// Whether bf16 products are the processor's own. OpenVINO takes bf16 as a hint, and does not say what it made of
/// it.
fn bf16_products() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

fn configured<E: ArbitrarilyConfigurableExecutionProvider>(provider: E, pairs: Vec<(String, String)>) -> E {
    pairs.into_iter().fold(provider, |provider, (key, value)| provider.with_arbitrary_config(key, value))
}

impl std::fmt::Display for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Provider {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|provider| provider.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::new(ErrorKind::Option, format!("unknown execution provider {name:?}, known are {known}"))
        })
    }
}
