//! One entry per execution provider. To add a provider, add its name to [`Provider`](super::Provider) and its entry here.

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProvider, ExecutionProviderDispatch};
use ort::memory::DeviceType;

use super::GpuOptions;
use super::settings::{self, Pairs, Placement};
use crate::machine::has_exact_int8_products;
use crate::model::{Activations, Precision, Target};

/// Everything the runtime knows about a provider.
pub(crate) struct ProviderSpec {
    /// Its name in options.
    pub(crate) name: &'static str,
    /// Whether it runs on an NVIDIA GPU.
    pub(crate) is_gpu: bool,
    /// The oldest ONNX Runtime it was tested with, as (major, minor).
    pub(crate) minimum_version: (u32, u32),
    /// What to load where it is missing.
    pub(crate) remedy: &'static str,
    /// The options that it reads, of those that not every provider does.
    pub(crate) options: &'static [&'static str],
    /// What can be done ahead of opening a model.
    pub(crate) prepares: Prepares,
    /// NVIDIA's shared libraries that it is linked to, or opens during a run; each after those it needs itself.
    pub(crate) libraries: &'static [&'static [&'static str]],
    /// Why it cannot run such a graph, and what to do; `None` when it can.
    pub(crate) refuses: fn(&Form) -> Option<&'static str>,
    /// Its options by ONNX Runtime's names.
    pub(crate) settings: fn(&mut Pairs, &GpuOptions, &Placement),
    /// How it comes.
    pub(crate) source: Source,
}

/// What a provider may refuse of a graph.
pub(crate) struct Form {
    pub(crate) target: Target,
    pub(crate) precision: Precision,
    /// Of a quantized graph.
    pub(crate) activations: Option<Activations>,
    /// The pooler's formulas as published, instead of folded.
    pub(crate) direct_pooler: bool,
}

/// How a provider comes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    /// In ONNX Runtime's library.
    BuiltIn {
        /// Whether the loaded library was built with it.
        is_available: fn() -> ort::Result<bool>,
        /// Hands it to ONNX Runtime.
        dispatch: fn(Vec<(String, String)>, &Placement) -> ExecutionProviderDispatch,
    },
    /// In a library of its own, which is registered with ONNX Runtime.
    Plugin(PluginSpec),
}

/// What is known about a plugin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PluginSpec {
    /// The name that it gives its provider; `None` when the caller says it.
    pub(crate) ep_name: Option<&'static str>,
    /// Where pip puts it; `None` when the caller names the file.
    pub(crate) package: Option<Package>,
    /// The kind of device that is used, of those it offers; `None` for any.
    pub(crate) device: Option<DeviceType>,
    /// What a machine must have for it to offer a device.
    pub(crate) needs: &'static str,
}

/// A plugin's package on PyPI.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package {
    /// Its folder in `site-packages`.
    pub(crate) folder: &'static str,
    /// The library in it.
    pub(crate) file: &'static str,
    /// Libraries that have to be loaded first, which lie in it under longer names unless the system's loader knows them; each
    /// after those it needs itself.
    pub(crate) preload: &'static [&'static str],
}

/// What [`prepare`](crate::prepare) makes for a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prepares {
    Nothing,
    /// The optimized graph with its rearranged weights.
    Graph,
    /// TensorRT's engines.
    Engines,
    /// The graph as one node with the engine that a plugin compiled, for the architecture of a GPU.
    Compiled,
}

/// The oldest ONNX Runtime on which the graphs were run: the golden embeddings of nv-embed-mini, on the CPU.
pub(crate) const MINIMUM_VERSION: (u32, u32) = (1, 31);
/// The newest library with the OpenVINO provider is a 1.24.
pub(crate) const OPENVINO_MINIMUM_VERSION: (u32, u32) = (1, 24);

/// The libraries of CUDA that ONNX Runtime's CUDA provider needs.
const CUDA_LIBRARIES: &[&str] = &[
    "libcudart.so.13",
    "libnvrtc.so.13",
    "libcublasLt.so.13",
    "libcublas.so.13",
    "libcurand.so.10",
    "libcufft.so.12",
    "libcudnn.so.9",
];

pub(super) static CPU: ProviderSpec = ProviderSpec {
    name: "cpu",
    is_gpu: false,
    minimum_version: MINIMUM_VERSION,
    remedy: "the library of PyPI's onnxruntime",
    options: &["intra_threads", "parallel_prepacking", "low_memory"],
    prepares: Prepares::Graph,
    libraries: &[],
    refuses: |form| match (form.target, form.precision) {
        (Target::OpenVino, _) => Some("export it with --target cpu, or run it on openvino"),
        (Target::TensorRt, _) => Some("export it with --target cpu"),
        (_, Precision::Bf16) => Some(
            "ONNX Runtime has no bf16 matrix product for CPUs; run it on cuda, export it with --target openvino and run it on \
             openvino, or export it with --precision fp32 or int8",
        ),
        (_, Precision::W8a8) if !has_exact_int8_products() => Some(
            "this processor has no VNNI instructions, and sums of 8-bit products would overflow; export it with --precision \
             int8",
        ),
        _ => None,
    },
    settings: |_, _, _| {},
    source: Source::BuiltIn {
        is_available: ep::CPU::is_available,
        // `ort` turns the arena off unless it is told otherwise; ONNX Runtime's own default is on.
        dispatch: |_, placement| ep::CPU::default().with_arena_allocator(placement.arena).build(),
    },
};

pub(super) static CUDA: ProviderSpec = ProviderSpec {
    name: "cuda",
    is_gpu: true,
    minimum_version: MINIMUM_VERSION,
    remedy: "the library of PyPI's onnxruntime-gpu",
    options: &[
        "provider_options",
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
    ],
    prepares: Prepares::Nothing,
    libraries: &[CUDA_LIBRARIES],
    refuses: |form| match (form.target, form.precision) {
        (_, Precision::W8a8) => {
            Some("w8a8 has kernels for CPUs only; export it with --precision fp16 and --target cuda")
        }
        (_, Precision::Int8 | Precision::Int4) if form.activations == Some(Activations::Float32) => Some(
            "its activations are float32, so that products would run in float32 and attention unfused; export it with --target \
             cuda, whose activations are float16",
        ),
        (Target::Any | Target::Cuda, _) => None,
        _ => Some("export it with --target cuda"),
    },
    settings: settings::for_cuda,
    source: Source::BuiltIn {
        is_available: ep::CUDA::is_available,
        dispatch: |pairs, _| configured(ep::CUDA::default(), pairs).build(),
    },
};

pub(super) static TENSORRT: ProviderSpec = ProviderSpec {
    name: "tensorrt",
    is_gpu: true,
    minimum_version: MINIMUM_VERSION,
    remedy: "the library of PyPI's onnxruntime-gpu",
    options: &[
        "provider_options",
        "device_ids",
        "stream",
        "buffer_sets",
        "sequence_buckets",
        "batch_buckets",
        "builder_optimization_level",
        "workspace",
        "build_on_open",
    ],
    prepares: Prepares::Engines,
    libraries: &[CUDA_LIBRARIES, &["libnvinfer.so.10", "libnvonnxparser.so.10"]],
    refuses: |form| match (form.target, form.precision) {
        (Target::TensorRt, Precision::Fp16) => Some(
            "this TensorRT may compute the float32 residual stream in fp16, which the model's large activations overflow; \
             export it with --precision bf16 and --target tensorrt, or run it on cuda",
        ),
        _ => tensorrt_refuses(form),
    },
    settings: settings::for_tensorrt,
    source: Source::BuiltIn {
        is_available: ep::TensorRT::is_available,
        dispatch: |pairs, _| configured(ep::TensorRT::default(), pairs).build(),
    },
};

pub(super) static NV_TENSORRT_RTX: ProviderSpec = ProviderSpec {
    name: "nv-tensorrt-rtx",
    is_gpu: true,
    minimum_version: MINIMUM_VERSION,
    remedy: "the plugin of PyPI's onnxruntime-ep-nv-tensorrt-rtx-cu13",
    options: &[
        "provider_library",
        "provider_options",
        "device_ids",
        "stream",
        "buffer_sets",
        "sequence_buckets",
        "batch_buckets",
        "workspace",
        "build_on_open",
        "target_gpu",
    ],
    prepares: Prepares::Compiled,
    // It brings its own, even CUDA's runtime.
    libraries: &[],
    refuses: tensorrt_rtx_refuses,
    settings: settings::for_tensorrt_rtx,
    source: Source::Plugin(PluginSpec {
        ep_name: Some("NvTensorRTRTXExecutionProvider"),
        package: Some(Package {
            folder: "onnxruntime_ep_nv_tensorrt_rtx",
            file: "libonnxruntime_providers_nv_tensorrt_rtx.so",
            preload: &["libcudart.so.13", "libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"],
        }),
        device: Some(DeviceType::GPU),
        needs: "an NVIDIA RTX GPU (compute capability 8.6, 8.9, or 12.0 and newer) with a driver for CUDA 13 (R580 or newer)",
    }),
};

/// Any other plugin. It runs on the host path, and every graph is tried: what it cannot run, ONNX Runtime refuses.
pub(super) static PLUGIN: ProviderSpec = ProviderSpec {
    name: "plugin",
    is_gpu: false,
    minimum_version: MINIMUM_VERSION,
    remedy: "its plugin with `provider_library`",
    options: &["provider_library", "intra_threads", "provider_options"],
    prepares: Prepares::Nothing,
    libraries: &[],
    refuses: |_| None,
    settings: |_, _, _| {},
    source: Source::Plugin(PluginSpec {
        ep_name: None,
        package: None,
        device: None,
        needs: "the hardware and the drivers that its documentation names",
    }),
};

pub(super) static OPENVINO: ProviderSpec = ProviderSpec {
    name: "openvino",
    is_gpu: false,
    minimum_version: OPENVINO_MINIMUM_VERSION,
    remedy: "the library of PyPI's onnxruntime-openvino",
    options: &["intra_threads", "provider_options"],
    prepares: Prepares::Nothing,
    libraries: &[],
    refuses: |form| match (form.target, form.precision) {
        (Target::OpenVino, _) if form.direct_pooler => Some(
            "OpenVINO 2025 computes the direct pooler wrongly without an error; export it with --pooler fused, which is \
             equivalent",
        ),
        (Target::OpenVino, Precision::Bf16) if !has_bf16_products() => {
            Some("this processor has no bf16 products (AVX512_BF16); export it with --precision fp32")
        }
        (Target::OpenVino, _) => None,
        _ => Some("its graph has operators that OpenVINO does not know; export it with --target openvino"),
    },
    settings: settings::for_openvino,
    source: Source::BuiltIn {
        is_available: ep::OpenVINO::is_available,
        dispatch: |pairs, _| configured(ep::OpenVINO::default(), pairs).build(),
    },
};

fn tensorrt_refuses(form: &Form) -> Option<&'static str> {
    match (form.target, form.precision) {
        // The parser reads six inputs of an Attention node; the row lengths are the seventh, and it drops them silently.
        (Target::Any, _) => Some("TensorRT ignores the row lengths that hide padding from attention; run it on cuda"),
        (Target::TensorRt, Precision::Fp32) => {
            Some("TensorRT has no fp32 kernel for attention; export it with --precision fp16")
        }
        (Target::TensorRt, Precision::Int8 | Precision::Int4) => {
            Some("TensorRT does not know MatMulNBits; run it on cuda, or export it with --precision fp16")
        }
        (Target::TensorRt, _) => None,
        _ => Some("export it with --target cuda and run it on cuda"),
    }
}

fn tensorrt_rtx_refuses(form: &Form) -> Option<&'static str> {
    match (form.target, form.precision) {
        // With 8 bits an assertion fails in its importer. With 4 bits it ended the process on the CUDA shim, which may be the
        // shim's fault; nobody has seen it on a GPU.
        (Target::TensorRt, Precision::Int8 | Precision::Int4) => {
            Some("TensorRT-RTX ends the process on MatMulNBits; run it on cuda, or export it with --precision fp16")
        }
        _ => tensorrt_refuses(form),
    }
}

fn configured<E: ArbitrarilyConfigurableExecutionProvider>(provider: E, pairs: Vec<(String, String)>) -> E {
    pairs.into_iter().fold(provider, |provider, (key, value)| provider.with_arbitrary_config(key, value))
}

/// Whether the processor has bf16 products of its own. OpenVINO takes bf16 as a hint, and does not say what it made of it.
fn has_bf16_products() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}
