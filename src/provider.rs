//! Execution providers: what can be asked for, and how it is asked of ONNX Runtime.

use std::str::FromStr;

use ort::ep::{self, ExecutionProvider};

use crate::error::{Error, ErrorKind, Result};

/// Where a model runs. The names are those of ONNX Runtime's execution providers.
///
/// Only [`Provider::Cpu`] is served so far. The others can be asked for, are refused clearly where the loaded library
/// does not have them, and never turn into a silent run on the CPU.
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
}

impl Provider {
    /// Every provider there is a name for.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Cuda, Self::TensorRt, Self::NvTensorRtRtx];

    /// The name used in options: `cpu`, `cuda`, `tensorrt` or `nv-tensorrt-rtx`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
            Self::NvTensorRtRtx => "nv-tensorrt-rtx",
        }
    }

    /// Whether the loaded library was built with this provider.
    pub(crate) fn in_library(self) -> bool {
        match self {
            Self::Cpu => ep::CPU::is_available(),
            Self::Cuda => ep::CUDA::is_available(),
            Self::TensorRt => ep::TensorRT::is_available(),
            Self::NvTensorRtRtx => ep::NVRTX::is_available(),
        }
        .unwrap_or(false)
    }

    /// The one place that turns a provider into ONNX Runtime's terms.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when the library lacks it, naming what the library has.
    pub(crate) fn dispatch(self) -> Result<ep::ExecutionProviderDispatch> {
        if !self.in_library() {
            let has: Vec<_> = Self::ALL.into_iter().filter(|one| one.in_library()).map(Self::name).collect();
            return Err(Error::new(
                ErrorKind::Provider,
                format!(
                    "execution provider {self} is not in the loaded ONNX Runtime library, which has {}; load a library \
                     built with it (onnxruntime-gpu's, for NVIDIA GPUs)",
                    has.join(", ")
                ),
            ));
        }
        let dispatch = match self {
            Self::Cpu => ep::CPU::default().build(),
            Self::Cuda => ep::CUDA::default().build(),
            Self::TensorRt => ep::TensorRT::default().build(),
            Self::NvTensorRtRtx => ep::NVRTX::default().build(),
        };
        Ok(dispatch.error_on_failure())
    }
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
