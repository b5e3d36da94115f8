//! The options of the providers, by ONNX Runtime's names.

use std::path::PathBuf;

use serde_json::json;

use super::{ArenaStrategy, GpuOptions, Provider, TargetGpu};
use crate::model::{Manifest, Precision};

/// What the runtime decides and not the caller: the device and stream of a session, and the shapes it will see.
#[derive(Debug, Clone, Default)]
pub(crate) struct Placement {
    pub(crate) device_id: usize,
    /// The address of the CUDA stream that the session shares with the copies.
    pub(crate) stream: usize,
    /// Smallest, typical and largest (B, S).
    pub(crate) profile: [(usize, usize); 3],
    /// The names of the graph's inputs; all have those shapes.
    pub(crate) inputs: Vec<String>,
    /// The cache entry with this model's engines; `None` keeps no engine.
    pub(crate) engines: Option<PathBuf>,
    /// The size of the weights in bytes.
    pub(crate) weights: u64,
    /// The precision of OpenVINO's matrix products.
    pub(crate) precision: Option<Precision>,
    /// Threads per run, which OpenVINO starts itself.
    pub(crate) threads: Option<usize>,
    /// Whether the CPU provider keeps freed memory for the next node.
    pub(crate) arena: bool,
}

impl Placement {
    /// What every GPU's session of a model has in common, for shapes from the smallest to the largest of `profile`.
    pub(crate) fn for_gpu(manifest: &Manifest, profile: [(usize, usize); 3]) -> Self {
        let inputs = manifest.contract().0.into_iter().map(|input| input.name).collect();
        Self { profile, inputs, weights: manifest.data_bytes(), ..Self::default() }
    }
}

/// Larger weights, in bytes, are handed to TensorRT beside the graph. Otherwise ONNX Runtime writes both into one protobuf
/// message for TensorRT's parser, whatever file they come from, and such a message ends at 2 GiB.
const IN_ONE_MESSAGE: u64 = 1 << 30;

/// The options of a session that only compiles, which belongs to no device.
pub(crate) fn compile_options(
    provider: Provider,
    gpu: &GpuOptions,
    provider_options: &[(String, String)],
    placement: &Placement,
    target: TargetGpu,
) -> Vec<(String, String)> {
    let mut pairs = settings(provider, gpu, provider_options, &Placement { engines: None, ..placement.clone() });
    pairs.retain(|(name, _)| !OF_PLACE.contains(&name.as_str()));
    pairs.push(("nv_target_sm".to_owned(), target.name().to_owned()));
    pairs
}

/// Options that say where a session runs.
const OF_PLACE: [&str; 3] = ["device_id", "has_user_compute_stream", "user_compute_stream"];

/// What engines depend on, of all these options: not where and for which device they are built.
pub(crate) fn engine_options(
    provider: Provider,
    gpu: &GpuOptions,
    provider_options: &[(String, String)],
    placement: &Placement,
) -> String {
    let here = Placement { engines: None, ..placement.clone() };
    let mut pairs = settings(provider, gpu, provider_options, &here);
    pairs.retain(|(name, _)| !OF_PLACE.contains(&name.as_str()));
    pairs.sort();
    pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// The options of `provider` as pairs of names and values.
pub(super) fn settings(
    provider: Provider,
    gpu: &GpuOptions,
    provider_options: &[(String, String)],
    placement: &Placement,
) -> Vec<(String, String)> {
    let mut pairs = Pairs(Vec::new());
    if provider.is_gpu() {
        pairs.set("device_id", placement.device_id);
        pairs.set("has_user_compute_stream", 1);
        pairs.set("user_compute_stream", placement.stream);
    }
    (provider.spec().settings)(&mut pairs, gpu, placement);
    for (name, value) in provider_options {
        pairs.set(name, value);
    }
    pairs.0
}

pub(super) fn for_cuda(pairs: &mut Pairs, options: &GpuOptions, _: &Placement) {
    let strategy = match options.arena_strategy {
        ArenaStrategy::SameAsRequested => "kSameAsRequested",
        ArenaStrategy::NextPowerOfTwo => "kNextPowerOfTwo",
    };
    pairs.set("arena_extend_strategy", strategy);
    if let Some(limit) = options.memory_limit {
        pairs.set("gpu_mem_limit", limit);
    }
    pairs.set("use_tf32", u8::from(options.tf32));
    pairs.set("enable_cuda_graph", u8::from(options.cuda_graphs));
}

pub(super) fn for_tensorrt(pairs: &mut Pairs, options: &GpuOptions, placement: &Placement) {
    // ONNX Runtime 1.31 makes TensorRT networks without strong types, in which a float32 residual stream may be computed in
    // the lower precision that is enabled. bf16 has float32's range, fp16 would overflow; so models are bf16 here.
    pairs.set("trt_bf16_enable", 1);
    pairs.set("trt_builder_optimization_level", options.builder_optimization_level);
    if let Some(bytes) = options.workspace {
        pairs.set("trt_max_workspace_size", bytes);
    }
    for (name, shape) in ["min", "opt", "max"].into_iter().zip(placement.profile) {
        pairs.set(&format!("trt_profile_{name}_shapes"), profile(&placement.inputs, shape));
    }
    // ONNX Runtime 1.31's TensorRT provider does not read a run's graph number: one graph would be replayed on all shapes.
    pairs.set("trt_cuda_graph_enable", 0);
    if placement.weights > IN_ONE_MESSAGE {
        pairs.set("trt_load_user_initializer", 1);
    }
    if let Some(folder) = &placement.engines {
        pairs.set("trt_engine_cache_enable", 1);
        pairs.set("trt_engine_cache_path", folder.display());
        // Timings of kernels hold for other engines too, and change with each: they are no part of the entry.
        pairs.set("trt_timing_cache_enable", 1);
        pairs.set("trt_timing_cache_path", folder.parent().unwrap_or(folder).display());
    }
}

pub(super) fn for_tensorrt_rtx(pairs: &mut Pairs, options: &GpuOptions, placement: &Placement) {
    // A plugin is told its device in another way.
    pairs.0.retain(|(name, _)| name != "device_id");
    if let Some(bytes) = options.workspace {
        pairs.set("nv_max_workspace_size", bytes);
    }
    for (name, shape) in ["min", "opt", "max"].into_iter().zip(placement.profile) {
        pairs.set(&format!("nv_profile_{name}_shapes"), profile(&placement.inputs, shape));
    }
    // It tells graphs of several shapes apart by a run option of its own, which has never been tried on a GPU.
    pairs.set("enable_cuda_graph", 0);
    if placement.weights > IN_ONE_MESSAGE {
        pairs.set("nv_use_external_data_initializer", 1);
    }
    if let Some(folder) = &placement.engines {
        // Kernels that it makes for the device at hand: no part of the entry, which may lie on another machine later.
        pairs.set("nv_runtime_cache_path", folder.parent().unwrap_or(folder).display());
    }
}

/// OpenVINO's own properties go through as JSON.
pub(super) fn for_openvino(pairs: &mut Pairs, _: &GpuOptions, placement: &Placement) {
    // Both explicit: by default OpenVINO computes fp32 models in bf16 where the processor can.
    let precision = if placement.precision == Some(Precision::Bf16) { "bf16" } else { "f32" };
    let mut properties = json!({"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision});
    if let Some(threads) = placement.threads {
        properties["INFERENCE_NUM_THREADS"] = json!(threads.to_string());
    }
    pairs.set("device_type", "CPU");
    pairs.set("load_config", json!({ "CPU": properties }));
}

/// TensorRT wants every dynamic input by name: `input_ids:1x8,attention_mask:1x8,pool_mask:1x8`.
fn profile(inputs: &[String], (rows, length): (usize, usize)) -> String {
    inputs.iter().map(|name| format!("{name}:{rows}x{length}")).collect::<Vec<_>>().join(",")
}

/// Names and values; setting a name again replaces its value.
pub(crate) struct Pairs(Vec<(String, String)>);

impl Pairs {
    fn set(&mut self, name: &str, value: impl ToString) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement() -> Placement {
        Placement {
            device_id: 3,
            stream: 0xabc,
            profile: [(1, 16), (8, 128), (32, 512)],
            inputs: ["input_ids", "attention_mask", "pool_mask"].map(str::to_owned).to_vec(),
            engines: Some(PathBuf::from("/cache/engines")),
            weights: 1 << 31,
            ..Placement::default()
        }
    }

    fn value(provider: Provider, gpu: &GpuOptions, name: &str) -> Option<String> {
        let pairs = settings(provider, gpu, &[], &placement());
        assert!(pairs.iter().filter(|(known, _)| known == name).count() <= 1, "{name} is set twice");
        pairs.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    #[test]
    fn the_cpu_has_no_options() {
        assert!(settings(Provider::Cpu, &GpuOptions::default(), &[], &placement()).is_empty());
    }

    #[test]
    fn openvino_is_told_the_models_precision_and_the_threads() {
        let told = |precision, threads| {
            let placement = Placement { precision: Some(precision), threads, ..Placement::default() };
            let pairs = settings(Provider::OpenVino, &GpuOptions::default(), &[], &placement);
            let config = &pairs.iter().find(|(name, _)| name == "load_config").unwrap().1;
            serde_json::from_str::<serde_json::Value>(config).unwrap()["CPU"].clone()
        };
        let bf16 = told(Precision::Bf16, Some(3));
        assert_eq!((&bf16["INFERENCE_PRECISION_HINT"], &bf16["INFERENCE_NUM_THREADS"]), (&json!("bf16"), &json!("3")));
        let fp32 = told(Precision::Fp32, None);
        assert_eq!(fp32["INFERENCE_PRECISION_HINT"], "f32");
        assert!(fp32.get("INFERENCE_NUM_THREADS").is_none());
    }

    #[test]
    fn every_gpu_provider_gets_the_device_and_the_shared_stream() {
        for provider in Provider::ALL.iter().copied().filter(|provider| provider.is_gpu()) {
            let of = |name| value(provider, &GpuOptions::default(), name);
            let is_plugin = provider == Provider::NvTensorRtRtx;
            assert_eq!(of("device_id").as_deref(), (!is_plugin).then_some("3"));
            assert_eq!(of("has_user_compute_stream").as_deref(), Some("1"));
            assert_eq!(of("user_compute_stream").as_deref(), Some("2748"));
        }
    }

    #[test]
    fn cuda_options_have_the_names_of_onnx_runtime() {
        let options = GpuOptions {
            memory_limit: Some(1 << 33),
            arena_strategy: ArenaStrategy::NextPowerOfTwo,
            tf32: true,
            cuda_graphs: false,
            ..GpuOptions::default()
        };
        let defaults = GpuOptions::default();
        let of = |options, name| value(Provider::Cuda, options, name);
        for (name, chosen, default) in [
            ("gpu_mem_limit", Some("8589934592"), None),
            ("arena_extend_strategy", Some("kNextPowerOfTwo"), Some("kSameAsRequested")),
            ("use_tf32", Some("1"), Some("0")),
            ("enable_cuda_graph", Some("0"), Some("1")),
        ] {
            assert_eq!(of(&options, name).as_deref(), chosen, "{name}");
            assert_eq!(of(&defaults, name).as_deref(), default, "{name} by default");
        }
    }

    #[test]
    fn tensorrt_records_no_cuda_graph_which_it_could_replay_on_other_shapes() {
        for (provider, name) in
            [(Provider::TensorRt, "trt_cuda_graph_enable"), (Provider::NvTensorRtRtx, "enable_cuda_graph")]
        {
            let of = value(provider, &GpuOptions::default(), name);
            assert_eq!(of.as_deref(), Some("0"), "{provider}");
        }
    }

    #[test]
    fn tensorrt_profiles_name_every_input() {
        let of = |name| value(Provider::TensorRt, &GpuOptions::default(), name);
        let shapes = |shape| Some(format!("input_ids:{shape},attention_mask:{shape},pool_mask:{shape}"));
        assert_eq!(of("trt_profile_min_shapes"), shapes("1x16"));
        assert_eq!(of("trt_profile_opt_shapes"), shapes("8x128"));
        assert_eq!(of("trt_profile_max_shapes"), shapes("32x512"));
        let of = |name| value(Provider::NvTensorRtRtx, &GpuOptions::default(), name);
        assert_eq!(of("nv_profile_max_shapes"), shapes("32x512"));
        assert_eq!(of("nv_runtime_cache_path").as_deref(), Some("/cache"));
    }

    #[test]
    fn a_provider_option_replaces_the_one_set_before() {
        for (provider, name) in [(Provider::Cuda, "use_tf32"), (Provider::TensorRt, "trt_bf16_enable")] {
            let extra = [(name.to_owned(), "other".to_owned())];
            let pairs = settings(provider, &GpuOptions::default(), &extra, &placement());
            let values: Vec<_> = pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| &**value).collect();
            assert_eq!(values, ["other"], "{provider}");
        }
    }

    #[test]
    fn engines_are_kept_in_their_entry_and_timings_beside_it() {
        let of = |name| value(Provider::TensorRt, &GpuOptions::default(), name);
        assert_eq!(of("trt_engine_cache_path").as_deref(), Some("/cache/engines"));
        assert_eq!(of("trt_timing_cache_path").as_deref(), Some("/cache"));
        assert_eq!(of("trt_load_user_initializer").as_deref(), Some("1"));
        let small = Placement { weights: 1 << 20, ..placement() };
        let pairs = settings(Provider::TensorRt, &GpuOptions::default(), &[], &small);
        assert!(pairs.iter().all(|(name, _)| name != "trt_load_user_initializer"));
    }

    #[test]
    fn engines_depend_on_options_and_shapes_and_not_on_the_place() {
        let of = |gpu: &GpuOptions, placement: &Placement| engine_options(Provider::TensorRt, gpu, &[], placement);
        let defaults = GpuOptions::default();
        let usual = of(&defaults, &placement());
        let elsewhere = Placement { device_id: 0, stream: 1, engines: None, ..placement() };
        assert_eq!(of(&defaults, &elsewhere), usual);
        let longer = Placement { profile: [(1, 16), (8, 128), (32, 1024)], ..placement() };
        assert_ne!(of(&defaults, &longer), usual);
        assert_ne!(of(&GpuOptions { builder_optimization_level: 5, ..defaults }, &placement()), usual);
    }

    /// The provider's library cannot be loaded without TensorRT, but its file has the names it knows.
    #[test]
    fn every_tensorrt_option_is_a_name_that_the_provider_knows() {
        let environment = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv-gpu/lib");
        let file = std::fs::read_dir(environment).ok().and_then(|pythons| {
            let capi = "site-packages/onnxruntime/capi/libonnxruntime_providers_tensorrt.so";
            pythons.flatten().map(|python| python.path().join(capi)).find(|file| file.is_file())
        });
        let Some(file) = file else {
            // `make test-gpu` has it; the other suites run these tests in a bare checkout.
            assert!(std::env::var_os("NVEMBED_REQUIRE_SHIM").is_none(), ".venv-gpu has no onnxruntime-gpu");
            use std::io::Write;
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED the names of TensorRT's options: .venv-gpu has no onnxruntime-gpu"
            );
            return;
        };
        let bytes = std::fs::read(file).unwrap();
        let options = GpuOptions { workspace: Some(1), ..GpuOptions::default() };
        for (name, _) in settings(Provider::TensorRt, &options, &[], &placement()) {
            // Its beginning may be shared with the end of a longer name.
            let whole = format!("{name}\0");
            let known = bytes.windows(whole.len()).any(|window| window == whole.as_bytes());
            assert!(known, "{name}");
        }
    }
}
